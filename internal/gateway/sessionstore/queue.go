package sessionstore

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"flotilla/internal/gateway/codec"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

const (
	// rowBytes is what a message counts beyond its body.
	rowBytes = 64
	// shareAbove is how many bytes of further copies are worth a shared body, which costs
	// a row of its own, an index entry per reader, and its collection: measured, two
	// copies of a small message break even and four cost twice as much.
	shareAbove = 256
	// maxReadBytes bounds the bodies that one Read returns, beyond the first.
	maxReadBytes = 1 << 20
)

// Reservation is room in the queues of all targets of a message. Enqueue fills it
// within the publish's write; exactly one of Cancel and a committed Enqueue ends it.
type Reservation struct {
	s       *Store
	targets []Target
	left    []Target // left out by Reserve
	out     []Target // left out by the last Enqueue
	body    []byte
	id      int64
	assign  bool // id comes from the transaction
	size    int64
	expires any
	topic   string
	place   int64    // 0: none
	verify  []Target // counts that the store has to confirm; nearly always none
}

// Reserve makes room for m, of QoS 1, in the queue of every target, or fails with
// *FullError, which names those without room, and reserves nothing: the caller
// refuses the message, or tries again without them. With WhenFullDrop it leaves
// them out instead, unless it is all queues together that are full: see Left. id is
// the message's, from NextID; with 0 Enqueue takes one inside the transaction, so that
// on one node ids rise in the order of commits. targets must not be changed later. It
// does no I/O.
func (s *Store) Reserve(m *mqtt.Message, id int64, targets []Target) (*Reservation, error) {
	r := &Reservation{s: s, targets: targets, id: id, assign: id == 0, topic: m.Topic, place: m.Place}
	r.body = codec.AppendWithoutSource(make([]byte, 0, 24+len(m.Topic)+len(m.Payload)), m)
	r.size = int64(len(r.body)) + rowBytes
	if e, ok := messageExpires(m); ok {
		r.expires = e
	}
	now := s.cfg.Now()
	if s.queues.total.Load()+r.size > s.queues.maxTotal {
		e := fullError(targets)
		e.Total = true
		return nil, e
	}
	var full, with []Target
	for i, t := range targets {
		ok, verify := s.queues.reserve(t.Session, r.size, s.shared, now)
		switch {
		case !ok:
			if full == nil {
				with = append(with, targets[:i]...)
			}
			full = append(full, t)
			continue
		case full != nil:
			with = append(with, t)
		}
		if verify {
			r.verify = append(r.verify, t)
		}
	}
	if full == nil {
		return r, nil
	}
	r.targets, r.left = with, full
	if s.cfg.WhenFull == WhenFullDrop {
		return r, nil
	}
	r.Cancel()
	return nil, fullError(full)
}

func messageExpires(m *mqtt.Message) (int64, bool) {
	if m.Properties == nil || m.Properties.MessageExpiry == nil {
		return 0, false
	}
	return m.Received.UnixMilli() + int64(*m.Properties.MessageExpiry)*1000, true
}

// ID is the message's; when Enqueue assigns it, once the write has committed.
func (r *Reservation) ID() int64 { return r.id }

// Empty tells that every target was left out: there is nothing to enqueue.
func (r *Reservation) Empty() bool { return len(r.targets) == 0 }

// Left are the targets that do not get the message because their queues are full. It is
// final once the write has committed.
func (r *Reservation) Left() []Target {
	if len(r.out) == 0 {
		return r.left
	}
	return slices.Concat(r.left, r.out)
}

// Cancel gives the room back: the write failed, or was never made.
func (r *Reservation) Cancel() {
	for _, t := range r.within() {
		r.s.queues.add(t.Session, -1, -r.size)
	}
}

// within are the targets without those that the last Enqueue has left out.
func (r *Reservation) within() []Target {
	if len(r.out) == 0 {
		return r.targets
	}
	return slices.DeleteFunc(slices.Clone(r.targets), func(t Target) bool { return slices.Contains(r.out, t) })
}

