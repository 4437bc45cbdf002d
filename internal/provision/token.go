package provision

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

const (
	tokenBytes = 32
	sweepEvery = time.Minute

	typeCertificate = "certificate" // of principals
)

func hashToken(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// owner names the principal that a token belongs to. Ids of two types may be equal: a custom authorizer may
// give that of a certificate.
func owner(from mqtt.Source) string {
	switch from.PrincipalType {
	case "", typeCertificate:
		return from.PrincipalID // has no colon, whatever type it is of
	}
	return from.PrincipalType + ":" + from.PrincipalID
}

// issue makes a pending certificate, from a CSR or with new keys, and the token that proves its ownership.
func (t *Templates) issue(ctx context.Context, csr string, from mqtt.Source) (*iot.CreateKeysAndCertificateResponse, string, error) {
	if t.pending.Load() >= int64(t.cfg.MaxPending) {
		return nil, "", &iot.ThrottlingException{Message: "Too many certificates wait for their provisioning."}
	}
	until := t.Now().Add(TokenLifetime)
	cert, err := t.Issuer.CreatePending(ctx, csr, until)
	if err != nil {
		return nil, "", err
	}
	var secret [tokenBytes]byte
	rand.Read(secret[:]) // never fails
	text := base64.RawURLEncoding.EncodeToString(secret[:])
	k := &token{
		hash: hashToken(text), certificateID: value(cert.CertificateId),
		principalID: owner(from), connectionID: from.ConnectionID, expires: until.UnixMilli(),
	}
	// Without the token the certificate is swept when its time is over.
	err = t.DB.Write(ctx, func(_ context.Context, tx store.Tx) error { return insertToken(tx, k) })
	if err != nil {
		return nil, "", fmt.Errorf("provision: token: %w", err)
	}
	t.pending.Add(1)
	return cert, text, nil
}

// token reads the token that a client shows and checks that it may use it.
func (t *Templates) token(tx store.Tx, text string, from mqtt.Source) (*token, error) {
	if text == "" {
		return nil, badToken("Certificate ownership token cannot be empty.")
	}
	k, err := selectToken(tx, hashToken(text))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, badToken("Certificate ownership token is not valid.")
	case err != nil:
		return nil, err
	case k.principalID != owner(from), k.connectionID != from.ConnectionID, k.expires <= t.nowMS():
		// One message for all: a thief learns nothing.
		return nil, badToken("Certificate ownership token is not valid.")
	}
	return k, nil
}

// Sweep deletes tokens whose time is over. Their certificates are deleted by identity.
func (t *Templates) Sweep(ctx context.Context) error {
	var left int64
	err := t.DB.Write(ctx, func(_ context.Context, tx store.Tx) (err error) {
		left, err = deleteExpiredTokens(tx, t.nowMS())
		return err
	})
	if err == nil {
		t.pending.Store(left)
	}
	return err
}

// Run calls Sweep at once and every minute until ctx ends.
func (t *Templates) Run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := t.Sweep(ctx); err != nil && ctx.Err() == nil {
			t.Log.Error("expired ownership tokens can't be deleted", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
