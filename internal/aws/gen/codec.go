package main

import (
	"fmt"
	"net/textproto"
	"regexp"
	"strings"
)

// structure writes a type, and the codec of what it takes part in.
func (m *model) structure(w *writer, s *shape) {
	name := export(s.name)
	switch {
	case s.isInput:
		w.p("// %s is the input of %s.", name, m.uses(s))
	case s.isOutput:
		w.p("// %s is the output of %s.", name, m.uses(s))
	default:
		w.p("// %s is a structure of the model.", name)
	}
	w.p("type %s struct {", name)
	for _, p := range s.Members {
		w.p("%s %s `json:\"%s%s\"`%s", export(p.name), m.fieldType(s, p), p.name, omit(s, p), m.comment(s, p))
	}
	w.p("}\n")
	if s.isInput {
		m.request(w, s)
	}
	if s.isOutput {
		m.response(w, s)
	}
	if s.read && (!s.isInput || m.hasBody(s)) {
		m.decoder(w, s)
	}
	if s.wrote && (!s.isOutput || m.hasBody(s)) {
		m.encoder(w, s)
	}
}

func omit(s *shape, p *member) string {
	if s.requires(p) {
		return ""
	}
	return ",omitzero"
}

// uses names the operations whose input or output a shape is.
func (m *model) uses(s *shape) string {
	var names []string
	for _, op := range m.Operations {
		if op.Input.Shape == s.name || op.Output.Shape == s.name {
			names = append(names, op.Name)
		}
	}
	if len(names) > 1 {
		return fmt.Sprintf("%d operations", len(names))
	}
	return names[0]
}

func (m *model) comment(s *shape, p *member) string {
	var notes []string
	if s.requires(p) {
		notes = append(notes, "required")
	}
	switch p.Location {
	case "uri":
		notes = append(notes, "in the path")
	case "querystring":
		notes = append(notes, "query "+p.LocationName)
	case "header":
		notes = append(notes, "header "+p.LocationName)
	case "statusCode":
		notes = append(notes, "HTTP status")
	}
	if s.Payload == p.name {
		notes = append(notes, "the body")
	}
	if m.Shapes[p.Shape].Enum != nil {
		notes = append(notes, p.Shape)
	}
	if p.JSONValue {
		notes = append(notes, "JSON text")
	}
	if p.Deprecated {
		notes = append(notes, "deprecated")
	}
	if len(notes) == 0 {
		return ""
	}
	return " // " + strings.Join(notes, ", ")
}

// hasBody tells whether members of an input or output are members of the body.
func (m *model) hasBody(s *shape) bool {
	if s.Payload != "" {
		return false
	}
	for _, p := range s.Members {
		if p.Location == "" {
			return true
		}
	}
	return false
}

var label = regexp.MustCompile(`\{([^}+]+)\+?\}`)

// labels are those of the operations that have a shape as input, in order.
func (m *model) labels(s *shape) map[string]int {
	for _, op := range m.Operations {
		if op.Input.Shape == s.name {
			out := map[string]int{}
			for i, found := range label.FindAllStringSubmatch(op.HTTP.RequestURI, -1) {
				out[found[1]] = i
			}
			return out
		}
	}
	return nil
}

// request writes the decoder of an input.
func (m *model) request(w *writer, s *shape) {
	name := export(s.name)
	if len(s.Members) == 0 {
		w.p("func read%s(*wire.Request, *%s) error { return nil }\n", name, name)
		return
	}
	w.p("func read%s(r *wire.Request, s *%s) error {", name, name)
	if m.Metadata.Protocol == "query" {
		w.p("d := wire.NewFormDecoder(r.Body)")
	} else if m.hasBody(s) || s.Payload != "" && m.Shapes[m.payload(s).Shape].Type == "structure" {
		w.p("d := wire.NewDecoder(r.Body)")
	} else {
		w.p("d := new(wire.Decoder)")
	}
	labels := m.labels(s)
	for _, p := range s.Members {
		var get string
		switch p.Location {
		case "uri":
			get = fmt.Sprintf("r.Label(%d)", labels[p.LocationName])
		case "querystring":
			get = fmt.Sprintf("r.QueryValue(%q)", p.LocationName)
		case "header":
			get = fmt.Sprintf("r.HeaderValue(%q)", textproto.CanonicalMIMEHeaderKey(p.LocationName))
		default:
			continue
		}
		w.p("d.In(%q)", p.name)
		m.param(w, s, p, get)
		w.p("d.Out()")
	}
	if p := m.payload(s); p != nil {
		m.readPayload(w, s, p)
	} else if m.hasBody(s) {
		w.p("s.decode(d)\nd.End()")
	}
	w.p("return d.Err()\n}\n")
}

