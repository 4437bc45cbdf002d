package server_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/google/go-cmp/cmp"

	"flotilla/internal/server/servertest"
)

// TestAuthorization knows thing and certificate of a principal as a connection would.
func TestAuthorizationKnowsThePrincipal(t *testing.T) {
	ctx := t.Context()
	n := servertest.Start(t).Node(0)
	cloud := n.IoT()
	arn := "arn:aws:iot:" + n.Config.Region + ":" + n.Account() + ":"
	made := must[*iot.CreateKeysAndCertificateOutput](t)(cloud.CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateInput{SetAsActive: true}))
	must[*iot.CreateThingOutput](t)(cloud.CreateThing(ctx, &iot.CreateThingInput{
		ThingName: new("pump-1"), AttributePayload: &types.AttributePayload{Attributes: map[string]string{"site": "berlin"}},
	}))
	must[*iot.AttachThingPrincipalOutput](t)(cloud.AttachThingPrincipal(ctx, &iot.AttachThingPrincipalInput{ThingName: new("pump-1"), Principal: made.CertificateArn}))
	document := servertest.PolicyDocument(n.Account(), "iot:Publish topic/${iot:Connection.Thing.Attributes[site]}/${iot:CertificateId}/${iot:Certificate.Subject.CommonName}")
	must[*iot.CreatePolicyOutput](t)(cloud.CreatePolicy(ctx, &iot.CreatePolicyInput{PolicyName: new("own"), PolicyDocument: &document}))
	must[*iot.AttachPolicyOutput](t)(cloud.AttachPolicy(ctx, &iot.AttachPolicyInput{PolicyName: new("own"), Target: made.CertificateArn}))
	test := func(clientID string) types.AuthResult {
		t.Helper()
		out := must[*iot.TestAuthorizationOutput](t)(cloud.TestAuthorization(ctx, &iot.TestAuthorizationInput{
			Principal: made.CertificateArn, ClientId: &clientID,
			AuthInfos: []types.AuthInfo{{ActionType: types.ActionTypePublish, Resources: []string{arn + "topic/berlin/" + *made.CertificateId + "/AWS IoT Certificate"}}},
		}))
		return out.AuthResults[0]
	}
	if r := test("pump-1"); r.AuthDecision != types.AuthDecisionAllowed || len(r.Allowed.Policies) != 1 {
		t.Errorf("as the thing: %v", r.AuthDecision)
	}
	r := test("other")
	if r.AuthDecision != types.AuthDecisionImplicitDeny {
		t.Errorf("as another client: %v", r.AuthDecision)
	}
	if d := cmp.Diff([]string{"iot:Connection.Thing.Attributes[site]"}, r.MissingContextValues); d != "" {
		t.Error(d)
	}
}
