package gateway

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"flotilla/internal/gateway/netpoll"
	"flotilla/internal/mqtt"
)

// reactor is an event loop with the connections that it serves. All its methods but
// those that say so are for the loop's goroutine.
type reactor struct {
	g      *Gateway
	loop   *netpoll.Loop[*Connection]
	turn   turn
	fresh  bool   // turn.now is of this round
	buf    []byte // all connections are read into it
	again  []*Connection
	spare  []*Connection
	wheel  wheel
	linger map[*Connection]time.Time // closed by us, until the peer has read the rest

	mu     sync.Mutex
	notes  []note
	noted  atomic.Bool
	unread []note
}

// note asks a loop for something; exactly one of the actions.
type note struct {
	c      *Connection
	action action
	cause  *cause
	owed   *owed
}

type action uint8

const (
	actFlush   action = iota // bytes were added to c
	actSettled               // owed was committed, or failed
	actEnd                   // end c because of cause
	actReturn                // the worker is done with c
	actResume                // c may be read again
	actAdd                   // c is new
)

// turn is what is shared by everything done in one go: the time, and the connections
// that have bytes to flush at its end.
type turn struct {
	g       *Gateway
	now     time.Time
	loop    *reactor // nil on a worker or any other goroutine: blocking is allowed
	dirty   []*Connection
	enc     []byte
	picked  []*subscription // members chosen for the message under way
	members []*subscription // of a shared subscription, while one is chosen
	sends   []peerSend      // nodes that it goes to
	left    []*subscription // members that have not taken it

	publish mqtt.Publish // the packet under way
	message outgoing
	in, out int    // messages, for the metrics
	arn     string // of the last topic that was asked for
}

// topicARN is the ARN of a topic. A message's topic is asked for by its publisher and by all who receive it, one after
// the other: the last one is kept.
func (t *turn) topicARN(topic string) string {
	if n := len(t.g.topicPrefix); len(t.arn) != n+len(topic) || t.arn[n:] != topic {
		t.arn = t.g.topicARN(topic)
	}
	return t.arn
}

// topicOf makes a topic's text; it shares memory with its ARN, which is asked for next.
func (t *turn) topicOf(topic []byte) string {
	t.arn = t.g.topicPrefix + string(topic)
	return t.arn[len(t.g.topicPrefix):]
}

func newReactor(g *Gateway) (*reactor, error) {
	loop, err := netpoll.New[*Connection](time.Second)
	if err != nil {
		return nil, err
	}
	r := &reactor{g: g, loop: loop, buf: make([]byte, g.limits.maxPacket()+64<<10), linger: map[*Connection]time.Time{}}
	r.turn = turn{g: g, loop: r, now: g.now()}
	return r, nil
}

// notify hands a note to the loop. Any goroutine may call it; it does not block. A
// connection has at most a few notes under way, a settled write one.
func (r *reactor) notify(n note) {
	r.mu.Lock()
	r.notes = append(r.notes, n)
	r.mu.Unlock()
	if !r.noted.Swap(true) {
		r.loop.Wake()
	}
}

func (r *reactor) time() time.Time {
	if !r.fresh {
		r.turn.now, r.fresh = r.g.now(), true
	}
	return r.turn.now
}

// Ready implements netpoll.Owner.
func (r *reactor) Ready(c *Connection, ev netpoll.Event) {
	r.time()
	if ev&netpoll.Hangup != 0 {
		c.hungUp = true
	}
	if ev&netpoll.Writable != 0 && c.blocked.Load() {
		c.mu.Lock()
		c.flushLocked()
		last := c.finished && len(c.out) == 0 && !c.blocked.Load()
		c.mu.Unlock()
		if last {
			c.closeWrite() // the peer has read on, and gets to know why it is ended
		}
	}
	if ev&(netpoll.Readable|netpoll.Hangup) != 0 {
		r.read(c)
	}
}

