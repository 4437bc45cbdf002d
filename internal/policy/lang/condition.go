package lang

import (
	"math/big"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// operator is a parsed condition operator.
// AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
type operator struct {
	set      setKind
	ifExists bool
	negated  bool
	test     testKind
}

type setKind uint8

const (
	single setKind = iota
	forAllValues
	forAnyValue
)

type testKind uint8

const (
	stringEquals testKind = iota
	stringEqualsIgnoreCase
	stringLike
	numericEquals
	numericLessThan
	numericLessThanEquals
	numericGreaterThan
	numericGreaterThanEquals
	dateEquals
	dateLessThan
	dateLessThanEquals
	dateGreaterThan
	dateGreaterThanEquals
	boolEquals
	binaryEquals
	ipAddress
	arnLike
	isNull
)

var operators = map[string]operator{
	"StringEquals":              {test: stringEquals},
	"StringNotEquals":           {test: stringEquals, negated: true},
	"StringEqualsIgnoreCase":    {test: stringEqualsIgnoreCase},
	"StringNotEqualsIgnoreCase": {test: stringEqualsIgnoreCase, negated: true},
	"StringLike":                {test: stringLike},
	"StringNotLike":             {test: stringLike, negated: true},
	"NumericEquals":             {test: numericEquals},
	"NumericNotEquals":          {test: numericEquals, negated: true},
	"NumericLessThan":           {test: numericLessThan},
	"NumericLessThanEquals":     {test: numericLessThanEquals},
	"NumericGreaterThan":        {test: numericGreaterThan},
	"NumericGreaterThanEquals":  {test: numericGreaterThanEquals},
	"DateEquals":                {test: dateEquals},
	"DateNotEquals":             {test: dateEquals, negated: true},
	"DateLessThan":              {test: dateLessThan},
	"DateLessThanEquals":        {test: dateLessThanEquals},
	"DateGreaterThan":           {test: dateGreaterThan},
	"DateGreaterThanEquals":     {test: dateGreaterThanEquals},
	"Bool":                      {test: boolEquals},
	"BinaryEquals":              {test: binaryEquals},
	"IpAddress":                 {test: ipAddress},
	"NotIpAddress":              {test: ipAddress, negated: true},
	"ArnEquals":                 {test: arnLike},
	"ArnLike":                   {test: arnLike},
	"ArnNotEquals":              {test: arnLike, negated: true},
	"ArnNotLike":                {test: arnLike, negated: true},
	"Null":                      {test: isNull},
}

func parseOperator(text string) (operator, bool) {
	set := single
	if rest, ok := strings.CutPrefix(text, "ForAllValues:"); ok {
		set, text = forAllValues, rest
	} else if rest, ok := strings.CutPrefix(text, "ForAnyValue:"); ok {
		set, text = forAnyValue, rest
	}
	text, ifExists := strings.CutSuffix(text, "IfExists")
	op, ok := operators[text]
	if op.test == isNull && (ifExists || set != single) {
		return op, false
	}
	op.set, op.ifExists = set, ifExists
	return op, ok
}

// condition is a compiled Condition.
type condition struct {
	op     operator
	key    variable
	values []value
}

// value is one value of a condition, ready for its operator.
type value struct {
	template *template
	arn      []*template  // arnLike: the six components
	prefix   netip.Prefix // ipAddress without variables
	number   *big.Rat     // numeric without variables
	date     time.Time    // date without variables
	yes      bool         // Null
	ready    bool         // prefix, number or date is set
}

func compileCondition(op operator, c Condition) (*condition, error) {
	out := &condition{op: op, key: variableOf(c.Key)}
	for _, text := range c.Values {
		t, err := parseTemplate(text, op.test == stringLike)
		if err != nil {
			return nil, err
		}
		v := value{template: t}
		ok := true
		switch {
		case op.test == isNull:
			v.yes = strings.EqualFold(text, "true")
			ok = v.yes || strings.EqualFold(text, "false")
		case op.test == arnLike:
			for _, component := range strings.SplitN(text, ":", 6) {
				ct, err := parseTemplate(component, true)
				if err != nil { // the colon of a variable
					ct, v.arn = nil, nil
					break
				}
				v.arn = append(v.arn, ct)
			}
			if len(v.arn) != 6 {
				whole, err := parseTemplate(text, true)
				if err != nil {
					return nil, err
				}
				v.arn = []*template{whole}
			}
		case t.variables:
		case op.test == ipAddress:
			v.prefix, ok = parsePrefix(text)
			v.ready = ok
		case op.test.numeric():
			v.number, ok = parseNumber(text)
			v.ready = ok
		case op.test.date():
			v.date, ok = parseDate(text)
			v.ready = ok
		case op.test == boolEquals:
			ok = strings.EqualFold(text, "true") || strings.EqualFold(text, "false")
		}
		if !ok {
			return nil, malformed("Invalid value %q of condition operator %s", text, c.Operator)
		}
		out.values = append(out.values, v)
	}
	return out, nil
}

func (t testKind) numeric() bool { return t >= numericEquals && t <= numericGreaterThanEquals }
func (t testKind) date() bool    { return t >= dateEquals && t <= dateGreaterThanEquals }

// holds evaluates the condition. resolved is false when a variable in a value that mattered has no value.
//
// Several values of a key are alternatives; of a negated operator, none may match. A key that is not there fails a
// positive operator and passes a negated one, IfExists and ForAllValues.
// AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-logic-multiple-context-keys-or-values.html
func (k *condition) holds(c *Connection) (ok, resolved bool) {
	var buf [8]string
	have := k.key.texts(c, buf[:0])
	if k.op.test == isNull {
		for i := range k.values {
			if k.values[i].yes == (len(have) == 0) {
				return true, true
			}
		}
		return false, true
	}
	if len(have) == 0 {
		switch {
		case k.op.ifExists || k.op.set == forAllValues:
			return true, true
		case k.op.set == forAnyValue:
			return false, true
		default:
			return k.op.negated, true
		}
	}
	resolved = true
	some, all := false, true
	for _, h := range have {
		hit := false
		for i := range k.values {
			switch k.values[i].test(c, k.op.test, h) {
			case matches:
				hit = true
			case unresolved:
				resolved = false
			}
			if hit {
				break
			}
		}
		if hit != k.op.negated {
			some = true
		} else {
			all = false
		}
	}
	// Without a set operator a key has one value; should it have more, a positive operator needs one of them to
	// match and a negated one needs that none does.
	if k.op.set == forAllValues || k.op.set == single && k.op.negated {
		return all, resolved
	}
	return some, resolved
}

// test compares one value of the request, have, with one value of the policy.
func (v *value) test(c *Connection, test testKind, have string) outcome {
	switch test {
	case stringLike:
		return v.template.match(c, have)
	case arnLike:
		return v.matchARN(c, have)
	}
	want, ok := v.template.expand(c)
	if !ok {
		return unresolved
	}
	switch {
	case test == stringEquals, test == binaryEquals:
		ok = have == want
	case test == stringEqualsIgnoreCase, test == boolEquals:
		ok = strings.EqualFold(have, want)
	case test == ipAddress:
		ok = v.matchIP(have, want)
	case test.numeric():
		ok = v.matchNumber(test, have, want)
	case test.date():
		ok = v.matchDate(test, have, want)
	}
	if ok {
		return matches
	}
	return differs
}

// matchARN compares component by component: a wildcard does not cross a colon, but in the last one.
func (v *value) matchARN(c *Connection, have string) outcome {
	if len(v.arn) == 1 {
		return v.arn[0].match(c, have)
	}
	parts := strings.SplitN(have, ":", 6)
	if len(parts) != len(v.arn) {
		return differs
	}
	for i, t := range v.arn {
		if o := t.match(c, parts[i]); o != matches {
			return o
		}
	}
	return matches
}

func parsePrefix(text string) (netip.Prefix, bool) {
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		return p.Masked(), err == nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

func (v *value) matchIP(have, want string) bool {
	p := v.prefix
	if !v.ready {
		var ok bool
		if p, ok = parsePrefix(want); !ok {
			return false
		}
	}
	a, err := netip.ParseAddr(have)
	return err == nil && p.Contains(a.Unmap().WithZone(""))
}

func parseNumber(text string) (*big.Rat, bool) {
	if len(text) == 0 || len(text) > 64 || strings.ContainsAny(text, "/xXpP_") {
		return nil, false
	}
	if _, err := strconv.ParseFloat(text, 64); err != nil { // bounds the exponent
		return nil, false
	}
	return new(big.Rat).SetString(text)
}

func (v *value) matchNumber(test testKind, have, want string) bool {
	h, ok := parseNumber(have)
	if !ok {
		return false
	}
	w := v.number
	if !v.ready {
		if w, ok = parseNumber(want); !ok {
			return false
		}
	}
	return ordered(test-numericEquals, h.Cmp(w))
}

// ordered says whether a comparison result fits: equals, less, less or equal, greater, greater or equal.
func ordered(relation testKind, cmp int) bool {
	switch relation {
	case 0:
		return cmp == 0
	case 1:
		return cmp < 0
	case 2:
		return cmp <= 0
	case 3:
		return cmp > 0
	default:
		return cmp >= 0
	}
}

// parseDate reads the W3C profile of ISO 8601, or seconds since 1970.
func parseDate(text string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", "2006-01-02", "2006-01", "2006"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, true
		}
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(n, 0), true
	}
	return time.Time{}, false
}

func (v *value) matchDate(test testKind, have, want string) bool {
	h, ok := parseDate(have)
	if !ok {
		return false
	}
	w := v.date
	if !v.ready {
		if w, ok = parseDate(want); !ok {
			return false
		}
	}
	return ordered(test-dateEquals, h.Compare(w))
}
