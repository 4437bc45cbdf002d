package sql

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// unquote resolves the escapes of what is between the quotes of a checked JSON string.
func unquote(raw string) string {
	first := strings.IndexByte(raw, '\\')
	if first < 0 {
		return raw
	}
	out := append(make([]byte, 0, len(raw)), raw[:first]...)
	for i := first; i < len(raw); {
		c := raw[i]
		if c != '\\' {
			out = append(out, c)
			i++
			continue
		}
		switch e := raw[i+1]; e {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hex4(raw[i+2:])
			i += 4
			if utf16.IsSurrogate(r) {
				var low rune
				if strings.HasPrefix(raw[i+2:], `\u`) {
					low = hex4(raw[i+4:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					i += 6
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, e)
		}
		i += 2
	}
	return string(out)
}

func hex4(s string) rune {
	var r rune
	for i := range 4 {
		c := s[i]
		if c > '9' {
			c = c | 0x20 - 'a' + 10 + '0'
		}
		r = r<<4 | rune(c-'0')
	}
	return r
}

// fromJSON is the value of a checked JSON text without space around it. whole makes
// numbers like 10.0 Ints, as versions since 2016-03-23 do.
func fromJSON(raw string, whole bool) value {
	if raw == "" {
		return value{}
	}
	switch c := raw[0]; c {
	case '"':
		return stringValue(unquote(raw[1 : len(raw)-1]))
	case '{':
		return objectValue(&object{raw: raw})
	case '[':
		return value{kind: arrayKind, arr: &array{raw: raw}}
	case 't', 'f':
		return boolValue(c == 't')
	case 'n':
		return value{kind: nullKind}
	}
	n, ok := parseNumber(raw, true)
	if ok && whole && n.isDecimal() {
		if w, isWhole := n.whole(); isWhole {
			n = w
		}
	}
	return numberValue(n, ok)
}

// items are the elements of an Array.
func (f *frame) items(v value) []value {
	a := v.arr
	if a.items == nil {
		f.spend(len(a.raw) / 32)
		items := make([]value, 0, 8)
		p := scanner{s: a.raw, i: 1}
		for p.space(); p.s[p.i] != ']'; p.space() {
			if p.s[p.i] == ',' {
				p.i++
				continue
			}
			start := p.i
			if !p.skip() {
				break // not for checked text
			}
			items = append(items, fromJSON(p.s[start:p.i], f.prog.whole))
		}
		a.items = items
	}
	return a.items
}

// members is the content of an Object.
func (f *frame) members(v value) *object {
	o := v.obj
	if !o.parsed {
		f.spend(len(o.raw) / 32)
		o.parsed = true
		p := scanner{s: o.raw, i: 1}
		for p.space(); p.s[p.i] != '}'; p.space() {
			if p.s[p.i] == ',' {
				p.i++
				continue
			}
			key, ok := p.str()
			if !ok {
				break // not for checked text
			}
			p.space()
			p.i++ // the colon
			p.space()
			start := p.i
			if !p.skip() {
				break
			}
			o.set(unquote(key), fromJSON(p.s[start:p.i], f.prog.whole))
		}
	}
	return o
}

// member is a member of an Object, Undefined for other values and absent keys.
func (f *frame) member(v value, key string) value {
	if v.kind != objectKind {
		return value{}
	}
	o := f.members(v)
	if i := o.find(key); i >= 0 {
		return o.vals[i]
	}
	return value{}
}

// appendValue writes a value as compact JSON; Undefined, and Undefined members and
// elements, are left out.
func (f *frame) appendValue(dst []byte, v value) []byte {
	switch v.kind {
	case nullKind:
		return append(dst, "null"...)
	case boolKind:
		if v.lo == 1 {
			return append(dst, "true"...)
		}
		return append(dst, "false"...)
	case numberKind:
		return f.appendNumber(dst, v.number)
	case stringKind:
		return appendString(dst, v.text)
	case arrayKind:
		dst = append(dst, '[')
		sep := false
		items := f.items(v)
		f.spend(1 + len(items)/16)
		for _, item := range items {
			if item.isUndefined() {
				continue
			}
			if sep {
				dst = append(dst, ',')
			}
			sep = true
			if dst = f.appendValue(dst, item); !f.fits(len(dst)) {
				return dst
			}
		}
		return append(dst, ']')
	case objectKind:
		dst = append(dst, '{')
		sep := false
		o := f.members(v)
		f.spend(1 + len(o.keys)/16)
		for i, key := range o.keys {
			if o.vals[i].isUndefined() {
				continue
			}
			if sep {
				dst = append(dst, ',')
			}
			sep = true
			dst = append(appendString(dst, key), ':')
			if dst = f.appendValue(dst, o.vals[i]); !f.fits(len(dst)) {
				return dst
			}
		}
		return append(dst, '}')
	}
	return dst
}

// appendNumber writes a number; since 2016-03-23 a whole one has no fraction.
func (f *frame) appendNumber(dst []byte, n number) []byte {
	if f.prog.whole && n.exp != 0 {
		if w, ok := n.whole(); ok {
			n = w
		}
	} else if n.exp > 0 && !n.isDecimal() {
		if w, ok := n.whole(); ok {
			n = w
		}
	}
	return n.appendText(dst)
}

const hexDigits = "0123456789abcdef"

// appendString writes a JSON string.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(append(dst, s[start:]...), '"')
}

// appendCompact writes checked JSON text without the space between its tokens.
func appendCompact(dst []byte, raw string) []byte {
	start := 0
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '"':
			for i++; raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
		case ' ', '\t', '\n', '\r':
			dst = append(dst, raw[start:i]...)
			start = i + 1
		}
	}
	return append(dst, raw[start:]...)
}
