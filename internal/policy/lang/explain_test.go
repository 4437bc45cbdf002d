package lang_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/policy/lang"
)

func TestExplain(t *testing.T) {
	set := compile(t,
		`{"Sid":"Pub","Effect":"Allow","Action":"iot:Publish","Resource":["`+arn+`topic/dt/${iot:ClientId}/*","`+arn+`topic/${iot:Nope}"]}`,
		`{"Effect":"Allow","Action":"iot:*","Resource":"`+arn+`topic/*","Condition":{"StringEquals":{"iot:Connection.Thing.Attributes[site]":["paris","rome"]}}}`,
		`{"Effect":"Deny","Action":"iot:Publish","Resource":"`+arn+`topic/admin/*"}`,
		`{"Effect":"Allow","Action":"iot:Subscribe","Resource":"`+arn+`topic/cmd/*"}`)
	e := set.Explain(conn(), "iot:Publish", arn+"topic/cmd/dev-1/x")
	want := lang.Explanation{
		Considered: []lang.Considered{
			{Policy: "p", Statement: 2, Deny: true, Reason: "no resource matches: " + arn + "topic/admin/*"},
			{Policy: "p", Statement: 0, Sid: "Pub", Reason: "no resource matches: " + arn + "topic/dt/${iot:ClientId}/* (here " + arn + "topic/dt/dev-1/*), " + arn + "topic/${iot:Nope} (a variable has no value)"},
			{Policy: "p", Statement: 1, Reason: `condition StringEquals of iot:Connection.Thing.Attributes[site] does not hold: iot:Connection.Thing.Attributes[site] is "berlin", the policy says "paris" or "rome"`},
		},
		Variables: []lang.Resolved{
			{Name: "iot:ClientId", Values: []string{"dev-1"}},
			{Name: "iot:Connection.Thing.Attributes[site]", Values: []string{"berlin"}},
			{Name: "iot:Nope"},
		},
		Needed: `{"Effect":"Allow","Action":"iot:Publish","Resource":"` + arn + `topic/cmd/${iot:Connection.Thing.ThingName}/x"}`,
		Hint:   "No statement about iot:Publish applies.",
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct{ action, resource, hint, needed string }{
		{"iot:Publish", "topic/admin/x", "Statement 3 of policy p denies it, and no Allow overrides a Deny: narrow that statement.", ""},
		{"iot:Publish", "topic/dt/dev-1/x", "", ""},
		{"iot:Subscribe", "topic/x", "iot:Subscribe is asked about topicfilter/..., not about topic/...", "topic/x"},
		{"iot:Pubish", "topic/x", "iot:Pubish is no action that devices are asked for.", "topic/x"},
		{"iot:Connect", "client/dev-1", "No statement about iot:Connect applies.", `client/${iot:Connection.Thing.ThingName}","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}}`},
		{"iot:Receive", "topic/a*?${x}/$(*)", "No statement about iot:Receive applies.", "topic/a${*}${?}${$}{x}/${$}(${*})"},
	} {
		e := set.Explain(conn(), c.action, arn+c.resource)
		if e.Hint != c.hint || !strings.Contains(e.Needed, c.needed) || c.needed == "" && e.Needed != "" {
			t.Errorf("%s %s:\n%q\n%s", c.action, c.resource, e.Hint, e.Needed)
		}
	}
	e = set.Explain(conn(), "iot:Subscribe", arn+"topicfilter/cmd/x")
	if got, want := e.Considered[1].Reason, "resource "+arn+"topic/cmd/* is of the kind topic, asked was topicfilter"; got != want {
		t.Errorf("the classic mix-up: %q, want %q", got, want)
	}
}

// The job actions have a name in two services; a statement with either is about both.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-action-resources.html
func TestActionNames(t *testing.T) {
	resource := arn + "thing/dev-1"
	for _, c := range []struct {
		policy, asked string
		want          lang.Effect
	}{
		{`{"Effect":"Allow","Action":"iotjobsdata:DescribeJobExecution","Resource":"*"}`, "iot:DescribeJobExecution", lang.Allow},
		{`{"Effect":"Allow","Action":"iot:UpdateJobExecution","Resource":"*"}`, "iotjobsdata:UpdateJobExecution", lang.Allow},
		{`{"Effect":"Allow","Action":"iotjobsdata:*","Resource":"*"}`, "iot:StartNextPendingJobExecution", lang.Allow},
		{`{"Effect":"Allow","Action":"iotjobsdata:*","Resource":"*"}`, "iot:UpdateThingShadow", lang.ImplicitDeny},
		{`{"Effect":"Allow","NotAction":"iotjobsdata:GetPendingJobExecutions","Resource":"*"}`, "iot:GetPendingJobExecutions", lang.ImplicitDeny},
		{`{"Effect":"Allow","Action":"iot:DeleteConnection","Resource":"*"}`, "iot:DeleteConnection", lang.Allow},
		{`{"Effect":"Allow","Action":"greengrass:Discover","Resource":"*"}`, "greengrass:Discover", lang.Allow},
	} {
		if got := compile(t, c.policy).Evaluate(conn(), c.asked, resource).Effect; got != c.want {
			t.Errorf("%s asked for %s: %v, want %v", c.policy, c.asked, got, c.want)
		}
	}
	for _, a := range lang.Actions() {
		if got, ok := lang.ActionNamed(strings.ToLower(a.Name)); !ok || got != a {
			t.Errorf("%s is not found by its name", a.Name)
		}
	}
	if a, ok := lang.ActionNamed("iotjobsdata:UpdateJobExecution"); !ok || a.Name != "iot:UpdateJobExecution" {
		t.Errorf("got %+v", a)
	}
}

// A certificate attached to one thing exclusively: the client id is free.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/exclusive-thing.html
func TestExclusiveThing(t *testing.T) {
	set := compile(t, `{"Effect":"Allow","Action":"*","Resource":"`+arn+`topic/${iot:Connection.Thing.ThingName}","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}}`)
	c := conn()
	c.ClientID = "anything"
	if set.Evaluate(c, "iot:Publish", arn+"topic/dev-1").Allowed() {
		t.Error("a thing of another name counts without being exclusive")
	}
	c.Thing.Exclusive = true
	if !set.Evaluate(c, "iot:Publish", arn+"topic/dev-1").Allowed() {
		t.Error("the exclusive thing does not count")
	}
	c.Thing.Attached = false
	if set.Evaluate(c, "iot:Publish", arn+"topic/dev-1").Allowed() {
		t.Error("a thing that is not attached counts")
	}
}
