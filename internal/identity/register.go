package identity

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// RegisterCertificate registers a certificate signed by a certificate authority that is registered here.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_RegisterCertificate.html
func (c *Certificates) RegisterCertificate(ctx context.Context, in *iot.RegisterCertificateRequest) (*iot.RegisterCertificateResponse, error) {
	if in.SetAsActive != nil && in.Status != nil {
		return nil, &iot.InvalidRequestException{Message: "setAsActive and status can't be given together"}
	}
	status, err := registerStatus(in.Status)
	if err != nil {
		return nil, err
	}
	if in.Status == nil {
		status = initialStatus(in.SetAsActive)
	}
	cert, err := c.acceptable(in.CertificatePem)
	if err != nil {
		return nil, err
	}
	caID, mode, err := c.issuerOf(ctx, cert, in.CaCertificatePem)
	if err != nil {
		return nil, err
	}
	id, err := c.register(ctx, cert, status, mode, caID)
	if err != nil {
		return nil, err
	}
	return &iot.RegisterCertificateResponse{CertificateArn: new(c.arn(id)), CertificateId: &id}, nil
}

// issuerOf gives the id and mode of the registered authority that signed a certificate; the id is empty for the
// deployment's own. The caller must say which when there are several of the same name and key.
func (c *Certificates) issuerOf(ctx context.Context, cert *x509.Certificate, caText *string) (caID, mode string, err error) {
	refuse := func(why string) (string, string, error) {
		return "", "", &iot.CertificateValidationException{Message: why}
	}
	var said *x509.Certificate
	if caText != nil {
		if said, err = parseCertificate(*caText); err != nil {
			return refuse("Invalid CA certificate: " + err.Error())
		}
		if cert.CheckSignatureFrom(said) != nil {
			return refuse("The certificate was not signed by the CA certificate.")
		}
	}
	for _, own := range c.authority.issuers() {
		if (said == nil || bytes.Equal(said.Raw, own.Raw)) && cert.CheckSignatureFrom(own) == nil {
			return "", iot.CertificateModeDefault, nil
		}
	}
	signers, err := c.signersOf(ctx, cert)
	if err != nil {
		return "", "", err
	}
	if said != nil {
		signers = slices.DeleteFunc(signers, func(s signer) bool { return !bytes.Equal(s.der, said.Raw) })
	}
	switch {
	case len(signers) == 0 && said != nil:
		return refuse("The CA certificate is not registered.")
	case len(signers) == 0:
		return refuse("The certificate was signed by no CA certificate that is registered. Use RegisterCertificateWithoutCA.")
	case len(signers) > 1:
		return "", "", &iot.CertificateConflictException{Message: "Several registered CA certificates may have signed the certificate: give the one that did as caCertificatePem."}
	case signers[0].status != iot.CACertificateStatusActive:
		return "", "", &iot.CertificateStateException{Message: "The CA certificate " + signers[0].id + " is " + signers[0].status + "."}
	}
	return signers[0].id, signers[0].mode, nil
}

// RegisterCertificateWithoutCA registers a certificate of any issuer, or self-signed.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_RegisterCertificateWithoutCA.html
func (c *Certificates) RegisterCertificateWithoutCA(ctx context.Context, in *iot.RegisterCertificateWithoutCARequest) (*iot.RegisterCertificateWithoutCAResponse, error) {
	status, err := registerStatus(in.Status)
	if err != nil {
		return nil, err
	}
	cert, err := c.acceptable(in.CertificatePem)
	if err != nil {
		return nil, err
	}
	id, err := c.register(ctx, cert, status, iot.CertificateModeSniOnly, "")
	if err != nil {
		return nil, err
	}
	return &iot.RegisterCertificateWithoutCAResponse{CertificateArn: new(c.arn(id)), CertificateId: &id}, nil
}

// registerStatus takes ACTIVE, INACTIVE and REVOKED; AWS answers the others with CertificateStateException.
func registerStatus(status *string) (string, error) {
	if status == nil {
		return iot.CertificateStatusInactive, nil
	}
	switch *status {
	case iot.CertificateStatusActive, iot.CertificateStatusInactive, iot.CertificateStatusRevoked:
		return *status, nil
	case iot.CertificateStatusRegisterInactive: // deprecated
		return iot.CertificateStatusInactive, nil
	}
	return "", &iot.CertificateStateException{Message: fmt.Sprintf("Certificate status %s is not allowed in this operation.", *status)}
}

// acceptable parses a certificate and checks its key, signature algorithm and end of validity.
func (c *Certificates) acceptable(text string) (*x509.Certificate, error) {
	refuse := func(why string) error {
		return &iot.CertificateValidationException{Message: "Invalid certificate: " + why}
	}
	cert, err := parseCertificate(text)
	switch {
	case err != nil:
		return nil, refuse(err.Error())
	case !signatureAlgorithms[cert.SignatureAlgorithm]:
		return nil, refuse("signature algorithm " + cert.SignatureAlgorithm.String() + " is not supported")
	case cert.NotAfter.Before(c.now()):
		return nil, refuse("it has expired")
	}
	if err := strongKey(cert.PublicKey); err != nil {
		return nil, refuse(err.Error())
	}
	if err := clientUsage(cert); err != nil {
		return nil, refuse(err.Error())
	}
	return cert, nil
}

func (c *Certificates) register(ctx context.Context, cert *x509.Certificate, status, mode, caID string) (id string, err error) {
	id = CertificateID(cert)
	err = c.add(ctx, &record{
		id: id, der: cert.Raw, status: status, mode: mode, caID: caID,
		notBefore: cert.NotBefore.UnixMilli(), notAfter: cert.NotAfter.UnixMilli(),
	})
	if errors.Is(err, store.ErrConflict) {
		return "", &iot.ResourceAlreadyExistsException{
			Message:    "The certificate is already provisioned or registered",
			ResourceId: id, ResourceArn: c.arn(id),
		}
	}
	return id, err
}
