package authorizer

import (
	"encoding/json"
	"errors"
	"fmt"

	"flotilla/internal/store"
)

// record is a row of authorizer.
type record struct {
	name, functionARN string
	tokenKeyName      string            // "" = none
	signingKeys       map[string]string // PEM by name
	signingDisabled   bool
	status            string
	caching           bool
	created, modified int64 // ms
}

const columns = `name, function_arn, token_key_name, signing_keys, signing_disabled, status, caching, created, modified`

// scan reads a row of columns.
func (r *record) scan(row store.Row) error {
	var keys string
	err := row.Scan(&r.name, &r.functionARN, &r.tokenKeyName, &keys, &r.signingDisabled, &r.status, &r.caching, &r.created, &r.modified)
	if err != nil {
		return err
	}
	r.signingKeys = nil
	if err := json.Unmarshal([]byte(keys), &r.signingKeys); err != nil {
		return fmt.Errorf("authorizer: stored keys of %s: %w", r.name, err)
	}
	return nil
}

func (r *record) keysJSON() (string, error) {
	keys := r.signingKeys
	if keys == nil {
		keys = map[string]string{}
	}
	b, err := json.Marshal(keys)
	return string(b), err
}

func insertAuthorizer(tx store.Tx, r *record) error {
	keys, err := r.keysJSON()
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO authorizer (`+columns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		r.name, r.functionARN, r.tokenKeyName, keys, r.signingDisabled, r.status, r.caching, r.created, r.modified)
	return err
}

func updateAuthorizer(tx store.Tx, r *record) error {
	keys, err := r.keysJSON()
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE authorizer SET function_arn = $2, token_key_name = $3, signing_keys = $4, status = $5, caching = $6, modified = $7 WHERE name = $1`,
		r.name, r.functionARN, r.tokenKeyName, keys, r.status, r.caching, r.modified)
	return err
}

func selectAuthorizer(tx store.Tx, name string) (*record, error) {
	r := &record{}
	err := r.scan(tx.QueryRow(`SELECT `+columns+` FROM authorizer WHERE name = $1`, name))
	return r, err
}

func deleteAuthorizer(tx store.Tx, name string) error {
	_, err := tx.Exec(`DELETE FROM authorizer WHERE name = $1`, name)
	return err
}

func countAuthorizers(tx store.Tx) (n int, err error) {
	err = tx.QueryRow(`SELECT COUNT(*) FROM authorizer`).Scan(&n)
	return n, err
}

// selectAuthorizers pages by (created, name); status "" is any.
func selectAuthorizers(tx store.Tx, after *pageKey, status string, ascending bool, limit int) ([]record, error) {
	order, compare := "DESC", "<"
	if ascending {
		order, compare = "ASC", ">"
	}
	query, args := `SELECT `+columns+` FROM authorizer WHERE ($1 = '' OR status = $1)`, []any{status, limit}
	if after != nil {
		query += ` AND (created, name) ` + compare + ` ($3, $4)`
		args = append(args, after.created, after.name)
	}
	rows, err := tx.Query(query+fmt.Sprintf(` ORDER BY created %s, name %s LIMIT $2`, order, order), args...)
	return collect(rows, err)
}

// selectAll gives every authorizer: there are as few as Config.Max.
func selectAll(tx store.Tx) ([]record, error) {
	rows, err := tx.Query(`SELECT ` + columns + ` FROM authorizer`)
	return collect(rows, err)
}

func collect(rows store.Rows, err error) (list []record, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r record
		if err := r.scan(rows); err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

// selectDefault gives the default authorizer's name, "" when there is none.
func selectDefault(tx store.Tx) (name string, err error) {
	err = tx.QueryRow(`SELECT name FROM authorizer_default WHERE id = 1`).Scan(&name)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return name, err
}

func upsertDefault(tx store.Tx, name string) error {
	_, err := tx.Exec(`INSERT INTO authorizer_default (id, name) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET name = excluded.name`, name)
	return err
}

func deleteDefault(tx store.Tx) (was bool, err error) {
	n, err := tx.Exec(`DELETE FROM authorizer_default WHERE id = 1`)
	return n > 0, err
}
