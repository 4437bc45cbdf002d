package identity

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// Templates is what this room asks of provision.
type Templates interface {
	// CheckJustInTime tells whether a template, by its body or by its name, can provision certificates at their first
	// connect; the error is an exception.
	CheckJustInTime(ctx context.Context, body, name string) error
	// ProvisionJustInTime carries such a template out for a certificate that is PENDING_ACTIVATION. The subject's
	// values are by key: Id (the certificate's), CommonName, SerialNumber, Country, …
	ProvisionJustInTime(ctx context.Context, body, name string, subject map[string]string) (thingName string, err error)
}

// Publisher publishes what the service itself has to say.
type Publisher interface {
	Publish(ctx context.Context, m *mqtt.Message) error
}

// UseJustInTime plugs in what certificates that register themselves need. Call it once, before the first request;
// without it registrationConfig is refused, nothing registers itself and CA certificates have no tags.
func (c *Certificates) UseJustInTime(t Templates, p Publisher, tags Tags) {
	c.templates, c.publisher, c.tags = t, p, tags
}

// registeredTopic is where the registration of a certificate at its first connect is announced.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/auto-register-device-cert.html
const registeredTopic = "$aws/events/certificates/registered/"

// registeredEvent is its payload. The time of registration is null in the first event and text in those after it, as
// AWS has been seen to send it (ministack issue 1755).
type registeredEvent struct {
	CertificateID    string  `json:"certificateId"`
	CACertificateID  string  `json:"caCertificateId"`
	Timestamp        int64   `json:"timestamp"` // ms
	Status           string  `json:"certificateStatus"`
	AccountID        string  `json:"awsAccountId"`
	RegistrationTime *string `json:"certificateRegistrationTimestamp"` // ms
}

// attempts are the certificates that are being registered now, so that one that connects many times is registered
// once.
type attempts struct {
	mu  sync.Mutex
	ids map[string]bool
}

func (a *attempts) begin(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ids[id] {
		return false
	}
	if a.ids == nil {
		a.ids = map[string]bool{}
	}
	a.ids[id] = true
	return true
}

func (a *attempts) end(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.ids, id)
}

// FirstConnect is asked about a client that Identify refuses, with the certificates that it showed, its own first, the
// server name that it asked for (SNI) and the refusal. One that a registered authority signed is registered if that
// authority allows it, and announced; with a registrationConfig it is also provisioned. Either way the client is to
// connect again. The error, never nil, says to the operator what came of it: a *[RefusedError], or that of the store.
//
// The authority must have signed the certificate itself: others that the client shows count for nothing, so no chain is
// searched. A client that sends no server name must show the authority's certificate, and that of an authority of mode
// SNI_ONLY is not taken without one.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/auto-register-device-cert.html,
// https://docs.aws.amazon.com/iot/latest/developerguide/jit-provisioning.html
func (c *Certificates) FirstConnect(ctx context.Context, chain []*x509.Certificate, serverName string, refused error) error {
	r, ok := errors.AsType[*RefusedError](refused)
	if !ok || len(chain) == 0 || c.publisher == nil {
		return refused
	}
	pending := r.Reason == ReasonNotActive && r.Status == iot.CertificateStatusPendingActivation
	if r.Reason != ReasonNotRegistered && !pending {
		return refused
	}
	if !c.recent.begin(r.CertificateID) {
		return refused
	}
	defer c.recent.end(r.CertificateID)
	ca, err := c.authorityOf(ctx, chain, serverName)
	if err != nil {
		if why, ok := errors.AsType[*RefusedError](err); ok && pending {
			return &RefusedError{CertificateID: r.CertificateID, Status: r.Status, Reason: r.Reason, Detail: why.Detail}
		}
		return err
	}
	registered, err := c.registerPending(ctx, chain[0], ca)
	switch {
	case err != nil:
		return err
	case registered == nil:
		return refused
	}
	return c.introduce(ctx, chain[0], ca, registered)
}

