package identity

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"flotilla/internal/aws/flotilla"
	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

const kindRotation = "rotation" // on the bus; key: the old certificate's id

// detailsPage is how many certificates an answer of ListCertificateDetails has.
const detailsPage = 250

// newcomers is how many connections of a moment may wait to be looked at; those that find it full are looked at when
// they connect next.
const newcomers = 1024

// RotateCertificate has a certificate replaced. Its device asks for another over the connection that it has by this one
// (create-from-csr or create), and provisions it for the same thing; once it has connected with the new certificate,
// and not before, the old one becomes INACTIVE. Certificates that an API caller has made replace nothing by themselves.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/fleet-provision-api.html
func (c *Certificates) RotateCertificate(ctx context.Context, in *flotilla.RotateCertificateRequest) (*flotilla.RotateCertificateResponse, error) {
	id := normalID(in.CertificateId)
	out := &flotilla.RotateCertificateResponse{}
	err := c.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		r, err := selectCertificate(tx, id)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return &flotilla.InvalidRequestException{Message: "Certificate id " + id + " does not exist."}
		case err != nil:
			return err
		case r.claim != "" || r.status != iot.CertificateStatusActive:
			return &flotilla.InvalidRequestException{Message: "Only a device's certificate that is ACTIVE can be rotated."}
		}
		things, err := c.things.ListPrincipalThings(ctx, &iot.ListPrincipalThingsRequest{Principal: c.arn(id)})
		if err != nil {
			return err
		}
		if len(things.Things) == 0 {
			return &flotilla.InvalidRequestException{Message: "The certificate has no thing, so nothing tells which certificate would replace it."}
		}
		out.Things = things.Things
		c.db.AfterCommit(ctx, func() { c.bus.Changed(kindRotation, id) })
		return insertRotation(tx, id, c.now().UnixMilli())
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Connected is told that the holder of a certificate was let in. It does not block.
func (c *Certificates) Connected(certificateID string) {
	if !c.rotating.Load() {
		return
	}
	select {
	case c.connected <- certificateID:
	default:
	}
}

// finishRotation deactivates the certificate that a new one, which has connected, replaces, if it is to be replaced.
func (c *Certificates) finishRotation(ctx context.Context, id string) error {
	return c.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		old, created, err := selectRequestedBy(tx, id)
		if errors.Is(err, store.ErrNotFound) || old == "" {
			return nil
		}
		if err != nil {
			return err
		}
		requested, err := selectRotation(tx, old)
		if errors.Is(err, store.ErrNotFound) || err == nil && requested > created {
			return nil
		}
		if err != nil {
			return err
		}
		before, err := c.things.ListPrincipalThings(ctx, &iot.ListPrincipalThingsRequest{Principal: c.arn(old)})
		if err != nil {
			return err
		}
		after, err := c.things.ListPrincipalThings(ctx, &iot.ListPrincipalThingsRequest{Principal: c.arn(id)})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(after.Things, func(t string) bool { return slices.Contains(before.Things, t) }) {
			return nil // it is another thing's
		}
		if _, err := c.UpdateCertificate(ctx, &iot.UpdateCertificateRequest{CertificateId: old, NewStatus: iot.CertificateStatusInactive}); err != nil {
			return err
		}
		c.log.Info("certificate rotated", "op", "RotateCertificate", "principal", id, "old", old)
		return finishRotation(tx, old, id, c.now().UnixMilli())
	})
}

// lookForRotations keeps rotating.
func (c *Certificates) lookForRotations(ctx context.Context) error {
	open := false
	err := c.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		return tx.QueryRow(`SELECT EXISTS (SELECT 1 FROM rotation WHERE finished = 0)`).Scan(&open)
	})
	if err == nil {
		c.rotating.Store(open)
	}
	return err
}

