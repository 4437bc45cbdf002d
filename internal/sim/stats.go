package sim

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// stats counts what happens in a run. It is safe for concurrent use.
type stats struct {
	enrolled, connects, dropOuts, lost, refused, unanswered, workRefused, again atomic.Int64
	arrived, repeated, strange, sessionsLost                                    atomic.Int64
	desiredWritten, desiredReported                                             atomic.Int64
	acks, convergence                                                           histogram

	mu                    sync.Mutex
	lastLoss, lastRefusal string

	failures []string    // of the last look at the end
	jobs     []JobReport // as well
}

// lose counts a connection that ended, or was not to be had, without an outage.
func (s *stats) lose(err error) {
	s.lost.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastLoss = err.Error()
}

// refuse counts a request that the service refused.
func (s *stats) refuse(what, why string) {
	s.refused.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastRefusal = what + ": " + why
}

// histogram counts durations in buckets, each an eighth of a power of two of microseconds wide.
type histogram struct {
	buckets [8 * 40]atomic.Int64
}

func (h *histogram) add(d time.Duration) {
	us := uint64(max(d.Microseconds(), 8))
	power := bits.Len64(us) - 4 // us>>power is 8 to 15
	h.buckets[min(8*power+int(us>>power)-8, len(h.buckets)-1)].Add(1)
}

// milliseconds gives the upper bound of the bucket in which the quantile is; 0 when nothing was counted.
func (h *histogram) milliseconds(q float64) float64 {
	total := int64(0)
	for i := range h.buckets {
		total += h.buckets[i].Load()
	}
	rank := int64(q * float64(total))
	for i := range h.buckets {
		if rank -= h.buckets[i].Load(); rank < 0 {
			return float64(uint64(i%8+9)<<(i/8)) / 1000
		}
	}
	return 0
}
