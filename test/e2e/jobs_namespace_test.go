package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"

	"flotilla/internal/server/servertest"
)

// A device that may use the topics of a namespace alone gets the jobs of that, and none of another.
func TestJobOfNamespace(t *testing.T) {
	d := servertest.Start(t)
	n := d.Node(0)
	pump(t, n)
	const jobs, space = "$aws/things/pump/jobs/", "namespace-line-7"
	allowed := []string{jobs + "notify-next-" + space, jobs + "*/" + space + "/*"}
	id := n.Identity(t, "pump", "iot:Connect client/*", "iot:Publish topic/"+allowed[1],
		"iot:Receive topic/"+allowed[0]+",topic/"+allowed[1], "iot:Subscribe topicfilter/"+allowed[0]+",topicfilter/"+allowed[1])
	dev := connect5(t, d.Node(1), id, "pump")
	dev.subscribe(t, 1, allowed[0], jobs+"$next/"+space+"/get/accepted", jobs+"mine/"+space+"/update/accepted")
	for _, job := range []struct {
		id    string
		space *string
	}{{"plain", nil}, {"theirs", new("line-8")}, {"mine", new("line-7")}} {
		if _, err := n.IoT().CreateJob(t.Context(), &iot.CreateJobInput{
			JobId: &job.id, NamespaceId: job.space, Targets: []string{"arn:aws:iot:us-east-1:" + n.Account() + ":thing/pump"}, Document: new(`{}`),
		}); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(topic, jobID string) {
		t.Helper()
		p := dev.next(t)
		var m struct {
			Execution *struct {
				JobID string `json:"jobId"`
			}
		}
		if err := json.Unmarshal(p.Payload, &m); err != nil || !strings.HasSuffix(p.Topic, topic) {
			t.Fatalf("%s: %s %v", p.Topic, p.Payload, err)
		}
		if jobID == "" && m.Execution != nil || jobID != "" && (m.Execution == nil || m.Execution.JobID != jobID) {
			t.Fatalf("%s: %s, not of %q", p.Topic, p.Payload, jobID)
		}
	}
	expect("/notify-next-"+space, "mine")
	dev.publish(t, jobs+"$next/"+space+"/get", `{}`, 1)
	expect("/$next/"+space+"/get/accepted", "mine")
	dev.publish(t, jobs+"mine/"+space+"/update", `{"status":"SUCCEEDED"}`, 1)
	for range 2 { // in either order
		switch p := dev.next(t); {
		case strings.HasSuffix(p.Topic, "/update/accepted"):
		case strings.HasSuffix(p.Topic, "/notify-next-"+space) && !strings.Contains(string(p.Payload), "execution"):
		default:
			t.Errorf("%s: %s", p.Topic, p.Payload)
		}
	}
}
