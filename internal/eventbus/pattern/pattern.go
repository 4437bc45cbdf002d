package pattern

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	// maxDepth bounds how deep patterns nest.
	maxDepth = 100
	// maxCombinations is how many ways $or may give a pattern to match.
	//
	// AWS: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html#eb-filtering-complex-example-or
	maxCombinations = 1000
)

// Pattern is a compiled event pattern. It is immutable.
type Pattern struct{ root node }

// node is an object of a pattern: all of its parts have to match.
type node struct {
	fields []field
	ors    [][]node
}

// field is a member of an object of a pattern: an object, or what a leaf may be.
type field struct {
	name  string
	inner *node
	tests []test
	path  []string // from the root, of a leaf
}

// test tells whether a leaf of an event, a string, json.Number, bool or nil, may be. A nil test
// asks that there is none.
type test func(leaf any) bool

// Parse compiles a pattern, a JSON object. The error is one sentence for its author.
func Parse(text []byte) (*Pattern, error) {
	v, err := decode(text)
	if err != nil {
		return nil, err
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("the pattern is not an object")
	}
	root, combinations, err := compile(object, nil, 0)
	if err != nil {
		return nil, err
	}
	if combinations > maxCombinations {
		return nil, fmt.Errorf("$or has more than %d combinations", maxCombinations)
	}
	return &Pattern{*root}, nil
}

// ParseEvent decodes an event for Match; it must be a JSON object.
func ParseEvent(text []byte) (map[string]any, error) {
	v, err := decode(text)
	if err != nil {
		return nil, err
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("the event is not an object")
	}
	return object, nil
}

// decode keeps the text of numbers.
func decode(text []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("not JSON: something follows the object")
	}
	return v, nil
}

// compile compiles an object of a pattern and counts the ways that $or gives it to match.
func compile(object map[string]any, path []string, depth int) (*node, int, error) {
	if depth > maxDepth {
		return nil, 0, fmt.Errorf("the pattern is deeper than %d", maxDepth)
	}
	if len(object) == 0 {
		return nil, 0, errors.New("empty objects are not allowed")
	}
	n, ways := &node{}, 1
	for _, name := range sortedKeys(object) {
		at := append(slices.Clone(path), name)
		f := field{name: name, path: at}
		more := 1
		var err error
		switch v := object[name].(type) {
		case map[string]any:
			f.inner, more, err = compile(v, at, depth+1)
		case []any:
			if name == "$or" {
				var or []node
				if or, more, err = compileOr(v, path, depth+1); err == nil {
					n.ors = append(n.ors, or)
				}
				break
			}
			f.tests, err = compileTests(v)
		default:
			err = errors.New("it must be an object or an array")
		}
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", name, err)
		}
		if ways = min(ways*more, maxCombinations+1); name != "$or" {
			n.fields = append(n.fields, f)
		}
	}
	return n, ways, nil
}

func compileOr(list []any, path []string, depth int) (or []node, ways int, err error) {
	if len(list) < 2 {
		return nil, 0, errors.New("it needs two objects or more")
	}
	for _, v := range list {
		object, ok := v.(map[string]any)
		if !ok {
			return nil, 0, errors.New("it has objects alone")
		}
		n, more, err := compile(object, path, depth)
		if err != nil {
			return nil, 0, err
		}
		or, ways = append(or, *n), min(ways+more, maxCombinations+1)
	}
	return or, ways, nil
}

func sortedKeys(object map[string]any) []string {
	keys := make([]string, 0, len(object))
	for k := range object {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Match tells whether an event, as ParseEvent gave it, is one that the pattern selects.
func (p *Pattern) Match(event map[string]any) bool { return p.root.match(event, event) }

// match matches an object of the event; nil stands for one that is not there.
func (n *node) match(root, object map[string]any) bool {
	for i := range n.fields {
		if !n.fields[i].match(root, object) {
			return false
		}
	}
	for _, or := range n.ors {
		if !slices.ContainsFunc(or, func(n node) bool { return n.match(root, object) }) {
			return false
		}
	}
	return true
}

func (f *field) match(root, object map[string]any) bool {
	v, ok := object[f.name]
	if f.inner == nil {
		return slices.ContainsFunc(f.tests, func(t test) bool {
			if t == nil {
				return !exists(root, f.path)
			}
			return ok && anyLeaf(v, t)
		})
	}
	return f.inner.matchAny(root, v)
}

// matchAny matches an object, or one of those in an array; what has none is as an object without members.
func (n *node) matchAny(root map[string]any, v any) bool {
	found := false
	if eachObject(v, func(object map[string]any) bool {
		found = true
		return n.match(root, object)
	}) {
		return true
	}
	return !found && n.match(root, nil)
}

// eachObject calls fn with v, or the objects in it when it is an array, until one call returns true.
func eachObject(v any, fn func(map[string]any) bool) bool {
	switch v := v.(type) {
	case map[string]any:
		return fn(v)
	case []any:
		return slices.ContainsFunc(v, func(e any) bool { return eachObject(e, fn) })
	}
	return false
}

// anyLeaf tells whether v, or something in it when it is an array, is a leaf that passes.
func anyLeaf(v any, t test) bool {
	switch v := v.(type) {
	case map[string]any:
		return false
	case []any:
		return slices.ContainsFunc(v, func(e any) bool { return anyLeaf(e, t) })
	}
	return t(v)
}

// exists tells whether the event has a leaf at a path, in whichever elements of arrays.
func exists(v any, path []string) bool {
	if len(path) == 0 {
		return anyLeaf(v, func(any) bool { return true })
	}
	return eachObject(v, func(object map[string]any) bool {
		inner, ok := object[path[0]]
		return ok && exists(inner, path[1:])
	})
}
