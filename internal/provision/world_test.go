package provision_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/identity"
	"flotilla/internal/mqtt"
	"flotilla/internal/policy"
	"flotilla/internal/provision"
	"flotilla/internal/registry"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
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

// clock is the time that the rooms live in.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// outbox is the broker as far as this room sees it.
type outbox struct {
	mu   sync.Mutex
	sent []*mqtt.Message
}

func (o *outbox) Publish(_ context.Context, m *mqtt.Message) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent = append(o.sent, m)
	return nil
}

// take removes what was sent and gives the last message for a client.
func (o *outbox) take(client string) *mqtt.Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := len(o.sent) - 1; i >= 0; i-- {
		if m := o.sent[i]; m.Recipient == client && m.RecipientConnection != "" {
			o.sent = slices.Delete(o.sent, i, i+1)
			return m
		}
	}
	return nil
}

// hangs is for a hook that may not answer; its other answers come at once.
func hangs(is bool) func(*provision.Config) {
	return func(c *provision.Config) {
		if is {
			c.HookTimeout = 50 * time.Millisecond
		}
	}
}

// hookFunc is a pre-provisioning hook.
type hookFunc func(ctx context.Context, payload []byte) ([]byte, error)

func (f hookFunc) Invoke(ctx context.Context, _ string, payload []byte) ([]byte, error) {
	return f(ctx, payload)
}

// world is a node with the rooms that take part in provisioning.
type world struct {
	*provision.Templates
	db           *store.DB
	clock        *clock
	authority    *identity.Authority
	certificates *identity.Certificates
	policies     *policy.Policies
	registry     *registry.Registry
	out          *outbox
}

func newWorld(t testing.TB, db *store.DB, hook provision.Hook, change ...func(*provision.Config)) *world {
	t.Helper()
	return newWorldSigned(t, db, hook, nil, change...)
}

// newWorldSigned is newWorld with the key of the issuing authority kept elsewhere.
func newWorldSigned(t testing.TB, db *store.DB, hook provision.Hook, signer crypto.Signer, change ...func(*provision.Config)) *world {
	t.Helper()
	w := &world{db: db, clock: &clock{t: time.Now()}, out: &outbox{}}
	b := &bus{}
	var err error
	if w.authority, err = identity.OpenAuthority(t.Context(), db, identity.AuthorityConfig{Dir: t.TempDir(), Signer: signer, Now: w.clock.now}); err != nil {
		t.Fatal(err)
	}
	w.certificates = identity.New(identity.Config{}, identity.Deps{Account: account, DB: db, Changes: b, Authority: w.authority, Now: w.clock.now})
	w.registry = registry.New(registry.Config{}, registry.Deps{Account: account, DB: db, Changes: b, Certificates: w.certificates, Now: w.clock.now})
	w.policies = policy.New(policy.Config{}, policy.Deps{
		Account: account, DB: db, Changes: b, Principals: w.certificates, Things: w.registry, Groups: w.registry, Tags: w.registry, Now: w.clock.now,
	})
	w.certificates.Use(w.policies, w.registry)
	cfg := provision.Config{HookTimeout: time.Minute}
	for _, c := range change {
		c(&cfg)
	}
	w.Templates = provision.New(cfg, provision.Deps{
		Account: account, DB: db, Issuer: w.certificates, Certificates: w.certificates, Things: w.registry, Groups: w.registry,
		BillingGroups: w.registry, Policies: w.policies, Publisher: w.out, Tags: w.registry, Hook: hook, Now: w.clock.now,
	})
	w.registry.Use(w.policies, nil, map[string]registry.Exists{
		"provisioningtemplate": func(ctx context.Context, name string) error {
			_, err := w.DescribeProvisioningTemplate(ctx, &iot.DescribeProvisioningTemplateRequest{TemplateName: name})
			return err
		},
	})
	return w
}

func openDB(t testing.TB) *store.DB {
	t.Helper()
	return storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), Durability: "process"})
}

// claim is a client with a claim certificate.
var claim = mqtt.Source{ClientID: "dev-1", ConnectionID: "connection-1", PrincipalID: strings.Repeat("c", 64), Protocol: "MQTT"}

// call publishes a request and returns the payload of the answer, and whether it was accepted.
func (w *world) call(t testing.TB, from mqtt.Source, topic string, payload []byte) (answer []byte, accepted bool) {
	t.Helper()
	if err := w.ServeMQTT(t.Context(), &mqtt.Message{Topic: topic, Payload: payload, QoS: 1, Source: from}); err != nil {
		t.Fatal(err)
	}
	m := w.out.take(from.ClientID)
	if m == nil {
		t.Fatalf("no answer that is for %q alone", from.ClientID)
	}
	switch m.Topic {
	case topic + "/accepted":
		return m.Payload, true
	case topic + "/rejected":
		return m.Payload, false
	}
	t.Fatalf("answer on %s", m.Topic)
	return nil, false
}

// keys is the answer of the two topics that make certificates.
type keys struct {
	CertificateID  string `json:"certificateId"`
	CertificatePEM string `json:"certificatePem"`
	PrivateKey     string `json:"privateKey"`
	Token          string `json:"certificateOwnershipToken"`
}

// create asks for a certificate with keys.
func (w *world) create(t testing.TB, from mqtt.Source) keys {
	t.Helper()
	answer, ok := w.call(t, from, "$aws/certificates/create/json", []byte("{}"))
	if !ok {
		t.Fatalf("rejected: %s", answer)
	}
	return parse[keys](t, answer)
}

// rejection is the payload of …/rejected.
type rejection struct {
	StatusCode   int    `json:"statusCode"`
	ErrorCode    string `json:"errorCode"`
	ErrorMessage string `json:"errorMessage"`
}

// register asks for the provisioning of a device.
func (w *world) register(t testing.TB, from mqtt.Source, template, token string, parameters map[string]string) (answer []byte, accepted bool) {
	t.Helper()
	payload, err := json.Marshal(map[string]any{"certificateOwnershipToken": token, "parameters": parameters})
	if err != nil {
		t.Fatal(err)
	}
	return w.call(t, from, "$aws/provisioning-templates/"+template+"/provision/json", payload)
}

// status is that of a certificate, "" when there is none.
func (w *world) status(t testing.TB, id string) string {
	t.Helper()
	out, err := w.certificates.DescribeCertificate(t.Context(), &iot.DescribeCertificateRequest{CertificateId: id})
	if notFound(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return *out.CertificateDescription.Status
}

func (w *world) thingExists(t testing.TB, name string) bool {
	t.Helper()
	_, err := w.registry.DescribeThing(t.Context(), &iot.DescribeThingRequest{ThingName: name})
	if err != nil && !notFound(err) {
		t.Fatal(err)
	}
	return err == nil
}

func notFound(err error) bool {
	var e *iot.ResourceNotFoundException
	return errors.As(err, &e)
}

func parse[T any](t testing.TB, payload []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(payload, &v); err != nil {
		t.Fatalf("%s: %v", payload, err)
	}
	return v
}

// newCSR is a certificate signing request in PEM format.
func newCSR(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "device"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// must fails the test on an error.
func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
