package gateway

import (
	"context"
	"slices"
	"time"

	"flotilla/internal/gateway/mesh"
	"flotilla/internal/mqtt"
)

// publisher is what a connection needs once it has published: routes of the topics that it
// used last, its aliases, its rate.
type publisher struct {
	routes  [4]*route
	next    int
	aliases []string
	second  int64 // that count belongs to
	count   int
}

// waitingWrites is how many writes may wait before publishers do too.
const waitingWrites = 8192

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
	if r.allowed && !t.pick(r, p.QoS) {
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
	c.g.deliverAll(t, r, m)
	switch {
	case len(t.left) > 0:
		c.publishLeft(t, r, p)
	case p.QoS > 0:
		c.puback(t, p.PacketID, mqtt.Success)
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
		r = c.pub.renew(r, t.topicOf(topic))
		g.classify(r)
	}
	if !g.fresh(r) {
		g.lookUp(r)
	}
	if !r.kept || !kept || r.epoch != epoch {
		d, ok := c.decide(t, "iot:Publish", t.topicARN(r.topic))
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

// renew gives an empty route for a topic, in the place of old, or of the route that has been there longest when old is
// nil. A publisher whose topics all differ uses the same few again and again.
func (p *publisher) renew(old *route, topic string) *route {
	at := slices.Index(p.routes[:], old)
	if old == nil {
		at = p.next
		p.next = (p.next + 1) % len(p.routes)
		old = p.routes[at]
	}
	r := &route{}
	if old != nil && !old.lent {
		r = old
	}
	*r = route{topic: topic, targets: r.targets[:0], groups: r.groups[:0], peers: r.peers[:0], elsewhere: r.elsewhere[:0]}
	p.routes[at] = r
	return r
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
		if !mqtt.Confidential(r.topic) {
			r.selected, r.mayBlock = g.rules.Selects(r.topic)
		}
	}
	g.match(r)
	if g.mesh != nil {
		r.peersAt = g.mesh.Generation()
		r.peers, r.elsewhere = r.peers[:0], r.elsewhere[:0]
		if !r.basicIngest && !g.mesh.Alone() {
			g.mesh.Interested(r.topic, func(p *mesh.Peer) { r.peers = append(r.peers, p) })
			g.mesh.Groups(r.topic, func(group string, p *mesh.Peer) { r.elsewhere = append(r.elsewhere, peerGroup{group, p}) })
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
	c.deny(Denial{Action: "iot:Publish", Resource: string(p.Topic), Reason: detail, Code: code})
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
		t.picked, t.sends = t.picked[:0], t.sends[:0]
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
			if s.queued(qos) {
				return true
			}
		}
	}
	return len(t.sends) > 0
}

// deliverAll delivers to the route's sessions, to the picked members of groups, and sends to other
// nodes. t.left are then the members that did not take a QoS 1 message: others must.
func (g *Gateway) deliverAll(t *turn, r *route, m *outgoing) {
	g.deliver(t, r, m)
	t.left = t.left[:0]
	for _, s := range t.picked {
		if s.queued(m.qos) {
			continue
		}
		if !g.deliverShared(t, s, m) && m.qos > 0 {
			t.left = append(t.left, s)
		}
	}
	if len(t.sends) > 0 && m.qos == 0 {
		g.sendToPeers(t.sends, m)
	}
}

func (g *Gateway) sendToPeers(sends []peerSend, m *outgoing) {
	msg := m.message
	if msg == nil {
		msg = &mqtt.Message{Topic: m.topic, Payload: m.payload, QoS: m.qos, Retain: m.retain, Properties: m.props, Received: g.now()}
		if m.from != nil {
			msg.Source.ClientID = m.from.clientID
		}
	}
	for _, to := range sends {
		if err := g.mesh.Send(to.peer, msg, to.groups, nil); err != nil {
			g.metrics.dropped("mesh")
		}
	}
}
