package wire

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxViolations = 20   // reported of one request
	maxEcho       = 1024 // bytes of a value repeated in a message
	maxDepth      = 64   // of a body
)

// Decoder reads one request. Its methods do nothing after the first syntax
// error, which [Decoder.Err] returns.
type Decoder struct {
	json       *jsontext.Decoder
	path       []segment
	violations []string
	err        error
	name       []byte // of the member at hand, when it has escapes
	form       bool   // scalars are strings
}

// segment is one step of a path: a member's name, or an index from 1 when name
// is "".
type segment struct {
	name  string
	index int
}

// NewDecoder reads body; an empty body is an empty object.
func NewDecoder(body []byte) *Decoder {
	d := new(Decoder)
	if len(bytes.TrimLeft(body, " \t\r\n")) == 0 {
		body = []byte("{}")
	}
	d.json = jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true))
	return d
}

// NewFormDecoder reads what [FormJSON] made of a form.
func NewFormDecoder(body []byte) *Decoder {
	d := NewDecoder(body)
	d.form = true
	return d
}

// Err is the outcome: nil, a *SyntaxError or a *ConstraintError.
func (d *Decoder) Err() error {
	if d.err != nil {
		return d.err
	}
	if len(d.violations) > 0 {
		return &ConstraintError{d.violations}
	}
	return nil
}

// End checks that nothing follows the document.
func (d *Decoder) End() {
	if d.err == nil && d.json != nil && d.json.PeekKind() != 0 {
		d.syntax("Unexpected content after the JSON document")
	}
}

func (d *Decoder) syntax(message string) {
	if d.err != nil {
		return
	}
	if at := d.at(); at != "" {
		message += " at '" + at + "'"
	}
	d.err = &SyntaxError{message}
}

func (d *Decoder) failed(err error) {
	if d.err == nil {
		d.err = &SyntaxError{"The request body is not valid JSON"}
		_ = err // says where in the body, in words of the library
	}
}

// at is the path as AWS writes it.
func (d *Decoder) at() string {
	var b strings.Builder
	for _, s := range d.path {
		switch {
		case s.name != "":
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s.name)
		case s.index > 0:
			fmt.Fprintf(&b, ".%d.member", s.index)
		}
	}
	return b.String()
}

// Violate notes a value that a constraint forbids. value is as AWS writes it:
// 'text' in quotes, or null.
func (d *Decoder) violate(value, constraint string) {
	if len(d.violations) >= maxViolations {
		return
	}
	if len(value) > maxEcho {
		value = strings.ToValidUTF8(value[:maxEcho], "") + "...'"
	}
	d.violations = append(d.violations, "Value "+value+" at '"+d.at()+"' failed to satisfy constraint: "+constraint)
}

// Require notes the absence of a member that must be there, unless present.
func (d *Decoder) Require(present bool, name string) {
	if present || d.err != nil {
		return
	}
	d.path = append(d.path, segment{name: name})
	d.violate("null", "Member must not be null")
	d.path = d.path[:len(d.path)-1]
}

// In sets the path to a member outside the body.
func (d *Decoder) In(name string) { d.path = append(d.path[:0], segment{name: name}) }

// Out ends In.
func (d *Decoder) Out() { d.path = d.path[:0] }

// Object enters an object. It returns false, having read it, for null and after
// an error.
func (d *Decoder) Object() bool { return d.enter('{') }

// Array enters an array, as Object does.
func (d *Decoder) Array() bool { return d.enter('[') }

func (d *Decoder) enter(kind jsontext.Kind) bool {
	if d.Null() {
		return false
	}
	if d.json.PeekKind() != kind {
		if d.form && d.json.PeekKind() == '"' { // an empty list or map is a parameter without text
			if text, ok := d.text(); ok && text == "" {
				return false
			}
		}
		d.unexpected()
		return false
	}
	if len(d.path) >= maxDepth {
		d.syntax("The request body is nested too deep")
		return false
	}
	if _, err := d.json.ReadToken(); err != nil {
		d.failed(err)
		return false
	}
	d.path = append(d.path, segment{})
	return true
}

func (d *Decoder) unexpected() {
	if d.json.PeekKind() == 0 {
		_, err := d.json.ReadToken()
		d.failed(err)
		return
	}
	d.syntax("Unexpected value type in payload")
}

// Null reads a null, if that is what follows, and reports whether the value is
// to be left out: it is true after an error as well.
func (d *Decoder) Null() bool {
	if d.err != nil {
		return true
	}
	if d.json.PeekKind() != 'n' {
		return false
	}
	if _, err := d.json.ReadToken(); err != nil {
		d.failed(err)
	}
	return true
}

