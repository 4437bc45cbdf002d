package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const serverValidity = 397 * 24 * time.Hour // what browsers take at most

// ServerCertificates are the TLS certificates of this node: one with an ECDSA key, and one with an RSA key for
// clients that know nothing else. They are kept in dir/ca/server-*.pem (0600) and issued anew when the host names
// change, another authority rules, or a third of their life is left. It is safe for concurrent use.
type ServerCertificates struct {
	authority *Authority
	dir       string
	hosts     []string
	ecdsa     atomic.Pointer[tls.Certificate]
	rsa       atomic.Pointer[tls.Certificate]
	mu        sync.Mutex // held while issuing
}

// ServerCertificates opens the certificates for the host names and addresses; localhost, 127.0.0.1 and ::1 are
// always among them.
func (a *Authority) ServerCertificates(dir string, hosts ...string) (*ServerCertificates, error) {
	s := &ServerCertificates{authority: a, dir: filepath.Join(dir, "ca")}
	for _, h := range append(slices.Clone(hosts), "localhost", "127.0.0.1", "::1") {
		if h != "" && !slices.Contains(s.hosts, h) {
			s.hosts = append(s.hosts, h)
		}
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if err := s.renew(); err != nil {
		return nil, err
	}
	return s, nil
}

// TLS is a configuration for listeners: TLS 1.2 or 1.3, a client certificate of any issuer is required. That its
// owner is a known device is for [Certificates.Identify] to say.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/transport-security.html
func (s *ServerCertificates) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: s.GetCertificate,
		ClientAuth:     tls.RequireAnyClientCert,
		// Also for doors that only ask for a certificate; what comes back from a resumed session has been here before.
		VerifyPeerCertificate: boundedChain,
	}
}

// What a client may show: its certificate and those of its authorities.
const (
	maxChain      = 5
	maxChainBytes = 16 << 10
)

// boundedChain refuses, with the alert bad_certificate, a client that shows more certificates than anybody needs.
func boundedChain(chain [][]byte, _ [][]*x509.Certificate) error {
	size := 0
	for _, der := range chain {
		size += len(der)
	}
	if len(chain) <= maxChain && size <= maxChainBytes {
		return nil
	}
	return &RefusedError{
		CertificateID: certificateID(chain[0]), Reason: ReasonUnacceptable,
		Detail: fmt.Sprintf("the client shows %d certificates of %d bytes, more than %d or than %d bytes", len(chain), size, maxChain, maxChainBytes),
	}
}

// GetCertificate picks the certificate that the client can verify; ECDSA is preferred.
func (s *ServerCertificates) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c := s.ecdsa.Load()
	if !s.fresh(c.Leaf) {
		if err := s.renew(); err != nil && s.authority.now().After(c.Leaf.NotAfter) {
			return nil, err
		}
		c = s.ecdsa.Load()
	}
	if hello.SupportsCertificate(c) == nil {
		return c, nil
	}
	if r := s.rsa.Load(); hello.SupportsCertificate(r) == nil {
		return r, nil
	}
	return c, nil
}

// fresh tells whether a certificate need not be replaced yet.
func (s *ServerCertificates) fresh(leaf *x509.Certificate) bool {
	return leaf.NotAfter.Sub(s.authority.now()) > serverValidity/3
}

func (s *ServerCertificates) renew() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range []struct {
		file string
		at   *atomic.Pointer[tls.Certificate]
		make func() (crypto.Signer, error)
	}{
		{"server-ecdsa.pem", &s.ecdsa, func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
		{"server-rsa.pem", &s.rsa, func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }},
	} {
		path := filepath.Join(s.dir, k.file)
		c, err := s.load(path)
		if err != nil { // absent, damaged or outdated: make it anew
			if c, err = s.issue(path, k.make); err != nil {
				return fmt.Errorf("identity: server certificate: %w", err)
			}
		}
		k.at.Store(c)
	}
	return nil
}

func (s *ServerCertificates) load(path string) (*tls.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	names := slices.Clone(c.Leaf.DNSNames)
	for _, ip := range c.Leaf.IPAddresses {
		names = append(names, ip.String())
	}
	slices.Sort(names)
	by := s.authority.servers.certificate
	want := slices.Sorted(slices.Values(s.canonicalHosts()))
	switch {
	case !slices.Equal(names, want):
		return nil, errors.New("other host names")
	case !bytes.Equal(c.Leaf.AuthorityKeyId, by.SubjectKeyId), c.Leaf.CheckSignatureFrom(by) != nil:
		return nil, errors.New("another authority")
	case !s.fresh(c.Leaf):
		return nil, errors.New("near its end")
	}
	return &c, nil
}

func (s *ServerCertificates) canonicalHosts() []string {
	var out []string
	for _, h := range s.hosts {
		if ip := net.ParseIP(h); ip != nil {
			h = ip.String()
		}
		out = append(out, h)
	}
	return out
}

func (s *ServerCertificates) issue(path string, generate func() (crypto.Signer, error)) (*tls.Certificate, error) {
	key, err := generate()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: s.hosts[0]},
		NotAfter:    s.authority.now().Add(serverValidity),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if len(s.hosts[0]) > 64 { // upper bound of a common name
		template.Subject.CommonName = ""
	}
	if _, ok := key.(*rsa.PrivateKey); ok {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	for _, h := range s.hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	by := s.authority.servers
	der, err := s.authority.sign(by, template, key.Public())
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := encodeCertificate(der)
	if !by.certificate.Equal(s.authority.root) { // clients have the root, and need what is between
		text = append(text, encodeCertificate(by.certificate.Raw)...)
	}
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...)
	if err := writeFile(path, text, 0o600); err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(text, text)
	return &c, err
}
