package policybench

import (
	"fmt"
	"net/netip"
	"testing"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"flotilla/internal/policy/lang"
)

// The policy of a careful device, five statements: connect as the thing, subscribe to and receive its own commands and
// shadow, publish telemetry under its site, nothing to admin/*, and publishes from two networks only.

const arn = "arn:aws:iot:us-east-1:123456789012:"

const iotPolicy = `{"Version":"2012-10-17","Statement":[
{"Effect":"Allow","Action":"iot:Connect","Resource":"` + arn + `client/${iot:Connection.Thing.ThingName}","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}},
{"Effect":"Allow","Action":"iot:Subscribe","Resource":["` + arn + `topicfilter/cmd/${iot:ClientId}/*","` + arn + `topicfilter/$aws/things/${iot:ClientId}/*"]},
{"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":["` + arn + `topic/cmd/${iot:ClientId}/*","` + arn + `topic/$aws/things/${iot:Connection.Thing.ThingName}/*","` + arn + `topic/site/${iot:Connection.Thing.Attributes[site]}/${iot:ClientId}/telemetry"]},
{"Effect":"Deny","Action":"iot:*","Resource":"` + arn + `topic/admin/*"},
{"Effect":"Deny","Action":"iot:Publish","Resource":"*","Condition":{"NotIpAddress":{"aws:SourceIp":["10.0.0.0/8","203.0.113.0/24"]}}}]}`

// regoPolicy says the same with what Rego has for it: startswith and equality on text put together from the input.
const regoPolicy = `package iot

default allow := false

allow if {
	permitted
	not forbidden
}

permitted if {
	input.action == "iot:Connect"
	input.thing.attached
	input.resource == concat("", ["client/", input.thing.name])
}

permitted if {
	input.action == "iot:Subscribe"
	startswith(input.resource, concat("", ["topicfilter/cmd/", input.client, "/"]))
}

permitted if {
	input.action == "iot:Subscribe"
	startswith(input.resource, concat("", ["topicfilter/$aws/things/", input.client, "/"]))
}

messages := {"iot:Publish", "iot:Receive"}

permitted if {
	messages[input.action]
	startswith(input.resource, concat("", ["topic/cmd/", input.client, "/"]))
}

permitted if {
	messages[input.action]
	startswith(input.resource, concat("", ["topic/$aws/things/", input.thing.name, "/"]))
}

permitted if {
	messages[input.action]
	input.resource == concat("", ["topic/site/", input.thing.site, "/", input.client, "/telemetry"])
}

forbidden if startswith(input.resource, "topic/admin/")

networks := ["10.0.0.0/8", "203.0.113.0/24"]

inside if {
	some n in networks
	net.cidr_contains(n, input.ip)
}

forbidden if {
	input.action == "iot:Publish"
	not inside
}
`

// cedarPolicy says the same where Cedar can. Its like takes no variables, so whoever asks has to take the topic apart
// first, which is not measured: the first level, the owner in it, the rest.
const cedarPolicy = `
permit (principal, action == Action::"Connect", resource)
when { principal.attached && resource.name == principal.name };
permit (principal, action == Action::"Subscribe", resource)
when { (resource.root == "cmd" || resource.root == "$aws/things") && resource.owner == principal.client };
permit (principal, action in [Action::"Publish", Action::"Receive"], resource)
when {
	(resource.root == "cmd" && resource.owner == principal.client) ||
	(resource.root == "$aws/things" && resource.owner == principal.name) ||
	(resource.root == "site" && resource.site == principal.site && resource.owner == principal.client && resource.rest == "telemetry")
};
forbid (principal, action, resource)
when { resource.root == "admin" };
forbid (principal, action == Action::"Publish", resource)
unless { context.ip.isInRange(ip("10.0.0.0/8")) || context.ip.isInRange(ip("203.0.113.0/24")) };
`

