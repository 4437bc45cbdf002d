package iam_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/iam"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// tags are those of resources, by ARN.
type tags map[string]map[string]string

func (t tags) Tags(_ context.Context, arn string) (map[string]string, error) {
	if arn == "arn:broken" {
		return nil, errors.New("out of order")
	}
	return t[arn], nil
}

// world is a node.
type world struct {
	t    testing.TB
	keys *iam.Keys
	*iam.Identities
}

func newWorld(t testing.TB, db *store.DB, b *bus, have tags) *world {
	keys := open(db, b, "")
	return &world{t, keys, iam.NewIdentities(keys, have)}
}

// identity makes an identity with managed policies and gives the principal of a key of it.
func (w *world) identity(name string, policies []string, tags map[string]string) aws.Principal {
	w.t.Helper()
	_, err := w.CreateIdentity(w.t.Context(), &flotilla.CreateIdentityRequest{IdentityName: name, Policies: policies, Tags: tags})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.principal(name)
}

func (w *world) principal(name string) aws.Principal {
	w.t.Helper()
	made, err := w.CreateAccessKey(w.t.Context(), &flotilla.CreateAccessKeyRequest{IdentityName: name})
	if err != nil {
		w.t.Fatal(err)
	}
	_, p, err := w.keys.AccessKey(w.t.Context(), *made.AccessKey.AccessKeyId)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) attach(name, policy, document string) error {
	_, err := w.AttachIdentityPolicy(w.t.Context(), &flotilla.AttachIdentityPolicyRequest{IdentityName: name, PolicyName: policy, Document: &document})
	return err
}

const arn = "arn:aws:iot:us-east-1:123456789012:"

