package api_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"flotilla/internal/api"
	"flotilla/internal/aws/iot"
)

// listThings is a door with one operation.
func listThings(t *testing.T, cfg api.Config) (w *world, called *int) {
	t.Helper()
	w, called = newWorld(t, cfg), new(int)
	api.Handle(w.Server, iot.ListThings, func(context.Context, *iot.ListThingsRequest) (*iot.ListThingsResponse, error) {
		*called++
		return &iot.ListThingsResponse{}, nil
	})
	api.Handle(w.Server, iot.CreatePolicy, func(context.Context, *iot.CreatePolicyRequest) (*iot.CreatePolicyResponse, error) {
		*called++
		return &iot.CreatePolicyResponse{}, nil
	})
	return w, called
}

// TestRefusedSignatures: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
func TestRefusedSignatures(t *testing.T) {
	w, called := listThings(t, api.Config{})
	now := time.Now()
	get := func() *http.Request { return w.request(t, "GET", "/things?maxResults=5", "") }
	signed := func(change func(*http.Request)) *http.Request {
		r := sign(t, get(), "iot", "", now)
		change(r)
		return r
	}
	replace := func(old, new string) *http.Request {
		return signed(func(r *http.Request) {
			auth := r.Header.Get("Authorization")
			if !strings.Contains(auth, old) {
				t.Fatalf("%q is not in %q", old, auth)
			}
			r.Header.Set("Authorization", strings.Replace(auth, old, new, 1))
		})
	}
	post := func(body string, change func(*http.Request)) *http.Request {
		r := w.request(t, "POST", "/policies/p", body)
		r.Header.Set("x-amz-tagging", "k=v")
		sign(t, r, "iot", body, now)
		change(r)
		return r
	}
	const (
		missing    = "MissingAuthenticationTokenException"
		incomplete = "IncompleteSignatureException"
		invalid    = "InvalidSignatureException"
		unknown    = "UnrecognizedClientException"
		mismatch   = "The request signature we calculated does not match the signature you provided."
	)
	for name, c := range map[string]struct {
		r             *http.Request
		code, message string
	}{
		"no signature":    {get(), missing, "Missing Authentication Token"},
		"unknown key":     {replace(keyID, "AKIAIOSFODNN7EXAMPLF"), unknown, "The security token included in the request is invalid."},
		"wrong secret":    {signAs(t, sdk.Credentials{AccessKeyID: keyID, SecretAccessKey: "no"}, get(), "iot", "", now), invalid, mismatch},
		"session token":   {signAs(t, sdk.Credentials{AccessKeyID: keyID, SecretAccessKey: secret, SessionToken: "x"}, get(), "iot", "", now), unknown, ""},
		"clock behind":    {sign(t, get(), "iot", "", now.Add(-16*time.Minute)), invalid, "Signature expired: "},
		"clock ahead":     {sign(t, get(), "iot", "", now.Add(16*time.Minute)), invalid, "Signature not yet current: "},
		"tampered query":  {signed(func(r *http.Request) { r.URL.RawQuery = "maxResults=6" }), invalid, mismatch},
		"tampered path":   {signed(func(r *http.Request) { r.URL.Path = "/thing-groups" }), invalid, mismatch},
		"tampered method": {signed(func(r *http.Request) { r.Method = "DELETE" }), invalid, mismatch},
		"tampered host":   {signed(func(r *http.Request) { r.Host = "iot.example.com" }), invalid, mismatch},
		"tampered date": {signed(func(r *http.Request) {
			r.Header.Set("X-Amz-Date", now.Add(time.Second).UTC().Format("20060102T150405Z"))
		}), invalid, ""},
		"tampered region":  {replace("us-east-1", "us-east-2"), invalid, mismatch},
		"tampered service": {replace("/iot/", "/iotdata/"), invalid, mismatch},
		"no date":          {signed(func(r *http.Request) { r.Header.Del("X-Amz-Date") }), incomplete, "'X-Amz-Date' or a 'Date' header"},
		"bad date":         {signed(func(r *http.Request) { r.Header.Set("X-Amz-Date", "yesterday") }), incomplete, "ISO-8601"},
		"other day":        {replace(now.UTC().Format("20060102"), "20200101"), invalid, "Date in Credential scope does not match"},
		"no credential":    {replace("Credential=", "C="), incomplete, "requires 'Credential' parameter"},
		"short credential": {replace("/us-east-1", ""), incomplete, "exactly 5 slash-delimited elements"},
		"terminator":       {replace("aws4_request", "aws5_request"), invalid, "valid terminator"},
		"no signed":        {replace("SignedHeaders=", "X="), incomplete, "requires 'SignedHeaders' parameter"},
		"host not signed":  {replace("SignedHeaders=host;", "SignedHeaders="), invalid, "'Host'"},
		"no mac":           {replace("Signature=", "S="), incomplete, "requires 'Signature' parameter"},
		"short mac":        {replace("Signature=", "Signature=00"), invalid, mismatch},
		"mac not hex": {signed(func(r *http.Request) {
			r.Header.Set("Authorization", r.Header.Get("Authorization")[:100]+"Signature="+strings.Repeat("z", 64))
		}), incomplete, ""},
		"no pairs":    {signed(func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 x") }), incomplete, "missing equal-sign"},
		"twice":       {replace("Credential=", "Credential=a, Credential="), incomplete, "more than once"},
		"basic":       {signed(func(r *http.Request) { r.SetBasicAuth("a", "b") }), incomplete, "Unsupported AWS 'algorithm'"},
		"sigv4a":      {replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), incomplete, "Unsupported AWS 'algorithm'"},
		"two headers": {signed(func(r *http.Request) { r.Header.Add("Authorization", "x") }), incomplete, ""},
		"long header": {signed(func(r *http.Request) { r.Header.Set("Authorization", strings.Repeat("x", 9000)) }), incomplete, ""},

		"tampered body":        {post(`{"policyDocument":"{}"}`, func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(`{"policyDocument":"[]"}`)) }), invalid, mismatch},
		"body in the end":      {post(`{}`, func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader(`{} `)), 3 }), invalid, mismatch},
		"signed header gone":   {post(`{}`, func(r *http.Request) { r.Header.Del("X-Amz-Tagging") }), invalid, mismatch},
		"signed header other":  {post(`{}`, func(r *http.Request) { r.Header.Set("X-Amz-Tagging", "k=w") }), invalid, mismatch},
		"signed header twice":  {post(`{}`, func(r *http.Request) { r.Header.Add("X-Amz-Tagging", "k=w") }), invalid, "x-amz-tagging"},
		"signed header split":  {splitHeader(t, w, now), invalid, "x-amz-tagging"},
		"header not signed":    {post(`{}`, func(r *http.Request) { r.Header.Set("X-Amzn-Principal", "arn") }), invalid, "headers present in the request which were not signed: x-amzn-principal"},
		"content hash":         {unsignedPayload(t, w.request(t, "POST", "/policies/p", "{}"), hash("other"), now), invalid, mismatch},
		"unsigned payload":     {unsignedPayload(t, w.request(t, "POST", "/policies/p", "{}"), "UNSIGNED-PAYLOAD", now), invalid, mismatch},
		"presigned, nothing":   {w.request(t, "GET", "/things?X-Amz-Algorithm=AWS4-HMAC-SHA256", ""), incomplete, "must include 'X-Amz-Credential'"},
		"presigned, expired":   {presign(t, w, "GET", "/things", 60, now.Add(-2*time.Minute)), invalid, "Signature expired"},
		"presigned, forever":   {presign(t, w, "GET", "/things", 604801, now), incomplete, "X-Amz-Expires"},
		"presigned, tampered":  {presign(t, w, "GET", "/things", 60, now, func(r *http.Request) { r.URL.RawQuery += "&maxResults=1" }), invalid, mismatch},
		"presigned, with body": {presign(t, w, "POST", "/policies/p", 60, now, func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader(`{}`)), 2 }), invalid, mismatch},
	} {
		t.Run(name, func(t *testing.T) {
			a := send(t, http.DefaultClient, c.r)
			if a.status != 403 || a.code != c.code || !strings.Contains(a.message, c.message) {
				t.Errorf("got %d %s %q, want 403 %s %q", a.status, a.code, a.message, c.code, c.message)
			}
			if strings.Contains(a.body, secret) {
				t.Error("the answer holds the secret")
			}
		})
	}
	if *called != 0 {
		t.Errorf("%d calls reached a room", *called)
	}
	if log := w.log.String(); log != "" {
		t.Errorf("log:\n%s", log)
	}
}

