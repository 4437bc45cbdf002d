package doc_test

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"flotilla/internal/shadow/doc"
)

func TestStand(t *testing.T) {
	shadow := func(state string) string { return `{"state":` + state + `,"version":3}` }
	for _, tc := range []struct {
		name, get, wanted string
		held, differs     bool
	}{
		{"no shadow", ``, `{"a":1}`, false, false},
		{"no shadow, nothing to remove", ``, `{"a":null}`, true, false},
		{"no desired", shadow(`{"reported":{"a":1}}`), `{"a":1}`, false, false},
		{"applied", shadow(`{"desired":{"a":1,"b":2},"reported":{"a":1,"b":2}}`), `{"a":1}`, true, false},
		{"numbers by value", shadow(`{"desired":{"a":1.0}}`), `{"a":1}`, true, false},
		{"numbers to the digit", shadow(`{"desired":{"a":10000000000000001}}`), `{"a":10000000000000002}`, false, false},
		{"pending", shadow(`{"desired":{"a":1},"delta":{"a":1}}`), `{"a":1}`, true, true},
		{"something else is pending", shadow(`{"desired":{"a":1,"b":2},"delta":{"b":2}}`), `{"a":1}`, true, false},
		{"below an object", shadow(`{"desired":{"a":{"x":1,"y":2}},"delta":{"a":{"y":2}}}`), `{"a":{"x":1}}`, true, false},
		{"below an object, pending", shadow(`{"desired":{"a":{"x":1,"y":2}},"delta":{"a":{"y":2}}}`), `{"a":{"y":2}}`, true, true},
		{"an object over a value", shadow(`{"desired":{"a":1}}`), `{"a":{}}`, false, false},
		{"an object that is there", shadow(`{"desired":{"a":{"x":1}}}`), `{"a":{}}`, true, false},
		{"an object that is missing", shadow(`{"desired":{}}`), `{"a":{}}`, false, false},
		{"to be removed", shadow(`{"desired":{"a":1}}`), `{"a":null}`, false, false},
		{"removed", shadow(`{"desired":{}}`), `{"a":{"b":null}}`, true, false},
		{"arrays are whole", shadow(`{"desired":{"a":[1,2]},"delta":{"a":[1,2]}}`), `{"a":[1,2]}`, true, true},
		{"another array", shadow(`{"desired":{"a":[1,2]}}`), `{"a":[1]}`, false, false},
		{"escapes", shadow(`{"desired":{"\u0061":"\u00e9"}}`), `{"a":"é"}`, true, false},
	} {
		var get []byte
		if tc.get != "" {
			get = []byte(tc.get)
		}
		s, err := doc.Stand(get, []byte(tc.wanted))
		if err != nil || s != (doc.Standing{Held: tc.held, Differs: tc.differs}) {
			t.Errorf("%s: %+v %v", tc.name, s, err)
		}
	}
	for wanted, want := range map[string]error{`{`: doc.ErrInvalidJSON, `[]`: doc.ErrStateNotObject, "{\"a\":\"\xff\"}": doc.ErrInvalidJSON} {
		if _, err := doc.Stand(nil, []byte(wanted)); !errors.Is(err, want) {
			t.Errorf("%s: %v", wanted, err)
		}
	}
	if _, err := doc.Stand([]byte(`7`), []byte(`{}`)); !errors.Is(err, doc.ErrStateNotObject) {
		t.Errorf("get: %v", err)
	}
}

// What was written is held; and once it is reported, nothing of it differs.
func TestStandAgreesWithApply(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SampledFrom([]string{"a", "b", "c"})
		var tree func(depth int) string
		tree = func(depth int) string {
			text := "{"
			for i, n := range rapid.SliceOfNDistinct(names, 0, 3, rapid.ID[string]).Draw(t, "names") {
				if i > 0 {
					text += ","
				}
				v := rapid.SampledFrom([]string{"1", "2", "null", `"x"`, "[1]", "{}", "deeper"}).Draw(t, "value")
				if v == "deeper" {
					if v = "{}"; depth < 3 {
						v = tree(depth + 1)
					}
				}
				text += `"` + n + `":` + v
			}
			return text + "}"
		}
		var stored []byte
		var version int64
		update := func(section, state string) {
			u, err := doc.ParseUpdate([]byte(`{"state":{"`+section+`":`+state+`}}`), 1, doc.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			out, err := doc.Apply(stored, version, u, false)
			if err != nil {
				t.Fatal(err)
			}
			stored, version = out.Stored, out.Version
		}
		stand := func(wanted string) doc.Standing {
			get, err := doc.Get(stored, version, 1, "")
			if err != nil {
				t.Fatal(err)
			}
			s, err := doc.Stand(get, []byte(wanted))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		update("desired", tree(0))
		update("reported", tree(0))
		wanted := tree(0)
		before, held := string(stored), stand(wanted).Held
		update("desired", wanted)
		if held {
			state := func(stored []byte) string {
				s, err := doc.State(stored)
				if err != nil {
					t.Fatal(err)
				}
				return string(s)
			}
			if was, is := state([]byte(before)), state(stored); was != is {
				t.Errorf("%s was held by %s, and made %s of it", wanted, was, is)
			}
		}
		if !stand(wanted).Held {
			t.Errorf("%s was written and is not held by %q", wanted, stored)
		}
		update("reported", wanted)
		if s := stand(wanted); !s.Held || s.Differs {
			t.Errorf("%s was reported: %+v", wanted, s)
		}
	})
}
