package iam

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"flotilla/internal/aws"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
)

const (
	maxPolicies           = 10   // of an identity
	maxDocumentCharacters = 6144 // as of IAM's managed policies, white space not counted
	maxTags               = 50
	maxKeys               = 10 // of an identity
	defaultPage           = 100
)

// CreateIdentity makes an identity, with managed policies and tags. Tags are what its policies may name as
// aws:PrincipalTag/KEY.
func (i *Identities) CreateIdentity(ctx context.Context, in *flotilla.CreateIdentityRequest) (*flotilla.CreateIdentityResponse, error) {
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	for _, name := range in.Policies {
		if i.managed.documents[name] == nil {
			return nil, noManaged(name)
		}
	}
	row := &identityRow{name: in.IdentityName, tags: in.Tags, created: i.keys.now()}
	err := i.write(ctx, in.IdentityName, func(ctx context.Context, tx store.Tx) error {
		_, err := selectIdentity(tx, in.IdentityName)
		switch {
		case err == nil:
			return conflict("There is an identity %s already.", in.IdentityName)
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		if err := putIdentity(tx, row); err != nil {
			return err
		}
		for _, name := range in.Policies {
			if err := putPolicy(tx, in.IdentityName, attached{name: name}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	one, err := i.describe(ctx, in.IdentityName)
	return &flotilla.CreateIdentityResponse{Identity: one}, err
}

// DescribeIdentity gives an identity with its policies.
func (i *Identities) DescribeIdentity(ctx context.Context, in *flotilla.DescribeIdentityRequest) (*flotilla.DescribeIdentityResponse, error) {
	one, err := i.describe(ctx, in.IdentityName)
	return &flotilla.DescribeIdentityResponse{Identity: one}, err
}

// ListIdentities lists identities by name, the built-in one first.
func (i *Identities) ListIdentities(ctx context.Context, in *flotilla.ListIdentitiesRequest) (*flotilla.ListIdentitiesResponse, error) {
	most, after := page(in.MaxResults, in.NextToken)
	out := &flotilla.ListIdentitiesResponse{Identities: []*flotilla.Identity{}}
	err := i.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		rows, err := selectIdentities(tx, after, most+1)
		if err != nil {
			return err
		}
		if len(rows) > most {
			rows, out.NextToken = rows[:most], &rows[most-1].name
		}
		if after == "" {
			rows = slices.Insert(rows, 0, builtIn())
		}
		for _, r := range rows {
			one, err := i.shape(tx, r)
			if err != nil {
				return err
			}
			out.Identities = append(out.Identities, one)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// UpdateIdentity replaces the tags of an identity.
func (i *Identities) UpdateIdentity(ctx context.Context, in *flotilla.UpdateIdentityRequest) (*flotilla.UpdateIdentityResponse, error) {
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	err := i.change(ctx, in.IdentityName, func(_ context.Context, tx store.Tx, r *identityRow) error {
		r.tags = in.Tags
		return putIdentity(tx, r)
	})
	if err != nil {
		return nil, err
	}
	one, err := i.describe(ctx, in.IdentityName)
	return &flotilla.UpdateIdentityResponse{Identity: one}, err
}

// DeleteIdentity deletes an identity and its keys.
func (i *Identities) DeleteIdentity(ctx context.Context, in *flotilla.DeleteIdentityRequest) (*flotilla.DeleteIdentityResponse, error) {
	err := i.change(ctx, in.IdentityName, func(ctx context.Context, tx store.Tx, _ *identityRow) error {
		keys, err := deleteIdentity(tx, in.IdentityName)
		for _, id := range keys {
			i.keys.changed(ctx, id)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &flotilla.DeleteIdentityResponse{}, nil
}

// AttachIdentityPolicy gives an identity a managed policy or, with a document, one of its own, in the place of one
// with the same name.
func (i *Identities) AttachIdentityPolicy(ctx context.Context, in *flotilla.AttachIdentityPolicyRequest) (*flotilla.AttachIdentityPolicyResponse, error) {
	a := attached{name: in.PolicyName}
	managed := i.managed.documents[in.PolicyName] != nil
	switch {
	case in.Document != nil && managed:
		return nil, conflict("%s is the name of a managed policy.", in.PolicyName)
	case in.Document != nil:
		if err := checkDocument(*in.Document); err != nil {
			return nil, err
		}
		a.document = *in.Document
	case !managed:
		return nil, noManaged(in.PolicyName)
	}
	err := i.change(ctx, in.IdentityName, func(_ context.Context, tx store.Tx, _ *identityRow) error {
		have, err := selectPolicies(tx, in.IdentityName)
		if err != nil {
			return err
		}
		if len(have) >= maxPolicies && !slices.ContainsFunc(have, func(h attached) bool { return h.name == a.name }) {
			return limitExceeded("An identity has at most %d policies.", maxPolicies)
		}
		return putPolicy(tx, in.IdentityName, a)
	})
	if err != nil {
		return nil, err
	}
	return &flotilla.AttachIdentityPolicyResponse{}, nil
}

// DetachIdentityPolicy takes a policy from an identity.
func (i *Identities) DetachIdentityPolicy(ctx context.Context, in *flotilla.DetachIdentityPolicyRequest) (*flotilla.DetachIdentityPolicyResponse, error) {
	err := i.change(ctx, in.IdentityName, func(_ context.Context, tx store.Tx, _ *identityRow) error {
		n, err := deletePolicy(tx, in.IdentityName, in.PolicyName)
		if err == nil && n == 0 {
			return notFound("The identity %s has no policy %s.", in.IdentityName, in.PolicyName)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &flotilla.DetachIdentityPolicyResponse{}, nil
}

// ListManagedPolicies lists the policies that every installation has.
func (i *Identities) ListManagedPolicies(context.Context, *flotilla.ListManagedPoliciesRequest) (*flotilla.ListManagedPoliciesResponse, error) {
	out := &flotilla.ListManagedPoliciesResponse{}
	for _, name := range i.managed.names {
		out.Policies = append(out.Policies, &flotilla.IdentityPolicy{PolicyName: new(name), Managed: new(true), Document: new(i.managed.texts[name])})
	}
	return out, nil
}

func (i *Identities) describe(ctx context.Context, name string) (one *flotilla.Identity, err error) {
	err = i.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		r, err := find(tx, name)
		if err != nil {
			return err
		}
		one, err = i.shape(tx, r)
		return err
	})
	return one, err
}

// find gives an identity, the built-in one too.
func find(tx store.Tx, name string) (*identityRow, error) {
	if name == Admin {
		return builtIn(), nil
	}
	r, err := selectIdentity(tx, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, notFound("There is no identity %s.", name)
	}
	return r, err
}

func builtIn() *identityRow { return &identityRow{name: Admin} }

// policiesOf lists the policies of an identity.
func policiesOf(tx store.Tx, name string) ([]attached, error) {
	if name == Admin {
		return []attached{{name: Admin}}, nil
	}
	return selectPolicies(tx, name)
}

func (i *Identities) shape(tx store.Tx, r *identityRow) (*flotilla.Identity, error) {
	keys, err := countKeys(tx, r.name)
	if err != nil {
		return nil, err
	}
	out := &flotilla.Identity{
		IdentityName: new(r.name), IdentityArn: new(i.keys.userARN(r.name)), Tags: r.tags, AccessKeys: new(int32(keys)), CreationDate: timestamp(r.created),
	}
	policies, err := policiesOf(tx, r.name)
	for _, a := range policies {
		p := &flotilla.IdentityPolicy{PolicyName: new(a.name), Managed: new(a.document == "")}
		if a.document != "" {
			p.Document = new(a.document)
		}
		out.Policies = append(out.Policies, p)
	}
	return out, err
}

// change changes an identity that is there and not built in.
func (i *Identities) change(ctx context.Context, name string, fn func(context.Context, store.Tx, *identityRow) error) error {
	return i.write(ctx, name, func(ctx context.Context, tx store.Tx) error {
		r, err := find(tx, name)
		if err != nil {
			return err
		}
		return fn(ctx, tx, r)
	})
}

// write refuses changes of the built-in identity, and tells all nodes of others.
func (i *Identities) write(ctx context.Context, name string, fn store.Func) error {
	if name == Admin {
		return conflict("The identity %s is built in: it can be neither made, changed nor deleted.", Admin)
	}
	return i.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		i.db.AfterCommit(ctx, func() { i.bus.Changed(kindIdentity, name) })
		return fn(ctx, tx)
	})
}

// checkDocument holds a policy document against the grammar of IAM.
//
// AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
func checkDocument(text string) error {
	n := 0
	for _, r := range text {
		if !unicode.IsSpace(r) {
			n++
		}
	}
	if n > maxDocumentCharacters {
		return limitExceeded("The policy document has %d characters; at most %d are allowed.", n, maxDocumentCharacters)
	}
	d, err := lang.Parse(text)
	if err != nil {
		return invalid("%s", err.Error())
	}
	if len(d.Statements) == 0 {
		return invalid("The policy document has no statements.")
	}
	for _, s := range d.Statements {
		for _, r := range s.Resources {
			if r != "*" && (!strings.HasPrefix(r, "arn:") || strings.Count(r, ":") < 5 && !strings.HasSuffix(r, "*")) {
				return invalid("The resource %q is neither * nor an ARN.", r)
			}
		}
	}
	return nil
}

func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return limitExceeded("An identity has at most %d tags.", maxTags)
	}
	lower := map[string]bool{}
	for k, v := range tags {
		switch {
		case k == "" || len(k) > 128 || len(v) > 256:
			return invalid("A tag's key must have 1 to 128 bytes, its value at most 256.")
		case lower[strings.ToLower(k)]: // policies don't tell them apart
			return invalid("Tag keys are equal but for case: %s.", k)
		}
		lower[strings.ToLower(k)] = true
	}
	return nil
}

func page(most *int32, token *string) (int, string) {
	n, after := defaultPage, ""
	if most != nil {
		n = int(*most)
	}
	if token != nil {
		after = *token
	}
	return n, after
}

func timestamp(t time.Time) *aws.Time {
	if t.IsZero() {
		return nil
	}
	return &aws.Time{Time: t}
}

func invalid(format string, args ...any) error {
	return &flotilla.InvalidRequestException{Message: fmt.Sprintf(format, args...)}
}

func conflict(format string, args ...any) error {
	return &flotilla.ConflictException{Message: fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &flotilla.ResourceNotFoundException{Message: fmt.Sprintf(format, args...)}
}

func limitExceeded(format string, args ...any) error {
	return &flotilla.LimitExceededException{Message: fmt.Sprintf(format, args...)}
}

func noManaged(name string) error { return notFound("There is no managed policy %s.", name) }
