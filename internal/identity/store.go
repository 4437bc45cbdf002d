package identity

import (
	"fmt"

	"flotilla/internal/store"
)

// record is a row of certificate.
type record struct {
	id                  string
	der                 []byte
	status, mode, caID  string
	notBefore, notAfter int64 // ms
	created, modified   int64
	revision            int64
	generation, claim   string
	requestedBy         string
	pendingUntil        int64
}

func insertCertificate(tx store.Tx, r *record) error {
	_, err := tx.Exec(`INSERT INTO certificate (id, der, status, mode, ca_id, not_before, not_after, created, modified, revision, generation, claim, pending_until, requested_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		r.id, r.der, r.status, r.mode, r.caID, r.notBefore, r.notAfter, r.created, r.modified, r.revision, r.generation, r.claim, r.pendingUntil, r.requestedBy)
	return err
}

func selectCertificate(tx store.Tx, id string) (*record, error) {
	r := &record{id: id}
	err := tx.QueryRow(`SELECT der, status, mode, ca_id, not_before, not_after, created, modified, revision, generation, claim, pending_until
		FROM certificate WHERE id = $1`, id).Scan(&r.der, &r.status, &r.mode, &r.caID, &r.notBefore, &r.notAfter,
		&r.created, &r.modified, &r.revision, &r.generation, &r.claim, &r.pendingUntil)
	return r, err
}

func selectStanding(tx store.Tx, id string) (s standing, err error) {
	err = tx.QueryRow(`SELECT status, not_before, not_after, claim, ca_id FROM certificate WHERE id = $1`, id).
		Scan(&s.status, &s.notBefore, &s.notAfter, &s.claim, &s.caID)
	return s, err
}

func updateStatus(tx store.Tx, r *record) error {
	_, err := tx.Exec(`UPDATE certificate SET status = $2, modified = $3, revision = $4, generation = $5, pending_until = $6 WHERE id = $1`,
		r.id, r.status, r.modified, r.revision, r.generation, r.pendingUntil)
	return err
}

func deleteCertificate(tx store.Tx, id string) error {
	_, err := tx.Exec(`DELETE FROM certificate WHERE id = $1`, id)
	return err
}

// selectExpired gives ids of certificates whose time as claim or pending one is over.
func selectExpired(tx store.Tx, now int64, limit int) ([]string, error) {
	rows, err := tx.Query(`SELECT id FROM certificate WHERE pending_until > 0 AND pending_until <= $1 ORDER BY pending_until LIMIT $2`, now, limit)
	return collect(rows, err, func(s *string) []any { return []any{s} })
}

// selectCertificates pages by (created, id), without claims; with a caID those alone that it signed.
func selectCertificates(tx store.Tx, caID string, after *pageKey, ascending bool, limit int) ([]record, error) {
	order, compare := "DESC", "<"
	if ascending {
		order, compare = "ASC", ">"
	}
	query, args := `SELECT id, status, mode, created FROM certificate WHERE claim = ''`, []any{limit}
	if caID != "" {
		query += ` AND ca_id <> '' AND ca_id = $2`
		args = append(args, caID)
	}
	if after != nil {
		query += fmt.Sprintf(` AND (created, id) %s ($%d, $%d)`, compare, len(args)+1, len(args)+2)
		args = append(args, after.created, after.id)
	}
	rows, err := tx.Query(query+fmt.Sprintf(` ORDER BY created %s, id %s LIMIT $1`, order, order), args...)
	return collect(rows, err, func(r *record) []any { return []any{&r.id, &r.status, &r.mode, &r.created} })
}

// collect reads all rows and closes them.
func collect[T any](rows store.Rows, err error, fields func(*T) []any) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []T
	for rows.Next() {
		var t T
		if err := rows.Scan(fields(&t)...); err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, rows.Err()
}