// Next goes to the next element of an array; it returns false at the end, and
// leaves the array.
func (d *Decoder) Next() bool {
	if d.err != nil {
		return false
	}
	if d.json.PeekKind() == ']' {
		d.leave()
		return false
	}
	d.path[len(d.path)-1].index++
	return true
}

func (d *Decoder) leave() {
	if _, err := d.json.ReadToken(); err != nil {
		d.failed(err)
	}
	d.path = d.path[:len(d.path)-1]
}

// Member goes to the next member of an object; it returns false at the end, and
// leaves the object. name is valid until the next call.
func (d *Decoder) Member() (name []byte, ok bool) {
	if d.err != nil {
		return nil, false
	}
	if d.json.PeekKind() == '}' {
		d.leave()
		return nil, false
	}
	raw, err := d.json.ReadValue()
	if err != nil {
		d.failed(err)
		return nil, false
	}
	name = raw[1 : len(raw)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		if d.name, err = jsontext.AppendUnquote(d.name[:0], raw); err != nil {
			d.failed(err)
			return nil, false
		}
		name = d.name
	}
	return name, true
}

// At names the member whose value is read next, for messages.
func (d *Decoder) At(name string) { d.path[len(d.path)-1].name = name }

// Skip reads a value that the shape does not have.
func (d *Decoder) Skip() {
	if d.err == nil {
		if err := d.json.SkipValue(); err != nil {
			d.failed(err)
		}
	}
}

// text reads a JSON string without constraints.
func (d *Decoder) text() (string, bool) {
	if d.Null() {
		return "", false
	}
	if d.json.PeekKind() != '"' {
		d.unexpected()
		return "", false
	}
	t, err := d.json.ReadToken()
	if err != nil {
		d.failed(err)
		return "", false
	}
	return t.String(), true
}

// String reads a string; ok is false when there is none.
func (d *Decoder) String(c *Text) (s string, ok bool) {
	if s, ok = d.text(); ok {
		d.Check(c, s)
	}
	return s, ok
}

// Check holds a string against the constraints.
func (d *Decoder) Check(c *Text, s string) {
	if c.allows(s) {
		return
	}
	value := "'" + s + "'"
	if c.Sensitive {
		value = "'***'"
	}
	if c.Enum != nil {
		d.violate(value, matchEnum(c.Enum))
		return
	}
	if !c.shortEnough(s) {
		d.violate(value, maxLength(c.Max))
	}
	if !c.longEnough(s) {
		d.violate(value, minLength(c.Min))
	}
	if c.Pattern != nil && !c.Pattern.Match(s) {
		d.violate(value, matchPattern(c.Pattern))
	}
}

// Bool reads a boolean.
func (d *Decoder) Bool() (v, ok bool) {
	if d.Null() {
		return false, false
	}
	if d.form && d.json.PeekKind() == '"' {
		text, _ := d.text()
		return d.ParamBool(text)
	}
	if k := d.json.PeekKind(); k != 't' && k != 'f' {
		d.unexpected()
		return false, false
	}
	t, err := d.json.ReadToken()
	if err != nil {
		d.failed(err)
		return false, false
	}
	return t.Bool(), true
}

func (d *Decoder) number() (text string, ok bool) {
	if d.Null() {
		return "", false
	}
	if d.form && d.json.PeekKind() == '"' {
		return d.text()
	}
	if d.json.PeekKind() != '0' {
		d.unexpected()
		return "", false
	}
	raw, err := d.json.ReadValue()
	if err != nil {
		d.failed(err)
		return "", false
	}
	return string(raw), true
}

// Int reads a whole number of 32 bits.
func (d *Decoder) Int(c *Number) (int32, bool) {
	n, ok := d.integer(c, math.MinInt32, math.MaxInt32)
	return int32(n), ok
}

// Long reads a whole number of 64 bits.
func (d *Decoder) Long(c *Number) (int64, bool) { return d.integer(c, math.MinInt64, math.MaxInt64) }

func (d *Decoder) integer(c *Number, least, most int64) (int64, bool) {
	text, ok := d.number()
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil { // 1e3 and 5.0 are whole numbers in JSON
		f, ferr := strconv.ParseFloat(text, 64)
		if ferr != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
			d.syntax("Value is not an integer of the expected size")
			return 0, false
		}
		n = int64(f)
	}
	return d.checkInt(c, n, least, most)
}

func (d *Decoder) checkInt(c *Number, n, least, most int64) (int64, bool) {
	if n < least || n > most {
		d.syntax("Value is not an integer of the expected size")
		return 0, false
	}
	d.checkNumber(c, float64(n), strconv.FormatInt(n, 10))
	return n, true
}

