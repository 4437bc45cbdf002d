package registry_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws/iot"
	"flotilla/internal/policy/lang"
	"flotilla/internal/registry"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

func TestPrincipals(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		for _, n := range []string{"a", "b", "c"} {
			w.thing(t, n, "")
		}
		w.announced()
		attach := func(thing, principal string, kind *string) error {
			_, err := w.AttachThingPrincipal(ctx, &iot.AttachThingPrincipalRequest{ThingName: thing, Principal: principal, ThingPrincipalType: kind})
			return err
		}
		exclusive, shared := new(iot.ThingPrincipalTypeExclusiveThing), new(iot.ThingPrincipalTypeNonExclusiveThing)
		w.attach(t, "a", certA)
		if got := w.announced(); got != "thing/a principal/"+certA {
			t.Errorf("announced %s", got)
		}
		w.attach(t, "a", certA)
		if got := w.announced(); got != "" {
			t.Errorf("attaching again announced %s", got)
		}
		w.attach(t, "b", certA)
		want[*iot.InvalidRequestException](t, attach("c", certA, exclusive), "can't be attached exclusively")
		want[*iot.InvalidRequestException](t, attach("a", certA, exclusive), "can't be attached exclusively")
		if err := attach("b", certB, exclusive); err != nil {
			t.Fatal(err)
		}
		want[*iot.InvalidRequestException](t, attach("a", certB, nil), "exclusively")
		want[*iot.InvalidRequestException](t, attach("a", certB, exclusive), "exclusively")
		if err := attach("b", certB, nil); err != nil { // stays exclusive
			t.Fatal(err)
		}
		for principal, text := range map[string]string{
			"us-east-1:00000000-0000-0000-0000-000000000000": "Invalid principal",
			"arn:aws:iot:us-east-1:999999999999:cert/aaaa":   "Invalid principal",
			arn + "cert/": "Invalid principal",
			strings.Replace(certA, "us-east-1", "eu-west-1", 1):  "Invalid principal",
			"arn:aws:iam::123456789012:role/admin":               "Invalid principal",
			strings.Replace(certA, "cert/aaaa", "policy/aaa", 1): "Invalid principal",
		} {
			want[*iot.InvalidRequestException](t, attach("a", principal, nil), text)
		}
		want[*iot.ResourceNotFoundException](t, attach("a", arn+"cert/abcd", nil), "no certificate")
		want[*iot.ResourceNotFoundException](t, attach("none", certA, nil), "Thing none not found")

		one := new(int32(1))
		p := must[*iot.ListThingPrincipalsResponse](t)(w.ListThingPrincipals(ctx, &iot.ListThingPrincipalsRequest{ThingName: "b", MaxResults: one}))
		p2 := must[*iot.ListThingPrincipalsResponse](t)(w.ListThingPrincipals(ctx, &iot.ListThingPrincipalsRequest{ThingName: "b", MaxResults: one, NextToken: p.NextToken}))
		if d := cmp.Diff([]string{certA, certB}, append(p.Principals, p2.Principals...)); d != "" || p2.NextToken != nil {
			t.Error(d)
		}
		for kind, n := range map[*string]int{exclusive: 1, shared: 1, nil: 2} {
			v := must[*iot.ListThingPrincipalsV2Response](t)(w.ListThingPrincipalsV2(ctx, &iot.ListThingPrincipalsV2Request{ThingName: "b", ThingPrincipalType: kind}))
			if len(v.ThingPrincipalObjects) != n || kind != nil && *v.ThingPrincipalObjects[0].ThingPrincipalType != *kind {
				t.Errorf("%v: %+v", kind, v.ThingPrincipalObjects)
			}
		}
		th := must[*iot.ListPrincipalThingsResponse](t)(w.ListPrincipalThings(ctx, &iot.ListPrincipalThingsRequest{Principal: certA, MaxResults: one}))
		th2 := must[*iot.ListPrincipalThingsResponse](t)(w.ListPrincipalThings(ctx, &iot.ListPrincipalThingsRequest{Principal: certA, MaxResults: one, NextToken: th.NextToken}))
		if d := cmp.Diff([]string{"a", "b"}, append(th.Things, th2.Things...)); d != "" || th2.NextToken != nil {
			t.Error(d)
		}
		v := must[*iot.ListPrincipalThingsV2Response](t)(w.ListPrincipalThingsV2(ctx, &iot.ListPrincipalThingsV2Request{Principal: certB, ThingPrincipalType: exclusive}))
		if d := cmp.Diff([]*iot.PrincipalThingObject{{ThingName: "b", ThingPrincipalType: exclusive}}, v.PrincipalThingObjects); d != "" {
			t.Error(d)
		}
		_, err := w.ListThingPrincipals(ctx, &iot.ListThingPrincipalsRequest{ThingName: "none"})
		want[*iot.ResourceNotFoundException](t, err, "Failed to list principals for thing none because the thing does not exist in your account")

		w.announced()
		detach := func(thing, principal string) {
			t.Helper()
			must[*iot.DetachThingPrincipalResponse](t)(w.DetachThingPrincipal(ctx, &iot.DetachThingPrincipalRequest{ThingName: thing, Principal: principal}))
		}
		detach("b", certB)
		if got := w.announced(); got != "thing/b principal/"+certB {
			t.Errorf("announced %s", got)
		}
		detach("b", certB)
		if got := w.announced(); got != "" {
			t.Errorf("detaching again announced %s", got)
		}
		if err := attach("a", certB, nil); err != nil {
			t.Errorf("it is free again: %v", err)
		}
		detach("b", certA)
		if err := attach("a", certA, exclusive); err != nil { // it is the only one now
			t.Error(err)
		}
		want[*iot.InvalidRequestException](t, attach("c", certA, nil), "exclusively")
		if err := attach("a", certA, shared); err != nil {
			t.Error(err)
		}
		w.attach(t, "c", certA)
		_, err = w.DetachThingPrincipal(ctx, &iot.DetachThingPrincipalRequest{ThingName: "none", Principal: certA})
		want[*iot.ResourceNotFoundException](t, err, "none")
	})
}

