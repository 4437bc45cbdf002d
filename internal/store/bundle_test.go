package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// Items are written in order, in few transactions, and answered in that order;
// one bundle's failure is that of all its items and of no other write.
func TestBundle(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := context.Background()
		write(t, db, `CREATE TABLE bundled (id BIGINT PRIMARY KEY, label TEXT NOT NULL)`)
		insert := store.NewMany(`INSERT INTO bundled (id, label) VALUES `, `($, $)`, ``)
		broken := errors.New("broken")
		var wg sync.WaitGroup
		var answered []int
		var failed int
		b := store.NewBundle(db, func(_ context.Context, tx store.Tx, items []int) error {
			var args []any
			for _, n := range items {
				args = append(args, n, fmt.Sprint("n", n))
			}
			n, err := insert.Exec(tx, args)
			if err == nil && n != int64(len(items)) {
				err = fmt.Errorf("%d rows of %d items", n, len(items))
			}
			if slices.Contains(items, -1) {
				err = broken
			}
			return err
		}, func(items []int, err error) {
			for _, n := range items {
				if errors.Is(err, broken) {
					failed++
				} else if err != nil {
					t.Error(err)
				} else {
					answered = append(answered, n)
				}
				wg.Done()
			}
		})
		// While the writer is held up, what comes gathers.
		hold, held := make(chan struct{}), make(chan struct{})
		var once sync.Once
		wg.Add(1)
		db.WriteAsync(func(context.Context, store.Tx) error {
			once.Do(func() { close(held); <-hold })
			return nil
		}, func(error) { wg.Done() })
		<-held
		_, before := db.Counts()
		const n = 700 // two bundles
		wg.Add(n)
		for i := range n {
			b.Add(i)
		}
		close(hold)
		wg.Wait()
		_, after := db.Counts()
		if after-before > 4 {
			t.Errorf("%d commits for %d items", after-before, n)
		}
		if len(answered) != n || !slices.IsSorted(answered) {
			t.Errorf("answered: %d, in order: %v", len(answered), slices.IsSorted(answered))
		}
		wg.Add(1)
		b.Add(-1)
		wg.Wait()
		if failed != 1 {
			t.Errorf("%d items failed", failed)
		}
		var labels []string
		find := store.NewMany(`SELECT label FROM bundled WHERE label IN (VALUES `, `($)`, `) ORDER BY label`)
		err := db.Read(ctx, func(_ context.Context, tx store.Tx) error {
			return find.Query(tx, []any{"n1", "n2", "n3", "n699", "n700", "n-1"}, func(row store.Row) error {
				labels = append(labels, "")
				return row.Scan(&labels[len(labels)-1])
			})
		})
		if slices.Sort(labels); err != nil || !slices.Equal(labels, []string{"n1", "n2", "n3", "n699"}) {
			t.Errorf("found %q, %v", labels, err)
		}
	})
}

func write(t *testing.T, db *store.DB, text string) {
	t.Helper()
	if err := db.Write(context.Background(), func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(text)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// A closed store answers every item.
func TestBundleClosed(t *testing.T) {
	db, err := store.Open(context.Background(), store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	b := store.NewBundle(db, func(context.Context, store.Tx, []int) error { return nil }, func(_ []int, err error) { done <- err })
	for range 2 {
		b.Add(1)
		if err := <-done; !errors.Is(err, store.ErrClosed) {
			t.Error(err)
		}
	}
}
