package sessionstore

import (
	"context"
	"errors"

	"flotilla/internal/store"
)

// loadPage sessions are read at once.
const loadPage = 1000

// Load ends the connections that this node held before it died, fills the
// counters of queues, and calls each with every session that outlives its
// connection, subscriptions included. Sessions that have expired are not given;
// the next Expire ends them. each may keep the Session; its error ends Load.
func (s *Store) Load(ctx context.Context, each func(*Session) error) error {
	if _, err := s.Bury(ctx, s.cfg.Node); err != nil {
		return err
	}
	if err := s.count(ctx); err != nil {
		return wrap("load", err)
	}
	for after := int64(0); ; {
		page, err := s.page(ctx, after)
		if err != nil {
			return wrap("load", err)
		}
		for _, p := range page {
			if err := each(p); err != nil {
				return err
			}
			after = p.Number
		}
		if len(page) < loadPage {
			return nil
		}
	}
}

// page returns sessions by number, with their subscriptions.
func (s *Store) page(ctx context.Context, after int64) (page []*Session, err error) {
	err = s.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		page = make([]*Session, 0, loadPage)
		rows, err := tx.Query(`SELECT `+sessionColumns+` FROM mqtt_session
			WHERE number > $1 AND number <> 0 AND (expires IS NULL OR expires > $2) ORDER BY number LIMIT $3`, after, s.cfg.Now().UnixMilli(), loadPage)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			p := &Session{}
			if err := scanSession(rows, p); err != nil {
				return err
			}
			page = append(page, p)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(page) == 0 {
			return err
		}
		return fillSubscriptions(tx, page)
	})
	return page, err
}

// fillSubscriptions reads those of a page of sessions in the order of their numbers.
func fillSubscriptions(tx store.Tx, page []*Session) error {
	rows, err := tx.Query(`SELECT session, filter, options, share_group FROM mqtt_subscription WHERE session >= $1 AND session <= $2 ORDER BY session, filter`,
		page[0].Number, page[len(page)-1].Number)
	if err != nil {
		return err
	}
	defer rows.Close()
	i := 0
	for rows.Next() {
		var number, options int64
		var sub Subscription
		if err := rows.Scan(&number, &sub.Filter, &options, &sub.Group); err != nil {
			return err
		}
		sub.setOptions(options)
		for i < len(page) && page[i].Number < number {
			i++
		}
		if i < len(page) && page[i].Number == number {
			page[i].Subscriptions = append(page[i].Subscriptions, sub)
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}

// count fills the counters from the store.
func (s *Store) count(ctx context.Context) error {
	return s.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		var n int64
		if err := tx.QueryRow(`SELECT COUNT(*) FROM mqtt_retained`).Scan(&n); err != nil {
			return err
		}
		s.retained.Store(n)
		s.queues.init(s.cfg)
		rows, err := tx.Query(`SELECT session, COUNT(*), CAST(SUM(size) AS BIGINT) FROM mqtt_queue GROUP BY session`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var session, messages, size int64
			if err := rows.Scan(&session, &messages, &size); err != nil {
				return err
			}
			s.queues.set(session, messages, size)
		}
		return errors.Join(rows.Err(), rows.Close())
	})
}
