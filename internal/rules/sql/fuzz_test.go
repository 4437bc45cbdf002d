package sql_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"flotilla/internal/rules/sql"
)

var versions = []string{sql.Version20151008, sql.Version20160323, sql.VersionBeta}

// FuzzParse checks that no text makes the parser panic, that errors point into the
// text, and that the canonical text of a statement is a fixed point.
func FuzzParse(f *testing.F) {
	for _, v := range readVectors(f, "rules-sql.jsonl", true) {
		f.Add(v.SQL, byte(1))
	}
	f.Fuzz(func(t *testing.T, text string, version byte) {
		v := versions[int(version)%len(versions)]
		s, err := sql.Parse(text, v)
		if err != nil {
			var pe *sql.ParseError
			if !errors.As(err, &pe) || pe.Offset < 0 || pe.Offset > len(text) || pe.Line < 1 || pe.Column < 1 || pe.Message == "" {
				t.Fatalf("%q: %#v", text, err)
			}
			return
		}
		once := s.String()
		if len(once) > 250<<10 {
			return // canonical text is longer
		}
		again, err := sql.Parse(once, v)
		if err != nil {
			t.Fatalf("%q printed as %q: %v", text, once, err)
		}
		if twice := again.String(); twice != once {
			t.Fatalf("%q printed as %q, then as %q", text, once, twice)
		}
		if s.From() != again.From() || s.MayBlock() != again.MayBlock() || s.Complexity() != again.Complexity() {
			t.Fatalf("%q and %q differ", text, once)
		}
	})
}

// FuzzEvaluate checks that no statement on no payload panics or runs away, that JSON
// is JSON, and that the canonical statement has the same result.
func FuzzEvaluate(f *testing.F) {
	for _, v := range readVectors(f, "rules-sql.jsonl", true) {
		f.Add(v.SQL, v.input(f).Payload, byte(1))
	}
	f.Fuzz(func(t *testing.T, text string, payload []byte, version byte) {
		v := versions[int(version)%len(versions)]
		s, err := sql.Parse(text, v)
		if err != nil {
			return
		}
		before := bytes.Clone(payload)
		begin := time.Now()
		out, selected, err := s.Evaluate(fuzzInput(payload))
		if took := time.Since(begin); took > time.Minute {
			t.Fatalf("%q took %v", text, took)
		}
		if !bytes.Equal(before, payload) {
			t.Fatalf("%q changed the payload", text)
		}
		if err != nil {
			var re *sql.RuntimeError
			if !errors.As(err, &re) || selected {
				t.Fatalf("%q: selected %v, %v", text, selected, err)
			}
			return
		}
		if !selected {
			return
		}
		if len(out.Payload) > max(1<<20, len(payload)) {
			t.Fatalf("%q made %d bytes", text, len(out.Payload))
		}
		if out.JSON && !json.Valid(out.Payload) {
			t.Fatalf("%q made %q of %q", text, out.Payload, payload)
		}
	})
}

// FuzzExpand is FuzzEvaluate for templates.
func FuzzExpand(f *testing.F) {
	for _, v := range readVectors(f, "substitution.jsonl", true) {
		f.Add(v.Template, v.input(f).Payload, byte(1), v.Field == "republish.topic")
	}
	f.Fuzz(func(t *testing.T, text string, payload []byte, version byte, republish bool) {
		field := sql.Generic
		if republish {
			field = sql.RepublishTopic
		}
		tmpl, err := sql.ParseTemplate(text, versions[int(version)%len(versions)], field)
		if err != nil {
			var pe *sql.ParseError
			if !errors.As(err, &pe) || pe.Offset < 0 || pe.Offset > len(text) {
				t.Fatalf("%q: %#v", text, err)
			}
			return
		}
		got, err := tmpl.Expand(fuzzInput(payload))
		if err != nil {
			var re *sql.RuntimeError
			if !errors.As(err, &re) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if constant, ok := tmpl.Constant(); ok && got != constant {
			t.Fatalf("%q: got %q, want %q", text, got, constant)
		}
	})
}

func fuzzInput(payload []byte) *sql.Input {
	return &sql.Input{
		Topic: "plant/a/temp", Payload: payload, ClientID: "c", AccountID: "123456789012",
		Now: time.UnixMilli(1609459200123), Rand: func() float64 { return 0.5 }, NewUUID: func() string { return "u" },
	}
}
