package registry

import (
	"context"
	"errors"
	"slices"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// What dynamic groups' queries are of.
const (
	dynamicIndex   = "AWS_Things"
	dynamicVersion = "2017-09-30"
)

// CreateDynamicThingGroup makes a group whose things the fleet index finds: those
// for which the query is true, as they are from moment to moment. It is BUILDING
// until all things have been looked at. It has neither parent nor children and
// can't have policies; a thing is in no more groups than the quota allows, and a
// dynamic group goes without it. The same call again succeeds.
//
// Errors: iot.InvalidQueryException, IndexNotReadyException and ResourceNotFoundException (index),
// LimitExceededException, ResourceAlreadyExistsException, InvalidRequestException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateDynamicThingGroup.html
func (r *Registry) CreateDynamicThingGroup(ctx context.Context, in *iot.CreateDynamicThingGroupRequest) (*iot.CreateDynamicThingGroupResponse, error) {
	if err := validName("thing group", in.ThingGroupName); err != nil {
		return nil, err
	}
	if err := r.checkQuery(ctx, in.IndexName, in.QueryString, in.QueryVersion); err != nil {
		return nil, err
	}
	g := group{
		name: in.ThingGroupName, attributes: map[string]string{}, version: 1, created: r.nowMS(), number: r.db.NextID(), query: in.QueryString,
	}
	if err := r.setGroup(&g, in.ThingGroupProperties); err != nil {
		return nil, err
	}
	id, err := r.createGroup(ctx, &g, in.Tags)
	if err != nil {
		return nil, err
	}
	return &iot.CreateDynamicThingGroupResponse{
		ThingGroupName: &g.name, ThingGroupArn: new(r.arn(groupResource, g.name)), ThingGroupId: &id,
		IndexName: new(dynamicIndex), QueryString: &g.query, QueryVersion: new(dynamicVersion),
	}, nil
}

func (r *Registry) checkQuery(ctx context.Context, index *string, query string, version *string) error {
	if r.queries == nil {
		return &iot.ResourceNotFoundException{Message: "There is no fleet index"}
	}
	if index != nil && *index != "" && *index != dynamicIndex {
		return invalid("Things of a dynamic thing group are found in %s, not in %s", dynamicIndex, *index)
	}
	if query == "" {
		return invalid("queryString is required")
	}
	return r.queries.CheckQuery(ctx, index, query, version)
}

func (r *Registry) roomForDynamic(tx store.Tx) error {
	list, err := selectDynamicGroups(tx, r.cfg.MaxDynamicGroups)
	if err == nil && len(list) >= r.cfg.MaxDynamicGroups {
		err = &iot.LimitExceededException{Message: "The number of dynamic thing groups is limited"}
	}
	return err
}

// UpdateDynamicThingGroup changes description, attributes or query and raises
// the version. With another query it is BUILDING again.
//
// Errors: as CreateDynamicThingGroup, and iot.VersionConflictException (expectedVersion).
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateDynamicThingGroup.html
func (r *Registry) UpdateDynamicThingGroup(ctx context.Context, in *iot.UpdateDynamicThingGroupRequest) (*iot.UpdateDynamicThingGroupResponse, error) {
	if in.QueryString != nil || in.IndexName != nil || in.QueryVersion != nil {
		text := value(in.QueryString)
		if in.QueryString == nil {
			text = "*" // name and version alone are looked at
		}
		if err := r.checkQuery(ctx, in.IndexName, text, in.QueryVersion); err != nil {
			return nil, err
		}
	}
	version, err := r.updateGroup(ctx, in.ThingGroupName, in.ExpectedVersion, func(g *group) error {
		if g.query == "" {
			return invalid("Thing group %s is not dynamic: use UpdateThingGroup", g.name)
		}
		if q := value(in.QueryString); q != "" && q != g.query && g.built != leaving {
			g.query, g.built = q, unbuilt
		}
		return r.setGroup(g, in.ThingGroupProperties)
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateDynamicThingGroupResponse{Version: &version}, nil
}

// DeleteDynamicThingGroup deletes a dynamic group; deleting one that does not
// exist succeeds.
//
// Errors: iot.VersionConflictException (expectedVersion), InvalidRequestException (a static group).
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteDynamicThingGroup.html
func (r *Registry) DeleteDynamicThingGroup(ctx context.Context, in *iot.DeleteDynamicThingGroupRequest) (*iot.DeleteDynamicThingGroupResponse, error) {
	if err := r.deleteGroup(ctx, in.ThingGroupName, in.ExpectedVersion, true); err != nil {
		return nil, err
	}
	return &iot.DeleteDynamicThingGroupResponse{}, nil
}

// DynamicThingGroups gives the dynamic groups by name, but for those that are
// being deleted. It joins a transaction in ctx.
func (r *Registry) DynamicThingGroups(ctx context.Context) (list []*iot.DescribeThingGroupResponse, err error) {
	err = r.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		groups, err := selectDynamicGroups(tx, r.cfg.MaxDynamicGroups)
		list = list[:0]
		for i := range groups {
			if groups[i].built != leaving {
				list = append(list, r.describeGroup(&groups[i]))
			}
		}
		return err
	})
	return list, err
}

// SetDynamicThingGroups has a thing be in those dynamic groups that in names and
// in none that out names; others stay as they are. A thing that is in as many
// groups as it may be stays out, as does one that does not exist. It joins a
// transaction in ctx.
func (r *Registry) SetDynamicThingGroups(ctx context.Context, thing string, in, out []string) error {
	return r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		has, err := selectGroupsOfThing(tx, thing, "", maxMemberships)
		if err != nil {
			return err
		}
		member := map[string]bool{}
		n := len(has)
		for i := range has {
			g := &has[i]
			member[g.name] = true
			if g.query != "" && slices.Contains(out, g.name) {
				if err := r.leave(ctx, tx, thing, g); err != nil {
					return err
				}
				n--
			}
		}
		for _, name := range in {
			if member[name] || n >= r.cfg.MaxGroupsPerThing {
				continue
			}
			g, err := selectGroup(tx, name)
			if err != nil {
				return noGroup(err, name)
			}
			if g.query == "" || g.built == leaving {
				continue
			}
			if err := r.enter(ctx, tx, thing, &g); err != nil {
				return err
			}
			n++
		}
		return nil
	})
}

// TouchThing has nodes that change a thing at the same time wait for each other,
// until the transaction in ctx ends; false when there is no such thing.
func (r *Registry) TouchThing(ctx context.Context, thing string) (exists bool, err error) {
	err = r.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		err := touchThing(tx, thing)
		if exists = err == nil; errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	})
	return exists, err
}

// DynamicThingGroupBuilt notes that all things have been held against a group's
// query, unless it has another one by now.
func (r *Registry) DynamicThingGroupBuilt(ctx context.Context, name, query string) error {
	return r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		n, err := tx.Exec(`UPDATE thing_group SET query_built = version WHERE name = $1 AND query = $2 AND query_built = 0`, name, query)
		if n > 0 {
			r.changed(ctx, kindGroup, name)
		}
		return err
	})
}
