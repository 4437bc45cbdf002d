package ticket_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"flotilla/internal/gateway/ticket"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// sealer is a Sealer of which a test sees what it does.
type sealer byte

func (s sealer) Seal(name string, plain []byte) ([]byte, error) {
	return s.turn(append([]byte(name+"\x00"), plain...)), nil
}

func (s sealer) Open(name string, sealed []byte) ([]byte, error) {
	b := s.turn(sealed)
	if len(b) < len(name)+1 || string(b[:len(name)+1]) != name+"\x00" {
		return nil, errors.New("wrong")
	}
	return b[len(name)+1:], nil
}

func (s sealer) turn(b []byte) []byte {
	out := slices.Clone(b)
	for i := range out {
		out[i] ^= byte(s)
	}
	return out
}

// clock is one that tests set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }

func (c *clock) pass(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.at = c.at.Add(d) }

func open(t testing.TB, db *store.DB, c *clock, s ticket.Sealer) *ticket.Keys {
	t.Helper()
	k, err := ticket.Open(t.Context(), ticket.Deps{DB: db, Sealer: s, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func refresh(t testing.TB, all ...*ticket.Keys) {
	t.Helper()
	for _, k := range all {
		if err := k.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// noon is one hour into a period.
var noon = time.Date(2026, 1, 1, 13, 0, 0, 0, time.UTC)

func TestNodesAndRestartsAgree(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		c := &clock{at: noon}
		var group sync.WaitGroup
		all := make([]*ticket.Keys, 8)
		for i := range all { // at once, as nodes that start together
			group.Go(func() {
				var err error
				if all[i], err = ticket.Open(context.Background(), ticket.Deps{DB: db, Now: c.now}); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if t.Failed() {
			return
		}
		all = append(all, open(t, db, c, nil))
		want := all[0].Current().For("x")
		for i, k := range all {
			if !slices.Equal(k.Current().For("x"), want) {
				t.Errorf("%d has other keys", i)
			}
		}
		if len(want) != 1 {
			t.Errorf("%d keys", len(want))
		}
		if other := all[0].Current().For("y"); other[0] == want[0] {
			t.Error("two purposes have one key")
		}
		before := all[0].Current()
		refresh(t, all[0])
		if all[0].Current() != before {
			t.Error("a new set without a change")
		}
	})
}

func TestRotation(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		c := &clock{at: noon}
		one, two := open(t, db, c, nil), open(t, db, c, nil)
		first := one.Current().For("x")[0]
		// Both know the next before either uses it.
		c.pass(9 * time.Hour)
		refresh(t, one, two)
		a, b := one.Current().For("x"), two.Current().For("x")
		if len(a) != 2 || a[0] != first || !slices.Equal(a, b) {
			t.Fatalf("%d and %d keys", len(a), len(b))
		}
		next := a[1]
		c.pass(3 * time.Hour)
		refresh(t, one)
		if a = one.Current().For("x"); len(a) != 2 || a[0] != next || a[1] != first {
			t.Errorf("after twelve hours: %d keys", len(a))
		}
		// A ticket of the first period is good for two more, and no longer.
		c.pass(12 * time.Hour)
		refresh(t, one)
		if !slices.Contains(one.Current().For("x"), first) {
			t.Error("the key is forgotten after 24 hours")
		}
		c.pass(12 * time.Hour)
		refresh(t, one, two)
		if slices.Contains(one.Current().For("x"), first) || slices.Contains(two.Current().For("x"), first) {
			t.Error("the key is used after 36 hours")
		}
		if late := open(t, db, c, nil); !slices.Equal(late.Current().For("x"), one.Current().For("x")) {
			t.Error("another node has other keys")
		}
		c.pass(12 * time.Hour)
		refresh(t, one)
		if n := rows(t, db); n > 4 {
			t.Errorf("%d keys are stored", n)
		}
	})
}

func rows(t testing.TB, db *store.DB) (n int) {
	t.Helper()
	err := db.Read(t.Context(), func(_ context.Context, tx store.Tx) error {
		return tx.QueryRow(`SELECT COUNT(*) FROM tls_ticket_key`).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSealed(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		c := &clock{at: noon}
		plain := open(t, db, c, nil).Current().For("x")
		sealed := open(t, db, c, sealer(1)).Current().For("x")
		if sealed[0] == plain[0] {
			t.Error("a key that lay open is used on with a passphrase")
		}
		if again := open(t, db, c, sealer(1)).Current().For("x"); again[0] != sealed[0] {
			t.Error("a sealed key is not found again")
		}
		if other := open(t, db, c, sealer(2)).Current().For("x"); other[0] == sealed[0] {
			t.Error("another passphrase opens it")
		}
		if n := rows(t, db); n != 1 {
			t.Errorf("%d keys are stored", n)
		}
	})
}

// A node keeps its keys while the store fails, also beyond their time.
func TestStoreFails(t *testing.T) {
	db, err := store.Open(t.Context(), store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{at: noon}
	k := open(t, db, c, nil)
	want := k.Current()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	c.pass(12 * time.Hour)
	if err := k.Refresh(t.Context()); err == nil {
		t.Error("no error without a store")
	}
	if k.Current() != want {
		t.Error("the keys are gone")
	}
}
