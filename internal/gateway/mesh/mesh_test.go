package mesh_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/bus"
	"flotilla/internal/gateway/mesh"
	"flotilla/internal/mqtt"
)

const patience = time.Minute

// quick is a mesh that takes a silent node for dead, though not for what a busy machine makes it wait: its tests are
// parallel, since each lets that time pass. steady is one that takes nobody for dead.
var (
	quick  = mesh.Config{Heartbeat: 50 * time.Millisecond, Timeout: 5 * time.Second, Version: "test"}
	steady = mesh.Config{Heartbeat: 50 * time.Millisecond, Timeout: time.Hour, Version: "test"}
)

type node struct {
	*mesh.Mesh
	bus *bus.Bus
}

// hub is the NATS server of a test.
func hub(t testing.TB) *bus.Bus {
	t.Helper()
	b, err := bus.Open(context.Background(), bus.Config{NATSAddr: "127.0.0.1:0", NodeID: "hub", Dir: t.TempDir(), Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func connect(t testing.TB, natsURL, id string) *bus.Bus {
	t.Helper()
	b, err := bus.Open(context.Background(), bus.Config{NATS: natsURL, NodeID: id})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func join(t testing.TB, natsURL, id string, cfg mesh.Config, h mesh.Handlers) node {
	t.Helper()
	b := connect(t, natsURL, id)
	return node{start(t, b, cfg, h), b}
}

func start(t testing.TB, b *bus.Bus, cfg mesh.Config, h mesh.Handlers) *mesh.Mesh {
	t.Helper()
	m := mesh.New(b, cfg, h)
	t.Cleanup(m.Close)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return m
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func interested(m *mesh.Mesh, topic string) []string {
	var ids []string
	m.Interested(topic, func(p *mesh.Peer) { ids = append(ids, p.ID()) })
	slices.Sort(ids)
	return ids
}

func peer(t testing.TB, m *mesh.Mesh, id string) *mesh.Peer {
	t.Helper()
	p, ok := m.Peer(id)
	if !ok {
		t.Fatalf("%s is no member", id)
	}
	return p
}

func TestAlone(t *testing.T) {
	b := hub(t)
	m := start(t, b, steady, mesh.Handlers{})
	if !m.Alone() || len(m.Members()) != 0 || interested(m, "a") != nil {
		t.Error("not alone")
	}
	if err := m.Announce(t.Context(), []string{"a"}, nil); err != nil {
		t.Error(err)
	}
	if err := m.Kick(t.Context(), "nobody", "c", 1); err != nil {
		t.Error(err)
	}
	if err := m.SessionChanged(t.Context(), "c"); err != nil {
		t.Error(err)
	}
	m.Nudge("nobody", "c", 1)
}

func TestInterestIsKnownWhenAnnounceReturns(t *testing.T) {
	h := hub(t)
	one := join(t, h.URL(), "node one/…", steady, mesh.Handlers{})
	two := join(t, h.URL(), "n2", steady, mesh.Handlers{})
	three := join(t, h.URL(), "n3", steady, mesh.Handlers{})
	eventually(t, "all know all", func() bool {
		return len(one.Members()) == 2 && len(two.Members()) == 2 && len(three.Members()) == 2
	})
	eventually(t, "in step", func() bool { return interested(three.Mesh, "x") == nil && interested(two.Mesh, "x") == nil })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	before := two.Generation()
	filters := []string{"a/b", "a/+", "$share/g/s/+", "$share/g/exact"}
	if err := one.Announce(ctx, filters, nil); err != nil {
		t.Fatal(err)
	}
	if err := three.Announce(ctx, []string{"a/#"}, nil); err != nil {
		t.Fatal(err)
	}
	if two.Generation() == before {
		t.Error("the generation has not changed")
	}
	for topic, want := range map[string][]string{
		"a/b": {"n3", "node one/…"}, "a/c": {"n3", "node one/…"}, "a/b/c": {"n3"}, "b": nil, "a": nil, "$a/b": nil, "s/1": nil,
	} {
		if got := interested(two.Mesh, topic); !cmp.Equal(got, want) {
			t.Errorf("%s: %v, want %v", topic, got, want)
		}
	}
	groups := map[string]string{}
	two.Groups("s/1", func(g string, p *mesh.Peer) { groups[g] = p.ID() })
	two.Groups("exact", func(g string, p *mesh.Peer) { groups[g] = p.ID() })
	if want := map[string]string{"$share/g/s/+": "node one/…", "$share/g/exact": "node one/…"}; !cmp.Equal(groups, want) {
		t.Errorf("groups %v", groups)
	}
	// Filters are counted.
	if err := one.Announce(ctx, []string{"a/b", "a/+"}, []string{"a/b", "a/+"}); err != nil {
		t.Fatal(err)
	}
	if got := interested(two.Mesh, "a/b"); len(got) != 2 {
		t.Errorf("after adding and removing: %v", got)
	}
	if err := one.Announce(ctx, []string{"other"}, append(filters, "never announced")); err != nil {
		t.Fatal(err)
	}
	if got := interested(two.Mesh, "a/b"); !cmp.Equal(got, []string{"n3"}) {
		t.Errorf("after removing: %v", got)
	}
	two.Groups("s/1", func(g string, p *mesh.Peer) { t.Errorf("%s is still at %s", g, p.ID()) })
	if m := two.Members()[0]; m.Node != "n3" || m.Version != "test" || m.Filters != 1 {
		t.Errorf("%+v", m)
	}
}

func TestLateJoinKnowsAll(t *testing.T) {
	h := hub(t)
	one := join(t, h.URL(), "n1", steady, mesh.Handlers{})
	var filters []string
	for i := range 20000 {
		filters = append(filters, fmt.Sprintf("device/%d/command", i))
	}
	filters = append(filters, "fleet/+/status", "$share/g/x")
	if err := one.Announce(t.Context(), filters, nil); err != nil {
		t.Fatal(err)
	}
	two := join(t, h.URL(), "n2", steady, mesh.Handlers{})
	for _, topic := range []string{"device/0/command", "device/19999/command", "fleet/9/status"} {
		if got := interested(two.Mesh, topic); !cmp.Equal(got, []string{"n1"}) {
			t.Errorf("%s: %v", topic, got)
		}
	}
	if got := interested(two.Mesh, "device/20000/command"); got != nil {
		t.Errorf("what nobody wants: %v", got)
	}
	if n := two.Members()[0].Filters; n != len(filters) {
		t.Errorf("%d filters, want %d", n, len(filters))
	}
	// The newcomer's are known, too.
	if err := two.Announce(t.Context(), []string{"back"}, nil); err != nil {
		t.Fatal(err)
	}
	if got := interested(one.Mesh, "back"); !cmp.Equal(got, []string{"n2"}) {
		t.Errorf("back: %v", got)
	}
}

// inbox keeps the numbers of numbered messages.
type inbox struct {
	mu   sync.Mutex
	got  []uint64
	stop chan struct{} // when not nil, Deliver waits for it
}

func (in *inbox) deliver(m *mqtt.Message, _ []string) []string {
	in.mu.Lock()
	stop := in.stop
	in.got = append(in.got, binary.BigEndian.Uint64(m.Payload))
	in.mu.Unlock()
	if stop != nil {
		<-stop
	}
	return nil
}

func (in *inbox) all() []uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.got)
}

func numbered(n uint64, size int) *mqtt.Message {
	return &mqtt.Message{Topic: "t", QoS: 1, Payload: append(binary.BigEndian.AppendUint64(nil, n), make([]byte, size)...)}
}

// sendAll sends n messages and returns those acknowledged, once all were answered.
func sendAll(t testing.TB, m *mesh.Mesh, p *mesh.Peer, n uint64, during func(i uint64)) (acked []uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	var mu sync.Mutex
	var wait sync.WaitGroup
	for i := range n {
		wait.Add(1)
		err := m.SendWait(ctx, p, numbered(i, 100), nil, func(err error) {
			if err == nil {
				mu.Lock()
				acked = append(acked, i)
				mu.Unlock()
			}
			wait.Done()
		})
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if during != nil {
			during(i)
		}
	}
	done := make(chan struct{})
	go func() { wait.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatal("not all were answered")
	}
	return acked
}

func TestSendKeepsOrder(t *testing.T) {
	h := hub(t)
	var in inbox
	one := join(t, h.URL(), "n1", steady, mesh.Handlers{})
	join(t, h.URL(), "n2", steady, mesh.Handlers{Deliver: in.deliver})
	eventually(t, "joined", func() bool { return !one.Alone() })
	const n = 50000
	acked := sendAll(t, one.Mesh, peer(t, one.Mesh, "n2"), n, nil)
	got := in.all()
	if len(got) != n || len(acked) != n {
		t.Fatalf("%d delivered, %d acknowledged", len(got), len(acked))
	}
	for i := range got {
		if got[i] != uint64(i) || acked[i] != uint64(i) {
			t.Fatalf("at %d: delivered %d, acknowledged %d", i, got[i], acked[i])
		}
	}
}

func TestMessageArrivesWhole(t *testing.T) {
	h := hub(t)
	type delivery struct {
		M      *mqtt.Message
		Groups []string
	}
	got := make(chan delivery, 1)
	one := join(t, h.URL(), "n1", steady, mesh.Handlers{})
	join(t, h.URL(), "n2", steady, mesh.Handlers{Deliver: func(m *mqtt.Message, g []string) []string { got <- delivery{m, g}; return nil }})
	eventually(t, "joined", func() bool { return !one.Alone() })
	want := delivery{
		&mqtt.Message{
			Topic: "$aws/certificates/create/json/accepted", Payload: []byte(strings.Repeat("x", 128<<10)), QoS: 1, Retain: true,
			Properties: &mqtt.PublishProperties{ContentType: "c", UserProperties: []mqtt.UserProperty{{Key: "a", Value: "b"}}},
			Received:   time.UnixMilli(1700000000123), Recipient: "me", Source: mqtt.Source{ClientID: "c", Protocol: "MQTT"},
		},
		[]string{"$share/a/b", "$share/c/d"},
	}
	if err := one.Send(peer(t, one.Mesh, "n2"), want.M, want.Groups, nil); err != nil {
		t.Fatal(err)
	}
	select {
	case d := <-got:
		if diff := cmp.Diff(want, d, cmp.Comparer(func(a, b mqtt.Source) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
	case <-time.After(patience):
		t.Fatal("nothing arrived")
	}
	if err := one.Send(peer(t, one.Mesh, "n2"), &mqtt.Message{Topic: "t", Payload: make([]byte, 9<<20)}, nil, nil); err == nil {
		t.Error("a message larger than NATS takes was taken")
	}
}

// What is acknowledged was delivered, in order, whatever becomes of connections.
func TestReconnectLosesNothing(t *testing.T) {
	h := hub(t)
	var in inbox
	one := join(t, h.URL(), "n1", steady, mesh.Handlers{})
	two := join(t, h.URL(), "n2", steady, mesh.Handlers{Deliver: in.deliver})
	eventually(t, "joined", func() bool { return !one.Alone() })
	const n = 30000
	acked := sendAll(t, one.Mesh, peer(t, one.Mesh, "n2"), n, func(i uint64) {
		switch i {
		case n / 6, n / 2:
			_ = one.bus.Conn().ForceReconnect()
		case n / 3, 2 * n / 3:
			_ = two.bus.Conn().ForceReconnect()
		}
	})
	if len(acked) != n {
		t.Errorf("%d of %d acknowledged", len(acked), n)
	}
	got := in.all()
	if len(got) != n || !slices.IsSorted(got) || got[n-1] != n-1 {
		t.Errorf("%d of %d delivered, sorted: %v", len(got), n, slices.IsSorted(got))
	}
}

func TestBackPressure(t *testing.T) {
	h := hub(t)
	in := inbox{stop: make(chan struct{})}
	release := sync.OnceFunc(func() { close(in.stop) })
	defer release()
	crowded := steady
	crowded.MaxInFlight = 100_000
	one := join(t, h.URL(), "n1", crowded, mesh.Handlers{})
	join(t, h.URL(), "n2", steady, mesh.Handlers{Deliver: in.deliver})
	eventually(t, "joined", func() bool { return !one.Alone() })
	p := peer(t, one.Mesh, "n2")
	var sent uint64
	var answered atomic.Int64
	for ; ; sent++ {
		err := one.Send(p, numbered(sent, 1000), nil, func(err error) {
			if err != nil {
				t.Error(err)
			}
			answered.Add(1)
		})
		if errors.Is(err, mesh.ErrFull) {
			break
		}
		if err != nil || sent > 1000 {
			t.Fatalf("after %d: %v", sent, err)
		}
	}
	if sent < 50 {
		t.Errorf("full after %d", sent)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := one.SendWait(ctx, p, numbered(0, 1000), nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("SendWait: %v", err)
	}
	// The peer is slow, not silent: it stays.
	eventually(t, "bytes are on their way", func() bool { return one.Members()[0].InFlight > 50_000 })
	release()
	if err := one.SendWait(t.Context(), p, numbered(sent, 1000), nil, nil); err != nil {
		t.Error(err)
	}
	eventually(t, "all were answered", func() bool { return answered.Load() == int64(sent) })
}

func TestFarewellIsAtOnce(t *testing.T) {
	h := hub(t)
	left := make(chan bool, 1)
	one := join(t, h.URL(), "n1", steady, mesh.Handlers{Left: func(_ string, clean bool) { left <- clean }})
	two := join(t, h.URL(), "n2", steady, mesh.Handlers{})
	eventually(t, "joined", func() bool { return !one.Alone() })
	p := peer(t, two.Mesh, "n1")
	two.Close()
	select {
	case clean := <-left:
		if !clean {
			t.Error("not clean")
		}
	case <-time.After(patience):
		t.Fatal("the farewell was not heard")
	}
	if !one.Alone() {
		t.Error("not alone")
	}
	two.Close() // again
	if err := two.Send(p, numbered(1, 1), nil, nil); !errors.Is(err, mesh.ErrClosed) {
		t.Error("sent after Close")
	}
}

func TestKickAndSessionChanged(t *testing.T) {
	h := hub(t)
	var mu sync.Mutex
	var said []string
	say := func(s string) {
		mu.Lock()
		said = append(said, s)
		mu.Unlock()
	}
	entered, leave := make(chan struct{}), make(chan struct{})
	one := join(t, h.URL(), "n1", steady, mesh.Handlers{})
	join(t, h.URL(), "n2", steady, mesh.Handlers{
		Kick: func(_ context.Context, c string, epoch int64) {
			close(entered)
			<-leave
			say(fmt.Sprint("kick ", c, " ", epoch))
		},
		SessionChanged: func(_ context.Context, c string) error {
			say("changed " + c)
			if c == "bad" {
				return errors.New("no")
			}
			return nil
		},
		Nudge: func(c string, id int64) { say(fmt.Sprint("nudge ", c, " ", id)) },
	})
	eventually(t, "joined", func() bool { return !one.Alone() })
	ended := make(chan error, 1)
	go func() { ended <- one.Kick(t.Context(), "n2", "cl", 7) }()
	<-entered
	select {
	case err := <-ended:
		t.Fatalf("Kick returned %v before the connection had ended", err)
	default:
	}
	close(leave)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := one.SessionChanged(t.Context(), "good"); err != nil {
		t.Error(err)
	}
	if err := one.SessionChanged(t.Context(), "bad"); err == nil {
		t.Error("a failed handler was not told")
	}
	one.Nudge("n2", "cl", 1<<40)
	eventually(t, "nudged", func() bool { mu.Lock(); defer mu.Unlock(); return len(said) == 4 })
	if want := []string{"kick cl 7", "changed good", "changed bad", "nudge cl 1099511627776"}; !cmp.Equal(said, want) {
		t.Errorf("%q", said)
	}
}

func TestNoGoroutineStays(t *testing.T) {
	h := hub(t)
	b1, b2 := connect(t, h.URL(), "n1"), connect(t, h.URL(), "n2")
	before := 0
	for i := range 3 {
		one, two := start(t, b1, steady, mesh.Handlers{}), start(t, b2, steady, mesh.Handlers{})
		if err := two.Announce(t.Context(), []string{"a"}, nil); err != nil {
			t.Fatal(err)
		}
		sendAll(t, one, peer(t, one, "n2"), 100, nil)
		if err := one.Kick(t.Context(), "", "c", 1); err != nil {
			t.Fatal(err)
		}
		one.Close()
		two.Close()
		if i == 0 { // NATS's own, of its first request, have come to stay
			before = runtime.NumGoroutine()
		}
	}
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}
