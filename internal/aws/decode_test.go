package aws_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/aws/iotjobsdata"
	"flotilla/internal/aws/wire"
)

const invalid = "1 validation error detected: "

// TestConstraints: the texts are AWS's, as users report them.
func TestConstraints(t *testing.T) {
	long := strings.Repeat("x", 801)
	for name, c := range map[string]struct {
		body, want string
	}{
		"nothing":     {``, ""},
		"white space": {" \n", ""},
		"null":        {`{"thingTypeName":null,"attributePayload":null}`, ""},
		"unknown":     {`{"x":{"y":[1,{"z":null}]},"thingTypeName":"a"}`, ""},
		"escapes":     {`{"\u0074hingTypeName":"\u0061"}`, ""},
		"case":        {`{"THINGTYPENAME":"a b"}`, ""},
		"twice":       {`{"thingTypeName":"a b","thingTypeName":"a"}`, invalid + `Value 'a b' at 'thingTypeName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9:_-]+`},
		"empty":       {`{"thingTypeName":""}`, `2 validation errors detected: Value '' at 'thingTypeName' failed to satisfy constraint: Member must have length greater than or equal to 1; Value '' at 'thingTypeName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9:_-]+`},
		"map key":     {`{"attributePayload":{"attributes":{"a b":"1"}}}`, invalid + `Value '{a b=1}' at 'attributePayload.attributes' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 0, Member must satisfy regular expression pattern: [a-zA-Z0-9_.,@/:#-]+]`},
		"map value":   {`{"attributePayload":{"attributes":{"a":"ü","b":""}}}`, invalid + `Value '{a=ü, b=}' at 'attributePayload.attributes' failed to satisfy constraint: Map value must satisfy constraint: [Member must have length less than or equal to 800, Member must have length greater than or equal to 0, Member must satisfy regular expression pattern: [a-zA-Z0-9_.,@/:#=\[\]-]*]`},
		"long value":  {`{"attributePayload":{"attributes":{"a":"` + long + `"}}}`, "Map value must satisfy"},
		"wrong type":  {`{"attributePayload":[]}`, "syntax: Unexpected value type in payload at 'attributePayload'"},
		"wrong bool":  {`{"attributePayload":{"merge":"true"}}`, "syntax: Unexpected value type in payload at 'attributePayload.merge'"},
		"cut off":     {`{"attributePayload":{"merge":`, "syntax: "},
		"text":        {`"x"`, "syntax: "},
		"nul":         {"\x00", "syntax: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := iot.CreateThing.Decode(&wire.Request{Labels: []string{"t"}, Body: []byte(c.body)})
			check(t, err, c.want)
		})
	}
}

