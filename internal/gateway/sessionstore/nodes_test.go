package sessionstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

func TestNodeDies(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		w2 := w.other("n2", sessionstore.Config{})
		held := []sessionstore.Held{}
		for _, id := range []string{"kept", "taken", "ended"} {
			held = append(held, sessionstore.Held{ClientID: id, Epoch: w.connect(id, false, 60).Session.Epoch})
		}
		clean := w.connect("clean", true, 0).Session
		held = append(held, sessionstore.Held{ClientID: "clean", Epoch: clean.Epoch})
		elsewhere := w2.connect("elsewhere", false, 60).Session
		if n, err := w2.Bury(t.Context(), "n1"); n != 4 || err != nil {
			t.Fatalf("%d buried, %v", n, err)
		}
		if n, err := w2.Bury(t.Context(), "n1"); n != 0 || err != nil {
			t.Fatalf("%d buried again, %v", n, err)
		}
		if c := w2.connect("taken", false, 60); !c.Present || c.PreviousNode != "" {
			t.Errorf("taken over from the dead: %+v", c)
		}
		w.clock.pass(59 * time.Second)
		if ended := w2.expire(); len(ended) != 0 {
			t.Errorf("ended early: %+v", ended)
		}
		// n1 was only out of reach.
		ended := w2.connect("ended", false, 60).Session
		if _, err := w2.Disconnect(t.Context(), sessionstore.Disconnection{ClientID: "ended", Epoch: ended.Epoch, End: true}); err != nil {
			t.Fatal(err)
		}
		lost, err := w.Reassert(t.Context(), held)
		if err != nil || !cmp.Equal(lost, held[1:3]) {
			t.Errorf("lost %v, %v", lost, err)
		}
		w.clock.pass(time.Hour)
		w2.expire()
		got, err := w2.Session(t.Context(), "kept")
		if err != nil || got.Node != "n1" || !got.Disconnected.IsZero() {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err := w2.Session(t.Context(), "elsewhere"); err != nil || got.Node != "n2" || got.Epoch != elsewhere.Epoch {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestWills(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		will := func(id string, delay time.Duration) sessionstore.ConnectRequest {
			return sessionstore.ConnectRequest{
				ClientID: id, Version: mqtt.V5, ExpirySeconds: 100,
				Will: &sessionstore.Will{Message: message("will/"+id, id), Delay: delay},
			}
		}
		take := func(w world) (ids []string) {
			t.Helper()
			owed, err := w.Wills(t.Context(), 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range owed {
				if o.Message.Topic != "will/"+o.ClientID || string(o.Message.Payload) != o.ClientID {
					t.Errorf("%+v", o.Message)
				}
				ids = append(ids, o.ClientID)
			}
			return ids
		}
		w.connectWith(will("crashed", 0))
		w.connectWith(will("delayed", 30*time.Second))
		w.connectWith(will("outlived", time.Hour)) // ends with the session
		polite := w.connectWith(will("polite", 0)).Session
		w.disconnect(&polite)
		owed := w.connectWith(will("owed", 0)).Session
		if _, err := w.Disconnect(t.Context(), sessionstore.Disconnection{ClientID: "owed", Epoch: owed.Epoch, WillDue: w.clock.now().Add(time.Second)}); err != nil {
			t.Fatal(err)
		}
		if ids := take(w); ids != nil {
			t.Errorf("while connected: %v", ids)
		}
		w2 := w.other("n2", sessionstore.Config{})
		if _, err := w2.Bury(t.Context(), "n1"); err != nil {
			t.Fatal(err)
		}
		if ids := take(w2); !cmp.Equal(ids, []string{"crashed"}) {
			t.Errorf("at once: %v", ids)
		}
		w.clock.pass(5 * time.Second)
		if ids := take(w); !cmp.Equal(ids, []string{"owed"}) {
			t.Errorf("given out twice, or not at all: %v", ids)
		}
		err := w.db.Write(t.Context(), func(ctx context.Context, tx store.Tx) error { return w.ClearWill(ctx, tx, "owed", owed.Epoch) })
		if err != nil {
			t.Fatal(err)
		}
		w.clock.pass(6 * time.Second)
		if ids := take(w); !cmp.Equal(ids, []string{"crashed"}) {
			t.Errorf("not published, so again: %v", ids)
		}
		// Who comes back in time takes a delayed will back, a due one not.
		if c := w.connectWith(will("delayed", time.Minute)); c.Will != nil || !c.Present {
			t.Errorf("%+v", c)
		}
		if c := w.connect("crashed", false, 100); c.Will == nil || c.Will.Topic != "will/crashed" {
			t.Errorf("%+v", c)
		}
		w.clock.pass(90 * time.Second)
		if ended := w.expire(); len(ended) != 2 { // polite, owed
			t.Errorf("a session ended before its will: %+v", ended)
		}
		if ids := take(w); !cmp.Equal(ids, []string{"outlived"}) {
			t.Errorf("with the session: %v", ids)
		}
	})
}

func TestSharedSubscription(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		a, b := w.connect("a", false, hour).Session, w.connect("b", false, hour).Session
		group := w.subscribe(&a, "$share/g/t")[0].Group
		if group == 0 || w.subscribe(&b, "$share/g/t")[0].Group != group || w.subscribe(&b, "$share/h/t")[0].Group == group {
			t.Fatal("groups are mixed up")
		}
		w.disconnect(&a)
		w.disconnect(&b)
		for i := range 5 {
			w.mustEnqueue(message("t", fmt.Sprint(i)), sessionstore.Target{Session: group})
		}
		w.wantCount(group, 5)
		if _, err := w.Claim(t.Context(), &a, group, 2); !errors.Is(err, sessionstore.ErrFenced) {
			// a is not connected, but nobody else is either: its epoch is the last.
			if err != nil {
				t.Fatal(err)
			}
		}
		a = w.connect("a", false, hour).Session
		w.mustEnqueue(message("t", "direct"), sessionstore.Target{Session: a.Number, Group: group})
		n, err := w.Claim(t.Context(), &a, group, 100)
		if err != nil {
			t.Fatal(err)
		}
		_ = n
		w.wantQueue(group)
		w.wantQueue(a.Number, "0", "1", "2", "3", "4", "direct")
		w.wantCount(group, 0)
		w.wantCount(a.Number, 6)
		page, err := w.Read(t.Context(), a.Number, 0, 3)
		if err != nil || page[0].Group != group {
			t.Fatalf("%+v, %v", page, err)
		}
		w.Ack(a.Number, page[0].ID, page[1].ID)
		w.flush()
		// What it leaves unacknowledged another member gets.
		w.mustEnqueue(message("t", "own"), sessionstore.Target{Session: a.Number})
		w.disconnect(&a)
		w.wantQueue(a.Number, "own")
		w.wantQueue(group, "2", "3", "4", "direct")
		w.wantCount(a.Number, 1)
		w.wantCount(group, 4)
		b = w.connect("b", false, hour).Session
		if n, err := w.Claim(t.Context(), &b, group, 3); n != 3 || err != nil {
			t.Errorf("claimed %d, %v", n, err)
		}
		w.wantQueue(b.Number, "2", "3", "4")
		// A discarded session gives back, too; with the last member the group goes.
		if c := w.connect("b", true, hour); c.Discarded != b.Number {
			t.Errorf("%+v", c)
		}
		w.wantQueue(group, "2", "3", "4", "direct")
		w.clock.pass(2 * time.Hour)
		w.expire()
		w.clock.pass(2 * time.Hour)
		w.expire()
		w.wantQueue(group)
		w.wantCount(group, 0)
		if n := w.rows("mqtt_share"); n != 0 {
			t.Errorf("%d groups stay", n)
		}
	})
}

