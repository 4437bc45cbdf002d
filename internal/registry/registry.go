package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// Kinds of changes on the bus.
const (
	kindThing     = "thing"     // key: thing name
	kindPrincipal = "principal" // key: ARN of a principal whose things changed, or of a group that lost things
	kindGroup     = "group"     // key: thing group name
	// kindMembership has +GROUP/THING when a thing came into a group or one below it, -GROUP/THING when it left.
	kindMembership = "membership"
)

// Changes carries news of changes between the rooms of this node and of others.
type Changes interface {
	// Changed tells that something changed; called after its commit.
	Changed(kind, key string)
	// OnChange asks for fn to be called at changes of a kind; key "" is everything of it.
	OnChange(kind string, fn func(key string))
}

// Certificates is what this room asks of identity.
type Certificates interface {
	// DescribeCertificate gives a ResourceNotFoundException for one that does not exist.
	DescribeCertificate(context.Context, *iot.DescribeCertificateRequest) (*iot.DescribeCertificateResponse, error)
}

// Policies is what this room asks of policy.
type Policies interface {
	// DetachAll detaches every policy from a target; it joins a Write in ctx.
	DetachAll(ctx context.Context, target string) error
}

// Shadows is what this room asks of shadow.
type Shadows interface {
	// DeleteAll deletes the shadows of a thing; it joins a Write in ctx.
	DeleteAll(ctx context.Context, thingName string) error
}

// Queries is what this room asks of the fleet index.
type Queries interface {
	// CheckQuery gives a ResourceNotFoundException or IndexNotReadyException for an index that can't be searched, an
	// InvalidQueryException or InvalidRequestException for a query that is none. name and version may be nil.
	CheckQuery(ctx context.Context, name *string, query string, version *string) error
}

// Exists tells whether a resource of another room exists: nil, or its
// ResourceNotFoundException. ctx may carry a transaction.
type Exists func(ctx context.Context, name string) error

// Config bounds the room. Zero values are the profile's, which are AWS's quotas
// but for the wait.
type Config struct {
	MaxAttributes        int           `name:"registry.max-attributes" default:"0" help:"Most attributes of a thing with a type, and of a thing group. 0: 50, or 1000 under --limits unlimited."`
	MaxAttributesNoType  int           `name:"registry.max-attributes-without-type" default:"0" help:"Most attributes of a thing without a type. 0: 3, or 1000 under --limits unlimited."`
	MaxAttributeBytes    int           `name:"registry.max-attribute-bytes" default:"0" help:"Most bytes of a thing's attributes, names and values. 0: 48128, or 1048576 under --limits unlimited."`
	MaxSearchable        int           `name:"registry.max-searchable-attributes" default:"0" help:"Most searchable attributes of a thing type. 0: 3, or 50 under --limits unlimited."`
	MaxGroupsPerThing    int           `name:"registry.max-groups-per-thing" default:"0" help:"Most thing groups that a thing is added to. 0: 10, or 100 under --limits unlimited."`
	MaxGroupDepth        int           `name:"registry.max-group-depth" default:"0" help:"Most levels of a hierarchy of thing groups. 0: 7, or 32 under --limits unlimited."`
	MaxDynamicGroups     int           `name:"registry.max-dynamic-groups" default:"0" help:"Most dynamic thing groups. 0: 100, or 10000 under --limits unlimited."`
	MaxChildGroups       int           `name:"registry.max-child-groups" default:"0" help:"Most groups that have the same parent. 0: 100, or 100000 under --limits unlimited."`
	MaxTags              int           `name:"registry.max-tags" default:"0" help:"Most tags of a resource. 0: 50, or 1000 under --limits unlimited."`
	ThingTypeDeletionLag time.Duration `name:"registry.thing-type-deletion-wait" default:"0" help:"How long a thing type must have been deprecated before it is deleted. 0: 5m under --limits aws, else no wait."`
	CachedThings         int           `name:"registry.cached-things" default:"32768" help:"Most things kept in memory."`

	// Limits is the profile: aws, default or unlimited; "" is default.
	Limits string `kong:"-" toml:"-"`
}

func (c Config) withDefaults() Config {
	unlimited := c.Limits == "unlimited"
	for _, f := range []struct {
		at                 *int
		quota, generousOne int
	}{
		{&c.MaxAttributes, 50, 1000},
		{&c.MaxAttributesNoType, 3, 1000},
		{&c.MaxAttributeBytes, 47 << 10, 1 << 20},
		{&c.MaxSearchable, 3, 50},
		{&c.MaxGroupsPerThing, 10, 100},
		{&c.MaxGroupDepth, 7, 32},
		{&c.MaxChildGroups, 100, 100_000},
		{&c.MaxDynamicGroups, 100, 10_000},
		{&c.MaxTags, 50, 1000},
		{&c.CachedThings, 32768, 32768},
	} {
		switch {
		case *f.at > 0:
		case unlimited:
			*f.at = f.generousOne
		default:
			*f.at = f.quota
		}
	}
	if c.ThingTypeDeletionLag <= 0 && c.Limits == "aws" {
		c.ThingTypeDeletionLag = 5 * time.Minute
	}
	return c
}

