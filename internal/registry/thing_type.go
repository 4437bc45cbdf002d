package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// thingType is a row of thing_type.
type thingType struct {
	name, id, description string
	searchable            []string
	created, deprecated   int64 // deprecated 0: it is not
}

// setType changes a type as the properties say.
func (r *Registry) setType(ty *thingType, p *iot.ThingTypeProperties) error {
	if p == nil {
		return nil
	}
	if p.Mqtt5Configuration != nil {
		return invalid("mqtt5Configuration is not supported yet")
	}
	if p.ThingTypeDescription != nil {
		ty.description = *p.ThingTypeDescription
	}
	if p.SearchableAttributes == nil {
		return nil
	}
	if len(p.SearchableAttributes) > r.cfg.MaxSearchable {
		return invalid("A thing type can have at most %d searchable attributes", r.cfg.MaxSearchable)
	}
	for _, name := range p.SearchableAttributes {
		if err := validAttributes(map[string]string{name: ""}); err != nil {
			return err
		}
	}
	ty.searchable = slices.Clone(p.SearchableAttributes)
	return nil
}

// sameSet compares without order.
func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

func noType(err error, name string) error { return notFound(err, "Thing type %s not found", name) }

// CreateThingType makes a thing type. The same call again succeeds; with other
// properties it is a ResourceAlreadyExistsException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateThingType.html
func (r *Registry) CreateThingType(ctx context.Context, in *iot.CreateThingTypeRequest) (*iot.CreateThingTypeResponse, error) {
	if err := validName("thing type", in.ThingTypeName); err != nil {
		return nil, err
	}
	ty := thingType{name: in.ThingTypeName, created: r.nowMS()}
	if err := r.setType(&ty, in.ThingTypeProperties); err != nil {
		return nil, err
	}
	var id string
	err := r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		ty.id = uuid.NewString()
		made, err := insertType(tx, &ty)
		if err != nil {
			return err
		}
		id = ty.id
		if made {
			if err := r.typeEvent(ctx, created, &ty); err != nil {
				return err
			}
			return r.tagNew(tx, r.arn(typeResource, ty.name), in.Tags)
		}
		old, err := selectType(tx, ty.name)
		if err != nil {
			return err
		}
		id = old.id
		if old.description == ty.description && sameSet(old.searchable, ty.searchable) {
			return nil
		}
		return &iot.ResourceAlreadyExistsException{
			Message:    "Thing type " + ty.name + " already exists in account with different properties",
			ResourceId: old.id, ResourceArn: r.arn(typeResource, ty.name),
		}
	})
	if err != nil {
		return nil, err
	}
	return &iot.CreateThingTypeResponse{ThingTypeName: &ty.name, ThingTypeArn: new(r.arn(typeResource, ty.name)), ThingTypeId: &id}, nil
}

// DescribeThingType gives a thing type.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeThingType.html
func (r *Registry) DescribeThingType(ctx context.Context, in *iot.DescribeThingTypeRequest) (*iot.DescribeThingTypeResponse, error) {
	var ty thingType
	err := r.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		ty, err = selectType(tx, in.ThingTypeName)
		return err
	})
	if err != nil {
		return nil, noType(err, in.ThingTypeName)
	}
	return &iot.DescribeThingTypeResponse{
		ThingTypeName: &ty.name, ThingTypeId: &ty.id, ThingTypeArn: new(r.arn(typeResource, ty.name)),
		ThingTypeProperties: ty.properties(), ThingTypeMetadata: ty.metadata(),
	}, nil
}

func (ty *thingType) properties() *iot.ThingTypeProperties {
	return &iot.ThingTypeProperties{ThingTypeDescription: optional(ty.description), SearchableAttributes: ty.searchable}
}

func (ty *thingType) metadata() *iot.ThingTypeMetadata {
	m := &iot.ThingTypeMetadata{Deprecated: new(ty.deprecated > 0), CreationDate: date(ty.created)}
	if ty.deprecated > 0 {
		m.DeprecationDate = date(ty.deprecated)
	}
	return m
}

