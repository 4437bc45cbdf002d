package sessionstore

import (
	"context"
	"errors"
	"time"

	"flotilla/internal/store"
)

// expireBatch rows end in one write.
const expireBatch = 500

// sweepEvery is how often what no session refers to is looked for.
const sweepEvery = time.Hour

// Ended is a session that has expired.
type Ended struct {
	ClientID string
	Number   int64
}

// Expire ends the sessions whose time has passed, which it returns, removes
// messages and retained messages that have expired, and collects bodies that no
// queue refers to. A session with a will that is still owed waits for ClearWill.
// Call it every few seconds; on several nodes at once does no harm. With an error
// it still returns what has ended before.
func (s *Store) Expire(ctx context.Context) (ended []Ended, err error) {
	s.expireMu.Lock()
	defer s.expireMu.Unlock()
	s.retryAcks()
	for {
		some, n, err := s.expireSessions(ctx)
		if err != nil {
			return ended, wrap("expire sessions", err)
		}
		ended = append(ended, some...)
		if n < expireBatch {
			break
		}
	}
	if err := s.expireMessages(ctx); err != nil {
		return ended, wrap("expire messages", err)
	}
	if err := s.expireRetained(ctx); err != nil {
		return ended, wrap("expire retained messages", err)
	}
	if err := s.collectBodies(ctx); err != nil {
		return ended, wrap("collect bodies", err)
	}
	if now := s.cfg.Now(); now.Sub(s.swept) >= sweepEvery {
		if err := s.sweep(ctx); err != nil {
			return ended, wrap("sweep", err)
		}
		s.swept = now
	}
	return ended, nil
}

// exists spares the writer what is usually not there.
func (s *Store) exists(ctx context.Context, query string, args ...any) (found bool, err error) {
	err = s.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		found = false
		var one int64
		err := tx.QueryRow(query, args...).Scan(&one)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		found = err == nil
		return err
	})
	return found, err
}

func (s *Store) expireSessions(ctx context.Context) (ended []Ended, n int, err error) {
	now := s.cfg.Now().UnixMilli()
	found, err := s.exists(ctx, `SELECT 1 FROM mqtt_session WHERE expires <= $1 AND will IS NULL LIMIT 1`, now)
	if err != nil || !found {
		return nil, 0, err
	}
	err = s.write(ctx, func(ctx context.Context, tx store.Tx) error {
		ended, n = nil, 0
		rows, err := tx.Query(`DELETE FROM mqtt_session WHERE client_id IN
			(SELECT client_id FROM mqtt_session WHERE expires <= $1 AND will IS NULL ORDER BY expires LIMIT $2) RETURNING client_id, number`, now, expireBatch)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e Ended
			if err := rows.Scan(&e.ClientID, &e.Number); err != nil {
				return err
			}
			n++
			if e.Number != 0 {
				ended = append(ended, e)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		for _, e := range ended {
			if err := s.discard(ctx, tx, e.Number); err != nil {
				return err
			}
		}
		return nil
	})
	return ended, n, err
}

func (s *Store) expireMessages(ctx context.Context) error {
	now := s.cfg.Now().UnixMilli()
	for {
		found, err := s.exists(ctx, `SELECT 1 FROM mqtt_queue WHERE expires <= $1 LIMIT 1`, now)
		if err != nil || !found {
			return err
		}
		err = s.write(ctx, func(ctx context.Context, tx store.Tx) error {
			rows, err := tx.Query(`DELETE FROM mqtt_queue WHERE (session, id) IN
				(SELECT session, id FROM mqtt_queue WHERE expires <= $1 LIMIT $2) RETURNING session, size`, now, expireBatch)
			return s.removed(ctx, rows, err)
		})
		if err != nil {
			return err
		}
	}
}

// removed counts rows of session and size that were deleted.
func (s *Store) removed(ctx context.Context, rows store.Rows, err error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	type one struct{ session, size int64 }
	var gone []one
	for rows.Next() {
		var o one
		if err := rows.Scan(&o.session, &o.size); err != nil {
			return err
		}
		gone = append(gone, o)
	}
	s.db.AfterCommit(ctx, func() {
		for _, o := range gone {
			s.queues.add(o.session, -1, -o.size)
		}
	})
	return errors.Join(rows.Err(), rows.Close())
}

func (s *Store) expireRetained(ctx context.Context) error {
	now := s.cfg.Now().UnixMilli()
	for {
		found, err := s.exists(ctx, `SELECT 1 FROM mqtt_retained WHERE expires <= $1 LIMIT 1`, now)
		if err != nil || !found {
			return err
		}
		err = s.write(ctx, func(ctx context.Context, tx store.Tx) error {
			n, err := tx.Exec(`DELETE FROM mqtt_retained WHERE topic IN (SELECT topic FROM mqtt_retained WHERE expires <= $1 LIMIT $2)`, now, expireBatch)
			s.db.AfterCommit(ctx, func() { s.retained.Add(-n) })
			return err
		})
		if err != nil {
			return err
		}
	}
}

// collectPage bodies are looked at in one write, at most maxPages a call.
const (
	collectPage = 1000
	maxPages    = 20
)

// collectBodies removes shared bodies that no queue refers to. A body and its rows
// are written together and rows are only removed later, so one without rows is
// never needed again. Each call goes on where the last one stopped.
func (s *Store) collectBodies(ctx context.Context) error {
	for range maxPages {
		var ids []int64
		var last int64
		n := 0
		err := s.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
			ids, n = ids[:0], 0
			rows, err := tx.Query(`SELECT b.id, CASE WHEN EXISTS (SELECT 1 FROM mqtt_queue q WHERE q.id = b.id AND q.body IS NULL) THEN 1 ELSE 0 END
				FROM mqtt_body b WHERE b.id > $1 ORDER BY b.id LIMIT $2`, s.bodyCursor, collectPage)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var used int64
				if err := rows.Scan(&last, &used); err != nil {
					return err
				}
				n++
				if used == 0 {
					ids = append(ids, last)
				}
			}
			return errors.Join(rows.Err(), rows.Close())
		})
		if err != nil {
			return err
		}
		if len(ids) > 0 {
			if err := s.write(ctx, deleteBodies(ids)); err != nil {
				return err
			}
		}
		s.bodyCursor = last
		if n < collectPage {
			s.bodyCursor = 0
			return nil
		}
	}
	return nil
}