// splitHeader says in two headers what was signed as one.
func splitHeader(t *testing.T, w *world, now time.Time) *http.Request {
	t.Helper()
	r := w.request(t, "POST", "/policies/p", "{}")
	r.Header.Set("X-Amz-Tagging", "a=b,c=d")
	sign(t, r, "iot", "{}", now)
	r.Header["X-Amz-Tagging"] = []string{"a=b", "c=d"}
	return r
}

func unsignedPayload(t *testing.T, r *http.Request, hash string, now time.Time) *http.Request {
	t.Helper()
	r.Header.Set("X-Amz-Content-Sha256", hash)
	if err := v4.NewSigner().SignHTTP(t.Context(), signingKey, r, hash, "iot", "us-east-1", now); err != nil {
		t.Fatal(err)
	}
	return r
}

func presign(t *testing.T, w *world, method, target string, seconds int, at time.Time, change ...func(*http.Request)) *http.Request {
	t.Helper()
	sep := "?"
	if strings.Contains(target, "?") {
		sep = "&"
	}
	r := w.request(t, method, target+sep+"X-Amz-Expires="+itoa(seconds), "")
	url, _, err := v4.NewSigner().PresignHTTP(t.Context(), signingKey, r, hash(""), "iot", "ap-south-1", at)
	if err != nil {
		t.Fatal(err)
	}
	out := w.request(t, method, strings.TrimPrefix(url, w.url), "")
	for _, c := range change {
		c(out)
	}
	return out
}

