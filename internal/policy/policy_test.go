package policy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/policy"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

var account = aws.Account{ID: "123456789012", Region: "us-east-1"}

const (
	arn    = "arn:aws:iot:us-east-1:123456789012:"
	certID = "1111111111111111111111111111111111111111111111111111111111111111"
	cert   = arn + "cert/" + certID
)

// neighbours stands for identity, the registry and the bus: what the room is told by them.
type neighbours struct {
	mu        sync.Mutex
	listeners map[string][]func(string)
	inactive  bool
	claim     string
	thing     *lang.Thing
	groups    map[string][]string // group name -> its parents' names
	member    []string            // groups of the thing
	exclusive bool                // thing has the certificate to itself
	others    int                 // of the things attached to the principal, besides thing
	tags      map[string][]*iot.Tag
	failing   error
	asked     int
	listed    int // how often the things of a principal were asked for
	looked    int // how often for the thing of a client id
}

func (n *neighbours) Changed(kind, key string) {
	n.mu.Lock()
	fns := n.listeners[kind]
	n.mu.Unlock()
	for _, fn := range fns {
		fn(key)
	}
}

func (n *neighbours) OnChange(kind string, fn func(string)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners == nil {
		n.listeners = map[string][]func(string){}
	}
	n.listeners[kind] = append(n.listeners[kind], fn)
}

func (n *neighbours) Standing(_ context.Context, id string) (bool, string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	return id == certID && !n.inactive, n.claim, n.failing
}

func (n *neighbours) DescribeCertificate(_ context.Context, in *iot.DescribeCertificateRequest) (*iot.DescribeCertificateResponse, error) {
	if !strings.HasPrefix(in.CertificateId, "1111") {
		return nil, &iot.ResourceNotFoundException{Message: "no such certificate"}
	}
	return &iot.DescribeCertificateResponse{}, nil
}

func (n *neighbours) PolicyThing(_ context.Context, name, _ string) (*lang.Thing, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looked++
	if n.thing == nil || n.thing.Name != name {
		return nil, nil
	}
	return new(*n.thing), nil
}

func (n *neighbours) ThingGroupsOfPrincipal(context.Context, string) (arns []string, err error) {
	for _, g := range n.member {
		arns = append(arns, arn+"thinggroup/"+g)
		for _, p := range n.groups[g] {
			arns = append(arns, arn+"thinggroup/"+p)
		}
	}
	return arns, nil
}

func (n *neighbours) ListPrincipalThings(_ context.Context, in *iot.ListPrincipalThingsRequest) (*iot.ListPrincipalThingsResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listed++
	out := &iot.ListPrincipalThingsResponse{}
	if n.thing != nil && n.thing.Attached {
		out.Things = []string{n.thing.Name}
	}
	for i := range n.others {
		out.Things = append(out.Things, fmt.Sprint("other", i))
	}
	if size := int(*in.MaxResults); len(out.Things) > size {
		out.Things, out.NextToken = out.Things[:size], new("more")
	}
	return out, nil
}

func (n *neighbours) ListPrincipalThingsV2(_ context.Context, in *iot.ListPrincipalThingsV2Request) (*iot.ListPrincipalThingsV2Response, error) {
	out := &iot.ListPrincipalThingsV2Response{}
	if n.exclusive && n.thing != nil && in.Principal == cert && *in.ThingPrincipalType == iot.ThingPrincipalTypeExclusiveThing {
		out.PrincipalThingObjects = []*iot.PrincipalThingObject{{ThingName: n.thing.Name}}
	}
	return out, nil
}

func (n *neighbours) PolicyCertificate(_ context.Context, id string) (*lang.Certificate, error) {
	return &lang.Certificate{ID: id, SerialNumber: "77", Subject: map[string][]string{"CommonName": {"dev-1"}}}, nil
}

func (n *neighbours) TagResource(_ context.Context, in *iot.TagResourceRequest) (*iot.TagResourceResponse, error) {
	if n.tags == nil {
		n.tags = map[string][]*iot.Tag{}
	}
	n.tags[in.ResourceArn] = in.Tags
	return &iot.TagResourceResponse{}, nil
}

func (n *neighbours) DeleteTags(_ context.Context, resource string) error {
	delete(n.tags, resource)
	return nil
}

