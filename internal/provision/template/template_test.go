package template_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/provision/template"
)

// body makes a template of a thing name and further sections.
func body(thingName, more string) string {
	return `{"Parameters":{"A":{"Type":"String"},"D":{"Type":"String","Default":"dflt"}},
		"Mappings":{"M":{"k":{"v":"mapped","l":["p","q"],"n":7}}},
		"Resources":{"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":` + thingName + `}}}` + more + `}`
}

// TestFunctions: https://docs.aws.amazon.com/iot/latest/developerguide/provision-template.html#intrinsic-functions
func TestFunctions(t *testing.T) {
	for _, c := range []struct{ x, want string }{
		{`"plain"`, "plain"},
		{`12`, "12"},
		{`{"Ref":"A"}`, "a-b"},
		{`{"Ref":"D"}`, "dflt"},
		{`{"Ref":"None"}`, "missingParameter"},
		{`{"Ref":7}`, "invalidTemplate"},
		{`{"Ref":"A","x":1}`, "invalidTemplate"},
		{`{"Fn::Join":["_",["x",{"Ref":"A"},1]]}`, "x_a-b_1"},
		{`{"Fn::Join":["",{"Fn::Split":["-",{"Ref":"A"}]}]}`, "ab"},
		{`{"Fn::Join":["_",["x",null]]}`, "functionError"},
		{`{"Fn::Join":["_",[{"Fn::Split":["-","a-b"]}]]}`, "functionError"},
		{`{"Fn::Join":["_",{"Ref":"A"}]}`, "functionError"},
		{`{"Fn::Join":["_"]}`, "invalidTemplate"},
		{`{"Fn::Join":[1,["a"]]}`, "invalidTemplate"},
		{`{"Fn::Select":["1",["x","y"]]}`, "y"},
		{`{"Fn::Select":[1,{"Fn::Split":["-",{"Ref":"A"}]}]}`, "b"},
		{`{"Fn::Select":[0,{"Fn::FindInMap":["M","k","l"]}]}`, "p"},
		{`{"Fn::Select":[0,["x",null]]}`, "functionError"},
		{`{"Fn::Select":["one",["x"]]}`, "functionError"},
		{`{"Fn::Select":[1.5,["x","y"]]}`, "functionError"},
		{`{"Fn::Select":[0,[]]}`, "functionError"},
		{`{"Fn::FindInMap":["M","k","v"]}`, "mapped"},
		{`{"Fn::FindInMap":["M",{"Fn::Join":["",["k"]]},"n"]}`, "7"},
		{`{"Fn::FindInMap":["M","k","l"]}`, "functionError"},
		{`{"Fn::FindInMap":["M","k"]}`, "invalidTemplate"},
		{`{"Fn::Split":["-","a"]}`, "functionError"},
		{`{"Fn::Select":[0,{"Fn::Split":["","a"]}]}`, "functionError"},
		{`{"Fn::Sub":"x-${A}"}`, "x-a-b"},
		{`{"Fn::Sub":["${A}-${V}",{"V":{"Ref":"D"},"A":"own"}]}`, "own-dflt"},
		{`{"Fn::Sub":["${V}",{"W":"w"}]}`, "missingParameter"},
		{`{"Fn::Sub":"${A"}`, "invalidTemplate"},
		{`{"Fn::Sub":"${}"}`, "invalidTemplate"},
		{`{"Fn::Sub":["${A}"]}`, "invalidTemplate"},
		{`{"Fn::Sub":{"Ref":"A"}}`, "invalidTemplate"},
		{`{"Fn::GetAtt":["t","Arn"]}`, "invalidTemplate"},
		{`{"Fn::Sub":"${!A}"}`, "invalidRequest"}, // "${A}" is no thing name
		{`["x"]`, "invalidTemplate"},
		{`null`, "invalidTemplate"},
		{`{}`, "invalidTemplate"},
		{`""`, "invalidRequest"},
		{`"` + strings.Repeat("x", 129) + `"`, "invalidRequest"},
	} {
		got := resolve(t, body(c.x, ""), map[string]string{"A": "a-b"})
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.x, got, c.want)
		}
	}
}

