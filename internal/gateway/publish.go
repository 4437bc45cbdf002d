package gateway

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"flotilla/internal/gateway/mesh"
	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// publisher is what a connection needs once it has published: routes of the topics that it
// used last, its aliases, its rate.
type publisher struct {
	routes  [4]*route
	next    int
	aliases []string
	second  int64 // that count belongs to
	count   int
	heldBy  *Connection
}

// waitingWrites is how many writes may wait before publishers do too.
const waitingWrites = 8192

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
	copies  []queuedCopy
	waits   atomic.Int32
	err     atomic.Pointer[error]
}

// queuedCopy is room for the message in the queues of targets, a message of its own there: a
// session that matches by itself and as a member of a group gets two.
type queuedCopy struct {
	reserve *sessionstore.Reservation
	targets []sessionstore.Target
	arrive  []target // to whom it goes when it is committed
}

// onPublish serves a PUBLISH (par. 3.3). The steps, in order:
//
//	topic alias · limits · route: reserved topic, policy, rules, subscriptions · reserved topics go
//	to their room · what is owed to the absent is written first · delivery · PUBACK
//
// In the loop it serves what cannot block and hands the rest over before it has had any
// effect.
func (c *Connection) onPublish(t *turn, h mqtt.Header, body, raw []byte) verdict {
	p := &t.publish
	if err := p.Parse(c.version, h.Flags, body); err != nil {
		return c.fail(err)
	}
	if c.pub == nil {
		c.pub = &publisher{}
	}
	if v := c.resolveAlias(p); v != goOn {
		return v
	}
	if v := c.withinLimits(p); v != goOn {
		return v
	}
	r, v := c.route(t, p.Topic)
	if v != goOn {
		return v
	}
	if t.loop != nil && c.mayBlock(r, p) {
		return handOver
	}
	if c.tooFast(t) {
		return c.refuse(t, p, mqtt.QuotaExceeded, "publish rate")
	}
	if code, detail := c.permitted(r, p); code != mqtt.Success {
		return c.refusePublish(t, p, code, detail)
	}
	t.in++
	if r.reserved && !r.basicIngest {
		return c.serveReserved(t, r, p)
	}
	t.pick(r)
	if c.g.owes(t, r, p.QoS, p.Retain) {
		return c.publishOwed(t, r, p)
	}
	m := &t.message
	*m = outgoing{topic: r.topic, payload: p.Payload, qos: p.QoS, retain: p.Retain, props: p.Properties, from: c.session}
	if p.Properties != nil && p.Properties.MessageExpiry != nil {
		m.expires = t.now.Add(time.Duration(*p.Properties.MessageExpiry) * time.Second)
	}
	if c.version == mqtt.V311 && raw[0] == byte(mqtt.PUBLISH)<<4 {
		m.packets[0] = raw // what goes out at QoS 0 is what came in
	}
	full := c.g.deliverAll(t, r, m)
	if p.QoS > 0 {
		c.puback(t, p.PacketID, mqtt.Success)
	}
	if full != nil {
		c.pub.heldBy = full
		return holdBack
	}
	return goOn
}

// resolveAlias puts the topic in the place of an alias (par. 3.3.2.3.4).
func (c *Connection) resolveAlias(p *mqtt.Publish) verdict {
	if p.TopicAlias == 0 {
		return goOn
	}
	if int(p.TopicAlias) > c.g.limits.TopicAliasMaximum {
		return c.endWith(mqtt.TopicAliasInvalid, reasonClientError, "topic alias above the maximum") // [MQTT-3.3.2-9]
	}
	a := c.pub.aliases
	i := int(p.TopicAlias) - 1
	if len(p.Topic) > 0 {
		for len(a) <= i {
			a = append(a, "")
		}
		if a[i] != string(p.Topic) {
			a[i] = string(p.Topic)
		}
		c.pub.aliases = a
		return goOn
	}
	if i >= len(a) || a[i] == "" {
		return c.protocolError("a topic alias that was never set")
	}
	p.Topic = []byte(a[i])
	return goOn
}

