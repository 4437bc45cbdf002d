package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
)

// Kinds of changes on the bus.
const (
	kindPolicy      = "policy"      // key: policy name
	kindPrincipal   = "principal"   // key: ARN of a target whose attachments changed
	kindThing       = "thing"       // key: thing name
	kindCertificate = "certificate" // key: certificate id
)

// Changes carries news of changes between the rooms of this node and of others.
type Changes interface {
	// Changed tells that something changed; called after its commit.
	Changed(kind, key string)
	// OnChange asks for fn to be called at changes of a kind; key "" is everything of it.
	OnChange(kind string, fn func(key string))
}

// Principals is what this room asks of identity.
type Principals interface {
	// Standing tells whether the certificate may act now, and the provisioning template it is a claim for, if it
	// is one. A certificate that does not exist is not active.
	Standing(ctx context.Context, certificateID string) (active bool, claimTemplate string, err error)
	// DescribeCertificate gives a ResourceNotFoundException for one that does not exist.
	DescribeCertificate(context.Context, *iot.DescribeCertificateRequest) (*iot.DescribeCertificateResponse, error)
	// PolicyCertificate gives what policies may ask of a certificate that is registered.
	PolicyCertificate(ctx context.Context, certificateID string) (*lang.Certificate, error)
}

// Things is what this room asks of the registry.
type Things interface {
	// PolicyThing gives the thing of that name, Attached being whether it is attached to the principal; nil when
	// there is no such thing.
	PolicyThing(ctx context.Context, thingName, principalARN string) (*lang.Thing, error)
	// ThingGroupsOfPrincipal gives the ARNs of the groups that things attached to the principal are in, and of
	// all parents of those groups.
	ThingGroupsOfPrincipal(ctx context.Context, principalARN string) ([]string, error)
	ListPrincipalThings(context.Context, *iot.ListPrincipalThingsRequest) (*iot.ListPrincipalThingsResponse, error)
	ListPrincipalThingsV2(context.Context, *iot.ListPrincipalThingsV2Request) (*iot.ListPrincipalThingsV2Response, error)
}

// Groups is what this room asks of the registry about thing groups.
type Groups interface {
	DescribeThingGroup(context.Context, *iot.DescribeThingGroupRequest) (*iot.DescribeThingGroupResponse, error)
	ListThingGroupsForThing(context.Context, *iot.ListThingGroupsForThingRequest) (*iot.ListThingGroupsForThingResponse, error)
}

// Tags keeps the tags of policies.
type Tags interface {
	TagResource(context.Context, *iot.TagResourceRequest) (*iot.TagResourceResponse, error)
	// DeleteTags takes all tags from a resource; it joins a Write in ctx.
	DeleteTags(ctx context.Context, resourceARN string) error
}

// Config bounds the room; zero values are AWS's quotas.
type Config struct {
	MaxVersions       int `name:"policy.max-versions" default:"5" help:"Most versions a policy keeps."`
	MaxPerCertificate int `name:"policy.max-per-certificate" default:"10" help:"Most policies attached to a certificate."`
	MaxPerThingGroup  int `name:"policy.max-per-thing-group" default:"2" help:"Most policies attached to a thing group."`
}

// Deps are the others that the room works with.
type Deps struct {
	Account    aws.Account
	DB         *store.DB
	Changes    Changes
	Principals Principals
	Things     Things
	Groups     Groups
	Tags       Tags // nil: policies can't have tags
	Log        *slog.Logger
	Now        func() time.Time // time.Now when nil
}

// Policies is the room. It is safe for concurrent use.
type Policies struct {
	cfg        Config
	account    aws.Account
	db         *store.DB
	bus        Changes
	principals Principals
	things     Things
	groups     Groups
	tags       Tags
	log        *slog.Logger
	now        func() time.Time
	changes    changes
	compiled   compiled
	bases      bases
}