func (m *model) payload(s *shape) *member {
	for _, p := range s.Members {
		if p.name == s.Payload {
			return p
		}
	}
	return nil
}

func (m *model) param(w *writer, s *shape, p *member, get string) {
	field, t := "s."+export(p.name), m.Shapes[p.Shape]
	c := m.constraint(p.Shape)
	if t.Type == "list" {
		m.paramList(w, s, p)
		return
	}
	var parse, value string
	switch t.Type {
	case "string":
		if p.JSONValue {
			parse, value = "d.ParamJSON(text)", "v"
		}
	case "integer":
		parse, value = "d.ParamInt("+c+", text)", "v"
	case "long":
		parse, value = "d.ParamLong("+c+", text)", "v"
	case "boolean":
		parse, value = "d.ParamBool(text)", "v"
	case "timestamp":
		parse, value = "d.ParamTime(text)", "aws.Time{Time: v}"
	default:
		panic(s.name + "." + p.name + " is a " + t.Type + " outside the body")
	}
	assign := func(v string) string {
		if s.requires(p) {
			return field + " = " + v
		}
		return field + " = new(" + v + ")"
	}
	w.p("if text, ok := %s; ok {", get)
	if parse == "" {
		if c != "nil" {
			w.p("d.Check(%s, text)", c)
		}
		w.p("%s", strings.Replace(assign("text"), "new(text)", "&text", 1))
	} else {
		w.p("if v, ok := %s; ok {\n%s\n}", parse, assign(value))
	}
	if s.requires(p) && p.Location != "uri" {
		w.p("} else {\nd.Out()\nd.Require(false, %q)", p.name)
	}
	w.p("}")
}

// paramList reads a list of strings from the values of a query parameter.
func (m *model) paramList(w *writer, s *shape, p *member) {
	field, t := "s."+export(p.name), m.Shapes[p.Shape]
	if p.Location != "querystring" || m.Shapes[t.Member.Shape].Type != "string" {
		panic(s.name + "." + p.name + " is a list outside the body, and not one of strings in the query")
	}
	w.p("%s = r.Query[%q]", field, p.LocationName)
	if c := m.constraint(p.Shape); c != "nil" {
		w.p("d.CheckSize(%s, len(%s))", c, field)
	}
	if c := m.constraint(t.Member.Shape); c != "nil" {
		w.p("d.CheckElements(%s, %s)", c, field)
	}
	if s.requires(p) {
		w.p("if %s == nil {\nd.Out()\nd.Require(false, %q)\nd.In(%q)\n}", field, p.name, p.name)
	}
}

func (m *model) readPayload(w *writer, s *shape, p *member) {
	field, t := "s."+export(p.name), m.Shapes[p.Shape]
	if t.Type == "blob" {
		w.p("%s = r.Body", field)
		if c := m.constraint(p.Shape); c != "nil" {
			w.p("d.In(%q)\nd.CheckSize(%s, len(r.Body))\nd.Out()", p.name, c)
		}
		return
	}
	w.p("d.In(%q)", p.name)
	w.p("if d.Null() {\nd.Out()\nd.Require(%v, %q)\n} else {", !s.requires(p), p.name)
	w.p("%s = new(%s)\n%s.decode(d)\nd.Out()\n}\nd.End()", field, export(t.name), field)
}

// decoder writes the method that reads a structure from JSON.
func (m *model) decoder(w *writer, s *shape) {
	var required []*member
	for _, p := range s.Members {
		if p.Location == "" && s.requires(p) {
			required = append(required, p)
		}
	}
	w.p("func (s *%s) decode(d *wire.Decoder) {", export(s.name))
	w.p("if !d.Object() {\nreturn\n}")
	if len(required) > 0 {
		w.p("var seen uint64")
	}
	w.p("for {\nname, ok := d.Member()\nif !ok {\nbreak\n}\nswitch string(name) {")
	for _, p := range s.Members {
		if p.Location != "" {
			continue
		}
		w.p("case %q:\nd.At(%q)", p.name, p.name)
		bit := ""
		for i, r := range required {
			if r == p {
				bit = fmt.Sprintf("\nseen |= 1 << %d", i)
			}
		}
		m.decodeInto(w, s, p, bit)
	}
	w.p("default:\nd.Skip()\n}\n}")
	for i, p := range required {
		w.p("d.Require(seen&(1<<%d) != 0, %q)", i, p.name)
	}
	w.p("}\n")
}

