package gateway

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"flotilla/internal/gateway/mesh"
	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// owed is a message that something is owed for before it is delivered and acknowledged.
type owed struct {
	g       *Gateway
	c       *Connection // publisher; nil: done is called instead
	done    func(error)
	place   uint32 // among c's answers
	acks    bool
	message *mqtt.Message
	route   *route
	picked  []*subscription
	sends   []peerSend
	copies  []queuedCopy
	waits   atomic.Int32
	err     atomic.Pointer[error]
	written atomic.Bool // what it owes is committed
	// distributed tells that who is here has been given it: what is waited for since is a taker for its groups.
	distributed bool
}

// queuedCopy is room for the message in the queues of targets, a message of its own there: a
// session that matches by itself and as a member of a group gets two.
type queuedCopy struct {
	reserve *sessionstore.Reservation
	targets []sessionstore.Target
	arrive  []target // to whom it goes when it is committed
}

// publishOwed writes what is owed; delivery and PUBACK follow its commit, see settled.
func (c *Connection) publishOwed(t *turn, r *route, p *mqtt.Publish) verdict {
	ow := &owed{g: c.g, c: c, acks: p.QoS > 0, message: c.message(t, r, p)}
	if ow.acks {
		ow.place, _ = c.oweAck(p.PacketID)
	}
	c.g.submit(t, r, ow, nil)
	if c.version != mqtt.V5 && c.windowFull() {
		return holdBack
	}
	return goOn
}

func (c *Connection) windowFull() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acks.entries) >= c.g.limits.ReceiveMaximum
}

// submit has what is owed for ow.message written, extra with it, and settles it afterwards.
func (g *Gateway) submit(t *turn, r *route, ow *owed, extra store.Func) {
	r.lent = true
	ow.route, ow.picked, ow.sends = r, slices.Clone(t.picked), slices.Clone(t.sends)
	var outbox store.Func
	if r.selected && ow.message.Recipient == "" {
		var err error
		ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
		outbox, err = g.rules.Evaluate(ctx, ow.message)
		cancel()
		if err != nil {
			g.settleNow(t, ow, err)
			return
		}
	}
	ow.copies = g.copies(ow)
	queued := false
	for i := range ow.copies {
		reserve, err := g.sessions.Reserve(ow.message, 0, ow.copies[i].targets)
		if err != nil {
			ow.cancel()
			ow.copies = nil
			g.settleNow(t, ow, err)
			return
		}
		ow.copies[i].reserve = reserve
		queued = queued || !reserve.Empty()
	}
	retain := ow.message.Retain && !r.basicIngest
	writes := queued || outbox != nil || retain || extra != nil
	peers := 0
	if ow.message.QoS > 0 {
		peers = len(ow.sends)
	} else if len(ow.sends) > 0 {
		m := fromMessage(ow.message)
		g.sendToPeers(ow.sends, &m)
	}
	if !writes && peers == 0 {
		g.settleNow(t, ow, nil)
		return
	}
	ow.waits.Store(int32(peers))
	if writes {
		ow.waits.Add(1)
	}
	for i := range peers {
		g.sendOwed(ow.sends[i], ow)
	}
	if !writes {
		return
	}
	g.db.WriteAsync(func(ctx context.Context, tx store.Tx) error {
		if retain {
			if err := g.sessions.Retain(ctx, tx, ow.message); err != nil {
				return err
			}
		}
		for i := range ow.copies {
			if err := ow.copies[i].reserve.Enqueue(ctx, tx); err != nil {
				return err
			}
		}
		if outbox != nil {
			if err := outbox(ctx, tx); err != nil {
				return err
			}
		}
		if extra != nil {
			return extra(ctx, tx)
		}
		return nil
	}, func(err error) {
		ow.written.Store(err == nil)
		ow.one(err)
	})
}

// sendOwed sends to another node, whose acknowledgement is waited for.
func (g *Gateway) sendOwed(to peerSend, ow *owed) {
	done := func(err error) {
		groups, err := untakenOf(to.groups, err)
		if len(groups) == 0 {
			ow.one(err)
			return
		}
		ow.waits.Add(int32(len(groups) - 1))
		for _, filter := range groups {
			g.takers.run(func() { g.passOn(ow, &attempts{filter: filter, peers: []*mesh.Peer{to.peer}}) })
		}
	}
	err := g.mesh.Send(to.peer, ow.message, to.groups, done)
	if errors.Is(err, mesh.ErrFull) {
		g.workers.run(func() {
			ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
			defer cancel()
			if err := g.mesh.SendWait(ctx, to.peer, ow.message, to.groups, done); err != nil {
				done(err)
			}
		})
		return
	}
	if err != nil {
		done(err)
	}
}

// one is called when one of the things that ow waits for is done.
func (ow *owed) one(err error) {
	if err != nil {
		ow.err.Store(&err)
	}
	if ow.waits.Add(-1) > 0 {
		return
	}
	if ow.c != nil {
		ow.c.r.notify(note{c: ow.c, action: actSettled, owed: ow})
		return
	}
	ow.done(ow.failure())
}

