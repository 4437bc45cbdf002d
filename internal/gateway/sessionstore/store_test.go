package sessionstore_test

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
	"github.com/google/go-cmp/cmp/cmpopts"

	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// clock is one that tests set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.UnixMilli(1_700_000_000_000)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// world is a store as one node sees it.
type world struct {
	*sessionstore.Store
	t     *testing.T
	db    *store.DB
	clock *clock
}

func each(t *testing.T, cfg sessionstore.Config, fn func(t *testing.T, w world)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) { fn(t, open(t, db, newClock(), "n1", cfg)) })
}

func open(t *testing.T, db *store.DB, c *clock, node string, cfg sessionstore.Config) world {
	t.Helper()
	cfg.Node, cfg.Now = node, c.now
	w := world{sessionstore.New(db, cfg), t, db, c}
	w.load()
	return w
}

// other is the store as another node sees it.
func (w world) other(node string, cfg sessionstore.Config) world {
	w.t.Helper()
	return open(w.t, w.db, w.clock, node, cfg)
}

func (w world) load() (all []*sessionstore.Session) {
	w.t.Helper()
	err := w.Load(w.t.Context(), func(s *sessionstore.Session) error {
		all = append(all, s)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

const hour = 3600

func (w world) connect(clientID string, clean bool, expiry uint32) *sessionstore.Connected {
	w.t.Helper()
	return w.connectWith(sessionstore.ConnectRequest{ClientID: clientID, Principal: "cert", Version: mqtt.V5, CleanStart: clean, ExpirySeconds: expiry})
}

func (w world) connectWith(r sessionstore.ConnectRequest) *sessionstore.Connected {
	w.t.Helper()
	c, err := w.Connect(w.t.Context(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w world) disconnect(s *sessionstore.Session) sessionstore.Disconnected {
	w.t.Helper()
	d, err := w.Disconnect(w.t.Context(), sessionstore.Disconnection{ClientID: s.ClientID, Epoch: s.Epoch})
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w world) subscribe(s *sessionstore.Session, filters ...string) []sessionstore.Subscription {
	w.t.Helper()
	var subs []sessionstore.Subscription
	for _, f := range filters {
		subs = append(subs, sessionstore.Subscription{Filter: f, QoS: 1})
	}
	got, err := w.Subscribe(w.t.Context(), s, subs)
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

func message(topic, payload string) *mqtt.Message {
	return &mqtt.Message{Topic: topic, Payload: []byte(payload), QoS: 1, Received: time.UnixMilli(1_700_000_000_000)}
}

// enqueue publishes m to targets and returns its id.
func (w world) enqueue(m *mqtt.Message, targets ...sessionstore.Target) (int64, error) {
	r, err := w.Reserve(m, 0, targets)
	if err != nil {
		return 0, err
	}
	if err := w.db.Write(context.Background(), r.Enqueue); err != nil {
		r.Cancel()
		return 0, err
	}
	return r.ID(), nil
}

func (w world) mustEnqueue(m *mqtt.Message, targets ...sessionstore.Target) int64 {
	w.t.Helper()
	id, err := w.enqueue(m, targets...)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w world) payloads(session int64) (all []string) {
	w.t.Helper()
	page, err := w.Read(w.t.Context(), session, 0, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, q := range page {
		all = append(all, string(q.Message.Payload))
	}
	return all
}

func (w world) wantQueue(session int64, want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.payloads(session), cmpopts.EquateEmpty()); diff != "" {
		w.t.Errorf("queue of %d (-want +got)\n%s", session, diff)
	}
}

func (w world) wantCount(session, messages int64) {
	w.t.Helper()
	n, size := w.Queued(session)
	if n != messages || (size == 0) != (messages == 0) {
		w.t.Errorf("counted %d messages of %d bytes, want %d", n, size, messages)
	}
}

func (w world) flush() {
	w.t.Helper()
	if err := w.AckFlush(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w world) expire() []sessionstore.Ended {
	w.t.Helper()
	ended, err := w.Expire(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return ended
}

func (w world) rows(table string) (n int64) {
	w.t.Helper()
	err := w.db.Read(w.t.Context(), func(_ context.Context, tx store.Tx) error {
		return tx.QueryRow(`SELECT COUNT(*) FROM ` + table).Scan(&n)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func TestSessionIsResumed(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		first := w.connect("c", false, hour)
		if first.Present || first.Session.Epoch != 1 || first.Session.Number == 0 || first.PreviousNode != "" {
			t.Errorf("first: %+v", first)
		}
		subs, err := w.Subscribe(t.Context(), &first.Session, []sessionstore.Subscription{
			{Filter: "a/+", QoS: 1, NoLocal: true, RetainHandling: 2}, {Filter: "b", RetainAsPublished: true},
		})
		if err != nil {
			t.Fatal(err)
		}
		if d := w.disconnect(&first.Session); d.Ended || d.Number != first.Session.Number {
			t.Errorf("disconnected %+v", d)
		}
		w.mustEnqueue(message("a/1", "one"), sessionstore.Target{Session: first.Session.Number})
		w.clock.pass(59 * time.Minute)
		second := w.connect("c", false, hour)
		if !second.Present || second.Session.Number != first.Session.Number || second.Session.Epoch != 2 {
			t.Errorf("second: %+v", second)
		}
		if diff := cmp.Diff(subs, second.Session.Subscriptions); diff != "" {
			t.Error(diff)
		}
		w.wantQueue(second.Session.Number, "one")
		// A restart finds it all.
		again := w.other("n1", sessionstore.Config{}).load()
		if len(again) != 1 || again[0].ClientID != "c" || again[0].Node != "" || !cmp.Equal(again[0].Subscriptions, subs) {
			t.Errorf("loaded %+v", again)
		}
	})
}

func TestSessionIsReplaced(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		for name, r := range map[string]sessionstore.ConnectRequest{
			"clean start":   {CleanStart: true, Version: mqtt.V5, ExpirySeconds: hour},
			"clean session": {CleanStart: true, Version: mqtt.V5},
			"other version": {Version: mqtt.V311, ExpirySeconds: hour},
		} {
			r.ClientID = name
			old := w.connect(name, false, hour).Session
			w.subscribe(&old, "a")
			w.mustEnqueue(message("a", "one"), sessionstore.Target{Session: old.Number})
			w.disconnect(&old)
			got := w.connectWith(r)
			if got.Present || got.Discarded != old.Number || got.Session.Number == old.Number || got.Session.Epoch != 2 || got.Session.Subscriptions != nil {
				t.Errorf("%s: %+v", name, got)
			}
			w.wantQueue(old.Number)
			w.wantCount(old.Number, 0)
		}
		if n := w.rows("mqtt_subscription"); n != 0 {
			t.Errorf("%d subscriptions stay", n)
		}
	})
}

func TestSessionEnds(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		end := func(s *sessionstore.Session, d sessionstore.Disconnection) {
			t.Helper()
			w.subscribe(s, "a")
			w.mustEnqueue(message("a", "one"), sessionstore.Target{Session: s.Number})
			d.ClientID, d.Epoch = s.ClientID, s.Epoch
			got, err := w.Disconnect(t.Context(), d)
			if err != nil || !got.Ended || got.Number != s.Number {
				t.Errorf("%+v: %+v, %v", d, got, err)
			}
			w.wantCount(s.Number, 0)
		}
		end(&w.connect("wiped", false, hour).Session, sessionstore.Disconnection{End: true})
		end(&w.connect("none", false, hour).Session, sessionstore.Disconnection{ExpirySeconds: new(uint32(0))})
		// Resumed, but to end with the connection.
		p := w.connect("resumed", false, hour).Session
		w.disconnect(&p)
		r := w.connect("resumed", false, 0)
		if !r.Present {
			t.Error("not resumed")
		}
		end(&r.Session, sessionstore.Disconnection{})
		for _, table := range []string{"mqtt_subscription", "mqtt_queue"} {
			if n := w.rows(table); n != 0 {
				t.Errorf("%s has %d rows", table, n)
			}
		}
		if all := w.load(); len(all) != 0 {
			t.Errorf("loaded %+v", all)
		}
		// The epoch is known for an hour, then forgotten.
		if c := w.connect("none", false, 0); c.Session.Epoch != 2 {
			t.Errorf("epoch %d", c.Session.Epoch)
		}
		w.clock.pass(61 * time.Minute)
		if ended := w.expire(); len(ended) != 0 {
			t.Errorf("ended %+v", ended)
		}
		if c := w.connect("wiped", false, 0); c.Session.Epoch != 1 {
			t.Errorf("epoch %d after an hour", c.Session.Epoch)
		}
	})
}

func TestExpire(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		short, long, never := w.connect("short", false, 60).Session, w.connect("long", false, 600).Session, w.connect("never", false, sessionstore.Never).Session
		connected := w.connect("connected", false, 1).Session
		for _, s := range []*sessionstore.Session{&short, &long, &never} {
			w.subscribe(s, "a")
			w.disconnect(s)
		}
		all := []sessionstore.Target{{Session: short.Number}, {Session: long.Number}, {Session: never.Number}, {Session: connected.Number}}
		w.mustEnqueue(message("a", "stays"), all...)
		m := message("a", "goes")
		m.Properties = &mqtt.PublishProperties{MessageExpiry: new(uint32(61))}
		w.mustEnqueue(m, all...)
		w.clock.pass(61 * time.Second)
		// Expired but not ended yet, it is not resumed.
		if loaded := w.load(); len(loaded) != 3 {
			t.Errorf("%d loaded", len(loaded))
		}
		w.wantQueue(long.Number, "stays")
		if ended := w.expire(); !cmp.Equal(ended, []sessionstore.Ended{{ClientID: "short", Number: short.Number}}) {
			t.Errorf("ended %+v", ended)
		}
		w.wantCount(short.Number, 0)
		w.wantCount(long.Number, 1)
		w.wantCount(connected.Number, 1)
		if c := w.connect("short", false, 60); c.Present || c.Session.Epoch != 1 {
			t.Errorf("after expiry: %+v", c)
		}
		w.clock.pass(10 * time.Minute)
		if c := w.connect("long", false, 60); c.Present || c.Discarded != long.Number {
			t.Errorf("expired, not ended: %+v", c)
		}
		w.clock.pass(1000 * time.Hour)
		w.expire()
		if c := w.connect("never", false, 60); !c.Present {
			t.Error("a session that never expires has")
		}
	})
}

func TestQueue(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		s := w.connect("c", false, hour).Session
		target := sessionstore.Target{Session: s.Number}
		want := &mqtt.Message{
			Topic: "t/ä", QoS: 1, Retain: true, Received: time.UnixMilli(1_700_000_000_123),
			Properties: &mqtt.PublishProperties{ContentType: "x", UserProperties: []mqtt.UserProperty{{Key: "k", Value: "v"}, {Key: "k", Value: "v"}}},
		}
		id := w.mustEnqueue(want, sessionstore.Target{Session: s.Number, RetainAsPublished: true})
		page, err := w.Read(t.Context(), s.Number, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]sessionstore.Queued{{ID: id, RetainAsPublished: true, Message: want}}, page,
			cmp.Comparer(func(a, b mqtt.Source) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
		ids := []int64{id}
		for i := range 200 {
			ids = append(ids, w.mustEnqueue(message("t", fmt.Sprint(i)), target))
		}
		if !slices.IsSorted(ids) {
			t.Error("ids do not rise")
		}
		page, err = w.Read(t.Context(), s.Number, ids[50], 3)
		if err != nil || len(page) != 3 || page[0].ID != ids[51] || string(page[2].Message.Payload) != "52" {
			t.Errorf("page %+v, %v", page, err)
		}
		w.wantCount(s.Number, 201)
		w.Ack(s.Number, ids[:198]...)
		w.Ack(s.Number, ids[0], 12345) // again, and unknown
		w.flush()
		w.wantQueue(s.Number, "197", "198", "199")
		w.wantCount(s.Number, 3)
	})
}

// A client must not get a message again that it has acknowledged, only because its removal takes a while.
func TestReadLeavesOutWhatIsAcknowledged(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		s := w.connect("c", false, hour).Session
		other := w.connect("d", false, hour).Session
		var ids []int64
		for i := range 5 {
			ids = append(ids, w.mustEnqueue(message("t", fmt.Sprint(i)), sessionstore.Target{Session: s.Number}, sessionstore.Target{Session: other.Number}))
		}
		busy, release := make(chan struct{}), make(chan struct{})
		go func() {
			_ = w.db.Write(context.Background(), func(context.Context, store.Tx) error { close(busy); <-release; return nil })
		}()
		<-busy
		w.Ack(s.Number, ids[0], ids[1], ids[3])
		for number, want := range map[int64][]int64{s.Number: {ids[2], ids[4]}, other.Number: ids} {
			var got []int64
			for after := int64(0); ; after = got[len(got)-1] {
				page, err := w.Read(t.Context(), number, after, 1)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) == 0 {
					break
				}
				got = append(got, page[0].ID)
			}
			if !slices.Equal(got, want) {
				t.Errorf("session %d: %v, want %v", number, got, want)
			}
		}
		close(release)
		w.flush()
		w.wantQueue(s.Number, "2", "4")
	})
}

