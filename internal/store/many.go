package store

import (
	"strconv"
	"strings"
)

// Many is a statement on a list of rows of placeholders. There are texts for a
// few lengths of the list, so that few statements are prepared. PostgreSQL gets
// many rows at a time, SQLite one.
type Many struct {
	columns int
	texts   [len(manyRows)]string
}

var manyRows = [...]int{256, 64, 16, 4, 1}

// NewMany returns the statement head, rows, tail, with a row such as
// "($, $, CAST($ AS BIGINT))", in which each $ becomes a parameter.
// PostgreSQL takes the parameters of a list outside of INSERT for TEXT.
func NewMany(head, row, tail string) *Many {
	m := &Many{columns: strings.Count(row, "$")}
	parts := strings.Split(row, "$")
	for i, rows := range manyRows {
		var b strings.Builder
		b.WriteString(head)
		for k := range rows {
			if k > 0 {
				b.WriteString(", ")
			}
			for j, part := range parts {
				if j > 0 {
					b.WriteString("$" + strconv.Itoa(k*m.columns+j))
				}
				b.WriteString(part)
			}
		}
		b.WriteString(tail)
		m.texts[i] = b.String()
	}
	return m
}

// next is the longest text for at most all of args, and how many of them it
// takes. In SQLite, where a statement is no round trip, one row at a time costs
// less.
func (m *Many) next(tx Tx, args []any) (text string, n int) {
	rows := len(args) / m.columns
	if _, embedded := tx.(*sqliteConn); embedded {
		rows = min(rows, 1)
	}
	for i, r := range manyRows {
		if r <= rows {
			return m.texts[i], r * m.columns
		}
	}
	panic("store: arguments for less than a row")
}

// Exec runs the statement, several times for many rows, and returns how many
// rows were changed. args are the parameters of all rows.
func (m *Many) Exec(tx Tx, args []any) (rowsAffected int64, err error) {
	for len(args) > 0 {
		text, n := m.next(tx, args)
		changed, err := tx.Exec(text, args[:n]...)
		if err != nil {
			return rowsAffected, err
		}
		rowsAffected += changed
		args = args[n:]
	}
	return rowsAffected, nil
}

// Query runs the statement as Exec does, and has scan read each row of the results.
func (m *Many) Query(tx Tx, args []any, scan func(Row) error) error {
	for len(args) > 0 {
		text, n := m.next(tx, args)
		if err := query(tx, text, args[:n], scan); err != nil {
			return err
		}
		args = args[n:]
	}
	return nil
}

func query(tx Tx, text string, args []any, scan func(Row) error) error {
	rows, err := tx.Query(text, args...)
	if err != nil {
		return err
	}
	for rows.Next() {
		if err := scan(rows); err != nil {
			_ = rows.Close()
			return err
		}
	}
	if err := rows.Err(); err != nil {
		_ = rows.Close()
		return err
	}
	return rows.Close()
}
