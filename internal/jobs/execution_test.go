package jobs_test

import (
	"testing"
	"time"

	"flotilla/internal/aws/iot"
)

// Each criterion of retries counts the executions that ended its way.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/jobs-configurations-details.html#job-timeout-retry
func TestRetriesOfBothKinds(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 1)
		w.create("j", iot.CreateJobRequest{
			TimeoutConfig: &iot.TimeoutConfig{InProgressTimeoutInMinutes: new(int64(1))},
			JobExecutionsRetryConfig: &iot.JobExecutionsRetryConfig{CriteriaList: []*iot.RetryCriteria{
				{FailureType: "TIMED_OUT", NumberOfRetries: 1}, {FailureType: "FAILED", NumberOfRetries: 1},
			}},
		}, thing("g-0"))
		w.waitCounts("j", "1 QUEUED")
		begin := func(number float64) {
			t.Helper()
			if e, ok := w.accepted("g-0", "start-next", ``)["execution"].(map[string]any); !ok || e["executionNumber"] != number {
				t.Fatalf("not %v: %v", number, e)
			}
		}
		begin(1)
		w.pass(time.Minute)
		w.waitCounts("j", "1 QUEUED")
		begin(2)
		w.accepted("g-0", "j/update", `{"status":"FAILED"}`)
		begin(3)
		w.accepted("g-0", "j/update", `{"status":"FAILED"}`)
		w.waitStatus("j", "COMPLETED")
		w.waitCounts("j", "1 FAILED")
	})
}

// Of a retry that is deleted the execution before it is left, and goes with its job.
func TestDeletedRetry(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.fleet("g", 2)
		w.create("j", iot.CreateJobRequest{
			JobExecutionsRetryConfig: &iot.JobExecutionsRetryConfig{CriteriaList: []*iot.RetryCriteria{{FailureType: "FAILED", NumberOfRetries: 1}}},
		}, group("g"))
		w.waitCounts("j", "2 QUEUED")
		w.accepted("g-0", "j/update", `{"status":"FAILED"}`)
		if _, err := w.DeleteJobExecution(ctx, &iot.DeleteJobExecutionRequest{JobId: "j", ThingName: "g-0", ExecutionNumber: 2}); err == nil {
			t.Error("what is queued is deleted without force")
		}
		if _, err := w.DeleteJobExecution(ctx, &iot.DeleteJobExecutionRequest{JobId: "j", ThingName: "g-0", ExecutionNumber: 2, Force: new(true)}); err != nil {
			t.Fatal(err)
		}
		w.waitCounts("j", "1 QUEUED 1 FAILED")
		out, err := w.DescribeJobExecution(ctx, &iot.DescribeJobExecutionRequest{JobId: "j", ThingName: "g-0"})
		if err != nil || *out.Execution.ExecutionNumber != 1 || *out.Execution.Status != "FAILED" {
			t.Errorf("%+v %v", out, err)
		}
		list, err := w.ListJobExecutionsForJob(ctx, &iot.ListJobExecutionsForJobRequest{JobId: "j"})
		if err != nil || len(list.ExecutionSummaries) != 2 {
			t.Errorf("%+v %v", list, err)
		}
		if _, err := w.DeleteJob(ctx, &iot.DeleteJobRequest{JobId: "j", Force: new(true)}); err != nil {
			t.Fatal(err)
		}
		w.eventually("it is deleted", func() bool {
			_, err := w.DescribeJob(ctx, &iot.DescribeJobRequest{JobId: "j"})
			return err != nil
		})
		_, err = w.DescribeJobExecution(ctx, &iot.DescribeJobExecutionRequest{JobId: "j", ThingName: "g-0"})
		is[*iot.ResourceNotFoundException](t, err)
	})
}
