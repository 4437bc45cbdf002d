package registry_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws/iot"
	"flotilla/internal/registry"
)

func TestThingGroups(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.group(t, "plant", "")
		w.group(t, "hall", "plant")
		in := &iot.CreateThingGroupRequest{
			ThingGroupName: "pumps", ParentGroupName: new("hall"),
			ThingGroupProperties: &iot.ThingGroupProperties{ThingGroupDescription: new("All pumps"), AttributePayload: &iot.AttributePayload{Attributes: map[string]string{"a": "1"}}},
			Tags:                 []*iot.Tag{{Key: "k", Value: new("v")}},
		}
		first := must[*iot.CreateThingGroupResponse](t)(w.CreateThingGroup(ctx, in))
		again := must[*iot.CreateThingGroupResponse](t)(w.CreateThingGroup(ctx, in))
		if *again.ThingGroupId != *first.ThingGroupId || *first.ThingGroupArn != arn+"thinggroup/pumps" {
			t.Errorf("%+v %+v", first, again)
		}
		in.ParentGroupName = new("plant")
		_, err := w.CreateThingGroup(ctx, in)
		e := want[*iot.ResourceAlreadyExistsException](t, err, "Thing Group pumps already exists")
		if e.ResourceArn != *first.ThingGroupArn || e.ResourceId != *first.ThingGroupId {
			t.Errorf("%+v", e)
		}
		d := must[*iot.DescribeThingGroupResponse](t)(w.DescribeThingGroup(ctx, &iot.DescribeThingGroupRequest{ThingGroupName: "pumps"}))
		if diff := cmp.Diff(&iot.DescribeThingGroupResponse{
			ThingGroupName: new("pumps"), ThingGroupId: first.ThingGroupId, ThingGroupArn: first.ThingGroupArn, Version: new(int64(1)),
			ThingGroupProperties: in.ThingGroupProperties,
			ThingGroupMetadata: &iot.ThingGroupMetadata{
				ParentGroupName: new("hall"), CreationDate: d.ThingGroupMetadata.CreationDate,
				RootToParentThingGroups: []*iot.GroupNameAndArn{
					{GroupName: new("plant"), GroupArn: new(arn + "thinggroup/plant")}, {GroupName: new("hall"), GroupArn: new(arn + "thinggroup/hall")},
				},
			},
		}, d); diff != "" {
			t.Error(diff)
		}
		_, err = w.CreateThingGroup(ctx, &iot.CreateThingGroupRequest{ThingGroupName: "x", ParentGroupName: new("none")})
		want[*iot.ResourceNotFoundException](t, err, "none")
		_, err = w.CreateThingGroup(ctx, &iot.CreateThingGroupRequest{ThingGroupName: "x/y"})
		want[*iot.InvalidRequestException](t, err, "")
		_, err = w.DescribeThingGroup(ctx, &iot.DescribeThingGroupRequest{ThingGroupName: "none"})
		want[*iot.ResourceNotFoundException](t, err, "none")

		update := func(expected *int64, p *iot.ThingGroupProperties) (*iot.UpdateThingGroupResponse, error) {
			return w.UpdateThingGroup(ctx, &iot.UpdateThingGroupRequest{ThingGroupName: "pumps", ExpectedVersion: expected, ThingGroupProperties: p})
		}
		u := must[*iot.UpdateThingGroupResponse](t)(update(new(int64(1)), &iot.ThingGroupProperties{AttributePayload: &iot.AttributePayload{Attributes: map[string]string{"b": "2"}, Merge: new(true)}}))
		d = must[*iot.DescribeThingGroupResponse](t)(w.DescribeThingGroup(ctx, &iot.DescribeThingGroupRequest{ThingGroupName: "pumps"}))
		if *u.Version != 2 || *d.Version != 2 || *d.ThingGroupProperties.ThingGroupDescription != "All pumps" ||
			!cmp.Equal(d.ThingGroupProperties.AttributePayload.Attributes, map[string]string{"a": "1", "b": "2"}) {
			t.Errorf("updated: %+v", d.ThingGroupProperties)
		}
		_, err = update(new(int64(1)), &iot.ThingGroupProperties{})
		want[*iot.VersionConflictException](t, err, "")

		del := func(name string, expected *int64) error {
			_, err := w.DeleteThingGroup(ctx, &iot.DeleteThingGroupRequest{ThingGroupName: name, ExpectedVersion: expected})
			return err
		}
		want[*iot.InvalidRequestException](t, del("hall", nil), "child groups")
		want[*iot.VersionConflictException](t, del("pumps", new(int64(1))), "")
		w.detached = nil
		if err := del("pumps", new(int64(2))); err != nil {
			t.Fatal(err)
		}
		if err := del("pumps", nil); err != nil {
			t.Errorf("deleting what is not there: %v", err)
		}
		if got := strings.Join(w.detached, " "); got != arn+"thinggroup/pumps" {
			t.Errorf("policies detached from %s", got)
		}
		w.group(t, "pumps", "plant") // below another parent now
		tags := must[*iot.ListTagsForResourceResponse](t)(w.ListTagsForResource(ctx, &iot.ListTagsForResourceRequest{ResourceArn: arn + "thinggroup/pumps"}))
		if len(tags.Tags) > 0 {
			t.Error("the new group has the old one's tags")
		}
		if err := del("hall", nil); err != nil {
			t.Error(err)
		}
	})
}

