package sql

import (
	"encoding/base64"
	"strings"
)

// castType is what cast makes of a value.
type castType uint8

const (
	castString castType = iota
	castInt
	castDecimal
	castDouble
	castBool
)

// castTypeOf is the type that a word after AS names, in any case.
func castTypeOf(word string) (t castType, since version, ok bool) {
	switch strings.ToLower(word) {
	case "string", "nvarchar", "text", "ntext", "varchar":
		return castString, v1, true
	case "int", "integer":
		return castInt, v1, true
	case "double":
		return castDouble, v1, true
	case "decimal":
		return castDecimal, v2, true
	case "bool", "boolean":
		return castBool, v2, true
	}
	return 0, v1, false
}

// cast converts like the standard conversions, and between numbers and Booleans.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-functions.html#iot-sql-function-cast
func cast(f *frame, v value, to castType) value {
	switch to {
	case castString:
		s, ok := f.toText(v)
		if !ok {
			return value{}
		}
		return stringValue(s)
	case castBool:
		if v.kind == numberKind {
			return boolValue(!v.isZero())
		}
		b, ok := v.toBool()
		if !ok {
			return value{}
		}
		return boolValue(b)
	}
	n, ok := v.toDecimal()
	if v.kind == boolKind {
		n, ok = intNumber(int64(v.lo)), true
	}
	if !ok {
		return value{}
	}
	switch to {
	case castInt:
		return numberValue(n.toInt(down))
	case castDouble:
		n, ok = fromFloat(n.float())
	case castDecimal:
		n.flags |= decimal
	}
	if w, whole := n.whole(); whole && f.prog.whole {
		n = w // "numeric values that are whole numbers return an Int"
	}
	return numberValue(n, ok)
}

// get is an element, a character or a member.
func get(f *frame, of, at value) value {
	switch of.kind {
	case arrayKind:
		i, ok := at.toIndex()
		if items := f.items(of); ok && i >= 0 && i < int64(len(items)) {
			return items[i]
		}
	case stringKind:
		i, ok := at.toIndex()
		if !ok || i < 0 || i >= int64(len(of.text)) {
			return value{}
		}
		f.spend(len(of.text) / 64)
		if from, to := runeOffset(of.text, i), runeOffset(of.text, i+1); from < to {
			return stringValue(of.text[from:to])
		}
	case objectKind:
		if at.kind == stringKind {
			return f.member(of, at.text)
		}
	}
	return value{}
}

// getOrDefault is the first argument unless it is Undefined or Null.
func getOrDefault(_ *frame, args []value) value {
	if v := args[0]; v.kind != undefinedKind && v.kind != nullKind {
		return v
	}
	if len(args) == 1 {
		return value{}
	}
	return args[1]
}

func isNull(_ *frame, v value) value      { return boolValue(v.kind == nullKind) }
func isUndefined(_ *frame, v value) value { return boolValue(v.kind == undefinedKind) }

// transform adds the members of an object to each object of an array.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-functions.html#iot-func-transform
func transform(f *frame, args []value) value {
	mode, of, list := args[0], args[1], args[2]
	if mode.kind != stringKind || mode.text != "enrichArray" || of.kind != objectKind || list.kind != arrayKind {
		return value{}
	}
	extra := f.members(of)
	out := []value{}
	for _, item := range f.items(list) {
		if item.kind != objectKind {
			return value{}
		}
		o := f.members(item)
		if !f.spend(len(o.keys) + len(extra.keys) + 1) {
			return value{}
		}
		o = o.copy()
		for i, key := range extra.keys {
			o.set(key, extra.vals[i])
		}
		out = append(out, objectValue(o))
	}
	v := arrayValue(out)
	const most = 128 << 10 // "the array returned is limited to 128 KiB"
	if text := f.appendValue(nil, v); len(text) > most {
		f.fail(ErrBudget)
		return value{}
	}
	return v
}

// encode writes the payload as received, or the text of any other value, in base64.
func encode(c *compiler, args []expr) eval {
	_, star := args[0].(*starExpr)
	of, scheme := c.expr(args[0]), c.expr(args[1])
	return func(f *frame) value {
		if s := scheme(f); s.kind != stringKind || s.text != "base64" {
			return value{}
		}
		bytes := f.in.Payload
		if !star {
			text, ok := f.toText(of(f))
			if !ok {
				return value{}
			}
			bytes = []byte(text)
		}
		if !f.spend(len(bytes)/64) || !f.fits(base64.StdEncoding.EncodedLen(len(bytes))) {
			return value{}
		}
		return stringValue(f.built(base64.StdEncoding.EncodeToString(bytes)))
	}
}

// decode is the JSON or the text behind base64, or a Protobuf message as JSON. What
// can not be decoded is Null.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-functions.html#iot-sql-decode-base64
func decode(c *compiler, args []expr) eval {
	if scheme, ok := c.text(args[1]); ok && scheme == "proto" {
		return decodeProto(c, args)
	}
	if len(args) != 2 {
		return undefined
	}
	of, scheme := c.expr(args[0]), c.expr(args[1])
	return func(f *frame) value {
		if s := scheme(f); s.kind != stringKind || s.text != "base64" {
			return value{}
		}
		v := of(f)
		if v.kind == undefinedKind || v.kind == nullKind {
			return value{}
		}
		if v.kind != stringKind {
			return value{kind: nullKind}
		}
		data, err := base64.StdEncoding.DecodeString(v.text)
		if err != nil || !f.spend(len(data)/64) {
			return value{kind: nullKind}
		}
		return f.parsed(f.built(string(data)))
	}
}

// parsed is the value of a text: what it is as JSON, or the text itself.
func (f *frame) parsed(text string) value {
	if isJSON(text) {
		return fromJSON(strings.Trim(text, " \t\r\n"), f.prog.whole)
	}
	return stringValue(strings.ToValidUTF8(text, "\uFFFD"))
}
