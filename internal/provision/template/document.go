package template

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// document is a policy document: text, an expression that computes the text, or
// an object in which functions may stand for strings and lists.
type document struct {
	path string
	x    expr // when the document is text
	tree *tree
}

// tree is a JSON value with functions in it.
type tree struct {
	n     *node
	x     expr // instead of n
	items []*tree
}

func compileDocument(n *node, path string) (*document, error) {
	d := &document{path: path}
	var err error
	if n.isObject() && !isFunction(n) {
		d.tree, err = compileTree(n, path)
	} else {
		d.x, err = compileValue(n, path)
	}
	if err != nil {
		return nil, err
	}
	if text, ok := constant(d.x); ok {
		return d, checkDocument(path, text)
	}
	return d, nil
}

func compileTree(n *node, path string) (*tree, error) {
	if n.isObject() && isFunction(n) {
		x, err := compileFunction(n, path)
		return &tree{x: x}, err
	}
	t := &tree{n: n, items: make([]*tree, len(n.items))}
	for i, item := range n.items {
		sub := path
		if n.isObject() {
			sub += "." + n.names[i]
		}
		var err error
		if t.items[i], err = compileTree(item, sub); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// text computes the document.
func (d *document) text(e *env) (string, error) {
	if d.tree == nil {
		text, err := evalText(d.x, e, d.path)
		if err != nil {
			return "", err
		}
		return text, checkDocument(d.path, text)
	}
	var b []byte
	b, err := d.tree.append(b, e, d.path)
	if err != nil {
		return "", err
	}
	return string(b), e.spend(d.path, len(b))
}

func (t *tree) append(b []byte, e *env, path string) ([]byte, error) {
	if t.x != nil {
		v, err := t.x.eval(e)
		if err != nil {
			return nil, err
		}
		if !v.many {
			return appendString(b, v.text), nil
		}
		b = append(b, '[')
		for i, s := range v.list {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, s)
		}
		return append(b, ']'), nil
	}
	switch {
	case t.n.isString():
		return appendString(b, t.n.text), nil
	case t.n.isNull():
		return append(b, "null"...), nil
	case !t.n.isObject() && !t.n.isArray():
		text, _ := t.n.scalar()
		return append(b, text...), nil
	}
	open, shut := byte('['), byte(']')
	if t.n.isObject() {
		open, shut = '{', '}'
	}
	b = append(b, open)
	for i, item := range t.items {
		if i > 0 {
			b = append(b, ',')
		}
		if t.n.isObject() {
			b = append(appendString(b, t.n.names[i]), ':')
		}
		var err error
		if b, err = item.append(b, e, path); err != nil {
			return nil, err
		}
	}
	return append(b, shut), nil
}

// appendString quotes s; what is not UTF-8 in it becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	b, err := jsontext.AppendQuote(b, strings.ToValidUTF8(s, "\uFFFD"))
	if err != nil {
		return append(b, `""`...) // cannot be: s is valid UTF-8
	}
	return b
}

// checkDocument checks that a policy document is a JSON object; what it says is
// for the policy language.
func checkDocument(path, text string) error {
	n, err := decode(text)
	if err != nil {
		return fail(MalformedPolicy, path, "the policy document is not valid JSON: %v", err)
	}
	if !n.isObject() {
		return fail(MalformedPolicy, path, "the policy document must be a JSON object")
	}
	return nil
}
