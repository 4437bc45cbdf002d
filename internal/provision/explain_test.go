package provision_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"flotilla/internal/aws/flotilla"
	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/provision"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// explain gives the attempts that are known of a key, the oldest first.
func (w *world) explain(t testing.TB, key string) []*flotilla.ProvisioningAttempt {
	t.Helper()
	return must[*flotilla.ExplainProvisioningResponse](t)(w.ExplainProvisioning(t.Context(), &flotilla.ExplainProvisioningRequest{Key: key, MaxResults: new(int32(100))})).Attempts
}

// last is the newest attempt of a key.
func (w *world) last(t testing.TB, key string) *flotilla.ProvisioningAttempt {
	t.Helper()
	all := w.explain(t, key)
	if len(all) == 0 {
		t.Fatalf("nothing is known of %q", key)
	}
	return all[len(all)-1]
}

// story is an attempt as text, for what must be in it and what must not.
func story(t testing.TB, a *flotilla.ProvisioningAttempt) string {
	t.Helper()
	return string(must[[]byte](t)(json.Marshal(a)))
}

const secretBody = `{"Parameters":{"SerialNumber":{"Type":"String"},"WifiPassword":{"Type":"String"}},"Resources":{
	"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Fn::Join":["-",["dev",{"Ref":"SerialNumber"}]]},"ThingGroups":["g"]}},
	"certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"Active"}},
	"policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"P"}}}}`

// A whole attempt, found by each of its names on every store; what is secret stays so.
func TestExplainProvisioned(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, hookFunc(func(context.Context, []byte) ([]byte, error) {
			return []byte(`{"allowProvisioning":true,"parameterOverrides":{"Zone":"north","ApiKey":"hunter22"}}`), nil
		}))
		w.makeGroups(t, []string{"g"}, nil, nil)
		w.allowAll(t, "P")
		w.fleetTemplate(t, "T", secretBody)
		w.setHook(t, "T")
		k := w.create(t, claim)
		pending := w.last(t, claim.ClientID)
		if *pending.Outcome != "pending" || *pending.CertificateId != k.CertificateID || *pending.Operation != "CreateKeysAndCertificate" {
			t.Errorf("before: %s", story(t, pending))
		}
		if answer, ok := w.register(t, claim, "T", k.Token, map[string]string{"SerialNumber": "SN7", "WifiPassword": "correct horse"}); !ok {
			t.Fatalf("rejected: %s", answer)
		}
		for _, key := range []string{claim.ClientID, k.CertificateID, "dev-SN7", "SN7"} {
			all := w.explain(t, key)
			if len(all) != 1 {
				t.Fatalf("%s: %d attempts", key, len(all))
			}
			a := all[0]
			if *a.Outcome != "accepted" || *a.TemplateName != "T" || *a.TemplateVersion != 1 || *a.ThingName != "dev-SN7" || *a.Principal != claim.PrincipalID {
				t.Errorf("%s: %s", key, story(t, a))
			}
			text := story(t, a)
			for _, want := range []string{`"SerialNumber":"SN7"`, `"WifiPassword":"***"`, "Zone=north", "ApiKey=***", "allowed in", `"joined"`, "existed, attached", `"subject":"ACTIVE"`} {
				if !strings.Contains(text, want) {
					t.Errorf("%s is not in %s", want, text)
				}
			}
			for _, secret := range []string{"correct horse", "hunter22", k.Token, "PRIVATE"} {
				if strings.Contains(text, secret) {
					t.Errorf("%q is in %s", secret, text)
				}
			}
		}
		if got := w.explain(t, "'; DROP TABLE thing; --"); len(got) != 0 {
			t.Errorf("%d attempts of nobody", len(got))
		}
	})
}

