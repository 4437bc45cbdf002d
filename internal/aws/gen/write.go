package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// writer collects the text of one file.
type writer struct{ strings.Builder }

func (w *writer) p(format string, args ...any) {
	fmt.Fprintf(&w.Builder, format, args...)
	w.WriteByte('\n')
}

// finish puts the package clause and the imports that the text needs before it.
func (w *writer) finish(pkg string) string {
	var h writer
	text := w.String()
	h.p("package %s\n", pkg)
	h.p("import (")
	for _, imp := range []struct{ use, path string }{
		{`strconv\.`, "strconv"},
		{`(?m)^[^/\n]*\baws\.`, "flotilla/internal/aws"},
		{`wire\.`, "flotilla/internal/aws/wire"},
	} {
		if regexp.MustCompile(imp.use).MatchString(text) {
			h.p("%q", imp.path)
		}
	}
	h.p(")\n")
	return strings.Replace(h.String(), "import (\n)\n", "", 1) + text
}

// write gives the files of a package.
func write(m *model, pkg string) (map[string]string, error) {
	enums, err := m.enums()
	if err != nil {
		return nil, err
	}
	files := map[string]string{
		"doc.go":         m.doc(pkg),
		"operations.go":  m.operations().finish(pkg),
		"exceptions.go":  m.exceptions().finish(pkg),
		"constraints.go": m.constraints().finish(pkg),
		"lists.go":       m.collections().finish(pkg),
	}
	if enums.Len() > 0 {
		files["enums.go"] = enums.finish(pkg)
	}
	byLetter := map[string]*writer{}
	for _, s := range m.sorted(func(s *shape) bool { return s.Type == "structure" && !s.Exception }) {
		letter := strings.ToLower(s.name[:1])
		w := byLetter[letter]
		if w == nil {
			w = new(writer)
			byLetter[letter] = w
		}
		m.structure(w, s)
	}
	for letter, w := range byLetter {
		files["shapes_"+letter+".go"] = w.finish(pkg)
	}
	return files, nil
}

func (m *model) doc(pkg string) string {
	return fmt.Sprintf("// Package %s holds the shapes, operations and exceptions of %s, API version %s.\npackage %s\n",
		pkg, m.Metadata.ServiceFullName, m.Metadata.APIVersion, pkg)
}

// operations writes the route table and a value for each operation.
func (m *model) operations() *writer {
	w := new(writer)
	names := slices.Sorted(maps.Keys(m.Operations))
	w.p("// Routes are the operations of the service, by name.")
	w.p("func Routes() []aws.Route { return routes[:] }\n")
	w.p("var routes = [...]aws.Route{")
	for _, name := range names {
		op := m.Operations[name]
		w.p("{Service: %q, Name: %q, Method: %q, Path: %q%s},", m.Metadata.SigningName, name, op.HTTP.Method, path(op.HTTP.RequestURI), m.target(name))
	}
	w.p("}\n")
	m.protocol(w)
	w.p("// The operations of the service.\nvar (")
	for i, name := range names {
		op := m.Operations[name]
		in, out := export(op.Input.Shape), export(op.Output.Shape)
		if op.Deprecated {
			w.p("// %s is deprecated by AWS.", name)
		}
		status := ""
		if c := op.HTTP.ResponseCode; c != 0 && c != 200 {
			status = fmt.Sprintf(", Status: %d", c)
		}
		w.p("%s = aws.Operation[%s, %s]{Route: &routes[%d], Read: read%s, Write: write%s, Invalid: %s%s}", name, in, out, i, in, out, m.invalid(op), status)
	}
	w.p(")\n")
	for _, f := range []struct{ fn, exception string }{
		{"invalidRequest", "InvalidRequestException"}, {"validation", "ValidationException"}, {"invalidParameter", "InvalidParameterException"},
	} {
		if m.Shapes[f.exception] != nil && strings.Contains(w.String(), "Invalid: "+f.fn) {
			w.p("func %s(message string) error { return &%s{Message: message} }", f.fn, f.exception)
		}
	}
	if m.Shapes["ValidationException"] == nil && strings.Contains(w.String(), "Invalid: validation") {
		w.p("func validation(message string) error {\nreturn &aws.CommonError{Status: 400, Code: \"ValidationException\", Message: message}\n}")
	}
	return w
}

// target is what names an operation where method and path don't.
func (m *model) target(operation string) string {
	switch m.Metadata.Protocol {
	case "json":
		return fmt.Sprintf(", Target: %q", m.Metadata.TargetPrefix+"."+operation)
	case "query":
		return fmt.Sprintf(", Target: %q", operation)
	}
	return ""
}

// protocol writes how the service is spoken to, if it is not REST.
func (m *model) protocol(w *writer) {
	p := m.Metadata
	if p.Protocol != "json" && p.Protocol != "query" {
		return
	}
	w.p("// Protocol is how the service is spoken to.")
	w.p("func Protocol() aws.Protocol {")
	if p.Protocol == "json" {
		w.p("return aws.Protocol{JSON: %q, Version: %q}\n}\n", p.JSONVersion, p.APIVersion)
		return
	}
	found := map[string]bool{}
	for _, s := range m.sorted(func(s *shape) bool { return s.wrote && s.Type == "structure" }) {
		for _, member := range s.Members {
			if m.Shapes[member.Shape].Type == "map" {
				found[member.name] = true
			}
		}
	}
	w.p("return aws.Protocol{Query: %q, Version: %q, Maps: %#v}\n}\n", p.XMLNamespace, p.APIVersion, slices.Sorted(maps.Keys(found)))
}