// withinLimits ends the connection for what AWS ends it for.
func (c *Connection) withinLimits(p *mqtt.Publish) verdict {
	l := &c.g.limits
	switch {
	case p.QoS > 1:
		return c.endWith(mqtt.QoSNotSupported, reasonClientError, "QoS 2") // [MQTT-3.2.2-11]
	case len(p.SubscriptionIDs) > 0:
		return c.protocolError("a subscription identifier from a client") // [MQTT-3.3.4-6]
	case len(p.Payload) > l.PayloadBytes:
		return c.endWith(mqtt.PacketTooLarge, reasonClientError, "the payload is larger than allowed")
	}
	if p.QoS > 0 && c.version == mqtt.V5 {
		c.mu.Lock()
		n := len(c.acks.entries)
		c.mu.Unlock()
		if n >= l.ReceiveMaximum {
			return c.endWith(mqtt.ReceiveMaximumExceeded, reasonClientError, "more unacknowledged messages than the receive maximum")
		}
	}
	if props := p.Properties; props != nil {
		n := 0
		for _, u := range props.UserProperties {
			n += len(u.Key) + len(u.Value)
		}
		if n > l.UserPropertyBytes {
			return c.endWith(mqtt.QuotaExceeded, reasonClientError, "user properties are larger than allowed")
		}
		if e := props.MessageExpiry; e != nil {
			*e = min(max(*e, 1), maxMessageExpiry)
		}
	}
	return goOn
}

// tooFast counts the packet against the connection's rate.
func (c *Connection) tooFast(t *turn) bool {
	limit := c.g.limits.PublishPerSecond
	if limit == 0 {
		return false
	}
	p := c.pub
	if s := t.now.Unix(); s != p.second {
		p.second, p.count = s, 0
	}
	p.count++
	return p.count > limit
}

// route finds what the topic leads to, with the decision of the connection's policies.
func (c *Connection) route(t *turn, topic []byte) (*route, verdict) {
	g := c.g
	var r *route
	for _, k := range c.pub.routes {
		if k != nil && k.topic == string(topic) {
			r = k
			break
		}
	}
	epoch, kept := uint64(0), false
	if c.now != nil {
		epoch, kept = c.now.Epoch()
	}
	if r != nil && kept && r.kept && r.epoch == epoch && g.fresh(r) {
		return r, goOn
	}
	if r == nil || r.lent {
		if err := mqtt.ValidTopicName(string(topic)); err != nil {
			return nil, c.fail(err)
		}
		fresh := &route{topic: string(topic)}
		g.classify(fresh)
		if r == nil {
			c.pub.routes[c.pub.next] = fresh
			c.pub.next = (c.pub.next + 1) % len(c.pub.routes)
		} else {
			for i, k := range c.pub.routes {
				if k == r {
					c.pub.routes[i] = fresh
				}
			}
		}
		r = fresh
	}
	if !g.fresh(r) {
		g.lookUp(r)
	}
	if !r.kept || !kept || r.epoch != epoch {
		d, ok := c.decide(t, "iot:Publish", g.topicARN(r.topic))
		if !ok {
			return nil, handOver
		}
		r.allowed, r.epoch, r.kept, r.askedRetain = d.Allowed(), epoch, kept, false
		if !r.allowed {
			c.denied("iot:Publish", r.topic, d)
		}
	}
	return r, goOn
}

// fresh tells whether what a route knows about others than the publisher still holds.
func (g *Gateway) fresh(r *route) bool {
	return r.looked && r.generation == g.trie.Generation()+g.trieChanged.Load() &&
		(g.rules == nil || r.rules == g.rules.Generation()) && (g.mesh == nil || r.peersAt == g.mesh.Generation())
}

// classify tells reserved topics apart.
func (g *Gateway) classify(r *route) {
	if r.reserved = mqtt.Reserved(r.topic); !r.reserved {
		return
	}
	if _, _, r.basicIngest = mqtt.BasicIngest(r.topic); !r.basicIngest {
		r.handler, _ = g.reserved.Match(r.topic)
	}
}

// lookUp finds subscriptions, rules and nodes.
func (g *Gateway) lookUp(r *route) {
	r.looked = true
	if g.rules != nil {
		r.rules = g.rules.Generation()
		r.selected, r.mayBlock = g.rules.Selects(r.topic)
	}
	g.match(r)
	if g.mesh != nil {
		r.peersAt = g.mesh.Generation()
		r.peers = r.peers[:0]
		if !r.basicIngest {
			g.mesh.Interested(r.topic, func(p *mesh.Peer) { r.peers = append(r.peers, p) })
		}
	}
}

// mayBlock tells whether serving the route can't be done in the loop.
func (c *Connection) mayBlock(r *route, p *mqtt.Publish) bool {
	return r.handler != nil || r.selected && r.mayBlock || p.Retain && !r.askedRetain ||
		(r.selected || r.persistent || p.Retain) && c.g.db.Waiting() > waitingWrites
}

