package policy_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

var principal = aws.Principal{Type: "certificate", ID: certID, ARN: cert}

func connection() *lang.Connection {
	return &lang.Connection{Protocol: "mqtt", ClientID: "dev-1", SourceIP: "127.0.0.1", Certificate: &lang.Certificate{ID: certID}}
}

// A decision follows every change behind it with the next call: policy version, attachment, thing, group,
// certificate.
func TestAuthorizerFollowsChanges(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		p, n := open(t, db)
		a, err := p.Open(ctx, principal, connection())
		if err != nil {
			t.Fatal(err)
		}
		check := func(when, topic string, want lang.Effect) {
			t.Helper()
			for range 2 { // the second comes from the cache
				if d := a.Authorize("iot:Publish", arn+"topic/"+topic); d.Effect != want {
					t.Errorf("%s: %s: %v, want %v", when, topic, d.Effect, want)
				}
			}
		}
		check("no policy", "a", lang.ImplicitDeny)
		create(t, p, "p", allow("iot:Publish", arn+"topic/a"))
		check("not attached", "a", lang.ImplicitDeny)
		attach(t, p, "p", cert)
		check("attached", "a", lang.Allow)
		if d := a.Authorize("iot:Publish", arn+"topic/a"); d.Policy != "p" || d.Sid != "S" {
			t.Errorf("decided by %+v", d)
		}
		must[*iot.CreatePolicyVersionResponse](t)(p.CreatePolicyVersion(ctx, &iot.CreatePolicyVersionRequest{
			PolicyName: "p", PolicyDocument: allow("iot:Publish", arn+"topic/${iot:Connection.Thing.Attributes[site]}"), SetAsDefault: new(true),
		}))
		check("new default version", "a", lang.ImplicitDeny)
		n.thing = &lang.Thing{Name: "dev-1", Attached: true, Attributes: map[string]string{"site": "b"}}
		n.Changed("thing", "dev-1")
		check("thing changed", "b", lang.Allow)
		n.thing.Attached = false
		n.Changed("principal", cert)
		check("thing detached", "b", lang.ImplicitDeny)
		n.thing.Attached = true
		n.Changed("principal", cert)
		check("thing attached", "b", lang.Allow)

		create(t, p, "deny", strings.Replace(allow("iot:Publish", "*"), "Allow", "Deny", 1))
		attach(t, p, "deny", arn+"thinggroup/root")
		check("group without the thing", "b", lang.Allow)
		n.member = []string{"g"}
		n.Changed("thing", "dev-1")
		check("thing joined the group", "b", lang.ExplicitDeny)
		must[*iot.DetachPolicyResponse](t)(p.DetachPolicy(ctx, &iot.DetachPolicyRequest{PolicyName: "deny", Target: arn + "thinggroup/root"}))
		check("detached from the group", "b", lang.Allow)

		n.inactive = true
		n.Changed("certificate", certID)
		check("revoked", "b", lang.ImplicitDeny)
		n.inactive = false
		n.Changed("certificate", "")
		check("active again", "b", lang.Allow)

		n.failing = errors.New("store is away")
		n.Changed("certificate", certID)
		check("unknown standing", "b", lang.ImplicitDeny)
		n.failing = nil
		check("known again", "b", lang.Allow)
		must[*iot.DetachPolicyResponse](t)(p.DetachPolicy(ctx, &iot.DetachPolicyRequest{PolicyName: "p", Target: cert}))
		check("detached", "b", lang.ImplicitDeny)
	})
}

// What does not concern a connection is not read again for it.
func TestAuthorizerIgnoresOthersChanges(t *testing.T) {
	p, n := open(t, storetest.Open(t))
	create(t, p, "p", allow("*", "*"))
	attach(t, p, "p", cert)
	a, err := p.Open(t.Context(), principal, connection())
	if err != nil {
		t.Fatal(err)
	}
	asked := n.asked
	for i := range 100 {
		n.Changed("thing", "other")
		n.Changed("principal", cert+"x")
		n.Changed("certificate", strings.Repeat("2", i+1))
		if !a.Authorize("iot:Publish", arn+"topic/a").Allowed() {
			t.Fatal("denied")
		}
	}
	if n.asked != asked {
		t.Errorf("read again %d times", n.asked-asked)
	}
	for i := range 20_000 { // more than are remembered one by one
		n.Changed("thing", strings.Repeat("y", i%50)+string(rune('a'+i%26))+strings.Repeat("z", i/50))
	}
	if !a.Authorize("iot:Publish", arn+"topic/a").Allowed() {
		t.Error("denied")
	}
}

// Of a principal with very many things every change counts, as they are not watched one by one.
func TestAuthorizerOfManyThings(t *testing.T) {
	p, n := open(t, storetest.Open(t))
	n.others = 1000
	create(t, p, "deny", strings.Replace(allow("iot:Publish", "*"), "Allow", "Deny", 1))
	attach(t, p, "deny", arn+"thinggroup/g")
	a, err := p.Open(t.Context(), principal, connection())
	if err != nil {
		t.Fatal(err)
	}
	n.member = []string{"g"}
	n.Changed("thing", "other999")
	if d := a.Authorize("iot:Publish", arn+"topic/a"); d.Effect != lang.ExplicitDeny {
		t.Errorf("%v after the last thing joined the group", d.Effect)
	}
}