func check(t *testing.T, err error, want string) {
	t.Helper()
	var bad *iot.InvalidRequestException
	var common *aws.CommonError
	switch {
	case err == nil && want == "":
	case errors.As(err, &bad) && want != "" && strings.Contains(bad.Message, want):
	case errors.As(err, &common) && common.Code == "SerializationException" && strings.HasPrefix(want, "syntax: ") && strings.Contains(common.Message, want[len("syntax: "):]):
	default:
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestNestedPaths(t *testing.T) {
	decode := func(body string) error {
		_, err := iot.CreateTopicRule.Decode(&wire.Request{Labels: []string{"r"}, Body: []byte(body)})
		return err
	}
	check(t, decode(``), "at 'topicRulePayload.sql' failed to satisfy constraint: Member must not be null")
	check(t, decode(`null`), "at 'topicRulePayload' failed to satisfy constraint: Member must not be null")
	check(t, decode(`{"sql":"x","actions":[{"sns":{"targetArn":"a"}}]}`), invalid+"Value null at 'topicRulePayload.actions.1.member.sns.roleArn' failed to satisfy constraint: Member must not be null")
	check(t, decode(`{"sql":"x","actions":[{},{"republish":{"roleArn":"r","topic":"t","qos":2}}]}`), invalid+"Value '2' at 'topicRulePayload.actions.2.member.republish.qos' failed to satisfy constraint: Member must have value less than or equal to 1")
	check(t, decode(`{"sql":"x","actions":[{"republish":{"roleArn":"r","topic":"t","qos":1.5}}]}`), "syntax: Value is not an integer")
	check(t, decode(`{"sql":"x","actions":[{"sns":{"roleArn":"r","targetArn":"a","messageFormat":"XML"}}]}`), "at 'topicRulePayload.actions.1.member.sns.messageFormat' failed to satisfy constraint: Member must satisfy enum value set: [RAW, JSON]")
	check(t, decode(`{"sql":"x","actions":[`+strings.Repeat(`{},`, 10)+`{}]}`), "Member must have length less than or equal to 10")
	check(t, decode(`{"sql":"x","actions":[{"timestream":{"roleArn":"r","databaseName":"d","tableName":"t","dimensions":[]}}]}`), "Member must have length greater than or equal to 1")
}

// TestDecode: each place that a member can be in, and each type.
func TestDecode(t *testing.T) {
	in, err := iot.DeleteJobExecution.Decode(&wire.Request{Labels: []string{"t", "j", "9007199254740993"}, Query: map[string][]string{"force": {"true"}}})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&iot.DeleteJobExecutionRequest{JobId: "j", ThingName: "t", ExecutionNumber: 9007199254740993, Force: new(true)}, in); d != "" {
		t.Error(d)
	}
	_, err = iot.DeleteJobExecution.Decode(&wire.Request{Labels: []string{"t", "j", "x"}})
	check(t, err, "syntax: Value is not an integer of the expected size at 'executionNumber'")
	_, err = iot.AttachThingPrincipal.Decode(&wire.Request{Labels: []string{"t"}})
	check(t, err, invalid+"Value null at 'principal' failed to satisfy constraint: Member must not be null")

	violations, err := iot.ListViolationEvents.Decode(&wire.Request{Query: map[string][]string{"startTime": {"2026-01-02T03:04:05.5Z"}, "endTime": {"1700000000"}}})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 5e8, time.UTC)
	if !violations.StartTime.Equal(at) || violations.EndTime.Unix() != 1700000000 {
		t.Errorf("%v %v", violations.StartTime, violations.EndTime)
	}

	for _, properties := range []string{"W3siayI6InYifV0=", "Ilt7XCJrXCI6XCJ2XCJ9XSI="} { // JSON; JSON in a string, as boto3 sends it
		p, err := iotdata.Publish.Decode(&wire.Request{Labels: []string{"a"}, Body: []byte{0xff}, Header: map[string][]string{"X-Amz-Mqtt5-User-Properties": {properties}}})
		if err != nil || *p.UserProperties != `[{"k":"v"}]` || string(p.Payload) != "\xff" {
			t.Errorf("%+v %v", p, err)
		}
	}
	for _, properties := range []string{"!", "e30", "e3t9"} {
		_, err := iotdata.Publish.Decode(&wire.Request{Labels: []string{"a"}, Header: map[string][]string{"X-Amz-Mqtt5-User-Properties": {properties}}})
		if ok := properties == "e30"; (err == nil) != ok {
			t.Errorf("%s: %v", properties, err)
		}
	}
	jobs, err := iotjobsdata.UpdateJobExecution.Decode(&wire.Request{Labels: []string{"t", "j"}, Body: []byte(`{"status":"SUCCEEDED","statusDetails":{"a":"b"},"expectedVersion":1e2}`)})
	if err != nil || jobs.Status != iotjobsdata.JobExecutionStatusSucceeded || *jobs.ExpectedVersion != 100 || jobs.JobId != "j" || jobs.ThingName != "t" {
		t.Errorf("%+v %v", jobs, err)
	}
}

// TestEncode: absent members are left out, lists of an output are not.
func TestEncode(t *testing.T) {
	at := aws.Time{Time: time.Date(2026, 1, 2, 3, 4, 5, 60e6, time.UTC)}
	var r wire.Response
	iot.ListThings.Write(&r, &iot.ListThingsResponse{Things: []*iot.ThingAttribute{
		{ThingName: new("a\"\x01<é"), Version: new(int64(3)), Attributes: map[string]string{"b": "2", "a": "1"}}, {},
	}})
	if got, want := string(r.Body), `{"things":[{"thingName":"a\"\u0001<é","attributes":{"a":"1","b":"2"},"version":3},{}]}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	r = wire.Response{}
	iot.DescribeThing.Write(&r, &iot.DescribeThingResponse{})
	if got, want := string(r.Body), `{"attributes":{}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	r = wire.Response{}
	iot.DescribeProvisioningTemplate.Write(&r, &iot.DescribeProvisioningTemplateResponse{CreationDate: &at, Enabled: new(false)})
	if got, want := string(r.Body), `{"creationDate":1767323045.060,"enabled":false}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	r = wire.Response{}
	iotdata.GetRetainedMessage.Write(&r, &iotdata.GetRetainedMessageResponse{Payload: []byte{0xff}})
	if got, want := string(r.Body), `{"payload":"/w=="}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	r = wire.Response{Status: 200}
	iot.DeleteCommand.Write(&r, &iot.DeleteCommandResponse{StatusCode: new(int32(202))})
	if r.Status != 202 || len(r.Body) != 0 {
		t.Errorf("%+v", r)
	}
	exc := &iot.ResourceAlreadyExistsException{Message: "m", ResourceArn: "a"}
	if got, want := string(exc.AppendJSON(nil)), `{"message":"m","resourceArn":"a"}`; got != want || exc.StatusCode() != 409 {
		t.Errorf("got %s, want %s", got, want)
	}
	if code := (&iot.ThrottlingException{}).StatusCode(); code != 400 {
		t.Errorf("iot throttles with %d", code)
	}
	if code := (&iotdata.ThrottlingException{}).StatusCode(); code != 429 {
		t.Errorf("iotdata throttles with %d", code)
	}
}

// TestShapesAsJSON: rooms keep shapes in the store through encoding/json, which
// must give what the wire has.
func TestShapesAsJSON(t *testing.T) {
	const text = `{"sql":"SELECT 1","actions":[{"republish":{"roleArn":"r","topic":"t"}}],"ruleDisabled":true}`
	var p iot.TopicRulePayload
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(p)
	if err != nil || string(b) != text {
		t.Errorf("%s %v", b, err)
	}
	in, err := iot.CreateTopicRule.Decode(&wire.Request{Labels: []string{"r"}, Body: b})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&p, in.TopicRulePayload); d != "" {
		t.Error(d)
	}
	var at aws.Time
	for text, want := range map[string]string{"1767323045": "1767323045", "1767323045.060": "1767323045.060", "1.767323045E9": "1767323045", `"2026-01-02T03:04:05Z"`: "1767323045", "-1.5": "-1.5"} {
		if err := json.Unmarshal([]byte(text), &at); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if b, err := json.Marshal(at); err != nil || string(b) != want {
			t.Errorf("%s: %s %v", text, b, err)
		}
	}
	for _, text := range []string{"1e300", `"x"`, "{}", "true"} {
		if err := json.Unmarshal([]byte(text), &at); err == nil {
			t.Errorf("%s is taken for a time", text)
		}
	}
}

