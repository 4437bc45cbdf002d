package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"flotilla/internal/aws/iot"
	"flotilla/internal/rules"
	"flotilla/internal/rules/sql"
)

type rulesCmd struct {
	Status rulesStatusCmd `cmd:"" help:"Show what waits for the actions of rules, and what last went wrong."`
	Lint   rulesLintCmd   `cmd:"" help:"Find rules that decide too much."`
	Test   rulesTestCmd   `cmd:"" help:"Say what a rule makes of one message, without a server."`
	Replay rulesReplayCmd `cmd:"" help:"Run a rule on recorded messages: what it would do, and what that costs at AWS."`
}

// ruleSource is the rule that a command is about: SQL of the command line, or a rule of a server.
type ruleSource struct {
	target `embed:""`

	SQL        string `name:"sql" placeholder:"TEXT" help:"Statement; @FILE reads it from a file."`
	SQLVersion string `name:"sql-version" default:"2016-03-23" enum:"2015-10-08,2016-03-23,beta" help:"Version of the SQL of --sql: 2015-10-08, 2016-03-23 or beta."`
	Rule       string `name:"rule" placeholder:"NAME" help:"Rule of the server, instead of --sql."`
}

// payload is the rule as CreateTopicRule takes it.
func (r *ruleSource) payload() (*iot.TopicRulePayload, error) {
	if (r.SQL == "") == (r.Rule == "") {
		return nil, usageError{fmt.Errorf("which rule? --sql or --rule, one of the two")}
	}
	if r.Rule != "" {
		return fetchRule(&r.target, r.Rule)
	}
	text, err := textOrFile(r.SQL)
	return &iot.TopicRulePayload{Sql: text, AwsIotSqlVersion: &r.SQLVersion}, err
}

// fetchRule reads a rule of a server.
func fetchRule(t *target, name string) (*iot.TopicRulePayload, error) {
	var out iot.GetTopicRuleResponse
	if err := t.callService("iot", http.MethodGet, "/rules/"+url.PathEscape(name), nil, &out); err != nil {
		return nil, err
	}
	if out.Rule == nil || out.Rule.Sql == nil {
		return nil, fmt.Errorf("the server's answer has no rule %s", name)
	}
	return &iot.TopicRulePayload{Sql: *out.Rule.Sql, AwsIotSqlVersion: out.Rule.AwsIotSqlVersion, Actions: out.Rule.Actions}, nil
}

// maxRuleFile bounds files of statements and payloads.
const maxRuleFile = 1 << 20

// textOrFile is text, or for @FILE what the file holds; - is the standard input.
func textOrFile(text string) (string, error) {
	name, isFile := strings.CutPrefix(text, "@")
	if !isFile {
		return text, nil
	}
	in := os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxRuleFile+1))
	if err == nil && len(b) > maxRuleFile {
		err = fmt.Errorf("%s has more than %d bytes", name, maxRuleFile)
	}
	return string(b), err
}

type rulesTestCmd struct {
	ruleSource `embed:""`

	Topic       string    `name:"topic" required:"" help:"Topic of the message as published."`
	Payload     string    `name:"payload" help:"Payload; @FILE reads it from a file, @- from the standard input."`
	ClientID    string    `name:"client-id" help:"What clientid() gives."`
	Principal   string    `name:"principal" help:"What principal() gives."`
	Account     string    `name:"account" default:"123456789012" help:"What accountid() gives."`
	SourceIP    string    `name:"source-ip" help:"What sourceip() gives."`
	Time        time.Time `name:"time" placeholder:"RFC3339" help:"What timestamp() gives; now without it."`
	Explain     bool      `name:"explain" help:"Show the value of each condition of WHERE."`
	ExplainJSON bool      `name:"json" help:"Print JSON."`
}

func (c *rulesTestCmd) Help() string {
	return "Examples:\n\n" +
		"  flotilla rules test --sql \"SELECT temperature AS t FROM 'plant/+' WHERE temperature > 80\" --topic plant/1 --payload '{\"temperature\":93}'\n" +
		"  flotilla rules test --rule hot --topic plant/1 --payload @message.json --explain\n\n" +
		"Prints exactly what actions would get. Exit code 1 with the reason when that is nothing. Functions that read other systems\n" +
		"(aws_lambda, get_thing_shadow, ...) are Undefined here, and named. CreateTopicRule's default version is 2015-10-08, this command's 2016-03-23.\n"
}

