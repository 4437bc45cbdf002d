package identity_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/identity"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// oldRoot stores a root of the time when it signed leaves itself, as data directories of then hold it.
func oldRoot(t *testing.T, db *store.DB) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "Flotilla Root CA", OrganizationalUnit: []string{"0badc0de"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	secret := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
	err := db.Write(t.Context(), func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`INSERT INTO authority (name, certificate, private_key, sealed, created) VALUES ('root', $1, $2, $3, 1)`, der, secret, false)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return must[*x509.Certificate](t)(x509.ParseCertificate(der)), key
}

// Devices of before keep the root that they were given: servers must go on satisfying it. New devices' certificates
// lead to the root by way of the issuing authority.
func TestAuthorityOfBefore(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		old, key := oldRoot(t, db)
		w := newWorld(t, db, identity.Config{})
		a := w.Authority()
		if r := a.Root(); r.MaxPathLen != 1 || !bytes.Equal(r.RawSubject, old.RawSubject) || !bytes.Equal(r.RawSubjectPublicKeyInfo, old.RawSubjectPublicKeyInfo) || !bytes.Equal(r.SubjectKeyId, old.SubjectKeyId) {
			t.Errorf("the root is another one: %v, path length %d", r.Subject, r.MaxPathLen)
		}
		made := must[*iot.CreateKeysAndCertificateResponse](t)(w.CreateKeysAndCertificate(t.Context(), &iot.CreateKeysAndCertificateRequest{}))
		if _, err := parse(t, *made.CertificatePem).Verify(x509.VerifyOptions{Roots: a.Pool(), Intermediates: between(w), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("a new device: %v", err)
		}
		server := must[*identity.ServerCertificates](t)(a.ServerCertificates(t.TempDir(), "iot.example.com"))
		shown := must[*tls.Certificate](t)(server.GetCertificate(&tls.ClientHelloInfo{
			SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}, SupportedCurves: []tls.CurveID{tls.CurveP256},
		}))
		for name, root := range map[string]*x509.Certificate{"then": old, "now": a.Root()} {
			pool := x509.NewCertPool()
			pool.AddCert(root)
			if _, err := shown.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "iot.example.com"}); err != nil {
				t.Errorf("a device with the root of %s: %v", name, err)
			}
		}
		// A certificate that the root itself signed then can still be registered.
		template := &x509.Certificate{SerialNumber: big.NewInt(8), Subject: pkix.Name{CommonName: "d"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
		der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, old, ecKey(t, elliptic.P256()).Public(), key))
		must[*iot.RegisterCertificateResponse](t)(w.RegisterCertificate(t.Context(), &iot.RegisterCertificateRequest{CertificatePem: pemOf(der)}))
		again := must[*identity.Authority](t)(identity.OpenAuthority(t.Context(), db, identity.AuthorityConfig{Dir: t.TempDir()}))
		if !again.Root().Equal(a.Root()) || !again.Issuing().Equal(a.Issuing()) {
			t.Error("the next start made other authorities")
		}
	})
}

// New deployments' servers show the issuing authority; clients have the root.
func TestServersShowTheChain(t *testing.T) {
	w := newWorld(t, storetest.Open(t), identity.Config{})
	dir := t.TempDir()
	server := must[*identity.ServerCertificates](t)(w.Authority().ServerCertificates(dir, "localhost"))
	shown := must[*tls.Certificate](t)(server.GetCertificate(&tls.ClientHelloInfo{
		SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}, SupportedCurves: []tls.CurveID{tls.CurveP256},
	}))
	if len(shown.Certificate) != 2 || !bytes.Equal(shown.Certificate[1], w.Authority().Issuing().Raw) {
		t.Fatalf("shows %d certificates", len(shown.Certificate))
	}
	if _, err := shown.Leaf.Verify(x509.VerifyOptions{Roots: w.Authority().Pool(), Intermediates: between(w), DNSName: "localhost"}); err != nil {
		t.Error(err)
	}
	if text := must[[]byte](t)(os.ReadFile(filepath.Join(dir, "ca", "server-ecdsa.pem"))); bytes.Count(text, []byte("BEGIN CERTIFICATE")) != 2 {
		t.Error("the file holds no chain")
	}
}

