package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/jobs/rollout"
	"flotilla/internal/store"
)

// CreateJob creates a job and begins to roll it out, or schedules it.
//
// Errors: InvalidRequestException, ResourceAlreadyExistsException, ResourceNotFoundException (a target),
// LimitExceededException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreateJob.html
func (j *Jobs) CreateJob(ctx context.Context, in *iot.CreateJobRequest) (*iot.CreateJobResponse, error) {
	b := &job{id: in.JobId, def: definition{CreateJobRequest: *in}, selection: iot.TargetSelectionSnapshot, status: inProgress}
	b.def.Tags = nil
	if in.TargetSelection != nil {
		b.selection = *in.TargetSelection
	}
	if err := j.check(ctx, b); err != nil {
		return nil, err
	}
	schedule, err := rollout.ParseSchedule(b.def.SchedulingConfig, j.cfg.Now(), j.bounds)
	if err != nil {
		return nil, invalid("schedulingConfig: %v", err)
	}
	now := j.cfg.Now()
	b.created, b.modified = now.UnixMilli(), now.UnixMilli()
	if !schedule.Started(now, now) {
		b.status = scheduled
	}
	err = j.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if err := j.mayStart(tx, b); err != nil {
			return err
		}
		if err := insertJob(tx, b); errors.Is(err, store.ErrConflict) {
			return &iot.ResourceAlreadyExistsException{Message: fmt.Sprintf("Job %s already exists.", b.id), ResourceId: b.id, ResourceArn: j.arn(b.id)}
		} else if err != nil {
			return err
		}
		if len(in.Tags) > 0 {
			if _, err := j.Tags.TagResource(ctx, &iot.TagResourceRequest{ResourceArn: j.arn(b.id), Tags: in.Tags}); err != nil {
				return err
			}
		}
		return addTargets(tx, b.id, in.Targets)
	})
	if err != nil {
		return nil, err
	}
	j.stir()
	return &iot.CreateJobResponse{JobArn: new(j.arn(b.id)), JobId: &b.id, Description: b.def.Description}, nil
}

// check refuses a definition that can't be carried out, and settles the document's text.
func (j *Jobs) check(ctx context.Context, b *job) error {
	in := &b.def.CreateJobRequest
	switch {
	case len(in.DestinationPackageVersions) > 0:
		return invalid("destinationPackageVersions: the software package catalog is not implemented")
	case in.JobTemplateArn != nil:
		if err := j.useTemplate(ctx, b); err != nil {
			return err
		}
	case len(in.DocumentParameters) > 0:
		return invalid("documentParameters are for jobs from managed templates")
	default:
		var err error
		if b.def.Text, err = j.textOf(ctx, in.Document, in.DocumentSource); err != nil {
			return err
		}
	}
	if err := j.checkDocument(ctx, b.parametersIn(b.def.Text), in.PresignedUrlConfig); err != nil {
		return err
	}
	if err := checkConfigs(in.JobExecutionsRolloutConfig, in.AbortConfig, in.TimeoutConfig, in.JobExecutionsRetryConfig, j.cfg.Limits == "aws"); err != nil {
		return err
	}
	return j.checkTargets(ctx, in.Targets)
}

// maxTargets is how many targets a job has under --limits aws.
const maxTargets = 100

