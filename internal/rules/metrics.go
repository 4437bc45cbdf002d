package rules

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what AWS counts in CloudWatch, by rule and action.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/metrics_dimensions.html
type metrics struct {
	match, sqlError            *prometheus.CounterVec // TopicMatch, ParseError: rule
	success, failure, refused  *prometheus.CounterVec // rule, action
	notFound                   prometheus.Counter     // RuleNotFound
	notFoundLogged             occasional
	backlogRows, backlogBytes  *prometheus.Desc
	errorSuccess, errorFailure *prometheus.CounterVec // ErrorActionSuccess, -Failure: rule, action
	dropped                    *prometheus.CounterVec // rule, action
}

func newMetrics(to prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "flotilla", Subsystem: "rules", Name: name, Help: help}, labels)
	}
	m := &metrics{
		match:        counter("topic_match_total", "Messages on a topic of the rule's FROM.", "rule"),
		sqlError:     counter("parse_error_total", "Messages that the rule's SQL failed on.", "rule"),
		success:      counter("success_total", "Messages that an action was executed for.", "rule", "action"),
		failure:      counter("failure_total", "Messages that an action failed on for good.", "rule", "action"),
		refused:      counter("refused_total", "Messages that were refused because an action's outbox is full.", "rule", "action"),
		errorSuccess: counter("error_action_success_total", "Failures that the error action was executed for.", "rule", "action"),
		errorFailure: counter("error_action_failure_total", "Failures that the error action failed on for good.", "rule", "action"),
		dropped:      counter("dropped_total", "Messages that failed for good in an action without error action.", "rule", "action"),
		notFound: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "flotilla", Subsystem: "rules", Name: "rule_not_found_total", Help: "Basic Ingest messages for a rule that does not exist or is disabled.",
		}),
		backlogRows:  prometheus.NewDesc("flotilla_rules_backlog_messages", "Messages that wait for an action on this node.", []string{"rule", "action", "id"}, nil),
		backlogBytes: prometheus.NewDesc("flotilla_rules_backlog_bytes", "Bytes that wait for an action on this node.", []string{"rule", "action", "id"}, nil),
	}
	if to != nil {
		to.MustRegister(m.match, m.sqlError, m.success, m.failure, m.refused, m.errorSuccess, m.errorFailure, m.dropped, m.notFound)
	}
	return m
}

// ruleCounters are a rule's, looked up once.
type ruleCounters struct {
	match, sqlError prometheus.Counter
	logged          occasional // failures of the SQL
}

// logEvery keeps what each message may cause from filling the log.
const logEvery = time.Minute

// occasional is when something was last logged, in ms.
type occasional struct{ at atomic.Int64 }

// due tells whether it is to be logged now.
func (o *occasional) due(now time.Time) bool {
	last, ms := o.at.Load(), now.UnixMilli()
	return ms-last >= logEvery.Milliseconds() && o.at.CompareAndSwap(last, ms)
}

func (m *metrics) rule(name string) *ruleCounters {
	return &ruleCounters{match: m.match.WithLabelValues(name), sqlError: m.sqlError.WithLabelValues(name)}
}

// queueCounters are an action's, looked up once.
type queueCounters struct{ success, failure, refused, dropped prometheus.Counter }

func (m *metrics) action(rule, kind string, errorAction bool) queueCounters {
	c := queueCounters{
		success: m.success.WithLabelValues(rule, kind), failure: m.failure.WithLabelValues(rule, kind),
		refused: m.refused.WithLabelValues(rule, kind), dropped: m.dropped.WithLabelValues(rule, kind),
	}
	if errorAction {
		c.success, c.failure = m.errorSuccess.WithLabelValues(rule, kind), m.errorFailure.WithLabelValues(rule, kind)
	}
	return c
}

// forget drops what was counted for a rule that is gone.
func (m *metrics) forget(rule string) {
	for _, v := range []*prometheus.CounterVec{m.match, m.sqlError} {
		v.DeleteLabelValues(rule)
	}
}

// forgetActions drops what was counted for actions of a rule that is gone.
func (m *metrics) forgetActions(rule string) {
	for _, v := range []*prometheus.CounterVec{m.success, m.failure, m.refused, m.errorSuccess, m.errorFailure, m.dropped} {
		v.DeletePartialMatch(prometheus.Labels{"rule": rule})
	}
}

// backlogs collects how much waits for each action.
type backlogs struct{ e *Engine }

func (b backlogs) Describe(to chan<- *prometheus.Desc) {
	to <- b.e.metrics.backlogRows
	to <- b.e.metrics.backlogBytes
}

func (b backlogs) Collect(to chan<- prometheus.Metric) {
	for _, s := range b.e.Status() {
		labels := []string{s.Rule, s.Action, s.ID}
		to <- prometheus.MustNewConstMetric(b.e.metrics.backlogRows, prometheus.GaugeValue, float64(s.Rows), labels...)
		to <- prometheus.MustNewConstMetric(b.e.metrics.backlogBytes, prometheus.GaugeValue, float64(s.Bytes), labels...)
	}
}
