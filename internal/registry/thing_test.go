package registry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws/iot"
	"flotilla/internal/registry"
	"flotilla/internal/store"
)

func TestCreateThing(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		must[*iot.CreateThingTypeResponse](t)(w.CreateThingType(ctx, &iot.CreateThingTypeRequest{ThingTypeName: "pump"}))
		must[*iot.CreateBillingGroupResponse](t)(w.CreateBillingGroup(ctx, &iot.CreateBillingGroupRequest{BillingGroupName: "bill"}))
		in := &iot.CreateThingRequest{
			ThingName: "a", ThingTypeName: new("pump"), BillingGroupName: new("bill"),
			AttributePayload: &iot.AttributePayload{Attributes: map[string]string{"site": "x", "none": ""}},
		}
		first := must[*iot.CreateThingResponse](t)(w.CreateThing(ctx, in))
		if *first.ThingArn != arn+"thing/a" || *first.ThingName != "a" || len(*first.ThingId) != 36 {
			t.Errorf("created %+v", first)
		}
		if got := w.announced(); got != "thing/a" {
			t.Errorf("announced %s", got)
		}
		again := must[*iot.CreateThingResponse](t)(w.CreateThing(ctx, in))
		if *again.ThingId != *first.ThingId {
			t.Error("the same call made another thing")
		}
		for what, change := range map[string]func(*iot.CreateThingRequest){
			"type":       func(in *iot.CreateThingRequest) { in.ThingTypeName = nil },
			"billing":    func(in *iot.CreateThingRequest) { in.BillingGroupName = nil },
			"attributes": func(in *iot.CreateThingRequest) { in.AttributePayload = nil },
		} {
			other := *in
			change(&other)
			_, err := w.CreateThing(ctx, &other)
			e := want[*iot.ResourceAlreadyExistsException](t, err, "Thing a already exists in account with different attributes")
			if e.ResourceArn != arn+"thing/a" || e.ResourceId != *first.ThingId {
				t.Errorf("%s: %+v", what, e)
			}
		}
		got := w.describe(t, "a")
		if d := cmp.Diff(&iot.DescribeThingResponse{
			DefaultClientId: new("a"), ThingName: new("a"), ThingArn: first.ThingArn, ThingId: first.ThingId, ThingTypeName: new("pump"),
			BillingGroupName: new("bill"), Version: new(int64(1)), Attributes: map[string]string{"site": "x"},
		}, got); d != "" {
			t.Error(d)
		}
		_, err := w.CreateThing(ctx, &iot.CreateThingRequest{ThingName: "b", ThingTypeName: new("none")})
		want[*iot.ResourceNotFoundException](t, err, "Thing type none not found")
		_, err = w.CreateThing(ctx, &iot.CreateThingRequest{ThingName: "b", BillingGroupName: new("none")})
		want[*iot.ResourceNotFoundException](t, err, "Billing group none not found")
		_, err = w.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: "b"})
		want[*iot.ResourceNotFoundException](t, err, "Thing b not found")
	})
}

func TestThingValidation(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		must[*iot.CreateThingTypeResponse](t)(w.CreateThingType(t.Context(), &iot.CreateThingTypeRequest{ThingTypeName: "pump"}))
		many := func(n int) map[string]string {
			m := map[string]string{}
			for i := range n {
				m[fmt.Sprintf("a%d", i)] = "v"
			}
			return m
		}
		large := many(50)
		for k := range large {
			large[k] = strings.Repeat("v", 800)
		}
		for why, c := range map[string]struct {
			name, typeName string
			attributes     map[string]string
			ok             bool
		}{
			"all characters":     {"aZ09:_-", "", map[string]string{"a_.,@/:#-": "a_.,@/:#=[]-"}, true},
			"longest name":       {strings.Repeat("n", 128), "", nil, true},
			"name too long":      {strings.Repeat("n", 129), "", nil, false},
			"no name":            {"", "", nil, false},
			"slash in name":      {"a/b", "", nil, false},
			"wildcard in name":   {"a+", "", nil, false},
			"attribute name":     {"x", "", map[string]string{"a b": "c"}, false},
			"no attribute name":  {"x", "", map[string]string{"": "c"}, false},
			"attribute value":    {"x", "", map[string]string{"a": "b c"}, false},
			"long value":         {"x", "", map[string]string{"a": strings.Repeat("v", 801)}, false},
			"three":              {"three", "", many(3), true},
			"four without type":  {"x", "", many(4), false},
			"fifty with type":    {"fifty", "pump", many(50), true},
			"51 with type":       {"x", "pump", many(51), false},
			"40 KB of 47":        {"large", "pump", large, true},
			"empty do not count": {"empty", "", map[string]string{"a": "1", "b": "2", "c": "3", "d": ""}, true},
		} {
			in := &iot.CreateThingRequest{ThingName: c.name, AttributePayload: &iot.AttributePayload{Attributes: c.attributes}}
			if c.typeName != "" {
				in.ThingTypeName = &c.typeName
			}
			_, err := w.CreateThing(t.Context(), in)
			if c.ok != (err == nil) {
				t.Errorf("%s: %v", why, err)
			}
			if err != nil {
				want[*iot.InvalidRequestException](t, err, "")
			}
		}
		_, err := w.UpdateThing(t.Context(), &iot.UpdateThingRequest{ThingName: "fifty", RemoveThingType: new(true)})
		want[*iot.InvalidRequestException](t, err, "at most 3")
	})
}