func TestManagedPolicies(t *testing.T) {
	w := newWorld(t, storetest.Open(t), &bus{}, tags{
		arn + "thinggroup/by-tag": {"Environment": "staging"},
		arn + "thinggroup/other":  {"Environment": "prod"},
	})
	who := map[string]aws.Principal{
		"admin":               w.principal("admin"),
		"operator":            w.identity("op", []string{"operator"}, nil),
		"read-only":           w.identity("ro", []string{"read-only"}, nil),
		"device-manufacturer": w.identity("factory", []string{"device-manufacturer"}, nil),
		"ci":                  w.identity("ci-staging", []string{"ci"}, map[string]string{"prefix": "staging-", "environment": "staging"}),
		"ci without tags":     w.identity("ci-none", []string{"ci"}, nil),
		"ci with an empty":    w.identity("ci-empty", []string{"ci"}, map[string]string{"prefix": "", "environment": ""}),
		"ci with a star":      w.identity("ci-star", []string{"ci"}, map[string]string{"prefix": "*", "environment": "*"}),
		"nobody":              {Type: "user", ID: "AKIAAAAAAAAAAAAAAAAA", ARN: "arn:aws:iam::123456789012:user/nobody"},
		"another account":     {Type: "user", ID: "AKIAAAAAAAAAAAAAAAAA", ARN: "arn:aws:iam::999999999999:user/admin"},
		"a certificate":       {Type: "certificate", ID: "abc", ARN: arn + "cert/abc"},
		"no policy":           w.identity("poor", nil, nil),
	}
	user := "arn:aws:iam::123456789012:user/"
	for _, c := range []struct {
		action, resource, request string
		allowed                   string
	}{
		{"iot:CreateThing", arn + "thing/staging-1", "", "admin operator ci"},
		{"iot:CreateThing", arn + "thing/prod-1", "", "admin operator"},
		{"iot:CreateThing", arn + "thing/*", "", "admin operator ci with a star"}, // the literal name: a value never is a wildcard
		{"iot:DescribeThing", arn + "thing/prod-1", "", "admin operator read-only"},
		{"iot:ListThings", "*", "", "admin operator read-only"},
		{"iot:DescribeThingGroup", arn + "thinggroup/by-tag", "", "admin operator read-only ci"},
		{"iot:DeleteThingGroup", arn + "thinggroup/by-tag", "", "admin operator ci"},
		{"iot:DeleteThingGroup", arn + "thinggroup/other", "", "admin operator"},
		{"iot:AttachPolicy", arn + "thinggroup/staging-g", "staging-p", "admin operator ci"},
		{"iot:AttachPolicy", arn + "thinggroup/staging-g", "prod-p", "admin operator"},
		{"iot:AttachPolicy", arn + "thinggroup/prod-g", "staging-p", "admin operator"},
		{"iot:AttachPolicy", arn + "cert/abc", "staging-p", "admin operator"},
		{"iot:CreateKeysAndCertificate", "*", "", "admin operator"},
		{"iot:CreateProvisioningTemplate", arn + "provisioningtemplate/staging-t", "", "admin operator ci"},
		{"iot:CreateProvisioningClaim", arn + "provisioningtemplate/staging-t", "", "admin operator device-manufacturer"}, // who makes the template and the claim has any policy
		{"iot:UpdateThingShadow", arn + "thing/x", "", "admin operator"},
		{"iot:GetThingShadow", arn + "thing/x", "", "admin operator read-only"},
		{"iot:Publish", arn + "topic/x", "", "admin operator"},
		{"iot:Connect", arn + "client/x", "", "admin operator"},
		{"iot:RegisterCACertificate", "*", "", "admin"},
		{"iot:UpdateCACertificate", arn + "cacert/x", "", "admin"},
		{"iot:DescribeCACertificate", arn + "cacert/x", "", "admin operator read-only"},
		{"iot:CreateProvisioningClaim", arn + "provisioningtemplate/t", "", "admin operator device-manufacturer"},
		{"iot:CreateProvisioningTemplate", arn + "provisioningtemplate/t", "", "admin operator"},
		{"iot:DescribeEndpoint", "*", "", "admin operator read-only ci ci without tags ci with an empty ci with a star"},
		{"lambda:CreateFunction", "arn:aws:lambda:us-east-1:123456789012:function:f", "", "admin"},
		{"lambda:UpdateFunctionCode", "arn:aws:lambda:us-east-1:123456789012:function:f", "", "admin"},
		{"lambda:InvokeFunction", "arn:aws:lambda:us-east-1:123456789012:function:f", "", "admin operator"},
		{"flotilla:ExplainClient", "*", "", "admin operator read-only"},
		{"flotilla:ListAuditRecords", "*", "", "admin operator read-only"},
		{"flotilla:ListAccessKeys", "*", "", "admin operator read-only"},
		{"flotilla:CreateIdentity", user + "x", "", "admin"},
		{"flotilla:UpdateIdentity", user + "op", "", "admin"},
		{"flotilla:DeleteIdentity", user + "x", "", "admin"},
		{"flotilla:AttachIdentityPolicy", user + "op", "", "admin"},
		{"flotilla:DetachIdentityPolicy", user + "op", "", "admin"},
		{"flotilla:CreateAccessKey", user + "admin", "", "admin"},
		{"flotilla:UpdateAccessKey", "arn:aws:flotilla:us-east-1:123456789012:access-keys/A", "", "admin"},
		{"flotilla:RotateAccessKey", "arn:aws:flotilla:us-east-1:123456789012:access-keys/A", "", "admin"},
		{"flotilla:DeleteAccessKey", "arn:aws:flotilla:us-east-1:123456789012:access-keys/A", "", "admin"},
	} {
		conn := &lang.Connection{Lookup: func(key string) []string {
			if key == "flotilla:request/policyname" && c.request != "" {
				return []string{c.request}
			}
			return nil
		}}
		allowed := map[string]bool{}
		rest := " " + c.allowed + " "
		for _, name := range []string{"ci without tags", "ci with an empty", "ci with a star"} {
			if strings.Contains(rest, " "+name+" ") {
				allowed[name] = true
				rest = strings.Replace(rest, " "+name+" ", " ", 1)
			}
		}
		for name := range strings.FieldsSeq(rest) {
			allowed[name] = true
		}
		for name, p := range who {
			d, err := w.Authorize(t.Context(), p, c.action, c.resource, conn)
			if err != nil || d.Allowed() != allowed[name] {
				t.Errorf("%s: %s on %s %s: %s by %s, %v", name, c.action, c.resource, c.request, d.Effect, d.Policy, err)
			}
		}
	}
}

