package e2e_test

import (
	"encoding/json"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"flotilla/internal/server/servertest"
)

// Registry events that the account has switched on reach subscribers on any node and rules.
func TestRegistryEvents(t *testing.T) {
	d := servertest.Start(t)
	n := d.Node(0)
	ctx := t.Context()
	if _, err := n.IoT().UpdateEventConfigurations(ctx, &iot.UpdateEventConfigurationsInput{EventConfigurations: map[string]types.Configuration{
		"THING": {Enabled: true}, "THING_GROUP_MEMBERSHIP": {Enabled: true}, "JOB": {Enabled: true},
	}}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.IoT().CreateTopicRule(ctx, &iot.CreateTopicRuleInput{RuleName: new("born"), TopicRulePayload: &types.TopicRulePayload{
		Sql: new("SELECT thingName, operation FROM '$aws/events/thing/+/created'"), AwsIotSqlVersion: new("2016-03-23"),
		Actions: []types.Action{{Republish: &types.RepublishAction{RoleArn: new("arn:aws:iam::" + n.Account() + ":role/r"), Topic: new("born"), Qos: new(int32(1))}}},
	}}); err != nil {
		t.Fatal(err)
	}
	id := n.Identity(t, "watch", "iot:Connect client/*", "iot:Subscribe topicfilter/*", "iot:Receive topic/*")
	watch := connect5(t, d.Node(1), id, "watch")
	watch.subscribe(t, 1, "$aws/events/thing/+/created", "$aws/events/thingGroupMembership/#", "born")
	if _, err := n.IoT().CreateThing(ctx, &iot.CreateThingInput{ThingName: new("pump-9")}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.IoT().CreateThingGroup(ctx, &iot.CreateThingGroupInput{ThingGroupName: new("hall")}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.IoT().AddThingToThingGroup(ctx, &iot.AddThingToThingGroupInput{ThingName: new("pump-9"), ThingGroupName: new("hall")}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"$aws/events/thing/pump-9/created": "CREATED",
		"born":                             "CREATED",
		"$aws/events/thingGroupMembership/thingGroup/hall/thing/pump-9/added": "ADDED",
	}
	for len(want) > 0 {
		p := watch.next(t)
		var e struct{ Operation, ThingName string }
		if err := json.Unmarshal(p.Payload, &e); err != nil {
			t.Fatal(err)
		}
		if op, is := want[p.Topic]; !is || e.Operation != op || e.ThingName != "pump-9" {
			t.Errorf("%s: %s", p.Topic, p.Payload)
		}
		delete(want, p.Topic)
	}
}
