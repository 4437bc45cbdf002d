package domain

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/gateway/ticket"
	"flotilla/internal/store"
)

// kindDomain is the bus's name of what changes here; keys are names of configurations.
const kindDomain = "domain"

// DefaultName is the configuration of the deployment's own host name.
const DefaultName = "iot:Data-ATS"

// Changes carries news of changes between the nodes.
type Changes interface {
	// Changed tells that something changed; called after its commit.
	Changed(kind, key string)
	// OnChange asks for fn to be called at changes of a kind; key "" is everything of it.
	OnChange(kind string, fn func(key string))
}

// Authorizers is what this package asks of custom authorizers.
type Authorizers interface {
	// DescribeAuthorizer gives a ResourceNotFoundException for one that does not exist. It joins a transaction in ctx.
	DescribeAuthorizer(context.Context, *iot.DescribeAuthorizerRequest) (*iot.DescribeAuthorizerResponse, error)
}

// Tags keeps the tags of domain configurations.
type Tags interface {
	TagResource(context.Context, *iot.TagResourceRequest) (*iot.TagResourceResponse, error)
	// DeleteTags takes all tags from a resource; it joins a Write in ctx.
	DeleteTags(ctx context.Context, resourceARN string) error
}

// GetCertificate picks a certificate that the client can verify, as tls.Config has it.
type GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// Config bounds the package.
type Config struct {
	Max           int  `name:"domain.max" default:"0" help:"Most domain configurations, iot:Data-ATS not counted. 0: 10 under --limits aws, else 1000."`
	RefuseUnknown bool `name:"domain.refuse-unknown-names" help:"Refuse TLS clients that ask for a server name that no domain configuration has; always so under --limits aws. Clients that ask for none are always taken as for iot:Data-ATS."`

	// Limits is the profile: aws, default or unlimited; "" is default.
	Limits string `kong:"-" toml:"-"`
}

// Deps are the others that the package works with.
type Deps struct {
	Account     aws.Account
	DB          *store.DB
	Changes     Changes
	Authorizers Authorizers
	Tags        Tags // nil: domain configurations can't have tags
	// Dir is the data directory; certificates are in its directory certificates.
	Dir string
	// PublicHost is the name or address of iot:Data-ATS; names of domains without one of their own are below it.
	// Hosts are further names of it.
	PublicHost string
	Hosts      []string
	// Issue gives the source of certificates of the deployment's own authority for a host name, which it makes or
	// loads, and renews by itself.
	Issue func(domainName string) (GetCertificate, error)
	// Tickets are the keys of TLS session tickets; nil: they are the process's own.
	Tickets *ticket.Keys
	Log     *slog.Logger
	Now     func() time.Time // time.Now when nil
}

// Domains holds the account's domain configurations. It is safe for concurrent use.
type Domains struct {
	cfg          Config
	account      aws.Account
	db           *store.DB
	bus          Changes
	authorizers  Authorizers
	tags         Tags
	publicHost   string
	hosts        map[string]bool // of iot:Data-ATS, in lower case
	log          *slog.Logger
	now          func() time.Time
	known        snapshots
	tickets      *ticket.Keys
	certificates certificates
}

// New makes the package's one value and subscribes it to changes.
func New(cfg Config, d Deps) *Domains {
	if cfg.Max <= 0 {
		cfg.Max = 1000
		if cfg.Limits == "aws" {
			cfg.Max = 10
		}
	}
	cfg.RefuseUnknown = cfg.RefuseUnknown || cfg.Limits == "aws"
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	s := &Domains{
		cfg: cfg, account: d.Account, db: d.DB, bus: d.Changes, authorizers: d.Authorizers, tags: d.Tags, tickets: d.Tickets,
		publicHost: strings.ToLower(d.PublicHost), hosts: map[string]bool{}, log: d.Log, now: d.Now,
		certificates: certificates{
			dir: filepath.Join(d.Dir, "certificates"), issue: d.Issue, log: d.Log, now: d.Now,
			files: map[string]*file{}, issued: map[string]*issued{},
		},
	}
	for _, h := range append([]string{d.PublicHost}, d.Hosts...) {
		if h != "" && net.ParseIP(h) == nil { // addresses are not asked for by name
			s.hosts[strings.ToLower(h)] = true
		}
	}
	d.Changes.OnChange(kindDomain, func(string) { s.known.forget() })
	return s
}

func (d *Domains) arn(r *record) string {
	if r.suffix == "" {
		return d.account.ARN("iot", "domainconfiguration/"+r.name)
	}
	return d.account.ARN("iot", "domainconfiguration/"+r.name+"/"+r.suffix)
}

func (d *Domains) changed(ctx context.Context, name string) {
	d.db.AfterCommit(ctx, func() { d.bus.Changed(kindDomain, name) })
}

func invalid(format string, args ...any) error {
	return &iot.InvalidRequestException{Message: fmt.Sprintf(format, args...)}
}
