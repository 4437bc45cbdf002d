package gateway

import (
	"time"

	"flotilla/internal/mqtt"
)

const (
	flushAt  = 64 << 10 // bytes that are worth a write of their own within a turn
	keepSpan = 256 << 10
)

// flush writes what the turn has added to connections.
func (t *turn) flush() {
	if t.in+t.out > 0 {
		t.g.metrics.in.Add(float64(t.in))
		t.g.metrics.out.Add(float64(t.out))
		t.in, t.out = 0, 0
	}
	for i, c := range t.dirty {
		c.mu.Lock()
		c.dirty = false
		c.flushLocked()
		c.mu.Unlock()
		t.dirty[i] = nil
	}
	t.dirty = t.dirty[:0]
}

// touchLocked has somebody flush c soon.
func (c *Connection) touchLocked(t *turn) {
	if len(c.out) >= flushAt && !c.blocked.Load() {
		c.flushLocked()
		if len(c.out) == 0 {
			return
		}
	}
	if !c.dirty {
		c.dirty = true
		t.dirty = append(t.dirty, c)
	}
}

// append adds a packet that is not a message.
func (c *Connection) append(t *turn, packet []byte) {
	c.mu.Lock()
	if !c.closed {
		c.reserveLocked(len(packet))
		c.out = append(c.out, packet...)
		c.touchLocked(t)
		c.answerRoomLocked()
	}
	c.mu.Unlock()
}

// send adds any packet.
func (c *Connection) send(t *turn, p mqtt.Packet) {
	c.mu.Lock()
	if !c.closed {
		c.reserveLocked(64)
		c.out = p.Append(c.out, c.version)
		c.touchLocked(t)
		c.answerRoomLocked()
	}
	c.mu.Unlock()
}

// reserveLocked makes room for n bytes at the end of out.
func (c *Connection) reserveLocked(n int) {
	if cap(c.out)-len(c.out) >= n {
		return
	}
	if c.out == nil {
		c.out = c.g.pool.get(n)
		return
	}
	grown := append(c.g.pool.get(len(c.out)+max(n, len(c.out))), c.out...)
	c.g.pool.put(c.out)
	c.out = grown
}

// flushLocked writes as much of out as the socket takes. An empty out goes back to the
// pool, so that an idle connection holds none.
func (c *Connection) flushLocked() {
	if c.out == nil && !c.blocked.Load() {
		return
	}
	var err error
	if c.tls != nil {
		err = c.flushTLS()
	} else if len(c.out) > 0 {
		var n int
		n, err = c.sock.TryWrite(c.out)
		c.took = c.took || n > 0
		c.out = c.out[:copy(c.out, c.out[n:])]
		c.blocked.Store(len(c.out) > 0)
	}
	if err != nil {
		c.out = c.out[:0]
		c.blocked.Store(false)
		if !c.closed {
			c.closed = true
			c.r.notify(note{c: c, action: actEnd, cause: &cause{reason: reasonConnectionLost, detail: "write: " + err.Error()}})
		}
	}
	if len(c.out) == 0 && c.out != nil {
		c.g.pool.put(c.out)
		c.out = nil
	}
	c.accountLocked()
}

// flushTLS makes records of out, unless earlier ones still wait for the socket.
func (c *Connection) flushTLS() error {
	if c.blocked.Load() {
		before := c.sock.Pending()
		left, spare, err := c.sock.Flush()
		if err != nil {
			return err
		}
		c.took = c.took || left < before
		if left > 0 {
			return nil
		}
		c.g.pool.put(spare)
		c.blocked.Store(false)
	}
	if len(c.out) == 0 {
		return nil
	}
	c.sock.Cork(c.g.pool.get(len(c.out) + len(c.out)/64 + 128))
	if _, err := c.tls.Write(c.out); err != nil {
		return err
	}
	n := len(c.out)
	c.out = c.out[:0]
	left, spare, err := c.sock.Flush()
	if err != nil {
		return err
	}
	c.took = c.took || left < n
	c.blocked.Store(left > 0)
	if left == 0 {
		c.g.pool.put(spare)
	}
	return nil
}

