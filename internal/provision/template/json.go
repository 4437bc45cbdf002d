package template

import (
	"errors"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// node is a JSON value as it stands in the document: members keep their order,
// numbers their text.
type node struct {
	kind    jsontext.Kind // '{' '[' '"' '0' 't' 'f' 'n'
	text    string        // of a string: its value; of a number: its text
	items   []*node       // of an array, and the values of an object
	names   []string      // of an object, parallel to items
	literal string        // true, false or null as written
}

// maxDepth is how deep a template may nest; the language needs about ten.
const maxDepth = 64

// decode reads one JSON value. Duplicate member names and invalid UTF-8 are errors.
func decode(body string) (*node, error) {
	d := jsontext.NewDecoder(strings.NewReader(body))
	n, err := decodeValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON value")
	}
	return n, nil
}

func decodeValue(d *jsontext.Decoder, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, errors.New("it nests too deeply")
	}
	tok, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	n := &node{kind: tok.Kind()}
	switch n.kind {
	case '"', '0':
		n.text = tok.String()
	case 't', 'f', 'n':
		n.literal = tok.String()
	case '[':
		for d.PeekKind() != ']' {
			item, err := decodeValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
		_, err = d.ReadToken()
	case '{':
		for d.PeekKind() != '}' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			text := name.String()
			item, err := decodeValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			n.names = append(n.names, text)
			n.items = append(n.items, item)
		}
		_, err = d.ReadToken()
	}
	return n, err
}

// member is the value of an object's member, nil when there is none.
func (n *node) member(name string) *node {
	for i, m := range n.names {
		if m == name {
			return n.items[i]
		}
	}
	return nil
}

func (n *node) isObject() bool { return n.kind == '{' }
func (n *node) isArray() bool  { return n.kind == '[' }
func (n *node) isString() bool { return n.kind == '"' }
func (n *node) isNull() bool   { return n.kind == 'n' }

// scalar is the text of a string, number or boolean.
func (n *node) scalar() (string, bool) {
	switch n.kind {
	case '"', '0':
		return n.text, true
	case 't', 'f':
		return n.literal, true
	}
	return "", false
}
