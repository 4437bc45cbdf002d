package doc

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits bound documents and requests; a zero member means AWS's value.
type Limits struct {
	// Bytes is the most that desired and reported may take as compact JSON,
	// metadata not counted (8192).
	Bytes int
	// Depth is the most levels of members and elements below desired or
	// reported (6).
	Depth int
}

func (l Limits) withDefaults() Limits {
	if l.Bytes <= 0 {
		l.Bytes = 8192
	}
	if l.Depth <= 0 {
		l.Depth = 6
	}
	l.Depth = min(l.Depth, maxNesting-2) // below the root and state
	return l
}

// maxTokenBytes is AWS's limit on clientToken.
const maxTokenBytes = 64

// Token is a clientToken as JSON text, "" when there was none.
type Token string

// Update is a checked update request.
type Update struct {
	// Token is the request's clientToken.
	Token Token

	limits     Limits
	now        int64
	version    int64
	hasVersion bool
	clear      bool // {"state":null}
	replace    bool // sections are replaced, not merged
	state      value
}

// ParseUpdate reads an update request that arrived in second now:
//
//	{"state":{"desired":{…}|null,"reported":{…}|null}|null,"version":int?,"clientToken":string?}
//
// A state of null clears both sections, {} changes nothing; both count as an
// update. Other members of the root are ignored, other members of state are
// not. With an *Error the Update holds the Token alone, for the refusal.
func ParseUpdate(payload []byte, now int64, limits Limits) (*Update, error) {
	u := &Update{now: now, limits: limits.withDefaults()}
	if len(payload) > 16*u.limits.Bytes {
		return u, ErrTooLarge
	}
	if !utf8.Valid(payload) {
		return u, ErrEncoding
	}
	root, err := parseJSON(string(payload), now, u.limits.Depth)
	if err != nil {
		return u, err
	}
	if root.kind != object {
		return u, ErrInvalidJSON
	}
	if u.Token, err = token(&root); err != nil {
		return u, err
	}
	if err := u.takeState(root.member("state")); err != nil {
		return u, err
	}
	if v := root.member("version"); v != nil && v.kind != null {
		u.version, err = strconv.ParseInt(v.text, 10, 64)
		if v.kind != number || err != nil || u.version < 0 {
			return u, ErrInvalidVersion
		}
		u.hasVersion = true
	}
	return u, nil
}

func (u *Update) takeState(state *value) error {
	switch {
	case state == nil:
		return ErrMissingState
	case state.kind == null:
		u.clear, u.state = true, value{kind: object}
		return nil
	case state.kind != object:
		return ErrStateNotObject
	}
	for i := range state.kids {
		section := &state.kids[i]
		switch section.key {
		case "desired":
			if section.kind != object && section.kind != null {
				return ErrDesiredNotObject
			}
		case "reported":
			if section.kind != object && section.kind != null {
				return ErrReportedNot
			}
		default:
			return ErrInvalidNode
		}
	}
	for i := range state.kids {
		if err := u.check(&state.kids[i], 0, false); err != nil {
			return err
		}
	}
	if stateSize(state) > u.limits.Bytes {
		return ErrTooLarge
	}
	u.state = *state
	return nil
}

// check looks for what a document may not hold: too many levels, and null in an
// array, at whatever level.
func (u *Update) check(v *value, level int, inArray bool) error {
	if v.kind == null && inArray {
		return ErrInvalidNode
	}
	if len(v.kids) > 0 && level == u.limits.Depth {
		return errTooDeep(u.limits.Depth)
	}
	inArray = inArray || v.kind == array
	for i := range v.kids {
		if k := &v.kids[i]; !k.leaf() || k.kind == null {
			if err := u.check(k, level+1, inArray); err != nil {
				return err
			}
		}
	}
	return nil
}

// ParseRequest reads a get or delete request: nothing, or an object that may
// have a clientToken.
func ParseRequest(payload []byte) (Token, error) {
	if len(payload) == 0 {
		return "", nil
	}
	if !utf8.Valid(payload) {
		return "", ErrEncoding
	}
	s := strings.Trim(string(payload), " \t\r\n")
	if s == "" {
		return "", nil
	}
	root, err := parseJSON(s, 0, maxNesting)
	if err != nil || root.kind != object {
		return "", ErrInvalidJSON
	}
	return token(&root)
}

func token(root *value) (Token, error) {
	t := root.member("clientToken")
	if t == nil || t.kind == null {
		return "", nil
	}
	if t.kind != text || unescapedLen(t.text)-2 > maxTokenBytes {
		return "", ErrInvalidToken
	}
	return Token(t.text), nil
}

// unescapedLen is the length of a canonical JSON string's text, quotes
// included, with each escape counted as the one byte it stands for.
func unescapedLen(s string) int {
	n := 0
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			if i++; s[i] == 'u' {
				i += 4
			}
		}
		n++
	}
	return n
}

// ParseRestore makes an update, in second now, after which desired is what it
// is in a stored form, whatever it holds before.
//
// Errors: ErrTooLarge, errors of nesting (the limits may have become narrower),
// or a damaged stored form.
func ParseRestore(stored []byte, now int64, limits Limits) (*Update, error) {
	d, err := decode(stored)
	if err != nil {
		return nil, err
	}
	w := writer{}
	w.raw(`{"state":{"desired":`)
	if d.desired == nil {
		w.raw("null")
	} else {
		w.state(d.desired)
	}
	w.raw("}}")
	u, err := ParseUpdate(w.buf, now, limits)
	if err != nil {
		return nil, err
	}
	u.replace = true
	return u, nil
}

// Desires tells whether the update touches the desired section.
func (u *Update) Desires() bool { return u.clear || u.state.member("desired") != nil }

// State is the state that was sent, as JSON.
func (u *Update) State() []byte {
	if u.clear {
		return []byte("null")
	}
	w := writer{}
	w.state(&u.state)
	return w.buf
}

// State returns the sections of a stored form as JSON, without metadata.
func State(stored []byte) ([]byte, error) {
	d, err := decode(stored)
	if err != nil {
		return nil, err
	}
	w := writer{}
	w.raw("{")
	w.sections(d, nil, w.state)
	w.raw("}")
	return w.buf, nil
}