func (m *model) decodeInto(w *writer, s *shape, p *member, then string) {
	field, t := "s."+export(p.name), m.Shapes[p.Shape]
	switch t.Type {
	case "structure":
		w.p("if !d.Null() {\n%s = new(%s)\n%s.decode(d)%s\n}", field, export(t.name), field, then)
		return
	case "list", "map":
		w.p("if !d.Null() {\n%s = decode%s(d)%s\n}", field, export(t.name), then)
		return
	}
	v := "v"
	if t.Type == "timestamp" {
		v = "aws.Time{Time: v}"
	}
	if !s.requires(p) && t.scalar() {
		if v = "new(" + v + ")"; v == "new(v)" {
			v = "&v"
		}
	}
	w.p("if v, ok := %s; ok {\n%s = %s%s\n}", m.scan(p.Shape), field, v, then)
}

// scan reads a scalar or a blob.
func (m *model) scan(name string) string {
	c := m.constraint(name)
	switch m.Shapes[name].Type {
	case "string":
		return "d.String(" + c + ")"
	case "integer":
		return "d.Int(" + c + ")"
	case "long":
		return "d.Long(" + c + ")"
	case "double", "float":
		return "d.Double(" + c + ")"
	case "boolean":
		return "d.Bool()"
	case "timestamp":
		return "d.Time()"
	case "blob":
		return "d.Blob(" + c + ")"
	}
	panic("no scalar: " + name)
}

// collections writes the codecs of lists and maps.
func (m *model) collections() *writer {
	w := new(writer)
	for _, s := range m.sorted(func(s *shape) bool { return s.Type == "list" || s.Type == "map" }) {
		if s.read {
			m.decodeCollection(w, s)
		}
		if s.wrote {
			m.encodeCollection(w, s)
		}
	}
	return w
}

func (m *model) decodeCollection(w *writer, s *shape) {
	goType := m.goType(s.name)
	element := s.Member
	if s.Type == "map" {
		element = s.Value
	}
	e := m.Shapes[element.Shape]
	w.p("func decode%s(d *wire.Decoder) %s {", export(s.name), goType)
	enter := "Array"
	if s.Type == "map" {
		enter = "Object"
	}
	w.p("if !d.%s() {\nreturn nil\n}\nout := %s{}", enter, goType)
	store := "out = append(out, %s)"
	if s.Type == "map" {
		w.p("for {\nname, ok := d.Member()\nif !ok {\nbreak\n}\nkey := string(name)\nd.At(key)")
		store = "out[key] = %s"
	} else {
		w.p("for d.Next() {")
	}
	plain := e.Type == "string"
	switch {
	case e.Type == "structure":
		w.p("if !d.Null() {\ne := new(%s)\ne.decode(d)\n"+store+"\n}", export(e.name), "e")
	case e.Type == "list" || e.Type == "map":
		w.p("if !d.Null() {\n"+store+"\n}", "decode"+export(e.name)+"(d)")
	case plain:
		w.p("if v, ok := d.String(nil); ok {\n"+store+"\n}", "v")
	default:
		v := "v"
		if e.Type == "timestamp" {
			v = "aws.Time{Time: v}"
		}
		w.p("if v, ok := %s; ok {\n"+store+"\n}", m.scan(element.Shape), v)
	}
	w.p("}")
	if c := m.constraint(s.name); c != "nil" {
		w.p("d.CheckSize(%s, len(out))", c)
	}
	key := "nil"
	if s.Type == "map" {
		key = m.constraint(s.Key.Shape)
	}
	ec := m.constraint(element.Shape)
	switch {
	case s.Type == "list" && plain && ec != "nil":
		w.p("d.CheckElements(%s, out)", ec)
	case s.Type == "map" && plain && (key != "nil" || ec != "nil"):
		w.p("d.CheckMap(%s, %s, out)", key, ec)
	case s.Type == "map" && !plain && key != "nil":
		w.p("for key := range out {\nif !d.CheckKey(%s, key) {\nbreak\n}\n}", key)
	}
	w.p("return out\n}\n")
}