func itoa(n int) string {
	b := []byte{}
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}

// TestAcceptedSignatures: what signers do that the SDK's own clients do not show.
func TestAcceptedSignatures(t *testing.T) {
	w, called := listThings(t, api.Config{})
	now := time.Now()
	spaces := w.request(t, "GET", "/things?b=2&a=1&a=%20x&c&maxResults=5", "")
	spaces.Header.Set("X-Custom", "  a   b  ")
	for name, r := range map[string]*http.Request{
		"14 minutes behind": sign(t, w.request(t, "GET", "/things", ""), "iot", "", now.Add(-14*time.Minute)),
		"14 minutes ahead":  sign(t, w.request(t, "GET", "/things", ""), "iot", "", now.Add(14*time.Minute)),
		"presigned":         presign(t, w, "GET", "/things?maxResults=5", 600, now.Add(-500*time.Second)),
		"spaces":            sign(t, spaces, "iot", "", now),
		"content hash":      unsignedPayload(t, w.request(t, "POST", "/policies/p", `{"policyDocument":"{}"}`), hash(`{"policyDocument":"{}"}`), now),
	} {
		if a := send(t, http.DefaultClient, r); a.status != 200 {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if *called != 5 {
		t.Errorf("%d calls", *called)
	}
}

// TestRefusedRequests: signed as it should be, and wrong all the same.
func TestRefusedRequests(t *testing.T) {
	w, called := listThings(t, api.Config{MaxBodyBytes: 2000})
	for name, c := range map[string]struct {
		service, method, target, body string
		status                        int
		code, message                 string
	}{
		"other service":   {"kendra", "POST", "/", "{}", 501, "NotImplementedException", "The service kendra is not implemented."},
		"no handler":      {"iot", "GET", "/thing-types", "", 501, "NotImplementedException", "The operation ListThingTypes is not implemented."},
		"no such path":    {"iot", "GET", "/thingz", "", 404, "UnknownOperationException", "GET /thingz"},
		"other method":    {"iot", "PUT", "/things", "", 405, "MethodNotAllowedException", "PUT"},
		"data in iot":     {"iot", "GET", "/things/t/shadow", "", 404, "UnknownOperationException", ""},
		"OPTIONS":         {"iot", "OPTIONS", "/things", "", 405, "MethodNotAllowedException", ""},
		"large body":      {"iot", "POST", "/policies/p", `{"policyDocument":"` + strings.Repeat("x", 2000) + `"}`, 413, "RequestEntityTooLargeException", ""},
		"not JSON":        {"iot", "POST", "/policies/p", `{"policyDocument":`, 400, "SerializationException", "not valid JSON"},
		"not UTF-8":       {"iot", "POST", "/policies/p", "{\"policyDocument\":\"\xff\"}", 400, "SerializationException", ""},
		"two documents":   {"iot", "POST", "/policies/p", `{"policyDocument":"{}"} {}`, 400, "SerializationException", ""},
		"wrong type":      {"iot", "POST", "/policies/p", `{"policyDocument":{}}`, 400, "SerializationException", "at 'policyDocument'"},
		"array":           {"iot", "POST", "/policies/p", `[]`, 400, "SerializationException", ""},
		"deep":            {"iot", "POST", "/policies/p", `{"x":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + `}`, 400, "InvalidRequestException", ""},
		"number in query": {"iot", "GET", "/things?maxResults=x", "", 400, "SerializationException", "at 'maxResults'"},
		"required": {
			"iot", "POST", "/policies/p", ``, 400, "InvalidRequestException",
			"1 validation error detected: Value null at 'policyDocument' failed to satisfy constraint: Member must not be null",
		},
		"pattern": {
			"iot", "POST", "/policies/a%20b", `{"policyDocument":"{}"}`, 400, "InvalidRequestException",
			`1 validation error detected: Value 'a b' at 'policyName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w+=,.@-]+`,
		},
		"range": {
			"iot", "GET", "/things?maxResults=251", "", 400, "InvalidRequestException",
			"Value '251' at 'maxResults' failed to satisfy constraint: Member must have value less than or equal to 250",
		},
		"two violations": {
			"iot", "POST", "/policies/" + strings.Repeat("p", 129), `{}`, 400, "InvalidRequestException",
			"2 validation errors detected: Value '" + strings.Repeat("p", 129) + "' at 'policyName' failed to satisfy constraint: Member must have length less than or equal to 128; Value null at",
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.call(t, c.service, c.method, c.target, c.body)
			if a.status != c.status || a.code != c.code || !strings.Contains(a.message, c.message) {
				t.Errorf("got %d %s %q", a.status, a.code, a.message)
			}
		})
	}
	if a := send(t, http.DefaultClient, sign(t, w.request(t, "HEAD", "/things", ""), "iot", "", time.Now())); a.status != 405 || a.body != "" {
		t.Errorf("HEAD: %+v", a)
	}
	if *called != 0 {
		t.Errorf("%d calls reached a room", *called)
	}
}

