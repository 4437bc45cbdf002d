package live

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Dimension says something about where a series comes from, such as thing = pump-1.
type Dimension struct{ Name, Value string }

// Point is the value of a measure at a time.
type Point struct {
	Database, Table string
	// Dimensions are in the order of their names.
	Dimensions []Dimension
	Measure    string
	// Time is in nanoseconds since 1970.
	Time int64
	// Value is an int64 (BIGINT), float64 (DOUBLE), bool (BOOLEAN) or string (VARCHAR).
	Value any
	// Version decides which of two points of the same series and time stays: the higher, of equal ones the later.
	Version int64
}

// Limits of Timestream.
//
// AWS: https://docs.aws.amazon.com/timestream/latest/developerguide/ts-limits.html
const (
	MaxDimensions = 128
	maxName       = 256
	maxValue      = 2048 // bytes of a VARCHAR or of a dimension's value
	maxAhead      = 15 * time.Minute
)

// ErrRejected is wrapped by the error of a point that can never be written.
var ErrRejected = errors.New("RejectedRecordsException")

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9_.-]{3,256}$`)

// CheckName checks the name of a database or of a table.
func CheckName(what, name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%s %q is not 3 to 256 letters, digits, '_', '.' and '-'", what, name)
	}
	return nil
}

// reserved are the columns that tables have of themselves.
var reserved = []string{"time", "measure_name", "measure_value", "measure_value::double", "measure_value::bigint", "measure_value::boolean", "measure_value::varchar"}

// CheckDimension checks the name of a dimension.
func CheckDimension(name string) error {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) || slices.Contains(reserved, strings.ToLower(name)) {
		return fmt.Errorf("%q is not the name of a dimension: 1 to %d bytes, none of time, measure_name and measure_value", name, maxName)
	}
	return nil
}

func reject(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRejected}, args...)...)
}

// check tells what is wrong with a point.
func (p *Point) check() error {
	if err := errors.Join(CheckName("databaseName", p.Database), CheckName("tableName", p.Table)); err != nil {
		return reject("%w", err)
	}
	if p.Measure == "" || len(p.Measure) > maxName || !utf8.ValidString(p.Measure) {
		return reject("the name of a measure has 1 to %d bytes", maxName)
	}
	if len(p.Dimensions) == 0 || len(p.Dimensions) > MaxDimensions {
		return reject("a record has 1 to %d dimensions", MaxDimensions)
	}
	for i, d := range p.Dimensions {
		if err := CheckDimension(d.Name); err != nil {
			return reject("%w", err)
		}
		if i > 0 && p.Dimensions[i-1].Name >= d.Name {
			return reject("the dimension %s is there twice", d.Name)
		}
		if d.Value == "" || len(d.Value) > maxValue || !utf8.ValidString(d.Value) {
			return reject("the value of the dimension %s has %d bytes; it has 1 to %d", d.Name, len(d.Value), maxValue)
		}
	}
	switch v := p.Value.(type) {
	case int64, bool:
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return reject("the measure %s is not a finite number", p.Measure)
		}
	case string:
		if len(v) > maxValue {
			return reject("the measure %s has %d bytes; a VARCHAR has at most %d", p.Measure, len(v), maxValue)
		}
	default:
		return reject("the measure %s has no type", p.Measure)
	}
	return nil
}

// appendSeries is the identity of the point's series.
func (p *Point) appendSeries(b []byte) []byte {
	for _, s := range []string{p.Database, p.Table, p.Measure} {
		b = append(append(b, s...), 0)
	}
	for _, d := range p.Dimensions {
		b = strconv.AppendInt(b, int64(len(d.Name)), 10)
		b = append(append(append(append(b, 0), d.Name...), d.Value...), 0)
	}
	return b
}

// dimensionsJSON is the dimensions as a JSON object, in order.
func dimensionsJSON(dimensions []Dimension) (string, error) {
	b := []byte{'{'}
	var err error
	for i, d := range dimensions {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = jsontext.AppendQuote(b, d.Name); err != nil {
			return "", err
		}
		if b, err = jsontext.AppendQuote(append(b, ':'), d.Value); err != nil {
			return "", err
		}
	}
	return string(append(b, '}')), nil
}

// stored is a value as SQLite keeps it.
func stored(v any) any {
	switch v := v.(type) {
	case bool:
		if v {
			return []byte{1}
		}
		return []byte{0}
	default:
		return v
	}
}

// text is a stored value's type in Timestream, and its text.
func text(v any) (kind, value string) {
	switch v := v.(type) {
	case int64:
		return "BIGINT", strconv.FormatInt(v, 10)
	case float64:
		return "DOUBLE", strconv.FormatFloat(v, 'g', -1, 64)
	case []byte:
		return "BOOLEAN", strconv.FormatBool(len(v) == 1 && v[0] == 1)
	case string:
		return "VARCHAR", v
	default:
		return "VARCHAR", fmt.Sprint(v)
	}
}
