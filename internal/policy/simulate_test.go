package policy_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/aws/iot"
	"flotilla/internal/policy"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

func ask(list ...string) (out []*flotilla.SimulationQuestion) {
	for pair := range slices.Chunk(list, 2) {
		out = append(out, &flotilla.SimulationQuestion{Action: pair[0], Resource: pair[1]})
	}
	return out
}

func decisions(out *flotilla.SimulatePolicyResponse) string {
	var list []string
	for _, r := range out.Results {
		list = append(list, *r.Decision)
	}
	return strings.Join(list, " ")
}

func TestSimulatePolicy(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		p, n := open(t, db)
		n.thing.TypeName = "Pump"
		create(t, p, "own", allow("iot:Publish", arn+"topic/${iot:Connection.Thing.ThingName}/*"))
		create(t, p, "group", allow("iot:Receive", arn+"topic/${iot:Certificate.Subject.CommonName}"))
		create(t, p, "extra", strings.Replace(allow("iot:Publish", arn+"topic/dev-1/secret"), "Allow", "Deny", 1))
		must[*iot.CreatePolicyVersionResponse](t)(p.CreatePolicyVersion(t.Context(), &iot.CreatePolicyVersionRequest{
			PolicyName: "own", PolicyDocument: allow("iot:Publish", arn+"topic/${iot:Connection.Thing.ThingName}/*"), SetAsDefault: new(true),
		}))
		attach(t, p, "own", cert)
		n.member = []string{"g"}
		attach(t, p, "group", arn+"thinggroup/root")
		simulate := func(in *flotilla.SimulatePolicyRequest) *flotilla.SimulatePolicyResponse {
			t.Helper()
			return must[*flotilla.SimulatePolicyResponse](t)(p.SimulatePolicy(t.Context(), in))
		}

		out := simulate(&flotilla.SimulatePolicyRequest{
			Principal: new(certID), ClientId: new("dev-1"), PolicyNames: []string{"extra"},
			Questions: ask("iot:Publish", "dev-1/a", "iot:Receive", "topic/dev-1", "iot:Publish", arn+"topic/dev-1/secret", "iot:Publish", "other/a"),
		})
		if got, want := decisions(out), "allowed allowed explicit-deny implicit-deny"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if d := cmp.Diff([]string{"extra", "group", "own"}, out.Policies); d != "" {
			t.Error(d)
		}
		first := out.Results[0]
		if *first.Resource != arn+"topic/dev-1/a" || *first.PolicyName != "own" || *first.PolicyVersionId != "2" || *first.Statement != 0 || *first.Sid != "S" {
			t.Errorf("%+v", first)
		}
		if d := cmp.Diff([]*flotilla.SimulationVariable{{Name: new("iot:Connection.Thing.ThingName"), Values: []string{"dev-1"}}}, first.Variables); d != "" {
			t.Error(d)
		}
		if last := out.Results[3]; last.Needed == nil || len(last.Considered) != 2 || last.Considered[1].Reason == nil || *last.Considered[0].Effect != "Deny" {
			t.Errorf("%+v", last)
		}

		// A document in the place of a stored policy; one left out.
		out = simulate(&flotilla.SimulatePolicyRequest{
			Principal: new(cert), ClientId: new("dev-1"), PolicyNamesToSkip: []string{"group"},
			Policies:  []*flotilla.SimulatedPolicy{{PolicyName: "own", PolicyDocument: allow("iot:Publish", arn+"topic/other/*")}},
			Questions: ask("iot:Publish", "dev-1/a", "iot:Receive", "dev-1", "iot:Publish", "other/a"),
		})
		if got, want := decisions(out), "implicit-deny implicit-deny allowed"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if out.Results[2].PolicyVersionId != nil {
			t.Error("a document that is not stored has a version")
		}

		// A thing alone, as if attached, with the policies of its groups.
		out = simulate(&flotilla.SimulatePolicyRequest{ThingName: new("dev-1"), PolicyNames: []string{"own"}, Questions: ask("iot:Publish", "dev-1/a", "iot:Receive", "dev-1")})
		if got, want := decisions(out), "allowed implicit-deny"; got != want {
			t.Errorf("%s, want %s", got, want)
		}

		// A thing group as the principal.
		out = simulate(&flotilla.SimulatePolicyRequest{Principal: new(arn + "thinggroup/g"), Questions: ask("iot:Receive", "x")})
		if d := cmp.Diff([]string{"group"}, out.Policies); d != "" {
			t.Error(d)
		}

		n.inactive = true
		out = simulate(&flotilla.SimulatePolicyRequest{Principal: new(cert), Questions: ask("iot:Receive", "dev-1")})
		if h := out.Results[0].Hint; h == nil || !strings.Contains(*h, "may not act now") {
			t.Errorf("an inactive certificate: %v", h)
		}
		n.inactive, n.claim = false, "fleet"
		out = simulate(&flotilla.SimulatePolicyRequest{Principal: new(cert), ClientId: new("x"), Questions: ask("iot:Publish", "$aws/provisioning-templates/fleet/provision/json", "iot:Publish", "dev-1/a")})
		if got, want := decisions(out), "allowed implicit-deny"; got != want {
			t.Errorf("a claim certificate: %s, want %s", got, want)
		}
	})
}

