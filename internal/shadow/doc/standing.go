package doc

import "unicode/utf8"

// Standing is how a shadow stands to a desired state that somebody wants it to have.
type Standing struct {
	// Held tells that desired has all of it: to send it would change no value.
	Held bool
	// Differs tells that the delta names something of it.
	Differs bool
}

// Stand compares the body of an accepted get with the desired state of an
// update, in which null removes and objects are merged; get is nil for a shadow
// that does not exist.
//
// Errors: ErrInvalidJSON, ErrStateNotObject (a part that is no object).
func Stand(get, wanted []byte) (s Standing, err error) {
	want, err := parseObject(wanted)
	if err != nil {
		return s, err
	}
	body := value{kind: object}
	if get != nil {
		if body, err = parseObject(get); err != nil {
			return s, err
		}
	}
	state := &value{kind: object}
	if found := body.member("state"); found != nil {
		state = found
	}
	desired, delta := state.member("desired"), state.member("delta")
	if desired != nil {
		s.Held = holds(desired, &want)
	} else {
		_, some := withoutNulls(&want)
		s.Held = !some
	}
	s.Differs = delta != nil && touches(delta, &want)
	return s, nil
}

// parseObject reads an object.
func parseObject(text []byte) (value, error) {
	if !utf8.Valid(text) {
		return value{}, ErrInvalidJSON
	}
	v, err := parseJSON(string(text), 0, maxNesting)
	switch {
	case err != nil:
		return v, ErrInvalidJSON
	case v.kind != object:
		return v, ErrStateNotObject
	}
	return v, nil
}

// holds tells whether mergeObject(base, patch) would leave the values of base as they are.
func holds(base, patch *value) bool {
	f := find(base.kids, len(patch.kids))
	for i := range patch.kids {
		p := &patch.kids[i]
		j := f.index(p.key)
		switch {
		case p.kind == null:
			if j >= 0 {
				return false
			}
		case j < 0:
			if _, some := withoutNulls(p); some {
				return false
			}
		case p.kind == object && base.kids[j].kind == object:
			if !holds(&base.kids[j], p) {
				return false
			}
		case !equal(&base.kids[j], p):
			return false
		}
	}
	return true
}

// touches tells whether delta has a value where patch has one.
func touches(delta, patch *value) bool {
	f := find(delta.kids, len(patch.kids))
	for i := range patch.kids {
		p := &patch.kids[i]
		j := f.index(p.key)
		if j < 0 || p.kind == null {
			continue
		}
		if p.kind != object || delta.kids[j].kind != object || touches(&delta.kids[j], p) {
			return true
		}
	}
	return false
}
