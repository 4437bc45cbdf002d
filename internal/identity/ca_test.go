package identity_test

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
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws/iot"
	"flotilla/internal/identity"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// authority is somebody's own certificate authority.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func pemOf(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func newAuthority(t testing.TB, w *world, name string, change ...func(*x509.Certificate)) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: w.clock.Now().Add(-time.Hour), NotAfter: w.clock.Now().Add(24 * time.Hour),
	}
	for _, c := range change {
		c(template)
	}
	a := &authority{key: ecKey(t, elliptic.P256())}
	a.cert = must[*x509.Certificate](t)(x509.ParseCertificate(must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key))))
	a.pem = pemOf(a.cert.Raw)
	return a
}

// sign is a certificate with a subject and a key of its own.
func (a *authority) sign(t testing.TB, w *world, subject pkix.Name, change ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	return a.signKey(t, w, subject, ecKey(t, elliptic.P256()).Public(), change...)
}

func (a *authority) signKey(t testing.TB, w *world, subject pkix.Name, key crypto.PublicKey, change ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes([]byte(rand.Text())), Subject: subject,
		NotBefore: w.clock.Now().Add(-time.Hour), NotAfter: w.clock.Now().Add(time.Hour),
	}
	for _, c := range change {
		c(template)
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key))
	return must[*x509.Certificate](t)(x509.ParseCertificate(der))
}

func (a *authority) proof(t testing.TB, w *world) *string {
	t.Helper()
	code := must[*iot.GetRegistrationCodeResponse](t)(w.GetRegistrationCode(t.Context(), &iot.GetRegistrationCodeRequest{}))
	return new(pemOf(a.sign(t, w, pkix.Name{CommonName: *code.RegistrationCode}).Raw))
}

func (a *authority) register(t testing.TB, w *world, change ...func(*iot.RegisterCACertificateRequest)) string {
	t.Helper()
	in := &iot.RegisterCACertificateRequest{CaCertificate: a.pem, VerificationCertificate: a.proof(t, w), SetAsActive: new(true), AllowAutoRegistration: new(true)}
	for _, c := range change {
		c(in)
	}
	return *must[*iot.RegisterCACertificateResponse](t)(w.RegisterCACertificate(t.Context(), in)).CertificateId
}

// news stands for the gateway and the room of templates.
type news struct {
	mu          sync.Mutex
	messages    []*mqtt.Message
	provisioned []map[string]string
	fails       error
}

func (n *news) Publish(_ context.Context, m *mqtt.Message) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.messages = append(n.messages, m)
	return nil
}

func (n *news) CheckJustInTime(_ context.Context, body, name string) error {
	if body == "bad" || name == "missing" {
		return &iot.InvalidRequestException{Message: "no such template"}
	}
	return nil
}

func (n *news) ProvisionJustInTime(_ context.Context, body, name string, subject map[string]string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.provisioned = append(n.provisioned, subject)
	return "thing of " + body + name, n.fails
}

func (n *news) TagResource(context.Context, *iot.TagResourceRequest) (*iot.TagResourceResponse, error) {
	return &iot.TagResourceResponse{}, nil
}

func (n *news) DeleteTags(context.Context, string) error { return nil }

func newJIT(t testing.TB, db *store.DB) (*world, *news) {
	w, n := newWorld(t, db, identity.Config{}), &news{}
	w.UseJustInTime(n, n, n)
	return w, n
}

func TestRegistrationCode(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w, _ := newJIT(t, db)
		get := func() string {
			return *must[*iot.GetRegistrationCodeResponse](t)(w.GetRegistrationCode(t.Context(), &iot.GetRegistrationCodeRequest{})).RegistrationCode
		}
		first := get()
		if len(first) != 64 || get() != first {
			t.Errorf("code %q, then %q", first, get())
		}
		must[*iot.DeleteRegistrationCodeResponse](t)(w.DeleteRegistrationCode(t.Context(), &iot.DeleteRegistrationCodeRequest{}))
		_, err := w.DeleteRegistrationCode(t.Context(), &iot.DeleteRegistrationCodeRequest{})
		wantError[*iot.ResourceNotFoundException](t, err, "no registration code")
		if get() == first {
			t.Error("the deleted code came back")
		}
	})
}

