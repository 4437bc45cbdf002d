package bus_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"flotilla/internal/bus"
)

func open(t *testing.T, cfg bus.Config) *bus.Bus {
	t.Helper()
	b, err := bus.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func embedded(t *testing.T) *bus.Bus {
	return open(t, bus.Config{NATSAddr: "127.0.0.1:0", NodeID: "n1", Dir: t.TempDir(), Password: "secret"})
}

func TestChangedReachesEveryNode(t *testing.T) {
	one := embedded(t)
	two := open(t, bus.Config{NATS: one.URL(), NodeID: "n2"})
	heardOne, heardTwo := make(chan string, 8), make(chan string, 8)
	one.OnChange("policy", func(k string) { heardOne <- k })
	two.OnChange("policy", func(k string) { heardTwo <- k })
	two.OnChange("thing", func(k string) { t.Errorf("heard of thing %q", k) })
	one.Changed("policy", "p1")
	select {
	case k := <-heardOne:
		if k != "p1" {
			t.Errorf("local: %q", k)
		}
	default:
		t.Error("Changed returned before this node had heard")
	}
	select {
	case k := <-heardTwo:
		if k != "p1" {
			t.Errorf("remote: %q", k)
		}
	case <-time.After(time.Minute):
		t.Fatal("the other node never heard")
	}
	two.Changed("policy", "p2")
	<-heardTwo
	select {
	case k := <-heardOne:
		if k != "p2" {
			t.Errorf("remote: %q", k)
		}
	case <-time.After(time.Minute):
		t.Fatal("the first node never heard")
	}
	if len(heardOne) != 0 {
		t.Error("a node heard its own change twice")
	}
}

func TestEmbeddedWantsCredentials(t *testing.T) {
	b := embedded(t)
	if c, err := nats.Connect("nats://" + hostOf(t, b.URL())); err == nil {
		c.Close()
		t.Error("no password was accepted")
	}
	if _, err := bus.Open(t.Context(), bus.Config{NATS: "nats://flotilla:wrong@" + hostOf(t, b.URL()), NodeID: "x"}); err == nil {
		t.Error("a wrong password was accepted")
	}
	if _, err := bus.Open(t.Context(), bus.Config{NATSAddr: "127.0.0.1:0", Dir: t.TempDir(), NodeID: "x"}); err == nil {
		t.Error("the embedded server started without a password")
	}
}

func hostOf(t *testing.T, url string) string {
	t.Helper()
	for i := len(url) - 1; i >= 0; i-- {
		if url[i] == '@' {
			return url[i+1:]
		}
	}
	t.Fatalf("no host in %q", url)
	return ""
}

func TestStreamsSurviveRestart(t *testing.T) {
	dir := t.TempDir()
	cfg := bus.Config{NATSAddr: "127.0.0.1:0", NodeID: "n1", Dir: dir, Password: "secret"}
	b, err := bus.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.JetStream().Publish(t.Context(), "s.a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	b.Close()
	b = open(t, cfg)
	s, err := b.JetStream().Stream(context.Background(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("%d messages after a restart", n)
	}
}
