package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"flotilla/internal/store"
)

const (
	rootName = "root"

	// clockSkew is how long before its issue a certificate is already valid, for parties whose clock is late.
	clockSkew = 10 * time.Minute
)

// endOfTime is until when roots and device certificates are valid; AWS's are as well.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/device-certs-create.html
var endOfTime = time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC)

// Authority is the installation's certificate authority: an ECDSA P-256 root that signs leaves only. All nodes of a
// store share it. It is safe for concurrent use.
type Authority struct {
	root *x509.Certificate
	key  crypto.Signer
	now  func() time.Time
}

// OpenAuthority reads the root from the store, making it at the first start, and exports its certificate to
// dir/ca/root.pem.
//
// With a passphrase the key is sealed in the store (one that is not yet is sealed now); a sealed key can't be opened
// without its passphrase.
func OpenAuthority(ctx context.Context, db *store.DB, dir, passphrase string, now func() time.Time) (*Authority, error) {
	if now == nil {
		now = time.Now
	}
	a, err := loadRoot(ctx, db, passphrase, now)
	if errors.Is(err, store.ErrNotFound) {
		if err = createRoot(ctx, db, passphrase, now); err == nil {
			a, err = loadRoot(ctx, db, passphrase, now)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("identity: certificate authority: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "ca"), 0o700); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if err := writeFile(filepath.Join(dir, "ca", "root.pem"), a.RootPEM(), 0o644); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return a, nil
}

func loadRoot(ctx context.Context, db *store.DB, passphrase string, now func() time.Time) (*Authority, error) {
	var der, key []byte
	var sealed bool
	err := db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		return tx.QueryRow(`SELECT certificate, private_key, sealed FROM authority WHERE name = $1`, rootName).Scan(&der, &key, &sealed)
	})
	if err != nil {
		return nil, err
	}
	switch {
	case sealed && passphrase == "":
		return nil, errors.New("its key is sealed: start with identity.ca-passphrase")
	case sealed:
		if key, err = unseal(passphrase, rootName, key); err != nil {
			return nil, errors.New("its key can't be opened: identity.ca-passphrase is wrong")
		}
	case passphrase != "":
		shut, err := seal(passphrase, rootName, key)
		if err != nil {
			return nil, err
		}
		err = db.Write(ctx, func(_ context.Context, tx store.Tx) error {
			_, err := tx.Exec(`UPDATE authority SET private_key = $1, sealed = $2 WHERE name = $3 AND sealed = $4`, shut, true, rootName, false)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		return nil, errors.New("its key does not parse")
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, errors.New("its key can't sign")
	}
	return &Authority{root: root, key: signer, now: now}, nil
}

func createRoot(ctx context.Context, db *store.DB, passphrase string, now func() time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	issued := now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Flotilla Root CA", OrganizationalUnit: []string{serial.Text(16)[:8]}},
		NotBefore:             issued.Add(-clockSkew),
		NotAfter:              endOfTime,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            0, // signs leaves only
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if passphrase != "" {
		if secret, err = seal(passphrase, rootName, secret); err != nil {
			return err
		}
	}
	return db.Write(ctx, func(_ context.Context, tx store.Tx) error { // another node may have been quicker
		_, err := tx.Exec(`INSERT INTO authority (name, certificate, private_key, sealed, created) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (name) DO NOTHING`, rootName, der, secret, passphrase != "", issued.UnixMilli())
		return err
	})
}

// Root is the certificate that devices trust.
func (a *Authority) Root() *x509.Certificate { return a.root }

// issuers are the certificates by whose keys certificates of devices are or were signed.
func (a *Authority) issuers() []*x509.Certificate { return []*x509.Certificate{a.root} }

// RootPEM is Root as PEM text.
func (a *Authority) RootPEM() []byte { return encodeCertificate(a.root.Raw) }

// Pool holds Root, for clients.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.root)
	return p
}

// sign issues a leaf: serial number, issuer and start of validity are set here.
func (a *Authority) sign(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = a.now().Add(-clockSkew)
	template.BasicConstraintsValid = true
	if template.NotAfter.After(a.root.NotAfter) {
		template.NotAfter = a.root.NotAfter
	}
	return x509.CreateCertificate(rand.Reader, template, a.root, public, a.key)
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
