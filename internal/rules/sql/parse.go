package sql

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"flotilla/internal/mqtt"
)

// Limits of a statement. AWS bounds a rule's whole definition at 256 KB.
const (
	maxText    = 256 << 10
	maxNodes   = 20_000
	maxNesting = 100
	maxVarName = 64
)

// version is a version of the language.
type version uint8

const (
	v1 version = iota // 2015-10-08
	v2                // 2016-03-23 and beta
)

func parseVersion(name string) (version, bool) {
	switch name {
	case "", Version20151008:
		return v1, true
	case Version20160323, VersionBeta:
		return v2, true
	}
	return v1, false
}

// parser is a Pratt parser with one token of lookahead.
type parser struct {
	text    string
	version version
	tok     token
	depth   int
	nodes   int
	vars    map[string]bool // declared so far
	err     *ParseError
}

func newParser(text string, v version) *parser {
	p := &parser{text: text, version: v, vars: map[string]bool{}}
	if len(text) > maxText {
		p.failAt(0, fmt.Sprintf("a statement has at most %d bytes", maxText))
		return p
	}
	p.tok = lex(text, 0)
	return p
}

func (p *parser) next() {
	p.tok = lex(p.text, p.tok.end)
}

// failAt keeps the first error; afterwards the parser sees the end of the text.
func (p *parser) failAt(pos int, message string) {
	if p.err != nil {
		return
	}
	pos = min(pos, len(p.text))
	before := p.text[:pos]
	line := 1 + strings.Count(before, "\n")
	column := 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	p.err = &ParseError{Offset: pos, Line: line, Column: column, Message: message}
	p.tok = token{kind: endToken, pos: len(p.text), end: len(p.text)}
}

// expected fails at the current token, which is not what was expected.
func (p *parser) expected(what string) {
	if p.tok.kind == badToken {
		p.failAt(p.tok.pos, p.tok.text)
		return
	}
	p.failAt(p.tok.pos, "expected "+what+" but found "+p.tok.String())
}

func (p *parser) accept(symbol string) bool {
	if !p.tok.is(symbol) {
		return false
	}
	p.next()
	return true
}

func (p *parser) acceptWord(word string) bool {
	if !p.tok.keyword(word) {
		return false
	}
	p.next()
	return true
}

func (p *parser) need(symbol string) {
	if !p.accept(symbol) {
		p.expected(symbol)
	}
}

func (p *parser) needWord(word string) {
	if !p.acceptWord(word) {
		p.expected(word)
	}
}

// peek is the token after the current one.
func (p *parser) peek() token { return lex(p.text, p.tok.end) }

// enter bounds recursion; leave undoes it.
func (p *parser) enter() bool {
	if p.depth++; p.depth > maxNesting {
		p.failAt(p.tok.pos, fmt.Sprintf("expressions nest at most %d deep", maxNesting))
	}
	p.count()
	return p.err == nil
}

// count bounds the number of expressions.
func (p *parser) count() {
	if p.nodes++; p.nodes > maxNodes {
		p.failAt(p.tok.pos, fmt.Sprintf("a statement has at most %d expressions", maxNodes))
	}
}

func (p *parser) leave() { p.depth-- }

// statement is [SET …] SELECT … [FROM …] [WHERE …].
func (p *parser) statement() (set []setVar, q *query) {
	if p.acceptWord("SET") {
		set = p.set()
		if p.tok.keyword("SET") {
			p.failAt(p.tok.pos, "a statement has one SET clause; separate its variables by commas")
		}
	}
	if !p.tok.keyword("SELECT") && set == nil {
		p.expected("SET or SELECT")
		return nil, nil
	}
	q = p.query(false)
	if p.err == nil && p.tok.kind != endToken {
		switch {
		case q.where != nil:
			p.expected("an operator or the end of the statement")
		case q.hasFrom:
			p.expected("WHERE or the end of the statement")
		default:
			p.expected("AS, a comma, FROM or WHERE")
		}
	}
	return set, q
}

