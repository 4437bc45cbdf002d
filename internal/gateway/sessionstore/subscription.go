package sessionstore

import (
	"context"
	"errors"
	"strings"

	"flotilla/internal/store"
)

// Subscribe stores subscriptions of a session, each in the place of one with the
// same filter, and returns them with their groups. ErrFenced when epoch is not the
// client id's connection.
func (s *Store) Subscribe(ctx context.Context, session *Session, subs []Subscription) ([]Subscription, error) {
	var out []Subscription
	err := s.write(ctx, func(_ context.Context, tx store.Tx) error {
		if err := s.fence(tx, session); err != nil {
			return err
		}
		out = append(out[:0], subs...)
		for i := range out {
			sub := &out[i]
			sub.Group = 0
			if strings.HasPrefix(sub.Filter, "$share/") {
				var err error
				if sub.Group, err = s.group(tx, sub.Filter); err != nil {
					return err
				}
			}
			_, err := tx.Exec(`INSERT INTO mqtt_subscription (session, filter, options, share_group) VALUES ($1, $2, $3, $4)
				ON CONFLICT (session, filter) DO UPDATE SET options = EXCLUDED.options, share_group = EXCLUDED.share_group`,
				session.Number, sub.Filter, sub.options(), sub.Group)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, wrap("subscribe", err)
	}
	return out, nil
}

// Unsubscribe removes subscriptions of a session, and returns those that it had.
func (s *Store) Unsubscribe(ctx context.Context, session *Session, filters []string) (had []string, err error) {
	err = s.write(ctx, func(_ context.Context, tx store.Tx) error {
		if err := s.fence(tx, session); err != nil {
			return err
		}
		had = had[:0]
		for _, f := range filters {
			n, err := tx.Exec(`DELETE FROM mqtt_subscription WHERE session = $1 AND filter = $2`, session.Number, f)
			if err != nil {
				return err
			}
			if n > 0 {
				had = append(had, f)
			}
		}
		return nil
	})
	return had, wrap("unsubscribe", err)
}

// fence fails unless the connection is the client id's, and the session is kept.
func (s *Store) fence(tx store.Tx, session *Session) error {
	if session.Number == 0 {
		return errors.New("the session ends with its connection")
	}
	var one int64
	err := tx.QueryRow(`SELECT 1 FROM mqtt_session WHERE client_id = $1 AND epoch = $2 AND number = $3`, session.ClientID, session.Epoch, session.Number).Scan(&one)
	if errors.Is(err, store.ErrNotFound) {
		return ErrFenced
	}
	return err
}

// group returns the number of a shared subscription.
func (s *Store) group(tx store.Tx, filter string) (number int64, err error) {
	err = tx.QueryRow(`SELECT number FROM mqtt_share WHERE filter = $1`, filter).Scan(&number)
	if errors.Is(err, store.ErrNotFound) {
		number = s.db.NextID()
		_, err = tx.Exec(`INSERT INTO mqtt_share (filter, number) VALUES ($1, $2) ON CONFLICT (filter) DO NOTHING`, filter, number)
		return number, err // when another node was faster the transaction is repeated
	}
	if err != nil {
		return 0, err
	}
	var one int64
	err = tx.QueryRow(`SELECT 1 FROM mqtt_subscription WHERE share_group = $1 AND share_group <> 0 LIMIT 1`, number).Scan(&one)
	if errors.Is(err, store.ErrNotFound) {
		// Another node may be about to remove the group: only one of the two succeeds.
		_, err = tx.Exec(`UPDATE mqtt_share SET number = number WHERE filter = $1`, filter)
	}
	return number, err
}

func subscriptions(tx store.Tx, number int64) ([]Subscription, error) {
	rows, err := tx.Query(`SELECT filter, options, share_group FROM mqtt_subscription WHERE session = $1 ORDER BY filter`, number)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var subs []Subscription
	for rows.Next() {
		var sub Subscription
		var options int64
		if err := rows.Scan(&sub.Filter, &options, &sub.Group); err != nil {
			return nil, err
		}
		sub.setOptions(options)
		subs = append(subs, sub)
	}
	return subs, errors.Join(rows.Err(), rows.Close())
}
