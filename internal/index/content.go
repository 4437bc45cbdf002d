package index

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"flotilla/internal/index/query"
)

const (
	// maxTermBytes is how much of a value is compared.
	maxTermBytes = 256
	// maxPhraseWords is how many words of a phrase are compared, unless it is the whole value.
	maxPhraseWords = 8
	// numberMark begins the term of a number in its usual form, so that 75 finds 75.0 where it is a number.
	numberMark = "\x01"
)

// term is a row of index_term.
type term struct {
	field int64
	text  string
}

// number is a row of index_number.
type number struct {
	field int64
	n     float64
}

// location is a row of index_location.
type location struct {
	field    int64
	lat, lon float64
}

// rows are what a document is found by.
type rows struct {
	terms     map[term]bool // with whole
	numbers   map[number]struct{}
	locations map[location]struct{}
}

// clip makes a folded text what is stored and looked for.
func clip(s string) string {
	s = strings.ReplaceAll(s, "\x00", "\ufffd") // PostgreSQL's texts have none
	if len(s) > maxTermBytes {
		s = strings.ToValidUTF8(s[:maxTermBytes], "")
	}
	return s
}

// wordTerm is the term of a word.
func wordTerm(w string) string {
	if strings.HasPrefix(w, numberMark) {
		w = "\ufffd" + w[1:]
	}
	return clip(w)
}

// numberTerm is the term of a number.
func numberTerm(n float64) string {
	if n == 0 {
		n = 0 // -0 is 0
	}
	return fmt.Sprintf("%s%g", numberMark, n)
}

// phraseTerm joins words.
func phraseTerm(words []string) string { return clip(strings.Join(words, " ")) }

// derive makes the rows of a document; field gives the number of a field's name.
func derive(d query.Document, field func(string) (int64, bool)) rows {
	r := rows{map[term]bool{}, map[number]struct{}{}, map[location]struct{}{}}
	for _, v := range d {
		f, ok := field(v.Field)
		if !ok {
			continue
		}
		if v.Located {
			r.locations[location{f, v.Lat, v.Lon}] = struct{}{}
			continue
		}
		r.text(f, v)
		if v.Kind != query.Boolean && !math.IsNaN(v.Number) && !math.IsInf(v.Number, 0) {
			r.numbers[number{f, v.Number}] = struct{}{}
		}
	}
	return r
}

func (r rows) text(f int64, v query.Value) {
	words := query.Words(v.Text)
	whole := phraseTerm(words)
	if len(words) == 1 {
		whole = wordTerm(words[0])
	}
	r.terms[term{f, whole}] = true
	add := func(text string) {
		if t := (term{f, text}); !r.terms[t] { // whole stays
			r.terms[t] = false
		}
	}
	for i, w := range words {
		add(wordTerm(w))
		if len(words) > 1 && i < len(words)-1 {
			add(phraseTerm(words[i:min(len(words), i+maxPhraseWords)]))
		}
	}
	if v.Kind == query.Number {
		add(numberTerm(v.Number))
	}
}

// encode is the form of index_document.content: a JSON array of values, each an array of the field's name, its kind and its
// text, or of the field's name, latitude and longitude.
func encode(d query.Document) []byte {
	list := make([][3]any, len(d))
	for i, v := range d {
		if v.Located {
			list[i] = [3]any{v.Field, v.Lat, v.Lon}
		} else {
			list[i] = [3]any{v.Field, v.Kind, v.Text}
		}
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic("index: " + err.Error()) // strings and finite numbers always marshal
	}
	return b
}

// decode reverses encode.
func decode(content []byte) (query.Document, error) {
	var list [][3]any
	if err := json.Unmarshal(content, &list); err != nil {
		return nil, fmt.Errorf("index: a document is not readable: %w", err)
	}
	d := make(query.Document, 0, len(list))
	for _, e := range list {
		field, _ := e[0].(string)
		n, _ := e[1].(float64)
		if lon, located := e[2].(float64); located {
			d = append(d, query.Value{Field: field, Located: true, Lat: n, Lon: lon, Number: math.NaN()})
			continue
		}
		text, _ := e[2].(string)
		v := query.Text(field, text)
		if v.Kind = query.Kind(n); v.Kind == query.Boolean {
			v.Number = math.NaN()
		}
		d = append(d, v)
	}
	return d, nil
}
