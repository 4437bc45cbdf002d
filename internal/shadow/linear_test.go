package shadow_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"flotilla/internal/aws/iotdata"
	"flotilla/internal/mqtt"
	"flotilla/internal/shadow"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// operation is one that a client made, from its call to its answer by a clock that both share.
type operation struct {
	kind    kind
	call    int64
	answer  int64
	version int64  // wrote: the new one; read: the present one; refused: the one that it named, and had read before
	mark    string // what the write left in the document, or the read found there; unique to a write
}

type kind int

const (
	wrote kind = iota
	read
	refused409
)

// linear tells whether a history is one of a single shadow whose operations each happened at one moment between call
// and answer: the versions rise by one from 1, a read sees the last write before it, and an update that names a
// version is refused only once there is a later one. "" is yes, otherwise what is wrong.
//
// Versions give the order of the writes, and so the first moment that each can have happened: the latest call of all
// that must come before. It remains to see that nobody had been answered by then.
func linear(history []operation) string {
	writes := map[int64]operation{}
	reads := map[int64][]operation{}
	deadline := map[int64]int64{} // of writes: answers that presuppose them
	for _, op := range history {
		switch op.kind {
		case wrote:
			if other, twice := writes[op.version]; twice {
				return fmt.Sprintf("%s and %s both wrote version %d", other.mark, op.mark, op.version)
			}
			writes[op.version] = op
		case read:
			reads[op.version] = append(reads[op.version], op)
		case refused409:
			next := op.version + 1
			if d, set := deadline[next]; !set || op.answer < d {
				deadline[next] = op.answer
			}
		}
	}
	now := int64(0)
	for v := int64(1); v <= int64(len(writes)); v++ {
		w, made := writes[v]
		if !made {
			return fmt.Sprintf("nobody wrote version %d of %d", v, len(writes))
		}
		now = max(now, w.call)
		if now > w.answer {
			return fmt.Sprintf("version %d was answered at %d and cannot have happened before %d", v, w.answer, now)
		}
		if d, set := deadline[v]; set && now > d {
			return fmt.Sprintf("version %d was refused at %d, and its successor cannot have happened before %d", v-1, d, now)
		}
		delete(deadline, v)
		written := now
		for _, r := range reads[v] {
			if r.mark != w.mark {
				return fmt.Sprintf("version %d was read with %q, written with %q", v, r.mark, w.mark)
			}
			if written > r.answer {
				return fmt.Sprintf("version %d was read by %d and cannot have been written before %d", v, r.answer, written)
			}
			now = max(now, r.call)
		}
		delete(reads, v)
	}
	for v := range reads {
		return fmt.Sprintf("version %d was read, and never written", v)
	}
	for v := range deadline {
		return fmt.Sprintf("version %d was refused while it was the last", v-1)
	}
	return ""
}

// The checker sees what is wrong.
func TestLinear(t *testing.T) {
	w := func(call, answer, version int64, mark string) operation {
		return operation{wrote, call, answer, version, mark}
	}
	r := func(call, answer, version int64, mark string) operation {
		return operation{read, call, answer, version, mark}
	}
	no := func(call, answer, version int64) operation { return operation{refused409, call, answer, version, ""} }
	for _, c := range []struct {
		name    string
		history []operation
		wrong   string // a part of the complaint; "" none
	}{
		{"in turn", []operation{w(1, 2, 1, "a"), r(3, 4, 1, "a"), w(5, 6, 2, "b"), r(7, 8, 2, "b"), no(9, 10, 1)}, ""},
		{"at once", []operation{w(1, 9, 2, "b"), w(2, 8, 1, "a"), r(3, 7, 1, "a"), r(4, 6, 2, "b"), no(5, 10, 1)}, ""},
		{"two of one version", []operation{w(1, 2, 1, "a"), w(1, 2, 1, "b")}, "both wrote"},
		{"a gap", []operation{w(1, 2, 1, "a"), w(3, 4, 3, "b")}, "nobody wrote version 2"},
		{"against time", []operation{w(3, 4, 1, "a"), w(1, 2, 2, "b")}, "version 2 was answered at 2"},
		{"an old read", []operation{w(1, 2, 1, "a"), w(3, 4, 2, "b"), r(5, 6, 1, "a")}, "version 2 was answered at 4"},
		{"reads go back", []operation{w(1, 2, 1, "a"), w(3, 20, 2, "b"), r(4, 5, 2, "b"), r(6, 7, 1, "a")}, "version 2 was read by 5"},
		{"a read of what is to come", []operation{w(1, 2, 1, "a"), r(3, 4, 2, "b"), w(5, 6, 2, "b")}, "read by 4"},
		{"a read of nobody's", []operation{w(1, 2, 1, "a"), r(3, 4, 2, "b")}, "never written"},
		{"a lost update", []operation{w(1, 2, 1, "a"), w(3, 4, 2, "b"), r(5, 6, 2, "a")}, `read with "a"`},
		{"a refusal for nothing", []operation{w(1, 2, 1, "a"), no(3, 4, 1)}, "while it was the last"},
		{"a refusal too early", []operation{w(1, 2, 1, "a"), no(3, 4, 1), w(5, 6, 2, "b")}, "refused at 4"},
	} {
		got := linear(c.history)
		if c.wrong == "" && got != "" || c.wrong != "" && !strings.Contains(got, c.wrong) {
			t.Errorf("%s: %q, want %q", c.name, got, c.wrong)
		}
	}
}

// recorder makes operations on one shadow through several nodes and keeps their history.
type recorder struct {
	nodes []*shadow.Shadows
	out   *outbox
	clock atomic.Int64

	mu      sync.Mutex
	history []operation
	waiting map[string]*mqtt.Message // answers over MQTT, by client token
}