// A failure says which resource it was, and nothing of a secret that an error quotes.
func TestExplainFailure(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	w.allowAll(t, "P")
	w.fleetTemplate(t, "T", secretBody) // its group is missing
	k := w.create(t, claim)
	if _, ok := w.register(t, claim, "T", k.Token, map[string]string{"SerialNumber": "1", "WifiPassword": "x"}); ok {
		t.Fatal("accepted")
	}
	a := w.last(t, k.CertificateID)
	step := a.Steps[len(a.Steps)-1]
	if *a.Outcome != "rejected" || *a.ErrorCode != "ResourceNotFound" || *a.StatusCode != 404 || *step.Name != "group" || *step.Subject != "g" || step.Failed == nil || !*step.Failed {
		t.Errorf("%s", story(t, a))
	}
	w.fleetTemplate(t, "name", strings.Replace(secretBody, `{"Fn::Join":["-",["dev",{"Ref":"SerialNumber"}]]}`, `{"Ref":"WifiPassword"}`, 1))
	if _, ok := w.register(t, claim, "name", k.Token, map[string]string{"SerialNumber": "1", "WifiPassword": "not a name!"}); ok {
		t.Fatal("accepted")
	}
	if text := story(t, w.last(t, k.CertificateID)); strings.Contains(text, "not a name!") || !strings.Contains(text, "ThingName") {
		t.Errorf("%s", text)
	}
}

// Certificates that were given and never used are told of after their hour, and RegisterThing, just-in-time
// provisioning and denials are attempts too.
func TestExplainOtherFlows(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	k := w.create(t, claim)
	w.clock.advance(provision.TokenLifetime)
	if err := w.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := w.last(t, k.CertificateID); *a.Outcome != "expired" {
		t.Errorf("%s", story(t, a))
	}
	_, err := w.RegisterThing(t.Context(), &iot.RegisterThingRequest{
		TemplateBody: strings.Replace(fleetBody, `{"Ref":"AWS::IoT::Certificate::Id"}`, `"`+strings.Repeat("a", 64)+`"`, 1), Parameters: map[string]string{"Serial": "S9"},
	})
	if err == nil {
		t.Fatal("RegisterThing of a certificate that there is not")
	}
	if a := w.last(t, "S9"); *a.Flow != "RegisterThing" || *a.Outcome != "rejected" || *a.Steps[len(a.Steps)-1].Name != "certificate" {
		t.Errorf("%s", story(t, a))
	}
	id := strings.Repeat("b", 64)
	if _, err := w.JustInTime(t.Context(), fleetBody, map[string]string{"Id": id, "SerialNumber": "S10"}); err == nil {
		t.Fatal("JITP of a certificate that there is not")
	}
	if a := w.last(t, "S10"); *a.Flow != "JITP" || *a.Outcome != "rejected" || *a.CertificateId != id {
		t.Errorf("%s", story(t, a))
	}
	w.Denied(provision.Denial{ClientID: "mute", PrincipalID: claim.PrincipalID, Action: "iot:Subscribe", Topic: "$aws/provisioning-templates/T/provision/json/accepted", Reason: "no statement allows it"})
	a := w.last(t, "mute")
	want := `{"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:us-east-1:123456789012:topicfilter/$aws/provisioning-templates/T/provision/json/accepted"}`
	if *a.Outcome != "denied" || *a.TemplateName != "T" || *a.NeededPolicy != want {
		t.Errorf("%s", story(t, a))
	}
}

