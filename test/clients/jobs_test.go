package clients_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"

	"flotilla/internal/server/servertest"
)

// TestBoto3Jobs runs testdata/boto3_jobs.py with Debian's boto3.
func TestBoto3Jobs(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import boto3").Run(); err != nil {
		missing(t, "python3-boto3")
	}
	d := servertest.Start(t)
	if out := run(t, env(d.Node(0)), python, "testdata/boto3_jobs.py"); strings.TrimSpace(out) != "ok" {
		t.Error(out)
	}
}

// TestJavaScriptJobs has jobs created with the AWS SDK for JavaScript v3 and worked off with the device SDK's client.
func TestJavaScriptJobs(t *testing.T) {
	n := servertest.Start(t).Node(0)
	const own = "$aws/things/pump-1/jobs/*"
	dir := device(t, n, "pump", "iot:Connect client/pump-1", "iot:Publish topic/"+own, "iot:Receive topic/"+own, "iot:Subscribe topicfilter/"+own)
	story(t, n, "node/jobs.js", connection(t, n, dir))
}

// TestJobsOfDevices has a device of each kit work off two jobs, over mutual TLS and with a policy for its own topics.
func TestJobsOfDevices(t *testing.T) {
	t.Parallel()
	at := &site{node: servertest.Start(t).Node(0)}
	const own = "$aws/things/${iot:ClientId}/jobs/*"
	at.open = device(t, at.node, "own", "iot:Connect client/*", "iot:Publish topic/"+own, "iot:Receive topic/"+own, "iot:Subscribe topicfilter/"+own)
	for _, row := range kits {
		t.Run(row.name, func(t *testing.T) {
			k := row.open(t)
			if k.can&publishes == 0 {
				t.Skip("it publishes under a client id of its own, which the policy does not allow")
			}
			worksOffJobs(&stage{t, k, at, row.name})
		})
	}
}

func worksOffJobs(s *stage) {
	ctx, api := s.Context(), s.site.node.IoT()
	thing := s.clientID("pump")
	if _, err := api.CreateThing(ctx, &iot.CreateThingInput{ThingName: &thing}); err != nil {
		s.Fatal(err)
	}
	base := "$aws/things/" + thing + "/jobs/"
	p := s.connect("pump", subscribing(base+"notify-next", base+"start-next/accepted", base+"+/update/accepted", base+"+/update/rejected"))
	for i := range 2 {
		job := fmt.Sprintf("%s-%d", s.name, i)
		if _, err := api.CreateJob(ctx, &iot.CreateJobInput{
			JobId: &job, Document: new(fmt.Sprintf(`{"step":%d}`, i)), Targets: []string{fmt.Sprintf("arn:aws:iot:us-east-1:%s:thing/%s", s.site.node.Account(), thing)},
		}); err != nil {
			s.Fatal(err)
		}
		// The first is queued before the second, so that it comes first; of the second the thing hears when that is done.
		if i == 0 {
			if e := execution(p, base+"notify-next"); e.JobID != job || e.JobDocument.Step != 0 {
				s.Fatalf("notify-next: %+v", e)
			}
		}
		for deadline := time.Now().Add(grace); ; {
			if _, err := api.DescribeJobExecution(ctx, &iot.DescribeJobExecutionInput{JobId: &job, ThingName: &thing}); err == nil {
				break
			} else if time.Now().After(deadline) {
				s.Fatal(err)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	for i := range 2 {
		job := fmt.Sprintf("%s-%d", s.name, i)
		p.text(base+"start-next", `{"statusDetails":{"step":"one"}}`)
		e := execution(p, base+"start-next/accepted")
		if e.JobID != job || e.Status != "IN_PROGRESS" || e.JobDocument.Step != i {
			s.Fatalf("start-next: %+v", e)
		}
		p.text(base+job+"/update", `{"status":"SUCCEEDED","expectedVersion":"99"}`)
		if m := p.next(); m.Topic != base+job+"/update/rejected" || !strings.Contains(string(m.Payload), "VersionMismatch") {
			s.Fatalf("%s: %s", m.Topic, m.Payload)
		}
		p.text(base+job+"/update", fmt.Sprintf(`{"status":"SUCCEEDED","expectedVersion":"%d"}`, e.VersionNumber))
		// The answer, and what is next: in the one order or the other.
		seen := map[string]executionOf{}
		for range 2 {
			m := p.next()
			seen[strings.TrimPrefix(m.Topic, base)] = parseExecution(s, m)
		}
		next, told := seen["notify-next"]
		if _, accepted := seen[job+"/update/accepted"]; !accepted || !told || i == 0 && next.JobID != s.name+"-1" || i == 1 && next.JobID != "" {
			s.Fatalf("%+v", seen)
		}
	}
}

// executionOf is an execution as things are told of it.
type executionOf struct {
	JobID         string `json:"jobId"`
	Status        string
	VersionNumber int64
	JobDocument   struct{ Step int }
}

func parseExecution(s *stage, m message) executionOf {
	s.Helper()
	var got struct{ Execution executionOf }
	if err := json.Unmarshal(m.Payload, &got); err != nil {
		s.Fatalf("%s: %s: %v", m.Topic, m.Payload, err)
	}
	return got.Execution
}

// execution waits for the next message, which is on topic.
func execution(p *party, topic string) executionOf {
	p.stage.Helper()
	m := p.next()
	if m.Topic != topic {
		p.stage.Fatalf("%s: %s, not on %s", m.Topic, m.Payload, topic)
	}
	return parseExecution(p.stage, m)
}
