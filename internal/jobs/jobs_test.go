package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotjobsdata"
	"flotilla/internal/jobs"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

func each(t *testing.T, test func(t *testing.T, w *world)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) { test(t, newWorld(t, db)) })
}

// A job reaches a thing and a group, is worked off over MQTT, and completes.
func TestJob(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 2)
		w.fleet("x", 1)
		w.create("update", iot.CreateJobRequest{Description: new("d")}, group("g"), thing("x-0"), thing("g-1"))
		w.waitCounts("update", "3 QUEUED")
		w.eventually("notify", func() bool {
			for _, n := range w.told("g-0", "notify") {
				list := n["jobs"].(map[string]any)["QUEUED"].([]any)
				e := list[0].(map[string]any)
				return e["jobId"] == "update" && e["queuedAt"] == 1.8e9 && e["versionNumber"] == 1.0 && e["executionNumber"] == 1.0
			}
			return false
		})
		w.eventually("notify-next", func() bool {
			for _, n := range w.told("g-0", "notify-next") {
				e := n["execution"].(map[string]any)
				return e["jobDocument"].(map[string]any)["operation"] == "update"
			}
			return false
		})
		if a := w.accepted("g-0", "get", `{"clientToken":"t"}`); len(a["queuedJobs"].([]any)) != 1 || len(a["inProgressJobs"].([]any)) != 0 || a["clientToken"] != "t" || a["timestamp"] != 1.8e9 {
			t.Error(a)
		}
		e := w.accepted("g-0", "start-next", `{"statusDetails":{"step":"1"},"stepTimeoutInMinutes":5}`)["execution"].(map[string]any)
		if e["status"] != "IN_PROGRESS" || e["versionNumber"] != 2.0 || e["approximateSecondsBeforeTimedOut"] != 300.0 || e["thingName"] != "g-0" ||
			e["statusDetails"].(map[string]any)["step"] != "1" || e["startedAt"] != 1.8e9 || e["jobDocument"] == nil {
			t.Error(e)
		}
		again := w.accepted("g-0", "start-next", ``)["execution"].(map[string]any)
		if again["versionNumber"] != 2.0 {
			t.Errorf("what is in progress is started again: %v", again)
		}
		s := w.accepted("g-0", "update/update", `{"status":"SUCCEEDED","expectedVersion":"2","includeJobExecutionState":true,"includeJobDocument":true}`)
		if state := s["executionState"].(map[string]any); state["status"] != "SUCCEEDED" || state["versionNumber"] != 3.0 || s["jobDocument"] == nil {
			t.Error(s)
		}
		if n := w.told("g-0", "notify-next"); len(n) != 1 || n[0]["execution"] != nil {
			t.Errorf("after the end: %v", n)
		}
		if a := w.accepted("g-0", "start-next", ``); a["execution"] != nil {
			t.Error(a)
		}
		w.accepted("g-1", "update/update", `{"status":"FAILED"}`)
		w.waitCounts("update", "1 QUEUED 1 SUCCEEDED 1 FAILED")
		if *w.describe("update").Status != "IN_PROGRESS" {
			t.Error("it is over too early")
		}
		w.accepted("x-0", "update/update", `{"status":"REJECTED","statusDetails":{"why":"no"}}`)
		w.waitStatus("update", "COMPLETED")
		if d := w.describe("update"); d.CompletedAt == nil || len(d.Targets) != 3 || len(d.JobProcessDetails.ProcessingTargets) != 0 {
			t.Errorf("%+v", d)
		}
		out, err := w.DescribeJobExecution(t.Context(), &iot.DescribeJobExecutionRequest{JobId: "update", ThingName: "x-0"})
		if err != nil || *out.Execution.Status != "REJECTED" || out.Execution.StatusDetails.DetailsMap["why"] != "no" {
			t.Errorf("%+v %v", out, err)
		}
	})
}

