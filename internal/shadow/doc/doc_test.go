package doc_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/shadow/doc"
)

// shadow is a document and its version, as a room would keep them.
type shadow struct {
	stored  []byte
	version int64
}

func (s *shadow) update(payload string, now int64) (*doc.Outcome, error) {
	u, err := doc.ParseUpdate([]byte(payload), now, doc.Limits{})
	if err != nil {
		return nil, err
	}
	out, err := doc.Apply(s.stored, s.version, u, true)
	if err == nil {
		s.stored, s.version = out.Stored, out.Version
	}
	return out, err
}

func TestBodies(t *testing.T) {
	var s shadow
	step := func(payload string, now int64, accepted, delta, documents, get string) {
		t.Helper()
		out, err := s.update(payload, now)
		if err != nil {
			t.Fatal(err)
		}
		got, err := doc.Get(s.stored, s.version, now, `"g"`)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ name, got, want string }{
			{"accepted", string(out.Accepted), accepted},
			{"delta", string(out.Delta), delta},
			{"documents", string(out.Documents), documents},
			{"get", string(got), get},
		} {
			if d := cmp.Diff(c.want, c.got); d != "" {
				t.Errorf("%s of %s (-want +got):\n%s", c.name, payload, d)
			}
		}
	}
	step(`{"state": {"desired": {"on": true, "n": 1.50}}, "clientToken": "a"}`, 100,
		`{"state":{"desired":{"on":true,"n":1.50}},"metadata":{"desired":{"on":{"timestamp":100},"n":{"timestamp":100}}},"version":1,"timestamp":100,"clientToken":"a"}`,
		`{"version":1,"timestamp":100,"state":{"on":true,"n":1.50},"metadata":{"on":{"timestamp":100},"n":{"timestamp":100}},"clientToken":"a"}`,
		`{"current":{"state":{"desired":{"on":true,"n":1.50}},"metadata":{"desired":{"on":{"timestamp":100},"n":{"timestamp":100}}},"version":1},"timestamp":100,"clientToken":"a"}`,
		`{"state":{"desired":{"on":true,"n":1.50},"delta":{"on":true,"n":1.50}},"metadata":{"desired":{"on":{"timestamp":100},"n":{"timestamp":100}}},"version":1,"timestamp":100,"clientToken":"g"}`)
	step(`{"state":{"reported":{"n":1.5,"l":[1,{"a":2}]},"desired":{"on":null}}}`, 200,
		`{"state":{"reported":{"n":1.5,"l":[1,{"a":2}]},"desired":{"on":null}},"metadata":{"reported":{"n":{"timestamp":200},"l":[{"timestamp":200},{"a":{"timestamp":200}}]},"desired":{"on":{"timestamp":200}}},"version":2,"timestamp":200}`,
		``,
		`{"previous":{"state":{"desired":{"on":true,"n":1.50}},"metadata":{"desired":{"on":{"timestamp":100},"n":{"timestamp":100}}},"version":1},`+
			`"current":{"state":{"desired":{"n":1.50},"reported":{"n":1.5,"l":[1,{"a":2}]}},"metadata":{"desired":{"n":{"timestamp":100}},"reported":{"n":{"timestamp":200},"l":[{"timestamp":200},{"a":{"timestamp":200}}]}},"version":2},"timestamp":200}`,
		`{"state":{"desired":{"n":1.50},"reported":{"n":1.5,"l":[1,{"a":2}]}},"metadata":{"desired":{"n":{"timestamp":100}},"reported":{"n":{"timestamp":200},"l":[{"timestamp":200},{"a":{"timestamp":200}}]}},"version":2,"timestamp":200,"clientToken":"g"}`)
	step(`{"state":null}`, 300,
		`{"state":{},"metadata":{},"version":3,"timestamp":300}`, ``,
		`{"previous":{"state":{"desired":{"n":1.50},"reported":{"n":1.5,"l":[1,{"a":2}]}},"metadata":{"desired":{"n":{"timestamp":100}},"reported":{"n":{"timestamp":200},"l":[{"timestamp":200},{"a":{"timestamp":200}}]}},"version":2},`+
			`"current":{"state":{},"metadata":{},"version":3},"timestamp":300}`,
		`{"state":{},"metadata":{},"version":3,"timestamp":300,"clientToken":"g"}`)
	if got, want := string(doc.Deleted(3, 400, `"t"`)), `{"version":3,"timestamp":400,"clientToken":"t"}`; got != want {
		t.Errorf("Deleted = %s, want %s", got, want)
	}
	if got, want := string(doc.Rejected(404, "No \"x\"", 400, "")), `{"code":404,"message":"No \"x\"","timestamp":400}`; got != want {
		t.Errorf("Rejected = %s, want %s", got, want)
	}
}

