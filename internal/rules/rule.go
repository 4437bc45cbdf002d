package rules

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/rules/action"
	"flotilla/internal/rules/sql"
)

const (
	maxActions = 10
	// maxSQL is AWS's bound on a statement, in characters there, in bytes here.
	maxSQL = 65536
)

// rule is a compiled topic rule. It is immutable.
type rule struct {
	name     string
	created  int64
	disabled bool
	payload  *iot.TopicRulePayload
	stored   string // payload as the store has it
	// version changes with anything that makes a difference.
	version string

	sql *sql.Statement // nil: it can not be compiled any more, and does nothing
	// actions and errorAction are set when sql is; queues go with actions.
	actions     []*action.Action
	errorAction *action.Action // nil: none
	queues      []*queue
	errors      *queue

	counters *ruleCounters
	mayBlock bool
	// usesTrace and usesSource tell what Input has to have; making it costs.
	usesTrace, usesSource bool
}

// notInErrorActions are the functions that an error action can not call.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/rule-error-handling.html
var notInErrorActions = []string{"aws_lambda", "get_thing_shadow", "machinelearning_predict"}

var ruleName = regexp.MustCompile(`^[a-zA-Z0-9_]{1,128}$`)

func checkName(name string) error {
	if !ruleName.MatchString(name) {
		return invalid("ruleName %q has 1 to 128 of the characters a-z A-Z 0-9 _", name)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return &iot.InvalidRequestException{Message: fmt.Sprintf(format, args...)}
}

// version of the SQL that a payload asks for.
func sqlVersion(p *iot.TopicRulePayload) string {
	if p.AwsIotSqlVersion == nil || *p.AwsIotSqlVersion == "" {
		return sql.Version20151008
	}
	return *p.AwsIotSqlVersion
}

// compile checks what the author of a rule wrote. The errors are exceptions:
// SqlParseException for the SQL and templates, InvalidRequestException for the rest.
func (e *Engine) compile(name string, p *iot.TopicRulePayload) (*rule, error) {
	if p == nil {
		return nil, invalid("topicRulePayload is required")
	}
	switch {
	case len(p.Actions) > maxActions:
		return nil, invalid("A rule has at most %d actions", maxActions)
	case len(p.Sql) > maxSQL:
		return nil, invalid("sql has more than %d bytes", maxSQL)
	}
	r := &rule{name: name, payload: p, disabled: p.RuleDisabled != nil && *p.RuleDisabled}
	statement, err := sql.Parse(p.Sql, sqlVersion(p))
	if err != nil {
		return nil, &iot.SqlParseException{Message: err.Error()}
	}
	r.sql, r.mayBlock = statement, statement.MayBlock()
	texts, calls := []string{p.Sql}, slices.Clone(statement.Calls())
	parse := func(text string, field sql.Field) (*sql.Template, error) {
		texts = append(texts, text)
		return statement.ParseTemplate(text, field)
	}
	for i, a := range p.Actions {
		compiled, err := action.Compile(a, parse)
		if err != nil {
			return nil, refusal(fmt.Errorf("actions[%d]: %w", i, err))
		}
		r.actions = append(r.actions, compiled)
		for _, t := range compiled.Templates {
			r.mayBlock = r.mayBlock || t.MayBlock()
			calls = append(calls, t.Calls()...)
		}
	}
	if p.ErrorAction != nil {
		if r.errorAction, err = action.Compile(p.ErrorAction, parse); err != nil {
			return nil, refusal(fmt.Errorf("errorAction: %w", err))
		}
		for _, t := range r.errorAction.Templates {
			for _, name := range t.Calls() {
				if slices.Contains(notInErrorActions, name) {
					return nil, invalid("errorAction: its templates can not call %s", name)
				}
			}
			r.mayBlock = r.mayBlock || t.MayBlock()
			calls = append(calls, t.Calls()...)
		}
	}
	if err := e.checkExternal(calls); err != nil {
		return nil, err
	}
	for _, text := range texts {
		text = strings.ToLower(text)
		r.usesTrace = r.usesTrace || strings.Contains(text, "traceid")
		r.usesSource = r.usesSource || strings.Contains(text, "sourceip")
	}
	r.usesTrace = r.usesTrace || r.errorAction != nil
	return r, nil
}

// refusal turns an error of action.Compile into the exception of its cause.
func refusal(err error) error {
	if _, ok := errors.AsType[*sql.ParseError](err); ok {
		return &iot.SqlParseException{Message: err.Error()}
	}
	return invalid("%s", err)
}

// checkExternal refuses calls of functions that read systems this deployment does not have.
func (e *Engine) checkExternal(calls []string) error {
	x := &e.d.External
	have := map[string]bool{
		"aws_lambda": x.Lambda != nil, "get_thing_shadow": x.Shadows != nil, "get_registry_data": x.Registry != nil,
		"get_dynamodb": x.Tables != nil, "get_secret": x.Secrets != nil, "machinelearning_predict": x.Models != nil,
		"decode": true, // only with a Protobuf schema; without Schemas that is Undefined
	}
	for _, name := range calls {
		if !have[name] {
			return invalid("The function %s is not implemented", name)
		}
	}
	return nil
}
