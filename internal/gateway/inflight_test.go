package gateway

import (
	"math/rand/v2"
	"testing"
)

// TestInflightAgreesWithMap takes and acknowledges at random, over the whole round of identifiers.
func TestInflightAgreesWithMap(t *testing.T) {
	for _, limit := range []int{1, 3, 100, 1024} {
		r := rand.New(rand.NewPCG(uint64(limit), 7))
		f := inflight{limit: limit}
		model := map[uint16]int64{}
		for n := int64(1); n < 300_000; n++ {
			if f.room() && r.IntN(2) == 0 {
				id := f.take(n)
				if _, used := model[id]; used || id == 0 {
					t.Fatalf("identifier %d is in use", id)
				}
				model[id] = n
			} else if len(model) > 0 {
				for id, message := range model { // any
					if got := f.ack(id); got != message {
						t.Fatalf("ack %d gives %d, want %d", id, got, message)
					}
					delete(model, id)
					break
				}
			}
			if f.n != len(model) || len(model) > limit {
				t.Fatalf("%d in flight, model has %d, limit %d", f.n, len(model), limit)
			}
			if got := f.ack(uint16(r.Uint32())); got != 0 {
				for id, message := range model { // it may have hit one
					if message == got {
						delete(model, id)
					}
				}
			}
		}
	}
}

// TestWheelIsNeverLate arms connections at random and looks when they come due.
func TestWheelIsNeverLate(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var w wheel
	now := int64(1_000_000)
	due := map[*Connection]int64{}
	w.advance(now, func(*Connection) { t.Fatal("nothing is armed") })
	for range 2000 {
		c := &Connection{}
		at := now + 1 + int64(r.IntN(1800))
		w.arm(c, at)
		due[c] = at
		if r.IntN(4) == 0 {
			w.disarm(c)
			delete(due, c)
		}
	}
	for len(due) > 0 {
		now += int64(1 + r.IntN(5))
		w.advance(now, func(c *Connection) {
			if at, ok := due[c]; !ok || at > now || now-at > 5 {
				t.Fatalf("at %d came one due at %d (%v)", now, at, ok)
			}
			delete(due, c)
		})
		for c, at := range due {
			if at <= now {
				t.Fatalf("%p was due at %d, it is %d", c, at, now)
			}
		}
	}
}
