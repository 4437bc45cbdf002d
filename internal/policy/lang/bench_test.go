package lang_test

import "testing"

// benchmarkSet is what a careful device policy looks like.
func benchmarkSet(t testing.TB) (string, string, func() bool) {
	set := compile(t,
		`{"Effect":"Allow","Action":"iot:Connect","Resource":"`+arn+`client/${iot:Connection.Thing.ThingName}","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}}`,
		`{"Effect":"Allow","Action":["iot:Subscribe"],"Resource":["`+arn+`topicfilter/cmd/${iot:ClientId}/*","`+arn+`topicfilter/$aws/things/${iot:ClientId}/*"]}`,
		`{"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":["`+arn+`topic/cmd/${iot:ClientId}/*","`+arn+`topic/$aws/things/${iot:Connection.Thing.ThingName}/*","`+arn+`topic/site/${iot:Connection.Thing.Attributes[site]}/${iot:ClientId}/telemetry"]}`,
		`{"Effect":"Deny","Action":"iot:*","Resource":"`+arn+`topic/admin/*"}`,
		`{"Effect":"Deny","Action":"iot:Publish","Resource":"*","Condition":{"NotIpAddress":{"aws:SourceIp":["10.0.0.0/8","203.0.113.0/24"]}}}`)
	c := conn()
	action, resource := "iot:Publish", arn+"topic/site/berlin/dev-1/telemetry"
	return action, resource, func() bool { return set.Evaluate(c, action, resource).Allowed() }
}

func BenchmarkEvaluate(b *testing.B) {
	_, _, run := benchmarkSet(b)
	b.ReportAllocs()
	for b.Loop() {
		if !run() {
			b.Fatal("denied")
		}
	}
}

func TestEvaluateDoesNotAllocate(t *testing.T) {
	_, _, run := benchmarkSet(t)
	if n := testing.AllocsPerRun(200, func() { run() }); n > 0 {
		t.Errorf("%v allocations a decision, want 0", n)
	}
}
