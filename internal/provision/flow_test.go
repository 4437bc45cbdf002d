package provision_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/provision"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

const document = `{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"iot:*\",\"Resource\":\"*\"}]}`

// fleetBody is a template with a thing, a certificate and a policy.
const fleetBody = `{"Parameters":{"Serial":{"Type":"String"}},"Resources":{
	"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Fn::Join":["-",["dev",{"Ref":"Serial"}]]},"AttributePayload":{"serial":{"Ref":"Serial"}}}},
	"certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"Active"}},
	"policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":"` + document + `"}}},
	"DeviceConfiguration":{"url":"https://x.example/?a=1&b=2","interval":30,"on":true}}`

func (w *world) fleetTemplate(t testing.TB, name, body string) {
	t.Helper()
	must[*iot.CreateProvisioningTemplateResponse](t)(w.CreateProvisioningTemplate(t.Context(), &iot.CreateProvisioningTemplateRequest{
		TemplateName: name, TemplateBody: body, Enabled: new(true), ProvisioningRoleArn: roleARN,
	}))
}

// TestClaimFlow: https://docs.aws.amazon.com/iot/latest/developerguide/fleet-provision-api.html
func TestClaimFlow(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, nil)
		w.fleetTemplate(t, "T", fleetBody)
		k := w.create(t, claim)
		if got := w.status(t, k.CertificateID); got != iot.CertificateStatusPendingActivation {
			t.Errorf("a new certificate is %s", got)
		}
		if k.PrivateKey == "" || !strings.Contains(k.CertificatePEM, "BEGIN CERTIFICATE") || len(k.Token) < 43 {
			t.Errorf("incomplete answer: %d bytes of key, %d of token", len(k.PrivateKey), len(k.Token))
		}
		answer, ok := w.register(t, claim, "T", k.Token, map[string]string{"Serial": "7"})
		if !ok {
			t.Fatalf("rejected: %s", answer)
		}
		want := `{"deviceConfiguration":{"interval":30,"on":true,"url":"https://x.example/?a=1&b=2"},"thingName":"dev-7"}`
		if string(answer) != want {
			t.Errorf("got %s, want %s", answer, want)
		}
		if got := w.status(t, k.CertificateID); got != iot.CertificateStatusActive {
			t.Errorf("the certificate is %s", got)
		}
		things := must[*iot.ListPrincipalThingsResponse](t)(w.registry.ListPrincipalThings(t.Context(), &iot.ListPrincipalThingsRequest{Principal: account.ARN("iot", "cert/"+k.CertificateID)}))
		if diff := cmp.Diff([]string{"dev-7"}, things.Things); diff != "" {
			t.Error(diff)
		}
		// The certificate outlives the hour.
		w.clock.advance(2 * time.Hour)
		must[int](t)(w.certificates.DeleteExpired(t.Context()))
		if got := w.status(t, k.CertificateID); got != iot.CertificateStatusActive {
			t.Errorf("after the sweep the certificate is %q", got)
		}
	})
}

