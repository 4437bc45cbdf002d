package template_test

import (
	"strings"
	"testing"

	"flotilla/internal/provision/template"
)

// TestLint has a template for each finding, and one without any.
func TestLint(t *testing.T) {
	const certificate = `"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}}`
	const policy = `"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"P"}}`
	thing := func(properties string) string {
		return `{"Parameters":{"S":{"Type":"String"}},"Mappings":{"M":{"k":{"v":"x"}}},"Resources":{"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"S"}` + properties + `}},` + certificate + `,` + policy + `}}`
	}
	attribute := func(x string) string { return thing(`,"AttributePayload":{"a":` + x + `}`) }
	for _, c := range []struct {
		name, body string
		flow       template.Flow
		want       string // in the findings, "" none
	}{
		{"good", attribute(`{"Fn::FindInMap":["M","k","v"]}`), template.Fleet, ""},
		{"good names", attribute(`{"Fn::FindInMap":["M",{"Ref":"S"},"v"]}`), template.Fleet, ""},
		{"undeclared", attribute(`{"Ref":"X"}`), template.Fleet, "Resources.t.Properties.AttributePayload.a.Ref: refers to X, which is not declared"},
		{"undeclared in Sub", attribute(`{"Fn::Sub":["${X}-${Y}",{"Y":"y"}]}`), template.Fleet, "refers to X"},
		{"no mapping", attribute(`{"Fn::FindInMap":["N","k","v"]}`), template.Fleet, `no mapping "N"`},
		{"no key", attribute(`{"Fn::FindInMap":["M","j",{"Ref":"S"}]}`), template.Fleet, `no key "j"`},
		{"no field", attribute(`{"Fn::FindInMap":["M","k","w"]}`), template.Fleet, `has no "w" under "k"`},
		{"index", attribute(`{"Fn::Select":["2",["a","b"]]}`), template.Fleet, "index 2 is outside a list of 2"},
		{"no index", attribute(`{"Fn::Select":["x",["a","b"]]}`), template.Fleet, "is not an index"},
		{"null", attribute(`{"Fn::Join":["",["a",null]]}`), template.Fleet, "[1]: is null"},
		{"delimiter", attribute(`{"Fn::Join":["",{"Fn::Split":["","a"]}]}`), template.Fleet, "delimiter is empty"},
		{"subject", attribute(`{"Ref":"AWS::IoT::Certificate::CommonName"}`), template.Fleet, "no value in fleet provisioning"},
		{"no subject", attribute(`{"Ref":"AWS::IoT::Certificate::Shoe"}`), template.Fleet, "which no certificate has"},
		{"of the device", attribute(`"x"`), template.JITP, "Parameters.S: has never a value"},
		{"one thing", strings.Replace(thing(""), `{"Ref":"S"}`, `{"Fn::Join":["",["a","b"]]}`, 1), template.Fleet, "every device becomes the same thing"},
		{"not used", strings.Replace(thing(""), `{"Ref":"S"}`, `"x"`, 1), template.RegisterThing, "Parameters.S: is not used"},
		{"inactive", strings.Replace(thing(""), `"ACTIVE"`, `"Inactive"`, 1), template.Fleet, "until someone activates"},
		{"another certificate", strings.Replace(thing(""), `"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}`, `"CertificateId":{"Ref":"S"}`, 1), template.Fleet, "no device is provisioned"},
		{"no policy", strings.Replace(thing(""), `,`+policy, ``, 1), template.Fleet, "no policy is attached"},
		{"bad policy", strings.Replace(thing(""), `"PolicyName":"P"`, `"PolicyDocument":{"Version":"2012-10-17","Statement":[{"Effect":"Maybe"}]}`, 1), template.Fleet, "is not a policy"},
		{"bad policy text", strings.Replace(thing(""), `"PolicyName":"P"`, `"PolicyDocument":"{}"`, 1), template.Fleet, "is not a policy"},
		{"any policy", strings.Replace(thing(""), `"PolicyName":"P"`, `"PolicyName":{"Ref":"S"}`, 1), template.Fleet, "may choose any policy"},
		{"computed policy", strings.Replace(thing(""), `"PolicyName":"P"`, `"PolicyDocument":{"Version":{"Ref":"S"}}`, 1), template.Fleet, ""},
	} {
		tpl, err := template.Parse(c.body, c.flow)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var got []string
		for _, f := range tpl.Lint() {
			got = append(got, f.String())
		}
		if text := strings.Join(got, "\n"); c.want == "" && text != "" || !strings.Contains(text, c.want) {
			t.Errorf("%s: found %q, want %q", c.name, text, c.want)
		}
	}
}
