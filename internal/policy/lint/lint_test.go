package lint_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"flotilla/internal/policy/lang"
	"flotilla/internal/policy/lint"
)

const arn = "arn:aws:iot:us-east-1:123456789012:"

// document makes a policy of statements in short: "@" stands for the ARN up to the resource.
func document(t testing.TB, statements ...string) *lang.Document {
	t.Helper()
	text := `{"Version":"2012-10-17","Statement":[` + strings.ReplaceAll(strings.Join(statements, ","), "@", arn) + `]}`
	if err := lang.Validate(text); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	d, err := lang.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const (
	connect  = `{"Effect":"Allow","Action":"iot:Connect","Resource":"@client/${iot:Connection.Thing.ThingName}","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}}`
	attached = `,"Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}}`
)

// Each case lists rule@statement of what is found, the worst first.
var cases = []struct {
	name       string
	statements []string
	want       string
}{
	{"a careful policy", []string{
		connect,
		`{"Effect":"Allow","Action":["iot:Publish","iot:Receive","iot:RetainPublish"],"Resource":["@topic/dt/${iot:Connection.Thing.ThingName}/*","@topic/$aws/things/${iot:Connection.Thing.ThingName}/shadow/*"]}`,
		`{"Effect":"Allow","Action":"iot:Subscribe","Resource":["@topicfilter/dt/${iot:Connection.Thing.ThingName}/*","@topicfilter/$aws/things/${iot:Connection.Thing.ThingName}/shadow/*"]}`,
		`{"Effect":"Allow","Action":"iot:AssumeRoleWithCertificate","Resource":"@rolealias/logs"}`,
		`{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/$aws/rules/telemetry/*"}`,
		`{"Effect":"Allow","Action":"iot:GetThingShadow","Resource":"@thing/${iot:Certificate.Subject.CommonName}"}`,
		`{"Effect":"Allow","Action":["iot:ListRetainedMessages","iot:ListNamedShadowsForThing"],"Resource":"*"}`,
		`{"Effect":"Allow","Action":"greengrass:Discover","Resource":"*"}`,
	}, ""},

	{"connect as anybody", []string{`{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}`}, "connect-any-client@0"},
	{"connect as anybody, by kind", []string{`{"Effect":"Allow","Action":"iot:Connect","Resource":"@client/*"}`}, "connect-any-client@0"},
	{"connect as whom one says one is", []string{`{"Effect":"Allow","Action":"iot:Connect","Resource":"@client/${iot:ClientId}"}`}, "connect-any-client@0"},
	{"connect on *, attached", []string{`{"Effect":"Allow","Action":"iot:Connect","Resource":"@client/*"` + attached}, ""},
	{"connect on *, not attached", []string{`{"Effect":"Allow","Action":"iot:Connect","Resource":"@client/*","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"false"}}}`}, "connect-any-client@0"},
	{"connect bound by certificate", []string{`{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{"StringEquals":{"iot:ClientId":"${iot:Certificate.Subject.CommonName}"}}}`}, ""},
	{"connect bound by certificate, turned", []string{`{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{"StringEquals":{"iot:Certificate.Subject.CommonName":"${iot:ClientId}"}}}`}, ""},
	{"connect bound if it exists", []string{`{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{"StringEqualsIfExists":{"iot:ClientId":"${iot:Certificate.Subject.CommonName}"}}}`}, "connect-any-client@0"},
	{"connect bound to itself", []string{`{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{"StringEquals":{"iot:ClientId":"${iot:ClientId}"}}}`}, "connect-any-client@0"},
	{"connect by address", []string{`{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}}`}, "connect-any-client@0"},
	{"connect by prefix", []string{`{"Effect":"Allow","Action":"iot:Connect","Resource":"@client/pump-*"}`}, "connect-not-bound@0"},
	{"connect by prefix, attached", []string{`{"Effect":"Allow","Action":"iot:Connect","Resource":"@client/pump-*"` + attached}, ""},
	{"connect as one", []string{`{"Effect":"Allow","Action":"iot:Connect","Resource":"@client/pump-1"}`}, ""},
	{"connect by certificate", []string{`{"Effect":"Allow","Action":"iot:Connect","Resource":"@client/${iot:Certificate.Subject.CommonName}"}`}, ""},
	{"connect by thing", []string{`{"Effect":"Allow","Action":"iot:Connect","Resource":"@client/${iot:Connection.Thing.ThingName}"}`}, "connect-not-attached@0"},

	{"the client id guards, and is free", []string{
		`{"Effect":"Allow","Action":"iot:Connect","Resource":"@client/${iot:ClientId}"}`,
		`{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/dt/${iot:ClientId}/*"}`,
	}, "connect-any-client@0 unbound-client-id@1"},
	{"the client id guards, and is bound", []string{connect, `{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/dt/${iot:ClientId}/*"}`}, ""},

	{"everything", []string{`{"Effect":"Allow","Action":"iot:*","Resource":"*"}`}, "action-wildcard@0 any-role-alias@0 connect-any-client@0 foreign-thing@0 resource-wildcard@0 subscribe-all@0"},
	{"everything denied", []string{`{"Effect":"Deny","Action":"*","Resource":"*"}`}, ""},
	{"publish everywhere", []string{`{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/*"}`}, "resource-wildcard@0"},
	{"disconnect everybody", []string{`{"Effect":"Allow","Action":"iot:DeleteConnection","Resource":"@client/*"}`}, "resource-wildcard@0"},
	{"reserved topics", []string{`{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/$aws/*"}`}, "publish-reserved@0"},
	{"every rule", []string{`{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/$aws/rules/*"}`}, "publish-reserved@0"},
	{"shadows of all", []string{`{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/$aws/things/*/shadow/update"}`}, "foreign-thing@0"},
	{"shadows of some", []string{`{"Effect":"Allow","Action":"iot:UpdateThingShadow","Resource":"@thing/pump-*"}`}, "foreign-thing@0"},
	{"shadows of all, HTTPS", []string{`{"Effect":"Allow","Action":"iot:GetThingShadow","Resource":"@thing/*"}`}, "foreign-thing@0"},
	{"jobs under their other name", []string{`{"Effect":"Allow","Action":"iotjobsdata:UpdateJobExecution","Resource":"@thing/*"}`}, "foreign-thing@0"},
	{"hear the shadows of all", []string{
		`{"Effect":"Allow","Action":"iot:Subscribe","Resource":"@topicfilter/$aws/things/+/shadow/#"}`,
		`{"Effect":"Allow","Action":"iot:Receive","Resource":"@topic/$aws/*"}`,
	}, "foreign-thing@0 foreign-thing@1 receive-wider@1"},
	{"subscribe to everything", []string{`{"Effect":"Allow","Action":["iot:Subscribe"],"Resource":"@topicfilter/#"}`, `{"Effect":"Allow","Action":"iot:Receive","Resource":"@topic/a"}`}, "subscribe-all@0"},
	{"any role", []string{`{"Effect":"Allow","Action":"iot:AssumeRoleWithCertificate","Resource":"@rolealias/*"}`}, "any-role-alias@0"},

	{"not action", []string{`{"Effect":"Allow","NotAction":["iot:Publish"],"Resource":"@topic/a"}`}, "not-action@0 publish-missing@0"},
	{"not resource", []string{`{"Effect":"Allow","Action":"iot:Publish","NotResource":"@topic/a"}`}, "not-resource@0"},
	{"deny with both", []string{`{"Effect":"Deny","NotAction":"iot:Publish","NotResource":"@topic/a"}`}, ""},

	{"the classic mix-up", []string{connect, `{"Effect":"Allow","Action":["iot:Publish","iot:Subscribe","iot:Receive"],"Resource":"@topic/a"}`}, "subscribe-on-topic@1"},
	{"the classic mix-up, alone", []string{`{"Effect":"Allow","Action":"iot:Subscribe","Resource":"@topic/a"}`}, "subscribe-on-topic@0"},
	{"publish to a filter", []string{`{"Effect":"Allow","Action":"iot:Publish","Resource":["@topic/a","@topicfilter/a"]}`}, "resource-kind@0"},
	{"list on a topic", []string{`{"Effect":"Allow","Action":"iot:ListRetainedMessages","Resource":"@topic/a"}`}, "resource-kind@0 resource-kind@0"},
	{"MQTT wildcards in a topic", []string{`{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/a/+/b"}`}, "mqtt-wildcard-in-topic@0"},
	{"MQTT wildcards in a Deny", []string{`{"Effect":"Deny","Action":"iot:Subscribe","Resource":"@topicfilter/building/control_room/#"}`}, "deny-filter-literal@0"},
	{"a Deny walked around", []string{
		`{"Effect":"Allow","Action":"iot:Subscribe","Resource":"@topicfilter/building/*"}`,
		`{"Effect":"Allow","Action":"iot:Receive","Resource":"@topic/building/*"}`,
		`{"Effect":"Deny","Action":"iot:Subscribe","Resource":"@topicfilter/building/control_room/*"}`,
	}, "deny-subscribe-evaded@2"},
	{"a Deny of both", []string{
		`{"Effect":"Allow","Action":"iot:Subscribe","Resource":"@topicfilter/building/*"}`,
		`{"Effect":"Allow","Action":"iot:Receive","Resource":"@topic/building/*"}`,
		`{"Effect":"Deny","Action":["iot:Subscribe","iot:Receive"],"Resource":["@topicfilter/building/control_room/*","@topic/building/control_room/*"]}`,
	}, ""},
	{"no receive", []string{`{"Effect":"Allow","Action":"iot:Subscribe","Resource":"@topicfilter/a/b"}`}, "receive-missing@0"},
	{"receive more", []string{`{"Effect":"Allow","Action":"iot:Subscribe","Resource":"@topicfilter/a/+"}`, `{"Effect":"Allow","Action":"iot:Receive","Resource":["@topic/a/b","@topic/c/*"]}`}, "receive-wider@1"},
	{"shared subscription", []string{`{"Effect":"Allow","Action":"iot:Subscribe","Resource":"@topicfilter/$share/g/a/#"}`, `{"Effect":"Allow","Action":"iot:Receive","Resource":"@topic/a/*"}`}, ""},
	{"retain without publish", []string{`{"Effect":"Allow","Action":"iot:RetainPublish","Resource":"@topic/a"}`}, "publish-missing@0"},

	{"unknown variable", []string{`{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/${iot:ThingName}"}`}, "unknown-variable@0"},
	{"unknown key", []string{`{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/a","Condition":{"StringNotEquals":{"iot:Thing":"x"}}}`}, "unknown-variable@0"},
	{"unknown key that must be there", []string{`{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/a","Condition":{"StringEquals":{"iot:Thing":"x"}}}`}, "dead-statement@0 unknown-variable@0"},
	{"a key of another action", []string{`{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/a","Condition":{"ForAnyValue:StringEquals":{"iot:ConnectAttributes":"LastWill"}}}`}, "unknown-variable@0"},
	{"thing over HTTPS", []string{`{"Effect":"Allow","Action":"iot:GetThingShadow","Resource":"@thing/${iot:Connection.Thing.ThingName}"}`}, "variable-not-over-https@0"},
	{"misspelt", []string{`{"Effect":"Allow","Action":["iot:Pubish"],"Resource":"@topic/a"}`}, "unknown-action@0"},
	{"of the API", []string{`{"Effect":"Allow","Action":"iot:CreateThing","Resource":"*"}`}, "unknown-action@0"},
	{"denied anyway", []string{`{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/a/b"}`, `{"Effect":"Deny","Action":"iot:P*","Resource":"@topic/a/*"}`}, "dead-statement@0"},
	{"denied on a condition", []string{`{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/a/b"}`, `{"Effect":"Deny","Action":"iot:P*","Resource":"@topic/a/*","Condition":{"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}}}`}, ""},
	{"twice", []string{`{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/a"}`, `{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/a"}`}, "redundant-statement@1"},
	{"contained", []string{`{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/a/${iot:DomainName}/?"}`, `{"Effect":"Allow","Action":"iot:Publish","Resource":"@topic/a/*"}`}, "redundant-statement@0"},
}

func found(d *lang.Document) string {
	var list []string
	for _, f := range lint.Document(d) {
		list = append(list, fmt.Sprintf("%s@%d", f.Rule, f.Statement))
	}
	return strings.Join(list, " ")
}

func TestDocument(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := document(t, c.statements...)
			got := strings.Fields(found(d))
			want := strings.Fields(c.want)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("found %v, want %v", got, want)
			}
			for _, f := range lint.Document(d) {
				seen[f.Rule] = true
				if f.Reason == "" || f.Fix == "" || strings.Contains(f.Reason, "%!") {
					t.Errorf("%+v", f)
				}
			}
		})
	}
	for _, r := range lint.Rules() {
		if !seen[r.ID] {
			t.Errorf("no case finds %s", r.ID)
		}
	}
}

