package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"flotilla/internal/aws/iotdata"
	"flotilla/internal/bus"
	"flotilla/internal/gateway"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// openBus opens a node's connection to NATS, and NATS itself when url is empty.
func openBus(t *testing.T, node, url string) *bus.Bus {
	t.Helper()
	b, err := bus.Open(context.Background(), bus.Config{NATS: url, NATSAddr: "127.0.0.1:0", NodeID: node, Dir: t.TempDir(), Password: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// startNodes starts two gateways over one store and one NATS.
func startNodes(t *testing.T, change ...func(*gateway.Config, *gateway.Deps)) (one, two *world) {
	t.Helper()
	first := openBus(t, "one", "")
	one = start(t, append([]func(*gateway.Config, *gateway.Deps){func(_ *gateway.Config, d *gateway.Deps) { d.Bus = first }}, change...)...)
	return one, one.another(t, "two", change...)
}

// another starts a gateway beside w, over the same store and NATS.
func (w *world) another(t *testing.T, node string, change ...func(*gateway.Config, *gateway.Deps)) *world {
	t.Helper()
	b := openBus(t, node, w.deps.Bus.URL())
	own := func(c *gateway.Config, d *gateway.Deps) { c.NodeID, d.Bus, d.DB = node, b, w.db }
	return start(t, append([]func(*gateway.Config, *gateway.Deps){own}, change...)...)
}

func TestNodesShareMessagesSessionsAndClientIDs(t *testing.T) {
	one, two := startNodes(t)
	a, _ := one.connect(t, "a")
	b, _ := two.connect(t, "b")
	b.subscribe(1, "x/+")
	for i := range 20 {
		a.publish("x/1", fmt.Sprint(i), byte(i%2))
		if got := string(b.message().Payload); got != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, got)
		}
	}
	// A stored session is found by the other node, and what was queued on either.
	p, _ := one.connect(t, "p", persistent)
	p.subscribe(1, "q/+")
	p.disconnect()
	a.publish("q/1", "from one", 1)
	b.publish("q/1", "from two", 1)
	p, ack := two.connect(t, "p", persistent)
	if !ack.SessionPresent {
		t.Fatal("no session present")
	}
	for _, want := range []string{"from one", "from two"} {
		if got := string(p.message().Payload); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	a.publish("q/1", "live", 1) // stored by one, nudged to two
	if got := string(p.message().Payload); got != "live" {
		t.Fatalf("got %s", got)
	}
	a.publish("q/1", "live QoS 0", 0)
	if got := string(p.message().Payload); got != "live QoS 0" {
		t.Fatalf("got %s", got)
	}
	// Take-over across nodes.
	_, ack = one.connect(t, "p", persistent)
	if !ack.SessionPresent {
		t.Error("no session present after a take-over")
	}
	if d := p.gone(); d == nil || d.Code != mqtt.SessionTakenOver {
		t.Errorf("DISCONNECT %+v", d)
	}
	clean, _ := one.connect(t, "clean")
	two.connect(t, "clean")
	if d := clean.gone(); d == nil || d.Code != mqtt.SessionTakenOver {
		t.Errorf("DISCONNECT %+v", d)
	}
}

// selectsOne is a set of rules of which one is of r/x.
type selectsOne struct{}

func (selectsOne) Generation() uint64                        { return 1 }
func (selectsOne) Selects(topic string) (any, mayBlock bool) { return topic == "r/x", false }
func (selectsOne) Evaluate(context.Context, *mqtt.Message) (store.Func, error) {
	return nil, nil
}

// Whoever would get a message makes it worth publishing, wherever and whether or not it is connected.
func TestAwaited(t *testing.T) {
	one, two := startNodes(t, func(_ *gateway.Config, d *gateway.Deps) { d.Rules = selectsOne{} })
	check := func(topic string, want bool) {
		t.Helper()
		for name, w := range map[string]*world{"one": one, "two": two} {
			eventually(t, fmt.Sprint(topic, " awaited ", want, " at node ", name), func() bool { return w.Awaited(topic) == want })
		}
	}
	check("r/x", true)
	check("w/here", false)
	a, _ := one.connect(t, "a")
	a.subscribe(0, "w/+")
	check("w/here", true)
	check("v/here", false)
	a.disconnect()
	check("w/here", false)
	p, _ := two.connect(t, "p", persistent)
	p.subscribe(1, "w/here")
	p.disconnect()
	check("w/here", true)
	g, _ := two.connect(t, "g")
	g.subscribe(1, "$share/g/s/+")
	check("s/x", true)
}

// TestPresenceOfClientThatMoves connects a client on one node after the other: each connection's events come in order,
// and before those of the next.
func TestPresenceOfClientThatMoves(t *testing.T) {
	for name, change := range map[string]func(*mqtt.Connect){"clean": func(*mqtt.Connect) {}, "persistent": persistent} {
		t.Run(name, func(t *testing.T) {
			one, two := startNodes(t)
			nodes := []*world{one, two}
			var watchers []*client
			for i, w := range nodes {
				c, _ := w.connect(t, fmt.Sprint("watcher", i))
				c.subscribe(1, "$aws/events/presence/+/moves")
				watchers = append(watchers, c)
			}
			const n = 10
			var last *client
			for i := range n {
				c, _ := nodes[i%2].connect(t, "moves", change)
				if last != nil {
					if d := last.gone(); d == nil || d.Code != mqtt.SessionTakenOver {
						t.Fatalf("DISCONNECT %+v", d)
					}
				}
				last = c
			}
			if _, err := one.DataPlane().DeleteConnection(t.Context(), &iotdata.DeleteConnectionRequest{ClientId: "moves"}); err != nil {
				t.Fatal(err)
			}
			last.gone()
			for i, c := range watchers {
				sessions := map[string]bool{}
				version := int64(-1)
				for k := range n {
					up, down := readPresence(c), readPresence(c)
					want := "DUPLICATE_CLIENTID"
					if k == n-1 {
						want = "API_INITIATED_DISCONNECT"
					}
					if up.EventType != "connected" || down.EventType != "disconnected" || down.DisconnectReason != want || down.ClientInitiatedDisconnect ||
						up.VersionNumber <= version || down.VersionNumber != up.VersionNumber || down.SessionIdentifier != up.SessionIdentifier || sessions[up.SessionIdentifier] {
						t.Fatalf("watcher %d, connection %d: after version %d %+v, %+v", i, k, version, up, down)
					}
					version, sessions[up.SessionIdentifier] = up.VersionNumber, true
				}
				c.quiet()
			}
		})
	}
}

type presence struct {
	EventType, SessionIdentifier, DisconnectReason string
	ClientInitiatedDisconnect                      bool
	VersionNumber                                  int64
}

func readPresence(c *client) (p presence) {
	c.t.Helper()
	if err := json.Unmarshal(c.message().Payload, &p); err != nil {
		c.t.Fatal(err)
	}
	return p
}

// TestNodesContendForClientID connects one client id on both nodes at once, again and again: one connection stays, its
// version is the greatest, and the events of all others are paired.
func TestNodesContendForClientID(t *testing.T) {
	one, two := startNodes(t)
	watcher, _ := one.connect(t, "watcher")
	watcher.subscribe(1, "$aws/events/presence/+/contended")
	const rounds = 10
	for range rounds {
		var both sync.WaitGroup
		for _, w := range []*world{one, two} {
			conn := w.dial(t)
			both.Go(func() {
				c := &client{t: t, conn: conn, v: mqtt.V5}
				_, _ = conn.Write((&mqtt.Connect{Version: mqtt.V5, CleanStart: true, KeepAlive: 60, ClientID: "contended"}).Append(nil, mqtt.V5))
				_, _ = c.read(patience) // CONNACK, or the end
			})
		}
		both.Wait()
	}
	eventually(t, "one is left", func() bool {
		states := 0
		for _, w := range []*world{one, two} {
			if w.HasConnection("contended") {
				states++
			}
		}
		return states == 1
	})
	up, down := map[int64]bool{}, map[int64]bool{}
	last := int64(0)
	eventually(t, "all but the last have ended", func() bool {
		p := readPresence(watcher)
		seen := up
		if p.EventType == "disconnected" {
			seen = down
		}
		if seen[p.VersionNumber] {
			t.Fatalf("%s twice for version %d", p.EventType, p.VersionNumber)
		}
		seen[p.VersionNumber] = true
		last = max(last, p.VersionNumber)
		return len(up) == 2*rounds && len(down) == 2*rounds-1
	})
	if down[last] {
		t.Errorf("version %d, the last, has ended", last)
	}
}

func TestNodesShareGroups(t *testing.T) {
	one, two := startNodes(t)
	a, _ := one.connect(t, "a")
	here, _ := one.connect(t, "here")
	there, _ := two.connect(t, "there")
	for _, c := range []*client{here, there} {
		c.subscribe(1, "$share/g/s/+")
	}
	const n = 60
	for i := range n {
		a.publish("s/x", fmt.Sprint(i), 1)
	}
	total := 0
	for _, c := range []*client{here, there} {
		c.send(mqtt.Pingreq{})
		mine := 0
		for {
			p, ok := c.next().(*mqtt.Publish)
			if !ok {
				break
			}
			c.send(&mqtt.Ack{Type: mqtt.PUBACK, PacketID: p.PacketID})
			mine++
		}
		if mine == 0 {
			t.Error("a member got nothing")
		}
		total += mine
	}
	if total != n {
		t.Errorf("members got %d of %d", total, n)
	}
}
