package pattern

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxNumber bounds the numbers of numeric comparisons, as AWS's do.
const maxNumber = 5e9

// compileTests compiles the array of a leaf: one of its elements has to match.
func compileTests(list []any) (tests []test, err error) {
	if len(list) == 0 {
		return nil, errors.New("empty arrays are not allowed")
	}
	for _, v := range list {
		t, err := compileTest(v)
		if err != nil {
			return nil, err
		}
		tests = append(tests, t)
	}
	return tests, nil
}

func compileTest(v any) (test, error) {
	switch v := v.(type) {
	case map[string]any:
		return compileComparison(v)
	case []any:
		return nil, errors.New("an array can't hold another")
	}
	// "For numbers, EventBridge uses string representation. For example, 300, 300.0, and 3.0e2 are not considered equal."
	return func(leaf any) bool { return leaf == v }, nil
}

func compileComparison(object map[string]any) (test, error) {
	name, v, err := single(object)
	if err != nil {
		return nil, err
	}
	switch name {
	case "exists":
		want, ok := v.(bool)
		if !ok {
			return nil, errors.New("exists must be true or false")
		}
		if !want {
			return nil, nil
		}
		return func(any) bool { return true }, nil
	case "anything-but":
		return anythingBut(v)
	case "numeric":
		return numeric(v)
	case "cidr":
		return cidr(v)
	case "prefix", "suffix":
		if inner, ok := v.(map[string]any); ok {
			fold, text, err := single(inner)
			if err != nil || fold != "equals-ignore-case" {
				return nil, fmt.Errorf("%s takes a string, or an object with equals-ignore-case", name)
			}
			return textTest(name, text, true)
		}
		return textTest(name, v, false)
	case "equals-ignore-case", "wildcard":
		return textTest(name, v, false)
	}
	return nil, fmt.Errorf("unrecognized match type %s", name)
}

// single gives the only member of an object.
func single(object map[string]any) (string, any, error) {
	if len(object) == 1 {
		for k, v := range object {
			return k, v, nil
		}
	}
	return "", nil, errors.New("a comparison has one key")
}

// textTest compares strings.
func textTest(name string, v any, fold bool) (test, error) {
	want, ok := v.(string)
	if !ok {
		return nil, fmt.Errorf("%s must be a string", name)
	}
	var match func(s string) bool
	switch name {
	case "prefix":
		if want == "" {
			return nil, errors.New("prefix must not be empty")
		}
		match = func(s string) bool { return strings.HasPrefix(s, want) }
		if fold {
			match = func(s string) bool { return hasPrefixFold([]rune(s), []rune(want)) }
		}
	case "suffix":
		if want == "" {
			return nil, errors.New("suffix must not be empty")
		}
		match = func(s string) bool { return strings.HasSuffix(s, want) }
		if fold {
			match = func(s string) bool { return hasPrefixFold(reversed(s), reversed(want)) }
		}
	case "equals-ignore-case":
		match = func(s string) bool { return strings.EqualFold(s, want) }
	case "wildcard":
		w, err := parseWildcard(want)
		if err != nil {
			return nil, err
		}
		match = w.match
	}
	return func(leaf any) bool {
		s, ok := leaf.(string)
		return ok && match(s)
	}, nil
}

func hasPrefixFold(s, prefix []rune) bool {
	return len(s) >= len(prefix) && strings.EqualFold(string(s[:len(prefix)]), string(prefix))
}

func reversed(s string) []rune {
	r := []rune(s)
	slices.Reverse(r)
	return r
}

