package sql

import (
	"math"
	"math/big"
	"math/bits"
	"strconv"
)

// number is an Int or a Decimal: ±(hi·2^64 + lo) · 10^exp, at most 34 digits.
type number struct {
	hi, lo uint64
	exp    int32
	flags  numberFlags
}

type numberFlags uint8

const (
	negative numberFlags = 1 << iota
	decimal              // a Decimal, not an Int
)

// Precision and magnitude of Decimal.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-data-types.html
const (
	maxDigits    = 34
	maxMagnitude = 999 // 9.99…E999
	minMagnitude = -999
)

func intNumber(i int64) number {
	if i < 0 {
		return number{lo: uint64(-(i + 1)) + 1, flags: negative}
	}
	return number{lo: uint64(i)}
}

func (n number) isZero() bool     { return n.hi == 0 && n.lo == 0 }
func (n number) isNegative() bool { return n.flags&negative != 0 }
func (n number) isDecimal() bool  { return n.flags&decimal != 0 }

func (n number) sign() int {
	switch {
	case n.isZero():
		return 0
	case n.isNegative():
		return -1
	}
	return 1
}

// parseNumber reads a JSON number or what the documentation's expression allows,
// ^-?\d+(\.\d+)?((?i)E-?\d+)?$, with "+" in the exponent when plus is true (JSON).
// Text without fraction and exponent is an Int. ok is false for other text and for
// magnitudes out of range.
func parseNumber(s string, plus bool) (n number, ok bool) {
	i := 0
	if i < len(s) && s[i] == '-' {
		n.flags = negative
		i++
	}
	start := i
	var lo uint64
	for i < len(s) && s[i]-'0' <= 9 {
		if i-start < 18 {
			lo = lo*10 + uint64(s[i]-'0')
		}
		i++
	}
	digits := i - start
	if digits == 0 {
		return number{}, false
	}
	fraction := 0
	if i < len(s) && s[i] == '.' {
		n.flags |= decimal
		i++
		point := i
		for i < len(s) && s[i]-'0' <= 9 {
			if digits+i-point < 18 {
				lo = lo*10 + uint64(s[i]-'0')
			}
			i++
		}
		fraction = i - point
		if fraction == 0 {
			return number{}, false
		}
	}
	mantissa := s[start:i]
	exp := 0
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		n.flags |= decimal
		i++
		minus := false
		if i < len(s) && (s[i] == '-' || plus && s[i] == '+') {
			minus = s[i] == '-'
			i++
		}
		from := i
		for i < len(s) && s[i]-'0' <= 9 {
			exp = min(exp*10+int(s[i]-'0'), 1<<20)
			i++
		}
		if i == from {
			return number{}, false
		}
		if minus {
			exp = -exp
		}
	}
	if i != len(s) {
		return number{}, false
	}
	if digits+fraction <= 18 {
		n.lo, n.exp = lo, int32(exp-fraction)
		return n.inRange()
	}
	return parseLong(mantissa, exp-fraction, n.flags)
}

// parseLong reads a mantissa of any length, with or without a point.
func parseLong(mantissa string, exp int, flags numberFlags) (number, bool) {
	text := make([]byte, 0, len(mantissa))
	dropped := 0
	for i := range len(mantissa) {
		switch c := mantissa[i]; {
		case c == '.', c == '0' && len(text) == 0:
		case len(text) == 2*maxDigits+2: // enough to round; sticky below
			dropped++
			if c != '0' {
				text[len(text)-1] |= 1 // an odd last digit keeps halves from looking exact
			}
		default:
			text = append(text, c)
		}
	}
	if len(text) == 0 {
		text = append(text, '0')
	}
	b, ok := new(big.Int).SetString(string(text), 10)
	if !ok {
		return number{}, false
	}
	return fromBig(b, exp+dropped, flags)
}

// inRange is n if its magnitude can be represented.
func (n number) inRange() (number, bool) {
	if n.isZero() {
		n.flags &^= negative
		if n.exp > 0 || n.exp < -maxDigits {
			n.exp = max(min(n.exp, 0), -maxDigits)
		}
		return n, true
	}
	if n.exp >= minMagnitude && n.exp <= maxMagnitude-40 { // the common case
		return n, true
	}
	magnitude := int(n.exp) + n.digits() - 1
	return n, magnitude >= minMagnitude && magnitude <= maxMagnitude
}

func (n number) digits() int {
	if n.hi == 0 {
		d := 1
		for v := n.lo; v >= 10; v /= 10 {
			d++
		}
		return d
	}
	return len(n.big().Text(10))
}