func TestGroupHierarchy(t *testing.T) {
	eachConfig(t, registry.Config{MaxChildGroups: 3}, func(t *testing.T, w *world) {
		ctx := t.Context()
		parent := ""
		for i := range 7 {
			name := fmt.Sprint("level", i+1)
			w.group(t, name, parent)
			parent = name
		}
		_, err := w.CreateThingGroup(ctx, &iot.CreateThingGroupRequest{ThingGroupName: "level8", ParentGroupName: &parent})
		want[*iot.InvalidRequestException](t, err, "at most 7 levels")
		w.group(t, "b1", "level1")
		w.group(t, "b2", "level1")
		_, err = w.CreateThingGroup(ctx, &iot.CreateThingGroupRequest{ThingGroupName: "b3", ParentGroupName: new("level1")})
		want[*iot.InvalidRequestException](t, err, "maximum number of child groups (3)")
		w.group(t, "other", "")
		w.group(t, "Level", "")

		list := func(in iot.ListThingGroupsRequest) string {
			t.Helper()
			in.MaxResults = new(int32(2))
			var all []string
			for {
				out := must[*iot.ListThingGroupsResponse](t)(w.ListThingGroups(ctx, &in))
				for _, g := range out.ThingGroups {
					if *g.GroupArn != arn+"thinggroup/"+*g.GroupName {
						t.Errorf("arn %s", *g.GroupArn)
					}
				}
				if s := names(out.ThingGroups); s != "" {
					all = append(all, s)
				}
				if in.NextToken = out.NextToken; in.NextToken == nil {
					return strings.Join(all, " ")
				}
			}
		}
		for _, c := range []struct {
			in   iot.ListThingGroupsRequest
			want string
		}{
			{iot.ListThingGroupsRequest{}, "Level b1 b2 level1 level2 level3 level4 level5 level6 level7 other"},
			{iot.ListThingGroupsRequest{Recursive: new(true), NamePrefixFilter: new("b")}, "b1 b2"},
			{iot.ListThingGroupsRequest{Recursive: new(false)}, "Level level1 other"},
			{iot.ListThingGroupsRequest{Recursive: new(false), NamePrefixFilter: new("l")}, "level1"},
			{iot.ListThingGroupsRequest{ParentGroup: new("level1")}, "b1 b2 level2 level3 level4 level5 level6 level7"},
			{iot.ListThingGroupsRequest{ParentGroup: new("level1"), NamePrefixFilter: new("level")}, "level2 level3 level4 level5 level6 level7"},
			{iot.ListThingGroupsRequest{ParentGroup: new("level1"), Recursive: new(false)}, "b1 b2 level2"},
			{iot.ListThingGroupsRequest{ParentGroup: new("level7")}, ""},
		} {
			if got := list(c.in); got != c.want {
				t.Errorf("%+v: %q, want %q", c.in, got, c.want)
			}
		}
		_, err = w.ListThingGroups(ctx, &iot.ListThingGroupsRequest{ParentGroup: new("none")})
		want[*iot.ResourceNotFoundException](t, err, "none")
	})
}

