package doc

import "strings"

type kind uint8

const (
	null kind = iota
	boolean
	number
	text
	object
	array
)

// value is a JSON value and, in leaves, when it was written. Only requests hold
// null; a document never does.
type value struct {
	key  string  // of a member: the JSON string without its quotes, canonical
	text string  // of a leaf: its JSON text, strings canonical
	kids []value // members of an object, elements of an array
	time int64   // of a leaf: seconds since 1970
	kind kind
	gaps bool // an object or array that holds a null somewhere below
}

func (v *value) leaf() bool { return v.kind < object }

// keyMapAbove is the number of members from which members are found through a
// map: large objects must not cost quadratic time.
const keyMapAbove = 16

// finder finds members of one object by key. Updates mostly name members in the
// order in which the document has them, so it looks behind the last hit first.
type finder struct {
	kids  []value
	next  int
	byKey map[string]int
}

func find(kids []value, wanted int) finder {
	f := finder{kids: kids}
	if len(kids) > keyMapAbove && wanted > keyMapAbove {
		f.byKey = make(map[string]int, len(kids))
		for i := range kids {
			f.byKey[kids[i].key] = i
		}
	}
	return f
}

// index returns where key is, or -1.
func (f *finder) index(key string) int {
	if f.next < len(f.kids) && f.kids[f.next].key == key {
		f.next++
		return f.next - 1
	}
	if f.byKey != nil {
		i, ok := f.byKey[key]
		if !ok {
			return -1
		}
		f.next = i + 1
		return i
	}
	for i := range f.kids {
		if f.kids[i].key == key {
			f.next = i + 1
			return i
		}
	}
	return -1
}

// member returns the member of object v named key, or nil.
func (v *value) member(key string) *value {
	for i := range v.kids {
		if v.kids[i].key == key {
			return &v.kids[i]
		}
	}
	return nil
}

// equal compares as JSON values: member order and the writing of numbers do not
// count.
func equal(a, b *value) bool {
	switch {
	case a.kind != b.kind:
		return false
	case a.kind == number:
		return equalNumbers(a.text, b.text)
	case a.leaf():
		return a.text == b.text
	case len(a.kids) != len(b.kids):
		return false
	case a.kind == array:
		for i := range a.kids {
			if !equal(&a.kids[i], &b.kids[i]) {
				return false
			}
		}
		return true
	}
	f := find(b.kids, len(a.kids))
	for i := range a.kids {
		j := f.index(a.kids[i].key)
		if j < 0 || !equal(&a.kids[i], &b.kids[j]) {
			return false
		}
	}
	return true
}

// equalNumbers compares the decimal values of two JSON numbers exactly.
func equalNumbers(a, b string) bool {
	if a == b {
		return true
	}
	if !strings.ContainsAny(a, ".eE") && !strings.ContainsAny(b, ".eE") {
		return a == "0" && b == "-0" || a == "-0" && b == "0"
	}
	an, ad, ae, aok := decimal(a)
	bn, bd, be, bok := decimal(b)
	if !aok || !bok {
		return false
	}
	return ad == bd && (ad == "" || an == bn && ae == be)
}

// decimal splits a JSON number into sign, digits without outer zeros ("" is
// zero), and the exponent of ten of a decimal point before the digits; ok is
// false when the exponent is beyond any use.
func decimal(s string) (negative bool, digits string, exponent int64, ok bool) {
	if s[0] == '-' {
		negative, s = true, s[1:]
	}
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		sign := int64(1)
		e := s[i+1:]
		if e[0] == '+' || e[0] == '-' {
			if e[0] == '-' {
				sign = -1
			}
			e = e[1:]
		}
		if e = strings.TrimLeft(e, "0"); len(e) > 15 {
			return false, "", 0, false
		}
		for _, c := range []byte(e) {
			exponent = exponent*10 + int64(c-'0')
		}
		exponent *= sign
		s = s[:i]
	}
	whole, fraction, _ := strings.Cut(s, ".")
	exponent += int64(len(whole))
	digits = whole + fraction
	trimmed := strings.TrimLeft(digits, "0")
	exponent -= int64(len(digits) - len(trimmed))
	return negative, strings.TrimRight(trimmed, "0"), exponent, true
}
