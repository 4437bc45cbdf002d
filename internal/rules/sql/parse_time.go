package sql

import (
	"strconv"
	"time"
)

// timePiece is a run of one letter of a time pattern, or a literal (letter is 0).
type timePiece struct {
	letter byte
	count  int
	text   string
}

const maxTimePattern = 1 << 10

// splitTimePattern cuts a pattern of Joda-Time or Java. In Java's, brackets around
// optional parts are pieces of their own.
func splitTimePattern(s string, brackets bool) (pieces []timePiece, ok bool) {
	if s == "" || len(s) > maxTimePattern {
		return nil, false
	}
	literal := func(text string) {
		if n := len(pieces); n > 0 && pieces[n-1].letter == 0 {
			pieces[n-1].text += text
			return
		}
		pieces = append(pieces, timePiece{text: text})
	}
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c|0x20 >= 'a' && c|0x20 <= 'z' || brackets && (c == '[' || c == ']'):
			from := i
			for i < len(s) && s[i] == c && (c != '[' && c != ']' || i == from) {
				i++
			}
			pieces = append(pieces, timePiece{letter: c, count: i - from})
		case c == '\'' && i+1 < len(s) && s[i+1] == '\'':
			literal("'")
			i += 2
		case c == '\'':
			i++
			closed := false
			for i < len(s) && !closed {
				switch {
				case s[i] != '\'':
					literal(s[i : i+1])
					i++
				case i+1 < len(s) && s[i+1] == '\'':
					literal("'")
					i += 2
				default:
					closed = true
					i++
				}
			}
			if !closed {
				return nil, false
			}
		case brackets && (c == '{' || c == '}' || c == '#'):
			return nil, false
		default:
			literal(s[i : i+1])
			i++
		}
	}
	return pieces, true
}

// parseTime writes a time in milliseconds by a pattern of Joda-Time.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-functions.html#iot-sql-function-parse-time
func parseTime(c *compiler, args []expr) eval {
	zone := func(*frame) *time.Location { return time.UTC }
	if len(args) == 3 {
		zone = c.zone(args[2])
	}
	pattern, at := c.timePattern(args[0], false), c.expr(args[1])
	return func(f *frame) value {
		f.spend(1)
		pieces := pattern(f)
		n, ok := at(f).toInt()
		loc := zone(f)
		if pieces == nil || !ok || loc == nil {
			return value{}
		}
		const most = 253402300799999 // the end of year 9999
		ms := n.int64(most + 1)
		if ms > most || ms < -most {
			return value{}
		}
		text, ok := appendTime(nil, pieces, time.UnixMilli(ms).In(loc))
		if !ok {
			return value{}
		}
		return stringValue(f.built(string(text)))
	}
}

// timePattern compiles a pattern argument; the result is nil when it is not valid.
func (c *compiler) timePattern(x expr, brackets bool) func(f *frame) []timePiece {
	if s, ok := c.text(x); ok {
		pieces, _ := splitTimePattern(s, brackets)
		return func(*frame) []timePiece { return pieces }
	}
	of := c.expr(x)
	return func(f *frame) []timePiece {
		s, ok := f.toText(of(f))
		if !ok || !f.spend(len(s)/16) {
			return nil
		}
		pieces, _ := splitTimePattern(s, brackets)
		return pieces
	}
}

// zone compiles a zone argument; the result is nil for an unknown zone.
func (c *compiler) zone(x expr) func(f *frame) *time.Location {
	if s, ok := c.text(x); ok {
		loc, _ := loadZone(s)
		return func(*frame) *time.Location { return loc }
	}
	of := c.expr(x)
	return func(f *frame) *time.Location {
		v := of(f)
		if v.kind != stringKind || !f.spend(100) {
			return nil
		}
		loc, _ := loadZone(v.text)
		return loc
	}
}