func TestCALife(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		w, _ := newJIT(t, db)
		ca := newAuthority(t, w, "factory")
		id := ca.register(t, w, func(in *iot.RegisterCACertificateRequest) {
			in.SetAsActive, in.AllowAutoRegistration = nil, nil
			in.RegistrationConfig = &iot.RegistrationConfig{TemplateName: new("bulbs"), RoleArn: new("arn:aws:iam::123456789012:role/r")}
		})
		describe := func() *iot.DescribeCACertificateResponse {
			return must[*iot.DescribeCACertificateResponse](t)(w.DescribeCACertificate(ctx, &iot.DescribeCACertificateRequest{CertificateId: strings.ToUpper(id)}))
		}
		d := describe()
		if c := d.CertificateDescription; *c.Status != "INACTIVE" || *c.AutoRegistrationStatus != "DISABLE" || *c.CertificateMode != "DEFAULT" || *c.CertificatePem != ca.pem ||
			*c.CertificateArn != "arn:aws:iot:us-east-1:123456789012:cacert/"+id || *c.CustomerVersion != 1 || !c.Validity.NotAfter.Equal(ca.cert.NotAfter) {
			t.Errorf("description %+v", c)
		}
		if *d.RegistrationConfig.TemplateName != "bulbs" || d.RegistrationConfig.TemplateBody != nil {
			t.Errorf("configuration %+v", d.RegistrationConfig)
		}
		update := func(in iot.UpdateCACertificateRequest) error {
			in.CertificateId = id
			_, err := w.UpdateCACertificate(ctx, &in)
			return err
		}
		wantError[*iot.InvalidRequestException](t, update(iot.UpdateCACertificateRequest{}), "nothing")
		wantError[*iot.InvalidRequestException](t, update(iot.UpdateCACertificateRequest{RegistrationConfig: &iot.RegistrationConfig{TemplateBody: new("bad")}}), "template")
		wantError[*iot.InvalidRequestException](t, update(iot.UpdateCACertificateRequest{RegistrationConfig: &iot.RegistrationConfig{TemplateBody: new("{}"), TemplateName: new("x")}}), "together")
		if err := update(iot.UpdateCACertificateRequest{NewStatus: new("ACTIVE"), NewAutoRegistrationStatus: new("ENABLE"), RegistrationConfig: &iot.RegistrationConfig{TemplateBody: new("{}")}}); err != nil {
			t.Fatal(err)
		}
		if d := describe(); *d.CertificateDescription.Status != "ACTIVE" || *d.CertificateDescription.AutoRegistrationStatus != "ENABLE" ||
			*d.RegistrationConfig.TemplateBody != "{}" || d.RegistrationConfig.TemplateName != nil || *d.CertificateDescription.CustomerVersion != 2 {
			t.Errorf("updated: %+v %+v", d.CertificateDescription, d.RegistrationConfig)
		}
		if err := update(iot.UpdateCACertificateRequest{RemoveAutoRegistration: new(true)}); err != nil {
			t.Fatal(err)
		}
		if d := describe(); *d.CertificateDescription.AutoRegistrationStatus != "DISABLE" || d.RegistrationConfig != nil {
			t.Errorf("removed: %+v %+v", d.CertificateDescription, d.RegistrationConfig)
		}
		_, err := w.DeleteCACertificate(ctx, &iot.DeleteCACertificateRequest{CertificateId: id})
		wantError[*iot.CertificateStateException](t, err, "ACTIVE")
		if err := update(iot.UpdateCACertificateRequest{NewStatus: new("INACTIVE")}); err != nil {
			t.Fatal(err)
		}
		must[*iot.DeleteCACertificateResponse](t)(w.DeleteCACertificate(ctx, &iot.DeleteCACertificateRequest{CertificateId: id}))
		_, err = w.DescribeCACertificate(ctx, &iot.DescribeCACertificateRequest{CertificateId: id})
		wantError[*iot.ResourceNotFoundException](t, err, id)
	})
}