// testResult is what --json prints.
type testResult struct {
	Matches       bool              `json:"matchesFrom"`
	Selected      bool              `json:"selected"`
	Payload       json.RawMessage   `json:"payload,omitempty"`
	PayloadText   *string           `json:"payloadText,omitempty"`   // not JSON, but UTF-8
	PayloadBase64 []byte            `json:"payloadBase64,omitempty"` // neither
	Actions       []rules.DryAction `json:"actions,omitempty"`
	Reason        string            `json:"reason,omitempty"`
	Conditions    []testCondition   `json:"conditions,omitempty"`
	Undefined     []string          `json:"undefinedFunctions,omitempty"`
}

type testCondition struct {
	Condition string `json:"condition"`
	Value     string `json:"value"`
}

func (c *rulesTestCmd) Run(s *streams) error {
	p, err := c.payload()
	if err != nil {
		return err
	}
	d, err := rules.NewDryRun(p)
	if err != nil {
		return err
	}
	text, err := textOrFile(c.Payload)
	if err != nil {
		return err
	}
	r := testResult{}
	in := c.input([]byte(text), &r)
	o := d.Run(in)
	r.Matches, r.Selected, r.Actions = o.Matches, o.Selected, o.Actions
	r.Reason = whyNothing(d.SQL, &o, c.Topic)
	if o.Selected && o.Err == nil {
		r.show(o.Output)
	}
	if c.Explain {
		for _, cond := range d.SQL.Conditions(in) {
			r.Conditions = append(r.Conditions, testCondition{cond.Text, cond.Value})
		}
	}
	if c.ExplainJSON {
		err = printJSON(s, r)
	} else {
		err = c.print(s, &r, o.Output.Payload)
	}
	if err == nil && r.Reason != "" {
		return fmt.Errorf("no output: %s", r.Reason)
	}
	return err
}

func (c *rulesTestCmd) input(payload []byte, r *testResult) *sql.Input {
	now := c.Time
	if now.IsZero() {
		now = time.Now()
	}
	return &sql.Input{
		Topic: c.Topic, Payload: payload, AccountID: c.Account, ClientID: c.ClientID, PrincipalID: c.Principal, SourceIP: c.SourceIP,
		TraceID: uuid.NewString(), Now: now, Rand: rand.Float64, NewUUID: uuid.NewString,
		Failed: func(function string, err error) { r.Undefined = append(r.Undefined, function+": "+err.Error()) },
	}
}

// show puts an output where JSON can hold it.
func (r *testResult) show(out sql.Output) {
	switch {
	case out.JSON && json.Valid(out.Payload):
		r.Payload = out.Payload
	case utf8.Valid(out.Payload):
		r.PayloadText = new(string(out.Payload))
	default:
		r.PayloadBase64 = out.Payload
	}
}

func (c *rulesTestCmd) print(s *streams, r *testResult, payload []byte) error {
	for _, cond := range r.Conditions {
		fmt.Fprintf(s.err, "WHERE %s = %s\n", cond.Condition, cond.Value)
	}
	for _, f := range r.Undefined {
		fmt.Fprintf(s.err, "Undefined: %s\n", f)
	}
	if r.Reason != "" {
		return nil
	}
	if _, err := s.out.Write(payload); err != nil {
		return err
	}
	if _, err := io.WriteString(s.out, "\n"); err != nil {
		return err
	}
	for _, a := range r.Actions {
		fmt.Fprintln(s.err, actionLine(a))
	}
	return nil
}

// actionLine is an action with its filled templates.
func actionLine(a rules.DryAction) string {
	line := "action " + a.Kind
	for _, f := range a.Fields {
		line += fmt.Sprintf(" %s=%q", f.Name, f.Value)
	}
	if a.Fault != "" {
		line += ": " + a.Fault
	}
	return line
}

// whyNothing is why a rule makes nothing of a message; empty when it makes something.
func whyNothing(s *sql.Statement, o *rules.Outcome, topic string) string {
	switch {
	case !o.Matches && s.From() == "":
		return "the statement has no FROM: only Basic Ingest topics ($aws/rules/NAME/...) reach it"
	case !o.Matches:
		return fmt.Sprintf("FROM '%s' does not match the topic %s", s.From(), topic)
	case o.Err != nil:
		return o.Err.Error()
	case !o.Selected:
		return "WHERE is not true"
	}
	return ""
}

// recorded is a line of a recording: a message as it was published.
type recorded struct {
	Topic    string    `json:"topic"`
	ClientID string    `json:"clientId,omitempty"`
	Time     time.Time `json:"time,omitzero"`
	// Payload is base64; Text is a payload that is UTF-8, as it is.
	Text    *string `json:"payload,omitempty"`
	Payload string  `json:"payloadBase64,omitempty"`
}

func (r *recorded) bytes() ([]byte, error) {
	if r.Text != nil {
		return []byte(*r.Text), nil
	}
	return base64.StdEncoding.DecodeString(r.Payload)
}