func TestRefusals(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 1)
		w.create("j", iot.CreateJobRequest{TimeoutConfig: &iot.TimeoutConfig{InProgressTimeoutInMinutes: new(int64(10))}}, thing("g-0"))
		w.waitCounts("j", "1 QUEUED")
		w.refused("nobody", "get", ``, "ResourceNotFound")
		w.refused("g-0", "get", `{`, "InvalidJson")
		w.refused("g-0", "j/update", `{"status":1}`, "InvalidJson")
		w.refused("g-0", "none/get", ``, "ResourceNotFound")
		w.refused("g-0", "none/update", `{"status":"IN_PROGRESS"}`, "ResourceNotFound")
		for _, status := range []string{"QUEUED", "CANCELED", "TIMED_OUT", "REMOVED", "", "x"} {
			w.refused("g-0", "j/update", `{"status":"`+status+`"}`, "InvalidRequest")
		}
		w.refused("g-0", "j/update", `{"status":"IN_PROGRESS","expectedVersion":"x"}`, "InvalidRequest")
		w.refused("g-0", "j/update", `{"status":"IN_PROGRESS","stepTimeoutInMinutes":0}`, "InvalidRequest")
		w.refused("g-0", "j/update", `{"status":"IN_PROGRESS","stepTimeoutInMinutes":11}`, "InvalidRequest") // longer than the job's
		for _, details := range []string{`"a":"\u0001"`, `"a":""`, `"":"x"`, `"a b":"x"`, `"a":1`} {
			code := "InvalidRequest"
			if details == `"a":1` {
				code = "InvalidJson"
			}
			w.refused("g-0", "j/update", `{"status":"IN_PROGRESS","statusDetails":{`+details+`}}`, code)
		}
		w.refused("g-0", "j/update", `{"status":"IN_PROGRESS","statusDetails":{"1":"x","2":"x","3":"x","4":"x","5":"x","6":"x","7":"x","8":"x","9":"x","10":"x","11":"x"}}`, "InvalidRequest")
		a := w.refused("g-0", "j/update", `{"status":"IN_PROGRESS","expectedVersion":7}`, "VersionMismatch")
		if s := a["executionState"].(map[string]any); s["status"] != "QUEUED" || s["versionNumber"] != 1.0 {
			t.Error(a)
		}
		w.accepted("g-0", "j/update", `{"status":"SUCCEEDED"}`)
		a = w.refused("g-0", "j/update", `{"status":"IN_PROGRESS"}`, "InvalidStateTransition")
		if s := a["executionState"].(map[string]any); s["status"] != "SUCCEEDED" {
			t.Error(a)
		}
		w.refused("g-0", "j/get", ``, "TerminalStateReached")
		if a := w.accepted("g-0", "$next/get", ``); a["execution"] != nil {
			t.Error(a)
		}

		ctx := t.Context()
		_, err := w.UpdateJobExecution(ctx, &iotjobsdata.UpdateJobExecutionRequest{ThingName: "g-0", JobId: "j", Status: "FAILED"})
		is[*iotjobsdata.InvalidStateTransitionException](t, err)
		_, err = w.DescribeDeviceJobExecution(ctx, &iotjobsdata.DescribeJobExecutionRequest{ThingName: "g-0", JobId: "j"})
		is[*iotjobsdata.TerminalStateException](t, err)
		_, err = w.GetPendingJobExecutions(ctx, &iotjobsdata.GetPendingJobExecutionsRequest{ThingName: "nobody"})
		is[*iotjobsdata.ResourceNotFoundException](t, err)
		_, err = w.StartNextPendingJobExecution(ctx, &iotjobsdata.StartNextPendingJobExecutionRequest{ThingName: "g-0", StatusDetails: map[string]string{"": ""}})
		is[*iotjobsdata.InvalidRequestException](t, err)
		for name, in := range map[string]iot.CreateJobRequest{
			"no document":     {Targets: []string{thing("g-0")}},
			"other account":   {Targets: []string{"arn:aws:iot:us-east-1:999999999999:thing/g-0"}, Document: new("{}")},
			"timeout":         {Targets: []string{thing("g-0")}, Document: new("{}"), TimeoutConfig: &iot.TimeoutConfig{InProgressTimeoutInMinutes: new(int64(0))}},
			"document source": {Targets: []string{thing("g-0")}, DocumentSource: new("https://example.com/b/k")},
			"no such object":  {Targets: []string{thing("g-0")}, DocumentSource: new("https://s3.amazonaws.com/b/none")},
			"two documents":   {Targets: []string{thing("g-0")}, Document: new("{}"), DocumentSource: new("https://s3.amazonaws.com/b/k")},
			"signed code":     {Targets: []string{thing("g-0")}, Document: new(`{"s":"${aws:iot:code-sign-signature:s3://b/k}"}`)},
			"bad bucket":      {Targets: []string{thing("g-0")}, Document: new(`{"s":"${aws:iot:s3-presigned-url:https://s3.amazonaws.com/My_Bucket/x}"}`)},
			"bad link":        {Targets: []string{thing("g-0")}, Document: new(`{"s":"${aws:iot:s3-presigned-url:https://example.com/x}"}`)},
			"parameters":      {Targets: []string{thing("g-0")}, Document: new("{}"), DocumentParameters: map[string]string{"a": "b"}},
			"too short a URL": {Targets: []string{thing("g-0")}, Document: new("{}"), PresignedUrlConfig: &iot.PresignedUrlConfig{ExpiresInSec: new(int64(59))}},
			"cron": {Targets: []string{thing("g-0")}, Document: new("{}"), SchedulingConfig: &iot.SchedulingConfig{
				MaintenanceWindows: []*iot.MaintenanceWindow{{StartTime: "cron(x)", DurationInMinutes: 5}},
			}},
		} {
			in.JobId = "new"
			_, err := w.CreateJob(ctx, &in)
			if _, ok := errors.AsType[*iot.InvalidRequestException](err); !ok {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, err = w.CreateJob(ctx, &iot.CreateJobRequest{JobId: "new", Targets: []string{thing("nobody")}, Document: new("{}")})
		is[*iot.ResourceNotFoundException](t, err)
		_, err = w.CreateJob(ctx, &iot.CreateJobRequest{JobId: "j", Targets: []string{thing("g-0")}, Document: new("{}")})
		is[*iot.ResourceAlreadyExistsException](t, err)
	})
}

