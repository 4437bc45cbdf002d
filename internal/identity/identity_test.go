package identity_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/identity"
	"flotilla/internal/policy"
	"flotilla/internal/policy/lang"
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

// registry stands for the room of that name.
type registry struct{ things map[string][]string }

func (r *registry) ListPrincipalThings(_ context.Context, in *iot.ListPrincipalThingsRequest) (*iot.ListPrincipalThingsResponse, error) {
	return &iot.ListPrincipalThingsResponse{Things: r.things[in.Principal]}, nil
}

func (r *registry) ListPrincipalThingsV2(context.Context, *iot.ListPrincipalThingsV2Request) (*iot.ListPrincipalThingsV2Response, error) {
	return &iot.ListPrincipalThingsV2Response{}, nil
}

func (r *registry) PolicyThing(context.Context, string, string) (*lang.Thing, error) { return nil, nil }

func (r *registry) ThingGroupsOfPrincipal(context.Context, string) ([]string, error) { return nil, nil }

func (r *registry) DescribeThingGroup(context.Context, *iot.DescribeThingGroupRequest) (*iot.DescribeThingGroupResponse, error) {
	return nil, &iot.ResourceNotFoundException{}
}

func (r *registry) ListThingGroupsForThing(context.Context, *iot.ListThingGroupsForThingRequest) (*iot.ListThingGroupsForThingResponse, error) {
	return &iot.ListThingGroupsForThingResponse{}, nil
}

