package rules_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/rules"
	"flotilla/internal/rules/sql"
)

type tags struct {
	requests []*iot.TagResourceRequest
	deleted  []string
}

func (t *tags) DeleteTags(_ context.Context, arn string) error {
	t.deleted = append(t.deleted, arn)
	return nil
}

func (t *tags) TagResource(_ context.Context, in *iot.TagResourceRequest) (*iot.TagResourceResponse, error) {
	t.requests = append(t.requests, in)
	return &iot.TagResourceResponse{}, nil
}

func TestCreateGetReplaceDelete(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
		kept := &tags{}
		w.ext = func(d *rules.Deps) { d.Tags, d.Now = kept, func() time.Time { return now } }
		e := w.start(t)
		p := payload("SELECT a FROM 'in/+'", republish("out"), kinesis("s", "${a}"))
		p.Description, p.RuleDisabled, p.AwsIotSqlVersion = new("what it is for"), new(true), nil
		p.ErrorAction = republish("err")
		if _, err := e.CreateTopicRule(ctx, &iot.CreateTopicRuleRequest{RuleName: "r", TopicRulePayload: p, Tags: new("team=a%20b")}); err != nil {
			t.Fatal(err)
		}
		arn := "arn:aws:iot:us-east-1:123456789012:rule/r"
		if len(kept.requests) != 1 || kept.requests[0].ResourceArn != arn || kept.requests[0].Tags[0].Key != "team" || *kept.requests[0].Tags[0].Value != "a b" {
			t.Errorf("tags %+v", kept.requests)
		}
		_, err := e.CreateTopicRule(ctx, &iot.CreateTopicRuleRequest{RuleName: "r", TopicRulePayload: p})
		if exists, ok := errors.AsType[*iot.ResourceAlreadyExistsException](err); !ok || exists.ResourceArn != arn || exists.ResourceId != "r" {
			t.Errorf("created twice: %v", err)
		}
		get := func() *iot.TopicRule {
			t.Helper()
			out, err := e.GetTopicRule(ctx, &iot.GetTopicRuleRequest{RuleName: "r"})
			if err != nil {
				t.Fatal(err)
			}
			if *out.RuleArn != arn {
				t.Errorf("ruleArn %s", *out.RuleArn)
			}
			return out.Rule
		}
		got := get()
		if !got.CreatedAt.Equal(now) {
			t.Errorf("createdAt %v", got.CreatedAt)
		}
		want := &iot.TopicRule{
			RuleName: new("r"), Sql: &p.Sql, Description: p.Description, CreatedAt: got.CreatedAt, Actions: p.Actions,
			RuleDisabled: new(true), AwsIotSqlVersion: new("2015-10-08"), ErrorAction: p.ErrorAction,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if some, _ := e.Selects("in/1"); some {
			t.Error("a disabled rule selects")
		}
		if err := e.RuleExists(ctx, "r"); err != nil {
			t.Error(err)
		}
		now = now.Add(time.Hour)
		if _, err := e.ReplaceTopicRule(ctx, &iot.ReplaceTopicRuleRequest{RuleName: "r", TopicRulePayload: payload("SELECT * FROM 'in/+'", republish("out"))}); err != nil {
			t.Fatal(err)
		}
		if got := get(); *got.RuleDisabled || len(got.Actions) != 1 || got.ErrorAction != nil || got.Description != nil || !got.CreatedAt.Equal(now.Add(-time.Hour)) {
			t.Errorf("replaced: %+v", got)
		}
		if some, _ := e.Selects("in/1"); !some {
			t.Error("the replaced rule does not select")
		}
		if _, err := e.DeleteTopicRule(ctx, &iot.DeleteTopicRuleRequest{RuleName: "r"}); err != nil {
			t.Fatal(err)
		}
		if some, _ := e.Selects("in/1"); some {
			t.Error("a deleted rule selects")
		}
		if diff := cmp.Diff([]string{arn}, kept.deleted); diff != "" {
			t.Error(diff)
		}
		isA[*iot.ResourceNotFoundException](t, e.RuleExists(ctx, "r"))
		for what, call := range map[string]func() error{
			"get":    func() error { _, err := e.GetTopicRule(ctx, &iot.GetTopicRuleRequest{RuleName: "r"}); return err },
			"delete": func() error { _, err := e.DeleteTopicRule(ctx, &iot.DeleteTopicRuleRequest{RuleName: "r"}); return err },
			"enable": func() error { _, err := e.EnableTopicRule(ctx, &iot.EnableTopicRuleRequest{RuleName: "r"}); return err },
			"disable": func() error {
				_, err := e.DisableTopicRule(ctx, &iot.DisableTopicRuleRequest{RuleName: "r"})
				return err
			},
			"replace": func() error {
				_, err := e.ReplaceTopicRule(ctx, &iot.ReplaceTopicRuleRequest{RuleName: "r", TopicRulePayload: payload("SELECT * FROM 'a'")})
				return err
			},
		} {
			err := call()
			if err == nil || err.Error() != "Access to topic rule 'r' was denied" {
				t.Errorf("%s: %v", what, err)
			}
			isA[*iot.UnauthorizedException](t, err)
		}
	})
}

