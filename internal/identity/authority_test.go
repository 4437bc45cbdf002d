package identity_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/identity"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

func TestAuthorityIsSharedAndKept(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		var wg sync.WaitGroup
		roots := make([][]byte, 4)
		dirs := make([]string, len(roots))
		for i := range roots { // nodes that start at the same time
			dirs[i] = t.TempDir()
			wg.Go(func() {
				a, err := identity.OpenAuthority(t.Context(), db, identity.AuthorityConfig{Dir: dirs[i]})
				if err != nil {
					t.Error(err)
					return
				}
				roots[i] = a.RootPEM()
			})
		}
		wg.Wait()
		for i := range roots {
			file := must[[]byte](t)(os.ReadFile(filepath.Join(dirs[i], "ca", "root.pem")))
			if len(file) == 0 || !bytes.Equal(roots[i], roots[0]) || !bytes.Equal(file, roots[0]) {
				t.Errorf("node %d has another root", i)
			}
		}
		a := must[*identity.Authority](t)(identity.OpenAuthority(t.Context(), db, identity.AuthorityConfig{Dir: dirs[0]}))
		r := a.Root()
		if !r.IsCA || r.MaxPathLen != 1 || r.SerialNumber.BitLen() < 128 || r.KeyUsage&x509.KeyUsageCertSign == 0 || r.NotBefore.After(time.Now()) {
			t.Errorf("root %v: path length %d, key usage %v", r.Subject, r.MaxPathLen, r.KeyUsage)
		}
		i := a.Issuing()
		if !i.IsCA || i.MaxPathLen != 0 || !i.MaxPathLenZero || i.KeyUsage&x509.KeyUsageCRLSign == 0 || i.CheckSignatureFrom(r) != nil || bytes.Equal(i.RawSubjectPublicKeyInfo, r.RawSubjectPublicKeyInfo) {
			t.Errorf("issuing authority %v: path length %d, key usage %v", i.Subject, i.MaxPathLen, i.KeyUsage)
		}
		if file := must[[]byte](t)(os.ReadFile(filepath.Join(dirs[0], "ca", "issuing.pem"))); !bytes.Equal(file, a.IssuingPEM()) {
			t.Error("ca/issuing.pem is another certificate")
		}
	})
}

func TestAuthorityPassphrase(t *testing.T) {
	db, dir, ctx := storetest.Open(t), t.TempDir(), t.Context()
	open := func(passphrase string) (*identity.Authority, error) {
		return identity.OpenAuthority(ctx, db, identity.AuthorityConfig{Dir: dir, Passphrase: passphrase})
	}
	plain := must[*identity.Authority](t)(open(""))
	sealed := must[*identity.Authority](t)(open("secret")) // seals what lies there
	if !bytes.Equal(plain.RootPEM(), sealed.RootPEM()) {
		t.Error("another root")
	}
	if _, err := open(""); err == nil || !strings.Contains(err.Error(), "identity.ca-passphrase") {
		t.Errorf("without passphrase: %v", err)
	}
	if _, err := open("wrong"); err == nil || !strings.Contains(err.Error(), "wrong") {
		t.Errorf("wrong passphrase: %v", err)
	}
	must[*identity.Authority](t)(open("secret"))
}

// A device and the server over real TLS: ECDSA for those who can, RSA for those who can't, TLS 1.2 and 1.3.
func TestServerCertificates(t *testing.T) {
	w := newWorld(t, storetest.Open(t), identity.Config{})
	dir := t.TempDir()
	server := must[*identity.ServerCertificates](t)(w.Authority().ServerCertificates(dir, "iot.example.com"))
	out := must[*iot.CreateKeysAndCertificateResponse](t)(w.CreateKeysAndCertificate(t.Context(), &iot.CreateKeysAndCertificateRequest{SetAsActive: new(true)}))
	device := must[tls.Certificate](t)(tls.X509KeyPair([]byte(*out.CertificatePem), []byte(*out.KeyPair.PrivateKey)))
	handshake := func(client *tls.Config) (leaf *x509.Certificate, id string, err error) {
		l := must[net.Listener](t)(tls.Listen("tcp", "127.0.0.1:0", server.TLS()))
		defer l.Close()
		seen := make(chan string, 1)
		go func() {
			defer close(seen)
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			if c.(*tls.Conn).Handshake() == nil {
				seen <- identity.CertificateID(c.(*tls.Conn).ConnectionState().PeerCertificates[0])
			}
		}()
		client.RootCAs = w.Authority().Pool()
		c, err := tls.Dial("tcp", l.Addr().String(), client)
		if err != nil {
			return nil, <-seen, err
		}
		defer c.Close()
		if _, err := c.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) {
			return nil, <-seen, err
		}
		return c.ConnectionState().PeerCertificates[0], <-seen, nil
	}
	devices := []tls.Certificate{device}
	for name, c := range map[string]struct {
		config *tls.Config
		want   x509.PublicKeyAlgorithm
	}{
		"TLS 1.3":     {&tls.Config{ServerName: "iot.example.com"}, x509.ECDSA},
		"TLS 1.2":     {&tls.Config{ServerName: "localhost", MaxVersion: tls.VersionTLS12}, x509.ECDSA},
		"TLS 1.2 RSA": {&tls.Config{ServerName: "127.0.0.1", MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}, x509.RSA},
	} {
		c.config.Certificates = devices
		leaf, id, err := handshake(c.config)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if leaf.PublicKeyAlgorithm != c.want || id != *out.CertificateId {
			t.Errorf("%s: %v, device %s", name, leaf.PublicKeyAlgorithm, id)
		}
	}
	if _, _, err := handshake(&tls.Config{ServerName: "localhost"}); err == nil {
		t.Error("connected without a client certificate")
	}
	for _, f := range []string{"server-ecdsa.pem", "server-rsa.pem"} {
		if i := must[os.FileInfo](t)(os.Stat(filepath.Join(dir, "ca", f))); i.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f, i.Mode())
		}
	}

	hello := &tls.ClientHelloInfo{
		SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		SupportedCurves: []tls.CurveID{tls.CurveP256}, SupportedPoints: []uint8{0},
	}
	serial := func(s *identity.ServerCertificates) string {
		t.Helper()
		return must[*tls.Certificate](t)(s.GetCertificate(hello)).Leaf.SerialNumber.String()
	}
	first := serial(server)
	again := must[*identity.ServerCertificates](t)(w.Authority().ServerCertificates(dir, "iot.example.com"))
	if serial(again) != first {
		t.Error("issued anew without need")
	}
	other := must[*identity.ServerCertificates](t)(w.Authority().ServerCertificates(dir, "iot.example.org", "10.0.0.1"))
	if serial(other) == first {
		t.Error("not issued anew for other hosts")
	}
	second := serial(other)
	w.clock.advance(300 * 24 * time.Hour)
	if serial(other) == second {
		t.Error("not renewed near its end")
	}
}
