package shadow

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"flotilla/internal/shadow/doc"
	"flotilla/internal/store"
)

// change is the write of a shadow's next version, or its deletion, on its way
// through the store.
type change struct {
	shadow    ref
	now       time.Time
	operation string
	author    author
	// update makes the update of a shadow; nil deletes it. It may read, in the
	// transaction of ctx.
	update func(ctx context.Context, tx store.Tx) (*doc.Update, error)

	documents bool // make the body of update/documents

	// Of the run that was committed:
	old  row          // what was there
	base int64        // version that the update is applied on
	sent *doc.Update  // nil after a deletion
	out  *doc.Outcome // nil after a deletion
	err  error        // why nothing was done

	done chan committed // has room for one
}

type committed struct {
	turn *turn
	err  error
}

// attempts at a write that other nodes' writes to the same shadow keep from
// committing, beyond those that the store makes itself.
const attempts = 8

// write commits c and takes the turn to publish that goes with the commit's
// place among the others.
func (s *Shadows) write(c *change) (*turn, error) {
	c.done = make(chan committed, 1)
	s.changes.Add(c)
	res := <-c.done
	for try := 0; outstripped(res.err) && try < attempts; try++ {
		// The nodes step apart: 1-2 ms, 2-4 ms, … 128-256 ms. Others that were
		// written with it do not pay for the shadow that is contended.
		pause := time.Millisecond << try
		time.Sleep(pause + rand.N(pause))
		alone := []*change{c}
		s.db.WriteAsync(
			func(ctx context.Context, tx store.Tx) error { return s.run(ctx, tx, alone) },
			func(err error) { s.written(alone, err) })
		res = <-c.done
	}
	return res.turn, res.err
}

// outstripped tells the failures to serialize, by the SQL standard's class 40,
// that remain after the store's own attempts.
func outstripped(err error) bool {
	var e interface{ SQLState() string }
	return errors.As(err, &e) && strings.HasPrefix(e.SQLState(), "40")
}

// written follows the commit of changes.
func (s *Shadows) written(changes []*change, err error) {
	for _, c := range changes {
		switch {
		case err != nil:
			c.done <- committed{err: err}
		case c.err != nil:
			c.done <- committed{err: c.err}
		default:
			if s.cfg.Changed != nil {
				s.cfg.Changed(c.shadow.thing)
			}
			c.done <- committed{turn: s.turns.join(c.shadow)}
		}
	}
}

// run makes changes, one after the other, on the rows that they are about: read
// at once, written at once.
func (s *Shadows) run(ctx context.Context, tx store.Tx, changes []*change) error {
	rows := make(map[ref]*row, len(changes))
	order := make([]ref, 0, len(changes))
	for _, c := range changes {
		if rows[c.shadow] == nil {
			rows[c.shadow] = &row{}
			order = append(order, c.shadow)
		}
	}
	if err := s.loadAll(tx, order, rows); err != nil {
		return err
	}
	var entries ring
	for _, c := range changes {
		r := rows[c.shadow]
		c.old, c.sent, c.out, c.err = *r, nil, nil, nil
		if err := s.apply(ctx, tx, c, r); err != nil {
			c.err = err
			if _, refusal := errors.AsType[*doc.Error](err); !refusal {
				return err
			}
			continue
		}
		if s.recorded(c) {
			r.changes++
			entries.add(s.cfg.History, c, r)
		}
		r.dirty = true
	}
	if err := swapAll(tx, order, rows); err != nil {
		return err
	}
	return entries.insert(tx)
}

// apply makes a change of r, or fails and leaves it.
func (s *Shadows) apply(ctx context.Context, tx store.Tx, c *change, r *row) error {
	version := r.version
	if r.document == nil {
		// A shadow that exists needs no thing: it outlives its own.
		if err := s.checkThing(ctx, c.shadow.thing); err != nil {
			return err
		}
		if c.update == nil {
			return errNoShadow(c.shadow)
		}
		if r.modified <= s.forgotten(c.now) {
			version = 0
		}
	}
	if c.update == nil {
		r.document, r.modified = nil, c.now.UnixMilli()
		return nil
	}
	u, err := c.update(ctx, tx)
	if err != nil {
		return err
	}
	if c.out, err = doc.Apply(r.document, version, u, c.documents); err != nil {
		return err
	}
	c.sent, c.base = u, version
	r.version, r.document, r.modified = c.out.Version, c.out.Stored, c.now.UnixMilli()
	return nil
}

var (
	selectShadows = store.NewMany(`SELECT thing, name, version, document, modified, changes FROM shadow WHERE (thing, name) IN (VALUES `, `($, $)`, `)`)
	upsertShadows = store.NewMany(`INSERT INTO shadow (thing, name, version, document, modified, changes) VALUES `, `($, $, $, $, $, $)`,
		` ON CONFLICT (thing, name) DO UPDATE SET version = EXCLUDED.version, document = EXCLUDED.document, modified = EXCLUDED.modified, changes = EXCLUDED.changes`)
)

// loadAll reads the rows of shadows into rows, which has one for each.
func (s *Shadows) loadAll(tx store.Tx, shadows []ref, rows map[ref]*row) error {
	if len(shadows) == 1 || s.db.Name() == "sqlite" {
		// There a statement is no round trip, and a list is a table of its own.
		for _, r := range shadows {
			found, err := load(tx, r)
			if err != nil {
				return err
			}
			*rows[r] = found
		}
		return nil
	}
	args := make([]any, 0, 2*len(shadows))
	for _, r := range shadows {
		args = append(args, r.thing, r.name)
	}
	return selectShadows.Query(tx, args, func(found store.Row) error {
		var r ref
		var x row
		if err := found.Scan(&r.thing, &r.name, &x.version, &x.document, &x.modified, &x.changes); err != nil {
			return err
		}
		if rows[r] == nil {
			return fmt.Errorf("a shadow that nobody asked for: %q %q", r.thing, r.name)
		}
		*rows[r] = x
		return nil
	})
}

// swapAll writes the rows that have changed in the place of those that were
// read. The transaction sees one state of the store: nodes that write the same
// shadow at the same time make it fail and run again.
func swapAll(tx store.Tx, shadows []ref, rows map[ref]*row) error {
	args := make([]any, 0, 6*len(shadows))
	for _, r := range shadows {
		if x := rows[r]; x.dirty {
			args = append(args, r.thing, r.name, x.version, x.document, x.modified, x.changes)
		}
	}
	_, err := upsertShadows.Exec(tx, args)
	return err
}