func (r *recorder) add(op operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history = append(r.history, op)
}

// answered keeps the answers to those who ask over MQTT; it is the outbox's publish.
func (r *recorder) answered(m *mqtt.Message) error {
	if !strings.HasSuffix(m.Topic, "/accepted") && !strings.HasSuffix(m.Topic, "/rejected") {
		return nil
	}
	var b struct{ ClientToken string }
	if err := json.Unmarshal(m.Payload, &b); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.ClientToken != "" {
		r.waiting[b.ClientToken] = m
	}
	return nil
}

// update writes mark, into version unless that is 0, over HTTP or MQTT, and tells whether it was taken.
func (r *recorder) update(node *shadow.Shadows, mark string, version int64, overMQTT bool) error {
	body := map[string]any{"state": map[string]any{"reported": map[string]string{"mark": mark}}, "clientToken": mark}
	if version > 0 {
		body["version"] = version
	}
	payload, err := json.Marshal(body)
	if err != nil {
		return err
	}
	op := operation{kind: wrote, call: r.clock.Add(1), mark: mark}
	answer := struct {
		Version int64
		Code    int
	}{}
	if overMQTT {
		if err := node.ServeMQTT(context.Background(), &mqtt.Message{Topic: "$aws/things/t/shadow/update", Payload: payload}); err != nil {
			return err
		}
		op.answer = r.clock.Add(1)
		r.mu.Lock()
		m := r.waiting[mark]
		delete(r.waiting, mark)
		r.mu.Unlock()
		if m == nil {
			return fmt.Errorf("%s was not answered", mark)
		}
		if err := json.Unmarshal(m.Payload, &answer); err != nil {
			return err
		}
	} else {
		out, err := node.UpdateThingShadow(context.Background(), &iotdata.UpdateThingShadowRequest{ThingName: "t", Payload: payload})
		op.answer = r.clock.Add(1)
		if _, conflict := errors.AsType[*iotdata.ConflictException](err); conflict {
			answer.Code = 409
		} else if err != nil {
			return err
		} else if err := json.Unmarshal(out.Payload, &answer); err != nil {
			return err
		}
	}
	switch {
	case answer.Code == 409 && version > 0:
		op.kind, op.version = refused409, version
	case answer.Code != 0:
		return fmt.Errorf("%s was refused with %d", mark, answer.Code)
	default:
		if op.version = answer.Version; version > 0 && op.version != version+1 {
			return fmt.Errorf("%s named version %d and became %d", mark, version, op.version)
		}
	}
	r.add(op)
	return nil
}

func (r *recorder) read(node *shadow.Shadows) (int64, error) {
	op := operation{kind: read, call: r.clock.Add(1)}
	body, err := node.ShadowDocument(context.Background(), "t", "")
	op.answer = r.clock.Add(1)
	if err != nil {
		return 0, err
	}
	var d struct {
		State   struct{ Reported struct{ Mark string } }
		Version int64
	}
	if err := json.Unmarshal(body, &d); err != nil {
		return 0, err
	}
	op.version, op.mark = d.Version, d.State.Reported.Mark
	r.add(op)
	return d.Version, nil
}

// run has so many writers each make so many updates: a third without a version, the others with the one that they
// have read just before, or a little earlier.
func (r *recorder) run(t *testing.T, writers, each int) {
	t.Helper()
	if err := r.update(r.nodes[0], "first", 0, false); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 1))
			node, last := r.nodes[w%len(r.nodes)], int64(0)
			for i := range each {
				version := int64(0)
				if random.IntN(3) > 0 {
					if last == 0 || random.IntN(4) > 0 {
						v, err := r.read(r.nodes[random.IntN(len(r.nodes))])
						if err != nil {
							t.Error(err)
							return
						}
						last = v
					}
					version = last
				}
				if err := r.update(node, fmt.Sprintf("w%d-%d", w, i), version, random.IntN(2) == 0); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if _, err := r.read(r.nodes[0]); err != nil {
		t.Fatal(err)
	}
	if wrong := linear(r.history); wrong != "" {
		slices.SortFunc(r.history, func(a, b operation) int { return cmp.Compare(a.call, b.call) })
		t.Errorf("the history is not linear: %s\n%+v", wrong, r.history)
	}
	counts := map[kind]int{}
	for _, op := range r.history {
		counts[op.kind]++
	}
	t.Logf("%d written, %d read, %d refused", counts[wrote], counts[read], counts[refused409])
	if counts[refused409] == 0 || counts[wrote] <= writers {
		t.Error("the writers did not meet")
	}
}

func newRecorder(nodes ...*store.DB) *recorder {
	r := &recorder{waiting: map[string]*mqtt.Message{}}
	r.out = &outbox{publish: r.answered}
	for _, db := range nodes {
		r.nodes = append(r.nodes, shadow.New(db, things{"t": true}, r.out, shadow.Config{}))
	}
	return r
}

// 64 writers of one shadow, by both doors: what they are told is what a single shadow would have told them.
func TestLinearizable(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) { newRecorder(db).run(t, 64, 12) })
}

// The same with the writers at two nodes, each of which reads at the other, too.
func TestLinearizableTwoNodes(t *testing.T) {
	server := os.Getenv("FLOTILLA_TEST_POSTGRES")
	if server == "" {
		t.Skip("FLOTILLA_TEST_POSTGRES is not set")
	}
	url := storetest.Postgres(t, server)
	newRecorder(
		storetest.OpenConfig(t, store.Config{Store: url, NodeID: "node0"}),
		storetest.OpenConfig(t, store.Config{Store: url, NodeID: "node1"}),
	).run(t, 64, 6)
}
