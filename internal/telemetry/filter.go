package telemetry

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// A filter is a condition on the columns of a row, as the WHERE of SQL has it:
//
//	temperature > 20 AND (site = 'berlin' OR site IS NULL) AND NOT flotilla_topic LIKE 'test/%'
//
// Operands are columns (as "quoted" when their names have other characters than
// letters, digits, _ . and %), numbers, 'text', TRUE, FALSE and NULL; operators are
// = <> != < <= > >=, IN (...), LIKE, IS NULL, AND, OR, NOT. A comparison with
// NULL, or of values of different types, is neither true nor false.

// truth is one of SQL's three.
type truth int8

const (
	isFalse truth = iota
	isUnknown
	isTrue
)

func truthOf(b bool) truth {
	if b {
		return isTrue
	}
	return isFalse
}

// condition is evaluated on the values of a row: nil, bool, int64, float64 or string.
type condition func(row []any) truth

type operand func(row []any) any

const (
	maxFilter      = 16 << 10
	maxFilterDepth = 100
)

type filterParser struct {
	text  string
	at    int
	depth int
	// column gives the place of a column in rows.
	column func(name string) int
}

// parseFilter compiles a filter. The error says at which character it failed.
func parseFilter(text string, column func(string) int) (c condition, err error) {
	if len(text) > maxFilter {
		return nil, fmt.Errorf("a filter has at most %d characters", maxFilter)
	}
	defer func() {
		if p := recover(); p != nil {
			e, ok := p.(filterError)
			if !ok {
				panic(p)
			}
			err = e
		}
	}()
	p := &filterParser{text: text, column: column}
	c = p.or()
	if t := p.peek(); t != "" {
		p.fail("AND, OR or the end")
	}
	return c, nil
}

type filterError struct {
	at         int
	want, have string
}

func (e filterError) Error() string {
	if e.have == "" {
		e.have = "the end"
	}
	return fmt.Sprintf("filter, character %d: %s, where there should be %s", e.at+1, e.have, e.want)
}

func (p *filterParser) fail(want string) {
	have := p.peek()
	panic(filterError{p.at, want, have})
}

// peek returns the next token without taking it: "" at the end.
func (p *filterParser) peek() string {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
	s := p.text[p.at:]
	if s == "" {
		return ""
	}
	switch c := s[0]; {
	case c == '\'' || c == '"':
		for i := 1; i < len(s); i++ {
			if s[i] != c {
				continue
			}
			if i+1 < len(s) && s[i+1] == c {
				i++
				continue
			}
			return s[:i+1]
		}
		panic(filterError{p.at, "a closing quote", "the end"})
	case wordByte(c) || c == '-' || c == '+':
		i := 1
		for i < len(s) && (wordByte(s[i]) || (s[i] == '-' || s[i] == '+') && (s[i-1] == 'e' || s[i-1] == 'E') && !letter(c)) {
			i++
		}
		return s[:i]
	}
	for _, op := range []string{"<=", ">=", "<>", "!="} {
		if strings.HasPrefix(s, op) {
			return op
		}
	}
	return s[:1]
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= 0x80 || c == '%' }

func wordByte(c byte) bool { return letter(c) || c >= '0' && c <= '9' || c == '.' }

func (p *filterParser) take(word string) bool {
	t := p.peek()
	if !strings.EqualFold(t, word) {
		return false
	}
	p.at += len(t)
	return true
}

func (p *filterParser) need(word string) {
	if !p.take(word) {
		p.fail(word)
	}
}

func (p *filterParser) or() condition {
	c := p.and()
	for p.take("OR") {
		a, b := c, p.and()
		c = func(r []any) truth { return max(a(r), b(r)) }
	}
	return c
}

func (p *filterParser) and() condition {
	c := p.not()
	for p.take("AND") {
		a, b := c, p.not()
		c = func(r []any) truth { return min(a(r), b(r)) }
	}
	return c
}

func (p *filterParser) not() condition {
	if p.depth++; p.depth > maxFilterDepth {
		p.fail("less depth")
	}
	defer func() { p.depth-- }()
	if p.take("NOT") {
		return negated(p.not())
	}
	if p.take("(") {
		c := p.or()
		p.need(")")
		return c
	}
	return p.comparison()
}

func negated(c condition) condition { return func(r []any) truth { return isTrue - c(r) } }

