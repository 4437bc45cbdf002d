package provision

import (
	"fmt"

	"flotilla/internal/store"
)

// record is a row of provisioning_template.
type record struct {
	name, kind, description string
	enabled                 bool
	roleARN, hookARN        string
	defaultVersion          int64
	lastVersion             int64
	created, modified       int64
}

// version is a row of provisioning_template_version.
type version struct {
	number, created int64
	body            string
}

// token is a row of ownership_token.
type token struct {
	hash, certificateID       string
	principalID, connectionID string
	expires                   int64
	clientID                  string // for the operator
	withCSR                   bool
}

const tokenColumns = `hash, certificate_id, principal_id, connection_id, expires, client_id, with_csr`

func (k *token) fields() []any {
	return []any{&k.hash, &k.certificateID, &k.principalID, &k.connectionID, &k.expires, &k.clientID, &k.withCSR}
}

const templateColumns = `name, type, description, enabled, role_arn, hook_arn, default_version, last_version, created, modified`

func (r *record) fields() []any {
	return []any{
		&r.name, &r.kind, &r.description, &r.enabled, &r.roleARN, &r.hookARN,
		&r.defaultVersion, &r.lastVersion, &r.created, &r.modified,
	}
}

func insertTemplate(tx store.Tx, r *record) error {
	_, err := tx.Exec(`INSERT INTO provisioning_template (`+templateColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		r.name, r.kind, r.description, r.enabled, r.roleARN, r.hookARN, r.defaultVersion, r.lastVersion, r.created, r.modified)
	return err
}

func selectTemplate(tx store.Tx, name string) (*record, error) {
	r := &record{}
	err := tx.QueryRow(`SELECT `+templateColumns+` FROM provisioning_template WHERE name = $1`, name).Scan(r.fields()...)
	return r, err
}

func updateTemplate(tx store.Tx, r *record) error {
	_, err := tx.Exec(`UPDATE provisioning_template SET description = $2, enabled = $3, role_arn = $4, hook_arn = $5,
		default_version = $6, last_version = $7, modified = $8 WHERE name = $1`,
		r.name, r.description, r.enabled, r.roleARN, r.hookARN, r.defaultVersion, r.lastVersion, r.modified)
	return err
}

func deleteTemplate(tx store.Tx, name string) error {
	if _, err := tx.Exec(`DELETE FROM provisioning_template_version WHERE template = $1`, name); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM provisioning_template WHERE name = $1`, name)
	return err
}

func countTemplates(tx store.Tx) (n int, err error) {
	err = tx.QueryRow(`SELECT COUNT(*) FROM provisioning_template`).Scan(&n)
	return n, err
}

// selectTemplates gives those with names after a name, in order.
func selectTemplates(tx store.Tx, after string, limit int) ([]record, error) {
	rows, err := tx.Query(`SELECT `+templateColumns+` FROM provisioning_template WHERE name > $1 ORDER BY name LIMIT $2`, after, limit)
	return collect(rows, err, (*record).fields)
}

func insertVersion(tx store.Tx, template string, v *version) error {
	_, err := tx.Exec(`INSERT INTO provisioning_template_version (template, version, body, created) VALUES ($1, $2, $3, $4)`,
		template, v.number, v.body, v.created)
	return err
}

func selectVersion(tx store.Tx, template string, number int64) (*version, error) {
	v := &version{number: number}
	err := tx.QueryRow(`SELECT body, created FROM provisioning_template_version WHERE template = $1 AND version = $2`, template, number).
		Scan(&v.body, &v.created)
	return v, err
}

func deleteVersion(tx store.Tx, template string, number int64) (int64, error) {
	return tx.Exec(`DELETE FROM provisioning_template_version WHERE template = $1 AND version = $2`, template, number)
}

func countVersions(tx store.Tx, template string) (n int, err error) {
	err = tx.QueryRow(`SELECT COUNT(*) FROM provisioning_template_version WHERE template = $1`, template).Scan(&n)
	return n, err
}

func selectVersions(tx store.Tx, template string, after int64, limit int) ([]version, error) {
	rows, err := tx.Query(`SELECT version, created FROM provisioning_template_version WHERE template = $1 AND version > $2
		ORDER BY version LIMIT $3`, template, after, limit)
	return collect(rows, err, func(v *version) []any { return []any{&v.number, &v.created} })
}

func insertToken(tx store.Tx, k *token) error {
	_, err := tx.Exec(`INSERT INTO ownership_token (`+tokenColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		k.hash, k.certificateID, k.principalID, k.connectionID, k.expires, k.clientID, k.withCSR)
	return err
}

func selectToken(tx store.Tx, hash string) (*token, error) {
	k := &token{}
	err := tx.QueryRow(`SELECT `+tokenColumns+` FROM ownership_token WHERE hash = $1`, hash).Scan(k.fields()...)
	return k, err
}

// selectTokensOf gives the newest tokens that were given to a client, or for a certificate.
func selectTokensOf(tx store.Tx, clientOrCertificate string, limit int) ([]token, error) {
	rows, err := tx.Query(`SELECT `+tokenColumns+` FROM ownership_token WHERE client_id = $1 OR certificate_id = $1
		ORDER BY expires DESC LIMIT $2`, clientOrCertificate, limit)
	return collect(rows, err, (*token).fields)
}

// useToken takes a token away; false when someone else has.
func useToken(tx store.Tx, hash string) (bool, error) {
	n, err := tx.Exec(`DELETE FROM ownership_token WHERE hash = $1`, hash)
	return n == 1, err
}

func deleteExpiredTokens(tx store.Tx, now int64, limit int) ([]token, error) {
	rows, err := tx.Query(`SELECT `+tokenColumns+` FROM ownership_token WHERE expires <= $1 ORDER BY expires LIMIT $2`, now, limit)
	gone, err := collect(rows, err, (*token).fields)
	for i := range gone {
		if _, err := useToken(tx, gone[i].hash); err != nil {
			return nil, err
		}
	}
	return gone, err
}

func countTokens(tx store.Tx) (n int64, err error) {
	err = tx.QueryRow(`SELECT COUNT(*) FROM ownership_token`).Scan(&n)
	return n, err
}

func collect[T any](rows store.Rows, err error, fields func(*T) []any) (out []T, _ error) {
	if err != nil {
		return nil, fmt.Errorf("provision: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var v T
		if err := rows.Scan(fields(&v)...); err != nil {
			return nil, fmt.Errorf("provision: %w", err)
		}
		out = append(out, v)
	}
	return out, rows.Err()
}
