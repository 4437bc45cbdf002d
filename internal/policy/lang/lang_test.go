package lang_test

import (
	"strings"
	"testing"
	"time"

	"flotilla/internal/policy/lang"
)

const arn = "arn:aws:iot:us-east-1:123456789012:"

func conn() *lang.Connection {
	return &lang.Connection{
		Protocol: "mqtt", ClientID: "dev-1", SourceIP: "203.0.113.10", DomainName: "iot.example.com",
		ConnectAttributes: []string{"PersistentConnect", "LastWill"},
		Thing:             &lang.Thing{Name: "dev-1", TypeName: "Pump", Attached: true, Attributes: map[string]string{"site": "berlin", "level": "5", "Site": "x"}},
		Certificate: &lang.Certificate{
			ID: "ab12", SerialNumber: "10525622389124227206",
			Subject: map[string][]string{"CommonName": {"LightBulb Device Cert"}, "Organization": {"Example, Inc", "B"}, "Country": {"US", "a*b", "DE", "FR", "GB", "IT"}},
			Issuer:  map[string][]string{"CommonName": {"Primary CA"}},
			SubjectAlternativeName: map[string][]string{
				"DNSName": {"example.com"}, "IPAddress": {"1.2.3.4"}, "DirectoryName": {"CN=LightBulbCert,O=IoT,C=US"},
			},
			IssuerAlternativeName: map[string][]string{"RFC822Name": {"primary@issuer.com"}},
		},
		Time: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
	}
}

func compile(t testing.TB, statements ...string) *lang.Set {
	t.Helper()
	d, err := lang.Parse(`{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`)
	if err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
	return lang.Compile(lang.Named{Name: "p", Document: d})
}

// One resource template against one topic.
func TestResource(t *testing.T) {
	for _, c := range []struct {
		template, topic string
		want            bool
	}{
		{"a/${iot:Certificate.Subject.Country.2}", "a/DE", true},
		{"a/${iot:Certificate.Subject.Country.1}", "a/a*b", false}, // wildcard characters: not substituted
		{"a/${iot:Certificate.Subject.Country.5}", "a/IT", false},  // five values at most
		{"a/${iot:Certificate.Subject.Country.List}", "a/US", false},
		{"a/${iot:Certificate.Subject.Organization}", `a/Example\, Inc`, true}, // use-policy-variables: special characters
		{"a/${iot:Certificate.Subject.AlternativeName.IPAddress}", "a/1.2.3.4", true},
		{"a/${iot:Certificate.Subject.AlternativeName.DirectoryName}", "a/CN=LightBulbCert,O=IoT,C=US", true},
		{"a/${iot:Certificate.Issuer.AlternativeName.RFC822Name}", "a/primary@issuer.com", true},
		{"a/${iot:Certificate.SerialNumber}/${iot:CertificateId}", "a/10525622389124227206/ab12", true},
		{"a/${iot:certificate.subject.commonname}", "a/LightBulb Device Cert", true},
		{"a/${iot:Connection.Thing.Attributes[Site]}", "a/x", true},
		{"a/${aws:SourceIp}", "a/203.0.113.10", true},
		{"a/${iot:DomainName}", "a/iot.example.com", true},
		{"a/${aws:EpochTime}", "a/1772600767", true},
		{"a/${iot:Nope, 'none'}", "a/none", true},
		{"a/${iot:Nope}", "a/${iot:Nope}", false},
		{"a${?}b", "a?b", true},
		{"a${?}b", "axb", false},
		{"a${$}{iot:ClientId}", "a${iot:ClientId}", true},
		{"a$(*)b", "a*b", true},
		{"$aws/things/${iot:ClientId}/*", "$aws/things/dev-1/shadow/update", true},
		{"*/${iot:ClientId}/?", "x/y/dev-1/ä", true},
		{"*/${iot:ClientId}/?", "x/y/dev-1/ää", false},
		{"**a**", "xxax", true},
		{"*ab", "aab", true},
		{"*ab*ab", "ab", false},
		{"?", "", false},
	} {
		set := compile(t, `{"Effect":"Allow","Action":"iot:Publish","Resource":"`+arn+`topic/`+c.template+`"}`)
		if got := set.Evaluate(conn(), "iot:Publish", arn+"topic/"+c.topic).Allowed(); got != c.want {
			t.Errorf("%s against %s: %v, want %v", c.template, c.topic, got, c.want)
		}
	}
}

