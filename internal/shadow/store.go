package shadow

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/shadow/doc"
	"flotilla/internal/store"
)

const updateDocuments = "update/documents"

// row is a shadow as the table has it.
type row struct {
	version  int64 // 0: there is no row
	document []byte
	modified int64
}

func load(tx store.Tx, r ref) (row, error) {
	var found row
	err := tx.QueryRow(`SELECT version, document, modified FROM shadow WHERE thing = $1 AND name = $2`, r.thing, r.name).
		Scan(&found.version, &found.document, &found.modified)
	if errors.Is(err, store.ErrNotFound) {
		return row{}, nil
	}
	return found, err
}

// swap writes the shadow's next version in the place of the one that was read.
// Nodes that write at the same time make the transaction fail and run again.
func swap(tx store.Tx, r ref, old row, version int64, document []byte, modified int64) error {
	n, err := tx.Exec(`INSERT INTO shadow (thing, name, version, document, modified) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (thing, name) DO UPDATE SET version = EXCLUDED.version, document = EXCLUDED.document, modified = EXCLUDED.modified
		WHERE shadow.version = $6`,
		r.thing, r.name, version, document, modified, old.version)
	if err == nil && n != 1 {
		return errors.New("the version changed under the transaction")
	}
	return err
}

// checkThing fails with errNoThing unless the thing may have shadows.
func (s *Shadows) checkThing(ctx context.Context, thing string) error {
	if s.cfg.UnregisteredThings {
		return nil
	}
	_, err := s.things.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: thing})
	if _, missing := errors.AsType[*iot.ResourceNotFoundException](err); missing {
		return errNoThing
	}
	return err
}

