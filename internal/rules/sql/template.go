package sql

import (
	"strings"
)

// Field is the kind of action field that a template fills.
type Field int

const (
	// Generic is any field without rules of its own.
	Generic Field = iota
	// RepublishTopic is the topic of a republish action, where $$ stands for the $ of a reserved topic.
	RepublishTopic
)

// Template is a compiled substitution template. It is immutable and safe for concurrent use.
type Template struct {
	prog  program
	parts []templatePart
}

// templatePart is a text, or an expression when of is set.
type templatePart struct {
	text string
	of   eval
}

// ParseTemplate compiles a substitution template that is not part of a rule's actions
// and so has no SET variables. The error is a *ParseError.
func ParseTemplate(text, version string, field Field) (*Template, error) {
	v, ok := parseVersion(version)
	if !ok {
		return nil, unknownVersion(version)
	}
	return parseTemplate(text, newProgram(version, v), v, nil, field)
}

// ParseTemplate compiles a substitution template that sees the statement's SET variables.
// The error is a *ParseError.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-substitution-templates.html
func (s *Statement) ParseTemplate(text string, field Field) (*Template, error) {
	return parseTemplate(text, newProgram(s.prog.version, s.version), s.version, &s.prog, field)
}

func parseTemplate(text string, prog program, v version, outer *program, field Field) (*Template, error) {
	t := &Template{prog: prog}
	t.prog.outer = outer
	p := newParser("", v)
	if p.text = text; len(text) > maxText {
		p.failAt(0, "a template is too long")
		return nil, p.err
	}
	if outer != nil {
		for _, pv := range outer.vars {
			p.vars[pv.name] = true
		}
	}
	c := compiler{prog: &t.prog}
	pos := 0
	if field == RepublishTopic && strings.HasPrefix(text, "$$") && !strings.HasPrefix(text, "$${") {
		pos = 1
	}
	for pos < len(text) {
		at := strings.Index(text[pos:], "${")
		if at < 0 {
			break
		}
		if at > 0 {
			t.parts = append(t.parts, templatePart{text: text[pos : pos+at]})
		}
		p.tok = lex(text, pos+at+len("${"))
		x := p.expr(0)
		if !p.tok.is("}") {
			p.expected("an operator or the } that ends the expression")
		}
		if p.err != nil {
			return nil, p.err
		}
		t.parts = append(t.parts, templatePart{of: c.expr(x)})
		pos = p.tok.end
	}
	if pos < len(text) {
		t.parts = append(t.parts, templatePart{text: text[pos:]})
	}
	if err := t.prog.checkPatterns(); err != nil {
		return nil, err
	}
	t.prog.calls = distinct(t.prog.calls)
	return t, nil
}

// Expand fills the template from a message. The error is a *RuntimeError.
func (t *Template) Expand(in *Input) (string, error) {
	if text, ok := t.Constant(); ok {
		return text, nil
	}
	in.begin()
	f := in.frame(&t.prog)
	out := make([]byte, 0, 64)
	for _, p := range t.parts {
		if p.of == nil {
			out = append(out, p.text...)
		} else if v := p.of(f); v.kind == stringKind {
			out = append(out, v.text...)
		} else {
			out = f.appendValue(out, v)
		}
		if !f.fits(len(out)) {
			return "", &RuntimeError{Err: in.cache.err}
		}
	}
	if err := in.cache.err; err != nil {
		return "", &RuntimeError{Err: err}
	}
	return string(out), nil
}

// MayBlock tells whether Expand calls functions that read other systems.
func (t *Template) MayBlock() bool { return t.prog.external }

// Calls are as those of a statement, those of the SET variables that the template uses included.
func (t *Template) Calls() []string { return t.prog.calls }

// Constant tells that the template has no expression, and the text it always expands to.
func (t *Template) Constant() (text string, ok bool) {
	switch {
	case len(t.parts) == 0:
		return "", true
	case len(t.parts) == 1 && t.parts[0].of == nil:
		return t.parts[0].text, true
	}
	return "", false
}
