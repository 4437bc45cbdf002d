package sql

import (
	"errors"
	"fmt"

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
	from string
}

// Parse compiles the statement of a rule.
//
//	version  2015-10-08 (also the meaning of ""), 2016-03-23 or beta
//
// The error is a *ParseError; AWS answers it as SqlParseException.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-rule-sql-version.html
func Parse(text, version string) (*Statement, error) {
	return nil, &ParseError{Line: 1, Column: 1, Message: "not implemented"}
}

// From returns the topic filter of the FROM clause, valid by mqtt.ValidTopicFilter; empty when there is none.
func (s *Statement) From() string { return s.from }

// Matches tells whether the statement is for a topic as published. Behind a Basic
// Ingest prefix, which the caller has found to name this rule, the rest of the topic
// is matched, and a statement without FROM matches all; other topics need FROM.
func (s *Statement) Matches(topic string) bool {
	_, rest, basic := mqtt.BasicIngest(topic)
	if basic {
		return s.from == "" || mqtt.Match(s.from, rest)
	}
	return s.from != "" && mqtt.Match(s.from, topic)
}

// MayBlock tells whether the statement calls functions that read other systems.
func (s *Statement) MayBlock() bool { return false }

// Evaluate runs the statement on a message; package documentation has the meaning of
// the results. selected is false when WHERE is not true. The error is a *RuntimeError.
func (s *Statement) Evaluate(in *Input) (out Output, selected bool, err error) {
	return Output{}, false, &RuntimeError{Err: errors.ErrUnsupported}
}

// ParseTemplate compiles a substitution template that sees the statement's SET variables.
// The error is a *ParseError.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-substitution-templates.html
func (s *Statement) ParseTemplate(text string, field Field) (*Template, error) {
	return nil, &ParseError{Line: 1, Column: 1, Message: "not implemented"}
}

// Complexity counts what makes a statement slow to run or hard to read.
type Complexity struct {
	// Conditions are the comparisons and other leaves that AND, OR and NOT join in WHERE.
	Conditions int
	// Expressions are the nodes of all expressions of the statement.
	Expressions int
	// CaseDepth is how deep CASE expressions nest.
	CaseDepth int
	// NestedQueries are the SELECT expressions inside the statement.
	NestedQueries int
	// ExternalCalls are the calls of functions that read other systems.
	ExternalCalls int
}

// Complexity measures the statement.
func (s *Statement) Complexity() Complexity { return Complexity{} }

// Field is the kind of action field that a template fills.
type Field int

const (
	// Generic is any field without rules of its own.
	Generic Field = iota
	// RepublishTopic is the topic of a republish action, where $$ stands for the $ of a reserved topic.
	RepublishTopic
)

// Template is a compiled substitution template. It is immutable and safe for concurrent use.
type Template struct{}

// ParseTemplate compiles a substitution template that is not part of a rule's actions
// and so has no SET variables. The error is a *ParseError.
func ParseTemplate(text, version string, field Field) (*Template, error) {
	return nil, &ParseError{Line: 1, Column: 1, Message: "not implemented"}
}

// Expand fills the template from a message. The error is a *RuntimeError.
func (t *Template) Expand(in *Input) (string, error) {
	return "", &RuntimeError{Err: errors.ErrUnsupported}
}

// MayBlock tells whether Expand calls functions that read other systems.
func (t *Template) MayBlock() bool { return false }

// Constant tells that the template has no expression, and the text it always expands to.
func (t *Template) Constant() (text string, ok bool) { return "", false }

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
	// ErrPayload tells that * is merged with other columns and the payload is not a JSON object.
	ErrPayload = errors.New("SELECT * with other columns needs a JSON object as payload")
)
