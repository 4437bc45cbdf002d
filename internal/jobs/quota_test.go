package jobs_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/jobs"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// exceeds demands a LimitExceededException that says what.
func exceeds(t *testing.T, err error, what string) {
	t.Helper()
	if e, ok := errors.AsType[*iot.LimitExceededException](err); !ok || !strings.Contains(e.Message, what) {
		t.Errorf("%T %v, not that the limit of %s is reached", err, err, what)
	}
}

// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/job-limits.html
func TestQuotas(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, func(c *jobs.Config) { c.MaxSnapshot, c.MaxContinuous, c.MaxConcurrent, c.MaxTemplates = 3, 1, 2, 1 })
		w.fleet("g", 5)
		slow := &iot.JobExecutionsRolloutConfig{MaximumPerMinute: new(int32(1))}
		try := func(id string, in iot.CreateJobRequest) error {
			in.JobId, in.Targets, in.Document = id, []string{group("g")}, new("{}")
			_, err := w.CreateJob(t.Context(), &in)
			return err
		}
		concurrent := func(id string) bool { return *w.describe(id).IsConcurrent }
		start := w.clock().Add(time.Hour).UTC().Format(time.RFC3339)
		for _, id := range []string{"late", "later"} {
			if err := try(id, iot.CreateJobRequest{SchedulingConfig: &iot.SchedulingConfig{StartTime: &start}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := try("c", iot.CreateJobRequest{TargetSelection: new("CONTINUOUS")}); err != nil {
			t.Fatal(err)
		}
		w.eventually("it has rolled out", func() bool { return !concurrent("c") })
		exceeds(t, try("c2", iot.CreateJobRequest{TargetSelection: new("CONTINUOUS")}), "1 active continuous jobs")
		for i := range 2 {
			if err := try(fmt.Sprintf("s%d", i), iot.CreateJobRequest{JobExecutionsRolloutConfig: slow}); err != nil {
				t.Fatal(err)
			}
		}
		if !concurrent("s0") || !concurrent("s1") || concurrent("late") {
			t.Error("s0 and s1 roll out, late does not")
		}
		list, err := w.ListJobs(t.Context(), &iot.ListJobsRequest{})
		for _, b := range list.Jobs {
			if *b.IsConcurrent != strings.HasPrefix(*b.JobId, "s") || err != nil {
				t.Errorf("%+v", b)
			}
		}
		exceeds(t, try("s2", iot.CreateJobRequest{}), "2 concurrent jobs")
		w.waitCounts("s0", "1 QUEUED")
		if _, err := w.UpdateJob(t.Context(), &iot.UpdateJobRequest{JobId: "s0", JobExecutionsRolloutConfig: &iot.JobExecutionsRolloutConfig{MaximumPerMinute: new(int32(100))}}); err != nil {
			t.Fatal(err)
		}
		w.eventually("it has rolled out", func() bool { return !concurrent("s0") })
		if err := try("s2", iot.CreateJobRequest{}); err != nil {
			t.Fatal(err)
		}
		w.eventually("it has rolled out", func() bool { return !concurrent("s2") })
		exceeds(t, try("s3", iot.CreateJobRequest{}), "3 active snapshot jobs")

		// s1 rolls out all the time, so that of those whose hour has come one can't begin.
		w.fleet("many", 200)
		if _, err := w.CancelJob(t.Context(), &iot.CancelJobRequest{JobId: "s1", Force: new(true)}); err != nil {
			t.Fatal(err)
		}
		w.eventually("it is canceled", func() bool { return !concurrent("s1") })
		w.create("s1b", iot.CreateJobRequest{JobExecutionsRolloutConfig: slow}, group("many"))
		if _, err := w.CancelJob(t.Context(), &iot.CancelJobRequest{JobId: "s0", Force: new(true)}); err != nil {
			t.Fatal(err)
		}
		w.eventually("it is canceled", func() bool { return !concurrent("s0") })
		w.create("s2b", iot.CreateJobRequest{JobExecutionsRolloutConfig: slow}, group("many"))
		w.pass(time.Hour)
		w.waitStatus("late", "CANCELED")
		if d := w.describe("late"); *d.ReasonCode != "CONCURRENCY_LIMIT_REACHED" {
			t.Errorf("%+v", d)
		}

		template := func(id string) error {
			_, err := w.CreateJobTemplate(t.Context(), &iot.CreateJobTemplateRequest{JobTemplateId: id, Description: "d", Document: new("{}")})
			return err
		}
		if err := template("a"); err != nil {
			t.Fatal(err)
		}
		exceeds(t, template("b"), "1 job templates")
	})
}

// A job that was over for the time of retention is deleted with its executions, one that goes on is not.
func TestRetention(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, func(c *jobs.Config) { c.Retention = 24 * time.Hour })
		w.fleet("g", 2)
		w.create("done", iot.CreateJobRequest{}, group("g"))
		w.create("off", iot.CreateJobRequest{}, group("g"))
		w.create("on", iot.CreateJobRequest{}, group("g"))
		for _, id := range []string{"done", "off", "on"} {
			w.waitCounts(id, "2 QUEUED")
		}
		for _, name := range []string{"g-0", "g-1"} {
			w.accepted(name, "done/update", `{"status":"SUCCEEDED"}`)
		}
		w.accepted("g-0", "off/update", `{"status":"IN_PROGRESS"}`)
		w.waitStatus("done", "COMPLETED")
		if _, err := w.CancelJob(t.Context(), &iot.CancelJobRequest{JobId: "off"}); err != nil {
			t.Fatal(err)
		}
		w.waitCounts("off", "1 IN_PROGRESS 1 CANCELED")
		w.pass(23 * time.Hour)
		w.create("young", iot.CreateJobRequest{}, group("g"))
		w.waitCounts("young", "2 QUEUED")
		w.describe("done")
		w.pass(time.Hour)
		for _, id := range []string{"done", "off"} {
			w.eventually(id+" is gone", func() bool {
				_, err := w.DescribeJob(t.Context(), &iot.DescribeJobRequest{JobId: id})
				return err != nil
			})
		}
		_, err := w.DescribeJobExecution(t.Context(), &iot.DescribeJobExecutionRequest{JobId: "done", ThingName: "g-0"})
		is[*iot.ResourceNotFoundException](t, err)
		w.waitCounts("on", "2 QUEUED")
		w.waitCounts("young", "2 QUEUED")
	})
}