// anythingBut matches leaves that are none of what v names.
func anythingBut(v any) (test, error) {
	object, nested := v.(map[string]any)
	name := ""
	if nested {
		var err error
		if name, v, err = single(object); err != nil {
			return nil, err
		}
		if !slices.Contains([]string{"prefix", "suffix", "equals-ignore-case", "wildcard"}, name) {
			return nil, fmt.Errorf("anything-but can't have %s", name)
		}
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	if len(list) == 0 {
		return nil, errors.New("anything-but must not be empty")
	}
	var not []test
	for _, e := range list {
		if nested {
			t, err := textTest(name, e, false)
			if err != nil {
				return nil, fmt.Errorf("anything-but: %w", err)
			}
			not = append(not, t)
			continue
		}
		_, isText := e.(string)
		_, isNumber := e.(json.Number)
		_, firstText := list[0].(string)
		switch {
		case !isText && !isNumber:
			return nil, errors.New("anything-but takes strings, numbers, or prefix, suffix, equals-ignore-case, wildcard")
		case isText != firstText:
			return nil, errors.New("anything-but takes either strings or numbers")
		}
		not = append(not, func(leaf any) bool { return leaf == e })
	}
	return func(leaf any) bool {
		return !slices.ContainsFunc(not, func(t test) bool { return t(leaf) })
	}, nil
}

// numeric compares numbers: [op, value] or a range [op, value, op, value].
func numeric(v any) (test, error) {
	list, _ := v.([]any)
	if len(list) != 2 && len(list) != 4 {
		return nil, errors.New("numeric takes an array of an operator and a number, or of two for a range")
	}
	var all []func(float64) bool
	var kinds []byte
	var bounds []float64
	for i := 0; i < len(list); i += 2 {
		op, ok := list[i].(string)
		n, isNumber := list[i+1].(json.Number)
		bound, err := n.Float64()
		switch {
		case !ok || !isNumber:
			return nil, errors.New("numeric takes an operator, then a number")
		case err != nil || bound < -maxNumber || bound > maxNumber:
			return nil, fmt.Errorf("numeric: %s is not between -5.0e9 and 5.0e9", n)
		}
		var compare func(float64) bool
		switch op {
		case "=":
			compare = func(f float64) bool { return f == bound }
		case "<":
			compare = func(f float64) bool { return f < bound }
		case "<=":
			compare = func(f float64) bool { return f <= bound }
		case ">":
			compare = func(f float64) bool { return f > bound }
		case ">=":
			compare = func(f float64) bool { return f >= bound }
		default:
			return nil, fmt.Errorf("numeric: unrecognized operator %q", op)
		}
		all, kinds, bounds = append(all, compare), append(kinds, op[0]), append(bounds, bound)
	}
	if len(all) == 2 && (kinds[0] != '>' || kinds[1] != '<' || bounds[0] >= bounds[1]) {
		return nil, errors.New("numeric: a range has a lower bound (> or >=), then a greater upper one (< or <=)")
	}
	return func(leaf any) bool {
		n, ok := leaf.(json.Number)
		if !ok {
			return false
		}
		f, err := n.Float64()
		if err != nil || f < -maxNumber || f > maxNumber {
			return false
		}
		for _, compare := range all {
			if !compare(f) {
				return false
			}
		}
		return true
	}, nil
}

// cidr matches addresses in a block of IPv4 or IPv6.
func cidr(v any) (test, error) {
	text, ok := v.(string)
	block, err := netip.ParsePrefix(text)
	if !ok || err != nil {
		return nil, errors.New("cidr takes an address and the length of its prefix, such as 10.0.0.0/24")
	}
	block = block.Masked()
	return func(leaf any) bool {
		s, ok := leaf.(string)
		if !ok || len(s) > 64 {
			return false
		}
		a, err := netip.ParseAddr(s)
		return err == nil && a.Zone() == "" && block.Contains(a)
	}, nil
}

// wildcard is the parts between the * of a pattern.
type wildcard []string

// parseWildcard splits at *; \* is the character, \\ the backslash.
func parseWildcard(text string) (wildcard, error) {
	var w wildcard
	var part []byte
	star := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '*' {
			if star {
				return nil, errors.New("wildcard: consecutive * are not allowed")
			}
			w, part, star = append(w, string(part)), nil, true
			continue
		}
		star = false
		if c == '\\' {
			i++
			if i == len(text) || text[i] != '*' && text[i] != '\\' {
				return nil, errors.New(`wildcard: a backslash escapes * or \ alone`)
			}
			c = text[i]
		}
		part = append(part, c)
	}
	return append(w, string(part)), nil
}

// match finds the parts in order, each as far to the left as it is.
func (w wildcard) match(s string) bool {
	if len(w) == 1 {
		return s == w[0]
	}
	s, ok := strings.CutPrefix(s, w[0])
	if !ok {
		return false
	}
	last := len(w) - 1
	for _, part := range w[1:last] {
		_, after, ok := strings.Cut(s, part)
		if !ok {
			return false
		}
		s = after
	}
	return strings.HasSuffix(s, w[last])
}
