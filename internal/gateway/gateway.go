package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws"
	"flotilla/internal/bus"
	"flotilla/internal/gateway/mesh"
	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
)

// Principals says who connects.
type Principals interface {
	// Identify tells which principal holds the certificate, or why it may not connect.
	Identify(ctx context.Context, leaf *x509.Certificate) (aws.Principal, *lang.Certificate, error)
}

// Policies decide what a connection may do.
type Policies interface {
	// Open gives the authorizer of a principal's connection. conn is copied.
	Open(ctx context.Context, principal aws.Principal, conn *lang.Connection) (lang.Authorizer, error)
	// OpenNamed gives that of a connection without a principal, which the named policy
	// governs alone.
	OpenNamed(ctx context.Context, policyName string, conn *lang.Connection) (lang.Authorizer, error)
}

// Rules is the rules engine as the gateway sees it.
type Rules interface {
	// Generation changes whenever the set of rules does.
	Generation() uint64
	// Selects tells whether a rule's FROM matches the topic, and whether such a rule uses functions
	// that read other systems. It never blocks.
	Selects(topic string) (any, mayBlock bool)
	// Evaluate runs the rules that match. owed, if not nil, inserts what is to be done into the
	// publish's own write. The error is a mqtt.ReasonCode when the message is to be refused.
	Evaluate(ctx context.Context, m *mqtt.Message) (owed store.Func, err error)
}

// Deps are the others that the gateway works with.
type Deps struct {
	Account    aws.Account
	DB         *store.DB
	Bus        *bus.Bus // nil: a single node
	Principals Principals
	Policies   Policies
	Reserved   *mqtt.Mux
	Rules      Rules        // nil: none
	TLS        *tls.Config  // of the listeners; asks for a client certificate
	HTTP       http.Handler // for HTTPS on the ALPN port; nil: refused

	Domains     Domains     // nil: the deployment has one name
	Authorizers Authorizers // nil: no custom authentication
	Signatures  Signatures  // nil: nobody signs with an access key
	JustInTime  JustInTime  // nil: a certificate that is not known stays so

	// Asked answers what other rooms ask of other nodes (AskOthers), by the question's name, which has a dot. Question and answer
	// are JSON.
	Asked map[string]func(ctx context.Context, question []byte) ([]byte, error)

	// Denied, when not nil, is told what was refused to a client, repetitions within a second left out. It must not
	// block: an event loop calls it.
	Denied func(clientID string, d Denial)

	// Presence, when not nil, is told that a client has connected to this node or that its connection has ended, with
	// AWS's disconnectReason. It must not block.
	Presence func(clientID string, connected bool, reason string, at time.Time)

	Log     *slog.Logger
	Metrics *prometheus.Registry // nil: none
	Now     func() time.Time     // time.Now when nil
}

// Gateway is the room. It is safe for concurrent use.
type Gateway struct {
	cfg         Config
	limits      Limits
	maxOut      int
	maxTotalOut int64
	account     aws.Account
	db          *store.DB
	bus         *bus.Bus
	principals  Principals
	policies    Policies
	reserved    *mqtt.Mux
	rules       Rules
	asked       map[string]func(context.Context, []byte) ([]byte, error)
	domains     Domains
	authorizers Authorizers
	signatures  Signatures
	justInTime  JustInTime
	onDenied    func(string, Denial)
	onPresence  func(clientID string, connected bool, reason string, at time.Time)
	log         *slog.Logger
	now         func() time.Time
	metrics     *metrics
	topicPrefix string // of ARNs

	sessions *sessionstore.Store
	mesh     *mesh.Mesh // nil: a single node
	registry *registry
	trie     *mqtt.Trie[*subscription]
	// trieChanged counts changes of shared subscriptions' members.
	trieChanged atomic.Uint64

	pool     buffers
	outBytes atomic.Int64
	slow     slowClients
	reactors []*reactor
	nextLoop atomic.Uint32
	workers  *workers
	takers   *workers // of passOn, which workers may wait for
	denials  denials
	full     fullQueues
	direct   confirmations
	recent   recent
	watch    watch
	calendar calendar
	bridges  bridges

	door      door
	connected atomic.Int64
	accepted  atomic.Int64 // connections ever

	known      chan struct{} // closed once sessions and nodes are known
	loops      sync.WaitGroup
	background sync.WaitGroup
	stop       context.CancelFunc
	closing    atomic.Bool
}

