package index_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"flotilla/internal/aws/iot"
	"flotilla/internal/index"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

func (w *world) dynamic(name, query string) {
	w.t.Helper()
	ok[*iot.CreateDynamicThingGroupResponse](w.t)(w.registry.CreateDynamicThingGroup(w.ctx, &iot.CreateDynamicThingGroupRequest{
		ThingGroupName: name, QueryString: query,
	}))
}

// members are the things of a group, sorted, and its status.
func (w *world) members(group string) string {
	w.t.Helper()
	out := ok[*iot.ListThingsInThingGroupResponse](w.t)(w.registry.ListThingsInThingGroup(w.ctx, &iot.ListThingsInThingGroupRequest{
		ThingGroupName: group, MaxResults: new(int32(250)),
	}))
	g := ok[*iot.DescribeThingGroupResponse](w.t)(w.registry.DescribeThingGroup(w.ctx, &iot.DescribeThingGroupRequest{ThingGroupName: group}))
	slices.Sort(out.Things)
	return strings.Join(append([]string{*g.Status}, out.Things...), " ")
}

// A dynamic group has the things that its query finds: those that were there before it, and as they change.
func TestDynamicGroupFollows(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, index.Config{})
		w.thing("a", map[string]string{"model": "pro"})
		w.thing("b", map[string]string{"model": "basic"})
		w.index(everything)
		var heard []string
		w.OnChange("membership", func(key string) { heard = append(heard, key) })
		w.dynamic("pros", "attributes.model:pro")
		w.dynamic("low", "shadow.reported.battery<20")
		w.dynamic("named", "registry.thingName:b OR registry.thingName:c")
		if got := w.members("pros"); got != "BUILDING" {
			t.Errorf("at first: %q", got)
		}
		w.settle()
		for group, want := range map[string]string{"pros": "ACTIVE a", "low": "ACTIVE", "named": "ACTIVE b"} {
			if got := w.members(group); got != want {
				t.Errorf("%s: %q instead of %q", group, got, want)
			}
		}
		w.thing("c", map[string]string{"model": "pro"})
		w.shadow("b", "", `{"state":{"reported":{"battery":10}}}`)
		ok[*iot.UpdateThingResponse](t)(w.registry.UpdateThing(w.ctx, &iot.UpdateThingRequest{
			ThingName: "a", AttributePayload: &iot.AttributePayload{Attributes: map[string]string{"model": "basic"}},
		}))
		w.settle()
		for group, want := range map[string]string{"pros": "ACTIVE c", "low": "ACTIVE b", "named": "ACTIVE b c"} {
			if got := w.members(group); got != want {
				t.Errorf("after changes, %s: %q instead of %q", group, got, want)
			}
		}
		if got := strings.Join(heard, " "); got != "+named/b +pros/a -pros/a +low/b +named/c +pros/c" {
			t.Errorf("announced: %q", got)
		}
		ok[*iot.UpdateDynamicThingGroupResponse](t)(w.registry.UpdateDynamicThingGroup(w.ctx, &iot.UpdateDynamicThingGroupRequest{
			ThingGroupName: "pros", QueryString: new("attributes.model:basic"), ThingGroupProperties: &iot.ThingGroupProperties{}, ExpectedVersion: new(int64(1)),
		}))
		if got := w.members("pros"); got != "BUILDING c" {
			t.Errorf("with another query, at first: %q", got)
		}
		w.settle()
		if got := w.members("pros"); got != "ACTIVE a b" {
			t.Errorf("with another query: %q", got)
		}
		ok[*iot.DeleteDynamicThingGroupResponse](t)(w.registry.DeleteDynamicThingGroup(w.ctx, &iot.DeleteDynamicThingGroupRequest{ThingGroupName: "pros"}))
		ok[*iot.DeleteThingResponse](t)(w.registry.DeleteThing(w.ctx, &iot.DeleteThingRequest{ThingName: "b"}))
		w.settle()
		if got := w.members("low"); got != "ACTIVE" {
			t.Errorf("after the thing was deleted: %q", got)
		}
		if got := w.find("thingGroupNames:*", 10); got != "" {
			t.Errorf("dynamic groups are in the index: %q", got)
		}
	})
}

// A dynamic group has room only where the thing has, and gives way to a static one on request.
func TestDynamicGroupAndStaticGroups(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, index.Config{})
		w.index(everything)
		w.thing("a", nil)
		w.dynamic("all", "*")
		w.settle()
		if got := w.members("all"); got != "ACTIVE a" {
			t.Fatalf("%q", got)
		}
		add := func(group string, override bool) error {
			_, err := w.registry.AddThingToThingGroup(w.ctx, &iot.AddThingToThingGroupRequest{
				ThingName: new("a"), ThingGroupName: &group, OverrideDynamicGroups: &override,
			})
			return err
		}
		for i := range 100 {
			name := fmt.Sprint("s", i)
			ok[*iot.CreateThingGroupResponse](t)(w.registry.CreateThingGroup(w.ctx, &iot.CreateThingGroupRequest{ThingGroupName: name}))
			if err := add(name, false); (err != nil) != (i == 99) {
				t.Fatalf("group %d: %v", i, err)
			}
		}
		if err := add("s99", true); err != nil {
			t.Fatal(err)
		}
		w.settle()
		if got := w.members("all"); got != "ACTIVE" {
			t.Errorf("beside as many static groups as there may be: %q", got)
		}
		ok[*iot.RemoveThingFromThingGroupResponse](t)(w.registry.RemoveThingFromThingGroup(w.ctx, &iot.RemoveThingFromThingGroupRequest{
			ThingName: new("a"), ThingGroupName: new("s1"),
		}))
		w.settle()
		if got := w.members("all"); got != "ACTIVE a" {
			t.Errorf("when there is room again: %q", got)
		}
	})
}

