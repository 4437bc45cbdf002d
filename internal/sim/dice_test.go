package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// plan is all that a seed decides for some devices, as text.
func plan(seed uint64) string {
	s := DefaultScenario()
	s.Devices, s.Duration = 50, Duration(time.Hour)
	var b strings.Builder
	for d := range s.Devices {
		fmt.Fprintln(&b, s.traits(seed, d))
		for next, i := s.outages(seed, d), 0; i < 5; i++ {
			fmt.Fprintln(&b, fmt.Sprint(next()))
		}
		for next, i := s.changes(seed, d), 0; i < 5; i++ {
			fmt.Fprintln(&b, fmt.Sprint(next()))
		}
		for job := range 3 {
			fmt.Fprintln(&b, fmt.Sprint(s.execution(seed, d, job)))
		}
	}
	return b.String()
}

func TestSeedDecides(t *testing.T) {
	first, again := plan(7), plan(7)
	if first != again {
		t.Error("the same seed gave two plans")
	}
	if first == plan(8) {
		t.Error("two seeds gave the same plan")
	}
}

// TestDistributions: shares and means are about those of the scenario.
func TestDistributions(t *testing.T) {
	s := DefaultScenario()
	s.Devices = 10_000
	about := func(what string, got, want float64) {
		t.Helper()
		if got < 0.9*want || got > 1.1*want {
			t.Errorf("%s: got %.3f, want about %.3f", what, got, want)
		}
	}
	var slow, skewed, succeeded int
	var takes, between, gone time.Duration
	for d := range s.Devices {
		tr := s.traits(1, d)
		if tr.latency > 0 {
			slow++
		}
		if tr.skew != 0 {
			skewed++
		}
		for job := range 3 {
			took, ok := s.execution(1, d, job)
			takes += took
			if ok {
				succeeded++
			}
		}
		o, _ := s.outages(1, d)()
		between += o.from - tr.start
		gone += o.to - o.from
	}
	n := float64(s.Devices)
	about("slow links", float64(slow)/n, s.SlowLinks.Share)
	about("skewed clocks", float64(skewed)/n, s.Clocks.Share)
	about("success", float64(succeeded)/n/3, s.Jobs.Success)
	about("takes", takes.Seconds()/n/3, time.Duration(s.Jobs.Takes).Seconds())
	about("time to the first outage", between.Seconds()/n, time.Duration(s.DropOuts.Every).Seconds())
	about("length of the first outage", gone.Seconds()/n, time.Duration(s.DropOuts.For).Seconds())
}

func TestMissingReadings(t *testing.T) {
	f := &Fleet{Run: "x"}
	for i := range 3 {
		m := &member{Device: Device{thing: fmt.Sprintf("thing-%d", i)}, fleet: f, n: i}
		m.acked.Store(100)
		for n := range 130 {
			if i != 1 || n < 64 || n > 66 {
				if !m.seen.add(n) {
					t.Errorf("reading %d was there already", n)
				}
			}
		}
		f.members = append(f.members, m)
	}
	c := &checks{fleet: f}
	want := "3 acknowledged readings of 1 devices did not arrive, the first is number 64 of thing-1"
	if got := c.readings(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, n := range []int{64, 65, 66} {
		f.members[1].seen.add(n)
	}
	if f.members[1].seen.add(64) || f.members[1].seen.add(-1) || f.members[1].seen.add(maxReadings) {
		t.Error("what is there, or out of bounds, was new")
	}
	if got := c.readings(); got != "" {
		t.Error(got)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	if got := h.milliseconds(0.5); got != 0 {
		t.Errorf("an empty one says %v", got)
	}
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Millisecond)
	}
	h.add(1000 * time.Hour)
	for q, want := range map[float64]float64{0.5: 500, 0.99: 990} {
		if got := h.milliseconds(q); got < want || got > want*1.13 {
			t.Errorf("%v: got %v, want about %v", q, got, want)
		}
	}
}
