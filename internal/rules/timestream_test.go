package rules_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flotilla/internal/aws/flotilla"
	"flotilla/internal/aws/iot"
	"flotilla/internal/rules"
	"flotilla/internal/telemetry/live"
)

func openTelemetry(t testing.TB, w *world) *live.Store {
	t.Helper()
	s, err := live.Open(live.Config{}, live.Deps{Dir: filepath.Join(w.dir, "telemetry")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	w.ext = func(d *rules.Deps) { d.Telemetry = s }
	return s
}

func timestream(value string, stamp *iot.TimestreamTimestamp) *iot.Action {
	return &iot.Action{Timestream: &iot.TimestreamAction{
		RoleArn: role, DatabaseName: "factory", TableName: "pumps", Timestamp: stamp,
		Dimensions: []*iot.TimestreamDimension{{Name: "thing", Value: value}, {Name: "site", Value: "${topic(1)}"}},
	}}
}

func history(t testing.TB, s *live.Store, thing string) (out []string) {
	t.Helper()
	got, err := s.SearchTelemetry(context.Background(), &flotilla.SearchTelemetryRequest{Dimensions: map[string]string{"thing": thing}, Since: new(int64(0))})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range got.Points {
		out = append(out, fmt.Sprint(*p.Measure, " ", *p.Type, " ", *p.Value))
	}
	return out
}

// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/timestream-rule-action.html
func TestTimestream(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		s := openTelemetry(t, w)
		e := w.start(t)
		p := payload("SELECT t, on, n, name, nested, missing FROM 'in/+'", timestream("${clientid()}", nil))
		p.ErrorAction = republish("err")
		create(t, e, "r", p)
		w.mustPublish(t, e, "in/a", `{"t":20.5,"on":true,"n":3,"name":"x","nested":{"a":[1]},"missing":null}`)
		eventually(t, "the points", func() bool { return len(history(t, s, "c1")) == 5 })
		if got := strings.Join(history(t, s, "c1"), "; "); got != `t DOUBLE 20.5; on BOOLEAN true; n BIGINT 3; name VARCHAR x; nested VARCHAR {"a":[1]}` {
			t.Error(got)
		}
		w.mustPublish(t, e, "in/a", `{"missing":null}`)
		eventually(t, "the failure", func() bool { return len(failures(t, w)) == 1 })
		if got := failures(t, w)[0]; !strings.Contains(got, "no measures") {
			t.Error(got)
		}
	})
}

// Messages of one thing and time leave the latest of them; those outside of what is kept go to the error action.
func TestTimestreamTime(t *testing.T) {
	w := newWorld(t, openDB(t))
	s := openTelemetry(t, w)
	e := w.start(t)
	p := payload("SELECT v FROM 'in/+'", timestream("${topic(2)}", &iot.TimestreamTimestamp{Value: "${at}", Unit: "SECONDS"}))
	p.ErrorAction = republish("err")
	create(t, e, "r", p)
	at := time.Now().Add(-48 * time.Hour).Unix()
	for v := range 3 {
		w.mustPublish(t, e, "in/a", fmt.Sprintf(`{"v":%d,"at":%d}`, v, at))
	}
	w.mustPublish(t, e, "in/a", `{"v":1,"at":1}`)
	w.mustPublish(t, e, "in/a", `{"v":1,"at":"noon"}`)
	eventually(t, "the failures", func() bool { return len(failures(t, w)) == 2 })
	if got := failures(t, w); !strings.Contains(got[0], "RejectedRecordsException") || !strings.Contains(got[1], "timestamp.value") {
		t.Errorf("%q", got)
	}
	if got := history(t, s, "a"); len(got) != 1 || got[0] != "v BIGINT 2" {
		t.Errorf("%q", got)
	}
}

func TestTimestreamRefused(t *testing.T) {
	w := newWorld(t, openDB(t))
	openTelemetry(t, w)
	e := w.start(t)
	for want, change := range map[string]func(*iot.TimestreamAction){
		"databaseName":   func(a *iot.TimestreamAction) { a.DatabaseName = "a/b" },
		"tableName":      func(a *iot.TimestreamAction) { a.TableName = "t" },
		"timestamp.unit": func(a *iot.TimestreamAction) { a.Timestamp = &iot.TimestreamTimestamp{Value: "1", Unit: "HOURS"} },
		"twice":          func(a *iot.TimestreamAction) { a.Dimensions[1].Name = "thing" },
		"measure_name":   func(a *iot.TimestreamAction) { a.Dimensions[0].Name = "measure_name" },
		"roleArn":        func(a *iot.TimestreamAction) { a.RoleArn = "x" },
	} {
		a := timestream("x", nil)
		change(a.Timestream)
		_, err := e.CreateTopicRule(context.Background(), &iot.CreateTopicRuleRequest{RuleName: "r", TopicRulePayload: payload("SELECT * FROM 'a'", a)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
