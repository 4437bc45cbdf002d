package index_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/index"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// gauges are the values of fleet metrics, sorted.
func (w *world) gauges() string {
	w.t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	var list []string
	for _, f := range families {
		if f.GetName() != "flotilla_fleet_metric" {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			list = append(list, fmt.Sprintf("%s=%g", strings.Join(labels, "."), m.GetGauge().GetValue()))
		}
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func (w *world) metric(name, query, field, typ string, values ...string) error {
	_, err := w.CreateFleetMetric(w.ctx, &iot.CreateFleetMetricRequest{
		MetricName: name, QueryString: query, AggregationField: field, Period: 60, AggregationType: &iot.AggregationType{Name: typ, Values: values},
	})
	return err
}

const battery = "shadow.reported.battery"

// A fleet metric is evaluated when it is new or changed, and then once a period.
func TestFleetMetricsAreEvaluated(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, index.Config{})
		w.index(everything)
		for i := range 5 {
			name := fmt.Sprint("t", i)
			w.thing(name, map[string]string{"model": []string{"pro", "basic"}[i%2]})
			w.shadow(name, "", fmt.Sprintf(`{"state":{"reported":{"battery":%d}}}`, 10*(i+1)))
		}
		w.settle()
		start := time.Unix(1_800_000_000, 0).Add(20 * time.Second)
		w.clock.Store(start.UnixMilli())
		round := w.Meter()
		expect := func(when, want string) {
			t.Helper()
			next, err := round(w.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if now := time.UnixMilli(w.clock.Load()); next.Before(now) || next.After(now.Add(time.Minute)) {
				t.Errorf("%s: at %s the next round is at %s", when, now, next)
			}
			if got := w.gauges(); got != want {
				t.Errorf("%s: %s\n instead of %s", when, got, want)
			}
		}
		for _, err := range []error{
			w.metric("level", "*", battery, "Statistics", "count", "average", "maximum"),
			w.metric("spread", "*", battery, "Percentiles", "0", "50"),
			w.metric("models", "*", "attributes.model", "Cardinality"),
			w.metric("empty", battery+">1000", battery, "Statistics", "count", "average"),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		expect("new", "empty.count=0 level.average=30 level.count=5 level.maximum=50 models.cardinality=2 spread.0=10 spread.50=30")
		w.shadow("t4", "", `{"state":{"reported":{"battery":100}}}`)
		w.settle()
		w.clock.Add(39_000)
		expect("within the period", "empty.count=0 level.average=30 level.count=5 level.maximum=50 models.cardinality=2 spread.0=10 spread.50=30")
		w.clock.Add(1_000) // a full minute
		expect("after the period", "empty.count=0 level.average=40 level.count=5 level.maximum=100 models.cardinality=2 spread.0=10 spread.50=30")
		ok[*iot.UpdateFleetMetricResponse](t)(w.UpdateFleetMetric(w.ctx, &iot.UpdateFleetMetricRequest{
			MetricName: "level", IndexName: "AWS_Things", QueryString: new("attributes.model:basic"),
			AggregationType: &iot.AggregationType{Name: "Statistics", Values: []string{"sum"}},
		}))
		ok[*iot.DeleteFleetMetricResponse](t)(w.DeleteFleetMetric(w.ctx, &iot.DeleteFleetMetricRequest{MetricName: "spread"}))
		expect("changed", "empty.count=0 level.sum=60 models.cardinality=2")
		w.index(&iot.ThingIndexingConfiguration{ThingIndexingMode: "REGISTRY", CustomFields: []*iot.Field{{Name: new("attributes.model"), Type: new("String")}}})
		w.clock.Add(60_000)
		expect("with shadows no longer indexed", "models.cardinality=2")
		w.index(everything)
		w.clock.Add(60_000)
		expect("with shadows indexed again", "empty.count=0 level.sum=60 models.cardinality=2")
	})
}

// The node that leads evaluates on its own, and its gauges go when it leads no longer.
func TestFleetMetricsOfTheLeader(t *testing.T) {
	w := newWorld(t, storetest.Open(t), index.Config{})
	w.index(everything)
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Measures(ctx)
	}()
	if err := w.metric("things", "*", "registry.version", "Statistics", "count"); err != nil {
		t.Fatal(err)
	}
	for w.gauges() != "things.count=0" {
		select {
		case <-ctx.Done():
			t.Fatal("the metric is not evaluated")
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	<-done
	if got := w.gauges(); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

func TestFleetMetricOperations(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, index.Config{MaxFleetMetrics: 3})
		if err := w.metric("m", "*", "registry.version", "Statistics", "count"); !errors.As(err, new(*iot.ResourceNotFoundException)) {
			t.Errorf("with indexing off: %v", err)
		}
		w.index(everything)
		in := &iot.CreateFleetMetricRequest{
			MetricName: "m.1", QueryString: "attributes.model:pro", AggregationField: battery, Period: 120, Unit: new("Percent"), Description: new("level"),
			AggregationType: &iot.AggregationType{Name: "Statistics", Values: []string{"average"}}, Tags: []*iot.Tag{{Key: "team", Value: new("a")}},
		}
		const arn = "arn:aws:iot:us-east-1:123456789012:fleetmetric/m.1"
		for range 2 { // the second call finds it
			if out := ok[*iot.CreateFleetMetricResponse](t)(w.CreateFleetMetric(w.ctx, in)); *out.MetricArn != arn || *out.MetricName != "m.1" {
				t.Errorf("created %s %s", *out.MetricName, *out.MetricArn)
			}
		}
		if err := w.metric("m.1", "*", battery, "Cardinality"); !errors.As(err, new(*iot.ResourceAlreadyExistsException)) {
			t.Errorf("another of the name: %v", err)
		}
		if tags := ok[*iot.ListTagsForResourceResponse](t)(w.registry.ListTagsForResource(w.ctx, &iot.ListTagsForResourceRequest{ResourceArn: arn})).Tags; len(tags) != 1 {
			t.Errorf("tags: %v", tags)
		}
		update := func(in *iot.UpdateFleetMetricRequest) error {
			in.MetricName, in.IndexName = "m.1", "AWS_Things"
			_, err := w.UpdateFleetMetric(w.ctx, in)
			return err
		}
		w.clock.Add(5000)
		if err := update(&iot.UpdateFleetMetricRequest{Period: new(int32(60)), ExpectedVersion: new(int64(1))}); err != nil {
			t.Error(err)
		}
		d := ok[*iot.DescribeFleetMetricResponse](t)(w.DescribeFleetMetric(w.ctx, &iot.DescribeFleetMetricRequest{MetricName: "m.1"}))
		if *d.Period != 60 || *d.Version != 2 || *d.QueryString != in.QueryString || *d.QueryVersion != "2017-09-30" || *d.IndexName != "AWS_Things" ||
			*d.Unit != "Percent" || *d.Description != "level" || *d.AggregationField != battery || d.AggregationType.Values[0] != "average" ||
			*d.MetricArn != arn || d.LastModifiedDate.Sub(d.CreationDate.Time) != 5*time.Second {
			t.Errorf("described: %+v", d)
		}
		for name, c := range map[string]struct{ err, as error }{
			"version":        {update(&iot.UpdateFleetMetricRequest{ExpectedVersion: new(int64(1))}), &iot.VersionConflictException{}},
			"bad query":      {update(&iot.UpdateFleetMetricRequest{QueryString: new("a AND")}), &iot.InvalidQueryException{}},
			"no number":      {update(&iot.UpdateFleetMetricRequest{AggregationField: new("attributes.model")}), &iot.InvalidAggregationException{}},
			"no field":       {w.metric("n", "*", "attributes.none", "Cardinality"), &iot.InvalidAggregationException{}},
			"no values":      {w.metric("n", "*", battery, "Statistics"), &iot.InvalidAggregationException{}},
			"not a value":    {w.metric("n", "*", battery, "Statistics", "median"), &iot.InvalidAggregationException{}},
			"twice":          {w.metric("n", "*", battery, "Statistics", "sum", "sum"), &iot.InvalidAggregationException{}},
			"not a percent":  {w.metric("n", "*", battery, "Percentiles", "101"), &iot.InvalidAggregationException{}},
			"percentile":     {w.metric("n", "*", "attributes.model", "Percentiles", "50"), &iot.InvalidAggregationException{}},
			"period":         {update(&iot.UpdateFleetMetricRequest{Period: new(int32(90))}), &iot.InvalidRequestException{}},
			"another's":      {second(w.DescribeFleetMetric(w.ctx, &iot.DescribeFleetMetricRequest{MetricName: "n"})), &iot.ResourceNotFoundException{}},
			"update no one":  {second(w.UpdateFleetMetric(w.ctx, &iot.UpdateFleetMetricRequest{MetricName: "n", IndexName: "AWS_Things"})), &iot.ResourceNotFoundException{}},
			"delete version": {second(w.DeleteFleetMetric(w.ctx, &iot.DeleteFleetMetricRequest{MetricName: "m.1", ExpectedVersion: new(int64(7))})), &iot.VersionConflictException{}},
		} {
			if fmt.Sprintf("%T", c.err) != fmt.Sprintf("%T", c.as) {
				t.Errorf("%s: %T %v instead of %T", name, c.err, c.err, c.as)
			}
		}
		for _, name := range []string{"a", "b"} {
			if err := w.metric(name, "*", "attributes.model", "Statistics", "count"); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.metric("c", "*", "attributes.model", "Statistics", "count"); !errors.As(err, new(*iot.LimitExceededException)) {
			t.Errorf("one too many: %v", err)
		}
		var names []string
		for page := (&iot.ListFleetMetricsRequest{MaxResults: new(int32(2))}); ; {
			out := ok[*iot.ListFleetMetricsResponse](t)(w.ListFleetMetrics(w.ctx, page))
			for _, m := range out.FleetMetrics {
				names = append(names, *m.MetricName)
			}
			if page.NextToken = out.NextToken; page.NextToken == nil {
				break
			}
		}
		if got := strings.Join(names, " "); got != "a b m.1" {
			t.Errorf("list: %s", got)
		}
		for range 2 {
			ok[*iot.DeleteFleetMetricResponse](t)(w.DeleteFleetMetric(w.ctx, &iot.DeleteFleetMetricRequest{MetricName: "m.1"}))
		}
		if _, err := w.CreateFleetMetric(w.ctx, &iot.CreateFleetMetricRequest{
			MetricName: "m.1", QueryString: "*", AggregationField: battery, Period: 60, AggregationType: &iot.AggregationType{Name: "Cardinality"},
		}); err != nil {
			t.Fatal(err)
		}
		if tags := ok[*iot.ListTagsForResourceResponse](t)(w.registry.ListTagsForResource(w.ctx, &iot.ListTagsForResourceRequest{ResourceArn: arn})).Tags; len(tags) != 0 {
			t.Errorf("tags outlive their metric: %v", tags)
		}
	})
}

func second[T any](_ T, err error) error { return err }
