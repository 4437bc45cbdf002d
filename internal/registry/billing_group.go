package registry

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// billingGroup is a row of billing_group.
type billingGroup struct {
	name, id, description string
	version, created      int64
}

func noBillingGroup(err error, name string) error {
	return notFound(err, "Billing group %s not found", name)
}

// CreateBillingGroup makes a billing group. The same call again succeeds; with
// another description it is a ResourceAlreadyExistsException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateBillingGroup.html
func (r *Registry) CreateBillingGroup(ctx context.Context, in *iot.CreateBillingGroupRequest) (*iot.CreateBillingGroupResponse, error) {
	if err := validName("billing group", in.BillingGroupName); err != nil {
		return nil, err
	}
	g := billingGroup{name: in.BillingGroupName, version: 1, created: r.nowMS()}
	if p := in.BillingGroupProperties; p != nil {
		g.description = value(p.BillingGroupDescription)
	}
	var id string
	err := r.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		g.id = uuid.NewString()
		made, err := insertBillingGroup(tx, &g)
		if err != nil {
			return err
		}
		id = g.id
		if made {
			return r.tagNew(tx, r.arn(billingResource, g.name), in.Tags)
		}
		old, err := selectBillingGroup(tx, g.name)
		if err != nil {
			return err
		}
		id = old.id
		if old.description == g.description {
			return nil
		}
		return &iot.ResourceAlreadyExistsException{
			Message:    "Billing Group " + g.name + " already exists in account with different properties",
			ResourceId: old.id, ResourceArn: r.arn(billingResource, g.name),
		}
	})
	if err != nil {
		return nil, err
	}
	return &iot.CreateBillingGroupResponse{BillingGroupName: &g.name, BillingGroupArn: new(r.arn(billingResource, g.name)), BillingGroupId: &id}, nil
}

// DescribeBillingGroup gives a billing group.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeBillingGroup.html
func (r *Registry) DescribeBillingGroup(ctx context.Context, in *iot.DescribeBillingGroupRequest) (*iot.DescribeBillingGroupResponse, error) {
	var g billingGroup
	err := r.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		g, err = selectBillingGroup(tx, in.BillingGroupName)
		return err
	})
	if err != nil {
		return nil, noBillingGroup(err, in.BillingGroupName)
	}
	return &iot.DescribeBillingGroupResponse{
		BillingGroupName: &g.name, BillingGroupId: &g.id, BillingGroupArn: new(r.arn(billingResource, g.name)), Version: &g.version,
		BillingGroupProperties: &iot.BillingGroupProperties{BillingGroupDescription: optional(g.description)},
		BillingGroupMetadata:   &iot.BillingGroupMetadata{CreationDate: date(g.created)},
	}, nil
}

