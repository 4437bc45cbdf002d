package rules

import (
	"context"
	"errors"
	"time"

	"flotilla/internal/store"
)

// A writer is one run of this node's engine. Its row in the store says which node
// executes what it wrote: the one that lets its beat rise. A beat that stands still
// for Config.Lease, by the observer's own clock, belongs to a node that is gone, and
// any other may take the writer over. So that a node that merely slept does not
// write where nobody looks any more, it stops writing well before that.

// writerState is this run's writer.
type writerState struct {
	id   int64
	beat time.Time // when its last beat was begun
}

// currentWriter gives the writer to insert rows with; ok is false while the node can
// not be sure that it is still its own.
func (e *Engine) currentWriter() (id int64, ok bool) {
	w := e.writer.Load()
	if w == nil {
		return 0, false
	}
	return w.id, time.Since(w.beat) < e.cfg.Lease*3/4
}

func (e *Engine) node() string { return e.d.Bus.NodeID() }

// startWriter begins a writer of this run.
func (e *Engine) startWriter(ctx context.Context) error {
	w := &writerState{id: e.d.DB.NextID(), beat: time.Now()}
	err := e.d.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`INSERT INTO outbox_writer (id, node, beat) VALUES ($1, $2, 1)`, w.id, e.node())
		return err
	})
	if err != nil {
		return err
	}
	old := e.writer.Swap(w)
	e.queuesMu.Lock()
	defer e.queuesMu.Unlock()
	for _, q := range e.queues {
		if old != nil {
			q.abandon(old.id)
			q.count(-q.rows.Load(), -q.bytes.Load()) // another node's now
		}
		q.adopt(w.id, 0, 0)
	}
	return nil
}

// leaveWriter removes the writer's row when nothing is left of it.
func (e *Engine) leaveWriter() error {
	w := e.writer.Load()
	if w == nil {
		return nil
	}
	return e.d.DB.Write(context.Background(), func(_ context.Context, tx store.Tx) error {
		left, err := selectBacklog(tx, w.id)
		if err != nil || len(left) > 0 {
			return err
		}
		_, err = tx.Exec(`DELETE FROM outbox_writer WHERE id = $1`, w.id)
		return err
	})
}

// observation is a beat that this node has seen.
type observation struct {
	beat  int64
	since time.Time
}

// heldWriter is a writer of another run whose rows this node executes.
type heldWriter struct {
	foreign bool // it may still write, for as long as it does not know
	ticks   int
}

// takeOver claims what earlier runs of this node left, and what is left by nodes
// whose beat has stood still.
func (e *Engine) takeOver(ctx context.Context) error {
	type seen struct {
		id   int64
		node string
		beat int64
	}
	var writers []seen
	err := e.d.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		writers = writers[:0]
		rows, err := tx.Query(`SELECT id, node, beat FROM outbox_writer ORDER BY id`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var w seen
			if err := rows.Scan(&w.id, &w.node, &w.beat); err != nil {
				return err
			}
			writers = append(writers, w)
		}
		return errors.Join(rows.Err(), rows.Close())
	})
	if err != nil {
		return err
	}
	own, _ := e.currentWriter()
	observed := map[int64]observation{}
	kept := false
	for _, w := range writers {
		switch {
		case w.id == own:
			kept = w.node == e.node()
		case w.node == e.node():
			if e.held[w.id] == nil {
				e.held[w.id] = &heldWriter{}
				if err := e.adopt(ctx, w.id); err != nil {
					delete(e.held, w.id)
					return err
				}
			}
		default:
			o := e.observed[w.id]
			if o.since.IsZero() || o.beat != w.beat {
				o = observation{w.beat, time.Now()}
			}
			observed[w.id] = o
			if time.Since(o.since) < e.cfg.Lease {
				continue
			}
			if err := e.claim(ctx, w.id, w.beat); err != nil {
				return err
			}
		}
	}
	e.observed = observed
	if !kept {
		e.log.Warn("rules: this node was taken for gone; it begins anew")
		return e.startWriter(ctx)
	}
	return e.releaseHeld(ctx)
}

