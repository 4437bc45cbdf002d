package index_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/index"
	"flotilla/internal/index/query"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// What a query finds follows registry, shadows, groups and connections.
func TestSearchFollows(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, index.Config{})
		w.thing("early", map[string]string{"model": "Pro"})
		if _, err := w.SearchIndex(w.ctx, &iot.SearchIndexRequest{QueryString: "*"}); !errors.As(err, new(*iot.ResourceNotFoundException)) {
			t.Errorf("search with indexing off: %v", err)
		}
		w.index(everything)
		w.thing("late", map[string]string{"model": "basic"})
		w.shadow("late", "", `{"state":{"reported":{"battery":42.5,"at":{"lat":47.6,"lon":-122.3}},"desired":{"on":true}}}`)
		w.shadow("late", "home", `{"state":{"reported":{"room":"living room"}}}`)
		ok[*iot.CreateThingGroupResponse](t)(w.registry.CreateThingGroup(w.ctx, &iot.CreateThingGroupRequest{ThingGroupName: "hall"}))
		ok[*iot.AddThingToThingGroupResponse](t)(w.registry.AddThingToThingGroup(w.ctx, &iot.AddThingToThingGroupRequest{ThingName: new("early"), ThingGroupName: new("hall")}))
		ok[*iot.CreateBillingGroupResponse](t)(w.registry.CreateBillingGroup(w.ctx, &iot.CreateBillingGroupRequest{BillingGroupName: "north"}))
		ok[*iot.AddThingToBillingGroupResponse](t)(w.registry.AddThingToBillingGroup(w.ctx, &iot.AddThingToBillingGroupRequest{ThingName: new("late"), BillingGroupName: new("north")}))
		w.PresenceChanged("late", true, "", time.UnixMilli(1000))
		w.settle()
		for q, want := range map[string]string{
			// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/example-queries.html, query-syntax.html
			"thingGroupNames:north": "late", "registry.thingName:l*": "late", "registry.thingName : early": "early", "shadow.delta.on:true": "late",
			"connectivity.timestamp : [1000 TO 1001]": "late", "connectivity.timestamp > 1000": "", "shadow.name.home.reported.room:*": "late",
			"NOT shadow.name.home.reported.room:*": "early", "thingName:(*e* AND -early)": "late", "shadow.name.away.reported.room:*": "",
			"*": "early late", "thingName:*": "early late", "attributes.model:pro": "early", "pro": "early",
			"shadow.reported.battery:[40 TO 50]": "late", "shadow.reported.battery<42.5": "", "shadow.hasDelta:true": "late",
			`shadow.name.home.reported.room:"living room"`: "late", "shadow.desired.on:true": "late",
			"thingGroupNames:hall": "early", "registry.thingGroupNames:ha*": "early", "connectivity.connected:true": "late",
			"shadow.reported.at:geo_distance,47.6,-122.3,10m": "late", "NOT shadow.desired.on:true": "early", "no.such:thing": "",
		} {
			if got := w.find(q, 1); got != want {
				t.Errorf("%s: %q instead of %q", q, got, want)
			}
		}
		w.PresenceChanged("late", false, "CONNECTION_LOST", time.UnixMilli(2000))
		w.shadow("late", "", `{"state":{"reported":{"battery":10}}}`)
		ok[*iot.UpdateThingResponse](t)(w.registry.UpdateThing(w.ctx, &iot.UpdateThingRequest{
			ThingName: "early", AttributePayload: &iot.AttributePayload{Attributes: map[string]string{"model": "old"}},
		}))
		w.settle()
		for q, want := range map[string]string{
			"connectivity.connected:false": "late", "connectivity.disconnectReason:CONNECTION_LOST": "late", "attributes.model:pro": "",
			"shadow.reported.battery<42.5": "late", "attributes.model:old": "early",
		} {
			if got := w.find(q, 10); got != want {
				t.Errorf("%s: %q instead of %q", q, got, want)
			}
		}
		ok[*iot.DeleteThingResponse](t)(w.registry.DeleteThing(w.ctx, &iot.DeleteThingRequest{ThingName: "late"}))
		ok[*iotdata.UpdateThingShadowResponse](t)(w.shadows.UpdateThingShadow(w.ctx, &iotdata.UpdateThingShadowRequest{ThingName: "early", Payload: []byte(`{"state":{"desired":{"x":1}}}`)}))
		w.settle()
		if got := w.find("*", 10); got != "early" {
			t.Errorf("after deletion: %s", got)
		}
		groups := ok[*iot.SearchIndexResponse](t)(w.SearchIndex(w.ctx, &iot.SearchIndexRequest{IndexName: new("AWS_ThingGroups"), QueryString: "thingGroupName:hall"}))
		if len(groups.ThingGroups) != 1 || *groups.ThingGroups[0].ThingGroupName != "hall" {
			t.Errorf("groups: %v", groups.ThingGroups)
		}
		ok[*iot.UpdateIndexingConfigurationResponse](t)(w.UpdateIndexingConfiguration(w.ctx, &iot.UpdateIndexingConfigurationRequest{
			ThingIndexingConfiguration: &iot.ThingIndexingConfiguration{ThingIndexingMode: "OFF"}, ThingGroupIndexingConfiguration: &iot.ThingGroupIndexingConfiguration{ThingGroupIndexingMode: "OFF"},
		}))
		w.settle()
		if n := ok[int](t)(w.Rows(w.ctx)); n != 0 {
			t.Errorf("%d rows are left when indexing is off", n)
		}
	})
}

