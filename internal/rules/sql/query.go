package sql

import (
	"slices"
	"strings"
)

// nested compiles SELECT … FROM an array: the results of its elements, as an Array. FROM
// an object gives the one result.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-nested-queries.html
func (c *compiler) nested(q *query) eval {
	from := c.expr(q.from)
	place := c.prog.rows
	c.prog.rows++
	c.scopes = append(c.scopes, scope{place, q.alias})
	row := c.row(q, place)
	where := func(*frame) bool { return true }
	if q.where != nil {
		where = c.condition(q.where)
	}
	c.scopes = c.scopes[:len(c.scopes)-1]
	cost := 1 + len(q.columns)

	return func(f *frame) value {
		switch src := from(f); src.kind {
		case arrayKind:
			out := []value{}
			for _, item := range f.items(src) {
				if !f.spend(cost) {
					break
				}
				f.rows[place] = item
				if !where(f) {
					continue
				}
				if v := row(f); !v.isUndefined() {
					out = append(out, v)
				}
			}
			return arrayValue(out)
		case objectKind:
			f.spend(cost)
			f.rows[place] = src
			if where(f) {
				return row(f)
			}
		}
		return value{}
	}
}

// row compiles the columns of a nested query.
func (c *compiler) row(q *query, place int) eval {
	if len(q.columns) == 1 && (q.value || q.columns[0].star) {
		if q.columns[0].star {
			return func(f *frame) value { return f.rows[place] }
		}
		return c.expr(q.columns[0].x)
	}
	return merge(q.columns, c.columns(q.columns), func(f *frame) value { return f.rows[place] })
}

// columns compiles the expressions of columns; a star has none.
func (c *compiler) columns(columns []column) []eval {
	of := make([]eval, len(columns))
	for i, col := range columns {
		if !col.star {
			of[i] = c.expr(col.x)
		}
	}
	return of
}

// merge makes one Object of columns; star is what * stands for, and the result is
// Undefined when that is needed and no Object.
func merge(columns []column, of []eval, star eval) eval {
	return func(f *frame) value {
		out := newObject(len(columns))
		for i := range columns {
			if of[i] != nil {
				put(f, out, columns[i].path, of[i](f))
				continue
			}
			all := star(f)
			if all.kind != objectKind {
				return value{}
			}
			o := f.members(all)
			f.spend(len(o.keys))
			for j, key := range o.keys {
				out.set(key, o.vals[j])
			}
		}
		return objectValue(out)
	}
}

// put sets the value at a path, making objects on the way.
func put(f *frame, o *object, path []string, v value) {
	if v.isUndefined() {
		return
	}
	for _, key := range path[:len(path)-1] {
		i := o.find(key)
		switch {
		case i < 0:
			next := newObject(1)
			o.set(key, objectValue(next))
			o = next
		case o.vals[i].kind == objectKind:
			next := f.members(o.vals[i]).copy() // it may be part of the payload
			f.spend(len(next.keys))
			o.vals[i] = objectValue(next)
			o = next
		default:
			next := newObject(1)
			o.vals[i] = objectValue(next)
			o = next
		}
	}
	o.set(path[len(path)-1], v)
}

// output computes the outgoing payload.
type output func(f *frame) Output

// output compiles the columns of the rule's own SELECT.
func (c *compiler) output(q *query) output {
	first := q.columns[0]
	switch {
	case len(q.columns) == 1 && first.star:
		return passThrough
	case q.value:
		return c.valueOutput(first.x)
	case isFlat(q.columns):
		return c.flatOutput(q.columns)
	}
	of := c.columns(q.columns)
	merged := merge(q.columns, of, (*frame).starObject)
	extend := extended(q.columns, of)
	return func(f *frame) Output {
		if out, ok := extend(f); ok {
			return out
		}
		v := merged(f)
		if v.isUndefined() {
			f.fail(ErrPayload)
			return Output{}
		}
		return f.finish(f.appendValue(make([]byte, 0, 128), v))
	}
}

func (f *frame) finish(payload []byte) Output {
	f.fits(len(payload))
	return Output{Payload: payload, JSON: true}
}

// starObject is * among other columns: an empty payload counts as an empty object.
func (f *frame) starObject() value {
	if len(f.in.Payload) == 0 {
		return objectValue(newObject(0))
	}
	return f.star()
}

func passThrough(f *frame) Output {
	if !f.scanned {
		f.scan()
	}
	return Output{Payload: f.in.Payload, JSON: f.json}
}

func (c *compiler) valueOutput(x expr) output {
	of := c.expr(x)
	return func(f *frame) Output {
		v := of(f)
		if v.isUndefined() {
			return Output{Payload: []byte{}}
		}
		return f.finish(f.appendValue(make([]byte, 0, 64), v))
	}
}

// isFlat tells whether columns have distinct simple names and none is *.
func isFlat(columns []column) bool {
	seen := map[string]bool{}
	return !slices.ContainsFunc(columns, func(c column) bool {
		if c.star || len(c.path) != 1 || seen[c.path[0]] {
			return true
		}
		seen[c.path[0]] = true
		return false
	})
}

// flatOutput writes columns one after the other, members of the payload as they are.
func (c *compiler) flatOutput(columns []column) output {
	type part struct {
		key  string // "key":
		slot int    // a path into the payload, or -1
		of   eval
	}
	size := 2
	parts := make([]part, len(columns))
	for i, col := range columns {
		p := part{key: string(appendString(nil, col.path[0])) + ":", slot: -1, of: c.expr(col.x)}
		if n, ok := c.slot(col.x); ok {
			p.slot = n
		}
		parts[i] = p
		size += len(p.key) + 16
	}
	return func(f *frame) Output {
		if !f.scanned {
			f.scan()
		}
		dst := append(make([]byte, 0, size), '{')
		for i := range parts {
			p := &parts[i]
			if p.slot >= 0 && f.slots[p.slot].raw == "" {
				continue
			}
			mark := len(dst)
			if len(dst) > 1 {
				dst = append(dst, ',')
			}
			dst = append(dst, p.key...)
			start := len(dst)
			if p.slot >= 0 {
				dst = f.appendSlot(dst, &f.slots[p.slot])
			} else if v := p.of(f); !v.isUndefined() {
				dst = f.appendValue(dst, v)
			}
			if len(dst) == start { // Undefined
				dst = dst[:mark]
			}
			if !f.fits(len(dst)) {
				break
			}
		}
		return f.finish(append(dst, '}'))
	}
}

// appendSlot writes a place of the payload, as it is but for space and 10.0.
func (f *frame) appendSlot(dst []byte, s *slot) []byte {
	switch s.raw[0] {
	case '{', '[':
		return appendCompact(dst, s.raw)
	case '"', 't', 'f', 'n':
		return append(dst, s.raw...)
	}
	if !f.prog.whole || len(s.raw) <= maxDigits && !strings.ContainsAny(s.raw, ".eE") {
		return append(dst, s.raw...)
	}
	v := s.value(true)
	if v.isUndefined() {
		return dst
	}
	return f.appendNumber(dst, v.number)
}
