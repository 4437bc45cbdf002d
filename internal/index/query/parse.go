package query

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits bound a query; zero is no bound.
type Limits struct {
	Bytes        int // of the query string
	Terms        int
	Stars        int // * in a term
	Questions    int // ? in a term
	LeadingStars int // terms that begin with a wildcard
	LeadingBytes int // of the query string when a term begins with a wildcard
}

// maxDepth bounds how deep parentheses may nest.
const maxDepth = 50

// ParseError tells what is wrong with a query.
type ParseError struct {
	Offset  int // bytes from the start of the query
	Message string
}

func (e *ParseError) Error() string { return fmt.Sprintf("at character %d: %s", e.Offset+1, e.Message) }

// Parse reads a query. Errors are *ParseError.
func Parse(text string, limits Limits) (q *Query, err error) {
	defer func() {
		if r := recover(); r != nil {
			pe, ok := r.(*ParseError)
			if !ok {
				panic(r)
			}
			q, err = nil, pe
		}
	}()
	p := &parser{text: text, limits: limits}
	if limits.Bytes > 0 && len(text) > limits.Bytes {
		p.failAt(limits.Bytes, "the query is longer than %d bytes", limits.Bytes)
	}
	if !utf8.ValidString(text) {
		p.failAt(0, "the query is no UTF-8 text")
	}
	root := p.or("", 0)
	if p.skip(); p.pos < len(text) {
		p.failAt(p.pos, "unexpected %q", text[p.pos])
	}
	if p.leading > 0 {
		if limits.LeadingStars > 0 && p.leading > limits.LeadingStars {
			p.failAt(p.leadingAt, "no more than %d term may begin with a wildcard", limits.LeadingStars)
		}
		if limits.LeadingBytes > 0 && len(text) > limits.LeadingBytes {
			p.failAt(p.leadingAt, "a query with a term that begins with a wildcard has at most %d characters", limits.LeadingBytes)
		}
	}
	return &Query{Root: root, Terms: p.terms}, nil
}

type parser struct {
	text      string
	limits    Limits
	pos       int
	terms     int
	leading   int
	leadingAt int
}

func (p *parser) failAt(at int, format string, args ...any) {
	panic(&ParseError{Offset: at, Message: fmt.Sprintf(format, args...)})
}

func (p *parser) skip() {
	for p.pos < len(p.text) {
		r, n := utf8.DecodeRuneInString(p.text[p.pos:])
		if !unicode.IsSpace(r) {
			return
		}
		p.pos += n
	}
}

// ahead is where the next character is that is no white space.
func (p *parser) ahead() int {
	at := p.pos
	p.skip()
	next := p.pos
	p.pos = at
	return next
}

// keyword takes AND, OR, NOT or TO when it stands alone.
func (p *parser) keyword(k string) bool {
	p.skip()
	if !p.isKeyword(k) {
		return false
	}
	p.pos += len(k)
	return true
}

func (p *parser) isKeyword(k string) bool {
	rest, ok := strings.CutPrefix(p.text[p.pos:], k)
	if !ok {
		return false
	}
	r, _ := utf8.DecodeRuneInString(rest)
	return rest == "" || unicode.IsSpace(r) || r == '(' || r == ')'
}

func (p *parser) or(field string, depth int) Expr {
	if depth > maxDepth {
		p.failAt(p.pos, "parentheses nest too deep")
	}
	all := Or{p.and(field, depth)}
	for p.keyword("OR") {
		all = append(all, p.and(field, depth))
	}
	if len(all) == 1 {
		return all[0]
	}
	return all
}

func (p *parser) and(field string, depth int) Expr {
	all := And{p.item(field, depth)}
	for {
		explicit := p.keyword("AND")
		p.skip()
		if !explicit && (p.pos == len(p.text) || p.text[p.pos] == ')' || p.isKeyword("OR")) {
			break
		}
		all = append(all, p.item(field, depth))
	}
	if len(all) == 1 {
		return all[0]
	}
	return all
}

func (p *parser) item(field string, depth int) Expr {
	negate := false
	for {
		if p.keyword("NOT") {
			negate = !negate
			continue
		}
		if p.pos < len(p.text) && p.text[p.pos] == '-' && !p.negative() {
			p.pos++
			negate = !negate
			continue
		}
		break
	}
	e := p.primary(field, depth)
	if negate {
		return Not{e}
	}
	return e
}

// negative tells that the - here begins a number as a value, not an exclusion: never, but in a field's own test, where
// it is not asked.
func (p *parser) negative() bool {
	return p.pos > 0 && p.text[p.pos-1] == ':'
}