// New makes a gateway; it listens once started.
func New(cfg Config, d Deps) (*Gateway, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	limits, err := profile(cfg.Limits)
	if err != nil {
		return nil, err
	}
	cfg.Limit.apply(&limits)
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Reserved == nil {
		d.Reserved = &mqtt.Mux{}
	}
	if (cfg.MQTTAddr != "" || cfg.HTTPSAddr != "") && d.TLS == nil {
		return nil, errors.New("gateway: TLS listeners need a TLS configuration")
	}
	g := &Gateway{
		cfg: cfg, limits: limits, maxOut: cfg.MaxOutKiB << 10, maxTotalOut: int64(cfg.MaxTotalOutMiB) << 20,
		account: d.Account, db: d.DB, bus: d.Bus, principals: d.Principals, policies: d.Policies, reserved: d.Reserved,
		rules: d.Rules, asked: d.Asked, domains: d.Domains, authorizers: d.Authorizers, signatures: d.Signatures, justInTime: d.JustInTime, onDenied: d.Denied, onPresence: d.Presence, log: d.Log, now: d.Now, metrics: newMetrics(d.Metrics), topicPrefix: d.Account.ARN("iot", "topic/"),
		known: make(chan struct{}), registry: newRegistry(), trie: mqtt.NewTrie[*subscription](),
	}
	g.slow.timeout = cfg.SlowTimeout
	if cfg.Sessions.WhenFull == "" && cfg.Limits == "aws" {
		cfg.Sessions.WhenFull = sessionstore.WhenFullDrop
	}
	cfg.Sessions.Node, cfg.Sessions.Now, cfg.Sessions.Log = cfg.NodeID, d.Now, d.Log
	g.sessions = sessionstore.New(d.DB, cfg.Sessions)
	if d.Bus != nil {
		cfg.Mesh.Log = d.Log
		g.mesh = newMesh(g, d.Bus, cfg.Mesh)
	}
	g.workers, g.takers = newWorkers(g, cfg.Workers), newWorkers(g, maxTakers)
	g.watch.init(g)
	g.bridges.init()
	g.door.init(g, d.TLS, d.HTTP)
	for range cfg.Loops {
		r, err := newReactor(g)
		if err != nil {
			return nil, err
		}
		g.reactors = append(g.reactors, r)
	}
	g.metrics.observe(g)
	return g, nil
}

// Start loads the sessions, joins the other nodes, and listens. ctx bounds the start alone.
func (g *Gateway) Start(ctx context.Context) error {
	if err := g.sessions.Load(ctx, func(s *sessionstore.Session) error { g.loadSession(s); return nil }); err != nil {
		return fmt.Errorf("gateway: sessions: %w", err)
	}
	for _, r := range g.reactors {
		g.loops.Go(func() { r.loop.Run(r) })
	}
	if g.mesh != nil {
		if err := g.mesh.Start(ctx); err != nil {
			return fmt.Errorf("gateway: other nodes: %w", err)
		}
	}
	close(g.known)
	background, stop := context.WithCancel(context.Background())
	g.stop = stop
	g.watch.start(background)
	g.background.Go(func() { g.housekeep(background) })
	if err := g.door.open(ctx); err != nil {
		return err
	}
	return nil
}

// Addrs is where the gateway listens; nil for what is off.
type Addrs struct{ MQTT, HTTPS, Plain net.Addr }

// Addrs tells where the gateway listens, once it has started.
func (g *Gateway) Addrs() Addrs { return g.door.addrs() }

