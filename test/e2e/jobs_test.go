package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"flotilla/internal/server/servertest"
)

// A job goes to a thing group, is done by its thing on another node, and completes.
func TestJob(t *testing.T) {
	d := servertest.Start(t)
	n := d.Node(0)
	pump(t, n)
	ctx := t.Context()
	if _, err := n.IoT().CreateThingGroup(ctx, &iot.CreateThingGroupInput{ThingGroupName: new("pumps")}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.IoT().AddThingToThingGroup(ctx, &iot.AddThingToThingGroupInput{ThingGroupName: new("pumps"), ThingName: new("pump")}); err != nil {
		t.Fatal(err)
	}
	id := n.Identity(t, "pump", "iot:Connect client/*", "iot:Publish topic/$aws/things/pump/jobs/*",
		"iot:Receive topic/$aws/things/pump/jobs/*", "iot:Subscribe topicfilter/$aws/things/pump/jobs/*")
	dev := connect5(t, d.Node(1), id, "pump")
	dev.subscribe(t, 1, "$aws/things/pump/jobs/notify-next", "$aws/things/pump/jobs/+/accepted", "$aws/things/pump/jobs/+/+/accepted", "$aws/things/pump/jobs/+/+/rejected")
	_, err := n.IoT().CreateJob(ctx, &iot.CreateJobInput{
		JobId: new("firmware"), Targets: []string{"arn:aws:iot:us-east-1:" + n.Account() + ":thinggroup/pumps"}, Document: new(`{"version":"1.2"}`),
		Tags: []types.Tag{{Key: new("env"), Value: new("test")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Execution struct {
			JobID       string `json:"jobId"`
			Status      string
			JobDocument struct{ Version string }
		}
		ExecutionState struct{ Status string }
	}
	read := func(topic string) {
		t.Helper()
		for {
			p := dev.next(t)
			if !strings.HasSuffix(p.Topic, topic) {
				continue
			}
			if err := json.Unmarshal(p.Payload, &m); err != nil {
				t.Fatalf("%s: %v", p.Payload, err)
			}
			return
		}
	}
	read("/notify-next")
	if m.Execution.JobID != "firmware" || m.Execution.JobDocument.Version != "1.2" {
		t.Fatalf("%+v", m)
	}
	dev.publish(t, "$aws/things/pump/jobs/start-next", `{"clientToken":"a"}`, 1)
	read("/start-next/accepted")
	if m.Execution.Status != "IN_PROGRESS" {
		t.Fatalf("%+v", m)
	}
	dev.publish(t, "$aws/things/pump/jobs/firmware/update", `{"status":"SUCCEEDED","includeJobExecutionState":true}`, 1)
	read("/update/accepted")
	if m.ExecutionState.Status != "SUCCEEDED" {
		t.Fatalf("%+v", m)
	}
	for deadline := time.Now().Add(patience); ; {
		out, err := n.IoT().DescribeJob(ctx, &iot.DescribeJobInput{JobId: new("firmware")})
		if err != nil {
			t.Fatal(err)
		}
		if out.Job.Status == types.JobStatusCompleted && *out.Job.JobProcessDetails.NumberOfSucceededThings == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", out.Job)
		}
		<-time.After(10 * time.Millisecond)
	}
	tags, err := n.IoT().ListTagsForResource(ctx, &iot.ListTagsForResourceInput{ResourceArn: new("arn:aws:iot:us-east-1:" + n.Account() + ":job/firmware")})
	if err != nil || len(tags.Tags) != 1 {
		t.Errorf("%+v %v", tags, err)
	}
}