func TestSimulatePolicyRefuses(t *testing.T) {
	p, _ := open(t, storetest.Open(t))
	q := ask("iot:Publish", "a")
	for name, in := range map[string]*flotilla.SimulatePolicyRequest{
		"certificate that is not there": {Principal: new(strings.Repeat("2", 64)), Questions: q},
		"thing that is not there":       {ThingName: new("nobody"), Questions: q},
		"policy that is not there":      {PolicyNames: []string{"none"}, Questions: q},
		"document that is none":         {Policies: []*flotilla.SimulatedPolicy{{PolicyName: "x", PolicyDocument: "{}"}}, Questions: q},
		"protocol that is none":         {Protocol: new("coap"), Questions: q},
		"principal of another kind":     {Principal: new("us-east-1:11111111-2222-3333-4444-555555555555"), Questions: q},
	} {
		_, err := p.SimulatePolicy(t.Context(), in)
		if exc, ok := err.(aws.Exception); !ok || exc.StatusCode() >= 500 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTestAuthorizationCertificate(t *testing.T) {
	p, n := open(t, storetest.Open(t))
	create(t, p, "a", allow("iot:Publish", arn+"topic/${iot:Certificate.Subject.CommonName}/${iot:Certificate.SerialNumber}"))
	create(t, p, "b", allow("iot:Publish", arn+"topic/${iot:Connection.Thing.Attributes[site]}"))
	attach(t, p, "a", cert)
	attach(t, p, "b", arn+"thinggroup/g")
	n.member = []string{"g"}
	test := func(principal string) *iot.AuthResult {
		t.Helper()
		out := must[*iot.TestAuthorizationResponse](t)(p.TestAuthorization(t.Context(), &iot.TestAuthorizationRequest{
			Principal: &principal, ClientId: new("dev-1"),
			AuthInfos: []*iot.AuthInfo{{ActionType: new(iot.ActionTypePublish), Resources: []string{arn + "topic/dev-1/77"}}},
		}))
		return out.AuthResults[0]
	}
	r := test(cert)
	if *r.AuthDecision != iot.AuthDecisionAllowed || len(r.Allowed.Policies) != 1 || *r.Allowed.Policies[0].PolicyName != "a" {
		t.Errorf("%+v", r)
	}
	if d := cmp.Diff([]string{"iot:Connection.Thing.Attributes[site]"}, r.MissingContextValues); d != "" {
		t.Error(d)
	}
	r = test(arn + "thinggroup/g")
	if *r.AuthDecision != iot.AuthDecisionImplicitDeny || len(r.Denied.ImplicitDeny.Policies) != 1 {
		t.Errorf("%+v", r)
	}
	list := must[*iot.GetEffectivePoliciesResponse](t)(p.GetEffectivePolicies(t.Context(), &iot.GetEffectivePoliciesRequest{Principal: new(arn + "thinggroup/g")}))
	if len(list.EffectivePolicies) != 1 || *list.EffectivePolicies[0].PolicyName != "b" {
		t.Errorf("effective policies of a group: %+v", list.EffectivePolicies)
	}
}

// A certificate that is attached to one thing exclusively may connect by any client id; the variables are that thing's.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/exclusive-thing.html
func TestOpenExclusiveThing(t *testing.T) {
	p, n := open(t, storetest.Open(t))
	create(t, p, "own", allow("iot:Publish", arn+"topic/${iot:Connection.Thing.ThingName}"))
	attach(t, p, "own", cert)
	for _, exclusive := range []bool{false, true} {
		n.exclusive = exclusive
		n.Changed("principal", cert)
		a := must[lang.Authorizer](t)(p.Open(t.Context(), aws.Principal{Type: "certificate", ID: certID, ARN: cert}, &lang.Connection{Protocol: "mqtt", ClientID: "any"}))
		if got := a.Authorize("iot:Publish", arn+"topic/dev-1").Allowed(); got != exclusive {
			t.Errorf("exclusive %v: allowed %v", exclusive, got)
		}
	}
}

func TestLintPolicies(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		p, _ := open(t, db)
		create(t, p, "wide", allow("iot:Connect", "*"))
		create(t, p, "good", allow("iot:Publish", arn+"topic/a"))
		create(t, p, "misspelt", allow("iot:Pubish", arn+"topic/a"))
		var got []string
		var next *string
		for pages := 1; ; pages++ {
			out := must[*flotilla.LintPoliciesResponse](t)(p.LintPolicies(t.Context(), &flotilla.LintPoliciesRequest{PageSize: new(int32(1)), NextToken: next}))
			for _, f := range out.Findings {
				got = append(got, *f.PolicyName+" "+*f.PolicyVersionId+" "+*f.Severity+" "+*f.Rule)
			}
			if next = out.NextToken; next == nil {
				if pages != 3 {
					t.Errorf("%d pages", pages)
				}
				break
			}
		}
		if d := cmp.Diff([]string{"misspelt 1 medium unknown-action", "wide 1 high connect-any-client"}, got); d != "" {
			t.Error(d)
		}
		_, err := p.LintPolicies(t.Context(), &flotilla.LintPoliciesRequest{NextToken: new("?")})
		wantError[*flotilla.InvalidRequestException](t, err, "")
	})
}

