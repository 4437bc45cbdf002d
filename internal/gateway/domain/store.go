package domain

import (
	"errors"

	"flotilla/internal/store"
)

// record is a row of domain_configuration.
type record struct {
	name, suffix                string
	domainName, domainType      string // domainName is "" for DefaultName
	status                      string
	certificateARN              string // "" = none
	authorizer                  string // "" = none
	allowOverride               bool
	hasAuthorizer               bool
	securityPolicy              string
	authentication, application string
	created, statusChanged      int64 // ms
	modified                    int64
}

const columns = `name, suffix, domain_name, domain_type, status, certificate_arn, authorizer, allow_override, has_authorizer,
	security_policy, authentication, application, created, status_changed, modified`

func (r *record) fields() []any {
	return []any{
		&r.name, &r.suffix, &r.domainName, &r.domainType, &r.status, &r.certificateARN, &r.authorizer, &r.allowOverride, &r.hasAuthorizer,
		&r.securityPolicy, &r.authentication, &r.application, &r.created, &r.statusChanged, &r.modified,
	}
}

func (r *record) values() []any {
	return []any{
		r.name, r.suffix, r.domainName, r.domainType, r.status, r.certificateARN, r.authorizer, r.allowOverride, r.hasAuthorizer,
		r.securityPolicy, r.authentication, r.application, r.created, r.statusChanged, r.modified,
	}
}

const insert = `INSERT INTO domain_configuration (` + columns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`

func insertConfiguration(tx store.Tx, r *record) error {
	_, err := tx.Exec(insert, r.values()...)
	return err
}

// upsertConfiguration writes what an update may change; DefaultName has no row before its first one.
func upsertConfiguration(tx store.Tx, r *record) error {
	_, err := tx.Exec(insert+` ON CONFLICT (name) DO UPDATE SET status = excluded.status, authorizer = excluded.authorizer,
		allow_override = excluded.allow_override, has_authorizer = excluded.has_authorizer, security_policy = excluded.security_policy,
		authentication = excluded.authentication, application = excluded.application, status_changed = excluded.status_changed,
		modified = excluded.modified`, r.values()...)
	return err
}

func selectConfiguration(tx store.Tx, name string) (*record, error) {
	r := &record{}
	err := tx.QueryRow(`SELECT `+columns+` FROM domain_configuration WHERE name = $1`, name).Scan(r.fields()...)
	return r, err
}

func selectByDomain(tx store.Tx, domainName string) (*record, error) {
	r := &record{}
	err := tx.QueryRow(`SELECT `+columns+` FROM domain_configuration WHERE domain_name = $1`, domainName).Scan(r.fields()...)
	return r, err
}

// selectUser gives the first configuration that names an authorizer, "" when none does.
func selectUser(tx store.Tx, authorizer string) (name string, err error) {
	err = tx.QueryRow(`SELECT name FROM domain_configuration WHERE authorizer = $1 ORDER BY name LIMIT 1`, authorizer).Scan(&name)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return name, err
}

func deleteConfiguration(tx store.Tx, name string) error {
	_, err := tx.Exec(`DELETE FROM domain_configuration WHERE name = $1`, name)
	return err
}

func countConfigurations(tx store.Tx) (n int, err error) {
	err = tx.QueryRow(`SELECT COUNT(*) FROM domain_configuration WHERE name <> $1`, DefaultName).Scan(&n)
	return n, err
}

// selectConfigurations gives those with names after a name, in order, without DefaultName.
func selectConfigurations(tx store.Tx, after string, limit int) ([]record, error) {
	if after == DefaultName {
		after = ""
	}
	rows, err := tx.Query(`SELECT `+columns+` FROM domain_configuration WHERE name > $1 AND name <> $2 ORDER BY name LIMIT $3`, after, DefaultName, limit)
	return collect(rows, err)
}

// selectAll gives every configuration that has a row: there are as few as Config.Max.
func selectAll(tx store.Tx) ([]record, error) {
	rows, err := tx.Query(`SELECT ` + columns + ` FROM domain_configuration`)
	return collect(rows, err)
}

func collect(rows store.Rows, err error) (list []record, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r record
		if err := rows.Scan(r.fields()...); err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, rows.Err()
}