// Of all that attach a principal exclusively at the same time one succeeds, on
// one node or on several.
func TestExclusiveAttachmentsContend(t *testing.T) {
	each(t, func(t *testing.T, w *world) { contend(t, w, w) })
	if server := os.Getenv("FLOTILLA_TEST_POSTGRES"); server != "" {
		t.Run("two nodes", func(t *testing.T) { contend(t, nodes(t, server)...) })
	}
}

// nodes are two registries on one PostgreSQL.
func nodes(t *testing.T, server string) (list []*world) {
	url := storetest.Postgres(t, server)
	for i := range 2 {
		db := storetest.OpenConfig(t, store.Config{Store: url, NodeID: fmt.Sprint("node", i)})
		list = append(list, newWorld(t, db, registry.Config{}))
	}
	return list
}

func contend(t *testing.T, worlds ...*world) {
	for i := range 16 {
		worlds[0].thing(t, fmt.Sprint("t", i), "")
	}
	for round := range 8 {
		principal := arn + "cert/" + strings.Repeat(string(rune('0'+round)), 4)
		var won sync.Map
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				kind := new(iot.ThingPrincipalTypeExclusiveThing)
				_, err := worlds[i%len(worlds)].AttachThingPrincipal(t.Context(), &iot.AttachThingPrincipalRequest{
					ThingName: fmt.Sprint("t", i), Principal: principal, ThingPrincipalType: kind,
				})
				var refused *iot.InvalidRequestException
				switch {
				case err == nil:
					won.Store(i, true)
				case !errors.As(err, &refused):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		n := 0
		won.Range(func(any, any) bool { n++; return true })
		if n != 1 {
			t.Fatalf("%d attached the principal exclusively", n)
		}
	}
}

// Two nodes: versions are linear.
func TestTwoNodes(t *testing.T) {
	server := os.Getenv("FLOTILLA_TEST_POSTGRES")
	if server == "" {
		t.Skip("FLOTILLA_TEST_POSTGRES is not set")
	}
	worlds := nodes(t, server)
	worlds[0].thing(t, "a", "", "n", "0")
	count(t, 15, worlds...)
	worlds[0].Changed("thing", "a")
	if got := worlds[0].describe(t, "a"); got.Attributes["n"] != "30" || *got.Version != 31 {
		t.Errorf("n = %s in version %d, want 30 in 31", got.Attributes["n"], *got.Version)
	}
}

func TestPolicyThing(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		must[*iot.CreateThingTypeResponse](t)(w.CreateThingType(ctx, &iot.CreateThingTypeRequest{ThingTypeName: "pump"}))
		w.thing(t, "a", "pump", "x", "1")
		w.thing(t, "b", "")
		check := func(name, principal string, attached bool) {
			t.Helper()
			for range 2 { // the second comes from memory
				got := must[*lang.Thing](t)(w.PolicyThing(ctx, name, principal))
				if d := cmp.Diff(&lang.Thing{Name: "a", TypeName: "pump", Attributes: map[string]string{"x": "1"}, Attached: attached}, got); d != "" {
					t.Error(d)
				}
			}
		}
		check("a", certA, false)
		w.attach(t, "a", certA)
		w.attach(t, "b", certB)
		check("a", certA, true)
		check("a", certB, false)
		// More principals than are kept in memory.
		for _, c := range "0123456789cdef" {
			w.attach(t, "a", arn+"cert/"+strings.Repeat(string(c), 4))
		}
		check("a", certA, true)
		check("a", arn+"cert/eeee", true)
		check("a", certB, false)
		must[*iot.DetachThingPrincipalResponse](t)(w.DetachThingPrincipal(ctx, &iot.DetachThingPrincipalRequest{ThingName: "a", Principal: certA}))
		check("a", certA, false)
		if got := must[*lang.Thing](t)(w.PolicyThing(ctx, "none", certA)); got != nil {
			t.Errorf("%+v", got)
		}

		w.group(t, "plant", "")
		w.group(t, "hall", "plant")
		w.group(t, "other", "")
		groups := func(want ...string) {
			t.Helper()
			got := must[[]string](t)(w.ThingGroupsOfPrincipal(ctx, certB))
			for i := range want {
				want[i] = arn + "thinggroup/" + want[i]
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		}
		groups()
		w.join(t, "b", "hall")
		groups("hall", "plant")
		w.thing(t, "c", "")
		w.attach(t, "c", certB)
		w.join(t, "c", "plant")
		w.join(t, "c", "other")
		groups("hall", "other", "plant")
	})
}

