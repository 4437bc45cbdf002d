package identity

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// crlLifetime is how long a revocation list says that it is good for. It is issued anew when a certificate is revoked,
// and when half of that is over.
const crlLifetime = 7 * 24 * time.Hour

// revocation is a row of that name.
type revocation struct {
	certificateID, issuer, serial string
	revoked, expires              int64 // ms
}

// CRL is the revocation list of the authority with a key id (hex), the one that issues when it is "", as DER. It lists
// certificates that are REVOKED, or were when they were deleted, until they expire. ErrNotFound of store: there is no
// such authority here, or somebody else has its key.
func (c *Certificates) CRL(ctx context.Context, authorityKeyID string) (der []byte, err error) {
	if authorityKeyID == "" {
		authorityKeyID = keyID(c.authority.issuing.certificate.SubjectKeyId)
	}
	by, ok := c.authority.signers[authorityKeyID]
	if !ok {
		return nil, store.ErrNotFound
	}
	l, err := c.readList(ctx, authorityKeyID)
	if err == nil && c.fresh(l) {
		return l.der, nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	c.listing.Lock() // a signature at a time, however many ask
	defer c.listing.Unlock()
	if l, err = c.readList(ctx, authorityKeyID); err == nil && c.fresh(l) {
		return l.der, nil
	}
	return c.issueList(ctx, authorityKeyID, by)
}

// revocationList is a row of that name.
type revocationList struct {
	number, issued int64
	der            []byte
	stale          bool
}

func (c *Certificates) fresh(l *revocationList) bool {
	return !l.stale && c.now().Sub(time.UnixMilli(l.issued)) < crlLifetime/2
}

func (c *Certificates) readList(ctx context.Context, issuer string) (l *revocationList, err error) {
	err = c.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		l = &revocationList{}
		return tx.QueryRow(`SELECT number, der, issued, stale FROM revocation_list WHERE issuer = $1`, issuer).Scan(&l.number, &l.der, &l.issued, &l.stale)
	})
	return l, err
}

// issueList signs a list of what is revoked now. It is signed outside of the write, so that a slow signer holds nobody
// up; what is revoked meanwhile leaves the list stale.
func (c *Certificates) issueList(ctx context.Context, issuer string, by signing) ([]byte, error) {
	now := c.now()
	var number int64
	err := c.db.Write(ctx, func(_ context.Context, tx store.Tx) (err error) { // takes a number, before what is read
		number, err = startList(tx, issuer)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("identity: revocation list: %w", err)
	}
	list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now.Add(-clockSkew), NextUpdate: now.Add(crlLifetime)}
	err = c.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		list.RevokedCertificateEntries = nil
		return eachRevocation(tx, issuer, now.UnixMilli(), func(r *revocation) error {
			serial, ok := new(big.Int).SetString(r.serial, 16)
			if !ok {
				return fmt.Errorf("serial number %q", r.serial)
			}
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
				SerialNumber: serial, RevocationTime: time.UnixMilli(r.revoked).UTC(),
			})
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("identity: revocation list: %w", err)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, by.certificate, by.key)
	if err != nil {
		return nil, fmt.Errorf("identity: revocation list: %w", err)
	}
	err = c.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		return finishList(tx, issuer, number, der, now.UnixMilli())
	})
	if err != nil {
		return nil, fmt.Errorf("identity: revocation list: %w", err)
	}
	return der, nil
}

