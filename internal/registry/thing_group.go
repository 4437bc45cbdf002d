package registry

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/google/uuid"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

func noGroup(err error, name string) error { return notFound(err, "Thing group %s not found", name) }

// setGroup changes a group as the properties say.
func (r *Registry) setGroup(g *group, p *iot.ThingGroupProperties) (err error) {
	if p == nil {
		return nil
	}
	if p.ThingGroupDescription != nil {
		g.description = *p.ThingGroupDescription
	}
	if g.attributes, err = apply(g.attributes, p.AttributePayload); err != nil {
		return err
	}
	return r.fits(g.attributes, r.cfg.MaxAttributes, "A thing group")
}

// CreateThingGroup makes a static group; its parent stays what it is. The same
// call again succeeds; with other properties it is a
// ResourceAlreadyExistsException.
//
// Errors: iot.InvalidRequestException (depth, number of children), ResourceNotFoundException (parent).
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateThingGroup.html
func (r *Registry) CreateThingGroup(ctx context.Context, in *iot.CreateThingGroupRequest) (*iot.CreateThingGroupResponse, error) {
	if err := validName("thing group", in.ThingGroupName); err != nil {
		return nil, err
	}
	g := group{
		name: in.ThingGroupName, parent: value(in.ParentGroupName), attributes: map[string]string{}, version: 1,
		created: r.nowMS(), number: r.db.NextID(),
	}
	if err := r.setGroup(&g, in.ThingGroupProperties); err != nil {
		return nil, err
	}
	id, err := r.createGroup(ctx, &g, in.Tags)
	if err != nil {
		return nil, err
	}
	return &iot.CreateThingGroupResponse{ThingGroupName: &g.name, ThingGroupArn: new(r.arn(groupResource, g.name)), ThingGroupId: &id}, nil
}

// createGroup writes a new group, unless the same one is there, and gives its id.
func (r *Registry) createGroup(ctx context.Context, g *group, tags []*iot.Tag) (id string, err error) {
	return id, r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		old, err := selectGroup(tx, g.name)
		if err == nil {
			id = old.id
			if old.parent == g.parent && old.description == g.description && maps.Equal(old.attributes, g.attributes) && old.query == g.query {
				return nil
			}
			return &iot.ResourceAlreadyExistsException{
				Message:    "Thing Group " + g.name + " already exists in current account with different properties",
				ResourceId: old.id, ResourceArn: r.arn(groupResource, g.name),
			}
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if g.query != "" {
			err = r.roomForDynamic(tx)
			g.ancestors = []string{}
		} else {
			err = r.place(tx, g)
		}
		if err != nil {
			return err
		}
		g.id = uuid.NewString()
		id = g.id
		made, err := insertGroup(tx, g)
		if err != nil {
			return err
		}
		if !made {
			return errors.New("registry: the group appeared under the transaction")
		}
		if r.policies != nil {
			// What another node attached while the last group of this name was deleted does not come back.
			if err := r.policies.DetachAll(ctx, r.arn(groupResource, g.name)); err != nil {
				return err
			}
		}
		if err := r.groupEvent(ctx, created, g); err != nil {
			return err
		}
		r.changed(ctx, kindGroup, g.name)
		if g.parent != "" {
			if err := r.hierarchyEvent(ctx, added, g); err != nil {
				return err
			}
		}
		return r.tagNew(tx, r.arn(groupResource, g.name), tags)
	})
}

// place finds a new group's ancestors and checks that there is room below its
// parent.
func (r *Registry) place(tx store.Tx, g *group) error {
	g.ancestors = []string{}
	if g.parent == "" {
		return nil
	}
	parent, err := selectGroup(tx, g.parent)
	if err != nil {
		return noGroup(err, g.parent)
	}
	if parent.query != "" {
		return invalid("Thing group %s is dynamic and can't be a parent", g.parent)
	}
	g.ancestors = append(slices.Clone(parent.ancestors), parent.name)
	if len(g.ancestors) >= r.cfg.MaxGroupDepth {
		return invalid("A hierarchy of thing groups can have at most %d levels", r.cfg.MaxGroupDepth)
	}
	n, err := countChildren(tx, g.parent, r.cfg.MaxChildGroups)
	if err != nil {
		return err
	}
	if n >= r.cfg.MaxChildGroups {
		return invalid("Thing group %s has the maximum number of child groups (%d)", g.parent, r.cfg.MaxChildGroups)
	}
	return touchGroup(tx, g.parent)
}

