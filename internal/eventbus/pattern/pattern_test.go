package pattern_test

import (
	"os"
	"strings"
	"testing"

	"flotilla/internal/eventbus/pattern"
)

// vectors calls fn for each line of testdata/patterns.txt that is a case.
func vectors(t testing.TB, fn func(line int, sign byte, patternText, event string)) {
	t.Helper()
	data, err := os.ReadFile("testdata/patterns.txt")
	if err != nil {
		t.Fatal(err)
	}
	current := ""
	for i, line := range strings.Split(string(data), "\n") {
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '!':
			fn(i+1, '!', line[2:], "")
		case line[0] == '+' || line[0] == '-':
			fn(i+1, line[0], current, line[2:])
		default:
			current = line
		}
	}
}

func TestPatterns(t *testing.T) {
	cases := 0
	vectors(t, func(line int, sign byte, text, eventText string) {
		cases++
		p, err := pattern.Parse([]byte(text))
		if sign == '!' {
			if err == nil {
				t.Errorf("line %d: %s is not refused", line, text)
			}
			return
		}
		if err != nil {
			t.Errorf("line %d: %s: %v", line, text, err)
			return
		}
		event, err := pattern.ParseEvent([]byte(eventText))
		if err != nil {
			t.Fatalf("line %d: %v", line, err)
		}
		if got := p.Match(event); got != (sign == '+') {
			t.Errorf("line %d: %s matches %s: %v", line, text, eventText, got)
		}
	})
	if cases < 100 {
		t.Errorf("%d cases were read", cases)
	}
}

func TestCombinationsAreBounded(t *testing.T) {
	or := `"$or": [` + strings.Repeat(`{"a": [1]},`, 31) + `{"a": [1]}]`
	if _, err := pattern.Parse([]byte(`{` + or + `}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := pattern.Parse([]byte(`{` + or + `, "x": {` + or + `}}`)); err == nil {
		t.Error("1024 combinations are not refused")
	}
}

func TestDepthIsBounded(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 500) + `[1]` + strings.Repeat(`}`, 500)
	if _, err := pattern.Parse([]byte(deep)); err == nil {
		t.Error("a pattern of depth 500 is not refused")
	}
}

func FuzzMatch(f *testing.F) {
	vectors(f, func(_ int, _ byte, text, event string) { f.Add(text, event) })
	f.Fuzz(func(t *testing.T, text, eventText string) {
		p, err := pattern.Parse([]byte(text))
		event, eventErr := pattern.ParseEvent([]byte(eventText))
		if err != nil || eventErr != nil {
			return
		}
		// A second pattern that an $or adds can't take matches away.
		both, err := pattern.Parse([]byte(`{"$or": [` + text + `, {"no such field": ["x"]}]}`))
		if err == nil && p.Match(event) && !both.Match(event) {
			t.Errorf("%s matches %s, but not within $or", text, eventText)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	p, err := pattern.Parse([]byte(`{"source": ["aws.iot"], "detail": {"eventType": [{"prefix": "THING"}], "operation": [{"anything-but": "DELETED"}]}}`))
	if err != nil {
		b.Fatal(err)
	}
	event, err := pattern.ParseEvent([]byte(`{"source":"aws.iot","detail-type":"x","detail":{"eventType":"THING_EVENT","operation":"CREATED"}}`))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if !p.Match(event) {
			b.Fatal("no match")
		}
	}
}
