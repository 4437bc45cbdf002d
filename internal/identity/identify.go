package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
)

// Reason says why a client certificate is refused.
type Reason string

// The reasons, in the order in which they are looked for.
const (
	ReasonNoCertificate Reason = "no client certificate"
	ReasonNotRegistered Reason = "certificate is not registered"
	ReasonNotActive     Reason = "certificate is not ACTIVE"
	ReasonNotYetValid   Reason = "certificate is not valid yet"
	ReasonExpired       Reason = "certificate has expired"

	// Those of a certificate that might have registered itself.
	ReasonKeyUsage     Reason = "certificate is not for clients"
	ReasonUnacceptable Reason = "certificate is not acceptable"
	ReasonRegistered   Reason = "certificate was registered just now"
	ReasonProvisioned  Reason = "certificate was provisioned just now; the client may connect"
)

// RefusedError is the error of Identify for a certificate that may not connect. It is for the operator; the stranger
// at the other end is told nothing.
type RefusedError struct {
	CertificateID string // "" without a certificate
	Status        string // as registered; "" when it is not
	Reason        Reason
	Detail        string // more about it; "" when there is none
}

func (e *RefusedError) Error() string {
	text := fmt.Sprintf("identity: %s: %s", e.CertificateID, e.Reason)
	if e.Status != "" && e.Reason == ReasonNotActive {
		text += " but " + e.Status
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// Principal is the id of the certificate that was refused.
func (e *RefusedError) Principal() string { return e.CertificateID }

const maxCached = 32768

// standing is what decides whether a certificate may act.
type standing struct {
	status              string
	notBefore, notAfter int64 // ms
	claim, caID         string
}

func (s *standing) reason(now int64) Reason {
	switch {
	case s.status != iot.CertificateStatusActive:
		return ReasonNotActive
	case now < s.notBefore:
		return ReasonNotYetValid
	case now > s.notAfter:
		return ReasonExpired
	}
	return ""
}

// cache keeps standings by certificate id, at most maxCached.
type cache struct {
	mu    sync.RWMutex
	epoch uint64 // rises with each forget: what was read before it is not kept
	byID  map[string]standing
}

func (c *cache) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	if id == "" {
		c.byID = nil
	} else {
		delete(c.byID, id)
	}
}

func (c *cache) get(id string) (s standing, epoch uint64, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s, ok = c.byID[id]
	return s, c.epoch, ok
}

func (c *cache) put(id string, s standing, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch {
		return
	}
	if c.byID == nil {
		c.byID = map[string]standing{}
	}
	if len(c.byID) >= maxCached {
		for old := range c.byID { // any: the order of a map is as good as chance
			delete(c.byID, old)
			break
		}
	}
	c.byID[id] = s
}

// standing reads through the cache; ok is false when the certificate is not registered.
func (c *Certificates) standing(ctx context.Context, id string) (s standing, ok bool, err error) {
	s, epoch, ok := c.cache.get(id)
	if ok && !store.InTransaction(ctx) {
		return s, true, nil
	}
	err = c.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		s, err = selectStanding(tx, id)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return s, false, nil
	}
	if err != nil {
		return s, false, fmt.Errorf("identity: %w", err)
	}
	if !store.InTransaction(ctx) {
		c.cache.put(id, s, epoch)
	}
	return s, true, nil
}

// Identify says which principal holds leaf, whose private key the TLS handshake has proved. It takes a certificate
// that is registered here, ACTIVE and within its validity; whoever signed it does not matter then. Otherwise the
// error is a *[RefusedError], or that of the store.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/diagnosing-connectivity-issues.html
func (c *Certificates) Identify(ctx context.Context, leaf *x509.Certificate) (aws.Principal, *lang.Certificate, error) {
	if leaf == nil {
		return aws.Principal{}, nil, &RefusedError{Reason: ReasonNoCertificate}
	}
	id := CertificateID(leaf)
	s, ok, err := c.standing(ctx, id)
	if err != nil {
		return aws.Principal{}, nil, err
	}
	if !ok {
		return aws.Principal{}, nil, &RefusedError{CertificateID: id, Reason: ReasonNotRegistered}
	}
	if r := s.reason(c.now().UnixMilli()); r != "" {
		return aws.Principal{}, nil, &RefusedError{CertificateID: id, Status: s.status, Reason: r}
	}
	return aws.Principal{Type: "certificate", ID: id, ARN: c.arn(id)}, c.names.policyCertificate(leaf), nil
}

// Standing tells whether a certificate may act now, and of which provisioning template it is a claim certificate, if
// it is one. One that is not registered is not active. It answers from the cache of Identify.
func (c *Certificates) Standing(ctx context.Context, certificateID string) (active bool, claimTemplate string, err error) {
	s, ok, err := c.standing(ctx, certificateID)
	if err != nil || !ok {
		return false, "", err
	}
	return s.reason(c.now().UnixMilli()) == "", s.claim, nil
}