func TestUpdateThing(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		for _, n := range []string{"pump", "old"} {
			must[*iot.CreateThingTypeResponse](t)(w.CreateThingType(ctx, &iot.CreateThingTypeRequest{ThingTypeName: n}))
		}
		must[*iot.DeprecateThingTypeResponse](t)(w.DeprecateThingType(ctx, &iot.DeprecateThingTypeRequest{ThingTypeName: "old"}))
		w.thing(t, "a", "", "x", "1", "y", "2")
		w.announced()
		version := int64(1)
		update := func(in iot.UpdateThingRequest, wantType string, attributes ...string) {
			t.Helper()
			in.ThingName = "a"
			must[*iot.UpdateThingResponse](t)(w.UpdateThing(ctx, &in))
			version++
			for range 2 { // the second comes from memory
				got := w.describe(t, "a")
				gotType := ""
				if got.ThingTypeName != nil {
					gotType = *got.ThingTypeName
				}
				if d := cmp.Diff(pairs(attributes), got.Attributes); d != "" || *got.Version != version || gotType != wantType {
					t.Errorf("version %d type %s %s", *got.Version, gotType, d)
				}
			}
			if got := w.announced(); got != "thing/a" {
				t.Errorf("announced %s", got)
			}
		}
		merge := func(list ...string) *iot.AttributePayload {
			return &iot.AttributePayload{Attributes: pairs(list), Merge: new(true)}
		}
		update(iot.UpdateThingRequest{}, "", "x", "1", "y", "2")
		update(iot.UpdateThingRequest{AttributePayload: merge("y", "3", "z", "4")}, "", "x", "1", "y", "3", "z", "4")
		update(iot.UpdateThingRequest{AttributePayload: merge("z", "", "q", "")}, "", "x", "1", "y", "3")
		update(iot.UpdateThingRequest{AttributePayload: &iot.AttributePayload{Attributes: pairs([]string{"n", "5"})}}, "", "n", "5")
		update(iot.UpdateThingRequest{ThingTypeName: new("pump")}, "pump", "n", "5")
		update(iot.UpdateThingRequest{ThingTypeName: new("pump"), ExpectedVersion: &version}, "pump", "n", "5")
		update(iot.UpdateThingRequest{RemoveThingType: new(true)}, "", "n", "5")
		update(iot.UpdateThingRequest{AttributePayload: &iot.AttributePayload{Attributes: map[string]string{}}}, "")

		for why, c := range map[string]struct {
			in   iot.UpdateThingRequest
			want func(error)
		}{
			"version": {iot.UpdateThingRequest{ThingName: "a", ExpectedVersion: new(version - 1)}, func(err error) { want[*iot.VersionConflictException](t, err, "") }},
			"thing":   {iot.UpdateThingRequest{ThingName: "b"}, func(err error) { want[*iot.ResourceNotFoundException](t, err, "Thing b not found") }},
			"type":    {iot.UpdateThingRequest{ThingName: "a", ThingTypeName: new("none")}, func(err error) { want[*iot.ResourceNotFoundException](t, err, "none") }},
			"deprecated": {iot.UpdateThingRequest{ThingName: "a", ThingTypeName: new("old")}, func(err error) {
				want[*iot.InvalidRequestException](t, err, "Can not update a thing to use deprecated thing type: old")
			}},
			"both": {iot.UpdateThingRequest{ThingName: "a", ThingTypeName: new("pump"), RemoveThingType: new(true)}, func(err error) { want[*iot.InvalidRequestException](t, err, "") }},
		} {
			_, err := w.UpdateThing(ctx, &c.in)
			if err == nil {
				t.Errorf("%s: succeeded", why)
				continue
			}
			c.want(err)
		}
		if got := w.announced(); got != "" {
			t.Errorf("refusals announced %s", got)
		}
	})
}

