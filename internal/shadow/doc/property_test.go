package doc_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"flotilla/internal/shadow/doc"
)

// The naive version: plain maps, one step after the other.
type (
	tree  = map[string]any
	naive struct {
		state, meta tree // section -> tree; metadata with the same shape, leaves are seconds
		version     int64
	}
)

func (n *naive) update(state tree, now int64) {
	n.version++
	for section, patch := range state {
		if patch == nil {
			delete(n.state, section)
			delete(n.meta, section)
			continue
		}
		// The section is a member like any other.
		naiveMerge(n.state, n.meta, tree{section: patch}, now)
	}
}

func naiveMerge(state, meta, patch tree, now int64) {
	for k, p := range patch {
		old, oldIsObject := state[k].(tree)
		object, isObject := p.(tree)
		switch {
		case p == nil:
			delete(state, k)
			delete(meta, k)
		case isObject && oldIsObject:
			naiveMerge(old, meta[k].(tree), object, now)
		case isObject:
			_, had := state[k]
			s, m := tree{}, tree{}
			naiveMerge(s, m, object, now)
			if len(s) > 0 || len(object) == 0 || had {
				state[k], meta[k] = s, m
			}
		default:
			state[k], meta[k] = p, stamp(p, now)
		}
	}
}

func stamp(v any, now int64) any {
	switch v := v.(type) {
	case tree:
		out := tree{}
		for k := range v {
			out[k] = stamp(v[k], now)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = stamp(v[i], now)
		}
		return out
	}
	return tree{"timestamp": float64(now)}
}

// naiveDelta returns the members of desired that reported has not.
func naiveDelta(desired, reported tree) tree {
	out := tree{}
	for k, want := range desired {
		have, ok := reported[k]
		w, wo := want.(tree)
		h, ho := have.(tree)
		switch {
		case !ok && wo && !anyLeaf(w):
		case wo && ho:
			if d := naiveDelta(w, h); len(d) > 0 {
				out[k] = d
			}
		case !ok || !reflect.DeepEqual(want, have):
			out[k] = want
		}
	}
	return out
}

func anyLeaf(v tree) bool {
	for _, m := range v {
		if t, ok := m.(tree); !ok || anyLeaf(t) {
			return true
		}
	}
	return false
}

// anyValue draws a JSON value with few names, so that they meet.
func anyValue(depth int, nulls bool) *rapid.Generator[any] {
	leaves := []*rapid.Generator[any]{
		rapid.Custom(func(t *rapid.T) any { return float64(rapid.IntRange(0, 2).Draw(t, "n")) }),
		rapid.SampledFrom([]any{true, false, "", "x", "\"\\\n\u0001é😀"}),
	}
	if nulls {
		leaves = append(leaves, rapid.Just[any](nil))
	}
	if depth > 0 {
		leaves = append(leaves,
			rapid.Custom(func(t *rapid.T) any { return anyObject(depth-1, nulls).Draw(t, "o") }),
			rapid.Custom(func(t *rapid.T) any {
				return append([]any{}, rapid.SliceOfN(anyValue(depth-1, false), 0, 3).Draw(t, "l")...)
			}))
	}
	return rapid.OneOf(leaves...)
}

func anyObject(depth int, nulls bool) *rapid.Generator[tree] {
	return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c", "d\"\\\t/", "é"}), anyValue(depth, nulls), 0, 4)
}

func anyState() *rapid.Generator[tree] {
	return rapid.Custom(func(t *rapid.T) tree {
		state := tree{}
		for _, section := range []string{"desired", "reported"} {
			switch rapid.IntRange(0, 4).Draw(t, section) {
			case 0:
				state[section] = nil
			case 1:
			default:
				state[section] = anyObject(3, true).Draw(t, "section")
			}
		}
		return state
	})
}

