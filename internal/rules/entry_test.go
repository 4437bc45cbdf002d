package rules

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/rules/action"
)

func entries() []entry {
	payload := []byte(`{"a":1}`)
	at := time.UnixMilli(1764000000123)
	return []entry{
		{Record: action.Record{Received: at}},
		{Record: action.Record{Topic: "a/b", ClientID: "c", Received: at, Payload: payload, Fields: []string{"x", "", "größe"}}, fault: "no"},
		{Record: action.Record{Topic: "a/b", Received: at, Payload: payload}, failure: &failure{trace: "t", original: payload, fields: []string{"e"}}},
		{Record: action.Record{Topic: "a/b", Received: at, Payload: payload, Hops: 200}},
		{Record: action.Record{Topic: "a/b", Received: at, Payload: payload}, failure: &failure{fault: "f", original: []byte("other")}},
	}
}

func TestEntry(t *testing.T) {
	for _, e := range entries() {
		b := appendEntry(nil, &e)
		if len(b) > entrySize(&e) {
			t.Errorf("%d bytes, %d were expected", len(b), entrySize(&e))
		}
		got, err := parseEntry(b)
		if err != nil {
			t.Fatal(err)
		}
		opt := cmp.AllowUnexported(entry{}, failure{})
		if diff := cmp.Diff(e, got, opt, cmp.Transformer("empty", func(b []byte) string { return string(b) })); diff != "" {
			t.Error(diff)
		}
		for n := range len(b) {
			if _, err := parseEntry(b[:n]); err == nil {
				t.Errorf("%d of %d bytes were accepted", n, len(b))
			}
		}
	}
}

// What parses is what its encoding parses to.
func FuzzEntry(f *testing.F) {
	for _, e := range entries() {
		f.Add(appendEntry(nil, &e))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEntry(b)
		if err != nil {
			return
		}
		again := appendEntry(nil, &e)
		e2, err := parseEntry(again)
		if err != nil || !bytes.Equal(appendEntry(nil, &e2), again) {
			t.Errorf("%x became %x: %v", b, again, err)
		}
	})
}
