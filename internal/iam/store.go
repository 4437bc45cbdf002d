package iam

import (
	"encoding/json"
	"time"

	"flotilla/internal/store"
)

const columns = `id, secret, sealed, owner, status, created, expires, last_used`

func scan(row store.Row) (*record, error) {
	r := new(record)
	var created, expires, used int64
	if err := row.Scan(&r.ID, &r.stored, &r.sealed, &r.Owner, &r.Status, &created, &expires, &used); err != nil {
		return nil, err
	}
	r.Created, r.Expires, r.LastUsed = moment(created), moment(expires), moment(used)
	return r, nil
}

// moment is the time of a column, in which 0 is none.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func selectKey(tx store.Tx, id string) (*record, error) {
	return scan(tx.QueryRow(`SELECT `+columns+` FROM access_key WHERE id = $1`, id))
}

// selectActive gives the oldest active key of a user; one that will expire only when there is no other.
func selectActive(tx store.Tx, owner string, now time.Time) (*record, error) {
	return scan(tx.QueryRow(`SELECT `+columns+` FROM access_key WHERE owner = $1 AND status = $2 AND (expires = 0 OR expires > $3)
		ORDER BY CASE WHEN expires = 0 THEN 0 ELSE 1 END, created, id LIMIT 1`, owner, Active, now.UnixMilli()))
}

// selectKeys lists keys with ids behind after, of one owner or ("") of all.
func selectKeys(tx store.Tx, owner, after string, most int) ([]*record, error) {
	query := `SELECT ` + columns + ` FROM access_key WHERE id > $1 AND owner = $2 ORDER BY id LIMIT $3`
	if owner == "" {
		query = `SELECT ` + columns + ` FROM access_key WHERE id > $1 AND owner <> $2 ORDER BY id LIMIT $3`
	}
	rows, err := tx.Query(query, after, owner, most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []*record
	for rows.Next() {
		r, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

func countKeys(tx store.Tx, owner string) (n int, err error) {
	err = tx.QueryRow(`SELECT COUNT(*) FROM access_key WHERE owner = $1`, owner).Scan(&n)
	return n, err
}

// selectExpired lists the active keys whose time is over.
func selectExpired(tx store.Tx, now time.Time) ([]string, error) {
	return names(tx.Query(`SELECT id FROM access_key WHERE expires <> 0 AND expires <= $1 AND status = $2`, now.UnixMilli(), Active))
}

// selectNextExpiry is when the next active key expires; zero = none will.
func selectNextExpiry(tx store.Tx) (time.Time, error) {
	var ms int64
	err := tx.QueryRow(`SELECT COALESCE(MIN(expires), 0) FROM access_key WHERE expires <> 0 AND status = $1`, Active).Scan(&ms)
	return moment(ms), err
}

func names(rows store.Rows, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		list = append(list, name)
	}
	return list, rows.Err()
}

func updateExpires(tx store.Tx, id string, expires time.Time) error {
	_, err := tx.Exec(`UPDATE access_key SET expires = $2 WHERE id = $1`, id, millis(expires))
	return err
}

func updateLastUsed(tx store.Tx, id string, ms int64) error {
	_, err := tx.Exec(`UPDATE access_key SET last_used = $2 WHERE id = $1 AND last_used < $2`, id, ms)
	return err
}

func insertKey(tx store.Tx, r *record) error {
	_, err := tx.Exec(`INSERT INTO access_key (`+columns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		r.ID, r.stored, r.sealed, r.Owner, r.Status, millis(r.Created), millis(r.Expires), millis(r.LastUsed))
	return err
}

func updateStatus(tx store.Tx, id, status string) (int64, error) {
	return tx.Exec(`UPDATE access_key SET status = $2, expires = 0 WHERE id = $1`, id, status)
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

// identityRow is an identity as the store has it.
type identityRow struct {
	name    string
	tags    map[string]string
	created time.Time
}

const identityColumns = `name, tags, created`

func scanIdentity(row store.Row) (*identityRow, error) {
	r := new(identityRow)
	var tags string
	var created int64
	if err := row.Scan(&r.name, &tags, &created); err != nil {
		return nil, err
	}
	r.created = moment(created)
	return r, json.Unmarshal([]byte(tags), &r.tags)
}

func selectIdentity(tx store.Tx, name string) (*identityRow, error) {
	return scanIdentity(tx.QueryRow(`SELECT `+identityColumns+` FROM api_identity WHERE name = $1`, name))
}

func selectIdentities(tx store.Tx, after string, most int) ([]*identityRow, error) {
	rows, err := tx.Query(`SELECT `+identityColumns+` FROM api_identity WHERE name > $1 ORDER BY name LIMIT $2`, after, most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []*identityRow
	for rows.Next() {
		r, err := scanIdentity(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

// putIdentity makes an identity, or changes its tags.
func putIdentity(tx store.Tx, r *identityRow) error {
	tags, err := json.Marshal(r.tags)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO api_identity (`+identityColumns+`) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE SET tags = excluded.tags`,
		r.name, string(tags), millis(r.created))
	return err
}

// deleteIdentity deletes an identity with its policies and keys, whose ids it returns.
func deleteIdentity(tx store.Tx, name string) ([]string, error) {
	keys, err := names(tx.Query(`DELETE FROM access_key WHERE owner = $1 RETURNING id`, name))
	if err != nil {
		return nil, err
	}
	if _, err := tx.Exec(`DELETE FROM api_identity_policy WHERE identity = $1`, name); err != nil {
		return nil, err
	}
	_, err = tx.Exec(`DELETE FROM api_identity WHERE name = $1`, name)
	return keys, err
}

// attached is a policy of an identity; document is "" for a managed one.
type attached struct{ name, document string }

func selectPolicies(tx store.Tx, identity string) ([]attached, error) {
	rows, err := tx.Query(`SELECT name, document FROM api_identity_policy WHERE identity = $1 ORDER BY name`, identity)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []attached
	for rows.Next() {
		var a attached
		if err := rows.Scan(&a.name, &a.document); err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, rows.Err()
}

func putPolicy(tx store.Tx, identity string, a attached) error {
	_, err := tx.Exec(`INSERT INTO api_identity_policy (identity, name, document) VALUES ($1, $2, $3)
		ON CONFLICT (identity, name) DO UPDATE SET document = excluded.document`, identity, a.name, a.document)
	return err
}

func deletePolicy(tx store.Tx, identity, name string) (int64, error) {
	return tx.Exec(`DELETE FROM api_identity_policy WHERE identity = $1 AND name = $2`, identity, name)
}