func (n *neighbours) DescribeThingGroup(_ context.Context, in *iot.DescribeThingGroupRequest) (*iot.DescribeThingGroupResponse, error) {
	parents, ok := n.groups[in.ThingGroupName]
	if !ok {
		return nil, &iot.ResourceNotFoundException{Message: "no such group"}
	}
	out := &iot.DescribeThingGroupResponse{ThingGroupMetadata: &iot.ThingGroupMetadata{}}
	for _, p := range parents {
		out.ThingGroupMetadata.RootToParentThingGroups = append(out.ThingGroupMetadata.RootToParentThingGroups,
			&iot.GroupNameAndArn{GroupName: &p, GroupArn: new(arn + "thinggroup/" + p)})
	}
	return out, nil
}

func (n *neighbours) ListThingGroupsForThing(context.Context, *iot.ListThingGroupsForThingRequest) (*iot.ListThingGroupsForThingResponse, error) {
	out := &iot.ListThingGroupsForThingResponse{}
	for _, g := range n.member {
		out.ThingGroups = append(out.ThingGroups, &iot.GroupNameAndArn{GroupName: &g, GroupArn: new(arn + "thinggroup/" + g)})
	}
	return out, nil
}

func open(t testing.TB, db *store.DB) (*policy.Policies, *neighbours) {
	t.Helper()
	n := &neighbours{
		thing:  &lang.Thing{Name: "dev-1", Attached: true},
		groups: map[string][]string{"g": {"root"}, "root": nil},
	}
	clock := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return policy.New(policy.Config{}, policy.Deps{
		Account: account, DB: db, Changes: n, Principals: n, Things: n, Groups: n, Tags: n,
		Now: func() time.Time { clock = clock.Add(time.Second); return clock },
	}), n
}

func allow(action, resource string) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Sid":"S","Effect":"Allow","Action":%q,"Resource":%q}]}`, action, resource)
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func create(t testing.TB, p *policy.Policies, name, document string) {
	t.Helper()
	must[*iot.CreatePolicyResponse](t)(p.CreatePolicy(t.Context(), &iot.CreatePolicyRequest{PolicyName: name, PolicyDocument: document}))
}

func attach(t testing.TB, p *policy.Policies, name, target string) {
	t.Helper()
	must[*iot.AttachPolicyResponse](t)(p.AttachPolicy(t.Context(), &iot.AttachPolicyRequest{PolicyName: name, Target: target}))
}

// wantError checks type and message of an exception.
func wantError[E error](t *testing.T, err error, message string) {
	t.Helper()
	var e E
	if !errors.As(err, &e) {
		t.Fatalf("got %T %v, want %T", err, err, e)
	}
	if message != "" && e.Error() != message && !strings.Contains(e.Error(), message) {
		t.Errorf("message %q, want %q", e.Error(), message)
	}
}