func TestDeleteThing(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.thing(t, "a", "", "x", "1")
		w.group(t, "root", "")
		w.group(t, "g", "root")
		w.join(t, "a", "g")
		w.attach(t, "a", certA)
		del := func(expected *int64) error {
			_, err := w.DeleteThing(ctx, &iot.DeleteThingRequest{ThingName: "a", ExpectedVersion: expected})
			return err
		}
		want[*iot.VersionConflictException](t, del(new(int64(9))), "")
		want[*iot.InvalidRequestException](t, del(nil), "Cannot delete. Thing a is still attached to one or more principals")
		must[*iot.DetachThingPrincipalResponse](t)(w.DetachThingPrincipal(ctx, &iot.DetachThingPrincipalRequest{ThingName: "a", Principal: certA}))
		w.describe(t, "a")
		if err := del(new(int64(1))); err != nil {
			t.Fatal(err)
		}
		if _, err := w.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: "a"}); err == nil {
			t.Error("still there")
		}
		if len(w.shadows) != 1 || w.shadows[0] != "a" {
			t.Errorf("shadows of %v were deleted", w.shadows)
		}
		if err := del(nil); err != nil {
			t.Errorf("deleting what is not there: %v", err)
		}
		w.thing(t, "a", "")
		for _, g := range []string{"root", "g"} {
			out := must[*iot.ListThingsInThingGroupResponse](t)(w.ListThingsInThingGroup(ctx, &iot.ListThingsInThingGroupRequest{ThingGroupName: g, Recursive: new(true)}))
			if len(out.Things) > 0 {
				t.Errorf("the new thing is in %s", g)
			}
		}
		out := must[*iot.ListThingsResponse](t)(w.ListThings(ctx, &iot.ListThingsRequest{AttributeName: new("x")}))
		if len(out.Things) > 0 {
			t.Error("the new thing is found by the old one's attribute")
		}
	})
}

