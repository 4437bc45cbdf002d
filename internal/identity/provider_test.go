package identity_test

import (
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws/iot"
	"flotilla/internal/identity"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// functionOf is a function of one's own.
type functionOf func(ctx context.Context, arn string, event map[string]string) (answer string, err error)

func (f functionOf) Invoke(ctx context.Context, arn string, payload []byte) ([]byte, error) {
	var event map[string]string
	if err := json.Unmarshal(payload, &event); err != nil {
		return nil, err
	}
	answer, err := f(ctx, arn, event)
	return []byte(answer), err
}

const signerARN = "arn:aws:lambda:us-east-1:123456789012:function:signer"

func (w *world) createProvider(t testing.TB) {
	t.Helper()
	must[*iot.CreateCertificateProviderResponse](t)(w.CreateCertificateProvider(t.Context(), &iot.CreateCertificateProviderRequest{
		CertificateProviderName: "pki", LambdaFunctionArn: signerARN, AccountDefaultForOperations: []string{"CreateCertificateFromCsr"},
	}))
}

func answerWith(certificatePEM string) (string, error) {
	out, err := json.Marshal(map[string]string{"certificatePem": certificatePEM})
	return string(out), err
}

func TestCertificateProviderLife(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		w, _ := newJIT(t, db)
		create := func(name, function string, operations ...string) error {
			_, err := w.CreateCertificateProvider(ctx, &iot.CreateCertificateProviderRequest{CertificateProviderName: name, LambdaFunctionArn: function, AccountDefaultForOperations: operations})
			return err
		}
		const operation = "CreateCertificateFromCsr"
		wantError[*iot.InvalidRequestException](t, create("pki", signerARN, operation), "functions")
		w.UseFunctions(functionOf(nil))
		wantError[*iot.InvalidRequestException](t, create("pki", signerARN), "accountDefaultForOperations")
		wantError[*iot.InvalidRequestException](t, create("pki", signerARN, "CreateKeysAndCertificate"), "accountDefaultForOperations")
		w.createProvider(t)
		wantError[*iot.ResourceAlreadyExistsException](t, create("pki", signerARN, operation), "exists already")
		wantError[*iot.LimitExceededException](t, create("other", signerARN, operation), "an account can have one")
		list := must[*iot.ListCertificateProvidersResponse](t)(w.ListCertificateProviders(ctx, &iot.ListCertificateProvidersRequest{}))
		if len(list.CertificateProviders) != 1 || *list.CertificateProviders[0].CertificateProviderArn != "arn:aws:iot:us-east-1:123456789012:certificateprovider/pki" {
			t.Errorf("listed: %+v", list.CertificateProviders)
		}
		w.clock.advance(time.Minute)
		must[*iot.UpdateCertificateProviderResponse](t)(w.UpdateCertificateProvider(ctx, &iot.UpdateCertificateProviderRequest{CertificateProviderName: "pki", LambdaFunctionArn: new(signerARN + "2")}))
		_, err := w.UpdateCertificateProvider(ctx, &iot.UpdateCertificateProviderRequest{CertificateProviderName: "other"})
		wantError[*iot.ResourceNotFoundException](t, err, "other")
		d := must[*iot.DescribeCertificateProviderResponse](t)(w.DescribeCertificateProvider(ctx, &iot.DescribeCertificateProviderRequest{CertificateProviderName: "pki"}))
		if *d.LambdaFunctionArn != signerARN+"2" || d.LastModifiedDate.Sub(d.CreationDate.Time) != time.Minute || !cmp.Equal(d.AccountDefaultForOperations, []string{operation}) {
			t.Errorf("described: %+v", d)
		}
		must[*iot.DeleteCertificateProviderResponse](t)(w.DeleteCertificateProvider(ctx, &iot.DeleteCertificateProviderRequest{CertificateProviderName: "pki"}))
		_, err = w.DeleteCertificateProvider(ctx, &iot.DeleteCertificateProviderRequest{CertificateProviderName: "pki"})
		wantError[*iot.ResourceNotFoundException](t, err, "pki")
		_, err = w.DescribeCertificateProvider(ctx, &iot.DescribeCertificateProviderRequest{CertificateProviderName: "pki"})
		wantError[*iot.ResourceNotFoundException](t, err, "pki")
	})
}

