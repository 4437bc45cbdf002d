package lang

import (
	"strings"
	"unicode/utf8"
)

// part is a piece of a template: literal text, a wildcard, or a policy variable.
type part struct {
	kind  partKind
	text  string   // literal text; of a variable, its default value
	value variable // of a variable
	deflt bool     // a variable with a default value: ${key, 'text'}
}

type partKind uint8

const (
	literal partKind = iota
	anyOne           // ?
	anyText          // *
	valueOf          // ${key}
)

// template is a compiled text of a Resource or a condition value.
type template struct {
	parts     []part
	variables bool
	fixed     string // the text without wildcards and variables, when whole or prefix
	shape     shape
}

// shape tells the cheap templates, which are most, from the general one.
type shape uint8

const (
	general   shape = iota
	whole           // fixed is all
	prefix          // fixed and then *
	universal       // *
)

// parseTemplate compiles text. Without wildcards, * and ? are ordinary characters.
//
// ${*}, ${?} and ${$} are the characters themselves; the IoT developer guide prints them as $(*), $(?), $($), so both
// are taken. A $ before anything else is an ordinary character ("$aws/things/...").
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-policy-variables.html
func parseTemplate(text string, wildcards bool) (*template, error) {
	t := &template{}
	var lit strings.Builder
	flush := func() {
		if lit.Len() > 0 {
			t.parts = append(t.parts, part{kind: literal, text: lit.String()})
			lit.Reset()
		}
	}
	for i := 0; i < len(text); {
		rest := text[i:]
		switch {
		case wildcards && rest[0] == '*':
			flush()
			if n := len(t.parts); n == 0 || t.parts[n-1].kind != anyText {
				t.parts = append(t.parts, part{kind: anyText})
			}
			i++
		case wildcards && rest[0] == '?':
			flush()
			t.parts = append(t.parts, part{kind: anyOne})
			i++
		case len(rest) >= 4 && rest[0] == '$' && (rest[1] == '{' && rest[3] == '}' || rest[1] == '(' && rest[3] == ')') &&
			strings.IndexByte("*?$", rest[2]) >= 0:
			lit.WriteByte(rest[2])
			i += 4
		case strings.HasPrefix(rest, "${"):
			end := strings.IndexByte(rest, '}')
			if end < 0 {
				return nil, errSyntax
			}
			flush()
			p, err := parseVariable(rest[2:end])
			if err != nil {
				return nil, err
			}
			t.parts = append(t.parts, p)
			t.variables = true
			i += end + 1
		default:
			lit.WriteByte(rest[0])
			i++
		}
	}
	flush()
	switch n := len(t.parts); {
	case n == 0:
		t.shape = whole
	case n == 1 && t.parts[0].kind == literal:
		t.shape, t.fixed = whole, t.parts[0].text
	case n == 1 && t.parts[0].kind == anyText:
		t.shape = universal
	case n == 2 && t.parts[0].kind == literal && t.parts[1].kind == anyText:
		t.shape, t.fixed = prefix, t.parts[0].text
	}
	return t, nil
}

// parseVariable reads what stands between ${ and }: a key, or a key and a default value in single quotes.
// AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html#policy-vars-default-values
func parseVariable(text string) (part, error) {
	key, deflt, has := strings.Cut(text, ",")
	p := part{kind: valueOf, value: variableOf(strings.TrimSpace(key))}
	if has {
		deflt = strings.TrimSpace(deflt)
		if len(deflt) < 2 || deflt[0] != '\'' || deflt[len(deflt)-1] != '\'' {
			return p, errSyntax
		}
		p.deflt, p.text = true, deflt[1:len(deflt)-1]
	}
	return p, nil
}

// outcome of a comparison with a template.
type outcome uint8

const (
	differs outcome = iota
	matches
	unresolved // a variable has no value: AWS leaves its text in place, so nothing matches
)

// match compares s with the template, variables replaced by the values of c. A value never acts as a wildcard.
func (t *template) match(c *Connection, s string) outcome {
	ok := false
	switch t.shape {
	case universal:
		ok = true
	case whole:
		ok = s == t.fixed
	case prefix:
		ok = strings.HasPrefix(s, t.fixed)
	default:
		var buf [24]part
		parts := t.parts
		if t.variables {
			var found bool
			if parts, found = t.resolve(c, buf[:0]); !found {
				return unresolved
			}
		}
		ok = glob(parts, s)
	}
	if ok {
		return matches
	}
	return differs
}

// resolve appends the parts with variables replaced by literals.
func (t *template) resolve(c *Connection, to []part) ([]part, bool) {
	for i := range t.parts {
		p := &t.parts[i]
		if p.kind != valueOf {
			to = append(to, *p)
			continue
		}
		text, ok := p.value.text(c)
		if !ok {
			if !p.deflt {
				return nil, false
			}
			text = p.text
		}
		to = append(to, part{kind: literal, text: text})
	}
	return to, true
}

// expand gives the text of a template without wildcards.
func (t *template) expand(c *Connection) (string, bool) {
	if !t.variables {
		return t.fixed, true
	}
	var buf [24]part
	parts, ok := t.resolve(c, buf[:0])
	if !ok {
		return "", false
	}
	if len(parts) == 1 {
		return parts[0].text, true
	}
	var b strings.Builder
	for i := range parts {
		b.WriteString(parts[i].text)
	}
	return b.String(), true
}

// glob matches s with literals, ? (one character) and * (any text). It takes the leftmost place for what stands
// between two stars, so the work is bounded by len(s) times the length of the pattern, whatever the stars.
func glob(parts []part, s string) bool {
	first := segment(parts)
	pos, ok := runAt(parts[:first], s, 0)
	if !ok {
		return false
	}
	parts = parts[first:]
	if len(parts) == 0 {
		return pos == len(s)
	}
	for {
		parts = parts[1:] // the star
		if len(parts) == 0 {
			return true
		}
		n := segment(parts)
		run := parts[:n]
		parts = parts[n:]
		last := len(parts) == 0
		for {
			end, ok := runAt(run, s, pos)
			if ok && (!last || end == len(s)) {
				pos = end
				break
			}
			if pos >= len(s) {
				return false
			}
			_, w := utf8.DecodeRuneInString(s[pos:])
			pos += w
		}
		if last {
			return true
		}
	}
}

// segment is the number of parts before the next star.
func segment(parts []part) int {
	for i := range parts {
		if parts[i].kind == anyText {
			return i
		}
	}
	return len(parts)
}

// runAt matches parts without stars at s[pos:] and returns where the match ends.
func runAt(run []part, s string, pos int) (end int, ok bool) {
	for i := range run {
		if run[i].kind == anyOne {
			if pos >= len(s) {
				return 0, false
			}
			_, w := utf8.DecodeRuneInString(s[pos:])
			pos += w
			continue
		}
		if !strings.HasPrefix(s[pos:], run[i].text) {
			return 0, false
		}
		pos += len(run[i].text)
	}
	return pos, true
}
