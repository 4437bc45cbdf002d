package aws

import (
	"time"

	"flotilla/internal/aws/wire"
)

// Time is a time as JSON of AWS's APIs has it: seconds of the Unix epoch, with a
// fraction down to milliseconds. The zero time is 0001-01-01, as in package time.
type Time struct{ time.Time }

// MarshalJSON writes epoch seconds.
func (t Time) MarshalJSON() ([]byte, error) { return wire.AppendTime(nil, t.Time), nil }

// UnmarshalJSON reads epoch seconds, or a string in RFC 3339. The time is in UTC.
func (t *Time) UnmarshalJSON(b []byte) error {
	v, err := wire.ParseTime(b)
	if err == nil {
		t.Time = v
	}
	return err
}
