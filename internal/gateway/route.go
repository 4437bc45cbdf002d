package gateway

import (
	"time"

	"flotilla/internal/gateway/mesh"
	"flotilla/internal/mqtt"
)

// subscription is one filter of a session, or a shared subscription as a whole (group). It is
// immutable.
type subscription struct {
	session     *session // nil for a group
	group       *group
	filter      string // as subscribed, $share/ included
	qos         byte
	noLocal     bool
	asPublished bool  // RETAIN goes on as published
	share       int64 // number of the shared subscription's queue; 0 none
}

// route is what a topic leads to, for one publisher or for none.
type route struct {
	topic              string
	generation         uint64 // of the trie
	rules              uint64 // generation of the rules
	epoch              uint64 // of the publisher's decisions
	kept               bool   // epoch may be compared
	allowed, retainOK  bool
	askedRetain        bool
	reserved           bool
	handler            mqtt.Handler
	basicIngest        bool
	selected, mayBlock bool // by rules
	targets            []target
	groups             []*group
	persistent         bool // one of targets or groups may be owed a copy
	lent               bool // used beyond the packet: not to be overwritten
	looked             bool
	peers              []*mesh.Peer // that are interested
	elsewhere          []peerGroup
	peersAt            uint64
}

// target is a session that matches, with the best of its subscriptions.
type target struct {
	session *session
	sub     *subscription

	// The decision on iot:Receive of the connection that it was made for.
	conn    *Connection
	epoch   uint64
	kept    bool
	allowed bool
}

// match finds the targets of r.topic.
func (g *Gateway) match(r *route) {
	r.generation = g.trie.Generation() + g.trieChanged.Load()
	r.targets, r.groups, r.persistent = r.targets[:0], r.groups[:0], false
	if r.basicIngest {
		return
	}
	g.trie.Match(r.topic, func(s *subscription) {
		if s.group != nil {
			r.groups = append(r.groups, s.group)
			r.persistent = r.persistent || s.group.persistent.Load() > 0
			return
		}
		r.persistent = r.persistent || s.session.stored() && s.qos > 0
		r.targets = append(r.targets, target{session: s.session, sub: s})
	})
	if len(r.targets) > 1 {
		r.targets = distinct(r.targets)
	}
}

// distinct keeps one target a session, that of the greatest QoS: a client whose
// subscriptions overlap gets a message once.
func distinct(targets []target) []target {
	const few = 16
	if len(targets) <= few {
		out := targets[:1]
	next:
		for _, t := range targets[1:] {
			for i := range out {
				if out[i].session == t.session {
					if t.sub.qos > out[i].sub.qos {
						out[i].sub = t.sub
					}
					continue next
				}
			}
			out = append(out, t)
		}
		return out
	}
	seen := make(map[*session]int, len(targets))
	out := targets[:0]
	for _, t := range targets {
		if i, ok := seen[t.session]; ok {
			if t.sub.qos > out[i].sub.qos {
				out[i].sub = t.sub
			}
			continue
		}
		seen[t.session] = len(out)
		out = append(out, t)
	}
	return out
}

// outgoing is a message on its way to connections.
type outgoing struct {
	topic   string
	payload []byte
	qos     byte
	retain  bool // as published
	props   *mqtt.PublishProperties
	from    *session  // publisher; nil none
	expires time.Time // zero never
	// packets are QoS 0 packets without RETAIN and alias, by version, made when needed.
	packets [2][]byte
	message *mqtt.Message // the same, when it outlives the turn
	// retained tells that it comes from the retained store.
	retained bool
}

// packet is the message as a QoS 0 PUBLISH.
func (m *outgoing) packet(t *turn, v mqtt.Version) []byte {
	i := v - mqtt.V311
	if m.packets[i] == nil {
		start := len(t.enc)
		p := mqtt.Publish{Topic: []byte(m.topic), Payload: m.payload, Properties: m.props}
		t.enc = p.Append(t.enc, v)
		m.packets[i] = t.enc[start:len(t.enc):len(t.enc)]
	}
	return m.packets[i]
}

// deliver gives a message to the connected sessions of a route. Those with stored queues get a
// QoS 1 message by way of their queue instead, see settled.
func (g *Gateway) deliver(t *turn, r *route, m *outgoing) {
	t.enc = t.enc[:0]
	for i := range r.targets {
		tg := &r.targets[i]
		if m.qos > 0 && tg.sub.qos > 0 && tg.session.stored() {
			continue
		}
		g.deliverTo(t, tg, m, 0)
	}
}

// deliverTo gives a message to one session, if it is connected and allowed to receive it.
// message is its id in the session's queue; 0 for none.
func (g *Gateway) deliverTo(t *turn, tg *target, m *outgoing, message int64) {
	if c := tg.session.conn.Load(); c != nil {
		g.deliverOn(t, c, tg, m, message)
	}
}

// deliverOn is deliverTo for one connection of the session.
func (g *Gateway) deliverOn(t *turn, c *Connection, tg *target, m *outgoing, message int64) {
	if tg.sub.noLocal && m.from == tg.session {
		return // [MQTT-3.8.3-3]
	}
	switch c.mayReceive(t, tg, m.topic) {
	case yes:
	case no:
		g.metrics.dropped("not-authorized")
		return
	default:
		g.deliverLater(*tg, m)
		return
	}
	c.deliver(t, m, min(m.qos, tg.sub.qos), m.retain && tg.sub.asPublished || m.retained, message)
}

// deliverLater has a worker deliver to one session whose policies must be read first.
func (g *Gateway) deliverLater(tg target, m *outgoing) {
	later := *m
	later.packets = [2][]byte{}
	if m.message == nil {
		later.payload = append([]byte(nil), m.payload...)
	}
	g.workers.run(func() {
		t := turn{g: g, now: g.now()}
		g.deliverTo(&t, &tg, &later, 0)
		t.flush()
	})
}

type answer uint8

const (
	no answer = iota
	yes
	unknown // only the store can tell, and nobody may wait here
)

// mayReceive decides iot:Receive for a connection and a topic, and keeps the decision in the
// route.
func (c *Connection) mayReceive(t *turn, tg *target, topic string) answer {
	if c.now != nil {
		epoch, ok := c.now.Epoch()
		if ok && tg.kept && tg.conn == c && tg.epoch == epoch {
			return asAnswer(tg.allowed)
		}
		d, decided := c.now.Cached("iot:Receive", t.topicARN(topic))
		if decided {
			tg.conn, tg.epoch, tg.kept, tg.allowed = c, epoch, ok, d.Allowed()
			if !d.Allowed() {
				c.denied("iot:Receive", topic, d)
			}
			return asAnswer(d.Allowed())
		}
	}
	if t.loop != nil {
		return unknown
	}
	d := c.auth.Authorize("iot:Receive", t.topicARN(topic))
	if !d.Allowed() {
		c.denied("iot:Receive", topic, d)
	}
	return asAnswer(d.Allowed())
}

func asAnswer(b bool) answer {
	if b {
		return yes
	}
	return no
}