// The function signs what fleet provisioning asks for, is told what AWS tells it, and nothing else changes.
func TestCertificateProviderSigns(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		w := newWorld(t, db, identity.Config{})
		outside := newAuthority(t, w, "Somebody's PKI")
		subject := pkix.Name{CommonName: "d1"}
		key := ecKey(t, elliptic.P256())
		request := csr(t, key, subject)
		var event map[string]string
		w.UseFunctions(functionOf(func(_ context.Context, arn string, e map[string]string) (string, error) {
			if arn != signerARN {
				t.Errorf("function %s was called", arn)
			}
			event = e
			return answerWith(pemOf(outside.signKey(t, w, subject, key.Public()).Raw))
		}))
		w.createProvider(t)
		until := w.clock.Now().Add(time.Hour)
		made := must[*iot.CreateKeysAndCertificateResponse](t)(w.CreatePending(ctx, request, until, "0a1b", "client-1"))
		if diff := cmp.Diff(map[string]string{"certificateSigningRequest": request, "principalId": "0a1b", "clientId": "client-1"}, event); diff != "" {
			t.Error(diff)
		}
		if cert := parse(t, *made.CertificatePem); cert.CheckSignatureFrom(outside.cert) != nil || !key.PublicKey.Equal(cert.PublicKey) {
			t.Error("somebody else's certificate was registered")
		}
		d := must[*iot.DescribeCertificateResponse](t)(w.DescribeCertificate(ctx, &iot.DescribeCertificateRequest{CertificateId: *made.CertificateId}))
		if *d.CertificateDescription.Status != iot.CertificateStatusPendingActivation {
			t.Errorf("status %s", *d.CertificateDescription.Status)
		}
		event = nil
		own := must[*iot.CreateCertificateFromCsrResponse](t)(w.CreateCertificateFromCsr(ctx, &iot.CreateCertificateFromCsrRequest{CertificateSigningRequest: request}))
		must[*iot.CreateKeysAndCertificateResponse](t)(w.CreatePending(ctx, "", until, "0a1b", "client-1"))
		if event != nil || parse(t, *own.CertificatePem).CheckSignatureFrom(w.Authority().Issuing()) != nil {
			t.Error("the provider signs what is not fleet provisioning's CSR")
		}
		must[*iot.DeleteCertificateProviderResponse](t)(w.DeleteCertificateProvider(ctx, &iot.DeleteCertificateProviderRequest{CertificateProviderName: "pki"}))
		made = must[*iot.CreateKeysAndCertificateResponse](t)(w.CreatePending(ctx, request, until, "0a1b", "client-1"))
		if parse(t, *made.CertificatePem).CheckSignatureFrom(w.Authority().Issuing()) != nil {
			t.Error("the own authority does not sign again")
		}
	})
}

// Nothing that a function may answer becomes a device's identity but a certificate for the key and subject of its request.
func TestCertificateProviderHangs(t *testing.T) {
	w := newWorld(t, storetest.Open(t), identity.Config{ProviderTimeout: 20 * time.Millisecond})
	w.UseFunctions(functionOf(func(ctx context.Context, _ string, _ map[string]string) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}))
	w.createProvider(t)
	request := csr(t, ecKey(t, elliptic.P256()), pkix.Name{CommonName: "d1"})
	_, err := w.CreatePending(t.Context(), request, w.clock.Now().Add(time.Hour), "p", "c")
	wantError[*iot.ServiceUnavailableException](t, err, "")
	if !strings.Contains(err.Error(), "it did not answer within 20ms") {
		t.Error(err)
	}
}

