package gateway

import (
	"context"
	"time"

	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
)

// queue is how far a stored session's client has got with what is stored for it. Messages are
// read in the order of their ids; while nothing is left behind in the store, new ones
// go to the client as they are committed, without being read back. Guarded by the
// session's mu.
type queue struct {
	owner    *Connection        // that it is of; until resume has run, not the session's
	cursor   int64              // all up to here went to the present connection
	current  bool               // nothing beyond cursor is in the store
	draining bool               // a worker reads
	missed   bool               // something came while it read
	held     map[int64]struct{} // sent, not acknowledged
	acked    map[int64]struct{} // while a worker reads: acknowledged since it began with a page
}

const (
	pageSize     = 128
	storeTimeout = 10 * time.Second
)

// acked removes a message from the queue.
func (s *session) acked(message int64) {
	s.g.sessions.Ack(s.number, message) // first: who finds it no longer held knows that it is acknowledged
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.queue.held, message)
	if s.queue.draining {
		if s.queue.acked == nil {
			s.queue.acked = map[int64]struct{}{}
		}
		s.queue.acked[message] = struct{}{}
	}
}

// arrived is called after message was committed to the session's queue.
func (s *session) arrived(t *turn, tg *target, m *outgoing, message int64) {
	c := s.conn.Load()
	if c == nil {
		return
	}
	s.mu.Lock()
	q := &s.queue
	if q.owner != c {
		s.mu.Unlock()
		return // resume is to come, and reads it
	}
	if !q.current || message <= q.cursor || !c.windowRoom() {
		q.current, q.missed = false, true
		q.cursor = min(q.cursor, message-1)
		s.mu.Unlock()
		s.refill(t, c)
		return
	}
	answer := c.mayReceive(t, tg, m.topic)
	if answer == unknown {
		q.current, q.missed = false, true
		s.mu.Unlock()
		s.refill(t, c)
		return
	}
	q.cursor = message
	q.hold(message)
	s.mu.Unlock()
	switch {
	case tg.sub.noLocal && m.from == s:
		s.acked(message)
		return
	case answer == no:
		if s.withhold(message, tg.sub.share) {
			s.g.workers.run(func() { s.giveBack([]int64{message}) })
		}
		return
	}
	c.deliver(t, m, 1, m.retain && tg.sub.asPublished, message)
}

func (q *queue) hold(message int64) {
	if q.held == nil {
		q.held = map[int64]struct{}{}
	}
	q.held[message] = struct{}{}
}

// windowRoom tells whether the client may be sent another message of its queue now.
func (c *Connection) windowRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.behind {
		return false
	}
	if c.roomLocked(0) != ample {
		c.fallBehindLocked(c.g.now())
		return false
	}
	s := c.subscriberLocked()
	return s.window.room() && len(s.backlog) == s.head
}

// refill has a worker read on when the client has room.
func (s *session) refill(_ *turn, c *Connection) {
	s.mu.Lock()
	start := !s.queue.current && !s.queue.draining && s.conn.Load() == c && s.queue.owner == c
	if start {
		c.mu.Lock()
		start = !c.closed && !c.behind && c.subscriberLocked().window.n <= c.sub.window.limit/2
		c.mu.Unlock()
		s.queue.draining = s.queue.draining || start
	}
	s.mu.Unlock()
	if start {
		s.g.workers.run(func() { s.drain(c) })
	}
}

// resume begins the queue for a new connection.
func (s *session) resume(c *Connection) {
	s.mu.Lock()
	s.queue = queue{owner: c}
	shares := []int64{}
	for _, sub := range s.subs {
		if sub.share != 0 {
			shares = append(shares, sub.share)
		}
	}
	row := s.row
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	for _, share := range shares {
		if _, err := s.g.sessions.Claim(ctx, row, share, pageSize*8); err != nil {
			s.g.log.Warn("messages of a shared subscription can't be claimed", "clientId", s.clientID, "err", err)
		}
	}
	s.refill(nil, c)
}

