package sql

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"flotilla/internal/mqtt"
)

// Versions of the language, as TopicRulePayload.awsIotSqlVersion names them.
const (
	Version20151008 = "2015-10-08" // what an empty version means
	Version20160323 = "2016-03-23"
	VersionBeta     = "beta"
)

// Statement is a compiled statement of a rule. It is immutable and safe for concurrent use.
type Statement struct {
	prog       program
	version    version
	set        []setVar
	query      *query
	where      func(f *frame) bool // nil: all messages
	out        output
	complexity Complexity
}

// Parse compiles the statement of a rule.
//
//	version  2015-10-08 (also the meaning of ""), 2016-03-23 or beta
//
// The error is a *ParseError; AWS answers it as SqlParseException.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-rule-sql-version.html
func Parse(text, version string) (*Statement, error) {
	v, ok := parseVersion(version)
	if !ok {
		return nil, unknownVersion(version)
	}
	p := newParser(text, v)
	set, q := p.statement()
	if p.err != nil {
		return nil, p.err
	}
	s := &Statement{prog: newProgram(version, v), version: v, set: set, query: q}
	for _, sv := range set {
		c := compiler{prog: &s.prog}
		before := s.prog.external
		s.prog.external = false
		calls := len(s.prog.calls)
		of := c.expr(sv.x)
		s.prog.vars = append(s.prog.vars, programVar{sv.name, of, s.prog.external, distinct(slices.Clone(s.prog.calls[calls:]))})
		s.prog.external = s.prog.external || before
	}
	c := compiler{prog: &s.prog}
	if q.where != nil {
		s.where = c.condition(q.where)
	}
	s.out = c.output(q)
	if err := s.prog.checkPatterns(); err != nil {
		return nil, err
	}
	s.prog.calls = distinct(s.prog.calls)
	s.complexity = measure(set, q)
	return s, nil
}

func unknownVersion(version string) *ParseError {
	return &ParseError{Line: 1, Column: 1, Message: "there is no SQL version " + clip(version) + "; versions are " +
		Version20151008 + ", " + Version20160323 + " and " + VersionBeta}
}

func newProgram(name string, v version) program {
	if name == "" {
		name = Version20151008
	}
	return program{version: name, whole: v >= v2}
}

// From returns the topic filter of the FROM clause, valid by mqtt.ValidTopicFilter; empty when there is none.
func (s *Statement) From() string { return s.query.topics }

// Matches tells whether the statement is for a topic as published. Behind a Basic
// Ingest prefix, which the caller has found to name this rule, the rest of the topic
// is matched, and a statement without FROM matches all; other topics need FROM.
func (s *Statement) Matches(topic string) bool {
	from := s.From()
	_, rest, basic := mqtt.BasicIngest(topic)
	if basic {
		return from == "" || mqtt.Match(from, rest)
	}
	return from != "" && mqtt.Match(from, topic)
}

// MayBlock tells whether the statement calls functions that read other systems.
func (s *Statement) MayBlock() bool { return s.prog.external }

// Calls are the functions that read other systems and that the statement calls, by name; decode is among them when
// it has a Protobuf schema. The caller must not change them.
func (s *Statement) Calls() []string { return s.prog.calls }

// distinct sorts names and leaves each once.
func distinct(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// String is the statement in canonical form, one spelling for all spacings and cases; it
// parses to an equal statement.
func (s *Statement) String() string {
	var b strings.Builder
	for i, sv := range s.set {
		if i == 0 {
			b.WriteString("SET ")
		} else {
			b.WriteString(", ")
		}
		b.WriteString("@" + sv.name + " = ")
		sv.x.print(&b)
	}
	if len(s.set) > 0 {
		b.WriteByte(' ')
	}
	s.query.print(&b)
	return b.String()
}

// Evaluate runs the statement on a message; package documentation has the meaning of
// the results. selected is false when WHERE is not true. The error is a *RuntimeError.
func (s *Statement) Evaluate(in *Input) (out Output, selected bool, err error) {
	in.begin()
	f := in.frame(&s.prog)
	selected = s.where == nil || s.where(f)
	if selected && !f.failed() {
		out = s.out(f)
	}
	if err := in.cache.err; err != nil {
		return Output{}, false, &RuntimeError{Err: err}
	}
	return out, selected, nil
}

// ParseError tells where a statement or template is wrong.
type ParseError struct {
	// Offset counts bytes from 0; Line and Column count lines and characters from 1.
	Offset, Line, Column int
	// Message is one sentence without a full stop: what was expected.
	Message string
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// RuntimeError tells why a message can not be processed; errors.Is finds ErrBudget,
// ErrPayload or the context's error in it.
type RuntimeError struct{ Err error }

func (e *RuntimeError) Error() string { return "sql: " + e.Err.Error() }

func (e *RuntimeError) Unwrap() error { return e.Err }

var (
	// ErrBudget tells that evaluation would take too many steps, too much memory or too much depth.
	ErrBudget = errors.New("the statement asks for too much work on this message")
	// ErrCalls tells that the statement calls get_dynamodb more than once.
	ErrCalls = errors.New("a statement can call get_dynamodb once")
	// ErrPayload tells that * is merged with other columns and the payload is not a JSON object.
	ErrPayload = errors.New("SELECT * with other columns needs a JSON object as payload")
)
