package account_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/account"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// broker takes messages, or refuses them.
type broker struct {
	mu     sync.Mutex
	refuse bool
	full   bool // a queue, for ever
	asked  int
	got    []string
	now    time.Time
}

func (b *broker) Publish(_ context.Context, m *mqtt.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	if err := mqtt.ValidTopicName(m.Topic); err != nil {
		return err
	}
	if b.refuse || b.full && m.QoS > 0 {
		return errors.New("full")
	}
	b.got = append(b.got, m.Topic+" "+string(m.Payload))
	return nil
}

func (b *broker) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *broker) set(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn()
}

// wait waits for cond.
func (b *broker) wait(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		b.mu.Lock()
		ok, got := cond(), slices.Clone(b.got)
		b.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d messages", what, len(got))
		}
		<-time.After(5 * time.Millisecond)
	}
}

// run runs an account until the end that it returns is called.
func run(a *account.Account) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); a.Run(ctx) }()
	return func() { cancel(); <-done }
}

func emit(t *testing.T, db *store.DB, a *account.Account, from, to int, fail error) {
	t.Helper()
	err := db.Write(t.Context(), func(ctx context.Context, _ store.Tx) error {
		for i := from; i < to; i++ {
			if err := a.Emit(ctx, "$aws/events/x", fmt.Appendf(nil, "%03d", i)); err != nil {
				return err
			}
		}
		return fail
	})
	if !errors.Is(err, fail) {
		t.Fatal(err)
	}
}

func topics(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("$aws/events/x %03d", i))
	}
	return list
}

func rows(t *testing.T, db *store.DB) (n int) {
	t.Helper()
	err := db.Read(t.Context(), func(_ context.Context, tx store.Tx) error {
		return tx.QueryRow(`SELECT COUNT(*) FROM account_event`).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What was committed is published in order, through a restart and while the broker refuses; what was not is not.
func TestEventsArePublished(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		b := &broker{now: time.Now(), refuse: true}
		deps := account.Deps{DB: db, Publisher: b, NodeID: "a", Now: b.clock}
		a := account.New(deps)
		emit(t, db, a, 0, 100, nil)
		emit(t, db, a, 100, 200, errors.New("rolled back"))
		end := run(a)
		b.wait(t, "an attempt", func() bool { return b.asked > 0 })
		end()
		a = account.New(deps) // after a restart
		b.set(func() { b.refuse = false })
		defer run(a)()
		b.wait(t, "all of before", func() bool { return len(b.got) == 100 })
		emit(t, db, a, 100, 150, nil)
		b.wait(t, "all", func() bool { return len(b.got) == 150 })
		if d := cmp.Diff(topics(150), b.got); d != "" {
			t.Error(d)
		}
		b.wait(t, "rows to go", func() bool { return rows(t, db) == 0 })
	})
}

// An event that can't be published, of names as long as names may be, or for somebody whose queue is full, keeps others
// back no longer than a minute.
func TestEventsThatCanNotBe(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		b := &broker{now: time.Now(), full: true}
		a := account.New(account.Deps{DB: db, Publisher: b, NodeID: "a", Now: b.clock})
		name := strings.Repeat("n", 128)
		err := db.Write(t.Context(), func(ctx context.Context, _ store.Tx) error {
			return a.Emit(ctx, "$aws/events/thingGroupMembership/thingGroup/"+name+"/thing/"+name+"/added", []byte("{}"))
		})
		if err != nil {
			t.Fatal(err)
		}
		emit(t, db, a, 0, 3, nil)
		defer run(a)()
		b.wait(t, "an attempt", func() bool { return b.asked > 0 })
		b.set(func() { b.now = b.now.Add(2 * time.Minute) })
		b.wait(t, "those behind", func() bool { return len(b.got) == 3 })
		b.wait(t, "rows to go", func() bool { return rows(t, db) == 0 })
	})
}

// Events of a node that is gone are published by another.
func TestEventsOfADeadNode(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		b := &broker{now: time.Now()}
		dead := account.New(account.Deps{DB: db, Publisher: b, NodeID: "dead", Now: b.clock})
		emit(t, db, dead, 0, 10, nil)
		b.set(func() { b.now = b.now.Add(2 * time.Minute) })
		defer run(account.New(account.Deps{DB: db, Publisher: b, NodeID: "alive", Now: b.clock}))()
		b.wait(t, "all", func() bool { return len(b.got) == 10 })
		if d := cmp.Diff(topics(10), b.got); d != "" {
			t.Error(d)
		}
	})
}

// As many events wait as may; further ones are counted, and what they tell of is done all the same.
func TestEventsAreBounded(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		metrics := prometheus.NewRegistry()
		a := account.New(account.Deps{DB: db, NodeID: "a", MaxEvents: 10, Metrics: metrics})
		for i := range 15 {
			emit(t, db, a, i, i+1, nil)
		}
		if n := rows(t, db); n != 10 {
			t.Errorf("%d wait", n)
		}
		families, err := metrics.Gather()
		if err != nil || len(families) != 1 || families[0].GetMetric()[0].GetCounter().GetValue() != 5 {
			t.Error(families, err)
		}
	})
}