func TestOwnPolicies(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		b := &bus{}
		w, other := newWorld(t, db, b, tags{}), newWorld(t, db, b, nil)
		p := w.identity("ann", nil, map[string]string{"Team": "blue"})
		may := func(action, resource string, want bool) {
			t.Helper()
			for i, node := range []*world{w, other} {
				d, err := node.Authorize(t.Context(), p, action, resource, &lang.Connection{SourceIP: "10.0.0.1"})
				if err != nil || d.Allowed() != want {
					t.Errorf("node %d: %s on %s: %v, %v", i, action, resource, d, err)
				}
			}
		}
		may("iot:CreateThing", arn+"thing/ann-1", false)
		own := `{"Version":"2012-10-17","Statement":[
			{"Effect":"Allow","Action":"iot:*","Resource":"arn:aws:iot:*:*:thing/${aws:username}-*"},
			{"Effect":"Allow","NotAction":"iot:*","NotResource":"arn:aws:iam::*"},
			{"Effect":"Allow","Action":"iot:DeleteThing","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalTag/team":"blue"},"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}},
			{"Effect":"Deny","Action":"iot:Delete*","Resource":"arn:aws:iot:*:*:thing/keep"}]}`
		if err := w.attach("ann", "own", own); err != nil {
			t.Fatal(err)
		}
		may("iot:CreateThing", arn+"thing/ann-1", true)
		may("iot:CreateThing", arn+"thing/bob-1", false)
		may("iot:DeleteThing", arn+"thing/bob-1", true)
		may("iot:DeleteThing", arn+"thing/keep", false)
		may("flotilla:ExplainClient", "*", true)
		may("flotilla:AttachIdentityPolicy", "arn:aws:iam::123456789012:user/ann", false)
		if _, err := w.UpdateIdentity(t.Context(), &flotilla.UpdateIdentityRequest{IdentityName: "ann", Tags: map[string]string{"team": "red"}}); err != nil {
			t.Fatal(err)
		}
		may("iot:DeleteThing", arn+"thing/bob-1", false)
		if _, err := other.DetachIdentityPolicy(t.Context(), &flotilla.DetachIdentityPolicyRequest{IdentityName: "ann", PolicyName: "own"}); err != nil {
			t.Fatal(err)
		}
		may("iot:CreateThing", arn+"thing/ann-1", false)

		// The holder of a connection follows.
		conn, err := w.Open(t.Context(), p, &lang.Connection{})
		if err != nil {
			t.Fatal(err)
		}
		now := conn.(interface {
			Epoch() (uint64, bool)
			Cached(action, resource string) (lang.Decision, bool)
		})
		before, _ := now.Epoch()
		if d, ok := now.Cached("iot:Connect", arn+"client/x"); !ok || d.Allowed() {
			t.Errorf("%v, %v", d, ok)
		}
		if _, err := other.AttachIdentityPolicy(t.Context(), &flotilla.AttachIdentityPolicyRequest{IdentityName: "ann", PolicyName: "operator"}); err != nil {
			t.Fatal(err)
		}
		if after, _ := now.Epoch(); after == before {
			t.Error("the epoch does not tell of a change")
		}
		if _, ok := now.Cached("iot:Connect", arn+"client/x"); ok {
			t.Error("an old decision is kept")
		}
		if !conn.Authorize("iot:Connect", arn+"client/x").Allowed() {
			t.Error("a new policy is not followed")
		}
		if d, ok := now.Cached("iot:Connect", arn+"client/x"); !ok || !d.Allowed() {
			t.Errorf("%v, %v", d, ok)
		}
		if _, err := w.DeleteIdentity(t.Context(), &flotilla.DeleteIdentityRequest{IdentityName: "ann"}); err != nil {
			t.Fatal(err)
		}
		if conn.Authorize("iot:Connect", arn+"client/x").Allowed() {
			t.Error("who is gone may still connect")
		}
		if secret, _, err := other.keys.AccessKey(t.Context(), p.ID); secret != "" || err != nil {
			t.Errorf("the key of a deleted identity signs: %v", err)
		}
		// Who takes the name does not get what the other had.
		w.identity("ann", nil, nil)
		may("iot:CreateThing", arn+"thing/ann-1", false)
	})
}

