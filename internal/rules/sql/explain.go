package sql

import "strings"

// Condition is one condition of WHERE with its value for a message.
type Condition struct {
	// Text is the condition in canonical form.
	Text string
	// Value is its value as JSON; Undefined for none.
	Value string
}

// Conditions evaluates each condition that AND, OR and NOT join in WHERE, in its order, on a message: what a person
// asks who wonders why a message was not selected. Conditions that Evaluate would not come to are evaluated too. It
// is not made for speed. A condition that takes too much work has the value "too much work".
func (s *Statement) Conditions(in *Input) []Condition {
	var out []Condition
	for _, x := range leaves(s.query.where, nil) {
		var text strings.Builder
		x.print(&text)
		out = append(out, Condition{text.String(), s.valueOf(x, in)})
	}
	return out
}

func (s *Statement) valueOf(x expr, in *Input) string {
	prog := newProgram(s.prog.version, s.version)
	prog.outer = &s.prog
	c := compiler{prog: &prog}
	of := c.expr(x)
	in.begin()
	f := in.frame(&prog)
	v := of(f)
	if f.failed() {
		return "too much work"
	}
	if v.isUndefined() {
		return "Undefined"
	}
	return string(f.appendValue(nil, v))
}

// leaves are the conditions of an expression.
func leaves(x expr, to []expr) []expr {
	switch x := x.(type) {
	case nil:
		return to
	case *binaryExpr:
		if x.op == "AND" || x.op == "OR" {
			return leaves(x.r, leaves(x.l, to))
		}
	case *unaryExpr:
		if x.op == "NOT" {
			return leaves(x.x, to)
		}
	}
	return append(to, x)
}
