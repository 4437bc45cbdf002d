package rules

import (
	"context"
	"fmt"

	"flotilla/internal/aws"
	"flotilla/internal/rules/sql"
)

// What a rule's SQL may have before Lint reports it.
const (
	LintConditions  = 2
	LintExpressions = 10
)

const lintAdvice = "business logic belongs in a consumer, not in a rule's SQL (docs/rules.md)"

// Finding is what Lint reports of a statement.
type Finding struct {
	// Check is conditions, expressions or nested-case.
	Check string `json:"check"`
	// Message is one sentence without a full stop, with the reason.
	Message string `json:"message"`
}

// Lint reports a statement that decides too much: rules route messages, and what is hard to review, to test and to
// change without a deployment of its own belongs in a service that consumes what the rule sends. See
// [sql.Complexity] for what counts.
func Lint(s *sql.Statement) []Finding {
	c := s.Complexity()
	var out []Finding
	add := func(check, format string, args ...any) {
		out = append(out, Finding{check, fmt.Sprintf(format, args...) + ": " + lintAdvice})
	}
	if c.Conditions > LintConditions {
		add("conditions", "WHERE has %d conditions, more than %d", c.Conditions, LintConditions)
	}
	if c.Expressions > LintExpressions {
		add("expressions", "the statement has %d expressions, more than %d", c.Expressions, LintExpressions)
	}
	if c.CaseDepth > 1 {
		add("nested-case", "CASE is nested %d deep", c.CaseDepth)
	}
	return out
}

// advise tells the author of a rule, and the log, what Lint says of it.
func (e *Engine) advise(ctx context.Context, r *rule) {
	for _, f := range Lint(r.sql) {
		aws.Warn(ctx, "rule "+r.name+": "+f.Message)
		e.log.Warn("rules: the SQL of a rule decides too much", "rule", r.name, "op", f.Check, "err", f.Message)
	}
}