// world is a node with the rooms that matter here.
type world struct {
	*identity.Certificates
	policies *policy.Policies
	registry *registry
	clock    *clock
	db       *store.DB
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newWorld(t testing.TB, db *store.DB, cfg identity.Config) *world {
	t.Helper()
	w := &world{registry: &registry{things: map[string][]string{}}, clock: &clock{now: time.Now()}, db: db}
	ca, err := identity.OpenAuthority(t.Context(), db, identity.AuthorityConfig{Dir: t.TempDir(), Now: w.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	b := &bus{}
	w.Certificates = identity.New(cfg, identity.Deps{Account: account, DB: db, Changes: b, Authority: ca, Now: w.clock.Now})
	w.policies = policy.New(policy.Config{}, policy.Deps{
		Account: account, DB: db, Changes: b, Principals: w.Certificates, Things: w.registry, Groups: w.registry, Now: w.clock.Now,
	})
	w.Use(w.policies, w.registry)
	return w
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantError[E error](t *testing.T, err error, message string) {
	t.Helper()
	var e E
	if !errors.As(err, &e) {
		t.Fatalf("got %T %v, want %T", err, err, e)
	}
	if !strings.Contains(e.Error(), message) {
		t.Errorf("message %q, want %q", e.Error(), message)
	}
}

func parse(t testing.TB, text string) *x509.Certificate {
	t.Helper()
	b, _ := pem.Decode([]byte(text))
	if b == nil {
		t.Fatalf("not PEM: %q", text)
	}
	return must[*x509.Certificate](t)(x509.ParseCertificate(b.Bytes))
}

func csr(t testing.TB, key crypto.Signer, subject pkix.Name) string {
	t.Helper()
	der := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key))
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func ecKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	return must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(c, rand.Reader))
}

// selfSigned makes a certificate of a stranger.
func selfSigned(t testing.TB, template *x509.Certificate) (*x509.Certificate, string) {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	if template.SerialNumber == nil {
		template.SerialNumber = big.NewInt(time.Now().UnixNano())
	}
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return must[*x509.Certificate](t)(x509.ParseCertificate(der)), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func wantRefused(t *testing.T, err error, reason identity.Reason) {
	t.Helper()
	var r *identity.RefusedError
	if !errors.As(err, &r) || r.Reason != reason {
		t.Errorf("got %v, want refused: %s", err, reason)
	}
}

// between holds the certificate between those of devices and the root.
func between(w *world) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(w.Authority().Issuing())
	return p
}

func TestCreateKeysAndCertificate(t *testing.T) {
	for _, keyType := range []string{"ecdsa", "rsa"} {
		t.Run(keyType, func(t *testing.T) {
			w := newWorld(t, storetest.Open(t), identity.Config{KeyType: keyType})
			out := must[*iot.CreateKeysAndCertificateResponse](t)(w.CreateKeysAndCertificate(t.Context(), &iot.CreateKeysAndCertificateRequest{SetAsActive: new(true)}))
			leaf := parse(t, *out.CertificatePem)
			if *out.CertificateId != identity.CertificateID(leaf) || *out.CertificateArn != "arn:aws:iot:us-east-1:123456789012:cert/"+*out.CertificateId {
				t.Errorf("id %s, ARN %s", *out.CertificateId, *out.CertificateArn)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: w.Authority().Pool(), Intermediates: between(w), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
				t.Error(err)
			}
			if leaf.IsCA || leaf.SerialNumber.BitLen() < 128 || leaf.NotBefore.After(w.clock.Now()) || leaf.Subject.CommonName != "AWS IoT Certificate" {
				t.Errorf("CA %v, serial %d bits, from %v, %v", leaf.IsCA, leaf.SerialNumber.BitLen(), leaf.NotBefore, leaf.Subject)
			}
			block, _ := pem.Decode([]byte(*out.KeyPair.PrivateKey))
			var key crypto.Signer
			if keyType == "rsa" {
				key = must[*rsa.PrivateKey](t)(x509.ParsePKCS1PrivateKey(block.Bytes))
			} else {
				key = must[*ecdsa.PrivateKey](t)(x509.ParseECPrivateKey(block.Bytes))
			}
			if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(leaf.PublicKey) {
				t.Error("the key is not the certificate's")
			}
			p, c, err := w.Identify(t.Context(), leaf)
			if err != nil || p != (aws.Principal{Type: "certificate", ID: *out.CertificateId, ARN: *out.CertificateArn}) {
				t.Errorf("Identify: %+v, %v", p, err)
			}
			if c.ID != p.ID || c.SerialNumber != leaf.SerialNumber.String() {
				t.Errorf("policy certificate: %+v", c)
			}
		})
	}
}

func TestCreateCertificateFromCsr(t *testing.T) {
	w := newWorld(t, storetest.Open(t), identity.Config{})
	ctx := t.Context()
	key := ecKey(t, elliptic.P384())
	request := csr(t, key, pkix.Name{CommonName: "dev-1", Organization: []string{"Example, Inc"}})
	make := func(text string) (*iot.CreateCertificateFromCsrResponse, error) {
		return w.CreateCertificateFromCsr(ctx, &iot.CreateCertificateFromCsrRequest{CertificateSigningRequest: text, SetAsActive: new(true)})
	}
	first := must[*iot.CreateCertificateFromCsrResponse](t)(make(request))
	second := must[*iot.CreateCertificateFromCsrResponse](t)(make(request))
	if *first.CertificateId == *second.CertificateId {
		t.Error("the same request gave the same certificate")
	}
	leaf := parse(t, *first.CertificatePem)
	if !key.PublicKey.Equal(leaf.PublicKey) || leaf.Subject.CommonName != "dev-1" || len(leaf.Subject.Organization) != 1 {
		t.Errorf("certificate of %v", leaf.Subject)
	}
	if leaf := parse(t, *must[*iot.CreateCertificateFromCsrResponse](t)(make(csr(t, key, pkix.Name{}))).CertificatePem); leaf.Subject.CommonName == "" {
		t.Error("a request without subject gave a certificate without one")
	}
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	damaged, _ := pem.Decode([]byte(request))
	damaged.Bytes[len(damaged.Bytes)-1] ^= 1
	for name, text := range map[string]string{
		"no PEM":        "hello",
		"certificate":   *first.CertificatePem,
		"two":           request + request,
		"RSA 1024":      csrOfWeakRSA(t),
		"P-224":         csr(t, ecKey(t, elliptic.P224()), pkix.Name{}),
		"Ed25519":       csr(t, edKey, pkix.Name{}),
		"bad signature": string(pem.EncodeToMemory(damaged)),
		"garbage":       string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")})),
	} {
		_, err := make(text)
		var e *iot.InvalidRequestException
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// csrOfWeakRSA is a request for a key of 1,024 bits.
func csrOfWeakRSA(t *testing.T) string {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	return csr(t, must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024)), pkix.Name{})
}

func TestCertificateLife(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		w := newWorld(t, db, identity.Config{})
		out := must[*iot.CreateKeysAndCertificateResponse](t)(w.CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateRequest{}))
		id, arn, leaf := *out.CertificateId, *out.CertificateArn, parse(t, *out.CertificatePem)
		update := func(status string) error {
			_, err := w.UpdateCertificate(ctx, &iot.UpdateCertificateRequest{CertificateId: id, NewStatus: status})
			return err
		}
		remove := func(force bool) error {
			_, err := w.DeleteCertificate(ctx, &iot.DeleteCertificateRequest{CertificateId: id, ForceDelete: &force})
			return err
		}
		_, _, err := w.Identify(ctx, leaf)
		wantRefused(t, err, identity.ReasonNotActive)
		for _, status := range []string{"PENDING_TRANSFER", "PENDING_ACTIVATION", "REGISTER_INACTIVE"} {
			wantError[*iot.CertificateStateException](t, update(status), status)
		}
		for _, status := range []string{"ACTIVE", "REVOKED", "INACTIVE", "ACTIVE"} {
			if err := update(status); err != nil {
				t.Fatal(err)
			}
			_, _, err := w.Identify(ctx, leaf) // at once
			if status == "ACTIVE" && err != nil {
				t.Errorf("%s: %v", status, err)
			} else if status != "ACTIVE" {
				wantRefused(t, err, identity.ReasonNotActive)
			}
		}
		d := must[*iot.DescribeCertificateResponse](t)(w.DescribeCertificate(ctx, &iot.DescribeCertificateRequest{CertificateId: strings.ToUpper(id)})).CertificateDescription
		if *d.CertificateId != id || *d.Status != "ACTIVE" || *d.CertificatePem != *out.CertificatePem || *d.OwnedBy != account.ID ||
			*d.CustomerVersion != 5 || *d.CertificateMode != "DEFAULT" || d.CaCertificateId != nil || !d.Validity.NotAfter.Equal(leaf.NotAfter) {
			t.Errorf("DescribeCertificate: %+v", d)
		}

		wantError[*iot.CertificateStateException](t, remove(true), "Certificate must be deactivated (not ACTIVE) before deletion.")
		must[*iot.CreatePolicyResponse](t)(w.policies.CreatePolicy(ctx, &iot.CreatePolicyRequest{PolicyName: "p", PolicyDocument: `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`}))
		must[*iot.AttachPolicyResponse](t)(w.policies.AttachPolicy(ctx, &iot.AttachPolicyRequest{PolicyName: "p", Target: arn}))
		w.registry.things[arn] = []string{"dev-1"}
		if err := update("INACTIVE"); err != nil {
			t.Fatal(err)
		}
		wantError[*iot.DeleteConflictException](t, remove(true), "Things must be detached before deletion (arn: "+arn+")")
		delete(w.registry.things, arn)
		wantError[*iot.DeleteConflictException](t, remove(false), "Certificate policies must be detached before deletion (arn: "+arn+")")
		if err := remove(true); err != nil {
			t.Fatal(err)
		}
		targets := must[*iot.ListTargetsForPolicyResponse](t)(w.policies.ListTargetsForPolicy(ctx, &iot.ListTargetsForPolicyRequest{PolicyName: "p"}))
		if len(targets.Targets) > 0 {
			t.Errorf("still attached: %v", targets.Targets)
		}
		_, _, err = w.Identify(ctx, leaf)
		wantRefused(t, err, identity.ReasonNotRegistered)
		wantError[*iot.ResourceNotFoundException](t, remove(false), "")
		wantError[*iot.ResourceNotFoundException](t, update("ACTIVE"), "")
	})
}

