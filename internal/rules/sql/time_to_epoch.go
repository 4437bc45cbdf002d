package sql

import (
	"strings"
	"time"
)

// timeToEpoch reads a text by a pattern of Java's DateTimeFormatter as milliseconds.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-functions.html#iot-sql-function-time-to-epoch
func timeToEpoch(c *compiler, args []expr) eval {
	of, pattern := c.expr(args[0]), c.timePattern(args[1], true)
	return func(f *frame) value {
		f.spend(1)
		s, ok := f.toText(of(f))
		pieces := pattern(f)
		if !ok || pieces == nil || len(s) > maxTimePattern {
			return value{}
		}
		t, ok := readTime(s, pieces)
		if !ok {
			return value{}
		}
		return intValue(t.UnixMilli())
	}
}

// fields are what a text tells about a time.
type fields struct {
	have         map[byte]int // by the letter that stands for the field
	zone         *time.Location
	hasOffset    bool
	offset       int // seconds
	nanoseconds  int
	hasHalf, pm  bool // of the day
	beforeChrist bool
}

// readTime reads s by a pattern; without a zone it is in UTC.
// Java: https://docs.oracle.com/en/java/javase/11/docs/api/java.base/java/time/format/DateTimeFormatter.html
func readTime(s string, pieces []timePiece) (time.Time, bool) {
	f := fields{have: map[byte]int{}}
	rest, ok := f.read(s, pieces, 0)
	if !ok || rest != "" {
		return time.Time{}, false
	}
	return f.resolve()
}

// read passes over s by the pieces; depth counts the optional parts around them.
func (f *fields) read(s string, pieces []timePiece, depth int) (rest string, ok bool) {
	for i := 0; i < len(pieces); i++ {
		p := pieces[i]
		switch p.letter {
		case 0:
			if s, ok = strings.CutPrefix(s, p.text); !ok {
				return s, false
			}
		case '[':
			end := closing(pieces, i)
			if depth > 16 {
				return s, false
			}
			saved := *f
			saved.have = map[byte]int{}
			for k, v := range f.have {
				saved.have[k] = v
			}
			if after, ok := f.read(s, pieces[i+1:end], depth+1); ok {
				s = after
			} else {
				*f = saved
			}
			i = end
		case ']':
			return s, false
		default:
			if s, ok = f.field(s, p, digitsAfter(pieces[i+1:])); !ok {
				return s, false
			}
		}
	}
	return s, true
}

// closing is the bracket that closes the one at i, or the end.
func closing(pieces []timePiece, i int) int {
	depth := 0
	for j := i; j < len(pieces); j++ {
		switch pieces[j].letter {
		case '[':
			depth++
		case ']':
			if depth--; depth == 0 {
				return j
			}
		}
	}
	return len(pieces)
}

// digitsAfter is how many digits the pieces that follow a number directly need.
func digitsAfter(pieces []timePiece) int {
	n := 0
	for _, p := range pieces {
		fixed := isNumeric(p) && p.count >= 2
		if !fixed {
			break
		}
		n += p.count
	}
	return n
}

func isNumeric(p timePiece) bool {
	switch p.letter {
	case 'M', 'L', 'Q', 'q', 'e', 'c':
		return p.count <= 2
	}
	return strings.IndexByte("uyYDdwWFKkhHmsSAnN", p.letter) >= 0 && p.letter != 0
}

// field reads one piece from s; later is how many digits belong to the pieces after it.
func (f *fields) field(s string, p timePiece, later int) (rest string, ok bool) {
	switch p.letter {
	case 'M', 'L':
		if p.count >= 3 {
			n, rest, ok := readName(s, p.count, 12, func(i int) string { return time.Month(i).String() })
			return rest, ok && f.set('M', n)
		}
	case 'E', 'e', 'c':
		if p.letter == 'E' || p.count >= 3 {
			n, rest, ok := readName(s, p.count, 7, func(i int) string { return time.Weekday(i % 7).String() })
			return rest, ok && f.set('E', n)
		}
	case 'G':
		return f.era(s)
	case 'a':
		if len(s) < 2 || s[1] != 'M' || s[0] != 'A' && s[0] != 'P' || f.hasHalf && f.pm != (s[0] == 'P') {
			return s, false
		}
		f.hasHalf, f.pm = true, s[0] == 'P'
		return s[2:], true
	case 'S':
		return f.fraction(s, p.count)
	case 'V', 'z', 'v':
		return f.region(s, p)
	case 'O', 'X', 'x', 'Z':
		return f.zoneOffset(s, p)
	}
	if !isNumeric(p) || p.count > 19 {
		return s, false
	}
	return f.number(s, p, later)
}

