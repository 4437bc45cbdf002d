package authorizer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// kindAuthorizer is the bus's name of what changes here; keys are authorizer names, "" for all and the default.
const kindAuthorizer = "authorizer"

// Changes carries news of changes between the nodes.
type Changes interface {
	// Changed tells that something changed; called after its commit.
	Changed(kind, key string)
	// OnChange asks for fn to be called at changes of a kind; key "" is everything of it.
	OnChange(kind string, fn func(key string))
}

// Functions calls the functions behind authorizers.
type Functions interface {
	// Invoke gives a JSON document to the function and returns the one that it answers; an error when the function
	// failed. It returns when ctx ends.
	Invoke(ctx context.Context, functionARN string, payload []byte) ([]byte, error)
}

// Domains knows which domain configurations name an authorizer.
type Domains interface {
	// UsesAuthorizer gives the name of a domain configuration whose default the authorizer is, "" when there is none.
	// It joins a transaction in ctx.
	UsesAuthorizer(ctx context.Context, authorizerName string) (domainConfiguration string, err error)
}

// Tags keeps the tags of authorizers.
type Tags interface {
	TagResource(context.Context, *iot.TagResourceRequest) (*iot.TagResourceResponse, error)
	// DeleteTags takes all tags from a resource; it joins a Write in ctx.
	DeleteTags(ctx context.Context, resourceARN string) error
}

// Config bounds the package.
type Config struct {
	Max       int           `name:"authorizer.max" default:"0" help:"Most custom authorizers. 0: 10 under --limits aws, else 1000."`
	Timeout   time.Duration `name:"authorizer.timeout" default:"5s" help:"How long an authorizer's function may take."`
	MaxCached int           `name:"authorizer.max-cached" default:"10000" help:"Most answers kept for HTTP connections, for authorizers with enableCachingForHttp."`

	// Limits is the profile: aws, default or unlimited; "" is default.
	Limits string `kong:"-" toml:"-"`
}

// Deps are the others that the package works with.
type Deps struct {
	Account   aws.Account
	DB        *store.DB
	Changes   Changes
	Functions Functions
	Tags      Tags // nil: authorizers can't have tags
	Log       *slog.Logger
	Now       func() time.Time // time.Now when nil
}

// Authorizers holds the account's custom authorizers. It is safe for concurrent use.
type Authorizers struct {
	cfg       Config
	account   aws.Account
	db        *store.DB
	bus       Changes
	functions Functions
	domains   Domains
	tags      Tags
	log       *slog.Logger
	now       func() time.Time
	known     snapshots
	answers   answers
}

