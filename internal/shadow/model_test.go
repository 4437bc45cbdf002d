package shadow_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"flotilla/internal/aws/flotilla"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/mqtt"
	"flotilla/internal/shadow"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// The reference: what a thing's shadows are, in plain maps.
type (
	tree    = map[string]any
	modeled struct {
		state   tree // nil: there is none
		version int64
		gone    time.Time // when it was deleted
		history []past    // the latest last
	}
	past struct {
		operation string
		version   int64
		state     tree // nil after a deletion
	}
	reference map[string]*modeled // by name
)

const (
	keptVersions = 48 * time.Hour
	keptHistory  = 4
)

func (m *modeled) base(now time.Time) int64 {
	if m.state == nil && now.Sub(m.gone) >= keptVersions {
		return 0
	}
	return m.version
}

// write makes a new version with change unless the one that is named, if any, is another.
func (m *modeled) write(now time.Time, operation string, named *int64, remember bool, change func(state tree)) (ok bool) {
	base := m.base(now)
	if named != nil && *named != base && (m.state != nil || *named != base+1) {
		return false
	}
	if m.state == nil {
		m.state = tree{}
	}
	change(m.state)
	m.version = base + 1
	if remember {
		m.remember(operation)
	}
	return true
}

func (m *modeled) remember(operation string) {
	m.history = append(m.history, past{operation, m.version, copied(m.state)})
	m.history = m.history[max(0, len(m.history)-keptHistory):]
}

func (m *modeled) delete(now time.Time) {
	m.state, m.gone = nil, now
	m.remember("delete")
}

func (m *modeled) restore(now time.Time, version int64) (ok bool) {
	for _, p := range slices.Backward(m.history) {
		if p.version == version && p.state != nil {
			return m.write(now, "restore", nil, true, func(state tree) {
				delete(state, "desired")
				if desired, had := p.state["desired"]; had {
					state["desired"] = copied(tree{"": desired})[""]
				}
			})
		}
	}
	return false
}

func (r reference) sweep(now time.Time) {
	maps.DeleteFunc(r, func(_ string, m *modeled) bool { return m.state == nil && m.base(now) == 0 })
}

func merge(state, patch tree) {
	for name, p := range patch {
		object, isObject := p.(tree)
		old, wasObject := state[name].(tree)
		_, had := state[name]
		switch {
		case p == nil:
			delete(state, name)
		case !isObject:
			state[name] = p
		case wasObject:
			merge(old, object)
		default:
			if old = (tree{}); len(object) > 0 {
				merge(old, object)
			}
			if len(old) > 0 || len(object) == 0 || had { // an object of nulls alone makes nothing
				state[name] = old
			}
		}
	}
}

func difference(desired, reported tree) tree {
	out := tree{}
	for name, want := range desired {
		have, had := reported[name]
		w, wantsObject := want.(tree)
		h, hasObject := have.(tree)
		switch {
		case wantsObject && hasObject:
			if d := difference(w, h); len(d) > 0 {
				out[name] = d
			}
		case wantsObject && !had && len(difference(w, nil)) == 0: // objects without a value
		case !had || !reflect.DeepEqual(want, have):
			out[name] = want
		}
	}
	return out
}

func (m *modeled) delta() tree {
	desired, _ := m.state["desired"].(tree)
	reported, _ := m.state["reported"].(tree)
	return difference(desired, reported)
}

// copied is t after a way through JSON.
func copied(t tree) (out tree) {
	b, err := json.Marshal(t)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		panic(err)
	}
	return out
}

// Any sequence of requests, at either door of either node, is answered as the reference answers it, announced to
// those who listen, and leaves what the reference has.
func TestAgreesWithReference(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		runs := 0
		rapid.Check(t, func(t *rapid.T) {
			runs++
			w := &modelWorld{thing: fmt.Sprint("t", runs), model: reference{}, now: time.Unix(1_700_000_000, 0)}
			w.out.awaited = func(string) bool { late := w.late; w.late = false; return !late }
			cfg := shadow.Config{History: keptHistory, Now: func() time.Time { return w.now }}
			for range 2 {
				w.nodes = append(w.nodes, shadow.New(db, things{w.thing: true}, &w.out, cfg))
			}
			t.Repeat(map[string]func(*rapid.T){
				"update": w.update, "again": w.update, "get": w.get, "delete": w.delete, "restore": w.restore, "list": w.list,
				"history": w.history, "time": w.passTime,
			})
		})
	})
}

// modelWorld is the room and the reference beside it.
type modelWorld struct {
	thing string
	nodes []*shadow.Shadows
	out   outbox
	model reference
	now   time.Time
	late  bool // who listens to the documents comes while the next update is written
}

