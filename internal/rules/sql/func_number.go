package sql

import (
	"math/big"
)

func abs(_ *frame, v value) value {
	n, ok := v.toDecimal()
	n.flags &^= negative
	return numberValue(n, ok)
}

func sign(_ *frame, v value) value {
	n, ok := v.toDecimal()
	return numberValue(intNumber(int64(n.sign())), ok)
}

// double is a function computed with double precision; what is no number is Undefined.
func double(fn func(float64) float64) *function {
	return one(v1, func(_ *frame, v value) value {
		n, ok := v.toDecimal()
		if !ok {
			return value{}
		}
		return numberValue(fromFloat(fn(n.float())))
	})
}

func double2(fn func(a, b float64) float64) *function {
	return two(v1, func(_ *frame, a, b value) value {
		n, ok1 := a.toDecimal()
		m, ok2 := b.toDecimal()
		if !ok1 || !ok2 {
			return value{}
		}
		return numberValue(fromFloat(fn(n.float(), m.float())))
	})
}

func rounded(how rounding) *function {
	return one(v1, func(_ *frame, v value) value {
		n, ok := v.toDecimal()
		if !ok {
			return value{}
		}
		return numberValue(n.toInt(how))
	})
}

func trunc(_ *frame, v, places value) value {
	n, ok := v.toDecimal()
	p, isNumber := places.toIndex()
	if !ok || !isNumber {
		return value{}
	}
	n, ok = n.round(zero, int32(max(0, min(p, maxDigits))))
	if w, whole := n.whole(); whole {
		n = w
	} else {
		n = n.trimTo(0) // "trailing zeroes are stripped"
	}
	return numberValue(n, ok)
}

func mod(_ *frame, a, b value) value {
	n, ok1 := a.toDecimal()
	m, ok2 := b.toDecimal()
	if !ok1 || !ok2 {
		return value{}
	}
	return numberValue(n.mod(m))
}

func nanvl(_ *frame, a, b value) value {
	if a.kind == undefinedKind || a.kind == nullKind {
		return b
	}
	return a
}

// bitwise is a function of two Ints in two's complement.
func bitwise(fn func(a, b *big.Int) *big.Int) *function {
	return two(v1, func(_ *frame, a, b value) value {
		n, ok1 := a.toInt()
		m, ok2 := b.toInt()
		if !ok1 || !ok2 {
			return value{}
		}
		return numberValue(fromBig(fn(n.signed(), m.signed()), 0, 0))
	})
}

func bitAnd(a, b *big.Int) *big.Int { return a.And(a, b) }
func bitOr(a, b *big.Int) *big.Int  { return a.Or(a, b) }
func bitXor(a, b *big.Int) *big.Int { return a.Xor(a, b) }

func bitNot(_ *frame, v value) value {
	n, ok := v.toInt()
	if !ok {
		return value{}
	}
	return numberValue(fromBig(new(big.Int).Not(n.signed()), 0, 0))
}

func random(f *frame) value {
	if f.in.Rand == nil {
		return value{}
	}
	return numberValue(fromFloat(f.in.Rand()))
}
