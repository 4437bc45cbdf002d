package function

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count calls. There are as many label values as configured functions.
type metrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newMetrics(r *prometheus.Registry) *metrics {
	if r == nil {
		return nil
	}
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "flotilla", Subsystem: "function", Name: "calls_total", Help: "Calls of functions by outcome.",
		}, []string{"function", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "flotilla", Subsystem: "function", Name: "seconds", Help: "How long calls of functions took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 3, 10),
		}, []string{"function"}),
	}
	r.MustRegister(m.calls, m.seconds)
	return m
}

func (m *metrics) observe(function string, err error, took time.Duration) {
	if m == nil {
		return
	}
	outcome := "failed"
	_, throttled := errors.AsType[*ThrottledError](err)
	switch {
	case err == nil:
		outcome = "ok"
	case throttled:
		outcome = "throttled"
	case errors.Is(err, context.DeadlineExceeded):
		outcome = "timeout"
	}
	m.calls.WithLabelValues(function, outcome).Inc()
	m.seconds.WithLabelValues(function).Observe(took.Seconds())
}