func TestPoliciesThatAreRefused(t *testing.T) {
	w := newWorld(t, storetest.Open(t), &bus{}, nil)
	w.identity("ann", nil, nil)
	statement := func(s string) string { return `{"Version":"2012-10-17","Statement":[` + s + `]}` }
	for name, document := range map[string]string{
		"no JSON":        `{`,
		"no version":     `{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`,
		"version":        `{"Version":"2008-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`,
		"no statement":   statement(""),
		"effect":         statement(`{"Effect":"allow","Action":"*","Resource":"*"}`),
		"no action":      statement(`{"Effect":"Allow","Resource":"*"}`),
		"two actions":    statement(`{"Effect":"Allow","Action":"*","NotAction":"iot:*","Resource":"*"}`),
		"no resource":    statement(`{"Effect":"Allow","Action":"*"}`),
		"resource":       statement(`{"Effect":"Allow","Action":"*","Resource":"thing/x"}`),
		"principal":      statement(`{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}`),
		"operator":       statement(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringIs":{"a":"b"}}}`),
		"address":        statement(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"300.0.0.1"}}}`),
		"open variable":  statement(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:iot:*:*:thing/${aws:username"}`),
		"twice the same": statement(`{"Effect":"Allow","Effect":"Deny","Action":"*","Resource":"*"}`),
		"after the end":  statement(`{"Effect":"Allow","Action":"*","Resource":"*"}`) + "x",
		"too long":       statement(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:iot:*:*:` + strings.Repeat("x", 6144) + `"}`),
		"deep":           strings.Repeat("[", 100000),
	} {
		err := w.attach("ann", "p", document)
		if exc, ok := errors.AsType[aws.Exception](err); !ok || exc.StatusCode()/100 != 4 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"managed name": w.attach("ann", "operator", statement(`{"Effect":"Allow","Action":"*","Resource":"*"}`)),
		"nobody's":     w.attach("bob", "p", statement(`{"Effect":"Allow","Action":"*","Resource":"*"}`)),
		"the built-in": w.attach("admin", "p", statement(`{"Effect":"Deny","Action":"*","Resource":"*"}`)),
		"unknown": func() error {
			_, err := w.AttachIdentityPolicy(t.Context(), &flotilla.AttachIdentityPolicyRequest{IdentityName: "ann", PolicyName: "root"})
			return err
		}(),
		"made as such": func() error {
			_, err := w.CreateIdentity(t.Context(), &flotilla.CreateIdentityRequest{IdentityName: "bob", Policies: []string{"root"}})
			return err
		}(),
		"made twice": func() error {
			_, err := w.CreateIdentity(t.Context(), &flotilla.CreateIdentityRequest{IdentityName: "ann"})
			return err
		}(),
		"made as admin": func() error {
			_, err := w.CreateIdentity(t.Context(), &flotilla.CreateIdentityRequest{IdentityName: "admin"})
			return err
		}(),
		"admin deleted": func() error {
			_, err := w.DeleteIdentity(t.Context(), &flotilla.DeleteIdentityRequest{IdentityName: "admin"})
			return err
		}(),
		"tags": func() error {
			_, err := w.UpdateIdentity(t.Context(), &flotilla.UpdateIdentityRequest{IdentityName: "ann", Tags: map[string]string{"a": "1", "A": "2"}})
			return err
		}(),
	} {
		if exc, ok := errors.AsType[aws.Exception](err); !ok || exc.StatusCode()/100 != 4 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range 10 {
		if err := w.attach("ann", fmt.Sprint("p", i), statement(`{"Effect":"Allow","Action":"iot:ListThings","Resource":"*"}`)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.attach("ann", "p10", statement(`{"Effect":"Allow","Action":"*","Resource":"*"}`)); err == nil {
		t.Error("an eleventh policy")
	}
	if err := w.attach("ann", "p9", statement(`{"Effect":"Allow","Action":"*","Resource":"*"}`)); err != nil {
		t.Errorf("replacing one: %v", err)
	}
}

// Tags that can't be read allow nothing, whatever the condition.
func TestTagsThatCannotBeRead(t *testing.T) {
	w := newWorld(t, storetest.Open(t), &bus{}, tags{})
	p := w.identity("ann", nil, nil)
	if err := w.attach("ann", "p", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringNotEquals":{"aws:ResourceTag/env":"prod"}}}]}`); err != nil {
		t.Fatal(err)
	}
	if d, err := w.Authorize(t.Context(), p, "iot:CreateThing", arn+"thing/x", &lang.Connection{}); err != nil || !d.Allowed() {
		t.Errorf("%v, %v", d, err)
	}
	if d, err := w.Authorize(t.Context(), p, "iot:CreateThing", "arn:broken", &lang.Connection{}); err == nil || d.Allowed() {
		t.Errorf("%v, %v", d, err)
	}
}

func TestRotation(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, &bus{}, nil)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); w.keys.Run(ctx) }()
		defer func() { stop(); <-ended }()
		old := w.identity("ann", []string{"read-only"}, nil).ID
		signs := func(id string) bool {
			secret, _, err := w.keys.AccessKey(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			return secret != ""
		}
		rotated, err := w.RotateAccessKey(ctx, &flotilla.RotateAccessKeyRequest{AccessKeyId: old, GraceSeconds: new(int32(1))})
		if err != nil {
			t.Fatal(err)
		}
		made := *rotated.AccessKey.AccessKeyId
		if !signs(made) || made == old || *rotated.Rotated.AccessKeyId != old || rotated.Rotated.ExpirationDate == nil {
			t.Errorf("%+v", rotated)
		}
		eventually(t, func() bool {
			list, err := w.ListAccessKeys(ctx, &flotilla.ListAccessKeysRequest{IdentityName: new("ann")})
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range list.AccessKeys {
				if *k.AccessKeyId == old {
					return *k.Status == iam.Inactive && !signs(old)
				}
			}
			return false
		})
		if !signs(made) {
			t.Error("the new key does not sign")
		}
		if _, err := w.RotateAccessKey(ctx, &flotilla.RotateAccessKeyRequest{AccessKeyId: old}); err == nil {
			t.Error("an inactive key is rotated")
		}
		if _, err := w.RotateAccessKey(ctx, &flotilla.RotateAccessKeyRequest{AccessKeyId: made, GraceSeconds: new(int32(0))}); err != nil || signs(made) {
			t.Errorf("without grace: %v", err)
		}
	})
}