func (w *modelWorld) pick(t *rapid.T) (s *shadow.Shadows, name *string, m *modeled) {
	s = rapid.SampledFrom(w.nodes).Draw(t, "node")
	n := rapid.SampledFrom([]string{"", "n", "m$"}).Draw(t, "shadow")
	if m = w.model[n]; m == nil {
		m = &modeled{}
		w.model[n] = m
	}
	if n != "" {
		name = &n
	}
	return s, name, m
}

func (w *modelWorld) topic(name *string, verb string) string {
	if name == nil {
		return "$aws/things/" + w.thing + "/shadow/" + verb
	}
	return "$aws/things/" + w.thing + "/shadow/name/" + *name + "/" + verb
}

// published are the messages since the last call: the rest of their topics, and their bodies.
func (w *modelWorld) published(t *rapid.T, name *string) (verbs []string, bodies []tree) {
	for _, m := range w.out.all() {
		verb, ok := strings.CutPrefix(m.Topic, w.topic(name, ""))
		if !ok {
			t.Fatalf("published on %s", m.Topic)
		}
		verbs, bodies = append(verbs, verb), append(bodies, decoded(t, m.Payload))
	}
	w.out.reset()
	return verbs, bodies
}

func (w *modelWorld) update(t *rapid.T) {
	s, name, m := w.pick(t)
	state := anyShadowState.Draw(t, "state")
	body := tree{"state": state, "clientToken": "c"}
	_, desires := state["desired"]
	if state == nil {
		body["state"], desires = nil, true
	}
	var named *int64
	if rapid.Bool().Draw(t, "versioned") {
		named = new(max(0, m.base(w.now)+rapid.Int64Range(-2, 2).Draw(t, "off by")))
		body["version"] = *named
	}
	payload, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	w.late = rapid.Bool().Draw(t, "late")
	before, base := copied(m.state), m.base(w.now)
	ok := m.write(w.now, "update", named, desires, func(now tree) {
		if state == nil {
			clear(now)
		}
		merge(now, copied(state))
	})
	if rapid.Bool().Draw(t, "over MQTT") {
		if err := s.ServeMQTT(context.Background(), &mqtt.Message{Topic: w.topic(name, "update"), Payload: payload}); err != nil {
			t.Fatal(err)
		}
		if !ok {
			verbs, bodies := w.published(t, name)
			equal(t, "refusal", []string{"update/rejected"}, verbs)
			equal(t, "code", 409.0, bodies[0]["code"])
			return
		}
	} else {
		out, err := s.UpdateThingShadow(context.Background(), &iotdata.UpdateThingShadowRequest{ThingName: w.thing, ShadowName: name, Payload: payload})
		if _, conflict := errors.AsType[*iotdata.ConflictException](err); err != nil && !conflict || conflict == ok {
			t.Fatalf("%s: %v, taken by the reference: %v", payload, err, ok)
		}
		if !ok {
			return
		}
		equal(t, "version answered", float64(m.version), decoded(t, out.Payload)["version"])
	}
	w.announced(t, name, m, before, base)
}

// announced compares the messages about an update with the reference.
func (w *modelWorld) announced(t *rapid.T, name *string, m *modeled, before tree, base int64) {
	verbs, bodies := w.published(t, name)
	want := []string{"update/documents", "update/accepted"}
	delta := m.delta()
	if len(delta) > 0 {
		want = append([]string{"update/delta"}, want...)
	}
	equal(t, "messages", want, verbs)
	if len(delta) > 0 {
		equal(t, "delta", delta, bodies[0]["state"])
		equal(t, "delta's version", float64(m.version), bodies[0]["version"])
		bodies = bodies[1:]
	}
	w.waits(t, name, delta)
	current := bodies[0]["current"].(tree)
	equal(t, "current", copied(m.state), current["state"])
	equal(t, "current version", float64(m.version), current["version"])
	previous, had := bodies[0]["previous"].(tree)
	if had != (before != nil) {
		t.Fatalf("previous %v, want %v", previous, before)
	}
	if had {
		equal(t, "previous", before, previous["state"])
		equal(t, "previous version", float64(base), previous["version"])
	}
	equal(t, "version accepted", float64(m.version), bodies[1]["version"])
}

// waits: who is away finds the present difference, and that alone.
func (w *modelWorld) waits(t *rapid.T, name *string, delta tree) {
	waiting := w.out.waits(w.topic(name, "update/delta"))
	if len(delta) == 0 && len(waiting) == 0 {
		return
	}
	if len(delta) == 0 || len(waiting) != 1 {
		t.Fatalf("%d deltas wait, want %v", len(waiting), delta)
	}
	equal(t, "what waits", delta, decoded(t, waiting[0].Payload)["state"])
}

func (w *modelWorld) get(t *rapid.T) {
	s, name, m := w.pick(t)
	out, err := s.GetThingShadow(context.Background(), &iotdata.GetThingShadowRequest{ThingName: w.thing, ShadowName: name})
	w.found(t, "get", err, m.state != nil)
	if err != nil {
		return
	}
	want := copied(m.state)
	if delta := m.delta(); len(delta) > 0 {
		want["delta"] = delta
	}
	got := decoded(t, out.Payload)
	equal(t, "state", want, got["state"])
	equal(t, "version", float64(m.version), got["version"])
}