// A node that was killed has lost its marks: the next start indexes everything anew, and the dead node's clients are
// disconnected.
func TestAfterKill(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, index.Config{})
		w.thing("a", map[string]string{"x": "1"})
		w.thing("b", nil)
		w.index(everything)
		w.PresenceChanged("a", true, "", time.UnixMilli(1000))
		w.settle()
		// Changes whose marks are lost: w is not settled again.
		ok[*iot.UpdateThingResponse](t)(w.registry.UpdateThing(w.ctx, &iot.UpdateThingRequest{ThingName: "a", AttributePayload: &iot.AttributePayload{Attributes: map[string]string{"x": "2"}}}))
		ok[*iot.DeleteThingResponse](t)(w.registry.DeleteThing(w.ctx, &iot.DeleteThingRequest{ThingName: "b"}))
		after := newWorld(t, db, index.Config{})
		after.settle()
		for q, want := range map[string]string{"attributes.x:2": "a", "attributes.x:1": "", "*": "a", "connectivity.connected:false": "a"} {
			if got := after.find(q, 10); got != want {
				t.Errorf("%s: %q instead of %q", q, got, want)
			}
		}
	})
}

// More marks than are kept lead to everything being indexed anew, not to a loss.
func TestTooManyMarks(t *testing.T) {
	w := newWorld(t, storetest.Open(t), index.Config{MaxMarks: 3})
	w.index(everything)
	for i := range 20 {
		w.thing(fmt.Sprintf("t%02d", i), nil)
	}
	w.settle()
	if got := w.find("*", 100); len(strings.Fields(got)) != 20 {
		t.Errorf("found %s", got)
	}
}

var (
	words  = []string{"red", "Red", "blue", "green house", "green  House blue", "a_b", "100%", "x*y", "", "  ", "75", "75.0", "-3", "1e2", "true", "ünï côde", "back\\slash", "75 km"}
	fields = []string{
		"attributes.a", "attributes.b", "shadow.reported.v", "shadow.reported.list", "shadow.reported.deep.w", "shadow.reported.at", "thingName", "none", "registry.version",
		"shadow.name.home.reported.v", "shadow.name.home.hasDelta", "shadow.name.away.reported.v", "shadow.delta.v", "connectivity.connected", "connectivity.timestamp", "thingGroupNames",
	}
)

