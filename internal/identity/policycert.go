package identity

import (
	"context"
	"crypto/x509"
	"fmt"

	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
)

// PolicyCertificate is what policies may ask about a certificate.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/cert-policy-variables.html
func PolicyCertificate(c *x509.Certificate) *lang.Certificate {
	var s names
	return s.policyCertificate(c)
}

// PolicyCertificate gives what policies may ask about a certificate that is registered, whatever its status.
// Errors: iot.ResourceNotFoundException.
func (c *Certificates) PolicyCertificate(ctx context.Context, certificateID string) (*lang.Certificate, error) {
	var der []byte
	err := c.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		r, err := selectCertificate(tx, normalID(certificateID))
		if err == nil {
			der = r.der
		}
		return err
	})
	if err != nil {
		return nil, noCertificate(err, certificateID)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("identity: certificate %s as stored: %w", certificateID, err)
	}
	return c.names.policyCertificate(leaf), nil
}
