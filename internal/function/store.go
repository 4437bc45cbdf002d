package function

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"flotilla/internal/store"
)

// latest is the number that the store has for $LATEST.
const latest = 0

const partSize = 512 << 10

// record is a function as the store has it.
type record struct {
	name     string
	created  int64 // ms
	last     int64 // the version that was published last
	settings settings
	versions map[int64]*version
}

// version is one version of a function.
type version struct {
	number    int64
	revision  string
	modified  int64 // ms
	sha256    string
	sizeBytes int64
	configuration
}

func selectFunction(tx store.Tx, name string) (*record, error) {
	r := &record{name: name, versions: map[int64]*version{}}
	var text string
	if err := tx.QueryRow(`SELECT created, last_version, settings FROM function WHERE name = $1`, name).Scan(&r.created, &r.last, &text); err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(text), &r.settings); err != nil {
		return nil, fmt.Errorf("function: settings of %s: %w", name, err)
	}
	rows, err := tx.Query(`SELECT version, revision, modified, code_sha256, code_size, configuration FROM function_version WHERE name = $1`, name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		v := new(version)
		if err := rows.Scan(&v.number, &v.revision, &v.modified, &v.sha256, &v.sizeBytes, &text); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(text), &v.configuration); err != nil {
			return nil, fmt.Errorf("function: configuration of %s: %w", name, err)
		}
		r.versions[v.number] = v
	}
	return r, rows.Err()
}

func selectNames(tx store.Tx, after string, most int) ([]string, error) {
	rows, err := tx.Query(`SELECT name FROM function WHERE name > $1 ORDER BY name LIMIT $2`, after, most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// usage gives how many functions there are, and the size of their code, each zip counted once.
func usage(tx store.Tx) (functions, codeBytes int64, err error) {
	if err := tx.QueryRow(`SELECT COUNT(*) FROM function`).Scan(&functions); err != nil {
		return 0, 0, err
	}
	err = tx.QueryRow(`SELECT COALESCE(SUM(size), 0) FROM (SELECT MAX(code_size) AS size FROM function_version GROUP BY code_sha256) AS zips`).Scan(&codeBytes)
	return functions, codeBytes, err
}

func insertFunction(tx store.Tx, r *record) error {
	text, err := json.Marshal(&r.settings)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO function (name, created, last_version, settings) VALUES ($1, $2, $3, $4)`, r.name, r.created, r.last, string(text))
	return err
}

func updateFunction(tx store.Tx, r *record) error {
	text, err := json.Marshal(&r.settings)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE function SET last_version = $1, settings = $2 WHERE name = $3`, r.last, string(text), r.name)
	return err
}

// putVersion writes a version; one that is there is replaced, and its code forgotten.
func putVersion(tx store.Tx, name string, v *version) error {
	text, err := json.Marshal(&v.configuration)
	if err != nil {
		return err
	}
	var old string
	err = tx.QueryRow(`SELECT code_sha256 FROM function_version WHERE name = $1 AND version = $2`, name, v.number).Scan(&old)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	_, err = tx.Exec(`INSERT INTO function_version (name, version, revision, modified, code_sha256, code_size, configuration) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (name, version) DO UPDATE SET revision = excluded.revision, modified = excluded.modified, code_sha256 = excluded.code_sha256,
		code_size = excluded.code_size, configuration = excluded.configuration`,
		name, v.number, v.revision, v.modified, v.sha256, v.sizeBytes, string(text))
	if err != nil || old == "" || old == v.sha256 {
		return err
	}
	return forgetCode(tx, old)
}

func deleteVersion(tx store.Tx, name string, v *version) error {
	if _, err := tx.Exec(`DELETE FROM function_version WHERE name = $1 AND version = $2`, name, v.number); err != nil {
		return err
	}
	return forgetCode(tx, v.sha256)
}

func deleteFunction(tx store.Tx, r *record) error {
	for _, v := range r.versions {
		if err := deleteVersion(tx, r.name, v); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(`DELETE FROM function_event WHERE function = $1`, r.name); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM function WHERE name = $1`, r.name)
	return err
}

// forgetCode deletes a zip that no version has any more.
func forgetCode(tx store.Tx, sha256 string) error {
	_, err := tx.Exec(`DELETE FROM function_code WHERE sha256 = $1 AND NOT EXISTS (SELECT 1 FROM function_version WHERE code_sha256 = $1)`, sha256)
	return err
}

// forgetOrphans deletes zips of functions that were never made.
func forgetOrphans(ctx context.Context, db *store.DB) error {
	return db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`DELETE FROM function_code WHERE NOT EXISTS (SELECT 1 FROM function_version WHERE code_sha256 = function_code.sha256)`)
		return err
	})
}

// writeCode stores a zip, each part in a write of its own.
func writeCode(ctx context.Context, db *store.DB, sha256 string, zip []byte) error {
	for i := 0; i*partSize < len(zip); i++ {
		part := zip[i*partSize : min((i+1)*partSize, len(zip))]
		err := db.Write(ctx, func(_ context.Context, tx store.Tx) error {
			_, err := tx.Exec(`INSERT INTO function_code (sha256, part, bytes) VALUES ($1, $2, $3) ON CONFLICT (sha256, part) DO NOTHING`, sha256, int64(i), part)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hasCode tells whether a zip is whole: another function that had it may have been deleted while it was written.
func hasCode(tx store.Tx, sha256 string, sizeBytes int64) (bool, error) {
	var parts int64
	err := tx.QueryRow(`SELECT COUNT(*) FROM function_code WHERE sha256 = $1`, sha256).Scan(&parts)
	return parts == (sizeBytes+partSize-1)/partSize, err
}

func readCode(tx store.Tx, sha256 string, sizeBytes int64) ([]byte, error) {
	rows, err := tx.Query(`SELECT bytes FROM function_code WHERE sha256 = $1 ORDER BY part`, sha256)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	zip := make([]byte, 0, sizeBytes)
	for rows.Next() {
		var part []byte
		if err := rows.Scan(&part); err != nil {
			return nil, err
		}
		zip = append(zip, part...)
	}
	return zip, rows.Err()
}