// eventually waits for a condition.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it did not happen")
		}
	}
}

func TestAdminIsNotLockedOut(t *testing.T) {
	w := newWorld(t, storetest.Open(t), &bus{}, nil)
	ctx := t.Context()
	first, err := w.keys.EnsureAdmin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.DeleteAccessKey(ctx, &flotilla.DeleteAccessKeyRequest{AccessKeyId: first.ID})
	if _, ok := errors.AsType[*flotilla.ConflictException](err); !ok {
		t.Errorf("the last key is deleted: %v", err)
	}
	_, err = w.UpdateAccessKey(ctx, &flotilla.UpdateAccessKeyRequest{AccessKeyId: first.ID, Status: iam.Inactive})
	if _, ok := errors.AsType[*flotilla.ConflictException](err); !ok {
		t.Errorf("the last key is disabled: %v", err)
	}
	rotated, err := w.RotateAccessKey(ctx, &flotilla.RotateAccessKeyRequest{AccessKeyId: first.ID})
	if err != nil {
		t.Fatal(err)
	}
	if now, err := w.keys.EnsureAdmin(ctx); err != nil || now.ID != *rotated.AccessKey.AccessKeyId {
		t.Errorf("the credentials file would hold %v; %v", now, err)
	}
	_, err = w.DeleteAccessKey(ctx, &flotilla.DeleteAccessKeyRequest{AccessKeyId: *rotated.AccessKey.AccessKeyId})
	if err == nil {
		t.Error("the only key that does not expire is deleted")
	}
	if _, err = w.DeleteAccessKey(ctx, &flotilla.DeleteAccessKeyRequest{AccessKeyId: first.ID}); err != nil {
		t.Error(err)
	}
}