// waitingLocked is how many bytes wait for the client.
func (c *Connection) waitingLocked() int {
	n := len(c.out)
	if c.sub != nil {
		n += len(c.sub.backlog) - c.sub.head
	}
	if c.tls != nil && c.blocked.Load() {
		n += c.sock.Pending()
	}
	return n
}

// accountLocked keeps the process's sum up to date, and has a stored session's queue go on when there is room again.
func (c *Connection) accountLocked() {
	n := c.waitingLocked()
	if c.behind && n < c.g.maxOut/2 {
		c.behind = false
		if c.session.stored() {
			c.g.workers.run(func() { c.session.refill(nil, c) })
		}
	}
	if n == c.counted {
		return
	}
	// Small changes of small amounts are not worth an atomic operation on a shared word.
	if n > keepSpan || c.counted > keepSpan || c.counted > 0 && n == 0 {
		c.g.outBytes.Add(int64(n - c.counted))
		c.counted = n
	}
}

// room says what may be added to what waits for a client.
type room uint8

const (
	ample  room = iota
	little      // more waits than should, less than may
	none
)

// roomLocked tells how much room there is for n bytes more.
func (c *Connection) roomLocked(n int) room {
	g, waits := c.g, len(c.out)
	if c.sub != nil {
		waits += len(c.sub.backlog) - c.sub.head
	}
	if waits+n <= keepSpan && waits+n <= g.maxOut {
		return ample
	}
	if c.tls != nil && c.blocked.Load() {
		waits += c.sock.Pending()
	}
	if n += waits; waits == 0 {
		return ample // as large as it may be
	}
	switch {
	case n > mostOut*g.maxOut, n > keepSpan && g.outBytes.Load() > g.maxTotalOut:
		return none
	case n > g.maxOut:
		return little
	}
	return ample
}

// mostOut is how many times maxOut may wait for a client that is behind.
const mostOut = 4

// admitLocked tells whether a message of n bytes may be added. Nobody ever waits for a client that is behind: at QoS 0
// the message is left out; a message of a stored session's queue is there again for its next connection; and a client
// for which as much waits as may, of QoS 1 and no queue, is ended.
func (c *Connection) admitLocked(n int, qos byte, queued bool, now time.Time) bool {
	left := c.roomLocked(n)
	switch {
	case left == ample:
		return true
	case qos == 0:
		if left == none {
			c.fallBehindLocked(now) // so that it gives way to others if it takes nothing at all
		}
		c.g.metrics.dropped("slow-qos0")
		return false
	}
	c.fallBehindLocked(now)
	if left == little || queued {
		return true
	}
	c.overflowLocked()
	return false
}

// fallBehindLocked has the connection watched until there is room again.
func (c *Connection) fallBehindLocked(now time.Time) {
	if c.behind {
		return
	}
	c.behind, c.took, c.tookAt = true, false, now
	c.g.slow.add(c)
}

// overflowLocked ends a connection for which too much waits.
func (c *Connection) overflowLocked() {
	c.closed = true
	c.r.notify(note{c: c, action: actEnd, cause: tooSlow()})
}

// answerRoomLocked ends the connection of a client that sends packets without reading the answers.
func (c *Connection) answerRoomLocked() {
	if !c.closed && len(c.out) > mostOut*c.g.maxOut {
		c.overflowLocked()
	}
}

func tooSlow() *cause {
	return &cause{code: mqtt.QuotaExceeded, send: true, reason: reasonThrottled, detail: "the client does not take what is sent to it", record: "receive"}
}

// armResume makes sure that a connection that was held back is read again: what held it back may have gone meanwhile.
// It runs on the loop after paused is set.
func (c *Connection) armResume() {
	c.mu.Lock()
	wait := len(c.acks.entries) >= c.g.limits.ReceiveMaximum
	c.acks.resume = wait
	c.mu.Unlock()
	if !wait {
		c.r.notify(note{c: c, action: actResume})
	}
}