// DescribeThingGroup gives a group.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeThingGroup.html
func (r *Registry) DescribeThingGroup(ctx context.Context, in *iot.DescribeThingGroupRequest) (*iot.DescribeThingGroupResponse, error) {
	var g group
	err := r.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		g, err = selectGroup(tx, in.ThingGroupName)
		return err
	})
	if err != nil {
		return nil, noGroup(err, in.ThingGroupName)
	}
	return r.describeGroup(&g), nil
}

func (r *Registry) describeGroup(g *group) *iot.DescribeThingGroupResponse {
	out := &iot.DescribeThingGroupResponse{
		ThingGroupName: &g.name, ThingGroupId: &g.id, ThingGroupArn: new(r.arn(groupResource, g.name)), Version: &g.version,
		ThingGroupProperties: &iot.ThingGroupProperties{
			ThingGroupDescription: optional(g.description), AttributePayload: &iot.AttributePayload{Attributes: g.attributes},
		},
		ThingGroupMetadata: &iot.ThingGroupMetadata{
			ParentGroupName: optional(g.parent), RootToParentThingGroups: r.named(groupResource, g.ancestors), CreationDate: date(g.created),
		},
	}
	if g.query != "" {
		out.IndexName, out.QueryString, out.QueryVersion = new(dynamicIndex), &g.query, new(dynamicVersion)
		out.Status = new(iot.DynamicGroupStatusActive)
		if g.built <= unbuilt {
			out.Status = new(iot.DynamicGroupStatusBuilding)
		}
	}
	return out
}

// UpdateThingGroup changes description and attributes and raises the version.
//
// Errors: iot.VersionConflictException (expectedVersion), ResourceNotFoundException, InvalidRequestException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateThingGroup.html
func (r *Registry) UpdateThingGroup(ctx context.Context, in *iot.UpdateThingGroupRequest) (*iot.UpdateThingGroupResponse, error) {
	version, err := r.updateGroup(ctx, in.ThingGroupName, in.ExpectedVersion, func(g *group) error {
		if g.query != "" {
			return invalid("Thing group %s is dynamic: use UpdateDynamicThingGroup", g.name)
		}
		return r.setGroup(g, in.ThingGroupProperties)
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateThingGroupResponse{Version: &version}, nil
}

// updateGroup changes a group and gives its new version.
func (r *Registry) updateGroup(ctx context.Context, name string, expected *int64, change func(*group) error) (version int64, err error) {
	return version, r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		g, err := selectGroup(tx, name)
		if err != nil {
			return noGroup(err, name)
		}
		if err := checkVersion(expected, g.version, "thing group", g.name); err != nil {
			return err
		}
		if err := change(&g); err != nil {
			return err
		}
		g.version++
		version = g.version
		if err := r.groupEvent(ctx, updated, &g); err != nil {
			return err
		}
		r.changed(ctx, kindGroup, g.name)
		return updateGroup(tx, &g)
	})
}

// membersAtOnce is how many memberships one transaction of DeleteThingGroup
// ends.
const membersAtOnce = 500

// DeleteThingGroup deletes a group that has no child groups, with its
// memberships and attachments of policies. A large group loses its things in
// several transactions before it goes. Deleting one that does not exist
// succeeds.
//
// Errors: iot.VersionConflictException (expectedVersion), InvalidRequestException (children).
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteThingGroup.html
func (r *Registry) DeleteThingGroup(ctx context.Context, in *iot.DeleteThingGroupRequest) (*iot.DeleteThingGroupResponse, error) {
	if err := r.deleteGroup(ctx, in.ThingGroupName, in.ExpectedVersion, false); err != nil {
		return nil, err
	}
	return &iot.DeleteThingGroupResponse{}, nil
}

