package jobs

import (
	"context"
	"errors"
	"time"

	"flotilla/internal/jobs/rollout"
	"flotilla/internal/store"
)

// statusAt is what the schedule makes of a job that is not over: IN_PROGRESS from its start on, but SCHEDULED between
// maintenance windows. These count on after the end, for what is still queued then.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-jobs-lifecycle.html
func (b *job) statusAt(s *rollout.Schedule, now time.Time) string {
	if s.Started(time.UnixMilli(b.created), now) && s.InWindow(now) {
		return inProgress
	}
	return scheduled
}

// turn gives a job that is not over its other status, and has its things told if that shows or hides what is queued.
// A job that would begin to roll out while as many do as may is canceled; turned is false then.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/job-limits.html#job-limits-active-concurrent
func (j *Jobs) turn(ctx context.Context, tx store.Tx, b *job, status string, c rollout.Counts) (turned bool, err error) {
	if status == inProgress {
		left, err := hasTargets(tx, b.id)
		if err != nil {
			return false, err
		}
		if full, err := j.full(tx); left && full || err != nil {
			b.reason, b.comment = new("CONCURRENCY_LIMIT_REACHED"), new("As many jobs were rolling out as may when this one was to start.")
			return false, errors.Join(err, j.cancel(ctx, tx, b, false))
		}
	}
	b.status, b.modified = status, j.nowMS()
	if c.Queued > 0 {
		b.telling = new("")
	}
	return true, saveJob(tx, b)
}

// hasTargets tells whether a job has things to be found or told yet.
func hasTargets(tx store.Tx, jobID string) (has bool, err error) {
	err = tx.QueryRow(`SELECT EXISTS (SELECT 1 FROM job_target WHERE job_id = $1 AND NOT expanded) OR EXISTS (SELECT 1 FROM job_waiting WHERE job_id = $1)`, jobID).Scan(&has)
	return has, err
}

// tellOfWindow tells a batch of the things with a queued execution of a job that it has come into sight, or gone out of
// it.
func (j *Jobs) tellOfWindow(ctx context.Context, b *job) error {
	var tell []told
	err := j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		tell = nil
		list, err := scanExecutions(tx.Query(`SELECT `+executionColumns+` FROM job_execution WHERE job_id = $1 AND latest AND status = 'QUEUED' AND thing > $2
			ORDER BY thing LIMIT $3`, b.id, *b.telling, batch))
		for _, e := range list {
			// Its head has changed if that is, or was, this execution.
			first, err := scanExecutions(tx.Query(`SELECT `+executionColumns+shown+` OR b.job_id = $3))`+inTurn+` LIMIT 1`, e.thing, b.space(), b.id))
			if err != nil {
				return err
			}
			t := told{thing: e.thing, space: b.space(), head: "changed"}
			if len(first) > 0 && first[0].jobID != b.id {
				t.head = first[0].key()
			}
			tell = append(tell, t)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, t := range tell {
		j.tell(ctx, t)
	}
	var upTo *string
	if len(tell) == batch {
		upTo = &tell[batch-1].thing
	}
	return j.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`UPDATE job SET telling = $2 WHERE job_id = $1 AND telling = $3`, b.id, upTo, *b.telling)
		return err
	})
}
