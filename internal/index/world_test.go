package index_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/index"
	"flotilla/internal/mqtt"
	"flotilla/internal/registry"
	"flotilla/internal/shadow"
	"flotilla/internal/store"
)

// world is an index with the registry and the shadows that it follows.
type world struct {
	*index.Index
	t        testing.TB
	ctx      context.Context
	db       *store.DB
	registry *registry.Registry
	shadows  *shadow.Shadows
	news     map[string][]func(string)
	metrics  *prometheus.Registry
	clock    atomic.Int64 // ms
}

func (w *world) OnChange(kind string, fn func(string)) { w.news[kind] = append(w.news[kind], fn) }

func (w *world) Changed(kind, key string) {
	for _, fn := range w.news[kind] {
		fn(key)
	}
}

// Publish takes what shadows announce.
func (w *world) Publish(context.Context, *mqtt.Message) error { return nil }

// Awaited tells that nobody awaits it.
func (w *world) Awaited(string) bool { return false }

func (w *world) Withdraw(context.Context, string, int64) error { return nil }

func newWorld(t testing.TB, db *store.DB, cfg index.Config) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), db: db, news: map[string][]func(string){}, metrics: prometheus.NewRegistry()}
	w.clock.Store(time.Now().UnixMilli())
	acct := aws.Account{ID: "123456789012", Region: "us-east-1"}
	w.registry = registry.New(registry.Config{Limits: "unlimited"}, registry.Deps{Account: acct, DB: db, Changes: w})
	w.shadows = shadow.New(db, w.registry, w, shadow.Config{Changed: func(n string) { w.ThingChanged(n) }})
	w.registry.Use(nil, w.shadows, map[string]registry.Exists{"fleetmetric": func(ctx context.Context, name string) error {
		_, err := w.DescribeFleetMetric(ctx, &iot.DescribeFleetMetricRequest{MetricName: name})
		return err
	}})
	w.Index = index.New(cfg, index.Deps{
		Account: acct, DB: db, Registry: w.registry, Dynamic: w.registry, Shadows: w.shadows, Changes: w, Tags: w.registry, NodeID: "n1",
		Metrics: w.metrics, Now: func() time.Time { return time.UnixMilli(w.clock.Load()) },
	})
	w.registry.UseIndex(w.Index)
	w.OnChange("thing", w.ThingChanged)
	w.OnChange("group", w.GroupChanged)
	if err := w.Begin(w.ctx); err != nil {
		t.Fatal(err)
	}
	return w
}

// ok fails the test on an error.
func ok[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (w *world) thing(name string, attributes map[string]string) {
	w.t.Helper()
	ok[*iot.CreateThingResponse](w.t)(w.registry.CreateThing(w.ctx, &iot.CreateThingRequest{
		ThingName: name, AttributePayload: &iot.AttributePayload{Attributes: attributes},
	}))
}

func (w *world) shadow(thing, name, payload string) {
	w.t.Helper()
	in := &iotdata.UpdateThingShadowRequest{ThingName: thing, Payload: []byte(payload)}
	if name != "" {
		in.ShadowName = &name
	}
	ok[*iotdata.UpdateThingShadowResponse](w.t)(w.shadows.UpdateThingShadow(w.ctx, in))
}

// index switches indexing on as the configuration says.
func (w *world) index(c *iot.ThingIndexingConfiguration) {
	w.t.Helper()
	ok[*iot.UpdateIndexingConfigurationResponse](w.t)(w.UpdateIndexingConfiguration(w.ctx, &iot.UpdateIndexingConfigurationRequest{
		ThingIndexingConfiguration: c, ThingGroupIndexingConfiguration: &iot.ThingGroupIndexingConfiguration{ThingGroupIndexingMode: "ON"},
	}))
	w.settle()
}

func (w *world) settle() {
	w.t.Helper()
	if err := w.Settle(w.ctx); err != nil {
		w.t.Fatal(err)
	}
}

// find gives the names that a query finds, sorted, in pages of size.
func (w *world) find(query string, size int32) string {
	w.t.Helper()
	in := &iot.SearchIndexRequest{QueryString: query, MaxResults: &size}
	names := []string{}
	for {
		out := ok[*iot.SearchIndexResponse](w.t)(w.SearchIndex(w.ctx, in))
		for _, d := range out.Things {
			names = append(names, *d.ThingName)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

var everything = &iot.ThingIndexingConfiguration{
	ThingIndexingMode: "REGISTRY_AND_SHADOW", ThingConnectivityIndexingMode: new("STATUS"), NamedShadowIndexingMode: new("ON"),
	Filter: &iot.IndexingFilter{
		NamedShadowNames: []string{"home"},
		GeoLocations:     []*iot.GeoLocationTarget{{Name: new("shadow.reported.at"), Order: new("LatLon")}},
	},
	CustomFields: []*iot.Field{
		{Name: new("attributes.model"), Type: new("String")},
		{Name: new("shadow.reported.battery"), Type: new("Number")},
	},
}
