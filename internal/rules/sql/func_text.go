package sql

import (
	"strings"
	"unicode/utf8"
)

// text2 converts two arguments to String; a Null or Undefined one makes ok false.
func (f *frame) text2(a, b value) (s, t string, ok bool) {
	s, ok1 := f.toText(a)
	t, ok2 := f.toText(b)
	f.spend((len(s) + len(t)) / 64)
	return s, t, ok1 && ok2
}

// mapText applies fn to an argument as a String.
func mapText(f *frame, v value, fn func(string) string) value {
	s, ok := f.toText(v)
	if !ok || !f.spend(len(s)/64) {
		return value{}
	}
	return stringValue(f.built(fn(s)))
}

func lower(f *frame, v value) value { return mapText(f, v, strings.ToLower) }
func upper(f *frame, v value) value { return mapText(f, v, strings.ToUpper) }

// trim removes white space as Java does, what is up to U+0020.
func trim(f *frame, v value) value {
	return mapText(f, v, func(s string) string {
		return strings.TrimFunc(s, func(r rune) bool { return r <= ' ' })
	})
}

func trimLeft(f *frame, v value) value {
	return mapText(f, v, func(s string) string { return strings.TrimLeft(s, " \t") })
}

func trimRight(f *frame, v value) value {
	return mapText(f, v, func(s string) string { return strings.TrimRight(s, " \t") })
}

func length(f *frame, v value) value {
	s, ok := f.toText(v)
	if !ok {
		return value{}
	}
	f.spend(len(s) / 64)
	return intValue(int64(utf8.RuneCountInString(s)))
}

func numBytes(f *frame, v value) value {
	s, ok := f.toText(v)
	if !ok {
		return value{}
	}
	return intValue(int64(len(s)))
}

func startsWith(f *frame, a, b value) value {
	s, t, ok := f.text2(a, b)
	if !ok {
		return value{}
	}
	return boolValue(strings.HasPrefix(s, t))
}

func endsWith(f *frame, a, b value) value {
	s, t, ok := f.text2(a, b)
	if !ok {
		return value{}
	}
	return boolValue(strings.HasSuffix(s, t))
}

func indexOf(f *frame, a, b value) value {
	s, t, ok := f.text2(a, b)
	if !ok {
		return value{}
	}
	i := strings.Index(s, t)
	if i > 0 {
		i = utf8.RuneCountInString(s[:i])
	}
	return intValue(int64(i))
}

func chr(_ *frame, v value) value {
	i, ok := v.toIndex()
	if !ok || i < 0 || i > 127 {
		return value{}
	}
	return stringValue(string(rune(i)))
}

const maxPadding = 1000

func padding(f *frame, v, count value) (s, spaces string, ok bool) {
	s, ok1 := f.toText(v)
	n, ok2 := count.toIndex()
	return s, strings.Repeat(" ", int(max(0, min(n, maxPadding)))), ok1 && ok2
}

func padLeft(f *frame, v, count value) value {
	s, spaces, ok := padding(f, v, count)
	if !ok {
		return value{}
	}
	return stringValue(f.built(spaces + s))
}

func padRight(f *frame, v, count value) value {
	s, spaces, ok := padding(f, v, count)
	if !ok {
		return value{}
	}
	return stringValue(f.built(s + spaces))
}

func replace(f *frame, args []value) value {
	s, from, ok := f.text2(args[0], args[1])
	to, ok2 := f.toText(args[2])
	if !ok || !ok2 || !f.spend(len(s)/64) {
		return value{}
	}
	if n := strings.Count(s, from); !f.fits(len(s)+n*(len(to)-len(from))) || !f.fits(n) {
		return value{}
	}
	return stringValue(f.built(strings.ReplaceAll(s, from, to)))
}

func substring(f *frame, args []value) value {
	s, ok := f.toText(args[0])
	from, ok1 := args[1].toIndex()
	if !ok || !ok1 {
		return value{}
	}
	to := int64(len(s))
	if len(args) == 3 {
		var isNumber bool
		if to, isNumber = args[2].toIndex(); !isNumber {
			return value{}
		}
	}
	f.spend(len(s) / 64)
	start := runeOffset(s, from)
	end := max(start, runeOffset(s, to))
	return stringValue(s[start:end])
}

// runeOffset is where the nth character begins, within s.
func runeOffset(s string, n int64) int {
	if n <= 0 {
		return 0
	}
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

// concat joins Arrays when there is one, Strings otherwise.
func concat(f *frame, args []value) value {
	switch len(args) {
	case 0:
		return value{}
	case 1:
		return args[0]
	}
	for _, v := range args {
		if v.kind == arrayKind {
			return concatArrays(f, args)
		}
	}
	size := 0
	parts := make([]string, len(args))
	for i, v := range args {
		s, ok := f.toText(v)
		if size += len(s); !ok || !f.fits(size) {
			return value{}
		}
		parts[i] = s
	}
	return stringValue(f.built(strings.Join(parts, "")))
}

func concatArrays(f *frame, args []value) value {
	all := []value{}
	for _, v := range args {
		switch v.kind {
		case arrayKind:
			items := f.items(v)
			if !f.spend(len(items)) {
				return value{}
			}
			all = append(all, items...)
		case undefinedKind:
		default:
			all = append(all, v)
		}
	}
	return arrayValue(all)
}
