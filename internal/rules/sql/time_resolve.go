package sql

import (
	"time"
)

// resolve makes a time of the fields; ok is false when they do not make a date, or
// contradict it.
func (f *fields) resolve() (t time.Time, ok bool) {
	date, ok := f.date()
	if !ok {
		return time.Time{}, false
	}
	hour, minute, second, ok := f.clock()
	if !ok {
		return time.Time{}, false
	}
	loc := time.UTC
	switch {
	case f.hasOffset:
		loc = time.FixedZone("", f.offset)
	case f.zone != nil:
		loc = f.zone
	}
	t = time.Date(date.Year(), date.Month(), date.Day(), hour, minute, second, f.nanoseconds, loc)
	if week, has := f.have['E']; has && week != isoDay(date) {
		return time.Time{}, false
	}
	return t, true
}

// between reads a field that has bounds; absent is its value when there is none.
func (f *fields) between(letter byte, least, most, absent int) (n int, ok bool) {
	n, has := f.have[letter]
	if !has {
		return absent, true
	}
	return n, n >= least && n <= most
}

// date needs a year with a day of the year, or with a month and a day.
func (f *fields) date() (time.Time, bool) {
	year, ok := f.have['u']
	if !ok {
		if year, ok = f.have['y']; ok && f.beforeChrist {
			year = 1 - year
		}
	}
	if !ok || year < -9999 || year > 9999 {
		return time.Time{}, false
	}
	if day, has := f.have['D']; has {
		t := time.Date(year, 1, day, 0, 0, 0, 0, time.UTC)
		return t, day >= 1 && t.Year() == year
	}
	month, hasMonth := f.have['M']
	day, hasDay := f.have['d']
	if !hasMonth || !hasDay || month < 1 || month > 12 || day < 1 || day > 31 {
		return time.Time{}, false
	}
	// Java's smart resolver takes 31 April for the last of the month.
	last := time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
	return time.Date(year, time.Month(month), min(day, last), 0, 0, 0, 0, time.UTC), true
}

// clock is midnight when there is no hour.
func (f *fields) clock() (hour, minute, second int, ok bool) {
	if ms, has := f.have['A']; has {
		f.nanoseconds = ms % 1000 * int(time.Millisecond)
		return 0, 0, ms / 1000, ms >= 0 && ms < 86_400_000
	}
	if ns, has := f.have['N']; has {
		f.nanoseconds = ns % int(time.Second)
		return 0, 0, ns / int(time.Second), ns >= 0 && ns < 24*int(time.Hour)
	}
	if ns, has := f.have['n']; has {
		f.nanoseconds = ns
		if ns < 0 || ns >= int(time.Second) {
			return 0, 0, 0, false
		}
	}
	half, has12 := f.have['h']
	zeroBased, hasK := f.have['K']
	oneBased, hask := f.have['k']
	switch {
	case has12 && (half < 1 || half > 12), hasK && (zeroBased < 0 || zeroBased > 11), hask && (oneBased < 1 || oneBased > 24),
		(has12 || hasK) && !f.hasHalf:
		return 0, 0, 0, false
	}
	hour, ok = f.between('H', 0, 24, 0)
	switch {
	case has12:
		hour = half % 12
	case hasK:
		hour = zeroBased
	case hask:
		hour = oneBased % 24
	}
	if f.pm && (has12 || hasK) {
		hour += 12
	}
	minute, ok1 := f.between('m', 0, 59, 0)
	second, ok2 := f.between('s', 0, 59, 0)
	if hour == 24 && (minute != 0 || second != 0) {
		return 0, 0, 0, false
	}
	return hour, minute, second, ok && ok1 && ok2
}
