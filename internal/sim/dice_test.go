package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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

// TestRevisionsKeepTheirOrder: what the back end writes for a thing last is the last that arrives.
func TestRevisionsKeepTheirOrder(t *testing.T) {
	var mu sync.Mutex
	var arrived []int
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			State struct{ Desired struct{ Revision int } }
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		arrived = append(arrived, body.State.Desired.Revision)
		fmt.Fprint(w, "{}")
	}))
	defer api.Close()
	f := &Fleet{Cloud: NewCloud(api.URL, "us-east-1", "key", "secret")}
	m := &member{Device: Device{thing: "pump"}, fleet: f}
	var writers sync.WaitGroup
	for range 100 {
		writers.Go(func() { f.change(t.Context(), m) })
	}
	writers.Wait()
	if len(arrived) != 100 || !slices.IsSorted(arrived) || m.desired.written != 100 {
		t.Errorf("%d was written last; these arrived: %v", m.desired.written, arrived)
	}
}

func TestDevicesPersist(t *testing.T) {
	throttled := fmt.Errorf("provisioning: %w", &refusal{&answer{StatusCode: 400, ErrorCode: "Throttling"}})
	for name, c := range map[string]struct {
		answers []error
		fails   bool
	}{
		"at once":             {answers: []error{nil}},
		"throttled":           {answers: []error{throttled, throttled, throttled, throttled, throttled, nil}},
		"after a lost answer": {answers: []error{errors.New("lost"), errors.New("lost"), nil}},
		"never":               {answers: []error{errors.New("no"), errors.New("no"), errors.New("no"), errors.New("no")}, fails: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			tried := 0
			err := persist(t.Context(), func(context.Context) error {
				tried++
				return c.answers[tried-1]
			})
			if tried != len(c.answers) || (err != nil) != c.fails {
				t.Errorf("%s: tried %d times: %v", name, tried, err)
			}
		})
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