// ServeCRL serves GET /crl, the revocation list of the authority that issues, and GET /crl/KEYID, of any of ours. It is
// for everybody.
func (c *Certificates) ServeCRL(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	der, err := c.CRL(r.Context(), strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/crl"), "/"))
	switch {
	case errors.Is(err, store.ErrNotFound):
		http.NotFound(w, r)
		return
	case err != nil:
		c.log.Error("the revocation list can't be served", "err", err)
		http.Error(w, "the revocation list can't be served", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/pkix-crl") // RFC 2585 4.2
	w.Header().Set("Content-Length", strconv.Itoa(len(der)))
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(der)
}

// noteRevocation keeps the revocation lists' contents in step with a certificate's status; it is called in the write
// that changes it.
func (c *Certificates) noteRevocation(tx store.Tx, r *record, was string) error {
	is := r.status == iot.CertificateStatusRevoked
	if is == (was == iot.CertificateStatusRevoked) {
		return nil
	}
	cert, err := x509.ParseCertificate(r.der)
	if err != nil {
		return fmt.Errorf("identity: certificate %s: %w", r.id, err)
	}
	v := &revocation{certificateID: r.id, issuer: keyID(cert.AuthorityKeyId), serial: cert.SerialNumber.Text(16), revoked: r.modified, expires: r.notAfter}
	if is {
		err = insertRevocation(tx, v)
	} else {
		err = deleteRevocation(tx, r.id)
	}
	if err != nil {
		return err
	}
	return markStale(tx, v.issuer)
}

// noteEarlierRevocations does so for certificates that were revoked before there were lists.
func (c *Certificates) noteEarlierRevocations(ctx context.Context) error {
	after := ""
	for {
		var page []record
		err := c.db.Write(ctx, func(_ context.Context, tx store.Tx) (err error) {
			if page, err = selectUnlisted(tx, after, sweepBatch); err != nil {
				return err
			}
			for i := range page {
				if err := c.noteRevocation(tx, &page[i], ""); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || len(page) < sweepBatch {
			return err
		}
		after = page[len(page)-1].id
	}
}

func insertRevocation(tx store.Tx, r *revocation) error {
	_, err := tx.Exec(`INSERT INTO revocation (certificate_id, issuer, serial, revoked, expires) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (certificate_id) DO UPDATE SET revoked = excluded.revoked`, r.certificateID, r.issuer, r.serial, r.revoked, r.expires)
	return err
}

func deleteRevocation(tx store.Tx, certificateID string) error {
	_, err := tx.Exec(`DELETE FROM revocation WHERE certificate_id = $1`, certificateID)
	return err
}

func markStale(tx store.Tx, issuer string) error {
	_, err := tx.Exec(`UPDATE revocation_list SET stale = $2 WHERE issuer = $1`, issuer, true)
	return err
}

// startList takes the next number of an issuer's list. Until finishList the one that there is counts as old.
func startList(tx store.Tx, issuer string) (number int64, err error) {
	err = tx.QueryRow(`INSERT INTO revocation_list (issuer, number, der, issued, stale) VALUES ($1, 1, $2, 0, $3)
		ON CONFLICT (issuer) DO UPDATE SET number = revocation_list.number + 1, issued = 0, stale = $3 RETURNING number`, issuer, []byte{}, false).Scan(&number)
	return number, err
}

// finishList stores a list unless a newer one was begun, or something was revoked since it was begun, which stale says.
func finishList(tx store.Tx, issuer string, number int64, der []byte, issued int64) error {
	_, err := tx.Exec(`UPDATE revocation_list SET der = $3, issued = $4 WHERE issuer = $1 AND number = $2`, issuer, number, der, issued)
	return err
}

// eachRevocation gives what an issuer has revoked and has not expired.
func eachRevocation(tx store.Tx, issuer string, now int64, fn func(*revocation) error) error {
	rows, err := tx.Query(`SELECT certificate_id, serial, revoked FROM revocation WHERE issuer = $1 AND expires > $2 ORDER BY certificate_id`, issuer, now)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		r := &revocation{issuer: issuer}
		if err := rows.Scan(&r.certificateID, &r.serial, &r.revoked); err != nil {
			return err
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return rows.Err()
}

// selectUnlisted gives certificates that are REVOKED and not among the revocations.
func selectUnlisted(tx store.Tx, after string, limit int) ([]record, error) {
	rows, err := tx.Query(`SELECT id, der, status, modified, not_after FROM certificate WHERE status = 'REVOKED' AND id > $1
		AND NOT EXISTS (SELECT 1 FROM revocation r WHERE r.certificate_id = certificate.id) ORDER BY id LIMIT $2`, after, limit)
	return collect(rows, err, func(r *record) []any { return []any{&r.id, &r.der, &r.status, &r.modified, &r.notAfter} })
}
