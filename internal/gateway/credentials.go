package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/gateway/domain"
	"flotilla/internal/mqtt"
	"flotilla/internal/policy/lang"
)

// Authorizers have custom authorizers vouch for connections.
type Authorizers interface {
	// Authenticate asks the responsible authorizer. The error is for the operator and holds no secrets.
	// It keeps nothing of c.
	Authenticate(ctx context.Context, c *Credentials) (*Vouched, error)
	// IsCustom tells whether an upgrade to WebSocket asks for custom authentication by its headers or query.
	IsCustom(h http.Header, rawQuery string) bool
}

// Credentials are what a connection brings along that a custom authorizer is to vouch for.
type Credentials struct {
	WebSocket    bool
	ConnectionID string // lifecycle events' sessionIdentifier
	ServerName   string // SNI
	SourceIP     string
	Header       http.Header // of the upgrade, with RawQuery
	RawQuery     string
	Username     string
	Password     []byte
	ClientID     string

	// What the domain configuration says of authorizers.
	DefaultAuthorizer string
	AllowOverride     bool

	// Certificate and its principal's id, of a connection that must have both (CUSTOM_AUTH_X509).
	Certificate   *x509.Certificate
	CertificateID string
}

// Vouched is what a custom authorizer says of a connection.
type Vouched struct {
	Principal aws.Principal
	Policies  *lang.Set // govern the connection by themselves
	// DisconnectAfter is how long the connection may last, RefreshAfter how long Policies hold; then
	// Refresh asks for others. RefreshAfter of DisconnectAfter or more is never.
	DisconnectAfter, RefreshAfter time.Duration
	Refresh                       func(context.Context) (*Vouched, error)
}

// Signatures prove who signed with an access key.
type Signatures interface {
	// Signer gives who signed a request that has no body; signed is false when it bears no signature at all.
	Signer(r *http.Request) (p aws.Principal, signed bool, err error)
	// Holds tells whether the access key of p may still be used.
	Holds(ctx context.Context, p aws.Principal) (bool, error)
	// Open gives the authorizer of a connection that p signed: what IAM policies of the key's identity allow.
	Open(ctx context.Context, p aws.Principal, conn *lang.Connection) (lang.Authorizer, error)
}

// Domains say how the deployment answers under its names.
type Domains interface {
	// TLS gives the configuration of a listener, of which base is what holds without domain configurations.
	TLS(base *tls.Config) *tls.Config
	// Lookup gives the configuration of the server name that a client asked for; false when it is no one's.
	Lookup(serverName string) (domain.Configuration, bool)
	// Enabled tells whether there is a configuration of that name, ENABLED.
	Enabled(configurationName string) (bool, error)
}

// JustInTime registers certificates when they first connect.
type JustInTime interface {
	// FirstConnect is asked about a client whose certificate Identify refuses: chain is what it showed, its own
	// certificate first. Whatever comes of it, the connection is closed, and the client is to connect again: the
	// error, never nil, is what the operator is told.
	FirstConnect(ctx context.Context, chain []*x509.Certificate, serverName string, refused error) error
	// Connected is told that the holder of a certificate was let in. It must not block.
	Connected(certificateID string)
}

// refusedPrincipal is the certificate id in the refusal of a certificate; "" when there is none.
func refusedPrincipal(err error) string {
	if r, ok := errors.AsType[interface {
		error
		Principal() string
	}](err); ok {
		return r.Principal()
	}
	return ""
}

// ofDomain gives the configuration of a server name.
func (g *Gateway) ofDomain(serverName string) (domain.Configuration, bool) {
	if g.domains == nil {
		return domain.Configuration{
			Name: domain.DefaultName, Enabled: true,
			AuthenticationType: iot.AuthenticationTypeDefault, ApplicationProtocol: iot.ApplicationProtocolDefault,
		}, true
	}
	return g.domains.Lookup(serverName)
}

const (
	authX509       = iot.AuthenticationTypeAwsX509
	authSigV4      = iot.AuthenticationTypeAwsSigv4
	authCustom     = iot.AuthenticationTypeCustomAuth
	authCustomX509 = iot.AuthenticationTypeCustomAuthX509
)

// authentication is how the connection authenticates: as its domain says, else as port, ALPN and what it brings
// along say.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html
func (a *arrival) authentication(p *mqtt.Connect) string {
	switch {
	case a.domain.AuthenticationType != iot.AuthenticationTypeDefault:
		return a.domain.AuthenticationType
	case a.upgrade == nil && a.alpn == alpnCustom:
		return authCustom
	case a.upgrade == nil:
		return authX509
	case a.signer != (aws.Principal{}):
		return authSigV4
	case a.leaf != nil && !a.upgrade.custom && !strings.Contains(p.Username, "x-amz-customauthorizer-"):
		return authX509
	}
	return authCustom
}

