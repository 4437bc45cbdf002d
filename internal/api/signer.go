package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"

	"flotilla/internal/aws"
)

// deviceGateway is the service that upgrades to WebSocket are signed for.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html
const deviceGateway = "iotdevicegateway"

// Signer gives the principal that signed a request for MQTT over WebSocket: in the
// query, as presigned URLs have it, or in the Authorization header. signed is false
// when the request bears no signature at all. The error says why a signature does
// not hold, and has nothing secret.
//
// Clients sign the name of the host with or without its port.
func (s *Server) Signer(r *http.Request) (p aws.Principal, signed bool, err error) {
	if len(r.URL.RawQuery) > maxHeaderBytes {
		return p, true, incomplete("The query is too long.")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || !isSigned(r, query) {
		return p, false, nil
	}
	sig, err := parseSignature(r, query)
	if err != nil {
		return p, true, err
	}
	if sig.service != deviceGateway {
		return p, true, invalidSignature("Credential should be scoped to correct service: '%s'.", deviceGateway)
	}
	secret, p, err := s.keys.AccessKey(r.Context(), sig.keyID)
	switch {
	case err != nil:
		return aws.Principal{}, true, err
	case secret == "":
		return aws.Principal{}, true, unrecognizedClient()
	}
	if err := sig.current(s.now(), s.cfg.MaxClockSkew); err != nil {
		return aws.Principal{}, true, err
	}
	path := r.URL.EscapedPath()
	got, err := s.verify(sig, secret, r, path, r.URL.RawQuery, nil)
	if host, _, splitErr := net.SplitHostPort(r.Host); err != nil && splitErr == nil {
		bare := *r
		if bare.Host = host; strings.Contains(host, ":") {
			bare.Host = "[" + host + "]"
		}
		got, err = s.verify(sig, secret, &bare, path, r.URL.RawQuery, nil)
	}
	if err == nil && got != path {
		err = errors.New("api: another path was signed")
	}
	if err != nil {
		return aws.Principal{}, true, err
	}
	return p, true, nil
}

// Holds tells whether an access key may still be used.
func (s *Server) Holds(ctx context.Context, p aws.Principal) (bool, error) {
	secret, now, err := s.keys.AccessKey(ctx, p.ID)
	return err == nil && secret != "" && now == p, err
}
