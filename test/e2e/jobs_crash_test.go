package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/eclipse/paho.golang/paho"

	"flotilla/internal/server/servertest"
)

// crew are things that work off a job, and what was accepted of what they said.
type crew struct {
	things []string
	job    string

	mu       sync.Mutex
	accepted map[string]acceptedUpdate // THING/NUMBER -> what was accepted last
	ended    int
	enough   chan struct{} // closed at the goal
	goal     int           // of ended
}

type acceptedUpdate struct {
	status  string
	version int64
}

// fails tells whether a thing fails an execution: some the first, so that another follows.
func (c *crew) fails(thing string, number int64) bool {
	return strings.HasSuffix(thing, "7") && number == 1
}

func (c *crew) accept(thing string, number int64, status string, version int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accepted[fmt.Sprintf("%s/%d", thing, number)] = acceptedUpdate{status, version}
	if status == "IN_PROGRESS" {
		return
	}
	c.ended++
	c.reached()
}

// reached closes enough once as many executions have ended as are to; it is called with the lock held.
func (c *crew) reached() {
	if c.enough != nil && c.ended >= c.goal {
		close(c.enough)
		c.enough = nil
	}
}

// work answers for some of the things, through d, until ctx ends or the server is gone. As a device does that has
// connected, each asks first for what it is to do.
func (c *crew) work(ctx context.Context, d *device5, things []string) error {
	publish := func(thing, verb, payload string) error {
		_, err := d.Publish(ctx, &paho.Publish{Topic: "$aws/things/" + thing + "/jobs/" + verb, QoS: 1, Payload: []byte(payload)})
		return err
	}
	for _, t := range things {
		if err := publish(t, "start-next", `{}`); err != nil {
			return nil
		}
	}
	updated := map[string]bool{}
	for {
		var p *paho.Publish
		select {
		case <-ctx.Done():
			return nil
		case p = <-d.got:
		}
		thing, topic, _ := strings.Cut(strings.TrimPrefix(p.Topic, "$aws/things/"), "/jobs/")
		var m struct {
			ClientToken string
			Execution   struct {
				JobID                          string `json:"jobId"`
				Status                         string
				ExecutionNumber, VersionNumber int64
			}
			ExecutionState struct {
				Status        string
				VersionNumber int64
			}
		}
		if err := json.Unmarshal(p.Payload, &m); err != nil {
			return fmt.Errorf("%s: %s: %w", p.Topic, p.Payload, err)
		}
		x := m.Execution
		var err error
		switch topic {
		case "notify-next":
			if x.JobID != "" {
				err = publish(thing, "start-next", `{}`)
			}
		case "start-next/accepted":
			key := fmt.Sprintf("%s/%d", thing, x.ExecutionNumber)
			if x.JobID == "" || updated[key] {
				break
			}
			updated[key] = true
			c.accept(thing, x.ExecutionNumber, x.Status, x.VersionNumber)
			status := "SUCCEEDED"
			if c.fails(thing, x.ExecutionNumber) {
				status = "FAILED"
			}
			err = publish(thing, c.job+"/update", fmt.Sprintf(`{"status":%q,"expectedVersion":%d,"executionNumber":%d,"includeJobExecutionState":true,"clientToken":"%d"}`,
				status, x.VersionNumber, x.ExecutionNumber, x.ExecutionNumber))
		case c.job + "/update/accepted":
			var number int64
			if _, err := fmt.Sscan(m.ClientToken, &number); err != nil {
				return fmt.Errorf("%s: %s: %w", p.Topic, p.Payload, err)
			}
			c.accept(thing, number, m.ExecutionState.Status, m.ExecutionState.VersionNumber)
		default:
			return fmt.Errorf("%s: %s", p.Topic, p.Payload)
		}
		if err != nil {
			return nil
		}
	}
}

