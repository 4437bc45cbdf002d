package mqtt_test

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"flotilla/internal/mqtt"
)

type topicVector struct {
	ID, Kind, Filter, Topic, Op, Source string
	Match, Valid, Allowed               bool
}

func topicVectors(t *testing.T, name string) []topicVector {
	t.Helper()
	f, err := os.Open(filepath.Join(cmp.Or(os.Getenv("FLOTILLA_VECTORS"), "testdata"), name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []topicVector
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<22)
	for sc.Scan() {
		var v topicVector
		if err := json.Unmarshal(sc.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

func (v topicVector) run() (got, want bool) {
	switch v.Kind {
	case "match":
		return mqtt.Match(v.Filter, v.Topic), v.Match
	case "filterValid":
		return mqtt.ValidTopicFilter(v.Filter) == nil, v.Valid
	case "topicValid":
		return mqtt.ValidTopicName(v.Topic) == nil, v.Valid
	}
	switch v.Op {
	case "publish":
		return mqtt.ValidTopicName(v.Topic) == nil && mqtt.MayPublish(v.Topic), v.Allowed
	case "publishRetain":
		return mqtt.ValidTopicName(v.Topic) == nil && mqtt.MayPublish(v.Topic) && mqtt.MayRetain(v.Topic), v.Allowed
	}
	return mqtt.ValidTopicFilter(v.Topic) == nil && mqtt.MaySubscribe(v.Topic), v.Allowed
}

func TestVectorsTopics(t *testing.T) {
	for _, v := range topicVectors(t, "topics.jsonl") {
		t.Run(v.ID, func(t *testing.T) {
			if got, want := v.run(); got != want {
				t.Errorf("%s %s filter %q topic %q: %v, want %v (%s)", v.Kind, v.Op, v.Filter, v.Topic, got, want, v.Source)
			}
			if v.Kind == "match" {
				trie := mqtt.NewTrie[int]()
				filter := v.Filter
				if _, inner, ok := mqtt.Share(filter); ok {
					filter = inner
				}
				trie.Add(filter, 1)
				n := 0
				trie.Match(v.Topic, func(int) { n++ })
				if (n == 1) != v.Match {
					t.Errorf("Trie: %d matches, want %v", n, v.Match)
				}
			}
		})
	}
}

func TestVectorsTopicsLow(t *testing.T) {
	for _, v := range topicVectors(t, "topics.low.jsonl") {
		if got, want := v.run(); got != want {
			t.Logf("%s: %v, the vector has %v (confidence low)", v.ID, got, want)
		}
	}
}

// naiveMatch is MQTT 5.0 par. 4.7 with AWS's # of at least one level.
func naiveMatch(filter, topic string) bool {
	f, l := strings.Split(filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "+" || f[0] == "#") {
		return false
	}
	for i := range f {
		if f[i] == "#" {
			return len(l) > i
		}
		if i >= len(l) || f[i] != "+" && f[i] != l[i] {
			return false
		}
	}
	return len(f) == len(l)
}

func randomLevels(r *rand.Rand, words []string) string {
	levels := make([]string, 1+r.IntN(4))
	for i := range levels {
		levels[i] = words[r.IntN(len(words))]
	}
	return strings.Join(levels, "/")
}

func TestTrieAgreesWithMatch(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{"a", "b", "", "$c", "d"}
	trie := mqtt.NewTrie[int]()
	type entry struct {
		filter string
		value  int
	}
	held := map[entry]bool{}
	for range 20000 {
		e := entry{randomLevels(r, append(words, "+", "#")), r.IntN(40)}
		if mqtt.ValidTopicFilter(e.filter) != nil {
			continue
		}
		if r.IntN(2) == 0 {
			if trie.Add(e.filter, e.value) == held[e] {
				t.Fatalf("Add %v: held %v", e, held[e])
			}
			held[e] = true
		} else {
			if trie.Remove(e.filter, e.value) != held[e] {
				t.Fatalf("Remove %v: held %v", e, held[e])
			}
			delete(held, e)
		}
		if r.IntN(50) != 0 {
			continue
		}
		topic := randomLevels(r, words)
		var want, got []int
		for e := range held {
			if naiveMatch(e.filter, topic) {
				want = append(want, e.value)
			}
			if topic != "" && naiveMatch(e.filter, topic) != mqtt.Match(e.filter, topic) {
				t.Fatalf("Match(%q, %q) disagrees", e.filter, topic)
			}
		}
		if topic == "" {
			continue
		}
		trie.Match(topic, func(v int) { got = append(got, v) })
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			t.Fatalf("%q: %v, want %v", topic, got, want)
		}
	}
	for e := range held {
		trie.Remove(e.filter, e.value)
	}
	trie.Match("a/b", func(v int) { t.Errorf("%d is left", v) })
}

func TestTrieGeneration(t *testing.T) {
	trie := mqtt.NewTrie[int]()
	before := trie.Generation()
	trie.Add("a", 1)
	if trie.Generation() == before {
		t.Error("Add kept the generation")
	}
	before = trie.Generation()
	if trie.Add("a", 1) || trie.Generation() != before {
		t.Error("Add of what is there changed something")
	}
	if !trie.Remove("a", 1) || trie.Generation() == before {
		t.Error("Remove kept the generation")
	}
}

func TestMux(t *testing.T) {
	var m mqtt.Mux
	m.Handle("$aws/things/+/shadow/#", nil)
	if _, ok := m.Match("$aws/things/a/shadow/update"); !ok {
		t.Error("no handler")
	}
	if _, ok := m.Match("$aws/things/a/jobs/get"); ok {
		t.Error("a handler of something else")
	}
}

func FuzzTopicFilter(f *testing.F) {
	for _, s := range []string{"a/b", "+/a/#", "$share/g/a/+", "a#", "/", "$aws/rules/r/a"} {
		f.Add(s, "a/b")
	}
	f.Fuzz(func(t *testing.T, filter, topic string) {
		if err := mqtt.ValidTopicFilter(filter); err != nil {
			var code mqtt.ReasonCode
			if !errors.As(err, &code) || code != mqtt.TopicFilterInvalid {
				t.Fatalf("%v carries no code", err)
			}
			return
		}
		if mqtt.ValidTopicName(topic) != nil {
			return
		}
		inner := filter
		if _, in, ok := mqtt.Share(filter); ok {
			inner = in
		}
		want := naiveMatch(inner, topic)
		if got := mqtt.Match(filter, topic); got != want {
			t.Fatalf("Match(%q, %q) = %v", filter, topic, got)
		}
		trie := mqtt.NewTrie[string]()
		trie.Add(inner, filter)
		got := false
		trie.Match(topic, func(string) { got = true })
		if got != want {
			t.Fatalf("Trie %q %q: %v", filter, topic, got)
		}
		if !trie.Remove(inner, filter) {
			t.Fatal("Remove found nothing")
		}
	})
}

func BenchmarkTrieMatch(b *testing.B) {
	trie := mqtt.NewTrie[int]()
	for i := range 10000 {
		trie.Add("dt/site/"+string(rune('a'+i%26))+"/"+strings.Repeat("x", i%50), i)
	}
	trie.Add("dt/+/a/#", 1)
	trie.Add("dt/#", 2)
	n := 0
	visit := func(int) { n++ }
	b.ReportAllocs()
	for b.Loop() {
		trie.Match("dt/site/a/temperature", visit)
	}
}

func TestTrieMatchDoesNotAllocate(t *testing.T) {
	trie := mqtt.NewTrie[int]()
	trie.Add("a/+/c", 1)
	trie.Add("a/b/c", 2)
	n := 0
	visit := func(int) { n++ }
	if got := testing.AllocsPerRun(100, func() { trie.Match("a/b/c", visit) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// BenchmarkTrieLiterals looks up one of a million filters, each time another: what it
// finds is in memory, not in a cache. It reports the bytes a filter with one value takes.
func BenchmarkTrieLiterals(b *testing.B) {
	const many = 1 << 20
	type value struct{ filter string }
	topics, values := make([]string, many), make([]*value, many)
	for i := range many {
		topics[i] = fmt.Sprintf("fleet/device-%07d/commands", i)
		values[i] = &value{strings.Clone(topics[i])}
	}
	trie := mqtt.NewTrie[*value]()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, v := range values {
		trie.Add(v.filter, v)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	n, i := 0, 0
	visit := func(v *value) { n += len(v.filter) }
	b.ReportAllocs()
	for b.Loop() {
		trie.Match(topics[i], visit)
		i = (i + 40503) % many // far from the last
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/many, "B/filter")
	runtime.KeepAlive(values)
}