// read reads once and serves what came.
func (r *reactor) read(c *Connection) {
	switch {
	case c.busy || c.paused:
		return // who gives it back reads
	case c.finished:
		r.discard(c)
		return
	}
	held := copy(r.buf, c.partial)
	if held > 0 {
		c.g.pool.put(c.partial)
		c.partial = nil
	}
	n, err := c.read(r.buf[held:])
	if n == 0 && err != nil && err != netpoll.ErrWouldBlock {
		r.finish(c, lost(err))
		return
	}
	if n > 0 {
		c.active = uint32(r.turn.now.Unix())
		if c.hungUp || c.tls != nil || held+n == len(r.buf) {
			r.again = append(r.again, c) // the end, a further record, or more than fits
		}
	}
	if held+n == 0 {
		return
	}
	rest, v := c.serve(&r.turn, r.buf[:held+n])
	if len(rest) > 0 {
		c.partial = append(c.g.pool.get(len(rest)), rest...)
	}
	r.settle(c, v)
}

// settle does what a verdict asks for.
func (r *reactor) settle(c *Connection, v verdict) {
	switch v {
	case handOver:
		c.busy = true
		r.g.workers.serve(c)
	case holdBack:
		c.paused = true
		c.armResume()
	case endNow:
		r.finish(c, c.ending)
	}
}

// lost is the cause that a failed read gives.
func lost(err error) *cause {
	if errors.Is(err, io.EOF) {
		return &cause{reason: reasonConnectionLost, detail: "the peer closed the connection"}
	}
	return &cause{reason: reasonConnectionLost, detail: "read: " + err.Error()}
}

// Turn implements netpoll.Owner.
func (r *reactor) Turn() bool {
	if r.noted.Load() {
		r.time()
		r.noted.Store(false)
		r.mu.Lock()
		work := r.notes
		r.notes = r.unread[:0]
		r.mu.Unlock()
		for i := range work {
			r.act(&work[i])
			work[i] = note{}
		}
		r.unread = work
	}
	if len(r.again) > 0 {
		r.time()
		work := r.again
		r.again = r.spare[:0]
		for i, c := range work {
			if !c.finished || r.lingers(c) {
				r.read(c)
			}
			work[i] = nil
		}
		r.spare = work
	}
	r.turn.flush()
	r.fresh = false
	return len(r.again) > 0 || r.noted.Load()
}

func (r *reactor) act(n *note) {
	switch n.action {
	case actFlush:
		n.c.mu.Lock()
		n.c.flushLocked()
		n.c.mu.Unlock()
	case actSettled:
		r.g.settled(&r.turn, n.owed)
	case actEnd:
		if !n.c.finished {
			r.end(n.c, n.cause)
		}
	case actReturn:
		r.takeBack(n.c)
	case actResume:
		if n.c.paused && !n.c.finished {
			n.c.paused = false
			r.read(n.c)
		}
	case actAdd:
		r.add(n.c)
	}
}

// end ends a connection now, or when its worker gives it back.
func (r *reactor) end(c *Connection, why *cause) {
	if c.busy {
		c.kick.CompareAndSwap(nil, why)
		return
	}
	r.finish(c, why)
}

func (r *reactor) takeBack(c *Connection) {
	c.busy = false
	switch why := c.kick.Load(); {
	case c.ending != nil:
		r.finish(c, c.ending)
	case why != nil:
		r.finish(c, why)
	case c.holding:
		c.holding = false
		c.paused = true
		c.armResume()
	default:
		r.read(c)
	}
}

func (r *reactor) add(c *Connection) {
	if c.finished {
		return // it was ended before it began
	}
	if err := r.loop.Add(c.fd, c); err != nil {
		r.g.log.Error("connection can't be watched", "clientId", c.clientID(), "err", err)
		r.finish(c, &cause{reason: reasonServerError})
		return
	}
	c.added = true
	if c.idleSeconds > 0 {
		c.active = uint32(r.time().Unix())
		r.arm(c, int64(c.active)+int64(c.idleSeconds))
	}
	r.time()
	switch why := c.kick.Load(); {
	case c.ending != nil:
		r.finish(c, c.ending)
	case why != nil:
		r.finish(c, why)
	default:
		r.read(c) // what came since CONNECT has made no edge here
	}
}

