package wire

import (
	"bytes"
	"encoding/base64"
	"math"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Label is the i-th label of the path; it is always there.
func (r *Request) Label(i int) (string, bool) { return r.Labels[i], true }

// QueryValue is the first value of a query parameter.
func (r *Request) QueryValue(name string) (string, bool) {
	v := r.Query[name]
	if len(v) == 0 {
		return "", false
	}
	return v[0], true
}

// HeaderValue is the value of a header.
func (r *Request) HeaderValue(name string) (string, bool) {
	v := r.Header[name]
	if len(v) == 0 {
		return "", false
	}
	return v[0], true
}

// The parsers of values outside the body. Each gives what it gets when ok is
// false, and notes values of another type as syntax errors.

// ParamInt parses a whole number of 32 bits.
func (d *Decoder) ParamInt(c *Number, s string) (int32, bool) {
	n, ok := d.paramInteger(c, s, math.MinInt32, math.MaxInt32)
	return int32(n), ok
}

// ParamLong parses a whole number of 64 bits.
func (d *Decoder) ParamLong(c *Number, s string) (int64, bool) {
	return d.paramInteger(c, s, math.MinInt64, math.MaxInt64)
}

func (d *Decoder) paramInteger(c *Number, s string, least, most int64) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		d.syntax("Value is not an integer of the expected size")
		return 0, false
	}
	return d.checkInt(c, n, least, most)
}

// ParamBool parses true or false.
func (d *Decoder) ParamBool(s string) (v, ok bool) {
	switch s {
	case "true", "True", "TRUE":
		return true, true
	case "false", "False", "FALSE":
		return false, true
	}
	d.syntax("Value is not a boolean")
	return false, false
}

// ParamTime parses a time: RFC 3339 in queries, as the protocol says, or epoch
// seconds.
func (d *Decoder) ParamTime(s string) (time.Time, bool) {
	t, err := parseDate(s)
	if err != nil {
		d.syntax("Value is not a timestamp")
		return time.Time{}, false
	}
	return t, true
}

// ParamJSON parses JSON in base64, as headers carry it, and gives its text. JSON
// in a JSON string, which is what boto3 makes of a string, is taken out of it.
func (d *Decoder) ParamJSON(s string) (string, bool) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		b, err = base64.RawStdEncoding.DecodeString(s)
	}
	if err != nil || !jsontext.Value(b).IsValid() {
		d.syntax("Value is not JSON in base64")
		return "", false
	}
	if jsontext.Value(b).Kind() == '"' {
		if inner, err := jsontext.AppendUnquote(nil, bytes.TrimSpace(b)); err == nil && jsontext.Value(inner).IsValid() {
			b = inner
		}
	}
	return string(b), true
}