func TestRegister(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, storetest.Open(t), identity.Config{})
	leaf, text := selfSigned(t, &x509.Certificate{Subject: pkix.Name{CommonName: "stranger"}})
	_, _, err := w.Identify(ctx, leaf)
	wantRefused(t, err, identity.ReasonNotRegistered)
	_, err = w.RegisterCertificate(ctx, &iot.RegisterCertificateRequest{CertificatePem: text})
	wantError[*iot.CertificateValidationException](t, err, "no CA certificate that is registered")
	_, err = w.RegisterCertificate(ctx, &iot.RegisterCertificateRequest{CertificatePem: text, CaCertificatePem: new(string(w.Authority().RootPEM()))})
	wantError[*iot.CertificateValidationException](t, err, "not signed by the CA")
	_, err = w.RegisterCertificateWithoutCA(ctx, &iot.RegisterCertificateWithoutCARequest{CertificatePem: text, Status: new("PENDING_ACTIVATION")})
	wantError[*iot.CertificateStateException](t, err, "")
	out := must[*iot.RegisterCertificateWithoutCAResponse](t)(w.RegisterCertificateWithoutCA(ctx, &iot.RegisterCertificateWithoutCARequest{CertificatePem: text, Status: new("ACTIVE")}))
	if *out.CertificateId != identity.CertificateID(leaf) {
		t.Errorf("id %s", *out.CertificateId)
	}
	if _, _, err := w.Identify(ctx, leaf); err != nil {
		t.Error(err)
	}
	_, err = w.RegisterCertificateWithoutCA(ctx, &iot.RegisterCertificateWithoutCARequest{CertificatePem: text})
	wantError[*iot.ResourceAlreadyExistsException](t, err, "")
	_, old := selfSigned(t, &x509.Certificate{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	_, err = w.RegisterCertificateWithoutCA(ctx, &iot.RegisterCertificateWithoutCARequest{CertificatePem: old})
	wantError[*iot.CertificateValidationException](t, err, "expired")

	// One of another data directory's root, then one of ours that was deleted before.
	own := must[*iot.CreateKeysAndCertificateResponse](t)(w.CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateRequest{}))
	must[*iot.DeleteCertificateResponse](t)(w.DeleteCertificate(ctx, &iot.DeleteCertificateRequest{CertificateId: *own.CertificateId}))
	back := must[*iot.RegisterCertificateResponse](t)(w.RegisterCertificate(ctx, &iot.RegisterCertificateRequest{CertificatePem: *own.CertificatePem, SetAsActive: new(true)}))
	if *back.CertificateId != *own.CertificateId {
		t.Errorf("id %s, want %s", *back.CertificateId, *own.CertificateId)
	}

	// Validity is looked at on every connect, not only at registration.
	w.clock.advance(2 * time.Hour)
	_, _, err = w.Identify(ctx, leaf)
	wantRefused(t, err, identity.ReasonExpired)
	_, _, err = w.Identify(ctx, nil)
	wantRefused(t, err, identity.ReasonNoCertificate)
}

