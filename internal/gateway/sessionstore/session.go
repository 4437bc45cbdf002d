package sessionstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flotilla/internal/gateway/codec"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// ConnectRequest is what a CONNECT that was allowed asks for.
type ConnectRequest struct {
	ClientID      string
	Principal     string
	Version       mqtt.Version
	CleanStart    bool
	ExpirySeconds uint32
	Will          *Will // nil: none
	// Yield has Connect fail with ErrHeld when a connection or a session of another principal has the client id.
	Yield bool
}

// Connected is what Connect gives.
type Connected struct {
	Session Session
	// Present tells that the session was resumed.
	Present bool
	// PreviousNode holds an earlier connection, which is to be ended before the
	// CONNACK: its epoch is less than Session.Epoch. "" none. It may be this node.
	PreviousNode string
	// Discarded is the number of a session that this one replaces; 0 none.
	Discarded int64
	// Will is that of an earlier connection, still due; nil none. It is to be
	// published now unless PreviousNode lives: that node publishes it as it ends
	// the connection.
	Will *mqtt.Message
}

const sessionColumns = `client_id, number, principal, protocol, expiry_seconds, node, epoch, connected, disconnected, principal_since`

type scanner interface{ Scan(dest ...any) error }

// scanSession reads sessionColumns, and more after them.
func scanSession(from scanner, s *Session, more ...any) error {
	var protocol, expiry, connected, disconnected int64
	dest := []any{&s.ClientID, &s.Number, &s.Principal, &protocol, &expiry, &s.Node, &s.Epoch, &connected, &disconnected, &s.PrincipalSince}
	if err := from.Scan(append(dest, more...)...); err != nil {
		return err
	}
	s.Version, s.ExpirySeconds = mqtt.Version(protocol), uint32(expiry)
	s.Connected, s.Disconnected = fromMillis(connected), fromMillis(disconnected)
	return nil
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// Connect makes this node the holder of a client id's connection, with the next
// epoch, and creates, resumes or replaces its session, in one transaction. A
// session of the other protocol version is replaced, as one that has expired is.
// The caller ends the earlier connection, if any, before it sends the CONNACK; two
// nodes that connect one client id at once get different epochs, and the greater wins.
func (s *Store) Connect(ctx context.Context, r ConnectRequest) (*Connected, error) {
	if r.ClientID == "" {
		return nil, errors.New("sessionstore: connect without a client id")
	}
	var will []byte
	var willDelay int64
	if r.Will != nil {
		will, willDelay = codec.Append(nil, r.Will.Message), r.Will.Delay.Milliseconds()
	}
	var out *Connected
	err := s.write(ctx, func(ctx context.Context, tx store.Tx) error {
		now := s.cfg.Now()
		out = &Connected{}
		var old Session
		var expires *int64
		var oldWill []byte
		var oldDelay int64
		err := scanSession(tx.QueryRow(`SELECT `+sessionColumns+`, expires, will, will_delay FROM mqtt_session WHERE client_id = $1`, r.ClientID),
			&old, &expires, &oldWill, &oldDelay)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		live := old.Number != 0 && (expires == nil || *expires > now.UnixMilli())
		if r.Yield && (live || old.Node != "") && old.Principal != r.Principal {
			return ErrHeld
		}
		out.Present = live && !r.CleanStart && old.Version == r.Version
		out.PreviousNode = old.Node
		n := &out.Session
		*n = Session{
			ClientID: r.ClientID, Principal: r.Principal, Version: r.Version, ExpirySeconds: r.ExpirySeconds,
			Node: s.cfg.Node, Epoch: old.Epoch + 1, Connected: time.UnixMilli(now.UnixMilli()),
		}
		switch {
		case out.Present:
			n.Number, n.PrincipalSince = old.Number, old.PrincipalSince
			if old.Principal != r.Principal {
				n.PrincipalSince = s.db.NextID()
			}
			if n.Subscriptions, err = subscriptions(tx, n.Number); err != nil {
				return err
			}
		case old.Number != 0:
			out.Discarded = old.Number
			if err := s.discard(ctx, tx, old.Number); err != nil {
				return err
			}
		}
		if n.Number == 0 && r.ExpirySeconds > 0 {
			n.Number = s.db.NextID()
		}
		if oldWill != nil && old.Node != s.cfg.Node && (oldDelay == 0 || !out.Present) {
			if out.Will, err = codec.Parse(oldWill); err != nil {
				return fmt.Errorf("the will of %s: %w", r.ClientID, err)
			}
		}
		_, err = tx.Exec(`INSERT INTO mqtt_session (`+sessionColumns+`, expires, will, will_delay, will_due)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $11, NULL, $9, $10, NULL)
			ON CONFLICT (client_id) DO UPDATE SET number = EXCLUDED.number, principal = EXCLUDED.principal, protocol = EXCLUDED.protocol,
				expiry_seconds = EXCLUDED.expiry_seconds, node = EXCLUDED.node, epoch = EXCLUDED.epoch, connected = EXCLUDED.connected,
				disconnected = 0, principal_since = EXCLUDED.principal_since, expires = NULL, will = EXCLUDED.will, will_delay = EXCLUDED.will_delay, will_due = NULL`,
			n.ClientID, n.Number, n.Principal, int64(n.Version), int64(n.ExpirySeconds), n.Node, n.Epoch, n.Connected.UnixMilli(), will, willDelay, n.PrincipalSince)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sessionstore: connect: %w", err)
	}
	return out, nil
}

// Disconnection is the end of a connection.
type Disconnection struct {
	ClientID string
	Epoch    int64
	// ExpirySeconds replaces the session's; nil keeps it.
	ExpirySeconds *uint32
	// End ends the session with the connection, whatever its expiry.
	End bool
	// WillDue is when the will is to be published, which stays stored until
	// ClearWill: Wills gives it out then. Zero: it is not owed (any more).
	WillDue time.Time
}

// Disconnected is what Disconnect gives.
type Disconnected struct {
	// Ended tells that the session ended: its subscriptions and queue are gone.
	Ended bool
	// Number is that of the session, also when it ended.
	Number int64
}

// Disconnect ends a connection of this node; ErrFenced when it was no longer the
// client id's. Messages that came through a shared subscription and were not
// acknowledged go back to their group.
func (s *Store) Disconnect(ctx context.Context, d Disconnection) (Disconnected, error) {
	var out Disconnected
	err := s.write(ctx, s.Disconnecting(d, &out))
	return out, wrap("disconnect", err)
}

// Disconnecting is Disconnect as a part of a write; out is set when it commits.
func (s *Store) Disconnecting(d Disconnection, out *Disconnected) store.Func {
	return func(ctx context.Context, tx store.Tx) error {
		now := s.cfg.Now()
		var number, expiry int64
		err := tx.QueryRow(`SELECT number, expiry_seconds FROM mqtt_session WHERE client_id = $1 AND epoch = $2 AND node = $3`, d.ClientID, d.Epoch, s.cfg.Node).
			Scan(&number, &expiry)
		if errors.Is(err, store.ErrNotFound) {
			return ErrFenced
		}
		if err != nil {
			return err
		}
		*out = Disconnected{Number: number}
		if d.ExpirySeconds != nil {
			expiry = int64(*d.ExpirySeconds)
		}
		if d.End || expiry == 0 {
			out.Ended = number != 0
			if out.Ended {
				if err := s.discard(ctx, tx, number); err != nil {
					return err
				}
			}
			number = 0
		} else if number != 0 {
			if err := s.release(ctx, tx, number); err != nil {
				return err
			}
		}
		var due any
		if !d.WillDue.IsZero() {
			due = d.WillDue.UnixMilli()
		}
		_, err = tx.Exec(`UPDATE mqtt_session SET number = $2, expiry_seconds = $3, node = '', disconnected = $4, expires = $5, will_due = $6,
			will = CASE WHEN $7 THEN will ELSE NULL END WHERE client_id = $1`,
			d.ClientID, number, expiry, now.UnixMilli(), expires(now, number, expiry), due, due != nil)
		return err
	}
}

// expires is when the row of a client that is not connected ends.
func expires(now time.Time, number, expirySeconds int64) any {
	switch {
	case number == 0:
		return now.Add(remembered).UnixMilli()
	case expirySeconds == Never:
		return nil
	}
	return now.UnixMilli() + expirySeconds*1000
}

// discard removes what is kept of a session.
func (s *Store) discard(ctx context.Context, tx store.Tx, number int64) error {
	if err := s.release(ctx, tx, number); err != nil {
		return err
	}
	if _, err := tx.Exec(`DELETE FROM mqtt_subscription WHERE session = $1`, number); err != nil {
		return err
	}
	if _, err := tx.Exec(`DELETE FROM mqtt_queue WHERE session = $1`, number); err != nil {
		return err
	}
	s.db.AfterCommit(ctx, func() { s.queues.forget(number) })
	return nil
}

// Session returns the row of a client id with its subscriptions; ErrNotFound.
func (s *Store) Session(ctx context.Context, clientID string) (*Session, error) {
	found := &Session{}
	err := s.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		*found = Session{}
		err := scanSession(tx.QueryRow(`SELECT `+sessionColumns+` FROM mqtt_session WHERE client_id = $1`, clientID), found)
		if errors.Is(err, store.ErrNotFound) {
			return ErrNotFound
		}
		if err != nil || found.Number == 0 {
			return err
		}
		found.Subscriptions, err = subscriptions(tx, found.Number)
		return err
	})
	if err != nil {
		return nil, wrap("session", err)
	}
	return found, nil
}