// permitted is the decision about this packet.
func (c *Connection) permitted(r *route, p *mqtt.Publish) (mqtt.ReasonCode, string) {
	switch {
	case !r.allowed:
		return mqtt.NotAuthorized, "iot:Publish is not allowed"
	case r.reserved && !mqtt.MayPublish(r.topic):
		return mqtt.NotAuthorized, "the topic is the service's own"
	case p.Retain && !mqtt.MayRetain(r.topic):
		return mqtt.NotAuthorized, "RETAIN on a reserved topic"
	}
	if !p.Retain {
		return mqtt.Success, ""
	}
	if !r.askedRetain {
		// RETAIN is rare enough to be asked about with a store read behind it.
		d := c.auth.Authorize("iot:RetainPublish", c.g.topicARN(r.topic))
		if r.retainOK, r.askedRetain = d.Allowed(), r.kept; !d.Allowed() {
			c.denied("iot:RetainPublish", r.topic, d)
		}
	}
	if !r.retainOK {
		return mqtt.NotAuthorized, "iot:RetainPublish is not allowed"
	}
	return mqtt.Success, ""
}

// refusePublish answers a message that the client may not publish: 3.1.1 has no way to say so
// but the end of the connection; 5.0 gets a PUBACK, or at QoS 0 a DISCONNECT.
func (c *Connection) refusePublish(t *turn, p *mqtt.Publish, code mqtt.ReasonCode, detail string) verdict {
	c.g.metrics.refused.Inc()
	if c.version != mqtt.V5 || p.QoS == 0 {
		return c.endWith(code, reasonForbidden, detail)
	}
	c.puback(t, p.PacketID, code)
	return goOn
}

// refuse answers a message for which there is no room: the connection goes on.
func (c *Connection) refuse(t *turn, p *mqtt.Publish, code mqtt.ReasonCode, detail string) verdict {
	c.g.metrics.dropped(detail)
	c.g.deny(c.session.clientID, c.who.ID, Denial{Action: "iot:Publish", Resource: string(p.Topic), Reason: detail, Code: code})
	if p.QoS > 0 {
		c.puback(t, p.PacketID, code)
	}
	return goOn
}

// serveReserved has the topic's room serve the message; it may block.
func (c *Connection) serveReserved(t *turn, r *route, p *mqtt.Publish) verdict {
	if r.handler != nil {
		m := c.message(t, r, p)
		ctx, cancel := context.WithTimeout(context.Background(), reservedTimeout)
		err := r.handler(ctx, m)
		cancel()
		if err != nil {
			c.g.log.Warn("a reserved topic's message failed", "clientId", c.session.clientID, "topic", r.topic, "err", err)
		}
	}
	// The message is not for others, but rules may select it.
	if r.selected {
		return c.publishOwed(t, &route{topic: r.topic, selected: true, basicIngest: true, lent: true}, p)
	}
	if p.QoS > 0 {
		c.puback(t, p.PacketID, mqtt.Success)
	}
	return goOn
}

const reservedTimeout = 30 * time.Second

// message is the packet as a message that may be kept.
func (c *Connection) message(t *turn, r *route, p *mqtt.Publish) *mqtt.Message {
	return &mqtt.Message{
		Topic: r.topic, Payload: append(make([]byte, 0, len(p.Payload)), p.Payload...), QoS: p.QoS, Retain: p.Retain,
		Properties: p.Properties, Received: t.now, Source: c.source(),
	}
}

// pick chooses a member of each shared subscription of the route.
func (t *turn) pick(r *route) {
	t.picked = t.picked[:0]
	for _, gr := range r.groups {
		if s := gr.choose(); s != nil {
			t.picked = append(t.picked, s)
		}
	}
}

// owes tells whether something must be committed, or known elsewhere, before the message is
// acknowledged.
func (g *Gateway) owes(t *turn, r *route, qos byte, retain bool) bool {
	if retain || r.selected {
		return true
	}
	if qos == 0 {
		return false
	}
	if r.persistent {
		for i := range r.targets {
			if tg := &r.targets[i]; tg.sub.qos > 0 && tg.session.stored() {
				return true
			}
		}
		for _, s := range t.picked {
			if s.qos > 0 && s.session.stored() {
				return true
			}
		}
	}
	return len(r.peers) > 0
}

