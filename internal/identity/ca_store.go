package identity

import (
	"fmt"

	"flotilla/internal/store"
)

// caRecord is a row of ca_certificate.
type caRecord struct {
	id, subject                         string
	der                                 []byte
	status, mode                        string
	autoRegistration                    bool
	configured                          bool
	templateBody, templateName, roleARN string
	notBefore, notAfter                 int64 // ms
	created, modified                   int64
	revision                            int64
	generation                          string
}

const caColumns = `id, der, subject, status, mode, auto_registration, configured, template_body, template_name, role_arn,
	not_before, not_after, created, modified, revision, generation`

func (r *caRecord) fields() []any {
	return []any{
		&r.id, &r.der, &r.subject, &r.status, &r.mode, &r.autoRegistration, &r.configured, &r.templateBody, &r.templateName, &r.roleARN,
		&r.notBefore, &r.notAfter, &r.created, &r.modified, &r.revision, &r.generation,
	}
}

func insertCA(tx store.Tx, r *caRecord) error {
	_, err := tx.Exec(`INSERT INTO ca_certificate (`+caColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
		r.id, r.der, r.subject, r.status, r.mode, r.autoRegistration, r.configured, r.templateBody, r.templateName, r.roleARN,
		r.notBefore, r.notAfter, r.created, r.modified, r.revision, r.generation)
	return err
}

func selectCA(tx store.Tx, id string) (*caRecord, error) {
	r := &caRecord{}
	err := tx.QueryRow(`SELECT `+caColumns+` FROM ca_certificate WHERE id = $1`, id).Scan(r.fields()...)
	return r, err
}

// selectCAsBySubject gives those with a subject: who may have issued a certificate that names it.
func selectCAsBySubject(tx store.Tx, subject string, limit int) ([]caRecord, error) {
	rows, err := tx.Query(`SELECT `+caColumns+` FROM ca_certificate WHERE subject = $1 ORDER BY created, id LIMIT $2`, subject, limit)
	return collect(rows, err, (*caRecord).fields)
}

func updateCA(tx store.Tx, r *caRecord) error {
	_, err := tx.Exec(`UPDATE ca_certificate SET status = $2, auto_registration = $3, configured = $4, template_body = $5, template_name = $6,
		role_arn = $7, modified = $8, revision = $9, generation = $10 WHERE id = $1`,
		r.id, r.status, r.autoRegistration, r.configured, r.templateBody, r.templateName, r.roleARN, r.modified, r.revision, r.generation)
	return err
}

func deleteCA(tx store.Tx, id string) error {
	_, err := tx.Exec(`DELETE FROM ca_certificate WHERE id = $1`, id)
	return err
}

// selectCAs pages by (created, id); with a template name those alone that have it.
func selectCAs(tx store.Tx, templateName string, after *pageKey, ascending bool, limit int) ([]caRecord, error) {
	order, compare := "DESC", "<"
	if ascending {
		order, compare = "ASC", ">"
	}
	query, args := `SELECT `+caColumns+` FROM ca_certificate WHERE ($2 = '' OR template_name = $2)`, []any{limit, templateName}
	if after != nil {
		query += ` AND (created, id) ` + compare + ` ($3, $4)`
		args = append(args, after.created, after.id)
	}
	rows, err := tx.Query(query+fmt.Sprintf(` ORDER BY created %s, id %s LIMIT $1`, order, order), args...)
	return collect(rows, err, (*caRecord).fields)
}

func selectRegistrationCode(tx store.Tx, account string) (code string, err error) {
	err = tx.QueryRow(`SELECT code FROM registration_code WHERE account = $1`, account).Scan(&code)
	return code, err
}

func insertRegistrationCode(tx store.Tx, account, code string, now int64) error {
	_, err := tx.Exec(`INSERT INTO registration_code (account, code, created) VALUES ($1, $2, $3)`, account, code, now)
	return err
}

func deleteRegistrationCode(tx store.Tx, account string) (deleted bool, err error) {
	n, err := tx.Exec(`DELETE FROM registration_code WHERE account = $1`, account)
	return n > 0, err
}
