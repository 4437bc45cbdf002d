package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"

	"flotilla/internal/gateway/mesh"
	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// A QoS 1 message of a shared subscription is acknowledged once one member took it: a connection here or on another
// node that was given it, or a queue. Who was picked may be gone by then, may not receive it, or be on a node that
// dies: then it is passed on to another, see passOn.

// peerGroup is a shared subscription with members of clean sessions on another node.
type peerGroup struct {
	filter string
	peer   *mesh.Peer
}

// peerSend is a message's way to another node: to those who are interested, and to a member of
// each of groups.
type peerSend struct {
	peer   *mesh.Peer
	groups []string
}

// queued tells whether the member gets messages of that QoS by way of a queue.
func (s *subscription) queued(qos byte) bool { return qos > 0 && s.qos > 0 && s.session.stored() }

// shareTarget is the queue of a member, or while its client is away that of the group.
func (s *subscription) shareTarget() sessionstore.Target {
	if !s.session.connected() && s.share != 0 {
		return sessionstore.Target{Session: s.share, Name: s.filter}
	}
	return sessionstore.Target{Session: s.session.number, Group: s.share, Name: s.session.clientID}
}

// pick chooses a member of each shared subscription of the route, and the nodes that the message
// is sent to. It returns false in a loop when a worker must do that.
func (t *turn) pick(r *route, qos byte) bool {
	t.picked, t.sends = t.picked[:0], t.sends[:0]
	if len(r.peers) == 0 && len(r.elsewhere) == 0 {
		for _, gr := range r.groups {
			s, _, ok := gr.choose(t, r.topic, anyMember, nil)
			if !ok {
				return false
			}
			if s != nil {
				t.take(s, qos)
			}
		}
		return true
	}
	for _, p := range r.peers {
		t.sends = append(t.sends, peerSend{peer: p})
	}
	members := map[string][]*mesh.Peer{}
	for _, e := range r.elsewhere {
		members[e.filter] = append(members[e.filter], e.peer)
	}
	for _, gr := range r.groups {
		s, here, ok := gr.choose(t, r.topic, anyMember, nil)
		if !ok {
			return false
		}
		peers := members[gr.filter]
		delete(members, gr.filter)
		if n := len(peers); n > 0 && rand.IntN(here+n) >= here {
			t.sendToGroup(peers[rand.IntN(n)], gr.filter)
		} else if s != nil {
			t.take(s, qos)
		}
	}
	for filter, peers := range members {
		t.sendToGroup(peers[rand.IntN(len(peers))], filter)
	}
	return true
}

// take picks a member. What no queue carries to a member on another node is sent to its group there.
func (t *turn) take(s *subscription, qos byte) {
	if !s.queued(qos) && s.session.conn.Load() == nil {
		if p := s.session.peer(); p != nil {
			t.sendToGroup(p, s.filter)
			return
		}
	}
	t.picked = append(t.picked, s)
}

func (t *turn) sendToGroup(p *mesh.Peer, filter string) {
	for i := range t.sends {
		if t.sends[i].peer == p {
			t.sends[i].groups = append(t.sends[i].groups, filter)
			return
		}
	}
	t.sends = append(t.sends, peerSend{p, []string{filter}})
}

// eligible tells which members choose may pick.
type eligible func(s *subscription) bool

func anyMember(*subscription) bool { return true }

// choose picks a member of a shared subscription that a message of topic goes to: one that is connected, here or, when
// its session is stored, anywhere, and may receive it, at random; else one who is away and whose session is stored, for
// the group's queue; nil when there is none. here is how many are connected, 0 when none of them may receive it. Members
// that are not eligible, or among not, are left out. ok is false when that can't be told without blocking: a worker must choose.
func (gr *group) choose(t *turn, topic string, may eligible, not []*subscription) (s *subscription, here int, ok bool) {
	candidates := t.members[:0]
	defer func() {
		clear(candidates)
		t.members = candidates[:0]
	}()
	gr.mu.RLock()
	var absent *subscription
	for _, m := range gr.members {
		switch {
		case !may(m) || len(not) > 0 && slices.Contains(not, m):
		case m.session.connected():
			candidates = append(candidates, m)
		case m.session.stored():
			absent = m
		}
	}
	gr.mu.RUnlock()
	here = len(candidates)
	for left := here; left > 0; left-- {
		i := rand.IntN(left)
		m := candidates[i]
		c := m.session.conn.Load()
		if c == nil {
			return m, here, true // on another node, or just gone
		}
		tg := target{session: m.session, sub: m}
		switch c.mayReceive(t, &tg, topic) {
		case yes:
			return m, here, true
		case unknown:
			return nil, here, false
		}
		candidates[i] = candidates[left-1]
	}
	return absent, 0, true
}

// deliverShared gives a message to a member that is connected here. It has taken it unless its connection is
// ending, or it may not receive it.
func (g *Gateway) deliverShared(t *turn, s *subscription, m *outgoing) (taken bool) {
	c := s.session.conn.Load()
	if c == nil {
		return false
	}
	tg := target{session: s.session, sub: s}
	if c.mayReceive(t, &tg, m.topic) != yes {
		return false
	}
	c.deliver(t, m, min(m.qos, s.qos), m.retain && s.asPublished, 0)
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed
}

