package identity

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

const (
	kindCertificate = "certificate" // on the bus; key: certificate id

	keyTypeRSA = "rsa"

	defaultPage = 25
)

// Changes carries news of changes between the rooms of this node and of others.
type Changes interface {
	Changed(kind, key string)
	OnChange(kind string, fn func(key string))
}

// Policies is what this room asks of policy.
type Policies interface {
	ListAttachedPolicies(context.Context, *iot.ListAttachedPoliciesRequest) (*iot.ListAttachedPoliciesResponse, error)
	// DetachAll detaches every policy from a target; it joins a Write in ctx.
	DetachAll(ctx context.Context, target string) error
}

// Things is what this room asks of the registry.
type Things interface {
	ListPrincipalThings(context.Context, *iot.ListPrincipalThingsRequest) (*iot.ListPrincipalThingsResponse, error)
}

// Config is the room's part of the configuration; its zero value works.
type Config struct {
	KeyType      string `name:"identity.key-type" default:"ecdsa" enum:"ecdsa,rsa" help:"Keys that CreateKeysAndCertificate makes: ecdsa (P-256) or rsa (2048 bits, as AWS)."`
	CAPassphrase string `name:"identity.ca-passphrase" help:"Seals the keys of the certificate authority in the store."`
	Signer       string `name:"identity.signer" help:"Who keeps the key of the issuing authority, unless the store does: exec:PROGRAM ARGS... or https://..."`

	CertificateValidity time.Duration `name:"identity.certificate-validity" help:"How long certificates of devices are valid that are issued here; 0 is until the end of 2049, as AWS."`
	RotationAge         time.Duration `name:"identity.rotation-age" default:"8760h" help:"Age at which certificates of devices are due for rotation ('flotilla certs expiring'); 0: only their end counts."`
	ProviderTimeout     time.Duration `name:"identity.provider-timeout" default:"5s" help:"How long the function of a certificate provider may take."`
	CRLURL              string        `name:"identity.crl-url" help:"Where others find the revocation list; written into certificates of devices when set."`
}

// Deps are the others that the room works with.
type Deps struct {
	Account   aws.Account
	DB        *store.DB
	Changes   Changes
	Authority *Authority
	Log       *slog.Logger
	Now       func() time.Time // time.Now when nil
}

// Certificates is the room. It is safe for concurrent use.
type Certificates struct {
	cfg       Config
	account   aws.Account
	db        *store.DB
	bus       Changes
	authority *Authority
	log       *slog.Logger
	now       func() time.Time
	policies  Policies
	things    Things
	templates Templates // nil: no just-in-time provisioning
	publisher Publisher
	functions Functions // nil: no certificate providers
	tags      Tags
	recent    attempts
	rotating  atomic.Bool // a certificate is to be replaced
	connected chan string // ids of certificates, for Run
	listing   sync.Mutex  // held while a revocation list is issued
	cache     cache
	names     names
}

// New makes the room and subscribes it to changes. [Certificates.Use] completes it.
func New(cfg Config, d Deps) *Certificates {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.ProviderTimeout <= 0 {
		cfg.ProviderTimeout = defaultProviderTimeout
	}
	c := &Certificates{cfg: cfg, account: d.Account, db: d.DB, bus: d.Changes, authority: d.Authority, log: d.Log, now: d.Now, connected: make(chan string, newcomers)}
	d.Changes.OnChange(kindRotation, func(string) { c.rotating.Store(true) })
	d.Changes.OnChange(kindCertificate, c.cache.forget)
	return c
}

// Use plugs in the rooms that are made after this one; call it once, before the first request.
func (c *Certificates) Use(p Policies, t Things) { c.policies, c.things = p, t }

// Authority is the installation's certificate authority.
func (c *Certificates) Authority() *Authority { return c.authority }

func (c *Certificates) arn(id string) string { return c.account.ARN("iot", "cert/"+id) }

func (c *Certificates) changed(ctx context.Context, id string) {
	c.db.AfterCommit(ctx, func() { c.bus.Changed(kindCertificate, id) })
}

// add registers a certificate; store.ErrConflict when it is registered already.
func (c *Certificates) add(ctx context.Context, r *record) error {
	now := c.now().UnixMilli()
	r.created, r.modified, r.revision = now, now, 1
	if r.mode == "" {
		r.mode = iot.CertificateModeDefault
	}
	return c.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		r.generation = uuid.NewString()
		c.changed(ctx, r.id)
		if err := insertCertificate(tx, r); err != nil {
			return err
		}
		return c.noteRevocation(tx, r, "")
	})
}

func newRecord(i *issued, status string) *record {
	return &record{id: i.id, der: i.der, status: status, notBefore: i.notBefore.UnixMilli(), notAfter: i.notAfter.UnixMilli()}
}

// initialStatus is that of a new certificate.
func initialStatus(active *bool) string {
	if active != nil && *active {
		return iot.CertificateStatusActive
	}
	return iot.CertificateStatusInactive
}

