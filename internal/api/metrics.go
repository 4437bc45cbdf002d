package api

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count requests by what was asked and how it ended. The label operation
// is "" for what never got to one, so that strangers can't make series.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMetrics(r *prometheus.Registry) *metrics {
	if r == nil {
		return nil
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flotilla_api_requests_total", Help: "API requests by operation and HTTP status.",
		}, []string{"operation", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "flotilla_api_request_seconds", Help: "Time from the header of an API request to its answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 10),
		}, []string{"service"}),
	}
	r.MustRegister(m.requests, m.duration)
	return m
}

func (m *metrics) observe(x *exchange) {
	if m == nil {
		return
	}
	m.requests.WithLabelValues(x.op(), strconv.Itoa(x.status)).Inc()
	service := ""
	if x.endpoint != nil {
		service = x.endpoint.Service
	}
	m.duration.WithLabelValues(service).Observe(x.s.now().Sub(x.start).Seconds())
}