// TestMerge shows documents after updates; a guess where AWS is silent says so.
func TestMerge(t *testing.T) {
	for _, c := range []struct{ name, updates, state string }{
		{"object into object", `{"desired":{"a":{"x":1}}} {"desired":{"a":{"y":2}}}`, `{"desired":{"a":{"x":1,"y":2}},"delta":{"a":{"x":1,"y":2}}}`},
		{"value over object", `{"reported":{"a":{"x":1}}} {"reported":{"a":7}}`, `{"reported":{"a":7}}`},
		{"object over value, nulls dropped", `{"reported":{"a":1}} {"reported":{"a":{"x":null,"y":2}}}`, `{"reported":{"a":{"y":2}}}`},
		{"null in a new object", `{"reported":{"a":{"x":null,"y":2}}}`, `{"reported":{"a":{"y":2}}}`},
		{"only nulls create nothing (guess)", `{"reported":{"a":{"x":null}}}`, `{}`},
		{"last member removed, object stays", `{"reported":{"a":{"x":1}}} {"reported":{"a":{"x":null}}}`, `{"reported":{"a":{}}}`},
		{"section removed", `{"reported":{"a":1},"desired":{"b":1}} {"desired":null}`, `{"reported":{"a":1}}`},
		{"empty section does nothing", `{"reported":{"a":1}} {"reported":{}}`, `{"reported":{"a":1}}`},
		{"array replaced", `{"reported":{"a":[1,2,3]}} {"reported":{"a":[]}}`, `{"reported":{"a":[]}}`},
		{"last of equal names", `{"reported":{"a":1,"b":2,"a":3}}`, `{"reported":{"a":3,"b":2}}`},
		{"names compare unescaped", `{"reported":{"a/\u0062":1}} {"reported":{"a\/b":2}}`, `{"reported":{"a/b":2}}`},
		{"strings compare unescaped", `{"desired":{"a":"\u00e9\ud83d\ude00"},"reported":{"a":"é😀"}}`, `{"desired":{"a":"é😀"},"reported":{"a":"é😀"}}`},
		{
			"numbers compare by value", `{"desired":{"a":1.0,"b":[100],"c":-0,"d":12e-1,"e":0.5},"reported":{"a":1,"b":[1e2],"c":0,"d":1.20,"e":0.50}}`,
			`{"desired":{"a":1.0,"b":[100],"c":-0,"d":12e-1,"e":0.5},"reported":{"a":1,"b":[1e2],"c":0,"d":1.20,"e":0.50}}`,
		},
		{
			"long integers differ", `{"desired":{"a":9007199254740993},"reported":{"a":9007199254740992}}`,
			`{"desired":{"a":9007199254740993},"reported":{"a":9007199254740992},"delta":{"a":9007199254740993}}`,
		},
		{"empty object is not missed", `{"desired":{"a":{},"b":{"c":{}}}}`, `{"desired":{"a":{},"b":{"c":{}}}}`},
		{"empty object where a value is", `{"desired":{"a":{}},"reported":{"a":1}}`, `{"desired":{"a":{}},"reported":{"a":1},"delta":{"a":{}}}`},
		{"member order is that of arrival", `{"desired":{"z":1,"a":1}} {"desired":{"m":1,"a":2}}`, `{"desired":{"z":1,"a":2,"m":1},"delta":{"z":1,"a":2,"m":1}}`},
		{"array members' order does not count", `{"desired":{"a":[{"x":1,"y":2}]},"reported":{"a":[{"y":2,"x":1}]}}`, `{"desired":{"a":[{"x":1,"y":2}]},"reported":{"a":[{"y":2,"x":1}]}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s shadow
			for state := range strings.SplitSeq(c.updates, " ") {
				if _, err := s.update(`{"state":`+state+`}`, 1); err != nil {
					t.Fatal(err)
				}
			}
			got, err := doc.Get(s.stored, s.version, 1, "")
			if err != nil {
				t.Fatal(err)
			}
			if state, _, _ := strings.Cut(string(got), `,"metadata"`); state != `{"state":`+c.state {
				t.Errorf("got  %s\nwant {\"state\":%s", state, c.state)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	nested := func(n int) string {
		return `{"state":{"desired":` + strings.Repeat(`{"a":`, n) + `1` + strings.Repeat(`}`, n) + `}}`
	}
	for _, c := range []struct {
		name, payload string
		code          int
		message       string
	}{
		{"nothing", ``, 400, "Invalid JSON"},
		{"two values", `{} {}`, 400, "Invalid JSON"},
		{"root array", `[]`, 400, "Invalid JSON"},
		{"leading zero", `{"state":{"desired":{"a":01}}}`, 400, "Invalid JSON"},
		{"comma at the end", `{"state":{"desired":{"a":1,}}}`, 400, "Invalid JSON"},
		{"lone surrogate", `{"state":{"desired":{"a":"\ud800"}}}`, 400, "Invalid JSON"},
		{"control character", "{\"state\":{\"desired\":{\"a\":\"\n\"}}}", 400, "Invalid JSON"},
		{"not UTF-8", "{\"state\":{\"desired\":{\"a\":\"\xff\"}}}", 415, "Unsupported documented encoding; supported encoding is UTF-8"},
		{"no state", `{"version":1}`, 400, "Missing required node: state"},
		{"state a list", `{"state":[]}`, 400, "State node must be an object"},
		{"desired a list", `{"state":{"desired":[]}}`, 400, "Desired node must be an object"},
		{"reported a string", `{"state":{"reported":"x"}}`, 400, "Reported node must be an object"},
		{"delta sent", `{"state":{"desired":{},"delta":{}}}`, 400, "State contains an invalid node"},
		{"null in array", `{"state":{"desired":{"a":[1,null]}}}`, 400, "State contains an invalid node"},
		{"null deep in array", `{"state":{"desired":{"a":[{"b":null}]}}}`, 400, "State contains an invalid node"},
		{"negative version", `{"state":{},"version":-1}`, 400, "Invalid version"},
		{"version with a point", `{"state":{},"version":1.0}`, 400, "Invalid version"},
		{"huge version", `{"state":{},"version":9223372036854775808}`, 400, "Invalid version"},
		{"version true", `{"state":{},"version":true}`, 400, "Invalid version"},
		{"version of nothing", `{"state":{},"version":2}`, 409, "Version conflict"},
		{"token a number", `{"state":{},"clientToken":1}`, 400, "Invalid clientToken"},
		{"token of 66 bytes in 33 letters", `{"state":{},"clientToken":"` + strings.Repeat("é", 33) + `"}`, 400, "Invalid clientToken"},
		{"7 levels", nested(7), 400, "JSON contains too many levels of nesting; maximum is 6"},
		{"200 levels elsewhere", `{"state":{},"x":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, 400, "JSON contains too many levels of nesting; maximum is 6"},
		{"arrays count", `{"state":{"desired":{"a":[[[[[[1]]]]]]}}}`, 400, "JSON contains too many levels of nesting; maximum is 6"},
		{"too large", `{"state":{"desired":{"a":"` + strings.Repeat("x", 8192) + `"}}}`, 413, "The payload exceeds the maximum size allowed"},
		{"far too large", strings.Repeat(" ", 200_000), 413, "The payload exceeds the maximum size allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := new(shadow).update(c.payload, 1)
			e, ok := errors.AsType[*doc.Error](err)
			if !ok || e.Code != c.code || e.Message != c.message {
				t.Errorf("got %v, want %d %s", err, c.code, c.message)
			}
		})
	}
	for _, ok := range []string{
		nested(6), `{"state":{}}`, `{"state":{"desired":{"a":[[[[[1]]]]]}},"version":null,"clientToken":null}`,
		`{"state":{},"version":0}`, `{"state":{},"version":1}`,
		`{"state":{},"clientToken":"` + strings.Repeat(`\n`, 64) + `"}`,
	} {
		if _, err := new(shadow).update(ok, 1); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
}

// The limit is on desired and reported together, to the byte, metadata and
// white space apart.
func TestLimitIsExact(t *testing.T) {
	var s shadow
	if _, err := s.update(`{"state":{"desired":{"a":1}}}`, 1); err != nil {
		t.Fatal(err)
	}
	frame := len(`{"desired":{"a":1},"reported":{"b":""}}`)
	payload := func(n int) string {
		return `{"state":  {"reported":{ "b" : "` + strings.Repeat("x", n) + `"}}}`
	}
	if _, err := s.update(payload(8192-frame+1), 2); !errors.Is(err, doc.ErrTooLarge) {
		t.Errorf("one byte too many: %v", err)
	}
	if _, err := s.update(payload(8192-frame), 2); err != nil {
		t.Errorf("just as large as allowed: %v", err)
	}
}

func TestParseRequest(t *testing.T) {
	for _, c := range []struct {
		payload string
		token   doc.Token
		err     error
	}{
		{"", "", nil},
		{" \n", "", nil},
		{`{"message":"hello"}`, "", nil},
		{`{"clientToken":"a\u0062"}`, `"ab"`, nil},
		{`{"clientToken":5}`, "", doc.ErrInvalidToken},
		{`hello`, "", doc.ErrInvalidJSON},
		{`[]`, "", doc.ErrInvalidJSON},
		{"\xff", "", doc.ErrEncoding},
	} {
		token, err := doc.ParseRequest([]byte(c.payload))
		if token != c.token || !errors.Is(err, c.err) {
			t.Errorf("%q: %q, %v; want %q, %v", c.payload, token, err, c.token, c.err)
		}
	}
}

// An update can be applied again: the store runs a transaction more than once.
func TestApplyAgain(t *testing.T) {
	var s shadow
	if _, err := s.update(`{"state":{"desired":{"a":{"b":1,"c":[1]}}}}`, 1); err != nil {
		t.Fatal(err)
	}
	u, err := doc.ParseUpdate([]byte(`{"state":{"desired":{"a":{"c":{"d":1},"b":null},"e":{"f":{"g":1}}},"reported":{"e":{"f":null}}}}`), 2, doc.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := doc.Apply(s.stored, s.version, u, true)
	if err != nil {
		t.Fatal(err)
	}
	second, err := doc.Apply(s.stored, s.version, u, true)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(first, second); d != "" {
		t.Error(d)
	}
}

// Objects of thousands of members take time in proportion to their size.
func TestManyMembers(t *testing.T) {
	many := func(format string) string {
		var b strings.Builder
		for i := range 3000 {
			fmt.Fprintf(&b, format, (i*7919)%3000, i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	members := many(`"k%d":%d,`)
	var s shadow
	for i, payload := range []string{
		`{"state":{"desired":{` + members + `}}}`,
		`{"state":{"reported":{` + members + `,` + members + `}}}`, // each twice
	} {
		u, err := doc.ParseUpdate([]byte(payload), int64(i), doc.Limits{Bytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		out, err := doc.Apply(s.stored, s.version, u, true)
		if err != nil {
			t.Fatal(err)
		}
		s.stored, s.version = out.Stored, out.Version
		if i == 1 && out.Delta != nil {
			t.Error("delta between equal sections")
		}
	}
}

func TestDamagedStoredForm(t *testing.T) {
	var s shadow
	if _, err := s.update(`{"state":{"desired":{"a":{"b":[1,"x"]}},"reported":{"c":true}}}`, 1700000000); err != nil {
		t.Fatal(err)
	}
	for i := range s.stored {
		if _, err := doc.Get(s.stored[:i], 1, 1, ""); err == nil {
			t.Errorf("the first %d bytes pass as a document", i)
		}
	}
}

func kilobyte() (first, update []byte) {
	var b bytes.Buffer
	b.WriteString(`{"state":{"reported":{`)
	for i := range 36 {
		fmt.Fprintf(&b, `"sensor%02d":{"v":%d.5},`, i, i*37)
	}
	b.WriteString(`"firmware":"1.2.3"},"desired":{"firmware":"1.2.4"}}}`)
	return b.Bytes(), []byte(`{"state":{"reported":{"sensor03":{"v":17.25},"sensor30":{"v":3}}},"clientToken":"0123456789abcdef"}`)
}

func BenchmarkUpdate1KB(b *testing.B) {
	first, update := kilobyte()
	u, err := doc.ParseUpdate(first, 1700000000, doc.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	out, err := doc.Apply(nil, 0, u, true)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		u, err := doc.ParseUpdate(update, 1700000100, doc.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := doc.Apply(out.Stored, 1, u, true); err != nil {
			b.Fatal(err)
		}
	}
}

// Few allocations, whatever the document's size.
func TestUpdateAllocations(t *testing.T) {
	first, update := kilobyte()
	u, err := doc.ParseUpdate(first, 1700000000, doc.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := doc.Apply(nil, 0, u, true)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(out.Documents) {
		t.Fatalf("not JSON: %s", out.Documents)
	}
	n := testing.AllocsPerRun(100, func() {
		u, _ := doc.ParseUpdate(update, 1700000100, doc.Limits{})
		if _, err := doc.Apply(out.Stored, 1, u, true); err != nil {
			t.Fatal(err)
		}
	})
	if n > 24 {
		t.Errorf("%v allocations an update", n)
	}
}
