package api

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/time/rate"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/wire"
	"flotilla/internal/policy/lang"
)

// Principals says who holds a client certificate that a TLS handshake has proved.
type Principals interface {
	Identify(ctx context.Context, leaf *x509.Certificate) (aws.Principal, *lang.Certificate, error)
}

// Policies gives the authorizer of a connection; its answers follow every change.
type Policies interface {
	Open(ctx context.Context, p aws.Principal, conn *lang.Connection) (lang.Authorizer, error)
}

// Authorizers have custom authorizers vouch for requests.
type Authorizers interface {
	// IsCustom tells whether a request asks for custom authentication.
	IsCustom(r *http.Request) bool
	// Authenticate asks the responsible authorizer who sends a request, and by which policies it is governed.
	// leaf and the id of its principal are those of a client that must have a certificate too. The error is for
	// the operator.
	Authenticate(r *http.Request, leaf *x509.Certificate, certificateID string) (aws.Principal, *lang.Set, error)
}

// Domains are the domain configurations.
type Domains interface {
	// Authentication is the authenticationType of the domain with a server name; "" when it is no one's.
	Authentication(serverName string) string
	// Admits tells whether clients of the domain may authenticate so for HTTPS.
	Admits(serverName, authentication string) bool
}

// JustInTime registers certificates when they first connect.
type JustInTime interface {
	// FirstConnect is asked about a client whose certificate Identify refuses: chain is what it showed, its own
	// certificate first. Whatever comes of it the request is refused; the error, never nil, is for the operator.
	FirstConnect(ctx context.Context, chain []*x509.Certificate, serverName string, refused error) error
}

// Devices are the others that the door of devices works with.
type Devices struct {
	Principals  Principals
	Policies    Policies
	Authorizers Authorizers // nil: no custom authentication
	Domains     Domains     // nil: one domain, which leaves authentication to its clients
	JustInTime  JustInTime  // nil: a certificate that is not known stays so
}

// maxAuthorizers bounds the authorizers that are kept between requests.
const maxAuthorizers = 4096

// door is the handler of devices.
type door struct {
	Devices
	s        *Server
	refusals *rate.Limiter // of log lines

	mu          sync.Mutex
	authorizers map[party]lang.Authorizer
}

// party is what the authorizer of a request depends on.
type party struct{ principalARN, sourceIP, domain string }

// Device is the handler for devices: operations of the data planes. Requests come
// from an http.Server on TLS connections that ask for client certificates, and
// authenticate as their domain says, else by what they bring along:
//
//	a signature of an access key             everything of the data planes
//	the name of a custom authorizer, or the  what the policies allow that it answers
//	    signature of its token
//	a client certificate                     what its policies allow
//	nothing of these                         as for the default authorizer
//
// Who is not identified or not allowed gets ForbiddenException and no reason, but
// that signatures are answered as everywhere.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/http.html
func (s *Server) Device(d Devices) http.Handler {
	return &door{Devices: d, s: s, refusals: rate.NewLimiter(1, 10), authorizers: map[party]lang.Authorizer{}}
}

var errForbidden = &aws.CommonError{Status: http.StatusForbidden, Code: "ForbiddenException", Message: "Forbidden"}

// ServeHTTP serves a device.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := d.s.begin(w, r)
	defer x.end()
	x.service = d.s.byScope["iotdata"]
	if err := x.parse(); err != nil {
		x.fail(err)
		return
	}
	how := d.authentication(x)
	if how == authSigV4 && d.admits(x, how) {
		d.signed(x)
		return
	}
	p, authorizer, err := d.identify(x, how)
	if err != nil {
		if d.refusals.Allow() {
			d.s.log.Info("a device is refused at the HTTPS door", "remote", r.RemoteAddr, "requestId", x.id, "err", err)
		}
		x.fail(errForbidden)
		return
	}
	e, labels := x.service.find(r.Method, x.path)
	if e == nil {
		jobs := d.s.byScope["iot-jobs-data"]
		if e, labels = jobs.find(r.Method, x.path); e == nil {
			x.fail(x.service.unknown(r.Method, x.path))
			return
		}
		x.service = jobs
	}
	demand := demands[e.Name]
	if demand == nil { // not for devices
		x.fail(errForbidden)
		return
	}
	for _, need := range demand(d.s.account, labels, x) {
		if decision := authorizer.Authorize(need.action, need.resource); !decision.Allowed() {
			d.s.log.Debug("a device's request is denied", "principal", p.ID, "op", e.Name, "requestId", x.id, "action", need.action, "resource", need.resource, "effect", decision.Effect, "policy", decision.Policy)
			x.endpoint = e
			x.fail(errForbidden)
			return
		}
	}
	if err := x.readBody(); err != nil {
		x.fail(err)
		return
	}
	x.call(e, labels, p)
}

