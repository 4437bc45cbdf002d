package doc

import (
	"unicode/utf16"
	"unicode/utf8"
)

// maxNesting bounds the parser's recursion, whatever the limits say.
const maxNesting = 100

// parser reads one JSON text (RFC 8259, strict). Leaves get the time now.
type parser struct {
	s     string
	i     int
	now   int64
	depth int
	stack []value // members and elements of the containers being read
	arena []value // where those of finished ones live
	deep  bool    // failed for nesting
}

// parseJSON reads all of s. The only errors are ErrInvalidJSON and too deep.
func parseJSON(s string, now int64, maxDepth int) (value, error) {
	var scratch [24]value
	p := parser{s: s, now: now, stack: scratch[:0], arena: make([]value, 0, len(s)/16+4)}
	p.space()
	var v value
	ok := p.value(&v)
	if p.space(); ok && p.i == len(s) {
		return v, nil
	}
	if p.deep {
		return value{}, errTooDeep(maxDepth)
	}
	return value{}, ErrInvalidJSON
}

func (p *parser) space() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\n', '\r':
			p.i++
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

func (p *parser) value(v *value) bool {
	v.time = p.now
	switch c := p.peek(); c {
	case '{', '[':
		if p.depth++; p.depth > maxNesting {
			p.deep = true
			return false
		}
		p.i++
		ok := p.container(v, c == '{')
		p.depth--
		return ok
	case '"':
		s, ok := p.str()
		v.kind, v.text = text, s
		return ok
	case 't':
		return p.literal(v, boolean, "true")
	case 'f':
		return p.literal(v, boolean, "false")
	case 'n':
		return p.literal(v, null, "null")
	default:
		v.kind = number
		return p.number(v)
	}
}

func (p *parser) literal(v *value, k kind, word string) bool {
	if len(p.s)-p.i < len(word) || p.s[p.i:p.i+len(word)] != word {
		return false
	}
	v.kind, v.text = k, word
	p.i += len(word)
	return true
}

func (p *parser) number(v *value) bool {
	start := p.i
	if p.peek() == '-' {
		p.i++
	}
	if p.peek() == '0' {
		p.i++
	} else if !p.digits() {
		return false
	}
	if p.peek() == '.' {
		p.i++
		if !p.digits() {
			return false
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.i++
		if c := p.peek(); c == '+' || c == '-' {
			p.i++
		}
		if !p.digits() {
			return false
		}
	}
	v.text = p.s[start:p.i]
	return true
}

func (p *parser) digits() bool {
	start := p.i
	for p.i < len(p.s) && p.s[p.i]-'0' <= 9 {
		p.i++
	}
	return p.i > start
}

// container reads what follows the opening bracket.
func (p *parser) container(v *value, isObject bool) bool {
	v.kind, v.time = array, 0
	closing := byte(']')
	if isObject {
		v.kind, closing = object, '}'
	}
	base := len(p.stack)
	p.space()
	if p.peek() == closing {
		p.i++
		return true
	}
	for {
		var m value
		if isObject {
			k, ok := p.str()
			if !ok {
				return false
			}
			m.key = k[1 : len(k)-1]
			p.space()
			if p.peek() != ':' {
				return false
			}
			p.i++
			p.space()
		}
		if !p.value(&m) {
			return false
		}
		v.gaps = v.gaps || m.kind == null || m.gaps
		p.stack = append(p.stack, m)
		p.space()
		c := p.peek()
		p.i++
		if c == closing {
			break
		}
		if c != ',' {
			return false
		}
		p.space()
	}
	members := p.stack[base:]
	if isObject {
		members = lastOfEach(members)
	}
	v.kids = p.keep(members)
	clear(p.stack[base:])
	p.stack = p.stack[:base]
	return true
}

// keep copies members to where they stay.
func (p *parser) keep(members []value) []value {
	n := len(members)
	if cap(p.arena)-len(p.arena) < n {
		p.arena = make([]value, 0, max(n, 32))
	}
	at := len(p.arena)
	p.arena = append(p.arena, members...)
	return p.arena[at : at+n : at+n]
}

// lastOfEach removes members whose name comes again; the last one counts and
// keeps the place of the first.
func lastOfEach(members []value) []value {
	if len(members) <= keyMapAbove {
		for i := 1; i < len(members); i++ {
			for j := range i {
				if members[j].key == members[i].key {
					members[j] = members[i]
					members = append(members[:i], members[i+1:]...)
					i--
					break
				}
			}
		}
		return members
	}
	at := make(map[string]int, len(members))
	kept := members[:0]
	for _, m := range members {
		if i, twice := at[m.key]; twice {
			kept[i] = m
			continue
		}
		at[m.key] = len(kept)
		kept = append(kept, m)
	}
	return kept
}

// str reads a string and returns its canonical JSON text, quotes included.
func (p *parser) str() (string, bool) {
	if p.peek() != '"' {
		return "", false
	}
	start := p.i
	for i := start + 1; i < len(p.s); i++ {
		switch c := p.s[i]; {
		case c == '"':
			p.i = i + 1
			return p.s[start:p.i], true
		case c == '\\':
			return p.escaped(start, i)
		case c < ' ':
			return "", false
		}
	}
	return "", false
}

// escaped reads the string that starts at start and whose first backslash is at
// i, and rewrites it with no escapes but the needed ones, so that equal strings
// have equal texts.
func (p *parser) escaped(start, i int) (string, bool) {
	out := append(make([]byte, 0, len(p.s[start:i])+32), p.s[start:i]...)
	for i < len(p.s) {
		c := p.s[i]
		i++
		switch {
		case c == '"':
			p.i = i
			return string(append(out, '"')), true
		case c < ' ':
			return "", false
		case c != '\\':
			out = append(out, c)
			continue
		}
		if i == len(p.s) {
			return "", false
		}
		c = p.s[i]
		i++
		var r rune
		switch c {
		case '"', '\\', '/':
			r = rune(c)
		case 'b':
			r = '\b'
		case 'f':
			r = '\f'
		case 'n':
			r = '\n'
		case 'r':
			r = '\r'
		case 't':
			r = '\t'
		case 'u':
			var ok bool
			if r, ok = hex4(p.s[i:]); !ok {
				return "", false
			}
			i += 4
			if utf16.IsSurrogate(r) {
				if len(p.s)-i < 6 || p.s[i] != '\\' || p.s[i+1] != 'u' {
					return "", false
				}
				low, ok := hex4(p.s[i+2:])
				if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
					return "", false
				}
				i += 6
			}
		default:
			return "", false
		}
		out = appendEscaped(out, r)
	}
	return "", false
}

func hex4(s string) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range []byte(s[:4]) {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20-'a' <= 5:
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// appendEscaped appends r as it stands in a canonical JSON string.
func appendEscaped(out []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	switch r {
	case '"', '\\':
		return append(out, '\\', byte(r))
	case '\b':
		return append(out, '\\', 'b')
	case '\f':
		return append(out, '\\', 'f')
	case '\n':
		return append(out, '\\', 'n')
	case '\r':
		return append(out, '\\', 'r')
	case '\t':
		return append(out, '\\', 't')
	}
	if r < ' ' {
		return append(out, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
	}
	return utf8.AppendRune(out, r)
}
