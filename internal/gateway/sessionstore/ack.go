package sessionstore

import (
	"context"
	"errors"

	"flotilla/internal/store"
)

// ack is a message that a client has acknowledged.
type ack struct{ session, id int64 }

// maxAcks are deleted in one write: about as many as a group of publishes with
// many subscribers adds, so that removal keeps pace.
const maxAcks = 16384

// Ack removes messages that the session's client has acknowledged. It does not
// wait: removals are made together, in the background, and one that is lost with
// the process means that the message is delivered again. A connection that was
// taken over may still acknowledge: the client has the message, and a message has
// one id for ever.
func (s *Store) Ack(session int64, ids ...int64) {
	s.ackMu.Lock()
	for _, id := range ids {
		s.acks = append(s.acks, ack{session, id})
	}
	start := !s.flushing && len(s.acks) > 0
	s.flushing = s.flushing || start
	s.ackMu.Unlock()
	if start {
		s.flush()
	}
}

// AckFlush waits until the acknowledgements made so far are removed.
func (s *Store) AckFlush(ctx context.Context) error {
	s.ackMu.Lock()
	if !s.flushing {
		left := len(s.acks)
		s.ackMu.Unlock()
		if left > 0 {
			return errors.New("sessionstore: acknowledgements could not be written")
		}
		return nil
	}
	if s.flushed == nil {
		s.flushed = make(chan struct{})
	}
	done := s.flushed
	s.ackMu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// removed is how much of a session's queue was removed.
type removed struct{ session, messages, bytes int64 }

// flush hands a write over that takes the acks that wait when it is run. The
// writer's queue may be full of publishes whose callers wait for room, so a
// goroutine waits in their place; there is one at most.
func (s *Store) flush() {
	go func() {
		var batch []ack
		var gone []removed
		s.db.WriteAsync(func(_ context.Context, tx store.Tx) (err error) {
			if batch == nil {
				batch = s.take()
			}
			gone, err = remove(tx, batch, gone[:0])
			return err
		}, func(err error) {
			if err == nil {
				s.forget(gone)
			}
			s.flushEnded(batch, err)
		})
	}()
}

// remove deletes messages and adds what that was to gone.
func remove(tx store.Tx, acks []ack, gone []removed) ([]removed, error) {
	for len(acks) > 0 {
		n := chunk(len(acks))
		args := make([]any, 0, 2*n)
		for _, a := range acks[:n] {
			args = append(args, a.session, a.id)
		}
		acks = acks[n:]
		rows, err := tx.Query(deleteQueue[chunkIndex(n)], args...)
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			r := removed{messages: 1}
			if err := rows.Scan(&r.session, &r.bytes); err != nil {
				_ = rows.Close()
				return nil, err
			}
			if k := len(gone) - 1; k >= 0 && gone[k].session == r.session {
				gone[k].messages++
				gone[k].bytes += r.bytes
				continue
			}
			gone = append(gone, r)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, err
		}
	}
	return gone, nil
}

func (s *Store) forget(gone []removed) {
	for _, r := range gone {
		s.queues.add(r.session, -r.messages, -r.bytes)
	}
}

// removeAcked removes what a session's client has acknowledged, before the rest of its queue becomes another's.
func (s *Store) removeAcked(ctx context.Context, tx store.Tx, session int64) error {
	var acks []ack
	for id := range s.unremoved(session) {
		acks = append(acks, ack{session, id})
	}
	gone, err := remove(tx, acks, nil)
	if err != nil {
		return err
	}
	s.db.AfterCommit(ctx, func() { s.forget(gone) })
	return nil
}

func (s *Store) take() []ack {
	s.ackMu.Lock()
	defer s.ackMu.Unlock()
	n := min(len(s.acks), maxAcks)
	batch := append(make([]ack, 0, n), s.acks[:n]...)
	s.acks = s.acks[:copy(s.acks, s.acks[n:])]
	s.taken = batch
	return batch
}

// unremoved are the messages of a session that are acknowledged and may still be in the store.
func (s *Store) unremoved(session int64) map[int64]bool {
	s.ackMu.Lock()
	defer s.ackMu.Unlock()
	var ids map[int64]bool
	for _, list := range [][]ack{s.taken, s.acks} {
		for _, a := range list {
			if a.session != session {
				continue
			}
			if ids == nil {
				ids = map[int64]bool{}
			}
			ids[a.id] = true
		}
	}
	return ids
}

// flushEnded starts the next write if there is something to do. After a failure
// the acks wait for the next Ack, or Expire.
func (s *Store) flushEnded(batch []ack, err error) {
	s.ackMu.Lock()
	s.taken = nil
	if err != nil {
		s.acks = append(s.acks, batch...)
	}
	again := err == nil && len(s.acks) > 0
	s.flushing = again
	if !again && s.flushed != nil {
		close(s.flushed)
		s.flushed = nil
	}
	s.ackMu.Unlock()
	if err != nil && !errors.Is(err, store.ErrClosed) {
		s.cfg.Log.Warn("acknowledgements are not removed yet", "err", err)
	}
	if again {
		s.flush()
	}
}

// retryAcks is called now and then.
func (s *Store) retryAcks() {
	s.Ack(0)
}
