package expression

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"flotilla/internal/aws/dynamodb"
)

// Condition tells whether it holds for an item; an item that is not there has no attributes.
type Condition func(Item) bool

// operand is a path, a value or a size.
type operand struct {
	path  Path
	value *dynamodb.AttributeValue
	size  bool
}

func (o operand) of(item Item) *dynamodb.AttributeValue {
	if o.path == nil {
		return o.value
	}
	v := o.path.get(item)
	if !o.size || v == nil {
		return v
	}
	n := 0
	switch Type(v) {
	case "S":
		n = utf8.RuneCountInString(*v.S)
	case "B":
		n = len(v.B)
	case "L":
		n = len(v.L)
	case "M":
		n = len(v.M)
	case "SS", "NS", "BS":
		n = len(members(v))
	default:
		return nil
	}
	return &dynamodb.AttributeValue{N: new(strconv.Itoa(n))}
}

// ParseCondition reads a ConditionExpression or FilterExpression; kind is which.
func ParseCondition(kind, text string, names *Names) (c Condition, err error) {
	err = run(kind, text, names, func(p *parser) { c = p.or() })
	return c, err
}

func (p *parser) or() Condition {
	defer p.deeper()()
	all := []Condition{p.and()}
	for p.accept("or") {
		p.operator()
		all = append(all, p.and())
	}
	if len(all) == 1 {
		return all[0]
	}
	return func(i Item) bool {
		for _, c := range all {
			if c(i) {
				return true
			}
		}
		return false
	}
}

func (p *parser) and() Condition {
	all := []Condition{p.not()}
	for p.accept("and") {
		p.operator()
		all = append(all, p.not())
	}
	if len(all) == 1 {
		return all[0]
	}
	return func(i Item) bool {
		for _, c := range all {
			if !c(i) {
				return false
			}
		}
		return true
	}
}

func (p *parser) not() Condition {
	if p.accept("not") {
		defer p.deeper()()
		p.operator()
		c := p.not()
		return func(i Item) bool { return !c(i) }
	}
	if p.accept("(") {
		c := p.or()
		p.expect(")")
		return c
	}
	if c := p.function(); c != nil {
		return c
	}
	return p.comparison()
}

// call tells whether a function's name and a parenthesis follow; functions have their case.
func (p *parser) call(name string) bool {
	if p.token != name {
		return false
	}
	if rest := strings.TrimLeft(p.text[p.at:], " \t\r\n"); !strings.HasPrefix(rest, "(") {
		return false
	}
	p.operator()
	p.next()
	p.next()
	return true
}

func (p *parser) function() Condition {
	switch {
	case p.call("attribute_exists"):
		path := p.path()
		p.expect(")")
		return func(i Item) bool { return path.get(i) != nil }
	case p.call("attribute_not_exists"):
		path := p.path()
		p.expect(")")
		return func(i Item) bool { return path.get(i) == nil }
	case p.call("attribute_type"):
		path := p.path()
		p.expect(",")
		v := p.value()
		p.expect(")")
		if v.S == nil || !strings.Contains(" S N B SS NS BS M L NULL BOOL ", " "+*v.S+" ") {
			p.fail("Invalid attribute type name found; operator or function: attribute_type")
		}
		return func(i Item) bool { got := path.get(i); return got != nil && Type(got) == *v.S }
	case p.call("begins_with"):
		a, b := p.two()
		if b.value != nil && b.value.S == nil && b.value.B == nil {
			p.fail("Incorrect operand type for operator or function; operator or function: begins_with, operand type: %s", Type(b.value))
		}
		return func(i Item) bool {
			x, y := a.of(i), b.of(i)
			return x != nil && y != nil && Type(x) == Type(y) && (x.S != nil || x.B != nil) && bytes.HasPrefix(sortable(x), sortable(y))
		}
	case p.call("contains"):
		a, b := p.two()
		return func(i Item) bool { return contains(a.of(i), b.of(i)) }
	}
	return nil
}

// two are the operands of a function, up to its closing parenthesis.
func (p *parser) two() (a, b operand) {
	a = p.operand()
	p.expect(",")
	b = p.operand()
	p.expect(")")
	return a, b
}

func contains(x, y *dynamodb.AttributeValue) bool {
	switch {
	case x == nil || y == nil:
		return false
	case x.S != nil:
		return y.S != nil && strings.Contains(*x.S, *y.S)
	case x.B != nil:
		return y.B != nil && bytes.Contains(x.B, y.B)
	case x.SS != nil && y.S != nil:
		return subset([]string{*y.S}, x.SS)
	case x.NS != nil && y.N != nil:
		return subset([]string{canonical(*y.N)}, members(x))
	case x.BS != nil && y.B != nil:
		return subset([]string{string(y.B)}, members(x))
	}
	for _, e := range x.L {
		if Equal(e, y) {
			return true
		}
	}
	return false
}

