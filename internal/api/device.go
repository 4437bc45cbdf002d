package api

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/time/rate"

	"flotilla/internal/aws"
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

// maxAuthorizers bounds the authorizers that are kept between requests.
const maxAuthorizers = 4096

// door is the handler of devices.
type door struct {
	s          *Server
	principals Principals
	policies   Policies
	refusals   *rate.Limiter // of log lines

	mu          sync.Mutex
	authorizers map[party]lang.Authorizer
}

// party is what the authorizer of a request depends on.
type party struct{ principalARN, sourceIP, domain string }

// Device is the handler for devices: operations of the data planes over mutual
// TLS. Requests come from an http.Server on TLS connections that ask for client
// certificates. Who is not identified or not allowed gets ForbiddenException and
// no reason.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/http.html
func (s *Server) Device(p Principals, policies Policies) http.Handler {
	return &door{s: s, principals: p, policies: policies, refusals: rate.NewLimiter(1, 10), authorizers: map[party]lang.Authorizer{}}
}

var errForbidden = &aws.CommonError{Status: http.StatusForbidden, Code: "ForbiddenException", Message: "Forbidden"}

// ServeHTTP serves a device.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := d.s.begin(w, r)
	defer x.end()
	x.service = d.s.byScope["iotdata"]
	p, authorizer, err := d.identify(x)
	if err != nil {
		if d.refusals.Allow() {
			d.s.log.Info("a device is refused at the HTTPS door", "remote", r.RemoteAddr, "requestId", x.id, "err", err)
		}
		x.fail(errForbidden)
		return
	}
	if err := x.parse(); err != nil {
		x.fail(err)
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

// identify says who the device is, and what decides for it.
func (d *door) identify(x *exchange) (aws.Principal, lang.Authorizer, error) {
	var leaf *x509.Certificate
	domain := ""
	if t := x.r.TLS; t != nil {
		domain = t.ServerName
		if len(t.PeerCertificates) > 0 {
			leaf = t.PeerCertificates[0]
		}
	}
	if leaf == nil {
		return aws.Principal{}, nil, fmt.Errorf("api: no client certificate")
	}
	p, certificate, err := d.principals.Identify(x.r.Context(), leaf)
	if err != nil {
		return p, nil, err
	}
	of := party{p.ARN, x.sourceIP(), domain}
	d.mu.Lock()
	a := d.authorizers[of]
	d.mu.Unlock()
	if a != nil {
		return p, a, nil
	}
	a, err = d.policies.Open(x.r.Context(), p, &lang.Connection{Protocol: "http", SourceIP: of.sourceIP, DomainName: domain, Certificate: certificate})
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
