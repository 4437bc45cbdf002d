package registry

import (
	"context"
	"errors"
	"maps"

	"github.com/google/uuid"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// CreateThing makes a thing. The same call again succeeds and gives the thing
// that is there; with another type, attributes or billing group it is a
// ResourceAlreadyExistsException.
//
// Errors: iot.ResourceNotFoundException (thing type, billing group), InvalidRequestException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateThing.html
func (r *Registry) CreateThing(ctx context.Context, in *iot.CreateThingRequest) (*iot.CreateThingResponse, error) {
	if err := validName("thing", in.ThingName); err != nil {
		return nil, err
	}
	attributes, err := apply(map[string]string{}, in.AttributePayload)
	if err != nil {
		return nil, err
	}
	t := thing{
		name: in.ThingName, typeName: value(in.ThingTypeName), billing: value(in.BillingGroupName),
		attributes: attributes, version: 1, created: r.nowMS(),
	}
	if err := r.thingFits(attributes, t.typeName); err != nil {
		return nil, err
	}
	var id string
	err = r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		t.id = uuid.NewString()
		made, err := r.insert(tx, &t)
		if err != nil {
			return err
		}
		if made {
			id = t.id
			r.changed(ctx, kindThing, t.name)
			if err := r.thingEvent(ctx, created, &t); err != nil {
				return err
			}
			if t.typeName != "" {
				if err := r.typeAssociationEvent(ctx, added, t.name, t.typeName); err != nil {
					return err
				}
			}
			return nil
		}
		old, err := selectThing(tx, t.name)
		if err != nil {
			return err
		}
		id = old.id
		if old.typeName == t.typeName && old.billing == t.billing && maps.Equal(old.attributes, attributes) {
			return nil
		}
		return &iot.ResourceAlreadyExistsException{
			Message:    "Thing " + t.name + " already exists in account with different attributes",
			ResourceId: old.id, ResourceArn: r.arn(thingResource, t.name),
		}
	})
	if err != nil {
		return nil, err
	}
	return &iot.CreateThingResponse{ThingName: &t.name, ThingArn: new(r.arn(thingResource, t.name)), ThingId: &id}, nil
}

// insert checks what a new thing refers to and inserts it; false when there is
// one of its name.
func (r *Registry) insert(tx store.Tx, t *thing) (bool, error) {
	if t.typeName != "" {
		if err := usable(tx, t.typeName, "Can not create new thing with deprecated thing type: "); err != nil {
			return false, err
		}
	}
	if t.billing != "" {
		if _, err := selectBillingGroup(tx, t.billing); err != nil {
			return false, noBillingGroup(err, t.billing)
		}
	}
	return insertThing(tx, t)
}

// usable checks that a type exists and is not deprecated.
func usable(tx store.Tx, typeName, refusal string) error {
	ty, err := selectType(tx, typeName)
	if err != nil {
		return noType(err, typeName)
	}
	if ty.deprecated > 0 {
		return invalid("%s%s", refusal, typeName)
	}
	return nil
}

func noThing(err error, name string) error { return notFound(err, "Thing %s not found", name) }

// DescribeThing gives a thing. It answers from memory where it can.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeThing.html
func (r *Registry) DescribeThing(ctx context.Context, in *iot.DescribeThingRequest) (*iot.DescribeThingResponse, error) {
	k, err := r.find(ctx, in.ThingName)
	if err != nil {
		return nil, noThing(err, in.ThingName)
	}
	t := k.thing
	return &iot.DescribeThingResponse{
		DefaultClientId: &t.name, ThingName: &t.name, ThingId: &t.id, ThingArn: new(r.arn(thingResource, t.name)),
		ThingTypeName: optional(t.typeName), Attributes: maps.Clone(t.attributes), Version: &t.version,
		BillingGroupName: optional(t.billing),
	}, nil
}