// resolve gives the thing's name, or the category of the failure.
func resolve(t *testing.T, body string, parameters map[string]string) string {
	t.Helper()
	tpl, err := template.Parse(body, template.RegisterThing)
	if err != nil {
		return category(t, err)
	}
	plan, err := tpl.Resolve(template.Input{Parameters: parameters})
	if err != nil {
		return category(t, err)
	}
	return plan.Thing.Name
}

func category(t *testing.T, err error) string {
	t.Helper()
	var e *template.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is not *template.Error: %v", err, err)
	}
	return string(e.Category)
}

func TestParseRefuses(t *testing.T) {
	res := func(s string) string { return `{"Resources":{` + s + `}}` }
	thing := `"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"x"}}`
	for name, s := range map[string]string{
		"array":               `[]`,
		"trailing":            `{"Resources":{}} {}`,
		"duplicate member":    `{"Resources":{},"Resources":{}}`,
		"invalid UTF-8":       "{\"Resources\":\"\xff\"}",
		"too deep":            `{"Resources":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`,
		"too long":            `{"Resources":{` + thing + `},"Description":"` + strings.Repeat("x", template.MaxBody) + `"}`,
		"unknown section":     `{"Resources":{` + thing + `},"Outputs":{}}`,
		"no resource":         `{"Resources":{}}`,
		"parameter type":      `{"Parameters":{"A":{"Type":"Number"}},"Resources":{` + thing + `}}`,
		"parameter no type":   `{"Parameters":{"A":{}},"Resources":{` + thing + `}}`,
		"parameter default":   `{"Parameters":{"A":{"Type":"String","Default":{}}},"Resources":{` + thing + `}}`,
		"certificate key":     `{"Parameters":{"AWS::IoT::Certificate::Shoe":{"Type":"String"}},"Resources":{` + thing + `}}`,
		"two things":          res(thing + `,` + strings.Replace(thing, `"t"`, `"u"`, 1)),
		"no thing name":       res(`"t":{"Type":"AWS::IoT::Thing","Properties":{}}`),
		"unknown property":    res(`"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"x","Colour":"red"}}`),
		"package versions":    res(`"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"x","PackageVersions":"p"}}`),
		"unknown member":      res(`"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"x"},"DependsOn":"y"}`),
		"thing override":      res(`"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"x"},"OverrideSettings":{"ThingName":"REPLACE"}}`),
		"override object":     res(`"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"x"},"OverrideSettings":{"ThingGroups":{"Ref":"A"}}}`),
		"override twice":      res(`"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"x"},"OverrideSettings":{"ThingGroups":"FAIL","THING_GROUPS":"MERGE"}}`),
		"certificate merge":   res(`"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":"x"},"OverrideSettings":{"Status":"MERGE"}}`),
		"certificate empty":   res(`"c":{"Type":"AWS::IoT::Certificate","Properties":{"Status":"ACTIVE"}}`),
		"ca without pem":      res(`"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":"x","CACertificatePem":"y"}}`),
		"policy empty":        res(`"p":{"Type":"AWS::IoT::Policy","Properties":{}}`),
		"policy override":     res(`"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"P"},"OverrideSettings":{}}`),
		"no properties":       res(`"p":{"Type":"AWS::IoT::Policy"}`),
		"nested config":       `{"Resources":{` + thing + `},"DeviceConfiguration":{"a":[{"b":1}]}}`,
		"null config":         `{"Resources":{` + thing + `},"DeviceConfiguration":{"a":null}}`,
		"mapping one level":   `{"Resources":{` + thing + `},"Mappings":{"a":{"b":"c"}}}`,
		"mapping null":        `{"Resources":{` + thing + `},"Mappings":{"a":{"b":{"c":null}}}}`,
		"attributes a list":   res(`"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"x","AttributePayload":["a"]}}`),
		"attribute nested":    res(`"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"x","AttributePayload":{"a":{"b":"c"}}}}`),
		"groups not a list":   res(`"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"x","ThingGroups":"g"}}`),
		"policy not a JSON":   res(`"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":"[]"}}`),
		"status of a literal": res(`"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":"x","Status":"REVOKED"}}`),
	} {
		if _, err := template.Parse(s, template.RegisterThing); err == nil {
			t.Errorf("%s: accepted", name)
		} else {
			category(t, err)
		}
	}
	if _, err := template.Parse(res(thing), template.Fleet); err == nil {
		t.Error("a fleet template without certificate was accepted")
	}
}