func TestCertificateValidity(t *testing.T) {
	w := newWorld(t, storetest.Open(t), identity.Config{CertificateValidity: 365 * 24 * time.Hour, CRLURL: "http://iot.example.com/crl"})
	made := must[*iot.CreateKeysAndCertificateResponse](t)(w.CreateKeysAndCertificate(t.Context(), &iot.CreateKeysAndCertificateRequest{SetAsActive: new(true)}))
	cert := parse(t, *made.CertificatePem)
	if got := cert.NotAfter.Sub(w.clock.Now()).Round(time.Hour); got != 365*24*time.Hour {
		t.Errorf("valid for %v", got)
	}
	if len(cert.CRLDistributionPoints) != 1 || cert.SerialNumber.Sign() <= 0 || cert.KeyUsage != x509.KeyUsageDigitalSignature || cert.IsCA {
		t.Errorf("distribution points %v, serial %v, key usage %v", cert.CRLDistributionPoints, cert.SerialNumber, cert.KeyUsage)
	}
	w.clock.advance(366 * 24 * time.Hour)
	_, _, err := w.Identify(t.Context(), cert)
	wantRefused(t, err, identity.ReasonExpired)
}

func TestRevocationList(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		w := newWorld(t, db, identity.Config{CertificateValidity: 30 * 24 * time.Hour})
		fetch := func() *x509.RevocationList {
			t.Helper()
			r := httptest.NewRecorder()
			w.ServeCRL(r, httptest.NewRequest(http.MethodGet, "/crl", http.NoBody))
			if r.Code != http.StatusOK || r.Header().Get("Content-Type") != "application/pkix-crl" {
				t.Fatalf("status %d, %s", r.Code, r.Header().Get("Content-Type"))
			}
			l := must[*x509.RevocationList](t)(x509.ParseRevocationList(r.Body.Bytes()))
			if err := l.CheckSignatureFrom(w.Authority().Issuing()); err != nil {
				t.Error(err)
			}
			if now := w.clock.Now(); l.ThisUpdate.After(now) || !l.NextUpdate.After(now) {
				t.Errorf("good from %v to %v, now %v", l.ThisUpdate, l.NextUpdate, now)
			}
			return l
		}
		first := fetch()
		if len(first.RevokedCertificateEntries) != 0 || fetch().Number.Cmp(first.Number) != 0 {
			t.Errorf("list %v of %d certificates, then %v", first.Number, len(first.RevokedCertificateEntries), fetch().Number)
		}
		make := func() (string, *x509.Certificate) {
			made := must[*iot.CreateKeysAndCertificateResponse](t)(w.CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateRequest{SetAsActive: new(true)}))
			return *made.CertificateId, parse(t, *made.CertificatePem)
		}
		set := func(id, status string) {
			t.Helper()
			must[*iot.UpdateCertificateResponse](t)(w.UpdateCertificate(ctx, &iot.UpdateCertificateRequest{CertificateId: id, NewStatus: status}))
		}
		a, certA := make()
		b, _ := make()
		set(a, "REVOKED")
		set(b, "INACTIVE")
		l := fetch()
		if len(l.RevokedCertificateEntries) != 1 || l.RevokedCertificateEntries[0].SerialNumber.Cmp(certA.SerialNumber) != 0 || l.Number.Cmp(first.Number) <= 0 {
			t.Errorf("list %v: %v", l.Number, l.RevokedCertificateEntries)
		}
		set(b, "REVOKED")
		if l := fetch(); len(l.RevokedCertificateEntries) != 2 {
			t.Errorf("list of %d", len(l.RevokedCertificateEntries))
		}
		set(b, "ACTIVE") // AWS lets it come back
		must[*iot.DeleteCertificateResponse](t)(w.DeleteCertificate(ctx, &iot.DeleteCertificateRequest{CertificateId: a}))
		if l := fetch(); len(l.RevokedCertificateEntries) != 1 || l.RevokedCertificateEntries[0].SerialNumber.Cmp(certA.SerialNumber) != 0 {
			t.Errorf("after the deletion: %v", l.RevokedCertificateEntries)
		}
		was := fetch().Number
		w.clock.advance(5 * 24 * time.Hour)
		if fetch().Number.Cmp(was) <= 0 {
			t.Error("the list was not issued anew in time")
		}
		w.clock.advance(40 * 24 * time.Hour)
		if l := fetch(); len(l.RevokedCertificateEntries) != 0 {
			t.Errorf("expired certificates are listed: %v", l.RevokedCertificateEntries)
		}
		for path, want := range map[string]int{"/crl/00": http.StatusNotFound, "/crl/" + strings.Repeat("z", 4096): http.StatusNotFound} {
			r := httptest.NewRecorder()
			w.ServeCRL(r, httptest.NewRequest(http.MethodGet, path, http.NoBody))
			if r.Code != want {
				t.Errorf("%.20s: %d", path, r.Code)
			}
		}
		r := httptest.NewRecorder()
		w.ServeCRL(r, httptest.NewRequest(http.MethodPost, "/crl", http.NoBody))
		if r.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST: %d", r.Code)
		}
	})
}

