package index

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	documents  prometheus.Counter
	lost       prometheus.Counter
	fleet      *prometheus.GaugeVec
	measured   *prometheus.GaugeVec
	unmeasured prometheus.Counter
}

func newMetrics(to *prometheus.Registry) *metrics {
	m := &metrics{
		documents: prometheus.NewCounter(prometheus.CounterOpts{Name: "flotilla_index_documents_total", Help: "Documents that were written to the fleet index."}),
		lost:      prometheus.NewCounter(prometheus.CounterOpts{Name: "flotilla_index_rebuilds_total", Help: "Times that everything was to be indexed anew."}),
		fleet: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "flotilla_fleet_metric", Help: "Fleet metrics, as last evaluated, on the node that evaluates them. value is one of the metric's aggregationType."},
			[]string{"metric", "value"}),
		measured: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "flotilla_fleet_metric_timestamp_seconds", Help: "When fleet metrics were last evaluated, on the node that evaluates them."},
			[]string{"metric"}),
		unmeasured: prometheus.NewCounter(prometheus.CounterOpts{Name: "flotilla_fleet_metric_failures_total", Help: "Evaluations of fleet metrics that failed; they have no value until the next one."}),
	}
	if to != nil {
		to.MustRegister(m.documents, m.lost, m.fleet, m.measured, m.unmeasured)
	}
	return m
}
