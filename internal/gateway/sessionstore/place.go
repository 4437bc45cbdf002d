package sessionstore

import (
	"context"

	"flotilla/internal/store"
)

// replace enqueues a message with a place: in the queues of clients that are not connected it takes the place of those
// before it.
func (r *Reservation) replace(ctx context.Context, tx store.Tx, targets []Target, body any) error {
	for _, t := range targets {
		if t.Absent {
			if err := r.s.withdraw(ctx, tx, t.Session, r.topic, r.place-1); err != nil {
				return err
			}
		}
		options := int64(0)
		if t.RetainAsPublished {
			options = 1
		}
		_, err := tx.Exec(`INSERT INTO mqtt_queue (session, id, share, options, size, expires, body, topic, place) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			t.Session, r.id, t.Group, options, r.size, r.expires, body, r.topic, r.place)
		if err != nil {
			return err
		}
	}
	return nil
}

// Withdraw removes messages on a topic with places up to one from the queues of sessions whose clients are not
// connected. Those of others stay: their clients may have them already.
func (s *Store) Withdraw(ctx context.Context, sessions []int64, topic string, upTo int64) error {
	err := s.write(ctx, func(ctx context.Context, tx store.Tx) error {
		for _, session := range sessions {
			if err := s.withdraw(ctx, tx, session, topic, upTo); err != nil {
				return err
			}
		}
		return nil
	})
	return wrap("withdraw", err)
}

func (s *Store) withdraw(ctx context.Context, tx store.Tx, session int64, topic string, upTo int64) error {
	n, size, err := sum(tx.Query(`DELETE FROM mqtt_queue WHERE session = $1 AND topic = $2 AND place <= $3
		AND EXISTS (SELECT 1 FROM mqtt_session WHERE number = $1 AND node = '') RETURNING session, size`, session, topic, upTo))
	if err != nil || n == 0 {
		return err
	}
	s.db.AfterCommit(ctx, func() { s.queues.add(session, -n, -size) })
	return nil
}
