package registry

import (
	"context"
	"slices"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// maxMemberships bounds the groups of a thing whatever the configuration says.
const maxMemberships = 1000

// AddThingToThingGroup adds a thing to a group; adding it again changes nothing.
//
// Errors: iot.ResourceNotFoundException, InvalidRequestException (another group of the hierarchy, number of groups).
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_AddThingToThingGroup.html
func (r *Registry) AddThingToThingGroup(ctx context.Context, in *iot.AddThingToThingGroupRequest) (*iot.AddThingToThingGroupResponse, error) {
	thing, group, err := r.pair(in.ThingName, in.ThingArn, in.ThingGroupName, in.ThingGroupArn)
	if err != nil {
		return nil, err
	}
	if err := r.regroup(ctx, thing, []string{group}, nil, value(in.OverrideDynamicGroups)); err != nil {
		return nil, err
	}
	return &iot.AddThingToThingGroupResponse{}, nil
}

// RemoveThingFromThingGroup takes a thing out of a group; it is no error when it
// is not in it.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_RemoveThingFromThingGroup.html
func (r *Registry) RemoveThingFromThingGroup(ctx context.Context, in *iot.RemoveThingFromThingGroupRequest) (*iot.RemoveThingFromThingGroupResponse, error) {
	thing, group, err := r.pair(in.ThingName, in.ThingArn, in.ThingGroupName, in.ThingGroupArn)
	if err != nil {
		return nil, err
	}
	if err := r.regroup(ctx, thing, nil, []string{group}, false); err != nil {
		return nil, err
	}
	return &iot.RemoveThingFromThingGroupResponse{}, nil
}

// UpdateThingGroupsForThing takes a thing out of groups and adds it to others,
// at once.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateThingGroupsForThing.html
func (r *Registry) UpdateThingGroupsForThing(ctx context.Context, in *iot.UpdateThingGroupsForThingRequest) (*iot.UpdateThingGroupsForThingResponse, error) {
	thing, err := r.pick("thing", thingResource, in.ThingName, nil)
	if err != nil {
		return nil, err
	}
	for _, g := range in.ThingGroupsToAdd {
		if slices.Contains(in.ThingGroupsToRemove, g) {
			return nil, invalid("Thing group %s can't be added and removed together", g)
		}
	}
	if err := r.regroup(ctx, thing, in.ThingGroupsToAdd, in.ThingGroupsToRemove, value(in.OverrideDynamicGroups)); err != nil {
		return nil, err
	}
	return &iot.UpdateThingGroupsForThingResponse{}, nil
}

func (r *Registry) pair(thingName, thingARN, groupName, groupARN *string) (thing, group string, err error) {
	if thing, err = r.pick("thing", thingResource, thingName, thingARN); err != nil {
		return "", "", err
	}
	group, err = r.pick("thing group", groupResource, groupName, groupARN)
	return thing, group, err
}

// regroup changes the groups of a thing. With override it leaves a dynamic
// group where it is in too many.
func (r *Registry) regroup(ctx context.Context, thing string, add, remove []string, override bool) error {
	return r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if err := touchThing(tx, thing); err != nil {
			return noThing(err, thing)
		}
		for _, name := range remove {
			g, err := selectGroup(tx, name)
			if err != nil {
				return noGroup(err, name)
			}
			if g.query != "" {
				return byQueryOnly(&g)
			}
			if err := r.leave(ctx, tx, thing, &g); err != nil {
				return err
			}
		}
		for _, name := range add {
			if err := r.join(ctx, tx, thing, name, override); err != nil {
				return err
			}
		}
		r.changed(ctx, kindThing, thing)
		return nil
	})
}

func (r *Registry) leave(ctx context.Context, tx store.Tx, thing string, g *group) error {
	was, err := deleteMember(tx, thing, g)
	if was {
		if err := r.membershipEvent(ctx, removed, thing, g); err != nil {
			return err
		}
		r.membershipChanged(ctx, "-", thing, g)
	}
	return err
}