// New makes the room and subscribes it to changes.
func New(cfg Config, d Deps) *Policies {
	if cfg.MaxVersions <= 0 {
		cfg.MaxVersions = 5
	}
	if cfg.MaxPerCertificate <= 0 {
		cfg.MaxPerCertificate = 10
	}
	if cfg.MaxPerThingGroup <= 0 {
		cfg.MaxPerThingGroup = 2
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	p := &Policies{
		cfg: cfg, account: d.Account, db: d.DB, bus: d.Changes, principals: d.Principals, things: d.Things,
		groups: d.Groups, tags: d.Tags, log: d.Log, now: d.Now,
	}
	for _, kind := range []string{kindPolicy, kindPrincipal, kindThing, kindCertificate} {
		d.Changes.OnChange(kind, func(key string) {
			if kind == kindPolicy {
				p.compiled.forget(key) // before the counter rises: who sees it rise must not find the old
			}
			p.changes.changed(kind, key)
		})
	}
	return p
}

func (p *Policies) arn(name string) string { return p.account.ARN("iot", "policy/"+name) }

// CreatePolicy makes a policy with version 1 as the default.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreatePolicy.html
func (p *Policies) CreatePolicy(ctx context.Context, in *iot.CreatePolicyRequest) (*iot.CreatePolicyResponse, error) {
	if err := validate(in.PolicyDocument); err != nil {
		return nil, err
	}
	if len(in.Tags) > 0 && p.tags == nil {
		return nil, &iot.InvalidRequestException{Message: "tags of policies are not supported"}
	}
	err := p.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		err := insertPolicy(tx, in.PolicyName, in.PolicyDocument, p.now().UnixMilli())
		if errors.Is(err, store.ErrConflict) {
			return &iot.ResourceAlreadyExistsException{
				Message:    fmt.Sprintf("Policy cannot be created - name already exists (name=%s)", in.PolicyName),
				ResourceId: in.PolicyName, ResourceArn: p.arn(in.PolicyName),
			}
		}
		if err != nil {
			return err
		}
		p.db.AfterCommit(ctx, func() { p.bus.Changed(kindPolicy, in.PolicyName) })
		if len(in.Tags) > 0 {
			_, err = p.tags.TagResource(ctx, &iot.TagResourceRequest{ResourceArn: p.arn(in.PolicyName), Tags: in.Tags})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	p.advise(ctx, in.PolicyName, in.PolicyDocument)
	return &iot.CreatePolicyResponse{
		PolicyName: &in.PolicyName, PolicyArn: new(p.arn(in.PolicyName)), PolicyDocument: &in.PolicyDocument, PolicyVersionId: new("1"),
	}, nil
}

func validate(document string) error {
	if err := lang.Validate(document); err != nil {
		return &iot.MalformedPolicyException{Message: err.Error()}
	}
	return nil
}

// GetPolicy gives a policy with the document of its default version.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetPolicy.html
func (p *Policies) GetPolicy(ctx context.Context, in *iot.GetPolicyRequest) (*iot.GetPolicyResponse, error) {
	var r record
	var v versionRecord
	err := p.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		if r, err = selectPolicy(tx, in.PolicyName); err != nil {
			return err
		}
		v, err = selectVersion(tx, in.PolicyName, r.defaultVersion)
		return err
	})
	if err != nil {
		return nil, noPolicy(err, in.PolicyName)
	}
	return &iot.GetPolicyResponse{
		PolicyName: &r.name, PolicyArn: new(p.arn(r.name)), PolicyDocument: &v.document,
		DefaultVersionId: versionID(r.defaultVersion), CreationDate: date(r.created), LastModifiedDate: date(r.modified),
		GenerationId: &r.generation,
	}, nil
}

// noPolicy turns a row that is not there into AWS's exception.
func noPolicy(err error, name string) error {
	if errors.Is(err, store.ErrNotFound) {
		return &iot.ResourceNotFoundException{Message: fmt.Sprintf("Policy %s was not found.", name)}
	}
	return err
}

// DeletePolicy deletes a policy that has no versions but the default one and is attached to nothing.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeletePolicy.html
func (p *Policies) DeletePolicy(ctx context.Context, in *iot.DeletePolicyRequest) (*iot.DeletePolicyResponse, error) {
	err := p.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if _, err := selectPolicy(tx, in.PolicyName); err != nil {
			return noPolicy(err, in.PolicyName)
		}
		attached, versions, err := countUses(tx, in.PolicyName)
		switch {
		case err != nil:
			return err
		case attached > 0:
			return &iot.DeleteConflictException{Message: fmt.Sprintf("The policy cannot be deleted as the policy is attached to one or more principals (name=%s)", in.PolicyName)}
		case versions > 1:
			return &iot.DeleteConflictException{Message: fmt.Sprintf("Cannot delete the policy because it has one or more policy versions attached to it (name=%s)", in.PolicyName)}
		}
		if err := deletePolicy(tx, in.PolicyName); err != nil {
			return err
		}
		if p.tags != nil {
			if err := p.tags.DeleteTags(ctx, p.arn(in.PolicyName)); err != nil {
				return err
			}
		}
		p.db.AfterCommit(ctx, func() { p.bus.Changed(kindPolicy, in.PolicyName) })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeletePolicyResponse{}, nil
}

// ListPolicies lists in order of creation, the newest first unless ascendingOrder.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListPolicies.html
func (p *Policies) ListPolicies(ctx context.Context, in *iot.ListPoliciesRequest) (*iot.ListPoliciesResponse, error) {
	after, err := parseMarker(in.Marker, 2)
	if err != nil {
		return nil, err
	}
	size := pageSize(in.PageSize)
	out := &iot.ListPoliciesResponse{}
	err = p.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		page, err := selectPolicies(tx, after, isTrue(in.AscendingOrder), size+1)
		if err != nil {
			return err
		}
		out.Policies, out.NextMarker = nil, nil
		if len(page) > size {
			page = page[:size]
			out.NextMarker = marker(fmt.Sprint(page[size-1].created), page[size-1].name)
		}
		for _, r := range page {
			out.Policies = append(out.Policies, p.summary(r.name))
		}
		return nil
	})
	return out, err
}

func (p *Policies) summary(name string) *iot.Policy {
	return &iot.Policy{PolicyName: &name, PolicyArn: new(p.arn(name))}
}

func newGeneration() string { return uuid.NewString() }
