package outbound_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"flotilla/internal/outbound"
)

func TestCheck(t *testing.T) {
	strict, lab := outbound.Policy{}, outbound.Policy{Plain: true, Private: true}
	for _, c := range []struct {
		url         string
		strict, lab bool
	}{
		{"https://example.com/a?b=c", true, true},
		{"https://example.com:8443/", true, true},
		{"https://example.com:8444/", false, true},
		{"http://example.com/", false, true},
		{"https://8.8.8.8/", true, true},
		{"https://10.1.2.3/", false, true},
		{"https://127.0.0.1/", false, true},
		{"https://localhost/", false, true},
		{"https://a.localhost./", false, true},
		{"https://[::1]/", false, true},
		{"https://[::ffff:127.0.0.1]/", false, true},
		{"https://[::127.0.0.1]/", false, false},
		{"https://[64:ff9b::7f00:1]/", false, false},
		{"https://169.254.169.254/latest/meta-data", false, false},
		{"https://[fd00:ec2::254]/", false, false},
		{"https://[fe80::1%25eth0]/", false, false},
		{"https://0.0.0.0/", false, false},
		{"https://224.0.0.1/", false, false},
		{"https://user:pw@example.com/", false, false},
		{"https://example.com/#a", false, false},
		{"ftp://example.com/", false, false},
		{"file:///etc/passwd", false, false},
		{"https:example.com", false, false},
		{"https:///path", false, false},
		{"https://example.com\\@evil.example/", false, false},
		{"", false, false},
	} {
		if err := outbound.New(strict, 1).Check(c.url); (err == nil) != c.strict {
			t.Errorf("strict %q: %v", c.url, err)
		}
		if err := outbound.New(lab, 1).Check(c.url); (err == nil) != c.lab {
			t.Errorf("lab %q: %v", c.url, err)
		}
	}
}

func post(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, url, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A name that leads to a private address is refused when the connection is made.
func TestDo_NameOfPrivateAddress(t *testing.T) {
	called := false
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	defer s.Close()
	policy := outbound.Policy{}
	for _, url := range []string{"https://localhost.:443/", "https://ip6-localhost:443/", "https://no-such-name.invalid:443/"} {
		_, err := outbound.New(policy, 1).Do(context.Background(), post(t, url))
		if _, unknown := errors.AsType[*net.DNSError](err); !unknown && !outbound.IsRefused(err) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if called {
		t.Error("a request arrived")
	}
}

func TestDo(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/other", http.StatusTemporaryRedirect)
		case "/long":
			_, _ = w.Write(make([]byte, outbound.MaxAnswer+1))
		default:
			_, _ = w.Write([]byte("ok"))
		}
	}))
	defer s.Close()
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1") // would refuse
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c := outbound.New(outbound.Policy{Private: true, Roots: roots}, 4)
	defer c.Close()
	if a, err := c.Do(context.Background(), post(t, s.URL)); err != nil || a.Status != 200 || string(a.Body) != "ok" {
		t.Errorf("%+v %v", a, err)
	}
	if a, err := c.Do(context.Background(), post(t, s.URL+"/redirect")); err != nil || a.Status != http.StatusTemporaryRedirect {
		t.Errorf("a redirect: %+v %v", a, err)
	}
	if a, err := c.Do(context.Background(), post(t, s.URL+"/long")); err != nil || !a.Long {
		t.Errorf("a long answer: %v", err)
	}
	untrusting := outbound.New(outbound.Policy{Private: true}, 4)
	defer untrusting.Close()
	if _, err := untrusting.Do(context.Background(), post(t, s.URL)); err == nil {
		t.Error("a server of an unknown authority was trusted")
	} else if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		t.Errorf("%v", err)
	}
}
