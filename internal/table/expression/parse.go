package expression

//lint:file-ignore ST1005 clients see AWS's words

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"flotilla/internal/aws/dynamodb"
)

const (
	maxBytes = 4096
	maxOps   = 300
	maxDepth = 100
	maxPath  = 32
)

// Names holds what the placeholders of expressions stand for, and which of them were used.
type Names struct {
	names, usedNames   map[string]string
	values, usedValues Item
}

// Item is the attributes of an item, by name.
type Item = map[string]*dynamodb.AttributeValue

// NewNames takes ExpressionAttributeNames and ExpressionAttributeValues.
func NewNames(names map[string]string, values Item) *Names {
	return &Names{names: names, values: values, usedNames: map[string]string{}, usedValues: Item{}}
}

// Unused tells of placeholders that no expression has used; AWS refuses them.
func (n *Names) Unused() error {
	for _, k := range slices.Sorted(maps.Keys(n.names)) {
		if _, ok := n.usedNames[k]; !ok {
			return fmt.Errorf("Value provided in ExpressionAttributeNames unused in expressions: keys: {%s}", k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(n.values)) {
		if _, ok := n.usedValues[k]; !ok {
			return fmt.Errorf("Value provided in ExpressionAttributeValues unused in expressions: keys: {%s}", k)
		}
	}
	return nil
}

// parser reads one expression.
type parser struct {
	text  string
	at    int
	token string // "" at the end
	names *Names
	ops   int
	depth int
}

// failure stops a parser; run recovers it.
type failure struct{ err error }

func (p *parser) fail(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

// run parses text with fn, which must consume all of it. kind names the parameter in errors.
func run(kind, text string, names *Names, fn func(*parser)) (err error) {
	defer func() {
		if v := recover(); v != nil {
			f, ok := v.(failure)
			if !ok {
				panic(v)
			}
			err = fmt.Errorf("Invalid %s: %w", kind, f.err)
		}
	}()
	p := &parser{text: text, names: names}
	switch {
	case strings.TrimSpace(text) == "":
		p.fail("The expression can not be empty;")
	case len(text) > maxBytes:
		p.fail("Expression size has exceeded the maximum allowed size; expression size: %d", len(text))
	}
	p.next()
	fn(p)
	if p.token != "" {
		p.unexpected()
	}
	return nil
}

func (p *parser) unexpected() {
	near := p.text[max(0, p.at-len(p.token)-8):min(len(p.text), p.at+8)]
	token := p.token
	if token == "" {
		token = "<EOF>"
	}
	p.fail("Syntax error; token: %q, near: %q", token, near)
}

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// next reads the token that follows.
func (p *parser) next() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
	start := p.at
	if start == len(p.text) {
		p.token = ""
		return
	}
	p.at++
	switch c := p.text[start]; {
	case letter(c), digit(c), c == '#', c == ':':
		for p.at < len(p.text) && (letter(p.text[p.at]) || digit(p.text[p.at])) {
			p.at++
		}
	case c == '<' && p.at < len(p.text) && (p.text[p.at] == '=' || p.text[p.at] == '>'), c == '>' && p.at < len(p.text) && p.text[p.at] == '=':
		p.at++
	case strings.IndexByte("()[],.=<>+-", c) < 0:
		p.token = p.text[start:p.at]
		p.unexpected()
	}
	p.token = p.text[start:p.at]
}

// is tells whether the token is a keyword, in any case.
func (p *parser) is(word string) bool { return strings.EqualFold(p.token, word) }

// accept takes a token if it is there.
func (p *parser) accept(word string) bool {
	if p.token == "" || !p.is(word) {
		return false
	}
	p.next()
	return true
}

func (p *parser) expect(word string) {
	if !p.accept(word) {
		p.unexpected()
	}
}

// operator counts one.
func (p *parser) operator() {
	if p.ops++; p.ops > maxOps {
		p.fail("The expression contains too many operators and functions; maximum: %d", maxOps)
	}
}

// deeper guards recursion; the returned function leaves it.
func (p *parser) deeper() func() {
	if p.depth++; p.depth > maxDepth {
		p.fail("The expression is nested too deeply")
	}
	return func() { p.depth-- }
}

// Path names an attribute or a part of one: names and indexes.
type Path []step

type step struct {
	name  string // "" with an index
	index int
}

// String is the path as expressions write it.
func (p Path) String() string {
	var b strings.Builder
	for i, s := range p {
		switch {
		case s.name == "":
			b.WriteString("[" + strconv.Itoa(s.index) + "]")
		case i > 0:
			b.WriteString("." + s.name)
		default:
			b.WriteString(s.name)
		}
	}
	return b.String()
}

// Top is the attribute that the path begins with.
func (p Path) Top() string { return p[0].name }

// Whole tells whether the path names an attribute and no part of it.
func (p Path) Whole() bool { return len(p) == 1 }

func (p *parser) path() Path {
	path := Path{{name: p.name()}}
	for {
		switch {
		case p.accept("."):
			path = append(path, step{name: p.name()})
		case p.accept("["):
			n, err := strconv.Atoi(p.token)
			if err != nil || n < 0 {
				p.unexpected()
			}
			p.next()
			p.expect("]")
			path = append(path, step{index: n})
		default:
			return path
		}
		if len(path) > maxPath {
			p.fail("The document path has too many nesting elements; nesting levels: %d", len(path))
		}
	}
}

var keywords = []string{"and", "or", "not", "between", "in", "set", "remove", "add", "delete"}

// name is an attribute's name, or what a placeholder stands for.
func (p *parser) name() string {
	t := p.token
	if t == "" || t[0] != '#' && !letter(t[0]) || slices.Contains(keywords, strings.ToLower(t)) {
		p.unexpected()
	}
	p.next()
	if t[0] != '#' {
		return t
	}
	name, ok := p.names.names[t]
	if !ok {
		p.fail("An expression attribute name used in the document path is not defined; attribute name: %s", t)
	}
	if name == "" {
		p.fail("An attribute name is empty; attribute name: %s", t)
	}
	p.names.usedNames[t] = name
	return name
}

// value is what a placeholder stands for.
func (p *parser) value() *dynamodb.AttributeValue {
	t := p.token
	if t == "" || t[0] != ':' {
		p.unexpected()
	}
	p.next()
	v, ok := p.names.values[t]
	if !ok {
		p.fail("An expression attribute value used in expression is not defined; attribute value: %s", t)
	}
	p.names.usedValues[t] = v
	return v
}

var errOverlap = errors.New("Invalid ProjectionExpression: Two document paths overlap with each other; must remove or rewrite one of these paths")

// Projection is what of an item is asked for.
type Projection []Path

// ParseProjection reads a ProjectionExpression.
func ParseProjection(text string, names *Names) (Projection, error) {
	var out Projection
	err := run("ProjectionExpression", text, names, func(p *parser) {
		for {
			out = append(out, p.path())
			p.operator()
			if !p.accept(",") {
				return
			}
		}
	})
	if err == nil && overlap(out) {
		err = errOverlap
	}
	return out, err
}

// overlap tells whether a path is another or a part of it.
func overlap(paths []Path) bool {
	for i, a := range paths {
		for _, b := range paths[i+1:] {
			n := min(len(a), len(b))
			if slices.Equal(a[:n], b[:n]) {
				return true
			}
		}
	}
	return false
}

// Of gives the parts of an item. What is not there is left out; the elements of a list close up.
func (p Projection) Of(item Item) Item {
	out := Item{}
	type pick struct {
		rest Projection
		all  bool
	}
	picks := map[string]*pick{}
	for _, path := range p {
		k := picks[path.Top()]
		if k == nil {
			k = &pick{}
			picks[path.Top()] = k
		}
		if path.Whole() {
			k.all = true
		} else {
			k.rest = append(k.rest, path[1:])
		}
	}
	for name, k := range picks {
		v := item[name]
		if v != nil && !k.all {
			v = k.rest.within(v)
		}
		if v != nil {
			out[name] = v
		}
	}
	return out
}

// within gives the parts of a value, nil when there are none.
func (p Projection) within(v *dynamodb.AttributeValue) *dynamodb.AttributeValue {
	if v.M != nil {
		var rest Projection
		for _, path := range p {
			if path[0].name != "" {
				rest = append(rest, path)
			}
		}
		if m := rest.Of(v.M); len(m) > 0 {
			return &dynamodb.AttributeValue{M: m}
		}
		return nil
	}
	rest := map[int]Projection{}
	whole := map[int]bool{}
	for _, path := range p {
		if path[0].name == "" {
			i := path[0].index
			if len(path) == 1 {
				whole[i] = true
			}
			rest[i] = append(rest[i], path[1:])
		}
	}
	var list []*dynamodb.AttributeValue
	for _, i := range slices.Sorted(maps.Keys(rest)) {
		if i >= len(v.L) {
			continue
		}
		e := v.L[i]
		if !whole[i] {
			e = rest[i].within(e)
		}
		if e != nil {
			list = append(list, e)
		}
	}
	if list == nil {
		return nil
	}
	return &dynamodb.AttributeValue{L: list}
}
