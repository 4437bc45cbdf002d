package api_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"flotilla/internal/api"
	"flotilla/internal/aws"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/policy/lang"
)

// upgrade makes the request of a presigned URL for MQTT over WebSocket.
func upgrade(t testing.TB, target, service string, at time.Time) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), signingKey, r, hash(""), service, "us-east-1", at)
	if err != nil {
		t.Fatal(err)
	}
	return served(t, signed)
}

func served(t testing.TB, target string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = r.URL.Host
	return r
}

// TestSigner: https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html
func TestSigner(t *testing.T) {
	s := api.New(api.Config{}, api.Deps{Account: account, Keys: &keys{}, Permissions: everything{}})
	const target = "https://iot.example.com/mqtt"
	now := time.Now()
	with := func(r *http.Request, change func(*http.Request)) *http.Request { change(r); return r }
	for what, c := range map[string]struct {
		r      *http.Request
		signed bool
		err    string
	}{
		"good":                      {upgrade(t, target, "iotdevicegateway", now), true, ""},
		"expires":                   {upgrade(t, target+"?X-Amz-Expires=600", "iotdevicegateway", now.Add(-500*time.Second)), true, ""},
		"the host without its port": {with(upgrade(t, target, "iotdevicegateway", now), func(r *http.Request) { r.Host += ":8443" }), true, ""},
		"by header": {with(served(t, target), func(r *http.Request) {
			sign(t, r, "iotdevicegateway", "", now)
		}), true, ""},
		"nothing":               {served(t, target+"?a=b"), false, ""},
		"a token of another's":  {with(served(t, target), func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }), false, ""},
		"a query that is none":  {served(t, target+"?%zz"), false, ""},
		"expired":               {upgrade(t, target+"?X-Amz-Expires=60", "iotdevicegateway", now.Add(-70*time.Second)), true, "Signature expired"},
		"expired by itself":     {upgrade(t, target, "iotdevicegateway", now.Add(-6*time.Minute)), true, "Signature expired"},
		"another service":       {upgrade(t, target, "iotdata", now), true, "correct service: 'iotdevicegateway'"},
		"another host":          {with(upgrade(t, target, "iotdevicegateway", now), func(r *http.Request) { r.Host = "other" }), true, "does not match"},
		"another path":          {with(upgrade(t, target, "iotdevicegateway", now), func(r *http.Request) { r.URL.Path = "/other" }), true, "does not match"},
		"another query":         {with(upgrade(t, target, "iotdevicegateway", now), func(r *http.Request) { r.URL.RawQuery += "&a=b" }), true, "does not match"},
		"a session":             {with(upgrade(t, target, "iotdevicegateway", now), func(r *http.Request) { r.URL.RawQuery += "&X-Amz-Security-Token=x" }), true, "security token"},
		"half a signature":      {served(t, target+"?X-Amz-Signature=00"), true, "must include"},
		"far too long":          {served(t, target+"?X-Amz-Signature="+strings.Repeat("0", 1<<16)), true, "too long"},
		"the path in two forms": {upgrade(t, "https://iot.example.com//mqtt", "iotdevicegateway", now), true, ""},
	} {
		p, signed, err := s.Signer(c.r)
		if signed != c.signed || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: signed %v, %v", what, signed, err)
		}
		if good := c.signed && c.err == ""; good != (p.ID == keyID) {
			t.Errorf("%s: %+v", what, p)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the secret is told: %v", what, err)
		}
	}
}

