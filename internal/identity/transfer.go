package identity

import (
	"context"
	"fmt"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// TransferCertificate refuses: a deployment is one account, so nobody could accept the certificate. What AWS checks
// first is checked first here too.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_TransferCertificate.html
func (c *Certificates) TransferCertificate(ctx context.Context, in *iot.TransferCertificateRequest) (*iot.TransferCertificateResponse, error) {
	r, err := c.existing(ctx, in.CertificateId)
	switch {
	case err != nil:
		return nil, err
	case r.status == iot.CertificateStatusActive:
		return nil, &iot.CertificateStateException{Message: "Certificate must be deactivated (not ACTIVE) before it is transferred."}
	case in.TargetAwsAccount == c.account.ID:
		return nil, &iot.InvalidRequestException{Message: "The certificate is in account " + in.TargetAwsAccount + " already."}
	}
	return nil, &iot.InvalidRequestException{Message: fmt.Sprintf(
		"Account %s is not of this deployment, which is one account: register the certificate there with RegisterCertificateWithoutCA.", in.TargetAwsAccount,
	)}
}

// AcceptCertificateTransfer answers that there is no transfer to this account.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_AcceptCertificateTransfer.html
func (c *Certificates) AcceptCertificateTransfer(_ context.Context, in *iot.AcceptCertificateTransferRequest) (*iot.AcceptCertificateTransferResponse, error) {
	return nil, noTransfer(in.CertificateId)
}

// RejectCertificateTransfer answers that there is no transfer to this account.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_RejectCertificateTransfer.html
func (c *Certificates) RejectCertificateTransfer(_ context.Context, in *iot.RejectCertificateTransferRequest) (*iot.RejectCertificateTransferResponse, error) {
	return nil, noTransfer(in.CertificateId)
}

// CancelCertificateTransfer answers that the certificate is not being transferred.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CancelCertificateTransfer.html
func (c *Certificates) CancelCertificateTransfer(ctx context.Context, in *iot.CancelCertificateTransferRequest) (*iot.CancelCertificateTransferResponse, error) {
	if _, err := c.existing(ctx, in.CertificateId); err != nil {
		return nil, err
	}
	return nil, &iot.InvalidRequestException{Message: "Certificate id " + in.CertificateId + " is not being transferred."}
}

// ListOutgoingCertificates lists none: no certificate is being transferred.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListOutgoingCertificates.html
func (c *Certificates) ListOutgoingCertificates(_ context.Context, in *iot.ListOutgoingCertificatesRequest) (*iot.ListOutgoingCertificatesResponse, error) {
	if _, err := parseMarker(in.Marker); err != nil {
		return nil, err
	}
	return &iot.ListOutgoingCertificatesResponse{}, nil
}

func noTransfer(id string) error {
	return &iot.ResourceNotFoundException{Message: "No certificate with id " + id + " is being transferred to this account."}
}

// existing reads a certificate; the error is ResourceNotFoundException when there is none.
func (c *Certificates) existing(ctx context.Context, id string) (r *record, err error) {
	err = c.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		r, err = selectCertificate(tx, normalID(id))
		return err
	})
	return r, noCertificate(err, id)
}