// What is kept is bounded: in all, of one client that never stops, and in the size of each.
func TestExplainIsBounded(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	w.Templates = provision.New(provision.Config{ExplainRecords: 20}, w.Deps)
	refuse := func(client, parameter string) {
		t.Helper()
		from := claim
		from.ClientID = client
		payload := fmt.Sprintf(`{"certificateOwnershipToken":"x","parameters":{%q:%q}}`, parameter, strings.Repeat("\u0001", 4096))
		for i := range 20 { // with as many parameters as there may be
			payload = strings.Replace(payload, `:{`, fmt.Sprintf(`:{"%s%d":%q,`, strings.Repeat("n", 2000), i, strings.Repeat("v", 4000)), 1)
		}
		if _, ok := w.call(t, from, "$aws/provisioning-templates/T/provision/json", []byte(payload)); ok {
			t.Fatal("accepted")
		}
	}
	for i := range 30 {
		refuse("loops", fmt.Sprint(i))
		w.explain(t, "loops") // writes what waits
	}
	all := w.explain(t, "loops")
	if len(all) == 0 || len(all) > 12 {
		t.Errorf("%d attempts of one client", len(all))
	}
	for _, a := range all {
		if n := len(story(t, a)); n > 10<<10 {
			t.Errorf("an attempt of %d bytes", n)
		}
	}
	for range 5 { // at once
		refuse("again", "x")
	}
	if a := w.last(t, "again"); len(w.explain(t, "again")) != 1 || *a.Repeats != 4 {
		t.Errorf("%s", story(t, a))
	}
	for i := range 60 {
		refuse(fmt.Sprint("other-", i), "x")
	}
	w.explain(t, "x")
	known := 0
	for i := range 60 {
		known += len(w.explain(t, fmt.Sprint("other-", i)))
	}
	if known == 0 || known > 25 || len(w.explain(t, "other-59")) != 1 {
		t.Errorf("%d attempts are kept", known)
	}
}

// What was added before the end is written by Run.
func TestExplainSurvivesAStop(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); w.Run(ctx) }()
	if _, ok := w.register(t, claim, "T", "x", nil); ok {
		t.Fatal("accepted")
	}
	stop()
	<-ended
	w.Templates = provision.New(provision.Config{}, w.Deps)
	if a := w.last(t, claim.ClientID); *a.ErrorCode != "InvalidCertificateOwnershipToken" {
		t.Errorf("%s", story(t, a))
	}
}

// allowAll makes a policy that allows everything.
func (w *world) allowAll(t testing.TB, name string) {
	t.Helper()
	must[*iot.CreatePolicyResponse](t)(w.policies.CreatePolicy(t.Context(), &iot.CreatePolicyRequest{
		PolicyName: name, PolicyDocument: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`,
	}))
}

// setHook gives a template a pre-provisioning hook.
func (w *world) setHook(t testing.TB, template string) {
	t.Helper()
	must[*iot.UpdateProvisioningTemplateResponse](t)(w.UpdateProvisioningTemplate(t.Context(), &iot.UpdateProvisioningTemplateRequest{
		TemplateName: template, PreProvisioningHook: &iot.ProvisioningHook{TargetArn: "arn:aws:lambda:us-east-1:123456789012:function:f"},
	}))
}

// The hook's failure is told to the operator alone.
func TestExplainHook(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, "its answer is not understood: a member has the wrong type: JSON string"},
		{errors.New("boom"), "it failed: boom"},
		{context.DeadlineExceeded, "it did not answer within 50ms"},
	} {
		late := errors.Is(c.err, context.DeadlineExceeded)
		w := newWorld(t, openDB(t), hookFunc(func(ctx context.Context, _ []byte) ([]byte, error) {
			if late {
				<-ctx.Done()
			}
			return []byte(`{"allowProvisioning":"yes"}`), c.err
		}), hangs(late))
		w.fleetTemplate(t, "T", fleetBody)
		w.setHook(t, "T")
		from := mqtt.Source{ClientID: c.want[:9], ConnectionID: c.want, PrincipalID: claim.PrincipalID}
		k := w.create(t, from)
		answer, ok := w.register(t, from, "T", k.Token, map[string]string{"Serial": "1"})
		a := w.last(t, k.CertificateID)
		if ok || strings.Contains(string(answer), "boom") || a.Reason == nil || !strings.Contains(*a.Reason, c.want) || *a.ErrorCode != "ACCESS_DENIED" {
			t.Errorf("%s: told %s, kept %s", c.want, answer, story(t, a))
		}
		if s := a.Steps[len(a.Steps)-1]; *s.Name != "hook" || s.Failed == nil {
			t.Errorf("%s", story(t, a))
		}
	}
}
