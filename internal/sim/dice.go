package sim

import (
	"math"
	"math/rand/v2"
	"time"
)

// purpose separates what is drawn for a device: how often one thing was drawn does not change another.
type purpose uint64

const (
	forTraits purpose = iota
	forTelemetry
	forDropOuts
	forDesired
	forJobs // and the number of the job
)

// dice gives the numbers for one purpose of one device; they follow from the seed alone.
func dice(seed uint64, device int, p purpose) *rand.Rand {
	return rand.New(rand.NewPCG(mix(seed^mix(uint64(device))), mix(seed+uint64(p)<<32)))
}

// mix is the finalizer of SplitMix64: neighbours become far apart.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// around draws a time whose mean is d, as waiting times are distributed, of at most five times d.
func around(r *rand.Rand, d Duration) time.Duration {
	return time.Duration(math.Min(r.ExpFloat64(), 5) * float64(d))
}

// traits are what a device is like.
type traits struct {
	ownKey         bool
	latency        time.Duration
	bytesPerSecond int
	skew           time.Duration
	start          time.Duration // when it connects first
}

func (s *Scenario) traits(seed uint64, device int) traits {
	r := dice(seed, device, forTraits)
	t := traits{ownKey: r.IntN(2) == 1}
	// The fleet comes within a tenth of the time or ten seconds, and no faster than 500 a second if that can be.
	ramp := min(max(min(s.Duration/10, Duration(10*time.Second)), Duration(s.Devices)*Duration(2*time.Millisecond)), s.Duration/2)
	t.start = time.Duration(r.Float64() * float64(ramp))
	if r.Float64() < s.SlowLinks.Share {
		t.latency, t.bytesPerSecond = time.Duration(s.SlowLinks.Latency), s.SlowLinks.BytesPerSecond
	}
	if r.Float64() < s.Clocks.Share {
		t.skew = time.Duration((2*r.Float64() - 1) * float64(s.Clocks.Skew))
	}
	return t
}

// outage is when a device has no link, from the start of the run.
type outage struct{ from, to time.Duration }

// outages gives the next one at each call, none (false) when there are no more.
func (s *Scenario) outages(seed uint64, device int) func() (outage, bool) {
	r, now := dice(seed, device, forDropOuts), s.traits(seed, device).start
	return func() (outage, bool) {
		if s.DropOuts.Every == 0 {
			return outage{}, false
		}
		from := now + max(around(r, s.DropOuts.Every), 50*time.Millisecond)
		now = from + around(r, s.DropOuts.For)
		return outage{from, now}, from < time.Duration(s.Duration)
	}
}

// changes gives the time of the next change of a thing's desired state at each call.
func (s *Scenario) changes(seed uint64, device int) func() (time.Duration, bool) {
	r, now := dice(seed, device, forDesired), s.traits(seed, device).start
	return func() (time.Duration, bool) {
		if s.Desired.Every == 0 {
			return 0, false
		}
		now += max(around(r, s.Desired.Every), time.Millisecond)
		return now, now < time.Duration(s.Duration)
	}
}

// execution is how long a job takes on a device, and whether it succeeds.
func (s *Scenario) execution(seed uint64, device, job int) (takes time.Duration, succeeds bool) {
	r := dice(seed, device, forJobs+purpose(job))
	return around(r, s.Jobs.Takes), r.Float64() < s.Jobs.Success
}