// registerPending registers the certificate unless it is registered already; it returns nil when that one does not wait
// for its activation, or waits for another's.
func (c *Certificates) registerPending(ctx context.Context, leaf *x509.Certificate, ca *caRecord) (r *record, err error) {
	id := CertificateID(leaf)
	_, err = c.register(ctx, leaf, iot.CertificateStatusPendingActivation, ca.mode, ca.id)
	if _, exists := errors.AsType[*iot.ResourceAlreadyExistsException](err); exists {
		r, err := c.existing(ctx, id)
		if err != nil || r.status != iot.CertificateStatusPendingActivation || r.caID != ca.id {
			return nil, err
		}
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	c.log.Info("certificate registered", "op", "JustInTimeRegistration", "principal", id, "ca", ca.id)
	return &record{id: id}, nil // created 0: just now
}

// introduce announces a certificate that waits for its activation, and provisions it.
func (c *Certificates) introduce(ctx context.Context, leaf *x509.Certificate, ca *caRecord, r *record) error {
	out := &RefusedError{CertificateID: r.id, Status: iot.CertificateStatusPendingActivation, Reason: ReasonRegistered}
	now := c.now()
	e := registeredEvent{
		CertificateID: r.id, CACertificateID: ca.id, Timestamp: now.UnixMilli(), Status: iot.CertificateStatusPendingActivation, AccountID: c.account.ID,
	}
	if r.created != 0 {
		e.RegistrationTime = new(strconv.FormatInt(r.created, 10))
	}
	payload, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if err := c.publisher.Publish(ctx, &mqtt.Message{Topic: registeredTopic + ca.id, Payload: payload, QoS: 1, Received: now}); err != nil {
		// The next connect announces it again.
		c.log.Error("a registered certificate can't be announced", "principal", r.id, "err", err)
	}
	if !ca.configured {
		out.Detail = "it is to be activated, then the client may connect"
		return out
	}
	thing, err := c.templates.ProvisionJustInTime(ctx, ca.templateBody, ca.templateName, subjectValues(leaf))
	if err != nil {
		c.log.Info("just-in-time provisioning failed", "op", "JustInTimeProvisioning", "principal", r.id, "ca", ca.id, "err", err)
		out.Detail = "just-in-time provisioning failed: " + err.Error()
		return out
	}
	c.log.Info("device provisioned", "op", "JustInTimeProvisioning", "principal", r.id, "thing", thing, "ca", ca.id)
	out.Status, out.Reason = "", ReasonProvisioned
	if thing != "" {
		out.Detail = "thing " + thing
	}
	return out
}

// authorityOf finds the registered authority that signed the first of the chain and lets it register itself; otherwise
// the error is a *RefusedError that says why not.
func (c *Certificates) authorityOf(ctx context.Context, chain []*x509.Certificate, serverName string) (*caRecord, error) {
	leaf := chain[0]
	signers, err := c.signersOf(ctx, leaf)
	if err != nil {
		return nil, err
	}
	refuse := func(reason Reason, detail string) (*caRecord, error) {
		return nil, &RefusedError{CertificateID: CertificateID(leaf), Reason: reason, Detail: detail}
	}
	if len(signers) == 0 {
		if bytes.Equal(leaf.RawSubject, leaf.RawIssuer) {
			return refuse(ReasonNotRegistered, "it is self-signed")
		}
		return refuse(ReasonNotRegistered, "no CA certificate that is registered signed it")
	}
	s := signers[0]
	for _, other := range signers { // certificates of one authority, the old one and the new one, for example
		if other.status == iot.CACertificateStatusActive && other.autoRegistration {
			s = other
			break
		}
	}
	shown := false
	for _, cert := range chain[1:] {
		shown = shown || bytes.Equal(cert.Raw, s.der)
	}
	switch {
	case s.status != iot.CACertificateStatusActive:
		return refuse(ReasonNotRegistered, "its CA certificate "+s.id+" is "+s.status)
	case !s.autoRegistration:
		return refuse(ReasonNotRegistered, "auto-registration of its CA certificate "+s.id+" is disabled")
	case serverName == "" && s.mode == iot.CertificateModeSniOnly:
		return refuse(ReasonNotRegistered, "the client sends no server name (SNI), and its CA certificate "+s.id+" is of mode SNI_ONLY")
	case serverName == "" && !shown:
		return refuse(ReasonNotRegistered, "the client sends neither a server name (SNI) nor its CA certificate "+s.id)
	}
	if reason, detail := c.deviceCertificate(leaf, s.certificate); reason != "" {
		return refuse(reason, detail)
	}
	return &s.caRecord, nil
}

// signer is a registered authority that has signed a certificate.
type signer struct {
	caRecord
	certificate *x509.Certificate
}

// signersOf gives the registered authorities that signed a certificate: those with its issuer's name whose key verifies
// the signature, at most maxSameSubject to try.
func (c *Certificates) signersOf(ctx context.Context, cert *x509.Certificate) (found []signer, err error) {
	var named []caRecord
	err = c.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		named, err = selectCAsBySubject(tx, nameID(cert.RawIssuer), maxSameSubject)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	for _, r := range named {
		ca, err := x509.ParseCertificate(r.der)
		if err != nil {
			return nil, fmt.Errorf("identity: CA certificate %s: %w", r.id, err)
		}
		if len(cert.AuthorityKeyId) > 0 && len(ca.SubjectKeyId) > 0 && !bytes.Equal(cert.AuthorityKeyId, ca.SubjectKeyId) {
			continue
		}
		if cert.CheckSignatureFrom(ca) == nil {
			found = append(found, signer{r, ca})
		}
	}
	return found, nil
}

// deviceCertificate says why a certificate of an authority can't be a device's; "" when it can.
func (c *Certificates) deviceCertificate(leaf, ca *x509.Certificate) (reason Reason, detail string) {
	now := c.now()
	switch {
	case now.Before(leaf.NotBefore):
		return ReasonNotYetValid, ""
	case now.After(leaf.NotAfter):
		return ReasonExpired, ""
	case now.Before(ca.NotBefore) || now.After(ca.NotAfter):
		return ReasonNotRegistered, "its CA certificate is not valid now"
	case !signatureAlgorithms[leaf.SignatureAlgorithm]:
		return ReasonUnacceptable, "signature algorithm " + leaf.SignatureAlgorithm.String() + " is not supported"
	case leaf.IsCA:
		return ReasonKeyUsage, "it is that of an authority"
	}
	if err := strongKey(leaf.PublicKey); err != nil {
		return ReasonUnacceptable, err.Error()
	}
	if err := clientUsage(leaf); err != nil {
		return ReasonKeyUsage, err.Error()
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	switch {
	case err == nil:
		return "", ""
	case ok && invalid.Reason == x509.CANotAuthorizedForThisName:
		return ReasonUnacceptable, "a name in it is not among those that its CA may vouch for"
	case ok && invalid.Reason == x509.IncompatibleUsage:
		return ReasonKeyUsage, "its CA does not vouch for clients"
	}
	return ReasonUnacceptable, err.Error()
}

// clientUsage tells whether a certificate may authenticate a client, as far as it says what it is for.
func clientUsage(cert *x509.Certificate) error {
	if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return errors.New("its key usage does not have digitalSignature")
	}
	if len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 0 {
		return nil
	}
	for _, u := range cert.ExtKeyUsage {
		if u == x509.ExtKeyUsageClientAuth || u == x509.ExtKeyUsageAny {
			return nil
		}
	}
	return errors.New("its extended key usage does not have clientAuth")
}

// subjectValues are what a template may ask of a certificate, by its parameters' last part.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/jit-provisioning.html
func subjectValues(cert *x509.Certificate) map[string]string {
	out := map[string]string{"Id": CertificateID(cert)}
	has := attributes(cert.Subject)
	for name, key := range map[string]string{
		"Country": "Country", "Organization": "Organization", "OrganizationalUnit": "OrganizationalUnit", "State": "StateName",
		"DistinguishedNameQualifier": "DistinguishedNameQualifier", "CommonName": "CommonName", "SerialNumber": "SerialNumber",
	} {
		if v := has[name]; len(v) > 0 {
			out[key] = v[0]
		}
	}
	return out
}
