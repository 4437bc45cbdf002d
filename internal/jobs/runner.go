package jobs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/jobs/rollout"
	"flotilla/internal/store"
)

const (
	// batch is how many executions a step's transaction starts or ends.
	batch = 250
	// recent is how far back a node that begins to lead looks for executions whose things may not have been told.
	recent = time.Minute
)

// Run moves rollouts on while this node leads, until ctx ends.
func (j *Jobs) Run(ctx context.Context) {
	j.DB.Lead(ctx, "jobs", j.lead)
}

func (j *Jobs) lead(ctx context.Context) {
	tick := time.NewTicker(j.cfg.Poll)
	defer tick.Stop()
	j.marks.lead(true)
	defer j.marks.lead(false)
	j.tellRecent(ctx)
	var s sweep
	purge := purge{Jobs: j}
	for {
		more := false
		var err error
		for _, part := range []func(context.Context) (bool, error){func(ctx context.Context) (bool, error) { return j.follow(ctx, &s) }, purge.step, j.step} {
			m, partErr := part(ctx)
			if err = partErr; err != nil {
				break
			}
			more = more || m
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			j.Log.Error("rollouts stand still", "err", err)
			more = false
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-j.wake:
		}
	}
}

// tellRecent tells things of executions that were queued by a node that may have ended before it told them.
func (j *Jobs) tellRecent(ctx context.Context) {
	after := ""
	for ctx.Err() == nil {
		var tell []told
		err := j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
			tell = nil
			list, err := scanExecutions(tx.Query(`SELECT `+executionColumns+` FROM job_execution WHERE status = 'QUEUED' AND latest AND queued > $1 AND thing > $2
				ORDER BY thing LIMIT $3`, j.nowMS()-recent.Milliseconds(), after, batch))
			for _, e := range list {
				b, err := getJob(tx, e.jobID)
				if err != nil {
					return err
				}
				tell = append(tell, told{thing: e.thing, space: b.space()})
			}
			return err
		})
		if err != nil {
			j.Log.Warn("things can't be told of their jobs", "err", err)
			return
		}
		for _, t := range slices.Compact(tell) {
			j.tell(ctx, t)
			after = t.thing
		}
		if len(tell) < batch {
			return
		}
	}
}

// step takes one step of each job that has one to take; more tells that a further step may be taken at once.
func (j *Jobs) step(ctx context.Context) (more bool, err error) {
	if more, err = j.timeOut(ctx); err != nil {
		return false, err
	}
	for _, status := range []string{scheduled, inProgress, canceled, deleting} {
		after := ""
		for {
			ids, err := j.active(ctx, status, after)
			if err != nil {
				return false, err
			}
			for _, id := range ids {
				m, err := j.move(ctx, id)
				if err != nil {
					return false, err
				}
				more, after = more || m, id
			}
			if len(ids) < batch {
				break
			}
		}
	}
	return more, nil
}

// active are jobs of a status that may have a step to take: of those that are canceled, only with executions to end.
func (j *Jobs) active(ctx context.Context, status, after string) (ids []string, err error) {
	query := `SELECT job_id FROM job WHERE status = $1 AND job_id > $2`
	if status == canceled {
		query += ` AND EXISTS (SELECT 1 FROM job_count c WHERE c.job_id = job.job_id AND c.n > 0 AND (c.status = 'QUEUED' OR c.status = 'IN_PROGRESS' AND job.force_canceled))`
	}
	err = j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		ids = nil
		rows, err := tx.Query(query+` ORDER BY job_id LIMIT $3`, status, after, batch)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return errors.Join(rows.Err(), rows.Close())
	})
	return ids, err
}

// move takes the next step of one job.
func (j *Jobs) move(ctx context.Context, id string) (more bool, err error) {
	b, err := j.readJob(ctx, id)
	if _, gone := errors.AsType[*iot.ResourceNotFoundException](err); gone {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if b.status == inProgress || b.status == scheduled {
		if more, err := j.expand(ctx, b); more || err != nil {
			return more, err
		}
		if b.telling != nil {
			return true, j.tellOfWindow(ctx, b)
		}
		if idle, err := j.idle(ctx, b); idle || err != nil {
			return false, err
		}
	}
	var tell []told
	err = j.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		tell, more = nil, false
		b, err := getJob(tx, id) // as it is now
		if err != nil {
			return err
		}
		switch b.status {
		case scheduled, inProgress:
			tell, more, err = j.roll(ctx, tx, b)
		case canceled:
			tell, more, err = j.endAll(ctx, tx, b, canceled)
		case deleting:
			tell, more, err = j.erase(ctx, tx, b)
		}
		return err
	})
	if _, gone := errors.AsType[*iot.ResourceNotFoundException](err); gone {
		return false, nil
	}
	if errors.Is(err, errRaced) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for _, t := range tell {
		j.tell(ctx, t)
	}
	return more, nil
}

