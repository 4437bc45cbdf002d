package provision

import (
	"strconv"
	"strings"

	"flotilla/internal/store"
)

// attemptRow is a row of provisioning_attempt.
type attemptRow struct {
	id                                     int64
	failed                                 bool
	clientID, certificateID, thing, serial string
	detail                                 string
}

// rowsPerInsert is how many rows one statement inserts: PostgreSQL waits for each statement.
const rowsPerInsert = 16

const insertAttempt = `INSERT INTO provisioning_attempt (id, failed, client_id, certificate_id, thing, serial, detail) VALUES `

func insertAttempts(tx store.Tx, rows []attemptRow) error {
	for i := range rows {
		if err := thinFailures(tx, &rows[i], keptFailures); err != nil {
			return err
		}
	}
	for len(rows) > 0 {
		n := 1 // two texts of the statement, that drivers keep prepared
		if len(rows) >= rowsPerInsert {
			n = rowsPerInsert
		}
		args := make([]any, 0, 7*n)
		for _, r := range rows[:n] {
			args = append(args, r.id, r.failed, r.clientID, r.certificateID, r.thing, r.serial, r.detail)
		}
		if _, err := tx.Exec(insertAttempt+tuples(n, 7), args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// tuples are n groups of placeholders: ($1, $2), ($3, $4).
func tuples(n, columns int) string {
	var b strings.Builder
	for i := range n * columns {
		switch {
		case i == 0:
			b.WriteByte('(')
		case i%columns == 0:
			b.WriteString("), (")
		default:
			b.WriteString(", ")
		}
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(i + 1))
	}
	b.WriteByte(')')
	return b.String()
}

// selectAttempts gives the details of the newest attempts that have the key as client id, certificate id, thing or
// serial number, the newest first.
func selectAttempts(tx store.Tx, key string, limit int) ([]attemptRow, error) {
	rows, err := tx.Query(`SELECT id, detail FROM provisioning_attempt WHERE id IN (
		SELECT id FROM provisioning_attempt WHERE client_id = $1 AND client_id <> ''
		UNION SELECT id FROM provisioning_attempt WHERE certificate_id = $1 AND certificate_id <> ''
		UNION SELECT id FROM provisioning_attempt WHERE thing = $1 AND thing <> ''
		UNION SELECT id FROM provisioning_attempt WHERE serial = $1 AND serial <> '')
		ORDER BY id DESC LIMIT $2`, key, limit)
	return collect(rows, err, func(r *attemptRow) []any { return []any{&r.id, &r.detail} })
}

// thinFailures deletes all but the newest failures of a client, or of a certificate when no client is known: one that
// tries for ever must not push out what happened to others.
func thinFailures(tx store.Tx, r *attemptRow, kept int) error {
	query, key := `DELETE FROM provisioning_attempt WHERE client_id = $1 AND client_id <> '' AND failed AND id <= (
		SELECT id FROM provisioning_attempt WHERE client_id = $1 AND client_id <> '' AND failed ORDER BY id DESC LIMIT 1 OFFSET $2)`, r.clientID
	if key == "" {
		query, key = `DELETE FROM provisioning_attempt WHERE certificate_id = $1 AND certificate_id <> '' AND failed AND id <= (
		SELECT id FROM provisioning_attempt WHERE certificate_id = $1 AND certificate_id <> '' AND failed ORDER BY id DESC LIMIT 1 OFFSET $2)`, r.certificateID
	}
	if key == "" {
		return nil
	}
	_, err := tx.Exec(query, key, kept)
	return err
}

// oldestKept is the id of the newest failure that is one too many.
func oldestKept(tx store.Tx, kept int) (id int64, err error) {
	err = tx.QueryRow(`SELECT id FROM provisioning_attempt WHERE failed ORDER BY id DESC LIMIT 1 OFFSET $1`, kept).Scan(&id)
	return id, err
}

func deleteAttempts(tx store.Tx, upTo int64) error {
	_, err := tx.Exec(`DELETE FROM provisioning_attempt WHERE failed AND id <= $1`, upTo)
	return err
}

// successRow is a row of provisioning_success.
type successRow struct {
	id, attempts int64
	detail       string
}

func insertSuccesses(tx store.Tx, r *successRow) error {
	_, err := tx.Exec(`INSERT INTO provisioning_success (id, attempts, detail) VALUES ($1, $2, $3)`, r.id, r.attempts, r.detail)
	return err
}

// selectSuccesses gives rows before one, the newest first.
func selectSuccesses(tx store.Tx, before int64, limit int) ([]successRow, error) {
	rows, err := tx.Query(`SELECT id, attempts, detail FROM provisioning_success WHERE id < $1 ORDER BY id DESC LIMIT $2`, before, limit)
	return collect(rows, err, func(r *successRow) []any { return []any{&r.id, &r.attempts, &r.detail} })
}

// oldestSuccess is the id of the newest row that holds attempts beyond those that are kept, 0 without one.
func oldestSuccess(tx store.Tx, kept int64) (int64, error) {
	rows, err := tx.Query(`SELECT id, attempts FROM provisioning_success ORDER BY id DESC`)
	all, err := collect(rows, err, func(r *successRow) []any { return []any{&r.id, &r.attempts} })
	for _, r := range all {
		if kept <= 0 {
			return r.id, err
		}
		kept -= r.attempts
	}
	return 0, err
}

func deleteSuccesses(tx store.Tx, upTo int64) error {
	_, err := tx.Exec(`DELETE FROM provisioning_success WHERE id <= $1`, upTo)
	return err
}