func TestTags(t *testing.T) {
	eachConfig(t, registry.Config{}, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.group(t, "g", "")
		must[*iot.CreateBillingGroupResponse](t)(w.CreateBillingGroup(ctx, &iot.CreateBillingGroupRequest{BillingGroupName: "b", Tags: []*iot.Tag{{Key: "a"}}}))
		tag := func(resource string, tags ...*iot.Tag) error {
			_, err := w.TagResource(ctx, &iot.TagResourceRequest{ResourceArn: arn + resource, Tags: tags})
			return err
		}
		list := func(resource string) string {
			t.Helper()
			out := must[*iot.ListTagsForResourceResponse](t)(w.ListTagsForResource(ctx, &iot.ListTagsForResourceRequest{ResourceArn: arn + resource}))
			var all []string
			for _, t := range out.Tags {
				all = append(all, t.Key+"="+*t.Value)
			}
			return strings.Join(all, " ")
		}
		if got := list("billinggroup/b"); got != "a=" {
			t.Errorf("billing group: %s", got)
		}
		for _, r := range []string{"thinggroup/g", "policy/p"} {
			for _, tags := range [][]*iot.Tag{{{Key: "x", Value: new("1")}, {Key: "y", Value: new("2")}}, {{Key: "y", Value: new("3")}}} {
				if err := tag(r, tags...); err != nil {
					t.Fatal(err)
				}
			}
			if got := list(r); got != "x=1 y=3" {
				t.Errorf("%s: %s", r, got)
			}
			must[*iot.UntagResourceResponse](t)(w.UntagResource(ctx, &iot.UntagResourceRequest{ResourceArn: arn + r, TagKeys: []string{"x", "none"}}))
			if got := list(r); got != "y=3" {
				t.Errorf("%s: %s", r, got)
			}
		}
		var many []*iot.Tag
		for i := range 50 {
			many = append(many, &iot.Tag{Key: fmt.Sprint("k", i), Value: new("")})
		}
		want[*iot.LimitExceededException](t, tag("thinggroup/g", many...), "50")
		if got := list("thinggroup/g"); got != "y=3" {
			t.Errorf("a refusal left %s", got)
		}
		for _, bad := range []*iot.Tag{{Key: ""}, {Key: "aws:x"}, {Key: strings.Repeat("k", 129)}, {Key: "k", Value: new(strings.Repeat("v", 257))}} {
			want[*iot.InvalidRequestException](t, tag("thinggroup/g", bad), "")
		}
		want[*iot.InvalidRequestException](t, tag("thinggroup/g", &iot.Tag{Key: "d"}, &iot.Tag{Key: "d"}), "Duplicate")
		for r, missing := range map[string]bool{"thinggroup/none": true, "thingtype/none": true, "billinggroup/none": true, "policy/none": true, "thing/a": false, "x": false, "cert/aaaa": false} {
			err := tag(r, &iot.Tag{Key: "k"})
			if missing {
				want[*iot.ResourceNotFoundException](t, err, "")
			} else {
				want[*iot.InvalidRequestException](t, err, "")
			}
		}
		if err := w.DeleteTags(ctx, arn+"policy/p"); err != nil || list("policy/p") != "" {
			t.Errorf("DeleteTags: %v", err)
		}
	})
}

