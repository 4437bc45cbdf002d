package query

import (
	"strings"
	"unicode"
)

// Query is a parsed query.
type Query struct {
	Root  Expr
	Terms int // how many terms it has
}

// Expr is [And], [Or], [Not], [Term] or [Everything].
type Expr interface{ matches(Document) bool }

// And holds when all of it does.
type And []Expr

// Or holds when any of it does.
type Or []Expr

// Not holds when what it negates does not.
type Not struct{ Of Expr }

// Everything holds for each document: the query "*".
type Everything struct{}

// Term holds when the document has a value of the field that passes the test.
type Term struct {
	Field string // "" any
	Test  Test
	At    int // byte offset in the query, of the field or of the test
}

// Test is [Phrase], [Range], [Exists], [Circle], [Box] or [Polygon].
type Test interface{ passes(Value) bool }

// Exists is passed by any value: the test "*".
type Exists struct{}

// Phrase is passed by a value that has these words side by side.
type Phrase []Pattern

// Range is passed by numbers or texts between two bounds. Numbers are compared as numbers when both bounds are, texts
// otherwise, in lower case and by bytes, with one space between words.
type Range struct {
	Low, High Bound
	Numeric   bool
}

// Bound is an end of a Range.
type Bound struct {
	Open      bool // there is none
	Inclusive bool
	Text      string // in lower case
	Number    float64
}

// Kind is the type of a Value.
type Kind byte

// The kinds of values.
const (
	String Kind = iota
	Number
	Boolean
)

// Value is a leaf of a document.
type Value struct {
	Field   string
	Kind    Kind
	Text    string  // as it is written; numbers and booleans too
	Number  float64 // of a Number, and of a String that reads as one; NaN otherwise
	Located bool    // Lat and Lon are set: the value is a location
	Lat     float64 // degrees
	Lon     float64
}

// Document is what a thing or a thing group has in the index: any number of values a field.
type Document []Value

// Match tells whether d is found by q.
func (q *Query) Match(d Document) bool { return q.Root.matches(d) }

func (a And) matches(d Document) bool {
	for _, e := range a {
		if !e.matches(d) {
			return false
		}
	}
	return true
}

func (o Or) matches(d Document) bool {
	for _, e := range o {
		if e.matches(d) {
			return true
		}
	}
	return false
}

func (n Not) matches(d Document) bool { return !n.Of.matches(d) }

func (Everything) matches(Document) bool { return true }

func (t *Term) matches(d Document) bool {
	for i := range d {
		if (t.Field == "" || t.Field == d[i].Field) && t.Test.passes(d[i]) {
			return true
		}
	}
	return false
}

func (Exists) passes(Value) bool { return true }

func (p Phrase) passes(v Value) bool {
	if len(p) == 1 && p[0].Exact() && v.Kind == Number && p[0].isNumber && p[0].number == v.Number {
		return true // 75 finds 75.0
	}
	words := Words(v.Text)
	for i := 0; i+len(p) <= len(words); i++ {
		if p.at(words[i:]) {
			return true
		}
	}
	return false
}

func (p Phrase) at(words []string) bool {
	for i := range p {
		if !p[i].Match(words[i]) {
			return false
		}
	}
	return true
}

func (r Range) passes(v Value) bool {
	if r.Numeric {
		return !v.Located && v.Kind != Boolean && (r.Low.Open || v.Number > r.Low.Number || r.Low.Inclusive && v.Number == r.Low.Number) &&
			(r.High.Open || v.Number < r.High.Number || r.High.Inclusive && v.Number == r.High.Number) &&
			v.Number == v.Number // not NaN
	}
	if v.Located {
		return false
	}
	text := strings.Join(Words(v.Text), " ")
	return (r.Low.Open || text > r.Low.Text || r.Low.Inclusive && text == r.Low.Text) &&
		(r.High.Open || text < r.High.Text || r.High.Inclusive && text == r.High.Text)
}

// Fold is the form in which texts are compared.
func Fold(s string) string { return strings.ToLower(s) }

// Words are the words of a text, folded.
func Words(s string) []string { return strings.FieldsFunc(Fold(s), unicode.IsSpace) }