// checkTargets refuses what is neither a thing nor a thing group of this account.
func (j *Jobs) checkTargets(ctx context.Context, arns []string) error {
	if j.cfg.Limits == "aws" && len(arns) > maxTargets {
		return &iot.LimitExceededException{Message: fmt.Sprintf("A job has at most %d targets.", maxTargets)}
	}
	for _, t := range arns {
		thing, isThing := strings.CutPrefix(t, j.thingARN(""))
		group, isGroup := strings.CutPrefix(t, j.Account.ARN("iot", "thinggroup/"))
		var err error
		switch {
		case isThing:
			_, err = j.Things.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: thing})
		case isGroup:
			_, err = j.Things.DescribeThingGroup(ctx, &iot.DescribeThingGroupRequest{ThingGroupName: group})
		default:
			err = invalid("Target %s is neither a thing nor a thing group of this account", t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkConfigs holds configurations to what the model does not say.
func checkConfigs(r *iot.JobExecutionsRolloutConfig, a *iot.AbortConfig, t *iot.TimeoutConfig, retry *iot.JobExecutionsRetryConfig, aws bool) error {
	if r != nil && r.MaximumPerMinute != nil && aws && *r.MaximumPerMinute > 1000 {
		return invalid("maximumPerMinute is at most 1000")
	}
	if r != nil && r.ExponentialRate != nil {
		c := r.ExponentialRate.RateIncreaseCriteria
		if c == nil || (c.NumberOfNotifiedThings == nil) == (c.NumberOfSucceededThings == nil) {
			return invalid("rateIncreaseCriteria names either numberOfNotifiedThings or numberOfSucceededThings")
		}
	}
	if a != nil {
		for _, c := range a.CriteriaList {
			if c.ThresholdPercentage <= 0 {
				return invalid("thresholdPercentage is more than 0")
			}
		}
	}
	if t != nil && t.InProgressTimeoutInMinutes != nil && (*t.InProgressTimeoutInMinutes < 1 || *t.InProgressTimeoutInMinutes > maxTimeout) {
		return invalid("inProgressTimeoutInMinutes is between 1 and %d", maxTimeout)
	}
	if retry != nil && len(retry.CriteriaList) == 2 && (retry.CriteriaList[0].FailureType == retry.CriteriaList[1].FailureType ||
		retry.CriteriaList[0].FailureType == iot.RetryableFailureTypeAll || retry.CriteriaList[1].FailureType == iot.RetryableFailureTypeAll) {
		return invalid("The retry criteria overlap")
	}
	return nil
}

// DescribeJob gives a job with the counts of its executions. The answer has no document, so beforeSubstitution changes
// nothing of it. Errors: ResourceNotFoundException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeJob.html
func (j *Jobs) DescribeJob(ctx context.Context, in *iot.DescribeJobRequest) (*iot.DescribeJobResponse, error) {
	var b *job
	var c rollout.Counts
	var all, processing []string
	var busy bool
	err := j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		var err error
		if b, err = getJob(tx, in.JobId); err != nil {
			return err
		}
		if c, err = counts(tx, in.JobId); err != nil {
			return err
		}
		if all, err = targets(tx, in.JobId); err != nil {
			return err
		}
		if busy, err = isConcurrent(tx, in.JobId); err != nil {
			return err
		}
		processing, err = scanTexts(tx.Query(`SELECT target FROM job_target WHERE job_id = $1 AND NOT expanded AND NOT again ORDER BY target LIMIT 100`, in.JobId))
		return err
	})
	if err != nil {
		return nil, err
	}
	d := &b.def
	n := func(v int64) *int32 { return new(int32(min(v, 1<<31-1))) }
	out := &iot.Job{
		JobArn: new(j.arn(b.id)), JobId: &b.id, TargetSelection: &b.selection, Status: &b.status, ForceCanceled: set(b.forced), ReasonCode: b.reason,
		Comment: b.comment, Targets: all, Description: d.Description, PresignedUrlConfig: d.PresignedUrlConfig,
		JobExecutionsRolloutConfig: d.JobExecutionsRolloutConfig, AbortConfig: d.AbortConfig, CreatedAt: timeOf(&b.created),
		LastUpdatedAt: timeOf(&b.modified), CompletedAt: timeOf(b.completed), TimeoutConfig: d.TimeoutConfig, NamespaceId: d.NamespaceId,
		JobTemplateArn: d.JobTemplateArn, JobExecutionsRetryConfig: d.JobExecutionsRetryConfig, DocumentParameters: d.DocumentParameters,
		IsConcurrent: &busy, SchedulingConfig: d.SchedulingConfig,
		JobProcessDetails: &iot.JobProcessDetails{
			ProcessingTargets: processing, NumberOfCanceledThings: n(c.Canceled), NumberOfSucceededThings: n(c.Succeeded), NumberOfFailedThings: n(c.Failed),
			NumberOfRejectedThings: n(c.Rejected), NumberOfQueuedThings: n(c.Queued), NumberOfInProgressThings: n(c.InProgress),
			NumberOfRemovedThings: n(c.Removed), NumberOfTimedOutThings: n(c.TimedOut),
		},
	}
	if s, err := rollout.ParseSchedule(d.SchedulingConfig, j.cfg.Now().Add(-1), rollout.Bounds{}); err == nil && !b.over() {
		for _, t := range s.Upcoming(j.cfg.Now(), 10) {
			out.ScheduledJobRollouts = append(out.ScheduledJobRollouts, &iot.ScheduledJobRollout{StartTime: new(t.Format("2006-01-02T15:04Z"))})
		}
	}
	return &iot.DescribeJobResponse{DocumentSource: d.DocumentSource, Job: out}, nil
}