func TestClaimIsConfined(t *testing.T) {
	p, n := open(t, storetest.Open(t))
	create(t, p, "all", allow("*", "*"))
	attach(t, p, "all", cert)
	n.claim = "fleet"
	a, err := p.Open(t.Context(), principal, connection())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		action, resource string
		want             bool
	}{
		{"iot:Connect", "client/anything", true},
		{"iot:Publish", "topic/$aws/certificates/create/json", true},
		{"iot:Publish", "topic/$aws/certificates/create-from-csr/cbor", true},
		{"iot:Subscribe", "topicfilter/$aws/certificates/create/json/accepted", true},
		{"iot:Receive", "topic/$aws/certificates/create/json/rejected", true},
		{"iot:Publish", "topic/$aws/provisioning-templates/fleet/provision/json", true},
		{"iot:Subscribe", "topicfilter/$aws/provisioning-templates/fleet/provision/json/accepted", true},
		{"iot:Publish", "topic/$aws/provisioning-templates/fleet2/provision/json", false},
		{"iot:Publish", "topic/telemetry", false},
		{"iot:Subscribe", "topicfilter/#", false},
		{"iot:Subscribe", "topicfilter/$aws/#", false},
		{"iot:UpdateThingShadow", "thing/dev-1", false},
		{"iot:RetainPublish", "topic/$aws/certificates/create/json", false},
	} {
		if got := a.Authorize(c.action, arn+c.resource).Allowed(); got != c.want {
			t.Errorf("%s %s: %v, want %v", c.action, c.resource, got, c.want)
		}
	}
}

func TestOpenNamed(t *testing.T) {
	ctx := t.Context()
	p, _ := open(t, storetest.Open(t))
	a, err := p.OpenNamed(ctx, "plain", connection())
	if err != nil {
		t.Fatal(err)
	}
	if a.Authorize("iot:Publish", arn+"topic/a").Allowed() {
		t.Error("allowed by a policy that does not exist")
	}
	create(t, p, "plain", allow("iot:Publish", arn+"topic/${iot:ClientId}"))
	if !a.Authorize("iot:Publish", arn+"topic/dev-1").Allowed() {
		t.Error("denied")
	}
	must[*iot.DeletePolicyResponse](t)(p.DeletePolicy(ctx, &iot.DeletePolicyRequest{PolicyName: "plain"}))
	if a.Authorize("iot:Publish", arn+"topic/dev-1").Allowed() {
		t.Error("allowed by a policy that is gone")
	}
}

// Time conditions are asked anew each time.
func TestTimeIsNotCached(t *testing.T) {
	p, _ := open(t, storetest.Open(t)) // its clock moves a second at each look
	create(t, p, "p", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:CurrentTime":"2026-01-01T00:01:00Z"}}}}`)
	attach(t, p, "p", cert)
	a, err := p.Open(t.Context(), principal, connection())
	if err != nil {
		t.Fatal(err)
	}
	if !a.Authorize("iot:Publish", arn+"topic/a").Allowed() {
		t.Error("denied at first")
	}
	for range 100 {
		a.Authorize("iot:Publish", arn+"topic/a")
	}
	if a.Authorize("iot:Publish", arn+"topic/a").Allowed() {
		t.Error("still allowed when the time is over")
	}
}

// Decisions and changes at once; run with -race.
func TestAuthorizerConcurrent(t *testing.T) {
	p, n := open(t, storetest.Open(t))
	create(t, p, "p", allow("iot:Publish", "*"))
	attach(t, p, "p", cert)
	a, err := p.Open(t.Context(), principal, connection())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 300 {
				if g == 0 {
					n.Changed("principal", cert)
					continue
				}
				if !a.Authorize("iot:Publish", arn+"topic/"+strings.Repeat("a", i%40)).Allowed() {
					t.Error("denied")
					return
				}
			}
		})
	}
	wg.Wait()
}

func cached(t testing.TB) func() bool {
	p, _ := open(t, storetest.Open(t))
	create(t, p, "p", allow("iot:Publish", arn+"topic/*/${iot:ClientId}/x"))
	attach(t, p, "p", cert)
	a, err := p.Open(t.Context(), principal, connection())
	if err != nil {
		t.Fatal(err)
	}
	topic := arn + "topic/site/dev-1/x"
	return func() bool { return a.Authorize("iot:Publish", topic).Allowed() }
}

func TestCachedDecisionDoesNotAllocate(t *testing.T) {
	run := cached(t)
	if n := testing.AllocsPerRun(100, func() { run() }); n > 0 {
		t.Errorf("%v allocations a decision, want 0", n)
	}
}

func BenchmarkAuthorizeCached(b *testing.B) {
	run := cached(b)
	b.ReportAllocs()
	for b.Loop() {
		if !run() {
			b.Fatal("denied")
		}
	}
}