// big is the absolute coefficient.
func (n number) big() *big.Int {
	b := new(big.Int).SetUint64(n.hi)
	b.Lsh(b, 64)
	return b.Or(b, new(big.Int).SetUint64(n.lo))
}

func (n number) signed() *big.Int {
	b := n.big()
	if n.isNegative() {
		b.Neg(b)
	}
	return b
}

func pow10(n int) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}

// fromBig rounds b·10^exp half to even to 34 digits. The sign of b counts unless
// flags has negative.
func fromBig(b *big.Int, exp int, flags numberFlags) (number, bool) {
	if b.Sign() < 0 {
		flags |= negative
		b = new(big.Int).Neg(b)
	}
	if excess := len(b.Text(10)) - maxDigits; excess > 0 {
		b = roundHalfEven(b, excess)
		exp += excess
		if len(b.Text(10)) > maxDigits { // 999…9.5 became 1000…0
			b.Quo(b, big.NewInt(10))
			exp++
		}
	}
	if exp > 1<<20 || exp < -1<<20 {
		return number{}, b.Sign() == 0
	}
	lo := new(big.Int).And(b, new(big.Int).SetUint64(math.MaxUint64))
	hi := new(big.Int).Rsh(b, 64)
	return number{hi: hi.Uint64(), lo: lo.Uint64(), exp: int32(exp), flags: flags}.inRange()
}

// roundHalfEven drops the last digits of a positive b.
func roundHalfEven(b *big.Int, digits int) *big.Int {
	unit := pow10(digits)
	q, r := new(big.Int).QuoRem(b, unit, new(big.Int))
	switch r.Lsh(r, 1).Cmp(unit) {
	case 1:
		q.Add(q, big.NewInt(1))
	case 0:
		if q.Bit(0) == 1 {
			q.Add(q, big.NewInt(1))
		}
	}
	return q
}

// whole tells whether n has no fraction, and n then as an Int when it has at most 34 digits.
func (n number) whole() (number, bool) {
	if n.exp == 0 {
		n.flags &^= decimal
		return n, true
	}
	if n.isZero() {
		return number{}, true
	}
	if n.exp > 0 {
		if n.exp > maxDigits || int(n.exp)+n.digits() > maxDigits {
			return n, false // too large for an Int
		}
		b := n.big()
		w, ok := fromBig(b.Mul(b, pow10(int(n.exp))), 0, n.flags&^decimal)
		return w, ok
	}
	if n.hi == 0 {
		if n.exp < -19 {
			return n, false
		}
		for n.exp < 0 {
			if n.lo%10 != 0 {
				return n, false
			}
			n.lo /= 10
			n.exp++
		}
		n.flags &^= decimal
		return n, true
	}
	if n.exp < -maxDigits {
		return n, false
	}
	q, r := new(big.Int).QuoRem(n.big(), pow10(int(-n.exp)), new(big.Int))
	if r.Sign() != 0 {
		return n, false
	}
	return fromBig(q, 0, n.flags&^decimal)
}

// align scales a and b to one exponent.
func align(a, b number) (x, y *big.Int, exp int32) {
	x, y, exp = a.signed(), b.signed(), min(a.exp, b.exp)
	if a.exp > exp {
		x.Mul(x, pow10(int(a.exp-exp)))
	}
	if b.exp > exp {
		y.Mul(y, pow10(int(b.exp-exp)))
	}
	return x, y, exp
}

// scale64 multiplies a coefficient of 64 bits by 10^k.
func scale64(v uint64, k int32) (uint64, bool) {
	if k > 19 && v != 0 {
		return 0, false
	}
	for ; k > 0 && v != 0; k-- {
		hi, lo := bits.Mul64(v, 10)
		if hi != 0 {
			return 0, false
		}
		v = lo
	}
	return v, true
}

// align64 is align for small coefficients.
func align64(a, b number) (x, y uint64, exp int32, ok bool) {
	if a.hi|b.hi != 0 {
		return 0, 0, 0, false
	}
	exp = min(a.exp, b.exp)
	x, ok1 := scale64(a.lo, a.exp-exp)
	y, ok2 := scale64(b.lo, b.exp-exp)
	return x, y, exp, ok1 && ok2
}

