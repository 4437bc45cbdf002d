package jobs

import (
	"context"
	"errors"
	"fmt"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// DescribeJobExecution gives an execution, the latest or that of a number. Errors: ResourceNotFoundException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeJobExecution.html
func (j *Jobs) DescribeJobExecution(ctx context.Context, in *iot.DescribeJobExecutionRequest) (*iot.DescribeJobExecutionResponse, error) {
	var e *execution
	err := j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		var err error
		e, err = latest(tx, in.ThingName, in.JobId, in.ExecutionNumber)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, noExecution(in.ThingName, in.JobId)
	}
	if err != nil {
		return nil, err
	}
	out := &iot.JobExecution{
		JobId: &e.jobID, Status: &e.status, ForceCanceled: set(e.forced), ThingArn: new(j.thingARN(e.thing)), QueuedAt: timeOf(&e.queued),
		StartedAt: timeOf(e.started), LastUpdatedAt: timeOf(&e.modified), ExecutionNumber: &e.number, VersionNumber: &e.version,
		StatusDetails: &iot.JobExecutionStatusDetails{DetailsMap: e.details},
	}
	if due := e.due(); due != nil {
		out.ApproximateSecondsBeforeTimedOut = new(max(0, (*due-j.nowMS())/1000))
	}
	return &iot.DescribeJobExecutionResponse{Execution: out}, nil
}

func (e *execution) summary() *iot.JobExecutionSummary {
	return &iot.JobExecutionSummary{
		Status: &e.status, QueuedAt: timeOf(&e.queued), StartedAt: timeOf(e.started), LastUpdatedAt: timeOf(&e.modified),
		ExecutionNumber: &e.number, RetryAttempt: set(int32(e.number - 1)),
	}
}

// ListJobExecutionsForJob lists the latest execution of each thing of a job, by the thing's name.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListJobExecutionsForJob.html
func (j *Jobs) ListJobExecutionsForJob(ctx context.Context, in *iot.ListJobExecutionsForJobRequest) (*iot.ListJobExecutionsForJobResponse, error) {
	p, err := newPage(in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	var list []*execution
	err = j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		if _, err := getJob(tx, in.JobId); err != nil {
			return err
		}
		query, args := `SELECT `+executionColumns+` FROM job_execution WHERE job_id = $1 AND latest AND thing > $2`, []any{in.JobId, p.after}
		if in.Status != nil {
			query, args = query+` AND status = $3`, append(args, *in.Status)
		}
		list, err = scanExecutions(tx.Query(query+fmt.Sprintf(` ORDER BY thing LIMIT %d`, p.size+1), args...))
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &iot.ListJobExecutionsForJobResponse{ExecutionSummaries: []*iot.JobExecutionSummaryForJob{}}
	list, out.NextToken = cut(p, list, func(e *execution) string { return e.thing })
	for _, e := range list {
		out.ExecutionSummaries = append(out.ExecutionSummaries, &iot.JobExecutionSummaryForJob{ThingArn: new(j.thingARN(e.thing)), JobExecutionSummary: e.summary()})
	}
	return out, nil
}

// ListJobExecutionsForThing lists a thing's latest executions by job; with a job all its executions, by number.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListJobExecutionsForThing.html
func (j *Jobs) ListJobExecutionsForThing(ctx context.Context, in *iot.ListJobExecutionsForThingRequest) (*iot.ListJobExecutionsForThingResponse, error) {
	p, err := newPage(in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	if _, err := j.Things.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: in.ThingName}); err != nil {
		return nil, err
	}
	query, args := `SELECT `+executionColumns+` FROM job_execution WHERE thing = $1`, []any{in.ThingName}
	where := func(cond string, v any) {
		args = append(args, v)
		query += fmt.Sprintf(cond, len(args))
	}
	key := func(e *execution) string { return e.jobID }
	order := ` ORDER BY job_id`
	if in.JobId != nil {
		where(` AND job_id = $%d`, *in.JobId)
		where(` AND number > $%d`, numberOf(p.after))
		key = func(e *execution) string { return fmt.Sprint(e.number) }
		order = ` ORDER BY number`
	} else {
		where(` AND latest AND job_id > $%d`, p.after)
	}
	if in.Status != nil {
		where(` AND status = $%d`, *in.Status)
	}
	if in.NamespaceId != nil {
		where(` AND job_id IN (SELECT job_id FROM job WHERE namespace = $%d)`, *in.NamespaceId)
	}
	var list []*execution
	err = j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		list, err = scanExecutions(tx.Query(query+order+fmt.Sprintf(` LIMIT %d`, p.size+1), args...))
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &iot.ListJobExecutionsForThingResponse{ExecutionSummaries: []*iot.JobExecutionSummaryForThing{}}
	list, out.NextToken = cut(p, list, key)
	for _, e := range list {
		out.ExecutionSummaries = append(out.ExecutionSummaries, &iot.JobExecutionSummaryForThing{JobId: &e.jobID, JobExecutionSummary: e.summary()})
	}
	return out, nil
}

