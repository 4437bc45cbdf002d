package jobs_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
)

// day is a schedule with a window from 9 to 10 each day; the clock of the world begins at 8.
func day(cfg iot.SchedulingConfig) *iot.SchedulingConfig {
	cfg.MaintenanceWindows = []*iot.MaintenanceWindow{{StartTime: "cron(0 9 * * ? *)", DurationInMinutes: 60}}
	return &cfg
}

func (w *world) at(hour string) time.Duration {
	w.t.Helper()
	now := w.clock().UTC()
	then, err := time.Parse("2006-01-02 15:04", now.Format("2006-01-02 ")+hour)
	if err != nil {
		w.t.Fatal(err)
	}
	if then.Before(now) {
		then = then.Add(24 * time.Hour)
	}
	return then.Sub(now)
}

// What a job with maintenance windows has queued shows while one is open; what is in progress may be ended at any time.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/jobs-comm-notifications.html
func TestMaintenanceWindow(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 3)
		w.create("plain", iot.CreateJobRequest{}, thing("g-1"))
		w.waitCounts("plain", "1 QUEUED")
		w.create("w", iot.CreateJobRequest{SchedulingConfig: day(iot.SchedulingConfig{})}, group("g"))
		if d := w.describe("w"); *d.Status != "SCHEDULED" || len(d.ScheduledJobRollouts) == 0 || *d.ScheduledJobRollouts[0].StartTime != "2027-01-15T09:00Z" {
			t.Errorf("%+v", d)
		}
		w.pass(w.at("09:00"))
		w.waitCounts("w", "3 QUEUED")
		if s := *w.describe("w").Status; s != "IN_PROGRESS" {
			t.Error(s)
		}
		w.eventually("g-0 is told", func() bool { return len(w.told("g-0", "notify-next")) > 0 })
		w.eventually("g-1 is told", func() bool {
			for _, n := range w.told("g-1", "notify") {
				if len(n["jobs"].(map[string]any)["QUEUED"].([]any)) == 2 {
					return true
				}
			}
			return false
		})
		w.eventually("g-2 is told", func() bool { return len(w.told("g-2", "notify-next")) > 0 })
		w.accepted("g-2", "start-next", ``)
		w.told("g-1", "notify-next")

		w.pass(w.at("10:00"))
		w.waitStatus("w", "SCHEDULED")
		w.eventually("g-0 is told", func() bool { n := w.told("g-0", "notify-next"); return len(n) == 1 && n[0]["execution"] == nil })
		w.eventually("g-1 is told", func() bool { return len(w.told("g-1", "notify")) > 0 })
		if n := w.told("g-1", "notify-next"); len(n) > 0 {
			t.Errorf("its head is the same: %v", n)
		}
		if a := w.accepted("g-0", "get", ``); len(a["queuedJobs"].([]any)) != 0 {
			t.Error(a)
		}
		if a := w.accepted("g-0", "start-next", ``); a["execution"] != nil {
			t.Error(a)
		}
		if a := w.accepted("g-0", "$next/get", ``); a["execution"] != nil {
			t.Error(a)
		}
		if a := w.accepted("g-2", "get", ``); len(a["inProgressJobs"].([]any)) != 1 {
			t.Error(a)
		}
		w.accepted("g-2", "w/update", `{"status":"SUCCEEDED"}`)

		w.pass(w.at("09:00"))
		w.waitStatus("w", "IN_PROGRESS")
		w.eventually("g-0 is told", func() bool { n := w.told("g-0", "notify-next"); return len(n) == 1 && n[0]["execution"] != nil })
		w.accepted("g-0", "start-next", ``)
		w.accepted("g-1", "w/update", `{"status":"SUCCEEDED"}`)
		w.pass(w.at("10:00"))
		w.waitStatus("w", "SCHEDULED")
		w.accepted("g-0", "w/update", `{"status":"SUCCEEDED"}`)
		w.waitStatus("w", "COMPLETED")
		w.waitCounts("w", "3 SUCCEEDED")
	})
}