// Bodies that many queues share are removed once no queue has them.
func TestSharedBody(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		const n = 101
		var targets []sessionstore.Target
		for i := range n {
			s := w.connect(fmt.Sprint("c", i), false, hour).Session
			targets = append(targets, sessionstore.Target{Session: s.Number})
		}
		big := string(make([]byte, 3000))
		id := w.mustEnqueue(message("t", big), targets...)
		other := w.mustEnqueue(message("t", big), targets[:2]...)
		if n := w.rows("mqtt_body"); n != 2 {
			t.Fatalf("%d bodies", n)
		}
		for _, tg := range targets[1:] {
			w.Ack(tg.Session, id)
		}
		w.flush()
		w.expire()
		w.wantQueue(targets[0].Session, big, big)
		if n := w.rows("mqtt_body"); n != 2 {
			t.Errorf("%d bodies", n)
		}
		w.Ack(targets[0].Session, id)
		w.Ack(targets[1].Session, other)
		w.flush()
		w.expire()
		w.wantQueue(targets[0].Session, big)
		if n := w.rows("mqtt_body"); n != 1 {
			t.Errorf("%d bodies", n)
		}
	})
}

func TestFullQueueRefuses(t *testing.T) {
	cfg := sessionstore.Config{MaxQueueMessages: 10, MaxQueueBytes: 2000}
	each(t, cfg, func(t *testing.T, w world) {
		a, b := w.connect("a", false, hour).Session, w.connect("b", false, hour).Session
		ta, tb := sessionstore.Target{Session: a.Number, Name: "a"}, sessionstore.Target{Session: b.Number, Name: "b"}
		var ids []int64
		for range 10 {
			ids = append(ids, w.mustEnqueue(message("t", "x"), ta))
		}
		_, err := w.enqueue(message("t", "y"), tb, ta, tb)
		var full *sessionstore.FullError
		if !errors.As(err, &full) || !errors.Is(err, mqtt.QuotaExceeded) || !slices.Equal(full.Sessions, []int64{a.Number}) || !strings.Contains(err.Error(), "the queue of a is full") {
			t.Errorf("full: %v", err)
		}
		w.wantQueue(b.Number)
		if n, _ := w.Queued(b.Number); n != 0 {
			t.Errorf("%d counted for who was not at fault", n)
		}
		if _, err := w.enqueue(message("t", string(make([]byte, 3000))), tb); !errors.Is(err, mqtt.QuotaExceeded) {
			t.Errorf("larger than the queue: %v", err)
		}
		w.Ack(a.Number, ids[0])
		w.flush()
		w.clock.pass(time.Second) // counts are believed for a while
		w.mustEnqueue(message("t", "y"), ta)
		// The counters of a restart are right.
		r := w.other("n1", cfg)
		if _, err := r.enqueue(message("t", "z"), ta); !errors.Is(err, mqtt.QuotaExceeded) {
			t.Errorf("after a restart: %v", err)
		}
	})
}