func numberOf(token string) (n int64) {
	_, _ = fmt.Sscan(token, &n)
	return n
}

// CancelJobExecution cancels an execution that is queued, or with force also one in progress. Errors: InvalidRequestException,
// InvalidStateTransitionException, VersionConflictException, ResourceNotFoundException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CancelJobExecution.html
func (j *Jobs) CancelJobExecution(ctx context.Context, in *iot.CancelJobExecutionRequest) (*iot.CancelJobExecutionResponse, error) {
	if err := checkDetails(in.StatusDetails); err != nil {
		return nil, invalid("%s", err.(*refusal).message)
	}
	var t told
	err := j.retrying(ctx, func(ctx context.Context, tx store.Tx) error {
		e, err := latest(tx, in.ThingName, in.JobId, nil)
		if errors.Is(err, store.ErrNotFound) {
			return noExecution(in.ThingName, in.JobId)
		} else if err != nil {
			return err
		}
		if in.ExpectedVersion != nil && *in.ExpectedVersion != e.version {
			return &iot.VersionConflictException{Message: fmt.Sprintf("The version of the execution is %d, not %d.", e.version, *in.ExpectedVersion)}
		}
		if !e.pending() || e.status == inProgress && !value(in.Force) {
			return &iot.InvalidStateTransitionException{Message: fmt.Sprintf("The execution is %s.", e.status)}
		}
		b, err := getJob(tx, e.jobID)
		if err != nil {
			return err
		}
		if t, err = beforeChange(tx, b, e.thing); err != nil {
			return err
		}
		was := e.status
		e.status, e.forced, e.modified = canceled, was == inProgress, j.nowMS()
		if in.StatusDetails != nil {
			e.details = in.StatusDetails
		}
		return j.save(ctx, tx, e, was)
	})
	if err != nil {
		return nil, err
	}
	j.stir()
	j.tell(ctx, t)
	return &iot.CancelJobExecutionResponse{}, nil
}

// DeleteJobExecution forgets an execution that has ended, or with force any. Errors: InvalidStateTransitionException,
// ResourceNotFoundException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteJobExecution.html
func (j *Jobs) DeleteJobExecution(ctx context.Context, in *iot.DeleteJobExecutionRequest) (*iot.DeleteJobExecutionResponse, error) {
	var t told
	var e *execution
	err := j.retrying(ctx, func(ctx context.Context, tx store.Tx) error {
		var err error
		if e, err = latest(tx, in.ThingName, in.JobId, &in.ExecutionNumber); errors.Is(err, store.ErrNotFound) {
			return noExecution(in.ThingName, in.JobId)
		} else if err != nil {
			return err
		}
		if e.pending() && !value(in.Force) {
			return &iot.InvalidStateTransitionException{Message: fmt.Sprintf("The execution is %s: delete it with force.", e.status)}
		}
		b, err := getJob(tx, e.jobID)
		if err != nil {
			return err
		}
		if err := b.mustBeIn(in.NamespaceId); err != nil {
			return err
		}
		if t, err = beforeChange(tx, b, e.thing); err != nil {
			return err
		}
		return errors.Join(j.executionEvent(ctx, e, jobDeleted), deleteExecution(tx, e))
	})
	if err != nil {
		return nil, err
	}
	j.stir()
	if e.pending() {
		j.tell(ctx, t)
	}
	return &iot.DeleteJobExecutionResponse{}, nil
}

// deleteExecution deletes an execution; if it was the last of its thing, the one before it, if there is one, is that again.
func deleteExecution(tx store.Tx, e *execution) error {
	var last bool
	if err := tx.QueryRow(`SELECT latest FROM job_execution WHERE thing = $1 AND job_id = $2 AND number = $3`, e.thing, e.jobID, e.number).Scan(&last); err != nil {
		return err
	}
	n, err := tx.Exec(`DELETE FROM job_execution WHERE thing = $1 AND job_id = $2 AND number = $3 AND version = $4`, e.thing, e.jobID, e.number, e.version)
	if err != nil {
		return err
	}
	if n != 1 {
		return errRaced
	}
	if !last {
		return nil
	}
	if err := count(tx, e.jobID, e.status, -1); err != nil {
		return err
	}
	before, err := latest(tx, e.thing, e.jobID, nil)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE job_execution SET latest = $4 WHERE thing = $1 AND job_id = $2 AND number = $3`, e.thing, e.jobID, before.number, true)
	return errors.Join(err, count(tx, e.jobID, before.status, 1))
}