// A device must not be able to name another certificate than the one it owns.
func TestCertificateIsNotTheDevicesToSay(t *testing.T) {
	own := map[string]string{"Id": "own"}
	for _, c := range []struct{ id, want string }{
		{`{"Ref":"AWS::IoT::Certificate::Id"}`, "own"},
		{`{"Ref":"Other"}`, "invalidRequest"},
		{`"other"`, "invalidRequest"},
	} {
		tpl, err := template.Parse(`{"Parameters":{"Other":{"Type":"String"}},"Resources":{"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":`+c.id+`}}}}`, template.Fleet)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		plan, err := tpl.Resolve(template.Input{
			Certificate: own,
			Parameters:  map[string]string{"AWS::IoT::Certificate::Id": "other", "Other": "other"},
		})
		if err != nil {
			got = category(t, err)
		} else {
			got = plan.Certificate.ID
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.id, got, c.want)
		}
	}
}

// A device must not be able to widen its policy by what it says of itself.
func TestPolicyIsNotTheDevicesToSay(t *testing.T) {
	const document = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:us-east-1:1:topic/${S}"}]}`
	text, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	tree := strings.Replace(document, `"arn:aws:iot:us-east-1:1:topic/${S}"`, `{"Fn::Sub":"arn:aws:iot:us-east-1:1:topic/${S}"}`, 1)
	for name, s := range map[string]string{
		"plain": "pump-1/äé+#", "wildcard": "*", "one character": "pump-?", "variable": "${iot:ClientId}", "backslash": `x\`, "line": "x\n",
		"statement": `x"},{"Effect":"Allow","Action":"iot:*","Resource":"*`,
	} {
		for kind, doc := range map[string]string{"text": `{"Fn::Sub":` + string(text) + `}`, "object": tree} {
			body := func(parameter string) string {
				c := `{"Parameters":{"S":{"Type":"String"}},"Resources":{"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}},` +
					`"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":` + doc + `}}}}`
				return strings.NewReplacer(`"S"`, `"`+parameter+`"`, `${S}`, `${`+parameter+`}`).Replace(c)
			}
			own := map[string]string{"Id": "own", "CommonName": s}
			said := map[string]string{"S": s}
			for _, c := range []struct {
				parameter string
				flow      template.Flow
				in        template.Input
				trusted   bool
			}{
				{"S", template.Fleet, template.Input{Parameters: said, Certificate: own}, false},
				{"S", template.Fleet, template.Input{Parameters: said, Certificate: own, Vouched: map[string]bool{"S": true}}, true},
				{"AWS::IoT::Certificate::CommonName", template.JITP, template.Input{Certificate: own}, false},
				{"S", template.RegisterThing, template.Input{Parameters: map[string]string{"S": s, "AWS::IoT::Certificate::Id": "own"}}, true},
			} {
				tpl, err := template.Parse(body(c.parameter), c.flow)
				if err != nil {
					t.Fatal(err)
				}
				_, err = tpl.Resolve(c.in)
				switch {
				case name == "plain" && err != nil, c.trusted && kind == "object" && err != nil:
					t.Errorf("%s, %s, %s: %v", name, kind, c.flow, err)
				case name != "plain" && !c.trusted && (err == nil || category(t, err) != "invalidRequest"):
					t.Errorf("%s, %s, %s: got %v, want that it is refused", name, kind, c.flow, err)
				}
			}
		}
	}
}