// UpdateThing changes type and attributes and raises the version. Attributes
// take the place of all others unless merge is set; an empty value removes its
// attribute.
//
// Errors: iot.VersionConflictException (expectedVersion), ResourceNotFoundException (thing, thing type),
// InvalidRequestException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateThing.html
func (r *Registry) UpdateThing(ctx context.Context, in *iot.UpdateThingRequest) (*iot.UpdateThingResponse, error) {
	remove := value(in.RemoveThingType)
	if remove && in.ThingTypeName != nil {
		return nil, invalid("thingTypeName and removeThingType can't be given together")
	}
	err := r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		old, err := selectThing(tx, in.ThingName)
		if err != nil {
			return noThing(err, in.ThingName)
		}
		if err := checkVersion(in.ExpectedVersion, old.version, "thing", old.name); err != nil {
			return err
		}
		t := old
		if t.attributes, err = apply(old.attributes, in.AttributePayload); err != nil {
			return err
		}
		switch {
		case remove:
			t.typeName = ""
		case in.ThingTypeName != nil && *in.ThingTypeName != old.typeName:
			t.typeName = *in.ThingTypeName
			if err := usable(tx, t.typeName, "Can not update a thing to use deprecated thing type: "); err != nil {
				return err
			}
		}
		if err := r.thingFits(t.attributes, t.typeName); err != nil {
			return err
		}
		t.version++
		if err := updateThing(tx, &t, &old); err != nil {
			return err
		}
		r.changed(ctx, kindThing, t.name)
		if err := r.thingEvent(ctx, updated, &t); err != nil {
			return err
		}
		if old.typeName != t.typeName {
			if old.typeName != "" {
				if err := r.typeAssociationEvent(ctx, removed, t.name, old.typeName); err != nil {
					return err
				}
			}
			if t.typeName != "" {
				if err := r.typeAssociationEvent(ctx, added, t.name, t.typeName); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateThingResponse{}, nil
}

// DeleteThing deletes a thing with its memberships, and its shadows if Use was
// given them, unless a principal is attached to it. Deleting one that does not
// exist succeeds.
//
// Errors: iot.VersionConflictException (expectedVersion), InvalidRequestException (principals).
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteThing.html
func (r *Registry) DeleteThing(ctx context.Context, in *iot.DeleteThingRequest) (*iot.DeleteThingResponse, error) {
	err := r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		t, err := selectThing(tx, in.ThingName)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := checkVersion(in.ExpectedVersion, t.version, "thing", t.name); err != nil {
			return err
		}
		attached, err := selectPrincipals(tx, t.name, "", 1)
		if err != nil {
			return err
		}
		if len(attached) > 0 {
			return invalid("Cannot delete. Thing %s is still attached to one or more principals", t.name)
		}
		groups, err := selectGroupsOfThing(tx, t.name, "", maxMemberships)
		if err != nil {
			return err
		}
		for i := range groups {
			if err := r.leave(ctx, tx, t.name, &groups[i]); err != nil {
				return err
			}
		}
		if r.shadows != nil {
			if err := r.shadows.DeleteAll(ctx, t.name); err != nil {
				return err
			}
		}
		if err := deleteThing(tx, &t); err != nil {
			return err
		}
		r.changed(ctx, kindThing, t.name)
		if t.typeName != "" {
			if err := r.typeAssociationEvent(ctx, removed, t.name, t.typeName); err != nil {
				return err
			}
		}
		if err := r.thingEvent(ctx, deleted, &t); err != nil {
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteThingResponse{}, nil
}

// ListThings lists by name, with an attribute by its value, then name. A page
// that looks for an attribute and a type may be short though others follow.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListThings.html
func (r *Registry) ListThings(ctx context.Context, in *iot.ListThingsRequest) (*iot.ListThingsResponse, error) {
	attribute, prefix := value(in.AttributeName), value(in.UsePrefixAttributeValue)
	if attribute == "" && (in.AttributeValue != nil || prefix) {
		return nil, invalid("attributeName is required with attributeValue and usePrefixAttributeValue")
	}
	from, err := parseToken(in.NextToken, 2)
	if err != nil {
		return nil, err
	}
	size := pageSize(in.MaxResults)
	out := &iot.ListThingsResponse{}
	err = r.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		var things []thing
		var last [2]string
		if attribute == "" {
			things, err = selectThings(tx, value(in.ThingTypeName), from[1], size+1)
			if len(things) > size {
				things = things[:size]
				last[1] = things[size-1].name
			}
		} else {
			things, last, err = byAttribute(tx, in, from, size)
		}
		out.Things, out.NextToken = nil, nil
		if last[1] != "" {
			out.NextToken = nextToken(last[:]...)
		}
		for i := range things {
			out.Things = append(out.Things, r.summary(&things[i]))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// maxScan bounds the rows that one page reads while it filters by attribute and
// type.
const maxScan = 1000

// byAttribute reads a page by attribute; last is where it ends, its name empty
// when nothing follows.
func byAttribute(tx store.Tx, in *iot.ListThingsRequest, from []string, size int) (things []thing, last [2]string, err error) {
	typeName := value(in.ThingTypeName)
	scan := size
	if typeName != "" {
		scan = maxScan
	}
	low, high := value(in.AttributeValue), ""
	switch {
	case in.AttributeValue == nil || low == "" && value(in.UsePrefixAttributeValue):
		low = ""
	case value(in.UsePrefixAttributeValue):
		high = after(low)
	default:
		high = low + " " // no value is between: a space is less than all they may have
	}
	rows, err := selectByAttribute(tx, value(in.AttributeName), low, high, from, scan+1)
	if err != nil {
		return nil, last, err
	}
	for i := range rows {
		if i == scan || len(things) == size {
			return things, [2]string{rows[i-1].value, rows[i-1].thing.name}, nil
		}
		if typeName == "" || rows[i].thing.typeName == typeName {
			things = append(things, rows[i].thing)
		}
	}
	return things, last, nil
}

func (r *Registry) summary(t *thing) *iot.ThingAttribute {
	return &iot.ThingAttribute{
		ThingName: &t.name, ThingTypeName: optional(t.typeName), ThingArn: new(r.arn(thingResource, t.name)),
		Attributes: t.attributes, Version: &t.version,
	}
}
