package domain_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/gateway/domain"
	"flotilla/internal/identity"
	"flotilla/internal/store"
)

var account = aws.Account{ID: "123456789012", Region: "us-east-1"}

const certificateARN = "arn:aws:acm:us-east-1:123456789012:certificate/"

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

// authorizers stands for custom authorizers of these names.
type authorizers []string

func (a authorizers) DescribeAuthorizer(_ context.Context, in *iot.DescribeAuthorizerRequest) (*iot.DescribeAuthorizerResponse, error) {
	for _, n := range a {
		if n == in.AuthorizerName {
			return &iot.DescribeAuthorizerResponse{}, nil
		}
	}
	return nil, &iot.ResourceNotFoundException{Message: "Authorizer " + in.AuthorizerName + " was not found."}
}

// world is a node with a real authority.
type world struct {
	*domain.Domains
	bus  *bus
	db   *store.DB
	dir  string
	ca   *identity.Authority
	base *tls.Config
	log  *bytes.Buffer

	mu  sync.Mutex
	now time.Time
}

func (w *world) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func newWorld(t testing.TB, db *store.DB, cfg domain.Config, change ...func(*domain.Deps)) *world {
	t.Helper()
	w := &world{bus: &bus{}, db: db, dir: t.TempDir(), now: time.Now(), log: &bytes.Buffer{}}
	var err error
	if w.ca, err = identity.OpenAuthority(t.Context(), db, identity.AuthorityConfig{Dir: w.dir, Now: w.Now}); err != nil {
		t.Fatal(err)
	}
	own, err := w.ca.ServerCertificates(w.dir, "iot.example.org")
	if err != nil {
		t.Fatal(err)
	}
	w.base = own.TLS()
	if err := os.MkdirAll(filepath.Join(w.dir, "certificates"), 0o700); err != nil {
		t.Fatal(err)
	}
	deps := domain.Deps{
		Account: account, DB: db, Changes: w.bus, Authorizers: authorizers{"A", "B"}, Dir: w.dir,
		PublicHost: "iot.example.org", Hosts: []string{"localhost", "127.0.0.1"}, Now: w.Now,
		Log: slog.New(slog.NewTextHandler(&locked{w: w.log}, nil)),
		Issue: func(name string) (domain.GetCertificate, error) {
			s, err := w.ca.ServerCertificates(filepath.Join(w.dir, "issued", name), name)
			if err != nil {
				return nil, err
			}
			return s.GetCertificate, nil
		},
	}
	for _, c := range change {
		c(&deps)
	}
	w.Domains = domain.New(cfg, deps)
	return w
}

// locked makes a buffer safe for the loggers of several goroutines.
type locked struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (w *world) create(t testing.TB, in *iot.CreateDomainConfigurationRequest) {
	t.Helper()
	if _, err := w.CreateDomainConfiguration(t.Context(), in); err != nil {
		t.Fatal(err)
	}
}

func (w *world) update(t testing.TB, in *iot.UpdateDomainConfigurationRequest) {
	t.Helper()
	if _, err := w.UpdateDomainConfiguration(t.Context(), in); err != nil {
		t.Fatal(err)
	}
}

// chain is a certificate with its key in PEM.
type chain struct {
	certs []*x509.Certificate // the leaf first
	key   crypto.Signer
}

// issue makes a certificate that parent signs; nil makes a root.
func issue(t testing.TB, parent *chain, names []string, change ...func(*x509.Certificate)) *chain {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issueFor(t, parent, key, names, change...)
}

func issueFor(t testing.TB, parent *chain, key crypto.Signer, names []string, change ...func(*x509.Certificate)) *chain {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: fmt.Sprint("test ", serial)}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: names == nil,
	}
	if names == nil {
		template.KeyUsage = x509.KeyUsageCertSign
	}
	for _, c := range change {
		c(template)
	}
	c := &chain{key: key}
	signer, by := template, key
	if parent != nil {
		signer, by = parent.certs[0], parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	c.certs = []*x509.Certificate{leaf}
	if parent != nil {
		c.certs = append(c.certs, parent.certs...)
	}
	return c
}

func (c *chain) pem(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	for _, cert := range c.certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		t.Fatal(err)
	}
	b.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return b.String()
}

// put replaces a file as operators should: by another.
func (w *world) put(t testing.TB, id, text string) {
	t.Helper()
	path := filepath.Join(w.dir, "certificates", id+".pem")
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// handshake makes a real one, and gives what the client saw and why the server refused.
func handshake(t testing.TB, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := connected(t)
	deadline := time.Now().Add(time.Minute)
	_, _ = a.SetDeadline(deadline), b.SetDeadline(deadline)
	refused := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x")) // the client has seen all of the handshake
		}
		_ = a.Close()
		refused <- err
	}()
	client = client.Clone()
	client.InsecureSkipVerify = client.InsecureSkipVerify || client.ServerName == ""
	c := tls.Client(b, client)
	_, err := c.Read(make([]byte, 1))
	state := c.ConnectionState()
	_ = b.Close()
	if serverErr := <-refused; serverErr != nil {
		return state, serverErr
	}
	return state, err
}

// connected gives two ends of a connection that buffers, as net.Pipe does not: in TLS 1.3 both sides may write at once.
func connected(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if b, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if a, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
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