func is[E error](t *testing.T, err error) {
	t.Helper()
	if _, ok := errors.AsType[E](err); !ok {
		var want E
		t.Errorf("%T (%v), not %T", err, err, want)
	}
}

// Executions end when a timer of the job, or of a step, runs out; and are retried as the job says.
func TestTimersAndRetries(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 3)
		w.create("j", iot.CreateJobRequest{
			TimeoutConfig: &iot.TimeoutConfig{InProgressTimeoutInMinutes: new(int64(10))},
			JobExecutionsRetryConfig: &iot.JobExecutionsRetryConfig{CriteriaList: []*iot.RetryCriteria{
				{FailureType: "TIMED_OUT", NumberOfRetries: 1}, {FailureType: "FAILED", NumberOfRetries: 2},
			}},
		}, group("g"))
		w.waitCounts("j", "3 QUEUED")
		w.accepted("g-0", "start-next", ``)
		w.accepted("g-1", "start-next", `{"stepTimeoutInMinutes":1}`)
		w.pass(2 * time.Minute)
		w.eventually("the step's timer", func() bool {
			return w.accepted("g-1", "start-next", ``)["execution"].(map[string]any)["executionNumber"] == 2.0
		})
		w.accepted("g-0", "j/update", `{"status":"IN_PROGRESS","stepTimeoutInMinutes":5}`)
		w.accepted("g-0", "j/update", `{"status":"IN_PROGRESS","stepTimeoutInMinutes":-1}`)
		w.pass(7 * time.Minute)
		w.waitCounts("j", "1 QUEUED 2 IN_PROGRESS")
		w.pass(time.Minute) // g-0 has had its ten
		w.waitCounts("j", "2 QUEUED 1 IN_PROGRESS")
		w.pass(2 * time.Minute) // g-1 too, for the second time
		w.waitCounts("j", "2 QUEUED 1 TIMED_OUT")
		for i := 1; i <= 3; i++ {
			e := w.accepted("g-2", "start-next", ``)["execution"].(map[string]any)
			if e["executionNumber"] != float64(i) {
				t.Fatalf("retry %d: %v", i, e)
			}
			w.accepted("g-2", "j/update", `{"status":"FAILED"}`)
		}
		w.accepted("g-0", "j/update", `{"status":"SUCCEEDED"}`)
		w.waitStatus("j", "COMPLETED")
		w.waitCounts("j", "1 SUCCEEDED 1 FAILED 1 TIMED_OUT")
		out, err := w.ListJobExecutionsForThing(t.Context(), &iot.ListJobExecutionsForThingRequest{ThingName: "g-2", JobId: new("j"), MaxResults: new(int32(2))})
		if err != nil || len(out.ExecutionSummaries) != 2 || out.NextToken == nil {
			t.Fatalf("%+v %v", out, err)
		}
		out, err = w.ListJobExecutionsForThing(t.Context(), &iot.ListJobExecutionsForThingRequest{ThingName: "g-2", JobId: new("j"), NextToken: out.NextToken})
		if err != nil || len(out.ExecutionSummaries) != 1 || *out.ExecutionSummaries[0].JobExecutionSummary.RetryAttempt != 2 {
			t.Errorf("%+v %v", out, err)
		}
	})
}

// A rollout keeps to its rate, over a restart too, and reaches every thing once.
func TestRate(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 500)
		w.create("j", iot.CreateJobRequest{JobExecutionsRolloutConfig: &iot.JobExecutionsRolloutConfig{MaximumPerMinute: new(int32(150))}}, group("g"))
		w.waitCounts("j", "150 QUEUED")
		w.stop()
		w.open()
		w.pass(time.Minute)
		w.waitCounts("j", "300 QUEUED")
		w.pass(time.Minute)
		w.waitCounts("j", "450 QUEUED")
		w.pass(time.Minute)
		w.waitCounts("j", "500 QUEUED")
	})
}