func TestListThings(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, n := range []string{"pump", "lamp"} {
			must[*iot.CreateThingTypeResponse](t)(w.CreateThingType(t.Context(), &iot.CreateThingTypeRequest{ThingTypeName: n}))
		}
		w.thing(t, "B", "pump", "site", "north-1", "run", "7")
		w.thing(t, "a", "pump", "site", "north-2")
		w.thing(t, "a-1", "lamp", "site", "north-10")
		w.thing(t, "a:1", "", "site", "south", "run", "7")
		w.thing(t, "b", "lamp", "site", "North-1")
		list := func(in iot.ListThingsRequest) string {
			t.Helper()
			// With every size of page the same things come in the same order.
			var one string
			for size := int32(1); size < 7; size++ {
				in.MaxResults, in.NextToken = &size, nil
				var all []string
				for {
					out := must[*iot.ListThingsResponse](t)(w.ListThings(t.Context(), &in))
					if len(out.Things) > int(size) {
						t.Fatalf("%d things on a page of %d", len(out.Things), size)
					}
					if s := thingNames(out.Things); s != "" {
						all = append(all, s)
					}
					if in.NextToken = out.NextToken; in.NextToken == nil {
						break
					}
				}
				got := strings.Join(all, " ")
				if size > 1 && got != one {
					t.Errorf("page size %d: %s, not %s", size, got, one)
				}
				one = got
			}
			return one
		}
		for _, c := range []struct {
			in   iot.ListThingsRequest
			want string
		}{
			{iot.ListThingsRequest{}, "B a a-1 a:1 b"},
			{iot.ListThingsRequest{ThingTypeName: new("pump")}, "B a"},
			{iot.ListThingsRequest{ThingTypeName: new("none")}, ""},
			{iot.ListThingsRequest{AttributeName: new("run"), AttributeValue: new("7")}, "B a:1"},
			{iot.ListThingsRequest{AttributeName: new("run"), AttributeValue: new("")}, ""},
			{iot.ListThingsRequest{AttributeName: new("site"), AttributeValue: new("north-1")}, "B"},
			{iot.ListThingsRequest{AttributeName: new("site"), AttributeValue: new("north-1"), UsePrefixAttributeValue: new(true)}, "B a-1"},
			{iot.ListThingsRequest{AttributeName: new("site"), AttributeValue: new("n"), UsePrefixAttributeValue: new(true)}, "B a-1 a"},
			{iot.ListThingsRequest{AttributeName: new("site")}, "b B a-1 a a:1"},
			{iot.ListThingsRequest{AttributeName: new("site"), ThingTypeName: new("lamp")}, "b a-1"},
			{iot.ListThingsRequest{AttributeName: new("none")}, ""},
		} {
			if got := list(c.in); got != c.want {
				t.Errorf("%+v: %q, want %q", c.in, got, c.want)
			}
		}
		must[*iot.UpdateThingResponse](t)(w.UpdateThing(t.Context(), &iot.UpdateThingRequest{ThingName: "a", AttributePayload: &iot.AttributePayload{Attributes: pairs([]string{"site", "south"})}}))
		if got := list(iot.ListThingsRequest{AttributeName: new("site"), AttributeValue: new("south")}); got != "a a:1" {
			t.Errorf("after the update: %s", got)
		}
		out := must[*iot.ListThingsResponse](t)(w.ListThings(t.Context(), &iot.ListThingsRequest{ThingTypeName: new("pump")}))
		if d := cmp.Diff(&iot.ThingAttribute{
			ThingName: new("B"), ThingTypeName: new("pump"), ThingArn: new(arn + "thing/B"), Version: new(int64(1)),
			Attributes: map[string]string{"site": "north-1", "run": "7"},
		}, out.Things[0]); d != "" {
			t.Error(d)
		}
		for _, in := range []iot.ListThingsRequest{{AttributeValue: new("x")}, {NextToken: new("%")}, {NextToken: new("YQ")}} {
			_, err := w.ListThings(t.Context(), &in)
			want[*iot.InvalidRequestException](t, err, "")
		}
	})
}

// Of those who name the same version one wins: a counter that all raise counts
// every success.
func TestExpectedVersion(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.thing(t, "a", "", "n", "0")
		count(t, 10, w, w, w)
		if got := w.describe(t, "a"); got.Attributes["n"] != "30" || *got.Version != 31 {
			t.Errorf("n = %s in version %d, want 30 in 31", got.Attributes["n"], *got.Version)
		}
	})
}

// count raises the attribute n of thing a so many times on each world.
func count(t *testing.T, times int, worlds ...*world) {
	var wg sync.WaitGroup
	for _, w := range worlds {
		wg.Go(func() {
			for done := 0; done < times; {
				d, err := w.DescribeThing(t.Context(), &iot.DescribeThingRequest{ThingName: "a"})
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				if _, err := fmt.Sscan(d.Attributes["n"], &n); err != nil {
					t.Error(err)
					return
				}
				_, err = w.UpdateThing(t.Context(), &iot.UpdateThingRequest{
					ThingName: "a", ExpectedVersion: d.Version,
					AttributePayload: &iot.AttributePayload{Attributes: map[string]string{"n": fmt.Sprint(n + 1)}},
				})
				var lost *iot.VersionConflictException
				if errors.As(err, &lost) {
					w.Changed("thing", "a") // as the bus would, sooner or later
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				done++
			}
		})
	}
	wg.Wait()
}

// What is read inside a transaction that is given up is not remembered.
func TestCacheAndTransactions(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.thing(t, "a", "", "x", "1")
		w.describe(t, "a")
		stop := errors.New("stop")
		err := w.db.Write(ctx, func(ctx context.Context, _ store.Tx) error {
			in := &iot.UpdateThingRequest{ThingName: "a", AttributePayload: &iot.AttributePayload{Attributes: pairs([]string{"x", "2"})}}
			if _, err := w.UpdateThing(ctx, in); err != nil {
				return err
			}
			d, err := w.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: "a"})
			if err != nil || d.Attributes["x"] != "2" {
				t.Errorf("inside: %v %v", d, err)
			}
			if _, err := w.CreateThing(ctx, &iot.CreateThingRequest{ThingName: "b"}); err != nil {
				return err
			}
			if _, err := w.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: "b"}); err != nil {
				t.Errorf("inside: %v", err)
			}
			return stop
		})
		if !errors.Is(err, stop) {
			t.Fatal(err)
		}
		if d := w.describe(t, "a"); d.Attributes["x"] != "1" {
			t.Errorf("after: %v", d.Attributes)
		}
		if _, err := w.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: "b"}); err == nil {
			t.Error("b is there")
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	eachConfig(t, registry.Config{CachedThings: 4}, func(t *testing.T, w *world) {
		for i := range 20 {
			w.thing(t, fmt.Sprint("t", i), "", "n", fmt.Sprint(i))
		}
		for i := range 60 {
			if got := w.describe(t, fmt.Sprint("t", i%20)); got.Attributes["n"] != fmt.Sprint(i%20) {
				t.Errorf("t%d has %v", i%20, got.Attributes)
			}
		}
	})
}

