package sql_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"flotilla/internal/rules/sql"
)

// large is a pattern of 4 KiB that would compile to more than half a million instructions.
var large = strings.Repeat("a{999}", 680)

// folded is a pattern whose ranges are as costly to read as any.
var folded = "(?i)" + strings.Repeat(`[B-\x{1e942}]`, 300)

// TestPatternsOfStatementAreBounded has statements that took seconds and gigabytes to compile before they were bounded. What they
// cost is measured in bytes, which depend on no clock.
func TestPatternsOfStatementAreBounded(t *testing.T) {
	pattern := strings.Repeat("a{999}", 19) // 18,981 instructions
	const tooLarge = "too large together"
	for name, c := range map[string]struct{ text, refused string }{
		"large patterns":    {"SELECT 1" + strings.Repeat(", regexp_matches(a, '"+large+"') AS a", 60), ""}, // Undefined
		"many patterns":     {"SELECT 1" + strings.Repeat(", regexp_matches(a, '"+pattern+"') AS a", 1000), tooLarge},
		"patterns of SET":   {"SET @a = 1" + strings.Repeat(" + regexp_matches(a, '"+pattern+"')", 7) + " SELECT @a", tooLarge},
		"patterns that fit": {"SELECT 1" + strings.Repeat(", regexp_matches(a, '"+pattern+"') AS a", 5), ""},
		"folded ranges":     {"SELECT regexp_matches(a, '" + folded + "') AS a", tooLarge},
		"doubling":          {"SET @a0 = get_secret('a', 'b', 'c', 'd')" + doubling(5000) + " SELECT @a5000", ""},
		"folding":           {"SELECT 1" + strings.Repeat(", regexp_matches(a, '(?i)[a-z]+[0-9]+-[a-z]') AS a", 100), ""},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := sql.Parse(c.text, sql.Version20160323)
			runtime.ReadMemStats(&after)
			if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
				t.Errorf("error %v", err)
			}
			if made := after.TotalAlloc - before.TotalAlloc; made > 200<<20 {
				t.Errorf("%d MiB were allocated", made>>20)
			}
		})
	}
	if _, err := sql.ParseTemplate(strings.Repeat("${regexp_matches(a, '"+pattern+"')}", 7), sql.Version20160323, sql.Generic); err == nil || !strings.Contains(err.Error(), tooLarge) {
		t.Errorf("a template: %v", err)
	}
}

// doubling are variables each of which uses the one before twice.
func doubling(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ", @a%d = @a%d + @a%d", i+1, i, i)
	}
	return b.String()
}

// A device may choose the pattern: making it is paid from the budget of its message.
func TestPatternOfMessageIsBounded(t *testing.T) {
	columns := strings.Repeat(", regexp_matches('x', p) AS x", 200)
	s, err := sql.Parse("SELECT 1 AS one"+columns, sql.Version20160323)
	if err != nil {
		t.Fatal(err)
	}
	in := func(pattern string) *sql.Input {
		return &sql.Input{Topic: "t", Payload: []byte(`{"p":"` + pattern + `"}`), Now: time.UnixMilli(0)}
	}
	if out, _, err := s.Evaluate(in("x+")); err != nil || !strings.Contains(string(out.Payload), `"x":true`) {
		t.Errorf("a small pattern: %s, %v", out.Payload, err)
	}
	if _, _, err := s.Evaluate(in(strings.Repeat("a{999}", 10))); !errors.Is(err, sql.ErrBudget) {
		t.Errorf("200 patterns of 10,000 instructions: %v", err)
	}
	if _, _, err := s.Evaluate(in(strings.ReplaceAll(folded, `\`, `\\`))); !errors.Is(err, sql.ErrBudget) {
		t.Errorf("folded ranges: %v", err)
	}
	one, err := sql.Parse("SELECT regexp_matches('x', p) AS x", sql.Version20160323)
	if err != nil {
		t.Fatal(err)
	}
	if out, _, err := one.Evaluate(in(large)); err != nil || string(out.Payload) != "{}" {
		t.Errorf("a pattern that is too large: %s, %v", out.Payload, err)
	}
}
