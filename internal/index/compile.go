package index

import (
	"fmt"
	"math"
	"strings"
	"unicode"

	"flotilla/internal/index/query"
)

// compiler turns a query into a condition on a column that has numbers of documents.
type compiler struct {
	kind   int64
	column string
	// hashed has the engine make each list of documents once and look documents up in it. PostgreSQL would else join lists
	// of which it knows not how long they are, one document of the one with all of the other.
	hashed bool
	fields map[string]int64
	args   []any
	// common tells that so many documents have a term that looking at each document is better than listing them.
	common func(field int64, term string) (bool, error)
	err    error
	most   int // documents that few lists
}

// never is a condition that no row fulfils.
const never = "1 = 0"

func (c *compiler) arg(v any) string {
	c.args = append(c.args, v)
	return fmt.Sprintf("$%d", len(c.args))
}

// expr gives the condition.
func (c *compiler) expr(e query.Expr) string {
	switch e := e.(type) {
	case query.And:
		return c.join(e, " AND ")
	case query.Or:
		return c.join(e, " OR ")
	case query.Not:
		return "NOT " + c.expr(e.Of)
	case query.Everything:
		return "1 = 1"
	case *query.Term:
		return "(" + c.term(e) + ")"
	}
	panic(fmt.Sprintf("index: %T in a query", e))
}

func (c *compiler) join(list []query.Expr, by string) string {
	parts := make([]string, len(list))
	for i, e := range list {
		parts[i] = c.expr(e)
	}
	return "(" + strings.Join(parts, by) + ")"
}

// alias gives the name that documents use for a field that goes by two.
func alias(field string) string {
	switch field {
	case "registry.thingTypeName", "registry.thingGroupNames", "registry.thingName", "registry.thingId":
		return strings.TrimPrefix(field, "registry.")
	}
	return field
}

// field is the condition on the column field, and whether there can be any.
func (c *compiler) field(name string) (string, bool) {
	if name == "" {
		return "field IN (SELECT number FROM index_field WHERE kind = " + c.arg(c.kind) + ")", true
	}
	n, ok := c.fields[name]
	if !ok {
		return "", false
	}
	return "field = " + c.arg(n), true
}

// set is a part of the documents that a term finds: those of rows of a table.
type set struct {
	table, where string
	field        int64  // when the rows are those of one term of one field
	text         string // the term
}

// term gives the condition that a document is in one of the term's sets.
func (c *compiler) term(t *query.Term) string {
	sets := c.sets(t)
	if len(sets) == 0 {
		return never
	}
	parts := make([]string, len(sets))
	for i, s := range sets {
		parts[i] = c.column + " IN (SELECT document FROM " + s.table + " WHERE " + s.where + ")"
		if c.hashed {
			parts[i] = "(" + parts[i] + ") IS TRUE"
		}
		if s.field != 0 && c.common != nil && c.err == nil {
			common, err := c.common(s.field, s.text)
			if c.err = err; common {
				parts[i] = "EXISTS (SELECT 1 FROM " + s.table + " WHERE " + s.where + " AND document = " + c.column + ")"
			}
		}
	}
	return strings.Join(parts, " OR ")
}

// sets gives the documents that a term finds, as the union of sets.
func (c *compiler) sets(t *query.Term) []set {
	field, ok := c.field(t.Field)
	if !ok {
		return nil
	}
	switch test := t.Test.(type) {
	case query.Exists:
		return []set{{table: "index_term", where: field}, {table: "index_location", where: field}}
	case query.Phrase:
		return c.phrase(t.Field, field, test)
	case query.Range:
		if test.Numeric {
			return []set{{table: "index_number", where: field + c.bounds("number", test, func(b query.Bound) any { return b.Number })}}
		}
		return []set{{table: "index_term", where: field + " AND whole" + c.bounds("term", test, func(b query.Bound) any { return wholeText(b.Text) })}}
	case query.Circle:
		return []set{{table: "index_location", where: field + c.circle(test)}}
	case query.Box:
		return []set{{table: "index_location", where: field + c.box(test)}}
	case query.Polygon:
		return []set{{table: "index_location", where: field + c.polygon(test)}}
	}
	panic(fmt.Sprintf("index: %T in a query", t.Test))
}

// wholeText is a bound in the form of whole terms.
func wholeText(s string) string {
	words := query.Words(s)
	if len(words) == 1 {
		return wordTerm(words[0])
	}
	return phraseTerm(words)
}

func (c *compiler) bounds(column string, r query.Range, value func(query.Bound) any) (where string) {
	if !r.Low.Open {
		op := " > "
		if r.Low.Inclusive {
			op = " >= "
		}
		where += " AND " + column + op + c.arg(value(r.Low))
	}
	if !r.High.Open {
		op := " < "
		if r.High.Inclusive {
			op = " <= "
		}
		where += " AND " + column + op + c.arg(value(r.High))
	}
	return where
}