const (
	authX509       = iot.AuthenticationTypeAwsX509
	authSigV4      = iot.AuthenticationTypeAwsSigv4
	authCustom     = iot.AuthenticationTypeCustomAuth
	authCustomX509 = iot.AuthenticationTypeCustomAuthX509

	alpnX509 = "x-amzn-http-ca"
)

// authentication is how a request authenticates; "" when its server name is no one's.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html
func (d *door) authentication(x *exchange) string {
	if d.Domains != nil {
		if how := d.Domains.Authentication(x.serverName()); how != iot.AuthenticationTypeDefault {
			return how
		}
	}
	switch {
	case x.r.TLS != nil && x.r.TLS.NegotiatedProtocol == alpnX509:
		return authX509
	case isSigned(x.r, x.query):
		return authSigV4
	case d.Authorizers == nil:
		return authX509
	case d.Authorizers.IsCustom(x.r):
		return authCustom
	case x.leaf() != nil:
		return authX509
	}
	return authCustom
}

// admits tells whether the domain of a request lets such clients in.
func (d *door) admits(x *exchange, how string) bool {
	return d.Domains == nil || d.Domains.Admits(x.serverName(), how)
}

// signed serves a caller with an access key: the data planes and objects.
func (d *door) signed(x *exchange) {
	sig, err := parseSignature(x.r, x.query)
	if err != nil {
		x.fail(err)
		return
	}
	if sig.service == scopeS3 {
		d.s.serveSigned(x, sig)
		return
	}
	switch service := d.s.byScope[sig.service]; service {
	case d.s.byScope["iotdata"], d.s.byScope["iot-jobs-data"]:
		x.service = service
		d.s.serveSigned(x, sig)
	default:
		x.fail(invalidSignature("Credential should be scoped to correct service: 'iotdata'."))
	}
}

// serverName is what the client asked for in the TLS handshake.
func (x *exchange) serverName() string {
	if x.r.TLS == nil {
		return ""
	}
	return x.r.TLS.ServerName
}

// leaf is the client certificate; nil without.
func (x *exchange) leaf() *x509.Certificate {
	if x.r.TLS == nil || len(x.r.TLS.PeerCertificates) == 0 {
		return nil
	}
	return x.r.TLS.PeerCertificates[0]
}

// identify says who the device is, and what decides for it.
func (d *door) identify(x *exchange, how string) (aws.Principal, lang.Authorizer, error) {
	if !d.admits(x, how) {
		return aws.Principal{}, nil, fmt.Errorf("api: the domain %q does not admit %s", printable(x.serverName()), how)
	}
	switch how {
	case authX509:
		return d.byCertificate(x)
	case authCustom, authCustomX509:
		return d.byAuthorizer(x, how)
	}
	return aws.Principal{}, nil, fmt.Errorf("api: the domain %q does not let requests authenticate", printable(x.serverName()))
}

// byAuthorizer has a custom authorizer vouch for the request.
func (d *door) byAuthorizer(x *exchange, how string) (aws.Principal, lang.Authorizer, error) {
	if d.Authorizers == nil {
		return aws.Principal{}, nil, errors.New("api: there are no custom authorizers")
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), d.s.cfg.Timeout)
	defer cancel()
	conn := &lang.Connection{Protocol: "http", SourceIP: x.sourceIP(), DomainName: x.serverName(), Time: d.s.now()}
	var leaf *x509.Certificate
	certificateID := ""
	if how == authCustomX509 {
		if leaf = x.leaf(); leaf == nil {
			return aws.Principal{}, nil, errNoCertificate
		}
		holder, certificate, err := d.Principals.Identify(ctx, leaf)
		if err != nil {
			return aws.Principal{}, nil, err
		}
		certificateID, conn.Certificate = holder.ID, certificate
	}
	p, set, err := d.Authorizers.Authenticate(x.r.WithContext(ctx), leaf, certificateID)
	if err != nil {
		return aws.Principal{}, nil, err
	}
	return p, set.For(conn), nil
}

