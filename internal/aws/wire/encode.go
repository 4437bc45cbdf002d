package wire

import (
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// AppendName appends the name of a member, quoted and followed by a colon as
// name has it, and the comma before it where one is due.
func AppendName(b []byte, name string) []byte {
	if last := b[len(b)-1]; last != '{' && last != '[' {
		b = append(b, ',')
	}
	return append(b, name...)
}

// AppendComma appends the comma between elements of a list.
func AppendComma(b []byte) []byte {
	if last := b[len(b)-1]; last != '[' {
		b = append(b, ',')
	}
	return b
}

// AppendString appends a JSON string; what is not UTF-8 becomes U+FFFD.
func AppendString(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // the error tells of the replacement
	return b
}

// AppendBlob appends bytes as a JSON string in base64.
func AppendBlob(b, blob []byte) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, blob)
	return append(b, '"')
}

// AppendDouble appends a number; those that JSON lacks are strings, as the
// protocol says.
func AppendDouble(b []byte, v float64) []byte {
	switch {
	case math.IsNaN(v):
		return append(b, `"NaN"`...)
	case math.IsInf(v, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(b, `"-Infinity"`...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// AppendTime appends epoch seconds, with milliseconds if there are any.
func AppendTime(b []byte, t time.Time) []byte {
	ms := t.UnixMilli()
	if ms < 0 {
		return strconv.AppendFloat(b, float64(ms)/1000, 'f', -1, 64)
	}
	b = strconv.AppendInt(b, ms/1000, 10)
	if f := int(ms % 1000); f != 0 {
		b = append(b, '.', byte('0'+f/100), byte('0'+f/10%10), byte('0'+f%10))
	}
	return b
}

// Keys are the keys of a map in order, so that a body is always the same.
func Keys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
