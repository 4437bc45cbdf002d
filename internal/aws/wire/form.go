package wire

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// FormJSON gives the parameters of a request in AWS's query protocol as the JSON object that they stand for: all scalars
// are strings, X.member.1 are the elements of an array, X.entry.1.key and .value the members of an object. The names
// Action and Version, and those of a signature, are left out. An error says which parameter is wrong.
//
// AWS: https://smithy.io/2.0/aws/protocols/aws-query-protocol.html
func FormJSON(form map[string][]string) ([]byte, error) {
	root := &field{}
	for _, name := range slices.Sorted(maps.Keys(form)) {
		if name == "Action" || name == "Version" || strings.HasPrefix(name, "X-Amz-") {
			continue
		}
		if len(form[name]) != 1 {
			return nil, &SyntaxError{fmt.Sprintf("The parameter %.100q is there more than once", name)}
		}
		if !root.set(name, form[name][0]) {
			return nil, &SyntaxError{fmt.Sprintf("The parameter %.100q does not go with the others", name)}
		}
	}
	return root.append(make([]byte, 0, 256))
}

// field is a parameter, or what the names of several have in common.
type field struct {
	text   *string
	within map[string]*field
}

func (f *field) set(name, text string) bool {
	if strings.Count(name, ".") >= maxDepth {
		return false
	}
	for part := range strings.SplitSeq(name, ".") {
		if f.text != nil || part == "" {
			return false
		}
		if f.within == nil {
			f.within = map[string]*field{}
		}
		next := f.within[part]
		if next == nil {
			next = new(field)
			f.within[part] = next
		}
		f = next
	}
	if f.within != nil {
		return false
	}
	f.text = &text
	return true
}

// only is what a field holds if that has one name.
func (f *field) only(name string) *field {
	if len(f.within) != 1 {
		return nil
	}
	return f.within[name]
}

func (f *field) append(b []byte) ([]byte, error) {
	if f.text != nil {
		return AppendString(b, *f.text), nil
	}
	if list := f.only("member"); list != nil {
		return list.appendList(b)
	}
	if entries := f.only("entry"); entries != nil {
		return entries.appendEntries(b)
	}
	b = append(b, '{')
	for _, name := range slices.Sorted(maps.Keys(f.within)) {
		var err error
		b = append(AppendString(AppendName(b, ""), name), ':')
		if b, err = f.within[name].append(b); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// numbered gives the elements of a list in their order.
func (f *field) numbered() ([]*field, error) {
	type element struct {
		at    int
		field *field
	}
	var list []element
	for name, e := range f.within {
		n, err := strconv.Atoi(name)
		if err != nil || n < 1 {
			return nil, &SyntaxError{fmt.Sprintf("%.100q is not the place of an element", name)}
		}
		list = append(list, element{n, e})
	}
	slices.SortFunc(list, func(a, b element) int { return a.at - b.at })
	out := make([]*field, len(list))
	for i, e := range list {
		out[i] = e.field
	}
	return out, nil
}

func (f *field) appendList(b []byte) ([]byte, error) {
	list, err := f.numbered()
	if err != nil {
		return nil, err
	}
	b = append(b, '[')
	for _, e := range list {
		b = AppendComma(b)
		if b, err = e.append(b); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

// appendEntries writes a map: of each entry, key and value, or Name and Value.
func (f *field) appendEntries(b []byte) ([]byte, error) {
	list, err := f.numbered()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	b = append(b, '{')
	for _, e := range list {
		key, value := e.within["key"], e.within["value"]
		if key == nil {
			key, value = e.within["Name"], e.within["Value"]
		}
		if key == nil || key.text == nil || value == nil || len(e.within) != 2 || seen[*key.text] {
			return nil, &SyntaxError{"An entry is a key that no other has, and a value"}
		}
		seen[*key.text] = true
		b = append(AppendString(AppendName(b, ""), *key.text), ':')
		if b, err = value.append(b); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}
