package e2e_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"flotilla/internal/server"
	"flotilla/internal/server/servertest"
	"flotilla/internal/telemetry"
)

const roleARN = "arn:aws:iam::123456789012:role/rules"

func makeRule(t *testing.T, n *servertest.Node, name, sql string, actions ...types.Action) {
	t.Helper()
	if _, err := n.IoT().CreateTopicRule(t.Context(), &iot.CreateTopicRuleInput{
		RuleName: &name, TopicRulePayload: &types.TopicRulePayload{Sql: &sql, AwsIotSqlVersion: new("2016-03-23"), Actions: actions},
	}); err != nil {
		t.Fatal(err)
	}
}

func TestRuleFansOut(t *testing.T) {
	d := servertest.Start(t, func(c *server.Config) { c.Rules.FirehoseInterval = 200 * time.Millisecond })
	id := d.Node(0).Identity(t, "all", everything...)
	makeRule(t, d.Node(0), "fanout", "SELECT *, topic(2) AS site FROM 'test/+/in' WHERE value > 10",
		types.Action{Kinesis: &types.KinesisAction{RoleArn: new(roleARN), StreamName: new("readings"), PartitionKey: new("${topic(2)}")}},
		types.Action{Firehose: &types.FirehoseAction{RoleArn: new(roleARN), DeliveryStreamName: new("archive")}},
		types.Action{Republish: &types.RepublishAction{RoleArn: new(roleARN), Topic: new("test/out/${topic(2)}"), Qos: new(int32(1))}},
	)
	b := connect5(t, d.Node(1), id, "b")
	b.subscribe(t, 1, "test/out/+")
	// A rule works on each node within a second of its creation on one.
	a := connect5(t, d.Node(1), id, "a")
	eventually(t, "the rule to be known on the other node", func() bool {
		a.publish(t, "test/probe/in", `{"value":11}`, 1)
		select {
		case <-b.got:
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	})
	for len(b.got) > 0 {
		<-b.got
	}
	const n = 30
	for i := range n {
		body, _ := json.Marshal(map[string]any{"value": i, "nested": map[string]any{"a": i}})
		a.publish(t, "test/berlin/in", string(body), 1)
	}
	for want := 11; want < n; want++ {
		m := b.next(t)
		if m.Topic == "test/out/probe" {
			want--
			continue
		}
		var got struct {
			Value int
			Site  string
		}
		if err := json.Unmarshal(m.Payload, &got); err != nil || got.Value != want || got.Site != "berlin" || m.Topic != "test/out/berlin" {
			t.Fatalf("%s %s, want value %d", m.Topic, m.Payload, want)
		}
	}
	nc, err := nats.Connect(d.Node(0).Endpoints().NATS)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream to hold every selected message", func() bool {
		s, err := js.Stream(t.Context(), "readings")
		return err == nil && s.CachedInfo().State.Msgs >= n-11
	})
	eventually(t, "the archive to hold every selected message", func() bool {
		rows := 0
		for i := range 2 {
			if i == 1 && d.Node(0) == d.Node(1) {
				break
			}
			_, r, err := telemetry.CountRows(d.Node(i).Config.Data + "/archive/archive")
			if err != nil {
				t.Fatal(err)
			}
			rows += r
		}
		return rows >= n-11
	})
}

func TestErrorAction(t *testing.T) {
	d := servertest.Start(t)
	id := d.Node(0).Identity(t, "all", everything...)
	sql, name := "SELECT * FROM 'test/err/in'", "failing"
	if _, err := d.Node(0).IoT().CreateTopicRule(t.Context(), &iot.CreateTopicRuleInput{RuleName: &name, TopicRulePayload: &types.TopicRulePayload{
		Sql: &sql, AwsIotSqlVersion: new("2016-03-23"),
		// The key is empty: no object store takes it.
		Actions:     []types.Action{{S3: &types.S3Action{RoleArn: new(roleARN), BucketName: new("bucket"), Key: new("${missing}/../..")}}},
		ErrorAction: &types.Action{Republish: &types.RepublishAction{RoleArn: new(roleARN), Topic: new("test/err/out"), Qos: new(int32(1))}},
	}}); err != nil {
		t.Fatal(err)
	}
	b := connect5(t, d.Node(0), id, "b")
	b.subscribe(t, 1, "test/err/out")
	b.publish(t, "test/err/in", `{"a":1}`, 1)
	var got struct {
		RuleName, Topic, ClientID, Base64OriginalPayload string
		Failures                                         []struct{ FailedAction, ErrorMessage string }
	}
	m := b.next(t)
	if err := json.Unmarshal(m.Payload, &got); err != nil {
		t.Fatal(err)
	}
	if got.RuleName != name || got.ClientID != "b" || len(got.Failures) != 1 || got.Failures[0].FailedAction != "S3Action" {
		t.Errorf("%s", m.Payload)
	}
}

func TestBasicIngest(t *testing.T) {
	d := servertest.Start(t)
	id := d.Node(0).Identity(t, "all", append([]string{"iot:Publish topic/$aws/rules/ingest/*"}, everything...)...)
	makeRule(t, d.Node(0), "ingest", "SELECT a AS b FROM 'x/y'",
		types.Action{Republish: &types.RepublishAction{RoleArn: new(roleARN), Topic: new("test/${topic(2)}"), Qos: new(int32(1))}})
	b := connect5(t, d.Node(0), id, "b")
	b.subscribe(t, 1, "test/#")
	b.publish(t, "$aws/rules/ingest/x/y", `{"a":5}`, 1)
	if m := b.next(t); m.Topic != "test/y" || string(m.Payload) != `{"b":5}` {
		t.Errorf("%s %s", m.Topic, m.Payload)
	}
}

// decode(*, 'proto', ...) reads its descriptor set from the deployment's objects.
func TestProtobuf(t *testing.T) {
	n := servertest.StartNode(t, t.TempDir())
	id := n.Identity(t, "all", everything...)
	set, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Name: new("reading.proto"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: new("Reading"), Field: []*descriptorpb.FieldDescriptorProto{{
			Name: new("value"), Number: new(int32(1)), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			Type: descriptorpb.FieldDescriptorProto_TYPE_INT32.Enum(),
		}}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	c := s3Client(n, n.AccessKey, n.Secret)
	if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: new("schemas")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: new("schemas"), Key: new("reading.desc"), Body: bytes.NewReader(set)}); err != nil {
		t.Fatal(err)
	}
	makeRule(t, n, "decoded", "SELECT VALUE decode(*, 'proto', 'schemas', 'reading.desc', 'reading.proto', 'Reading') FROM 'test/in'",
		types.Action{Republish: &types.RepublishAction{RoleArn: new(roleARN), Topic: new("test/out"), Qos: new(int32(1))}})
	b := connect5(t, n, id, "b")
	b.subscribe(t, 1, "test/out")
	b.publish(t, "test/in", "\x08\x2a", 1)
	if m := b.next(t); string(m.Payload) != `{"value":42}` {
		t.Errorf("%s", m.Payload)
	}
}