// What a new document allows too much is told, never refused.
func TestAdvice(t *testing.T) {
	n := &neighbours{}
	var log strings.Builder
	p := policy.New(policy.Config{}, policy.Deps{
		Account: account, DB: storetest.Open(t), Changes: n, Principals: n, Things: n, Groups: n, Tags: n, Now: time.Now,
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	warnings := func(fn func(context.Context) error) []string {
		t.Helper()
		var w aws.Warnings
		if err := fn(aws.WithWarnings(t.Context(), &w)); err != nil {
			t.Fatal(err)
		}
		return w.List()
	}
	got := warnings(func(ctx context.Context) error {
		_, err := p.CreatePolicy(ctx, &iot.CreatePolicyRequest{PolicyName: "a", PolicyDocument: allow("iot:Connect", "*")})
		return err
	})
	if len(got) != 1 || !strings.HasPrefix(got[0], "connect-any-client (high) in statement 1: ") {
		t.Errorf("%q", got)
	}
	if !strings.Contains(log.String(), "policy=a") || !strings.Contains(log.String(), "rule=connect-any-client") {
		t.Errorf("log: %s", log.String())
	}
	got = warnings(func(ctx context.Context) error {
		_, err := p.CreatePolicyVersion(ctx, &iot.CreatePolicyVersionRequest{PolicyName: "a", PolicyDocument: allow("iot:Subscribe", arn+"topic/a")})
		return err
	})
	if len(got) != 1 || !strings.HasPrefix(got[0], "subscribe-on-topic") {
		t.Errorf("%q", got)
	}
	got = warnings(func(ctx context.Context) error {
		_, err := p.CreatePolicyVersion(ctx, &iot.CreatePolicyVersionRequest{PolicyName: "a", PolicyDocument: allow("iot:Publish", arn+"topic/a")})
		return err
	})
	if len(got) != 0 {
		t.Errorf("%q", got)
	}
}