func (c *compiler) phrase(name, field string, p query.Phrase) []set {
	if len(p) > 1 {
		words := make([]string, 0, maxPhraseWords)
		for _, w := range p[:min(len(p), maxPhraseWords)] {
			words = append(words, w.Prefix()) // all of it: phrases have no wildcards
		}
		text := phraseTerm(words)
		return []set{{table: "index_term", where: field + " AND (term = " + c.arg(text) + " OR term >= " + c.arg(text+" ") + " AND term < " + c.arg(text+"!") + ")"}}
	}
	w := p[0]
	if strings.IndexFunc(strings.Join(w.Pieces, ""), unicode.IsSpace) >= 0 {
		return nil // no word has white space
	}
	if !w.Exact() {
		return []set{c.pattern(field, w)}
	}
	sets := []set{c.equal(name, field, wordTerm(w.Prefix()))}
	if n, ok := w.Number(); ok && !math.IsInf(n, 0) {
		sets = append(sets, c.equal(name, field, numberTerm(n)))
	}
	return sets
}

// equal has the documents with a term.
func (c *compiler) equal(name, field, text string) set {
	s := set{table: "index_term", where: field + " AND term = " + c.arg(text)}
	if name != "" {
		s.field, s.text = c.fields[name], text
	}
	return s
}

// pattern finds words with wildcards: those between the prefix and what follows it, like the pattern.
func (c *compiler) pattern(field string, w query.Pattern) set {
	where := field + ` AND term NOT LIKE '% %' AND term NOT LIKE '` + numberMark + `%'`
	if prefix := w.Prefix(); prefix != "" {
		where += " AND term >= " + c.arg(clip(prefix))
		where += " AND term < " + c.arg(clip(prefix)+"\U0010FFFF")
		if len(w.Pieces) == 2 && w.Pieces[0] == prefix && w.Pieces[1] == "" {
			return set{table: "index_term", where: where}
		}
	} else {
		where += " AND term <> ''"
	}
	var like strings.Builder
	for i, piece := range w.Pieces {
		if i > 0 {
			like.WriteByte('%')
		}
		for _, b := range []byte(piece) {
			switch b {
			case 0xFF:
				like.WriteByte('_')
			case '%', '_', '\\':
				like.WriteByte('\\')
				like.WriteByte(b)
			default:
				like.WriteByte(b)
			}
		}
	}
	return set{table: "index_term", where: where + " AND term LIKE " + c.arg(like.String()) + ` ESCAPE '\'`}
}

// circle compares the haversine of the angle, which rises with the distance, after a bound by latitude for the index.
func (c *compiler) circle(q query.Circle) string {
	const rad = math.Pi / 180
	angle := q.Metres / query.EarthMetres
	if angle >= math.Pi {
		return ""
	}
	s := math.Sin(angle / 2)
	reach := angle/rad + 1e-9
	lat, lon := c.arg(q.Lat), c.arg(q.Lon)
	where := " AND lat >= " + c.arg(q.Lat-reach) + " AND lat <= " + c.arg(q.Lat+reach)
	half := func(column, at string) string {
		return fmt.Sprintf("sin((%s - CAST(%s AS DOUBLE PRECISION)) * %.17g)", column, at, rad/2)
	}
	a, b := half("lat", lat), half("lon", lon)
	return where + fmt.Sprintf(" AND %s * %s + cos(lat * %.17g) * CAST(%s AS DOUBLE PRECISION) * %s * %s <= %s",
		a, a, rad, c.arg(math.Cos(q.Lat*rad)), b, b, c.arg(s*s+1e-18))
}

func (c *compiler) box(q query.Box) string {
	where := " AND lat >= " + c.arg(q.South) + " AND lat <= " + c.arg(q.North)
	by := " OR "
	if q.West <= q.East {
		by = " AND "
	}
	return where + " AND (lon >= " + c.arg(q.West) + by + "lon <= " + c.arg(q.East) + ")"
}

// polygon counts the edges that a ray from the location crosses.
func (c *compiler) polygon(p query.Polygon) string {
	south, north := p[0][0], p[0][0]
	var crossings []string
	for i, j := 0, len(p)-1; i < len(p); j, i = i, i+1 {
		south, north = min(south, p[i][0]), max(north, p[i][0])
		if p[i][0] == p[j][0] {
			continue // no latitude is between
		}
		num := func(f float64) string { return "CAST(" + c.arg(f) + " AS DOUBLE PRECISION)" }
		crossings = append(crossings, fmt.Sprintf("CASE WHEN (%s > lat) <> (%s > lat) AND lon < %s * (lat - %s) / %s + %s THEN 1 ELSE 0 END",
			num(p[i][0]), num(p[j][0]), num(p[j][1]-p[i][1]), num(p[i][0]), num(p[j][0]-p[i][0]), num(p[i][1])))
	}
	if len(crossings) == 0 {
		return " AND " + never
	}
	return " AND lat >= " + c.arg(south) + " AND lat <= " + c.arg(north) + " AND (" + strings.Join(crossings, " + ") + ") % 2 = 1"
}