func byQueryOnly(g *group) error {
	return invalid("Thing group %s is dynamic: its query alone says which things are in it", g.name)
}

func (r *Registry) join(ctx context.Context, tx store.Tx, thing, name string, override bool) error {
	g, err := selectGroup(tx, name)
	if err != nil {
		return noGroup(err, name)
	}
	if g.query != "" {
		return byQueryOnly(&g)
	}
	has, err := selectGroupsOfThing(tx, thing, "", maxMemberships)
	if err != nil {
		return err
	}
	for i := range has {
		switch {
		case has[i].number == g.number:
			return nil
		case has[i].root() == g.root():
			return invalid("Thing %s can't be added to thing group %s: it is in %s, of the same hierarchy", thing, name, has[i].name)
		}
	}
	if len(has) >= r.cfg.MaxGroupsPerThing && override {
		if i := slices.IndexFunc(has, func(g group) bool { return g.query != "" }); i >= 0 {
			if err := r.leave(ctx, tx, thing, &has[i]); err != nil {
				return err
			}
			has = slices.Delete(has, i, i+1)
		}
	}
	if len(has) >= r.cfg.MaxGroupsPerThing {
		return invalid("Thing %s is in the maximum number of thing groups (%d)", thing, r.cfg.MaxGroupsPerThing)
	}
	return r.enter(ctx, tx, thing, &g)
}

func (r *Registry) enter(ctx context.Context, tx store.Tx, thing string, g *group) error {
	is, err := insertMember(tx, thing, g)
	if is {
		if err := r.membershipEvent(ctx, added, thing, g); err != nil {
			return err
		}
		r.membershipChanged(ctx, "+", thing, g)
	}
	return err
}

// membershipChanged announces that a thing came into a group, and so into those above it, or left them.
func (r *Registry) membershipChanged(ctx context.Context, sign, thing string, g *group) {
	keys := []string{sign + g.name + "/" + thing}
	for _, a := range g.ancestors {
		keys = append(keys, sign+a+"/"+thing)
	}
	r.changed(ctx, kindMembership, keys...)
}

// ListThingGroupsForThing lists the groups that a thing was added to, by name.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListThingGroupsForThing.html
func (r *Registry) ListThingGroupsForThing(ctx context.Context, in *iot.ListThingGroupsForThingRequest) (*iot.ListThingGroupsForThingResponse, error) {
	from, err := parseToken(in.NextToken, 1)
	if err != nil {
		return nil, err
	}
	size := pageSize(in.MaxResults)
	out := &iot.ListThingGroupsForThingResponse{}
	err = r.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		if err := hasThing(tx, in.ThingName); err != nil {
			return noThing(err, in.ThingName)
		}
		list, err := selectGroupsOfThing(tx, in.ThingName, from[0], size+1)
		list, out.NextToken = cut(list, size, func(g group) string { return g.name })
		names := make([]string, len(list))
		for i := range list {
			names[i] = list[i].name
		}
		out.ThingGroups = r.named(groupResource, names)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ListThingsInThingGroup lists the things of a group by name; with recursive
// also those of all groups below.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListThingsInThingGroup.html
func (r *Registry) ListThingsInThingGroup(ctx context.Context, in *iot.ListThingsInThingGroupRequest) (*iot.ListThingsInThingGroupResponse, error) {
	from, err := parseToken(in.NextToken, 1)
	if err != nil {
		return nil, err
	}
	size := pageSize(in.MaxResults)
	out := &iot.ListThingsInThingGroupResponse{}
	err = r.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		g, err := selectGroup(tx, in.ThingGroupName)
		if err != nil {
			return noGroup(err, in.ThingGroupName)
		}
		names, err := selectMembers(tx, &g, from[0], size+1)
		if err != nil {
			return err
		}
		if value(in.Recursive) {
			below, err := selectReach(tx, &g, from[0], size+1)
			if err != nil {
				return err
			}
			names = append(names, below...) // each in order, none in both
			slices.Sort(names)
		}
		out.Things, out.NextToken = cut(names, size, func(string) string { return names[size-1] })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
