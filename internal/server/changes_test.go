package server

import (
	"context"
	"slices"
	"testing"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/registry"
	"flotilla/internal/shadow"
	"flotilla/internal/store/storetest"
)

// loopback is the news of a single node.
type loopback map[string][]func(string)

func (l loopback) OnChange(kind string, fn func(string)) { l[kind] = append(l[kind], fn) }

func (l loopback) Changed(kind, key string) {
	for _, fn := range l[kind] {
		fn(key)
	}
}

// Each listener hears of a change once it is committed: of things, groups, memberships up the hierarchy, shadows.
func TestChanges(t *testing.T) {
	news := loopback{}
	c := newChanges(news)
	var heard []string
	c.things = append(c.things, func(n string) { heard = append(heard, "thing "+n) })
	c.groups = append(c.groups, func(n string) { heard = append(heard, "group "+n) })
	c.memberships = append(c.memberships, func(g, n string, in bool) {
		if in {
			heard = append(heard, g+" has "+n)
		} else {
			heard = append(heard, g+" lost "+n)
		}
	})
	c.presences = append(c.presences, func(id string, connected bool, reason string, _ time.Time) {
		heard = append(heard, id+" "+reason)
	})
	db := storetest.Open(t)
	r := registry.New(registry.Config{}, registry.Deps{Account: aws.Account{ID: "123456789012", Region: "us-east-1"}, DB: db, Changes: news})
	s := shadow.New(db, r, nil, shadow.Config{Changed: c.thing})
	r.Use(nil, s, nil)
	ctx := context.Background()
	for _, step := range []struct {
		do   func() error
		says []string
	}{
		{func() error {
			_, err := r.CreateThing(ctx, &iot.CreateThingRequest{ThingName: "pump"})
			return err
		}, []string{"thing pump"}},
		{func() error {
			_, err := r.CreateThingGroup(ctx, &iot.CreateThingGroupRequest{ThingGroupName: "plant"})
			return err
		}, []string{"group plant"}},
		{func() error {
			_, err := r.CreateThingGroup(ctx, &iot.CreateThingGroupRequest{ThingGroupName: "hall", ParentGroupName: new("plant")})
			return err
		}, []string{"group hall"}},
		{func() error {
			_, err := r.AddThingToThingGroup(ctx, &iot.AddThingToThingGroupRequest{ThingName: new("pump"), ThingGroupName: new("hall")})
			return err
		}, []string{"hall has pump", "plant has pump", "thing pump"}},
		{func() error {
			_, err := r.DeleteThingGroup(ctx, &iot.DeleteThingGroupRequest{ThingGroupName: "hall"})
			return err
		}, []string{"group hall", "hall lost pump", "plant lost pump", "thing pump"}},
		{func() error {
			_, err := r.UpdateThingGroup(ctx, &iot.UpdateThingGroupRequest{ThingGroupName: "plant", ThingGroupProperties: &iot.ThingGroupProperties{}})
			return err
		}, []string{"group plant"}},
		{func() error { c.presence("pump", false, "CONNECTION_LOST", time.Time{}); return nil }, []string{"pump CONNECTION_LOST"}},
		{func() error {
			_, err := r.DeleteThing(ctx, &iot.DeleteThingRequest{ThingName: "pump"})
			return err
		}, []string{"thing pump"}},
	} {
		heard = nil
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		slices.Sort(heard)
		if !slices.Equal(heard, step.says) {
			t.Errorf("heard %q instead of %q", heard, step.says)
		}
	}
	c.membership("")
	c.membership("nonsense")
}