func TestListTopicRules(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		e := w.start(t)
		for i := range 5 {
			p := payload(fmt.Sprintf("SELECT * FROM 'a/%d'", i), republish("out"))
			p.RuleDisabled = new(i == 2)
			create(t, e, fmt.Sprintf("r%d", i), p)
		}
		create(t, e, "wild", payload("SELECT * FROM 'a/+'", republish("out")))
		create(t, e, "bare", payload("SELECT *", republish("out")))
		list := func(in iot.ListTopicRulesRequest) (names []string, next *string) {
			t.Helper()
			out, err := e.ListTopicRules(t.Context(), &in)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range out.Rules {
				names = append(names, *r.RuleName+" "+*r.TopicPattern)
			}
			return names, out.NextToken
		}
		check := func(what string, got []string, want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s", what, diff)
			}
		}
		all, next := list(iot.ListTopicRulesRequest{})
		check("all", all, "bare ", "r0 a/0", "r1 a/1", "r2 a/2", "r3 a/3", "r4 a/4", "wild a/+")
		if next != nil {
			t.Error("the last page has a nextToken")
		}
		byTopic, _ := list(iot.ListTopicRulesRequest{Topic: new("a/1")})
		check("by topic", byTopic, "r1 a/1", "wild a/+")
		disabled, _ := list(iot.ListTopicRulesRequest{RuleDisabled: new(true)})
		check("disabled", disabled, "r2 a/2")
		enabled, next := list(iot.ListTopicRulesRequest{RuleDisabled: new(false), Topic: new("a/3"), MaxResults: new(int32(1))})
		check("first page", enabled, "r3 a/3")
		enabled, next = list(iot.ListTopicRulesRequest{RuleDisabled: new(false), Topic: new("a/3"), MaxResults: new(int32(1)), NextToken: next})
		check("second page", enabled, "wild a/+")
		if next != nil {
			t.Error("the last page has a nextToken")
		}
		_, err := e.ListTopicRules(t.Context(), &iot.ListTopicRulesRequest{NextToken: new("%")})
		isA[*iot.InvalidRequestException](t, err)
	})
}