// questions: what is asked, and what everybody has to answer.
var questions = []struct {
	name, action, root, site, owner, rest string
	allowed                               bool
}{
	{"allowed", "Publish", "site", "berlin", "dev-1", "telemetry", true},
	{"denied", "Publish", "site", "berlin", "dev-2", "telemetry", false},
}

func topic(root, site, owner, rest string) string {
	return fmt.Sprintf("topic/%s/%s/%s/%s", root, site, owner, rest)
}

func connection() *lang.Connection {
	return &lang.Connection{
		Protocol: "mqtt", ClientID: "dev-1", SourceIP: "203.0.113.10",
		Thing: &lang.Thing{Name: "dev-1", Attached: true, Attributes: map[string]string{"site": "berlin"}},
	}
}

func compile(tb testing.TB) *lang.Set {
	d, err := lang.Parse(iotPolicy)
	if err != nil {
		tb.Fatal(err)
	}
	return lang.Compile(lang.Named{Name: "device", Document: d})
}

func prepare(tb testing.TB) rego.PreparedEvalQuery {
	q, err := rego.New(rego.Query("data.iot.allow"), rego.Module("iot.rego", regoPolicy)).PrepareForEval(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return q
}

func regoInput(action, resource string) map[string]any {
	return map[string]any{
		"action": "iot:" + action, "resource": resource, "client": "dev-1", "ip": "203.0.113.10",
		"thing": map[string]any{"name": "dev-1", "attached": true, "site": "berlin"},
	}
}

func evalRego(tb testing.TB, q rego.PreparedEvalQuery, input ast.Value) bool {
	rs, err := q.Eval(tb.Context(), rego.EvalParsedInput(input))
	if err != nil {
		tb.Fatal(err)
	}
	return rs.Allowed()
}

func parseCedar(tb testing.TB) *cedar.PolicySet {
	ps, err := cedar.NewPolicySetFromBytes("device.cedar", []byte(cedarPolicy))
	if err != nil {
		tb.Fatal(err)
	}
	return ps
}

func cedarRequest(action, root, site, owner, rest string) (types.EntityMap, cedar.Request) {
	client, res := cedar.NewEntityUID("Client", "dev-1"), cedar.NewEntityUID("Topic", "t")
	entities := types.EntityMap{
		client: {UID: client, Attributes: types.NewRecord(types.RecordMap{
			"client": types.String("dev-1"), "name": types.String("dev-1"), "attached": types.True, "site": types.String("berlin"),
		})},
		res: {UID: res, Attributes: types.NewRecord(types.RecordMap{
			"name": types.String(topic(root, site, owner, rest)), "root": types.String(root), "site": types.String(site), "owner": types.String(owner), "rest": types.String(rest),
		})},
	}
	return entities, cedar.Request{
		Principal: client, Action: cedar.NewEntityUID("Action", cedar.String(action)), Resource: res,
		Context: types.NewRecord(types.RecordMap{"ip": types.IPAddr(netip.MustParsePrefix("203.0.113.10/32"))}),
	}
}

// All three give the same answers.
func TestSameAnswers(t *testing.T) {
	set, query, policies := compile(t), prepare(t), parseCedar(t)
	for _, q := range questions {
		resource := topic(q.root, q.site, q.owner, q.rest)
		if got := set.Evaluate(connection(), "iot:"+q.action, arn+resource).Allowed(); got != q.allowed {
			t.Errorf("flotilla, %s: %v", q.name, got)
		}
		input, err := ast.InterfaceToValue(regoInput(q.action, resource))
		if err != nil {
			t.Fatal(err)
		}
		if got := evalRego(t, query, input); got != q.allowed {
			t.Errorf("opa, %s: %v", q.name, got)
		}
		entities, request := cedarRequest(q.action, q.root, q.site, q.owner, q.rest)
		decision, diag := cedar.Authorize(policies, entities, request)
		if len(diag.Errors) > 0 {
			t.Log(diag.Errors)
		}
		if got := decision == cedar.Allow; got != q.allowed {
			t.Errorf("cedar, %s: %v", q.name, got)
		}
	}
}
