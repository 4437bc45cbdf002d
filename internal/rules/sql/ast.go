package sql

import (
	"strconv"
	"strings"
)

// expr is an expression as it was parsed.
type expr interface {
	// print appends the canonical text, which parses to the same expression.
	print(b *strings.Builder)
}

type (
	// literal is a string, number, Boolean or Null.
	literal struct{ value value }
	// nameExpr is a name: a key of the payload or of the row, or the alias of a row.
	nameExpr struct{ name string }
	// starExpr is * as an argument: the whole payload.
	starExpr struct{}
	// varExpr is a SET variable.
	varExpr struct {
		name string
		pos  int
	}
	// memberExpr is of.name.
	memberExpr struct {
		of   expr
		name string
	}
	// indexExpr is of[index].
	indexExpr struct{ of, index expr }
	// unaryExpr is NOT, EXISTS or -.
	unaryExpr struct {
		op string
		x  expr
	}
	// binaryExpr is an infix operator, in capitals.
	binaryExpr struct {
		op   string
		l, r expr
	}
	// callExpr is a function; name is in small letters.
	callExpr struct {
		name string
		args []expr
		fn   *function
	}
	// castExpr is cast(x AS type).
	castExpr struct {
		x    expr
		word string // as written
		to   castType
	}
	// caseExpr is CASE of WHEN … END; without is nil when there is no ELSE.
	caseExpr struct {
		of      expr
		when    []when
		without expr
	}
	// arrayExpr and objectExpr are literals of JSON with expressions inside.
	arrayExpr  struct{ items []expr }
	objectExpr struct {
		keys []string
		vals []expr
	}
	// queryExpr is a nested SELECT.
	queryExpr struct{ query *query }
)

type when struct{ is, then expr }

// query is SELECT … FROM … WHERE …, nested or not.
type query struct {
	value   bool // SELECT VALUE
	columns []column
	from    expr   // nested: what it ranges over
	topics  string // not nested: the topic filter
	hasFrom bool
	alias   string // nested: FROM … AS alias
	where   expr
}

// column is an item of SELECT. Star columns have no expression.
type column struct {
	star bool
	x    expr
	path []string // where the value goes: the alias, or a name made from the expression
	as   bool     // the alias is written
}

// setVar is a variable of SET.
type setVar struct {
	name string
	x    expr
}

func (e *literal) print(b *strings.Builder) {
	switch e.value.kind {
	case stringKind:
		printText(b, e.value.text)
	case boolKind:
		b.WriteString(strconv.FormatBool(e.value.lo == 1))
	case nullKind:
		b.WriteString("NULL")
	default:
		n := e.value.number
		text := n.appendText(nil)
		if n.exp > 0 || n.isDecimal() && n.exp == 0 {
			text = n.appendScientific(nil)
		}
		b.Write(text)
	}
}

func printText(b *strings.Builder, s string) {
	b.WriteByte('\'')
	b.WriteString(strings.ReplaceAll(s, "'", "''"))
	b.WriteByte('\'')
}

func (e *nameExpr) print(b *strings.Builder) {
	if strings.EqualFold(e.name, "value") || strings.EqualFold(e.name, "exists") {
		b.WriteString("(" + e.name + ")") // not the keyword
		return
	}
	b.WriteString(e.name)
}

func (e *starExpr) print(b *strings.Builder) { b.WriteByte('*') }
func (e *varExpr) print(b *strings.Builder)  { b.WriteString("@" + e.name) }

func (e *memberExpr) print(b *strings.Builder) {
	printOperand(b, e.of, bindPostfix)
	b.WriteString("." + e.name)
}

func (e *indexExpr) print(b *strings.Builder) {
	printOperand(b, e.of, bindPostfix)
	b.WriteByte('[')
	e.index.print(b)
	b.WriteByte(']')
}

func (e *unaryExpr) print(b *strings.Builder) {
	b.WriteString(e.op)
	b.WriteByte(' ')
	least := bindOf(e)
	if l, ok := e.x.(*literal); ok && l.value.kind == numberKind && !l.value.isNegative() || e.op == "EXISTS" {
		least = bindPostfix // -(3) is not the literal -3
	}
	printOperand(b, e.x, least)
}

func (e *binaryExpr) print(b *strings.Builder) {
	bind := bindOf(e)
	printOperand(b, e.l, bind)
	b.WriteString(" " + e.op + " ")
	printOperand(b, e.r, bind+1)
}

// bindOf is how strongly an expression holds together.
func bindOf(x expr) int {
	switch x := x.(type) {
	case *binaryExpr:
		switch x.op {
		case "OR":
			return bindOr
		case "AND":
			return bindAnd
		case "+", "-":
			return bindSum
		case "*", "/", "%":
			return bindProduct
		}
		return bindCompare
	case *unaryExpr:
		if x.op == "NOT" {
			return bindNot
		}
		return bindSign
	case *literal:
		if x.value.kind == numberKind {
			return bindSign
		}
	}
	return bindPostfix
}

// printOperand writes an operand, in parentheses when it binds less than least.
func printOperand(b *strings.Builder, x expr, least int) {
	if bindOf(x) >= least {
		x.print(b)
		return
	}
	b.WriteByte('(')
	x.print(b)
	b.WriteByte(')')
}

func (e *callExpr) print(b *strings.Builder) {
	b.WriteString(e.name)
	b.WriteByte('(')
	printList(b, e.args)
	b.WriteByte(')')
}

func printList(b *strings.Builder, list []expr) {
	for i, x := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		x.print(b)
	}
}

func (e *castExpr) print(b *strings.Builder) {
	b.WriteString("cast(")
	e.x.print(b)
	b.WriteString(" AS " + e.word + ")")
}

func (e *caseExpr) print(b *strings.Builder) {
	b.WriteString("CASE ")
	e.of.print(b)
	for _, w := range e.when {
		b.WriteString(" WHEN ")
		w.is.print(b)
		b.WriteString(" THEN ")
		w.then.print(b)
	}
	if e.without != nil {
		b.WriteString(" ELSE ")
		e.without.print(b)
	}
	b.WriteString(" END")
}

func (e *arrayExpr) print(b *strings.Builder) {
	b.WriteByte('[')
	printList(b, e.items)
	b.WriteByte(']')
}

func (e *objectExpr) print(b *strings.Builder) {
	b.WriteByte('{')
	for i, x := range e.vals {
		if i > 0 {
			b.WriteString(", ")
		}
		printText(b, e.keys[i])
		b.WriteString(": ")
		x.print(b)
	}
	b.WriteByte('}')
}

func (e *queryExpr) print(b *strings.Builder) {
	b.WriteByte('(')
	e.query.print(b)
	b.WriteByte(')')
}

func (q *query) print(b *strings.Builder) {
	b.WriteString("SELECT ")
	if q.value {
		b.WriteString("VALUE ")
	}
	for i := range q.columns {
		c := &q.columns[i]
		if i > 0 {
			b.WriteString(", ")
		}
		if c.star {
			b.WriteByte('*')
			continue
		}
		if q.value {
			printOperand(b, c.x, bindPostfix)
		} else {
			c.x.print(b)
		}
		if c.as {
			b.WriteString(" AS " + strings.Join(c.path, "."))
		}
	}
	if q.hasFrom {
		b.WriteString(" FROM ")
		if q.from != nil {
			printOperand(b, q.from, bindPostfix)
		} else {
			printText(b, q.topics)
		}
		if q.alias != "" {
			b.WriteString(" AS " + q.alias)
		}
	}
	if q.where != nil {
		b.WriteString(" WHERE ")
		q.where.print(b)
	}
}