// Held is a connection that a node holds.
type Held struct {
	ClientID string
	Epoch    int64
}

// Reassert takes connections of this node back that other nodes took for dead
// with it (Bury), and returns those that are lost, taken over or ended meanwhile:
// the caller closes them.
func (s *Store) Reassert(ctx context.Context, held []Held) (lost []Held, err error) {
	const chunk = 500
	for len(held) > 0 {
		part := held[:min(chunk, len(held))]
		held = held[len(part):]
		var gone []Held
		err := s.write(ctx, func(_ context.Context, tx store.Tx) error {
			gone = gone[:0]
			for _, h := range part {
				n, err := tx.Exec(`UPDATE mqtt_session SET node = $3, disconnected = 0, expires = NULL, will_due = NULL
					WHERE client_id = $1 AND epoch = $2 AND (node = '' OR node = $3)`, h.ClientID, h.Epoch, s.cfg.Node)
				if err != nil {
					return err
				}
				if n == 0 {
					gone = append(gone, h)
				}
			}
			return nil
		})
		if err != nil {
			return lost, wrap("reassert", err)
		}
		lost = append(lost, gone...)
	}
	return lost, nil
}

// Bury marks the connections of a node that has died as ended; it returns how
// many. Their sessions live on from now, their wills become due. Any node may do
// it, several at once.
func (s *Store) Bury(ctx context.Context, node string) (int64, error) {
	const chunk = 2000
	var total int64
	for {
		var n int64
		err := s.write(ctx, func(_ context.Context, tx store.Tx) (err error) {
			now := s.cfg.Now().UnixMilli()
			n, err = tx.Exec(`UPDATE mqtt_session SET node = '', disconnected = $2,
				expires = CASE WHEN number = 0 THEN $3 WHEN expiry_seconds = 4294967295 THEN NULL ELSE $2 + expiry_seconds * 1000 END,
				will_due = CASE WHEN will IS NULL THEN NULL
					WHEN number <> 0 AND expiry_seconds * 1000 < will_delay THEN $2 + expiry_seconds * 1000 ELSE $2 + will_delay END
				WHERE client_id IN (SELECT client_id FROM mqtt_session WHERE node = $1 AND node <> '' LIMIT $4)`,
				node, now, now+remembered.Milliseconds(), chunk)
			return err
		})
		if err != nil {
			return total, wrap("bury", err)
		}
		if total += n; n < chunk {
			return total, nil
		}
	}
}

func wrap(op string, err error) error {
	var full *FullError
	if err == nil || errors.Is(err, ErrFenced) || errors.Is(err, ErrHeld) || errors.Is(err, ErrNotFound) || errors.As(err, &full) {
		return err
	}
	return fmt.Errorf("sessionstore: %s: %w", op, err)
}
