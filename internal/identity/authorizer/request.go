package authorizer

import (
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Protocol is what a request arrives by.
type Protocol uint8

// The protocols that custom authentication has.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth.html
const (
	MQTT      Protocol = iota // MQTT over TLS: parameters are in the user name
	WebSocket                 // MQTT over WebSocket: in the upgrade's headers or query string, or in the user name
	HTTP                      // HTTPS publish: in headers or query string
)

// Request is what a connection, or an HTTPS request, brings along. Only MQTT and WebSocket have the members of the
// CONNECT packet, only WebSocket and HTTP those of the HTTP request.
type Request struct {
	Protocol     Protocol
	ConnectionID string // names the connection to the function; one is made up when ""
	ServerName   string // SNI; "" without
	SourceIP     string // without port, for the log

	Header   http.Header // of the upgrade or request
	RawQuery string      // of the upgrade or request, without "?"

	Username string
	Password []byte
	ClientID string

	// What the domain configuration says that the device connected to. Without a DefaultAuthorizer the account's is
	// the default, and any authorizer may be named; with one, another may be named if AllowOverride.
	DefaultAuthorizer string
	AllowOverride     bool

	// Certificate is the client certificate of a connection that must also have one (CUSTOM_AUTH_X509), CertificateID
	// its principal; nil otherwise.
	Certificate   *x509.Certificate
	CertificateID string

	// AuthorizerName, Token and Signature are looked for where AWS documents them when they are "".
	AuthorizerName, Token, Signature string
}

// Names of parameters.
const (
	nameParameter      = "x-amz-customauthorizer-name"
	signatureParameter = "x-amz-customauthorizer-signature"
)

// IsCustom tells whether an HTTP request asks for custom authentication, by naming an authorizer or bringing a
// signature; without either it may still be meant for a default authorizer.
func IsCustom(h http.Header, rawQuery string) bool {
	if h.Get(nameParameter) != "" || h.Get(signatureParameter) != "" {
		return true
	}
	p, err := parseParameters(rawQuery)
	return err == nil && (p.get(nameParameter) != "" || p.get(signatureParameter) != "")
}

const (
	maxParameterBytes = 16 << 10
	maxParameterCount = 64
)

// parameters are those of a query string, in order.
type parameters []parameter

type parameter struct{ name, value string }

var (
	errTooLong   = errors.New("the query string is too long")
	errTooMany   = errors.New("the query string has too many parameters")
	errEscape    = errors.New("the query string has an invalid escape")
	errAmbiguous = errors.New("a parameter is given more than once")
)

// parseParameters decodes a query string, without its "?", as HTML forms do.
func parseParameters(query string) (parameters, error) {
	if len(query) > maxParameterBytes {
		return nil, errTooLong
	}
	var p parameters
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		if len(p) == maxParameterCount {
			return nil, errTooMany
		}
		name, value, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return nil, errEscape
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return nil, errEscape
		}
		p = append(p, parameter{name, value})
	}
	return p, nil
}

// get gives the first value of a parameter, "" without.
func (p parameters) get(name string) string {
	i := slices.IndexFunc(p, func(p parameter) bool { return p.name == name })
	if i < 0 {
		return ""
	}
	return p[i].value
}

// unique gives the value of a parameter; what is there twice could be read in two ways.
func (p parameters) unique(name string) (string, error) {
	n := 0
	for i := range p {
		if p[i].name == name {
			n++
		}
	}
	if n > 1 {
		return "", errAmbiguous
	}
	return p.get(name), nil
}

// parseUsername takes the parameters out of an MQTT user name: what follows its first "?".
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth.html#custom-auth-mqtt
func parseUsername(username string) (parameters, error) {
	_, query, _ := strings.Cut(username, "?")
	return parseParameters(query)
}

// source finds parameters of a request.
type source struct {
	header          http.Header
	query, username parameters
}

func (r *Request) source() (s source, err error) {
	if r.Protocol != MQTT {
		s.header = r.Header
		if s.query, err = parseParameters(strings.TrimPrefix(r.RawQuery, "?")); err != nil {
			return s, err
		}
	}
	if r.Protocol != HTTP {
		s.username, err = parseUsername(r.Username)
	}
	return s, err
}

// find gives a parameter: from the headers, else from the query string, else from the user name; "" without.
func (s *source) find(name string) (string, error) {
	switch values := s.header.Values(name); {
	case len(values) > 1:
		return "", errAmbiguous
	case len(values) == 1 && values[0] != "":
		return values[0], nil
	}
	v, err := s.query.unique(name)
	if v != "" || err != nil {
		return v, err
	}
	return s.username.unique(name)
}

// or gives a value that is already known, or else finds it.
func (s *source) or(known, name string) (string, error) {
	if known != "" || name == "" {
		return known, nil
	}
	return s.find(name)
}
