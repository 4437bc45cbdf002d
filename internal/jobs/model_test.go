package jobs_test

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// modelExecution is an execution as the reference has it.
type modelExecution struct {
	job      string
	number   int64
	status   string
	version  int64
	queued   time.Time
	deadline time.Time
	retries  int // that are left
}

func (e *modelExecution) pending() bool { return e.status == "QUEUED" || e.status == "IN_PROGRESS" }

// model is the reference of the execution state machine: the executions of one thing.
type model struct {
	now time.Time
	all []*modelExecution
}

const modelTimeout = 10 * time.Minute

func (m *model) queue(job string, number int64, retries int) {
	m.all = append(m.all, &modelExecution{job: job, number: number, status: "QUEUED", version: 1, queued: m.now, retries: retries})
}

// latest is the last execution of a job.
func (m *model) latest(job string) (found *modelExecution) {
	for _, e := range m.all {
		if e.job == job && (found == nil || e.number > found.number) {
			found = e
		}
	}
	return found
}

// next is what the thing is to do: what is in progress before what is queued, the oldest first, of equal ones by the job.
func (m *model) next() (found *modelExecution) {
	for _, e := range m.all {
		if e.pending() && (found == nil || cmp.Or(cmp.Compare(rank(e), rank(found)), e.queued.Compare(found.queued), cmp.Compare(e.job, found.job)) < 0) {
			found = e
		}
	}
	return found
}

func rank(e *modelExecution) int { return map[string]int{"IN_PROGRESS": 0, "QUEUED": 1}[e.status] }

// to moves an execution to a status, and queues its retry.
func (m *model) to(e *modelExecution, status string) {
	if e.status == "QUEUED" && status != "CANCELED" {
		e.deadline = m.now.Add(modelTimeout)
	}
	e.status, e.version = status, e.version+1
	if (status == "FAILED" || status == "TIMED_OUT") && e.retries > 0 {
		m.queue(e.job, e.number+1, e.retries-1)
	}
}

// pass ends what runs out of time.
func (m *model) pass(d time.Duration) {
	m.now = m.now.Add(d)
	for _, e := range slices.Clone(m.all) {
		if e.status == "IN_PROGRESS" && !m.now.Before(e.deadline) {
			m.to(e, "TIMED_OUT")
		}
	}
}

// cancel ends what a canceled job has queued, with force also what is in progress; nothing of it is tried again.
func (m *model) cancel(job string, force bool) {
	for _, e := range m.all {
		if e.job != job {
			continue
		}
		e.retries = 0
		if e.status == "QUEUED" || e.status == "IN_PROGRESS" && force {
			m.to(e, "CANCELED")
		}
	}
}

// forget deletes executions.
func (m *model) forget(which func(*modelExecution) bool) { m.all = slices.DeleteFunc(m.all, which) }

// update is what the thing's update is answered with: "" or the code of a refusal.
func (m *model) update(e *modelExecution, status string, expected int64) string {
	switch {
	case e == nil:
		return "ResourceNotFound"
	case expected != 0 && expected != e.version:
		return "VersionMismatch"
	case !e.pending():
		return "InvalidStateTransition"
	}
	m.to(e, status)
	return ""
}

// Random operations lead the room and a reference to the same executions.
func TestModel(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.fleet("m", 1)
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
				w.t = t
				run(t, w, rand.New(rand.NewPCG(seed, 1)), fmt.Sprintf("s%d", seed))
			})
		}
	})
}

