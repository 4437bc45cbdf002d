package rollout

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Cron is a schedule in AWS's form, in UTC, to the minute:
//
//	cron(minutes hours day-of-month month day-of-week year)
//
// Each field takes numbers, names (JAN, MON), ranges a-b, steps */n and a/n, lists and *; ? means no value and must
// stand in one of the two day fields. L (the last day of the month, or with a day of the week, as in 6L, the last such
// day), W (the nearest weekday) and # (3#2 the second Tuesday) are in the day fields. Days of the week are 1 (Sunday) to 7.
//
// AWS: https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#cron-based
type Cron struct {
	minutes uint64 // bit sets
	hours   uint64
	months  uint64
	days    []dayTest // any of them
	years   map[int]bool
}

// dayTest tells whether a date is one of the days of a field.
type dayTest func(year int, month time.Month, day int) bool

// The years of AWS's field.
const (
	firstYear = 1970
	lastYear  = 2199
)

var (
	monthNames = []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}
	dayNames   = []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}
)

// ParseCron reads a schedule; the word cron and its parentheses may be left out.
func ParseCron(s string) (*Cron, error) {
	text := strings.TrimSpace(s)
	if inner, ok := strings.CutPrefix(text, "cron("); ok {
		if text, ok = strings.CutSuffix(inner, ")"); !ok {
			return nil, fmt.Errorf("cron: the parenthesis is not closed")
		}
	}
	f := strings.Fields(text)
	if len(f) != 6 {
		return nil, fmt.Errorf("cron: expected six fields (minutes hours day-of-month month day-of-week year), got %d", len(f))
	}
	if (f[2] == "?") == (f[4] == "?") {
		return nil, fmt.Errorf("cron: one of day-of-month and day-of-week, and not both, must be ?")
	}
	c := &Cron{}
	var err error
	if c.minutes, err = bits("minutes", f[0], 0, 59, nil); err != nil {
		return nil, err
	}
	if c.hours, err = bits("hours", f[1], 0, 23, nil); err != nil {
		return nil, err
	}
	if c.months, err = bits("month", f[3], 1, 12, monthNames); err != nil {
		return nil, err
	}
	if f[4] == "?" {
		c.days, err = monthDays(f[2])
	} else {
		c.days, err = weekDays(f[4])
	}
	if err != nil {
		return nil, err
	}
	c.years = map[int]bool{}
	err = each("year", f[5], firstYear, lastYear, nil, func(y int) { c.years[y] = true })
	return c, err
}

// bits reads a field into a bit set.
func bits(name, s string, low, high int, names []string) (uint64, error) {
	var set uint64
	err := each(name, s, low, high, names, func(v int) { set |= 1 << v })
	return set, err
}

// each calls add with every value of a field.
func each(name, s string, low, high int, names []string, add func(int)) error {
	bad := func(part string) error { return fmt.Errorf("cron: %q is not valid for %s", part, name) }
	for part := range strings.SplitSeq(s, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		step := 1
		if stepped {
			n, err := strconv.Atoi(stepText)
			if err != nil || n < 1 || n > high {
				return bad(part)
			}
			step = n
		}
		from, to := low, high
		if span != "*" {
			a, b, isRange := strings.Cut(span, "-")
			var ok bool
			if from, ok = value(a, low, high, names); !ok {
				return bad(part)
			}
			switch {
			case isRange:
				if to, ok = value(b, low, high, names); !ok || to < from {
					return bad(part)
				}
			case !stepped:
				to = from
			}
		}
		for v := from; v <= to; v += step {
			add(v)
		}
	}
	return nil
}

// value reads a number or a name; names count from low.
func value(s string, low, high int, names []string) (int, bool) {
	for i, n := range names {
		if strings.EqualFold(s, n) {
			return low + i, true
		}
	}
	if s == "" || len(s) > 4 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	v, err := strconv.Atoi(s)
	return v, err == nil && v >= low && v <= high
}