func (p *parser) operand() operand {
	if p.call("size") {
		path := p.path()
		p.expect(")")
		return operand{path: path, size: true}
	}
	if strings.HasPrefix(p.token, ":") {
		return operand{value: p.value()}
	}
	return operand{path: p.path()}
}

func (p *parser) comparison() Condition {
	a := p.operand()
	p.operator()
	switch {
	case p.accept("between"):
		low := p.operand()
		p.expect("and")
		high := p.operand()
		if low.value != nil && high.value != nil {
			if order, ok := Compare(low.value, high.value); !ok || order > 0 {
				p.fail("The BETWEEN operator requires upper bound to be greater than or equal to lower bound, of the same type")
			}
		}
		return func(i Item) bool {
			v := a.of(i)
			return compare(">=", v, low.of(i)) && compare("<=", v, high.of(i))
		}
	case p.accept("in"):
		p.expect("(")
		list := []operand{p.operand()}
		for p.accept(",") {
			p.operator()
			list = append(list, p.operand())
		}
		p.expect(")")
		if len(list) > 100 {
			p.fail("The IN operator is provided with too many operands; number of operands: %d", len(list))
		}
		return func(i Item) bool {
			v := a.of(i)
			for _, o := range list {
				if compare("=", v, o.of(i)) {
					return true
				}
			}
			return false
		}
	}
	op := p.comparator()
	b := p.operand()
	return func(i Item) bool { return compare(op, a.of(i), b.of(i)) }
}

func (p *parser) comparator() string {
	op := p.token
	switch op {
	case "=", "<>", "<", "<=", ">", ">=":
		p.next()
		return op
	}
	p.unexpected()
	return ""
}

func compare(op string, a, b *dynamodb.AttributeValue) bool {
	if op == "<>" {
		return a == nil && b != nil || a != nil && b == nil || a != nil && b != nil && !Equal(a, b)
	}
	if a == nil || b == nil {
		return false
	}
	if op == "=" {
		return Equal(a, b)
	}
	order, ok := Compare(a, b)
	if !ok {
		return false
	}
	switch op {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order >= 0
}

// KeyTerm is a condition on one key attribute: Op is =, <, <=, >, >=, between or begins_with. High is for between alone.
type KeyTerm struct {
	Name      string
	Op        string
	Low, High *dynamodb.AttributeValue
}

// ParseKey reads a KeyConditionExpression: one or two terms, joined by AND.
func ParseKey(text string, names *Names) (terms []KeyTerm, err error) {
	err = run("KeyConditionExpression", text, names, func(p *parser) {
		terms = p.keyTerms()
		if len(terms) > 2 {
			p.fail("Conditions can be of length 1 or 2 only")
		}
	})
	return terms, err
}

func (p *parser) keyTerms() (terms []KeyTerm) {
	defer p.deeper()()
	for {
		if p.accept("(") {
			terms = append(terms, p.keyTerms()...)
			p.expect(")")
		} else {
			terms = append(terms, p.keyTerm())
		}
		if !p.accept("and") {
			return terms
		}
		p.operator()
	}
}

func (p *parser) keyName() string {
	path := p.path()
	if !path.Whole() {
		p.fail("KeyConditionExpressions cannot have conditions on nested attributes")
	}
	return path.Top()
}

func (p *parser) keyTerm() KeyTerm {
	var t KeyTerm
	if p.call("begins_with") {
		t.Name, t.Op = p.keyName(), "begins_with"
		p.expect(",")
		t.Low = p.value()
		p.expect(")")
		return t
	}
	if strings.HasPrefix(p.token, ":") { // :v = name
		t.Low = p.value()
		t.Op = map[string]string{"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}[p.token]
		if t.Op == "" {
			p.unexpected()
		}
		p.next()
		t.Name = p.keyName()
		return t
	}
	t.Name = p.keyName()
	p.operator()
	if p.accept("between") {
		t.Op, t.Low = "between", p.value()
		p.expect("and")
		t.High = p.value()
		return t
	}
	if t.Op = p.comparator(); t.Op == "<>" {
		p.fail("Unsupported operator on KeyCondition: %s", "<>")
	}
	t.Low = p.value()
	return t
}

// String is for errors.
func (t KeyTerm) String() string { return fmt.Sprintf("%s %s", t.Name, t.Op) }