func (w *modelWorld) delete(t *rapid.T) {
	s, name, m := w.pick(t)
	out, err := s.DeleteThingShadow(context.Background(), &iotdata.DeleteThingShadowRequest{ThingName: w.thing, ShadowName: name})
	w.found(t, "delete", err, m.state != nil)
	if err != nil {
		return
	}
	m.delete(w.now)
	equal(t, "version", float64(m.version), decoded(t, out.Payload)["version"])
	verbs, _ := w.published(t, name)
	equal(t, "messages", []string{"delete/accepted"}, verbs)
	w.waits(t, name, nil)
}

func (w *modelWorld) restore(t *rapid.T) {
	s, name, m := w.pick(t)
	version := max(1, m.version-rapid.Int64Range(-1, 5).Draw(t, "back"))
	before, base := copied(m.state), m.base(w.now)
	ok := m.restore(w.now, version)
	_, err := s.RestoreShadow(context.Background(), &flotilla.RestoreShadowRequest{ThingName: w.thing, ShadowName: name, Version: version})
	if _, missing := errors.AsType[*flotilla.ResourceNotFoundException](err); err != nil && !missing || missing == ok {
		t.Fatalf("restore %d: %v, the reference has it: %v", version, err, ok)
	}
	if ok {
		w.announced(t, name, m, before, base)
	}
}

func (w *modelWorld) list(t *rapid.T) {
	out, err := w.nodes[0].ListNamedShadowsForThing(context.Background(), &iotdata.ListNamedShadowsForThingRequest{ThingName: w.thing})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{}
	for name, m := range w.model {
		if name != "" && m.state != nil {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	equal(t, "names", want, out.Results)
}

func (w *modelWorld) history(t *rapid.T) {
	s, name, m := w.pick(t)
	out, err := s.ListShadowHistory(context.Background(), &flotilla.ListShadowHistoryRequest{ThingName: w.thing, ShadowName: name})
	if err != nil {
		t.Fatal(err)
	}
	var got []past
	for _, e := range slices.Backward(out.Entries) {
		p := past{operation: *e.Operation, version: *e.Version}
		if e.State != nil {
			p.state = decoded(t, []byte(*e.State))
		}
		got = append(got, p)
	}
	if d := cmp.Diff(m.history, got, cmp.AllowUnexported(past{})); d != "" {
		t.Fatalf("history (-want +got):\n%s", d)
	}
}

// passTime lets hours or days go by; sometimes the room sweeps then, or the thing goes.
func (w *modelWorld) passTime(t *rapid.T) {
	w.now = w.now.Add(time.Duration(rapid.SampledFrom([]int{1, 20, 47, 48, 100}).Draw(t, "hours")) * time.Hour)
	switch rapid.IntRange(0, 3).Draw(t, "then") {
	case 0:
		if err := w.nodes[1].Sweep(context.Background()); err != nil {
			t.Fatal(err)
		}
		w.model.sweep(w.now)
	case 1:
		if err := w.nodes[1].DeleteAll(context.Background(), w.thing); err != nil {
			t.Fatal(err)
		}
		clear(w.model)
		w.out.forget()
	}
}

func (w *modelWorld) found(t *rapid.T, what string, err error, exists bool) {
	_, missing := errors.AsType[*iotdata.ResourceNotFoundException](err)
	if err != nil && !missing || missing == exists {
		t.Fatalf("%s: %v, the reference has it: %v", what, err, exists)
	}
}

// anyShadowState draws states with few names, so that they meet; nil is null.
var anyShadowState = rapid.Custom(func(t *rapid.T) tree {
	if rapid.IntRange(0, 9).Draw(t, "null") == 0 {
		return nil
	}
	state := tree{}
	for _, section := range []string{"desired", "reported"} {
		switch rapid.IntRange(0, 5).Draw(t, section) {
		case 0:
			state[section] = nil
		case 1, 2:
		default:
			state[section] = anyMembers(2).Draw(t, "members")
		}
	}
	return state
})

func anyMembers(depth int) *rapid.Generator[tree] {
	values := []*rapid.Generator[any]{rapid.SampledFrom([]any{nil, 0.0, 1.0, true, "x", []any{1.0, tree{"y": 2.0}}})}
	if depth > 0 {
		values = append(values, rapid.Custom(func(t *rapid.T) any { return anyMembers(depth-1).Draw(t, "object") }))
	}
	return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c"}), rapid.OneOf(values...), 0, 3)
}

func decoded(t *rapid.T, b []byte) (out tree) {
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return out
}

func equal(t *rapid.T, what string, want, got any) {
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}