// What dynamic groups can't do is refused.
func TestDynamicGroupRefusals(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, index.Config{})
		w.thing("a", nil)
		create := func(query string) error {
			_, err := w.registry.CreateDynamicThingGroup(w.ctx, &iot.CreateDynamicThingGroupRequest{ThingGroupName: "g", QueryString: query})
			return err
		}
		if err := create("*"); !errors.As(err, new(*iot.ResourceNotFoundException)) {
			t.Errorf("without an index: %v", err)
		}
		w.index(everything)
		if err := create("attributes.model:("); !errors.As(err, new(*iot.InvalidQueryException)) {
			t.Errorf("a query that is none: %v", err)
		}
		if err := create("*"); err != nil {
			t.Fatal(err)
		}
		if err := create("*"); err != nil {
			t.Errorf("the same again: %v", err)
		}
		if err := create("thingName:a"); !errors.As(err, new(*iot.ResourceAlreadyExistsException)) {
			t.Errorf("another query: %v", err)
		}
		w.settle()
		_, update := w.registry.UpdateThingGroup(w.ctx, &iot.UpdateThingGroupRequest{ThingGroupName: "g"})
		_, remove := w.registry.DeleteThingGroup(w.ctx, &iot.DeleteThingGroupRequest{ThingGroupName: "g"})
		_, child := w.registry.CreateThingGroup(w.ctx, &iot.CreateThingGroupRequest{ThingGroupName: "c", ParentGroupName: new("g")})
		_, add := w.registry.AddThingToThingGroup(w.ctx, &iot.AddThingToThingGroupRequest{ThingName: new("a"), ThingGroupName: new("g")})
		_, out := w.registry.RemoveThingFromThingGroup(w.ctx, &iot.RemoveThingFromThingGroupRequest{ThingName: new("a"), ThingGroupName: new("g")})
		for what, err := range map[string]error{"update": update, "delete": remove, "child": child, "add": add, "remove": out} {
			if !errors.As(err, new(*iot.InvalidRequestException)) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if got := w.members("g"); got != "ACTIVE a" {
			t.Errorf("%q", got)
		}
	})
}

// After random changes every dynamic group has just the things that SearchIndex finds for its query.
func TestDynamicGroupsAreSearches(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		r := rand.New(rand.NewPCG(7, 7))
		w := newWorld(t, db, index.Config{})
		w.index(everything)
		queries := []string{"*", "attributes.model:m1", "NOT attributes.model:m1", "shadow.reported.battery:[20 TO 60]", "shadow.hasDelta:true", "thingName:t1*"}
		for i, q := range queries {
			w.dynamic(fmt.Sprint("g", i), q)
		}
		for step := range 200 {
			name := fmt.Sprint("t", r.IntN(20))
			switch r.IntN(5) {
			case 0:
				_, _ = w.registry.CreateThing(w.ctx, &iot.CreateThingRequest{
					ThingName: name, AttributePayload: &iot.AttributePayload{Attributes: map[string]string{"model": fmt.Sprint("m", r.IntN(3))}},
				})
			case 1:
				_, _ = w.registry.UpdateThing(w.ctx, &iot.UpdateThingRequest{
					ThingName: name, AttributePayload: &iot.AttributePayload{Attributes: map[string]string{"model": fmt.Sprint("m", r.IntN(3))}},
				})
			case 2:
				_, _ = w.registry.DeleteThing(w.ctx, &iot.DeleteThingRequest{ThingName: name})
			case 3:
				g := r.IntN(len(queries))
				queries[g] = []string{"*", "attributes.model:m2", "shadow.reported.battery<50", "shadow.desired.on:true"}[r.IntN(4)]
				ok[*iot.UpdateDynamicThingGroupResponse](t)(w.registry.UpdateDynamicThingGroup(w.ctx, &iot.UpdateDynamicThingGroupRequest{
					ThingGroupName: fmt.Sprint("g", g), QueryString: &queries[g], ThingGroupProperties: &iot.ThingGroupProperties{},
				}))
			default:
				if _, err := w.registry.DescribeThing(w.ctx, &iot.DescribeThingRequest{ThingName: name}); err == nil {
					w.shadow(name, "", fmt.Sprintf(`{"state":{"reported":{"battery":%d},"desired":{"on":%t}}}`, r.IntN(100), r.IntN(2) == 0))
				}
			}
			if step%20 != 19 {
				continue
			}
			w.settle()
			for i, q := range queries {
				want := strings.TrimSpace("ACTIVE " + w.find(q, 100))
				if got := w.members(fmt.Sprint("g", i)); got != want {
					t.Fatalf("step %d, %s: %q instead of %q", step, q, got, want)
				}
			}
		}
	})
}