func run(t *testing.T, w *world, r *rand.Rand, prefix string) {
	const name = "m-0"
	m := &model{now: w.clock()}
	pass := func(d time.Duration) { w.pass(d); m.pass(d) }
	var ids []string
	canceled, deleted := map[string]bool{}, map[string]bool{}
	for step := range 200 {
		pass(time.Second)                                             // no two things happen at once
		same(t, w, m, name, ids, fmt.Sprintf("step %d begins", step)) // timers have done their work
		if len(ids) < 3 || r.IntN(12) == 0 {
			id := fmt.Sprintf("%s-%d", prefix, len(ids))
			ids = append(ids, id)
			w.create(id, iot.CreateJobRequest{
				TimeoutConfig:            &iot.TimeoutConfig{InProgressTimeoutInMinutes: new(int64(modelTimeout.Minutes()))},
				JobExecutionsRetryConfig: &iot.JobExecutionsRetryConfig{CriteriaList: []*iot.RetryCriteria{{FailureType: "ALL", NumberOfRetries: 2}}},
			}, thing(name))
			w.waitCounts(id, "1 QUEUED")
			m.queue(id, 1, 2)
		}
		id := ids[r.IntN(len(ids))]
		e := m.latest(id)
		did := ""
		switch r.IntN(10) {
		case 0:
			did = "start-next"
			a := w.accepted(name, "start-next", ``)
			n := m.next()
			if (n == nil) != (a["execution"] == nil) {
				t.Fatalf("step %d: start-next gives %v, the reference %+v", step, a, n)
			}
			if n != nil {
				if n.status == "QUEUED" {
					m.to(n, "IN_PROGRESS")
				}
				if x := a["execution"].(map[string]any); x["jobId"] != n.job || x["executionNumber"] != float64(n.number) || x["versionNumber"] != float64(n.version) {
					t.Fatalf("step %d: start-next gives %v, the reference %+v", step, x, n)
				}
			}
		case 1, 2, 3:
			status := []string{"IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"}[r.IntN(5)]
			version := int64(1)
			if e != nil {
				version = e.version
			}
			expected := []int64{0, 0, version, version + 1}[r.IntN(4)]
			did = fmt.Sprintf("update of %s to %s, version %d", id, status, expected)
			payload := fmt.Sprintf(`{"status":%q}`, status)
			if expected != 0 {
				payload = fmt.Sprintf(`{"status":%q,"expectedVersion":%d}`, status, expected)
			}
			if code := m.update(e, status, expected); code == "" {
				w.accepted(name, id+"/update", payload)
			} else {
				w.refused(name, id+"/update", payload, code)
			}
		case 4:
			force := r.IntN(2) == 0
			did = fmt.Sprintf("cancellation of %s, force %v", id, force)
			_, err := w.CancelJobExecution(t.Context(), &iot.CancelJobExecutionRequest{JobId: id, ThingName: name, Force: &force})
			if may := e != nil && (e.status == "QUEUED" || e.status == "IN_PROGRESS" && force); may != (err == nil) {
				t.Fatalf("step %d: %s: %v, the reference %+v", step, did, err, e)
			} else if may {
				m.to(e, "CANCELED")
			}
		case 5:
			did = "time passes"
			pass(time.Duration(r.IntN(5)) * time.Minute)
		case 6, 7:
			if e == nil {
				continue
			}
			force := r.IntN(2) == 0
			did = fmt.Sprintf("deletion of %s/%d, force %v", id, e.number, force)
			_, err := w.DeleteJobExecution(t.Context(), &iot.DeleteJobExecutionRequest{JobId: id, ThingName: name, ExecutionNumber: e.number, Force: &force})
			if may := force || !e.pending(); may != (err == nil) {
				t.Fatalf("step %d: %s: %v, the reference %+v", step, did, err, e)
			} else if may {
				m.forget(func(x *modelExecution) bool { return x == e })
			}
		case 8:
			force := r.IntN(2) == 0
			did = fmt.Sprintf("cancellation of the job %s, force %v", id, force)
			// One that has nothing left may be COMPLETED, or be on the way to that.
			if _, err := w.CancelJob(t.Context(), &iot.CancelJobRequest{JobId: id, Force: &force}); err != nil && e != nil && e.pending() && !canceled[id] {
				t.Fatalf("step %d: %s: %v, the reference %+v", step, did, err, e)
			} else if err == nil {
				canceled[id] = true
				m.cancel(id, force)
			}
		case 9:
			if r.IntN(4) > 0 {
				continue
			}
			did = "deletion of the job " + id
			if _, err := w.DeleteJob(t.Context(), &iot.DeleteJobRequest{JobId: id, Force: new(true)}); err != nil && !deleted[id] {
				t.Fatalf("step %d: %s: %v", step, did, err)
			}
			deleted[id] = true
			m.forget(func(x *modelExecution) bool { return x.job == id })
		}
		same(t, w, m, name, ids, fmt.Sprintf("step %d: %s", step, did))
	}
	for _, id := range ids { // the next run begins without
		if _, err := w.DeleteJob(t.Context(), &iot.DeleteJobRequest{JobId: id, Force: new(true)}); err != nil && !deleted[id] {
			t.Fatal(err)
		}
		w.eventually("it is deleted", func() bool {
			_, err := w.DescribeJob(t.Context(), &iot.DescribeJobRequest{JobId: id})
			return err != nil
		})
	}
}

// same waits for the room to have the executions that the reference has: timers are the runner's.
func same(t *testing.T, w *world, m *model, name string, ids []string, did string) {
	t.Helper()
	want := ""
	for _, id := range ids {
		e := m.latest(id)
		if e == nil {
			want += id + " none\n"
			continue
		}
		want += fmt.Sprintf("%s/%d %s v%d\n", id, e.number, e.status, e.version)
	}
	got := ""
	for deadline := time.Now().Add(patience); got != want; {
		got = ""
		for _, id := range ids {
			out, err := w.DescribeJobExecution(t.Context(), &iot.DescribeJobExecutionRequest{JobId: id, ThingName: name})
			if _, none := errors.AsType[*iot.ResourceNotFoundException](err); none {
				got += id + " none\n"
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			got += fmt.Sprintf("%s/%d %s v%d\n", id, *out.Execution.ExecutionNumber, *out.Execution.Status, *out.Execution.VersionNumber)
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s:\n%sthe reference:\n%s", did, got, want)
		}
	}
}
