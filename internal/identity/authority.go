package identity

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"flotilla/internal/store"
)

const (
	rootName    = "root"
	issuingName = "issuing"

	// clockSkew is how long before its issue a certificate is already valid, for parties whose clock is late.
	clockSkew = 10 * time.Minute
)

// endOfTime is until when roots and, unless the configuration says otherwise, device certificates are valid; AWS's are
// as well.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/device-certs-create.html
var endOfTime = time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC)

// signing is a certificate of an authority with its key.
type signing struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// keyID names the key of an authority, as the certificates that it signs do: hex.
func keyID(id []byte) string { return hex.EncodeToString(id) }

// Authority is the installation's certificate authority: a root that devices trust, and below it an issuing authority
// that signs certificates of devices and servers. The root's key is used to make an issuing authority and is otherwise
// not even read, unless the deployment is of the time when the root signed all: devices that trust such a root take no
// certificates but its own, so it goes on signing those of servers.
//
// All nodes of a store share it. It is safe for concurrent use.
type Authority struct {
	root    *x509.Certificate
	issuing signing
	servers signing
	signers map[string]signing // by key id: those whose revocation lists can be signed
	old     []*x509.Certificate
	now     func() time.Time
}

// AuthorityConfig is what OpenAuthority needs beside the store.
type AuthorityConfig struct {
	Dir        string           // data directory: ca/root.pem and ca/issuing.pem are written there
	Passphrase string           // seals keys in the store; "": they are not
	Signer     crypto.Signer    // keeps the key of the issuing authority; nil: the store does
	Now        func() time.Time // time.Now when nil
}

// OpenAuthority reads the authority from the store, making what is not there yet, and exports its certificates.
//
// With a passphrase the keys are sealed in the store (those that are not yet are sealed now); a sealed key can't be
// opened without its passphrase. When the signer has another key than the issuing authority there is, a new one is made
// for it; what the old one has issued stays valid.
func OpenAuthority(ctx context.Context, db *store.DB, cfg AuthorityConfig) (*Authority, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	o := &opening{db: db, cfg: cfg}
	a, err := o.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("identity: certificate authority: %w", err)
	}
	dir := filepath.Join(cfg.Dir, "ca")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	for name, text := range map[string][]byte{"root.pem": a.RootPEM(), "issuing.pem": a.IssuingPEM()} {
		if err := writeFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
	}
	return a, nil
}

// Root is the certificate that devices trust.
func (a *Authority) Root() *x509.Certificate { return a.root }

// RootPEM is Root as PEM text.
func (a *Authority) RootPEM() []byte { return encodeCertificate(a.root.Raw) }

// Issuing is the certificate of the authority that signs certificates of devices.
func (a *Authority) Issuing() *x509.Certificate { return a.issuing.certificate }

// IssuingPEM is Issuing as PEM text.
func (a *Authority) IssuingPEM() []byte { return encodeCertificate(a.issuing.certificate.Raw) }

// issuers are the certificates by whose keys certificates of devices are or were signed.
func (a *Authority) issuers() []*x509.Certificate {
	return append([]*x509.Certificate{a.issuing.certificate, a.root}, a.old...)
}

// Pool holds Root, for clients.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.root)
	return p
}

// sign issues a leaf: serial number, issuer and start of validity are set here.
func (a *Authority) sign(by signing, template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = a.now().Add(-clockSkew)
	template.BasicConstraintsValid = true
	if template.NotAfter.After(by.certificate.NotAfter) {
		template.NotAfter = by.certificate.NotAfter
	}
	return x509.CreateCertificate(rand.Reader, template, by.certificate, public, by.key)
}

// newSerial gives a positive random number of 159 bits (RFC 5280 4.1.2.2: at most 20 octets).
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 158))
	if err != nil {
		return nil, err
	}
	return n.SetBit(n, 158, 1), nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// writeFile replaces a file as a whole.
func writeFile(path string, content []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once renamed
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
