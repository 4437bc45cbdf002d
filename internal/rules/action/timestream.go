package action

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"flotilla/internal/aws/iot"
	"flotilla/internal/rules/sql"
	"flotilla/internal/telemetry/live"
)

// Telemetry is the live store. What Check refuses can never be written; Write returns once points are on stable
// storage, and may be called with the same ones again.
type Telemetry interface {
	Check(p *live.Point) error
	Write(ctx context.Context, points []live.Point) error
}

// maxMeasures is AWS's limit of values that one message may have.
const maxMeasures = 100

// timeUnits are what timestamp.unit may be, as nanoseconds.
var timeUnits = map[string]int64{
	"SECONDS": int64(time.Second), "MILLISECONDS": int64(time.Millisecond), "MICROSECONDS": int64(time.Microsecond), "NANOSECONDS": 1,
}

func checkTimeUnit(s string) error {
	if timeUnits[s] == 0 {
		return fmt.Errorf("timestamp.unit %q is none of SECONDS, MILLISECONDS, MICROSECONDS and NANOSECONDS", s)
	}
	return nil
}

// timestreamSink writes each member of a payload, which is to be a JSON object, as a point of its own.
type timestreamSink struct {
	env             Env
	database, table int
	names           []string // of dimensions, in order
	values          []int
	time, unit      int // -1: the time is when the broker received the message
}

// compileTimestream makes an action that writes what the statement selected into the live store.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/timestream-rule-action.html
func compileTimestream(c *compiler, a *iot.Action) *Action {
	p := a.Timestream
	c.role(p.RoleArn)
	s := timestreamSink{time: -1, unit: -1}
	s.database = c.checked("databaseName", p.DatabaseName, func(v string) error { return live.CheckName("databaseName", v) })
	s.table = c.checked("tableName", p.TableName, func(v string) error { return live.CheckName("tableName", v) })
	if len(p.Dimensions) == 0 || len(p.Dimensions) > live.MaxDimensions {
		c.refuse("dimensions are 1 to %d", live.MaxDimensions)
	}
	dimensions := slices.DeleteFunc(slices.Clone(p.Dimensions), func(d *iot.TimestreamDimension) bool { return d == nil })
	slices.SortFunc(dimensions, func(x, y *iot.TimestreamDimension) int { return cmp.Compare(x.Name, y.Name) })
	for i, d := range dimensions {
		if err := live.CheckDimension(d.Name); err != nil {
			c.refuse("dimensions: %w", err)
		}
		if i > 0 && dimensions[i-1].Name == d.Name {
			c.refuse("dimensions: %s is there twice", d.Name)
		}
		s.names, s.values = append(s.names, d.Name), append(s.values, c.template("dimensions."+d.Name, &d.Value, sql.Generic))
	}
	if t := p.Timestamp; t != nil {
		s.time = c.template("timestamp.value", &t.Value, sql.Generic)
		s.unit = c.checked("timestamp.unit", t.Unit, checkTimeUnit)
	}
	return &Action{
		batch: func(Env) Batch { return Batch{Rows: 2048, Bytes: 4 << 20} },
		open: func(env Env) (Sink, error) {
			if env.Telemetry == nil {
				return nil, errors.New("timestream: there is no live store")
			}
			sink := s
			sink.env = env
			return &sink, nil
		},
	}
}

func (s *timestreamSink) Do(ctx context.Context, records []Record) (int, error) {
	points := make([]live.Point, 0, len(records))
	good, failed := 0, error(nil)
	for good < len(records) {
		n := len(points)
		if points, failed = s.points(points, &records[good]); failed != nil {
			points = points[:n]
			break
		}
		good++
	}
	if err := s.env.Telemetry.Write(ctx, points); err != nil {
		return 0, err
	}
	return good, failed
}

// points appends what a record says; its errors are permanent.
func (s *timestreamSink) points(points []live.Point, r *Record) ([]live.Point, error) {
	p := live.Point{Database: r.Fields[s.database], Table: r.Fields[s.table], Time: r.Received.UnixNano(), Version: r.ID}
	if s.time >= 0 {
		at, err := parseTime(r.Fields[s.time], r.Fields[s.unit])
		if err != nil {
			return points, Permanent(err)
		}
		p.Time = at
	}
	for i, name := range s.names {
		p.Dimensions = append(p.Dimensions, live.Dimension{Name: name, Value: r.Fields[s.values[i]]})
	}
	first := len(points)
	err := measures(r.Payload, func(name string, value any) error {
		if len(points)-first == maxMeasures {
			return fmt.Errorf("a message has more than %d measures", maxMeasures)
		}
		p.Measure, p.Value = name, value
		if err := s.env.Telemetry.Check(&p); err != nil {
			return err
		}
		points = append(points, p)
		return nil
	})
	if err == nil && len(points) == first {
		err = errors.New("the message has no measures: none of its members has a value")
	}
	if err != nil {
		return points, Permanent(err)
	}
	return points, nil
}

// parseTime gives nanoseconds since 1970.
func parseTime(text, unit string) (int64, error) {
	if err := checkTimeUnit(unit); err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/timeUnits[unit] {
		return 0, fmt.Errorf("timestamp.value %q is not a time in %s", text, unit)
	}
	return n * timeUnits[unit], nil
}

// measures calls fn with the members of a JSON object that have a value: whole numbers that fit are BIGINT (int64),
// other numbers DOUBLE, truth values BOOLEAN, texts VARCHAR, and so is the JSON of objects and arrays.
func measures(payload []byte, fn func(name string, value any) error) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(payload))
	if d.PeekKind() != '{' {
		return errors.New("the message is not a JSON object, whose members are the measures")
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() == '"' {
		t, err := d.ReadToken()
		if err != nil {
			return err
		}
		name := t.String()
		raw, err := d.ReadValue()
		if err != nil {
			return err
		}
		value, err := measure(raw)
		if err != nil {
			return err
		}
		if value == nil {
			continue
		}
		if err := fn(name, value); err != nil {
			return err
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("the message is more than a JSON object")
	}
	return nil
}

func measure(raw jsontext.Value) (any, error) {
	switch raw.Kind() {
	case 'n':
		return nil, nil
	case 't', 'f':
		return raw.Kind() == 't', nil
	case '"':
		b, err := jsontext.AppendUnquote(nil, raw)
		return string(b), err
	case '0':
		if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
			return n, nil
		}
		return strconv.ParseFloat(string(raw), 64)
	default:
		return string(raw), nil
	}
}

// Resource is the table as AWS names it in failedResource.
func (s *timestreamSink) Resource(r *Record) string {
	return r.Fields[s.database] + "#" + r.Fields[s.table]
}

func (s *timestreamSink) Close() error { return nil }