var errNoCertificate = errors.New("api: no client certificate")

func (d *door) byCertificate(x *exchange) (aws.Principal, lang.Authorizer, error) {
	leaf, domain := x.leaf(), x.serverName()
	if leaf == nil {
		return aws.Principal{}, nil, errNoCertificate
	}
	p, certificate, err := d.Principals.Identify(x.r.Context(), leaf)
	if err != nil {
		if d.JustInTime != nil {
			err = d.JustInTime.FirstConnect(x.r.Context(), x.r.TLS.PeerCertificates, domain, err)
		}
		return p, nil, err
	}
	of := party{p.ARN, x.sourceIP(), domain}
	d.mu.Lock()
	a := d.authorizers[of]
	d.mu.Unlock()
	if a != nil {
		return p, a, nil
	}
	a, err = d.Policies.Open(x.r.Context(), p, &lang.Connection{Protocol: "http", SourceIP: of.sourceIP, DomainName: domain, Certificate: certificate})
	if err != nil {
		return p, nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.authorizers) >= maxAuthorizers {
		for old := range d.authorizers { // any
			delete(d.authorizers, old)
			break
		}
	}
	d.authorizers[of] = a
	return p, a, nil
}

// need is something that the policies must allow.
type need struct{ action, resource string }

// demands are the operations that devices have, and what each needs.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-policy-actions.html
var demands = map[string]func(a aws.Account, labels []string, x *exchange) []need{
	"GetThingShadow":           onShadow("iot:GetThingShadow"),
	"UpdateThingShadow":        onShadow("iot:UpdateThingShadow"),
	"DeleteThingShadow":        onShadow("iot:DeleteThingShadow"),
	"ListNamedShadowsForThing": onThing("iot:ListNamedShadowsForThing"),
	"GetRetainedMessage": func(a aws.Account, labels []string, _ *exchange) []need {
		return []need{{"iot:GetRetainedMessage", a.ARN("iot", "topic/"+labels[0])}}
	},
	"ListRetainedMessages": func(aws.Account, []string, *exchange) []need {
		return []need{{"iot:ListRetainedMessages", "*"}}
	},
	"Publish": func(a aws.Account, labels []string, x *exchange) []need {
		topic := a.ARN("iot", "topic/"+labels[0])
		if retains(x) {
			return []need{{"iot:Publish", topic}, {"iot:RetainPublish", topic}}
		}
		return []need{{"iot:Publish", topic}}
	},
	"DescribeJobExecution":         onThing("iot:DescribeJobExecution"),
	"GetPendingJobExecutions":      onThing("iot:GetPendingJobExecutions"),
	"StartNextPendingJobExecution": onThing("iot:StartNextPendingJobExecution"),
	"UpdateJobExecution":           onThing("iot:UpdateJobExecution"),
}

func onThing(action string) func(aws.Account, []string, *exchange) []need {
	return func(a aws.Account, labels []string, _ *exchange) []need {
		return []need{{action, a.ARN("iot", "thing/"+labels[0])}}
	}
}

func onShadow(action string) func(aws.Account, []string, *exchange) []need {
	return func(a aws.Account, labels []string, x *exchange) []need {
		resource := "thing/" + labels[0]
		if name, _ := (&wire.Request{Query: x.query}).QueryValue("name"); name != "" {
			resource += "/" + name
		}
		return []need{{action, a.ARN("iot", resource)}}
	}
}

// retains tells whether a Publish asks for RETAIN: all but a plain no counts.
func retains(x *exchange) bool {
	text, ok := (&wire.Request{Query: x.query}).QueryValue("retain")
	return ok && !strings.EqualFold(text, "false")
}
