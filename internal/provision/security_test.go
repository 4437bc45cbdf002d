package provision_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/identity"
	"flotilla/internal/policy/lang"
)

func leaf(t testing.TB, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	return must[*x509.Certificate](t)(x509.ParseCertificate(block.Bytes))
}

// connect identifies the owner of a certificate and opens its authorizer; nil
// when it is refused for a reason.
func (w *world) connect(t testing.TB, cert *x509.Certificate, clientID string, reason identity.Reason) lang.Authorizer {
	t.Helper()
	p, c, err := w.certificates.Identify(t.Context(), cert)
	var refused *identity.RefusedError
	switch {
	case reason != "":
		if !errors.As(err, &refused) || refused.Reason != reason || p != (aws.Principal{}) {
			t.Errorf("identified as %v: %v, want %q", p, err, reason)
		}
		return nil
	case err != nil:
		t.Fatal(err)
	}
	return must[lang.Authorizer](t)(w.policies.Open(t.Context(), p, &lang.Connection{Protocol: "mqtt", ClientID: clientID, Certificate: c}))
}

// A provisioned device, step by step: nothing is allowed before its certificate is ACTIVE, and what its certificate,
// policies, thing and groups lose it loses with the next packet.
func TestDeviceIsFollowed(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, openDB(t), nil)
	w.fleetTemplate(t, "T", fleetBody)
	k := w.create(t, claim)
	cert := leaf(t, k.CertificatePEM)
	w.connect(t, cert, "dev-1", identity.ReasonNotActive) // pending
	if answer, ok := w.register(t, claim, "T", k.Token, map[string]string{"Serial": "1"}); !ok {
		t.Fatalf("rejected: %s", answer)
	}
	a := w.connect(t, cert, "dev-1", "")
	check := func(when, topic string, want bool) {
		t.Helper()
		for range 2 { // the second comes from the cache
			if got := a.Authorize("iot:Publish", account.ARN("iot", "topic/"+topic)).Allowed(); got != want {
				t.Errorf("%s: %v, want %v", when, got, want)
			}
		}
	}
	check("provisioned", "a", true)
	status := func(s string) {
		t.Helper()
		must[*iot.UpdateCertificateResponse](t)(w.certificates.UpdateCertificate(ctx, &iot.UpdateCertificateRequest{CertificateId: k.CertificateID, NewStatus: s}))
	}
	for _, s := range []string{iot.CertificateStatusInactive, iot.CertificateStatusRevoked} {
		status(s)
		check(s, "a", false)
		w.connect(t, cert, "dev-1", identity.ReasonNotActive)
		status(iot.CertificateStatusActive)
		check("ACTIVE again", "a", true)
	}

	// From here on by a policy of a group above the thing's, that asks for the thing.
	arn := account.ARN("iot", "cert/"+k.CertificateID)
	attached := must[*iot.ListAttachedPoliciesResponse](t)(w.policies.ListAttachedPolicies(ctx, &iot.ListAttachedPoliciesRequest{Target: arn}))
	must[*iot.DetachPolicyResponse](t)(w.policies.DetachPolicy(ctx, &iot.DetachPolicyRequest{PolicyName: *attached.Policies[0].PolicyName, Target: arn}))
	check("detached", "a", false)
	w.makeGroups(t, []string{"root"}, nil, nil)
	must[*iot.CreateThingGroupResponse](t)(w.registry.CreateThingGroup(ctx, &iot.CreateThingGroupRequest{ThingGroupName: "g", ParentGroupName: new("root")}))
	must[*iot.CreatePolicyResponse](t)(w.policies.CreatePolicy(ctx, &iot.CreatePolicyRequest{PolicyName: "p", PolicyDocument: `{"Version":"2012-10-17","Statement":{
		"Effect":"Allow","Action":"iot:Publish","Resource":"` + account.ARN("iot", "topic/${iot:Connection.Thing.Attributes[serial]}") + `",
		"Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}}}`}))
	must[*iot.AttachPolicyResponse](t)(w.policies.AttachPolicy(ctx, &iot.AttachPolicyRequest{PolicyName: "p", Target: account.ARN("iot", "thinggroup/root")}))
	check("not in the group", "1", false)
	join := &iot.AddThingToThingGroupRequest{ThingName: new("dev-1"), ThingGroupName: new("g")}
	must[*iot.AddThingToThingGroupResponse](t)(w.registry.AddThingToThingGroup(ctx, join))
	check("joined", "1", true)
	must[*iot.UpdateThingResponse](t)(w.registry.UpdateThing(ctx, &iot.UpdateThingRequest{
		ThingName: "dev-1", AttributePayload: &iot.AttributePayload{Attributes: map[string]string{"serial": "2"}},
	}))
	check("another attribute", "1", false)
	check("another attribute", "2", true)
	must[*iot.DetachThingPrincipalResponse](t)(w.registry.DetachThingPrincipal(ctx, &iot.DetachThingPrincipalRequest{ThingName: "dev-1", Principal: arn}))
	check("thing detached", "2", false)
	must[*iot.AttachThingPrincipalResponse](t)(w.registry.AttachThingPrincipal(ctx, &iot.AttachThingPrincipalRequest{ThingName: "dev-1", Principal: arn}))
	check("thing attached", "2", true)
	must[*iot.DeleteThingGroupResponse](t)(w.registry.DeleteThingGroup(ctx, &iot.DeleteThingGroupRequest{ThingGroupName: "g"}))
	check("its group is gone", "2", false)
	must[*iot.CreateThingGroupResponse](t)(w.registry.CreateThingGroup(ctx, &iot.CreateThingGroupRequest{ThingGroupName: "g", ParentGroupName: new("root")}))
	check("another group of the name", "2", false)
}