func TestOrder(t *testing.T) {
	d := document(t, `{"Effect":"Allow","Action":"iot:RetainPublish","Resource":"@topic/a"}`, `{"Sid":"S","Effect":"Allow","Action":"iot:Connect","Resource":"*"}`)
	list := lint.Document(d)
	if len(list) != 2 || list[0].Severity != lint.High || list[0].Statement != 1 || list[0].Sid != "S" || list[0].Resource != "*" || list[1].Severity != lint.Low {
		t.Errorf("%+v", list)
	}
}

func TestParseSeverity(t *testing.T) {
	for _, r := range lint.Rules() {
		if s, err := lint.ParseSeverity(r.Severity.String()); err != nil || s != r.Severity {
			t.Errorf("%v: %v, %v", r.Severity, s, err)
		}
	}
	if _, err := lint.ParseSeverity("fatal"); err == nil {
		t.Error("fatal is taken")
	}
}

// What contains another resource matches all that it does: the rule about contained statements relies on it.
func TestContainedIsContained(t *testing.T) {
	hits := 0
	rapid.Check(t, func(t *rapid.T) {
		pattern := func(name string) string {
			return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"*", "?", "a", "b", "é", "${iot:ClientId}", "${*}"}), 0, 6).Draw(t, name), "")
		}
		wide, narrow := pattern("wide"), pattern("narrow")
		a := `{"Effect":"Allow","Action":"x:y","Resource":"@topic/` + wide + `"}`
		b := `{"Effect":"Allow","Action":"x:y","Resource":"@topic/` + narrow + `","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}}`
		text := strings.ReplaceAll(`{"Version":"2012-10-17","Statement":[`+a+`,`+b+`]}`, "@", arn)
		d, err := lang.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(found(d), "redundant-statement@1") {
			return
		}
		hits++
		topic := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "é", "*", "me", "x"}), 0, 7).Draw(t, "topic"), "")
		c := &lang.Connection{ClientID: "me"}
		one := func(i int) bool {
			only := lang.Statement{Actions: d.Statements[i].Actions, Resources: d.Statements[i].Resources}
			return lang.Compile(lang.Named{Document: &lang.Document{Statements: []lang.Statement{only}}}).Evaluate(c, "x:y", arn+"topic/"+topic).Allowed()
		}
		if one(1) && !one(0) {
			t.Fatalf("%q is said to contain %q, which matches %q", wide, narrow, topic)
		}
	})
	if hits == 0 {
		t.Error("no pattern contained another")
	}
}

// Whatever is a policy can be linted, and a finding names a statement that is there.
func FuzzDocument(f *testing.F) {
	for _, c := range cases {
		f.Add(strings.ReplaceAll(`{"Version":"2012-10-17","Statement":[`+strings.Join(c.statements, ",")+`]}`, "@", arn))
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := lang.Parse(text)
		if err != nil {
			return
		}
		for _, x := range lint.Document(d) {
			if x.Statement < -1 || x.Statement >= len(d.Statements) || x.Reason == "" {
				t.Fatalf("%+v", x)
			}
		}
	})
}
