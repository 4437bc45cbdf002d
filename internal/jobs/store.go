package jobs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"flotilla/internal/aws/iot"
	"flotilla/internal/jobs/rollout"
	"flotilla/internal/store"
)

// definition is what a job was created with; UpdateJob changes some of it.
type definition struct {
	iot.CreateJobRequest
	Text string `json:"text"` // the job document, before the substitution that is made for each thing
}

// job is a row of job.
type job struct {
	id        string
	def       definition
	status    string
	selection string
	created   int64
	modified  int64
	completed *int64
	forced    bool
	reason    *string
	comment   *string
	pace      rollout.Pace
	telling   *string // a thing: those up to it know that a maintenance window has begun or ended; nil: all do
}

// space is the namespace of a job, "" for most.
func (b *job) space() string { return value(b.def.NamespaceId) }

func (b *job) over() bool {
	return b.status == canceled || b.status == completed || b.status == deleting
}

const jobColumns = `job_id, definition, status, target_selection, created, modified, completed, force_canceled, reason_code, comment, pace_minute, pace_released, telling`

func scanJob(r store.Row) (*job, error) {
	b, text := &job{}, ""
	err := r.Scan(&b.id, &text, &b.status, &b.selection, &b.created, &b.modified, &b.completed, &b.forced, &b.reason, &b.comment, &b.pace.Minute, &b.pace.Released, &b.telling)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(text), &b.def); err != nil {
		return nil, fmt.Errorf("jobs: job %s: %w", b.id, err)
	}
	return b, nil
}

func scanJobs(rows store.Rows, err error) (out []*job, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		b, err := scanJob(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, errors.Join(rows.Err(), rows.Close())
}

// getJob gives iot.ResourceNotFoundException for a job that does not exist.
func getJob(tx store.Tx, id string) (*job, error) {
	b, err := scanJob(tx.QueryRow(`SELECT `+jobColumns+` FROM job WHERE job_id = $1`, id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, noJob(id)
	}
	return b, err
}

func (j *Jobs) readJob(ctx context.Context, id string) (b *job, err error) {
	err = j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		b, err = getJob(tx, id)
		return err
	})
	return b, err
}

func insertJob(tx store.Tx, b *job) error {
	text, err := json.Marshal(b.def)
	if err != nil {
		return err
	}
	windowed := b.def.SchedulingConfig != nil && len(b.def.SchedulingConfig.MaintenanceWindows) > 0
	_, err = tx.Exec(`INSERT INTO job (`+jobColumns+`, namespace, windowed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
		b.id, string(text), b.status, b.selection, b.created, b.modified, b.completed, b.forced, b.reason, b.comment, b.pace.Minute, b.pace.Released, b.telling, b.space(), windowed)
	return err
}

// saveJob writes all that may change of a job.
func saveJob(tx store.Tx, b *job) error {
	text, err := json.Marshal(b.def)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE job SET definition = $2, status = $3, modified = $4, completed = $5, force_canceled = $6, reason_code = $7, comment = $8,
		pace_minute = $9, pace_released = $10, telling = $11 WHERE job_id = $1`,
		b.id, string(text), b.status, b.modified, b.completed, b.forced, b.reason, b.comment, b.pace.Minute, b.pace.Released, b.telling)
	return err
}

func targets(tx store.Tx, jobID string) (out []string, err error) {
	rows, err := tx.Query(`SELECT target FROM job_target WHERE job_id = $1 ORDER BY target`, jobID)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var t string
		if err := rows.Scan(&t); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, errors.Join(rows.Err(), rows.Close())
}

func addTargets(tx store.Tx, jobID string, arns []string) error {
	for _, t := range arns {
		_, err := tx.Exec(`INSERT INTO job_target (job_id, target, position, expanded) VALUES ($1, $2, '', $3) ON CONFLICT (job_id, target) DO NOTHING`, jobID, t, false)
		if err != nil {
			return err
		}
	}
	return nil
}

func counts(tx store.Tx, jobID string) (c rollout.Counts, err error) {
	rows, err := tx.Query(`SELECT status, n FROM job_count WHERE job_id = $1`, jobID)
	if err != nil {
		return c, err
	}
	defer rows.Close()
	fields := map[string]*int64{
		queued: &c.Queued, inProgress: &c.InProgress, succeeded: &c.Succeeded, failed: &c.Failed, rejected: &c.Rejected,
		timedOut: &c.TimedOut, canceled: &c.Canceled, removed: &c.Removed,
	}
	for rows.Next() {
		var status string
		var n int64
		if err := rows.Scan(&status, &n); err != nil {
			return c, err
		}
		if f := fields[status]; f != nil {
			*f = n
		}
	}
	return c, errors.Join(rows.Err(), rows.Close())
}

func count(tx store.Tx, jobID, status string, n int64) error {
	_, err := tx.Exec(`INSERT INTO job_count (job_id, status, n) VALUES ($1, $2, $3) ON CONFLICT (job_id, status) DO UPDATE SET n = job_count.n + excluded.n`, jobID, status, n)
	return err
}

// execution is a row of job_execution.
type execution struct {
	thing, jobID string
	number       int64
	status       string
	version      int64
	queued       int64
	started      *int64
	modified     int64
	details      map[string]string
	forced       bool
	jobDeadline  *int64
	stepDeadline *int64
}

func (e *execution) pending() bool { return e.status == queued || e.status == inProgress }

// due is the earlier deadline.
func (e *execution) due() *int64 {
	if e.status != inProgress {
		return nil
	}
	if e.jobDeadline == nil || e.stepDeadline != nil && *e.stepDeadline < *e.jobDeadline {
		return e.stepDeadline
	}
	return e.jobDeadline
}