func TestFailedWriteGivesRoomBack(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		s := w.connect("c", false, hour).Session
		no := errors.New("no")
		r, err := w.Reserve(message("t", "x"), 0, []sessionstore.Target{{Session: s.Number}})
		if err != nil {
			t.Fatal(err)
		}
		err = w.db.Write(t.Context(), func(ctx context.Context, tx store.Tx) error {
			if err := r.Enqueue(ctx, tx); err != nil {
				return err
			}
			return no
		})
		if !errors.Is(err, no) {
			t.Fatal(err)
		}
		r.Cancel()
		w.wantCount(s.Number, 0)
		w.wantQueue(s.Number)
		if w.TotalBytes() != 0 {
			t.Errorf("%d bytes", w.TotalBytes())
		}
	})
}

func TestOnlyTheHolderDisconnects(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		w2 := w.other("n2", sessionstore.Config{})
		old := w.connect("c", false, hour).Session
		w.mustEnqueue(message("t", "x"), sessionstore.Target{Session: old.Number})
		taken := w2.connect("c", false, hour)
		if !taken.Present || taken.PreviousNode != "n1" || taken.Session.Epoch != 2 || taken.Session.Number != old.Number {
			t.Errorf("%+v", taken)
		}
		if _, err := w.Disconnect(t.Context(), sessionstore.Disconnection{ClientID: "c", Epoch: old.Epoch, End: true}); !errors.Is(err, sessionstore.ErrFenced) {
			t.Errorf("disconnect by the former holder: %v", err)
		}
		if _, err := w.Subscribe(t.Context(), &old, []sessionstore.Subscription{{Filter: "a"}}); !errors.Is(err, sessionstore.ErrFenced) {
			t.Errorf("subscribe by the former holder: %v", err)
		}
		if _, err := w.Unsubscribe(t.Context(), &old, []string{"a"}); !errors.Is(err, sessionstore.ErrFenced) {
			t.Errorf("unsubscribe by the former holder: %v", err)
		}
		got, err := w.Session(t.Context(), "c")
		if err != nil || got.Node != "n2" || got.Epoch != 2 {
			t.Errorf("%+v, %v", got, err)
		}
		w.wantQueue(old.Number, "x")
		if _, err := w.Session(t.Context(), "none"); !errors.Is(err, sessionstore.ErrNotFound) {
			t.Errorf("no session: %v", err)
		}
	})
}

