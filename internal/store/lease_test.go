package store_test

import (
	"context"
	"testing"
	"time"

	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// patience is how long tests wait for what must happen.
const patience = time.Minute

// Of several that would lead one does, and another when it stops.
func TestLead(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		type leader struct {
			stop  context.CancelFunc
			ended chan struct{}
		}
		leads := make(chan context.Context)
		start := func() leader {
			ctx, cancel := context.WithCancel(t.Context())
			l := leader{cancel, make(chan struct{})}
			go func() {
				defer close(l.ended)
				db.Lead(ctx, "work", func(ctx context.Context) {
					select {
					case leads <- ctx:
						<-ctx.Done()
					case <-ctx.Done():
					}
				})
			}()
			return l
		}
		first := start()
		var leading context.Context
		select {
		case leading = <-leads:
		case <-time.After(patience):
			t.Fatal("nobody leads")
		}
		first.stop()
		<-first.ended
		if leading.Err() == nil {
			t.Error("it leads on after Lead returned")
		}
		second := start() // at once: the lease was given back
		select {
		case <-leads:
		case <-time.After(patience):
			t.Fatal("nobody leads after the first has gone")
		}
		second.stop()
		<-second.ended
	})
}

// A lease of another node is respected until it expires.
func TestLeadWaits(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		set := func(until time.Time) {
			err := db.Write(t.Context(), func(_ context.Context, tx store.Tx) error {
				_, err := tx.Exec(`INSERT INTO lease (name, node, until) VALUES ('work', 'other', $1)
					ON CONFLICT (name) DO UPDATE SET until = excluded.until`, until.UnixMilli())
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		set(time.Now().Add(time.Hour))
		ctx, cancel := context.WithCancel(t.Context())
		leads, ended := make(chan struct{}, 1), make(chan struct{})
		go func() {
			defer close(ended)
			db.Lead(ctx, "work", func(ctx context.Context) { leads <- struct{}{}; <-ctx.Done() })
		}()
		before, _ := db.Counts()
		for deadline := time.Now().Add(patience); ; { // until it has tried
			if after, _ := db.Counts(); after > before {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("it does not try")
			}
			<-time.After(time.Millisecond)
		}
		select {
		case <-leads:
			t.Error("two lead")
		default:
		}
		set(time.Now().Add(-time.Hour))
		select {
		case <-leads:
		case <-time.After(patience):
			t.Error("an expired lease is not taken over")
		}
		cancel()
		<-ended
	})
}
