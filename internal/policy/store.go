package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"flotilla/internal/store"
)

// record is a row of policy.
type record struct {
	name                                           string
	defaultVersion, lastVersion, created, modified int64
	generation                                     string
}

// versionRecord is a row of policy_version.
type versionRecord struct {
	version, created     int64
	document, generation string
}

func insertPolicy(tx store.Tx, name, document string, now int64) error {
	_, err := tx.Exec(`INSERT INTO policy (name, default_version, last_version, created, modified, generation)
		VALUES ($1, 1, 1, $2, $2, $3)`, name, now, newGeneration())
	if err != nil {
		return err
	}
	// What another node attached while the last policy of this name was deleted is not attached to this one.
	if _, err := tx.Exec(`DELETE FROM policy_attachment WHERE policy = $1`, name); err != nil {
		return err
	}
	return insertVersion(tx, name, versionRecord{version: 1, created: now, document: document, generation: newGeneration()})
}

func insertVersion(tx store.Tx, name string, v versionRecord) error {
	_, err := tx.Exec(`INSERT INTO policy_version (policy, version, document, created, generation) VALUES ($1, $2, $3, $4, $5)`,
		name, v.version, v.document, v.created, v.generation)
	return err
}

func selectPolicy(tx store.Tx, name string) (r record, err error) {
	r.name = name
	err = tx.QueryRow(`SELECT default_version, last_version, created, modified, generation FROM policy WHERE name = $1`, name).
		Scan(&r.defaultVersion, &r.lastVersion, &r.created, &r.modified, &r.generation)
	return r, err
}

func updatePolicy(tx store.Tx, r record) error {
	_, err := tx.Exec(`UPDATE policy SET default_version = $2, last_version = $3, modified = $4, generation = $5 WHERE name = $1`,
		r.name, r.defaultVersion, r.lastVersion, r.modified, r.generation)
	return err
}

func selectVersion(tx store.Tx, name string, version int64) (v versionRecord, err error) {
	v.version = version
	err = tx.QueryRow(`SELECT document, created, generation FROM policy_version WHERE policy = $1 AND version = $2`, name, version).
		Scan(&v.document, &v.created, &v.generation)
	return v, err
}

func selectVersions(tx store.Tx, name string) ([]versionRecord, error) {
	rows, err := tx.Query(`SELECT version, created FROM policy_version WHERE policy = $1 ORDER BY version DESC`, name)
	return collect(rows, err, func(v *versionRecord) []any { return []any{&v.version, &v.created} })
}

func deleteVersion(tx store.Tx, name string, version int64) error {
	_, err := tx.Exec(`DELETE FROM policy_version WHERE policy = $1 AND version = $2`, name, version)
	return err
}

func countUses(tx store.Tx, name string) (attached, versions int, err error) {
	err = tx.QueryRow(`SELECT (SELECT COUNT(*) FROM policy_attachment WHERE policy = $1), (SELECT COUNT(*) FROM policy_version WHERE policy = $1)`, name).
		Scan(&attached, &versions)
	return attached, versions, err
}

func deletePolicy(tx store.Tx, name string) error {
	if _, err := tx.Exec(`DELETE FROM policy_version WHERE policy = $1`, name); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM policy WHERE name = $1`, name)
	return err
}

// selectPolicies pages by (created, name).
func selectPolicies(tx store.Tx, after []string, ascending bool, limit int) ([]record, error) {
	order, compare := "DESC", "<"
	if ascending {
		order, compare = "ASC", ">"
	}
	query, args := `SELECT name, created FROM policy`, []any{limit}
	if after != nil {
		created, _ := strconv.ParseInt(after[0], 10, 64)
		query += ` WHERE (created, name) ` + compare + ` ($2, $3)`
		args = append(args, created, after[1])
	}
	rows, err := tx.Query(query+fmt.Sprintf(` ORDER BY created %s, name %s LIMIT $1`, order, order), args...)
	return collect(rows, err, func(r *record) []any { return []any{&r.name, &r.created} })
}

func insertAttachment(tx store.Tx, target, policy string, now int64) (bool, error) {
	n, err := tx.Exec(`INSERT INTO policy_attachment (target, policy, created) VALUES ($1, $2, $3) ON CONFLICT (target, policy) DO NOTHING`, target, policy, now)
	return n > 0, err
}

func deleteAttachment(tx store.Tx, target, policy string) (bool, error) {
	n, err := tx.Exec(`DELETE FROM policy_attachment WHERE target = $1 AND policy = $2`, target, policy)
	return n > 0, err
}

func deleteAttachments(tx store.Tx, target string) (bool, error) {
	n, err := tx.Exec(`DELETE FROM policy_attachment WHERE target = $1`, target)
	return n > 0, err
}

func countAttached(tx store.Tx, target string) (n int, err error) {
	err = tx.QueryRow(`SELECT COUNT(*) FROM policy_attachment WHERE target = $1`, target).Scan(&n)
	return n, err
}

// selectAttached gives the names of policies attached to any of the targets, after a name, in order.
func selectAttached(tx store.Tx, targets []string, after string, limit int) ([]string, error) {
	if len(targets) == 0 {
		return nil, nil
	}
	args := []any{after, limit}
	var in strings.Builder
	for i, t := range targets {
		if i > 0 {
			in.WriteByte(',')
		}
		fmt.Fprintf(&in, "$%d", i+3)
		args = append(args, t)
	}
	rows, err := tx.Query(`SELECT DISTINCT policy FROM policy_attachment WHERE policy > $1 AND target IN (`+in.String()+`) ORDER BY policy LIMIT $2`, args...)
	return collect(rows, err, func(s *string) []any { return []any{s} })
}

// selectTargets gives the targets of a policy, after one, in order; only those that start with prefix.
func selectTargets(tx store.Tx, policy, prefix, after string, limit int) ([]string, error) {
	rows, err := tx.Query(`SELECT target FROM policy_attachment WHERE policy = $1 AND target > $2 AND substr(target, 1, $3) = $4 ORDER BY target LIMIT $5`,
		policy, after, len(prefix), prefix, limit)
	return collect(rows, err, func(s *string) []any { return []any{s} })
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

// maxInForce bounds how many policies may govern one connection: ten of a certificate and two of each of its groups
// and their parents.
const maxInForce = 512

// maxTargets is how many targets one query names.
const maxTargets = 500

// attachedTo names the policies attached to any of the targets.
func (p *Policies) attachedTo(ctx context.Context, targets []string) (names []string, err error) {
	err = p.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		names = nil
		for some := range slices.Chunk(targets, maxTargets) {
			list, err := selectAttached(tx, some, "", maxInForce)
			if err != nil {
				return err
			}
			names = append(names, list...)
		}
		return nil
	})
	slices.Sort(names)
	return slices.Compact(names), err
}

// defaultDocument gives the text of a policy's default version; "" when there is no such policy.
func (p *Policies) defaultDocument(ctx context.Context, name string) (text string, err error) {
	err = p.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		return tx.QueryRow(`SELECT v.document FROM policy p JOIN policy_version v ON v.policy = p.name AND v.version = p.default_version WHERE p.name = $1`, name).Scan(&text)
	})
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return text, err
}