func TestRefusals(t *testing.T) {
	w := newWorld(t, openDB(t))
	w.cfg.MaxRules = 1
	e := w.start(t)
	bad := func(change func(*iot.CreateTopicRuleRequest)) *iot.CreateTopicRuleRequest {
		in := &iot.CreateTopicRuleRequest{RuleName: "r", TopicRulePayload: payload("SELECT * FROM 'a'", republish("out"))}
		change(in)
		return in
	}
	action := func(a *iot.Action) *iot.CreateTopicRuleRequest {
		return bad(func(in *iot.CreateTopicRuleRequest) { in.TopicRulePayload.Actions = []*iot.Action{a} })
	}
	for what, c := range map[string]struct {
		in   *iot.CreateTopicRuleRequest
		says string
	}{
		"name":    {bad(func(in *iot.CreateTopicRuleRequest) { in.RuleName = "a-b" }), "ruleName"},
		"payload": {bad(func(in *iot.CreateTopicRuleRequest) { in.TopicRulePayload = nil }), "topicRulePayload"},
		"eleven actions": {bad(func(in *iot.CreateTopicRuleRequest) {
			for range 10 {
				in.TopicRulePayload.Actions = append(in.TopicRulePayload.Actions, republish("out"))
			}
		}), "at most 10 actions"},
		"tags":            {bad(func(in *iot.CreateTopicRuleRequest) { in.Tags = new("a=b") }), "tags"},
		"no kind":         {action(&iot.Action{}), "actions[0]: an action has no kind"},
		"two kinds":       {action(&iot.Action{Republish: republish("a").Republish, S3: s3("bucket", "k").S3}), "both republish and s3"},
		"not implemented": {action(&iot.Action{Salesforce: &iot.SalesforceAction{}}), "the action salesforce is not implemented"},
		"lambda":          {action(&iot.Action{Lambda: &iot.LambdaAction{FunctionArn: "arn:aws:sns:us-east-1:1:t"}}), "lambda: functionArn"},
		"role":            {action(&iot.Action{Sns: &iot.SnsAction{RoleArn: "role", TargetArn: "arn:aws:sns:us-east-1:1:t"}}), "sns: roleArn"},
		"qos":             {action(&iot.Action{Republish: &iot.RepublishAction{RoleArn: role, Topic: "a", Qos: new(int32(2))}}), "republish: qos"},
		"topic":           {action(republish("a/+")), "republish: topic"},
		"stream":          {action(kinesis("a b", "k")), "kinesis: streamName"},
		"target":          {action(&iot.Action{Sns: &iot.SnsAction{RoleArn: role, TargetArn: "arn:aws:sqs:us-east-1:1:t"}}), "sns: targetArn"},
		"format":          {action(&iot.Action{Sns: &iot.SnsAction{RoleArn: role, TargetArn: "arn:aws:sns:us-east-1:1:t", MessageFormat: new("XML")}}), "sns: messageFormat"},
		"queue":           {action(&iot.Action{Sqs: &iot.SqsAction{RoleArn: role, QueueUrl: "https://x/1/a.fifo"}}), "sqs: queueUrl: FIFO"},
		"delivery stream": {action(&iot.Action{Firehose: &iot.FirehoseAction{RoleArn: role, DeliveryStreamName: "../x"}}), "firehose: "},
		"separator":       {action(&iot.Action{Firehose: &iot.FirehoseAction{RoleArn: role, DeliveryStreamName: "x", Separator: new(";")}}), "firehose: separator"},
		"bucket":          {action(s3("..", "k")), "s3: bucketName"},
		"acl":             {action(&iot.Action{S3: &iot.S3Action{RoleArn: role, BucketName: "bucket", Key: "k", CannedAcl: new("all")}}), "s3: cannedAcl"},
		"error action":    {bad(func(in *iot.CreateTopicRuleRequest) { in.TopicRulePayload.ErrorAction = &iot.Action{} }), "errorAction: an action has no kind"},
		"error action's function": {bad(func(in *iot.CreateTopicRuleRequest) {
			in.TopicRulePayload.ErrorAction = republish("out/${get_thing_shadow('t', 'arn:aws:iam::123456789012:role/r').version}")
		}), "errorAction: its templates can not call get_thing_shadow"},
		"error action's variable": {bad(func(in *iot.CreateTopicRuleRequest) {
			in.TopicRulePayload.Sql = "SET @v = aws_lambda('f', 1) SELECT a FROM 'a'"
			in.TopicRulePayload.ErrorAction = republish("out/${@v}")
		}), "errorAction: its templates can not call aws_lambda"},
		"function": {bad(func(in *iot.CreateTopicRuleRequest) {
			in.TopicRulePayload.Sql = "SELECT get_thing_shadow('t', 'arn:aws:iam::123456789012:role/r') AS s FROM 'a'"
		}), "The function get_thing_shadow is not implemented"},
	} {
		_, err := e.CreateTopicRule(t.Context(), c.in)
		isA[*iot.InvalidRequestException](t, err)
		if err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %q does not say %q", what, err, c.says)
		}
	}
	for what, in := range map[string]*iot.CreateTopicRuleRequest{
		"sql":      bad(func(in *iot.CreateTopicRuleRequest) { in.TopicRulePayload.Sql = "SELECT FROM" }),
		"template": action(republish("out/${a + }")),
	} {
		_, err := e.CreateTopicRule(t.Context(), in)
		isA[*iot.SqlParseException](t, err)
		if err != nil && !strings.Contains(err.Error(), "column") {
			t.Errorf("%s: %q does not say where", what, err)
		}
	}
	create(t, e, "only", payload("SELECT * FROM 'a'"))
	_, err := e.CreateTopicRule(t.Context(), bad(func(*iot.CreateTopicRuleRequest) {}))
	isA[*iot.InvalidRequestException](t, err)
}

type shadows struct{ documents map[string]string }

func (s shadows) GetThingShadow(_ context.Context, thing, _, _ string) ([]byte, error) {
	d, ok := s.documents[thing]
	if !ok {
		return nil, errors.New("no shadow")
	}
	return []byte(d), nil
}

// External functions are asked where the deployment has them.
func TestExternalFunctions(t *testing.T) {
	w := newWorld(t, openDB(t))
	w.ext = func(d *rules.Deps) {
		d.External = sql.External{Shadows: shadows{map[string]string{"lamp": `{"state":{"reported":{"on":true}}}`}}}
	}
	e := w.start(t)
	create(t, e, "r", payload("SELECT get_thing_shadow(topic(2), '"+role+"').state.reported.on AS on_now FROM 'in/+'", republish("out")))
	if some, block := e.Selects("in/lamp"); !some || !block {
		t.Errorf("Selects: %v, %v", some, block)
	}
	w.mustPublish(t, e, "in/lamp", `{}`)
	w.mustPublish(t, e, "in/none", `{}`)
	eventually(t, "both messages", func() bool { return len(w.out.all()) == 2 })
	if a, b := w.out.all()[0].Payload, w.out.all()[1].Payload; string(a) != `{"on_now":true}` || string(b) != `{}` {
		t.Errorf("%s %s", a, b)
	}
}