// until lets the things work until so many executions have ended in all, over several connections, then does what it is
// told to while they go on.
func (c *crew) until(t *testing.T, p *process, id servertest.Identity, goal int, then func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.mu.Lock()
	enough := make(chan struct{})
	c.enough, c.goal = enough, goal
	c.reached()
	c.mu.Unlock()
	const connections = 4
	var all sync.WaitGroup
	for i := range connections {
		d := connect5(t, p.Node, id, fmt.Sprintf("crew-%d", i))
		var own, filters []string
		for k := i; k < len(c.things); k += connections {
			own = append(own, c.things[k])
		}
		for _, thing := range own {
			filters = append(filters, "$aws/things/"+thing+"/jobs/notify-next", "$aws/things/"+thing+"/jobs/start-next/+", "$aws/things/"+thing+"/jobs/"+c.job+"/update/+")
		}
		for len(filters) > 0 {
			n := min(len(filters), 8)
			d.subscribe(t, 1, filters[:n]...)
			filters = filters[n:]
		}
		all.Go(func() {
			if err := c.work(ctx, d, own); err != nil {
				t.Error(err)
			}
		})
	}
	select {
	case <-enough:
	case <-time.After(2 * patience):
		t.Errorf("%d executions have not ended in time", goal)
	}
	then()
	cancel()
	all.Wait()
}

// executions are all executions of the job on a thing.
func (c *crew) executions(t *testing.T, n *servertest.Node, thing string) []types.JobExecutionSummary {
	t.Helper()
	out, err := n.IoT().ListJobExecutionsForThing(t.Context(), &iot.ListJobExecutionsForThingInput{ThingName: &thing, JobId: &c.job})
	if err != nil {
		t.Fatal(err)
	}
	var list []types.JobExecutionSummary
	for _, s := range out.ExecutionSummaries {
		list = append(list, *s.JobExecutionSummary)
	}
	return list
}

// kept holds the server to what was accepted before it was killed.
func (c *crew) kept(t *testing.T, n *servertest.Node) {
	t.Helper()
	for key, was := range c.accepted {
		thing, number, _ := strings.Cut(key, "/")
		var executionNumber int64
		if _, err := fmt.Sscan(number, &executionNumber); err != nil {
			t.Fatal(err)
		}
		out, err := n.IoT().DescribeJobExecution(t.Context(), &iot.DescribeJobExecutionInput{JobId: &c.job, ThingName: &thing, ExecutionNumber: &executionNumber})
		if err != nil {
			t.Errorf("%s, accepted as %+v: %v", key, was, err)
			continue
		}
		// What was not acknowledged may have happened or not: a step more.
		if e := out.Execution; e.VersionNumber < was.version || was.status != "IN_PROGRESS" && string(e.Status) != was.status {
			t.Errorf("%s: accepted as %+v, it is %s in version %d", key, was, e.Status, e.VersionNumber)
		}
	}
}