// One condition block.
func TestCondition(t *testing.T) {
	for _, c := range []struct {
		condition string
		want      bool
	}{
		{`{"StringEquals":{"iot:Certificate.Subject.Organization":"Example\\, Inc"}}`, true},
		{`{"StringEquals":{"iot:DomainName":["other","iot.example.com"]}}`, true},
		{`{"StringNotEquals":{"iot:ClientId":["a","dev-1"]}}`, false},
		{`{"StringNotEqualsIgnoreCase":{"iot:ClientId":"DEV-1"}}`, false},
		{`{"StringNotLike":{"iot:ClientId":["a*","x?"]}}`, true},
		{`{"StringLike":{"iot:ClientId":"de?-1"}}`, true},
		{`{"StringLike":{"iot:ClientId":"${*}ev-1"}}`, false},
		{`{"StringEquals":{"iot:ClientId":"${iot:Connection.Thing.Attributes[zz]}"}}`, false},
		{`{"StringNotEquals":{"iot:ClientId":"${iot:Connection.Thing.Attributes[zz]}"}}`, false}, // nothing to compare with: no grant
		{`{"NumericEquals":{"iot:Connection.Thing.Attributes[level]":"5.0"}}`, true},
		{`{"NumericNotEquals":{"iot:Connection.Thing.Attributes[level]":5}}`, false},
		{`{"NumericLessThanEquals":{"iot:Connection.Thing.Attributes[level]":"5"}}`, true},
		{`{"NumericGreaterThanEquals":{"iot:Connection.Thing.Attributes[level]":"6"}}`, false},
		{`{"NumericEquals":{"iot:Connection.Thing.Attributes[site]":"5"}}`, false},
		{`{"NumericGreaterThan":{"iot:Certificate.SerialNumber":"10525622389124227205"}}`, true}, // beyond 2^53
		{`{"DateGreaterThan":{"aws:CurrentTime":"2026-03-04T05:06:06Z"}}`, true},
		{`{"DateLessThan":{"aws:CurrentTime":"2026-03-04T05:06:07Z"}}`, false},
		{`{"DateEquals":{"aws:EpochTime":"2026-03-04T05:06:07Z"}}`, true},
		{`{"NumericLessThan":{"aws:EpochTime":"1772600768"}}`, true},
		{`{"Bool":{"iot:Connection.Thing.IsAttached":true}}`, true},
		{`{"BoolIfExists":{"aws:Nothing":"true"}}`, true},
		{`{"IpAddress":{"aws:SourceIp":["192.0.2.0/24","203.0.113.10"]}}`, true},
		{`{"NotIpAddress":{"aws:SourceIp":["192.0.2.0/24","203.0.0.0/8"]}}`, false},
		{`{"ArnLike":{"iot:ClientId":"arn:*"}}`, false},
		{`{"Null":{"iot:Certificate.SerialNumber":"false","iot:Certificate.Subject.CommonName":"false"}}`, true},
		{`{"Null":{"iot:ClientId":"true"}}`, false},
		{`{"ForAnyValue:StringEquals":{"iot:Certificate.Subject.Country.List":"IT"}}`, false}, // the sixth value
		{`{"ForAnyValue:StringLike":{"iot:Certificate.Subject.Country.List":["G*"]}}`, true},
		{`{"ForAllValues:StringLike":{"iot:Certificate.Subject.Country.List":["??"]}}`, true},
		{`{"ForAllValues:StringEquals":{"iot:Certificate.Subject.Title.List":["x"]}}`, true},
		{`{"ForAnyValue:StringEquals":{"iot:Certificate.Subject.Title.List":["x"]}}`, false},
		{`{"ForAnyValue:StringEqualsIfExists":{"iot:Certificate.Subject.Title.List":["x"]}}`, true},
		{`{"ForAnyValue:StringNotEquals":{"iot:ConnectAttributes":["LastWill"]}}`, true},
		{`{"ForAllValues:StringNotEquals":{"iot:ConnectAttributes":["LastWill"]}}`, false},
		{`{"ForAllValues:StringEquals":{"iot:ConnectAttributes":[]}}`, false},
		{`{"ForAllValues:StringEquals":{"iot:ConnectAttributes":["LastWill","PersistentConnect","New"]}}`, true},
	} {
		set := compile(t, `{"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":`+c.condition+`}`)
		if got := set.Evaluate(conn(), "iot:Connect", arn+"client/dev-1").Allowed(); got != c.want {
			t.Errorf("%s: %v, want %v", c.condition, got, c.want)
		}
	}
}

