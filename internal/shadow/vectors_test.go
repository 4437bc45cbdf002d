package shadow_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"flotilla/internal/mqtt"
	"flotilla/internal/shadow"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// vector is one line of shadow.jsonl; its README says what is what.
type vector struct {
	ID                  string
	Thing               string
	IgnoreEmptySections bool `json:"ignoreEmptySections"`
	Ops                 []struct {
		Op                  string
		Shadow              string
		Payload             json.RawMessage
		PayloadText         *string
		IgnoreEmptySections bool                       `json:"ignoreEmptySections"`
		Expect              map[string]json.RawMessage `json:"expect"`
	}
}

// TestVectorsShadow sends the public vectors through ServeMQTT, each operation
// in a second of its own.
func TestVectorsShadow(t *testing.T) {
	db := storetest.Open(t)
	for _, v := range readVectors(t, "shadow.jsonl") {
		t.Run(v.ID, func(t *testing.T) {
			for _, problem := range v.run(t, db) {
				t.Error(problem)
			}
		})
	}
}

// TestLowConfidenceVectors shows where Flotilla differs from a reading that
// AWS's documents do not decide.
func TestLowConfidenceVectors(t *testing.T) {
	db := storetest.Open(t)
	for _, v := range readVectors(t, "shadow.low.jsonl") {
		t.Run(v.ID, func(t *testing.T) {
			for _, problem := range v.run(t, db) {
				t.Log(problem)
			}
		})
	}
}

func readVectors(t *testing.T, name string) (all []vector) {
	t.Helper()
	dir := os.Getenv("FLOTILLA_VECTORS")
	if dir == "" {
		dir = "testdata"
	}
	f, err := os.Open(filepath.Join(dir, name))
	if os.IsNotExist(err) && strings.Contains(name, ".low.") {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, v)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// run plays the vector and returns what is not as expected.
func (v *vector) run(t *testing.T, db *store.DB) (problems []string) {
	const start = 1_700_000_000
	if v.Thing == "" {
		v.Thing = "thing"
	}
	var seconds int64
	var out outbox
	s := shadow.New(db, things{v.Thing: true}, &out, shadow.Config{
		Now: func() time.Time { return time.Unix(start+seconds, 0) },
	})
	if err := s.DeleteAll(context.Background(), v.Thing); err != nil {
		t.Fatal(err)
	}
	for i, op := range v.Ops {
		seconds++
		prefix := "$aws/things/" + v.Thing + "/shadow/"
		if op.Shadow != "" {
			prefix += "name/" + op.Shadow + "/"
		}
		payload := []byte(op.Payload)
		if op.PayloadText != nil {
			payload = []byte(*op.PayloadText)
		}
		out.reset()
		if err := s.ServeMQTT(context.Background(), &mqtt.Message{Topic: prefix + op.Op, Payload: payload}); err != nil {
			t.Fatal(err)
		}
		got := map[string]any{}
		for _, m := range out.all() {
			name, ok := strings.CutPrefix(m.Topic, prefix+op.Op+"/")
			if _, twice := got[name]; !ok || twice || m.QoS != 1 {
				problems = append(problems, fmt.Sprintf("op %d: unexpected %s (QoS %d)", i+1, m.Topic, m.QoS))
			}
			got[name] = number(t, m.Payload)
		}
		for name, want := range op.Expect {
			c := comparison{start: start, ignoreEmpty: v.IgnoreEmptySections || op.IgnoreEmptySections}
			c.body(fmt.Sprintf("op %d %s", i+1, name), number(t, want), got[name])
			problems = append(problems, c.problems...)
		}
		if _, refused := op.Expect["rejected"]; refused && len(got) != 1 {
			problems = append(problems, fmt.Sprintf("op %d: rejected, but published %d messages", i+1, len(got)))
		}
	}
	return problems
}

func number(t *testing.T, text []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// comparison compares bodies as the README of the vectors says.
type comparison struct {
	start       int64
	ignoreEmpty bool
	problems    []string
}

func (c *comparison) body(where string, want, got any) {
	w, ok := want.(map[string]any)
	g, gok := got.(map[string]any)
	if !ok || !gok {
		if want != nil || got != nil {
			c.problem(where, want, got)
		}
		return
	}
	for key, wv := range w {
		gv := g[key]
		switch key {
		case "state", "metadata":
			c.exact(where+"."+key, c.section(key, wv), c.section(key, gv))
		case "current", "previous":
			c.body(where+"."+key, wv, gv)
		case "message":
			text, _ := gv.(string)
			if long, _ := wv.(string); strings.HasPrefix(long, "JSON contains too many levels") {
				if !strings.HasPrefix(text, "JSON contains too many levels of nesting") {
					c.problem(where+".message", wv, gv)
				}
				continue
			}
			c.exact(where+".message", wv, gv)
		default:
			c.exact(where+"."+key, wv, gv)
		}
	}
}

func (c *comparison) section(key string, v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	out := map[string]any{}
	for name, section := range m {
		if key == "metadata" && name == "delta" {
			continue
		}
		if empty, ok := section.(map[string]any); ok && len(empty) == 0 && c.ignoreEmpty {
			continue
		}
		out[name] = section
	}
	return out
}

// exact compares JSON values; "@N" is the second of op N, {"$gt":n} any greater
// integer.
func (c *comparison) exact(where string, want, got any) {
	switch w := want.(type) {
	case map[string]any:
		if n, ok := w["$gt"].(json.Number); ok {
			if g, ok := got.(json.Number); ok {
				least, _ := n.Int64()
				if have, err := g.Int64(); err == nil && have > least {
					return
				}
			}
			c.problem(where, want, got)
			return
		}
		g, ok := got.(map[string]any)
		if !ok || len(g) != len(w) {
			c.problem(where, want, got)
			return
		}
		for k := range w {
			c.exact(where+"."+k, w[k], g[k])
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			c.problem(where, want, got)
			return
		}
		for i := range w {
			c.exact(fmt.Sprintf("%s[%d]", where, i), w[i], g[i])
		}
	case string:
		var n int64
		if _, err := fmt.Sscanf(w, "@%d", &n); err == nil {
			if g, ok := got.(json.Number); !ok || g.String() != fmt.Sprint(c.start+n) {
				c.problem(where, want, got)
			}
			return
		}
		if got != want {
			c.problem(where, want, got)
		}
	default:
		if !reflect.DeepEqual(want, got) {
			c.problem(where, want, got)
		}
	}
}

func (c *comparison) problem(where string, want, got any) {
	w, _ := json.Marshal(want)
	g, _ := json.Marshal(got)
	c.problems = append(c.problems, fmt.Sprintf("%s: got %s, want %s", where, g, w))
}