// Certificates that were revoked before there were lists are listed by the next start.
func TestEarlierRevocationsAreListed(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, identity.Config{})
		made := must[*iot.CreateKeysAndCertificateResponse](t)(w.CreateKeysAndCertificate(t.Context(), &iot.CreateKeysAndCertificateRequest{}))
		err := db.Write(t.Context(), func(_ context.Context, tx store.Tx) error {
			_, err := tx.Exec(`UPDATE certificate SET status = 'REVOKED' WHERE id = $1`, *made.CertificateId)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		must[[]byte](t)(w.CRL(t.Context(), "")) // is stale then
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		for end := time.Now().Add(time.Minute); ; {
			l := must[*x509.RevocationList](t)(x509.ParseRevocationList(must[[]byte](t)(w.CRL(t.Context(), ""))))
			if len(l.RevokedCertificateEntries) == 1 {
				break
			}
			if time.Now().After(end) {
				t.Fatal("it is not listed")
			}
		}
		cancel()
		<-done
	})
}

// The issuing authority's key may be somebody else's: then it is nowhere here, and without its keeper nothing starts.
func TestAuthorityWithSigner(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx, dir := t.Context(), t.TempDir()
		local := must[*identity.Authority](t)(identity.OpenAuthority(ctx, db, identity.AuthorityConfig{Dir: dir}))
		hsm := ecKey(t, elliptic.P384())
		outside := must[*identity.Authority](t)(identity.OpenAuthority(ctx, db, identity.AuthorityConfig{Dir: dir, Signer: hsm}))
		if !outside.Root().Equal(local.Root()) || outside.Issuing().Equal(local.Issuing()) || !hsm.PublicKey.Equal(outside.Issuing().PublicKey) || outside.Issuing().CheckSignatureFrom(local.Root()) != nil {
			t.Error("the signer's key has no certificate of the root")
		}
		again := must[*identity.Authority](t)(identity.OpenAuthority(ctx, db, identity.AuthorityConfig{Dir: dir, Signer: hsm}))
		if !again.Issuing().Equal(outside.Issuing()) {
			t.Error("the next start made another authority")
		}
		if _, err := identity.OpenAuthority(ctx, db, identity.AuthorityConfig{Dir: dir}); err == nil || !strings.Contains(err.Error(), "identity.signer") {
			t.Errorf("without the signer: %v", err)
		}
		c := identity.New(identity.Config{}, identity.Deps{Account: account, DB: db, Changes: &bus{}, Authority: again})
		made := must[*iot.CreateKeysAndCertificateResponse](t)(c.CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateRequest{}))
		if err := parse(t, *made.CertificatePem).CheckSignatureFrom(again.Issuing()); err != nil {
			t.Error(err)
		}
	})
}
