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
	var id string
	err := r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		old, err := selectGroup(tx, g.name)
		if err == nil {
			id = old.id
			if old.parent == g.parent && old.description == g.description && maps.Equal(old.attributes, g.attributes) {
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
		if err := r.place(tx, &g); err != nil {
			return err
		}
		g.id = uuid.NewString()
		id = g.id
		made, err := insertGroup(tx, &g)
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
		r.groupEvent(ctx, created, &g)
		r.changed(ctx, kindGroup, g.name)
		if g.parent != "" {
			r.hierarchyEvent(ctx, added, &g)
		}
		return r.tagNew(tx, r.arn(groupResource, g.name), in.Tags)
	})
	if err != nil {
		return nil, err
	}
	return &iot.CreateThingGroupResponse{ThingGroupName: &g.name, ThingGroupArn: new(r.arn(groupResource, g.name)), ThingGroupId: &id}, nil
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
	return &iot.DescribeThingGroupResponse{
		ThingGroupName: &g.name, ThingGroupId: &g.id, ThingGroupArn: new(r.arn(groupResource, g.name)), Version: &g.version,
		ThingGroupProperties: &iot.ThingGroupProperties{
			ThingGroupDescription: optional(g.description), AttributePayload: &iot.AttributePayload{Attributes: g.attributes},
		},
		ThingGroupMetadata: &iot.ThingGroupMetadata{
			ParentGroupName: optional(g.parent), RootToParentThingGroups: r.named(groupResource, g.ancestors), CreationDate: date(g.created),
		},
	}, nil
}

// UpdateThingGroup changes description and attributes and raises the version.
//
// Errors: iot.VersionConflictException (expectedVersion), ResourceNotFoundException, InvalidRequestException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateThingGroup.html
func (r *Registry) UpdateThingGroup(ctx context.Context, in *iot.UpdateThingGroupRequest) (*iot.UpdateThingGroupResponse, error) {
	var version int64
	err := r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		g, err := selectGroup(tx, in.ThingGroupName)
		if err != nil {
			return noGroup(err, in.ThingGroupName)
		}
		if err := checkVersion(in.ExpectedVersion, g.version, "thing group", g.name); err != nil {
			return err
		}
		if err := r.setGroup(&g, in.ThingGroupProperties); err != nil {
			return err
		}
		g.version++
		version = g.version
		r.groupEvent(ctx, updated, &g)
		r.changed(ctx, kindGroup, g.name)
		return updateGroup(tx, &g)
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateThingGroupResponse{Version: &version}, nil
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
	for done := false; !done; {
		err := r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
			g, err := selectGroup(tx, in.ThingGroupName)
			if errors.Is(err, store.ErrNotFound) {
				done = true
				return nil
			}
			if err != nil {
				return err
			}
			if err := checkVersion(in.ExpectedVersion, g.version, "thing group", g.name); err != nil {
				return err
			}
			n, err := countChildren(tx, g.name, 1)
			if err != nil {
				return err
			}
			if n > 0 {
				return invalid("Cannot delete thing group : %s when there are still child groups attached to it", g.name)
			}
			done, err = r.shrink(ctx, tx, &g)
			if err != nil || !done {
				return err
			}
			if err := deleteTags(tx, r.arn(groupResource, g.name)); err != nil {
				return err
			}
			if g.parent != "" {
				r.hierarchyEvent(ctx, removed, &g)
			}
			r.groupEvent(ctx, deleted, &g)
			r.changed(ctx, kindGroup, g.name)
			return deleteGroup(tx, &g)
		})
		if err != nil {
			return nil, err
		}
	}
	return &iot.DeleteThingGroupResponse{}, nil
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
		r.membershipEvent(ctx, removed, thing, g)
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