func TestRetained(t *testing.T) {
	each(t, sessionstore.Config{MaxRetained: 3}, func(t *testing.T, w world) {
		retain := func(m *mqtt.Message) error {
			return w.db.Write(t.Context(), func(ctx context.Context, tx store.Tx) error { return w.Retain(ctx, tx, m) })
		}
		must := func(m *mqtt.Message) {
			t.Helper()
			if err := retain(m); err != nil {
				t.Fatal(err)
			}
		}
		must(message("b", "1"))
		must(message("b", "22"))
		must(message("a", "x"))
		m := message("c", "short")
		m.Received = w.clock.now()
		m.Properties = &mqtt.PublishProperties{MessageExpiry: new(uint32(10)), ContentType: "t"}
		must(m)
		if err := retain(message("d", "too many")); !errors.Is(err, mqtt.QuotaExceeded) {
			t.Errorf("too many: %v", err)
		}
		must(message("a", "y")) // one that is there
		r, err := w.Retained(t.Context(), "c")
		if err != nil || r.Message.Topic != "c" || r.Message.Properties.ContentType != "t" || !r.Modified.Equal(m.Received) {
			t.Errorf("%+v, %v", r, err)
		}
		w.clock.pass(11 * time.Second)
		if _, err := w.Retained(t.Context(), "c"); !errors.Is(err, sessionstore.ErrNotFound) {
			t.Errorf("expired: %v", err)
		}
		w.expire()
		if n := w.RetainedMessages(); n != 2 {
			t.Errorf("%d retained", n)
		}
		list, err := w.ListRetained(t.Context(), "", 1)
		if err != nil || len(list) != 1 || list[0].Topic != "a" {
			t.Fatalf("%+v, %v", list, err)
		}
		list, err = w.ListRetained(t.Context(), "a", 5)
		if err != nil || len(list) != 1 || list[0].Topic != "b" || list[0].PayloadBytes != 2 || list[0].QoS != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		must(message("b", ""))
		must(message("none", ""))
		if _, err := w.Retained(t.Context(), "b"); !errors.Is(err, sessionstore.ErrNotFound) {
			t.Errorf("cleared: %v", err)
		}
		if n := w.RetainedMessages(); n != 1 {
			t.Errorf("%d retained", n)
		}
		must(message("d", "there is room again"))
	})
}