// expand brings a page of the things of a target into job_waiting.
func (j *Jobs) expand(ctx context.Context, b *job) (more bool, err error) {
	var target, position string
	err = j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		return tx.QueryRow(`SELECT target, position FROM job_target WHERE job_id = $1 AND NOT expanded ORDER BY target LIMIT 1`, b.id).Scan(&target, &position)
	})
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	things, nextPosition := []string{}, ""
	if thing, ok := strings.CutPrefix(target, j.thingARN("")); ok {
		things = append(things, thing)
	} else {
		group := strings.TrimPrefix(target, j.Account.ARN("iot", "thinggroup/"))
		in := &iot.ListThingsInThingGroupRequest{ThingGroupName: group, Recursive: new(true), MaxResults: new(int32(batch))}
		if position != "" {
			in.NextToken = &position
		}
		out, err := j.Things.ListThingsInThingGroup(ctx, in)
		if _, gone := errors.AsType[*iot.ResourceNotFoundException](err); !gone && err != nil {
			return false, err
		} else if !gone {
			things, nextPosition = out.Things, value(out.NextToken)
		}
	}
	err = j.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		n, err := tx.Exec(`UPDATE job_target SET position = $3, expanded = $4 WHERE job_id = $1 AND target = $2 AND position = $5 AND NOT expanded`,
			b.id, target, nextPosition, nextPosition == "", position)
		if err != nil || n != 1 { // another node was quicker, or the job was canceled
			return err
		}
		for _, t := range things {
			if missing, err := missing(tx, b.id, t); err != nil {
				return err
			} else if !missing {
				continue
			}
			if _, err := tx.Exec(`INSERT INTO job_waiting (job_id, thing) VALUES ($1, $2)`, b.id, t); err != nil {
				return err
			}
		}
		return nil
	})
	return err == nil, err
}

// idle tells that roll would do nothing, so that jobs which wait for their things cost no write.
func (j *Jobs) idle(ctx context.Context, b *job) (idle bool, err error) {
	schedule, err := rollout.ParseSchedule(b.def.SchedulingConfig, time.Time{}, rollout.Bounds{})
	if err != nil {
		return false, err
	}
	now := j.cfg.Now()
	err = j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		c, err := counts(tx, b.id)
		if err != nil {
			return err
		}
		next, err := waiting(tx, b.id, 1)
		if err != nil {
			return err
		}
		_, abort := rollout.Aborts(b.def.AbortConfig, c)
		switch {
		case abort, schedule.Ended(now) && schedule.EndBehavior != iot.JobEndBehaviorStopRollout, b.statusAt(schedule, now) != b.status:
		case len(next) > 0:
			idle = !schedule.Open(now) && !schedule.Ended(now) || b.pace.Allowed(rollout.PerMinute(b.def.JobExecutionsRolloutConfig, c, j.cfg.MaxPerMinute), now) == 0
		case !schedule.Started(time.UnixMilli(b.created), now):
			idle = true
		default:
			idle = !b.ends(schedule, now) || c.Open() > 0
		}
		return nil
	})
	return idle, err
}

// roll starts executions as rate and schedule allow, aborts the job and completes it.
func (j *Jobs) roll(ctx context.Context, tx store.Tx, b *job) (tell []told, more bool, err error) {
	now := j.cfg.Now()
	schedule, err := rollout.ParseSchedule(b.def.SchedulingConfig, time.Time{}, rollout.Bounds{})
	if err != nil {
		return nil, false, err
	}
	c, err := counts(tx, b.id)
	if err != nil {
		return nil, false, err
	}
	if a, abort := rollout.Aborts(b.def.AbortConfig, c); abort {
		b.reason, b.comment = new("ABORT_CRITERIA_MET"), new("Too many executions ended as "+a.FailureType+".")
		return nil, true, j.cancel(ctx, tx, b, false)
	}
	if schedule.Ended(now) {
		if over, err := j.endSchedule(ctx, tx, b, schedule); over || err != nil {
			return nil, true, err
		}
	}
	if status := b.statusAt(schedule, now); status != b.status {
		if turned, err := j.turn(ctx, tx, b, status, c); !turned || err != nil {
			return nil, true, err
		}
		more = true
	}
	if !schedule.Started(time.UnixMilli(b.created), now) {
		return nil, more, nil
	}
	if schedule.Open(now) {
		allowed := b.pace.Allowed(rollout.PerMinute(b.def.JobExecutionsRolloutConfig, c, j.cfg.MaxPerMinute), now)
		if tell, err = j.start(tx, b, int(min(allowed, batch))); err != nil {
			return nil, false, err
		}
		if len(tell) > 0 {
			b.pace = b.pace.Release(int64(len(tell)), now)
			_, err := tx.Exec(`UPDATE job SET pace_minute = $2, pace_released = $3 WHERE job_id = $1`, b.id, b.pace.Minute, b.pace.Released)
			return tell, true, err
		}
	}
	return nil, more, j.complete(ctx, tx, b, c, schedule)
}

