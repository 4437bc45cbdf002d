package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"flotilla/internal/gateway"
	"flotilla/internal/gateway/mesh"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// mayNotReceive allows all but to receive.
const mayNotReceive = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"},
	{"Effect":"Deny","Action":"iot:Receive","Resource":"*"}]}`

const sharedFilter = "$share/g/s/+"

// collect takes n messages, each different, and gives them sorted.
func (c *client) collect(n int) []string {
	c.t.Helper()
	var got []string
	for len(got) < n {
		if m := string(c.message().Payload); !slices.Contains(got, m) {
			got = append(got, m)
		}
	}
	slices.Sort(got)
	return got
}

func publishNumbered(c *client, n int) (want []string) {
	c.t.Helper()
	for i := range n {
		want = append(want, fmt.Sprintf("%03d", i))
		c.publish("s/x", want[i], 1)
	}
	return want
}

// TestSharedMessageOfDeniedMembersIsPassedOn has the members of one node receive nothing: those of others get all.
func TestSharedMessageOfDeniedMembersIsPassedOn(t *testing.T) {
	one, two := startNodes(t)
	three := one.another(t, "three")
	a, _ := one.connect(t, "a")
	for i := range 3 {
		denied, _ := two.connect(t, fmt.Sprint("denied", i))
		denied.subscribe(1, sharedFilter)
	}
	two.rules.allow(t, mayNotReceive)
	allowed, _ := three.connect(t, "allowed")
	allowed.subscribe(1, sharedFilter)
	const n = 20
	want := publishNumbered(a, n)
	if got := allowed.collect(n); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	// A member on the publisher's own node counts as well.
	allowed.disconnect()
	here, _ := one.connect(t, "here")
	here.subscribe(1, sharedFilter)
	want = publishNumbered(a, n)
	if got := here.collect(n); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	// With nobody who may receive it the message has no receiver.
	here.disconnect()
	a.publish("s/x", "for nobody", 1)
	if len(two.Denials("denied0")) == 0 {
		t.Error("the denials are not recorded")
	}
}

// TestSharedMessageOfDeniedMembersIsQueued has nobody connected who may receive: the member that is away gets all.
func TestSharedMessageOfDeniedMembersIsQueued(t *testing.T) {
	one, two := startNodes(t)
	a, _ := one.connect(t, "a")
	away, _ := one.connect(t, "away", persistent)
	away.subscribe(1, sharedFilter)
	away.disconnect()
	denied, _ := two.connect(t, "denied")
	denied.subscribe(1, sharedFilter)
	two.rules.allow(t, mayNotReceive)
	const n = 20
	want := publishNumbered(a, n)
	away, ack := one.connect(t, "away", persistent)
	if !ack.SessionPresent {
		t.Fatal("no session")
	}
	if got := away.collect(n); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	away.quiet()
	// What the service publishes itself goes the same way.
	away.disconnect()
	if err := one.Publish(t.Context(), &mqtt.Message{Topic: "s/x", Payload: []byte("own"), QoS: 1}); err != nil {
		t.Fatal(err)
	}
	away, _ = one.connect(t, "away", persistent)
	if got := string(away.message().Payload); got != "own" {
		t.Errorf("got %s", got)
	}
}

// ghost joins the nodes as one that has a member of the shared subscription, takes its messages, and says nothing
// more. Each message is told to got.
func ghost(t *testing.T, one *world) (got chan string, die func()) {
	t.Helper()
	got = make(chan string, 64)
	hold := make(chan struct{})
	b := openBus(t, "ghost", one.deps.Bus.URL())
	m := mesh.New(b, steady, mesh.Handlers{Deliver: func(m *mqtt.Message, groups []string) []string {
		if len(groups) == 0 {
			return nil // until it has told its interest it gets all there is
		}
		got <- string(m.Payload)
		<-hold
		return nil
	}})
	t.Cleanup(func() { close(hold); m.Close() })
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Announce(t.Context(), []string{sharedFilter}, nil); err != nil {
		t.Fatal(err)
	}
	return got, b.Close
}

// TestSharedMessageOfDeadNodeIsPassedOn has a node die after it was given a message, and before it said so.
func TestSharedMessageOfDeadNodeIsPassedOn(t *testing.T) {
	one, two := startNodes(t, func(c *gateway.Config, _ *gateway.Deps) { c.Mesh.Timeout = 5 * time.Second })
	a, _ := one.connect(t, "a")
	away, _ := two.connect(t, "away", persistent)
	away.subscribe(1, sharedFilter)
	away.disconnect()
	got, die := ghost(t, one)
	a.id++
	a.send(&mqtt.Publish{Topic: []byte("s/x"), Payload: []byte("kept"), QoS: 1, PacketID: a.id})
	if m := <-got; m != "kept" {
		t.Fatal(m)
	}
	a.quiet() // there is no PUBACK yet
	die()
	if ack := next[*mqtt.Ack](a); ack.PacketID != a.id || ack.Code.Failed() {
		t.Errorf("PUBACK %+v", ack)
	}
	away, _ = two.connect(t, "away", persistent)
	if m := string(away.message().Payload); m != "kept" {
		t.Errorf("got %s", m)
	}
}

// TestSharedMessageOfLeaverIsPassedOn has a member leave between the choice and the delivery.
func TestSharedMessageOfLeaverIsPassedOn(t *testing.T) {
	w := start(t)
	a, _ := w.connect(t, "a")
	away, _ := w.connect(t, "away", persistent)
	away.subscribe(1, "s/+") // something is owed, so delivery waits for the commit
	away.disconnect()
	leaver, _ := w.connect(t, "leaver")
	leaver.subscribe(1, sharedFilter)
	stays, _ := w.connect(t, "stays")
	stays.subscribe(1, sharedFilter)
	blocked, unblock := make(chan struct{}), make(chan struct{})
	w.db.WriteAsync(func(context.Context, store.Tx) error { close(blocked); <-unblock; return nil }, func(error) {})
	<-blocked
	const n = 20
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("%03d", i))
		a.send(&mqtt.Publish{Topic: []byte("s/x"), Payload: []byte(want[i]), QoS: 1, PacketID: uint16(i + 1)})
	}
	a.quiet() // all are on their way
	leaver.disconnect()
	eventually(t, "the member is gone", func() bool { return !w.isConnected(t, "leaver") })
	close(unblock)
	for i := range n {
		if ack := next[*mqtt.Ack](a); int(ack.PacketID) != i+1 || ack.Code.Failed() {
			t.Fatalf("PUBACK %+v", ack)
		}
	}
	if got := stays.collect(n); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// TestSharedQoS0ReachesStoredMembersOfOtherNodes has a group whose only member is stored and on another node.
func TestSharedQoS0ReachesStoredMembersOfOtherNodes(t *testing.T) {
	one, two := startNodes(t)
	a, _ := one.connect(t, "a")
	for i, qos := range []byte{1, 0} {
		id := fmt.Sprint("there", i)
		there, _ := two.connect(t, id, persistent)
		there.subscribe(qos, sharedFilter)
		for j := range 10 {
			m := fmt.Sprint(id, j)
			a.publish("s/x", m, byte(j%2))
			if got := there.message(); string(got.Payload) != m || got.QoS != min(qos, byte(j%2)) {
				t.Fatalf("got %s at QoS %d, want %s", got.Payload, got.QoS, m)
			}
		}
		there.quiet()
		there.send(&mqtt.Unsubscribe{PacketID: 9, Filters: []string{sharedFilter}})
		next[*mqtt.Unsuback](there)
	}
}