func (d *Decoder) checkNumber(c *Number, v float64, text string) {
	switch {
	case c == nil:
	case c.HasMax && v > c.Max:
		d.violate("'"+text+"'", "Member must have value less than or equal to "+strconv.FormatFloat(c.Max, 'f', -1, 64))
	case c.HasMin && v < c.Min:
		d.violate("'"+text+"'", "Member must have value greater than or equal to "+strconv.FormatFloat(c.Min, 'f', -1, 64))
	}
}

// Double reads a number, or one of the strings NaN, Infinity and -Infinity.
func (d *Decoder) Double(c *Number) (float64, bool) {
	if d.err == nil && d.json.PeekKind() == '"' && !d.form {
		s, _ := d.text()
		switch s {
		case "NaN":
			return math.NaN(), true
		case "Infinity":
			return math.Inf(1), true
		case "-Infinity":
			return math.Inf(-1), true
		}
		d.syntax("Unexpected value type in payload")
		return 0, false
	}
	text, ok := d.number()
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		d.syntax("Value is out of range")
		return 0, false
	}
	d.checkNumber(c, v, text)
	return v, true
}

// Time reads epoch seconds, or a string in RFC 3339.
func (d *Decoder) Time() (time.Time, bool) {
	if d.Null() {
		return time.Time{}, false
	}
	if k := d.json.PeekKind(); k != '0' && k != '"' {
		d.unexpected()
		return time.Time{}, false
	}
	raw, err := d.json.ReadValue()
	if err != nil {
		d.failed(err)
		return time.Time{}, false
	}
	t, err := ParseTime(raw)
	if err != nil {
		d.syntax("Value is not a timestamp")
		return time.Time{}, false
	}
	return t, true
}

// ParseTime reads a time of JSON: epoch seconds, or a string in RFC 3339.
func ParseTime(raw []byte) (time.Time, error) {
	if len(raw) > 1 && raw[0] == '"' {
		return parseDate(string(raw[1 : len(raw)-1]))
	}
	return parseEpoch(string(raw))
}

func parseEpoch(text string) (time.Time, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > -1<<40 && n < 1<<40 {
		return time.Unix(n, 0).UTC(), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(math.Abs(f) < 1<<40) {
		return time.Time{}, fmt.Errorf("wire: %.40q is not a timestamp", text)
	}
	return time.UnixMilli(int64(math.Round(f * 1000))).UTC(), nil
}

func parseDate(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return parseEpoch(text)
	}
	return t.UTC(), nil
}

// Blob reads bytes from a string in base64.
func (d *Decoder) Blob(c *Size) ([]byte, bool) {
	s, ok := d.text()
	if !ok {
		return nil, false
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		if b, err = base64.RawStdEncoding.DecodeString(s); err != nil {
			d.syntax("Value is not base64")
			return nil, false
		}
	}
	d.CheckSize(c, len(b))
	return b, true
}

// CheckSize holds the length of a list, map or blob against the constraints.
func (d *Decoder) CheckSize(c *Size, n int) {
	switch {
	case c == nil || d.err != nil:
	case c.Max > 0 && n > c.Max:
		d.violate("'("+itoa(n)+" elements)'", maxLength(c.Max))
	case n < c.Min:
		d.violate("'("+itoa(n)+" elements)'", minLength(c.Min))
	}
}

// CheckElements holds the strings of a list against the constraints.
func (d *Decoder) CheckElements(c *Text, list []string) {
	for _, s := range list {
		if !c.allows(s) {
			d.violate("'["+strings.Join(list, ", ")+"]'", "Member must satisfy constraint: "+c.describe())
			return
		}
	}
}

// CheckKey holds the key of a map against the constraints, and tells whether they
// allow it.
func (d *Decoder) CheckKey(c *Text, key string) bool {
	if c.allows(key) {
		return true
	}
	d.violate("'{"+key+"}'", "Map keys must satisfy constraint: "+c.describe())
	return false
}

// CheckMap holds a map of strings against the constraints of keys and values.
func (d *Decoder) CheckMap(key, value *Text, m map[string]string) {
	badKey, badValue := false, false
	for k, v := range m {
		badKey = badKey || !key.allows(k)
		badValue = badValue || !value.allows(v)
	}
	if !badKey && !badValue {
		return
	}
	list := make([]string, 0, len(m))
	for k, v := range m {
		list = append(list, k+"="+v)
	}
	sort.Strings(list)
	text := "'{" + strings.Join(list, ", ") + "}'"
	if key != nil && key.Sensitive || value != nil && value.Sensitive {
		text = "'{***}'"
	}
	if badKey {
		d.violate(text, "Map keys must satisfy constraint: "+key.describe())
	}
	if badValue {
		d.violate(text, "Map value must satisfy constraint: "+value.describe())
	}
}