// Two nodes connect one client id at once: the epochs differ, and the greater holds.
func TestConcurrentConnects(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		const n = 20
		epochs := make([]int64, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				c, err := w.Connect(context.Background(), sessionstore.ConnectRequest{ClientID: "c", Version: mqtt.V5, ExpirySeconds: hour})
				if err != nil {
					t.Error(err)
					return
				}
				epochs[i] = c.Session.Epoch
			})
		}
		wg.Wait()
		slices.Sort(epochs)
		for i, e := range epochs {
			if e != int64(i+1) {
				t.Fatalf("epochs %v", epochs)
			}
		}
	})
}

func TestUnsubscribe(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		s := w.connect("c", false, hour).Session
		w.subscribe(&s, "a", "b", "a")
		had, err := w.Unsubscribe(t.Context(), &s, []string{"a", "c"})
		if err != nil || !slices.Equal(had, []string{"a"}) {
			t.Errorf("%v, %v", had, err)
		}
		got, err := w.Session(t.Context(), "c")
		if err != nil || len(got.Subscriptions) != 1 || got.Subscriptions[0].Filter != "b" {
			t.Errorf("%+v, %v", got, err)
		}
		clean := w.connect("clean", true, 0).Session
		if _, err := w.Subscribe(t.Context(), &clean, []sessionstore.Subscription{{Filter: "a"}}); err == nil {
			t.Error("the subscriptions of a clean session were stored")
		}
	})
}

