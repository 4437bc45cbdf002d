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
		left, spare, err := c.sock.Flush()
		if err != nil {
			return err
		}
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
	c.out = c.out[:0]
	left, spare, err := c.sock.Flush()
	if err != nil {
		return err
	}
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

// accountLocked keeps the process's sum up to date, and lets publishers go on when there is
// room again.
func (c *Connection) accountLocked() {
	n := c.waitingLocked()
	if n == c.counted {
		return
	}
	// Small changes of small amounts are not worth an atomic operation on a shared word.
	if n > keepSpan || c.counted > keepSpan || c.counted > 0 && n == 0 {
		c.g.outBytes.Add(int64(n - c.counted))
		c.counted = n
	}
	if c.full && n < c.g.maxOut/2 {
		c.full = false
		waiters := c.waiters
		c.waiters = nil
		for _, w := range waiters {
			w.r.notify(note{c: w, action: actResume})
		}
	}
}

// roomLocked tells whether a message of n bytes may be added. At QoS 0 the answer is no at the
// bound; at QoS 1 the client is marked full, which holds its publishers back, and only
// twice the bound ends the connection.
func (c *Connection) roomLocked(n int, qos byte, now time.Time) bool {
	waiting := len(c.out) + n
	if c.sub != nil {
		waiting += len(c.sub.backlog) - c.sub.head
	}
	if waiting <= c.g.maxOut && (waiting <= keepSpan || c.g.outBytes.Load() <= c.g.maxTotalOut) {
		return true
	}
	if qos == 0 {
		c.g.metrics.dropped("slow-qos0")
		return false
	}
	if !c.full {
		c.full, c.fullAt = true, now
		c.g.slow.add(c)
	}
	if waiting > 4*c.g.maxOut {
		c.closed = true
		c.r.notify(note{c: c, action: actEnd, cause: &cause{code: mqtt.QuotaExceeded, send: true, reason: reasonThrottled, detail: "the client does not read what it subscribed to"}})
		return false
	}
	return true
}

// armResume makes sure that a connection that was held back is read again: who holds it
// back may have had room meanwhile. It runs on the loop after paused is set.
func (c *Connection) armResume() {
	if w := c.heldBy(); w != nil {
		w.mu.Lock()
		if w.full && !w.closed {
			w.waiters = append(w.waiters, c)
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
	}
	c.mu.Lock()
	wait := len(c.acks.entries) >= c.g.limits.ReceiveMaximum
	c.acks.resume = wait
	c.mu.Unlock()
	if !wait {
		c.r.notify(note{c: c, action: actResume})
	}
}

func (c *Connection) heldBy() *Connection {
	if c.pub == nil {
		return nil
	}
	w := c.pub.heldBy
	c.pub.heldBy = nil
	return w
}