func (p *parser) set() []setVar {
	var set []setVar
	for {
		if p.tok.kind != varToken {
			p.expected("a variable that begins with @")
			return nil
		}
		name, pos := p.tok.text, p.tok.pos
		switch {
		case name == "":
			p.failAt(pos, "a variable's name has letters, digits and underscores after the @")
		case len(name) > maxVarName:
			p.failAt(pos, fmt.Sprintf("a variable's name has at most %d characters", maxVarName))
		case p.vars[name]:
			p.failAt(pos, "the variable @"+clip(name)+" is set already")
		}
		if p.err != nil {
			return nil
		}
		p.next()
		p.need("=")
		x := p.expr(0)
		if p.err != nil {
			return nil
		}
		p.vars[name] = true
		set = append(set, setVar{name, x})
		if !p.accept(",") {
			return set
		}
	}
}

// query is SELECT and its clauses, nested in parentheses or the rule's own.
func (p *parser) query(nested bool) *query {
	q := &query{}
	p.needWord("SELECT")
	if p.isValueKeyword() {
		p.next()
		q.value = true
	}
	for p.err == nil {
		q.columns = append(q.columns, p.column(q.value))
		if !p.tok.is(",") {
			break
		}
		if q.value {
			p.failAt(p.tok.pos, "SELECT VALUE has one item")
		}
		p.next()
	}
	if p.acceptWord("FROM") {
		q.hasFrom = true
		if nested {
			q.from = p.expr(bindPostfix)
			if p.acceptWord("AS") {
				q.alias = p.alias()
			}
		} else {
			p.topicFilter(q)
		}
	} else if nested {
		p.expected("FROM")
	}
	if p.acceptWord("WHERE") {
		q.where = p.expr(0)
	}
	return q
}

// isValueKeyword tells VALUE from a field of that name.
func (p *parser) isValueKeyword() bool {
	if !p.tok.keyword("VALUE") {
		return false
	}
	t := p.peek()
	switch t.kind {
	case varToken, numberToken, textToken:
		return true
	case nameToken:
		if t.keyword("NOT") {
			return !lex(p.text, t.end).keyword("IN")
		}
		for _, w := range [...]string{"FROM", "AS", "WHERE", "AND", "OR", "IN"} {
			if t.keyword(w) {
				return false
			}
		}
		return true
	case symbolToken:
		switch t.text {
		case "(", "[", "{":
			return true
		case "*":
			after := lex(p.text, t.end)
			return after.kind == endToken || after.keyword("FROM") || after.keyword("WHERE") || after.is(")")
		}
	}
	return false
}

func (p *parser) topicFilter(q *query) {
	if p.tok.kind != textToken || p.tok.quote != '\'' {
		p.expected("a topic filter in single quotes")
		return
	}
	q.topics = p.tok.text
	if _, _, shared := mqtt.Share(q.topics); shared {
		p.failAt(p.tok.pos, "FROM has a topic filter without $share")
	} else if err := mqtt.ValidTopicFilter(q.topics); err != nil {
		reason := err.Error()
		if e, ok := errors.AsType[*mqtt.Error](err); ok {
			reason = e.Reason
		}
		p.failAt(p.tok.pos, "the topic filter is not valid: "+reason)
	}
	if p.err == nil {
		p.next()
	}
}

func (p *parser) column(value bool) column {
	if p.tok.is("*") {
		p.next()
		return column{star: true}
	}
	start := p.tok.pos
	x := p.expr(0)
	if p.err != nil {
		return column{}
	}
	c := column{x: x}
	text := strings.TrimRight(p.text[start:p.tok.pos], " \t\r\n\f")
	if p.tok.keyword("AS") {
		if value {
			p.failAt(p.tok.pos, "the item of SELECT VALUE has no alias")
			return column{}
		}
		p.next()
		c.as = true
		c.path = append(c.path, p.alias())
		for p.accept(".") {
			c.path = append(c.path, p.word("a name"))
		}
		return c
	}
	c.path = []string{columnName(x, text)}
	return c
}

// columnName is the key of a column without alias: the last name of a path, the
// text of any other expression.
func columnName(x expr, text string) string {
	switch x := x.(type) {
	case *nameExpr:
		return x.name
	case *memberExpr:
		return x.name
	case *varExpr:
		return x.name
	}
	return text
}

// alias is a name after AS, which may be a keyword unless it begins the next clause.
func (p *parser) alias() string {
	for _, w := range [...]string{"FROM", "WHERE", "SELECT", "AS"} {
		if p.tok.keyword(w) {
			p.expected("a name")
			return ""
		}
	}
	return p.word("a name")
}

func (p *parser) word(what string) string {
	if p.tok.kind != nameToken {
		p.expected(what)
		return ""
	}
	w := p.tok.text
	p.next()
	return w
}