func deleteBodies(ids []int64) store.Func {
	return func(_ context.Context, tx store.Tx) error {
		for rest := ids; len(rest) > 0; {
			n := chunk(len(rest))
			args := make([]any, n)
			for i := range args {
				args[i] = rest[i]
			}
			rest = rest[n:]
			if _, err := tx.Exec(deleteBody[chunkIndex(n)], args...); err != nil {
				return err
			}
		}
		return nil
	}
}

// sweep removes what nothing refers to: rows that another node wrote while the
// session ended, and groups without persistent members, with their queues.
func (s *Store) sweep(ctx context.Context) error {
	err := s.write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`DELETE FROM mqtt_share WHERE NOT EXISTS (SELECT 1 FROM mqtt_subscription s WHERE s.share_group = mqtt_share.number AND s.share_group <> 0)`)
		return err
	})
	if err != nil {
		return err
	}
	const owned = `SELECT 1 FROM mqtt_session WHERE number = $1 AND number <> 0 UNION SELECT 1 FROM mqtt_share WHERE number = $1`
	for after := int64(0); ; {
		var owner int64
		orphan := false
		err := s.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
			if err := tx.QueryRow(`SELECT COALESCE(MIN(session), 0) FROM mqtt_queue WHERE session > $1`, after).Scan(&owner); err != nil || owner == 0 {
				return err
			}
			var one int64
			err := tx.QueryRow(owned, owner).Scan(&one)
			orphan = errors.Is(err, store.ErrNotFound)
			if orphan {
				return nil
			}
			return err
		})
		if err != nil {
			return err
		}
		if owner == 0 {
			break
		}
		after = owner
		if !orphan {
			continue
		}
		err = s.write(ctx, func(ctx context.Context, tx store.Tx) error {
			_, err := tx.Exec(`DELETE FROM mqtt_queue WHERE session = $1`, owner)
			s.db.AfterCommit(ctx, func() { s.queues.forget(owner) })
			return err
		})
		if err != nil {
			return err
		}
	}
	return s.recount(ctx)
}

// recount corrects what other nodes have changed.
func (s *Store) recount(ctx context.Context) error {
	return s.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		var n int64
		if err := tx.QueryRow(`SELECT COUNT(*) FROM mqtt_retained`).Scan(&n); err != nil {
			return err
		}
		s.retained.Store(n)
		return nil
	})
}