// appendTime writes t by a Joda-Time pattern; ok is false for letters it does not have.
// Joda-Time: https://www.joda.org/joda-time/apidocs/org/joda/time/format/DateTimeFormat.html
func appendTime(dst []byte, pieces []timePiece, t time.Time) (out []byte, ok bool) {
	for _, p := range pieces {
		year := t.Year()
		week := year
		if p.letter == 'x' || p.letter == 'w' {
			week, _ = t.ISOWeek()
		}
		switch p.letter {
		case 0:
			dst = append(dst, p.text...)
		case 'G':
			if year <= 0 {
				dst = append(dst, "BC"...)
			} else {
				dst = append(dst, "AD"...)
			}
		case 'C':
			dst = appendPadded(dst, abs64(year)/100, p.count)
		case 'Y':
			if year <= 0 {
				year = 1 - year
			}
			dst = appendYear(dst, year, p.count)
		case 'y':
			dst = appendYear(dst, year, p.count)
		case 'x':
			dst = appendYear(dst, week, p.count)
		case 'w':
			_, w := t.ISOWeek()
			dst = appendPadded(dst, w, p.count)
		case 'e':
			dst = appendPadded(dst, isoDay(t), p.count)
		case 'E':
			dst = appendName(dst, t.Weekday().String(), p.count)
		case 'D':
			dst = appendPadded(dst, t.YearDay(), p.count)
		case 'M':
			if p.count >= 3 {
				dst = appendName(dst, t.Month().String(), p.count)
			} else {
				dst = appendPadded(dst, int(t.Month()), p.count)
			}
		case 'd':
			dst = appendPadded(dst, t.Day(), p.count)
		case 'a':
			dst = append(dst, t.Format("PM")...)
		case 'K':
			dst = appendPadded(dst, t.Hour()%12, p.count)
		case 'h':
			dst = appendPadded(dst, (t.Hour()+11)%12+1, p.count)
		case 'H':
			dst = appendPadded(dst, t.Hour(), p.count)
		case 'k':
			dst = appendPadded(dst, (t.Hour()+23)%24+1, p.count)
		case 'm':
			dst = appendPadded(dst, t.Minute(), p.count)
		case 's':
			dst = appendPadded(dst, t.Second(), p.count)
		case 'S':
			dst = appendFraction(dst, t.Nanosecond(), p.count)
		case 'z':
			name := zoneAbbreviation(t)
			if long, known := zoneNames[name]; p.count >= 4 && known {
				name = long
			}
			dst = append(dst, name...)
		case 'Z':
			_, offset := t.Zone()
			if p.count >= 3 {
				dst = append(dst, t.Location().String()...)
			} else {
				dst = appendOffset(dst, offset, p.count == 2)
			}
		default:
			return nil, false
		}
	}
	return dst, true
}

func abs64(n int) int { return max(n, -n) }

// isoDay counts days of the week from Monday, 1.
func isoDay(t time.Time) int { return (int(t.Weekday())+6)%7 + 1 }

// appendPadded writes n with at least width digits.
func appendPadded(dst []byte, n, width int) []byte {
	if n < 0 {
		dst, n = append(dst, '-'), -n
	}
	digits := strconv.Itoa(n)
	for range width - len(digits) {
		dst = append(dst, '0')
	}
	return append(dst, digits...)
}

// appendYear writes two digits for yy.
func appendYear(dst []byte, year, count int) []byte {
	if count == 2 {
		return appendPadded(dst, abs64(year)%100, 2)
	}
	return appendPadded(dst, year, count)
}

// appendName writes a name, abbreviated to three letters when count is below 4.
func appendName(dst []byte, name string, count int) []byte {
	if count < 4 {
		name = name[:3]
	}
	return append(dst, name...)
}

// appendFraction writes the first count digits of a fraction of a second.
func appendFraction(dst []byte, nanoseconds, count int) []byte {
	digits := appendPadded(nil, nanoseconds, 9)
	for len(digits) < count {
		digits = append(digits, '0')
	}
	return append(dst, digits[:count]...)
}
