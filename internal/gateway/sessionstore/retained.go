package sessionstore

import (
	"context"
	"errors"
	"time"

	"flotilla/internal/gateway/codec"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// RetainedSummary is an entry of ListRetained.
type RetainedSummary struct {
	Topic        string
	PayloadBytes int64
	QoS          byte
	Modified     time.Time
}

// Retained is a retained message.
type Retained struct {
	Message  *mqtt.Message
	Modified time.Time
}

// Retain is a part of the publish's write: m becomes its topic's retained message,
// or, without a payload, there is none any more [MQTT-3.3.1-6]. With too many
// retained messages it fails with mqtt.QuotaExceeded before it has changed anything.
func (s *Store) Retain(ctx context.Context, tx store.Tx, m *mqtt.Message) error {
	if len(m.Payload) == 0 {
		n, err := tx.Exec(`DELETE FROM mqtt_retained WHERE topic = $1`, m.Topic)
		if err == nil && n > 0 {
			s.db.AfterCommit(ctx, func() { s.retained.Add(-1) })
		}
		return err
	}
	var expires any
	if e, ok := messageExpires(m); ok {
		expires = e
	}
	qos := int64(min(m.QoS, 1))
	body := codec.Append(make([]byte, 0, 64+len(m.Topic)+len(m.Payload)), m)
	if s.retained.Load() >= s.cfg.MaxRetained {
		var one int64
		err := tx.QueryRow(`SELECT 1 FROM mqtt_retained WHERE topic = $1`, m.Topic).Scan(&one)
		if errors.Is(err, store.ErrNotFound) {
			return mqtt.QuotaExceeded
		}
		if err != nil {
			return err
		}
	}
	n, err := tx.Exec(`UPDATE mqtt_retained SET qos = $2, size = $3, modified = $4, expires = $5, publisher = $6, body = $7 WHERE topic = $1`,
		m.Topic, qos, len(m.Payload), m.Received.UnixMilli(), expires, m.Source.PrincipalID, body)
	if err != nil || n > 0 {
		return err
	}
	// ON CONFLICT is for another node that retains on the topic for the first time, too.
	_, err = tx.Exec(`INSERT INTO mqtt_retained (topic, qos, size, modified, expires, publisher, body) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (topic) DO UPDATE SET qos = EXCLUDED.qos, size = EXCLUDED.size, modified = EXCLUDED.modified, expires = EXCLUDED.expires,
			publisher = EXCLUDED.publisher, body = EXCLUDED.body`,
		m.Topic, qos, len(m.Payload), m.Received.UnixMilli(), expires, m.Source.PrincipalID, body)
	if err == nil {
		s.db.AfterCommit(ctx, func() { s.retained.Add(1) })
	}
	return err
}

// Retained returns the retained message of a topic; ErrNotFound when there is none,
// or it has expired.
func (s *Store) Retained(ctx context.Context, topic string) (*Retained, error) {
	var out *Retained
	err := s.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		var body []byte
		var modified int64
		err := tx.QueryRow(`SELECT modified, body FROM mqtt_retained WHERE topic = $1 AND (expires IS NULL OR expires > $2)`, topic, s.cfg.Now().UnixMilli()).
			Scan(&modified, &body)
		if errors.Is(err, store.ErrNotFound) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		m, err := codec.Parse(body)
		out = &Retained{Message: m, Modified: time.UnixMilli(modified)}
		return err
	})
	if err != nil {
		return nil, wrap("retained", err)
	}
	return out, nil
}

// ListRetained returns up to limit retained messages with topics after one, in order.
func (s *Store) ListRetained(ctx context.Context, after string, limit int) (out []RetainedSummary, err error) {
	err = s.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		out = nil
		rows, err := tx.Query(`SELECT topic, size, qos, modified FROM mqtt_retained WHERE topic > $1 AND (expires IS NULL OR expires > $2) ORDER BY topic LIMIT $3`,
			after, s.cfg.Now().UnixMilli(), limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r RetainedSummary
			var qos, modified int64
			if err := rows.Scan(&r.Topic, &r.PayloadBytes, &qos, &modified); err != nil {
				return err
			}
			r.QoS, r.Modified = byte(qos), time.UnixMilli(modified)
			out = append(out, r)
		}
		return errors.Join(rows.Err(), rows.Close())
	})
	return out, wrap("list retained", err)
}

// RetainedMessages is how many there are, about.
func (s *Store) RetainedMessages() int64 { return s.retained.Load() }