func TestCertificateProviderRefused(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, storetest.Open(t), identity.Config{ProviderTimeout: time.Minute})
	outside := newAuthority(t, w, "Somebody's PKI")
	subject := pkix.Name{CommonName: "d1"}
	key, other := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	good := pemOf(outside.signKey(t, w, subject, key.Public()).Raw)
	with := func(change func(*x509.Certificate)) string {
		return pemOf(outside.signKey(t, w, subject, key.Public(), change).Raw)
	}
	var answer func(ctx context.Context) (string, error)
	w.UseFunctions(functionOf(func(ctx context.Context, _ string, _ map[string]string) (string, error) { return answer(ctx) }))
	w.createProvider(t)
	request, until := csr(t, key, subject), w.clock.Now().Add(time.Hour)
	for _, c := range []struct {
		why    string
		answer func(context.Context) (string, error)
	}{
		{"it failed: boom", func(context.Context) (string, error) { return "", errors.New("boom") }},
		{"its answer is too long", func(context.Context) (string, error) { return `"` + strings.Repeat("x", 64<<10) + `"`, nil }},
		{"not a JSON object with a certificatePem", func(context.Context) (string, error) { return "nonsense", nil }},
		{"not a JSON object with a certificatePem", func(context.Context) (string, error) { return "{}", nil }},
		{"PEM block of type CERTIFICATE", func(context.Context) (string, error) { return answerWith("x") }},
		{"one PEM block", func(context.Context) (string, error) { return answerWith(good + pemOf(outside.cert.Raw)) }},
		{"PEM block of type CERTIFICATE", func(context.Context) (string, error) {
			return answerWith(string(pem.EncodeToMemory(&pem.Block{Type: "X", Bytes: []byte("x")})))
		}},
		{"not for the key", func(context.Context) (string, error) {
			return answerWith(pemOf(outside.signKey(t, w, subject, other.Public()).Raw))
		}},
		{"the subject of its certificate is", func(context.Context) (string, error) {
			return answerWith(pemOf(outside.signKey(t, w, pkix.Name{CommonName: "d2"}, key.Public()).Raw))
		}},
		{"it has expired", func(context.Context) (string, error) {
			return answerWith(with(func(x *x509.Certificate) { x.NotAfter = w.clock.Now().Add(-time.Minute) }))
		}},
		{"not valid yet", func(context.Context) (string, error) {
			return answerWith(with(func(x *x509.Certificate) { x.NotBefore = w.clock.Now().Add(time.Minute) }))
		}},
		{"clientAuth", func(context.Context) (string, error) {
			return answerWith(with(func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }))
		}},
		{"that of an authority", func(context.Context) (string, error) {
			return answerWith(with(func(x *x509.Certificate) { x.BasicConstraintsValid, x.IsCA = true, true }))
		}},
	} {
		answer = c.answer
		_, err := w.CreatePending(ctx, request, until, "p", "c")
		e, ok := errors.AsType[*iot.ServiceUnavailableException](err)
		if !ok || !strings.Contains(err.Error(), c.why) || strings.Contains(e.Error(), c.why) {
			t.Errorf("%s: %v", c.why, err)
		}
	}
	answer = func(context.Context) (string, error) {
		t.Error("the function was asked to sign a bad CSR")
		return "", nil
	}
	_, err := w.CreatePending(ctx, "nonsense", until, "p", "c")
	wantError[*iot.InvalidRequestException](t, err, "Invalid CSR")
	if list := must[*iot.ListCertificatesResponse](t)(w.ListCertificates(ctx, &iot.ListCertificatesRequest{})); len(list.Certificates) != 0 {
		t.Errorf("%d certificates were registered", len(list.Certificates))
	}
	answer = func(context.Context) (string, error) { return answerWith(good) }
	must[*iot.CreateKeysAndCertificateResponse](t)(w.CreatePending(ctx, request, until, "p", "c"))
	if _, err := w.CreatePending(ctx, request, until, "p", "c"); err == nil || !strings.Contains(err.Error(), "registered already") {
		t.Errorf("the same certificate twice: %v", err)
	}
}