// Any sequence of updates leads to the state, the metadata and the deltas that
// the naive version computes.
func TestAgreesWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := naive{state: tree{}, meta: tree{}}
		var s shadow
		for step, state := range rapid.SliceOfN(anyState(), 1, 6).Draw(t, "updates") {
			now := int64(1000 + step*rapid.IntRange(0, 500).Draw(t, "later"))
			payload, err := json.Marshal(tree{"state": state})
			if err != nil {
				t.Fatal(err)
			}
			previous := clone(t, tree{"state": n.state, "metadata": n.meta, "version": float64(n.version)})
			n.update(clone(t, state), now)
			out, err := s.update(string(payload), now)
			if err != nil {
				t.Fatalf("%s: %v", payload, err)
			}
			current := tree{"state": n.state, "metadata": n.meta, "version": float64(n.version)}
			same(t, "current", current, decode(t, out.Documents)["current"])
			if step > 0 {
				same(t, "previous", previous, decode(t, out.Documents)["previous"])
			}
			same(t, "echo", clone(t, state), decode(t, out.Accepted)["state"])
			desired, _ := n.state["desired"].(tree)
			reported, _ := n.state["reported"].(tree)
			delta := naiveDelta(desired, reported)
			if (out.Delta == nil) != (len(delta) == 0) {
				t.Fatalf("delta %s, want %v", out.Delta, delta)
			}
			whole, err := doc.Get(s.stored, s.version, now, "")
			if err != nil {
				t.Fatal(err)
			}
			withDelta := maps.Clone(n.state)
			if out.Delta != nil {
				same(t, "delta", delta, decode(t, out.Delta)["state"])
				withDelta["delta"] = delta
			}
			same(t, "get", withDelta, decode(t, whole)["state"])
		}
	})
}

// The same update twice gives the same state, and once reported has the delta
// there is none.
func TestUpdateTwiceAndDeltaReported(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s shadow
		for _, state := range rapid.SliceOfN(anyState(), 1, 3).Draw(t, "updates") {
			payload, _ := json.Marshal(tree{"state": state})
			first, err := s.update(string(payload), 1)
			if err != nil {
				t.Fatal(err)
			}
			stored := first.Stored
			second, err := s.update(string(payload), 1)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(stored, second.Stored) {
				t.Fatalf("%s twice: %q, then %q", payload, stored, second.Stored)
			}
			if second.Delta != nil {
				answer, _ := json.Marshal(tree{"state": tree{"reported": decode(t, second.Delta)["state"]}})
				third, err := s.update(string(answer), 2)
				if err != nil {
					t.Fatal(err)
				}
				if third.Delta != nil {
					t.Fatalf("reported %s, still differs %s", answer, third.Delta)
				}
			}
		}
	})
}

func clone(t *rapid.T, v tree) tree {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, b)
}

func decode(t *rapid.T, b []byte) tree {
	var v tree
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

func same(t *rapid.T, what string, want, got any) {
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

// FuzzUpdate feeds payloads to an empty and to a filled shadow: no panic, what
// is accepted is valid JSON within the limits, and can be read again.
func FuzzUpdate(f *testing.F) {
	for _, seed := range []string{
		`{"state":{"desired":{"a":1},"reported":{"a":[1,{"b":"\u00e9\n"}]}},"version":1,"clientToken":"t"}`,
		`{"state":null}`, `{"state":{"desired":null}}`, `{"state":{"reported":{"l":{"x":null}}}}`,
		`{"state":{"desired":{"a":-0.0e+10,"a":1E400}}}`, `[`, `{"state":`, "{\"state\":{\"desired\":{\"\\ud83d\\ude00\":\"\xff\"}}}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		var s shadow
		for range 2 {
			out, err := s.update(string(payload), 5)
			if err != nil {
				var refusal *doc.Error
				if !asError(err, &refusal) || refusal.Code < 400 || refusal.Code > 415 {
					t.Fatalf("%q: %v", payload, err)
				}
			} else {
				for _, body := range [][]byte{out.Accepted, out.Documents, out.Delta} {
					if body != nil && !json.Valid(body) {
						t.Fatalf("%q gave %s", payload, body)
					}
				}
				whole, err := doc.Get(s.stored, s.version, 5, "")
				if err != nil || !json.Valid(whole) {
					t.Fatalf("%q: get %s, %v", payload, whole, err)
				}
			}
			if _, err := s.update(`{"state":{"desired":{"a":{"b":1}},"reported":{"a":2}}}`, 6); err != nil {
				return // no room left
			}
		}
	})
}

// FuzzStored feeds damaged stored forms: an error or a document, never a panic.
func FuzzStored(f *testing.F) {
	var s shadow
	for _, payload := range []string{`{"state":{"desired":{"a":[1,"x",{"b":true}]}}}`, `{"state":{"reported":{"c":{}}}}`} {
		out, err := s.update(payload, 1700000000)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(out.Stored)
	}
	f.Fuzz(func(t *testing.T, stored []byte) {
		_, _ = doc.Get(stored, 1, 1, "")
		u, err := doc.ParseUpdate([]byte(`{"state":{"desired":{"a":{"b":null}},"reported":{"c":{"d":1}}}}`), 1, doc.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if stored == nil {
			stored = []byte{}
		}
		_, _ = doc.Apply(stored, 1, u, true)
	})
}

func asError(err error, target **doc.Error) bool {
	e, ok := err.(*doc.Error)
	*target = e
	return ok
}
