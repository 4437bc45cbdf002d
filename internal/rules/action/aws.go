package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"flotilla/internal/awsclient"
)

// EngineAWS is the engine of a service of AWS, or of what speaks its API at --aws.endpoint-url.
const EngineAWS = "aws"

// awsInFlight is how many calls about different things an action has in flight.
const awsInFlight = 16

// weight is how much of a call's limits a record takes.
type weight struct{ rows, bytes int }

// awsSink executes records by calls of one service. What succeeded behind a record that failed is remembered, and not
// sent again with it: the answers of batches are by entry.
type awsSink[E any] struct {
	aws   AWS
	limit weight // of one call; a single record may be more
	// resource names what the record acts on: the records of a call have the same one.
	resource func(r *Record) string
	// entry makes of a record what send takes; its error is permanent.
	entry func(r *Record) (E, weight, error)
	// key, when not nil, names what may be in a call once; "" may be in none with others.
	key func(r *Record) string
	// send makes the call. It returns an error for each entry, nil for those that are done, or none and err, which is
	// of all of them.
	send func(ctx context.Context, resource string, entries []E) ([]error, error)

	ahead map[int64]bool // done, behind one that is not
}

func (s *awsSink[E]) start(env Env) (Sink, error) {
	if env.AWS == nil || !env.AWS.Configured() {
		return nil, errNoAWS
	}
	s.aws, s.ahead = env.AWS, map[int64]bool{}
	return s, nil
}

var errNoAWS = errors.New("there are no credentials for AWS in the server's environment or profile (--aws.profile)")

func (s *awsSink[E]) Resource(r *Record) string { return s.resource(r) }

func (s *awsSink[E]) Close() error { return nil }

func (s *awsSink[E]) Do(ctx context.Context, records []Record) (int, error) {
	for next := 0; next < len(records); {
		at, entries, end, err := s.collect(records, next)
		if err != nil {
			return next, Permanent(err)
		}
		if len(at) > 0 {
			failed := s.execute(ctx, s.resource(&records[at[0]]), entries)
			if i, err := s.settle(records, at, failed); err != nil {
				s.forget(records[next:i])
				return i, err
			}
		}
		s.forget(records[next:end])
		next = end
	}
	return len(records), nil
}

// forget is for records that are not given again.
func (s *awsSink[E]) forget(records []Record) {
	for i := range records {
		delete(s.ahead, records[i].ID)
	}
}

// collect gives the records of the next call, their entries, and where it ends; err is of the record at next.
func (s *awsSink[E]) collect(records []Record, next int) (at []int, entries []E, end int, err error) {
	var sum weight
	keys := map[string]bool{}
	for end = next; end < len(records); end++ {
		r := &records[end]
		if s.ahead[r.ID] {
			continue
		}
		e, w, err := s.entry(r)
		if err != nil {
			if len(at) == 0 && end == next {
				return nil, nil, 0, err
			}
			return at, entries, end, nil
		}
		full := sum.rows+w.rows > s.limit.rows || sum.bytes+w.bytes > s.limit.bytes
		if len(at) > 0 && (full || s.resource(r) != s.resource(&records[at[0]])) {
			break
		}
		if s.key != nil {
			k := s.key(r)
			if len(at) > 0 && (k == "" || keys[k] || keys[""]) {
				break
			}
			keys[k] = true
		}
		sum.rows, sum.bytes = sum.rows+w.rows, sum.bytes+w.bytes
		at, entries = append(at, end), append(entries, e)
	}
	return at, entries, end, nil
}

// execute makes the call, and calls of single entries after one that is refused for what is in it.
func (s *awsSink[E]) execute(ctx context.Context, resource string, entries []E) []error {
	failed, err := s.send(ctx, resource, entries)
	if err == nil {
		return failed
	}
	failed = make([]error, len(entries))
	alone := len(entries) > 1 && !awsclient.IsTemporary(err)
	for i := range entries {
		if alone && (i == 0 || failed[i-1] == nil || IsPermanent(failed[i-1])) {
			one, oneErr := s.send(ctx, resource, entries[i:i+1])
			if oneErr == nil && len(one) > 0 {
				oneErr = one[0]
			}
			failed[i] = fate(oneErr)
			continue
		}
		failed[i] = fate(err)
	}
	return failed
}

// fate marks a refusal that no further attempt can help.
func fate(err error) error {
	if err != nil && !awsclient.IsTemporary(err) {
		return Permanent(err)
	}
	return err
}

// refused is what an answer says of one entry.
func refused(code, message string) error {
	err := fmt.Errorf("%s: %s", code, message)
	if awsclient.TemporaryCode(code) {
		return err
	}
	return Permanent(err)
}

// maxAhead bounds what is remembered.
const maxAhead = 100_000

// settle remembers what is done behind the first that failed, and returns that one.
func (s *awsSink[E]) settle(records []Record, at []int, failed []error) (int, error) {
	first := -1
	for i := range at {
		switch {
		case i < len(failed) && failed[i] != nil:
			if first < 0 {
				first = i
			}
		case first >= 0:
			if len(s.ahead) >= maxAhead { // of records that others took over
				clear(s.ahead)
			}
			s.ahead[records[at[i]].ID] = true
		}
	}
	if first < 0 {
		return 0, nil
	}
	return at[first], failed[first]
}

// each makes a call for each entry, some at a time.
func each[E any](ctx context.Context, entries []E, call func(ctx context.Context, e E) error) ([]error, error) {
	failed := make([]error, len(entries))
	var g errgroup.Group
	g.SetLimit(awsInFlight)
	for i, e := range entries {
		g.Go(func() error {
			failed[i] = fate(call(ctx, e))
			return nil
		})
	}
	return failed, g.Wait()
}

// one is the weight of a record that is one row of its payload and more bytes.
func one(r *Record, more int) weight { return weight{1, len(r.Payload) + more} }

// optional is the field of a template that may be absent (-1).
func optional(r *Record, i int, otherwise string) string {
	if i < 0 {
		return otherwise
	}
	return r.Fields[i]
}

// parts are the elements of a payload that is a JSON array, or the payload.
func parts(r *Record, split bool) [][]byte {
	var elements []json.RawMessage
	if !split || json.Unmarshal(r.Payload, &elements) != nil {
		return [][]byte{r.Payload}
	}
	out := make([][]byte, len(elements))
	for i, e := range elements {
		out[i] = e
	}
	return out
}

// perSecond are the units of timestamps in AWS's models, by how many a second has.
var perSecond = map[string]int64{"SECONDS": 1, "MILLISECONDS": 1e3, "MICROSECONDS": 1e6, "NANOSECONDS": 1e9}

// instant reads a timestamp in a unit.
func instant(text, unit string) (time.Time, error) {
	per, ok := perSecond[unit]
	if !ok {
		return time.Time{}, fmt.Errorf("timestamp.unit %q is none of SECONDS, MILLISECONDS, MICROSECONDS and NANOSECONDS", unit)
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(n/per, n%per*(1e9/per)), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.Abs(f/float64(per)) > 1e11 {
		return time.Time{}, fmt.Errorf("timestamp.value %q is not a number", text)
	}
	seconds, fraction := math.Modf(f / float64(per))
	return time.Unix(int64(seconds), int64(fraction*1e9)), nil
}
