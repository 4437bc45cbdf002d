package jobs_test

import (
	"fmt"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/jobs"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// A continuous job follows the things of its groups, by news of changes, and by its sweeps without any.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-jobs-lifecycle.html
func TestContinuous(t *testing.T) {
	for _, news := range []bool{true, false} {
		t.Run(fmt.Sprintf("news=%v", news), func(t *testing.T) {
			storetest.Each(t, func(t *testing.T, db *store.DB) {
				w := newWorld(t, db, func(c *jobs.Config) {
					if !news {
						c.Sweep = 1 // at each poll, as the clock of the test passes
					}
				})
				later := func() {
					if !news {
						w.pass(time.Second)
					}
				}
				w.fleet("g", 2)
				w.fleet("x", 1)
				w.create("c", iot.CreateJobRequest{TargetSelection: new("CONTINUOUS")}, group("g"), thing("x-0"))
				w.waitCounts("c", "3 QUEUED")
				w.accepted("g-0", "c/update", `{"status":"SUCCEEDED"}`)
				w.join("g", "new", true, news)
				later()
				w.waitCounts("c", "3 QUEUED 1 SUCCEEDED")
				w.accepted("new", "start-next", ``)
				w.told("new", "notify-next")
				w.join("g", "new", false, news)
				later()
				w.waitCounts("c", "2 QUEUED 1 SUCCEEDED 1 REMOVED")
				w.refused("new", "c/update", `{"status":"SUCCEEDED"}`, "InvalidStateTransition")
				w.eventually("notify-next", func() bool { n := w.told("new", "notify-next"); return len(n) > 0 && n[len(n)-1]["execution"] == nil })
				w.join("g", "new", true, news)
				w.join("g", "g-0", false, news)
				later()
				w.waitCounts("c", "3 QUEUED 1 SUCCEEDED")
				if e := w.accepted("new", "start-next", ``)["execution"].(map[string]any); e["executionNumber"] != 2.0 {
					t.Error(e)
				}
				w.join("g", "g-0", true, news) // it has done its job
				w.drop("x-0", news)
				later()
				w.waitCounts("c", "1 QUEUED 1 IN_PROGRESS 1 SUCCEEDED 1 REMOVED")
				w.accepted("new", "c/update", `{"status":"SUCCEEDED"}`)
				w.accepted("g-1", "c/update", `{"status":"SUCCEEDED"}`)
				w.waitCounts("c", "3 SUCCEEDED 1 REMOVED")

				w.fleet("h", 1)
				if _, err := w.AssociateTargetsWithJob(t.Context(), &iot.AssociateTargetsWithJobRequest{JobId: "c", Targets: []string{group("h")}}); err != nil {
					t.Fatal(err)
				}
				w.waitCounts("c", "1 QUEUED 3 SUCCEEDED 1 REMOVED")
				if d := w.describe("c"); *d.Status != "IN_PROGRESS" {
					t.Errorf("a continuous job ends by itself: %s", *d.Status)
				}
			})
		})
	}
}

// A snapshot is of its things, wherever they are, until they are deleted; then it completes without them.
func TestSnapshotLosesThings(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 3)
		w.create("s", iot.CreateJobRequest{JobExecutionsRolloutConfig: &iot.JobExecutionsRolloutConfig{MaximumPerMinute: new(int32(2))}}, group("g"))
		w.waitCounts("s", "2 QUEUED")
		w.join("g", "g-0", false, true)
		w.join("g", "new", true, true)
		w.drop("g-1", true)
		w.waitCounts("s", "1 QUEUED 1 REMOVED")
		w.drop("g-2", true) // has none yet
		w.accepted("g-0", "s/update", `{"status":"SUCCEEDED"}`)
		w.waitStatus("s", "COMPLETED")
		w.waitCounts("s", "1 SUCCEEDED 1 REMOVED")
	})
}

// A continuous job with an end completes once its executions have ended.
func TestContinuousEnds(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 1)
		end := w.clock().Add(2 * time.Hour).UTC().Format(time.RFC3339)
		w.create("c", iot.CreateJobRequest{TargetSelection: new("CONTINUOUS"), SchedulingConfig: &iot.SchedulingConfig{
			StartTime: new(w.clock().Add(time.Hour).UTC().Format(time.RFC3339)), EndTime: &end, EndBehavior: new("STOP_ROLLOUT"),
		}}, group("g"))
		w.join("g", "early", true, true)
		w.pass(time.Hour)
		w.waitCounts("c", "2 QUEUED")
		w.pass(time.Hour)
		w.join("g", "late", true, true)
		w.accepted("g-0", "c/update", `{"status":"SUCCEEDED"}`)
		w.accepted("early", "c/update", `{"status":"FAILED"}`)
		w.waitStatus("c", "COMPLETED")
		w.waitCounts("c", "1 SUCCEEDED 1 FAILED")
	})
}