// With several nodes a queue's bound holds, about, although each counts for itself.
func TestBoundAcrossNodes(t *testing.T) {
	cfg := sessionstore.Config{MaxQueueMessages: 40}
	each(t, cfg, func(t *testing.T, w world) {
		if w.db.Name() == "sqlite" {
			return // has one node
		}
		w2 := w.other("n2", cfg)
		s := w.connect("c", false, hour).Session
		target := sessionstore.Target{Session: s.Number}
		stored := 0
		for range 100 {
			for _, from := range []world{w, w2} {
				if _, err := from.enqueue(message("t", "x"), target); err == nil {
					stored++
				} else if !errors.Is(err, mqtt.QuotaExceeded) {
					t.Fatal(err)
				}
			}
		}
		if n := w.rows("mqtt_queue"); n != int64(stored) || n < 40 || n > 50 {
			t.Errorf("%d rows, %d were taken", n, stored)
		}
		// The owner acknowledges; the other node learns that there is room.
		page, err := w.Read(t.Context(), s.Number, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range page {
			w.Ack(s.Number, q.ID)
		}
		w.flush()
		w.clock.pass(time.Second)
		w2.mustEnqueue(message("t", "y"), target)
		w.wantQueue(s.Number, "y")
	})
}

// Two nodes with writers of their own on one database.
func TestTwoWriters(t *testing.T) {
	server := os.Getenv("FLOTILLA_TEST_POSTGRES")
	if server == "" {
		return // SQLite has one
	}
	url := storetest.Postgres(t, server)
	c := newClock()
	w := open(t, storetest.OpenConfig(t, store.Config{Store: url, NodeID: "n1"}), c, "n1", sessionstore.Config{})
	w2 := open(t, storetest.OpenConfig(t, store.Config{Store: url, NodeID: "n2"}), c, "n2", sessionstore.Config{})
	var mu sync.Mutex
	epochs := map[int64]string{}
	groups := map[int64]bool{}
	both := func(fn func(w world, i int)) {
		var wg sync.WaitGroup
		for _, w := range []world{w, w2} {
			wg.Go(func() {
				for i := range 30 {
					fn(w, i)
				}
			})
		}
		wg.Wait()
	}
	both(func(w world, i int) {
		got, err := w.Connect(context.Background(), sessionstore.ConnectRequest{ClientID: "c", Version: mqtt.V5, ExpirySeconds: hour})
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if was, there := epochs[got.Session.Epoch]; there {
			t.Errorf("epoch %d was given to %s, too", got.Session.Epoch, was)
		}
		epochs[got.Session.Epoch] = got.Session.Node
	})
	both(func(w world, i int) {
		name := fmt.Sprint("member", w.db.NextID())
		got, err := w.Connect(context.Background(), sessionstore.ConnectRequest{ClientID: name, Version: mqtt.V5, ExpirySeconds: hour})
		if err != nil {
			t.Error(err)
			return
		}
		subs, err := w.Subscribe(context.Background(), &got.Session, []sessionstore.Subscription{{Filter: "$share/g/t", QoS: 1}})
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		groups[subs[0].Group] = true
	})
	if len(groups) != 1 {
		t.Errorf("one shared subscription has %d groups", len(groups))
	}
	s, err := w.Session(t.Context(), "c")
	if err != nil || s.Epoch != 60 || epochs[60] != s.Node {
		t.Errorf("%+v, %v; %s had the last epoch", s, err, epochs[60])
	}
	both(func(w world, i int) {
		id, err := w.enqueue(message("t", "x"), sessionstore.Target{Session: s.Number})
		if err != nil {
			t.Error(err)
			return
		}
		w.Ack(s.Number, id)
	})
	w.flush()
	w2.flush()
	w.wantQueue(s.Number)
	both(func(w world, i int) {
		if _, err := w.Bury(context.Background(), []string{"n1", "n2"}[i%2]); err != nil {
			t.Error(err)
		}
	})
}