// ListCertificateDetails lists certificates with what is in them, by their end: all; or, by their begin, those that are
// ACTIVE and due for rotation within a time, since they end or reach the age of identity.rotation-age. Claim certificates
// and those that have ended are left out.
func (c *Certificates) ListCertificateDetails(ctx context.Context, in *flotilla.ListCertificateDetailsRequest) (*flotilla.ListCertificateDetailsResponse, error) {
	var after pageKey
	if in.Marker != nil && *in.Marker != "" {
		text, err := base64.RawURLEncoding.DecodeString(*in.Marker)
		key, id, ok := strings.Cut(string(text), "\n")
		n, perr := strconv.ParseInt(key, 10, 64)
		if err != nil || perr != nil || !ok {
			return nil, &flotilla.InvalidRequestException{Message: "Invalid marker"}
		}
		after = pageKey{n, id}
	}
	now := c.now()
	list := func(tx store.Tx) ([]detailed, error) { return selectDetails(tx, now.UnixMilli(), after, detailsPage+1) }
	key := func(r *detailed) int64 { return r.notAfter }
	if in.DueWithinSeconds != nil {
		until := now.Add(time.Duration(min(*in.DueWithinSeconds, 100*365*24*3600)) * time.Second)
		list = func(tx store.Tx) ([]detailed, error) {
			return selectDue(tx, now.UnixMilli(), until.UnixMilli(), c.oldest(until), after, detailsPage+1)
		}
		key = func(r *detailed) int64 { return r.notBefore }
	}
	var out *flotilla.ListCertificateDetailsResponse
	err := c.db.Read(ctx, func(ctx context.Context, tx store.Tx) error {
		out = &flotilla.ListCertificateDetailsResponse{}
		page, err := list(tx)
		if err != nil {
			return err
		}
		if len(page) > detailsPage {
			page = page[:detailsPage]
			last := &page[detailsPage-1]
			out.NextMarker = new(base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(key(last), 10) + "\n" + last.id)))
		}
		for i := range page {
			d, err := c.detail(ctx, &page[i])
			if err != nil {
				return err
			}
			out.Certificates = append(out.Certificates, d)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// oldest is the begin of certificates, in ms, that are due by their age at a time.
func (c *Certificates) oldest(at time.Time) int64 {
	if c.cfg.RotationAge <= 0 {
		return math.MinInt64
	}
	return at.Add(-c.cfg.RotationAge).UnixMilli()
}

// Why a certificate is due.
const (
	dueAge    = "AGE"
	dueExpiry = "EXPIRY"
)

// due is when a certificate is to have been replaced, and why.
func (c *Certificates) due(r *record) (at int64, why string) {
	if aged := r.notBefore + c.cfg.RotationAge.Milliseconds(); c.cfg.RotationAge > 0 && aged < r.notAfter {
		return aged, dueAge
	}
	return r.notAfter, dueExpiry
}

// detailed is a certificate with its rotation.
type detailed struct {
	record
	requested, finished int64
}

func (c *Certificates) detail(ctx context.Context, r *detailed) (*flotilla.CertificateDetail, error) {
	cert, err := x509.ParseCertificate(r.der)
	if err != nil {
		return nil, fmt.Errorf("identity: certificate %s: %w", r.id, err)
	}
	things, err := c.things.ListPrincipalThings(ctx, &iot.ListPrincipalThingsRequest{Principal: c.arn(r.id)})
	if err != nil {
		return nil, err
	}
	d := &flotilla.CertificateDetail{
		CertificateId: &r.id, Status: &r.status, NotBefore: date(r.notBefore), NotAfter: date(r.notAfter), CaCertificateId: optional(r.caID),
		Subject: new(cert.Subject.String()), Issuer: new(cert.Issuer.String()), SerialNumber: new(cert.SerialNumber.Text(16)), Things: things.Things,
	}
	at, why := c.due(&r.record)
	d.Due, d.DueReason = date(at), &why
	switch {
	case r.finished != 0:
		d.Rotation = new("REPLACED")
	case r.requested != 0:
		d.Rotation = new("REQUESTED")
	}
	return d, nil
}

func insertRotation(tx store.Tx, id string, now int64) error {
	_, err := tx.Exec(`INSERT INTO rotation (certificate_id, replaced_by, requested, finished) VALUES ($1, '', $2, 0)
		ON CONFLICT (certificate_id) DO UPDATE SET replaced_by = '', requested = excluded.requested, finished = 0`, id, now)
	return err
}

// selectRotation tells when the rotation of a certificate was asked for that is not finished.
func selectRotation(tx store.Tx, id string) (requested int64, err error) {
	err = tx.QueryRow(`SELECT requested FROM rotation WHERE certificate_id = $1 AND finished = 0`, id).Scan(&requested)
	return requested, err
}

func finishRotation(tx store.Tx, old, id string, now int64) error {
	_, err := tx.Exec(`UPDATE rotation SET replaced_by = $2, finished = $3 WHERE certificate_id = $1`, old, id, now)
	return err
}

func deleteRotation(tx store.Tx, id string) error {
	_, err := tx.Exec(`DELETE FROM rotation WHERE certificate_id = $1`, id)
	return err
}

// selectRequestedBy gives who asked for a certificate, and when it was made.
func selectRequestedBy(tx store.Tx, id string) (by string, created int64, err error) {
	err = tx.QueryRow(`SELECT requested_by, created FROM certificate WHERE id = $1`, id).Scan(&by, &created)
	return by, created, err
}

const selectDetailed = `SELECT c.id, c.der, c.status, c.ca_id, c.not_before, c.not_after, COALESCE(r.requested, 0), COALESCE(r.finished, 0)
	FROM certificate c LEFT JOIN rotation r ON r.certificate_id = c.id WHERE c.claim = '' AND c.not_after > $1 AND `

// selectDetails pages by (not_after, id) over certificates that have not ended.
func selectDetails(tx store.Tx, now int64, after pageKey, limit int) ([]detailed, error) {
	return collectDetails(tx.Query(selectDetailed+`(c.not_after, c.id) > ($2, $3) ORDER BY c.not_after, c.id LIMIT $4`,
		now, after.created, after.id, limit))
}

// selectDue pages by (not_before, id) over certificates that are ACTIVE, and end until a time or begin at oldest or before.
func selectDue(tx store.Tx, now, until, oldest int64, after pageKey, limit int) ([]detailed, error) {
	return collectDetails(tx.Query(selectDetailed+`c.status = 'ACTIVE' AND (c.not_after <= $2 OR c.not_before <= $3) AND (c.not_before, c.id) > ($4, $5)
		ORDER BY c.not_before, c.id LIMIT $6`, now, until, oldest, after.created, after.id, limit))
}

func collectDetails(rows store.Rows, err error) ([]detailed, error) {
	return collect(rows, err, func(r *detailed) []any {
		return []any{&r.id, &r.der, &r.status, &r.caID, &r.notBefore, &r.notAfter, &r.requested, &r.finished}
	})
}
