package index

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"flotilla/internal/index/query"
	"flotilla/internal/store"
)

const (
	// fewDocuments is how many documents are read and held against a query at most, when it can find no others.
	fewDocuments = 10_000
	// walkDocuments is how many are held against a query, in order, before the store looks for what it finds.
	walkDocuments = 1500
	// readAtOnce is how many are read at once.
	readAtOnce = 128
)

// hit is a document that was found.
type hit struct {
	number int64
	name   string
}

// find pages the documents that a query finds, in order.
//
// Stores do not know how many documents have a term, and walk all of them to find a few (the + before a column keeps
// SQLite from an index that it takes for more selective than it is). So the documents of a rare part
// of the query are listed first and held against all of it. When no part is rare, the next documents are likely to have
// the page; only when they do not, the store searches.
func (x *Index) find(tx store.Tx, kind int64, q *query.Query, from int64, limit int) (hits []hit, err error) {
	if _, all := q.Root.(query.Everything); all {
		return x.search(tx, kind, q, from, limit)
	}
	c, err := x.compiler(tx, kind, q)
	if err != nil {
		return nil, err
	}
	hold := func(d indexed) bool {
		if from = d.number; q.Match(d.doc) {
			hits = append(hits, hit{d.number, d.name})
		}
		return len(hits) < limit
	}
	c.most = x.few
	few, is, err := c.few(tx, q.Root)
	if err != nil {
		return nil, err
	}
	if is {
		at, found := slices.BinarySearch(few, from)
		if found {
			at++
		}
		return hits, eachOf(tx, few[at:], hold)
	}
	n, err := eachAfter(tx, kind, from, x.walk, hold)
	if err != nil || len(hits) == limit || n < x.walk {
		return hits, err
	}
	more, err := x.search(tx, kind, q, from, limit-len(hits))
	return append(hits, more...), err
}

// search has the store find documents.
func (x *Index) search(tx store.Tx, kind int64, q *query.Query, from int64, limit int) (hits []hit, err error) {
	c, where, err := x.compile(tx, kind, q, true, kind, from, limit)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(`SELECT d.number, d.name FROM index_document d WHERE +d.kind = $1 AND d.number > $2 AND `+where+` ORDER BY d.number LIMIT $3`, c.args...)
	if err != nil {
		return nil, fmt.Errorf("index: search: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var h hit
		if err := rows.Scan(&h.number, &h.name); err != nil {
			return nil, err
		}
		hits = append(hits, h)
	}
	return hits, errors.Join(rows.Err(), rows.Close())
}

// few lists documents, in order, among which are all that an expression finds; false when there are too many.
func (c *compiler) few(tx store.Tx, e query.Expr) (list []int64, is bool, err error) {
	switch e := e.(type) {
	case *query.Term:
		return c.fewOf(tx, e)
	case query.And:
		for _, part := range e {
			other, ok, err := c.few(tx, part)
			switch {
			case err != nil:
				return nil, false, err
			case ok && is:
				list = slices.DeleteFunc(list, func(n int64) bool { _, in := slices.BinarySearch(other, n); return !in })
			case ok:
				list, is = other, true
			}
			if is && len(list) <= readAtOnce {
				break // no need to know better
			}
		}
		return list, is, nil
	case query.Or:
		for _, part := range e {
			other, ok, err := c.few(tx, part)
			if !ok || err != nil {
				return nil, false, err
			}
			list = append(list, other...)
		}
		slices.Sort(list)
		list = slices.Compact(list)
		return list, len(list) <= c.most, nil
	}
	return nil, false, nil
}

func (c *compiler) fewOf(tx store.Tx, t *query.Term) (list []int64, is bool, err error) {
	of := &compiler{kind: c.kind, fields: c.fields}
	sets := of.sets(t)
	if len(sets) == 0 {
		return nil, true, nil
	}
	parts := make([]string, len(sets))
	for i, s := range sets {
		parts[i] = "SELECT document FROM " + s.table + " WHERE " + s.where
	}
	rows, err := tx.Query("SELECT document FROM ("+strings.Join(parts, " UNION ALL ")+") AS found LIMIT "+of.arg(c.most+1), of.args...)
	if err != nil {
		return nil, false, fmt.Errorf("index: search: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, false, err
		}
		list = append(list, n)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(list) > c.most {
		return nil, false, err
	}
	slices.Sort(list)
	return slices.Compact(list), true, nil
}

// indexed is a row of index_document.
type indexed struct {
	number int64
	name   string
	doc    query.Document
}

// eachOf calls fn with the documents of a list, in order, until it says false.
func eachOf(tx store.Tx, list []int64, fn func(indexed) bool) error {
	for size := readAtOnce; len(list) > 0; list = list[min(size, len(list)):] {
		part := list[:min(size, len(list))]
		marks, args := make([]string, len(part)), make([]any, len(part))
		for i, n := range part {
			marks[i], args[i] = fmt.Sprintf("$%d", i+1), n
		}
		docs, err := selectIndexed(tx, `SELECT number, name, content FROM index_document WHERE number IN (`+strings.Join(marks, ", ")+`)`, args...)
		if err != nil {
			return err
		}
		slices.SortFunc(docs, func(a, b indexed) int { return cmp.Compare(a.number, b.number) })
		for _, d := range docs {
			if !fn(d) {
				return nil
			}
		}
	}
	return nil
}

// eachAfter calls fn with up to most documents after a number, in order, until it says false, and tells how many there were.
func eachAfter(tx store.Tx, kind, after int64, most int, fn func(indexed) bool) (n int, err error) {
	for n < most {
		docs, err := selectIndexed(tx, `SELECT number, name, content FROM index_document WHERE +kind = $1 AND number > $2 ORDER BY number LIMIT $3`, kind, after, readAtOnce)
		if err != nil {
			return n, err
		}
		for _, d := range docs {
			n, after = n+1, d.number
			if !fn(d) {
				return n, nil
			}
		}
		if len(docs) < readAtOnce {
			return n, nil
		}
	}
	return n, nil
}

func selectIndexed(tx store.Tx, q string, args ...any) (docs []indexed, err error) {
	rows, err := tx.Query(q, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var d indexed
		var content []byte
		if err := rows.Scan(&d.number, &d.name, &content); err != nil {
			return nil, err
		}
		if d.doc, err = decode(content); err != nil {
			return nil, err
		}
		docs = append(docs, d)
	}
	return docs, errors.Join(rows.Err(), rows.Close())
}