// monthDays reads day-of-month.
func monthDays(s string) ([]dayTest, error) {
	var tests []dayTest
	for part := range strings.SplitSeq(s, ",") {
		switch {
		case part == "L":
			tests = append(tests, func(y int, m time.Month, d int) bool { return d == lastDay(y, m) })
		case part == "LW":
			tests = append(tests, func(y int, m time.Month, d int) bool { return d == nearestWeekday(y, m, lastDay(y, m)) })
		case strings.HasSuffix(part, "W"):
			n, ok := value(strings.TrimSuffix(part, "W"), 1, 31, nil)
			if !ok {
				return nil, fmt.Errorf("cron: %q is not valid for day-of-month", part)
			}
			tests = append(tests, func(y int, m time.Month, d int) bool { return n <= lastDay(y, m) && d == nearestWeekday(y, m, n) })
		default:
			set, err := bits("day-of-month", part, 1, 31, nil)
			if err != nil {
				return nil, err
			}
			tests = append(tests, func(_ int, _ time.Month, d int) bool { return set>>d&1 == 1 })
		}
	}
	return tests, nil
}

// weekDays reads day-of-week.
func weekDays(s string) ([]dayTest, error) {
	var tests []dayTest
	for part := range strings.SplitSeq(s, ",") {
		day, nth, isNth := strings.Cut(part, "#")
		last := strings.HasSuffix(part, "L") && part != "L"
		switch {
		case isNth:
			w, ok := value(day, 1, 7, dayNames)
			n, ok2 := value(nth, 1, 5, nil)
			if !ok || !ok2 {
				return nil, fmt.Errorf("cron: %q is not valid for day-of-week", part)
			}
			tests = append(tests, func(y int, m time.Month, d int) bool { return weekday(y, m, d) == w && (d-1)/7 == n-1 })
		case last:
			w, ok := value(strings.TrimSuffix(part, "L"), 1, 7, dayNames)
			if !ok {
				return nil, fmt.Errorf("cron: %q is not valid for day-of-week", part)
			}
			tests = append(tests, func(y int, m time.Month, d int) bool { return weekday(y, m, d) == w && d+7 > lastDay(y, m) })
		case part == "L":
			tests = append(tests, func(y int, m time.Month, d int) bool { return weekday(y, m, d) == 7 })
		default:
			set, err := bits("day-of-week", part, 1, 7, dayNames)
			if err != nil {
				return nil, err
			}
			tests = append(tests, func(y int, m time.Month, d int) bool { return set>>weekday(y, m, d)&1 == 1 })
		}
	}
	return tests, nil
}

// weekday is 1 on Sundays.
func weekday(y int, m time.Month, d int) int {
	return int(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Weekday()) + 1
}

func lastDay(y int, m time.Month) int { return time.Date(y, m+1, 0, 0, 0, 0, 0, time.UTC).Day() }

// nearestWeekday is the working day of the month that is nearest to d.
func nearestWeekday(y int, m time.Month, d int) int {
	switch weekday(y, m, d) {
	case 7: // Saturday
		if d == 1 {
			return 3
		}
		return d - 1
	case 1: // Sunday
		if d == lastDay(y, m) {
			return d - 2
		}
		return d + 1
	}
	return d
}

func (c *Cron) day(y int, m time.Month, d int) bool {
	if c.months>>m&1 == 0 || !c.years[y] {
		return false
	}
	for _, t := range c.days {
		if t(y, m, d) {
			return true
		}
	}
	return false
}

// horizon is how far Next looks.
const horizon = 8 * 366 // days; the 29th of February may be eight years away

// Next is the first time of the schedule after t; false when there is none in the next eight years.
func (c *Cron) Next(t time.Time) (time.Time, bool) {
	t = t.UTC().Truncate(time.Minute).Add(time.Minute)
	y, m, d := t.Date()
	hour, minute := t.Hour(), t.Minute()
	for range horizon {
		if c.day(y, m, d) {
			for h := hour; h < 24; h++ {
				if c.hours>>h&1 == 0 {
					minute = 0
					continue
				}
				for mi := minute; mi < 60; mi++ {
					if c.minutes>>mi&1 == 1 {
						return time.Date(y, m, d, h, mi, 0, 0, time.UTC), true
					}
				}
				minute = 0
			}
		}
		hour, minute = 0, 0
		y, m, d = time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC).Date()
	}
	return time.Time{}, false
}