func TestPolicyLife(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		p, _ := open(t, db)
		doc := allow("iot:*", "*")
		created := must[*iot.CreatePolicyResponse](t)(p.CreatePolicy(ctx, &iot.CreatePolicyRequest{PolicyName: "p", PolicyDocument: doc}))
		want := &iot.CreatePolicyResponse{PolicyName: new("p"), PolicyArn: new(arn + "policy/p"), PolicyDocument: &doc, PolicyVersionId: new("1")}
		if d := cmp.Diff(want, created); d != "" {
			t.Error(d)
		}
		_, err := p.CreatePolicy(ctx, &iot.CreatePolicyRequest{PolicyName: "p", PolicyDocument: doc})
		wantError[*iot.ResourceAlreadyExistsException](t, err, "Policy cannot be created - name already exists (name=p)")
		_, err = p.CreatePolicy(ctx, &iot.CreatePolicyRequest{PolicyName: "q", PolicyDocument: "{"})
		wantError[*iot.MalformedPolicyException](t, err, "Policy document is Malformed: Invalid policy syntax.")

		got := must[*iot.GetPolicyResponse](t)(p.GetPolicy(ctx, &iot.GetPolicyRequest{PolicyName: "p"}))
		if *got.PolicyDocument != doc || *got.DefaultVersionId != "1" || got.CreationDate == nil || *got.GenerationId == "" {
			t.Errorf("GetPolicy: %+v", got)
		}
		_, err = p.GetPolicy(ctx, &iot.GetPolicyRequest{PolicyName: "P"})
		wantError[*iot.ResourceNotFoundException](t, err, "")

		// Five versions, numbers are not used again.
		for i := 2; i <= 5; i++ {
			v := must[*iot.CreatePolicyVersionResponse](t)(p.CreatePolicyVersion(ctx, &iot.CreatePolicyVersionRequest{PolicyName: "p", PolicyDocument: doc, SetAsDefault: new(i == 3)}))
			if *v.PolicyVersionId != fmt.Sprint(i) || *v.IsDefaultVersion != (i == 3) {
				t.Errorf("version %d: %+v", i, v)
			}
		}
		_, err = p.CreatePolicyVersion(ctx, &iot.CreatePolicyVersionRequest{PolicyName: "p", PolicyDocument: doc})
		wantError[*iot.VersionsLimitExceededException](t, err, "The policy p already has the maximum number of versions (5)")
		_, err = p.DeletePolicyVersion(ctx, &iot.DeletePolicyVersionRequest{PolicyName: "p", PolicyVersionId: "3"})
		wantError[*iot.DeleteConflictException](t, err, "Cannot delete the default version of a policy")
		must[*iot.DeletePolicyVersionResponse](t)(p.DeletePolicyVersion(ctx, &iot.DeletePolicyVersionRequest{PolicyName: "p", PolicyVersionId: "5"}))
		_, err = p.DeletePolicyVersion(ctx, &iot.DeletePolicyVersionRequest{PolicyName: "p", PolicyVersionId: "5"})
		wantError[*iot.ResourceNotFoundException](t, err, "")
		v := must[*iot.CreatePolicyVersionResponse](t)(p.CreatePolicyVersion(ctx, &iot.CreatePolicyVersionRequest{PolicyName: "p", PolicyDocument: doc}))
		if *v.PolicyVersionId != "6" {
			t.Errorf("version id %s, want 6", *v.PolicyVersionId)
		}
		must[*iot.SetDefaultPolicyVersionResponse](t)(p.SetDefaultPolicyVersion(ctx, &iot.SetDefaultPolicyVersionRequest{PolicyName: "p", PolicyVersionId: "6"}))
		versions := must[*iot.ListPolicyVersionsResponse](t)(p.ListPolicyVersions(ctx, &iot.ListPolicyVersionsRequest{PolicyName: "p"}))
		var ids []string
		for _, v := range versions.PolicyVersions {
			id := *v.VersionId
			if *v.IsDefaultVersion {
				id += "*"
			}
			ids = append(ids, id)
		}
		if d := cmp.Diff([]string{"6*", "4", "3", "2", "1"}, ids); d != "" {
			t.Error(d)
		}
		one := must[*iot.GetPolicyVersionResponse](t)(p.GetPolicyVersion(ctx, &iot.GetPolicyVersionRequest{PolicyName: "p", PolicyVersionId: "4"}))
		if *one.IsDefaultVersion || *one.PolicyDocument != doc {
			t.Errorf("GetPolicyVersion: %+v", one)
		}

		_, err = p.DeletePolicy(ctx, &iot.DeletePolicyRequest{PolicyName: "p"})
		wantError[*iot.DeleteConflictException](t, err, "one or more policy versions")
		for _, id := range []string{"1", "2", "3", "4"} {
			must[*iot.DeletePolicyVersionResponse](t)(p.DeletePolicyVersion(ctx, &iot.DeletePolicyVersionRequest{PolicyName: "p", PolicyVersionId: id}))
		}
		attach(t, p, "p", cert)
		_, err = p.DeletePolicy(ctx, &iot.DeletePolicyRequest{PolicyName: "p"})
		wantError[*iot.DeleteConflictException](t, err, "attached to one or more principals (name=p)")
		must[*iot.DetachPolicyResponse](t)(p.DetachPolicy(ctx, &iot.DetachPolicyRequest{PolicyName: "p", Target: cert}))
		must[*iot.DeletePolicyResponse](t)(p.DeletePolicy(ctx, &iot.DeletePolicyRequest{PolicyName: "p"}))
		_, err = p.DeletePolicy(ctx, &iot.DeletePolicyRequest{PolicyName: "p"})
		wantError[*iot.ResourceNotFoundException](t, err, "")
	})
}

func TestPolicyTags(t *testing.T) {
	p, n := open(t, storetest.Open(t))
	in := &iot.CreatePolicyRequest{PolicyName: "p", PolicyDocument: allow("*", "*"), Tags: []*iot.Tag{{Key: "k", Value: new("v")}}}
	must[*iot.CreatePolicyResponse](t)(p.CreatePolicy(t.Context(), in))
	if len(n.tags[arn+"policy/p"]) != 1 {
		t.Errorf("tags %v", n.tags)
	}
	must[*iot.DeletePolicyResponse](t)(p.DeletePolicy(t.Context(), &iot.DeletePolicyRequest{PolicyName: "p"}))
	if len(n.tags) != 0 {
		t.Errorf("tags %v", n.tags)
	}
	p = policy.New(policy.Config{}, policy.Deps{Account: account, DB: storetest.Open(t), Changes: n, Principals: n, Things: n, Groups: n})
	_, err := p.CreatePolicy(t.Context(), in)
	wantError[*iot.InvalidRequestException](t, err, "tags")
}