// deliverAll delivers to the route's sessions, to the picked members of groups, and sends to other
// nodes.
func (g *Gateway) deliverAll(t *turn, r *route, m *outgoing) (full *Connection) {
	full = g.deliver(t, r, m)
	for _, s := range t.picked {
		tg := target{session: s.session, sub: s}
		if m.qos > 0 && s.qos > 0 && s.session.stored() {
			continue
		}
		if f := g.deliverTo(t, &tg, m, 0); f != nil {
			full = f
		}
	}
	if len(r.peers) > 0 && m.qos == 0 {
		g.sendToPeers(r, m)
	}
	return full
}

func (g *Gateway) sendToPeers(r *route, m *outgoing) {
	msg := m.message
	if msg == nil {
		msg = &mqtt.Message{Topic: m.topic, Payload: m.payload, QoS: m.qos, Retain: m.retain, Properties: m.props, Received: g.now()}
		if m.from != nil {
			msg.Source.ClientID = m.from.clientID
		}
	}
	for _, p := range r.peers {
		if err := g.mesh.Send(p, msg, nil, nil); err != nil {
			g.metrics.dropped("mesh")
		}
	}
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
	ow.route, ow.picked = r, append([]*subscription(nil), t.picked...)
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
	for i := range ow.copies {
		reserve, err := g.sessions.Reserve(ow.message, 0, ow.copies[i].targets)
		if err != nil {
			ow.cancel()
			ow.copies = nil
			g.settleNow(t, ow, err)
			return
		}
		ow.copies[i].reserve = reserve
	}
	retain := ow.message.Retain && !r.basicIngest
	writes := ow.copies != nil || outbox != nil || retain || extra != nil
	peers := 0
	if ow.message.QoS > 0 {
		peers = len(r.peers)
	} else if len(r.peers) > 0 {
		m := fromMessage(ow.message)
		g.sendToPeers(r, &m)
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
		g.sendOwed(t, r.peers[i], ow)
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
	}, ow.one)
}

// sendOwed sends to another node, whose acknowledgement is waited for.
func (g *Gateway) sendOwed(t *turn, p *mesh.Peer, ow *owed) {
	done := func(err error) {
		if errors.Is(err, mesh.ErrGone) {
			err = nil // it had connected clean sessions only, and they are gone with it
		}
		ow.one(err)
	}
	err := g.mesh.Send(p, ow.message, nil, done)
	if errors.Is(err, mesh.ErrFull) {
		g.workers.run(func() {
			ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
			defer cancel()
			if err := g.mesh.SendWait(ctx, p, ow.message, nil, done); err != nil {
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
		to := sessionstore.Target{Session: tg.session.number, RetainAsPublished: tg.sub.asPublished}
		if len(out) == 0 {
			add(to, *tg)
		} else { // sessions of a route are distinct
			out[0].targets, out[0].arrive = append(out[0].targets, to), append(out[0].arrive, *tg)
		}
	}
	for _, s := range ow.picked {
		if s.qos == 0 || !s.session.stored() {
			continue
		}
		to := sessionstore.Target{Session: s.session.number, Group: s.share}
		if s.session.conn.Load() == nil && s.share != 0 {
			to = sessionstore.Target{Session: s.share}
		}
		add(to, target{session: s.session, sub: s})
	}
	return out
}

// cancel gives the room in queues back.
func (ow *owed) cancel() {
	for i := range ow.copies {
		if r := ow.copies[i].reserve; r != nil {
			r.Cancel()
		}
	}
}

// settled delivers a message after its commit, and answers its publisher.
func (g *Gateway) settled(t *turn, ow *owed) {
	err := ow.failure()
	if err != nil {
		ow.cancel()
		g.refuseOwed(t, ow, err)
		return
	}
	g.distribute(t, ow)
	if ow.acks {
		ow.c.settleAck(t, ow.place, mqtt.Success)
	}
}

// distribute delivers what has been committed.
func (g *Gateway) distribute(t *turn, ow *owed) {
	m := fromMessage(ow.message)
	m.from = ow.from()
	if ow.route.basicIngest {
		return
	}
	saved := t.picked
	t.picked = ow.picked
	noPeers := *ow.route
	noPeers.peers = nil
	g.deliverAll(t, &noPeers, &m)
	t.picked = saved
	for i := range ow.copies {
		id := ow.copies[i].reserve.ID()
		for j := range ow.copies[i].arrive {
			tg := &ow.copies[i].arrive[j]
			tg.session.arrived(t, tg, &m, id)
			g.nudge(tg.session, id)
		}
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
	g.metrics.dropped("not-stored")
	g.deny(ow.c.session.clientID, ow.c.who.ID, Denial{Action: "iot:Publish", Resource: ow.message.Topic, Reason: err.Error(), Code: code})
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