// ListJobs lists jobs by their id.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListJobs.html
func (j *Jobs) ListJobs(ctx context.Context, in *iot.ListJobsRequest) (*iot.ListJobsResponse, error) {
	p, err := newPage(in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	query, args := `SELECT `+jobColumns+` FROM job WHERE job_id > $1`, []any{p.after}
	where := func(cond string, v any) {
		args = append(args, v)
		query += fmt.Sprintf(cond, len(args))
	}
	if in.Status != nil {
		where(` AND status = $%d`, *in.Status)
	}
	if in.TargetSelection != nil {
		where(` AND target_selection = $%d`, *in.TargetSelection)
	}
	if in.NamespaceId != nil {
		where(` AND namespace = $%d`, *in.NamespaceId)
	}
	if in.ThingGroupId != nil {
		return nil, invalid("thingGroupId: name the group by thingGroupName")
	}
	if in.ThingGroupName != nil {
		where(` AND job_id IN (SELECT job_id FROM job_target WHERE target = $%d)`, j.Account.ARN("iot", "thinggroup/"+*in.ThingGroupName))
	}
	where(` ORDER BY job_id LIMIT $%d`, p.size+1)
	var list []*job
	var busy []bool
	err = j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		if list, err = scanJobs(tx.Query(query, args...)); err != nil {
			return err
		}
		busy = make([]bool, len(list))
		for i, b := range list {
			if busy[i], err = isConcurrent(tx, b.id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := &iot.ListJobsResponse{Jobs: []*iot.JobSummary{}}
	list, out.NextToken = cut(p, list, func(b *job) string { return b.id })
	for i, b := range list {
		out.Jobs = append(out.Jobs, &iot.JobSummary{
			JobArn: new(j.arn(b.id)), JobId: &b.id, TargetSelection: &b.selection, Status: &b.status, CreatedAt: timeOf(&b.created),
			LastUpdatedAt: timeOf(&b.modified), CompletedAt: timeOf(b.completed), IsConcurrent: &busy[i],
		})
	}
	return out, nil
}

// UpdateJob changes configurations of a job that is not over. Errors: InvalidRequestException, ResourceNotFoundException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_UpdateJob.html
func (j *Jobs) UpdateJob(ctx context.Context, in *iot.UpdateJobRequest) (*iot.UpdateJobResponse, error) {
	if err := checkConfigs(in.JobExecutionsRolloutConfig, in.AbortConfig, in.TimeoutConfig, in.JobExecutionsRetryConfig, j.cfg.Limits == "aws"); err != nil {
		return nil, err
	}
	err := j.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		b, err := getJob(tx, in.JobId)
		if err != nil {
			return err
		}
		if err := b.mustBeIn(in.NamespaceId); err != nil {
			return err
		}
		if b.over() {
			return invalid("Job %s is %s", b.id, b.status)
		}
		d := &b.def
		replace(&d.Description, in.Description)
		replace(&d.JobExecutionsRolloutConfig, in.JobExecutionsRolloutConfig)
		replace(&d.PresignedUrlConfig, in.PresignedUrlConfig)
		if err := j.checkDocument(ctx, d.Text, d.PresignedUrlConfig); err != nil {
			return err
		}
		replace(&d.AbortConfig, in.AbortConfig)
		replace(&d.TimeoutConfig, in.TimeoutConfig)
		replace(&d.JobExecutionsRetryConfig, in.JobExecutionsRetryConfig)
		b.modified = j.nowMS()
		return saveJob(tx, b)
	})
	if err != nil {
		return nil, err
	}
	j.stir()
	return &iot.UpdateJobResponse{}, nil
}

// mustBeIn refuses a job that is not of the namespace that a request names, if it names one.
func (b *job) mustBeIn(space *string) error {
	if space != nil && *space != b.space() {
		return noJob(b.id)
	}
	return nil
}

func replace[T any](old **T, v *T) {
	if v != nil {
		*old = v
	}
}

// AssociateTargetsWithJob adds things and groups to a continuous job. Errors: InvalidRequestException, ResourceNotFoundException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_AssociateTargetsWithJob.html
func (j *Jobs) AssociateTargetsWithJob(ctx context.Context, in *iot.AssociateTargetsWithJobRequest) (*iot.AssociateTargetsWithJobResponse, error) {
	if err := j.checkTargets(ctx, in.Targets); err != nil {
		return nil, err
	}
	var b *job
	err := j.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		var err error
		if b, err = getJob(tx, in.JobId); err != nil {
			return err
		}
		if err := b.mustBeIn(in.NamespaceId); err != nil {
			return err
		}
		if b.selection != iot.TargetSelectionContinuous || b.status != inProgress {
			return invalid("Targets can be added to a CONTINUOUS job that is IN_PROGRESS; job %s is %s and %s", b.id, b.selection, b.status)
		}
		b.modified = j.nowMS()
		replace(&b.comment, in.Comment)
		if err := errors.Join(saveJob(tx, b), addTargets(tx, b.id, in.Targets)); err != nil {
			return err
		}
		all, err := targets(tx, b.id)
		if err == nil && j.cfg.Limits == "aws" && len(all) > maxTargets {
			return &iot.LimitExceededException{Message: fmt.Sprintf("A job has at most %d targets.", maxTargets)}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	j.stir()
	return &iot.AssociateTargetsWithJobResponse{JobArn: new(j.arn(b.id)), JobId: &b.id, Description: b.def.Description}, nil
}

// CancelJob cancels a job: nothing starts any more, and what is queued is canceled; with force also what is in progress.
// Errors: InvalidRequestException (it is over), ResourceNotFoundException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CancelJob.html
func (j *Jobs) CancelJob(ctx context.Context, in *iot.CancelJobRequest) (*iot.CancelJobResponse, error) {
	var b *job
	err := j.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		var err error
		if b, err = getJob(tx, in.JobId); err != nil {
			return err
		}
		if b.over() && !(b.status == canceled && value(in.Force) && !b.forced) {
			return invalid("Job %s is %s", b.id, b.status)
		}
		replace(&b.comment, in.Comment)
		replace(&b.reason, in.ReasonCode)
		return j.cancel(ctx, tx, b, value(in.Force))
	})
	if err != nil {
		return nil, err
	}
	j.stir()
	return &iot.CancelJobResponse{JobArn: new(j.arn(b.id)), JobId: &b.id, Description: b.def.Description}, nil
}

