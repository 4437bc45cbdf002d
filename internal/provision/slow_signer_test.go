package provision_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/provision"
)

// slowSigner keeps a key, and when it is slow takes until it is let go for a signature.
type slowSigner struct {
	crypto.Signer
	slow         atomic.Bool
	asked, letGo chan struct{}
}

func (s *slowSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if s.slow.Load() {
		s.asked <- struct{}{}
		<-s.letGo
	}
	return s.Signer.Sign(r, digest, o)
}

// While somebody else takes his time to sign a CSR, others write, in RegisterThing and in bulk registration.
func TestSlowSignerBlocksNobody(t *testing.T) {
	db := openDB(t)
	signer := &slowSigner{Signer: must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), asked: make(chan struct{}, 1), letGo: make(chan struct{})}
	w := newWorldSigned(t, db, nil, signer)
	o := &objects{}
	line, err := json.Marshal(map[string]string{"ThingName": "bulk", "CSR": newCSR(t)})
	if err != nil {
		t.Fatal(err)
	}
	o.put(string(line))
	w.use(o, "n1", provision.Config{BulkRate: 100000})
	w.run(t)
	for name, start := range map[string]func() (over func() error){
		"RegisterThing": func() func() error {
			done := make(chan error, 1)
			go func() {
				_, err := w.RegisterThing(t.Context(), &iot.RegisterThingRequest{TemplateBody: bulkCSRBody, Parameters: map[string]string{"ThingName": "one", "CSR": newCSR(t)}})
				done <- err
			}()
			return func() error { return <-done }
		},
		"bulk": func() func() error {
			id := w.startTask(t, bulkCSRBody)
			return func() error {
				if k := w.ended(t, id); *k.SuccessCount != 1 {
					t.Errorf("bulk: %d lines succeeded", *k.SuccessCount)
				}
				return nil
			}
		},
	} {
		signer.slow.Store(true)
		over := start()
		<-signer.asked
		signer.slow.Store(false)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := w.registry.CreateThing(ctx, &iot.CreateThingRequest{ThingName: "other-" + name}); err != nil {
			t.Errorf("%s: another write: %v", name, err)
		}
		cancel()
		signer.letGo <- struct{}{}
		if err := over(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a certificate provider does wrong is told to the operator, not to the device.
func TestProviderFailureIsExplained(t *testing.T) {
	w := newWorld(t, openDB(t), nil)
	w.certificates.UseFunctions(hookFunc(func(context.Context, []byte) ([]byte, error) { return []byte(`{"certificatePem":"secret"}`), nil }))
	must[*iot.CreateCertificateProviderResponse](t)(w.certificates.CreateCertificateProvider(t.Context(), &iot.CreateCertificateProviderRequest{
		CertificateProviderName: "pki", LambdaFunctionArn: "f", AccountDefaultForOperations: []string{"CreateCertificateFromCsr"},
	}))
	from := mqtt.Source{ClientID: "c", ConnectionID: "1", PrincipalID: claim.PrincipalID}
	request := must[[]byte](t)(json.Marshal(map[string]string{"certificateSigningRequest": newCSR(t)}))
	if err := w.ServeMQTT(t.Context(), &mqtt.Message{Topic: "$aws/certificates/create-from-csr/json", Payload: request, Source: from}); err == nil {
		t.Error("the operator does not hear of it")
	}
	m := w.out.take("c")
	if m == nil || !strings.HasSuffix(m.Topic, "/rejected") || !strings.Contains(string(m.Payload), `"ServiceUnavailable"`) || strings.Contains(string(m.Payload), "PEM") {
		t.Fatalf("the device was told %+v", m)
	}
	if a := w.last(t, "c"); a.Reason == nil || !strings.Contains(*a.Reason, "certificate provider pki, function f: its answer") {
		t.Errorf("kept: %s", story(t, a))
	}
}
