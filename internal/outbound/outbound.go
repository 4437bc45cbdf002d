package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// MaxAnswer bounds the body of an answer, in bytes.
const MaxAnswer = 16384

// Policy says where requests may go. Its zero value is the strictest.
type Policy struct {
	// Plain allows http.
	Plain bool
	// Private allows loopback and private addresses, and any port.
	Private bool
	// Roots verify servers; nil: those of the system.
	Roots *x509.CertPool
}

// Client sends requests. It is safe for concurrent use.
type Client struct {
	policy Policy
	http   *http.Client
}

// New makes a client. At most hostConnections connections are open to one host, so that one that does not answer
// takes nothing from the others.
func New(p Policy, hostConnections int) *Client {
	dialer := &net.Dialer{Timeout: 3 * time.Second, KeepAlive: 30 * time.Second, Control: p.control}
	return &Client{p, &http.Client{
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: p.Roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    3 * time.Second,
			ForceAttemptHTTP2:      true,
			MaxConnsPerHost:        hostConnections,
			MaxIdleConnsPerHost:    hostConnections,
			MaxIdleConns:           256,
			IdleConnTimeout:        60 * time.Second,
			MaxResponseHeaderBytes: MaxAnswer,
			DisableCompression:     true, // what is bounded is what arrives
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Check tells in one sentence why no request may go to a URL. Where a name leads is known only when the request is
// sent.
func (c *Client) Check(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return fmt.Errorf("%q is not a URL of the form https://host/path", text)
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("the scheme of %q is not https", text)
	case u.Scheme == "http" && !c.policy.Plain:
		return fmt.Errorf("the scheme of %q is not https, and the server does not allow http", text)
	case u.User != nil:
		return errors.New("the URL has a user or a password in it")
	case u.Fragment != "":
		return fmt.Errorf("%q has a fragment", text)
	case strings.ContainsAny(text, "\\ \t\r\n"):
		return fmt.Errorf("%q has characters that a URL does not", text)
	}
	if port := u.Port(); !c.policy.Private && port != "" && port != "443" && port != "8443" && (u.Scheme == "https" || port != "80") {
		return fmt.Errorf("the port of %q is neither 443 nor 8443", text)
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		return c.policy.allowed(a)
	}
	if host := strings.TrimSuffix(strings.ToLower(u.Hostname()), "."); !c.policy.Private && (host == "localhost" || strings.HasSuffix(host, ".localhost")) {
		return errAddress
	}
	return nil
}

var errAddress = errors.New("its address is not a public one, and the server does not allow others")

// IsRefused tells that an error of Do is that of an address to which no request may go.
func IsRefused(err error) bool { return errors.Is(err, errAddress) }

// control is called with the address that a connection is about to be made to.
func (p Policy) control(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return errAddress
	}
	return p.allowed(a.Addr())
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// never are addresses that no policy allows: no host, link-local ones, among them those where clouds keep the
// credentials of a machine, many hosts at once, and IPv6 addresses that lead to IPv4 ones.
var never = prefixes("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "::/128", "fe80::/10", "ff00::/8",
	"fd00:ec2::/32", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")

// private are loopback and networks that are not part of the Internet (RFC 6890).
var private = prefixes("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
	"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "::1/128", "fc00::/7", "fec0::/10", "100::/64", "2001:db8::/32")

func (p Policy) allowed(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	for _, n := range never {
		if n.Contains(a) {
			return errAddress
		}
	}
	for _, n := range private {
		if n.Contains(a) && !p.Private {
			return errAddress
		}
	}
	if a.Is6() && a.As16()[0] == 0 && !a.IsLoopback() { // ::a.b.c.d and others that are not global
		return errAddress
	}
	return nil
}

// Answer is what a server answered.
type Answer struct {
	Status int
	Body   []byte // at most MaxAnswer bytes
	// Long tells that the body was longer; the rest was not read.
	Long bool
}

// Do sends a request and reads the answer. The error of a request that had no answer says why without its URL, which
// may hold a secret.
func (c *Client) Do(ctx context.Context, r *http.Request) (*Answer, error) {
	if err := c.Check(r.URL.String()); err != nil {
		return nil, err
	}
	resp, err := c.http.Do(r.WithContext(ctx))
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("its answer: %w", err)
	}
	if len(body) > MaxAnswer {
		return &Answer{resp.StatusCode, body[:MaxAnswer], true}, nil
	}
	return &Answer{resp.StatusCode, body, false}, nil
}