// CreateKeysAndCertificate makes a key pair and issues its certificate. This is the only time that the private key
// is given out; it is not kept.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateKeysAndCertificate.html
func (c *Certificates) CreateKeysAndCertificate(ctx context.Context, in *iot.CreateKeysAndCertificateRequest) (*iot.CreateKeysAndCertificateResponse, error) {
	i, err := c.issueWithKeys(c.deviceNotAfter())
	if err != nil {
		return nil, err
	}
	if err := c.add(ctx, newRecord(i, initialStatus(in.SetAsActive))); err != nil {
		return nil, err
	}
	return c.created(i), nil
}

func (c *Certificates) created(i *issued) *iot.CreateKeysAndCertificateResponse {
	out := &iot.CreateKeysAndCertificateResponse{CertificateArn: new(c.arn(i.id)), CertificateId: &i.id, CertificatePem: &i.pem}
	if i.privateKey != "" {
		out.KeyPair = &iot.KeyPair{PublicKey: &i.publicKey, PrivateKey: &i.privateKey}
	}
	return out
}

// CreateCertificateFromCsr issues a certificate for the key and subject of a request; the same request gives another
// certificate each time.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateCertificateFromCsr.html
func (c *Certificates) CreateCertificateFromCsr(ctx context.Context, in *iot.CreateCertificateFromCsrRequest) (*iot.CreateCertificateFromCsrResponse, error) {
	i, err := c.issueFromCSR(in.CertificateSigningRequest, c.deviceNotAfter())
	if err != nil {
		return nil, err
	}
	if err := c.add(ctx, newRecord(i, initialStatus(in.SetAsActive))); err != nil {
		return nil, err
	}
	return &iot.CreateCertificateFromCsrResponse{CertificateArn: new(c.arn(i.id)), CertificateId: &i.id, CertificatePem: &i.pem}, nil
}

// SignRequest signs a CSR (PEM) as CreateCertificateFromCsr does, and registers nothing: RegisterCertificate takes what it
// returns (PEM). It does not write to the store, and takes as long as the signer does.
// Errors: iot.InvalidRequestException for the CSR.
func (c *Certificates) SignRequest(_ context.Context, csr string) (certificatePEM string, err error) {
	i, err := c.issueFromCSR(csr, c.deviceNotAfter())
	if err != nil {
		return "", err
	}
	return i.pem, nil
}

// noCertificate turns a row that is not there into AWS's exception.
func noCertificate(err error, id string) error {
	if errors.Is(err, store.ErrNotFound) {
		return &iot.ResourceNotFoundException{Message: fmt.Sprintf("Certificate id %s does not exist.", id)}
	}
	return err
}

// normalID takes the forms of the model's pattern (0x)?[a-fA-F0-9]+.
func normalID(id string) string { return strings.ToLower(strings.TrimPrefix(id, "0x")) }

// DescribeCertificate gives a certificate and what is known of it.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeCertificate.html
func (c *Certificates) DescribeCertificate(ctx context.Context, in *iot.DescribeCertificateRequest) (*iot.DescribeCertificateResponse, error) {
	var r *record
	err := c.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		r, err = selectCertificate(tx, normalID(in.CertificateId))
		return err
	})
	if err != nil {
		return nil, noCertificate(err, in.CertificateId)
	}
	d := &iot.CertificateDescription{
		CertificateArn: new(c.arn(r.id)), CertificateId: &r.id, Status: &r.status, CertificatePem: new(string(encodeCertificate(r.der))),
		OwnedBy: new(c.account.ID), CreationDate: date(r.created), LastModifiedDate: date(r.modified), CustomerVersion: new(int32(r.revision)),
		GenerationId: &r.generation, CertificateMode: &r.mode,
		Validity: &iot.CertificateValidity{NotBefore: date(r.notBefore), NotAfter: date(r.notAfter)},
	}
	if r.caID != "" {
		d.CaCertificateId = &r.caID
	}
	return &iot.DescribeCertificateResponse{CertificateDescription: d}, nil
}

// pageKey is where a page of a list ends.
type pageKey struct {
	created int64
	id      string
}

