package mesh

import (
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// Peer is another node. It stays valid, though of no use, when the node is gone.
type Peer struct {
	id          string
	incarnation uint64
	slot        uint8
	since       time.Time
	link        *link         // to it
	gone        chan struct{} // closed when it is dropped
	synced      chan struct{} // closed when its first announcement is complete
	heard       atomic.Int64  // when, since the mesh began
	filters     atomic.Int64
	version     atomic.Pointer[string]

	taking sync.Mutex // held while a frame is taken; before mu
	theirs theirs

	mu      sync.Mutex
	dropped bool
	inbound uint64 // the link that comes from it; 0 none yet
	taken   uint64 // all frames up to here
	due     bool   // an ack
	again   bool   // it is to say that frames are missing
}

// ID is the node's.
func (p *Peer) ID() string { return p.id }

func (p *Peer) member() Member {
	version := ""
	if v := p.version.Load(); v != nil {
		version = *v
	}
	return Member{
		Node: p.id, Version: version, Since: p.since, Filters: int(p.filters.Load()),
		InFlight: int(p.link.inFlight.Load()),
	}
}

// former is a node that was dropped, in the incarnation that it had.
type former struct {
	incarnation uint64
	farewell    bool
}

// maxFormer bounds what is remembered of former members.
const maxFormer = 4 * maxPeers

func (m *Mesh) now() int64 { return int64(time.Since(m.began)) }

func (m *Mesh) alive(farewell bool) []byte {
	return appendAlive(appendHeader(nil, header{kindAlive, m.node, m.incarnation}), alive{farewell, m.cfg.Version})
}

func (m *Mesh) sayAlive(subject string, farewell bool) {
	if err := m.conn.Publish(subject, m.alive(farewell)); err != nil {
		m.log.Debug("mesh: heartbeat not sent", "err", err)
	}
}

func (m *Mesh) heardAlive(msg *nats.Msg) {
	h, rest, err := parseHeader(msg.Data)
	if err != nil || h.kind != kindAlive {
		m.malformed("heartbeat", err)
		return
	}
	if h.node == m.node {
		if h.incarnation != m.incarnation {
			m.log.Error("mesh: two nodes have one id", "node", h.node)
		}
		return
	}
	a, err := parseAlive(rest)
	if err != nil {
		m.malformed("heartbeat", err)
		return
	}
	if a.farewell {
		if p, ok := m.Peer(h.node); ok && p.incarnation == h.incarnation {
			m.drop(p, ErrGone, true)
		}
		return
	}
	if p := m.heard(h); p != nil {
		p.version.Store(&a.version)
	}
}

func (m *Mesh) malformed(what string, err error) {
	if err == nil {
		err = errMalformed
	}
	m.log.Warn("mesh: ignored", "what", what, "err", err)
}

// heard notes a sign of life, and makes the node a member; nil for one that is of
// the past, or more than there is room for.
func (m *Mesh) heard(h header) *Peer {
	m.mu.Lock()
	p := m.peers[h.node]
	m.mu.Unlock()
	if p != nil && p.incarnation == h.incarnation {
		p.heard.Store(m.now())
		return p
	}
	if p != nil {
		if p.incarnation > h.incarnation {
			return nil
		}
		m.drop(p, ErrGone, false) // it has restarted
	}
	return m.join(h)
}

func (m *Mesh) join(h header) *Peer {
	m.own.mu.Lock()
	m.mu.Lock()
	was, known := m.former[h.node]
	if m.closed.Load() || m.peers[h.node] != nil || known && (was.incarnation > h.incarnation || was.farewell && was.incarnation == h.incarnation) {
		m.mu.Unlock()
		m.own.mu.Unlock()
		return nil
	}
	slot := bits.TrailingZeros64(^m.others.live.Load())
	if slot >= maxPeers {
		m.mu.Unlock()
		m.own.mu.Unlock()
		m.log.Error("mesh: too many nodes", "node", h.node)
		return nil
	}
	p := &Peer{
		id: h.node, incarnation: h.incarnation, slot: uint8(slot), since: time.Now(),
		gone: make(chan struct{}), synced: make(chan struct{}),
	}
	p.heard.Store(m.now())
	p.theirs = theirs{o: m.others, slot: p.slot, texts: map[string]struct{}{}}
	p.theirs.begin()
	p.link = newLink(m, p)
	m.peers[h.node] = p
	delete(m.former, h.node)
	m.slots[slot].Store(p)
	m.others.live.Or(1 << slot)
	m.others.generation.Add(1)
	m.group.Go(p.link.run)
	m.mu.Unlock()
	m.own.mu.Unlock()
	m.sayAlive(m.broadcast(), false) // so that it knows this one at once
	p.link.signal()
	m.log.Info("node joined", "node", p.id)
	if m.h.Joined != nil {
		m.h.Joined(p.id)
	}
	if known && was.incarnation == h.incarnation && m.h.Missed != nil {
		m.h.Missed(p.id) // the silence was on both sides
	}
	return p
}

// drop ends a membership. What the peer has announced is forgotten before its slot
// is free.
func (m *Mesh) drop(p *Peer, why error, farewell bool) {
	p.mu.Lock()
	if p.dropped {
		p.mu.Unlock()
		return
	}
	p.dropped = true
	p.mu.Unlock()
	p.taking.Lock()
	p.theirs.clear()
	p.taking.Unlock()

	m.mu.Lock()
	delete(m.peers, p.id)
	if len(m.former) >= maxFormer {
		for k := range m.former {
			delete(m.former, k)
			break
		}
	}
	m.former[p.id] = former{p.incarnation, farewell}
	m.slots[p.slot].Store(nil)
	m.others.live.And(^(uint64(1) << p.slot))
	m.others.generation.Add(1)
	m.mu.Unlock()

	close(p.gone)
	p.link.fail(why)
	m.requests.gone(p, why)
	if errors.Is(why, ErrClosed) {
		return
	}
	m.log.Info("node left", "node", p.id, "clean", farewell)
	if m.h.Left != nil {
		m.h.Left(p.id, farewell)
	}
}

// beat says that this node is there, and drops who does not.
func (m *Mesh) beat() {
	tick := time.NewTicker(m.cfg.Heartbeat)
	defer tick.Stop()
	last := m.now()
	for {
		select {
		case <-m.stop:
			return
		case <-tick.C:
		}
		now := m.now()
		connected := m.conn.IsConnected()
		if connected {
			m.connected.Store(now)
			m.sayAlive(m.broadcast(), false)
		}
		m.requests.late()
		// A node that has slept itself can not tell who was silent.
		slept := time.Duration(now-last) > m.cfg.Timeout/2
		last = now
		for _, p := range m.members() {
			if slept {
				p.heard.Store(now)
			}
			if time.Duration(now-p.heard.Load()) > m.cfg.Timeout {
				why := ErrGone
				if !connected {
					why = ErrCut
				}
				m.log.Warn("mesh: the node is silent", "node", p.id, "err", why)
				m.drop(p, why, false)
				continue
			}
			p.askSync(m)
		}
	}
}

// watch has everything on its way sent again when NATS is back.
func (m *Mesh) watch() {
	back := m.conn.StatusChanged(nats.CONNECTED)
	defer m.conn.RemoveStatusListener(back)
	for {
		select {
		case <-m.stop:
			return
		case _, open := <-back:
			if !open {
				return // NATS was closed
			}
			for _, p := range m.members() {
				p.link.reconnected()
			}
		}
	}
}
