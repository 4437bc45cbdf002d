package sql

import (
	"strings"
)

// kind is a data type of the language.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-data-types.html
type kind uint8

const (
	undefinedKind kind = iota
	nullKind
	boolKind
	numberKind
	stringKind
	arrayKind
	objectKind
)

// value is a value of the language; its zero value is Undefined. Values are immutable.
type value struct {
	kind kind
	number
	text string  // of a String; the truth of a Boolean is number.lo
	arr  *array  // of an Array
	obj  *object // of an Object
}

// array is an Array: the text of JSON until someone looks inside.
type array struct {
	raw   string // source while items is nil
	items []value
}

// object is an Object: the text of JSON until someone looks inside. Keys are distinct.
type object struct {
	raw   string // source while parsed is false
	keys  []string
	vals  []value
	index map[string]int // of larger objects

	parsed bool
}

func boolValue(b bool) value {
	if b {
		return value{kind: boolKind, number: number{lo: 1}}
	}
	return value{kind: boolKind}
}

func stringValue(s string) value { return value{kind: stringKind, text: s} }
func intValue(i int64) value     { return value{kind: numberKind, number: intNumber(i)} }

// numberValue is n, or Undefined when ok is false.
func numberValue(n number, ok bool) value {
	if !ok {
		return value{}
	}
	return value{kind: numberKind, number: n}
}

func arrayValue(items []value) value {
	if items == nil {
		items = []value{}
	}
	return value{kind: arrayKind, arr: &array{items: items}}
}

func objectValue(o *object) value { return value{kind: objectKind, obj: o} }

func (v value) isUndefined() bool { return v.kind == undefinedKind }
func (v value) isTrue() bool      { return v.kind == boolKind && v.lo == 1 }

// smallObject is up to which size keys are searched one by one.
const smallObject = 8

func newObject(size int) *object {
	return &object{keys: make([]string, 0, size), vals: make([]value, 0, size), parsed: true}
}

// find is the position of a key, or -1.
func (o *object) find(key string) int {
	if o.index != nil {
		if i, ok := o.index[key]; ok {
			return i
		}
		return -1
	}
	for i, k := range o.keys {
		if k == key {
			return i
		}
	}
	return -1
}

// set gives key a value; a repeated key keeps its place.
func (o *object) set(key string, v value) {
	if i := o.find(key); i >= 0 {
		o.vals[i] = v
		return
	}
	o.keys, o.vals = append(o.keys, key), append(o.vals, v)
	if o.index != nil {
		o.index[key] = len(o.keys) - 1
	} else if len(o.keys) > smallObject {
		o.index = make(map[string]int, 2*len(o.keys))
		for i, k := range o.keys {
			o.index[k] = i
		}
	}
}

// copy is an object that may be changed without changing o.
func (o *object) copy() *object {
	c := newObject(len(o.keys))
	for i, k := range o.keys {
		c.set(k, o.vals[i])
	}
	return c
}

// toDecimal is the standard conversion to a number; ok is false when there is none.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-data-types.html#iot-sql-conversions
func (v value) toDecimal() (n number, ok bool) {
	switch v.kind {
	case numberKind:
		return v.number, true
	case stringKind:
		n, ok = parseNumber(v.text, false)
		n.flags |= decimal
		return n, ok
	}
	return number{}, false
}

// toInt is the conversion to an Int; fractions are rounded down, as the examples of
// the functions do.
func (v value) toInt() (n number, ok bool) {
	n, ok = v.toDecimal()
	if !ok {
		return number{}, false
	}
	return n.toInt(down)
}

// toIndex is toInt for positions: what is out of int64 is clamped to ±2^40.
func (v value) toIndex() (i int64, ok bool) {
	const far = 1 << 40
	n, ok := v.toDecimal()
	if !ok {
		return 0, false
	}
	if r, fits := n.toInt(down); fits {
		return r.int64(far), true
	}
	if n.isNegative() {
		return -far, true
	}
	return far, true
}

// toBool is the conversion of AND, OR and NOT.
func (v value) toBool() (b, ok bool) {
	switch v.kind {
	case boolKind:
		return v.lo == 1, true
	case stringKind:
		switch {
		case strings.EqualFold(v.text, "true"):
			return true, true
		case strings.EqualFold(v.text, "false"):
			return false, true
		}
	}
	return false, false
}

// toText is the standard conversion to a String; ok is false for Null and Undefined.
func (f *frame) toText(v value) (s string, ok bool) {
	switch v.kind {
	case undefinedKind, nullKind:
		return "", false
	case stringKind:
		return v.text, true
	case boolKind:
		if v.lo == 1 {
			return "true", true
		}
		return "false", true
	}
	var buf [64]byte
	return f.built(string(f.appendValue(buf[:0], v))), true
}

// equal compares without conversions; it is Undefined (ok is false) when a side is.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-operators.html#iot-sql-operators-eq
func (f *frame) equal(a, b value) (eq, ok bool) {
	if a.kind == undefinedKind || b.kind == undefinedKind {
		return false, false
	}
	return f.same(a, b), true
}

// same is equality inside arrays and objects.
func (f *frame) same(a, b value) bool {
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case boolKind:
		return a.lo == b.lo
	case numberKind:
		return a.cmp(b.number) == 0
	case stringKind:
		return a.text == b.text
	case arrayKind:
		x, y := f.items(a), f.items(b)
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			if !f.spend(1) || !f.same(x[i], y[i]) {
				return false
			}
		}
	case objectKind:
		x, y := f.members(a), f.members(b)
		if len(x.keys) != len(y.keys) {
			return false
		}
		for i, k := range x.keys {
			j := y.find(k)
			if !f.spend(1) || j < 0 || !f.same(x.vals[i], y.vals[j]) {
				return false
			}
		}
	}
	return true
}