func TestMemberships(t *testing.T) {
	eachConfig(t, registry.Config{MaxGroupsPerThing: 3}, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.group(t, "plant", "")
		w.group(t, "hall", "plant")
		w.group(t, "pumps", "hall")
		for _, g := range []string{"x", "y", "z"} {
			w.group(t, g, "")
		}
		for i := range 9 {
			w.thing(t, fmt.Sprint("t", i), "")
		}
		w.announced()
		w.join(t, "t1", "pumps")
		if got := w.announced(); got != "membership/+pumps/t1 membership/+plant/t1 membership/+hall/t1 thing/t1" {
			t.Errorf("announced %s", got)
		}
		w.join(t, "t1", "pumps") // again
		for i := 2; i < 9; i++ {
			w.join(t, fmt.Sprint("t", i), []string{"plant", "hall", "pumps"}[i%3])
		}
		members := func(group string, recursive bool) string {
			t.Helper()
			in := &iot.ListThingsInThingGroupRequest{ThingGroupName: group, Recursive: &recursive, MaxResults: new(int32(2))}
			var all []string
			for {
				out := must[*iot.ListThingsInThingGroupResponse](t)(w.ListThingsInThingGroup(ctx, in))
				all = append(all, out.Things...)
				if in.NextToken = out.NextToken; in.NextToken == nil {
					return strings.Join(all, " ")
				}
			}
		}
		for _, c := range []struct{ group, direct, all string }{
			{"pumps", "t1 t2 t5 t8", "t1 t2 t5 t8"},
			{"hall", "t4 t7", "t1 t2 t4 t5 t7 t8"},
			{"plant", "t3 t6", "t1 t2 t3 t4 t5 t6 t7 t8"},
			{"x", "", ""},
		} {
			if d, a := members(c.group, false), members(c.group, true); d != c.direct || a != c.all {
				t.Errorf("%s: %q and %q", c.group, d, a)
			}
		}
		add := func(thing, group string) error {
			_, err := w.AddThingToThingGroup(ctx, &iot.AddThingToThingGroupRequest{ThingArn: new(arn + "thing/" + thing), ThingGroupArn: new(arn + "thinggroup/" + group)})
			return err
		}
		want[*iot.InvalidRequestException](t, add("t1", "plant"), "same hierarchy")
		want[*iot.ResourceNotFoundException](t, add("t1", "none"), "none")
		want[*iot.ResourceNotFoundException](t, add("none", "x"), "none")
		for _, g := range []string{"x", "y"} {
			if err := add("t1", g); err != nil {
				t.Error(err)
			}
		}
		want[*iot.InvalidRequestException](t, add("t1", "z"), "maximum number of thing groups (3)")
		for _, in := range []iot.AddThingToThingGroupRequest{
			{},
			{ThingName: new("t1")},
			{ThingName: new("t1"), ThingGroupName: new("x"), ThingGroupArn: new(arn + "thinggroup/y")},
			{ThingName: new("t1"), ThingGroupArn: new("arn:aws:iot:us-east-1:999999999999:thinggroup/y")},
			{ThingName: new("t1"), ThingGroupArn: new(arn + "thing/y")},
		} {
			_, err := w.AddThingToThingGroup(ctx, &in)
			want[*iot.InvalidRequestException](t, err, "")
		}
		groups := func(thing string) string {
			t.Helper()
			var all []string
			in := &iot.ListThingGroupsForThingRequest{ThingName: thing, MaxResults: new(int32(1))}
			for {
				out := must[*iot.ListThingGroupsForThingResponse](t)(w.ListThingGroupsForThing(ctx, in))
				all = append(all, names(out.ThingGroups))
				if in.NextToken = out.NextToken; in.NextToken == nil {
					return strings.Join(all, " ")
				}
			}
		}
		if got := groups("t1"); got != "pumps x y" {
			t.Errorf("groups %s", got)
		}
		_, err := w.ListThingGroupsForThing(ctx, &iot.ListThingGroupsForThingRequest{ThingName: "none"})
		want[*iot.ResourceNotFoundException](t, err, "none")
		_, err = w.ListThingsInThingGroup(ctx, &iot.ListThingsInThingGroupRequest{ThingGroupName: "none"})
		want[*iot.ResourceNotFoundException](t, err, "none")

		must[*iot.UpdateThingGroupsForThingResponse](t)(w.UpdateThingGroupsForThing(ctx, &iot.UpdateThingGroupsForThingRequest{
			ThingName: new("t1"), ThingGroupsToRemove: []string{"pumps", "x"}, ThingGroupsToAdd: []string{"hall", "z"},
		}))
		if got := groups("t1"); got != "hall y z" {
			t.Errorf("groups %s", got)
		}
		if a := members("plant", true); a != "t1 t2 t3 t4 t5 t6 t7 t8" {
			t.Errorf("plant %s", a)
		}
		// All or nothing.
		_, err = w.UpdateThingGroupsForThing(ctx, &iot.UpdateThingGroupsForThingRequest{ThingName: new("t1"), ThingGroupsToRemove: []string{"z"}, ThingGroupsToAdd: []string{"plant"}})
		want[*iot.InvalidRequestException](t, err, "same hierarchy")
		_, err = w.UpdateThingGroupsForThing(ctx, &iot.UpdateThingGroupsForThingRequest{ThingName: new("t1"), ThingGroupsToRemove: []string{"z"}, ThingGroupsToAdd: []string{"z"}})
		want[*iot.InvalidRequestException](t, err, "together")
		if got := groups("t1"); got != "hall y z" {
			t.Errorf("groups %s", got)
		}
		for range 2 {
			must[*iot.RemoveThingFromThingGroupResponse](t)(w.RemoveThingFromThingGroup(ctx, &iot.RemoveThingFromThingGroupRequest{ThingName: new("t1"), ThingGroupName: new("hall")}))
		}
		if a := members("plant", true); a != "t2 t3 t4 t5 t6 t7 t8" {
			t.Errorf("plant %s", a)
		}
		w.announced()
		must[*iot.DeleteThingGroupResponse](t)(w.DeleteThingGroup(ctx, &iot.DeleteThingGroupRequest{ThingGroupName: "pumps"}))
		// Its things lose what the groups above allow.
		var left string
		for _, thing := range []string{"t2", "t5", "t8"} {
			left += "membership/-pumps/" + thing + " membership/-plant/" + thing + " membership/-hall/" + thing + " thing/" + thing + " "
		}
		if got := w.announced(); got != left+"principal/"+arn+"thinggroup/pumps principal/"+arn+"thinggroup/plant principal/"+arn+"thinggroup/hall group/pumps" {
			t.Errorf("announced %s", got)
		}
		if a := members("plant", true); a != "t3 t4 t6 t7" {
			t.Errorf("plant %s", a)
		}
		w.group(t, "pumps", "hall")
		if a := members("pumps", true); a != "" {
			t.Errorf("the new group has %s", a)
		}
		if got := groups("t2"); got != "" {
			t.Errorf("t2 is in %s", got)
		}
	})
}