func TestRegisterCACertificateRefuses(t *testing.T) {
	w, _ := newJIT(t, storetest.Open(t))
	ca, other := newAuthority(t, w, "factory"), newAuthority(t, w, "other")
	call := func(in iot.RegisterCACertificateRequest) error {
		if in.CaCertificate == "" {
			in.CaCertificate = ca.pem
		}
		_, err := w.RegisterCACertificate(t.Context(), &in)
		return err
	}
	proof := ca.proof(t, w)
	wantError[*iot.InvalidRequestException](t, call(iot.RegisterCACertificateRequest{}), "verificationCertificate")
	wantError[*iot.InvalidRequestException](t, call(iot.RegisterCACertificateRequest{VerificationCertificate: proof, CertificateMode: new("SNI_ONLY")}), "verificationCertificate")
	wantError[*iot.CertificateValidationException](t, call(iot.RegisterCACertificateRequest{VerificationCertificate: other.proof(t, w)}), "not signed")
	wantError[*iot.CertificateValidationException](t, call(iot.RegisterCACertificateRequest{VerificationCertificate: new("rubbish")}), "verification")
	wrong := ca.sign(t, w, pkix.Name{CommonName: strings.Repeat("0", 64)})
	wantError[*iot.RegistrationCodeValidationException](t, call(iot.RegisterCACertificateRequest{VerificationCertificate: new(pemOf(wrong.Raw))}), "registration code")
	must[*iot.DeleteRegistrationCodeResponse](t)(w.DeleteRegistrationCode(t.Context(), &iot.DeleteRegistrationCodeRequest{}))
	wantError[*iot.RegistrationCodeValidationException](t, call(iot.RegisterCACertificateRequest{VerificationCertificate: proof}), "registration code")

	for name, text := range map[string]string{
		"an end-entity certificate":      pemOf(ca.sign(t, w, pkix.Name{CommonName: "leaf"}).Raw),
		"expired":                        newAuthority(t, w, "old", func(c *x509.Certificate) { c.NotAfter = w.clock.Now().Add(-time.Minute) }).pem,
		"not valid yet":                  newAuthority(t, w, "new", func(c *x509.Certificate) { c.NotBefore = w.clock.Now().Add(time.Hour) }).pem,
		"may not sign":                   newAuthority(t, w, "useless", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }).pem,
		"two certificates":               ca.pem + other.pem,
		"not a certificate":              "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"without a subject":              newAuthority(t, w, "", func(c *x509.Certificate) { c.Subject = pkix.Name{} }).pem,
		"self-signed with another's key": forged(t, w),
	} {
		t.Run(name, func(t *testing.T) {
			wantError[*iot.CertificateValidationException](t, call(iot.RegisterCACertificateRequest{CaCertificate: text, CertificateMode: new("SNI_ONLY")}), "Invalid CA certificate")
		})
	}
	root := string(w.Authority().RootPEM())
	wantError[*iot.InvalidRequestException](t, call(iot.RegisterCACertificateRequest{CaCertificate: root, CertificateMode: new("SNI_ONLY")}), "own authority")

	ca.register(t, w)
	err := call(iot.RegisterCACertificateRequest{VerificationCertificate: ca.proof(t, w)})
	wantError[*iot.ResourceAlreadyExistsException](t, err, "already")
	if e, _ := errors.AsType[*iot.ResourceAlreadyExistsException](err); e == nil || e.ResourceId != identity.CertificateID(ca.cert) {
		t.Errorf("exists: %+v", e)
	}
	for range 9 {
		newAuthority(t, w, "factory").register(t, w)
	}
	eleventh := newAuthority(t, w, "factory")
	wantError[*iot.LimitExceededException](t, call(iot.RegisterCACertificateRequest{CaCertificate: eleventh.pem, VerificationCertificate: eleventh.proof(t, w)}), "10")
}