func TestLoadPages(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		const n = 2100
		for i := range n {
			c := w.connect(fmt.Sprintf("c%04d", i), false, hour).Session
			if i%3 == 0 {
				w.subscribe(&c, fmt.Sprint("own/", i), "all/#")
			}
		}
		seen := map[string]int{}
		for _, s := range w.load() {
			seen[s.ClientID] = len(s.Subscriptions)
		}
		if len(seen) != n {
			t.Fatalf("%d sessions", len(seen))
		}
		for i := range n {
			want := 0
			if i%3 == 0 {
				want = 2
			}
			if got := seen[fmt.Sprintf("c%04d", i)]; got != want {
				t.Fatalf("session %d has %d subscriptions", i, got)
			}
		}
	})
}

func TestYieldLeavesWhatIsAnothers(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		yield := func(id, principal string) error {
			_, err := w.Connect(t.Context(), sessionstore.ConnectRequest{ClientID: id, Principal: principal, Version: mqtt.V5, CleanStart: true, Yield: true})
			return err
		}
		absent := w.connect("absent", false, hour).Session
		w.disconnect(&absent)
		w.connect("leased", true, 0)
		gone := w.connect("gone", true, 0).Session
		w.disconnect(&gone)
		for _, id := range []string{"absent", "leased"} {
			if err := yield(id, "another"); !errors.Is(err, sessionstore.ErrHeld) {
				t.Errorf("%s: %v", id, err)
			}
			if err := yield(id, absent.Principal); err != nil {
				t.Errorf("%s, its own: %v", id, err)
			}
		}
		for _, id := range []string{"gone", "new"} {
			if err := yield(id, "another"); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
}

func TestPrincipalSince(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		connect := func(principal string) sessionstore.Session {
			return w.connectWith(sessionstore.ConnectRequest{ClientID: "c", Principal: principal, Version: mqtt.V5, ExpirySeconds: hour}).Session
		}
		first := connect("a")
		id := w.mustEnqueue(message("t", "one"), sessionstore.Target{Session: first.Number})
		if again := connect("a"); again.PrincipalSince != 0 {
			t.Errorf("%+v", again)
		}
		other := connect("b")
		if other.PrincipalSince <= id {
			t.Errorf("message %d counts as queued for b: %+v", id, other)
		}
		if id := w.mustEnqueue(message("t", "two"), sessionstore.Target{Session: first.Number}); id <= other.PrincipalSince {
			t.Errorf("message %d does not count as queued for b: %+v", id, other)
		}
		if again := connect("b"); again.PrincipalSince != other.PrincipalSince {
			t.Errorf("%+v", again)
		}
		all := w.load()
		if len(all) != 1 || all[0].PrincipalSince != other.PrincipalSince {
			t.Errorf("%+v", all)
		}
	})
}