func TestListCertificates(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		w := newWorld(t, db, identity.Config{})
		var want []string
		for range 3 {
			w.clock.advance(time.Second)
			out := must[*iot.CreateKeysAndCertificateResponse](t)(w.CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateRequest{}))
			want = append(want, *out.CertificateId)
		}
		must[*iot.CreateProvisioningClaimResponse](t)(w.CreateClaim(ctx, "fleet")) // is not listed
		for _, ascending := range []bool{true, false} {
			var got []string
			in := &iot.ListCertificatesRequest{PageSize: new(int32(2)), AscendingOrder: &ascending}
			for {
				out := must[*iot.ListCertificatesResponse](t)(w.ListCertificates(ctx, in))
				for _, c := range out.Certificates {
					got = append(got, *c.CertificateId)
				}
				if in.Marker = out.NextMarker; in.Marker == nil {
					break
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("ascending %v: %s", ascending, d)
			}
			slices.Reverse(want)
		}
	})
}

// A claim certificate lives five minutes and can do nothing but provisioning, whatever is attached to it.
func TestClaim(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, storetest.Open(t), identity.Config{})
	claim := must[*iot.CreateProvisioningClaimResponse](t)(w.CreateClaim(ctx, "fleet"))
	leaf := parse(t, *claim.CertificatePem)
	if d := claim.Expiration.Sub(w.clock.Now()); d < 4*time.Minute || d > 5*time.Minute {
		t.Errorf("expires in %v", d)
	}
	p, c, err := w.Identify(ctx, leaf)
	if err != nil {
		t.Fatal(err)
	}
	must[*iot.CreatePolicyResponse](t)(w.policies.CreatePolicy(ctx, &iot.CreatePolicyRequest{PolicyName: "p", PolicyDocument: `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`}))
	must[*iot.AttachPolicyResponse](t)(w.policies.AttachPolicy(ctx, &iot.AttachPolicyRequest{PolicyName: "p", Target: p.ARN}))
	a := must[lang.Authorizer](t)(w.policies.Open(ctx, p, &lang.Connection{Protocol: "mqtt", ClientID: "x", Certificate: c}))
	const provision = "arn:aws:iot:us-east-1:123456789012:topic/$aws/provisioning-templates/fleet/provision/json"
	if !a.Authorize("iot:Publish", provision).Allowed() {
		t.Error("may not provision")
	}
	if a.Authorize("iot:Publish", "arn:aws:iot:us-east-1:123456789012:topic/t").Allowed() {
		t.Error("may publish telemetry")
	}
	_, err = w.UpdateCertificate(ctx, &iot.UpdateCertificateRequest{CertificateId: p.ID, NewStatus: "INACTIVE"})
	if err != nil {
		t.Fatal(err)
	}
	if a.Authorize("iot:Publish", provision).Allowed() {
		t.Error("may provision when INACTIVE")
	}
	_, err = w.UpdateCertificate(ctx, &iot.UpdateCertificateRequest{CertificateId: p.ID, NewStatus: "ACTIVE"})
	wantError[*iot.CertificateStateException](t, err, "")

	w.clock.advance(identity.ClaimLifetime)
	if n := must[int](t)(w.DeleteExpired(ctx)); n != 1 {
		t.Errorf("deleted %d", n)
	}
	_, _, err = w.Identify(ctx, leaf)
	wantRefused(t, err, identity.ReasonNotRegistered)
}