// What a race between nodes left behind is not attached to a new policy.
func TestNewPolicyHasNoAttachments(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		p, _ := open(t, db)
		err := db.Write(t.Context(), func(_ context.Context, tx store.Tx) error {
			_, err := tx.Exec(`INSERT INTO policy_attachment (target, policy, created) VALUES ($1, $2, 1)`, cert, "p")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		create(t, p, "p", allow("*", "*"))
		out := must[*iot.ListAttachedPoliciesResponse](t)(p.ListAttachedPolicies(t.Context(), &iot.ListAttachedPoliciesRequest{Target: cert}))
		if len(out.Policies) > 0 {
			t.Errorf("attached: %v", *out.Policies[0].PolicyName)
		}
	})
}

func TestListPoliciesPages(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		p, _ := open(t, db)
		for _, n := range []string{"c", "a", "b"} {
			create(t, p, n, allow("*", "*"))
		}
		list := func(ascending bool) (names []string) {
			in := &iot.ListPoliciesRequest{PageSize: new(int32(2)), AscendingOrder: &ascending}
			for {
				out := must[*iot.ListPoliciesResponse](t)(p.ListPolicies(t.Context(), in))
				for _, x := range out.Policies {
					names = append(names, *x.PolicyName)
				}
				if in.Marker = out.NextMarker; in.Marker == nil {
					return names
				}
				names = append(names, "|")
			}
		}
		if d := cmp.Diff([]string{"c", "a", "|", "b"}, list(true)); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]string{"b", "a", "|", "c"}, list(false)); d != "" {
			t.Error(d)
		}
		_, err := p.ListPolicies(t.Context(), &iot.ListPoliciesRequest{Marker: new("Zm9v")})
		wantError[*iot.InvalidRequestException](t, err, "")
	})
}

