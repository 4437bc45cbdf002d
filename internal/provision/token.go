package provision

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
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
	cert, err := t.Issuer.CreatePending(ctx, csr, until, owner(from), from.ClientID)
	if err != nil {
		return nil, "", err
	}
	var secret [tokenBytes]byte
	rand.Read(secret[:]) // never fails
	text := base64.RawURLEncoding.EncodeToString(secret[:])
	k := &token{
		hash: hashToken(text), certificateID: value(cert.CertificateId),
		principalID: owner(from), connectionID: from.ConnectionID, expires: until.UnixMilli(),
		clientID: from.ClientID, withCSR: csr != "",
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
func (t *Templates) token(tx store.Tx, text string, from mqtt.Source, a *attempt) (*token, error) {
	if text == "" {
		return nil, badToken("Certificate ownership token cannot be empty.", "the request has none")
	}
	k, err := selectToken(tx, hashToken(text))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, tokenNotValid("there is no such token: it was used before, its hour is over, or it never was one")
	case err != nil:
		return nil, err
	}
	a.certificateID = k.certificateID
	switch {
	case k.principalID != owner(from):
		return nil, tokenNotValid("it was given to client " + k.clientID + " with principal " + k.principalID + ", this is another principal")
	case k.connectionID != from.ConnectionID:
		return nil, tokenNotValid("it was given to client " + k.clientID + " on another connection; after a reconnect a device must ask for a new certificate")
	case k.expires <= t.nowMS():
		return nil, tokenNotValid("its hour is over")
	}
	return k, nil
}

// sweepBatch is how many tokens one transaction of Sweep deletes.
const sweepBatch = 256

// Sweep deletes tokens whose time is over. Their certificates are deleted by identity.
func (t *Templates) Sweep(ctx context.Context) error {
	for {
		var gone []token
		var left int64
		err := t.DB.Write(ctx, func(_ context.Context, tx store.Tx) (err error) {
			if gone, err = deleteExpiredTokens(tx, t.nowMS(), sweepBatch); err != nil || len(gone) == sweepBatch {
				return err
			}
			left, err = countTokens(tx)
			return err
		})
		if err != nil {
			return err
		}
		for i := range gone {
			t.journal.add(t.unused(&gone[i], outcomeExpired))
		}
		if len(gone) < sweepBatch {
			t.pending.Store(left)
			return nil
		}
	}
}

// unused tells of a certificate that was given and not provisioned.
func (t *Templates) unused(k *token, outcome string) *attempt {
	a := t.attempt(flowClaim, opKeys)
	if k.withCSR {
		a.operation = opCSR
	}
	a.started = time.UnixMilli(k.expires).Add(-TokenLifetime)
	a.outcome, a.clientID, a.principal, a.certificateID = outcome, k.clientID, k.principalID, k.certificateID
	a.steps = []step{{name: "certificate", subject: k.certificateID, result: "given, PENDING_ACTIVATION, with an ownership token"}}
	if outcome == outcomeExpired {
		a.steps = append(a.steps, step{name: "token", result: "the hour was over before RegisterThing succeeded", after: TokenLifetime})
	}
	return a
}

// Run calls Sweep at once and every minute until ctx ends; meanwhile it registers in bulk, and writes down attempts
// for explanations.
func (t *Templates) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { t.journal.run(ctx) })
	if t.Objects != nil {
		wg.Go(func() { t.runBulk(ctx) })
	}
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := t.Sweep(ctx); err != nil && ctx.Err() == nil {
			t.Log.Error("expired ownership tokens can't be deleted", "err", err)
		}
		if err := t.sweepTasks(ctx); err != nil && ctx.Err() == nil {
			t.Log.Error("old bulk registration tasks can't be deleted", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