// A pending certificate is deleted when its token expires unused, and kept once it is activated.
func TestPending(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		w := newWorld(t, db, identity.Config{})
		until := w.clock.Now().Add(time.Hour)
		unused := must[*iot.CreateKeysAndCertificateResponse](t)(w.CreatePending(ctx, "", until, "", ""))
		used := must[*iot.CreateKeysAndCertificateResponse](t)(w.CreatePending(ctx, csr(t, ecKey(t, elliptic.P256()), pkix.Name{CommonName: "d"}), until, "", ""))
		if unused.KeyPair == nil || used.KeyPair != nil {
			t.Error("keys where none should be, or none where they should")
		}
		_, _, err := w.Identify(ctx, parse(t, *used.CertificatePem))
		wantRefused(t, err, identity.ReasonNotActive)
		must[*iot.UpdateCertificateResponse](t)(w.UpdateCertificate(ctx, &iot.UpdateCertificateRequest{CertificateId: *used.CertificateId, NewStatus: "ACTIVE"}))
		if n := must[int](t)(w.DeleteExpired(ctx)); n != 0 {
			t.Errorf("deleted %d too early", n)
		}
		w.clock.advance(time.Hour)
		if n := must[int](t)(w.DeleteExpired(ctx)); n != 1 {
			t.Errorf("deleted %d, want 1", n)
		}
		_, err = w.DescribeCertificate(ctx, &iot.DescribeCertificateRequest{CertificateId: *unused.CertificateId})
		wantError[*iot.ResourceNotFoundException](t, err, "")
		if _, _, err := w.Identify(ctx, parse(t, *used.CertificatePem)); err != nil {
			t.Error(err)
		}
	})
}

