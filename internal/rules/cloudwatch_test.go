package rules_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws/iot"
	"flotilla/internal/loggroup"
	"flotilla/internal/rules"
)

// withLogs gives engines log groups in a directory.
func (w *world) withLogs(cfg loggroup.Config) (dir string) {
	dir = filepath.Join(w.dir, "logs")
	w.ext = func(d *rules.Deps) { d.Logs = loggroup.Open(dir, cfg) }
	return dir
}

func cloudwatchLogs(group string, batch bool) *iot.Action {
	return &iot.Action{CloudwatchLogs: &iot.CloudwatchLogsAction{RoleArn: role, LogGroupName: group, BatchMode: &batch}}
}

// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/cloudwatch-logs-rule-action.html
func TestCloudwatchLogs(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		dir := w.withLogs(loggroup.Config{Groups: 2})
		e := w.start(t)
		create(t, e, "plain", payload("SELECT * FROM 'plain/+'", cloudwatchLogs("/iot/${topic(2)}", false)))
		p := payload("SELECT VALUE * FROM 'batch'", cloudwatchLogs("/iot/batch", true))
		p.ErrorAction = republish("err")
		create(t, e, "batch", p)

		w.mustPublish(t, e, "plain/lamp", `{"on":true}`)
		now := time.Now().UnixMilli()
		w.mustPublish(t, e, "batch", fmt.Sprintf(`[{"timestamp":%d,"message":"Test message 1"},{"timestamp":%d,"message":"Test message 2"}]`, now-60_000, now))
		bad := []string{`{"timestamp":1,"message":"x"}`, `[]`, `[{"message":"x"}]`, `[{"timestamp":1673520691093,"message":"old"}]`, fmt.Sprintf(`[{"timestamp":%d,"message":""}]`, now)}
		for _, b := range bad {
			w.mustPublish(t, e, "batch", b)
		}
		eventually(t, "the failures", func() bool { return len(failures(t, w)) == len(bad) })
		eventually(t, "an empty outbox", func() bool { return w.pending(t) == 0 })

		got, err := loggroup.Tail(dir, "/iot/lamp", 10)
		if err != nil || len(got) != 1 || got[0].Message != `{"on":true}` || got[0].Timestamp < now-60_000 {
			t.Errorf("%+v %v", got, err)
		}
		got, err = loggroup.Tail(dir, "/iot/batch", 10)
		if err != nil || len(got) != 2 || got[0].Message != "Test message 1" || got[0].Timestamp != now-60_000 || got[1].Message != "Test message 2" {
			t.Errorf("%+v %v", got, err)
		}
	})
}

// A log group that can't be written keeps its messages in the outbox, and a new start writes them.
func TestCloudwatchLogsWait(t *testing.T) {
	w := newWorld(t, openDB(t))
	w.cfg.Drain = time.Millisecond
	w.withLogs(loggroup.Config{Groups: 1})
	e := w.start(t)
	create(t, e, "r", payload("SELECT * FROM 'in/+'", cloudwatchLogs("${topic(2)}", false)))
	w.mustPublish(t, e, "in/a", `{}`)
	eventually(t, "an empty outbox", func() bool { return w.pending(t) == 0 })
	w.mustPublish(t, e, "in/b", `{"b":1}`)
	eventually(t, "a failed attempt", func() bool { s := e.Status(); return len(s) == 1 && s[0].LastFailure != nil })
	if got := e.Status()[0].LastFailure.Message; !strings.Contains(got, "--logs.max-groups") {
		t.Errorf("failure %q", got)
	}
	stop(t, e)
	dir := w.withLogs(loggroup.Config{})
	w.start(t)
	eventually(t, "the message", func() bool {
		got, err := loggroup.Tail(dir, "b", 1)
		return err == nil && len(got) == 1 && got[0].Message == `{"b":1}`
	})
}

func cloudwatchMetric(name, value, unit string, at *string) *iot.Action {
	return &iot.Action{CloudwatchMetric: &iot.CloudwatchMetricAction{
		RoleArn: role, MetricNamespace: "Fleet", MetricName: name, MetricValue: value, MetricUnit: unit, MetricTimestamp: at,
	}}
}

// gathered gives what a registry has of the metrics of rules, as name{labels} value.
func gathered(t *testing.T, from prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "flotilla_cloudwatch_metric") {
			continue
		}
		for _, m := range f.GetMetric() {
			key := strings.TrimPrefix(f.GetName(), "flotilla_cloudwatch_metric")
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			out[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/cloudwatch-metrics-rule-action.html
func TestCloudwatchMetric(t *testing.T) {
	w := newWorld(t, openDB(t))
	registry := prometheus.NewRegistry()
	w.ext = func(d *rules.Deps) { d.Metrics = registry }
	w.cfg.CloudwatchSeries = 2
	e := w.start(t)
	p := payload("SELECT * FROM 'in'", cloudwatchMetric("${name}", "${value}", "${unit}", new("${at}")))
	p.ErrorAction = republish("err")
	create(t, e, "r", p)
	send := func(name string, value any, unit string, at int64) {
		t.Helper()
		b, err := json.Marshal(map[string]any{"name": name, "value": value, "unit": unit, "at": at})
		if err != nil {
			t.Fatal(err)
		}
		w.mustPublish(t, e, "in", string(b))
	}
	now := time.Now().Unix()
	send("Battery", 50, "Percent", now)
	send("Battery", -10.5, "Percent", now-60) // late: not the latest
	send("Starts", 1, "Count", now)
	for _, bad := range []struct {
		name  string
		value any
		unit  string
		at    int64
	}{{"Third", 1, "Count", now}, {"Starts", "much", "Count", now}, {"Starts", 1, "Dozen", now}, {"Starts", 1, "Count", now - 15*24*3600}, {"", 1, "Count", now}} {
		send(bad.name, bad.value, bad.unit, bad.at)
	}
	eventually(t, "the failures", func() bool { return len(failures(t, w)) == 5 })
	want := map[string]float64{
		" Battery Fleet Percent": 50, "_sum Battery Fleet Percent": 39.5, "_samples_total Battery Fleet Percent": 2,
		" Starts Fleet Count": 1, "_sum Starts Fleet Count": 1, "_samples_total Starts Fleet Count": 1,
	}
	if diff := cmp.Diff(want, gathered(t, registry)); diff != "" {
		t.Error(diff)
	}
	if got := failures(t, w)[0]; !strings.Contains(got, "--rules.cloudwatch-series") {
		t.Errorf("the third metric: %q", got)
	}
}