func (m *model) encodeCollection(w *writer, s *shape) {
	w.p("func encode%s(b []byte, list %s) []byte {", export(s.name), m.goType(s.name))
	if s.Type == "list" {
		w.p("b = append(b, '[')\nfor _, v := range list {\nb = wire.AppendComma(b)")
		m.encodeValue(w, s.Member.Shape, "v")
		w.p("}\nreturn append(b, ']')\n}\n")
		return
	}
	w.p("b = append(b, '{')\nfor _, k := range wire.Keys(list) {")
	w.p("b = append(wire.AppendString(wire.AppendName(b, \"\"), k), ':')\nv := list[k]")
	m.encodeValue(w, s.Value.Shape, "v")
	w.p("}\nreturn append(b, '}')\n}\n")
}

// response writes the encoder of an output.
func (m *model) response(w *writer, s *shape) {
	name := export(s.name)
	if len(s.Members) == 0 {
		w.p("func write%s(*wire.Response, *%s) {}\n", name, name)
		return
	}
	w.p("func write%s(r *wire.Response, s *%s) {", name, name)
	for _, p := range s.Members {
		switch {
		case p.Location == "statusCode":
			field := "s." + export(p.name)
			if s.requires(p) {
				w.p("if %s != 0 {\nr.Status = int(%s)\n}", field, field)
			} else {
				w.p("if %s != nil {\nr.Status = int(*%s)\n}", field, field)
			}
		case p.Location == "header" && m.Shapes[p.Shape].Type == "string":
			field := "s." + export(p.name)
			header := textproto.CanonicalMIMEHeaderKey(p.LocationName)
			if s.requires(p) {
				w.p("r.SetHeader(%q, %s)", header, field)
			} else {
				w.p("if %s != nil {\nr.SetHeader(%q, *%s)\n}", field, header, field)
			}
		case p.Location != "":
			panic(s.name + "." + p.name + " is in a place that outputs had none in")
		case p.name == s.Payload:
			w.p("r.Body = s.%s\nr.Raw = true", export(p.name))
		}
	}
	if m.hasBody(s) {
		w.p("r.Body = s.encode(r.Body)")
	}
	w.p("}\n")
}

// encoder writes the method that appends a structure as JSON. Lists and maps of
// an output are there even when empty, as AWS has them; maps of its JSON protocols only when there is one.
func (m *model) encoder(w *writer, s *shape) {
	w.p("func (s *%s) encode(b []byte) []byte {\nb = append(b, '{')", export(s.name))
	for _, p := range s.Members {
		if p.Location != "" {
			continue
		}
		field, t := "s."+export(p.name), m.Shapes[p.Shape]
		optional := !s.requires(p) || !t.scalar()
		if (t.Type == "list" || t.Type == "map") && (s.isOutput && !(t.Type == "map" && m.Metadata.Protocol == "json") || s.requires(p)) {
			optional = false
		}
		if optional {
			w.p("if %s != nil {", field)
		}
		w.p("b = wire.AppendName(b, `%q:`)", p.name)
		if t.scalar() && !s.requires(p) {
			field = "*" + field
		}
		m.encodeValue(w, p.Shape, field)
		if optional {
			w.p("}")
		}
	}
	w.p("return append(b, '}')\n}\n")
}

func (m *model) encodeValue(w *writer, name, v string) {
	s := m.Shapes[name]
	switch s.Type {
	case "string":
		w.p("b = wire.AppendString(b, %s)", v)
	case "integer":
		w.p("b = strconv.AppendInt(b, int64(%s), 10)", v)
	case "long":
		w.p("b = strconv.AppendInt(b, %s, 10)", v)
	case "double", "float":
		w.p("b = wire.AppendDouble(b, %s)", v)
	case "boolean":
		w.p("b = strconv.AppendBool(b, %s)", v)
	case "timestamp":
		w.p("b = wire.AppendTime(b, %s.Time)", strings.TrimPrefix(v, "*"))
	case "blob":
		w.p("b = wire.AppendBlob(b, %s)", v)
	case "structure":
		w.p("b = %s.encode(b)", v)
	case "list", "map":
		w.p("b = encode%s(b, %s)", export(name), v)
	default:
		panic("no type " + s.Type)
	}
}