// forged is a certificate that says it is signed by itself but is not.
func forged(t *testing.T, w *world) string {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "forged"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: w.clock.Now().Add(-time.Hour), NotAfter: w.clock.Now().Add(time.Hour),
	}
	return pemOf(must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, ecKey(t, elliptic.P256()).Public(), ecKey(t, elliptic.P256()))))
}

func TestRegisterCertificateOfCA(t *testing.T) {
	ctx := t.Context()
	w, n := newJIT(t, storetest.Open(t))
	ca := newAuthority(t, w, "factory")
	id := ca.register(t, w, func(in *iot.RegisterCACertificateRequest) {
		in.CertificateMode, in.VerificationCertificate = new("SNI_ONLY"), nil
	})
	register := func(cert *x509.Certificate, of *authority) (string, error) {
		in := &iot.RegisterCertificateRequest{CertificatePem: pemOf(cert.Raw)}
		if of != nil {
			in.CaCertificatePem = &of.pem
		}
		out, err := w.RegisterCertificate(ctx, in)
		if err != nil {
			return "", err
		}
		return *out.CertificateId, nil
	}
	first := must[string](t)(register(ca.sign(t, w, pkix.Name{CommonName: "1"}), nil))
	w.clock.advance(time.Second)
	second := must[string](t)(register(ca.sign(t, w, pkix.Name{CommonName: "2"}), ca))
	d := must[*iot.DescribeCertificateResponse](t)(w.DescribeCertificate(ctx, &iot.DescribeCertificateRequest{CertificateId: first})).CertificateDescription
	if *d.CaCertificateId != id || *d.CertificateMode != "SNI_ONLY" || *d.Status != "INACTIVE" {
		t.Errorf("certificate %+v", d)
	}
	var got []string
	in := &iot.ListCertificatesByCARequest{CaCertificateId: id, PageSize: new(int32(1)), AscendingOrder: new(true)}
	for {
		page := must[*iot.ListCertificatesByCAResponse](t)(w.ListCertificatesByCA(ctx, in))
		for _, c := range page.Certificates {
			got = append(got, *c.CertificateId)
		}
		if in.Marker = page.NextMarker; in.Marker == nil {
			break
		}
	}
	if diff := cmp.Diff([]string{first, second}, got); diff != "" {
		t.Error(diff)
	}

	stranger := newAuthority(t, w, "stranger")
	_, err := register(stranger.sign(t, w, pkix.Name{}), nil)
	wantError[*iot.CertificateValidationException](t, err, "WithoutCA")
	_, err = register(stranger.sign(t, w, pkix.Name{}), stranger)
	wantError[*iot.CertificateValidationException](t, err, "not registered")
	_, err = register(ca.sign(t, w, pkix.Name{}), stranger)
	wantError[*iot.CertificateValidationException](t, err, "not signed")
	_, err = register(ca.sign(t, w, pkix.Name{}, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), nil)
	wantError[*iot.CertificateValidationException](t, err, "clientAuth")

	// The authority's certificate was issued anew: the same name, the same key.
	renewed := &authority{key: ca.key}
	template := *ca.cert
	template.SerialNumber = big.NewInt(2)
	renewed.cert = must[*x509.Certificate](t)(x509.ParseCertificate(must[[]byte](t)(x509.CreateCertificate(rand.Reader, &template, &template, ca.key.Public(), ca.key))))
	renewed.pem = pemOf(renewed.cert.Raw)
	renewedID := renewed.register(t, w)
	_, err = register(ca.sign(t, w, pkix.Name{}), nil)
	wantError[*iot.CertificateConflictException](t, err, "caCertificatePem")
	third := must[string](t)(register(ca.sign(t, w, pkix.Name{}), renewed))
	d = must[*iot.DescribeCertificateResponse](t)(w.DescribeCertificate(ctx, &iot.DescribeCertificateRequest{CertificateId: third})).CertificateDescription
	if *d.CaCertificateId != renewedID {
		t.Errorf("CA %s", *d.CaCertificateId)
	}
	must[*iot.UpdateCACertificateResponse](t)(w.UpdateCACertificate(ctx, &iot.UpdateCACertificateRequest{CertificateId: renewedID, NewStatus: new("INACTIVE")}))
	_, err = register(ca.sign(t, w, pkix.Name{}), renewed)
	wantError[*iot.CertificateStateException](t, err, "INACTIVE")
	if len(n.messages) > 0 {
		t.Errorf("RegisterCertificate announced %+v", n.messages)
	}
}

