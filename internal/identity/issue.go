package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"flotilla/internal/aws/iot"
)

const (
	minRSABits = 2048
	maxRSABits = 8192 // what crypto/tls verifies

	commonName = "AWS IoT Certificate" // of a certificate that no CSR names; firmware may look for it
)

// issued is a certificate just signed, and its keys when they were made here.
type issued struct {
	id, pem    string
	der        []byte
	notBefore  time.Time
	notAfter   time.Time
	publicKey  string // PEM
	privateKey string // PEM; the only copy
}

// deviceNotAfter is until when a certificate of a device is valid that is issued now.
func (c *Certificates) deviceNotAfter() time.Time {
	if c.cfg.CertificateValidity <= 0 {
		return endOfTime
	}
	return c.now().Add(c.cfg.CertificateValidity)
}

// issueWithKeys makes a key pair and its certificate.
func (c *Certificates) issueWithKeys(notAfter time.Time) (*issued, error) {
	var key crypto.Signer
	var block *pem.Block
	if c.cfg.KeyType == keyTypeRSA {
		k, err := rsa.GenerateKey(rand.Reader, minRSABits)
		if err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
		key, block = k, &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}
	} else {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
		key, block = k, &pem.Block{Type: "EC PRIVATE KEY", Bytes: der}
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	out, err := c.issue(key.Public(), nil, notAfter)
	if err != nil {
		return nil, err
	}
	out.privateKey = string(pem.EncodeToMemory(block))
	out.publicKey = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	return out, nil
}

// issueFromCSR signs a certificate signing request. The certificate takes the subject of the request and nothing else.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateCertificateFromCsr.html
func (c *Certificates) issueFromCSR(text string, notAfter time.Time) (*issued, error) {
	csr, err := checkCSR(text)
	if err != nil {
		return nil, err
	}
	return c.issue(csr.PublicKey, csr.RawSubject, notAfter)
}

// checkCSR reads a certificate signing request (PEM, PKCS #10) and checks its signature and key.
func checkCSR(text string) (*x509.CertificateRequest, error) {
	refuse := func(why string) error { return &iot.InvalidRequestException{Message: "Invalid CSR: " + why} }
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" || strings.TrimSpace(string(rest)) != "" {
		return nil, refuse("it must be one PEM block of type CERTIFICATE REQUEST")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, refuse("it does not parse")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, refuse("its signature does not verify")
	}
	if err := strongKey(csr.PublicKey); err != nil {
		return nil, refuse(err.Error())
	}
	return csr, nil
}

// emptyName is the DER encoding of a name without attributes.
const emptyName = "0\x00"

func (c *Certificates) issue(public crypto.PublicKey, rawSubject []byte, notAfter time.Time) (*issued, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: commonName},
		NotAfter:    notAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if c.cfg.CRLURL != "" {
		template.CRLDistributionPoints = []string{c.cfg.CRLURL}
	}
	if len(rawSubject) > 0 && string(rawSubject) != emptyName {
		template.RawSubject = rawSubject
	}
	if _, ok := public.(*rsa.PublicKey); ok {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	der, err := c.authority.sign(c.authority.issuing, template, public)
	if err != nil {
		return nil, fmt.Errorf("identity: sign: %w", err)
	}
	return &issued{
		id: certificateID(der), pem: string(encodeCertificate(der)), der: der,
		notBefore: template.NotBefore, notAfter: template.NotAfter,
	}, nil
}

// strongKey takes RSA of 2,048 bits and more, and the NIST curves P-256, P-384 and P-521.
func strongKey(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSABits || n > maxRSABits {
			return fmt.Errorf("an RSA key must have %d to %d bits", minRSABits, maxRSABits)
		}
		return nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return errors.New("an EC key must be of the curve P-256, P-384 or P-521")
	default:
		return errors.New("the key must be RSA or EC")
	}
}

// parseCertificate reads one certificate from PEM text.
func parseCertificate(text string) (*x509.Certificate, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it must be a PEM block of type CERTIFICATE")
	}
	if strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("it must be one PEM block")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, errors.New("it does not parse")
	}
	return cert, nil
}

// signatureAlgorithms are those of client certificates that AWS IoT takes, without DSA, which Go does not verify.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/x509-client-certs.html
var signatureAlgorithms = map[x509.SignatureAlgorithm]bool{
	x509.SHA256WithRSA: true, x509.SHA384WithRSA: true, x509.SHA512WithRSA: true,
	x509.SHA256WithRSAPSS: true, x509.SHA384WithRSAPSS: true, x509.SHA512WithRSAPSS: true,
	x509.ECDSAWithSHA256: true, x509.ECDSAWithSHA384: true, x509.ECDSAWithSHA512: true,
}
