package shadow

import (
	"context"
	"errors"
	"fmt"
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
	changes  int64 // entries that its history had
	dirty    bool  // not written yet
}

func load(tx store.Tx, r ref) (row, error) {
	var found row
	err := tx.QueryRow(`SELECT version, document, modified, changes FROM shadow WHERE thing = $1 AND name = $2`, r.thing, r.name).
		Scan(&found.version, &found.document, &found.modified, &found.changes)
	if errors.Is(err, store.ErrNotFound) {
		return row{}, nil
	}
	return found, err
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
func (s *Shadows) get(ctx context.Context, r ref, t doc.Token) (body []byte, err error) {
	s.metrics.progress.Inc()
	defer func() { s.metrics.ended(opGet, err) }()
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
	body, err = doc.Get(found.document, found.version, s.cfg.Now().Unix(), t)
	return body, wrap("get", r, err)
}

// update makes a request's update durable and publishes its messages.
func (s *Shadows) update(ctx context.Context, r ref, payload []byte, by author) (accepted []byte, t doc.Token, err error) {
	s.metrics.progress.Inc()
	defer func() { s.metrics.ended(opUpdate, err) }()
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
	c := &change{shadow: r, now: now, operation: opUpdate, author: by, update: func(context.Context, store.Tx) (*doc.Update, error) { return u, nil }}
	if err := s.commit(ctx, c); err != nil {
		if c.out == nil || !errors.Is(err, errUnannounced) {
			return nil, u.Token, wrap("update", r, err)
		}
		return c.out.Accepted, u.Token, err
	}
	return c.out.Accepted, u.Token, nil
}

// commit makes an update durable and publishes its messages. The delta and the
// documents go first: who reads the acceptance may rely on them. The documents
// are made only for somebody.
func (s *Shadows) commit(ctx context.Context, c *change) error {
	topic := c.shadow.topic(updateDocuments)
	c.documents = s.publisher.Awaited(topic)
	turn, err := s.write(c)
	if err != nil {
		return err
	}
	defer turn.leave()
	turn.wait()
	delta := s.delta(ctx, c.shadow, c.out.Version, c.out.Delta)
	if !c.documents && s.publisher.Awaited(topic) { // by somebody who came in the meantime
		again, err := doc.Apply(c.old.document, c.base, c.sent, true)
		if err != nil { // it went well a moment ago
			return fmt.Errorf("shadow: %s: %w: %w", topic, errUnannounced, err)
		}
		c.out.Documents = again.Documents
	}
	var whole error
	if c.out.Documents != nil {
		whole = s.publish(ctx, c.shadow, updateDocuments, c.out.Documents)
	}
	return errors.Join(delta, whole,
		s.publish(ctx, c.shadow, "update/accepted", c.out.Accepted))
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
func (s *Shadows) delete(ctx context.Context, r ref, t doc.Token, by author) (accepted []byte, err error) {
	s.metrics.progress.Inc()
	defer func() { s.metrics.ended(opDelete, err) }()
	end, err := s.begin(r)
	if err != nil {
		return nil, err
	}
	defer end()
	c := &change{shadow: r, now: s.cfg.Now(), operation: opDelete, author: by}
	turn, err := s.write(c)
	if err != nil {
		return nil, wrap("delete", r, err)
	}
	defer turn.leave()
	turn.wait()
	accepted = doc.Deleted(c.old.version, c.now.Unix(), t)
	return accepted, errors.Join(s.delta(ctx, r, c.old.version, nil), s.publish(ctx, r, "delete/accepted", accepted))
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

// DeleteAll removes all shadows of a thing, their versions and histories too, within the
// transaction of ctx if it has one. It publishes nothing.
func (s *Shadows) DeleteAll(ctx context.Context, thingName string) error {
	err := s.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`DELETE FROM shadow WHERE thing = $1`, thingName)
		if err == nil {
			_, err = tx.Exec(`DELETE FROM shadow_history WHERE thing = $1`, thingName)
		}
		return err
	})
	return wrap("delete all", ref{thing: thingName}, err)
}

// sweepBatch rows are removed in one transaction.
const sweepBatch = 1000

// Sweep removes the versions and histories of shadows deleted long ago.
func (s *Shadows) Sweep(ctx context.Context) error {
	before := s.forgotten(s.cfg.Now())
	for {
		var n int64
		err := s.db.Write(ctx, func(_ context.Context, tx store.Tx) (err error) {
			const old = `(SELECT thing, name FROM shadow WHERE document IS NULL AND modified <= $1 ORDER BY modified, thing, name LIMIT $2)`
			if _, err := tx.Exec(`DELETE FROM shadow_history WHERE (thing, name) IN `+old, before, sweepBatch); err != nil {
				return err
			}
			n, err = tx.Exec(`DELETE FROM shadow WHERE (thing, name) IN `+old, before, sweepBatch)
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
