package firmware

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
)

// Manifest says what an image is.
type Manifest struct {
	Name      string `json:"name"`
	Version   string `json:"version,omitempty"`
	SizeBytes int64  `json:"sizeBytes"`
	SHA256    string `json:"sha256"`    // hexadecimal
	Signature []byte `json:"signature"` // ASN.1 DER, of the SHA-256 of the image
}

// Signed is a manifest with its signature, as it is stored beside an image: JSON.
type Signed struct {
	Manifest    json.RawMessage `json:"manifest"`    // a Manifest; these bytes, without insignificant space, are what is signed
	Signature   []byte          `json:"signature"`   // ASN.1 DER, of the SHA-256 of the manifest
	Certificate string          `json:"certificate"` // PEM, of the key that signed
}

// Sign makes the signed manifest of an image. The key must be ECDSA on P-256 and that of the certificate, in PEM.
func Sign(key *ecdsa.PrivateKey, certificate []byte, name, version string, image io.Reader) (*Signed, error) {
	public, err := PublicKey(certificate)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(public) {
		return nil, errors.New("the certificate is not that of the key")
	}
	if key.Curve != elliptic.P256() {
		return nil, errors.New("the key is not on the curve P-256")
	}
	h := sha256.New()
	size, err := io.Copy(h, image)
	if err != nil {
		return nil, err
	}
	if size == 0 {
		return nil, errors.New("the image is empty")
	}
	digest := h.Sum(nil)
	m := Manifest{Name: name, Version: version, SizeBytes: size, SHA256: hex.EncodeToString(digest)}
	if m.Signature, err = ecdsa.SignASN1(rand.Reader, key, digest); err != nil {
		return nil, err
	}
	s := &Signed{Certificate: string(certificate)}
	if s.Manifest, err = json.Marshal(m); err != nil {
		return nil, err
	}
	whole := sha256.Sum256(s.Manifest)
	s.Signature, err = ecdsa.SignASN1(rand.Reader, key, whole[:])
	return s, err
}

// Verify holds a signed manifest and an image to a certificate that is trusted, in PEM, and gives the manifest. The certificate
// that the signed manifest carries is not trusted.
func Verify(s *Signed, trusted []byte, image io.Reader) (*Manifest, error) {
	public, err := PublicKey(trusted)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, s.Manifest); err != nil {
		return nil, fmt.Errorf("the manifest: %w", err)
	}
	whole := sha256.Sum256(compact.Bytes())
	if !Valid(public, whole[:], s.Signature) {
		return nil, errors.New("the manifest is not signed by the key that is trusted")
	}
	var m Manifest
	if err := json.Unmarshal(s.Manifest, &m); err != nil {
		return nil, fmt.Errorf("the manifest: %w", err)
	}
	h := sha256.New()
	size, err := io.Copy(h, io.LimitReader(image, m.SizeBytes+1))
	if err != nil {
		return nil, err
	}
	digest := h.Sum(nil)
	switch {
	case size != m.SizeBytes:
		return nil, fmt.Errorf("the image does not have the %d bytes of its manifest", m.SizeBytes)
	case hex.EncodeToString(digest) != m.SHA256:
		return nil, errors.New("the image is not that of its manifest: its SHA-256 differs")
	case !Valid(public, digest, m.Signature):
		return nil, errors.New("the image is not signed by the key that is trusted")
	}
	return &m, nil
}

// PublicKey is the key of the first certificate in PEM.
func PublicKey(certificate []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(certificate)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("there is no PEM certificate")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	return c.PublicKey, nil
}

// Valid tells whether signature is one of a SHA-256 digest by the owner of the key: ECDSA in ASN.1 DER, or RSA (PKCS #1 v1.5).
func Valid(public crypto.PublicKey, digest, signature []byte) bool {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, digest, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, digest, signature) == nil
	}
	return false
}
