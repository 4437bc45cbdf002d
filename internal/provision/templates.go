package provision

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// TokenLifetime is how long a certificate made over MQTT waits for its provisioning.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/fleet-provision-api.html
const TokenLifetime = time.Hour

// hookTimeout is how long a pre-provisioning hook may take.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/pre-provisioning-hook.html
const hookTimeout = 5 * time.Second

// Issuer is what this room asks of identity about new certificates. Methods join a Write in ctx.
type Issuer interface {
	// CreatePending makes a certificate that is PENDING_ACTIVATION, and deleted after until unless its status was
	// changed before; with a CSR (PEM) the key stays with the device and KeyPair is nil.
	CreatePending(ctx context.Context, csr string, until time.Time, requestedBy, clientID string) (*iot.CreateKeysAndCertificateResponse, error)
	// CreateClaim makes a short-lived certificate that can do nothing but provision by the template.
	CreateClaim(ctx context.Context, templateName string) (*iot.CreateProvisioningClaimResponse, error)
	// SignRequest signs a CSR (PEM) and registers nothing; it takes as long as who signs does, so it is not for a Write.
	SignRequest(ctx context.Context, csr string) (certificatePEM string, err error)
	RegisterCertificate(context.Context, *iot.RegisterCertificateRequest) (*iot.RegisterCertificateResponse, error)
}

// Certificates is what this room asks of identity about certificates that exist.
type Certificates interface {
	DescribeCertificate(context.Context, *iot.DescribeCertificateRequest) (*iot.DescribeCertificateResponse, error)
	UpdateCertificate(context.Context, *iot.UpdateCertificateRequest) (*iot.UpdateCertificateResponse, error)
}

// Things is what this room asks of the registry about things.
type Things interface {
	DescribeThing(context.Context, *iot.DescribeThingRequest) (*iot.DescribeThingResponse, error)
	CreateThing(context.Context, *iot.CreateThingRequest) (*iot.CreateThingResponse, error)
	UpdateThing(context.Context, *iot.UpdateThingRequest) (*iot.UpdateThingResponse, error)
	AttachThingPrincipal(context.Context, *iot.AttachThingPrincipalRequest) (*iot.AttachThingPrincipalResponse, error)
}

// Groups is what this room asks of the registry about memberships.
type Groups interface {
	ListThingGroupsForThing(context.Context, *iot.ListThingGroupsForThingRequest) (*iot.ListThingGroupsForThingResponse, error)
	AddThingToThingGroup(context.Context, *iot.AddThingToThingGroupRequest) (*iot.AddThingToThingGroupResponse, error)
	RemoveThingFromThingGroup(context.Context, *iot.RemoveThingFromThingGroupRequest) (*iot.RemoveThingFromThingGroupResponse, error)
}

// BillingGroups is what this room asks of the registry about billing.
type BillingGroups interface {
	AddThingToBillingGroup(context.Context, *iot.AddThingToBillingGroupRequest) (*iot.AddThingToBillingGroupResponse, error)
}

// Policies is what this room asks of policy.
type Policies interface {
	GetPolicy(context.Context, *iot.GetPolicyRequest) (*iot.GetPolicyResponse, error)
	CreatePolicy(context.Context, *iot.CreatePolicyRequest) (*iot.CreatePolicyResponse, error)
	AttachPolicy(context.Context, *iot.AttachPolicyRequest) (*iot.AttachPolicyResponse, error)
}

// Publisher delivers the answers to devices.
type Publisher interface {
	Publish(ctx context.Context, m *mqtt.Message) error
}

// Tags keeps the tags of templates.
type Tags interface {
	TagResource(context.Context, *iot.TagResourceRequest) (*iot.TagResourceResponse, error)
	// DeleteTags takes all tags from a resource; it joins a Write in ctx.
	DeleteTags(ctx context.Context, resourceARN string) error
}

// Hook calls pre-provisioning hooks.
type Hook interface {
	// Invoke gives a JSON document to the function and returns the one that it answers; an error when the function
	// failed. The context carries the deadline.
	Invoke(ctx context.Context, functionARN string, payload []byte) ([]byte, error)
}

