package e2e_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"

	"flotilla/internal/server"
	"flotilla/internal/server/servertest"
)

const hookARN = "arn:aws:lambda:us-east-1:123456789012:function:hook"

// TestProvisioningHookDecides has a function at an HTTP endpoint decide who is provisioned.
func TestProvisioningHookDecides(t *testing.T) {
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Parameters map[string]string }
		body, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(body, &in) != nil {
			t.Errorf("the hook got %q", body)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"allowProvisioning": in.Parameters["SerialNumber"] == "1"})
	}))
	defer hook.Close()
	d := servertest.Start(t, func(c *server.Config) { c.Function.Endpoints = map[string]string{hookARN: hook.URL} })
	n := d.Node(0)
	makeTemplate(t, n)
	if _, err := n.IoT().UpdateProvisioningTemplate(t.Context(), &iot.UpdateProvisioningTemplateInput{
		TemplateName: new("pumps"), PreProvisioningHook: &types.ProvisioningHook{TargetArn: new(hookARN)},
	}); err != nil {
		t.Fatal(err)
	}
	claim := n.Identity(t, "claim", claimPolicy...)
	c := connect5(t, d.Node(1), claim, "claim")
	for serial, allowed := range map[string]bool{"1": true, "2": false} {
		made := ask(t, c, "$aws/certificates/create/json", map[string]any{})
		got := ask(t, c, "$aws/provisioning-templates/pumps/provision/json", map[string]any{
			"certificateOwnershipToken": made.CertificateOwnershipToken, "parameters": map[string]string{"SerialNumber": serial},
		})
		if (got.ThingName == "pump-"+serial) != allowed || (got.StatusCode != 0) == allowed {
			t.Errorf("serial %s: %+v", serial, got)
		}
	}
}

// TestRuleReadsOtherRooms has a rule's SQL read a shadow and the registry.
func TestRuleReadsOtherRooms(t *testing.T) {
	d := servertest.Start(t)
	n := d.Node(0)
	id := n.Identity(t, "all", everything...)
	if _, err := n.IoT().CreateThing(t.Context(), &iot.CreateThingInput{
		ThingName: new("pump"), AttributePayload: &types.AttributePayload{Attributes: map[string]string{"site": "berlin"}},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Data().UpdateThingShadow(t.Context(), &iotdataplane.UpdateThingShadowInput{
		ThingName: new("pump"), Payload: []byte(`{"state":{"desired":{"limit":7}}}`),
	}); err != nil {
		t.Fatal(err)
	}
	makeRule(t, n, "enrich", `SELECT a, get_thing_shadow(topic(2), "`+roleARN+`").state.desired.limit AS most, `+
		`get_registry_data("DescribeThing", topic(2), "`+roleARN+`").attributes.site AS site FROM 'test/+/in'`,
		types.Action{Republish: &types.RepublishAction{RoleArn: new(roleARN), Topic: new("test/out"), Qos: new(int32(1))}})
	b := connect5(t, n, id, "b")
	b.subscribe(t, 1, "test/out")
	b.publish(t, "test/pump/in", `{"a":1}`, 1)
	select {
	case m := <-b.got:
		if string(m.Payload) != `{"a":1,"most":7,"site":"berlin"}` {
			t.Errorf("%s", m.Payload)
		}
	case <-time.After(patience):
		t.Fatal("no message came")
	}
}
