// Package number is DynamoDB's numbers: decimals of up to 38 digits, their one spelling, their order and their sum.
package number

//lint:file-ignore ST1005 clients see AWS's words

import (
	"errors"
	"math/big"
	"strconv"
	"strings"
)

// What a number may be.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html
const (
	maxDigits = 38
	maxPlace  = 126  // of 0.d × 10^place: 9.9…E+125
	minPlace  = -129 // 1E-130
	maxText   = 512
)

// Errors of Parse and Add, in AWS's words.
var (
	ErrSyntax    = errors.New("The parameter cannot be converted to a numeric value")
	ErrDigits    = errors.New("Attempting to store more than 38 significant digits in a Number")
	ErrOverflow  = errors.New("Number overflow. Attempting to store a number with magnitude larger than supported range")
	ErrUnderflow = errors.New("Number underflow. Attempting to store a number with magnitude smaller than supported range")
)

// Number is a decimal: 0.digits × 10^place. The zero value is 0.
type Number struct {
	negative bool
	digits   string // without zeros at either end; "" is 0
	place    int
}

// Parse reads a number: digits with a sign, a point and an exponent.
func Parse(text string) (Number, error) {
	if len(text) > maxText {
		return Number{}, ErrSyntax
	}
	s := strings.ToLower(text)
	var n Number
	if s != "" && (s[0] == '-' || s[0] == '+') {
		n.negative, s = s[0] == '-', s[1:]
	}
	mantissa, exponent, hasExponent := strings.Cut(s, "e")
	e := 0
	if hasExponent {
		var err error
		if e, err = strconv.Atoi(exponent); err != nil || e > 1000 || e < -1000 {
			return Number{}, ErrSyntax
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := whole + fraction
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return Number{}, ErrSyntax
	}
	return normal(n.negative, digits, len(whole)+e)
}

// normal is 0.digits × 10^place within the limits.
func normal(negative bool, digits string, place int) (Number, error) {
	short := strings.TrimLeft(digits, "0")
	place -= len(digits) - len(short)
	digits = strings.TrimRight(short, "0")
	switch {
	case digits == "":
		return Number{}, nil
	case len(digits) > maxDigits:
		return Number{}, ErrDigits
	case place > maxPlace:
		return Number{}, ErrOverflow
	case place < minPlace:
		return Number{}, ErrUnderflow
	}
	return Number{negative, digits, place}, nil
}

// String is the one spelling: without an exponent, and without zeros that say nothing.
func (n Number) String() string {
	if n.digits == "" {
		return "0"
	}
	sign := ""
	if n.negative {
		sign = "-"
	}
	switch k := len(n.digits); {
	case n.place <= 0:
		return sign + "0." + strings.Repeat("0", -n.place) + n.digits
	case n.place >= k:
		return sign + n.digits + strings.Repeat("0", n.place-k)
	default:
		return sign + n.digits[:n.place] + "." + n.digits[n.place:]
	}
}

// Key appends bytes whose order is that of the numbers, and equal for equal ones.
//
//	0    01
//	> 0  02, place + 129, then a byte for each two digits: their value + 1
//	< 0  00, the same complemented, FF
func (n Number) Key(b []byte) []byte {
	if n.digits == "" {
		return append(b, 1)
	}
	start := len(b) + 1
	b = append(b, 2, byte(n.place-minPlace))
	for i := 0; i < len(n.digits); i += 2 {
		two := (n.digits[i] - '0') * 10
		if i+1 < len(n.digits) {
			two += n.digits[i+1] - '0'
		}
		b = append(b, two+1)
	}
	if n.negative {
		b[start-1] = 0
		for i := start; i < len(b); i++ {
			b[i] = ^b[i]
		}
		b = append(b, 0xff)
	}
	return b
}

// Add gives n + o.
func (n Number) Add(o Number) (Number, error) {
	low := min(n.place-len(n.digits), o.place-len(o.digits))
	sum := new(big.Int).Add(n.scaled(low), o.scaled(low))
	digits := new(big.Int).Abs(sum).String()
	return normal(sum.Sign() < 0, digits, len(digits)+low)
}

// scaled is n × 10^-low.
func (n Number) scaled(low int) *big.Int {
	if n.digits == "" {
		return new(big.Int)
	}
	i, _ := new(big.Int).SetString(n.digits+strings.Repeat("0", n.place-len(n.digits)-low), 10)
	if n.negative {
		i.Neg(i)
	}
	return i
}

// Negated gives -n.
func (n Number) Negated() Number {
	n.negative = !n.negative && n.digits != ""
	return n
}

// Bytes is about the size that DynamoDB counts for n.
func (n Number) Bytes() int { return (len(n.digits)+1)/2 + 1 }