func (p *parser) primary(field string, depth int) Expr {
	p.skip()
	at := p.pos
	if p.pos == len(p.text) {
		p.failAt(at, "expected a term")
	}
	switch c := p.text[p.pos]; c {
	case '(':
		return p.group(field, depth)
	case '"', '[', '{', '<', '>':
		return p.term(field, at, p.test(at))
	case ')', ']', '}', ':':
		p.failAt(at, "expected a term instead of %q", c)
	}
	w := p.word(false)
	if next := p.ahead(); w.plain && next < len(p.text) && strings.IndexByte(":<>", p.text[next]) >= 0 {
		p.pos = next
		switch p.text[p.pos] {
		case ':':
			if field != "" {
				p.failAt(at, "the terms in these parentheses are about the field %s", field)
			}
			p.pos++
			p.skip()
			if p.pos < len(p.text) && p.text[p.pos] == '(' {
				return p.group(w.text, depth)
			}
			return p.term(w.text, at, p.test(p.pos))
		case '<', '>':
			if field != "" {
				p.failAt(at, "the terms in these parentheses are about the field %s", field)
			}
			return p.term(w.text, at, p.test(p.pos))
		}
	}
	if field == "" && w.star() {
		p.count(at)
		return Everything{}
	}
	return p.term(field, at, p.wordTest(at, w))
}

func (p *parser) group(field string, depth int) Expr {
	at := p.pos
	p.pos++
	e := p.or(field, depth+1)
	if p.skip(); p.pos == len(p.text) || p.text[p.pos] != ')' {
		p.failAt(at, "the parenthesis that opens here is not closed")
	}
	p.pos++
	return e
}

func (p *parser) count(at int) {
	p.terms++
	if p.limits.Terms > 0 && p.terms > p.limits.Terms {
		p.failAt(at, "a query has at most %d terms", p.limits.Terms)
	}
}

func (p *parser) term(field string, at int, t Test) Expr {
	p.count(at)
	return &Term{Field: field, Test: t, At: at}
}

// test reads what follows a field.
func (p *parser) test(at int) Test {
	if p.pos == len(p.text) {
		p.failAt(at, "expected a value")
	}
	switch c := p.text[p.pos]; c {
	case '"':
		return p.quoted()
	case '[', '{':
		return p.span()
	case '<', '>':
		return p.comparison(c)
	}
	return p.wordTest(at, p.word(true))
}

func (p *parser) quoted() Test {
	at := p.pos
	var ph Phrase
	for _, w := range Words(p.quotedText()) {
		ph = append(ph, literal(w))
	}
	if ph == nil {
		p.failAt(at, "the quotation marks have nothing between them")
	}
	return ph
}

func (p *parser) quotedText() string {
	at := p.pos
	var b strings.Builder
	for p.pos++; p.pos < len(p.text); p.pos++ {
		switch c := p.text[p.pos]; c {
		case '"':
			p.pos++
			return b.String()
		case '\\':
			if p.pos++; p.pos < len(p.text) {
				b.WriteByte(p.text[p.pos])
			}
		default:
			b.WriteByte(c)
		}
	}
	p.failAt(at, "the quotation mark that opens here is not closed")
	return ""
}

// span reads [low TO high].
func (p *parser) span() Test {
	at := p.pos
	r := Range{Low: Bound{Inclusive: p.text[p.pos] == '['}}
	p.pos++
	quoted := p.bound(&r.Low)
	if !p.keyword("TO") {
		p.failAt(p.pos, "expected TO")
	}
	quoted = p.bound(&r.High) || quoted
	if p.skip(); p.pos == len(p.text) || p.text[p.pos] != ']' && p.text[p.pos] != '}' {
		p.failAt(at, "the range that opens here is not closed")
	}
	r.High.Inclusive = p.text[p.pos] == ']'
	p.pos++
	return r.settle(quoted)
}

// settle decides whether numbers or texts are compared.
func (r Range) settle(quoted bool) Range {
	lowOK, highOK := r.Low.Open, r.High.Open
	if !lowOK {
		r.Low.Number, lowOK = number(r.Low.Text)
	}
	if !highOK {
		r.High.Number, highOK = number(r.High.Text)
	}
	r.Numeric = lowOK && highOK && !quoted && !(r.Low.Open && r.High.Open)
	return r
}