func (p *filterParser) comparison() condition {
	left := p.operand()
	if p.take("IS") {
		not := p.take("NOT")
		p.need("NULL")
		return func(r []any) truth { return truthOf((left(r) == nil) != not) }
	}
	if p.take("NOT") {
		if c := p.inOrLike(left); c != nil {
			return negated(c)
		}
		p.fail("IN or LIKE")
	}
	if c := p.inOrLike(left); c != nil {
		return c
	}
	op := p.peek()
	test := map[string]func(int) bool{
		"=": func(c int) bool { return c == 0 }, "<>": func(c int) bool { return c != 0 }, "!=": func(c int) bool { return c != 0 },
		"<": func(c int) bool { return c < 0 }, "<=": func(c int) bool { return c <= 0 },
		">": func(c int) bool { return c > 0 }, ">=": func(c int) bool { return c >= 0 },
	}[op]
	if test == nil {
		p.fail("a comparison")
	}
	p.at += len(op)
	right := p.operand()
	return func(r []any) truth {
		c, ok := compare(left(r), right(r))
		if !ok {
			return isUnknown
		}
		return truthOf(test(c))
	}
}

func (p *filterParser) inOrLike(left operand) condition {
	switch {
	case p.take("IN"):
		p.need("(")
		list := []operand{p.operand()}
		for p.take(",") {
			list = append(list, p.operand())
		}
		p.need(")")
		return func(r []any) truth {
			v, out := left(r), isFalse
			for _, o := range list {
				c, ok := compare(v, o(r))
				if ok && c == 0 {
					return isTrue
				}
				if !ok {
					out = isUnknown
				}
			}
			return out
		}
	case p.take("LIKE"):
		right := p.operand()
		return func(r []any) truth {
			s, ok := left(r).(string)
			pattern, ok2 := right(r).(string)
			if !ok || !ok2 {
				return isUnknown
			}
			return truthOf(like(s, pattern))
		}
	}
	return nil
}

// like matches with % for any characters and _ for one byte.
func like(s, pattern string) bool {
	star, back := -1, 0
	i, j := 0, 0
	for i < len(s) {
		switch {
		case j < len(pattern) && pattern[j] == '%':
			star, back = j, i
			j++
		case j < len(pattern) && (pattern[j] == '_' || pattern[j] == s[i]):
			i, j = i+1, j+1
		case star >= 0:
			back++
			i, j = back, star+1
		default:
			return false
		}
	}
	return strings.Trim(pattern[j:], "%") == ""
}

func (p *filterParser) operand() operand {
	t := p.peek()
	if t == "" {
		p.fail("a column or a value")
	}
	constant := func(v any) operand {
		p.at += len(t)
		return func([]any) any { return v }
	}
	switch c := t[0]; {
	case c == '\'':
		return constant(strings.ReplaceAll(t[1:len(t)-1], "''", "'"))
	case c == '"':
		i := p.column(strings.ReplaceAll(t[1:len(t)-1], `""`, `"`))
		p.at += len(t)
		return func(r []any) any { return r[i] }
	case strings.EqualFold(t, "TRUE"):
		return constant(true)
	case strings.EqualFold(t, "FALSE"):
		return constant(false)
	case strings.EqualFold(t, "NULL"):
		return constant(nil)
	case letter(c):
		i := p.column(t)
		p.at += len(t)
		return func(r []any) any { return r[i] }
	}
	if n, err := strconv.ParseInt(t, 10, 64); err == nil {
		return constant(n)
	}
	if f, err := strconv.ParseFloat(t, 64); err == nil {
		return constant(f)
	}
	p.fail("a column or a value")
	return nil
}

// compare orders two values; ok is false when they can't be compared.
func compare(a, b any) (order int, ok bool) {
	switch x := a.(type) {
	case bool:
		y, ok := b.(bool)
		if x == y {
			return 0, ok
		}
		return map[bool]int{true: 1, false: -1}[x], ok
	case string:
		y, ok := b.(string)
		return cmp.Compare(x, y), ok
	case int64:
		switch y := b.(type) {
		case int64:
			return cmp.Compare(x, y), true
		case float64:
			return cmp.Compare(float64(x), y), true
		}
	case float64:
		switch y := b.(type) {
		case int64:
			return cmp.Compare(x, float64(y)), true
		case float64:
			return cmp.Compare(x, y), true
		}
	}
	return 0, false
}