func TestGiveBack(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		a := w.connect("a", false, hour).Session
		group := w.subscribe(&a, "$share/g/t")[0].Group
		one := w.mustEnqueue(message("t", "one"), sessionstore.Target{Session: a.Number, Group: group})
		w.mustEnqueue(message("t", "two"), sessionstore.Target{Session: a.Number, Group: group})
		own := w.mustEnqueue(message("t", "own"), sessionstore.Target{Session: a.Number})
		if err := w.GiveBack(t.Context(), a.Number, []int64{one, own}); err != nil {
			t.Fatal(err)
		}
		w.wantQueue(group, "one")
		w.wantQueue(a.Number, "two", "own")
		w.wantCount(group, 1)
		w.wantCount(a.Number, 2)
	})
}

// The other members of a group get nothing again that one of them has acknowledged.
func TestAcknowledgedMessagesAreNotGivenBack(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		a := w.connect("a", false, hour).Session
		group := w.subscribe(&a, "$share/g/t")[0].Group
		var ids []int64
		for i := range 4 {
			ids = append(ids, w.mustEnqueue(message("t", fmt.Sprint(i)), sessionstore.Target{Session: a.Number, Group: group}))
		}
		err := w.db.Write(t.Context(), func(ctx context.Context, tx store.Tx) error {
			w.Ack(a.Number, ids[0], ids[2]) // is removed by a later write
			var out sessionstore.Disconnected
			return w.Disconnecting(sessionstore.Disconnection{ClientID: a.ClientID, Epoch: a.Epoch}, &out)(ctx, tx)
		})
		if err != nil {
			t.Fatal(err)
		}
		w.flush()
		w.wantQueue(group, "1", "3")
		w.wantCount(group, 2)
		w.wantCount(a.Number, 0)
	})
}