// get returns the body of an accepted get.
func (s *Shadows) get(ctx context.Context, r ref, t doc.Token) ([]byte, error) {
	end, err := s.begin(r)
	if err != nil {
		return nil, err
	}
	defer end()
	var found row
	err = s.db.Read(ctx, func(ctx context.Context, tx store.Tx) (err error) {
		if found, err = load(tx, r); err == nil && found.document == nil {
			err = s.checkThing(ctx, r.thing)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, wrap("get", r, err)
	case found.document == nil:
		return nil, errNoShadow(r)
	}
	body, err := doc.Get(found.document, found.version, s.cfg.Now().Unix(), t)
	return body, wrap("get", r, err)
}

// update makes a request's update durable and publishes its messages. The
// delta and the documents go first: who reads the acceptance may rely on them.
// The documents are made only for somebody.
func (s *Shadows) update(ctx context.Context, r ref, payload []byte) (accepted []byte, t doc.Token, err error) {
	now := s.cfg.Now()
	u, err := doc.ParseUpdate(payload, now.Unix(), s.limits)
	if err != nil {
		return nil, u.Token, err
	}
	end, err := s.begin(r)
	if err != nil {
		return nil, u.Token, err
	}
	defer end()
	var out *doc.Outcome
	var old row
	var version int64 // that the update is applied on
	documents := s.publisher.Awaited(r.topic(updateDocuments))
	turn, err := s.write(r, func(ctx context.Context, tx store.Tx) (err error) {
		if old, err = load(tx, r); err != nil {
			return err
		}
		version = old.version
		if old.document == nil {
			// DeleteAll goes with the thing, so a shadow that exists has one.
			if err := s.checkThing(ctx, r.thing); err != nil {
				return err
			}
			if old.modified <= s.forgotten(now) {
				version = 0
			}
		}
		if out, err = doc.Apply(old.document, version, u, documents); err != nil {
			return err
		}
		return swap(tx, r, old, out.Version, out.Stored, now.UnixMilli())
	})
	if err != nil {
		return nil, u.Token, wrap("update", r, err)
	}
	defer turn.leave()
	turn.wait()
	var delta error
	if out.Delta != nil {
		delta = s.publish(ctx, r, "update/delta", out.Delta)
	}
	if !documents && s.publisher.Awaited(r.topic(updateDocuments)) { // by somebody who came in the meantime
		again, err := doc.Apply(old.document, version, u, true)
		if err != nil { // it went well a moment ago
			return nil, u.Token, fmt.Errorf("shadow: %s: %w: %w", r.topic(updateDocuments), errUnannounced, err)
		}
		out.Documents = again.Documents
	}
	var whole error
	if out.Documents != nil {
		whole = s.publish(ctx, r, updateDocuments, out.Documents)
	}
	return out.Accepted, u.Token, errors.Join(delta, whole,
		s.publish(ctx, r, "update/accepted", out.Accepted))
}

// publish announces what has been committed, whether or not the client has
// gone meanwhile.
func (s *Shadows) publish(ctx context.Context, r ref, verb string, payload []byte) error {
	if err := s.publisher.Publish(context.WithoutCancel(ctx), s.message(r.topic(verb), payload)); err != nil {
		return fmt.Errorf("shadow: %s: %w: %w", r.topic(verb), errUnannounced, err)
	}
	return nil
}

// delete removes a shadow but for its version, and publishes its message.
func (s *Shadows) delete(ctx context.Context, r ref, t doc.Token) (accepted []byte, err error) {
	end, err := s.begin(r)
	if err != nil {
		return nil, err
	}
	defer end()
	now := s.cfg.Now()
	var old row
	turn, err := s.write(r, func(ctx context.Context, tx store.Tx) (err error) {
		if old, err = load(tx, r); err != nil {
			return err
		}
		if old.document == nil {
			if err := s.checkThing(ctx, r.thing); err != nil {
				return err
			}
			return errNoShadow(r)
		}
		return swap(tx, r, old, old.version, nil, now.UnixMilli())
	})
	if err != nil {
		return nil, wrap("delete", r, err)
	}
	defer turn.leave()
	turn.wait()
	accepted = doc.Deleted(old.version, now.Unix(), t)
	return accepted, s.publish(ctx, r, "delete/accepted", accepted)
}

// attempts at a write that other nodes' writes to the same shadow keep from
// committing, beyond those that the store makes itself.
const attempts = 8

// write commits fn and takes the turn to publish that goes with the commit's
// place among the others.
func (s *Shadows) write(r ref, fn store.Func) (turn *turn, err error) {
	for try := range attempts {
		if turn, err = s.writeOnce(r, fn); !outstripped(err) {
			break
		}
		// The nodes step apart: 1-2 ms, 2-4 ms, … 128-256 ms.
		pause := time.Millisecond << try
		time.Sleep(pause + rand.N(pause))
	}
	return turn, err
}

// outstripped tells the failures to serialize, by the SQL standard's class 40,
// that remain after the store's own attempts.
func outstripped(err error) bool {
	var e interface{ SQLState() string }
	return errors.As(err, &e) && strings.HasPrefix(e.SQLState(), "40")
}

func (s *Shadows) writeOnce(r ref, fn store.Func) (*turn, error) {
	type result struct {
		turn *turn
		err  error
	}
	done := make(chan result, 1)
	s.db.WriteAsync(fn, func(err error) {
		if err != nil {
			done <- result{err: err}
			return
		}
		if s.cfg.Changed != nil {
			s.cfg.Changed(r.thing)
		}
		done <- result{turn: s.turns.join(r)}
	})
	res := <-done
	return res.turn, res.err
}

// forgotten is when a shadow must have been deleted to have its version
// forgotten at now, in milliseconds.
func (s *Shadows) forgotten(now time.Time) int64 { return now.Add(-s.cfg.KeepVersion).UnixMilli() }

// names returns up to n names of named shadows after one, in order.
func (s *Shadows) names(ctx context.Context, thing, after string, n int) (names []string, err error) {
	err = s.db.Read(ctx, func(ctx context.Context, tx store.Tx) error {
		names = make([]string, 0, n)
		rows, err := tx.Query(`SELECT name FROM shadow WHERE thing = $1 AND name > $2 AND document IS NOT NULL ORDER BY name LIMIT $3`, thing, after, n)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			names = append(names, name)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		if len(names) == 0 {
			return s.checkThing(ctx, thing)
		}
		return nil
	})
	return names, wrap("list", ref{thing: thing}, err)
}

// DeleteAll removes all shadows of a thing, their versions too, within the
// transaction of ctx if it has one. It publishes nothing.
func (s *Shadows) DeleteAll(ctx context.Context, thingName string) error {
	err := s.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`DELETE FROM shadow WHERE thing = $1`, thingName)
		return err
	})
	return wrap("delete all", ref{thing: thingName}, err)
}

// sweepBatch rows are removed in one transaction.
const sweepBatch = 1000

// Sweep removes the versions of shadows deleted long ago.
func (s *Shadows) Sweep(ctx context.Context) error {
	before := s.forgotten(s.cfg.Now())
	for {
		var n int64
		err := s.db.Write(ctx, func(_ context.Context, tx store.Tx) (err error) {
			n, err = tx.Exec(`DELETE FROM shadow WHERE (thing, name) IN
				(SELECT thing, name FROM shadow WHERE document IS NULL AND modified <= $1 LIMIT $2)`, before, sweepBatch)
			return err
		})
		if err != nil {
			return fmt.Errorf("shadow: sweep: %w", err)
		}
		if n < sweepBatch {
			return nil
		}
	}
}

// Run sweeps every hour until ctx ends.
func (s *Shadows) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Log.Warn("shadow: old versions were not removed", "err", err)
			}
		}
	}
}

// wrap leaves refusals as they are and says of other errors where they arose.
func wrap(op string, r ref, err error) error {
	if _, refusal := errors.AsType[*doc.Error](err); err == nil || refusal {
		return err
	}
	return fmt.Errorf("shadow: %s %s: %w", op, r.topic(""), err)
}