// Close takes no more connections, ends those that are there, and returns when what they
// owe is written, or ctx ends.
func (g *Gateway) Close(ctx context.Context) error {
	if g.closing.Swap(true) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.DrainTimeout)
	defer cancel()
	g.door.close(ctx)
	conns := g.registry.connections()
	for _, c := range conns {
		c.end(&cause{code: mqtt.ServerShuttingDown, send: true, reason: reasonServer, detail: "the server stops"})
	}
	var errs []error
	for _, c := range conns {
		if err := c.waitGone(ctx); err != nil {
			errs = append(errs, fmt.Errorf("gateway: connections did not end in time: %w", err))
			break
		}
	}
	if g.stop != nil {
		g.stop()
	}
	g.background.Wait()
	g.workers.wait()
	g.takers.wait()
	if g.mesh != nil {
		g.mesh.Close()
	}
	for _, r := range g.reactors {
		r.loop.Close()
	}
	g.loops.Wait()
	for _, r := range g.reactors {
		r.closeAll()
	}
	g.bridges.wait(ctx)
	g.takers.wait()
	g.workers.wait()
	if err := g.sessions.AckFlush(ctx); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// end asks the connection's loop to end it.
func (c *Connection) end(why *cause) { c.r.notify(note{c: c, action: actEnd, cause: why}) }

// Publish publishes a message of the service's own: no policy is asked. It returns once
// what is owed to the absent is durable, and the message was handed to who is there. Before
// the gateway has started nobody knows who that is: then it waits.
func (g *Gateway) Publish(ctx context.Context, m *mqtt.Message) error {
	select {
	case <-g.known:
	case <-ctx.Done():
		return ctx.Err()
	}
	return g.publish(ctx, m, nil)
}

// Awaited tells whether a message of the service's own on topic would reach anybody: a
// session of this node, present or absent, a rule, or another node. Before the gateway
// has started nobody knows: then it is true. It does not block.
func (g *Gateway) Awaited(topic string) bool {
	select {
	case <-g.known:
	default:
		return true
	}
	r := &route{topic: topic}
	g.lookUp(r)
	return r.selected || len(r.targets)+len(r.groups)+len(r.peers)+len(r.elsewhere) > 0
}

// Withdraw removes messages on topic with places up to one (mqtt.Message) that wait for clients that are not connected.
// It returns once that is durable; where nobody waits it does nothing.
func (g *Gateway) Withdraw(ctx context.Context, topic string, upTo int64) error {
	select {
	case <-g.known:
	case <-ctx.Done():
		return ctx.Err()
	}
	r := &route{topic: topic}
	g.match(r)
	var absent []int64 // or on another node: the store knows
	for _, tg := range r.targets {
		if tg.sub.qos > 0 && tg.session.stored() && tg.session.conn.Load() == nil {
			absent = append(absent, tg.session.number)
		}
	}
	if len(absent) == 0 {
		return nil
	}
	return g.sessions.Withdraw(ctx, absent, topic, upTo)
}

func (g *Gateway) publish(ctx context.Context, m *mqtt.Message, extra store.Func) error {
	if err := mqtt.ValidTopicName(m.Topic); err != nil {
		return err
	}
	if m.Received.IsZero() {
		copied := *m
		copied.Received = g.now()
		m = &copied
	}
	t := turn{g: g, now: g.now()}
	if m.Recipient != "" {
		g.sendTo(&t, m)
		t.flush()
		return nil
	}
	r := &route{topic: m.Topic}
	if _, _, ok := mqtt.BasicIngest(m.Topic); ok {
		r.basicIngest = true
	}
	g.lookUp(r)
	t.pick(r, m.QoS)
	answer := make(chan error, 1)
	ow := &owed{g: g, message: m, done: func(err error) { answer <- err }}
	if extra == nil && !g.owes(&t, r, m.QoS, m.Retain) {
		out := fromMessage(m)
		out.from = g.registry.get(m.Source.ClientID)
		g.deliverAll(&t, r, &out)
		t.flush()
		ow.distributed = true
	} else {
		g.submit(&t, r, ow, extra)
		err := ow.await(ctx, answer)
		if err != nil && !ow.written.Load() {
			return err
		}
		t.now = g.now()
		g.distribute(&t, ow)
		t.flush()
		if err != nil {
			return err
		}
	}
	if len(t.left) == 0 {
		return nil
	}
	g.passLeft(&t, ow)
	return ow.await(ctx, answer)
}