func FuzzSigner(f *testing.F) {
	s := api.New(api.Config{}, api.Deps{Account: account, Keys: &keys{}, Permissions: everything{}})
	good := upgrade(f, "https://iot.example.com/mqtt", "iotdevicegateway", time.Now())
	f.Add(good.URL.RawQuery, "", "/mqtt")
	f.Add("", "AWS4-HMAC-SHA256 Credential="+keyID+"/20260101/us-east-1/iotdevicegateway/aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "/mqtt")
	f.Fuzz(func(t *testing.T, query, authorization, path string) {
		r := &http.Request{Method: http.MethodGet, Host: "iot.example.com:8443", Header: http.Header{}, URL: &url.URL{Path: path, RawQuery: query}}
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		r = r.WithContext(t.Context())
		if p, signed, err := s.Signer(r); (p != aws.Principal{}) && (!signed || err != nil) {
			t.Errorf("%+v, signed %v, %v", p, signed, err)
		}
	})
}

// vouchers lets in who has the header Token: good.
type vouchers struct {
	set  *lang.Set
	leaf *x509.Certificate
	id   string
}

func (*vouchers) IsCustom(r *http.Request) bool { return r.Header.Get("Token") != "" }

func (v *vouchers) Authenticate(r *http.Request, leaf *x509.Certificate, id string) (aws.Principal, *lang.Set, error) {
	v.leaf, v.id = leaf, id
	if r.Header.Get("Token") != "good" {
		return aws.Principal{}, nil, errors.New("not vouched for")
	}
	return aws.Principal{Type: "authorizer", ID: "someone"}, v.set, nil
}

// domain is the one domain.
type domain struct{ authentication string }

func (d *domain) Authentication(string) string { return d.authentication }
func (d *domain) Admits(_, how string) bool {
	return d.authentication == "DEFAULT" || d.authentication == how
}

// TestDeviceAuthentication: https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html
func TestDeviceAuthentication(t *testing.T) {
	w := newWorld(t, api.Config{})
	var caller *aws.Caller
	api.Handle(w.Server, iotdata.Publish, func(ctx context.Context, _ *iotdata.PublishRequest) (*iotdata.PublishResponse, error) {
		caller = aws.CallerFrom(ctx)
		return &iotdata.PublishResponse{}, nil
	})
	doc, err := lang.Parse(strings.ReplaceAll(devicePolicy, "${iot:Certificate.Subject.CommonName}", "dev-1"))
	if err != nil {
		t.Fatal(err)
	}
	set := lang.Compile(lang.Named{Name: "p", Document: doc})
	f, v, d := &fleet{set: set}, &vouchers{set: set}, &domain{}
	s := httptest.NewUnstartedServer(w.Device(api.Devices{Principals: f, Policies: f, Authorizers: v, Domains: d}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	certificate, none := device(t, s, "dev-1"), device(t, s, "")
	const (
		yes, no = "", "ForbiddenException"
		token   = "token"
		key     = "key"
	)
	for _, c := range []struct {
		domain string
		client *http.Client
		with   string // token, key, another service's key
		topic  string
		code   string
		caller string
	}{
		{"DEFAULT", certificate, "", "data/dev-1/t", yes, "certificate"},
		{"DEFAULT", certificate, "", "elsewhere", no, ""},
		{"DEFAULT", none, "", "data/dev-1/t", no, ""},
		{"DEFAULT", none, token, "data/dev-1/t", yes, "authorizer"},
		{"DEFAULT", certificate, token, "data/dev-1/t", yes, "authorizer"},
		{"DEFAULT", none, token, "elsewhere", no, ""},
		{"DEFAULT", none, "bad", "data/dev-1/t", no, ""},
		{"DEFAULT", certificate, "bad", "data/dev-1/t", no, ""},
		{"DEFAULT", none, key, "elsewhere", yes, "user"},
		{"DEFAULT", certificate, key, "elsewhere", yes, "user"},
		{"AWS_X509", certificate, "", "data/dev-1/t", yes, "certificate"},
		{"AWS_X509", none, token, "data/dev-1/t", no, ""},
		{"AWS_X509", none, key, "data/dev-1/t", no, ""},
		{"AWS_SIGV4", none, key, "data/dev-1/t", yes, "user"},
		{"AWS_SIGV4", certificate, "", "data/dev-1/t", "MissingAuthenticationTokenException", ""},
		{"CUSTOM_AUTH", none, token, "data/dev-1/t", yes, "authorizer"},
		{"CUSTOM_AUTH", certificate, "", "data/dev-1/t", no, ""},
		{"CUSTOM_AUTH", none, key, "data/dev-1/t", no, ""},
		{"CUSTOM_AUTH_X509", certificate, token, "data/dev-1/t", yes, "authorizer"},
		{"CUSTOM_AUTH_X509", certificate, "", "data/dev-1/t", no, ""},
		{"CUSTOM_AUTH_X509", none, token, "data/dev-1/t", no, ""},
		{"CUSTOM_AUTH_X509", device(t, s, "revoked"), token, "data/dev-1/t", no, ""},
		{"", certificate, "", "data/dev-1/t", no, ""}, // a domain that is no one's
	} {
		d.authentication, caller, v.leaf, v.id = c.domain, nil, nil, ""
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/topics/"+c.topic, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		switch c.with {
		case token:
			r.Header.Set("Token", "good")
		case "bad":
			r.Header.Set("Token", "bad")
		case key:
			sign(t, r, "iotdevicegateway", "x", time.Now())
		}
		a := send(t, c.client, r)
		who := ""
		if caller != nil {
			who = caller.Type
		}
		if a.code != c.code || who != c.caller {
			t.Errorf("%s, %q, %s: %d %s, by %q", c.domain, c.with, c.topic, a.status, a.code, who)
		}
		if both := c.domain == "CUSTOM_AUTH_X509" && c.code == yes; both != (v.id == "dev-1" && v.leaf != nil) && c.with == token && c.code == yes {
			t.Errorf("%s: vouched with the certificate of %q", c.domain, v.id)
		}
	}
	d.authentication = "DEFAULT"
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/things", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if a := send(t, none, sign(t, r, "iot", "", time.Now())); a.code != "InvalidSignatureException" || !strings.Contains(a.message, "correct service") {
		t.Errorf("the control plane: %d %s", a.status, a.body)
	}
}