func (n number) cmp(m number) int {
	if x, y, _, ok := align64(n, m); ok {
		s, t := n.sign(), m.sign()
		switch {
		case s != t && s < t:
			return -1
		case s != t:
			return 1
		case x == y:
			return 0
		case x < y == (s > 0):
			return -1
		}
		return 1
	}
	x, y, _ := align(n, m)
	return x.Cmp(y)
}

func (n number) add(m number) (number, bool) {
	flags := (n.flags | m.flags) & decimal
	if x, y, exp, ok := align64(n, m); ok {
		if n.isNegative() == m.isNegative() {
			if sum, carry := bits.Add64(x, y, 0); carry == 0 {
				return number{lo: sum, exp: exp, flags: flags | n.flags&negative}.inRange()
			}
		} else {
			if x >= y {
				return number{lo: x - y, exp: exp, flags: flags | n.flags&negative}.inRange()
			}
			return number{lo: y - x, exp: exp, flags: flags | m.flags&negative}.inRange()
		}
	}
	x, y, exp := align(n, m)
	return fromBig(x.Add(x, y), int(exp), flags)
}

func (n number) neg() number {
	if !n.isZero() {
		n.flags ^= negative
	}
	return n
}

func (n number) mul(m number) (number, bool) {
	flags := (n.flags|m.flags)&decimal | (n.flags^m.flags)&negative
	if n.hi|m.hi == 0 {
		if hi, lo := bits.Mul64(n.lo, m.lo); hi == 0 {
			return number{lo: lo, exp: n.exp + m.exp, flags: flags}.inRange()
		}
	}
	b := n.big()
	return fromBig(b.Mul(b, m.big()), int(n.exp)+int(m.exp), flags)
}

// div is an Int, truncated, for two Ints and a Decimal of 34 digits otherwise; ok is
// false for division by zero.
func (n number) div(m number) (number, bool) {
	if m.isZero() {
		return number{}, false
	}
	sign := (n.flags ^ m.flags) & negative
	if (n.flags|m.flags)&decimal == 0 {
		if n.hi|m.hi == 0 && n.exp == 0 && m.exp == 0 {
			return number{lo: n.lo / m.lo, flags: sign}.inRange()
		}
		x, y, _ := align(n, m)
		return fromBig(x.Quo(x, y), 0, 0)
	}
	if n.isZero() {
		return number{flags: decimal}, true
	}
	if n.hi|m.hi == 0 { // exact within 64 bits, as most quotients of measurements are
		exp := n.exp - m.exp
		for x := n.lo; ; exp-- {
			if q, r := x/m.lo, x%m.lo; r == 0 {
				return number{lo: q, exp: exp, flags: sign | decimal}.inRange()
			}
			hi, lo := bits.Mul64(x, 10)
			if hi != 0 {
				break
			}
			x = lo
		}
	}
	// Enough digits for 34 in the quotient, a guard and a sticky one.
	x, y := n.big(), m.big()
	shift := max(0, maxDigits+3+len(y.Text(10))-len(x.Text(10)))
	x.Mul(x, pow10(shift))
	q, r := x.QuoRem(x, y, new(big.Int))
	exp := int(n.exp) - int(m.exp) - shift
	if r.Sign() != 0 {
		q.Mul(q, big.NewInt(10))
		q.Add(q, big.NewInt(1))
		exp--
	}
	out, ok := fromBig(q, exp, sign|decimal)
	if !ok {
		return number{}, false
	}
	return out.trimTo(n.exp - m.exp), true
}

// trimTo strips trailing zeros while the exponent is below exp.
func (n number) trimTo(exp int32) number {
	for n.exp < exp && !n.isZero() {
		if n.hi == 0 {
			if n.lo%10 != 0 {
				return n
			}
			n.lo /= 10
			n.exp++
			continue
		}
		q, r := new(big.Int).QuoRem(n.big(), big.NewInt(10), new(big.Int))
		if r.Sign() != 0 {
			return n
		}
		n.lo = new(big.Int).And(q, new(big.Int).SetUint64(math.MaxUint64)).Uint64()
		n.hi = new(big.Int).Rsh(q, 64).Uint64()
		n.exp++
	}
	return n
}

// mod has the sign of n; ok is false when m is zero.
func (n number) mod(m number) (number, bool) {
	if m.isZero() {
		return number{}, false
	}
	flags := (n.flags | m.flags) & decimal
	if x, y, exp, ok := align64(n, m); ok {
		return number{lo: x % y, exp: exp, flags: flags | n.flags&negative}.inRange()
	}
	x, y, exp := align(n, m)
	return fromBig(x.Rem(x, y), int(exp), flags)
}