// await waits for what the message owes.
func (ow *owed) await(ctx context.Context, answer <-chan error) error {
	select {
	case err := <-answer:
		if err != nil {
			ow.cancel()
			ow.g.noteRefused(ow.message.Topic, err)
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sendTo delivers to the one recipient, through a subscription of its own.
func (g *Gateway) sendTo(t *turn, m *mqtt.Message) {
	s := g.registry.get(m.Recipient)
	var c *Connection
	if s != nil {
		c = s.conn.Load()
	}
	if m.RecipientConnection != "" && (c == nil || c.id != m.RecipientConnection) {
		g.metrics.dropped("recipient-gone")
		return
	}
	if c == nil {
		if g.mesh != nil {
			for _, n := range g.mesh.Members() {
				if p, ok := g.mesh.Peer(n.Node); ok {
					_ = g.mesh.Send(p, m, nil, nil)
				}
			}
		}
		return
	}
	s.mu.Lock()
	var best *subscription
	for _, sub := range s.subs {
		if mqtt.Match(sub.filter, m.Topic) && (best == nil || sub.qos > best.qos) {
			best = sub
		}
	}
	s.mu.Unlock()
	if best == nil {
		return
	}
	out := fromMessage(m)
	tg := target{session: s, sub: best}
	g.deliverOn(t, c, &tg, &out, 0)
}

func (g *Gateway) topicARN(topic string) string { return g.topicPrefix + topic }

// loadSession takes a stored session into memory, in the place of what is there.
func (g *Gateway) loadSession(row *sessionstore.Session) *session {
	s := &session{g: g, clientID: row.ClientID, version: row.Version, number: row.Number, expiry: row.ExpirySeconds, row: row}
	for _, sub := range row.Subscriptions {
		n := &subscription{session: s, filter: sub.Filter, qos: sub.QoS, noLocal: sub.NoLocal, asPublished: sub.RetainAsPublished, share: sub.Group}
		s.add(n)
		g.addToTrie(n)
	}
	row.Subscriptions = nil
	if old := g.registry.put(s); old != nil {
		g.endSession(old)
	}
	return s
}

// housekeep expires sessions and publishes wills whose time has come.
func (g *Gateway) housekeep(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var tidy tidy
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		tidy.check(g.accepted.Load(), g.connected.Load())
		g.keepTerms(g.now())
		g.publishWills(ctx)
		if n%5 != 0 {
			continue
		}
		ended, err := g.sessions.Expire(ctx)
		if err != nil && ctx.Err() == nil {
			g.log.Error("sessions can't be expired", "err", err)
		}
		for _, e := range ended {
			if s := g.registry.get(e.ClientID); s != nil && s.number == e.Number {
				g.endSession(s)
				g.sessionChanged(ctx, e.ClientID)
			}
		}
		g.recent.expire(g.now())
	}
}

func (g *Gateway) publishWills(ctx context.Context) {
	wills, err := g.sessions.Wills(ctx, 100)
	if err != nil {
		if ctx.Err() == nil {
			g.log.Error("wills can't be read", "err", err)
		}
		return
	}
	for _, w := range wills {
		m := *w.Message
		m.Received = g.now()
		err := g.publish(ctx, &m, func(ctx context.Context, tx store.Tx) error {
			return g.sessions.ClearWill(ctx, tx, w.ClientID, w.Epoch)
		})
		if err != nil && ctx.Err() == nil {
			g.log.Error("a will can't be published", "clientId", w.ClientID, "topic", m.Topic, "err", err)
		}
	}
}