// A job is rolled out while the server is killed again and again: every update that was accepted is kept, each thing gets
// its execution, and another only after one that has failed.
func TestKillInTheMiddleOfARollout(t *testing.T) {
	dir := t.TempDir()
	p := startProcess(t, dir)
	id := p.Identity(t, "crew", "iot:Connect client/crew-*", "iot:Publish topic/$aws/things/*", "iot:Subscribe topicfilter/$aws/things/*", "iot:Receive topic/$aws/things/*")
	c := &crew{job: "firmware", accepted: map[string]acceptedUpdate{}}
	ctx := t.Context()
	if _, err := p.IoT().CreateThingGroup(ctx, &iot.CreateThingGroupInput{ThingGroupName: new("fleet")}); err != nil {
		t.Fatal(err)
	}
	things := 160
	if testing.Short() {
		things = 60
	}
	for i := range things {
		name := fmt.Sprintf("t%03d", i)
		if _, err := p.IoT().CreateThing(ctx, &iot.CreateThingInput{ThingName: &name}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.IoT().AddThingToThingGroup(ctx, &iot.AddThingToThingGroupInput{ThingGroupName: new("fleet"), ThingName: &name}); err != nil {
			t.Fatal(err)
		}
		c.things = append(c.things, name)
	}
	// The more things have succeeded, the faster it goes: thirty at first, and twenty more than have succeeded at least.
	if _, err := p.IoT().CreateJob(ctx, &iot.CreateJobInput{
		JobId: &c.job, Targets: []string{"arn:aws:iot:us-east-1:" + p.Account() + ":thinggroup/fleet"}, Document: new(`{"version":"2"}`),
		JobExecutionsRolloutConfig: &types.JobExecutionsRolloutConfig{ExponentialRate: &types.ExponentialRolloutRate{
			BaseRatePerMinute: new(int32(30)), IncrementFactor: new(1.5), RateIncreaseCriteria: &types.RateIncreaseCriteria{NumberOfSucceededThings: new(int32(20))},
		}},
		JobExecutionsRetryConfig: &types.JobExecutionsRetryConfig{CriteriaList: []types.RetryCriteria{{FailureType: types.RetryableFailureTypeFailed, NumberOfRetries: new(int32(2))}}},
	}); err != nil {
		t.Fatal(err)
	}
	retried := 0
	for _, name := range c.things {
		if c.fails(name, 1) {
			retried++
		}
	}
	for _, goal := range []int{things / 12, things / 4, things / 2} {
		c.until(t, p, id, goal, func() { p.kill(t) })
		t.Logf("%d updates accepted before the kill", len(c.accepted))
		p = startProcess(t, dir)
		c.kept(t, p.Node)
	}
	c.until(t, p, id, 0, func() {
		eventually(t, "the job to be done", func() bool {
			out, err := p.IoT().DescribeJob(ctx, &iot.DescribeJobInput{JobId: &c.job})
			return err == nil && out.Job.Status == types.JobStatusCompleted
		})
	})
	c.kept(t, p.Node)
	for _, name := range c.things {
		want := []types.JobExecutionStatus{types.JobExecutionStatusSucceeded}
		if c.fails(name, 1) {
			want = []types.JobExecutionStatus{types.JobExecutionStatusFailed, types.JobExecutionStatusSucceeded}
		}
		got := c.executions(t, p.Node, name)
		if len(got) != len(want) {
			t.Errorf("%s has %d executions, not %d", name, len(got), len(want))
			continue
		}
		for i, e := range got {
			if e.Status != want[i] || *e.ExecutionNumber != int64(i+1) {
				t.Errorf("%s: execution %d is %s", name, *e.ExecutionNumber, e.Status)
			}
		}
	}
	out, err := p.IoT().DescribeJob(ctx, &iot.DescribeJobInput{JobId: &c.job})
	if err != nil {
		t.Fatal(err)
	}
	if n := *out.Job.JobProcessDetails.NumberOfSucceededThings; n != int32(things) {
		t.Errorf("%d of %d things have succeeded", n, things)
	}
	t.Logf("%d things, of which %d twice", things, retried)
	c.cancelAndDelete(t, dir, p)
}

// cancelAndDelete kills the server after it has accepted to cancel a job, and to delete one: both are done.
func (c *crew) cancelAndDelete(t *testing.T, dir string, p *process) {
	ctx := t.Context()
	for _, id := range []string{"off", "gone"} {
		if _, err := p.IoT().CreateJob(ctx, &iot.CreateJobInput{
			JobId: &id, Targets: []string{"arn:aws:iot:us-east-1:" + p.Account() + ":thinggroup/fleet"}, Document: new(`{}`),
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.IoT().CancelJob(ctx, &iot.CancelJobInput{JobId: new("off"), Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.IoT().DeleteJob(ctx, &iot.DeleteJobInput{JobId: new("gone"), Force: true}); err != nil {
		t.Fatal(err)
	}
	p.kill(t)
	p = startProcess(t, dir)
	eventually(t, "the executions to be canceled, and the job to be gone", func() bool {
		out, err := p.IoT().DescribeJob(ctx, &iot.DescribeJobInput{JobId: new("off")})
		if err != nil || out.Job.Status != types.JobStatusCanceled {
			t.Fatalf("%+v %v", out, err)
		}
		if d := out.Job.JobProcessDetails; *d.NumberOfQueuedThings+*d.NumberOfInProgressThings > 0 {
			return false
		}
		_, err = p.IoT().DescribeJob(ctx, &iot.DescribeJobInput{JobId: new("gone")})
		_, none := errors.AsType[*types.ResourceNotFoundException](err)
		return none
	})
	for _, name := range c.things {
		out, err := p.IoT().ListJobExecutionsForThing(ctx, &iot.ListJobExecutionsForThingInput{ThingName: &name})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range out.ExecutionSummaries {
			if st := s.JobExecutionSummary.Status; *s.JobId == "gone" || *s.JobId == "off" && st != types.JobExecutionStatusCanceled {
				t.Errorf("%s: %s is %s", name, *s.JobId, st)
			}
		}
	}
}