func (p *parser) bound(b *Bound) (quoted bool) {
	p.skip()
	if p.pos < len(p.text) && p.text[p.pos] == '"' {
		b.Text = strings.Join(Words(p.quotedText()), " ")
		return true
	}
	at := p.pos
	w := p.word(true)
	switch {
	case w.star():
		b.Open = true
	case !w.plain:
		p.failAt(at, "a bound has no wildcard")
	}
	b.Text = Fold(w.text)
	return false
}

func (p *parser) comparison(c byte) Test {
	p.pos++
	b := Bound{}
	if p.pos < len(p.text) && p.text[p.pos] == '=' {
		b.Inclusive = true
		p.pos++
	}
	quoted := p.bound(&b)
	if b.Open {
		p.failAt(p.pos, "expected a value to compare with")
	}
	r := Range{Low: b, High: Bound{Open: true}}
	if c == '<' {
		r = Range{Low: Bound{Open: true}, High: b}
	}
	return r.settle(quoted)
}

// word is a word of the query, not folded yet.
type word struct {
	text   string   // without wildcards, when plain
	pieces []string // as in Pattern
	plain  bool     // no wildcards
}

// star tells that the word is * alone.
func (w word) star() bool {
	return len(w.pieces) == 2 && w.pieces[0] == "" && w.pieces[1] == ""
}

// word reads up to white space or a character that means something. A - or + may be in a word, and begin a value.
func (p *parser) word(value bool) word {
	at := p.pos
	w := word{plain: true, pieces: []string{""}}
	stars, questions := 0, 0
	for p.pos < len(p.text) {
		r, n := utf8.DecodeRuneInString(p.text[p.pos:])
		if unicode.IsSpace(r) || strings.ContainsRune("()[]{}\":<>", r) {
			if value && r == ':' {
				p.failAt(p.pos, "a colon in a value needs a backslash or quotation marks")
			}
			break
		}
		last := len(w.pieces) - 1
		switch {
		case r == '\\':
			if p.pos++; p.pos == len(p.text) {
				p.failAt(p.pos-1, "a backslash at the end")
			}
			r, n = utf8.DecodeRuneInString(p.text[p.pos:])
			w.pieces[last] += string(r)
		case r == '*':
			stars++
			w.plain, w.pieces = false, append(w.pieces, "")
		case r == '?':
			questions++
			w.plain = false
			w.pieces[last] += any1
		case r == ',' && strings.HasPrefix(w.pieces[0], "geo_"):
			w.pieces[last] += ","
		case strings.ContainsRune("`@#%/';,", r):
			p.failAt(p.pos, "the character %q needs a backslash or quotation marks", r)
		default:
			w.pieces[last] += string(r)
		}
		p.pos += n
	}
	if p.pos == at {
		if p.pos < len(p.text) {
			p.failAt(at, "expected a value instead of %q", p.text[p.pos])
		}
		p.failAt(at, "expected a value")
	}
	if p.limits.Stars > 0 && stars > p.limits.Stars {
		p.failAt(at, "a term has at most %d *", p.limits.Stars)
	}
	if p.limits.Questions > 0 && questions > p.limits.Questions {
		p.failAt(at, "a term has at most %d ?", p.limits.Questions)
	}
	if w.plain {
		w.text = w.pieces[0]
	}
	return w
}

func (p *parser) wordTest(at int, w word) Test {
	if w.star() {
		return Exists{}
	}
	if w.plain && strings.HasPrefix(w.text, "geo_") && strings.Contains(w.text, ",") {
		t, problem := geo(w.text)
		if problem != "" {
			p.failAt(at, "%s", problem)
		}
		return t
	}
	if w.pieces[0] == "" || strings.HasPrefix(w.pieces[0], any1) {
		if p.leading++; p.leading == 1 {
			p.leadingAt = at
		}
	}
	if w.plain {
		return Phrase{literal(Fold(w.text))}
	}
	pat := Pattern{Pieces: make([]string, 0, len(w.pieces))}
	for i, piece := range w.pieces {
		if i > 0 && i < len(w.pieces)-1 && piece == "" {
			continue // ** is *
		}
		pat.Pieces = append(pat.Pieces, foldPiece(piece))
	}
	return Phrase{pat}
}

// foldPiece folds the text around the marks for ?.
func foldPiece(s string) string {
	parts := strings.Split(s, any1)
	for i := range parts {
		parts[i] = Fold(parts[i])
	}
	return strings.Join(parts, any1)
}

func literal(folded string) Pattern {
	p := Pattern{Pieces: []string{folded}}
	p.number, p.isNumber = number(folded)
	return p
}