// A claim certificate can do nothing but provision by its template, whatever is attached to it, and no longer than
// its five minutes.
func TestClaimCertificateIsConfined(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, openDB(t), nil)
	w.fleetTemplate(t, "T", fleetBody)
	w.fleetTemplate(t, "U", fleetBody)
	made := must[*iot.CreateProvisioningClaimResponse](t)(w.CreateProvisioningClaim(ctx, &iot.CreateProvisioningClaimRequest{TemplateName: "T"}))
	arn := account.ARN("iot", "cert/"+*made.CertificateId)
	must[*iot.CreatePolicyResponse](t)(w.policies.CreatePolicy(ctx, &iot.CreatePolicyRequest{
		PolicyName: "all", PolicyDocument: `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`,
	}))
	must[*iot.AttachPolicyResponse](t)(w.policies.AttachPolicy(ctx, &iot.AttachPolicyRequest{PolicyName: "all", Target: arn}))
	cert := leaf(t, *made.CertificatePem)
	a := w.connect(t, cert, "dev-1", "")
	for topic, want := range map[string]bool{
		"$aws/certificates/create/json":                  true,
		"$aws/provisioning-templates/T/provision/json":   true,
		"$aws/provisioning-templates/U/provision/json":   false,
		"$aws/things/dev-1/shadow/update":                false,
		"$aws/rules/r/x":                                 false,
		"telemetry":                                      false,
		"$aws/provisioning-templates/T/provision":        false,
		"$aws/provisioning-templates/TT/provision/json":  false,
		"$aws/provisioning-templates/T*/provision/json":  false,
		"$aws/provisioning-templates/../provision/cbor":  false,
		"$aws/events/presence/connected/dev-1":           false,
		"$aws/certificates/created/json":                 false,
		"$aws/certificates/create-from-csr/json":         true,
		"$aws/provisioning-templates/T/provision/cbor":   true,
		"$aws/provisioning-templates/t/provision/json":   false,
		"$aws/provisioning-templates//provision/json":    false,
		"aws/provisioning-templates/T/provision/json":    false,
		"/$aws/provisioning-templates/T/provision/json":  false,
		"$aws/provisioning-templates/T//provision/json":  false,
		"$aws/provisioning-templates/T/provisions/json":  false,
		"$aws/provisioning-templates/T/x/provision/json": false,
	} {
		if got := a.Authorize("iot:Publish", account.ARN("iot", "topic/"+topic)).Allowed(); got != want {
			t.Errorf("publish to %s: %v, want %v", topic, got, want)
		}
	}
	w.clock.advance(identity.ClaimLifetime + time.Second)
	w.connect(t, cert, "dev-1", identity.ReasonExpired)
	if n := must[int](t)(w.certificates.DeleteExpired(ctx)); n != 1 {
		t.Errorf("%d certificates swept", n)
	}
	if a.Authorize("iot:Publish", account.ARN("iot", "topic/$aws/certificates/create/json")).Allowed() {
		t.Error("a claim certificate that is gone may still provision")
	}
	w.connect(t, cert, "dev-1", identity.ReasonNotRegistered)
}