// set notes a field; the same field twice must agree.
func (f *fields) set(letter byte, n int) bool {
	if old, ok := f.have[letter]; ok && old != n {
		return false
	}
	f.have[letter] = n
	return true
}

// number reads digits: two letters are two digits, one letter any number, four or more
// letters of a year at least as many.
func (f *fields) number(s string, p timePiece, later int) (rest string, ok bool) {
	least, most := p.count, p.count
	year := p.letter == 'y' || p.letter == 'u' || p.letter == 'Y'
	if p.count == 1 || year && p.count > 2 {
		most = 19
	}
	sign := 1
	if year && p.count != 2 && s != "" && (s[0] == '-' || s[0] == '+') {
		if s[0] == '-' {
			sign = -1
		}
		s = s[1:]
	}
	digits := 0
	for digits < len(s) && digits < 19 && s[digits]-'0' <= 9 {
		digits++
	}
	if later > 0 {
		digits -= min(later, max(0, digits-least))
	}
	digits = min(digits, most)
	if digits < least || digits > 18 {
		return s, false
	}
	n := 0
	for i := range digits {
		n = n*10 + int(s[i]-'0')
	}
	if year && p.count == 2 {
		n += 2000
	}
	letter := p.letter
	if letter == 'L' {
		letter = 'M'
	}
	return s[digits:], f.set(letter, sign*n)
}

// readName reads a name, in full when count is 4 and abbreviated when it is 3 or less.
func readName(s string, count, most int, name func(int) string) (n int, rest string, ok bool) {
	for i := 1; i <= most; i++ {
		full := name(i)
		if count < 4 {
			full = full[:3]
		}
		if rest, ok := strings.CutPrefix(s, full); ok && count <= 4 {
			return i, rest, true
		}
	}
	return 0, s, false
}

func (f *fields) era(s string) (rest string, ok bool) {
	for _, era := range []string{"AD", "BC", "Anno Domini", "Before Christ"} {
		if rest, ok := strings.CutPrefix(s, era); ok {
			f.beforeChrist = era[0] == 'B'
			return rest, true
		}
	}
	return s, false
}

func (f *fields) fraction(s string, count int) (rest string, ok bool) {
	if count > 9 || len(s) < count {
		return s, false
	}
	n := 0
	for i := range 9 {
		n *= 10
		if i < count {
			if s[i]-'0' > 9 {
				return s, false
			}
			n += int(s[i] - '0')
		}
	}
	f.nanoseconds = n
	return s[count:], true
}

// region reads the id or, for z, the abbreviation of a zone.
func (f *fields) region(s string, p timePiece) (rest string, ok bool) {
	if p.letter == 'V' && p.count != 2 || p.count > 4 {
		return s, false
	}
	end := 0
	for end < len(s) && end < 64 {
		c := s[end]
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c-'0' <= 9 || strings.IndexByte("/_+-:", c) >= 0 {
			end++
			continue
		}
		break
	}
	for ; end > 0; end-- {
		name := s[:end]
		if p.letter == 'z' {
			if full, known := shortZones[name]; known {
				name = full
			}
		}
		if loc, found := loadZone(name); found {
			f.zone = loc
			return s[end:], true
		}
		if end < len(s) && s[end-1]|0x20 >= 'a' {
			// A shorter name can only end before a sign or a digit.
			for end > 1 && s[end-1]|0x20 >= 'a' && s[end-1]|0x20 <= 'z' {
				end--
			}
		}
	}
	return s, false
}

// zoneOffset reads O, X, x and Z.
func (f *fields) zoneOffset(s string, p timePiece) (rest string, ok bool) {
	if p.count > 5 {
		return s, false
	}
	if p.letter == 'O' || p.letter == 'Z' && p.count == 4 {
		if s, ok = strings.CutPrefix(s, "GMT"); !ok {
			return s, false
		}
		if s == "" || s[0] != '+' && s[0] != '-' {
			f.offset, f.hasOffset = 0, true
			return s, true
		}
	} else if after, isZ := strings.CutPrefix(s, "Z"); isZ && (p.letter == 'X' || p.letter == 'Z' && p.count == 5) {
		f.offset, f.hasOffset = 0, true
		return after, true
	}
	seconds, rest, ok := parseOffset(s)
	if !ok {
		return s, false
	}
	written := s[:len(s)-len(rest)]
	colons := p.letter == 'O' || p.count == 3 || p.count == 5 || p.letter == 'Z' && p.count >= 4
	if strings.Contains(written, ":") != colons && !(p.count == 1 && p.letter != 'Z') && len(written) > 3 {
		return s, false
	}
	if p.letter != 'O' && p.count > 1 && len(written) < 5 {
		return s, false
	}
	f.offset, f.hasOffset = seconds, true
	return rest, true
}
