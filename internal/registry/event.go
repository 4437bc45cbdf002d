package registry

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"

	"flotilla/internal/aws/iot"
)

// Events publishes registry events. It decides by the account's configuration
// whether an event type is wanted.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/registry-events.html
type Events interface {
	// RegistryEvent is called after the commit of what happened and must not
	// block. payload is the event's JSON document.
	RegistryEvent(eventType, topic string, payload []byte)
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

// emit completes an event and hands it on after the commit. members are what is
// the event's own.
func (r *Registry) emit(ctx context.Context, eventType, name, topic, operation string, members map[string]any) {
	members["eventType"] = name
	members["eventId"] = uuid.NewString()
	members["timestamp"] = r.nowMS()
	members["operation"] = operation
	members["accountId"] = r.account.ID
	payload, err := json.Marshal(members)
	if err != nil {
		panic("registry: " + err.Error()) // strings, numbers and maps of them always marshal
	}
	topic = "$aws/events/" + topic + "/" + verbs[operation]
	r.db.AfterCommit(ctx, func() { r.events.RegistryEvent(eventType, topic, payload) })
}

func (r *Registry) thingEvent(ctx context.Context, operation string, t *thing) {
	if r.events == nil {
		return
	}
	r.emit(ctx, iot.EventTypeThing, "THING_EVENT", "thing/"+t.name, operation, map[string]any{
		"thingId": t.id, "thingName": t.name, "versionNumber": t.version, "thingTypeName": optional(t.typeName),
		"billingGroupName": optional(t.billing), "attributes": t.attributes,
	})
}

func (r *Registry) typeEvent(ctx context.Context, operation string, ty *thingType) {
	if r.events == nil {
		return
	}
	var deprecationDate *int64
	if ty.deprecated > 0 {
		deprecationDate = &ty.deprecated
	}
	r.emit(ctx, iot.EventTypeThingType, "THING_TYPE_EVENT", "thingType/"+ty.name, operation, map[string]any{
		"thingTypeId": ty.id, "thingTypeName": ty.name, "isDeprecated": ty.deprecated > 0, "deprecationDate": deprecationDate,
		"searchableAttributes": ty.searchable, "description": ty.description,
	})
}

func (r *Registry) typeAssociationEvent(ctx context.Context, operation, thing, typeName string) {
	if r.events == nil {
		return
	}
	r.emit(ctx, iot.EventTypeThingTypeAssociation, "THING_TYPE_ASSOCIATION_EVENT",
		"thingTypeAssociation/thing/"+thing+"/thingType/"+typeName, operation,
		map[string]any{"thingName": thing, "thingTypeName": typeName})
}

func (r *Registry) groupEvent(ctx context.Context, operation string, g *group) {
	if r.events == nil {
		return
	}
	above := []map[string]string{}
	for _, a := range g.ancestors {
		above = append(above, map[string]string{"groupArn": r.arn(groupResource, a), "groupName": a})
	}
	r.emit(ctx, iot.EventTypeThingGroup, "THING_GROUP_EVENT", "thingGroup/"+g.name, operation, map[string]any{
		"thingGroupId": g.id, "thingGroupName": g.name, "versionNumber": g.version, "parentGroupName": optional(g.parent),
		"description": g.description, "rootToParentThingGroups": above, "attributes": g.attributes, "dynamicGroupMappingId": nil,
	})
}

func (r *Registry) hierarchyEvent(ctx context.Context, operation string, child *group) {
	if r.events == nil {
		return
	}
	r.emit(ctx, iot.EventTypeThingGroupHierarchy, "THING_GROUP_HIERARCHY_EVENT",
		"thingGroupHierarchy/thingGroup/"+child.parent+"/childThingGroup/"+child.name, operation,
		map[string]any{"thingGroupName": child.parent, "childGroupId": child.id, "childGroupName": child.name})
}

func (r *Registry) membershipEvent(ctx context.Context, operation, thing string, g *group) {
	if r.events == nil {
		return
	}
	r.emit(ctx, iot.EventTypeThingGroupMembership, "THING_GROUP_MEMBERSHIP_EVENT",
		"thingGroupMembership/thingGroup/"+g.name+"/thing/"+thing, operation,
		map[string]any{"groupName": g.name, "groupArn": r.arn(groupResource, g.name), "groupId": g.id, "thingName": thing})
}