func TestPlan(t *testing.T) {
	tpl, err := template.Parse(`{
		"Parameters":{"N":{"Type":"String"},"G":{"Type":"String"}},
		"Resources":{
			"dev":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"N"},"AttributePayload":{"v":1,"on":true,"n":{"Ref":"N"}},
				"ThingTypeName":"T","ThingGroups":{"Fn::Split":[",",{"Ref":"G"}]},"BillingGroup":"B"},
				"OverrideSettings":{"ATTRIBUTE_PAYLOAD":"MERGE","ThingTypeName":"REPLACE","ThingGroups":"DO_NOTHING"}},
			"crt":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"Inactive","ThingPrincipalType":"EXCLUSIVE_THING"},
				"OverrideSettings":{"Status":"FAIL"}},
			"obj":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Publish"],
				"Resource":{"Fn::Sub":"arn:aws:iot:us-east-1:1:topic/${N}/${!iot:ClientId}"}}]}}},
			"nam":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":{"Fn::Join":["-",["P",{"Ref":"N"}]]}}}},
		"DeviceConfiguration":{"i":12345678901234567890,"b":true,"s":"x","f":{"Ref":"N"},"l":["a",1,{"Ref":"G"}],"sp":{"Fn::Split":[",","a,b"]}}}`, template.Fleet)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tpl.Resolve(template.Input{Parameters: map[string]string{"N": "n1", "G": "g,h"}, Certificate: map[string]string{"Id": "c1"}})
	if err != nil {
		t.Fatal(err)
	}
	document := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Publish"],"Resource":"arn:aws:iot:us-east-1:1:topic/n1/${iot:ClientId}"}]}`
	want := &template.Plan{
		Thing: &template.Thing{
			Logical: "dev", Name: "n1", Attributes: map[string]string{"v": "1", "on": "true", "n": "n1"}, TypeName: "T",
			Groups: []string{"g", "h"}, BillingGroup: "B", OnAttributes: template.Merge, OnTypeName: template.Replace, OnGroups: template.DoNothing,
		},
		Certificate: &template.Certificate{Logical: "crt", ID: "c1", Status: "INACTIVE", OnStatus: template.Fail, PrincipalType: "EXCLUSIVE_THING"},
		Policies: []template.Policy{
			{Logical: "obj", Name: template.PolicyName(document), Document: document},
			{Logical: "nam", Name: "P-n1"},
		},
		DeviceConfiguration: map[string]any{
			"i": json.Number("12345678901234567890"), "b": true, "s": "x", "f": "n1",
			"l": []any{"a", json.Number("1"), "g,h"}, "sp": []any{"a", "b"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What functions can multiply is bounded.
func TestProducedIsBounded(t *testing.T) {
	x := `{"Ref":"A"}`
	for range 4 {
		x = `{"Fn::Join":["",[` + x + `,` + x + `,` + x + `,` + x + `]]}`
	}
	if got := resolve(t, body(x, ""), map[string]string{"A": strings.Repeat("x", 128<<10)}); got != "functionError" {
		t.Errorf("got %s", got)
	}
}

func FuzzTemplate(f *testing.F) {
	file, err := os.Open("../testdata/provisioning.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	sc := bufio.NewScanner(file)
	sc.Buffer(nil, 1<<22)
	for sc.Scan() {
		var v struct{ Template json.RawMessage }
		if err := json.Unmarshal(sc.Bytes(), &v); err != nil {
			f.Fatal(err)
		}
		f.Add(string(v.Template), "N", "value")
	}
	if err := sc.Err(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body, name, text string) {
		for _, flow := range []template.Flow{template.Fleet, template.JITP, template.RegisterThing} {
			tpl, err := template.Parse(body, flow)
			if err != nil {
				category(t, err)
				continue
			}
			for _, f := range tpl.Lint() {
				if f.Path == "" || f.Message == "" {
					t.Fatalf("finding %q", f)
				}
			}
			plan, err := tpl.Resolve(template.Input{
				Parameters:  map[string]string{name: text, "ThingName": "x"},
				Certificate: map[string]string{"Id": "id", "CommonName": text},
			})
			if err != nil {
				category(t, err)
				continue
			}
			for _, p := range plan.Policies {
				if p.Document != "" && !json.Valid([]byte(p.Document)) {
					t.Fatalf("policy document %q is not JSON", p.Document)
				}
			}
			if _, err := json.Marshal(plan.DeviceConfiguration); err != nil {
				t.Fatal(err)
			}
			if flow != template.RegisterThing && plan.Certificate.ID != "id" {
				t.Fatalf("certificate %q", plan.Certificate.ID)
			}
		}
	})
}