// drain sends what is stored, as far as the client's window allows.
func (s *session) drain(c *Connection) {
	t := turn{g: s.g, now: s.g.now()}
	defer t.flush()
	for {
		s.mu.Lock()
		if s.conn.Load() != c || s.queue.owner != c || s.ended {
			s.mu.Unlock()
			s.stopDraining(c)
			return
		}
		after := s.queue.cursor
		s.queue.missed, s.queue.acked = false, nil
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
		page, err := s.g.sessions.Read(ctx, s.number, after, pageSize)
		cancel()
		if err != nil {
			s.g.log.Error("a session's queue can't be read", "clientId", s.clientID, "err", err)
			s.stopDraining(c)
			return
		}
		if len(page) == 0 {
			s.mu.Lock()
			again := s.queue.owner == c && s.queue.missed
			if s.queue.owner == c && !again {
				s.queue.current, s.queue.draining, s.queue.acked = true, false, nil
			}
			s.mu.Unlock()
			if again {
				continue
			}
			return
		}
		var back []int64
		for i := range page {
			if !c.windowRoom() {
				s.giveBack(back)
				s.stopDraining(c)
				t.flush()
				s.refill(&t, c) // PUBACKs may have come in between
				return
			}
			q := &page[i]
			s.mu.Lock()
			if s.queue.owner != c {
				s.mu.Unlock()
				break
			}
			_, had := s.queue.held[q.ID]
			if _, acked := s.queue.acked[q.ID]; acked {
				had = true
			}
			s.queue.cursor = max(s.queue.cursor, q.ID)
			if !had {
				s.queue.hold(q.ID)
			}
			s.mu.Unlock()
			if !had && !s.send(&t, c, q) && s.withhold(q.ID, q.Group) {
				back = append(back, q.ID)
			}
		}
		s.giveBack(back)
		t.flush()
		t.now = s.g.now()
	}
}

// stopDraining is the end of a drain, unless the queue is another connection's by now.
func (s *session) stopDraining(c *Connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queue.owner == c {
		s.queue.draining, s.queue.acked = false, nil
	}
}

// send gives a stored message to the client; false when that may not receive it.
func (s *session) send(t *turn, c *Connection, q *sessionstore.Queued) bool {
	m := q.Message
	if d := c.auth.Authorize("iot:Receive", c.g.topicARN(m.Topic)); !d.Allowed() {
		c.denied("iot:Receive", m.Topic, d)
		return false
	}
	out := fromMessage(m)
	if !out.expires.IsZero() && !t.now.Before(out.expires) {
		s.acked(q.ID)
		return true
	}
	t.enc = t.enc[:0]
	c.deliver(t, &out, 1, m.Retain && q.RetainAsPublished, q.ID)
	return true
}

// withhold settles what becomes of a message that the client may not receive. One that was queued for the principal
// that is connected now is removed. One that was queued while another principal had the session stays, passed over by
// this connection, for that principal to come back. One that came through a shared subscription is to be given back to
// the group: then withhold returns true.
func (s *session) withhold(message, share int64) (giveBack bool) {
	if share != 0 {
		return true
	}
	s.mu.Lock()
	others := s.row != nil && message <= s.row.PrincipalSince
	s.mu.Unlock()
	if !others {
		s.acked(message)
	}
	return false
}

// giveBack has the members of groups share messages again that this session's client may not receive.
func (s *session) giveBack(messages []int64) {
	if len(messages) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if err := s.g.sessions.GiveBack(ctx, s.number, messages); err != nil {
		s.g.log.Warn("messages of a shared subscription can't be given back before the client leaves", "clientId", s.clientID, "err", err)
	}
}

// nudged is called when another node has queued a message.
func (s *session) nudged(id int64) {
	c := s.conn.Load()
	if c == nil {
		return
	}
	s.mu.Lock()
	s.queue.current, s.queue.missed = false, true
	s.queue.cursor = min(s.queue.cursor, id-1)
	s.mu.Unlock()
	s.refill(nil, c)
}

// fromMessage is a message as it goes out.
func fromMessage(m *mqtt.Message) outgoing {
	out := outgoing{topic: m.Topic, payload: m.Payload, qos: m.QoS, retain: m.Retain, props: m.Properties, message: m}
	if m.Properties != nil && m.Properties.MessageExpiry != nil {
		out.expires = m.Received.Add(time.Duration(*m.Properties.MessageExpiry) * time.Second)
	}
	return out
}