// finish ends a connection: what is owed to others because of that happens on a worker.
func (r *reactor) finish(c *Connection, why *cause) {
	if c.finished {
		return
	}
	c.finished = true
	r.wheel.disarm(c)
	if c.partial != nil {
		c.g.pool.put(c.partial)
		c.partial = nil
	}
	c.mu.Lock()
	if why.send && c.version == mqtt.V5 {
		d := mqtt.Disconnect{Code: why.code}
		if why.text != "" && c.wantsProblems {
			d.Properties.Present = d.Properties.Present.With(mqtt.PropReasonString)
			d.Properties.ReasonString = why.text
		}
		c.out = d.Append(c.out, c.version)
	}
	c.closed = true
	c.flushLocked()
	rest := len(c.out) > 0 || c.blocked.Load()
	c.mu.Unlock()
	if c.added && (why.linger() || rest) && len(r.linger) < maxLingering {
		if !rest {
			c.closeWrite()
		}
		r.linger[c] = r.time().Add(lingerTime)
		r.again = append(r.again, c)
	} else {
		r.release(c)
	}
	r.g.workers.run(func() { r.g.teardown(c, why) })
}

const (
	maxLingering = 4096
	lingerTime   = 2 * time.Second
)

func (r *reactor) lingers(c *Connection) bool {
	_, ok := r.linger[c]
	return ok
}

// discard reads and drops what a peer still sends to a connection that we ended, so that
// our last packet is not lost to a reset.
func (r *reactor) discard(c *Connection) {
	if !r.lingers(c) {
		return
	}
	n, err := c.sock.Read(r.buf)
	switch {
	case err == netpoll.ErrWouldBlock:
	case err != nil:
		r.release(c)
	case n > 0:
		r.again = append(r.again, c)
	}
}

// release closes the socket.
func (r *reactor) release(c *Connection) {
	delete(r.linger, c)
	if c.added {
		r.loop.Remove(c.fd)
		c.added = false
	}
	c.mu.Lock()
	if c.out != nil {
		r.g.outBytes.Add(-int64(c.counted))
		c.counted = 0
		c.g.pool.put(c.out)
		c.out = nil
	}
	_ = c.sock.Close()
	c.mu.Unlock()
}

// Tick implements netpoll.Owner: once a second.
func (r *reactor) Tick() {
	now := r.time()
	r.wheel.advance(now.Unix(), func(c *Connection) {
		if c.finished {
			return
		}
		if c.expired(now) {
			r.end(c, &cause{code: mqtt.NotAuthorized, send: true, reason: reasonAuthError, detail: "its certificate has expired", record: "iot:Connect"})
			return
		}
		due := int64(c.active) + int64(c.idleSeconds)
		if due > now.Unix() || c.busy || c.paused {
			r.arm(c, max(due, now.Unix()+1))
			return
		}
		r.finish(c, &cause{code: mqtt.KeepAliveTimeout, send: true, reason: reasonKeepAlive, detail: "nothing was heard within 1.5 times the keep alive"})
	})
	for c, until := range r.linger {
		if now.After(until) {
			r.release(c)
		}
	}
	r.g.slow.check(now)
}

// arm has Tick look at c in a second, or when its certificate expires.
func (r *reactor) arm(c *Connection, second int64) {
	if c.expires != 0 {
		second = min(second, int64(c.expires))
	}
	r.wheel.arm(c, second)
}

// closeAll closes the sockets that are left, after the loop has ended.
func (r *reactor) closeAll() {
	for c := range r.linger {
		c.mu.Lock()
		_ = c.sock.Close()
		c.mu.Unlock()
	}
	clear(r.linger)
}