// rounding is a way from a Decimal to an Int.
type rounding int

const (
	down    rounding = iota // to minus infinity
	up                      // to plus infinity
	nearest                 // halves away from zero
	zero                    // towards zero
)

// round rounds to places digits after the point.
func (n number) round(how rounding, places int32) (number, bool) {
	if n.exp >= -places {
		return n, true
	}
	drop := -places - n.exp
	digits := n.digits()
	var q, r *big.Int
	var half int // remainder against one half
	if int(drop) > digits {
		q, r, half = new(big.Int), big.NewInt(int64(n.sign())), -1
	} else {
		unit := pow10(int(drop))
		q, r = new(big.Int).QuoRem(n.big(), unit, new(big.Int))
		half = new(big.Int).Lsh(r, 1).Cmp(unit)
	}
	if r.Sign() != 0 {
		switch {
		case how == down && n.isNegative(), how == up && !n.isNegative(), how == nearest && half >= 0:
			q.Add(q, big.NewInt(1))
		}
	}
	return fromBig(q, int(-places), n.flags)
}

// toInt rounds to an Int; ok is false when it would have more than 34 digits.
func (n number) toInt(how rounding) (number, bool) {
	if n.exp == 0 {
		n.flags &^= decimal
		return n, true
	}
	r, ok := n.round(how, 0)
	if !ok {
		return number{}, false
	}
	return r.whole()
}

// int64 is the value of an Int, clamped to ±max.
func (n number) int64(max int64) int64 {
	v := max
	if n.hi == 0 && n.lo < uint64(max) && n.exp == 0 {
		v = int64(n.lo)
	}
	if n.isNegative() {
		return -v
	}
	return v
}

func (n number) float() float64 {
	if n.hi == 0 && n.exp == 0 && n.lo < 1<<53 {
		f := float64(n.lo)
		if n.isNegative() {
			return -f
		}
		return f
	}
	f, _ := strconv.ParseFloat(string(n.appendScientific(nil)), 64)
	return f
}

// fromFloat is the Decimal with the shortest text that reads back as f; ok is false
// for NaN, infinities and magnitudes out of range.
func fromFloat(f float64) (number, bool) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return number{}, false
	}
	var buf [32]byte
	n, ok := parseNumber(string(strconv.AppendFloat(buf[:0], f, 'e', -1, 64)), true)
	if !ok {
		return number{}, false
	}
	n.flags |= decimal
	if n.exp > 0 && n.exp < maxDigits { // 100.0, not 1E+2
		b := n.big()
		return fromBig(b.Mul(b, pow10(int(n.exp)+1)), -1, n.flags)
	}
	if n.exp == 0 {
		b := n.big()
		return fromBig(b.Mul(b, big.NewInt(10)), -1, n.flags)
	}
	return n, true
}

func (n number) appendScientific(dst []byte) []byte {
	if n.isNegative() {
		dst = append(dst, '-')
	}
	dst = n.appendCoefficient(dst)
	dst = append(dst, 'E')
	return strconv.AppendInt(dst, int64(n.exp), 10)
}

func (n number) appendCoefficient(dst []byte) []byte {
	if n.hi == 0 {
		return strconv.AppendUint(dst, n.lo, 10)
	}
	return n.big().Append(dst, 10)
}

// appendText writes n as the text of a JSON number: an Int in standard notation, a
// Decimal as Java's BigDecimal.toString does (scientific below 1E-6).
func (n number) appendText(dst []byte) []byte {
	if n.exp == 0 {
		if n.isNegative() {
			dst = append(dst, '-')
		}
		return n.appendCoefficient(dst)
	}
	var buf [maxDigits + 6]byte
	digits := n.appendCoefficient(buf[:0])
	if n.isNegative() {
		dst = append(dst, '-')
	}
	point := len(digits) + int(n.exp) // digits before the point
	switch {
	case n.exp < 0 && point > 0:
		dst = append(dst, digits[:point]...)
		dst = append(dst, '.')
		return append(dst, digits[point:]...)
	case n.exp < 0 && point > -6:
		dst = append(dst, "0.000000"[:2-point]...)
		return append(dst, digits...)
	}
	dst = append(dst, digits[0])
	if len(digits) > 1 {
		dst = append(dst, '.')
		dst = append(dst, digits[1:]...)
	}
	dst = append(dst, 'E')
	if point > 0 {
		dst = append(dst, '+')
	}
	return strconv.AppendInt(dst, int64(point-1), 10)
}
