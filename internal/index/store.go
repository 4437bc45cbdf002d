package index

import (
	"bytes"
	"cmp"
	"errors"
	"slices"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

func selectField(tx store.Tx, kind int64, name string) (n int64, err error) {
	err = tx.QueryRow(`SELECT number FROM index_field WHERE kind = $1 AND name = $2`, kind, name).Scan(&n)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	return n, err
}

// insertField numbers a new field; 0 when there are as many as there may be.
func insertField(tx store.Tx, kind int64, name string, most int) (n int64, err error) {
	if err := tx.QueryRow(`SELECT COALESCE(MAX(number), 0) + 1 FROM index_field`).Scan(&n); err != nil {
		return 0, err
	}
	if n > int64(most)*kinds {
		return 0, nil
	}
	_, err = tx.Exec(`INSERT INTO index_field (number, kind, name) VALUES ($1, $2, $3)`, n, kind, name)
	return n, err
}

// stored is a row of index_document; number 0 when there is none.
type stored struct {
	number  int64
	content []byte
}

func selectDocument(tx store.Tx, kind int64, name string) (d stored, err error) {
	err = tx.QueryRow(`SELECT number, content FROM index_document WHERE kind = $1 AND name = $2`, kind, name).Scan(&d.number, &d.content)
	if errors.Is(err, store.ErrNotFound) {
		return stored{}, nil
	}
	return d, err
}

// saveDocument writes content in the place of old and gives the document's number.
func saveDocument(tx store.Tx, kind int64, name string, old stored, content []byte) (n int64, err error) {
	if old.number != 0 {
		_, err = tx.Exec(`UPDATE index_document SET content = $2 WHERE number = $1`, old.number, content)
		return old.number, err
	}
	if err := tx.QueryRow(`SELECT COALESCE(MAX(number), 0) + 1 FROM index_document`).Scan(&n); err != nil {
		return 0, err
	}
	_, err = tx.Exec(`INSERT INTO index_document (number, kind, name, content) VALUES ($1, $2, $3, $4)`, n, kind, name, bytes.Clone(content))
	return n, err
}

// rowChanges are rows to be deleted and inserted at the end of a transaction, together: on PostgreSQL each statement is a
// round trip. No row of theirs is read before.
type rowChanges struct {
	tables [3]tableChanges // index_term, index_number, index_location
	rows   int
}

type tableChanges struct {
	remove, add [][]any // values of the key; those to be added have the whole row
}

// maxRowChanges is how many rows wait at most.
const maxRowChanges = 4096

// index tables' statements, in the order of rowChanges.tables.
var (
	insertRows = [3]*store.Many{
		store.NewMany(`INSERT INTO index_term (field, term, document, whole) VALUES `, `($, $, $, $)`, ``),
		store.NewMany(`INSERT INTO index_number (field, number, document) VALUES `, `($, $, $)`, ``),
		store.NewMany(`INSERT INTO index_location (field, lat, lon, document) VALUES `, `($, $, $, $)`, ``),
	}
	deleteRows = [3]*store.Many{
		store.NewMany(`DELETE FROM index_term WHERE (field, term, document) IN (VALUES `, `(CAST($ AS BIGINT), $, CAST($ AS BIGINT))`, `)`),
		store.NewMany(`DELETE FROM index_number WHERE (field, number, document) IN (VALUES `, `(CAST($ AS BIGINT), CAST($ AS DOUBLE PRECISION), CAST($ AS BIGINT))`, `)`),
		store.NewMany(`DELETE FROM index_location WHERE (field, lat, lon, document) IN (VALUES `,
			`(CAST($ AS BIGINT), CAST($ AS DOUBLE PRECISION), CAST($ AS DOUBLE PRECISION), CAST($ AS BIGINT))`, `)`),
	}
	// deleteRow is for SQLite, where a list is a table of its own.
	deleteRow = [3]string{
		`DELETE FROM index_term WHERE field = $1 AND term = $2 AND document = $3`,
		`DELETE FROM index_number WHERE field = $1 AND number = $2 AND document = $3`,
		`DELETE FROM index_location WHERE field = $1 AND lat = $2 AND lon = $3 AND document = $4`,
	}
)

// replace notes the difference between the rows of a document.
func (c *rowChanges) replace(document int64, from, to rows) {
	for t, whole := range from.terms {
		if now, has := to.terms[t]; !has || now != whole {
			c.remove(0, t.field, t.text, document)
		}
	}
	for t, whole := range to.terms {
		if was, has := from.terms[t]; !has || was != whole {
			c.add(0, t.field, t.text, document, whole)
		}
	}
	difference(from.numbers, to.numbers,
		func(n number) { c.remove(1, n.field, n.n, document) }, func(n number) { c.add(1, n.field, n.n, document) })
	difference(from.locations, to.locations,
		func(l location) { c.remove(2, l.field, l.lat, l.lon, document) }, func(l location) { c.add(2, l.field, l.lat, l.lon, document) })
}

func (c *rowChanges) remove(table int, key ...any) {
	c.tables[table].remove = append(c.tables[table].remove, key)
	c.rows++
}

func (c *rowChanges) add(table int, row ...any) {
	c.tables[table].add = append(c.tables[table].add, row)
	c.rows++
}

// flush writes what was noted, in the order of the fields, as a table has them.
func (c *rowChanges) flush(tx store.Tx, engine string) error {
	for i := range c.tables {
		t := &c.tables[i]
		if engine == "sqlite" {
			for _, key := range t.remove {
				if _, err := tx.Exec(deleteRow[i], key...); err != nil {
					return err
				}
			}
		} else if _, err := deleteRows[i].Exec(tx, flat(t.remove)); err != nil {
			return err
		}
		slices.SortStableFunc(t.add, func(a, b []any) int { return cmp.Compare(a[0].(int64), b[0].(int64)) })
		if _, err := insertRows[i].Exec(tx, flat(t.add)); err != nil {
			return err
		}
	}
	*c = rowChanges{}
	return nil
}

func flat(list [][]any) []any { return slices.Concat(list...) }

func difference[K comparable](from, to map[K]struct{}, remove, add func(K)) {
	for k := range from {
		if _, stays := to[k]; !stays {
			remove(k)
		}
	}
	for k := range to {
		if _, was := from[k]; !was {
			add(k)
		}
	}
}

func deleteDocument(tx store.Tx, number int64) error {
	_, err := tx.Exec(`DELETE FROM index_document WHERE number = $1`, number)
	return err
}

func selectNames(tx store.Tx, q string, args ...any) (names []string, err error) {
	rows, err := tx.Query(q, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		names = append(names, n)
	}
	return names, errors.Join(rows.Err(), rows.Close())
}

func selectConnectivity(tx store.Tx, thing string) (*iot.ThingConnectivity, error) {
	var connected bool
	var at int64
	var reason string
	err := tx.QueryRow(`SELECT connected, at, reason FROM index_connectivity WHERE thing = $1`, thing).Scan(&connected, &at, &reason)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	c := &iot.ThingConnectivity{Connected: &connected, Timestamp: &at}
	if !connected {
		c.DisconnectReason = &reason
	}
	return c, err
}

func saveConnectivity(tx store.Tx, thing, node string, p presence) error {
	_, err := tx.Exec(`INSERT INTO index_connectivity (thing, connected, at, reason, node) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (thing) DO UPDATE SET connected = excluded.connected, at = excluded.at, reason = excluded.reason, node = excluded.node
		WHERE index_connectivity.at <= excluded.at`, thing, p.connected, p.at, p.reason, node)
	return err
}
