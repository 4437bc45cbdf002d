package gateway_test

import (
	"context"
	"fmt"
	"testing"

	"flotilla/internal/bus"
	"flotilla/internal/gateway"
	"flotilla/internal/mqtt"
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