func TestAbort(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		names := w.fleet("g", 20)
		w.create("j", iot.CreateJobRequest{
			JobExecutionsRolloutConfig: &iot.JobExecutionsRolloutConfig{MaximumPerMinute: new(int32(10))},
			AbortConfig: &iot.AbortConfig{CriteriaList: []*iot.AbortCriteria{
				{FailureType: "FAILED", Action: "CANCEL", ThresholdPercentage: 50, MinNumberOfExecutedThings: 4},
			}},
		}, group("g"))
		w.waitCounts("j", "10 QUEUED")
		list, err := w.ListJobExecutionsForJob(t.Context(), &iot.ListJobExecutionsForJobRequest{JobId: "j", MaxResults: new(int32(4)), Status: new("QUEUED")})
		if err != nil || len(list.ExecutionSummaries) != 4 || list.NextToken == nil {
			t.Fatalf("%+v %v", list, err)
		}
		for i, e := range list.ExecutionSummaries {
			status := []string{"SUCCEEDED", "SUCCEEDED", "FAILED", "FAILED"}[i]
			w.accepted((*e.ThingArn)[len(thing("")):], "j/update", `{"status":"`+status+`"}`)
		}
		w.waitStatus("j", "CANCELED")
		w.waitCounts("j", "2 SUCCEEDED 2 FAILED 6 CANCELED")
		if d := w.describe("j"); *d.ReasonCode != "ABORT_CRITERIA_MET" {
			t.Errorf("%+v", d)
		}
		w.pass(time.Hour)
		w.create("later", iot.CreateJobRequest{}, thing(names[0])) // once it has come through, the first has had its turns
		w.waitCounts("later", "1 QUEUED")
		if c := w.counts("j"); c != "2 SUCCEEDED 2 FAILED 6 CANCELED" {
			t.Errorf("it goes on: %s", c)
		}
	})
}

func TestCancelAndDelete(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.fleet("g", 3)
		w.create("j", iot.CreateJobRequest{}, group("g"))
		w.waitCounts("j", "3 QUEUED")
		w.accepted("g-0", "start-next", ``)
		_, err := w.CancelJobExecution(ctx, &iot.CancelJobExecutionRequest{JobId: "j", ThingName: "g-0"})
		is[*iot.InvalidStateTransitionException](t, err)
		_, err = w.CancelJobExecution(ctx, &iot.CancelJobExecutionRequest{JobId: "j", ThingName: "g-1", ExpectedVersion: new(int64(5))})
		is[*iot.VersionConflictException](t, err)
		if _, err = w.CancelJobExecution(ctx, &iot.CancelJobExecutionRequest{JobId: "j", ThingName: "g-1", StatusDetails: map[string]string{"by": "me"}}); err != nil {
			t.Fatal(err)
		}
		if n := w.told("g-1", "notify"); len(n) == 0 || len(n[len(n)-1]["jobs"].(map[string]any)) != 0 {
			t.Errorf("%v", n)
		}
		_, err = w.DeleteJob(ctx, &iot.DeleteJobRequest{JobId: "j"})
		is[*iot.InvalidStateTransitionException](t, err)
		if _, err := w.CancelJob(ctx, &iot.CancelJobRequest{JobId: "j", ReasonCode: new("R"), Comment: new("c")}); err != nil {
			t.Fatal(err)
		}
		w.waitCounts("j", "1 IN_PROGRESS 2 CANCELED") // what is in progress may go on
		w.accepted("g-0", "j/update", `{"status":"IN_PROGRESS"}`)
		_, err = w.CancelJob(ctx, &iot.CancelJobRequest{JobId: "j"})
		is[*iot.InvalidRequestException](t, err)
		if _, err := w.CancelJob(ctx, &iot.CancelJobRequest{JobId: "j", Force: new(true)}); err != nil {
			t.Fatal(err)
		}
		w.waitCounts("j", "3 CANCELED")
		w.refused("g-0", "j/update", `{"status":"SUCCEEDED"}`, "InvalidStateTransition")
		if _, err := w.DeleteJob(ctx, &iot.DeleteJobRequest{JobId: "j"}); err != nil {
			t.Fatal(err)
		}
		w.eventually("the job is gone", func() bool {
			_, err := w.DescribeJob(ctx, &iot.DescribeJobRequest{JobId: "j"})
			return err != nil
		})
		_, err = w.DescribeJobExecution(ctx, &iot.DescribeJobExecutionRequest{JobId: "j", ThingName: "g-0"})
		is[*iot.ResourceNotFoundException](t, err)
		w.create("j", iot.CreateJobRequest{}, thing("g-2")) // the id is free again
		w.waitCounts("j", "1 QUEUED")
	})
}

