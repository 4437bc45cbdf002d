package rollout

import (
	"fmt"
	"time"

	"flotilla/internal/aws/iot"
)

// Schedule says when a job rolls out.
type Schedule struct {
	Start, End  time.Time // zero: at once; never
	EndBehavior string    // what becomes of executions at End
	windows     []window
}

type window struct {
	starts *Cron
	length time.Duration
}

// Bounds are what a schedule is held to. AWS: https://docs.aws.amazon.com/iot/latest/developerguide/job-configurations-api.html
type Bounds struct {
	Ahead    time.Duration // the least time between now and Start
	Farthest time.Duration // the greatest; 0 none
	Shortest time.Duration // between Start and End
	Longest  time.Duration // 0 none
}

// ParseSchedule reads a configuration; a nil one is a schedule without bounds. now and b check the times of a new job;
// with a zero now nothing is checked.
func ParseSchedule(cfg *iot.SchedulingConfig, now time.Time, b Bounds) (*Schedule, error) {
	s := &Schedule{EndBehavior: iot.JobEndBehaviorStopRollout}
	if cfg == nil {
		return s, nil
	}
	var err error
	if cfg.StartTime != nil {
		if s.Start, err = parseTime(*cfg.StartTime); err != nil {
			return nil, fmt.Errorf("startTime: %w", err)
		}
	}
	if cfg.EndTime != nil {
		if s.End, err = parseTime(*cfg.EndTime); err != nil {
			return nil, fmt.Errorf("endTime: %w", err)
		}
	}
	if cfg.EndBehavior != nil {
		if s.End.IsZero() {
			return nil, fmt.Errorf("endBehavior: there is no endTime")
		}
		s.EndBehavior = *cfg.EndBehavior
	}
	for _, w := range cfg.MaintenanceWindows {
		c, err := ParseCron(w.StartTime)
		if err != nil {
			return nil, fmt.Errorf("maintenanceWindows: %w", err)
		}
		s.windows = append(s.windows, window{c, time.Duration(w.DurationInMinutes) * time.Minute})
	}
	if now.IsZero() {
		return s, nil
	}
	return s, s.check(now, b)
}

func (s *Schedule) check(now time.Time, b Bounds) error {
	if !s.Start.IsZero() {
		if s.Start.Before(now.Add(b.Ahead)) {
			return fmt.Errorf("startTime: it must be at least %v from now", b.Ahead)
		}
		if b.Farthest > 0 && s.Start.After(now.Add(b.Farthest)) {
			return fmt.Errorf("startTime: it must be at most %v from now", b.Farthest)
		}
	}
	if s.End.IsZero() {
		return nil
	}
	start := s.Start
	if start.IsZero() {
		start = now
	}
	if s.End.Before(start.Add(b.Shortest)) {
		return fmt.Errorf("endTime: it must be at least %v after the start", b.Shortest)
	}
	if b.Longest > 0 && s.End.After(start.Add(b.Longest)) {
		return fmt.Errorf("endTime: it must be at most %v after the start", b.Longest)
	}
	if b.Longest > 0 && s.End.After(now.Add(b.Longest)) {
		return fmt.Errorf("endTime: it must be at most %v from now", b.Longest)
	}
	return nil
}

// layouts are the forms of a StringDateTime.
var layouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04",
}

// parseTime reads a time; without a zone it is UTC.
func parseTime(s string) (time.Time, error) {
	for _, l := range layouts {
		if t, err := time.Parse(l, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no date and time such as 2026-01-31T12:00Z", s)
}

// Started tells whether the job has left the state SCHEDULED: its start time and, with maintenance windows, the first of
// them has come.
func (s *Schedule) Started(created, now time.Time) bool {
	from := s.Start
	if from.IsZero() {
		from = created
	}
	if now.Before(from) {
		return false
	}
	if len(s.windows) == 0 {
		return true
	}
	for _, w := range s.windows {
		if t, ok := w.starts.Next(from.Add(-w.length)); ok && !t.After(now) {
			return true
		}
	}
	return false
}

// Ended tells whether the end time has come.
func (s *Schedule) Ended(now time.Time) bool { return !s.End.IsZero() && !now.Before(s.End) }

// Open tells whether executions may start now.
func (s *Schedule) Open(now time.Time) bool {
	return !now.Before(s.Start) && !s.Ended(now) && s.InWindow(now)
}

// InWindow tells whether a maintenance window is open; without any it always is.
func (s *Schedule) InWindow(now time.Time) bool {
	if len(s.windows) == 0 {
		return true
	}
	for _, w := range s.windows {
		// The last window that may still be open begins after now - length.
		if t, ok := w.starts.Next(now.Add(-w.length)); ok && !t.After(now) {
			return true
		}
	}
	return false
}

// Next is when the schedule is to be looked at again: the next start, end or begin of a window after now. Zero: never.
func (s *Schedule) Next(now time.Time) time.Time {
	var next time.Time
	take := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	take(s.Start)
	take(s.End)
	for _, w := range s.windows {
		if t, ok := w.starts.Next(now); ok {
			take(t)
		}
	}
	return next
}

// Upcoming are the next n times at which maintenance windows begin, soonest first, as DescribeJob lists them.
func (s *Schedule) Upcoming(now time.Time, n int) []time.Time {
	var out []time.Time
	if now.Before(s.Start) {
		now = s.Start.Add(-time.Minute)
	}
	for len(out) < n {
		var next time.Time
		for _, w := range s.windows {
			if t, ok := w.starts.Next(now); ok && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
		if next.IsZero() || s.Ended(next) {
			break
		}
		out, now = append(out, next), next
	}
	return out
}