func TestARN(t *testing.T) {
	a := aws.Account{ID: "123456789012", Region: "us-east-1"}
	text := a.ARN("iot", "rule/a:b")
	if text != "arn:aws:iot:us-east-1:123456789012:rule/a:b" {
		t.Error(text)
	}
	p, ok := aws.ParseARN(text)
	if !ok || p != (aws.ARN{Partition: "aws", Service: "iot", Region: "us-east-1", Account: "123456789012", Resource: "rule/a:b"}) || p.String() != text {
		t.Errorf("%+v", p)
	}
	if _, ok := aws.ParseARN("arn:aws:s3:::bucket"); !ok {
		t.Error("a bucket has an ARN")
	}
	for _, bad := range []string{"", "arn", "arn:aws:iot:us-east-1:1", "arn:aws:iot:us-east-1:1:", "arm:aws:iot:r:1:x", "arn::iot:r:1:x"} {
		if _, ok := aws.ParseARN(bad); ok {
			t.Errorf("%q is taken for an ARN", bad)
		}
	}
}

// FuzzDecode: decoding ends with a request or an exception; what is taken can be
// written and read again.
func FuzzDecode(f *testing.F) {
	for _, body := range []string{
		`{"sql":"SELECT *","actions":[{"republish":{"roleArn":"r","topic":"t","qos":1,"headers":{"userProperties":[{"key":"k","value":"v"}]}}}],"errorAction":{"sns":{"targetArn":"a","roleArn":"r"}}}`,
		`{"sql":1}`, `[]`, `{"actions":[null,{"timestream":{"timestamp":{"value":"v","unit":"MS"}}}]}`, "", "null",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		in, err := iot.CreateTopicRule.Decode(&wire.Request{Labels: []string{"r"}, Body: body})
		if err != nil {
			var exc aws.Exception
			if !errors.As(err, &exc) || exc.StatusCode() != 400 || !json.Valid(exc.AppendJSON(nil)) {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		b, err := json.Marshal(in.TopicRulePayload)
		if err != nil {
			t.Fatal(err)
		}
		again, err := iot.CreateTopicRule.Decode(&wire.Request{Labels: []string{"r"}, Body: b})
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if d := cmp.Diff(in, again); d != "" {
			t.Fatal(d)
		}
	})
}

func BenchmarkDecodeCreateThing(b *testing.B) {
	r := &wire.Request{Labels: []string{"t"}, Body: []byte(`{"thingTypeName":"lamp","attributePayload":{"attributes":{"site":"x","floor":"2"}}}`)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := iot.CreateThing.Decode(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeListThings(b *testing.B) {
	out := &iot.ListThingsResponse{}
	for range 100 {
		out.Things = append(out.Things, &iot.ThingAttribute{ThingName: new("thing-1"), ThingArn: new("arn:aws:iot:us-east-1:123456789012:thing/thing-1"), Version: new(int64(1)), Attributes: map[string]string{"a": "b"}})
	}
	var r wire.Response
	b.ReportAllocs()
	for b.Loop() {
		r.Body = r.Body[:0]
		iot.ListThings.Write(&r, out)
	}
}