// UpdateBillingGroup changes the description and raises the version.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateBillingGroup.html
func (r *Registry) UpdateBillingGroup(ctx context.Context, in *iot.UpdateBillingGroupRequest) (*iot.UpdateBillingGroupResponse, error) {
	out := &iot.UpdateBillingGroupResponse{}
	err := r.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		g, err := selectBillingGroup(tx, in.BillingGroupName)
		if err != nil {
			return noBillingGroup(err, in.BillingGroupName)
		}
		if err := checkVersion(in.ExpectedVersion, g.version, "billing group", g.name); err != nil {
			return err
		}
		if p := in.BillingGroupProperties; p != nil && p.BillingGroupDescription != nil {
			g.description = *p.BillingGroupDescription
		}
		g.version++
		out.Version = &g.version
		return updateBillingGroup(tx, &g)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeleteBillingGroup deletes a billing group that no thing is in. Deleting one
// that does not exist succeeds.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteBillingGroup.html
func (r *Registry) DeleteBillingGroup(ctx context.Context, in *iot.DeleteBillingGroupRequest) (*iot.DeleteBillingGroupResponse, error) {
	err := r.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		g, err := selectBillingGroup(tx, in.BillingGroupName)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := checkVersion(in.ExpectedVersion, g.version, "billing group", g.name); err != nil {
			return err
		}
		members, err := selectBilled(tx, g.name, "", 1)
		if err != nil {
			return err
		}
		if len(members) > 0 {
			return invalid("Cannot delete billing group : %s. There are things in it", g.name)
		}
		if err := deleteTags(tx, r.arn(billingResource, g.name)); err != nil {
			return err
		}
		return deleteBillingGroup(tx, g.name)
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteBillingGroupResponse{}, nil
}

// ListBillingGroups lists by name.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListBillingGroups.html
func (r *Registry) ListBillingGroups(ctx context.Context, in *iot.ListBillingGroupsRequest) (*iot.ListBillingGroupsResponse, error) {
	from, err := parseToken(in.NextToken, 1)
	if err != nil {
		return nil, err
	}
	size := pageSize(in.MaxResults)
	var names []string
	err = r.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		names, err = selectBillingGroups(tx, value(in.NamePrefixFilter), from[0], size+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &iot.ListBillingGroupsResponse{}
	names, out.NextToken = cut(names, size, func(n string) string { return n })
	out.BillingGroups = r.named(billingResource, names)
	return out, nil
}

// named gives names with their ARNs.
func (r *Registry) named(resource string, names []string) (list []*iot.GroupNameAndArn) {
	for _, n := range names {
		list = append(list, &iot.GroupNameAndArn{GroupName: &n, GroupArn: new(r.arn(resource, n))})
	}
	return list
}

// AddThingToBillingGroup puts a thing into a billing group, and out of the one
// it was in.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_AddThingToBillingGroup.html
func (r *Registry) AddThingToBillingGroup(ctx context.Context, in *iot.AddThingToBillingGroupRequest) (*iot.AddThingToBillingGroupResponse, error) {
	err := r.bill(ctx, in.ThingName, in.ThingArn, in.BillingGroupName, in.BillingGroupArn, func(_, to string) string { return to })
	if err != nil {
		return nil, err
	}
	return &iot.AddThingToBillingGroupResponse{}, nil
}

// RemoveThingFromBillingGroup takes a thing out of a billing group; it is no
// error when it is not in it.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_RemoveThingFromBillingGroup.html
func (r *Registry) RemoveThingFromBillingGroup(ctx context.Context, in *iot.RemoveThingFromBillingGroupRequest) (*iot.RemoveThingFromBillingGroupResponse, error) {
	err := r.bill(ctx, in.ThingName, in.ThingArn, in.BillingGroupName, in.BillingGroupArn, func(is, from string) string {
		if is == from {
			return ""
		}
		return is
	})
	if err != nil {
		return nil, err
	}
	return &iot.RemoveThingFromBillingGroupResponse{}, nil
}

// bill sets a thing's billing group to what next makes of the present one and
// the one that is named.
func (r *Registry) bill(ctx context.Context, thingName, thingARN, groupName, groupARN *string, next func(is, named string) string) error {
	name, err := r.pick("thing", thingResource, thingName, thingARN)
	if err != nil {
		return err
	}
	named, err := r.pick("billing group", billingResource, groupName, groupARN)
	if err != nil {
		return err
	}
	return r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if _, err := selectBillingGroup(tx, named); err != nil {
			return noBillingGroup(err, named)
		}
		t, err := selectThing(tx, name)
		if err != nil {
			return noThing(err, name)
		}
		to := next(t.billing, named)
		if to == t.billing {
			return nil
		}
		r.changed(ctx, kindThing, name)
		return setBilling(tx, name, to)
	})
}

// ListThingsInBillingGroup lists by name.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListThingsInBillingGroup.html
func (r *Registry) ListThingsInBillingGroup(ctx context.Context, in *iot.ListThingsInBillingGroupRequest) (*iot.ListThingsInBillingGroupResponse, error) {
	from, err := parseToken(in.NextToken, 1)
	if err != nil {
		return nil, err
	}
	size := pageSize(in.MaxResults)
	out := &iot.ListThingsInBillingGroupResponse{}
	err = r.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		if _, err := selectBillingGroup(tx, in.BillingGroupName); err != nil {
			return noBillingGroup(err, in.BillingGroupName)
		}
		names, err := selectBilled(tx, in.BillingGroupName, from[0], size+1)
		out.Things, out.NextToken = cut(names, size, func(n string) string { return n })
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