// claim takes a writer over unless its node, or another, was faster.
func (e *Engine) claim(ctx context.Context, id, beat int64) error {
	var claimed bool
	err := e.d.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		n, err := tx.Exec(`UPDATE outbox_writer SET node = $2, beat = beat + 1 WHERE id = $1 AND beat = $3`, id, e.node(), beat)
		claimed = n == 1
		return err
	})
	if err != nil || !claimed {
		return err
	}
	e.log.Info("rules: executing what a node left", "op", "take over")
	e.held[id] = &heldWriter{foreign: true}
	if err := e.adopt(ctx, id); err != nil {
		delete(e.held, id) // by the next round it is this node's
		return err
	}
	return nil
}

// adopt gives the queues what a writer left.
func (e *Engine) adopt(ctx context.Context, writer int64) error {
	var left []backlog
	err := e.d.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		left, err = selectBacklog(tx, writer)
		return err
	})
	if err != nil {
		return err
	}
	for i, b := range left {
		if e.queue(b.action) == nil && i == 0 {
			if err := e.load(ctx, ""); err != nil { // an action that this node has not heard of
				return err
			}
		}
		q := e.queue(b.action)
		if q == nil {
			e.log.Error("rules: the outbox has rows of an action that the store does not have", "action", b.action)
			continue
		}
		q.adopt(writer, b.rows, b.bytes)
	}
	return nil
}

// stragglerTicks is for how many beats a writer taken from another node is looked
// at again: it stopped writing before it was taken, but for what was in flight.
const stragglerTicks = 6

// releaseHeld removes writers that nothing is left of.
func (e *Engine) releaseHeld(ctx context.Context) error {
	for id, h := range e.held {
		if e.anyHolds(id) {
			h.ticks = 0
			continue
		}
		if h.foreign && h.ticks < stragglerTicks {
			h.ticks++
			if err := e.adopt(ctx, id); err != nil {
				return err
			}
			continue
		}
		err := e.d.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
			_, err := tx.Exec(`DELETE FROM outbox_writer WHERE id = $1 AND node = $2`, id, e.node())
			return err
		})
		if err != nil {
			return err
		}
		delete(e.held, id)
	}
	return nil
}

func (e *Engine) anyHolds(writer int64) bool {
	e.queuesMu.Lock()
	defer e.queuesMu.Unlock()
	for _, q := range e.queues {
		if q.holds(writer) {
			return true
		}
	}
	return false
}

// beat lets the beat rise and looks after what others left.
func (e *Engine) beat() {
	tick := time.NewTicker(e.cfg.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-e.closing:
			return
		}
		if err := e.tick(e.ctx); err != nil && e.ctx.Err() == nil {
			e.log.Warn("rules: the outbox could not be looked after", "err", err)
		}
	}
}

func (e *Engine) tick(ctx context.Context) error {
	w := e.writer.Load()
	next := &writerState{id: w.id, beat: time.Now()}
	var kept bool
	err := e.d.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		if _, err := tx.Exec(`UPDATE outbox_writer SET beat = beat + 1 WHERE node = $1`, e.node()); err != nil {
			return err
		}
		var node string
		err := tx.QueryRow(`SELECT node FROM outbox_writer WHERE id = $1`, w.id).Scan(&node)
		kept = node == e.node()
		if errors.Is(err, store.ErrNotFound) {
			err = nil
		}
		return err
	})
	if err != nil {
		return err
	}
	if kept {
		e.writer.Store(next)
	}
	if err := e.takeOver(ctx); err != nil {
		return err
	}
	return e.forgetRetired(ctx)
}

// retiredFor is how long an action that no rule has any more is kept at least: some
// node may not have heard yet, and write for it.
const retiredFor = 10 * time.Minute

// forgetRetired removes actions that no rule has and nothing is owed to.
func (e *Engine) forgetRetired(ctx context.Context) error {
	before := e.now().Add(-retiredFor).UnixMilli()
	due := false
	e.queuesMu.Lock()
	for _, q := range e.queues {
		at := q.retired.Load()
		due = due || at > 0 && at < before && q.rows.Load() == 0
	}
	e.queuesMu.Unlock()
	if !due {
		return nil
	}
	err := e.d.DB.Write(ctx, func(_ context.Context, tx store.Tx) error { return forgetActions(tx, before) })
	if err == nil {
		e.dropQueues()
	}
	return err
}