// path is the path of a requestUri; labels that hold topics take slashes that
// are not escaped, as devices send them.
func path(uri string) string {
	uri, _, _ = strings.Cut(uri, "?")
	return strings.Replace(uri, "{topic}", "{topic+}", 1)
}

// invalid is what makes an operation's exception for invalid input.
func (m *model) invalid(op *operation) string {
	if m.Metadata.Protocol == "query" && m.Shapes["InvalidParameterException"] != nil {
		return "invalidParameter"
	}
	if m.Shapes["InvalidRequestException"] == nil || !slices.Contains(op.Errors, ref{"InvalidRequestException"}) && slices.Contains(op.Errors, ref{"ValidationException"}) {
		return "validation"
	}
	return "invalidRequest"
}

func (m *model) enums() (*writer, error) {
	w := new(writer)
	seen := map[string]string{}
	for name := range m.Operations {
		seen[name] = "operation"
	}
	for _, s := range m.sorted(func(s *shape) bool { return s.Type == "structure" }) {
		if other := seen[export(s.name)]; other != "" {
			return nil, fmt.Errorf("structure %s has the name of an %s", s.name, other)
		}
		seen[export(s.name)] = "structure"
	}
	for _, s := range m.sorted(func(s *shape) bool { return s.Enum != nil }) {
		w.p("// Values of %s.\nconst (", s.name)
		for _, v := range s.Enum {
			id := export(s.name) + camel(v)
			if other := seen[id]; other != "" {
				return nil, fmt.Errorf("value %s of %s has the name of %s", v, s.name, other)
			}
			seen[id] = s.name + " " + v
			w.p("%s = %q", id, v)
		}
		w.p(")\n")
	}
	return w, nil
}

func (m *model) exceptions() *writer {
	w := new(writer)
	for _, s := range m.sorted(func(s *shape) bool { return s.Exception }) {
		status := s.Error.HTTPStatusCode
		if status == 0 {
			status = 400
		}
		code := s.name
		if s.Error.Code != "" {
			code = s.Error.Code
		}
		w.p("// %s is answered with status %d.", s.name, status)
		w.p("type %s struct {", s.name)
		for _, p := range s.Members {
			w.p("%s string `json:\"%s,omitempty\"`", export(p.name), p.name)
		}
		w.p("}\n")
		w.p("// Error is the message.")
		w.p("func (e *%s) Error() string { return e.Message }\n", s.name)
		w.p("// ErrorCode implements aws.Exception.")
		w.p("func (e *%s) ErrorCode() string { return %q }\n", s.name, code)
		w.p("// StatusCode implements aws.Exception.")
		w.p("func (e *%s) StatusCode() int { return %d }\n", s.name, status)
		w.p("// AppendJSON implements aws.Exception.")
		w.p("func (e *%s) AppendJSON(b []byte) []byte {", s.name)
		w.p("b = append(b, '{')")
		for _, p := range s.Members {
			f := "e." + export(p.name)
			always := strings.EqualFold(p.name, "message")
			if !always {
				w.p("if %s != \"\" {", f)
			}
			w.p("b = wire.AppendString(wire.AppendName(b, `%q:`), %s)", p.name, f)
			if !always {
				w.p("}")
			}
		}
		w.p("return append(b, '}')\n}\n")
	}
	return w
}

// constraints writes what the shapes that are read allow.
func (m *model) constraints() *writer {
	w := new(writer)
	w.p("// What shapes allow.\nvar (")
	for _, s := range m.sorted(func(s *shape) bool { return s.read }) {
		if name := m.constraint(s.name); name != "nil" {
			w.p("%s = %s", name, literal(s))
		}
	}
	w.p(")")
	return w
}

// constraint names the variable that holds what a shape allows, "nil" when it
// allows everything.
func (m *model) constraint(name string) string {
	s := m.Shapes[name]
	switch {
	case s.Type == "structure" || s.Min == nil && s.Max == nil && s.Pattern == "" && s.Enum == nil:
		return "nil"
	case s.Type == "string":
		return "text" + export(name)
	case s.Type == "list" || s.Type == "map" || s.Type == "blob":
		return "size" + export(name)
	}
	return "number" + export(name)
}

func literal(s *shape) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	number := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	kind := "Size"
	switch {
	case s.Type == "string":
		kind = "Text"
	case s.scalar():
		kind = "Number"
	}
	if s.Min != nil && (*s.Min > 0 || kind == "Number") {
		add("Min: %s", number(*s.Min))
	}
	if s.Max != nil {
		add("Max: %s", number(*s.Max))
	}
	if kind == "Number" {
		if s.Min != nil {
			add("HasMin: true")
		}
		if s.Max != nil {
			add("HasMax: true")
		}
	}
	if s.Pattern != "" {
		add("Pattern: wire.NewPattern(%s)", quote(s.Pattern))
	}
	if s.Enum != nil {
		var values []string
		for _, v := range s.Enum {
			values = append(values, export(s.name)+camel(v))
		}
		add("Enum: []string{%s}", strings.Join(values, ", "))
	}
	if s.Sensitive {
		add("Sensitive: true")
	}
	return "&wire." + kind + "{" + strings.Join(parts, ", ") + "}"
}

func quote(s string) string {
	if strings.Contains(s, "`") {
		return strconv.Quote(s)
	}
	return "`" + s + "`"
}