// Enqueue is a part of the publish's write; it may be run again. With several
// nodes it can find queues full that Reserve has not: then it leaves them out, or fails
// with *FullError before it has changed anything.
func (r *Reservation) Enqueue(ctx context.Context, tx store.Tx) error {
	if r.Empty() {
		return nil
	}
	if r.assign {
		r.id = r.s.db.NextID()
	}
	if r.verify != nil {
		if err := r.confirm(tx); err != nil {
			return err
		}
	}
	targets := r.within()
	body := any(r.body)
	if n := len(targets); n > 1 && (n-1)*len(r.body) > shareAbove {
		if _, err := tx.Exec(`INSERT INTO mqtt_body (id, body) VALUES ($1, $2)`, r.id, r.body); err != nil {
			return err
		}
		body = nil
	}
	if r.place > 0 {
		return r.replace(ctx, tx, targets, body)
	}
	for rest := targets; len(rest) > 0; {
		n := chunk(len(rest))
		args := make([]any, 0, n*queueColumns)
		for _, t := range rest[:n] {
			options := int64(0)
			if t.RetainAsPublished {
				options = 1
			}
			args = append(args, t.Session, r.id, t.Group, options, r.size, r.expires, body)
		}
		if _, err := tx.Exec(insertQueue[chunkIndex(n)], args...); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// confirm asks the store how full the queues are.
func (r *Reservation) confirm(tx store.Tx) error {
	now := r.s.cfg.Now()
	drop := r.s.cfg.WhenFull == WhenFullDrop
	var full []Target
	for _, t := range r.verify {
		var messages, size int64
		err := tx.QueryRow(`SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM mqtt_queue WHERE session = $1`, t.Session).Scan(&messages, &size)
		if err != nil {
			return err
		}
		q := &r.s.queues
		isFull := messages+1 > q.maxMessages || size+r.size > q.maxBytes
		if isFull {
			full = append(full, t)
		}
		if isFull && drop {
			q.verify(t.Session, messages, size, now)
		} else {
			q.verify(t.Session, messages+1, size+r.size, now)
		}
	}
	switch {
	case drop:
		r.out = full
	case full != nil:
		return fullError(full)
	}
	return nil
}

// Statements take 1, 4, 16, 64 rows, so that few texts are prepared.
const (
	maxChunk     = 64
	queueColumns = 7
)

func chunk(n int) int {
	switch {
	case n >= 64:
		return 64
	case n >= 16:
		return 16
	case n >= 4:
		return 4
	}
	return 1
}

func chunkIndex(n int) int {
	switch n {
	case 64:
		return 3
	case 16:
		return 2
	case 4:
		return 1
	}
	return 0
}

var insertQueue = texts(`INSERT INTO mqtt_queue (session, id, share, options, size, expires, body) VALUES `, queueColumns, "$", ``)

// PostgreSQL does not infer the types of values in a list.
var deleteQueue = texts(`DELETE FROM mqtt_queue WHERE (session, id) IN (VALUES `, 2, "CAST($ AS BIGINT)", `) RETURNING session, size`)

var deleteBody = texts(`DELETE FROM mqtt_body WHERE id IN (VALUES `, 1, "CAST($ AS BIGINT)", `)`)

// texts are statements with 1, 4, 16 and 64 rows of placeholders.
func texts(head string, columns int, placeholder, tail string) (all [4]string) {
	for i, n := range []int{1, 4, 16, maxChunk} {
		var b strings.Builder
		b.WriteString(head)
		for k := range n * columns {
			switch {
			case k == 0:
				b.WriteString("(")
			case k%columns == 0:
				b.WriteString("), (")
			default:
				b.WriteString(", ")
			}
			b.WriteString(strings.Replace(placeholder, "$", "$"+strconv.Itoa(k+1), 1))
		}
		b.WriteString(")")
		b.WriteString(tail)
		all[i] = b.String()
	}
	return all
}

// Read returns up to limit messages of a session's queue with ids above after, in
// order, without those that have expired or that were acknowledged here before the
// call; fewer when they are large. Messages of
// other nodes may appear below ids that were already read: whoever is nudged with
// an id reads from before it.
func (s *Store) Read(ctx context.Context, session, after int64, limit int) (out []Queued, err error) {
	acked := s.unremoved(session) // before the read: it sees none that was removed since
	err = s.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		out = nil
		rows, err := tx.Query(`SELECT q.id, q.share, q.options, COALESCE(q.body, b.body) FROM mqtt_queue q LEFT JOIN mqtt_body b ON b.id = q.id AND q.body IS NULL
			WHERE q.session = $1 AND q.id > $2 AND (q.expires IS NULL OR q.expires > $3) ORDER BY q.id LIMIT $4`, session, after, s.cfg.Now().UnixMilli(), limit+len(acked))
		if err != nil {
			return err
		}
		defer rows.Close()
		size := 0
		for size < maxReadBytes && len(out) < limit && rows.Next() {
			var q Queued
			var options int64
			var body []byte
			if err := rows.Scan(&q.ID, &q.Group, &options, &body); err != nil {
				return err
			}
			if acked[q.ID] {
				continue
			}
			q.RetainAsPublished = options&1 != 0
			if q.Message, err = codec.Parse(body); err != nil {
				return err
			}
			size += len(body)
			out = append(out, q)
		}
		return errors.Join(rows.Err(), rows.Close())
	})
	return out, wrap("read", err)
}

