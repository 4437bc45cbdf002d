package mesh

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"flotilla/internal/bus"
	"flotilla/internal/mqtt"
)

var (
	// ErrFull says that too much is on its way to a peer; nothing was sent.
	ErrFull = errors.New("mesh: too much is on its way to the node")
	// ErrGone says that the peer was dropped from the members before it had
	// acknowledged: what was only owed to its connected clients is owed no more.
	ErrGone = errors.New("mesh: the node is gone")
	// ErrCut says that the peer was dropped while this node had no connection to
	// NATS: it is this node that is gone, and the peer's clients may be there.
	ErrCut = errors.New("mesh: this node is cut off")
	// ErrSilent says that the peer has not told in time what became of a message for
	// its groups: they may have it or not.
	ErrSilent = errors.New("mesh: the node does not say what became of the message")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("mesh: closed")
)

// Config is what an operator may set; its zero value works.
type Config struct {
	MaxInFlight int           `name:"mesh.max-in-flight" default:"4194304" help:"Most bytes of messages on their way to one other node."`
	Heartbeat   time.Duration `name:"mesh.heartbeat" default:"500ms" help:"How often a node tells the others that it is there."`
	Timeout     time.Duration `name:"mesh.timeout" default:"2500ms" help:"How long a node may be silent before it is dropped."`

	// Version is this program's, shown to the other nodes.
	Version string       `kong:"-" toml:"-"`
	Log     *slog.Logger `kong:"-" toml:"-"`
}

// Handlers are called for what other nodes send. nil members do nothing. Deliver
// and Nudge run on the link's only goroutine, in order, and must not block; Kick and
// SessionChanged run on a few goroutines of their own, with a deadline, in no order.
type Handlers struct {
	// Deliver gives a message to this node's own matching subscriptions that no
	// queue serves, and to a member of each of groups ($share/name/filter); it
	// returns those of which no member here took it. The message is the caller's
	// to keep. The sender's PUBACK may follow its return.
	Deliver func(m *mqtt.Message, groups []string) (untaken []string)
	// Nudge tells that message id was queued for a client that may be connected here.
	Nudge func(clientID string, id int64)
	// Kick ends a connection of the client id with an epoch below the given one,
	// if this node has it, and returns when it has ended.
	Kick func(ctx context.Context, clientID string, epoch int64)
	// SessionChanged reloads a session and its subscriptions from the store. An
	// error is logged by the caller, and the peer counts as told.
	SessionChanged func(ctx context.Context, clientID string) error
	// Joined and Left tell of members; Left of those that were silent or said
	// farewell (clean). They must not block.
	Joined func(node string)
	Left   func(node string, clean bool)
	// Answer answers a question of another node (Ask), which waits no longer than ctx.
	// Several run at once, each on a goroutine of its own. An error is logged by the
	// caller; the other node learns only that there was one.
	Answer func(ctx context.Context, question []byte) (answer []byte, err error)
	// Missed tells that another node had dropped this one: messages for this
	// node's clients were acknowledged without it, and nudges may be lost. It is
	// called once the link is whole again. It must not block.
	Missed func(node string)
}