func TestAttachments(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		p, n := open(t, db)
		group, root := arn+"thinggroup/g", arn+"thinggroup/root"
		for _, name := range []string{"a", "b", "c"} {
			create(t, p, name, allow("*", "*"))
		}
		_, err := p.AttachPolicy(ctx, &iot.AttachPolicyRequest{PolicyName: "x", Target: cert})
		wantError[*iot.ResourceNotFoundException](t, err, "")
		_, err = p.AttachPolicy(ctx, &iot.AttachPolicyRequest{PolicyName: "a", Target: arn + "cert/22"})
		wantError[*iot.ResourceNotFoundException](t, err, "")
		_, err = p.AttachPolicy(ctx, &iot.AttachPolicyRequest{PolicyName: "a", Target: arn + "thinggroup/none"})
		wantError[*iot.ResourceNotFoundException](t, err, "")
		for _, target := range []string{"us-east-1:cognito", strings.Replace(cert, "cert/", "cert/0x", 1), arn + "cert/AB", "arn:aws:iot:us-east-1:999999999999:cert/" + certID} {
			_, err = p.AttachPolicy(ctx, &iot.AttachPolicyRequest{PolicyName: "a", Target: target})
			wantError[*iot.InvalidRequestException](t, err, "Invalid target")
		}
		_, err = p.AttachPrincipalPolicy(ctx, &iot.AttachPrincipalPolicyRequest{PolicyName: "a", Principal: group})
		wantError[*iot.InvalidRequestException](t, err, "")

		attach(t, p, "a", cert)
		attach(t, p, "a", cert) // again: nothing
		must[*iot.AttachPrincipalPolicyResponse](t)(p.AttachPrincipalPolicy(ctx, &iot.AttachPrincipalPolicyRequest{PolicyName: "b", Principal: cert}))
		attach(t, p, "b", group)
		attach(t, p, "c", root)

		names := func(list []*iot.Policy, err error) (out []string) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range list {
				out = append(out, *x.PolicyName)
			}
			return out
		}
		attached := func(target string, recursive bool) []string {
			t.Helper()
			out, err := p.ListAttachedPolicies(ctx, &iot.ListAttachedPoliciesRequest{Target: target, Recursive: &recursive})
			if err != nil {
				t.Fatal(err)
			}
			return names(out.Policies, nil)
		}
		for _, c := range []struct {
			target    string
			recursive bool
			want      []string
		}{{cert, false, []string{"a", "b"}}, {group, false, []string{"b"}}, {group, true, []string{"b", "c"}}} {
			if d := cmp.Diff(c.want, attached(c.target, c.recursive)); d != "" {
				t.Errorf("%s: %s", c.target, d)
			}
		}
		targets := must[*iot.ListTargetsForPolicyResponse](t)(p.ListTargetsForPolicy(ctx, &iot.ListTargetsForPolicyRequest{PolicyName: "b"}))
		if d := cmp.Diff([]string{cert, group}, targets.Targets); d != "" {
			t.Error(d)
		}
		principals := must[*iot.ListPolicyPrincipalsResponse](t)(p.ListPolicyPrincipals(ctx, &iot.ListPolicyPrincipalsRequest{PolicyName: "b"}))
		if d := cmp.Diff([]string{cert}, principals.Principals); d != "" {
			t.Error(d)
		}
		page := must[*iot.ListPrincipalPoliciesResponse](t)(p.ListPrincipalPolicies(ctx, &iot.ListPrincipalPoliciesRequest{Principal: cert, PageSize: new(int32(1))}))
		if d := cmp.Diff([]string{"a"}, names(page.Policies, nil)); d != "" || page.NextMarker == nil {
			t.Error(d, page.NextMarker)
		}
		page = must[*iot.ListPrincipalPoliciesResponse](t)(p.ListPrincipalPolicies(ctx, &iot.ListPrincipalPoliciesRequest{Principal: cert, Marker: page.NextMarker}))
		if d := cmp.Diff([]string{"b"}, names(page.Policies, nil)); d != "" || page.NextMarker != nil {
			t.Error(d, page.NextMarker)
		}

		// A thing group takes two policies.
		attach(t, p, "a", group)
		_, err = p.AttachPolicy(ctx, &iot.AttachPolicyRequest{PolicyName: "c", Target: group})
		wantError[*iot.LimitExceededException](t, err, "")

		n.member = []string{"g"}
		effective := must[*iot.GetEffectivePoliciesResponse](t)(p.GetEffectivePolicies(ctx, &iot.GetEffectivePoliciesRequest{Principal: new(cert), ThingName: new("dev-1")}))
		var got []string
		for _, e := range effective.EffectivePolicies {
			got = append(got, *e.PolicyName)
		}
		if d := cmp.Diff([]string{"a", "b", "c"}, got); d != "" {
			t.Error(d)
		}

		must[*iot.DetachPrincipalPolicyResponse](t)(p.DetachPrincipalPolicy(ctx, &iot.DetachPrincipalPolicyRequest{PolicyName: "b", Principal: cert}))
		if d := cmp.Diff([]string{"a"}, attached(cert, false)); d != "" {
			t.Error(d)
		}
		if err := p.DetachAll(ctx, group); err != nil {
			t.Fatal(err)
		}
		if got := attached(group, false); len(got) > 0 {
			t.Errorf("after DetachAll: %v", got)
		}
	})
}

func TestTestAuthorization(t *testing.T) {
	p, _ := open(t, storetest.Open(t))
	create(t, p, "a", allow("iot:Publish", arn+"topic/${iot:Connection.Thing.ThingName}"))
	create(t, p, "b", strings.Replace(allow("iot:Publish", arn+"topic/x"), "Allow", "Deny", 1))
	attach(t, p, "a", cert)
	out := must[*iot.TestAuthorizationResponse](t)(p.TestAuthorization(t.Context(), &iot.TestAuthorizationRequest{
		Principal: new(cert), ClientId: new("dev-1"), PolicyNamesToAdd: []string{"b"},
		AuthInfos: []*iot.AuthInfo{
			{ActionType: new(iot.ActionTypePublish), Resources: []string{arn + "topic/dev-1"}},
			{ActionType: new(iot.ActionTypePublish), Resources: []string{arn + "topic/dev-1", arn + "topic/y"}},
			{ActionType: new(iot.ActionTypePublish), Resources: []string{arn + "topic/x"}},
		},
	}))
	var got []string
	for _, r := range out.AuthResults {
		got = append(got, *r.AuthDecision)
	}
	if d := cmp.Diff([]string{"ALLOWED", "IMPLICIT_DENY", "EXPLICIT_DENY"}, got); d != "" {
		t.Error(d)
	}
	if l := out.AuthResults[2].Denied.ExplicitDeny.Policies; len(l) != 1 || *l[0].PolicyName != "b" {
		t.Errorf("explicit deny by %v", l)
	}
}