// New makes the package's one value and subscribes it to changes. [Authorizers.Use] completes it.
func New(cfg Config, d Deps) *Authorizers {
	if cfg.Max <= 0 {
		cfg.Max = 1000
		if cfg.Limits == "aws" {
			cfg.Max = 10
		}
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.MaxCached <= 0 {
		cfg.MaxCached = 10000
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	a := &Authorizers{
		cfg: cfg, account: d.Account, db: d.DB, bus: d.Changes, functions: d.Functions, tags: d.Tags, log: d.Log, now: d.Now,
		answers: answers{most: cfg.MaxCached},
	}
	d.Changes.OnChange(kindAuthorizer, func(string) { a.known.forget() })
	return a
}

// Use plugs in the domain configurations, which are made after this; call it once, before the first request.
func (a *Authorizers) Use(d Domains) { a.domains = d }

func (a *Authorizers) arn(name string) string { return a.account.ARN("iot", "authorizer/"+name) }

func (a *Authorizers) changed(ctx context.Context, name string) {
	a.db.AfterCommit(ctx, func() { a.bus.Changed(kindAuthorizer, name) })
}

func invalid(format string, args ...any) error {
	return &iot.InvalidRequestException{Message: fmt.Sprintf(format, args...)}
}

// notFound turns a row that is not there into AWS's exception.
func notFound(err error, name string) error {
	if errors.Is(err, store.ErrNotFound) {
		return &iot.ResourceNotFoundException{Message: fmt.Sprintf("Authorizer %s was not found.", name)}
	}
	return err
}

var validName = regexp.MustCompile(`^[\w=,@-]{1,128}$`)

// CreateAuthorizer makes an authorizer; its status is ACTIVE unless said otherwise. That its function exists is not
// looked at: authorizers and functions may come in any order.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateAuthorizer.html
func (a *Authorizers) CreateAuthorizer(ctx context.Context, in *iot.CreateAuthorizerRequest) (*iot.CreateAuthorizerResponse, error) {
	now := a.now().UnixMilli()
	r := &record{
		name: in.AuthorizerName, functionARN: in.AuthorizerFunctionArn, tokenKeyName: value(in.TokenKeyName),
		signingKeys: in.TokenSigningPublicKeys, signingDisabled: value(in.SigningDisabled), status: value(in.Status),
		caching: value(in.EnableCachingForHttp), created: now, modified: now,
	}
	if r.status == "" {
		r.status = iot.AuthorizerStatusActive
	}
	if !validName.MatchString(r.name) {
		return nil, invalid("Invalid authorizerName.")
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if len(in.Tags) > 0 && a.tags == nil {
		return nil, invalid("tags of authorizers are not supported")
	}
	err := a.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if _, err := selectAuthorizer(tx, r.name); err == nil {
			return &iot.ResourceAlreadyExistsException{
				Message: fmt.Sprintf("Authorizer %s exists already.", r.name), ResourceId: r.name, ResourceArn: a.arn(r.name),
			}
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		n, err := countAuthorizers(tx)
		if err != nil {
			return err
		}
		if n >= a.cfg.Max {
			return &iot.LimitExceededException{Message: fmt.Sprintf("There are %d authorizers, the most allowed.", n)}
		}
		if err := insertAuthorizer(tx, r); err != nil {
			return err
		}
		a.changed(ctx, r.name)
		if len(in.Tags) > 0 {
			_, err = a.tags.TagResource(ctx, &iot.TagResourceRequest{ResourceArn: a.arn(r.name), Tags: in.Tags})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.CreateAuthorizerResponse{AuthorizerName: &r.name, AuthorizerArn: new(a.arn(r.name))}, nil
}

// UpdateAuthorizer changes what is given. tokenSigningPublicKeys replaces all keys.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateAuthorizer.html
func (a *Authorizers) UpdateAuthorizer(ctx context.Context, in *iot.UpdateAuthorizerRequest) (*iot.UpdateAuthorizerResponse, error) {
	err := a.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		r, err := selectAuthorizer(tx, in.AuthorizerName)
		if err != nil {
			return notFound(err, in.AuthorizerName)
		}
		set(&r.functionARN, in.AuthorizerFunctionArn)
		set(&r.tokenKeyName, in.TokenKeyName)
		set(&r.status, in.Status)
		set(&r.caching, in.EnableCachingForHttp)
		if in.TokenSigningPublicKeys != nil {
			r.signingKeys = in.TokenSigningPublicKeys
		}
		if err := r.check(); err != nil {
			return err
		}
		r.modified = max(a.now().UnixMilli(), r.modified+1) // tells revisions apart
		a.changed(ctx, r.name)
		return updateAuthorizer(tx, r)
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateAuthorizerResponse{AuthorizerName: &in.AuthorizerName, AuthorizerArn: new(a.arn(in.AuthorizerName))}, nil
}

// DescribeAuthorizer describes one.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeAuthorizer.html
func (a *Authorizers) DescribeAuthorizer(ctx context.Context, in *iot.DescribeAuthorizerRequest) (*iot.DescribeAuthorizerResponse, error) {
	var r *record
	err := a.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		r, err = selectAuthorizer(tx, in.AuthorizerName)
		return err
	})
	if err != nil {
		return nil, notFound(err, in.AuthorizerName)
	}
	return &iot.DescribeAuthorizerResponse{AuthorizerDescription: a.describe(r)}, nil
}

func (a *Authorizers) describe(r *record) *iot.AuthorizerDescription {
	return &iot.AuthorizerDescription{
		AuthorizerName: &r.name, AuthorizerArn: new(a.arn(r.name)), AuthorizerFunctionArn: &r.functionARN,
		TokenKeyName: optional(r.tokenKeyName), TokenSigningPublicKeys: r.signingKeys, Status: &r.status,
		CreationDate: date(r.created), LastModifiedDate: date(r.modified), SigningDisabled: &r.signingDisabled,
		EnableCachingForHttp: &r.caching,
	}
}

// ListAuthorizers lists in order of creation, the newest first unless isAscendingOrder, those of a status or all.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListAuthorizers.html
func (a *Authorizers) ListAuthorizers(ctx context.Context, in *iot.ListAuthorizersRequest) (*iot.ListAuthorizersResponse, error) {
	after, err := parseMarker(in.Marker)
	if err != nil {
		return nil, err
	}
	limit := pageSize(in.PageSize)
	var page []record
	err = a.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		page, err = selectAuthorizers(tx, after, value(in.Status), value(in.AscendingOrder), limit+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &iot.ListAuthorizersResponse{}
	if len(page) > limit {
		page = page[:limit]
		out.NextMarker = marker(&page[limit-1])
	}
	for i := range page {
		r := &page[i]
		out.Authorizers = append(out.Authorizers, &iot.AuthorizerSummary{AuthorizerName: &r.name, AuthorizerArn: new(a.arn(r.name))})
	}
	return out, nil
}

// DeleteAuthorizer deletes one that is INACTIVE and no one's default.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteAuthorizer.html
func (a *Authorizers) DeleteAuthorizer(ctx context.Context, in *iot.DeleteAuthorizerRequest) (*iot.DeleteAuthorizerResponse, error) {
	err := a.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		r, err := selectAuthorizer(tx, in.AuthorizerName)
		if err != nil {
			return notFound(err, in.AuthorizerName)
		}
		def, err := selectDefault(tx)
		if err != nil {
			return err
		}
		user := ""
		if a.domains != nil {
			if user, err = a.domains.UsesAuthorizer(ctx, r.name); err != nil {
				return err
			}
		}
		switch {
		case def == r.name:
			return &iot.DeleteConflictException{Message: fmt.Sprintf("Authorizer %s is the default authorizer.", r.name)}
		case user != "":
			return &iot.DeleteConflictException{Message: fmt.Sprintf("Authorizer %s is the default of the domain configuration %s.", r.name, user)}
		case r.status != iot.AuthorizerStatusInactive:
			return &iot.DeleteConflictException{Message: fmt.Sprintf("Authorizer %s is not INACTIVE.", r.name)}
		}
		a.changed(ctx, r.name)
		if a.tags != nil {
			if err := a.tags.DeleteTags(ctx, a.arn(r.name)); err != nil {
				return err
			}
		}
		return deleteAuthorizer(tx, r.name)
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteAuthorizerResponse{}, nil
}
