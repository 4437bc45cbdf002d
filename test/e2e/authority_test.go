package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"flotilla/internal/server/servertest"
)

// authority is somebody's own certificate authority.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	id   string // once registered
}

// newAuthority makes a root authority, or one that parent has signed.
func newAuthority(t *testing.T, name string, parent *authority, change ...func(*x509.Certificate)) *authority {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name, Organization: []string{"Factory"}}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	for _, c := range change {
		c(template)
	}
	a := &authority{}
	a.cert, a.key = issueBy(t, parent, template)
	return a
}

// issueBy makes a key, and a certificate for it that parent signs, or the key itself.
func issueBy(t *testing.T, parent *authority, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if template.SerialNumber == nil {
		template.SerialNumber = new(big.Int).SetBytes([]byte(rand.Text()))
	}
	signer := &authority{cert: template, key: key}
	if parent != nil {
		signer = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, key.Public(), signer.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func pemOf(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// device is a certificate of the authority; its client shows the certificates behind it too.
func (a *authority) device(t *testing.T, subject pkix.Name, change ...func(*x509.Certificate)) servertest.Identity {
	t.Helper()
	template := &x509.Certificate{
		Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range change {
		c(template)
	}
	cert, key := issueBy(t, a, template)
	return identityOf(cert, key)
}

func identityOf(cert *x509.Certificate, key *ecdsa.PrivateKey, shown ...*x509.Certificate) servertest.Identity {
	pair := tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
	for _, c := range shown {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return servertest.Identity{ID: certificateID(cert.Raw), TLS: pair}
}

// register registers the authority with proof of possession.
func (a *authority) register(t *testing.T, n *servertest.Node, change ...func(*iot.RegisterCACertificateInput)) {
	t.Helper()
	code, err := n.IoT().GetRegistrationCode(t.Context(), &iot.GetRegistrationCodeInput{})
	if err != nil {
		t.Fatal(err)
	}
	proof, _ := issueBy(t, a, &x509.Certificate{
		Subject: pkix.Name{CommonName: *code.RegistrationCode}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	})
	in := &iot.RegisterCACertificateInput{
		CaCertificate: new(pemOf(a.cert)), VerificationCertificate: new(pemOf(proof)), SetAsActive: true, AllowAutoRegistration: true,
	}
	for _, c := range change {
		c(in)
	}
	out, err := n.IoT().RegisterCACertificate(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	a.id = *out.CertificateId
}

func byTemplate(body string) func(*iot.RegisterCACertificateInput) {
	return func(in *iot.RegisterCACertificateInput) {
		in.RegistrationConfig = &types.RegistrationConfig{TemplateBody: &body, RoleArn: new(roleARN)}
	}
}
