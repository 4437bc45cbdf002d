package sessionstore

import (
	"context"
	"errors"
	"time"

	"flotilla/internal/gateway/codec"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// OwedWill is a will whose time has come.
type OwedWill struct {
	ClientID string
	Epoch    int64
	Message  *mqtt.Message
}

// willLease is how long a will that was given out is not given out again.
const willLease = 10 * time.Second

// Wills gives up to limit wills out that are due. The caller publishes them with
// ClearWill in the publish's write; what was not cleared is given out again after
// ten seconds, on any node.
func (s *Store) Wills(ctx context.Context, limit int) (out []OwedWill, err error) {
	now := s.cfg.Now()
	due, err := s.exists(ctx, `SELECT 1 FROM mqtt_session WHERE will_due <= $1 AND will IS NOT NULL LIMIT 1`, now.UnixMilli())
	if err != nil || !due {
		return nil, wrap("wills", err)
	}
	err = s.write(ctx, func(_ context.Context, tx store.Tx) error {
		out = nil
		rows, err := tx.Query(`UPDATE mqtt_session SET will_due = $1 WHERE client_id IN
			(SELECT client_id FROM mqtt_session WHERE will_due <= $2 AND will IS NOT NULL ORDER BY will_due LIMIT $3) RETURNING client_id, epoch, will`,
			now.Add(willLease).UnixMilli(), now.UnixMilli(), limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var w OwedWill
			var body []byte
			if err := rows.Scan(&w.ClientID, &w.Epoch, &body); err != nil {
				return err
			}
			if w.Message, err = codec.Parse(body); err != nil {
				return err
			}
			out = append(out, w)
		}
		return errors.Join(rows.Err(), rows.Close())
	})
	return out, wrap("wills", err)
}

// ClearWill is a part of the write by which a will is published.
func (s *Store) ClearWill(_ context.Context, tx store.Tx, clientID string, epoch int64) error {
	_, err := tx.Exec(`UPDATE mqtt_session SET will = NULL, will_due = NULL WHERE client_id = $1 AND epoch = $2`, clientID, epoch)
	return err
}
