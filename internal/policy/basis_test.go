package policy_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"flotilla/internal/aws/iot"
	"flotilla/internal/policy"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

const ofThing = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Publish","Resource":"*","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}}]}`

// publishes tells what a connection that opens now may do: whether a topic may be published to.
func publishes(t testing.TB, p *policy.Policies, topic string) bool {
	t.Helper()
	a, err := p.Open(t.Context(), principal, connection())
	if err != nil {
		t.Fatal(err)
	}
	return a.Authorize("iot:Publish", arn+"topic/"+topic).Allowed()
}

// What was read about a principal for one connection serves the next, until any of it changes.
func TestConnectsOfAPrincipalShareWhatWasRead(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		p, n := open(t, db)
		check := func(when string, want, read bool) {
			t.Helper()
			before := n.listed
			if got := publishes(t, p, "a"); got != want {
				t.Errorf("%s: allowed %v, want %v", when, got, want)
			}
			if got := n.listed > before; got != read {
				t.Errorf("%s: read %v, want %v", when, got, read)
			}
		}
		check("without a policy", false, true)
		check("without one: is never kept", false, true)
		create(t, p, "p", allow("iot:Publish", arn+"topic/a"))
		attach(t, p, "p", cert)
		check("attached", true, true)
		check("again", true, false)
		n.Changed("thing", "other")
		n.Changed("principal", cert+"x")
		check("after changes of others", true, false)

		must[*iot.CreatePolicyVersionResponse](t)(p.CreatePolicyVersion(ctx, &iot.CreatePolicyVersionRequest{
			PolicyName: "p", PolicyDocument: allow("iot:Publish", arn+"topic/b"), SetAsDefault: new(true),
		}))
		check("new default version", false, true)
		must[*iot.SetDefaultPolicyVersionResponse](t)(p.SetDefaultPolicyVersion(ctx, &iot.SetDefaultPolicyVersionRequest{PolicyName: "p", PolicyVersionId: "1"}))
		check("old default version", true, true)

		create(t, p, "deny", strings.Replace(allow("iot:Publish", "*"), "Allow", "Deny", 1))
		attach(t, p, "deny", arn+"thinggroup/root")
		check("another's group", true, false)
		n.member = []string{"g"}
		n.Changed("thing", "dev-1")
		check("the thing joined the group", false, true)
		check("again", false, false)
		must[*iot.DetachPolicyResponse](t)(p.DetachPolicy(ctx, &iot.DetachPolicyRequest{PolicyName: "deny", Target: arn + "thinggroup/root"}))
		check("detached from the group's parent", true, true)
		attach(t, p, "deny", arn+"thinggroup/g")
		check("attached to the group", false, true)
		n.member = nil
		n.Changed("principal", arn+"thinggroup/g") // the group is gone
		check("the group is gone", true, true)

		n.inactive = true
		n.Changed("certificate", certID)
		check("revoked", false, false)
		n.inactive = false
		n.Changed("certificate", certID)
		check("active again", true, true)
		n.Changed("principal", "") // a node that lost touch knows nothing
		check("everything may have changed", true, true)
		must[*iot.DetachPolicyResponse](t)(p.DetachPolicy(ctx, &iot.DetachPolicyRequest{PolicyName: "p", Target: cert}))
		check("detached", false, true)
	})
}

// The thing of a client id is looked up only where a policy asks for it.
func TestThingIsLookedUpWhereAPolicyAsks(t *testing.T) {
	p, n := open(t, storetest.Open(t))
	create(t, p, "p", allow("iot:Publish", arn+"topic/${iot:ClientId}"))
	attach(t, p, "p", cert)
	if !publishes(t, p, "dev-1") || n.looked != 0 {
		t.Errorf("looked up %d times without need", n.looked)
	}
	create(t, p, "thing", ofThing)
	attach(t, p, "thing", cert)
	if !publishes(t, p, "x") || n.looked == 0 {
		t.Error("not looked up though a policy asks for it")
	}
	a, err := p.Open(t.Context(), principal, connection())
	if err != nil {
		t.Fatal(err)
	}
	n.thing = nil
	n.Changed("thing", "dev-1")
	if a.Authorize("iot:Publish", arn+"topic/x").Allowed() {
		t.Error("allowed though the thing is gone")
	}
	n.thing = &lang.Thing{Name: "dev-1", Attached: true}
	n.Changed("thing", "dev-1")
	if !a.Authorize("iot:Publish", arn+"topic/x").Allowed() {
		t.Error("denied though the thing is there")
	}
}

// A connection that opens after a change was answered obeys it, whatever others read at the same time.
func TestConnectObeysWhatWasAnswered(t *testing.T) {
	p, n := open(t, storetest.Open(t))
	create(t, p, "keep", allow("iot:Receive", "*")) // so that there is always a policy, and what was read is kept
	attach(t, p, "keep", cert)
	create(t, p, "p", allow("iot:Publish", "*"))
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for !stop.Load() {
				publishes(t, p, "a")
			}
		})
	}
	for i := range 50 {
		attach(t, p, "p", cert)
		if !publishes(t, p, "a") {
			t.Errorf("round %d: denied though attached", i)
		}
		must[*iot.DetachPolicyResponse](t)(p.DetachPolicy(t.Context(), &iot.DetachPolicyRequest{PolicyName: "p", Target: cert}))
		if publishes(t, p, "a") {
			t.Errorf("round %d: allowed though detached", i)
		}
	}
	stop.Store(true)
	wg.Wait()
	if n.listed == 0 {
		t.Error("nothing was read")
	}
}

// More changes than are remembered make what was not looked at for long be read again, and what was looked at
// meanwhile not.
func TestManyChangesOfOthers(t *testing.T) {
	p, n := open(t, storetest.Open(t))
	create(t, p, "p", allow("*", "*"))
	attach(t, p, "p", cert)
	publishes(t, p, "a")
	before := n.listed
	for i := range 20_000 {
		n.Changed("thing", fmt.Sprint("other-", i))
		if i%1000 == 0 && !publishes(t, p, "a") {
			t.Fatal("denied")
		}
	}
	if n.listed != before {
		t.Errorf("read again %d times", n.listed-before)
	}
	a, err := p.Open(t.Context(), principal, connection())
	if err != nil {
		t.Fatal(err)
	}
	n.Changed("principal", cert)
	for i := range 10_000 {
		n.Changed("thing", fmt.Sprint("later-", i))
	}
	n.thing, n.inactive = nil, true
	n.Changed("certificate", certID)
	for i := range 20_000 { // the change is long forgotten
		n.Changed("thing", fmt.Sprint("last-", i))
	}
	if a.Authorize("iot:Publish", arn+"topic/a").Allowed() {
		t.Error("allowed by a certificate that is not active")
	}
}

func BenchmarkOpenAgain(b *testing.B) {
	p, _ := open(b, storetest.Open(b))
	create(b, p, "p", allow("iot:Publish", arn+"topic/${iot:ClientId}/*"))
	attach(b, p, "p", cert)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Open(b.Context(), principal, connection()); err != nil {
			b.Fatal(err)
		}
	}
}