func TestFirstConnect(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w, n := newJIT(t, db)
		ca := newAuthority(t, w, "factory")
		caID := ca.register(t, w)
		leaf := ca.sign(t, w, pkix.Name{CommonName: "x"})
		connect := func(leaf *x509.Certificate) error {
			_, _, err := w.Identify(t.Context(), leaf)
			return w.FirstConnect(t.Context(), []*x509.Certificate{leaf}, "localhost", err)
		}
		wantRefused(t, connect(leaf), identity.ReasonRegistered)
		w.clock.advance(time.Second)
		wantRefused(t, connect(leaf), identity.ReasonRegistered)
		var events [2]map[string]any
		for i, m := range n.messages {
			if m.Topic != "$aws/events/certificates/registered/"+caID || m.QoS != 1 {
				t.Errorf("event on %s, QoS %d", m.Topic, m.QoS)
			}
			if err := json.Unmarshal(m.Payload, &events[i]); err != nil {
				t.Fatal(err)
			}
		}
		id := identity.CertificateID(leaf)
		want := map[string]any{
			"certificateId": id, "caCertificateId": caID, "certificateStatus": "PENDING_ACTIVATION", "awsAccountId": account.ID,
			"timestamp": float64(w.clock.Now().UnixMilli() - 1000), "certificateRegistrationTimestamp": nil,
		}
		if diff := cmp.Diff(want, events[0]); diff != "" {
			t.Error(diff)
		}
		if events[1]["certificateRegistrationTimestamp"] == nil || len(n.messages) != 2 {
			t.Errorf("second event %v of %d", events[1], len(n.messages))
		}
		// What somebody has decided stays.
		must[*iot.UpdateCertificateResponse](t)(w.UpdateCertificate(t.Context(), &iot.UpdateCertificateRequest{CertificateId: id, NewStatus: "REVOKED"}))
		wantRefused(t, connect(leaf), identity.ReasonNotActive)
		if len(n.messages) != 2 {
			t.Error("a revoked certificate was announced")
		}
		// One that waits for its ownership token is nobody's to register.
		pending := must[*iot.CreateKeysAndCertificateResponse](t)(w.CreatePending(t.Context(), "", w.clock.Now().Add(time.Hour), "", ""))
		wantRefused(t, connect(parse(t, *pending.CertificatePem)), identity.ReasonNotActive)

		must[*iot.UpdateCACertificateResponse](t)(w.UpdateCACertificate(t.Context(), &iot.UpdateCACertificateRequest{CertificateId: caID, RegistrationConfig: &iot.RegistrationConfig{TemplateBody: new("{}")}}))
		named := pkix.Name{CommonName: "x", SerialNumber: "S", Country: []string{"CH"}, Organization: []string{"O"}, OrganizationalUnit: []string{"OU"}, Province: []string{"ZH"}}
		leaf = ca.sign(t, w, named)
		wantRefused(t, connect(leaf), identity.ReasonProvisioned)
		wantSubject := []map[string]string{{
			"Id": identity.CertificateID(leaf), "CommonName": "x", "SerialNumber": "S", "Country": "CH", "Organization": "O", "OrganizationalUnit": "OU", "StateName": "ZH",
		}}
		if diff := cmp.Diff(wantSubject, n.provisioned); diff != "" {
			t.Error(diff)
		}
		n.fails = &iot.ResourceRegistrationFailureException{Message: "no group"}
		leaf = ca.sign(t, w, named)
		err := connect(leaf)
		wantRefused(t, err, identity.ReasonRegistered)
		if !strings.Contains(err.Error(), "no group") {
			t.Errorf("%v does not say why", err)
		}
		active, claim, err := w.Standing(t.Context(), identity.CertificateID(leaf))
		if active || claim != "" || err != nil {
			t.Errorf("standing %v %q %v", active, claim, err)
		}
	})
}

