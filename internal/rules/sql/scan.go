package sql

import (
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep a payload may nest; a deeper one counts as not JSON.
const maxDepth = 512

// scanner walks over the text of JSON, checking it, without building anything.
type scanner struct {
	s     string
	i     int
	depth int
}

func (p *scanner) space() {
	if p.i < len(p.s) && p.s[p.i] > ' ' {
		return
	}
	for p.i < len(p.s) && (p.s[p.i] == ' ' || p.s[p.i] == '\t' || p.s[p.i] == '\n' || p.s[p.i] == '\r') {
		p.i++
	}
}

// skip passes over one value; it tells whether there was one.
func (p *scanner) skip() bool {
	if p.i >= len(p.s) {
		return false
	}
	switch c := p.s[p.i]; {
	case c == '"':
		_, ok := p.str()
		return ok
	case c == '{':
		return p.object(nil, nil)
	case c == '[':
		return p.array()
	case c == '-' || c-'0' <= 9:
		return p.num()
	case c == 't':
		return p.word("true")
	case c == 'f':
		return p.word("false")
	case c == 'n':
		return p.word("null")
	}
	return false
}

func (p *scanner) word(w string) bool {
	if !strings.HasPrefix(p.s[p.i:], w) {
		return false
	}
	p.i += len(w)
	return true
}

// plain tells which bytes stand for themselves in a string.
var plain = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= ' ' && c != '"' && c != '\\'
	}
	return t
}()

// str passes over a string and returns what is between its quotes.
func (p *scanner) str() (raw string, ok bool) {
	s, i := p.s, p.i+1
	start := i
	for i < len(s) {
		if plain[s[i]] {
			i++
			continue
		}
		switch c := s[i]; {
		case c == '"':
			p.i = i + 1
			return s[start:i], true
		case c < ' ' || i+1 >= len(s):
			return "", false
		case s[i+1] == 'u':
			if i+6 > len(s) || !isHex(s[i+2:i+6]) {
				return "", false
			}
			i += 6
		case strings.IndexByte(`"\/bfnrt`, s[i+1]) >= 0:
			i += 2
		default:
			return "", false
		}
	}
	return "", false
}

func isHex(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if c-'0' > 9 && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func (p *scanner) num() bool {
	s, i := p.s, p.i
	if i < len(s) && s[i] == '-' {
		i++
	}
	from := i
	i = skipDigits(s, i)
	if i == from || s[from] == '0' && i > from+1 {
		return false
	}
	if i < len(s) && s[i] == '.' {
		from = i + 1
		if i = skipDigits(s, from); i == from {
			return false
		}
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		from = i
		if i = skipDigits(s, from); i == from {
			return false
		}
	}
	p.i = i
	return true
}

func skipDigits(s string, i int) int {
	for i < len(s) && s[i]-'0' <= 9 {
		i++
	}
	return i
}

func (p *scanner) array() bool {
	if p.depth++; p.depth > maxDepth {
		return false
	}
	p.i++
	p.space()
	for first := true; ; first = false {
		if p.i >= len(p.s) {
			return false
		}
		if p.s[p.i] == ']' {
			if !first {
				return false
			}
			break
		}
		if !p.skip() {
			return false
		}
		p.space()
		if p.i >= len(p.s) {
			return false
		}
		if p.s[p.i] == ']' {
			break
		}
		if p.s[p.i] != ',' {
			return false
		}
		p.i++
		p.space()
	}
	p.i++
	p.depth--
	return true
}

// object passes over an object and notes in slots where the values of n's children are.
func (p *scanner) object(n *pathNode, slots []slot) bool {
	if p.depth++; p.depth > maxDepth {
		return false
	}
	p.i++
	p.space()
	for first := true; ; first = false {
		if p.i >= len(p.s) {
			return false
		}
		if p.s[p.i] == '}' {
			if !first {
				return false
			}
			break
		}
		if p.s[p.i] != '"' {
			return false
		}
		key, ok := p.str()
		if !ok {
			return false
		}
		p.space()
		if p.i >= len(p.s) || p.s[p.i] != ':' {
			return false
		}
		p.i++
		p.space()
		if n == nil {
			ok = p.skip()
		} else {
			ok = p.member(n.child(key), slots)
		}
		if !ok {
			return false
		}
		p.space()
		if p.i >= len(p.s) {
			return false
		}
		if p.s[p.i] == '}' {
			break
		}
		if p.s[p.i] != ',' {
			return false
		}
		p.i++
		p.space()
	}
	p.i++
	p.depth--
	return true
}

// member passes over a member's value, which n (when not nil) wants.
func (p *scanner) member(n *pathNode, slots []slot) bool {
	if n == nil {
		return p.skip()
	}
	if slots[n.slot].raw != "" { // a repeated key: the last one counts
		n.forget(slots)
	}
	start := p.i
	ok := false
	if len(n.children) > 0 && p.i < len(p.s) && p.s[p.i] == '{' {
		ok = p.object(n, slots)
	} else {
		ok = p.skip()
	}
	if ok {
		slots[n.slot].raw = p.s[start:p.i]
	}
	return ok
}

// pathNode is a name in the tree of all paths into the payload that a program reads.
type pathNode struct {
	key      string
	slot     int
	children []*pathNode
}

func (n *pathNode) child(raw string) *pathNode {
	if strings.IndexByte(raw, '\\') >= 0 {
		raw = unquote(raw)
	}
	for _, c := range n.children {
		if c.key == raw {
			return c
		}
	}
	return nil
}

func (n *pathNode) forget(slots []slot) {
	slots[n.slot] = slot{}
	for _, c := range n.children {
		c.forget(slots)
	}
}

// isJSON tells whether s is one JSON value, as UTF-8, with or without space around it.
func isJSON(s string) bool {
	p := scanner{s: s}
	p.space()
	if !utf8.ValidString(s) || !p.skip() {
		return false
	}
	p.space()
	return p.i == len(s)
}
