package gateway

import "github.com/prometheus/client_golang/prometheus"

// metrics of the gateway.
type metrics struct {
	registry   *prometheus.Registry
	in, out    prometheus.Counter
	refused    prometheus.Counter
	connects   *prometheus.CounterVec
	drops      *prometheus.CounterVec
	handshakes prometheus.Counter
	failed     prometheus.Counter
	evicted    prometheus.Counter
	crowded    prometheus.Counter
	silent     prometheus.Counter
	full       prometheus.Counter
}

func newMetrics(r *prometheus.Registry) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "flotilla", Subsystem: "gateway", Name: name, Help: help})
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "flotilla", Subsystem: "gateway", Name: name, Help: help}, labels)
	}
	m := &metrics{
		registry:   r,
		in:         counter("messages_in_total", "Messages that clients published."),
		out:        counter("messages_out_total", "Messages handed to clients."),
		refused:    counter("publishes_refused_total", "Messages that the publisher may not publish."),
		connects:   vec("connects_total", "CONNECT packets by result.", "result"),
		drops:      vec("messages_dropped_total", "Messages not delivered, or not taken, by reason.", "reason"),
		handshakes: counter("handshakes_total", "TLS handshakes that succeeded."),
		failed:     counter("handshakes_failed_total", "TLS handshakes that failed."),
		evicted:    counter("pending_evicted_total", "Connections closed before their CONNECT because others needed their place."),
		crowded:    counter("pending_refused_total", "Connections closed at once because too many from their address have not sent their CONNECT."),
		silent:     counter("pending_silent_total", "Connections closed because they sent nothing."),
		full:       counter("queues_full_total", "Full queues that messages were refused for; the log names them."),
	}
	if r != nil {
		r.MustRegister(m.in, m.out, m.refused, m.connects, m.drops, m.handshakes, m.failed, m.evicted, m.crowded, m.silent, m.full)
	}
	return m
}

func (m *metrics) dropped(reason string) { m.drops.WithLabelValues(reason).Inc() }

// observe adds what is read when asked for.
func (m *metrics) observe(g *Gateway) {
	if m.registry == nil {
		return
	}
	gauge := func(name, help string, fn func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "flotilla", Subsystem: "gateway", Name: name, Help: help}, fn))
	}
	gauge("connections", "Connections after their CONNECT.", func() float64 { return float64(g.connected.Load()) })
	gauge("out_bytes", "Bytes that wait for slow clients.", func() float64 { return float64(g.outBytes.Load()) })
	gauge("workers_waiting", "Connections that wait for a worker.", func() float64 { return float64(g.workers.waiting()) })
	gauge("queued_bytes", "Bytes queued for sessions.", func() float64 { return float64(g.sessions.TotalBytes()) })
	gauge("retained_messages", "Retained messages, about.", func() float64 { return float64(g.sessions.RetainedMessages()) })
	gauge("handshakes_pending", "Connections that have not sent their CONNECT yet.", func() float64 { return float64(g.door.pending()) })
}