// Many connections of a certificate at once register it once.
func TestFirstConnectAtOnce(t *testing.T) {
	w, n := newJIT(t, storetest.Open(t))
	ca := newAuthority(t, w, "factory")
	ca.register(t, w)
	leaf := ca.sign(t, w, pkix.Name{CommonName: "x"})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			_, _, err := w.Identify(t.Context(), leaf)
			_ = w.FirstConnect(t.Context(), []*x509.Certificate{leaf}, "localhost", err)
		})
	}
	wg.Wait()
	first := 0
	for _, m := range n.messages {
		if strings.Contains(string(m.Payload), `"certificateRegistrationTimestamp":null`) {
			first++
		}
	}
	if first != 1 {
		t.Errorf("registered %d times", first)
	}
}

func TestTransferIsRefusedByName(t *testing.T) {
	ctx := t.Context()
	w, _ := newJIT(t, storetest.Open(t))
	made := must[*iot.CreateKeysAndCertificateResponse](t)(w.CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateRequest{SetAsActive: new(true)}))
	transfer := func(to string) error {
		_, err := w.TransferCertificate(ctx, &iot.TransferCertificateRequest{CertificateId: *made.CertificateId, TargetAwsAccount: to})
		return err
	}
	wantError[*iot.CertificateStateException](t, transfer("210987654321"), "ACTIVE")
	must[*iot.UpdateCertificateResponse](t)(w.UpdateCertificate(ctx, &iot.UpdateCertificateRequest{CertificateId: *made.CertificateId, NewStatus: "INACTIVE"}))
	wantError[*iot.InvalidRequestException](t, transfer("210987654321"), "210987654321")
	wantError[*iot.InvalidRequestException](t, transfer(account.ID), "already")
	_, err := w.AcceptCertificateTransfer(ctx, &iot.AcceptCertificateTransferRequest{CertificateId: *made.CertificateId})
	wantError[*iot.ResourceNotFoundException](t, err, "being transferred")
	_, err = w.RejectCertificateTransfer(ctx, &iot.RejectCertificateTransferRequest{CertificateId: *made.CertificateId})
	wantError[*iot.ResourceNotFoundException](t, err, "being transferred")
	_, err = w.CancelCertificateTransfer(ctx, &iot.CancelCertificateTransferRequest{CertificateId: *made.CertificateId})
	wantError[*iot.InvalidRequestException](t, err, "not being transferred")
	_, err = w.CancelCertificateTransfer(ctx, &iot.CancelCertificateTransferRequest{CertificateId: strings.Repeat("0", 64)})
	wantError[*iot.ResourceNotFoundException](t, err, "does not exist")
	if out := must[*iot.ListOutgoingCertificatesResponse](t)(w.ListOutgoingCertificates(ctx, &iot.ListOutgoingCertificatesRequest{})); len(out.OutgoingCertificates) > 0 {
		t.Errorf("outgoing %v", out)
	}
}