// start queues executions for things that wait.
func (j *Jobs) start(tx store.Tx, b *job, n int) ([]told, error) {
	if n <= 0 {
		return nil, nil
	}
	things, err := waiting(tx, b.id, n)
	if err != nil {
		return nil, err
	}
	var out []told
	for _, thing := range things {
		var others int
		if err := tx.QueryRow(`SELECT COUNT(*)`+unended, thing).Scan(&others); err != nil {
			return nil, err
		}
		if others >= j.cfg.MaxExecutions {
			continue
		}
		t := told{thing: thing, space: b.space()}
		if others > 0 {
			if t.head, err = headOf(tx, thing, t.space); err != nil {
				return nil, err
			}
		}
		now := j.nowMS()
		e := &execution{thing: thing, jobID: b.id, number: 1, status: queued, version: 1, queued: now, modified: now}
		_, err = tx.Exec(`DELETE FROM job_waiting WHERE job_id = $1 AND thing = $2`, b.id, thing)
		if b.selection == iot.TargetSelectionContinuous && err == nil {
			e.number, err = afterRemoved(tx, b.id, thing)
		}
		if err := errors.Join(err, insertExecution(tx, e)); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	if len(out) > 0 {
		err = count(tx, b.id, queued, int64(len(out)))
	}
	return out, err
}

// afterRemoved gives the number of the next execution of a thing, which follows one that was removed when the thing left
// the target, if there is one.
func afterRemoved(tx store.Tx, jobID, thing string) (int64, error) {
	old, err := latest(tx, thing, jobID, nil)
	if errors.Is(err, store.ErrNotFound) {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	_, err = tx.Exec(`UPDATE job_execution SET latest = $4 WHERE thing = $1 AND job_id = $2 AND number = $3`, thing, jobID, old.number, false)
	return old.number + 1, errors.Join(err, count(tx, jobID, old.status, -1))
}

func waiting(tx store.Tx, jobID string, n int) (things []string, err error) {
	rows, err := tx.Query(`SELECT thing FROM job_waiting WHERE job_id = $1 ORDER BY thing LIMIT $2`, jobID, n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var t string
		if err := rows.Scan(&t); err != nil {
			return nil, err
		}
		things = append(things, t)
	}
	return things, errors.Join(rows.Err(), rows.Close())
}

// ends tells whether a job ends once it has nothing left to do: a continuous one does when its schedule is over.
func (b *job) ends(s *rollout.Schedule, now time.Time) bool {
	return b.selection == iot.TargetSelectionSnapshot || s.Ended(now)
}

// complete ends a job that has nothing left to do.
func (j *Jobs) complete(ctx context.Context, tx store.Tx, b *job, c rollout.Counts, s *rollout.Schedule) error {
	if !b.ends(s, j.cfg.Now()) || c.Open() > 0 {
		return nil
	}
	var left int64
	err := tx.QueryRow(`SELECT (SELECT COUNT(*) FROM job_target WHERE job_id = $1 AND NOT expanded) + (SELECT COUNT(*) FROM (SELECT 1 FROM job_waiting WHERE job_id = $1 LIMIT 1) w)`, b.id).Scan(&left)
	if err != nil || left > 0 {
		return err
	}
	b.status, b.modified = completed, j.nowMS()
	b.completed = &b.modified
	return errors.Join(saveJob(tx, b), j.jobEvent(ctx, tx, b, jobCompleted))
}

// endSchedule does what the schedule's end behaviour says; over tells that it has canceled the job. Otherwise nothing
// starts any more, and what has goes on, within maintenance windows if there are.
func (j *Jobs) endSchedule(ctx context.Context, tx store.Tx, b *job, s *rollout.Schedule) (over bool, err error) {
	if s.EndBehavior != iot.JobEndBehaviorStopRollout {
		b.reason = new("END_TIME_REACHED")
		return true, j.cancel(ctx, tx, b, s.EndBehavior == iot.JobEndBehaviorForceCancel)
	}
	_, err = tx.Exec(`DELETE FROM job_waiting WHERE job_id = $1`, b.id)
	return false, err
}

// endAll ends a batch of the executions of a job: those that are queued, and with force those in progress.
func (j *Jobs) endAll(ctx context.Context, tx store.Tx, b *job, status string) (tell []told, more bool, err error) {
	query := `SELECT ` + executionColumns + ` FROM job_execution WHERE job_id = $1 AND latest AND status = 'QUEUED' LIMIT $2`
	if b.forced {
		query = strings.Replace(query, `= 'QUEUED'`, `IN ('QUEUED', 'IN_PROGRESS')`, 1)
	}
	list, err := scanExecutions(tx.Query(query, b.id, batch))
	if err != nil {
		return nil, false, err
	}
	for _, e := range list {
		t, err := beforeChange(tx, b, e.thing)
		if err != nil {
			return nil, false, err
		}
		was := e.status
		e.status, e.forced, e.modified = status, was == inProgress, j.nowMS()
		if err := j.save(ctx, tx, e, was); err != nil {
			return nil, false, err
		}
		tell = append(tell, t)
	}
	if len(list) > 0 {
		err = j.canceledEvent(ctx, tx, b)
	}
	return tell, len(list) == batch, err
}

// erase deletes a batch of what there is of a job, the job itself at last.
func (j *Jobs) erase(ctx context.Context, tx store.Tx, b *job) (tell []told, more bool, err error) {
	list, err := scanExecutions(tx.Query(`SELECT `+executionColumns+` FROM job_execution WHERE job_id = $1 AND latest LIMIT $2`, b.id, batch))
	if err != nil {
		return nil, false, err
	}
	for _, e := range list {
		if e.pending() {
			t, err := beforeChange(tx, b, e.thing)
			if err != nil {
				return nil, false, err
			}
			tell = append(tell, t)
		}
		if err := j.executionEvent(ctx, e, jobDeleted); err != nil {
			return nil, false, err
		}
		if _, err := tx.Exec(`DELETE FROM job_execution WHERE job_id = $1 AND thing = $2`, b.id, e.thing); err != nil {
			return nil, false, err
		}
	}
	if len(list) > 0 {
		return tell, true, nil
	}
	if err := j.jobEvent(ctx, tx, b, jobDeleted); err != nil {
		return nil, false, err
	}
	for _, table := range []string{"job_count", "job_target", "job_waiting", "job"} {
		if _, err := tx.Exec(`DELETE FROM `+table+` WHERE job_id = $1`, b.id); err != nil {
			return nil, false, err
		}
	}
	return nil, false, nil
}

// timeOut ends a batch of executions whose time is over.
func (j *Jobs) timeOut(ctx context.Context) (more bool, err error) {
	due := func(tx store.Tx) ([]*execution, error) {
		return scanExecutions(tx.Query(`SELECT `+executionColumns+` FROM job_execution WHERE due IS NOT NULL AND due <= $1 ORDER BY due LIMIT $2`, j.nowMS(), batch))
	}
	none := false
	err = j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		list, err := due(tx)
		none = len(list) == 0
		return err
	})
	if err != nil || none {
		return false, err
	}
	var tell []told
	err = j.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		tell = nil
		list, err := due(tx)
		if err != nil {
			return err
		}
		more = len(list) == batch
		for _, e := range list {
			b, err := getJob(tx, e.jobID)
			if err != nil {
				return err
			}
			t, err := beforeChange(tx, b, e.thing)
			if err != nil {
				return err
			}
			was := e.status
			e.status, e.modified = timedOut, j.nowMS()
			if err := errors.Join(j.save(ctx, tx, e, was), j.ended(tx, b, e)); err != nil {
				return err
			}
			tell = append(tell, t)
		}
		return nil
	})
	if errors.Is(err, errRaced) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for _, t := range tell {
		j.tell(ctx, t)
	}
	return more, nil
}

