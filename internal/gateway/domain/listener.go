package domain

import (
	"crypto/tls"
	"fmt"
	"slices"
	"sync"

	"flotilla/internal/aws/iot"
	"flotilla/internal/gateway/ticket"
)

// Reason says why a handshake is refused.
type Reason string

// The reasons.
const (
	ReasonUnknown     Reason = "no domain configuration has this server name"
	ReasonDisabled    Reason = "the domain configuration is DISABLED"
	ReasonCertificate Reason = "there is no server certificate"
)

// RefusedError is the error of a handshake for a domain that can't be served. It is for the operator.
type RefusedError struct {
	ServerName string // as it was asked for, bounded
	Reason     Reason
	Err        error // of the certificate
}

func (e *RefusedError) Error() string {
	text := "domain: " + e.ServerName + ": " + string(e.Reason)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *RefusedError) Unwrap() error { return e.Err }

// ALPN protocols that say how a client authenticates.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html
const (
	alpnCustom   = "mqtt"
	alpnMQTTCert = "x-amzn-mqtt-ca"
	alpnHTTPCert = "x-amzn-http-ca"
)

// TLS gives the configuration of a listener that serves the domains by server name. base is what a connection to
// iot:Data-ATS gets: its certificates, its NextProtos (which decide, with the client's, what is spoken) and its
// ClientAuth, which holds when neither the configuration nor ALPN says how the client authenticates. base is copied.
//
// A session is resumed only where it began: under the same configuration, with the same demands on the client's
// certificate.
func (d *Domains) TLS(base *tls.Config) *tls.Config {
	l := &listener{domains: d, base: base.Clone()}
	out := base.Clone()
	out.GetConfigForClient = l.config
	return out
}

// listener keeps the configurations of one base.
type listener struct {
	domains *Domains
	base    *tls.Config

	mu    sync.Mutex
	of    *snapshot   // that ready belongs to, with keys
	keys  *ticket.Set // nil: the process's own
	ready map[variant]*tls.Config
}

// variant is what the configurations of one base differ in.
type variant struct {
	entry *entry
	auth  tls.ClientAuthType
}

// config is the GetConfigForClient of a listener.
func (l *listener) config(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	d := l.domains
	s, err := d.load(hello.Context())
	if err != nil {
		return nil, err
	}
	e, known := d.entry(s, hello.ServerName)
	switch {
	case !known && d.cfg.RefuseUnknown:
		return nil, &RefusedError{ServerName: bounded(hello.ServerName), Reason: ReasonUnknown}
	case !e.Enabled:
		return nil, &RefusedError{ServerName: bounded(hello.ServerName), Reason: ReasonDisabled}
	}
	auth := e.clientAuth(negotiate(l.base.NextProtos, hello.SupportedProtos), l.base.ClientAuth)
	var keys *ticket.Set
	if d.tickets != nil {
		keys = d.tickets.Current()
	}
	if keys == nil && e == s.def && auth == l.base.ClientAuth && e.SecurityPolicy == defaultPolicy {
		return nil, nil // as it is
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of != s || l.keys != keys {
		l.of, l.keys, l.ready = s, keys, map[variant]*tls.Config{}
	}
	v := variant{e, auth}
	cfg := l.ready[v]
	if cfg == nil {
		cfg = l.make(e, auth)
		if keys != nil {
			cfg.SetSessionTicketKeys(keys.For(e.purpose(cfg)))
		}
		l.ready[v] = cfg
	}
	return cfg, nil
}

// make builds the configuration of a domain.
func (l *listener) make(e *entry, auth tls.ClientAuthType) *tls.Config {
	cfg := l.base.Clone()
	cfg.ClientAuth = auth
	cfg.MinVersion = max(cfg.MinVersion, e.versions.min)
	if cfg.MaxVersion == 0 || cfg.MaxVersion > e.versions.max {
		cfg.MaxVersion = e.versions.max
	}
	if e.get != nil {
		cfg.Certificates = nil
		cfg.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, err := e.get(hello)
			if err != nil {
				return nil, &RefusedError{bounded(hello.ServerName), ReasonCertificate, err}
			}
			return cert, nil
		}
	}
	return cfg
}

// purpose names what a session ticket is good for: it tells apart whatever makes one configuration demand other things
// of a client than another one, or than itself before a change.
func (e *entry) purpose(cfg *tls.Config) string {
	return fmt.Sprintf("%q %q %s %d %x-%x", e.Name, e.DomainName, e.AuthenticationType, cfg.ClientAuth, cfg.MinVersion, cfg.MaxVersion)
}

// clientAuth says whether a client certificate is asked for.
func (e *entry) clientAuth(alpn string, otherwise tls.ClientAuthType) tls.ClientAuthType {
	switch e.AuthenticationType {
	case iot.AuthenticationTypeAwsX509, iot.AuthenticationTypeCustomAuthX509:
		return tls.RequireAnyClientCert
	case iot.AuthenticationTypeCustomAuth, iot.AuthenticationTypeAwsSigv4:
		return tls.NoClientCert
	}
	switch alpn {
	case alpnMQTTCert, alpnHTTPCert:
		return tls.RequireAnyClientCert
	case alpnCustom:
		return tls.NoClientCert
	}
	return otherwise
}

// negotiate gives the protocol that the handshake will agree on, as crypto/tls picks it; "" when none.
func negotiate(ours, theirs []string) string {
	for _, p := range ours {
		if slices.Contains(theirs, p) {
			return p
		}
	}
	return ""
}