// Queued tells how many messages a session's queue holds, about to be committed
// ones included, and their bytes; an estimate with several nodes.
func (s *Store) Queued(session int64) (messages, bytes int64) { return s.queues.get(session) }

// TotalBytes is what all queues hold.
func (s *Store) TotalBytes() int64 { return s.queues.total.Load() }

// Claim moves up to limit messages of a group's queue to the session of a member,
// which the caller then reads; it returns how many. ErrFenced when the connection
// is no longer the client id's.
func (s *Store) Claim(ctx context.Context, session *Session, group int64, limit int) (n int64, err error) {
	err = s.write(ctx, func(ctx context.Context, tx store.Tx) error {
		if err := s.fence(tx, session); err != nil {
			return err
		}
		var moved int64
		n, moved, err = sum(tx.Query(`UPDATE mqtt_queue SET session = $1, share = $2 WHERE session = $2 AND id IN
			(SELECT id FROM mqtt_queue WHERE session = $2 AND (expires IS NULL OR expires > $3) ORDER BY id LIMIT $4) RETURNING 0, size`,
			session.Number, group, s.cfg.Now().UnixMilli(), limit))
		if err != nil || n == 0 {
			return err
		}
		messages := n
		s.db.AfterCommit(ctx, func() {
			s.queues.add(group, -messages, -moved)
			s.queues.add(session.Number, messages, moved)
		})
		return nil
	})
	return n, wrap("claim", err)
}

// release gives what came through shared subscriptions, and is not acknowledged, back to their groups.
func (s *Store) release(ctx context.Context, tx store.Tx, number int64) error {
	if err := s.removeAcked(ctx, tx, number); err != nil {
		return err
	}
	rows, err := tx.Query(`UPDATE mqtt_queue SET session = share WHERE session = $1 AND share <> 0 RETURNING share, size`, number)
	return s.released(ctx, number, rows, err)
}

// GiveBack gives messages that came through shared subscriptions, and that the session's client may not have, back to
// their groups.
func (s *Store) GiveBack(ctx context.Context, session int64, ids []int64) error {
	err := s.write(ctx, func(ctx context.Context, tx store.Tx) error {
		for _, id := range ids {
			rows, err := tx.Query(`UPDATE mqtt_queue SET session = share WHERE session = $1 AND id = $2 AND share <> 0 RETURNING share, size`, session, id)
			if err := s.released(ctx, session, rows, err); err != nil {
				return err
			}
		}
		return nil
	})
	return wrap("give back", err)
}

// released counts rows of a group and a size that went from a session to the group.
func (s *Store) released(ctx context.Context, number int64, rows store.Rows, err error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	type moved struct{ group, size int64 }
	var all []moved
	for rows.Next() {
		var m moved
		if err := rows.Scan(&m.group, &m.size); err != nil {
			return err
		}
		all = append(all, m)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(all) == 0 {
		return err
	}
	s.db.AfterCommit(ctx, func() {
		for _, m := range all {
			s.queues.add(m.group, 1, m.size)
			s.queues.add(number, -1, -m.size)
		}
	})
	return nil
}

// sum adds up rows of a key and a size.
func sum(rows store.Rows, err error) (n, size int64, _ error) {
	if err != nil {
		return 0, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var key, one int64
		if err := rows.Scan(&key, &one); err != nil {
			return 0, 0, err
		}
		n++
		size += one
	}
	return n, size, errors.Join(rows.Err(), rows.Close())
}