// A group with more members than one transaction takes.
func TestDeleteLargeGroup(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.group(t, "root", "")
		w.group(t, "g", "root")
		for i := range 501 {
			name := fmt.Sprint("t", i)
			w.thing(t, name, "")
			w.join(t, name, "g")
		}
		must[*iot.DeleteThingGroupResponse](t)(w.DeleteThingGroup(t.Context(), &iot.DeleteThingGroupRequest{ThingGroupName: "g"}))
		out := must[*iot.ListThingsInThingGroupResponse](t)(w.ListThingsInThingGroup(t.Context(), &iot.ListThingsInThingGroupRequest{ThingGroupName: "root", Recursive: new(true)}))
		if len(out.Things) > 0 {
			t.Errorf("%d things are left", len(out.Things))
		}
	})
}

func TestBillingGroups(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		in := &iot.CreateBillingGroupRequest{BillingGroupName: "b", BillingGroupProperties: &iot.BillingGroupProperties{BillingGroupDescription: new("x")}}
		first := must[*iot.CreateBillingGroupResponse](t)(w.CreateBillingGroup(ctx, in))
		again := must[*iot.CreateBillingGroupResponse](t)(w.CreateBillingGroup(ctx, in))
		if *first.BillingGroupId != *again.BillingGroupId || *first.BillingGroupArn != arn+"billinggroup/b" {
			t.Errorf("%+v %+v", first, again)
		}
		_, err := w.CreateBillingGroup(ctx, &iot.CreateBillingGroupRequest{BillingGroupName: "b"})
		want[*iot.ResourceAlreadyExistsException](t, err, "b")
		for _, n := range []string{"ab", "c"} {
			must[*iot.CreateBillingGroupResponse](t)(w.CreateBillingGroup(ctx, &iot.CreateBillingGroupRequest{BillingGroupName: n}))
		}
		_, err = w.UpdateBillingGroup(ctx, &iot.UpdateBillingGroupRequest{BillingGroupName: "b", ExpectedVersion: new(int64(2))})
		want[*iot.VersionConflictException](t, err, "")
		u := must[*iot.UpdateBillingGroupResponse](t)(w.UpdateBillingGroup(ctx, &iot.UpdateBillingGroupRequest{
			BillingGroupName: "b", ExpectedVersion: new(int64(1)), BillingGroupProperties: &iot.BillingGroupProperties{BillingGroupDescription: new("y")},
		}))
		d := must[*iot.DescribeBillingGroupResponse](t)(w.DescribeBillingGroup(ctx, &iot.DescribeBillingGroupRequest{BillingGroupName: "b"}))
		if *u.Version != 2 || *d.Version != 2 || *d.BillingGroupProperties.BillingGroupDescription != "y" || d.BillingGroupMetadata.CreationDate == nil {
			t.Errorf("%+v", d)
		}
		l := must[*iot.ListBillingGroupsResponse](t)(w.ListBillingGroups(ctx, &iot.ListBillingGroupsRequest{MaxResults: new(int32(2))}))
		l2 := must[*iot.ListBillingGroupsResponse](t)(w.ListBillingGroups(ctx, &iot.ListBillingGroupsRequest{NextToken: l.NextToken}))
		l3 := must[*iot.ListBillingGroupsResponse](t)(w.ListBillingGroups(ctx, &iot.ListBillingGroupsRequest{NamePrefixFilter: new("a")}))
		if names(l.BillingGroups) != "ab b" || names(l2.BillingGroups) != "c" || names(l3.BillingGroups) != "ab" {
			t.Errorf("lists %q %q %q", names(l.BillingGroups), names(l2.BillingGroups), names(l3.BillingGroups))
		}

		for i := range 3 {
			name := fmt.Sprint("t", i)
			w.thing(t, name, "")
			w.describe(t, name)
			must[*iot.AddThingToBillingGroupResponse](t)(w.AddThingToBillingGroup(ctx, &iot.AddThingToBillingGroupRequest{ThingName: &name, BillingGroupName: new("b")}))
		}
		must[*iot.AddThingToBillingGroupResponse](t)(w.AddThingToBillingGroup(ctx, &iot.AddThingToBillingGroupRequest{ThingName: new("t1"), BillingGroupArn: new(arn + "billinggroup/c")}))
		in2 := &iot.ListThingsInBillingGroupRequest{BillingGroupName: "b", MaxResults: new(int32(1))}
		things := must[*iot.ListThingsInBillingGroupResponse](t)(w.ListThingsInBillingGroup(ctx, in2))
		in2.NextToken = things.NextToken
		more := must[*iot.ListThingsInBillingGroupResponse](t)(w.ListThingsInBillingGroup(ctx, in2))
		if things.Things[0] != "t0" || more.Things[0] != "t2" || more.NextToken != nil {
			t.Errorf("%v %v", things.Things, more.Things)
		}
		if got := w.describe(t, "t1").BillingGroupName; got == nil || *got != "c" {
			t.Errorf("t1 is in %v", got)
		}
		_, err = w.DeleteBillingGroup(ctx, &iot.DeleteBillingGroupRequest{BillingGroupName: "b"})
		want[*iot.InvalidRequestException](t, err, "things")
		for _, n := range []string{"t0", "t1", "t2"} {
			must[*iot.RemoveThingFromBillingGroupResponse](t)(w.RemoveThingFromBillingGroup(ctx, &iot.RemoveThingFromBillingGroupRequest{ThingName: &n, BillingGroupName: new("b")}))
		}
		if w.describe(t, "t0").BillingGroupName != nil || w.describe(t, "t1").BillingGroupName == nil {
			t.Error("the wrong things were removed")
		}
		for range 2 {
			must[*iot.DeleteBillingGroupResponse](t)(w.DeleteBillingGroup(ctx, &iot.DeleteBillingGroupRequest{BillingGroupName: "b"}))
		}
		for _, err := range []error{
			second(w.DescribeBillingGroup(ctx, &iot.DescribeBillingGroupRequest{BillingGroupName: "b"})),
			second(w.UpdateBillingGroup(ctx, &iot.UpdateBillingGroupRequest{BillingGroupName: "b"})),
			second(w.ListThingsInBillingGroup(ctx, &iot.ListThingsInBillingGroupRequest{BillingGroupName: "b"})),
			second(w.AddThingToBillingGroup(ctx, &iot.AddThingToBillingGroupRequest{ThingName: new("t1"), BillingGroupName: new("b")})),
			second(w.AddThingToBillingGroup(ctx, &iot.AddThingToBillingGroupRequest{ThingName: new("none"), BillingGroupName: new("c")})),
		} {
			want[*iot.ResourceNotFoundException](t, err, "")
		}
	})
}

func second[T any](_ T, err error) error { return err }
