package authorizer_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/function"
	"flotilla/internal/identity/authorizer"
	"flotilla/internal/store"
)

const (
	functionARN = "arn:aws:lambda:us-east-1:123456789012:function:authorise"
	tokenKey    = "my-token"
	nameKey     = "x-amz-customauthorizer-name"
	sigKey      = "x-amz-customauthorizer-signature"
)

var account = aws.Account{ID: "123456789012", Region: "us-east-1"}

// bus runs listeners as the real one does on its own node.
type bus struct {
	mu        sync.Mutex
	listeners map[string][]func(string)
}

func (b *bus) Changed(kind, key string) {
	b.mu.Lock()
	fns := b.listeners[kind]
	b.mu.Unlock()
	for _, fn := range fns {
		fn(key)
	}
}

func (b *bus) OnChange(kind string, fn func(string)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listeners == nil {
		b.listeners = map[string][]func(string){}
	}
	b.listeners[kind] = append(b.listeners[kind], fn)
}

// domains stands for the room of domain configurations.
type domains map[string]string

func (d domains) UsesAuthorizer(_ context.Context, name string) (string, error) { return d[name], nil }

// lambda is an authorizer's function: a real HTTP server that remembers what it was given.
type lambda struct {
	mu     sync.Mutex
	events [][]byte
	answer http.HandlerFunc
}

func (l *lambda) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	l.mu.Lock()
	l.events = append(l.events, body)
	answer := l.answer
	l.mu.Unlock()
	answer(w, r)
}

func (l *lambda) says(text string) {
	l.does(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
}

func (l *lambda) does(h http.HandlerFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = h
}

func (l *lambda) calls() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}

// event gives the last document that the function was given.
func (l *lambda) event(t testing.TB) map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var v map[string]any
	if err := json.Unmarshal(l.events[len(l.events)-1], &v); err != nil {
		t.Fatal(err)
	}
	return v
}

const policyDocument = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:us-east-1:123456789012:client/${iot:ClientId}"}]}`

const goodAnswer = `{"isAuthenticated":true,"principalId":"lamp1","disconnectAfterInSeconds":86400,"refreshAfterInSeconds":300,"policyDocuments":[` + policyDocument + `]}`

// world is a node with the rooms that matter here.
type world struct {
	*authorizer.Authorizers
	lambda  *lambda
	domains domains
	key     *rsa.PrivateKey
	bus     *bus
	db      *store.DB

	mu  sync.Mutex
	now time.Time
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// signingKey is one for all tests: they take long to make.
var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func newWorld(t testing.TB, db *store.DB, cfg authorizer.Config) *world {
	t.Helper()
	w := &world{lambda: &lambda{}, domains: domains{}, key: signingKey(), bus: &bus{}, db: db, now: time.Now()}
	w.lambda.says(goodAnswer)
	s := httptest.NewServer(w.lambda)
	t.Cleanup(s.Close)
	f, err := function.New(function.Config{Endpoints: map[string]string{functionARN: s.URL}}, function.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	w.Authorizers = authorizer.New(cfg, authorizer.Deps{
		Account: account, DB: db, Changes: w.bus, Functions: f,
		Now: func() time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.now
		},
	})
	w.Use(w.domains)
	return w
}

// signed makes an authorizer that checks signatures by the world's key.
func (w *world) signed(t testing.TB, name string) {
	t.Helper()
	_, err := w.CreateAuthorizer(t.Context(), w.request(name))
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) request(name string) *iot.CreateAuthorizerRequest {
	return &iot.CreateAuthorizerRequest{
		AuthorizerName: name, AuthorizerFunctionArn: functionARN, TokenKeyName: new(tokenKey),
		TokenSigningPublicKeys: map[string]string{"first": publicPEM(&w.key.PublicKey)},
	}
}

// unsigned makes an authorizer that does not.
func (w *world) unsigned(t testing.TB, name string, change ...func(*iot.CreateAuthorizerRequest)) {
	t.Helper()
	in := &iot.CreateAuthorizerRequest{AuthorizerName: name, AuthorizerFunctionArn: functionARN, SigningDisabled: new(true)}
	for _, c := range change {
		c(in)
	}
	if _, err := w.CreateAuthorizer(t.Context(), in); err != nil {
		t.Fatal(err)
	}
}

func publicPEM(key crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func ellipticPEM(t testing.TB) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return publicPEM(&k.PublicKey)
}

func sign(t testing.TB, key *rsa.PrivateKey, token string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(token))
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sig)
}

// query is what devices send, escaped.
func query(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(pairs[i]) + "=" + url.QueryEscape(pairs[i+1]))
	}
	return b.String()
}

func wantError[E error](t *testing.T, err error, text string) E {
	t.Helper()
	e, ok := errors.AsType[E](err)
	if !ok {
		t.Fatalf("got %T %v, want %T", err, err, e)
	}
	if !strings.Contains(e.Error(), text) {
		t.Errorf("got %q, want %q in it", e, text)
	}
	return e
}

func wantRefused(t *testing.T, err error, reason authorizer.Reason) *authorizer.RefusedError {
	t.Helper()
	e := wantError[*authorizer.RefusedError](t, err, "")
	if e.Reason != reason {
		t.Errorf("got %v, want %q", e, reason)
	}
	return e
}