// ListCertificates lists in order of registration, the newest first unless ascendingOrder. Claim certificates are
// not listed.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListCertificates.html
func (c *Certificates) ListCertificates(ctx context.Context, in *iot.ListCertificatesRequest) (*iot.ListCertificatesResponse, error) {
	p, err := newPaging(in.Marker, in.PageSize, in.AscendingOrder)
	if err != nil {
		return nil, err
	}
	out := &iot.ListCertificatesResponse{}
	err = c.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		out.Certificates, out.NextMarker, err = c.page(tx, "", p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// page is a page of certificates: those that a CA certificate signed when caID is not empty.
func (c *Certificates) page(tx store.Tx, caID string, p *paging) (list []*iot.Certificate, next *string, err error) {
	page, err := selectCertificates(tx, caID, p.after, p.ascending, p.size+1)
	if err != nil {
		return nil, nil, err
	}
	if len(page) > p.size {
		page = page[:p.size]
		next = marker(page[p.size-1].created, page[p.size-1].id)
	}
	for _, r := range page {
		list = append(list, &iot.Certificate{
			CertificateArn: new(c.arn(r.id)), CertificateId: &r.id, Status: &r.status, CertificateMode: &r.mode, CreationDate: date(r.created),
		})
	}
	return list, next, nil
}

// paging is which page of a list is asked for.
type paging struct {
	after     *pageKey
	size      int
	ascending bool
}

func newPaging(marker *string, size *int32, ascending *bool) (*paging, error) {
	after, err := parseMarker(marker)
	if err != nil {
		return nil, err
	}
	p := &paging{after: after, size: defaultPage, ascending: ascending != nil && *ascending}
	if size != nil && *size > 0 {
		p.size = min(int(*size), 250)
	}
	return p, nil
}

// marker is where the page behind (created, id) begins.
func marker(created int64, id string) *string {
	return new(base64.StdEncoding.EncodeToString([]byte(strconv.FormatInt(created, 10) + "\n" + id)))
}

func parseMarker(m *string) (*pageKey, error) {
	if m == nil || *m == "" {
		return nil, nil
	}
	text, err := base64.StdEncoding.DecodeString(*m)
	created, id, ok := strings.Cut(string(text), "\n")
	n, perr := strconv.ParseInt(created, 10, 64)
	if err != nil || perr != nil || !ok {
		return nil, &iot.InvalidRequestException{Message: "Invalid marker"}
	}
	return &pageKey{n, id}, nil
}

// UpdateCertificate changes the status to ACTIVE, INACTIVE or REVOKED; the others are AWS's own. A certificate that
// waits for its activation is kept from now on.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateCertificate.html
func (c *Certificates) UpdateCertificate(ctx context.Context, in *iot.UpdateCertificateRequest) (*iot.UpdateCertificateResponse, error) {
	switch in.NewStatus {
	case iot.CertificateStatusActive, iot.CertificateStatusInactive, iot.CertificateStatusRevoked:
	default:
		return nil, &iot.CertificateStateException{Message: fmt.Sprintf("Certificate status %s is not allowed in this operation.", in.NewStatus)}
	}
	id := normalID(in.CertificateId)
	err := c.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		r, err := selectCertificate(tx, id)
		if err != nil {
			return noCertificate(err, in.CertificateId)
		}
		if r.status == iot.CertificateStatusPendingTransfer {
			return &iot.CertificateStateException{Message: "The certificate is being transferred."}
		}
		if r.claim != "" && in.NewStatus == iot.CertificateStatusActive && r.status != iot.CertificateStatusActive {
			return &iot.CertificateStateException{Message: "A claim certificate can't be activated again."}
		}
		if r.claim == "" {
			r.pendingUntil = 0
		}
		was := r.status
		r.status, r.modified = in.NewStatus, c.now().UnixMilli()
		r.revision++
		r.generation = uuid.NewString()
		c.changed(ctx, id)
		if err := c.noteRevocation(tx, r, was); err != nil {
			return err
		}
		return updateStatus(tx, r)
	})
	if err != nil {
		return nil, err
	}
	return &iot.UpdateCertificateResponse{}, nil
}

// DeleteCertificate deletes a certificate that is not ACTIVE and has no things and, without forceDelete, no policies
// attached to it.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteCertificate.html
func (c *Certificates) DeleteCertificate(ctx context.Context, in *iot.DeleteCertificateRequest) (*iot.DeleteCertificateResponse, error) {
	id := normalID(in.CertificateId)
	err := c.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		r, err := selectCertificate(tx, id)
		if err != nil {
			return noCertificate(err, in.CertificateId)
		}
		if r.status == iot.CertificateStatusActive {
			return &iot.CertificateStateException{Message: "Certificate must be deactivated (not ACTIVE) before deletion."}
		}
		arn := c.arn(id)
		things, err := c.things.ListPrincipalThings(ctx, &iot.ListPrincipalThingsRequest{Principal: arn})
		if err != nil {
			return err
		}
		if len(things.Things) > 0 {
			return &iot.DeleteConflictException{Message: fmt.Sprintf("Things must be detached before deletion (arn: %s)", arn)}
		}
		if in.ForceDelete == nil || !*in.ForceDelete {
			attached, err := c.policies.ListAttachedPolicies(ctx, &iot.ListAttachedPoliciesRequest{Target: arn})
			if err != nil {
				return err
			}
			if len(attached.Policies) > 0 {
				return &iot.DeleteConflictException{Message: fmt.Sprintf("Certificate policies must be detached before deletion (arn: %s)", arn)}
			}
		} else if err := c.policies.DetachAll(ctx, arn); err != nil {
			return err
		}
		c.changed(ctx, id)
		if err := deleteRotation(tx, id); err != nil {
			return err
		}
		return deleteCertificate(tx, id)
	})
	if err != nil {
		return nil, err
	}
	return &iot.DeleteCertificateResponse{}, nil
}

func date(ms int64) *aws.Time { return new(aws.Time{Time: time.UnixMilli(ms).UTC()}) }
