package mesh

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"flotilla/internal/bus"
	"flotilla/internal/mqtt"
)

// deaf is a mesh that was never started, with one member.
func deaf(t testing.TB, h Handlers) (*Mesh, *Peer) {
	t.Helper()
	b, err := bus.Open(t.Context(), bus.Config{NATSAddr: "127.0.0.1:0", NodeID: "me", Dir: t.TempDir(), Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	m := New(b, Config{}, h)
	t.Cleanup(m.Close)
	p := m.heard(header{kindAlive, "peer", 1})
	if p == nil {
		t.Fatal("no member")
	}
	return m, p
}

func frame(m *Mesh, link, seq uint64, records ...[]byte) *nats.Msg {
	b := appendHeader(nil, header{kindFrame, "peer", 1})
	n := len(b)
	b = append(b, make([]byte, frameTrailer)...)
	putPlace(b[n:], place{m.incarnation, link, seq})
	return &nats.Msg{Data: append(b, bytes.Join(records, nil)...)}
}

func seeds() [][]byte {
	var s [][]byte
	s = append(s, appendMessage(nil, 0, &mqtt.Message{Topic: "t", Payload: []byte("p"), QoS: 1}, []string{"$share/g/t"}))
	s = append(s, appendMessage(nil, 7, &mqtt.Message{Topic: "t", QoS: 1}, []string{"$share/g/t"}))
	s = append(s, appendOutcome(nil, 7, []string{"$share/g/t"}))
	d := delta{[]uint64{1, 2}, []uint64{1}, []string{"a/+", "$share/g/x", "#"}, []string{"a/+"}}
	d.records(func(r []byte) { s = append(s, r) })
	s = append(s, appendRecord(nil, recSynced), appendNudge(nil, "c", 9), request{recKick, 1, 2, "c"}.append(nil),
		request{kind: recChanged, id: 1, clientID: "c"}.append(nil), appendDone(nil, 3, codeBusy))
	return s
}

// FuzzRecords feeds a member's frames: nothing panics, and what is announced can be
// taken back without a trace.
func FuzzRecords(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Add(bytes.Join(seeds(), nil))
	m, _ := deaf(f, Handlers{})
	f.Fuzz(func(t *testing.T, records []byte) {
		others := newOthers()
		p := &Peer{id: "peer", incarnation: 1, gone: make(chan struct{}), synced: make(chan struct{})}
		p.theirs = theirs{o: others, texts: map[string]struct{}{}}
		p.link = &link{m: m, peer: p, dead: ErrGone}
		others.live.Store(1)
		m.take(p, records)
		others.match("a/b")
		p.theirs.clear()
		if n := others.exacts.Load(); n != 0 || others.groupCount.Load() != 0 || others.match("a/b") != 0 || others.everything.Load() != 0 {
			t.Errorf("%d exact, %d groups stay", n, others.groupCount.Load())
		}
		for i := range others.shards {
			if len(others.shards[i].of) != 0 {
				t.Error("hashes stay")
			}
		}
	})
}

// FuzzMessages feeds whole NATS messages to all that listen.
func FuzzMessages(f *testing.F) {
	m, _ := deaf(f, Handlers{})
	f.Add(m.alive(false))
	f.Add(m.alive(true))
	f.Add(frame(m, 1, 1, seeds()...).Data)
	ack := appendHeader(nil, header{kindAck, "peer", 1})
	ack = append(ack, make([]byte, frameTrailer+1)...)
	f.Add(ack)
	f.Add(appendQuestion(appendHeader(nil, header{kindQuestion, "peer", 1}), m.incarnation, time.Second, []byte("?")))
	f.Fuzz(func(_ *testing.T, b []byte) {
		msg := &nats.Msg{Data: b}
		m.heardAlive(msg)
		m.heardFrame(msg)
		m.heardAck(msg)
		m.heardQuestion(msg)
		if _, rest, err := parseHeader(b); err == nil {
			_, _, _, _ = parseQuestion(rest)
		}
	})
}

func TestFramesAreTakenInOrderOnce(t *testing.T) {
	var got []string
	m, p := deaf(t, Handlers{Deliver: func(msg *mqtt.Message, _ []string) []string {
		got = append(got, string(msg.Payload))
		return nil
	}})
	say := func(s string) []byte {
		return appendMessage(nil, 0, &mqtt.Message{Topic: "t", Payload: []byte(s)}, nil)
	}
	again := func() bool { p.mu.Lock(); defer p.mu.Unlock(); a := p.again; p.again = false; return a }
	for i, step := range []struct {
		link, seq uint64
		say       string
		want      int
		again     bool
	}{
		{5, 2, "early", 0, true},
		{5, 1, "one", 1, false},
		{5, 1, "one again", 1, false},
		{5, 3, "three", 1, true},
		{5, 2, "two", 2, false},
		{4, 1, "an older link", 2, false},
		{6, 1, "a newer link", 3, false},
		{5, 3, "the older one again", 3, false},
		{6, 0, "nothing has number 0", 3, false},
	} {
		m.heardFrame(frame(m, step.link, step.seq, say(step.say)))
		if len(got) != step.want || again() != step.again {
			t.Errorf("step %d: %q", i, got)
		}
	}
	stale := frame(m, 6, 2, say("for another incarnation"))
	stale.Data[len(appendHeader(nil, header{kindFrame, "peer", 1}))]++
	m.heardFrame(stale)
	if len(got) != 3 {
		t.Errorf("%q", got)
	}
}

// Until a member's announcement is complete it may be interested in anything.
func TestUnsyncedIsInterestedInAll(t *testing.T) {
	m, p := deaf(t, Handlers{})
	interested := func(topic string) (is bool) {
		m.Interested(topic, func(*Peer) { is = true })
		return is
	}
	if !interested("x") {
		t.Error("before the first frame")
	}
	m.heardFrame(frame(m, 1, 1, appendRecord(nil, recAddFilter, []byte("a/+")), appendRecord(nil, recSynced)))
	if interested("x") || !interested("a/x") {
		t.Error("in step")
	}
	m.heardFrame(frame(m, 2, 1))
	if !interested("x") {
		t.Error("while it begins anew")
	}
	m.heardFrame(frame(m, 2, 2, appendRecord(nil, recSynced)))
	if interested("x") || interested("a/x") {
		t.Error("in step again")
	}
	m.drop(p, ErrGone, false)
	if interested("x") || !m.Alone() {
		t.Error("dropped")
	}
}

func TestSlotsAreUsedAgain(t *testing.T) {
	m, _ := deaf(t, Handlers{})
	for i := range 3 * maxPeers {
		p := m.heard(header{kindAlive, fmt.Sprint("n", i), 1})
		if p == nil {
			t.Fatalf("node %d found no room", i)
		}
		m.drop(p, ErrGone, false)
	}
	for i := range maxPeers - 1 {
		m.heard(header{kindAlive, fmt.Sprint("m", i), 1})
	}
	if p := m.heard(header{kindAlive, "one too many", 1}); p != nil {
		t.Error("more members than slots")
	}
	if n := len(m.Members()); n != maxPeers {
		t.Errorf("%d members", n)
	}
}

func TestHashIsTheSameEverywhere(t *testing.T) {
	// Nodes of other versions and machines count on these.
	for s, want := range map[string]uint64{"": 0x1ff5c2923a788d2c, "a": 0x88530d6de4437aac, "device/1/state": 0x4a9ee644c3af8ad8} {
		if got := hash(s); got != want {
			t.Errorf("%q: %#x", s, got)
		}
	}
	seen := map[uint64]string{}
	for i := range 200000 {
		s := fmt.Sprintf("fleet/%d/device/%d/state", i%7, i)
		if was, there := seen[hash(s)]; there {
			t.Fatalf("%s and %s collide", s, was)
		}
		seen[hash(s)] = s
	}
}

func BenchmarkInterested(b *testing.B) {
	m, p := deaf(b, Handlers{})
	var hashes []uint64
	for i := range 100000 {
		hashes = append(hashes, hash(fmt.Sprintf("device/%d/command", i)))
	}
	eachHashes(hashes, recAddExact, func(r []byte) { m.take(p, r) })
	m.take(p, appendRecord(nil, recAddFilter, []byte("fleet/+/status")))
	m.take(p, appendRecord(nil, recSynced))
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		m.Interested("device/4711/command", func(*Peer) { n++ })
	}
	if n == 0 {
		b.Error("not found")
	}
}

func BenchmarkAlone(b *testing.B) {
	bs, err := bus.Open(b.Context(), bus.Config{NATSAddr: "127.0.0.1:0", NodeID: "me", Dir: b.TempDir(), Password: "secret"})
	if err != nil {
		b.Fatal(err)
	}
	defer bs.Close()
	m := New(bs, Config{Timeout: time.Hour}, Handlers{})
	defer m.Close()
	for b.Loop() {
		m.Interested("device/4711/command", func(*Peer) {})
	}
}

// What a node has acknowledged, and then forgets who asked, has no known outcome; what it has not, is sent again.
func TestOutcomesThatAreLost(t *testing.T) {
	m, p := deaf(t, Handlers{})
	ended := map[string]error{}
	send := func(name string, acknowledged bool) uint64 {
		id, taken := m.requests.share(p, []string{name}, func(err error) { ended[name] = err })
		if acknowledged {
			taken(nil)
		}
		return id
	}
	first := send("acknowledged", true)
	send("on its way", false)
	m.forgotten(p)
	if err, ok := ended["acknowledged"]; !ok || !errors.Is(err, ErrSilent) || len(ended) != 1 {
		t.Errorf("ended: %v", ended)
	}
	m.requests.outcome(p, first, nil) // too late
	m.requests.gone(p, ErrGone)
	if !errors.Is(ended["acknowledged"], ErrSilent) || !errors.Is(ended["on its way"], ErrGone) || len(m.requests.waiting) != 0 {
		t.Errorf("ended: %v", ended)
	}
	send("never told", true)
	m.requests.late()
	if len(ended) != 2 {
		t.Error("late at once")
	}
	for _, w := range m.requests.waiting {
		w.taken = w.taken.Add(-outcomeWait)
	}
	m.requests.late()
	if !errors.Is(ended["never told"], ErrSilent) {
		t.Errorf("ended: %v", ended)
	}
}
