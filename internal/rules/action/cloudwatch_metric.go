package action

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws/iot"
	"flotilla/internal/rules/sql"
)

// metricUnits are CloudWatch's.
//
// AWS: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
var metricUnits = func() map[string]bool {
	out := map[string]bool{"None": true, "Percent": true, "Count": true, "Count/Second": true, "Seconds": true, "Microseconds": true, "Milliseconds": true}
	for _, prefix := range []string{"", "Kilo", "Mega", "Giga", "Tera"} {
		for _, unit := range []string{"Bytes", "Bits"} {
			name := prefix + unit
			if prefix != "" {
				name = prefix + strings.ToLower(unit)
			}
			out[name], out[name+"/Second"] = true, true
		}
	}
	return out
}()

const (
	// metricPast and metricFuture are how far the time of a datum may be away.
	metricPast, metricFuture = 14 * 24 * time.Hour, 2 * time.Hour
	// maxMetricText is the most characters of a namespace and of a name.
	maxMetricText = 255
)

// maxMetric is the greatest value that CloudWatch takes, 2 to the 360th.
var maxMetric = math.Ldexp(1, 360)

// compileCloudwatchMetric makes an action that adds a datum to a metric, which /metrics shows.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/cloudwatch-metrics-rule-action.html
func compileCloudwatchMetric(c *compiler, a *iot.Action) *Action {
	p := a.CloudwatchMetric
	c.role(p.RoleArn)
	s := metricSink{
		namespace: c.checked("metricNamespace", p.MetricNamespace, checkNamespace),
		name:      c.checked("metricName", p.MetricName, checkMetricName),
		unit:      c.checked("metricUnit", p.MetricUnit, checkUnit),
		value:     c.checked("metricValue", p.MetricValue, func(text string) error { _, err := parseMetric(text); return err }),
		at:        c.template("metricTimestamp", p.MetricTimestamp, sql.Generic),
	}
	return &Action{open: func(env Env) (Sink, error) {
		if env.Metrics == nil {
			return nil, errors.New("cloudwatchMetric: there are no metrics")
		}
		out := s
		out.env = env
		return &out, nil
	}}
}

func checkText(name, s string) error {
	if s == "" || utf8.RuneCountInString(s) > maxMetricText || !utf8.ValidString(s) {
		return fmt.Errorf("%s has 1 to %d characters", name, maxMetricText)
	}
	return nil
}

func checkNamespace(s string) error {
	if strings.HasPrefix(s, ":") {
		return errors.New("metricNamespace must not begin with a colon")
	}
	return checkText("metricNamespace", s)
}

func checkMetricName(s string) error { return checkText("metricName", s) }

func checkUnit(s string) error {
	if !metricUnits[s] {
		return fmt.Errorf("metricUnit %q is not a unit of CloudWatch, such as Count or None", s)
	}
	return nil
}

func parseMetric(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || math.Abs(v) > maxMetric {
		return 0, fmt.Errorf("metricValue %q is not a number that CloudWatch takes", s)
	}
	return v, nil
}

// metricSink counts. The numbers are indexes of Record.Fields; at is -1 when the action has none.
type metricSink struct {
	env                              Env
	namespace, name, unit, value, at int
}

func (s *metricSink) Do(_ context.Context, records []Record) (int, error) {
	for i := range records {
		if err := s.add(&records[i]); err != nil {
			return i, Permanent(err)
		}
	}
	return len(records), nil
}

func (s *metricSink) add(r *Record) error {
	key := series{r.Fields[s.namespace], r.Fields[s.name], r.Fields[s.unit]}
	v, err := parseMetric(r.Fields[s.value])
	if err := errors.Join(checkNamespace(key.namespace), checkMetricName(key.name), checkUnit(key.unit), err); err != nil {
		return err
	}
	at := r.Received
	if s.at >= 0 {
		seconds, err := strconv.ParseFloat(r.Fields[s.at], 64)
		if err != nil || !(math.Abs(seconds) < 1e11) {
			return fmt.Errorf("metricTimestamp %q is not a time in seconds", r.Fields[s.at])
		}
		at = time.UnixMilli(int64(seconds * 1000))
		if at.Before(r.Received.Add(-metricPast)) || at.After(r.Received.Add(metricFuture)) {
			return errors.New("metricTimestamp is more than two weeks ago or two hours ahead")
		}
	}
	return s.env.Metrics.add(key, v, at)
}

func (s *metricSink) Resource(r *Record) string {
	return r.Fields[s.namespace] + "/" + r.Fields[s.name]
}

func (s *metricSink) Close() error { return nil }

// series is what tells metrics apart.
type series struct{ namespace, name, unit string }

// sample is what is known of a series.
type sample struct {
	count     uint64
	sum, last float64
	at        time.Time // of last
}

// Metrics are those that rules make, since the start of this node: a [prometheus.Collector].
// It is safe for concurrent use.
type Metrics struct {
	most             int
	mu               sync.Mutex
	samples          map[series]*sample
	last, count, sum *prometheus.Desc
}

// NewMetrics makes a collector of at most so many series.
func NewMetrics(most int) *Metrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("flotilla_cloudwatch_metric"+name, help, []string{"namespace", "name", "unit"}, nil)
	}
	return &Metrics{
		most: most, samples: map[series]*sample{},
		last:  desc("", "Latest value that cloudwatchMetric actions gave a metric on this node."),
		count: desc("_samples_total", "Values that cloudwatchMetric actions gave a metric on this node."),
		sum:   desc("_sum", "Sum of the values that cloudwatchMetric actions gave a metric on this node."),
	}
}

func (m *Metrics) add(key series, v float64, at time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.samples[key]
	if s == nil {
		if len(m.samples) >= m.most {
			return fmt.Errorf("there are %d metrics of rules, the most that there may be (--rules.cloudwatch-series)", m.most)
		}
		s = &sample{}
		m.samples[key] = s
	}
	s.count++
	s.sum += v
	if !at.Before(s.at) {
		s.last, s.at = v, at
	}
	return nil
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(out chan<- *prometheus.Desc) { out <- m.last; out <- m.count; out <- m.sum }

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, s := range m.samples {
		labels := []string{k.namespace, k.name, k.unit}
		out <- prometheus.MustNewConstMetric(m.last, prometheus.GaugeValue, s.last, labels...)
		out <- prometheus.MustNewConstMetric(m.count, prometheus.CounterValue, float64(s.count), labels...)
		out <- prometheus.MustNewConstMetric(m.sum, prometheus.GaugeValue, s.sum, labels...)
	}
}