// admits tells whether the domain lets such a connection in. Beyond what AWS has, a client certificate does for
// WebSocket too unless the domain says how its clients authenticate.
func (a *arrival) admits(authentication string) bool {
	d := &a.domain
	if a.upgrade == nil {
		return d.Admits(authentication, iot.ApplicationProtocolSecureMqtt)
	}
	if authentication == authX509 && d.AuthenticationType == iot.AuthenticationTypeDefault {
		return d.Enabled && (d.ApplicationProtocol == iot.ApplicationProtocolDefault || d.ApplicationProtocol == iot.ApplicationProtocolMqttWss)
	}
	return d.Admits(authentication, iot.ApplicationProtocolMqttWss)
}

// party is who connects, and by what its policies are found.
type party struct {
	aws.Principal
	certificate *lang.Certificate
	vouched     *Vouched // by a custom authorizer; nil otherwise
}

// identify finds out who connects. Plain connections are nobody.
func (g *Gateway) identify(a *arrival, p *mqtt.Connect) (party, *refusal) {
	if a.plain {
		return party{}, nil
	}
	how := a.authentication(p)
	if !a.admits(how) {
		return party{}, notAuthorized("the domain configuration " + a.domain.Name + " does not admit " + how)
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.HandshakeTimeout)
	defer cancel()
	var who party
	if how == authX509 || how == authCustomX509 {
		var err error
		if who.Principal, who.certificate, err = g.principals.Identify(ctx, a.leaf); err != nil {
			if g.justInTime != nil && a.leaf != nil {
				err = g.justInTime.FirstConnect(ctx, a.chain, a.serverName, err)
			}
			who.ID = refusedPrincipal(err) // for the record alone
			return who, notAuthorized(err.Error())
		}
	}
	switch how {
	case authX509:
	case authSigV4:
		if a.signer == (aws.Principal{}) {
			return who, notAuthorized("the request is not signed with an access key")
		}
		who.Principal = a.signer
	default:
		return g.vouch(ctx, a, p, who)
	}
	return who, nil
}

func notAuthorized(detail string) *refusal {
	return &refusal{code: mqtt.NotAuthorized, silent: true, detail: detail}
}

// vouch has a custom authorizer say who connects.
func (g *Gateway) vouch(ctx context.Context, a *arrival, p *mqtt.Connect, holder party) (party, *refusal) {
	if g.authorizers == nil {
		return holder, notAuthorized("there are no custom authorizers")
	}
	c := &Credentials{
		ConnectionID: a.id, ServerName: a.serverName, SourceIP: address(a.remote).Addr().String(),
		Username: p.Username, Password: p.Password, ClientID: p.ClientID,
		DefaultAuthorizer: a.domain.DefaultAuthorizer, AllowOverride: a.domain.AllowAuthorizerOverride,
	}
	if a.upgrade != nil {
		c.WebSocket, c.Header, c.RawQuery = true, a.upgrade.header, a.upgrade.rawQuery
	}
	if holder.certificate != nil {
		c.Certificate, c.CertificateID = a.leaf, holder.ID
	}
	v, err := g.authorizers.Authenticate(ctx, c)
	if err != nil {
		return holder, notAuthorized(err.Error())
	}
	return party{Principal: v.Principal, certificate: holder.certificate, vouched: v}, nil
}

// guest is the lang.Authorizer of a connection that a custom authorizer vouched for.
type guest struct {
	g     *Gateway
	conn  *lang.Connection
	set   atomic.Pointer[lang.Set]
	epoch atomic.Uint64
}

func (g *Gateway) newGuest(v *Vouched, conn *lang.Connection) *guest {
	u := &guest{g: g, conn: conn}
	u.set.Store(v.Policies)
	return u
}

// replace has other policies govern from now on.
func (u *guest) replace(set *lang.Set) {
	u.set.Store(set)
	u.epoch.Add(1)
}

// Authorize implements lang.Authorizer.
func (u *guest) Authorize(action, resource string) lang.Decision {
	set := u.set.Load()
	if set.UsesTime() {
		c := *u.conn
		c.Time = u.g.now()
		return set.Evaluate(&c, action, resource)
	}
	return set.Evaluate(u.conn, action, resource)
}

// Epoch implements immediate.
func (u *guest) Epoch() (epoch uint64, ok bool) {
	epoch = u.epoch.Load() // before the policies: who sees the old number asks again
	return epoch, !u.set.Load().UsesTime()
}

// Cached implements immediate.
func (u *guest) Cached(action, resource string) (lang.Decision, bool) {
	return u.Authorize(action, resource), true
}

// principalID is a principal as lifecycle events and rules show it: a certificate's id, what a custom authorizer
// named, or an access key's id with the user that it belongs to.
func principalID(p aws.Principal) string {
	if _, user, ok := strings.Cut(p.ARN, ":user/"); ok && p.Type == "user" {
		return p.ID + ":" + user
	}
	return p.ID
}

// ownerID names a principal so that no two are the same: a custom authorizer may give the id of a certificate.
func ownerID(p aws.Principal) string {
	switch p.Type {
	case "", "certificate":
		return p.ID // has no colon
	}
	return p.Type + ":" + p.ID
}
