package mqtt

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// hashes of decreasing quality: a table must be right with any, if slow.
var hashes = map[string]func(string) uint64{
	"all the same":   func(string) uint64 { return 1<<64 - 1 },
	"three values":   func(s string) uint64 { return uint64(len(s)) % 3 },
	"slots in a row": func(s string) uint64 { return uint64(s[len(s)-1]) },
}

func TestLiteralsAgreeWithMap(t *testing.T) {
	for name, hash := range hashes {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(3, 4))
			var l literals[int]
			held := map[string]map[int]bool{}
			for round := range 12000 {
				// It fills and empties in waves, so that it grows and shrinks.
				filter, v := fmt.Sprint("t/", r.IntN(60)), r.IntN(3)
				if r.IntN(40) == 0 {
					v = r.IntN(100) // enough for an index
				}
				if grow := round/3000%2 == 0; r.IntN(10) < 8 == grow {
					if got := l.add(hash(filter), filter, v); got == held[filter][v] {
						t.Fatalf("add %s %d: %v", filter, v, got)
					}
					if held[filter] == nil {
						held[filter] = map[int]bool{}
					}
					held[filter][v] = true
				} else {
					if got := l.remove(hash(filter), filter, v, hash); got != held[filter][v] {
						t.Fatalf("remove %s %d: %v", filter, v, got)
					}
					if delete(held[filter], v); len(held[filter]) == 0 {
						delete(held, filter)
					}
				}
				if len(l.entries) != len(held) {
					t.Fatalf("%d entries, want %d", len(l.entries), len(held))
				}
				if round%50 == 0 {
					same(t, &l, held, hash)
				}
			}
			for f, values := range held {
				for v := range values {
					if !l.remove(hash(f), f, v, hash) {
						t.Fatalf("%s %d is gone", f, v)
					}
				}
			}
			if len(l.entries) != 0 || len(l.slots) > fewSlots {
				t.Errorf("an empty table has %d entries and %d slots", len(l.entries), len(l.slots))
			}
		})
	}
}

func same(t *testing.T, l *literals[int], held map[string]map[int]bool, hash func(string) uint64) {
	t.Helper()
	for i := range 60 {
		filter := fmt.Sprint("t/", i)
		var got, want []int
		l.match(hash(filter), filter, func(v int) { got = append(got, v) })
		for v := range held[filter] {
			want = append(want, v)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%s: %v, want %v", filter, got, want)
		}
	}
}