// cancel marks a job as canceled and tells of it.
func (j *Jobs) cancel(ctx context.Context, tx store.Tx, b *job, force bool) error {
	if err := j.stop(tx, b, force); err != nil {
		return err
	}
	return errors.Join(j.jobEvent(ctx, tx, b, jobCanceling), j.canceledEvent(ctx, tx, b))
}

// stop marks a job as canceled; the runner cancels its executions.
func (j *Jobs) stop(tx store.Tx, b *job, force bool) error {
	b.status, b.forced, b.modified = canceled, b.forced || force, j.nowMS()
	b.completed = &b.modified
	b.telling = nil
	_, err := tx.Exec(`DELETE FROM job_waiting WHERE job_id = $1`, b.id)
	_, err2 := tx.Exec(`UPDATE job_target SET expanded = $2 WHERE job_id = $1`, b.id, true)
	return errors.Join(err, err2, saveJob(tx, b))
}

// DeleteJob deletes a job that is over, or with force any job, with all its executions. Errors: InvalidStateTransitionException,
// ResourceNotFoundException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DeleteJob.html
func (j *Jobs) DeleteJob(ctx context.Context, in *iot.DeleteJobRequest) (*iot.DeleteJobResponse, error) {
	err := j.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		b, err := getJob(tx, in.JobId)
		if err != nil {
			return err
		}
		if err := b.mustBeIn(in.NamespaceId); err != nil {
			return err
		}
		if !b.over() && !value(in.Force) {
			return &iot.InvalidStateTransitionException{Message: fmt.Sprintf("Job %s is %s: delete it with force.", b.id, b.status)}
		}
		return j.remove(ctx, tx, b)
	})
	if err != nil {
		return nil, err
	}
	j.stir()
	return &iot.DeleteJobResponse{}, nil
}

// remove marks a job for deletion; the runner deletes it.
func (j *Jobs) remove(ctx context.Context, tx store.Tx, b *job) error {
	if err := j.stop(tx, b, true); err != nil {
		return err
	}
	b.status = deleting
	return errors.Join(saveJob(tx, b), j.jobEvent(ctx, tx, b, jobDeleting), j.Tags.DeleteTags(ctx, j.arn(b.id)))
}

// Taggable tells whether a job exists; for tags.
func (j *Jobs) Taggable(ctx context.Context, jobID string) error {
	_, err := j.readJob(ctx, jobID)
	return err
}