func TestClaimFlowCBOR(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	w.fleetTemplate(t, "T", fleetBody)
	encode := func(v any) []byte { return must[[]byte](t)(cbor.Marshal(v)) }
	answer, ok := w.call(t, claim, "$aws/certificates/create-from-csr/cbor", encode(map[string]string{"certificateSigningRequest": newCSR(t)}))
	if !ok {
		t.Fatalf("rejected: %x", answer)
	}
	var k map[string]string
	if err := cbor.Unmarshal(answer, &k); err != nil {
		t.Fatal(err)
	}
	if _, has := k["privateKey"]; has || k["certificateId"] == "" || k["certificatePem"] == "" {
		t.Errorf("got %v", k)
	}
	answer, ok = w.call(t, claim, "$aws/provisioning-templates/T/provision/cbor", encode(map[string]any{
		"certificateOwnershipToken": k["certificateOwnershipToken"], "parameters": map[string]string{"Serial": "8"},
	}))
	if !ok {
		t.Fatalf("rejected: %x", answer)
	}
	var got any
	if err := cbor.Unmarshal(answer, &got); err != nil {
		t.Fatal(err)
	}
	want := any(map[any]any{
		"thingName":           "dev-8",
		"deviceConfiguration": map[any]any{"url": "https://x.example/?a=1&b=2", "interval": uint64(30), "on": true},
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	answer, ok = w.call(t, claim, "$aws/provisioning-templates/T/provision/cbor", encode(map[string]any{"certificateOwnershipToken": ""}))
	var e rejection
	if err := cbor.Unmarshal(answer, &e); err != nil || ok {
		t.Fatalf("%x: %v", answer, err)
	}
	if diff := cmp.Diff(rejection{400, "InvalidCertificateOwnershipToken", "Certificate ownership token cannot be empty."}, e); diff != "" {
		t.Error(diff)
	}
}

// A token works once, within its hour, for the client it was given to.
func TestOwnershipToken(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	w.fleetTemplate(t, "T", fleetBody)
	refused := func(name string, from mqtt.Source, token string) {
		t.Helper()
		answer, ok := w.register(t, from, "T", token, map[string]string{"Serial": "1"})
		if e := parse[rejection](t, answer); ok || e.ErrorCode != "InvalidCertificateOwnershipToken" || e.StatusCode != 400 {
			t.Errorf("%s: accepted %v: %s", name, ok, answer)
		}
		if w.thingExists(t, "dev-1") {
			t.Errorf("%s: there is a thing", name)
		}
	}
	k := w.create(t, claim)
	otherConnection, otherPrincipal, otherType := claim, claim, claim // even of the same client id
	otherType.PrincipalType = "authorizer"                            // which may give any id
	otherConnection.ConnectionID, otherPrincipal.PrincipalID = "connection-2", strings.Repeat("d", 64)
	refused("another connection", otherConnection, k.Token)
	refused("another principal", otherPrincipal, k.Token)
	refused("another type of principal", otherType, k.Token)
	refused("another token", claim, k.Token[:len(k.Token)-1]+"_")
	refused("its hash", claim, strings.Repeat("0", 64))

	// Someone deactivates the certificate in between.
	must[*iot.UpdateCertificateResponse](t)(w.certificates.UpdateCertificate(t.Context(), &iot.UpdateCertificateRequest{CertificateId: k.CertificateID, NewStatus: iot.CertificateStatusRevoked}))
	refused("revoked certificate", claim, k.Token)

	k = w.create(t, claim)
	w.clock.advance(provision.TokenLifetime)
	refused("after the hour", claim, k.Token)
	if n := must[int](t)(w.certificates.DeleteExpired(t.Context())); n != 1 || w.status(t, k.CertificateID) != "" {
		t.Errorf("%d certificates swept", n)
	}
	if err := w.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}

	k = w.create(t, claim)
	if answer, ok := w.register(t, claim, "T", k.Token, map[string]string{"Serial": "2"}); !ok {
		t.Fatalf("rejected: %s", answer)
	}
	refused("a second time", claim, k.Token)
}

// Of many uses at once one succeeds.
func TestTokenRace(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	w.fleetTemplate(t, "T", fleetBody)
	k := w.create(t, claim)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			payload := fmt.Sprintf(`{"certificateOwnershipToken":%q,"parameters":{"Serial":"r%d"}}`, k.Token, i)
			if err := w.ServeMQTT(t.Context(), &mqtt.Message{Topic: "$aws/provisioning-templates/T/provision/json", Payload: []byte(payload), Source: claim}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	accepted := 0
	for _, m := range w.out.sent {
		if strings.HasSuffix(m.Topic, "/provision/json/accepted") {
			accepted++
		}
	}
	if accepted != 1 || len(w.things(t)) != 1 {
		t.Errorf("%d accepted, things %v", accepted, w.things(t))
	}
}

// A failure leaves nothing behind, and the token can be used again.
func TestNothingIsLeftBehind(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	w.fleetTemplate(t, "good", fleetBody)
	w.fleetTemplate(t, "missing", strings.Replace(fleetBody, `"PolicyDocument":"`+document+`"`, `"PolicyName":"Nope"`, 1))
	k := w.create(t, claim)
	answer, ok := w.register(t, claim, "missing", k.Token, map[string]string{"Serial": "9"})
	if e := parse[rejection](t, answer); ok || e.StatusCode != 404 || e.ErrorCode != "ResourceNotFound" {
		t.Errorf("accepted %v: %s", ok, answer)
	}
	if got := w.things(t); len(got) > 0 {
		t.Errorf("things %v", got)
	}
	if got := w.status(t, k.CertificateID); got != iot.CertificateStatusPendingActivation {
		t.Errorf("the certificate is %s", got)
	}
	if answer, ok := w.register(t, claim, "good", k.Token, map[string]string{"Serial": "9"}); !ok {
		t.Errorf("rejected: %s", answer)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	w.fleetTemplate(t, "T", fleetBody)
	w.fleetTemplate(t, "off", fleetBody)
	must[*iot.UpdateProvisioningTemplateResponse](t)(w.UpdateProvisioningTemplate(t.Context(), &iot.UpdateProvisioningTemplateRequest{TemplateName: "off", Enabled: new(false)}))
	must[*iot.CreateProvisioningTemplateResponse](t)(w.CreateProvisioningTemplate(t.Context(), &iot.CreateProvisioningTemplateRequest{
		TemplateName: "jit", TemplateBody: fleetBody, Enabled: new(true), ProvisioningRoleArn: roleARN, Type: new(iot.TemplateTypeJitp),
	}))
	k := w.create(t, claim)
	token := `"certificateOwnershipToken":"` + k.Token + `"`
	for _, c := range []struct {
		name, topic, payload string
		code                 string
	}{
		{"disabled", "$aws/provisioning-templates/off/provision/json", `{` + token + `}`, "InvalidRequest"},
		{"JITP", "$aws/provisioning-templates/jit/provision/json", `{` + token + `}`, "InvalidRequest"},
		{"no template", "$aws/provisioning-templates/none/provision/json", `{` + token + `}`, "ResourceNotFound"},
		{"no parameter", "$aws/provisioning-templates/T/provision/json", `{` + token + `}`, "InvalidParameters"},
		{"bad thing name", "$aws/provisioning-templates/T/provision/json", `{` + token + `,"parameters":{"Serial":"a b"}}`, "InvalidParameters"},
		{"no token", "$aws/provisioning-templates/T/provision/json", `{}`, "InvalidCertificateOwnershipToken"},
		{"empty payload", "$aws/provisioning-templates/T/provision/json", ``, "InvalidPayload"},
		{"not JSON", "$aws/provisioning-templates/T/provision/json", `{`, "InvalidPayload"},
		{"array", "$aws/provisioning-templates/T/provision/json", `[]`, "InvalidPayload"},
		{"number as parameter", "$aws/provisioning-templates/T/provision/json", `{` + token + `,"parameters":{"Serial":1}}`, "InvalidPayload"},
		{"twice the same", "$aws/provisioning-templates/T/provision/json", `{` + token + `,` + token + `}`, "InvalidPayload"},
		{"long value", "$aws/provisioning-templates/T/provision/json", `{` + token + `,"parameters":{"Serial":"` + strings.Repeat("x", 4097) + `"}}`, "InvalidRequest"},
		{"JSON as CBOR", "$aws/provisioning-templates/T/provision/cbor", `{` + token + `}`, ""},
		{"no CSR", "$aws/certificates/create-from-csr/json", `{}`, "InvalidRequest"},
		{"bad CSR", "$aws/certificates/create-from-csr/json", `{"certificateSigningRequest":"x"}`, "InvalidRequest"},
		{"create with text", "$aws/certificates/create/json", `hello`, "InvalidPayload"},
	} {
		answer, ok := w.call(t, claim, c.topic, []byte(c.payload))
		if ok {
			t.Errorf("%s: accepted", c.name)
		}
		if c.code == "" {
			continue
		}
		if e := parse[rejection](t, answer); e.ErrorCode != c.code || e.StatusCode/100 != 4 || e.ErrorMessage == "" {
			t.Errorf("%s: %s, want %s", c.name, answer, c.code)
		}
	}
	if got := w.things(t); len(got) > 0 {
		t.Errorf("things %v", got)
	}
	long := strings.Replace(fleetBody, `"on":true`, `"on":[`+strings.Repeat(`{"Ref":"Long"},`, 63)+`""]`, 1)
	w.fleetTemplate(t, "long", long)
	answer, ok := w.register(t, claim, "long", k.Token, map[string]string{"Serial": "1", "Long": strings.Repeat("x", 4000)})
	if e := parse[rejection](t, answer); ok || e.ErrorCode != "InvalidRequest" || w.thingExists(t, "dev-1") {
		t.Errorf("long configuration: accepted %v: %s", ok, answer)
	}
	for _, m := range []*mqtt.Message{
		{Topic: "$aws/certificates/create/json", Payload: []byte("{}")}, // not a client
		{Topic: "$aws/certificates/create/xml", Source: claim},
		{Topic: "$aws/provisioning-templates//provision/json", Source: claim},
		{Topic: "$aws/certificates/create/json/accepted", Source: claim},
	} {
		before := len(w.out.sent)
		if err := w.ServeMQTT(t.Context(), m); err == nil || len(w.out.sent) != before {
			t.Errorf("%s was answered", m.Topic)
		}
	}
}

// What keeps claim certificates from filling the store.
func TestPendingIsBounded(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	w.Templates = provision.New(provision.Config{MaxPending: 2}, w.Deps)
	w.create(t, claim)
	w.create(t, claim)
	answer, ok := w.call(t, claim, "$aws/certificates/create/json", nil)
	if e := parse[rejection](t, answer); ok || e.ErrorCode != "Throttling" {
		t.Errorf("accepted %v: %s", ok, answer)
	}
	w.clock.advance(provision.TokenLifetime)
	if err := w.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.create(t, claim)
}

// AWS's quota under the profile aws, of each operation on its own.
func TestRate(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	w.Templates = provision.New(provision.Config{Limits: "aws"}, w.Deps)
	for range 10 {
		w.create(t, claim)
	}
	answer, ok := w.call(t, claim, "$aws/certificates/create/json", nil)
	if e := parse[rejection](t, answer); ok || e.ErrorCode != "Throttling" {
		t.Errorf("%s", answer)
	}
	w.explained(t, claim.ClientID, "Throttling", "rate", "Rate exceeded")
	answer, _ = w.register(t, claim, "T", "x", nil)
	if e := parse[rejection](t, answer); e.ErrorCode != "InvalidCertificateOwnershipToken" {
		t.Errorf("%s", answer)
	}
	w.clock.advance(time.Second)
	w.create(t, claim)
}

// TestHook: https://docs.aws.amazon.com/iot/latest/developerguide/pre-provisioning-hook.html
func TestHook(t *testing.T) {
	asked := make(chan []byte, 1)
	for _, c := range []struct {
		name, answer string
		err          error
		thing        string // "" = denied
	}{
		{"allow", `{"allowProvisioning":true}`, nil, "dev-7"},
		{"override", `{"allowProvisioning":true,"parameterOverrides":{"Serial":"o"}}`, nil, "dev-o"},
		{"deny", `{"allowProvisioning":false}`, nil, ""},
		{"no answer", `{}`, nil, ""},
		{"text", `{"allowProvisioning":"true"}`, nil, ""},
		{"other case", `{"AllowProvisioning":true}`, nil, ""},
		{"twice", `{"allowProvisioning":false,"allowProvisioning":true}`, nil, ""},
		{"null", `null`, nil, ""},
		{"empty", ``, nil, ""},
		{"overrides of another type", `{"allowProvisioning":true,"parameterOverrides":{"Serial":1}}`, nil, ""},
		{"too long", `{"allowProvisioning":true,"x":"` + strings.Repeat("x", 200<<10) + `"}`, nil, ""},
		{"failed", `{"allowProvisioning":true}`, errors.New("Unhandled"), ""},
		{"late", "", context.DeadlineExceeded, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, openDB(t), hookFunc(func(ctx context.Context, payload []byte) ([]byte, error) {
				asked <- payload
				if c.name == "late" {
					<-ctx.Done()
				}
				return []byte(c.answer), c.err
			}), hangs(c.name == "late"))
			w.fleetTemplate(t, "T", fleetBody)
			must[*iot.UpdateProvisioningTemplateResponse](t)(w.UpdateProvisioningTemplate(t.Context(), &iot.UpdateProvisioningTemplateRequest{
				TemplateName: "T", PreProvisioningHook: &iot.ProvisioningHook{TargetArn: "arn:aws:lambda:us-east-1:123456789012:function:f"},
			}))
			k := w.create(t, claim)
			answer, ok := w.register(t, claim, "T", k.Token, map[string]string{"Serial": "7"})
			var request map[string]any
			if err := json.Unmarshal(<-asked, &request); err != nil {
				t.Fatal(err)
			}
			want := map[string]any{
				"claimCertificateId": claim.PrincipalID, "certificateId": k.CertificateID, "certificatePem": k.CertificatePEM,
				"templateArn": account.ARN("iot", "provisioningtemplate/T"), "clientId": claim.ClientID,
				"parameters": map[string]any{"Serial": "7"},
			}
			if diff := cmp.Diff(want, request); diff != "" {
				t.Error(diff)
			}
			if c.thing != "" {
				if !ok || !w.thingExists(t, c.thing) {
					t.Errorf("%s", answer)
				}
				return
			}
			if e := parse[rejection](t, answer); ok || e.ErrorCode != "ACCESS_DENIED" || e.StatusCode != 403 || len(w.things(t)) > 0 {
				t.Errorf("accepted %v: %s", ok, answer)
			}
		})
	}
}

func FuzzServeMQTT(f *testing.F) {
	f.Add(uint8(0), []byte(`{"certificateOwnershipToken":"x","parameters":{"a":"b"}}`))
	f.Add(uint8(1), []byte(`{"certificateSigningRequest":"x"}`))
	f.Add(uint8(3), must[[]byte](f)(cbor.Marshal(map[string]any{"certificateOwnershipToken": "x", "parameters": map[string]string{"a": "b"}})))
	w := newWorld(f, openDB(f), nil)
	w.fleetTemplate(f, "T", fleetBody)
	topics := []string{
		"$aws/provisioning-templates/T/provision/json", "$aws/certificates/create-from-csr/json", "$aws/certificates/create-from-csr/cbor",
		"$aws/provisioning-templates/T/provision/cbor",
	}
	f.Fuzz(func(t *testing.T, topic uint8, payload []byte) {
		if _, ok := w.call(t, claim, topics[int(topic)%len(topics)], payload); ok {
			t.Fatal("accepted")
		}
	})
}

// BenchmarkClaimFlow provisions one device an operation, with a new key, from 32 clients at once.
func BenchmarkClaimFlow(b *testing.B) {
	w := newWorld(b, storetest.Open(b), nil)
	w.fleetTemplate(b, "T", fleetBody)
	next := make(chan int)
	var wg sync.WaitGroup
	for c := range 32 {
		wg.Go(func() {
			from := mqtt.Source{ClientID: fmt.Sprint("c", c), ConnectionID: fmt.Sprint("n", c), PrincipalID: claim.PrincipalID}
			for i := range next {
				if err := provisionOne(b.Context(), w, from, fmt.Sprint(i)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := 0; b.Loop(); i++ {
		next <- i
	}
	close(next)
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "devices/s")
}

func provisionOne(ctx context.Context, w *world, from mqtt.Source, serial string) error {
	if err := w.ServeMQTT(ctx, &mqtt.Message{Topic: "$aws/certificates/create/json", Source: from}); err != nil {
		return err
	}
	var k keys
	if err := json.Unmarshal(w.out.take(from.ClientID).Payload, &k); err != nil {
		return err
	}
	payload := fmt.Sprintf(`{"certificateOwnershipToken":%q,"parameters":{"Serial":%q}}`, k.Token, serial)
	if err := w.ServeMQTT(ctx, &mqtt.Message{Topic: "$aws/provisioning-templates/T/provision/json", Payload: []byte(payload), Source: from}); err != nil {
		return err
	}
	if m := w.out.take(from.ClientID); !strings.HasSuffix(m.Topic, "/accepted") {
		return fmt.Errorf("%s", m.Payload)
	}
	return nil
}
