package rules_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws/flotilla"
	"flotilla/internal/aws/iot"
	"flotilla/internal/rules"
)

// states are the alarms' as name, state and reason.
func states(t *testing.T, e *rules.Engine) (out [][3]string) {
	t.Helper()
	list, err := e.ListAlarms(t.Context(), &flotilla.ListAlarmsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list.Alarms {
		out = append(out, [3]string{*a.AlarmName, *a.StateValue, *a.StateReason})
		if *a.RuleName != "r" || a.StateChanged.After(a.StateUpdated.Time) {
			t.Errorf("%s was set by %s, changed %s, updated %s", *a.AlarmName, *a.RuleName, a.StateChanged, a.StateUpdated)
		}
	}
	return out
}

// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/cloudwatch-alarms-rule-action.html
func TestCloudwatchAlarm(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		registry := prometheus.NewRegistry()
		w.ext = func(d *rules.Deps) { d.Metrics = registry }
		w.cfg.MaxAlarms = 2
		e := w.start(t)
		p := payload("SELECT * FROM 'in'", &iot.Action{CloudwatchAlarm: &iot.CloudwatchAlarmAction{
			RoleArn: role, AlarmName: "${name}", StateReason: "it is ${celsius} degrees", StateValue: "${state}",
		}})
		p.ErrorAction = republish("err")
		create(t, e, "r", p)
		w.mustPublish(t, e, "in", `{"name":"Hot","state":"ALARM","celsius":90}`)
		w.mustPublish(t, e, "in", `{"name":"Cold","state":"INSUFFICIENT_DATA","celsius":20}`)
		w.mustPublish(t, e, "in", `{"name":"Hot","state":"WORSE","celsius":99}`)
		w.mustPublish(t, e, "in", `{"name":"Third","state":"OK","celsius":1}`)
		w.mustPublish(t, e, "in", `{"name":"Hot","state":"OK","celsius":30}`)
		eventually(t, "the failures", func() bool { return len(failures(t, w)) == 2 })
		want := [][3]string{{"Cold", "INSUFFICIENT_DATA", "it is 20 degrees"}, {"Hot", "OK", "it is 30 degrees"}}
		eventually(t, "the states", func() bool { return cmp.Equal(want, states(t, e)) })

		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			if f.GetName() != "flotilla_cloudwatch_alarm" {
				continue
			}
			for _, m := range f.GetMetric() {
				got[m.GetLabel()[0].GetValue()+" "+m.GetLabel()[1].GetValue()] = m.GetGauge().GetValue()
			}
		}
		metrics := map[string]float64{
			"Hot OK": 1, "Hot ALARM": 0, "Hot INSUFFICIENT_DATA": 0, "Cold OK": 0, "Cold ALARM": 0, "Cold INSUFFICIENT_DATA": 1,
		}
		if diff := cmp.Diff(metrics, got); diff != "" {
			t.Error(diff)
		}

		if _, err := e.DeleteAlarm(t.Context(), &flotilla.DeleteAlarmRequest{AlarmName: "Cold"}); err != nil {
			t.Fatal(err)
		}
		_, err = e.DeleteAlarm(t.Context(), &flotilla.DeleteAlarmRequest{AlarmName: "Cold"})
		isA[*flotilla.ResourceNotFoundException](t, err)
		stop(t, e)
		w.ext = nil // the registry has the metrics of the engine before
		if diff := cmp.Diff(want[1:], states(t, w.start(t))); diff != "" {
			t.Errorf("after a restart: %s", diff)
		}
	})
}