func TestFullQueueIsLeftOut(t *testing.T) {
	cfg := sessionstore.Config{MaxQueueMessages: 4, WhenFull: sessionstore.WhenFullDrop}
	each(t, cfg, func(t *testing.T, w world) {
		a, b := w.connect("a", false, hour).Session, w.connect("b", false, hour).Session
		ta, tb := sessionstore.Target{Session: a.Number, Name: "a"}, sessionstore.Target{Session: b.Number, Name: "b"}
		for range 4 {
			w.mustEnqueue(message("t", "x"), ta)
		}
		put := func(want ...sessionstore.Target) {
			t.Helper()
			r, err := w.Reserve(message("t", "y"), 0, []sessionstore.Target{tb, ta})
			if err != nil {
				t.Fatal(err)
			}
			if err := w.db.Write(t.Context(), r.Enqueue); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(r.Left(), want) {
				t.Errorf("left out %+v, want %+v", r.Left(), want)
			}
		}
		put(ta)
		w.wantQueue(b.Number, "y")
		w.wantQueue(a.Number, "x", "x", "x", "x")
		w.wantCount(a.Number, 4)
		w.wantCount(b.Number, 1)
		// Another node may have filled the queue.
		other := w.other("n2", cfg)
		for range 3 {
			other.mustEnqueue(message("t", "z"), tb)
		}
		w.clock.pass(time.Minute)
		if w.db.Name() == "sqlite" {
			return // its counters are exact, of one node
		}
		put(ta) // a quarter may be beyond the bound before the store is asked
		put(ta, tb)
		if n := len(w.payloads(b.Number)); n != 5 {
			t.Errorf("%d messages", n)
		}
	})
}

// Of messages with a place the last alone waits for a client that is away; who is connected keeps all.
func TestPlace(t *testing.T) {
	each(t, sessionstore.Config{}, func(t *testing.T, w world) {
		gone, here := w.connect("away", true, hour), w.connect("here", true, hour).Session
		w.disconnect(&gone.Session)
		away := gone.Session.Number
		put := func(topic string, place int64, payload string) {
			t.Helper()
			w.mustEnqueue(&mqtt.Message{Topic: topic, Payload: []byte(payload), QoS: 1, Place: place},
				sessionstore.Target{Session: away, Absent: true}, sessionstore.Target{Session: here.Number, Absent: true})
		}
		check := func(session int64, want ...string) {
			t.Helper()
			w.wantQueue(session, want...)
			w.wantCount(session, int64(len(want)))
		}
		long := strings.Repeat("x", 2000) // shares its body
		put("a", 1, "a1")
		put("other", 0, "other")
		put("a", 2, "a2"+long)
		put("b", 1, "b1")
		put("a", 3, "a3")
		check(away, "other", "b1", "a3")
		check(here.Number, "a1", "other", "a2"+long, "b1", "a3")

		put("a", 2, "late") // another node's: it comes after what it should have come before, and loses nothing
		check(away, "other", "b1", "a3", "late")
		put("a", 4, "a4")
		check(away, "other", "b1", "a4")

		for _, upTo := range []int64{3, 4, 4} {
			if err := w.Withdraw(t.Context(), []int64{away, here.Number}, "a", upTo); err != nil {
				t.Fatal(err)
			}
		}
		check(away, "other", "b1")
		check(here.Number, "a1", "other", "a2"+long, "b1", "a3", "late", "a4")

		w.connect("away", false, hour)
		put("b", 2, "b2")
		check(away, "other", "b1", "b2")
	})
}