func TestSchedule(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 2)
		start, end := w.clock().Add(time.Hour).UTC().Format(time.RFC3339), w.clock().Add(3*time.Hour).UTC().Format(time.RFC3339)
		w.create("j", iot.CreateJobRequest{
			SchedulingConfig:           &iot.SchedulingConfig{StartTime: &start, EndTime: &end, EndBehavior: new("CANCEL")},
			JobExecutionsRolloutConfig: &iot.JobExecutionsRolloutConfig{MaximumPerMinute: new(int32(1))},
		}, group("g"))
		if s := *w.describe("j").Status; s != "SCHEDULED" {
			t.Error(s)
		}
		w.pass(59 * time.Minute)
		w.create("now", iot.CreateJobRequest{}, thing("g-0"))
		w.waitCounts("now", "1 QUEUED")
		if c := w.counts("j"); c != "" {
			t.Errorf("before its time: %s", c)
		}
		w.pass(time.Minute)
		w.waitCounts("j", "1 QUEUED")
		w.pass(2 * time.Hour)
		w.waitStatus("j", "CANCELED")
		w.waitCounts("j", "1 CANCELED")
		if d := w.describe("j"); *d.ReasonCode != "END_TIME_REACHED" {
			t.Errorf("%+v", d)
		}
	})
}

// Lists give each job and execution once, page by page.
func TestLists(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 1)
		for i := range 5 {
			w.create(fmt.Sprintf("j%d", i), iot.CreateJobRequest{TargetSelection: new([]string{"SNAPSHOT", "CONTINUOUS"}[i%2])}, thing("g-0"))
		}
		w.waitCounts("j4", "1 QUEUED")
		var got string
		in := &iot.ListJobsRequest{MaxResults: new(int32(2))}
		for {
			out, err := w.ListJobs(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range out.Jobs {
				got += *s.JobId + " "
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				break
			}
		}
		if got != "j0 j1 j2 j3 j4 " {
			t.Error(got)
		}
		out, err := w.ListJobs(t.Context(), &iot.ListJobsRequest{TargetSelection: new("CONTINUOUS"), Status: new("IN_PROGRESS")})
		if err != nil || len(out.Jobs) != 2 {
			t.Errorf("%+v %v", out, err)
		}
		a := w.accepted("g-0", "get", ``)
		if n := len(a["queuedJobs"].([]any)); n != 5 {
			t.Error(n)
		}
		// The oldest is next, and what is in progress comes before what is queued.
		w.accepted("g-0", "j3/update", `{"status":"IN_PROGRESS"}`)
		if e := w.accepted("g-0", "$next/get", `{"includeJobDocument":false}`)["execution"].(map[string]any); e["jobId"] != "j3" || e["jobDocument"] != nil {
			t.Error(e)
		}
	})
}

// Of writers that expect the same version one wins.
func TestConcurrentUpdates(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 1)
		w.create("j", iot.CreateJobRequest{}, thing("g-0"))
		w.waitCounts("j", "1 QUEUED")
		for version := int64(1); version <= 5; version++ {
			var group sync.WaitGroup
			var mu sync.Mutex
			won := 0
			for range 16 {
				group.Go(func() {
					_, err := w.UpdateJobExecution(context.Background(), &iotjobsdata.UpdateJobExecutionRequest{
						ThingName: "g-0", JobId: "j", Status: "IN_PROGRESS", ExpectedVersion: &version,
					})
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						won++
					}
				})
			}
			group.Wait()
			if won != 1 {
				t.Errorf("version %d: %d won", version, won)
			}
		}
	})
}

// A thing with as many executions as it may have is not given more until it has done some.
func TestFullThing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, func(c *jobs.Config) { c.MaxExecutions = 2 })
		w.fleet("g", 1)
		for i := range 3 {
			w.create(fmt.Sprintf("j%d", i), iot.CreateJobRequest{}, thing("g-0"))
			w.waitStatus(fmt.Sprintf("j%d", i), "IN_PROGRESS")
		}
		w.waitCounts("j1", "1 QUEUED")
		if c := w.counts("j2"); c != "" {
			t.Error(c)
		}
		w.accepted("g-0", "j0/update", `{"status":"SUCCEEDED"}`)
		w.waitCounts("j2", "1 QUEUED")
	})
}