func TestThingTypes(t *testing.T) {
	eachConfig(t, registry.Config{Limits: "aws"}, func(t *testing.T, w *world) {
		ctx := t.Context()
		props := &iot.ThingTypeProperties{ThingTypeDescription: new("A pump"), SearchableAttributes: []string{"site", "run"}}
		in := &iot.CreateThingTypeRequest{ThingTypeName: "pump", ThingTypeProperties: props, Tags: []*iot.Tag{{Key: "k", Value: new("v")}}}
		first := must[*iot.CreateThingTypeResponse](t)(w.CreateThingType(ctx, in))
		in.ThingTypeProperties = &iot.ThingTypeProperties{ThingTypeDescription: new("A pump"), SearchableAttributes: []string{"run", "site"}}
		again := must[*iot.CreateThingTypeResponse](t)(w.CreateThingType(ctx, in))
		if *first.ThingTypeId != *again.ThingTypeId || *first.ThingTypeArn != arn+"thingtype/pump" {
			t.Errorf("%+v %+v", first, again)
		}
		in.ThingTypeProperties = nil
		_, err := w.CreateThingType(ctx, in)
		e := want[*iot.ResourceAlreadyExistsException](t, err, "pump")
		if e.ResourceArn != *first.ThingTypeArn || e.ResourceId != *first.ThingTypeId {
			t.Errorf("%+v", e)
		}
		_, err = w.CreateThingType(ctx, &iot.CreateThingTypeRequest{ThingTypeName: "x", ThingTypeProperties: &iot.ThingTypeProperties{SearchableAttributes: []string{"a", "b", "c", "d"}}})
		want[*iot.InvalidRequestException](t, err, "at most 3")
		_, err = w.CreateThingType(ctx, &iot.CreateThingTypeRequest{ThingTypeName: "x", ThingTypeProperties: &iot.ThingTypeProperties{Mqtt5Configuration: &iot.Mqtt5Configuration{}}})
		want[*iot.InvalidRequestException](t, err, "mqtt5Configuration")
		_, err = w.CreateThingType(ctx, &iot.CreateThingTypeRequest{ThingTypeName: "a b"})
		want[*iot.InvalidRequestException](t, err, "")

		d := must[*iot.DescribeThingTypeResponse](t)(w.DescribeThingType(ctx, &iot.DescribeThingTypeRequest{ThingTypeName: "pump"}))
		if diff := cmp.Diff(&iot.DescribeThingTypeResponse{
			ThingTypeName: new("pump"), ThingTypeArn: first.ThingTypeArn, ThingTypeId: first.ThingTypeId, ThingTypeProperties: props,
			ThingTypeMetadata: &iot.ThingTypeMetadata{Deprecated: new(false), CreationDate: d.ThingTypeMetadata.CreationDate},
		}, d); diff != "" {
			t.Error(diff)
		}
		must[*iot.UpdateThingTypeResponse](t)(w.UpdateThingType(ctx, &iot.UpdateThingTypeRequest{ThingTypeName: "pump", ThingTypeProperties: &iot.ThingTypeProperties{ThingTypeDescription: new("Another")}}))
		d = must[*iot.DescribeThingTypeResponse](t)(w.DescribeThingType(ctx, &iot.DescribeThingTypeRequest{ThingTypeName: "pump"}))
		if *d.ThingTypeProperties.ThingTypeDescription != "Another" || len(d.ThingTypeProperties.SearchableAttributes) != 2 {
			t.Errorf("updated: %+v", d.ThingTypeProperties)
		}

		must[*iot.CreateThingTypeResponse](t)(w.CreateThingType(ctx, &iot.CreateThingTypeRequest{ThingTypeName: "lamp"}))
		l := must[*iot.ListThingTypesResponse](t)(w.ListThingTypes(ctx, &iot.ListThingTypesRequest{MaxResults: new(int32(1))}))
		l2 := must[*iot.ListThingTypesResponse](t)(w.ListThingTypes(ctx, &iot.ListThingTypesRequest{NextToken: l.NextToken}))
		if *l.ThingTypes[0].ThingTypeName != "lamp" || len(l2.ThingTypes) != 1 || *l2.ThingTypes[0].ThingTypeName != "pump" || l2.NextToken != nil {
			t.Errorf("lists %+v %+v", l, l2)
		}
		for name, n := range map[string]int{"pump": 1, "none": 0} {
			if l := must[*iot.ListThingTypesResponse](t)(w.ListThingTypes(ctx, &iot.ListThingTypesRequest{ThingTypeName: &name})); len(l.ThingTypes) != n {
				t.Errorf("%d types named %s", len(l.ThingTypes), name)
			}
		}

		w.thing(t, "a", "pump")
		del := func() error {
			_, err := w.DeleteThingType(ctx, &iot.DeleteThingTypeRequest{ThingTypeName: "pump"})
			return err
		}
		deprecate := func(undo bool) {
			t.Helper()
			must[*iot.DeprecateThingTypeResponse](t)(w.DeprecateThingType(ctx, &iot.DeprecateThingTypeRequest{ThingTypeName: "pump", UndoDeprecate: &undo}))
		}
		want[*iot.InvalidRequestException](t, del(), "deprecated")
		deprecate(false)
		_, err = w.CreateThing(ctx, &iot.CreateThingRequest{ThingName: "b", ThingTypeName: new("pump")})
		want[*iot.InvalidRequestException](t, err, "Can not create new thing with deprecated thing type: pump")
		_, err = w.UpdateThingType(ctx, &iot.UpdateThingTypeRequest{ThingTypeName: "pump"})
		want[*iot.InvalidRequestException](t, err, "deprecated")
		deprecate(true)
		w.thing(t, "b", "pump")
		deprecate(false)
		w.advance(4 * time.Minute)
		deprecate(false) // again: the time runs on
		// What Terraform waits for.
		want[*iot.InvalidRequestException](t, del(), "Cannot delete thing type : pump. Please wait for 5 minutes after deprecation and then retry")
		w.advance(time.Minute)
		want[*iot.InvalidRequestException](t, del(), "things")
		for _, n := range []string{"a", "b"} {
			must[*iot.UpdateThingResponse](t)(w.UpdateThing(ctx, &iot.UpdateThingRequest{ThingName: n, RemoveThingType: new(true)}))
		}
		if err := del(); err != nil {
			t.Fatal(err)
		}
		want[*iot.ResourceNotFoundException](t, del(), "pump")
		must[*iot.CreateThingTypeResponse](t)(w.CreateThingType(ctx, &iot.CreateThingTypeRequest{ThingTypeName: "pump"}))
		tags := must[*iot.ListTagsForResourceResponse](t)(w.ListTagsForResource(ctx, &iot.ListTagsForResourceRequest{ResourceArn: arn + "thingtype/pump"}))
		if len(tags.Tags) > 0 {
			t.Errorf("the new type has tags %v", tags.Tags)
		}
	})
}

// Without --limits aws there is no wait.
func TestThingTypeIsDeletedAtOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		must[*iot.CreateThingTypeResponse](t)(w.CreateThingType(ctx, &iot.CreateThingTypeRequest{ThingTypeName: "pump"}))
		must[*iot.DeprecateThingTypeResponse](t)(w.DeprecateThingType(ctx, &iot.DeprecateThingTypeRequest{ThingTypeName: "pump"}))
		must[*iot.DeleteThingTypeResponse](t)(w.DeleteThingType(ctx, &iot.DeleteThingTypeRequest{ThingTypeName: "pump"}))
	})
}
