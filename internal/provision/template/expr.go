package template

import (
	"strconv"
	"strings"
)

// value is what an expression computes to: text, or a list of texts.
type value struct {
	text string
	list []string
	many bool
}

// expr is a compiled value of the template.
type expr interface {
	eval(e *env) (value, error)
}

// env is what an evaluation sees.
type env struct {
	t          *Template
	parameters map[string]string
	in         Input
	document   bool // a policy document is computed: see guard
	left       int  // bytes that may still be produced
}

// maxProduced bounds what one resolution may compute, in bytes: functions in a
// template of 10 KB can otherwise multiply what a device sends.
const maxProduced = 1 << 20

func (e *env) spend(path string, n int) error {
	if e.left -= n; e.left < 0 {
		return fail(FunctionError, path, "the values computed exceed %d bytes", maxProduced)
	}
	return nil
}

// lookup is the value of a parameter or of a certificate's attribute.
//
// Names of AWS::IoT::Certificate:: come from the certificate alone, where there
// is one: a device cannot say them.
func (e *env) lookup(path, name string) (string, error) {
	if key, ok := strings.CutPrefix(name, certificatePrefix); ok && e.t.flow != RegisterThing {
		if v, ok := e.in.Certificate[key]; ok {
			return v, e.guard(path, name, v)
		}
	} else if v, ok := e.parameters[name]; ok {
		return v, e.guard(path, name, v)
	}
	if p, ok := e.t.parameters[name]; ok && p.hasDefault {
		return p.fallback, nil
	}
	return "", fail(MissingParameter, path, "parameter %s has no value", name)
}

// guard refuses what a device says where it would make its own policy another: quotes and backslashes, which end a
// string of the document, control characters, and what policies take for wildcards and variables. Who calls
// RegisterThing may write any policy, as may the hook.
func (e *env) guard(path, name, v string) error {
	if !e.document || e.t.flow == RegisterThing || e.in.Vouched[name] {
		return nil
	}
	for _, r := range v {
		if r < ' ' || strings.ContainsRune(`"\*?$`, r) {
			return fail(InvalidRequest, path, "the value of %s has %q in it, which may not come from a device into its policy", name, r)
		}
	}
	return nil
}

type literal struct{ text string }

func (l literal) eval(*env) (value, error) { return value{text: l.text}, nil }

// array is a literal list; a nil element is a null.
type array struct {
	path  string
	items []expr
}

func (a array) eval(e *env) (value, error) {
	v := value{many: true, list: make([]string, 0, len(a.items))}
	for i, item := range a.items {
		s, err := evalText(item, e, a.path+"["+strconv.Itoa(i)+"]")
		if err != nil {
			return value{}, err
		}
		v.list = append(v.list, s)
	}
	return v, nil
}

type ref struct{ path, name string }

func (r ref) eval(e *env) (value, error) {
	s, err := e.lookup(r.path, r.name)
	if err != nil {
		return value{}, err
	}
	return value{text: s}, e.spend(r.path, len(s))
}

type join struct {
	path            string
	delimiter, list expr
}

func (j join) eval(e *env) (value, error) {
	d, err := evalText(j.delimiter, e, j.path)
	if err != nil {
		return value{}, err
	}
	list, err := evalList(j.list, e, j.path)
	if err != nil {
		return value{}, err
	}
	size := len(d) * len(list)
	for _, s := range list {
		size += len(s)
	}
	if err := e.spend(j.path, size); err != nil {
		return value{}, err
	}
	return value{text: strings.Join(list, d)}, nil
}

type selection struct {
	path        string
	index, list expr
}

func (s selection) eval(e *env) (value, error) {
	text, err := evalText(s.index, e, s.path)
	if err != nil {
		return value{}, err
	}
	list, err := evalList(s.list, e, s.path)
	if err != nil {
		return value{}, err
	}
	i, err := strconv.Atoi(text)
	if err != nil {
		return value{}, fail(FunctionError, s.path, "Fn::Select: %q is not an index", text)
	}
	if i < 0 || i >= len(list) {
		return value{}, fail(FunctionError, s.path, "Fn::Select: index %d is outside a list of %d", i, len(list))
	}
	return value{text: list[i]}, nil
}

type findInMap struct {
	path             string
	name, key, field expr
}

func (f findInMap) eval(e *env) (value, error) {
	var keys [3]string
	for i, x := range []expr{f.name, f.key, f.field} {
		s, err := evalText(x, e, f.path)
		if err != nil {
			return value{}, err
		}
		keys[i] = s
	}
	v, ok := e.t.mappings[keys[0]][keys[1]][keys[2]]
	if !ok {
		return value{}, fail(FunctionError, f.path, "Fn::FindInMap: no %q under %q in mapping %q", keys[2], keys[1], keys[0])
	}
	return v, e.spend(f.path, len(v.text))
}

type split struct {
	path             string
	delimiter, whole expr
}

func (s split) eval(e *env) (value, error) {
	d, err := evalText(s.delimiter, e, s.path)
	if err != nil {
		return value{}, err
	}
	if d == "" {
		return value{}, fail(FunctionError, s.path, "Fn::Split: the delimiter is empty")
	}
	whole, err := evalText(s.whole, e, s.path)
	if err != nil {
		return value{}, err
	}
	if err := e.spend(s.path, len(whole)+16*strings.Count(whole, d)); err != nil {
		return value{}, err
	}
	return value{many: true, list: strings.Split(whole, d)}, nil
}

// substitution is a compiled Fn::Sub: text between variables.
type substitution struct {
	path  string
	parts []part
	vars  map[string]expr
}

type part struct {
	text     string
	variable bool
}

func (s substitution) eval(e *env) (value, error) {
	var b strings.Builder
	for _, p := range s.parts {
		text := p.text
		if p.variable {
			var err error
			if x, ok := s.vars[p.text]; ok {
				text, err = evalText(x, e, s.path)
			} else {
				text, err = e.lookup(s.path, p.text)
			}
			if err != nil {
				return value{}, err
			}
		}
		if err := e.spend(s.path, len(text)); err != nil {
			return value{}, err
		}
		b.WriteString(text)
	}
	return value{text: b.String()}, nil
}

func evalText(x expr, e *env, path string) (string, error) {
	if x == nil {
		return "", fail(FunctionError, path, "null is not a value")
	}
	v, err := x.eval(e)
	if err != nil {
		return "", err
	}
	if v.many {
		return "", fail(FunctionError, path, "a list stands where a string is needed")
	}
	return v.text, nil
}

func evalList(x expr, e *env, path string) ([]string, error) {
	if x == nil {
		return nil, fail(FunctionError, path, "null is not a list")
	}
	v, err := x.eval(e)
	if err != nil {
		return nil, err
	}
	if !v.many {
		return nil, fail(FunctionError, path, "a string stands where a list is needed")
	}
	return v.list, nil
}

// constant computes an expression that depends on nothing outside the template.
func constant(x expr) (string, bool) {
	l, ok := x.(literal)
	return l.text, ok
}