func TestEvents(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		must[*iot.CreateThingTypeResponse](t)(w.CreateThingType(ctx, &iot.CreateThingTypeRequest{ThingTypeName: "pump"}))
		w.thing(t, "a", "pump", "x", "1")
		w.group(t, "root", "")
		w.group(t, "g", "root")
		w.join(t, "a", "g")
		must[*iot.UpdateThingResponse](t)(w.UpdateThing(ctx, &iot.UpdateThingRequest{ThingName: "a", RemoveThingType: new(true)}))
		must[*iot.DeleteThingResponse](t)(w.DeleteThing(ctx, &iot.DeleteThingRequest{ThingName: "a"}))
		must[*iot.DeleteThingGroupResponse](t)(w.DeleteThingGroup(ctx, &iot.DeleteThingGroupRequest{ThingGroupName: "g"}))
		w.mu.Lock()
		w.unwanted = iot.EventTypeThing
		w.mu.Unlock()
		w.thing(t, "unheard", "")
		var topics []string
		for _, e := range w.events {
			topics = append(topics, strings.TrimPrefix(e.topic, "$aws/events/"))
		}
		if d := cmp.Diff([]string{
			"thingType/pump/created",
			"thing/a/created",
			"thingTypeAssociation/thing/a/thingType/pump/added",
			"thingGroup/root/created",
			"thingGroup/g/created",
			"thingGroupHierarchy/thingGroup/root/childThingGroup/g/added",
			"thingGroupMembership/thingGroup/g/thing/a/added",
			"thing/a/updated",
			"thingTypeAssociation/thing/a/thingType/pump/removed",
			"thingGroupMembership/thingGroup/g/thing/a/removed",
			"thing/a/deleted",
			"thingGroupHierarchy/thingGroup/root/childThingGroup/g/removed",
			"thingGroup/g/deleted",
		}, topics); d != "" {
			t.Error(d)
		}
		for _, text := range []string{`"eventType":"THING_EVENT"`, `"operation":"CREATED"`, `"thingName":"a"`, `"versionNumber":1`, `"attributes":{"x":"1"}`, `"accountId":"123456789012"`, `"timestamp":1767225600000`} {
			if !strings.Contains(w.events[1].payload, text) {
				t.Errorf("%s is not in %s", text, w.events[1].payload)
			}
		}
	})
}
