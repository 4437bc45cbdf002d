package e2e_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"

	"flotilla/internal/server/servertest"
)

// TestRulesSeeEvents has one rule for each family of events. What the rules republish arrives on another node, if there
// is one.
func TestRulesSeeEvents(t *testing.T) {
	d := servertest.Start(t)
	n := d.Node(0)
	ctx := t.Context()
	if _, err := n.IoT().UpdateEventConfigurations(ctx, &iot.UpdateEventConfigurationsInput{EventConfigurations: map[string]types.Configuration{
		"THING": {Enabled: true}, "JOB": {Enabled: true}, "JOB_EXECUTION": {Enabled: true},
	}}); err != nil {
		t.Fatal(err)
	}
	id := n.Identity(t, "all", everything...)
	watch := connect5(t, d.Node(1), id, "watch")
	watch.subscribe(t, 1, "test/seen/+")
	republish := func(topic string) types.Action {
		return types.Action{Republish: &types.RepublishAction{RoleArn: new(roleARN), Topic: &topic, Qos: new(int32(1))}}
	}
	for name, sql := range map[string]string{
		"presence":      "SELECT clientId AS who, eventType AS what FROM '$aws/events/presence/connected/pump-9'",
		"subscriptions": "SELECT clientId AS who, eventType AS what FROM '$aws/events/subscriptions/subscribed/pump-9'",
		"shadow":        "SELECT topic(3) AS who, state.reported.rpm AS what FROM '$aws/things/+/shadow/update/accepted'",
		"jobs":          "SELECT jobId AS who, status AS what FROM '$aws/events/job/+/canceled'",
		"registry":      "SELECT thingName AS who, operation AS what FROM '$aws/events/thing/+/created'",
	} {
		makeRule(t, n, name, sql, republish("test/seen/"+name))
	}
	if _, err := n.IoT().CreateThing(ctx, &iot.CreateThingInput{ThingName: new("pump-9")}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Data().UpdateThingShadow(ctx, &iotdataplane.UpdateThingShadowInput{
		ThingName: new("pump-9"), Payload: []byte(`{"state":{"reported":{"rpm":700}}}`),
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.IoT().CreateJob(ctx, &iot.CreateJobInput{
		JobId: new("update"), Targets: []string{"arn:aws:iot:us-east-1:" + n.Account() + ":thing/pump-9"}, Document: new(`{}`),
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.IoT().CancelJob(ctx, &iot.CancelJobInput{JobId: new("update"), Force: true}); err != nil {
		t.Fatal(err)
	}
	pump := connect5(t, n, id, "pump-9")
	pump.subscribe(t, 0, "test/pump")

	want := map[string]string{
		"test/seen/presence":      `{"who":"pump-9","what":"connected"}`,
		"test/seen/subscriptions": `{"who":"pump-9","what":"subscribed"}`,
		"test/seen/shadow":        `{"who":"pump-9","what":700}`,
		"test/seen/jobs":          `{"who":"update","what":"CANCELED"}`,
		"test/seen/registry":      `{"who":"pump-9","what":"CREATED"}`,
	}
	for len(want) > 0 {
		p := watch.next(t)
		if text, is := want[p.Topic]; is && text != string(p.Payload) {
			t.Errorf("%s: %s, want %s", p.Topic, p.Payload, text)
		}
		delete(want, p.Topic)
	}
}