// ListThingTypes lists by name.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListThingTypes.html
func (r *Registry) ListThingTypes(ctx context.Context, in *iot.ListThingTypesRequest) (*iot.ListThingTypesResponse, error) {
	from, err := parseToken(in.NextToken, 1)
	if err != nil {
		return nil, err
	}
	size := pageSize(in.MaxResults)
	var rows []thingType
	err = r.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		if in.ThingTypeName == nil {
			rows, err = selectTypes(tx, from[0], size+1)
			return err
		}
		ty, err := selectType(tx, *in.ThingTypeName)
		if rows = nil; err == nil {
			rows = []thingType{ty}
		}
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &iot.ListThingTypesResponse{}
	rows, out.NextToken = cut(rows, size, func(ty thingType) string { return ty.name })
	for i := range rows {
		ty := &rows[i]
		out.ThingTypes = append(out.ThingTypes, &iot.ThingTypeDefinition{
			ThingTypeName: &ty.name, ThingTypeArn: new(r.arn(typeResource, ty.name)),
			ThingTypeProperties: ty.properties(), ThingTypeMetadata: ty.metadata(),
		})
	}
	return out, nil
}

// UpdateThingType changes the properties that are given.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateThingType.html
func (r *Registry) UpdateThingType(ctx context.Context, in *iot.UpdateThingTypeRequest) (*iot.UpdateThingTypeResponse, error) {
	err := r.changeType(ctx, in.ThingTypeName, func(ty *thingType) error {
		if ty.deprecated > 0 {
			return invalid("Thing type %s is deprecated", ty.name)
		}
		return r.setType(ty, in.ThingTypeProperties)
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateThingTypeResponse{}, nil
}

// DeprecateThingType deprecates a type: no further thing may have it. With
// undoDeprecate it is as before.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeprecateThingType.html
func (r *Registry) DeprecateThingType(ctx context.Context, in *iot.DeprecateThingTypeRequest) (*iot.DeprecateThingTypeResponse, error) {
	err := r.changeType(ctx, in.ThingTypeName, func(ty *thingType) error {
		switch {
		case value(in.UndoDeprecate):
			ty.deprecated = 0
		case ty.deprecated == 0:
			ty.deprecated = r.nowMS()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeprecateThingTypeResponse{}, nil
}

func (r *Registry) changeType(ctx context.Context, name string, change func(*thingType) error) error {
	return r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		ty, err := selectType(tx, name)
		if err != nil {
			return noType(err, name)
		}
		if err := change(&ty); err != nil {
			return err
		}
		if err := r.typeEvent(ctx, updated, &ty); err != nil {
			return err
		}
		return updateType(tx, &ty)
	})
}

// DeleteThingType deletes a type that is deprecated, under --limits aws for five
// minutes, and that no thing has.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteThingType.html
func (r *Registry) DeleteThingType(ctx context.Context, in *iot.DeleteThingTypeRequest) (*iot.DeleteThingTypeResponse, error) {
	refuse := func(why string) error { return invalid("Cannot delete thing type : %s. %s", in.ThingTypeName, why) }
	err := r.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		ty, err := selectType(tx, in.ThingTypeName)
		if err != nil {
			return noType(err, in.ThingTypeName)
		}
		if ty.deprecated == 0 {
			return refuse("The thing type must be deprecated first")
		}
		if r.now().Before(time.UnixMilli(ty.deprecated).Add(r.cfg.ThingTypeDeletionLag)) {
			// Clients wait for this text: AWS's is in minutes.
			return refuse(fmt.Sprintf("Please wait for %.0f minutes after deprecation and then retry", max(1, r.cfg.ThingTypeDeletionLag.Minutes())))
		}
		used, err := selectThings(tx, ty.name, "", 1)
		if err != nil {
			return err
		}
		if len(used) > 0 {
			return refuse("There are things that have it")
		}
		if err := deleteTags(tx, r.arn(typeResource, ty.name)); err != nil {
			return err
		}
		if err := r.typeEvent(ctx, deleted, &ty); err != nil {
			return err
		}
		return deleteType(tx, ty.name)
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteThingTypeResponse{}, nil
}