const executionColumns = `thing, job_id, number, status, version, queued, started, modified, details, force_canceled, job_deadline, step_deadline`

func scanExecution(r store.Row) (*execution, error) {
	e, details := &execution{}, ""
	err := r.Scan(&e.thing, &e.jobID, &e.number, &e.status, &e.version, &e.queued, &e.started, &e.modified, &details, &e.forced, &e.jobDeadline, &e.stepDeadline)
	if err != nil {
		return nil, err
	}
	if details == "{}" {
		return e, nil
	}
	return e, json.Unmarshal([]byte(details), &e.details)
}

func scanExecutions(rows store.Rows, err error) (out []*execution, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scanExecution(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, errors.Join(rows.Err(), rows.Close())
}

// latest is the execution of a job on a thing that no retry has followed; or, with a number, that one.
// store.ErrNotFound when there is none.
func latest(tx store.Tx, thing, jobID string, number *int64) (*execution, error) {
	if number != nil {
		return scanExecution(tx.QueryRow(`SELECT `+executionColumns+` FROM job_execution WHERE thing = $1 AND job_id = $2 AND number = $3`, thing, jobID, *number))
	}
	return scanExecution(tx.QueryRow(`SELECT `+executionColumns+` FROM job_execution WHERE thing = $1 AND job_id = $2 ORDER BY number DESC LIMIT 1`, thing, jobID))
}

const (
	unended = ` FROM job_execution WHERE thing = $1 AND status IN ('QUEUED', 'IN_PROGRESS')`
	// inTurn is the order in which a thing is to take executions: what is in progress first, each part by age.
	inTurn = ` ORDER BY CASE status WHEN 'IN_PROGRESS' THEN 0 ELSE 1 END, queued, job_id`
	// shown are the executions of a namespace that a thing sees; two parentheses are open at its end. What is queued for a maintenance window shows while the
	// window is open: then the job is not SCHEDULED.
	shown = unended + ` AND EXISTS (SELECT 1 FROM job b WHERE b.job_id = job_execution.job_id AND b.namespace = $2
		AND (b.status <> 'SCHEDULED' OR job_execution.status = 'IN_PROGRESS'`
)

// unfinished are a thing's executions that have not ended.
func unfinished(tx store.Tx, thing string, limit int) ([]*execution, error) {
	return scanExecutions(tx.Query(`SELECT `+executionColumns+unended+inTurn+` LIMIT $2`, thing, limit))
}

// head is the execution that a thing is to take next; nil when there is none.
func head(tx store.Tx, thing, space string) (*execution, error) {
	list, err := scanExecutions(tx.Query(`SELECT `+executionColumns+shown+`))`+inTurn+` LIMIT 1`, thing, space))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// The executions that a thing is shown: so many of jobs without maintenance windows, and so many of others.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/job-limits.html
const (
	maxListed         = 10
	maxListedInWindow = 5
)

// listed are the executions that a thing is shown.
func listed(tx store.Tx, thing, space string) (out []*execution, err error) {
	for windowed, most := range map[bool]int{false: maxListed, true: maxListedInWindow} {
		list, err := scanExecutions(tx.Query(`SELECT `+executionColumns+shown+`) AND b.windowed = $3)`+inTurn+fmt.Sprintf(` LIMIT %d`, most), thing, space, windowed))
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	rank := func(e *execution) int64 {
		if e.status == inProgress {
			return 0
		}
		return 1
	}
	slices.SortFunc(out, func(a, b *execution) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.queued, b.queued), cmp.Compare(a.jobID, b.jobID))
	})
	return out, nil
}

func insertExecution(tx store.Tx, e *execution) error {
	_, err := tx.Exec(`INSERT INTO job_execution (`+executionColumns+`, latest, due) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		e.thing, e.jobID, e.number, e.status, e.version, e.queued, e.started, e.modified, detailsText(e.details), e.forced, e.jobDeadline, e.stepDeadline, true, e.due())
	return err
}

// errRaced says that an execution has changed since it was read: on another node.
var errRaced = errors.New("jobs: the execution was changed meanwhile")

// saveExecution writes e, whose version counts on, if the row still has the version that it had, and counts its status.
func saveExecution(tx store.Tx, e *execution, was string) error {
	e.version++
	n, err := tx.Exec(`UPDATE job_execution SET status = $4, version = $5, started = $6, modified = $7, details = $8, force_canceled = $9, job_deadline = $10,
		step_deadline = $11, due = $12 WHERE thing = $1 AND job_id = $2 AND number = $3 AND version = $13`,
		e.thing, e.jobID, e.number, e.status, e.version, e.started, e.modified, detailsText(e.details), e.forced, e.jobDeadline, e.stepDeadline, e.due(), e.version-1)
	if err != nil {
		return err
	}
	if n != 1 {
		return errRaced
	}
	if was == e.status {
		return nil
	}
	return errors.Join(count(tx, e.jobID, was, -1), count(tx, e.jobID, e.status, 1))
}

func detailsText(d map[string]string) string {
	if len(d) == 0 {
		return "{}"
	}
	b, _ := json.Marshal(d) // of strings: it can't fail
	return string(b)
}

// retrying writes, and writes again when another node was quicker.
func (j *Jobs) retrying(ctx context.Context, fn store.Func) error {
	for range 5 {
		if err := j.DB.Write(ctx, fn); !errors.Is(err, errRaced) {
			return err
		}
	}
	return errRaced
}