// At the end of its schedule a job starts nothing more; what it has queued is done in the windows that follow.
func TestMaintenanceWindowAfterTheEnd(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 2)
		end := w.clock().Add(4 * time.Hour).UTC().Format(time.RFC3339)
		w.create("w", iot.CreateJobRequest{
			SchedulingConfig: day(iot.SchedulingConfig{EndTime: &end}), JobExecutionsRolloutConfig: &iot.JobExecutionsRolloutConfig{MaximumPerMinute: new(int32(1))},
		}, group("g"))
		w.pass(w.at("09:00"))
		w.waitCounts("w", "1 QUEUED")
		w.pass(w.at("13:00"))
		w.waitStatus("w", "SCHEDULED")
		w.pass(w.at("09:00"))
		w.waitStatus("w", "IN_PROGRESS")
		if e := w.accepted("g-0", "start-next", ``)["execution"]; e == nil {
			t.Fatal("nothing to do")
		}
		w.accepted("g-0", "w/update", `{"status":"FAILED"}`)
		w.waitStatus("w", "COMPLETED")
		w.waitCounts("w", "1 FAILED")
	})
}

// A thing is shown ten executions and five more of maintenance windows, in progress before queued, the oldest first.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/job-limits.html
func TestListed(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 1)
		w.pass(w.at("09:00"))
		for i := range 7 {
			id := fmt.Sprintf("w%02d", i)
			w.create(id, iot.CreateJobRequest{SchedulingConfig: day(iot.SchedulingConfig{})}, thing("g-0"))
			w.waitCounts(id, "1 QUEUED")
			w.pass(time.Second)
		}
		for i := range 12 {
			id := fmt.Sprintf("p%02d", i)
			w.create(id, iot.CreateJobRequest{}, thing("g-0"))
			w.waitCounts(id, "1 QUEUED")
			w.pass(time.Second)
		}
		w.accepted("g-0", "p11/update", `{"status":"IN_PROGRESS"}`)
		a := w.accepted("g-0", "get", ``)
		got := ""
		for _, list := range []string{"inProgressJobs", "queuedJobs"} {
			for _, e := range a[list].([]any) {
				got += e.(map[string]any)["jobId"].(string) + " "
			}
		}
		if got != "p11 w00 w01 w02 w03 w04 p00 p01 p02 p03 p04 p05 p06 p07 p08 " {
			t.Error(got)
		}
	})
}

// notify tells of each change of the list, notify-next of each change of its head.
func TestNotifications(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.fleet("g", 1)
		for _, id := range []string{"a", "b"} {
			w.create(id, iot.CreateJobRequest{}, thing("g-0"))
			w.waitCounts(id, "1 QUEUED")
			w.pass(time.Second)
		}
		w.eventually("it is told", func() bool { return len(w.told("g-0", "notify")) > 0 })
		expect := func(what string, lists int, heads ...string) {
			t.Helper()
			if n := w.told("g-0", "notify"); len(n) != lists {
				t.Errorf("%s: notify %v", what, n)
			}
			n := w.told("g-0", "notify-next")
			var got []string
			for _, m := range n {
				id := "none"
				if e, ok := m["execution"].(map[string]any); ok {
					id = e["jobId"].(string)
				}
				got = append(got, id)
			}
			if !slices.Equal(got, heads) {
				t.Errorf("%s: notify-next %v, not %v", what, got, heads)
			}
		}
		w.create("z", iot.CreateJobRequest{}, thing("g-0"))
		w.waitCounts("z", "1 QUEUED")
		w.eventually("it is told", func() bool {
			n := w.told("g-0", "notify")
			return len(n) > 0 && len(n[len(n)-1]["jobs"].(map[string]any)["QUEUED"].([]any)) == 3
		})
		w.told("g-0", "notify-next")
		w.accepted("g-0", "start-next", ``)
		expect("its head has begun", 1)
		w.accepted("g-0", "a/update", `{"status":"IN_PROGRESS"}`)
		expect("it goes on", 0)
		w.accepted("g-0", "a/update", `{"status":"SUCCEEDED"}`)
		expect("it has ended", 1, "b")
		w.accepted("g-0", "z/update", `{"status":"IN_PROGRESS"}`)
		expect("another has begun", 1, "z")
		w.accepted("g-0", "z/update", `{"status":"REJECTED"}`)
		expect("that has ended", 1, "b")
		w.accepted("g-0", "b/update", `{"status":"FAILED"}`)
		expect("nothing is left", 1, "none")
	})
}
