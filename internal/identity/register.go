package identity

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"

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
	if in.CaCertificatePem != nil {
		ca, err := parseCertificate(*in.CaCertificatePem)
		if err != nil {
			return nil, &iot.CertificateValidationException{Message: "Invalid CA certificate: " + err.Error()}
		}
		if cert.CheckSignatureFrom(ca) != nil {
			return nil, &iot.CertificateValidationException{Message: "The certificate was not signed by the CA certificate."}
		}
		if !bytes.Equal(ca.Raw, c.authority.root.Raw) {
			return nil, &iot.CertificateValidationException{Message: "The CA certificate is not registered."}
		}
	}
	if cert.CheckSignatureFrom(c.authority.root) != nil {
		return nil, &iot.CertificateValidationException{Message: "The certificate was signed by no CA certificate that is registered. Use RegisterCertificateWithoutCA."}
	}
	id, err := c.register(ctx, cert, status, iot.CertificateModeDefault)
	if err != nil {
		return nil, err
	}
	return &iot.RegisterCertificateResponse{CertificateArn: new(c.arn(id)), CertificateId: &id}, nil
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
	id, err := c.register(ctx, cert, status, iot.CertificateModeSniOnly)
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
	return cert, nil
}

func (c *Certificates) register(ctx context.Context, cert *x509.Certificate, status, mode string) (id string, err error) {
	id = CertificateID(cert)
	err = c.add(ctx, &record{
		id: id, der: cert.Raw, status: status, mode: mode,
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
