package action_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/awsclient"
	"flotilla/internal/rules/action"
)

// engines has AWS serve all that there is a choice for.
var engines = action.Engines{Kinesis: "aws", Firehose: "aws", SNS: "aws", SQS: "aws", DynamoDB: "aws"}

// moto starts moto's server, a stand-in for AWS that this project did not write.
// No Debian package has it: where it is not installed its tests are skipped.
func moto(t *testing.T) (*awsclient.Client, string) {
	t.Helper()
	path, err := exec.LookPath("moto_server")
	if err != nil {
		t.Skip("moto_server is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr)
	_ = l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, path, "-H", "127.0.0.1", "-p", fmt.Sprint(at.Port))
	cmd.Dir = t.TempDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	base := "http://" + at.String()
	up := func() bool {
		resp, err := http.Get(base + "/moto-api/data.json")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !up(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("moto_server does not answer")
		}
	}
	return client(t, base), base
}

type document = map[string]any

func call(t *testing.T, c *awsclient.Client, service, target, version string, in document) document {
	t.Helper()
	var out document
	if err := c.JSON(t.Context(), service, target, version, in, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// What the actions send is what an implementation of the services takes: it is there afterwards.
func TestMoto(t *testing.T) {
	c, base := moto(t)
	t.Run("kinesis", func(t *testing.T) {
		call(t, c, "kinesis", "Kinesis_20131202.CreateStream", "1.1", document{"StreamName": "s", "ShardCount": 1})
		s := sink(t, c, kinesisAction)
		must(t, s, record(1, "one", "s", "k"), record(2, "two", "s", "k"))
		it := call(t, c, "kinesis", "Kinesis_20131202.GetShardIterator", "1.1", document{"StreamName": "s", "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"})
		got := call(t, c, "kinesis", "Kinesis_20131202.GetRecords", "1.1", document{"ShardIterator": it["ShardIterator"]})
		var texts []string
		for _, r := range got["Records"].([]any) {
			b, _ := base64.StdEncoding.DecodeString(r.(document)["Data"].(string))
			texts = append(texts, string(b)+" "+r.(document)["PartitionKey"].(string))
		}
		if fmt.Sprint(texts) != "[one k two k]" {
			t.Error(texts)
		}
		done, err := s.Do(t.Context(), []action.Record{record(3, "x", "none", "k")})
		if done != 0 || err == nil || action.IsPermanent(err) || !strings.Contains(err.Error(), "ResourceNotFoundException") {
			t.Errorf("%d %v", done, err)
		}
	})
	t.Run("firehose", func(t *testing.T) {
		call(t, c, "firehose", "Firehose_20150804.CreateDeliveryStream", "1.1", document{
			"DeliveryStreamName": "d", "DeliveryStreamType": "DirectPut",
			"ExtendedS3DestinationConfiguration": document{"RoleARN": role, "BucketARN": "arn:aws:s3:::bucket"},
		})
		if status, answer, err := c.REST(t.Context(), "s3", http.MethodPut, base+"/bucket", nil, nil); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s %v", status, answer, err)
		}
		a := &iot.Action{Firehose: &iot.FirehoseAction{RoleArn: role, DeliveryStreamName: "d", Separator: new("\n"), BatchMode: new(true)}}
		must(t, sink(t, c, a), record(1, `[1,{"a":2}]`, "d"), record(2, `{"b":3}`, "d"), record(3, `[]`, "d"))
	})
	t.Run("sqs", func(t *testing.T) {
		queue := call(t, c, "sqs", "AmazonSQS.CreateQueue", "1.0", document{"QueueName": "q"})["QueueUrl"].(string)
		a := &iot.Action{Sqs: &iot.SqsAction{RoleArn: role, QueueUrl: queue}}
		must(t, sink(t, c, a), record(1, "one", queue), record(2, "ünï", queue))
		a.Sqs.UseBase64 = new(true)
		must(t, sink(t, c, a), record(3, "\xff", queue))
		got := call(t, c, "sqs", "AmazonSQS.ReceiveMessage", "1.0", document{"QueueUrl": queue, "MaxNumberOfMessages": 10})
		bodies := map[string]bool{}
		for _, m := range got["Messages"].([]any) {
			bodies[m.(document)["Body"].(string)] = true
		}
		if len(bodies) != 3 || !bodies["one"] || !bodies["ünï"] || !bodies["/w=="] {
			t.Error(bodies)
		}
	})
	t.Run("sns", func(t *testing.T) {
		arn := "arn:aws:sns:us-east-1:123456789012:topic"
		for _, form := range []url.Values{{"Action": {"CreateTopic"}, "Name": {"topic"}}} {
			if _, err := c.Query(t.Context(), "sns", "2010-03-31", form); err != nil {
				t.Fatal(err)
			}
		}
		queue := call(t, c, "sqs", "AmazonSQS.CreateQueue", "1.0", document{"QueueName": "subscriber"})["QueueUrl"].(string)
		form := url.Values{"Action": {"Subscribe"}, "TopicArn": {arn}, "Protocol": {"sqs"}, "Endpoint": {"arn:aws:sqs:us-east-1:123456789012:subscriber"}}
		if _, err := c.Query(t.Context(), "sns", "2010-03-31", form); err != nil {
			t.Fatal(err)
		}
		a := &iot.Action{Sns: &iot.SnsAction{RoleArn: role, TargetArn: arn}}
		must(t, sink(t, c, a), record(1, "alarm & <more>", arn))
		got := call(t, c, "sqs", "AmazonSQS.ReceiveMessage", "1.0", document{"QueueUrl": queue})
		if m, _ := got["Messages"].([]any); len(m) != 1 || !strings.Contains(fmt.Sprint(m[0]), `alarm & <more>`) {
			t.Error(got)
		}
	})
	t.Run("dynamoDB", func(t *testing.T) { testDynamoDB(t, c) })
	t.Run("dynamoDBv2", func(t *testing.T) { testDynamoDBv2(t, c) })
	t.Run("stepFunctions", func(t *testing.T) {
		definition := `{"StartAt":"P","States":{"P":{"Type":"Pass","End":true}}}`
		machine := call(t, c, "states", "AWSStepFunctions.CreateStateMachine", "1.0", document{"name": "m", "definition": definition, "roleArn": role})["stateMachineArn"]
		a := &iot.Action{StepFunctions: &iot.StepFunctionsAction{RoleArn: role, StateMachineName: "m"}}
		must(t, sink(t, c, a), record(1, `{"a":1}`, "m"), record(2, `{"a":2}`, "m"))
		if got := call(t, c, "states", "AWSStepFunctions.ListExecutions", "1.0", document{"stateMachineArn": machine}); len(got["executions"].([]any)) != 2 {
			t.Error(got)
		}
	})
}
