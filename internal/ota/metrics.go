package ota

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	blocks  prometheus.Counter
	bytes   prometheus.Counter
	refused *prometheus.CounterVec
}

func newMetrics(to *prometheus.Registry) *metrics {
	m := &metrics{
		blocks:  prometheus.NewCounter(prometheus.CounterOpts{Name: "flotilla_ota_blocks_total", Help: "Blocks of streams that were published to things."}),
		bytes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "flotilla_ota_block_bytes_total", Help: "Bytes of files in those blocks."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flotilla_ota_refused_total", Help: "Requests of things to streams that were refused, by AWS's error code."}, []string{"code"}),
	}
	if to != nil {
		to.MustRegister(m.blocks, m.bytes, m.refused)
	}
	return m
}
