package index

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

const (
	// kindMetric is news of a fleet metric that was made, changed or deleted.
	kindMetric = "fleetmetric"
	// measureTime bounds the evaluation of a fleet metric.
	measureTime = time.Minute
	// lookForMetrics is how often the list of fleet metrics is read unasked: news may be lost.
	lookForMetrics = time.Minute
)

// meter evaluates fleet metrics, on the node that leads that: each when it is new or changed, then at the multiples of
// its period. What it finds is in the gauge flotilla_fleet_metric until the next time; a metric that can't be evaluated has
// no value there, as on AWS it has no data point.
type meter struct {
	x   *Index
	due map[string]due // by name
}

type due struct {
	version, created int64
	at               time.Time
}

// measures runs a meter until ctx ends.
func (x *Index) measures(ctx context.Context) {
	m := &meter{x: x, due: map[string]due{}}
	defer m.forgetAll()
	for {
		next, err := m.round(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			x.log.Warn("fleet metrics can't be read", "err", err)
		}
		t := time.NewTimer(next.Sub(x.now()))
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-x.meter:
		}
		t.Stop()
	}
}

// round evaluates what is due and tells when the next round is.
func (m *meter) round(ctx context.Context) (next time.Time, err error) {
	next = m.x.now().Add(lookForMetrics)
	var list []*fleetMetric
	err = m.x.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		list, err = selectMetrics(tx)
		return err
	})
	if err != nil {
		return next, err
	}
	there := map[string]bool{}
	for _, f := range list {
		there[f.MetricName] = true
		d := m.due[f.MetricName]
		if d.version != f.version || d.created != f.created || !m.x.now().Before(d.at) {
			period := time.Duration(f.Period) * time.Second
			d = due{f.version, f.created, m.x.now().Truncate(period).Add(period)}
			m.measure(ctx, f)
			m.due[f.MetricName] = d
		}
		if d.at.Before(next) {
			next = d.at
		}
	}
	for name := range m.due {
		if !there[name] {
			m.forget(name)
		}
	}
	return next, ctx.Err()
}

// measure sets the gauges of a metric.
func (m *meter) measure(ctx context.Context, f *fleetMetric) {
	at := m.x.now()
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	found := map[string]float64{}
	err := m.x.over(ctx, f.question(), func(v *values) (err error) {
		found, err = v.measure(f.AggregationType)
		return err
	})
	m.forget(f.MetricName) // values of before
	if errors.Is(ctx.Err(), context.Canceled) {
		return // another node goes on
	}
	if err != nil {
		m.x.metrics.unmeasured.Inc()
		m.x.log.Warn("a fleet metric can't be evaluated", "metric", f.MetricName, "err", err)
		return
	}
	for name, n := range found {
		m.x.metrics.fleet.WithLabelValues(f.MetricName, name).Set(n)
	}
	m.x.metrics.measured.WithLabelValues(f.MetricName).Set(float64(at.UnixMilli()) / 1000)
}

// measure gives the values that a metric asks for. Of no things there are a count and a cardinality, but no other values.
func (v *values) measure(of *iot.AggregationType) (map[string]float64, error) {
	if err := v.measurable(of); err != nil { // fields may have changed
		return nil, err
	}
	found := map[string]float64{}
	switch of.Name {
	case iot.AggregationTypeNameCardinality:
		n, err := v.cardinality()
		found[cardinality] = float64(n)
		return found, err
	case iot.AggregationTypeNamePercentiles:
		percents := make([]float64, len(of.Values))
		for i, text := range of.Values {
			percents[i], _ = strconv.ParseFloat(text, 64) // measurable has seen that it is a number
		}
		pairs, err := v.percentiles(percents)
		for i, p := range pairs {
			found[of.Values[i]] = value(p.Value)
		}
		return found, err
	}
	st, err := v.statistics()
	if err != nil {
		return nil, err
	}
	for _, name := range of.Values {
		if n := statistics[name](st); n != nil {
			found[name] = *n
		}
	}
	return found, nil
}

func (m *meter) forget(name string) {
	delete(m.due, name)
	m.x.metrics.fleet.DeletePartialMatch(prometheus.Labels{"metric": name})
	m.x.metrics.measured.DeleteLabelValues(name)
}

// forgetAll takes the values off the gauges: another node has newer ones.
func (m *meter) forgetAll() {
	for name := range m.due {
		m.forget(name)
	}
}
