package gateway

import "flotilla/internal/mqtt"

// ackQueue holds the QoS 1 PUBLISH packets of a connection that are not answered yet, so that
// PUBACKs leave in the order of the packets [MQTT-4.6.0-2].
type ackQueue struct {
	first   uint32 // place of entries[0]
	entries []ackEntry
	resume  bool // the connection is held back until there is room
}

type ackEntry struct {
	id   uint16
	code mqtt.ReasonCode
	done bool
}

// puback answers a PUBLISH for which nothing is owed, after those before it.
func (c *Connection) puback(t *turn, id uint16, code mqtt.ReasonCode) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	if len(c.acks.entries) > 0 {
		c.acks.entries = append(c.acks.entries, ackEntry{id, code, true})
	} else {
		c.writePuback(id, code)
		c.touchLocked(t)
	}
	c.mu.Unlock()
}

// oweAck takes a place in the order of answers; full is true when the client has used up
// the window that it was given.
func (c *Connection) oweAck(id uint16) (place uint32, full bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acks.entries = append(c.acks.entries, ackEntry{id: id})
	return c.acks.first + uint32(len(c.acks.entries)) - 1, len(c.acks.entries) >= c.g.limits.ReceiveMaximum
}

// settleAck fills a place, and sends what is due.
func (c *Connection) settleAck(t *turn, place uint32, code mqtt.ReasonCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := &c.acks
	if c.closed || place-q.first >= uint32(len(q.entries)) {
		return
	}
	e := &q.entries[place-q.first]
	e.code, e.done = code, true
	n := 0
	for n < len(q.entries) && q.entries[n].done {
		c.writePuback(q.entries[n].id, q.entries[n].code)
		n++
	}
	if n == 0 {
		return
	}
	q.first += uint32(n)
	if q.entries = q.entries[n:]; len(q.entries) == 0 {
		q.entries = nil
	}
	if q.resume && len(q.entries) < c.g.limits.ReceiveMaximum {
		q.resume = false
		c.r.notify(note{c: c, action: actResume})
	}
	c.touchLocked(t)
}

// writePuback answers; in 3.1.1 there is no way to say that it failed, so a failed message is
// not answered.
func (c *Connection) writePuback(id uint16, code mqtt.ReasonCode) {
	c.reserveLocked(8)
	defer c.answerRoomLocked()
	if c.version != mqtt.V5 {
		if !code.Failed() {
			c.out = append(c.out, byte(mqtt.PUBACK)<<4, 2, byte(id>>8), byte(id))
		}
		return
	}
	if code == mqtt.Success {
		c.out = append(c.out, byte(mqtt.PUBACK)<<4, 2, byte(id>>8), byte(id))
		return
	}
	c.out = append(c.out, byte(mqtt.PUBACK)<<4, 3, byte(id>>8), byte(id), byte(code))
}