// takeHere gives another node's message to a member of a group here that no queue serves; false when there is none
// that takes it.
func (g *Gateway) takeHere(t *turn, filter string, m *outgoing) bool {
	gr := g.registry.group(filter)
	if gr == nil {
		return false
	}
	var tried []*subscription
	for {
		s, _, _ := gr.choose(t, m.topic, func(s *subscription) bool { return s.session.conn.Load() != nil && !s.queued(m.qos) }, tried)
		if s == nil {
			return false
		}
		if g.deliverShared(t, s, m) {
			return true
		}
		tried = append(tried, s)
	}
}

// publishLeft answers a PUBLISH, of which nothing else is owed, when others have taken what t.left did not.
func (c *Connection) publishLeft(t *turn, r *route, p *mqtt.Publish) {
	ow := &owed{g: c.g, c: c, acks: true, message: c.message(t, r, p), route: r, distributed: true}
	ow.place, _ = c.oweAck(p.PacketID)
	c.g.passLeft(t, ow)
}

// passLeft passes the message on for those in t.left; ow is settled once others took it.
func (g *Gateway) passLeft(t *turn, ow *owed) {
	ow.waits.Store(int32(len(t.left)))
	for _, s := range t.left {
		g.takers.run(func() { g.passOn(ow, &attempts{filter: s.filter, members: []*subscription{s}}) })
	}
	t.left = t.left[:0]
}

// attempts are those that did not take a message of a shared subscription.
type attempts struct {
	filter  string
	members []*subscription
	peers   []*mesh.Peer
}

// untakenOf are those of groups that a node, by its answer, did not take a message for. A node that is gone, or does
// not say, may have it: then a member may get it twice.
func untakenOf(groups []string, answer error) ([]string, error) {
	var untaken *mesh.UntakenError
	switch {
	case errors.As(answer, &untaken):
		return untaken.Groups, nil
	case errors.Is(answer, mesh.ErrGone), errors.Is(answer, mesh.ErrSilent):
		return groups, nil // what it had for others were connected clean sessions, which are gone with it
	}
	return nil, answer
}

// maxTakers is how many messages are passed on at a time; others wait. They are owed to publishers, and bounded with
// what those may have unanswered.
const maxTakers = 16

// passOn finds another that takes a QoS 1 message of a shared subscription: a member here, a node, at last the queue
// of a member whose session is stored. When nobody is left the message has no receiver. It calls ow.one, once.
func (g *Gateway) passOn(ow *owed, a *attempts) {
	t := turn{g: g, now: g.now()}
	defer t.flush()
	m := fromMessage(ow.message)
	gr := g.registry.group(a.filter)
	for {
		peers := g.peersOf(a, m.topic)
		var s *subscription
		here := 0
		if gr != nil {
			s, here, _ = gr.choose(&t, m.topic, anyMember, a.members)
		}
		switch n := len(peers); {
		case n > 0 && rand.IntN(here+n) >= here:
			g.passToPeer(ow, a, peers[rand.IntN(n)])
			return
		case s == nil:
			g.metrics.dropped("no-member")
			ow.one(nil)
			return
		case s.queued(m.qos):
			g.passToQueue(ow, s)
			return
		}
		a.members = append(a.members, s)
		if p := s.session.peer(); p != nil && s.session.conn.Load() == nil {
			g.passToPeer(ow, a, p)
			return
		}
		if g.deliverShared(&t, s, &m) {
			ow.one(nil)
			return
		}
	}
}

// peersOf are the nodes with members of clean sessions that were not tried.
func (g *Gateway) peersOf(a *attempts, topic string) (peers []*mesh.Peer) {
	if g.mesh == nil {
		return nil
	}
	g.mesh.Groups(topic, func(filter string, p *mesh.Peer) {
		if filter == a.filter && !slices.Contains(a.peers, p) {
			peers = append(peers, p)
		}
	})
	return peers
}

func (g *Gateway) passToPeer(ow *owed, a *attempts, p *mesh.Peer) {
	a.peers = append(a.peers, p)
	groups := []string{a.filter}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	done := func(err error) {
		groups, err := untakenOf(groups, err)
		if len(groups) == 0 {
			ow.one(err)
			return
		}
		g.takers.run(func() { g.passOn(ow, a) })
	}
	if err := g.mesh.SendWait(ctx, p, ow.message, groups, done); err != nil {
		done(err)
	}
}

// passToQueue has a stored session's queue, or its group's, take the message.
func (g *Gateway) passToQueue(ow *owed, s *subscription) {
	q := &queuedCopy{targets: []sessionstore.Target{s.shareTarget()}, arrive: []target{{session: s.session, sub: s}}}
	var err error
	if q.reserve, err = g.sessions.Reserve(ow.message, 0, q.targets); err != nil {
		ow.one(err)
		return
	}
	g.db.WriteAsync(func(ctx context.Context, tx store.Tx) error { return q.reserve.Enqueue(ctx, tx) }, func(err error) {
		if err != nil {
			q.reserve.Cancel()
			ow.one(err)
			return
		}
		g.takers.run(func() {
			t := turn{g: g, now: g.now()}
			m := fromMessage(ow.message)
			g.arrived(&t, q, &m)
			t.flush()
			ow.one(nil)
		})
	})
}
