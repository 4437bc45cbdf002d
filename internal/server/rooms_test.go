package server_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"
	data "github.com/aws/aws-sdk-go-v2/service/iotdataplane/types"

	"flotilla/internal/server"
	"flotilla/internal/server/servertest"
)

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// What one room deletes, the others forget: the attachments of policies go with
// their group, tags with what had them.
func TestRoomsFollowEachOther(t *testing.T) {
	ctx := t.Context()
	n := servertest.Start(t).Node(0)
	cloud := n.IoT()
	arn := "arn:aws:iot:" + n.Config.Region + ":" + n.Account() + ":"
	tags := []types.Tag{{Key: new("k"), Value: new("v")}}
	document := servertest.PolicyDocument(n.Account(), "iot:Publish topic/a")

	must[*iot.CreatePolicyOutput](t)(cloud.CreatePolicy(ctx, &iot.CreatePolicyInput{PolicyName: new("p"), PolicyDocument: &document, Tags: tags}))
	must[*iot.CreateTopicRuleOutput](t)(cloud.CreateTopicRule(ctx, &iot.CreateTopicRuleInput{
		RuleName: new("r"), Tags: new("k=v"),
		TopicRulePayload: &types.TopicRulePayload{Sql: new("SELECT * FROM 'a'"), Actions: []types.Action{
			{Republish: &types.RepublishAction{RoleArn: new("arn:aws:iam::" + n.Account() + ":role/r"), Topic: new("b")}},
		}},
	}))
	must[*iot.CreateProvisioningTemplateOutput](t)(cloud.CreateProvisioningTemplate(ctx, &iot.CreateProvisioningTemplateInput{
		TemplateName: new("T"), Tags: tags, ProvisioningRoleArn: new("arn:aws:iam::" + n.Account() + ":role/r"),
		TemplateBody: new(`{"Resources":{"certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}},"Parameters":{"AWS::IoT::Certificate::Id":{"Type":"String"}}}`),
	}))
	must[*iot.CreateThingGroupOutput](t)(cloud.CreateThingGroup(ctx, &iot.CreateThingGroupInput{ThingGroupName: new("g"), Tags: tags}))
	for _, resource := range []string{"policy/p", "rule/r", "provisioningtemplate/T", "thinggroup/g"} {
		out := must[*iot.ListTagsForResourceOutput](t)(cloud.ListTagsForResource(ctx, &iot.ListTagsForResourceInput{ResourceArn: new(arn + resource)}))
		if len(out.Tags) != 1 || *out.Tags[0].Value != "v" {
			t.Errorf("%s has tags %v", resource, out.Tags)
		}
	}

	group := new(arn + "thinggroup/g")
	must[*iot.AttachPolicyOutput](t)(cloud.AttachPolicy(ctx, &iot.AttachPolicyInput{PolicyName: new("p"), Target: group}))
	must[*iot.DeleteThingGroupOutput](t)(cloud.DeleteThingGroup(ctx, &iot.DeleteThingGroupInput{ThingGroupName: new("g")}))
	if out := must[*iot.ListTargetsForPolicyOutput](t)(cloud.ListTargetsForPolicy(ctx, &iot.ListTargetsForPolicyInput{PolicyName: new("p")})); len(out.Targets) > 0 {
		t.Errorf("the policy is still attached to %v", out.Targets)
	}
	must[*iot.DeletePolicyOutput](t)(cloud.DeletePolicy(ctx, &iot.DeletePolicyInput{PolicyName: new("p")}))
	must[*iot.CreatePolicyOutput](t)(cloud.CreatePolicy(ctx, &iot.CreatePolicyInput{PolicyName: new("p"), PolicyDocument: &document}))
	if out := must[*iot.ListTagsForResourceOutput](t)(cloud.ListTagsForResource(ctx, &iot.ListTagsForResourceInput{ResourceArn: new(arn + "policy/p")})); len(out.Tags) > 0 {
		t.Errorf("the new policy has tags %v", out.Tags)
	}
}

// Shadows outlive their thing, as with AWS, unless the operator says otherwise.
//
// AWS: device-shadow-data-flow.html#deleting-device-shadow
func TestShadowsOfDeletedThings(t *testing.T) {
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprintf("delete-with-thing=%v", gone), func(t *testing.T) {
			shadowsOfDeletedThings(t, servertest.Start(t, func(c *server.Config) { c.Shadow.DeleteWithThing = gone }).Node(0), gone)
		})
	}
}

func shadowsOfDeletedThings(t *testing.T, n *servertest.Node, gone bool) {
	ctx, cloud := t.Context(), n.IoT()
	thing := &iot.CreateThingInput{ThingName: new("pump")}
	must[*iot.CreateThingOutput](t)(cloud.CreateThing(ctx, thing))
	must[*iotdataplane.UpdateThingShadowOutput](t)(n.Data().UpdateThingShadow(ctx, &iotdataplane.UpdateThingShadowInput{
		ThingName: new("pump"), Payload: []byte(`{"state":{"reported":{"a":1}}}`),
	}))
	must[*iot.DeleteThingOutput](t)(cloud.DeleteThing(ctx, &iot.DeleteThingInput{ThingName: new("pump")}))
	must[*iot.CreateThingOutput](t)(cloud.CreateThing(ctx, thing))
	_, err := n.Data().GetThingShadow(ctx, &iotdataplane.GetThingShadowInput{ThingName: new("pump")})
	if _, missing := errors.AsType[*data.ResourceNotFoundException](err); missing != gone || !missing && err != nil {
		t.Errorf("the old thing's shadow: %v", err)
	}
}
