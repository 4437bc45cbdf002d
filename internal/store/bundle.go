package store

import (
	"context"
	"sync"
)

// Bundle gathers writes of one kind while they wait for the writer, so that one
// function makes all of them, with statements of many rows: on PostgreSQL each
// statement is a round trip. It is safe for concurrent use.
type Bundle[T any] struct {
	db   *DB
	run  func(ctx context.Context, tx Tx, items []T) error
	done func(items []T, err error)

	mu   sync.Mutex
	open *bundle[T] // has not been run yet; nil when there is none
}

type bundle[T any] struct{ items []T }

// NewBundle returns a bundle of writes to db.
//
//	run   makes the writes of items, in their order, as a Func; its error fails all of them,
//	      so what is wrong with one is kept with the item
//	done  follows the commit, or the failure, as in WriteAsync: in the order of the commits, on the goroutine of all
//	      asynchronous writes; it must not block
//
// Both are given the slice of the bundle, of at most store.max-batch items.
func NewBundle[T any](db *DB, run func(ctx context.Context, tx Tx, items []T) error, done func(items []T, err error)) *Bundle[T] {
	return &Bundle[T]{db: db, run: run, done: done}
}

// Add hands item to the writer and returns; it blocks only while the writer's
// queue is full. Items are written in the order of their Adds. Among other writes
// that have not been answered an item has no place of its own.
func (b *Bundle[T]) Add(item T) {
	b.mu.Lock()
	if b.open != nil {
		b.open.items = append(b.open.items, item)
		if len(b.open.items) >= b.db.cfg.MaxBatch {
			b.open = nil
		}
		b.mu.Unlock()
		return
	}
	mine := &bundle[T]{items: make([]T, 1, 16)}
	mine.items[0] = item
	b.open = mine
	b.mu.Unlock()
	b.db.WriteAsync(
		func(ctx context.Context, tx Tx) error { return b.run(ctx, tx, b.seal(mine)) },
		func(err error) {
			items := b.seal(mine)
			if err == nil {
				b.db.writes.Add(int64(len(items)) - 1) // the writer has counted one
			}
			b.done(items, err)
		})
}

// seal ends the gathering of a bundle.
func (b *Bundle[T]) seal(x *bundle[T]) []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open == x {
		b.open = nil
	}
	return x.items
}