func (ow *owed) failure() error {
	if e := ow.err.Load(); e != nil {
		return *e
	}
	return nil
}

func (g *Gateway) settleNow(t *turn, ow *owed, err error) {
	if err != nil {
		ow.err.Store(&err)
	}
	if ow.c != nil {
		g.settled(t, ow)
		return
	}
	ow.done(err)
}

// copies are the queues that get a copy.
func (g *Gateway) copies(ow *owed) []queuedCopy {
	if ow.message.QoS == 0 || ow.message.Recipient != "" {
		return nil
	}
	var out []queuedCopy
	add := func(to sessionstore.Target, tg target) {
		for i := range out {
			if !slices.ContainsFunc(out[i].targets, func(t sessionstore.Target) bool { return t.Session == to.Session }) {
				out[i].targets, out[i].arrive = append(out[i].targets, to), append(out[i].arrive, tg)
				return
			}
		}
		out = append(out, queuedCopy{targets: []sessionstore.Target{to}, arrive: []target{tg}})
	}
	for i := range ow.route.targets {
		tg := &ow.route.targets[i]
		if tg.sub.qos == 0 || !tg.session.stored() || tg.sub.noLocal && tg.session.clientID == ow.message.Source.ClientID {
			continue
		}
		to := sessionstore.Target{Session: tg.session.number, RetainAsPublished: tg.sub.asPublished, Name: tg.session.clientID}
		to.Absent = ow.message.Place > 0 && tg.session.conn.Load() == nil
		if len(out) == 0 {
			add(to, *tg)
		} else { // sessions of a route are distinct
			out[0].targets, out[0].arrive = append(out[0].targets, to), append(out[0].arrive, *tg)
		}
	}
	for _, s := range ow.picked {
		if s.queued(ow.message.QoS) {
			add(s.shareTarget(), target{session: s.session, sub: s})
		}
	}
	return out
}

// cancel gives the room in queues back, unless what it was made for is there.
func (ow *owed) cancel() {
	if ow.written.Load() {
		return
	}
	for i := range ow.copies {
		if r := ow.copies[i].reserve; r != nil {
			r.Cancel()
		}
	}
}

// settled delivers a message after its commit, and answers its publisher.
func (g *Gateway) settled(t *turn, ow *owed) {
	err := ow.failure()
	if !ow.distributed && (err == nil || ow.written.Load()) {
		ow.distributed = true
		g.distribute(t, ow)
		if err == nil && len(t.left) > 0 {
			g.passLeft(t, ow)
			return
		}
	}
	if err != nil {
		ow.cancel()
		g.refuseOwed(t, ow, err)
		return
	}
	if ow.acks {
		ow.c.settleAck(t, ow.place, mqtt.Success)
	}
}

// distribute delivers what has been committed; it leaves t.left as deliverAll does.
func (g *Gateway) distribute(t *turn, ow *owed) {
	t.left = t.left[:0]
	if ow.route.basicIngest {
		return
	}
	m := fromMessage(ow.message)
	m.from = ow.from()
	picked, sends := t.picked, t.sends
	t.picked, t.sends = ow.picked, nil // to other nodes it has gone already
	g.deliverAll(t, ow.route, &m)
	t.picked, t.sends = picked, sends
	for i := range ow.copies {
		g.arrived(t, &ow.copies[i], &m)
	}
}

// arrived gives a committed message to those of its sessions that are connected, here or on other nodes.
func (g *Gateway) arrived(t *turn, q *queuedCopy, m *outgoing) {
	id, left := q.reserve.ID(), q.reserve.Left()
	for _, to := range left {
		g.metrics.dropped("queue-full")
		g.noteFull(to.Name, m.topic, "it does not get the message")
	}
	for i := range q.arrive {
		if len(left) > 0 && slices.Contains(left, q.targets[i]) {
			continue
		}
		tg := &q.arrive[i]
		tg.session.arrived(t, tg, m, id)
		g.nudge(tg.session, id)
	}
}

func (ow *owed) from() *session {
	if ow.c != nil {
		return ow.c.session
	}
	return nil
}

// refuseOwed answers a message for which nothing was kept.
func (g *Gateway) refuseOwed(t *turn, ow *owed, err error) {
	code := mqtt.UnspecifiedError
	if !errors.As(err, &code) || code != mqtt.QuotaExceeded {
		g.log.Error("a message can't be stored", "clientId", ow.c.session.clientID, "topic", ow.message.Topic, "err", err)
	}
	g.noteRefused(ow.message.Topic, err)
	g.metrics.dropped("not-stored")
	ow.c.deny(Denial{Action: "iot:Publish", Resource: ow.message.Topic, Reason: err.Error(), Code: code})
	if !ow.acks {
		return
	}
	if ow.c.version != mqtt.V5 {
		// Without an answer the client's window would shrink for ever; it repeats what it has
		// on its next connection.
		ow.c.r.notify(note{c: ow.c, action: actEnd, cause: &cause{reason: reasonThrottled, detail: "a message can't be stored"}})
		return
	}
	ow.c.settleAck(t, ow.place, code)
}
