package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// model is an interface description as botocore has it, without documentation.
type model struct {
	Metadata struct {
		ServiceFullName string
		SigningName     string
		APIVersion      string
		Protocol        string // "rest-json", "json", "query"
		JSONVersion     string
		TargetPrefix    string
		XMLNamespace    string
	}
	Operations map[string]*operation
	Shapes     map[string]*shape
}

type operation struct {
	Name string
	HTTP struct {
		Method, RequestURI string
		ResponseCode       int
	}
	Input, Output ref
	Errors        []ref
	Deprecated    bool
}

type ref struct{ Shape string }

type shape struct {
	name       string
	Type       string
	Required   []string
	Members    members
	Member     ref
	Key, Value ref
	Enum       []string
	Pattern    string
	Min, Max   *float64
	Payload    string
	Exception  bool
	Error      struct {
		Code           string
		HTTPStatusCode int
	}
	Sensitive   bool
	isInput     bool // of an operation
	isOutput    bool
	read, wrote bool // reachable from an input, from an output
}

type member struct {
	name         string
	Shape        string
	Location     string
	LocationName string
	JSONValue    bool
	Deprecated   bool
}

// members keeps the order of the source.
type members []*member

func (m *members) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		one := &member{name: name.(string)}
		if err := d.Decode(one); err != nil {
			return err
		}
		*m = append(*m, one)
	}
	return nil
}

func (s *shape) requires(m *member) bool { return slices.Contains(s.Required, m.name) }

func (s *shape) scalar() bool {
	switch s.Type {
	case "structure", "list", "map", "blob":
		return false
	}
	return true
}

// load reads a description and what is added to it, and completes it: an
// operation without input or output gets an empty one.
func load(texts ...[]byte) (*model, error) {
	m := &model{Operations: map[string]*operation{}, Shapes: map[string]*shape{}}
	for i, text := range texts {
		part := new(model)
		if err := json.Unmarshal(text, part); err != nil {
			return nil, err
		}
		if i == 0 {
			m.Metadata = part.Metadata
		}
		maps.Copy(m.Operations, part.Operations)
		for name, s := range part.Shapes {
			if _, ok := m.Shapes[name]; !ok {
				m.Shapes[name] = s
			}
		}
	}
	for name, s := range m.Shapes {
		s.name = name
	}
	for _, name := range slices.Sorted(maps.Keys(m.Operations)) {
		op := m.Operations[name]
		for _, end := range []struct {
			ref    *ref
			suffix string
		}{{&op.Input, "Request"}, {&op.Output, "Response"}} {
			if end.ref.Shape != "" {
				continue
			}
			end.ref.Shape = name + end.suffix
			if m.Shapes[end.ref.Shape] != nil {
				return nil, fmt.Errorf("%s has no %s, but there is a shape of that name", name, end.suffix)
			}
			m.Shapes[end.ref.Shape] = &shape{name: end.ref.Shape, Type: "structure"}
		}
		m.Shapes[op.Input.Shape].isInput = true
		m.Shapes[op.Output.Shape].isOutput = true
		m.reach(op.Input.Shape, func(s *shape) *bool { return &s.read })
		m.reach(op.Output.Shape, func(s *shape) *bool { return &s.wrote })
	}
	for _, s := range m.Shapes {
		for _, p := range s.Members {
			if m.Shapes[p.Shape] == nil {
				return nil, fmt.Errorf("%s.%s is of shape %s, which does not exist", s.name, p.name, p.Shape)
			}
		}
	}
	return m, nil
}

func (m *model) reach(name string, mark func(*shape) *bool) {
	s := m.Shapes[name]
	if s == nil || *mark(s) {
		return
	}
	*mark(s) = true
	for _, p := range s.Members {
		m.reach(p.Shape, mark)
	}
	for _, r := range []ref{s.Member, s.Key, s.Value} {
		m.reach(r.Shape, mark)
	}
}

// sorted gives the shapes that a test holds for, by name.
func (m *model) sorted(test func(*shape) bool) []*shape {
	var out []*shape
	for _, name := range slices.Sorted(maps.Keys(m.Shapes)) {
		if s := m.Shapes[name]; test(s) {
			out = append(out, s)
		}
	}
	return out
}

// goType is the type of a shape as an element or a required member.
func (m *model) goType(name string) string {
	s := m.Shapes[name]
	switch s.Type {
	case "string":
		return "string"
	case "integer":
		return "int32"
	case "long":
		return "int64"
	case "double", "float":
		return "float64"
	case "boolean":
		return "bool"
	case "timestamp":
		return "aws.Time"
	case "blob":
		return "[]byte"
	case "list":
		return "[]" + m.goType(s.Member.Shape)
	case "map":
		return "map[string]" + m.goType(s.Value.Shape)
	case "structure":
		return "*" + export(name)
	}
	panic("shape " + name + " has type " + s.Type)
}

// fieldType is the type of a member.
func (m *model) fieldType(s *shape, p *member) string {
	t := m.goType(p.Shape)
	if m.Shapes[p.Shape].scalar() && !s.requires(p) {
		return "*" + t
	}
	return t
}

func export(name string) string { return strings.ToUpper(name[:1]) + name[1:] }

// camel writes a value of an enumeration as the end of an identifier:
// PENDING_TRANSFER is PendingTransfer.
func camel(value string) string {
	var b strings.Builder
	parts := strings.FieldsFunc(value, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	})
	for _, p := range parts {
		if strings.ToUpper(p) == p {
			p = strings.ToLower(p)
		}
		b.WriteString(export(p))
	}
	return b.String()
}
