package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

const (
	// ClaimLifetime is how long a certificate of CreateProvisioningClaim is valid.
	// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/provision-wo-cert.html#trusted-user
	ClaimLifetime = 5 * time.Minute

	sweepEvery = time.Minute
	sweepBatch = 256
)

// CreateClaim makes a claim certificate of a provisioning template: ACTIVE, valid for five minutes, not listed, and
// by package policy confined to provisioning by that template.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateProvisioningClaim.html
func (c *Certificates) CreateClaim(ctx context.Context, templateName string) (*iot.CreateProvisioningClaimResponse, error) {
	i, err := c.issueWithKeys(c.now().Add(ClaimLifetime))
	if err != nil {
		return nil, err
	}
	r := newRecord(i, iot.CertificateStatusActive)
	r.claim, r.pendingUntil = templateName, r.notAfter
	if err := c.add(ctx, r); err != nil {
		return nil, err
	}
	return &iot.CreateProvisioningClaimResponse{
		CertificateId: &i.id, CertificatePem: &i.pem, Expiration: date(r.notAfter),
		KeyPair: &iot.KeyPair{PublicKey: &i.publicKey, PrivateKey: &i.privateKey},
	}, nil
}

// CreatePending makes a certificate for fleet provisioning: PENDING_ACTIVATION, and deleted after until unless
// UpdateCertificate has changed its status before. With a CSR (PEM) the key stays where it is and KeyPair is nil, and the
// certificate provider signs, if there is one. requestedBy is the id of the certificate that its holder has now, or a
// claim's.
// Errors: iot.InvalidRequestException for the CSR, iot.ServiceUnavailableException for the provider.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/fleet-provision-api.html
func (c *Certificates) CreatePending(ctx context.Context, csr string, until time.Time, requestedBy, clientID string) (*iot.CreateKeysAndCertificateResponse, error) {
	var i *issued
	var err error
	if csr == "" {
		i, err = c.issueWithKeys(c.deviceNotAfter())
	} else {
		i, err = c.issuePending(ctx, csr, requestedBy, clientID)
	}
	if err != nil {
		return nil, err
	}
	r := newRecord(i, iot.CertificateStatusPendingActivation)
	r.pendingUntil, r.requestedBy = until.UnixMilli(), requestedBy
	if err := c.add(ctx, r); err != nil {
		if errors.Is(err, store.ErrConflict) { // only a provider gives the same certificate twice
			err = fmt.Errorf("the certificate %s of the certificate provider is registered already: %w", r.id,
				&iot.ServiceUnavailableException{Message: "The certificate provider did not issue a certificate."})
		}
		return nil, err
	}
	return c.created(i), nil
}

// issuePending signs a CSR, or has the certificate provider sign it.
func (c *Certificates) issuePending(ctx context.Context, csr, requestedBy, clientID string) (*issued, error) {
	p, err := c.anyProvider(ctx)
	switch {
	case err != nil:
		return nil, err
	case p != nil:
		return c.issueByProvider(ctx, p, csr, requestedBy, clientID)
	}
	return c.issueFromCSR(csr, c.deviceNotAfter())
}

// DeleteExpired deletes claim certificates and pending certificates whose time is over, and says how many.
func (c *Certificates) DeleteExpired(ctx context.Context) (deleted int, err error) {
	for {
		n := 0
		err := c.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
			ids, err := selectExpired(tx, c.now().UnixMilli(), sweepBatch)
			if err != nil {
				return err
			}
			n = len(ids)
			for _, id := range ids {
				if err := c.policies.DetachAll(ctx, c.arn(id)); err != nil {
					return err
				}
				if err := deleteCertificate(tx, id); err != nil {
					return err
				}
				c.changed(ctx, id)
			}
			return nil
		})
		deleted += n
		if err != nil || n < sweepBatch {
			return deleted, err
		}
	}
}

// Run calls DeleteExpired every minute, and finishes rotations, until ctx ends.
func (c *Certificates) Run(ctx context.Context) {
	if err := c.noteEarlierRevocations(ctx); err != nil && ctx.Err() == nil {
		c.log.Error("certificates that were revoked earlier can't be listed", "err", err)
	}
	if err := c.lookForRotations(ctx); err != nil && ctx.Err() == nil {
		c.log.Error("rotations can't be read", "err", err)
	}
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-c.connected:
			if err := c.finishRotation(ctx, id); err != nil && ctx.Err() == nil {
				c.log.Error("a rotation can't be finished", "principal", id, "err", err)
			}
		case <-t.C:
			if err := c.lookForRotations(ctx); err != nil && ctx.Err() == nil {
				c.log.Error("rotations can't be read", "err", err)
			}
			if n, err := c.DeleteExpired(ctx); err != nil && ctx.Err() == nil {
				c.log.Error("expired certificates can't be deleted", "err", err)
			} else if n > 0 {
				c.log.Debug("expired certificates deleted", "count", n)
			}
		}
	}
}