// Config bounds the room; zero values are AWS's quotas where it has one.
type Config struct {
	// Limits is the profile: aws, default or unlimited.
	Limits string `kong:"-" toml:"-"`

	MaxTemplates int `name:"provision.max-templates" default:"256" help:"Most provisioning templates."`
	MaxVersions  int `name:"provision.max-versions" default:"5" help:"Most versions of a provisioning template."`
	MaxPending   int `name:"provision.max-pending" default:"100000" help:"Most certificates that may wait for their provisioning."`

	ExplainRecords int `name:"provision.explain-records" default:"5000" help:"Most provisioning attempts that are kept for 'flotilla explain provision': of those that failed, and of those that did not."`

	Rate int `name:"provision.rate" default:"0" help:"Most requests of each operation of the device provisioning MQTT API in a second, on a node; 0 is the profile's: 10 under --limits aws, otherwise no limit."`

	BulkRate     int   `name:"provision.bulk-rate" default:"100" help:"Most lines that bulk registration registers in a second."`
	BulkMaxBytes int64 `name:"provision.bulk-max-bytes" default:"1073741824" help:"Most bytes of the input of a bulk registration."`

	HookTimeout time.Duration `name:"provision.hook-timeout" default:"5s" help:"How long a pre-provisioning hook may take."`
}

// Deps are the others that the room works with.
type Deps struct {
	Account       aws.Account
	DB            *store.DB
	Issuer        Issuer
	Certificates  Certificates
	Things        Things
	Groups        Groups
	BillingGroups BillingGroups // nil: templates that change one are refused
	Policies      Policies
	Publisher     Publisher
	Tags          Tags          // nil: templates can't have tags
	Hook          Hook          // nil: templates can't have hooks
	Objects       Objects       // nil: nothing is registered in bulk
	ReportURL     func() string // what links to reports of bulk registration begin with, e.g. http://127.0.0.1:8080
	NodeID        string        // of all nodes' names the one of this; it is the same after a restart
	Log           *slog.Logger
	Now           func() time.Time // time.Now when nil
}

// Templates is the room. It is safe for concurrent use.
type Templates struct {
	cfg Config
	Deps
	pending atomic.Int64 // about how many tokens are unused
	journal *journal
	bulk    *bulk
	rates   map[string]*rate.Limiter // by operation; none: no limit
}

// awsRate is AWS's quota of each operation of the device provisioning MQTT API, in requests a second.
//
// AWS: https://docs.aws.amazon.com/general/latest/gr/iot-core.html#fleet-provisioning-limits
const awsRate = 10

// limits are the rates that a configuration means.
func (c *Config) limits() map[string]*rate.Limiter {
	n := c.Rate
	if n <= 0 && c.Limits == "aws" {
		n = awsRate
	}
	if n <= 0 {
		return nil
	}
	out := map[string]*rate.Limiter{}
	for _, op := range []string{opKeys, opCSR, opRegister} {
		out[op] = rate.NewLimiter(rate.Limit(n), n)
	}
	return out
}

// New makes the room.
func New(cfg Config, d Deps) *Templates {
	if cfg.MaxTemplates <= 0 {
		cfg.MaxTemplates = 256
	}
	if cfg.MaxVersions <= 0 {
		cfg.MaxVersions = 5
	}
	if cfg.MaxPending <= 0 {
		cfg.MaxPending = 100000
	}
	if cfg.HookTimeout <= 0 {
		cfg.HookTimeout = hookTimeout
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if cfg.ExplainRecords <= 0 {
		cfg.ExplainRecords = defaultKept
	}
	if cfg.BulkRate <= 0 {
		cfg.BulkRate = 100
	}
	if cfg.BulkMaxBytes <= 0 {
		cfg.BulkMaxBytes = 1 << 30
	}
	if d.NodeID == "" {
		d.NodeID = rand.Text()
	}
	if d.ReportURL == nil {
		d.ReportURL = func() string { return "" }
	}
	return &Templates{cfg: cfg, Deps: d, rates: cfg.limits(), bulk: newBulk(d.NodeID, cfg.BulkRate), journal: newJournal(d.DB, d.Log, cfg.ExplainRecords)}
}

func (t *Templates) arn(name string) string {
	return t.Account.ARN("iot", "provisioningtemplate/"+name)
}

func (t *Templates) nowMS() int64 { return t.Now().UnixMilli() }

func date(ms int64) *aws.Time { return &aws.Time{Time: time.UnixMilli(ms).UTC()} }