// Deps are the others that the room works with.
type Deps struct {
	Account      aws.Account
	DB           *store.DB
	Changes      Changes
	Certificates Certificates
	Events       Events // nil: registry events are not published
	Log          *slog.Logger
	Now          func() time.Time // time.Now when nil
}

// Registry is the room. It is safe for concurrent use. Its methods that write
// join a transaction in their context.
type Registry struct {
	cfg          Config
	account      aws.Account
	db           *store.DB
	bus          Changes
	certificates Certificates
	policies     Policies
	shadows      Shadows
	queries      Queries
	taggable     map[string]Exists
	events       Events
	log          *slog.Logger
	now          func() time.Time
	cache        cache
}

// New makes the room and subscribes it to changes; make it before the rooms that
// decide by what it says (policy), so that it hears of changes before them.
// [Registry.Use] completes it.
func New(cfg Config, d Deps) *Registry {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	cfg = cfg.withDefaults()
	r := &Registry{
		cfg: cfg, account: d.Account, db: d.DB, bus: d.Changes, certificates: d.Certificates,
		events: d.Events, log: d.Log, now: d.Now, cache: cache{most: cfg.CachedThings},
	}
	d.Changes.OnChange(kindThing, r.cache.forget)
	return r
}

// Use plugs in the rooms that are made after this one; call it once, before the
// first request. Each may be nil; without Shadows these outlive their things. taggable names the resources of other rooms
// that may have tags by the first part of their ARN's resource: "rule",
// "policy", "provisioningtemplate".
func (r *Registry) Use(p Policies, s Shadows, taggable map[string]Exists) {
	r.policies, r.shadows, r.taggable = p, s, taggable
}

// UseIndex plugs in the fleet index, without which there are no dynamic thing
// groups; call it once, before the first request.
func (r *Registry) UseIndex(q Queries) { r.queries = q }

// Resources as ARNs name them.
const (
	thingResource   = "thing/"
	typeResource    = "thingtype/"
	groupResource   = "thinggroup/"
	billingResource = "billinggroup/"
	certResource    = "cert/"
)

func (r *Registry) arn(resource, name string) string { return r.account.ARN("iot", resource+name) }

// pick gives the name that a request means by a name, an ARN or both.
func (r *Registry) pick(what, resource string, name, arn *string) (string, error) {
	if arn == nil || *arn == "" {
		if name == nil || *name == "" {
			return "", invalid("%s name or ARN is required", what)
		}
		return *name, validName(what, *name)
	}
	byARN, ok := strings.CutPrefix(*arn, r.account.ARN("iot", resource))
	if !ok || byARN == "" {
		return "", invalid("Invalid %s ARN: %s", what, *arn)
	}
	if name != nil && *name != "" && *name != byARN {
		return "", invalid("%s name and ARN do not match", what)
	}
	return byARN, validName(what, byARN)
}

func (r *Registry) changed(ctx context.Context, kind string, keys ...string) {
	r.db.AfterCommit(ctx, func() {
		for _, k := range keys {
			r.bus.Changed(kind, k)
		}
	})
}

func (r *Registry) nowMS() int64 { return r.now().UnixMilli() }

func invalid(format string, args ...any) error {
	return &iot.InvalidRequestException{Message: fmt.Sprintf(format, args...)}
}

// notFound turns a row that is not there into AWS's exception.
func notFound(err error, format string, args ...any) error {
	if errors.Is(err, store.ErrNotFound) {
		return &iot.ResourceNotFoundException{Message: fmt.Sprintf(format, args...)}
	}
	return err
}

// checkVersion compares the version that the caller expects, if any, with the
// one there is.
func checkVersion(expected *int64, version int64, what, name string) error {
	if expected != nil && *expected != version {
		return &iot.VersionConflictException{
			Message: fmt.Sprintf("The version for the %s %s does not match the expected version: it is %d, not %d", what, name, version, *expected),
		}
	}
	return nil
}

func date(ms int64) *aws.Time { return new(aws.Time{Time: time.UnixMilli(ms).UTC()}) }

// value is what p points to, the zero value when it is nil.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// optional is nil for an empty text.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
