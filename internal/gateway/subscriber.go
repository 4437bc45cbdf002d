package gateway

import (
	"encoding/binary"

	"flotilla/internal/mqtt"
)

// subscriber is what a connection needs once it has got a QoS 1 message. Guarded by the
// connection's mu.
type subscriber struct {
	window inflight
	// backlog are encoded QoS 1 packets that wait for the window, each behind its size, the place
	// of its identifier, and its message; head is where the first begins.
	backlog []byte
	head    int
	// aliases are topics that the client knows by number [MQTT-3.3.2-12].
	aliases   []string
	nextAlias int
}

const backlogHeader = 4 + 4 + 8

func (c *Connection) subscriberLocked() *subscriber {
	if c.sub == nil {
		c.sub = &subscriber{}
		c.sub.window.limit = c.session.window(c)
	}
	return c.sub
}

// deliver adds a message to what goes to the client.
func (c *Connection) deliver(t *turn, m *outgoing, qos byte, retain bool, message int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	if qos == 0 && !retain && c.limits.aliases == 0 && m.expires.IsZero() {
		b := m.packet(t, c.version)
		if !c.fits(len(b)) || !c.admitLocked(len(b), 0, false, t.now) {
			return
		}
		c.reserveLocked(len(b))
		c.out = append(c.out, b...)
		t.out++
		c.touchLocked(t)
		return
	}
	if !m.expires.IsZero() && !t.now.Before(m.expires) {
		c.g.metrics.dropped("expired")
		return
	}
	n := len(m.topic) + len(m.payload) + 32
	if !c.admitLocked(n, qos, message > 0, t.now) {
		return
	}
	if qos == 0 {
		before := len(c.out)
		c.reserveLocked(n)
		c.out = c.encode(c.out, t, m, 0, retain, 0, true)
		if !c.fits(len(c.out) - before) {
			c.out = c.out[:before]
			return
		}
	} else {
		s := c.subscriberLocked()
		if message == 0 {
			message = clean
		}
		if len(s.backlog) > s.head || !s.window.room() {
			c.queueLocked(t, m, retain, message)
			return
		}
		before := len(c.out)
		c.reserveLocked(n)
		c.out = c.encode(c.out, t, m, 1, retain, 1, true)
		if !c.fits(len(c.out) - before) {
			c.out = c.out[:before]
			c.forget(message)
			return
		}
		id := s.window.take(message)
		binary.BigEndian.PutUint16(c.out[before+idOffset(c.out[before:]):], id)
	}
	t.out++
	c.touchLocked(t)
}

// fits obeys the client's Maximum Packet Size [MQTT-3.1.2-24].
func (c *Connection) fits(n int) bool {
	if c.limits.packet > 0 && n > int(c.limits.packet) {
		c.g.metrics.dropped("packet-too-large")
		return false
	}
	return true
}

// forget drops a message that the client can never take. It runs with mu held, which the session's comes before.
func (c *Connection) forget(message int64) {
	if message > 0 {
		c.g.workers.run(func() { c.session.acked(message) })
	}
}

// encode adds the message as a PUBLISH; an alias is used when the packet leaves at once.
func (c *Connection) encode(dst []byte, t *turn, m *outgoing, qos byte, retain bool, id uint16, alias bool) []byte {
	first := byte(mqtt.PUBLISH)<<4 | qos<<1
	if retain {
		first |= 1
	}
	aliasing := alias && c.limits.aliases > 0 && c.version == mqtt.V5
	if m.props == nil && !aliasing {
		return mqtt.AppendPublish(dst, c.version, first, m.topic, id, m.payload)
	}
	p := mqtt.Publish{QoS: qos, Retain: retain, PacketID: id, Topic: []byte(m.topic), Payload: m.payload, Properties: m.props}
	if !m.expires.IsZero() && m.props != nil && m.props.MessageExpiry != nil {
		props := *m.props
		props.MessageExpiry = new(uint32(max(0, m.expires.Sub(t.now).Seconds()))) // [MQTT-3.3.2-6]
		p.Properties = &props
	}
	if aliasing {
		var known bool
		if p.TopicAlias, known = c.alias(m.topic); known {
			p.Topic = nil
		}
	}
	return p.Append(dst, c.version)
}

// alias gives a topic a number, the oldest one's when all are taken.
func (c *Connection) alias(topic string) (number uint16, known bool) {
	s := c.subscriberLocked()
	for i, known := range s.aliases {
		if known == topic {
			return uint16(i + 1), true
		}
	}
	if len(s.aliases) < int(c.limits.aliases) {
		s.aliases = append(s.aliases, topic)
		return uint16(len(s.aliases)), false
	}
	i := s.nextAlias
	s.nextAlias = (i + 1) % len(s.aliases)
	s.aliases[i] = topic
	return uint16(i + 1), false
}

// idOffset is where the packet identifier of a PUBLISH is.
func idOffset(packet []byte) int {
	i := 1
	for packet[i]&0x80 != 0 {
		i++
	}
	i++
	return i + 2 + int(binary.BigEndian.Uint16(packet[i:]))
}

// queueLocked adds a QoS 1 message to the backlog.
func (c *Connection) queueLocked(t *turn, m *outgoing, retain bool, message int64) {
	s := c.sub
	need := backlogHeader + len(m.topic) + len(m.payload) + 32
	if cap(s.backlog)-len(s.backlog) < need {
		live := len(s.backlog) - s.head
		if s.head >= live && cap(s.backlog)-live >= need {
			s.backlog = s.backlog[:copy(s.backlog, s.backlog[s.head:])]
		} else {
			grown := append(c.g.pool.get(2*live+need), s.backlog[s.head:]...)
			c.g.pool.put(s.backlog)
			s.backlog = grown
		}
		s.head = 0
	}
	at := len(s.backlog)
	s.backlog = append(s.backlog, make([]byte, backlogHeader)...)
	s.backlog = c.encode(s.backlog, t, m, 1, retain, 1, false)
	packet := s.backlog[at+backlogHeader:]
	if !c.fits(len(packet)) {
		s.backlog = s.backlog[:at]
		c.forget(message)
		return
	}
	binary.LittleEndian.PutUint32(s.backlog[at:], uint32(len(packet)))
	binary.LittleEndian.PutUint32(s.backlog[at+4:], uint32(idOffset(packet)))
	binary.LittleEndian.PutUint64(s.backlog[at+8:], uint64(message))
	t.out++
	c.accountLocked()
}

// onPuback frees the identifier, and sends what has waited for it.
func (c *Connection) onPuback(t *turn, id uint16) verdict {
	c.mu.Lock()
	s := c.sub
	if s == nil {
		c.mu.Unlock()
		return goOn
	}
	message := s.window.ack(id)
	for len(s.backlog) > s.head && s.window.room() {
		h := s.backlog[s.head:]
		size, offset := int(binary.LittleEndian.Uint32(h)), int(binary.LittleEndian.Uint32(h[4:]))
		packet := h[backlogHeader : backlogHeader+size]
		id := s.window.take(int64(binary.LittleEndian.Uint64(h[8:])))
		binary.BigEndian.PutUint16(packet[offset:], id)
		c.reserveLocked(size)
		c.out = append(c.out, packet...)
		s.head += backlogHeader + size
		c.touchLocked(t)
	}
	if s.backlog != nil && s.head == len(s.backlog) {
		c.g.pool.put(s.backlog)
		s.backlog, s.head = nil, 0
	}
	c.mu.Unlock()
	switch {
	case message > 0:
		c.session.acked(message)
		c.session.refill(t, c)
	case message < clean:
		c.g.direct.acked(message)
	}
	return goOn
}
