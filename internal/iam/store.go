package iam

import (
	"time"

	"flotilla/internal/store"
)

const columns = `id, secret, sealed, owner, status, created`

func scan(row store.Row) (*record, error) {
	r := new(record)
	var created int64
	if err := row.Scan(&r.ID, &r.stored, &r.sealed, &r.Owner, &r.Status, &created); err != nil {
		return nil, err
	}
	r.Created = time.UnixMilli(created).UTC()
	return r, nil
}

func selectKey(tx store.Tx, id string) (*record, error) {
	return scan(tx.QueryRow(`SELECT `+columns+` FROM access_key WHERE id = $1`, id))
}

// selectActive gives the oldest active key of a user.
func selectActive(tx store.Tx, owner string) (*record, error) {
	return scan(tx.QueryRow(`SELECT `+columns+` FROM access_key WHERE owner = $1 AND status = $2 ORDER BY created, id LIMIT 1`, owner, Active))
}

func insertKey(tx store.Tx, r *record) error {
	_, err := tx.Exec(`INSERT INTO access_key (`+columns+`) VALUES ($1, $2, $3, $4, $5, $6)`,
		r.ID, r.stored, r.sealed, r.Owner, r.Status, r.Created.UnixMilli())
	return err
}

func updateStatus(tx store.Tx, id, status string) (int64, error) {
	return tx.Exec(`UPDATE access_key SET status = $2 WHERE id = $1`, id, status)
}

func deleteKey(tx store.Tx, id string) (int64, error) {
	return tx.Exec(`DELETE FROM access_key WHERE id = $1`, id)
}

// oneAtATime makes transactions that call it conflict, so that the second runs
// again and sees what the first did.
func oneAtATime(tx store.Tx) error {
	_, err := tx.Exec(`INSERT INTO account_setting (name, value) VALUES ('admin', '{}') ON CONFLICT (name) DO UPDATE SET value = excluded.value`)
	return err
}
