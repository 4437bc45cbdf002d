package store

import (
	"context"
	"fmt"
	"time"
)

// leaseTime is how long a lease holds without being renewed; a node that finds its clock behind waits so much longer.
const leaseTime = 15 * time.Second

// Lead runs fn on one node at a time: while this node has the lease called name. It returns when ctx ends, having waited
// for fn and given the lease back, so that another node goes on at once; after a crash one does within leaseTime. fn's
// context ends when the lease is lost. fn that returns is run again after a pause.
//
// Nodes whose clocks differ by more than leaseTime, or a node that stops for so long, may lead side by side for a
// moment: what fn does must be right then too, each step a transaction of its own that checks what it changes.
func (db *DB) Lead(ctx context.Context, name string, fn func(context.Context)) {
	tick := time.NewTicker(leaseTime / 5)
	defer tick.Stop()
	var term *term
	for {
		held, err := db.renewLease(ctx, name)
		if err != nil && ctx.Err() == nil {
			db.cfg.Log.Warn("a lease can't be renewed", "lease", name, "err", err)
		}
		if term != nil && (err != nil || !held || term.over()) {
			term.end()
			term = nil
		}
		if term == nil && err == nil && held {
			term = begin(ctx, fn)
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		if term != nil {
			term.end()
		}
		if err := db.dropLease(context.WithoutCancel(ctx), name); err != nil {
			db.cfg.Log.Warn("a lease is left to expire", "lease", name, "err", err)
		}
		return
	}
}

// term is fn at work while the lease holds.
type term struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func begin(ctx context.Context, fn func(context.Context)) *term {
	ctx, cancel := context.WithCancel(ctx)
	t := &term{cancel, make(chan struct{})}
	go func() {
		defer close(t.done)
		fn(ctx)
	}()
	return t
}

// over tells that fn has returned by itself.
func (t *term) over() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

func (t *term) end() {
	t.cancel()
	<-t.done
}

// renewLease takes a lease that is free or this node's.
func (db *DB) renewLease(ctx context.Context, name string) (held bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, leaseTime/3)
	defer cancel()
	err = db.Write(ctx, func(_ context.Context, tx Tx) error {
		now := time.Now().UnixMilli()
		n, err := tx.Exec(`INSERT INTO lease (name, node, until) VALUES ($1, $2, $3)
			ON CONFLICT (name) DO UPDATE SET node = excluded.node, until = excluded.until
			WHERE lease.node = excluded.node OR lease.until < $4`, name, db.cfg.NodeID, now+leaseTime.Milliseconds(), now)
		held = n == 1
		return err
	})
	if err != nil {
		return false, fmt.Errorf("store: lease %s: %w", name, err)
	}
	return held, nil
}

func (db *DB) dropLease(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, leaseTime/3)
	defer cancel()
	return db.Write(ctx, func(_ context.Context, tx Tx) error {
		_, err := tx.Exec(`DELETE FROM lease WHERE name = $1 AND node = $2`, name, db.cfg.NodeID)
		return err
	})
}