// Thing variables need an attached thing of the client's name, and MQTT.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/thing-policy-variables.html
func TestThingVariables(t *testing.T) {
	set := compile(t, `{"Effect":"Allow","Action":"*","Resource":"`+arn+`topic/${iot:Connection.Thing.ThingName}"}`,
		`{"Effect":"Allow","Action":"*","Resource":"`+arn+`topic/attached","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}}`,
		`{"Effect":"Allow","Action":"*","Resource":"`+arn+`topic/detached","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"false"}}}`)
	for name, c := range map[string]struct {
		change                    func(*lang.Connection)
		thing, attached, detached bool
	}{
		"attached":     {func(*lang.Connection) {}, true, true, false},
		"unattached":   {func(c *lang.Connection) { c.Thing.Attached = false }, false, false, true},
		"no thing":     {func(c *lang.Connection) { c.Thing = nil }, false, false, true},
		"other client": {func(c *lang.Connection) { c.ClientID = "dev-2" }, false, false, true},
		"https":        {func(c *lang.Connection) { c.Protocol = "https" }, false, false, false},
	} {
		conn := conn()
		c.change(conn)
		for topic, want := range map[string]bool{"dev-1": c.thing, "attached": c.attached, "detached": c.detached} {
			if got := set.Evaluate(conn, "iot:Publish", arn+"topic/"+topic).Allowed(); got != want {
				t.Errorf("%s: %s: %v, want %v", name, topic, got, want)
			}
		}
	}
}

// An unresolved variable must not widen what a statement allows, nor narrow what it denies.
func TestUnresolved(t *testing.T) {
	set := compile(t, `{"Effect":"Allow","Action":"iot:Publish","NotResource":"`+arn+`topic/${iot:Nope}/*"}`)
	if set.Evaluate(conn(), "iot:Publish", arn+"topic/a").Allowed() {
		t.Error("Allow with an unresolved NotResource allows everything")
	}
	set = compile(t, `{"Effect":"Allow","Action":"*","Resource":"*"}`,
		`{"Effect":"Deny","Action":"*","NotResource":"`+arn+`topic/${iot:Nope}/*"}`)
	if d := set.Evaluate(conn(), "iot:Publish", arn+"topic/a"); d.Effect != lang.ExplicitDeny {
		t.Errorf("Deny with an unresolved NotResource: %v", d.Effect)
	}
}

func TestDecisionNamesStatement(t *testing.T) {
	parse := func(text string) *lang.Document {
		d, err := lang.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	a := parse(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},{"Sid":"Pub","Effect":"Allow","Action":"iot:Publish","Resource":"*"}]}`)
	b := parse(`{"Version":"2012-10-17","Statement":{"Sid":"No","Effect":"Deny","Action":"iot:Publish","Resource":"` + arn + `topic/x"}}`)
	set := lang.Compile(lang.Named{Name: "a", Document: a}, lang.Named{Name: "b", Document: b})
	if got, want := set.Evaluate(conn(), "iot:Publish", arn+"topic/y"), (lang.Decision{Effect: lang.Allow, Policy: "a", Statement: 1, Sid: "Pub"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := set.Evaluate(conn(), "iot:Publish", arn+"topic/x"), (lang.Decision{Effect: lang.ExplicitDeny, Policy: "b", Sid: "No"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := set.Evaluate(conn(), "iot:Subscribe", arn+"topicfilter/x"); got != (lang.Decision{}) {
		t.Errorf("got %+v, want the zero decision", got)
	}
}

func TestUsesTime(t *testing.T) {
	if compile(t, `{"Effect":"Allow","Action":"*","Resource":"*"}`).UsesTime() {
		t.Error("a set without time says it uses it")
	}
	if !compile(t, `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:currentTime":"2030-01-01T00:00:00Z"}}}`).UsesTime() {
		t.Error("a set with aws:CurrentTime says it does not use time")
	}
}

