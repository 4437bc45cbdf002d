package shadow

import (
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/shadow/doc"
)

// opGet is the one operation that no history has.
const opGet = "get"

// metrics count requests, of both doors, by operation and code: 200, or that of the refusal.
type metrics struct {
	requests *prometheus.CounterVec
	accepted map[string]prometheus.Counter // by operation: most of them
	deltas   prometheus.Counter
	progress prometheus.Gauge
}

func newMetrics(r *prometheus.Registry) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "flotilla", Subsystem: "shadow", Name: "requests_total", Help: "Shadow requests over MQTT and HTTP by operation and code.",
		}, []string{"operation", "code"}),
		deltas: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "flotilla", Subsystem: "shadow", Name: "deltas_total", Help: "Updates after which desired and reported differ.",
		}),
		progress: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "flotilla", Subsystem: "shadow", Name: "requests_in_progress", Help: "Shadow requests in progress.",
		}),
		accepted: map[string]prometheus.Counter{},
	}
	for _, op := range []string{opGet, opUpdate, opDelete, opRestore} {
		m.accepted[op] = m.requests.WithLabelValues(op, "200")
	}
	if r != nil {
		r.MustRegister(m.requests, m.deltas, m.progress)
	}
	return m
}

// ended counts a request that ended with err, which may be nil.
func (m *metrics) ended(op string, err error) {
	m.progress.Dec()
	switch e, refusal := errors.AsType[*doc.Error](err); {
	case err == nil || errors.Is(err, errUnannounced):
		m.accepted[op].Inc()
	case refusal:
		m.requests.WithLabelValues(op, strconv.Itoa(e.Code)).Inc()
	default:
		m.requests.WithLabelValues(op, "500").Inc()
	}
}