// An action that stays the same keeps what it owes when its rule is replaced; one
// that is other finishes as it was.
func TestReplaceKeepsWhatIsOwed(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.out.publish = func(context.Context, *mqtt.Message) error { return errors.New("stalled") }
		e := w.start(t)
		create(t, e, "r", payload("SELECT * FROM 'in'", republish("same"), republish("old/${a}")))
		w.mustPublish(t, e, "in", `{"a":1}`)
		if _, err := e.ReplaceTopicRule(t.Context(), &iot.ReplaceTopicRuleRequest{
			RuleName: "r", TopicRulePayload: payload("SELECT a AS b FROM 'in'", republish("new/${a}"), republish("same")),
		}); err != nil {
			t.Fatal(err)
		}
		w.mustPublish(t, e, "in", `{"a":2}`)
		retired := 0
		for _, s := range e.Status() {
			if s.Retired {
				retired++
			}
		}
		if s := e.Status(); len(s) != 3 || retired != 1 {
			t.Errorf("status %+v", s)
		}
		w.out.setPublish(nil)
		eventually(t, "all messages", func() bool { return len(w.out.all()) == 4 })
		got := map[string][]string{}
		for _, m := range w.out.all() {
			got[m.Topic] = append(got[m.Topic], string(m.Payload))
		}
		want := map[string][]string{"same": {`{"a":1}`, `{"b":2}`}, "old/1": {`{"a":1}`}, "new/2": {`{"b":2}`}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// logged is a log that may be read while it is written.
type logged struct {
	mu sync.Mutex
	b  []byte
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, b...)
	return len(b), nil
}

func (l *logged) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

func TestMetrics(t *testing.T) {
	w := newWorld(t, openDB(t))
	registry := prometheus.NewRegistry()
	log := &logged{}
	w.ext = func(d *rules.Deps) { d.Metrics, d.Log = registry, slog.New(slog.NewTextHandler(log, nil)) }
	e := w.start(t)
	p := payload("SELECT *, 1 AS one FROM 'in/+'", republish("out"), s3("bucket", ".."))
	p.ErrorAction = republish("err")
	create(t, e, "r", p)
	w.mustPublish(t, e, "in/1", `{}`)
	w.mustPublish(t, e, "in/2", "not JSON")
	w.mustPublish(t, e, "$aws/rules/none/x", `{}`)
	w.mustPublish(t, e, "$aws/rules/none/x", `{}`)
	if text := log.text(); strings.Count(text, "rule=none") != 1 || !strings.Contains(text, "clientId=c1") {
		t.Errorf("a rule that is not found was logged as %q", text)
	}
	eventually(t, "both messages", func() bool { return len(w.out.all()) == 2 && w.pending(t) == 0 })
	want := map[string]float64{
		"topic_match_total{r}": 2, "parse_error_total{r}": 1, "rule_not_found_total{}": 2,
		"success_total{republish,r}": 1, "success_total{s3,r}": 0, "failure_total{republish,r}": 0, "failure_total{s3,r}": 1,
		"error_action_success_total{republish,r}": 1, "error_action_failure_total{republish,r}": 0,
	}
	got := gather(t, registry)
	for name, n := range want {
		if v, ok := got[name]; !ok || v != n {
			t.Errorf("%s is %v, want %v", name, v, n)
		}
	}
	backlogs := 0
	for name, n := range got {
		if strings.HasPrefix(name, "backlog_messages{") {
			backlogs++
			if n != 0 {
				t.Errorf("%s is %v", name, n)
			}
		}
	}
	if backlogs != 3 {
		t.Errorf("%d backlogs, want 3", backlogs)
	}
	if _, err := e.DeleteTopicRule(t.Context(), &iot.DeleteTopicRuleRequest{RuleName: "r"}); err != nil {
		t.Fatal(err)
	}
	if _, ok := gather(t, registry)["topic_match_total{r}"]; ok {
		t.Error("a deleted rule is still counted")
	}
}

// gather gives the values of our metrics by name{label values}.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			name := strings.TrimPrefix(f.GetName(), "flotilla_rules_") + "{" + strings.Join(labels, ",") + "}"
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}
