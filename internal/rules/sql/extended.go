package sql

// Bounds of what extended does without building an object.
const (
	maxExtended = 32 // members of the payload
	maxExtras   = 8  // columns
)

// extended turns SELECT *, x AS a, … into a copy of the payload's members with the
// columns after them; ok is false when the columns or the payload are not that simple.
func extended(columns []column, of []eval) func(f *frame) (out Output, ok bool) {
	extras, of := columns[1:], of[1:]
	if !columns[0].star || !isFlat(extras) || len(extras) > maxExtras {
		return func(*frame) (Output, bool) { return Output{}, false }
	}
	keys := make([]string, len(extras))
	size := 2
	for i, col := range extras {
		keys[i] = string(appendString(nil, col.path[0])) + ":"
		size += len(keys[i]) + 24
	}
	return func(f *frame) (Output, bool) {
		var buf [maxExtended]rawMember
		members, ok := f.rawMembers(buf[:0])
		if !ok {
			return Output{}, false
		}
		var vals [maxExtras]value
		for i := range of {
			vals[i] = of[i](f)
		}
		dst := append(make([]byte, 0, len(f.in.Payload)+size), '{')
	next:
		for i, m := range members {
			for j := range extras {
				if m.key == extras[j].path[0] && !vals[j].isUndefined() {
					continue next
				}
			}
			for _, later := range members[i+1:] {
				if later.key == m.key {
					continue next
				}
			}
			if len(dst) > 1 {
				dst = append(dst, ',')
			}
			dst = appendCompact(append(appendString(dst, m.key), ':'), m.raw)
		}
		for j := range extras {
			if vals[j].isUndefined() {
				continue
			}
			if len(dst) > 1 {
				dst = append(dst, ',')
			}
			dst = f.appendValue(append(dst, keys[j]...), vals[j])
		}
		return f.finish(append(dst, '}')), true
	}
}

// rawMember is a member of the payload as text.
type rawMember struct{ key, raw string }

// rawMembers are the members of the payload; ok is false when it is no object, or too
// large a one for dst.
func (f *frame) rawMembers(dst []rawMember) (members []rawMember, ok bool) {
	if !f.scanned {
		f.scan()
	}
	if f.whole.raw == "" || f.whole.raw[0] != '{' {
		return nil, false
	}
	p := scanner{s: f.whole.raw, i: 1}
	for p.space(); p.s[p.i] != '}'; p.space() {
		if p.s[p.i] == ',' {
			p.i++
			continue
		}
		if len(dst) == cap(dst) {
			return nil, false
		}
		key, _ := p.str()
		p.space()
		p.i++ // the colon
		p.space()
		start := p.i
		p.skip()
		dst = append(dst, rawMember{unquote(key), p.s[start:p.i]})
	}
	return dst, true
}