// TestFailures: what goes wrong inside is logged once and not told.
func TestFailures(t *testing.T) {
	w := newWorld(t, api.Config{Timeout: 50 * time.Millisecond})
	api.Handle(w.Server, iot.ListThings, func(context.Context, *iot.ListThingsRequest) (*iot.ListThingsResponse, error) {
		panic("bug")
	})
	api.Handle(w.Server, iot.ListPolicies, func(ctx context.Context, _ *iot.ListPoliciesRequest) (*iot.ListPoliciesResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	for target, want := range map[string]answer{
		"/things":   {status: 500, code: "InternalFailureException"},
		"/policies": {status: 503, code: "ServiceUnavailableException"},
	} {
		if a := w.call(t, "iot", "GET", target, ""); a.status != want.status || a.code != want.code || strings.Contains(a.body, "bug") {
			t.Errorf("%s: %+v", target, a)
		}
	}
	if log := w.log.String(); strings.Count(log, "level=ERROR") != 2 || !strings.Contains(log, "err=bug") {
		t.Errorf("log:\n%s", log)
	}
	w.keys.err = errors.New("no disk")
	if a := w.call(t, "iot", "GET", "/things", ""); a.status != 500 {
		t.Errorf("%+v", a)
	}
}

// TestThrottling: beyond the bound, requests are refused as the service does.
func TestThrottling(t *testing.T) {
	w := newWorld(t, api.Config{MaxConcurrent: 1})
	entered, leave := make(chan struct{}), make(chan struct{})
	api.Handle(w.Server, iot.ListThings, func(context.Context, *iot.ListThingsRequest) (*iot.ListThingsResponse, error) {
		entered <- struct{}{}
		<-leave
		return &iot.ListThingsResponse{}, nil
	})
	api.Handle(w.Server, iot.ListPolicies, func(context.Context, *iot.ListPoliciesRequest) (*iot.ListPoliciesResponse, error) {
		return &iot.ListPoliciesResponse{}, nil
	})
	done := make(chan answer)
	go func() { done <- w.call(t, "iot", "GET", "/things", "") }()
	<-entered
	if a := w.call(t, "iot", "GET", "/policies", ""); a.status != 400 || a.code != "ThrottlingException" {
		t.Errorf("%+v", a)
	}
	close(leave)
	if a := <-done; a.status != 200 {
		t.Errorf("%+v", a)
	}
	if a := w.call(t, "iot", "GET", "/policies", ""); a.status != 200 {
		t.Errorf("%+v", a)
	}
}

// TestSlowBody: who does not send its body in time is let go.
func TestSlowBody(t *testing.T) {
	cfg := api.Config{BodyTimeout: 100 * time.Millisecond}
	w, called := listThings(t, cfg)
	r := w.request(t, "POST", "/policies/p", "{}")
	sign(t, r, "iot", "{}", time.Now())
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var head strings.Builder
	head.WriteString("POST /policies/p HTTP/1.1\r\nHost: " + r.Host + "\r\nContent-Length: 2\r\n")
	_ = r.Header.Write(&head)
	if _, err := conn.Write([]byte(head.String() + "\r\n{")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 408 || *called != 0 {
		t.Errorf("%s, %d calls", resp.Status, *called)
	}
}

// TestBrokenBody: no ResponseWriter but net/http's own has deadlines.
func TestBrokenBody(t *testing.T) {
	w, _ := listThings(t, api.Config{})
	r := w.request(t, "POST", "/policies/p", "{}")
	sign(t, r, "iot", "{}", time.Now())
	r.Body = io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF))
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	if rec.Code != 408 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	large := make([]byte, 1<<20+1)
	rand.Read(large)
	r = w.request(t, "POST", "/policies/p", string(large))
	sign(t, r, "iot", string(large), time.Now())
	r.ContentLength = -1 // chunked
	rec = httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	if rec.Code != 413 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}