// ended follows an execution that the thing, or its silence, has ended: with another one if the job says so.
func (j *Jobs) ended(tx store.Tx, b *job, e *execution) error {
	if e.pending() || b.over() || b.def.JobExecutionsRetryConfig == nil {
		return nil
	}
	var failures, timeOuts int
	err := tx.QueryRow(`SELECT COUNT(CASE WHEN status = 'FAILED' THEN 1 END), COUNT(CASE WHEN status = 'TIMED_OUT' THEN 1 END) FROM job_execution
		WHERE thing = $1 AND job_id = $2 AND number < $3`, e.thing, e.jobID, e.number).Scan(&failures, &timeOuts)
	if err != nil || !rollout.Retries(b.def.JobExecutionsRetryConfig, e.status, failures, timeOuts) {
		return err
	}
	if _, err := tx.Exec(`UPDATE job_execution SET latest = $4 WHERE thing = $1 AND job_id = $2 AND number = $3`, e.thing, e.jobID, e.number, false); err != nil {
		return err
	}
	now := j.nowMS()
	again := &execution{thing: e.thing, jobID: e.jobID, number: e.number + 1, status: queued, version: 1, queued: now, modified: now}
	return errors.Join(insertExecution(tx, again), count(tx, e.jobID, e.status, -1), count(tx, e.jobID, queued, 1))
}
