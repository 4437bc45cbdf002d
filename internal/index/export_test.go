package index

import (
	"context"
	"time"

	"flotilla/internal/index/query"
	"flotilla/internal/store"
)

// Begin does what Run begins with.
func (x *Index) Begin(ctx context.Context) error { return x.begin(ctx) }

// Settle indexes all that is due, as Run and the leader would.
func (x *Index) Settle(ctx context.Context) error {
	x.drain(ctx)
	if err := x.look(ctx); err != nil {
		return err
	}
	x.drain(ctx)
	return ctx.Err()
}

// Try sets how many documents searches try themselves: few of a rare part of the query, walk in order.
func (x *Index) Try(few, walk int) { x.few, x.walk = few, walk }

// Documents are what the index has of things.
func (x *Index) Documents(ctx context.Context) (map[string]query.Document, error) {
	all := map[string]query.Document{}
	err := x.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		names, err := selectNames(tx, `SELECT name FROM index_document WHERE kind = 0`)
		if err != nil {
			return err
		}
		for _, n := range names {
			d, err := selectDocument(tx, things, n)
			if err != nil {
				return err
			}
			if all[n], err = decode(d.content); err != nil {
				return err
			}
		}
		return nil
	})
	return all, err
}

// Rows counts the rows of the index's tables.
func (x *Index) Rows(ctx context.Context) (n int, err error) {
	err = x.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		return tx.QueryRow(`SELECT (SELECT COUNT(*) FROM index_document) + (SELECT COUNT(*) FROM index_term)
			+ (SELECT COUNT(*) FROM index_number) + (SELECT COUNT(*) FROM index_location)`).Scan(&n)
	})
	return n, err
}

// Meter evaluates the fleet metrics that are due, as the node that leads does.
func (x *Index) Meter() (round func(context.Context) (time.Time, error)) {
	return (&meter{x, map[string]due{}}).round
}

// Measures evaluates fleet metrics until ctx ends.
func (x *Index) Measures(ctx context.Context) { x.measures(ctx) }