func TestKeysAreCountedAndListed(t *testing.T) {
	w := newWorld(t, storetest.Open(t), &bus{}, nil)
	ctx := t.Context()
	w.identity("ann", nil, nil)
	w.identity("bob", nil, nil)
	for range 9 {
		w.principal("ann")
	}
	_, err := w.CreateAccessKey(ctx, &flotilla.CreateAccessKeyRequest{IdentityName: "ann"})
	if _, ok := errors.AsType[*flotilla.LimitExceededException](err); !ok {
		t.Errorf("an eleventh key: %v", err)
	}
	_, err = w.CreateAccessKey(ctx, &flotilla.CreateAccessKeyRequest{IdentityName: "eve"})
	if _, ok := errors.AsType[*flotilla.ResourceNotFoundException](err); !ok {
		t.Errorf("a key for nobody: %v", err)
	}
	seen, pages := map[string]bool{}, 0
	for token := (*string)(nil); ; pages++ {
		out, err := w.ListAccessKeys(ctx, &flotilla.ListAccessKeysRequest{NextToken: token, MaxResults: new(int32(4))})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range out.AccessKeys {
			seen[*k.AccessKeyId] = true
		}
		if token = out.NextToken; token == nil {
			break
		}
	}
	if len(seen) != 11 || pages != 2 {
		t.Errorf("%d keys in %d pages and one", len(seen), pages)
	}
	list, err := w.ListIdentities(ctx, &flotilla.ListIdentitiesRequest{})
	if err != nil || len(list.Identities) != 3 || *list.Identities[0].IdentityName != "admin" || *list.Identities[1].AccessKeys != 10 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestLastUseIsWritten(t *testing.T) {
	db := storetest.Open(t)
	keys := iam.New(iam.Config{LastUsedInterval: 20 * time.Millisecond}, iam.Deps{Account: aws.Account{ID: "123456789012"}, DB: db, Changes: &bus{}})
	w := &world{t, keys, iam.NewIdentities(keys, nil)}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); keys.Run(ctx) }()
	defer func() { stop(); <-ended }()
	p, unused := w.identity("ann", nil, nil), w.identity("bob", nil, nil)
	for range 100 {
		if _, err := w.Authorize(ctx, p, "iot:ListThings", "*", &lang.Connection{}); err != nil {
			t.Fatal(err)
		}
	}
	used := func(name string) bool {
		list, err := w.ListAccessKeys(ctx, &flotilla.ListAccessKeysRequest{IdentityName: &name})
		if err != nil {
			t.Fatal(err)
		}
		return list.AccessKeys[0].LastUsedDate != nil
	}
	eventually(t, func() bool { return used("ann") })
	if used("bob") {
		t.Errorf("%s was not used", unused.ID)
	}
}

func BenchmarkAuthorize(b *testing.B) {
	w := newWorld(b, storetest.Open(b), &bus{}, tags{})
	p := w.identity("ci", []string{"ci"}, map[string]string{"prefix": "staging-"})
	conn := &lang.Connection{}
	for b.Loop() {
		if d, err := w.Authorize(b.Context(), p, "iot:CreateThing", arn+"thing/staging-1", conn); err != nil || !d.Allowed() {
			b.Fatal(d, err)
		}
	}
}
