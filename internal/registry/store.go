package registry

import (
	"fmt"

	"flotilla/internal/store"
)

// thing is a row of thing.
type thing struct {
	name, id          string
	typeName, billing string // "" = none
	attributes        map[string]string
	version, created  int64
}

const thingColumns = `t.name, t.id, t.type, t.billing, t.attributes, t.version, t.created`

// thingRow scans a thing.
type thingRow struct {
	thing      thing
	attributes string
	value      string // the attribute's, of selectByAttribute
}

func (r *thingRow) fields() []any {
	t := &r.thing
	return []any{&t.name, &t.id, &t.typeName, &t.billing, &r.attributes, &t.version, &t.created}
}

func (r *thingRow) decode() error { return decode(r.attributes, &r.thing.attributes) }

func selectThing(tx store.Tx, name string) (thing, error) {
	var r thingRow
	if err := tx.QueryRow(`SELECT `+thingColumns+` FROM thing t WHERE name = $1`, name).Scan(r.fields()...); err != nil {
		return thing{}, err
	}
	return r.thing, r.decode()
}

// insertThing inserts a thing unless there is one of its name.
func insertThing(tx store.Tx, t *thing) (bool, error) {
	n, err := tx.Exec(`INSERT INTO thing (name, id, type, billing, attributes, version, created) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (name) DO NOTHING`, t.name, t.id, t.typeName, t.billing, encode(t.attributes), t.version, t.created)
	if err != nil || n == 0 {
		return false, err
	}
	for name, value := range t.attributes {
		if err := insertAttribute(tx, name, value, t.name); err != nil {
			return false, err
		}
	}
	return true, nil
}

func insertAttribute(tx store.Tx, name, value, thing string) error {
	_, err := tx.Exec(`INSERT INTO thing_attribute (name, value, thing) VALUES ($1, $2, $3)`, name, value, thing)
	return err
}

func deleteAttribute(tx store.Tx, name, value, thing string) error {
	_, err := tx.Exec(`DELETE FROM thing_attribute WHERE name = $1 AND value = $2 AND thing = $3`, name, value, thing)
	return err
}

// updateThing writes t in the place of old.
func updateThing(tx store.Tx, t, old *thing) error {
	for name, value := range old.attributes {
		if now, ok := t.attributes[name]; !ok || now != value {
			if err := deleteAttribute(tx, name, value, t.name); err != nil {
				return err
			}
		}
	}
	for name, value := range t.attributes {
		if was, ok := old.attributes[name]; !ok || was != value {
			if err := insertAttribute(tx, name, value, t.name); err != nil {
				return err
			}
		}
	}
	_, err := tx.Exec(`UPDATE thing SET type = $2, billing = $3, attributes = $4, version = $5 WHERE name = $1`,
		t.name, t.typeName, t.billing, encode(t.attributes), t.version)
	return err
}

// touchThing rewrites a thing's row unchanged, so that nodes that change or
// delete it at the same time contend for it; store.ErrNotFound when there is no
// such thing.
func touchThing(tx store.Tx, name string) error {
	n, err := tx.Exec(`UPDATE thing SET version = version WHERE name = $1`, name)
	if err == nil && n == 0 {
		return store.ErrNotFound
	}
	return err
}

// hasThing gives store.ErrNotFound for one that does not exist.
func hasThing(tx store.Tx, name string) error {
	var one int64
	return tx.QueryRow(`SELECT 1 FROM thing WHERE name = $1`, name).Scan(&one)
}

func deleteThing(tx store.Tx, t *thing) error {
	for name, value := range t.attributes {
		if err := deleteAttribute(tx, name, value, t.name); err != nil {
			return err
		}
	}
	_, err := tx.Exec(`DELETE FROM thing WHERE name = $1`, t.name)
	return err
}

// selectThings pages by name; typeName "" is any.
func selectThings(tx store.Tx, typeName, after string, limit int) ([]thing, error) {
	query, args := `SELECT `+thingColumns+` FROM thing t WHERE name > $1`, []any{after, limit}
	if typeName != "" {
		query += ` AND type = $3 AND type <> ''`
		args = append(args, typeName)
	}
	rows, err := tx.Query(query+` ORDER BY name LIMIT $2`, args...)
	return things(collect(rows, err, (*thingRow).fields))
}

// selectByAttribute pages the things that have an attribute, by its value and
// the thing's name. Values are at least low and, unless it is "", below high.
func selectByAttribute(tx store.Tx, attribute, low, high string, after []string, limit int) ([]thingRow, error) {
	query := `SELECT ` + thingColumns + `, a.value FROM thing_attribute a JOIN thing t ON t.name = a.thing WHERE a.name = $1`
	args := []any{attribute, limit}
	add := func(condition string, values ...any) {
		places := make([]any, len(values))
		for i, v := range values {
			args = append(args, v)
			places[i] = len(args)
		}
		query += fmt.Sprintf(condition, places...)
	}
	if after[1] != "" {
		add(` AND (a.value, a.thing) > ($%d, $%d)`, after[0], after[1])
	} else {
		add(` AND a.value >= $%d`, low)
	}
	if high != "" {
		add(` AND a.value < $%d`, high)
	}
	rows, err := tx.Query(query+` ORDER BY a.value, a.thing LIMIT $2`, args...)
	list, err := collect(rows, err, func(r *thingRow) []any { return append(r.fields(), &r.value) })
	for i := range list {
		if err == nil {
			err = list[i].decode()
		}
	}
	return list, err
}

func things(rows []thingRow, err error) ([]thing, error) {
	list := make([]thing, len(rows))
	for i := range rows {
		if err == nil {
			err = rows[i].decode()
		}
		list[i] = rows[i].thing
	}
	return list, err
}

// selectNames runs a query of one text column.
func selectNames(tx store.Tx, query string, args ...any) ([]string, error) {
	rows, err := tx.Query(query, args...)
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
