package index

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	documents prometheus.Counter
	lost      prometheus.Counter
	fleet     *prometheus.GaugeVec
}

func newMetrics(to *prometheus.Registry) *metrics {
	m := &metrics{
		documents: prometheus.NewCounter(prometheus.CounterOpts{Name: "flotilla_index_documents_total", Help: "Documents that were written to the fleet index."}),
		lost:      prometheus.NewCounter(prometheus.CounterOpts{Name: "flotilla_index_rebuilds_total", Help: "Times that everything was to be indexed anew."}),
		fleet: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "flotilla_fleet_metric", Help: "Fleet metrics, as last evaluated by this node."},
			[]string{"metric", "value"}),
	}
	if to != nil {
		to.MustRegister(m.documents, m.lost, m.fleet)
	}
	return m
}
