package server

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"path/filepath"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/gateway"
	"flotilla/internal/gateway/domain"
	"flotilla/internal/gateway/ticket"
	"flotilla/internal/identity"
	"flotilla/internal/identity/authorizer"
	"flotilla/internal/identity/signer"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
)

// What the doors ask of custom authorizers and domain configurations.

// issued gives the source of certificates that the deployment's authority issues for domains, kept in
// certificates/issued/NAME.
func issued(a *identity.Authority, data string) func(string) (domain.GetCertificate, error) {
	return func(name string) (domain.GetCertificate, error) {
		c, err := a.ServerCertificates(filepath.Join(data, "certificates", "issued", name), name)
		if err != nil {
			return nil, err
		}
		return c.GetCertificate, nil
	}
}

// ticketSealer seals the keys of session tickets as that of the authority is sealed.
func ticketSealer(passphrase string) ticket.Sealer {
	if passphrase == "" {
		return nil
	}
	return identity.NewSealer(passphrase)
}

type mqttAuthorizers struct{ of *authorizer.Authorizers }

func (a mqttAuthorizers) IsCustom(h http.Header, rawQuery string) bool {
	return authorizer.IsCustom(h, rawQuery)
}

func (a mqttAuthorizers) Authenticate(ctx context.Context, c *gateway.Credentials) (*gateway.Vouched, error) {
	protocol := authorizer.MQTT
	if c.WebSocket {
		protocol = authorizer.WebSocket
	}
	res, err := a.of.Authenticate(ctx, &authorizer.Request{
		Protocol: protocol, ConnectionID: c.ConnectionID, ServerName: c.ServerName, SourceIP: c.SourceIP, Header: c.Header, RawQuery: c.RawQuery,
		Username: c.Username, Password: c.Password, ClientID: c.ClientID,
		DefaultAuthorizer: c.DefaultAuthorizer, AllowOverride: c.AllowOverride, Certificate: c.Certificate, CertificateID: c.CertificateID,
	})
	if err != nil {
		return nil, err
	}
	return a.vouched(res), nil
}

func (a mqttAuthorizers) vouched(res *authorizer.Result) *gateway.Vouched {
	return &gateway.Vouched{
		Principal: res.Principal, Policies: res.Policies, DisconnectAfter: res.DisconnectAfter, RefreshAfter: res.RefreshAfter,
		Refresh: func(ctx context.Context) (*gateway.Vouched, error) {
			again, err := a.of.Refresh(ctx, res)
			if err != nil {
				return nil, err
			}
			return a.vouched(again), nil
		},
	}
}

type httpAuthorizers struct {
	of      *authorizer.Authorizers
	domains *domain.Domains
}

func (a httpAuthorizers) IsCustom(r *http.Request) bool {
	return authorizer.IsCustom(r.Header, r.URL.RawQuery)
}

func (a httpAuthorizers) Authenticate(r *http.Request, leaf *x509.Certificate, certificateID string) (aws.Principal, *lang.Set, error) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	req := &authorizer.Request{
		Protocol: authorizer.HTTP, ConnectionID: gateway.ConnectionID(r.Context()), SourceIP: host, Header: r.Header, RawQuery: r.URL.RawQuery,
		Certificate: leaf, CertificateID: certificateID,
	}
	if r.TLS != nil {
		req.ServerName = r.TLS.ServerName
	}
	if of, ok := a.domains.Lookup(req.ServerName); ok {
		req.DefaultAuthorizer, req.AllowOverride = of.DefaultAuthorizer, of.AllowAuthorizerOverride
	}
	res, err := a.of.Authenticate(r.Context(), req)
	if err != nil {
		return aws.Principal{}, nil, err
	}
	return res.Principal, res.Policies, nil
}

type httpDomains struct{ of *domain.Domains }

func (d httpDomains) Authentication(serverName string) string {
	c, ok := d.of.Lookup(serverName)
	if !ok {
		return ""
	}
	return c.AuthenticationType
}

func (d httpDomains) Admits(serverName, authentication string) bool {
	c, ok := d.of.Lookup(serverName)
	return ok && c.Admits(authentication, iot.ApplicationProtocolHttps)
}

// openAuthority opens the deployment's certificate authority, with the signer that is configured.
func openAuthority(ctx context.Context, db *store.DB, cfg *Config) (*identity.Authority, error) {
	c := identity.AuthorityConfig{Dir: cfg.Data, Passphrase: cfg.Identity.CAPassphrase}
	if cfg.Identity.Signer != "" {
		var err error
		if c.Signer, err = signer.Open(ctx, cfg.Identity.Signer); err != nil {
			return nil, err
		}
	}
	return identity.OpenAuthority(ctx, db, c)
}
