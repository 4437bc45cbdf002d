package sql

import (
	"strings"
)

// Binding powers, weakest first; all infix operators associate to the left.
const (
	bindOr = iota + 1
	bindAnd
	bindNot
	bindCompare
	bindSum
	bindProduct
	bindSign
	bindPostfix
)

// infix is the operator at the current token and how strongly it binds.
func (p *parser) infix() (op string, bind int) {
	switch p.tok.kind {
	case symbolToken:
		switch p.tok.text {
		case "=", "<>", "<", ">", "<=", ">=":
			return p.tok.text, bindCompare
		case "!=":
			return "<>", bindCompare
		case "+", "-":
			return p.tok.text, bindSum
		case "*", "/", "%":
			return p.tok.text, bindProduct
		}
	case nameToken:
		switch {
		case p.tok.keyword("OR"):
			return "OR", bindOr
		case p.tok.keyword("AND"):
			return "AND", bindAnd
		case p.tok.keyword("IN"):
			return "IN", bindCompare
		case p.tok.keyword("NOT") && p.peek().keyword("IN"):
			return "NOT IN", bindCompare
		}
	}
	return "", 0
}

// expr parses an expression whose operators bind at least as strongly as least.
func (p *parser) expr(least int) expr {
	if !p.enter() {
		return nil
	}
	defer p.leave()
	left := p.prefix()
	for p.err == nil {
		op, bind := p.infix()
		if op == "" || bind < least {
			break
		}
		if op == "NOT IN" {
			p.next()
		}
		p.next()
		right := p.expr(bind + 1)
		if op == "NOT IN" {
			left = &unaryExpr{"NOT", &binaryExpr{"IN", left, right}}
		} else {
			left = &binaryExpr{op, left, right}
		}
	}
	return left
}

// reserved are the words that are no names at the beginning of an expression.
var reserved = [...]string{"SELECT", "FROM", "WHERE", "AS", "SET", "AND", "OR", "IN", "WHEN", "THEN", "ELSE", "END"}

// prefix parses a prefix operator with its operand, or an operand with what follows it.
func (p *parser) prefix() expr {
	switch {
	case p.acceptWord("NOT"):
		return &unaryExpr{"NOT", p.expr(bindNot)}
	case p.tok.is("-"):
		p.next()
		if p.tok.kind == numberToken {
			if x := p.number("-"); x != nil {
				return p.postfix(x)
			}
			return nil
		}
		return &unaryExpr{"-", p.expr(bindSign)}
	case p.tok.keyword("EXISTS") && p.startsOperand(p.peek()):
		p.next()
		return &unaryExpr{"EXISTS", p.expr(bindPostfix)}
	}
	x := p.operand()
	if p.err != nil {
		return nil
	}
	return p.postfix(x)
}

func (p *parser) startsOperand(t token) bool {
	switch t.kind {
	case varToken:
		return true
	case nameToken:
		for _, w := range reserved {
			if t.keyword(w) {
				return false
			}
		}
		return true
	}
	return t.is("(") || t.is("[")
}

func (p *parser) postfix(x expr) expr {
	for p.err == nil {
		switch {
		case p.accept("."):
			x = &memberExpr{x, p.word("the name of a member")}
		case p.tok.is("["):
			p.next()
			index := p.expr(0)
			p.need("]")
			x = &indexExpr{x, index}
		default:
			return x
		}
		p.count()
	}
	return nil
}

func (p *parser) number(sign string) expr {
	n, ok := parseNumber(sign+p.tok.text, true)
	if !ok {
		p.failAt(p.tok.pos, "the number is out of range")
		return nil
	}
	if p.version >= v2 && n.isDecimal() {
		if w, whole := n.whole(); whole {
			n = w
		}
	}
	p.next()
	return &literal{numberValue(n, true)}
}

func (p *parser) operand() expr {
	const what = "an expression"
	switch p.tok.kind {
	case numberToken:
		return p.number("")
	case textToken:
		x := &literal{stringValue(p.tok.text)}
		p.next()
		return x
	case varToken:
		return p.variable()
	case symbolToken:
		switch p.tok.text {
		case "(":
			return p.parenthesis()
		case "[":
			return p.array()
		case "{":
			return p.object()
		case "*":
			p.failAt(p.tok.pos, "* is an item of SELECT or an argument of a function")
			return nil
		}
	case nameToken:
		return p.name(what)
	}
	p.expected(what)
	return nil
}

func (p *parser) variable() expr {
	name, pos := p.tok.text, p.tok.pos
	if !p.vars[name] {
		p.failAt(pos, "the variable @"+clip(name)+" is not set")
		return nil
	}
	p.next()
	return &varExpr{name, pos}
}