// deleteGroup deletes a group of the kind that the caller means.
func (r *Registry) deleteGroup(ctx context.Context, name string, expected *int64, dynamic bool) error {
	for done := false; !done; {
		err := r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
			g, err := selectGroup(tx, name)
			if errors.Is(err, store.ErrNotFound) {
				done = true
				return nil
			}
			if err != nil {
				return err
			}
			done, err = r.deletePart(ctx, tx, &g, expected, dynamic)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// deletePart does as much of a group's deletion as a transaction should; done when it is gone.
func (r *Registry) deletePart(ctx context.Context, tx store.Tx, g *group, expected *int64, dynamic bool) (done bool, err error) {
	switch {
	case dynamic && g.query == "":
		return false, invalid("Thing group %s is not dynamic: use DeleteThingGroup", g.name)
	case !dynamic && g.query != "":
		return false, invalid("Thing group %s is dynamic: use DeleteDynamicThingGroup", g.name)
	}
	if err := checkVersion(expected, g.version, "thing group", g.name); err != nil {
		return false, err
	}
	n, err := countChildren(tx, g.name, 1)
	if err != nil {
		return false, err
	}
	if n > 0 {
		return false, invalid("Cannot delete thing group : %s when there are still child groups attached to it", g.name)
	}
	if dynamic && g.built != leaving {
		g.built = leaving
		if err := updateGroup(tx, g); err != nil {
			return false, err
		}
	}
	done, err = r.shrink(ctx, tx, g)
	if err != nil || !done {
		return false, err
	}
	if err := deleteTags(tx, r.arn(groupResource, g.name)); err != nil {
		return false, err
	}
	if g.parent != "" {
		if err := r.hierarchyEvent(ctx, removed, g); err != nil {
			return false, err
		}
	}
	if err := r.groupEvent(ctx, deleted, g); err != nil {
		return false, err
	}
	r.changed(ctx, kindGroup, g.name)
	return true, deleteGroup(tx, g)
}

// shrink ends some memberships of a group that is being deleted; done when none
// is left. Its policies are in force no longer, nor, for its things, are those of
// the groups above.
func (r *Registry) shrink(ctx context.Context, tx store.Tx, g *group) (done bool, err error) {
	arn := r.arn(groupResource, g.name)
	if r.policies != nil {
		if err := r.policies.DetachAll(ctx, arn); err != nil {
			return false, err
		}
	}
	members, err := selectMembers(tx, g, "", membersAtOnce)
	if err != nil {
		return false, err
	}
	for _, thing := range members {
		if _, err := deleteMember(tx, thing, g); err != nil {
			return false, err
		}
		if err := r.membershipEvent(ctx, removed, thing, g); err != nil {
			return false, err
		}
		r.membershipChanged(ctx, "-", thing, g)
		r.changed(ctx, kindThing, thing)
	}
	if len(members) > 0 {
		keys := []string{arn}
		for _, a := range g.ancestors {
			keys = append(keys, r.arn(groupResource, a))
		}
		r.changed(ctx, kindPrincipal, keys...)
	}
	return len(members) < membersAtOnce, nil
}

// ListThingGroups lists by name: all groups, or those below parentGroup; with
// recursive false only the roots, or the children of parentGroup.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListThingGroups.html
func (r *Registry) ListThingGroups(ctx context.Context, in *iot.ListThingGroupsRequest) (*iot.ListThingGroupsResponse, error) {
	from, err := parseToken(in.NextToken, 1)
	if err != nil {
		return nil, err
	}
	size := pageSize(in.MaxResults)
	parent := value(in.ParentGroup)
	which := all
	switch {
	case in.Recursive != nil && !*in.Recursive:
		which = children
	case parent != "":
		which = descendants
	}
	var names []string
	err = r.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		if parent != "" {
			if _, err := selectGroup(tx, parent); err != nil {
				return noGroup(err, parent)
			}
		}
		names, err = selectGroupNames(tx, which, parent, value(in.NamePrefixFilter), from[0], size+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &iot.ListThingGroupsResponse{}
	names, out.NextToken = cut(names, size, func(n string) string { return n })
	out.ThingGroups = r.named(groupResource, names)
	return out, nil
}
