package rules

import (
	"fmt"

	"flotilla/internal/aws/iot"
	"flotilla/internal/rules/action"
	"flotilla/internal/rules/sql"
)

// DryRun evaluates a rule without executing anything: no server, no outbox, no sink. It is for one goroutine.
type DryRun struct {
	SQL     *sql.Statement
	actions []*action.Action
}

// Outcome is what a rule makes of one message.
type Outcome struct {
	// Matches tells that FROM has the topic, or that the topic is one of Basic Ingest; the rest is empty when not.
	Matches bool
	// Selected tells that WHERE is true.
	Selected bool
	Output   sql.Output
	// Err is why the SQL fails on the message: then no action runs.
	Err     error
	Actions []DryAction
}

// DryAction is an action that would be executed.
type DryAction struct {
	// Kind is its name in the model, such as republish.
	Kind string `json:"action"`
	// Fields are its filled templates by name, in the order of the model.
	Fields []DryField `json:"fields"`
	// Fault is why it can not be executed.
	Fault string `json:"fault,omitempty"`
}

// DryField is a filled template.
type DryField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// NewDryRun compiles a rule. The error is one sentence for its author.
func NewDryRun(p *iot.TopicRulePayload) (*DryRun, error) {
	if len(p.Sql) > maxSQL {
		return nil, fmt.Errorf("sql has more than %d bytes", maxSQL)
	}
	statement, err := sql.Parse(p.Sql, sqlVersion(p))
	if err != nil {
		return nil, err
	}
	d := &DryRun{SQL: statement}
	for i, a := range p.Actions {
		compiled, err := action.Compile(a, statement.ParseTemplate)
		if err != nil {
			return nil, fmt.Errorf("actions[%d]: %w", i, err)
		}
		d.actions = append(d.actions, compiled)
	}
	return d, nil
}

// Run evaluates the rule on a message. The outcome may alias in.Payload.
func (d *DryRun) Run(in *sql.Input) Outcome {
	var o Outcome
	if o.Matches = d.SQL.Matches(in.Topic); !o.Matches {
		return o
	}
	o.Output, o.Selected, o.Err = d.SQL.Evaluate(in)
	if o.Err != nil || !o.Selected {
		return o
	}
	for _, a := range d.actions {
		done := DryAction{Kind: a.Kind, Fields: []DryField{}}
		for i, t := range a.Templates {
			text, err := t.Expand(in)
			if err != nil {
				done.Fault = err.Error()
				break
			}
			done.Fields = append(done.Fields, DryField{a.Fields[i], text})
		}
		o.Actions = append(o.Actions, done)
	}
	return o
}