func (c Config) withDefaults() Config {
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = 4 << 20
	}
	if c.Heartbeat <= 0 {
		c.Heartbeat = 500 * time.Millisecond
	}
	if c.Timeout <= 0 {
		c.Timeout = 2500 * time.Millisecond
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Member describes a node.
type Member struct {
	Node    string
	Version string
	Since   time.Time // joined, as this node saw it
	// InFlight is how many bytes of messages are on their way to it.
	InFlight int
	// Filters is how many filters it has announced.
	Filters int
}

// Mesh is this node's place among the nodes. It is safe for concurrent use.
type Mesh struct {
	cfg         Config
	log         *slog.Logger
	h           Handlers
	conn        *nats.Conn
	prefix      string
	node        string
	incarnation uint64
	began       time.Time
	links       atomic.Uint64
	subs        []*nats.Subscription
	listening   sync.WaitGroup  // of subs' goroutines
	ctx         context.Context // of handlers
	cancel      context.CancelFunc
	stop        chan struct{}
	group       sync.WaitGroup
	closed      atomic.Bool
	ackDue      chan struct{}
	connected   atomic.Int64 // when NATS was last seen connected, since began

	own    own
	others *others

	mu     sync.Mutex // membership
	peers  map[string]*Peer
	slots  [maxPeers]atomic.Pointer[Peer]
	former map[string]former // nodes that were dropped

	requests  requests
	jobs      jobs
	questions questions
}

// New returns the mesh over b's NATS connection.
func New(b *bus.Bus, cfg Config, h Handlers) *Mesh {
	m := &Mesh{
		cfg: cfg.withDefaults(), h: h, conn: b.Conn(), prefix: b.Prefix(), node: b.NodeID(),
		incarnation: uint64(time.Now().UnixNano()), began: time.Now(), stop: make(chan struct{}), ackDue: make(chan struct{}, 1),
		own:    own{exact: map[uint64]uint32{}, texts: map[string]uint32{}},
		others: newOthers(), peers: map[string]*Peer{}, former: map[string]former{},
	}
	m.log = m.cfg.Log
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.requests.waiting = map[uint64]*waiting{}
	return m
}

func (m *Mesh) nextLink() uint64 { return m.links.Add(1) }

// subject of a kind for a node, whose id may have any bytes.
func (m *Mesh) subject(kind, node string) string {
	return m.prefix + ".mesh." + kind + "." + base64.RawURLEncoding.EncodeToString([]byte(node))
}

func (m *Mesh) broadcast() string { return m.prefix + ".mesh.all" }
func (m *Mesh) hello() string     { return m.prefix + ".mesh.hello" }

// discovery is how long Start waits for nodes to show up when there is at least one.
const discovery = 250 * time.Millisecond

// Start joins: it returns once the nodes that are there know this one and this one
// knows their interest. Until then this node should take no connections. Alone it
// takes no time.
func (m *Mesh) Start(ctx context.Context) error {
	if m.node == "" || len(m.node) > maxNodeID {
		return fmt.Errorf("mesh: a node id has 1 to %d bytes", maxNodeID)
	}
	m.connected.Store(int64(time.Since(m.began)))
	for _, s := range []struct {
		subject string
		fn      nats.MsgHandler
	}{{m.subject("d", m.node), m.heardFrame}, {m.subject("a", m.node), m.heardAck}, {m.subject("q", m.node), m.heardQuestion}, {m.broadcast(), m.heardAlive}} {
		if err := m.subscribe(s.subject, s.fn); err != nil {
			return err
		}
	}
	m.group.Go(m.beat)
	m.group.Go(m.sendAcks)
	m.group.Go(m.watch)
	m.sayAlive(m.broadcast(), false)
	alone, err := m.discover(ctx)
	if err != nil {
		return err
	}
	if err := m.subscribe(m.hello(), func(msg *nats.Msg) {
		if m.heardAlive(msg); msg.Reply != "" {
			m.sayAlive(msg.Reply, false)
		}
	}); err != nil {
		return err
	}
	if err := m.conn.FlushTimeout(5 * time.Second); err != nil {
		return fmt.Errorf("mesh: %w", err)
	}
	if alone {
		return nil
	}
	return m.awaitSync(ctx)
}

func (m *Mesh) subscribe(subject string, fn nats.MsgHandler) error {
	sub, err := m.conn.Subscribe(subject, fn)
	if err != nil {
		return fmt.Errorf("mesh: subscribe: %w", err)
	}
	m.subs = append(m.subs, sub)
	m.listening.Add(1)
	sub.SetClosedHandler(func(string) { m.listening.Done() })
	// What is on its way is bounded by the links.
	return sub.SetPendingLimits(-1, -1)
}

// discover asks who is there; when nobody is NATS itself says so.
func (m *Mesh) discover(ctx context.Context) (alone bool, err error) {
	t := time.NewTimer(discovery)
	defer t.Stop()
	short, cancel := context.WithTimeout(ctx, discovery)
	defer cancel()
	msg, err := m.conn.RequestWithContext(short, m.hello(), m.alive(false))
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return true, nil
	case err == nil:
		m.heardAlive(msg)
	case short.Err() == nil:
		return false, fmt.Errorf("mesh: hello: %w", err)
	}
	select {
	case <-t.C:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// awaitSync returns once all members are in step.
func (m *Mesh) awaitSync(ctx context.Context) error {
	for _, p := range m.members() {
		told := make(chan struct{})
		p.link.record(nil, func(error) { close(told) })
		for _, c := range []chan struct{}{told, p.synced} {
			select {
			case <-c:
			case <-p.gone:
			case <-ctx.Done():
				return fmt.Errorf("mesh: %s does not answer: %w", p.id, ctx.Err())
			}
		}
	}
	return nil
}

// closeWait is how long Close waits for what is on its way.
const closeWait = time.Second

// Close says farewell and ends all that was started; what has not been acknowledged
// within a second ends with ErrClosed.
func (m *Mesh) Close() {
	if !m.closed.CompareAndSwap(false, true) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	for _, p := range m.members() {
		told := make(chan struct{})
		p.link.record(nil, func(error) { close(told) })
		select {
		case <-told:
		case <-ctx.Done():
		}
	}
	m.sayAlive(m.broadcast(), true)
	_ = m.conn.FlushWithContext(ctx)
	for _, s := range m.subs {
		_ = s.Unsubscribe()
	}
	_ = m.conn.FlushWithContext(ctx)
	m.listening.Wait()
	close(m.stop)
	m.cancel()
	for _, p := range m.members() {
		m.drop(p, ErrClosed, true)
	}
	m.group.Wait()
	m.jobs.group.Wait()
	m.questions.group.Wait()
}

// Alone tells that there is no other node.
func (m *Mesh) Alone() bool { return m.others.live.Load() == 0 }

// members is a snapshot, by id.
func (m *Mesh) members() []*Peer {
	m.mu.Lock()
	all := make([]*Peer, 0, len(m.peers))
	for _, p := range m.peers {
		all = append(all, p)
	}
	m.mu.Unlock()
	slices.SortFunc(all, func(a, b *Peer) int { return strings.Compare(a.id, b.id) })
	return all
}

// Members are the other nodes, by id.
func (m *Mesh) Members() []Member {
	var out []Member
	for _, p := range m.members() {
		out = append(out, p.member())
	}
	return out
}

// Peers are the other nodes, by id.
func (m *Mesh) Peers() []*Peer { return m.members() }

// Peer returns a member.
func (m *Mesh) Peer(node string) (*Peer, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.peers[node]
	return p, ok
}

// Generation changes whenever Interested or Groups may give something else: what
// they gave may be kept for as long as the generation read before lasts.
func (m *Mesh) Generation() uint64 { return m.others.generation.Load() }

// Interested calls visit for each peer that may have a subscription matching topic,
// once each.
func (m *Mesh) Interested(topic string, visit func(*Peer)) {
	for found := m.others.match(topic); found != 0; found &= found - 1 {
		if p := m.slots[bits.TrailingZeros64(found)].Load(); p != nil {
			visit(p)
		}
	}
}

// Groups calls visit for each shared subscription ($share/name/filter) that matches
// topic on a peer. The caller picks one of all members, its own included, and sends
// with that group.
func (m *Mesh) Groups(topic string, visit func(group string, p *Peer)) {
	if m.others.groupCount.Load() == 0 {
		return
	}
	live := m.others.live.Load()
	m.others.groups.Match(topic, func(g groupAt) {
		if p := m.slots[g.slot].Load(); p != nil && live&(1<<g.slot) != 0 {
			visit(g.filter, p)
		}
	})
}

// Announce tells all peers of filters of this node's clients: counted, so that each
// is to be removed as often as it was added. Filters of shared subscriptions are
// announced as they are. It returns once all live peers know of those added; with
// nothing to add it does not wait. When ctx ends first, they will know later.
func (m *Mesh) Announce(ctx context.Context, add, remove []string) error {
	var wait sync.WaitGroup
	m.own.mu.Lock()
	d := m.own.change(add, remove)
	if m.Alone() || d.empty() && len(add) == 0 {
		m.own.mu.Unlock()
		return nil
	}
	var records [][]byte
	d.records(func(r []byte) { records = append(records, r) })
	var done func(error)
	if len(add) > 0 {
		done = func(error) { wait.Done() } // a peer that is gone needs not know
	}
	for _, p := range m.members() {
		if done != nil {
			wait.Add(1)
		}
		p.link.record(records, done)
	}
	m.own.mu.Unlock()
	if done == nil {
		return nil
	}
	told := make(chan struct{})
	go func() { wait.Wait(); close(told) }()
	select {
	case <-told:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Send hands a message to a peer's link, in order with what was sent before; it does
// not block and does not keep msg. With an error nothing was sent, and done is not
// called: ErrFull, or ErrGone, ErrCut, ErrClosed for a peer that is no member.
// Otherwise done, if not nil, is called once: nil when the peer has delivered the
// message to its clients, *UntakenError when that is so but for some of groups, else
// ErrGone, ErrCut or ErrClosed, or with groups ErrSilent. It is called on the
// mesh's goroutines and must not block. QoS 0 messages go the same way; pass nil.
func (m *Mesh) Send(p *Peer, msg *mqtt.Message, groups []string, done func(error)) error {
	return p.link.message(msg, groups, done)
}

// SendWait is Send that waits for room while the link is full, until ctx ends.
func (m *Mesh) SendWait(ctx context.Context, p *Peer, msg *mqtt.Message, groups []string, done func(error)) error {
	return p.link.messageWait(ctx, msg, groups, done)
}

// Nudge tells a node that message id was queued for a client connected there. It
// is dropped when the node is no member.
func (m *Mesh) Nudge(node, clientID string, id int64) {
	if p, ok := m.Peer(node); ok {
		p.link.record([][]byte{appendNudge(nil, clientID, id)}, nil)
	}
}
