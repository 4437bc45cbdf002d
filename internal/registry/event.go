package registry

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"

	"flotilla/internal/aws/iot"
)

// Events publishes registry events.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/registry-events.html
type Events interface {
	// Enabled tells whether the account wants events of a type, one of iot.EventType.... It is quick.
	Enabled(ctx context.Context, eventType string) bool
	// Emit publishes an event, a JSON document, once the Write in ctx has
	// committed.
	Emit(ctx context.Context, topic string, payload []byte) error
}

// The operations that events tell of.
const (
	created = "CREATED"
	updated = "UPDATED"
	deleted = "DELETED"
	added   = "ADDED"
	removed = "REMOVED"
)

// verbs end the topics.
var verbs = map[string]string{created: "created", updated: "updated", deleted: "deleted", added: "added", removed: "removed"}

func (r *Registry) wants(ctx context.Context, eventType string) bool {
	return r.events != nil && r.events.Enabled(ctx, eventType)
}

// emit completes an event of what the Write in ctx does. members are what is the
// event's own.
func (r *Registry) emit(ctx context.Context, name, topic, operation string, members map[string]any) error {
	members["eventType"] = name
	members["eventId"] = uuid.NewString()
	members["timestamp"] = r.nowMS()
	members["operation"] = operation
	members["accountId"] = r.account.ID
	payload, err := json.Marshal(members)
	if err != nil {
		panic("registry: " + err.Error()) // strings, numbers and maps of them always marshal
	}
	return r.events.Emit(ctx, "$aws/events/"+topic+"/"+verbs[operation], payload)
}

func (r *Registry) thingEvent(ctx context.Context, operation string, t *thing) error {
	if !r.wants(ctx, iot.EventTypeThing) {
		return nil
	}
	return r.emit(ctx, "THING_EVENT", "thing/"+t.name, operation, map[string]any{
		"thingId": t.id, "thingName": t.name, "versionNumber": t.version, "thingTypeName": optional(t.typeName),
		"billingGroupName": optional(t.billing), "attributes": t.attributes,
	})
}

func (r *Registry) typeEvent(ctx context.Context, operation string, ty *thingType) error {
	if !r.wants(ctx, iot.EventTypeThingType) {
		return nil
	}
	var deprecationDate *int64
	if ty.deprecated > 0 {
		deprecationDate = &ty.deprecated
	}
	return r.emit(ctx, "THING_TYPE_EVENT", "thingType/"+ty.name, operation, map[string]any{
		"thingTypeId": ty.id, "thingTypeName": ty.name, "isDeprecated": ty.deprecated > 0, "deprecationDate": deprecationDate,
		"searchableAttributes": ty.searchable, "description": ty.description,
	})
}

func (r *Registry) typeAssociationEvent(ctx context.Context, operation, thing, typeName string) error {
	if !r.wants(ctx, iot.EventTypeThingTypeAssociation) {
		return nil
	}
	return r.emit(ctx, "THING_TYPE_ASSOCIATION_EVENT",
		"thingTypeAssociation/thing/"+thing+"/thingType/"+typeName, operation,
		map[string]any{"thingName": thing, "thingTypeName": typeName})
}

func (r *Registry) groupEvent(ctx context.Context, operation string, g *group) error {
	if !r.wants(ctx, iot.EventTypeThingGroup) {
		return nil
	}
	above := []map[string]string{}
	for _, a := range g.ancestors {
		above = append(above, map[string]string{"groupArn": r.arn(groupResource, a), "groupName": a})
	}
	return r.emit(ctx, "THING_GROUP_EVENT", "thingGroup/"+g.name, operation, map[string]any{
		"thingGroupId": g.id, "thingGroupName": g.name, "versionNumber": g.version, "parentGroupName": optional(g.parent),
		"description": g.description, "rootToParentThingGroups": above, "attributes": g.attributes, "dynamicGroupMappingId": nil,
	})
}

func (r *Registry) hierarchyEvent(ctx context.Context, operation string, child *group) error {
	if !r.wants(ctx, iot.EventTypeThingGroupHierarchy) {
		return nil
	}
	return r.emit(ctx, "THING_GROUP_HIERARCHY_EVENT",
		"thingGroupHierarchy/thingGroup/"+child.parent+"/childThingGroup/"+child.name, operation,
		map[string]any{"thingGroupName": child.parent, "childGroupId": child.id, "childGroupName": child.name})
}

func (r *Registry) membershipEvent(ctx context.Context, operation, thing string, g *group) error {
	if !r.wants(ctx, iot.EventTypeThingGroupMembership) {
		return nil
	}
	return r.emit(ctx, "THING_GROUP_MEMBERSHIP_EVENT",
		"thingGroupMembership/thingGroup/"+g.name+"/thing/"+thing, operation,
		map[string]any{"groupName": g.name, "groupArn": r.arn(groupResource, g.name), "groupId": g.id, "thingName": thing})
}