// randomTerm makes a term of a query.
func randomTerm(r *rand.Rand) string {
	word := func() string {
		w := strings.Fields(words[r.IntN(len(words))] + " z")[0]
		var b strings.Builder
		for _, c := range w {
			switch {
			case r.IntN(6) == 0:
				b.WriteString("*")
			case r.IntN(8) == 0:
				b.WriteString("?")
			case strings.ContainsRune(`\*?%`, c):
				b.WriteString(`\` + string(c))
			default:
				b.WriteRune(c)
			}
		}
		return b.String()
	}
	bound := func() string {
		switch r.IntN(4) {
		case 0:
			return "*"
		case 1:
			return fmt.Sprint(r.IntN(200) - 50)
		case 2:
			return fmt.Sprintf("%q", strings.ReplaceAll(words[r.IntN(len(words))], `\`, ""))
		}
		return []string{"a", "green", "m", "zz", "75.0"}[r.IntN(5)]
	}
	field := fields[r.IntN(len(fields))] + ":"
	switch r.IntN(9) {
	case 0:
		return word()
	case 1, 2:
		return field + word()
	case 3:
		return field + []string{`"green house"`, `"house blue"`, `"75 km"`, `"red"`, `"green"`, `"green house blue"`}[r.IntN(6)]
	case 4, 5:
		return field + []string{"[", "{"}[r.IntN(2)] + bound() + " TO " + bound() + []string{"]", "}"}[r.IntN(2)]
	case 6:
		return field + "*"
	case 7:
		return "shadow.reported.at:" + []string{
			fmt.Sprintf("geo_distance,%d,%d,%dkm", r.IntN(160)-80, r.IntN(340)-170, r.IntN(9000)),
			fmt.Sprintf("geo_bounding_box,%d,%d,%d,%d", r.IntN(80), r.IntN(340)-170, -r.IntN(80), r.IntN(340)-170),
			fmt.Sprintf("geo_polygon,%d,%d,%d,%d,%d,%d", r.IntN(80), r.IntN(170), -r.IntN(80), r.IntN(170), r.IntN(80), -r.IntN(170)),
		}[r.IntN(3)]
	}
	return strings.TrimSuffix(field, ":") + []string{"<", "<=", ">", ">="}[r.IntN(4)] + fmt.Sprint(r.IntN(150)-40)
}

func randomQuery(r *rand.Rand, depth int) string {
	if depth == 0 || r.IntN(3) == 0 {
		return randomTerm(r)
	}
	switch r.IntN(4) {
	case 0:
		return "(" + randomQuery(r, depth-1) + ")"
	case 1:
		return []string{"NOT (", "-("}[r.IntN(2)] + randomQuery(r, depth-1) + ")"
	case 2:
		return randomQuery(r, depth-1) + " OR " + randomQuery(r, depth-1)
	}
	return randomQuery(r, depth-1) + []string{" AND ", " "}[r.IntN(2)] + randomQuery(r, depth-1)
}

// The SQL that queries become finds what the language's own evaluation finds, over random things and queries.
func TestSearchIsEvaluation(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, index.Config{})
		w.index(everything)
		r := rand.New(rand.NewPCG(1, 2))
		for _, g := range []string{"red", "blue"} {
			ok[*iot.CreateThingGroupResponse](t)(w.registry.CreateThingGroup(w.ctx, &iot.CreateThingGroupRequest{ThingGroupName: g}))
		}
		attribute := []string{"red", "Red", "blue", "a_b", "75", "75.0", "-3", "1e2", "true", "x:y"}
		for i := range 60 {
			name := fmt.Sprintf("t%03d", i)
			w.thing(name, map[string]string{"a": attribute[r.IntN(len(attribute))], "b": attribute[r.IntN(len(attribute))]})
			value := func() string {
				switch r.IntN(4) {
				case 0:
					return fmt.Sprint(r.IntN(150) - 40)
				case 1:
					return []string{"true", "false", "75.0", "-0.0", "1e2"}[r.IntN(5)]
				}
				return fmt.Sprintf("%q", words[r.IntN(len(words))])
			}
			for range 1 + i%3 { // documents that change
				w.shadow(name, "", fmt.Sprintf(`{"state":{"reported":{"v":%s,"list":[%s,%s],"deep":{"w":%s},"at":[%d,%d]}}}`,
					value(), value(), value(), value(), r.IntN(160)-80, r.IntN(340)-170))
				if i%5 == 0 {
					w.settle()
				}
			}
			switch i % 3 {
			case 0:
				w.shadow(name, "home", fmt.Sprintf(`{"state":{"desired":{"v":%s},"reported":{"v":%s}}}`, value(), value()))
			case 1:
				w.shadow(name, "", fmt.Sprintf(`{"state":{"desired":{"v":%s}}}`, value()))
			}
			if i%4 == 0 {
				w.PresenceChanged(name, i%8 == 0, "CONNECTION_LOST", time.UnixMilli(int64(r.IntN(100))))
				ok[*iot.AddThingToThingGroupResponse](t)(w.registry.AddThingToThingGroup(w.ctx, &iot.AddThingToThingGroupRequest{ThingName: &name, ThingGroupName: new([]string{"red", "blue"}[i%8/4])}))
			}
		}
		w.settle()
		docs, err := w.Documents(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for range 250 {
			text := randomQuery(r, 3)
			q, err := query.Parse(text, query.Limits{})
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			var names []string
			for n, d := range docs {
				if q.Match(d) {
					names = append(names, n)
				}
			}
			slices.Sort(names)
			found += len(names)
			for _, try := range [][2]int{{10_000, 1500}, {8, 8}, {-1, 0}} { // by hand, both, by the store alone
				w.Try(try[0], try[1])
				if got, want := w.find(text, 30), strings.Join(names, " "); got != want {
					t.Errorf("%s, %v\n finds %s\n  not  %s", text, try, got, want)
				}
			}
			st := ok[*iot.GetStatisticsResponse](t)(w.GetStatistics(w.ctx, &iot.GetStatisticsRequest{QueryString: text})).Statistics
			if int(*st.Count) != len(names) {
				t.Errorf("%s\n counts %d, not %d", text, *st.Count, len(names))
			}
			if t.Failed() {
				return
			}
		}
		if found == 0 || len(docs) != 60 {
			t.Errorf("%d documents, %d found", len(docs), found)
		}
	})
}

func TestAggregations(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, index.Config{})
		w.index(everything)
		for i := range 10 {
			name := fmt.Sprintf("t%d", i)
			w.thing(name, map[string]string{"model": []string{"Pro", "pro", "basic"}[i%3]})
			w.shadow(name, "", fmt.Sprintf(`{"state":{"reported":{"battery":%d}}}`, i*10))
		}
		w.settle()
		st := ok[*iot.GetStatisticsResponse](t)(w.GetStatistics(w.ctx, &iot.GetStatisticsRequest{QueryString: "shadow.reported.battery>=10", AggregationField: new("shadow.reported.battery")})).Statistics
		if *st.Count != 9 || *st.Sum != 450 || *st.Average != 50 || *st.Minimum != 10 || *st.Maximum != 90 || *st.SumOfSquares != 28500 ||
			math.Abs(*st.Variance-2000.0/3) > 1e-9 || math.Abs(*st.StdDeviation-math.Sqrt(2000.0/3)) > 1e-9 {
			t.Errorf("statistics %+v", st)
		}
		if st := ok[*iot.GetStatisticsResponse](t)(w.GetStatistics(w.ctx, &iot.GetStatisticsRequest{QueryString: "*"})).Statistics; *st.Count != 10 {
			t.Errorf("count %d", *st.Count)
		}
		if c := ok[*iot.GetCardinalityResponse](t)(w.GetCardinality(w.ctx, &iot.GetCardinalityRequest{QueryString: "*", AggregationField: new("attributes.model")})); *c.Cardinality != 2 {
			t.Errorf("cardinality %d", *c.Cardinality)
		}
		p := ok[*iot.GetPercentilesResponse](t)(w.GetPercentiles(w.ctx, &iot.GetPercentilesRequest{QueryString: "*", AggregationField: new("shadow.reported.battery"), Percents: []float64{0, 50, 100}})).Percentiles
		if len(p) != 3 || *p[0].Value != 0 || *p[1].Value != 45 || *p[2].Value != 90 {
			t.Errorf("percentiles %v", p)
		}
		b := ok[*iot.GetBucketsAggregationResponse](t)(w.GetBucketsAggregation(w.ctx, &iot.GetBucketsAggregationRequest{
			QueryString: "*", AggregationField: "attributes.model", BucketsAggregationType: &iot.BucketsAggregationType{TermsAggregation: &iot.TermsAggregation{}},
		}))
		if *b.TotalCount != 10 || len(b.Buckets) != 2 || !strings.EqualFold(*b.Buckets[0].KeyValue, "pro") || *b.Buckets[0].Count != 7 || *b.Buckets[1].KeyValue != "basic" {
			t.Errorf("buckets %+v", b)
		}
		for _, field := range []string{"attributes.none", "shadow.reported.other"} {
			_, err := w.GetStatistics(w.ctx, &iot.GetStatisticsRequest{QueryString: "*", AggregationField: &field})
			if !errors.As(err, new(*iot.InvalidAggregationException)) {
				t.Errorf("%s: %v", field, err)
			}
		}
		if _, err := w.GetCardinality(w.ctx, &iot.GetCardinalityRequest{QueryString: "a AND"}); !errors.As(err, new(*iot.InvalidQueryException)) {
			t.Errorf("bad query: %v", err)
		}
	})
}

func TestSettings(t *testing.T) {
	w := newWorld(t, storetest.Open(t), index.Config{})
	c := ok[*iot.GetIndexingConfigurationResponse](t)(w.GetIndexingConfiguration(w.ctx, &iot.GetIndexingConfigurationRequest{}))
	if c.ThingIndexingConfiguration.ThingIndexingMode != "OFF" || *c.ThingIndexingConfiguration.ThingConnectivityIndexingMode != "OFF" || c.ThingGroupIndexingConfiguration.ThingGroupIndexingMode != "OFF" {
		t.Errorf("%+v", c)
	}
	for name, bad := range map[string]*iot.ThingIndexingConfiguration{
		"connectivity of nothing": {ThingIndexingMode: "OFF", ThingConnectivityIndexingMode: new("STATUS")},
		"no names":                {ThingIndexingMode: "REGISTRY", NamedShadowIndexingMode: new("ON")},
		"names without mode":      {ThingIndexingMode: "REGISTRY", Filter: &iot.IndexingFilter{NamedShadowNames: []string{"a"}}},
		"shadow not indexed":      {ThingIndexingMode: "REGISTRY", CustomFields: []*iot.Field{{Name: new("shadow.reported.x"), Type: new("Number")}}},
		"field twice":             {ThingIndexingMode: "REGISTRY", CustomFields: []*iot.Field{{Name: new("attributes.x"), Type: new("Number")}, {Name: new("attributes.x"), Type: new("String")}}},
	} {
		_, err := w.UpdateIndexingConfiguration(w.ctx, &iot.UpdateIndexingConfigurationRequest{ThingIndexingConfiguration: bad})
		if !errors.As(err, new(*iot.InvalidRequestException)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.SearchIndex(w.ctx, &iot.SearchIndexRequest{QueryString: "thingName:a OR NOT deviceDefender.violationCount:0"}); err == nil || !strings.Contains(err.Error(), "not implemented") {
		t.Errorf("search for violations: %v", err)
	}
	if _, err := w.UpdateIndexingConfiguration(w.ctx, &iot.UpdateIndexingConfigurationRequest{
		ThingIndexingConfiguration: &iot.ThingIndexingConfiguration{ThingIndexingMode: "REGISTRY", DeviceDefenderIndexingMode: new("VIOLATIONS")},
	}); err == nil || !strings.Contains(err.Error(), "not implemented") {
		t.Errorf("violations: %v", err)
	}
	w.thing("a", nil)
	ok[*iot.UpdateIndexingConfigurationResponse](t)(w.UpdateIndexingConfiguration(w.ctx, &iot.UpdateIndexingConfigurationRequest{ThingIndexingConfiguration: everything}))
	if _, err := w.SearchIndex(w.ctx, &iot.SearchIndexRequest{QueryString: "*"}); !errors.As(err, new(*iot.IndexNotReadyException)) {
		t.Errorf("before it is built: %v", err)
	}
	w.settle()
	d := ok[*iot.DescribeIndexResponse](t)(w.DescribeIndex(w.ctx, &iot.DescribeIndexRequest{IndexName: "AWS_Things"}))
	if *d.IndexStatus != "ACTIVE" || *d.Schema != "MULTI_INDEXING_MODE" {
		t.Errorf("%s %s", *d.IndexStatus, *d.Schema)
	}
	l := ok[*iot.ListIndicesResponse](t)(w.ListIndices(w.ctx, &iot.ListIndicesRequest{}))
	if !slices.Equal(l.IndexNames, []string{"AWS_Things"}) {
		t.Errorf("%v", l.IndexNames)
	}
}

// A page is right whether a part of the query is rare, all of it is common, or common parts rarely meet: then the store
// searches behind the documents that were tried.
func TestSearchOfMany(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, index.Config{})
		w.Try(20, 200)
		w.index(everything)
		const n = 600
		for i := range n {
			late := i >= n-3 // the parts meet at the end alone
			w.thing(fmt.Sprintf("t%04d", i), map[string]string{"half": fmt.Sprint(i % 2), "other": fmt.Sprint(i%2 == 0 != late), "rare": fmt.Sprint(i / 3)})
		}
		w.settle()
		for q, names := range map[string]string{
			"attributes.other:true attributes.half:1":                            "t0597 t0599",
			"attributes.rare:7":                                                  "t0021 t0022 t0023",
			"attributes.rare:7 attributes.half:1":                                "t0021 t0023",
			"attributes.rare:7 OR attributes.rare:8":                             "t0021 t0022 t0023 t0024 t0025 t0026",
			"attributes.rare:7 NOT thingName:t0022":                              "t0021 t0023",
			"(attributes.rare:7 OR thingName:t00*) AND -attributes.half:0 t001*": "t0011 t0013 t0015 t0017 t0019",
			"attributes.none:7 OR attributes.rare:0":                             "t0000 t0001 t0002",
		} {
			for _, size := range []int32{2, 100} {
				if got := w.find(q, size); got != names {
					t.Errorf("%s: %q instead of %q", q, got, names)
				}
			}
		}
		if got := len(strings.Fields(w.find("attributes.half:0", 130))); got != n/2 {
			t.Errorf("half: %d", got)
		}
	})
}