// The certificate of AWS's page on certificate policy variables.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/use-policy-variables.html
func TestPolicyVariablesOfCertificate(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, storetest.Open(t), identity.Config{})
	oid := func(n ...int) asn1.ObjectIdentifier { return n }
	directory := must[[]byte](t)(asn1.Marshal(pkix.Name{Country: []string{"US"}, Organization: []string{"Issuer"}, CommonName: "Primary Issuer CA"}.ToRDNSequence()))
	issuerNames := must[[]byte](t)(asn1.Marshal([]asn1.RawValue{
		{Class: 2, Tag: 2, Bytes: []byte("issuer.com")},
		{Class: 2, Tag: 7, Bytes: net.IPv4(5, 6, 7, 8).To4()},
		{Class: 2, Tag: 4, IsCompound: true, Bytes: directory},
		{Class: 2, Tag: 1, Bytes: []byte("primary@issuer.com")},
	}))
	leaf, text := selfSigned(t, &x509.Certificate{
		SerialNumber: new(big.Int).SetUint64(0x921285cbb7a5e086),
		Subject: pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: oid(2, 5, 4, 6), Value: "US"},
			{Type: oid(2, 5, 4, 10), Value: "IoT Devices"},
			{Type: oid(2, 5, 4, 11), Value: "LightBulb"},
			{Type: oid(2, 5, 4, 8), Value: "NY"},
			{Type: oid(2, 5, 4, 3), Value: "LightBulb Device Cert"},
			{Type: oid(2, 5, 4, 42), Value: "Bulb"},
			{Type: oid(2, 5, 4, 43), Value: "ZZ"},
			{Type: oid(2, 5, 4, 46), Value: "Bulb001"},
			{Type: oid(2, 5, 4, 4), Value: "Multi Color"},
			{Type: oid(2, 5, 4, 12), Value: "RGB"},
			{Type: oid(2, 5, 4, 65), Value: "RGB Device"},
			{Type: oid(2, 5, 4, 44), Value: "4"},
			{Type: oid(2, 5, 4, 5), Value: "123"},
			{Type: oid(2, 5, 4, 6), Value: "DE"},
		}},
		DNSNames: []string{"example.com"}, IPAddresses: []net.IP{net.IPv4(1, 2, 3, 4)}, EmailAddresses: []string{"device1@example.com"},
		ExtraExtensions: []pkix.Extension{{Id: oid(2, 5, 29, 18), Value: issuerNames}},
	})
	must[*iot.RegisterCertificateWithoutCAResponse](t)(w.RegisterCertificateWithoutCA(ctx, &iot.RegisterCertificateWithoutCARequest{CertificatePem: text, Status: new("ACTIVE")}))
	_, got, err := w.Identify(ctx, leaf)
	if err != nil {
		t.Fatal(err)
	}
	subject := map[string][]string{
		"Country": {"US", "DE"}, "Organization": {"IoT Devices"}, "OrganizationalUnit": {"LightBulb"}, "State": {"NY"}, "CommonName": {"LightBulb Device Cert"},
		"GivenName": {"Bulb"}, "Initials": {"ZZ"}, "DistinguishedNameQualifier": {"Bulb001"}, "Surname": {"Multi Color"}, "Title": {"RGB"},
		"Pseudonym": {"RGB Device"}, "GenerationQualifier": {"4"}, "SerialNumber": {"123"},
	}
	want := &lang.Certificate{
		ID: identity.CertificateID(leaf), SerialNumber: "10525622389124227206", Subject: subject, Issuer: subject,
		SubjectAlternativeName: map[string][]string{"DNSName": {"example.com"}, "IPAddress": {"1.2.3.4"}, "RFC822Name": {"device1@example.com"}},
		IssuerAlternativeName: map[string][]string{
			"DNSName": {"issuer.com"}, "IPAddress": {"5.6.7.8"}, "RFC822Name": {"primary@issuer.com"}, "DirectoryName": {"CN=Primary Issuer CA,O=Issuer,C=US"},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(want, identity.PolicyCertificate(leaf)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(want, must[*lang.Certificate](t)(w.PolicyCertificate(ctx, want.ID))); d != "" {
		t.Error(d)
	}
	_, err = w.PolicyCertificate(ctx, "00")
	wantError[*iot.ResourceNotFoundException](t, err, "")
}

func BenchmarkIdentify(b *testing.B) {
	w := newWorld(b, storetest.Open(b), identity.Config{})
	out := must[*iot.CreateKeysAndCertificateResponse](b)(w.CreateKeysAndCertificate(b.Context(), &iot.CreateKeysAndCertificateRequest{SetAsActive: new(true)}))
	leaf := parse(b, *out.CertificatePem)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := w.Identify(b.Context(), leaf); err != nil {
			b.Fatal(err)
		}
	}
}