func TestUsesThing(t *testing.T) {
	const rest = `"Effect":"Allow","Action":"*"`
	for statement, want := range map[string]bool{
		`{` + rest + `,"Resource":"*"}`:                                                                                                false,
		`{` + rest + `,"Resource":"` + arn + `client/${iot:ClientId}"}`:                                                                false,
		`{` + rest + `,"Resource":"` + arn + `client/${iot:Connection.Thing.ThingName}"}`:                                              true,
		`{` + rest + `,"Resource":["*","` + arn + `topic/${iot:Connection.Thing.ThingTypeName}"]}`:                                     true,
		`{` + rest + `,"NotResource":"` + arn + `topic/${iot:Connection.Thing.Attributes[site]}"}`:                                     true,
		`{` + rest + `,"Resource":"*","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}}`:                                true,
		`{` + rest + `,"Resource":"*","Condition":{"StringEquals":{"iot:ClientId":"${iot:Connection.Thing.ThingName}"}}}`:              true,
		`{` + rest + `,"Resource":"*","Condition":{"StringEquals":{"iot:ClientId":"${iot:Connection.Thing.ThingName, 'none'}"}}}`:      true,
		`{` + rest + `,"Resource":"*"},{"Effect":"Deny","Action":"*","Resource":"` + arn + `topic/${iot:Connection.Thing.ThingName}"}`: true,
	} {
		if got := compile(t, statement).UsesThing(); got != want {
			t.Errorf("%s: %v, want %v", statement, got, want)
		}
	}
}

func TestValidate(t *testing.T) {
	wrap := func(statement string) string { return `{"Version":"2012-10-17","Statement":[` + statement + `]}` }
	for _, c := range []struct{ document, want string }{
		{wrap(`{"Effect":"Allow","Action":["iot:*","greengrass:Discover"],"Resource":["*","` + arn + `topic/${iot:ClientId}"]}`), ""},
		{wrap(`{"Effect":"Allow","NotAction":"iot:Publish","NotResource":"` + arn + `topic/a"}`), ""},
		{wrap(``), "Policy document is Malformed: Policy has no statements"},
		{`{"Statement":[]}`, "Policy document is Malformed: Unknown policy document version. It must be version 2012-10-17"},
		{`{"Version":"2008-10-17","Statement":[]}`, "Policy document is Malformed: Unknown policy document version. It must be version 2012-10-17"},
		{wrap(`{"Effect":"allow","Action":"iot:*","Resource":"*"}`), "Policy document is Malformed: Invalid effect: allow"},
		{wrap(`{"Effect":"Allow","Action":"iot:*","Resource":"\\"}`), `Policy document is Malformed: The following resources are invalid : \`},
		{wrap(`{"Effect":"Allow","Action":"publish","Resource":"*"}`), "Policy document is Malformed: The following actions are invalid : publish"},
		{wrap(`{"Effect":"Allow","Action":"iot:${iot:ClientId}","Resource":"*"}`), "Policy document is Malformed: The following actions are invalid : iot:${iot:ClientId}"},
		{wrap(`{"Effect":"Allow","Action":"iot:${*}","Resource":"*"}`), "Policy document is Malformed: The following actions are invalid : iot:${*}"},
		{wrap(`{"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":{"StringEquals":{"${iot:ClientId}":"a"}}}`), "Policy document is Malformed: Invalid policy syntax."},
		{wrap(`{"Effect":"Allow","Action":[],"Resource":"*"}`), "Policy document is Malformed: Invalid policy syntax."},
		{wrap(`{"Effect":"Allow","Action":"iot:*","Resource":"*","NotResource":"*"}`), "Policy document is Malformed: Invalid policy syntax."},
		{wrap(`{"Effect":"Allow","Effect":"Deny","Action":"iot:*","Resource":"*"}`), "Policy document is Malformed: Invalid policy syntax."},
		{wrap(`{"Effect":"Allow","Action":"iot:*","Resource":"*","Principal":"*"}`), "Policy document is Malformed: Invalid policy syntax."},
		{wrap(`{"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":{"NullIfExists":{"a":"true"}}}`), "Policy document is Malformed: Invalid condition operator: NullIfExists"},
		{wrap(`{"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/99"}}}`), `Policy document is Malformed: Invalid value "10.0.0.0/99" of condition operator IpAddress`},
		{wrap(`{"Effect":"Allow","Action":"iot:*","Resource":"*"}`) + "{}", "Policy document is Malformed: Invalid policy syntax."},
		{wrap(`{"Effect":"Allow","Action":"iot:*","Resource":"` + arn + strings.Repeat("x", 2048) + `"}`), "Policy cannot be created - size exceeds hard limit (2048)"},
		{wrap(`{"Effect":"Allow",` + strings.Repeat(" \n", 2048) + `"Action":"iot:*","Resource":"*"}`), ""},
	} {
		got := ""
		if err := lang.Validate(c.document); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%.120s:\ngot  %q\nwant %q", c.document, got, c.want)
		}
	}
}