func (p *parser) parenthesis() expr {
	p.next()
	if p.tok.keyword("SELECT") {
		if p.version < v2 {
			p.failAt(p.tok.pos, "nested queries need version "+Version20160323)
			return nil
		}
		q := p.query(true)
		p.need(")")
		return &queryExpr{q}
	}
	x := p.expr(0)
	p.need(")")
	return x
}

func (p *parser) array() expr {
	if p.version < v2 {
		p.failAt(p.tok.pos, "array literals need version "+Version20160323)
		return nil
	}
	p.next()
	a := &arrayExpr{}
	if p.accept("]") {
		return a
	}
	for p.err == nil {
		a.items = append(a.items, p.expr(0))
		if p.accept("]") {
			return a
		}
		if !p.accept(",") {
			p.expected("a comma or ]")
		}
	}
	return nil
}

func (p *parser) object() expr {
	if p.version < v2 {
		p.failAt(p.tok.pos, "object literals need version "+Version20160323)
		return nil
	}
	p.next()
	o := &objectExpr{}
	if p.accept("}") {
		return o
	}
	for p.err == nil {
		if p.tok.kind != textToken {
			p.expected("a key in quotes")
			return nil
		}
		o.keys = append(o.keys, p.tok.text)
		p.next()
		p.need(":")
		o.vals = append(o.vals, p.expr(0))
		if p.accept("}") {
			return o
		}
		if !p.accept(",") {
			p.expected("a comma or }")
		}
	}
	return nil
}

func (p *parser) name(what string) expr {
	switch {
	case p.acceptWord("TRUE"):
		return &literal{boolValue(true)}
	case p.acceptWord("FALSE"):
		return &literal{boolValue(false)}
	case p.acceptWord("NULL"):
		return &literal{value{kind: nullKind}}
	case p.tok.keyword("CASE"):
		if t := p.peek(); p.startsOperand(t) || t.kind == textToken || t.kind == numberToken || t.is("{") || t.is("-") {
			return p.caseOf()
		}
		p.next()
		p.expected("the value that CASE compares")
		return nil
	}
	for _, w := range reserved {
		if p.tok.keyword(w) {
			p.expected(what)
			return nil
		}
	}
	name := p.tok
	p.next()
	if p.tok.is("(") {
		return p.call(name)
	}
	return &nameExpr{name.text}
}

func (p *parser) caseOf() expr {
	p.next()
	c := &caseExpr{of: p.expr(0)}
	if p.err == nil && !p.tok.keyword("WHEN") {
		p.expected("WHEN")
	}
	for p.acceptWord("WHEN") {
		is := p.expr(0)
		p.needWord("THEN")
		c.when = append(c.when, when{is, p.expr(0)})
	}
	if p.acceptWord("ELSE") {
		c.without = p.expr(0)
	}
	if !p.acceptWord("END") {
		if c.without == nil {
			p.expected("WHEN, ELSE or END")
		} else {
			p.expected("END")
		}
	}
	return c
}

// call parses the arguments of a function; p is at the opening parenthesis.
func (p *parser) call(name token) expr {
	word := strings.ToLower(name.text)
	if word == "cast" {
		return p.cast()
	}
	fn := functions[word]
	switch {
	case fn == nil:
		p.failAt(name.pos, "there is no function "+clip(name.text))
		return nil
	case p.version < fn.since:
		p.failAt(name.pos, "the function "+word+" needs version "+Version20160323)
		return nil
	}
	p.next()
	c := &callExpr{name: word, fn: fn}
	if p.accept(")") {
		return c
	}
	for p.err == nil {
		if p.tok.is("*") {
			p.next()
			c.args = append(c.args, &starExpr{})
		} else {
			c.args = append(c.args, p.expr(0))
		}
		if p.accept(")") {
			return c
		}
		if !p.accept(",") {
			p.expected("a comma or )")
		}
	}
	return nil
}

func (p *parser) cast() expr {
	p.next()
	x := p.expr(0)
	p.needWord("AS")
	if p.err != nil {
		return nil
	}
	to, since, ok := castTypeOf(p.tok.text)
	if p.tok.kind != nameToken || !ok {
		p.expected("a type: Int, Integer, Decimal, Double, String, Nvarchar, Text, Ntext, Varchar, Bool or Boolean")
		return nil
	}
	if p.version < since {
		p.failAt(p.tok.pos, "a cast to "+p.tok.text+" needs version "+Version20160323)
		return nil
	}
	c := &castExpr{x: x, word: strings.ToLower(p.tok.text), to: to}
	p.next()
	p.need(")")
	return c
}
