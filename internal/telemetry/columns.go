package telemetry

import (
	"bytes"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// kind is the type of a column; a higher one holds all that a lower one holds,
// but for boolean beside numbers, which become text.
type kind byte

const (
	kindNone kind = iota
	kindBool
	kindInt
	kindDouble
	kindText
	kindRaw // payloadColumn alone
)

// widen returns the kind that holds both.
func widen(a, b kind) kind {
	switch {
	case a == b || b == kindNone:
		return a
	case a == kindNone:
		return b
	case a == kindBool || b == kindBool:
		return kindText
	default:
		return max(a, b)
	}
}

const (
	maxColumns = 1000
	maxDepth   = 4
	maxOwn     = 9   // columns that describe the message
	maxName    = 255 // bytes of a column's name; members below a longer one are not taken apart

	// restColumn holds, as a JSON object, members beyond maxColumns and those with longer names than maxName.
	restColumn = "flotilla_rest"
	// valueColumn holds JSON that is not an object.
	valueColumn = "flotilla_value"
	// payloadColumn holds what is not JSON.
	payloadColumn = "flotilla_payload"
	ownPrefix     = "flotilla_"
)

// cell is one value of a row, as its JSON text ("abc", 1.5, true) or, when plain,
// as text of its own (nested arrays, deep objects).
type cell struct {
	column int
	kind   kind
	text   string // unquoted
}

// columns infers the columns of a batch.
type columns struct {
	names []string
	kinds []kind
	index map[string]int
}

// row takes a payload apart. rest is JSON text of members that found no column.
func (c *columns) row(payload []byte) (cells []cell, rest string, raw bool) {
	d := jsontext.NewDecoder(bytes.NewReader(payload), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	value, err := d.ReadValue()
	if err != nil {
		return nil, "", true
	}
	value = bytes.Clone(value)
	if _, err := d.ReadToken(); err != io.EOF { // something after the value
		return nil, "", true
	}
	r := rowBuilder{columns: c, at: map[int]int{}}
	if value.Kind() == '{' {
		r.object("", value, 1)
	} else {
		r.set(valueColumn, value)
	}
	if len(r.rest) > 0 {
		rest = "{" + strings.Join(r.rest, ",") + "}"
	}
	return r.cells, rest, false
}

type rowBuilder struct {
	*columns
	cells []cell
	at    map[int]int // column -> index in cells
	rest  []string
}

// object adds the members of a JSON object that was found valid.
func (r *rowBuilder) object(prefix string, value jsontext.Value, depth int) {
	d := jsontext.NewDecoder(bytes.NewReader(value), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := d.ReadToken(); err != nil {
		return
	}
	for d.PeekKind() != '}' {
		token, err := d.ReadToken()
		if err != nil {
			return
		}
		name := columnName(prefix, token.String())
		member, err := d.ReadValue()
		if err != nil {
			return
		}
		if member.Kind() == '{' && depth < maxDepth && len(member) > 2 && len(name) <= maxName {
			r.object(name+".", member, depth+1)
			continue
		}
		r.set(name, member)
	}
}

// columnName keeps members apart that would get one name: a dot in a member's
// name is not that between parent and child, and flotilla_ is ours.
func columnName(prefix, member string) string {
	if strings.ContainsAny(member, ".%") {
		member = strings.NewReplacer("%", "%25", ".", "%2E").Replace(member)
	}
	if member == "" {
		member = "%"
	}
	if prefix == "" && strings.HasPrefix(member, ownPrefix) {
		member = "%" + member
	}
	return prefix + member
}

func (r *rowBuilder) set(name string, value jsontext.Value) {
	k, text := classify(value)
	if k == kindNone {
		return
	}
	col, ok := r.index[name]
	if !ok {
		if len(r.names) >= maxColumns || len(name) > maxName {
			key, _ := jsontext.AppendQuote(nil, name)
			r.rest = append(r.rest, string(key)+":"+string(value))
			return
		}
		col = len(r.names)
		r.index[name] = col
		r.names = append(r.names, name)
		r.kinds = append(r.kinds, kindNone)
	}
	r.kinds[col] = widen(r.kinds[col], k)
	c := cell{column: col, kind: k, text: text}
	if i, again := r.at[col]; again { // a repeated member: the last one counts
		r.cells[i] = c
		return
	}
	r.at[col] = len(r.cells)
	r.cells = append(r.cells, c)
}

func classify(value jsontext.Value) (kind, string) {
	switch value.Kind() {
	case 'n':
		return kindNone, ""
	case 't', 'f':
		return kindBool, string(value)
	case '"':
		text, err := jsontext.AppendUnquote(nil, []byte(value))
		if err != nil {
			return kindText, string(value)
		}
		return kindText, string(text)
	case '0':
		s := string(value)
		if _, err := strconv.ParseInt(s, 10, 64); err == nil {
			return kindInt, s
		}
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsInf(f, 0) || !strings.ContainsAny(s, ".eE") {
			return kindText, s // no number type holds it
		}
		return kindDouble, s
	}
	return kindText, string(value) // arrays, deep or empty objects: JSON text
}
