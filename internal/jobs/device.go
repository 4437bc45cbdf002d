package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"flotilla/internal/aws/iotjobsdata"
	"flotilla/internal/store"
)

// refusal is what a thing's request is answered with; its code is that of the MQTT API.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/jobs-mqtt-api.html
type refusal struct {
	code    string
	message string
	state   *iotjobsdata.JobExecutionState
}

// Codes of refusals.
const (
	invalidTopic           = "InvalidTopic"
	invalidJSON            = "InvalidJson"
	invalidRequest         = "InvalidRequest"
	invalidStateTransition = "InvalidStateTransition"
	resourceNotFound       = "ResourceNotFound"
	versionMismatch        = "VersionMismatch"
	internalError          = "InternalError"
	terminalStateReached   = "TerminalStateReached"
)

func (r *refusal) Error() string { return r.code + ": " + r.message }

func refuse(code, format string, args ...any) error {
	return &refusal{code: code, message: fmt.Sprintf(format, args...)}
}

// dataException is a refusal as the data plane's exception.
func dataException(err error) error {
	var r *refusal
	if !errors.As(err, &r) {
		return err
	}
	switch r.code {
	case resourceNotFound:
		return &iotjobsdata.ResourceNotFoundException{Message: r.message}
	case invalidStateTransition, versionMismatch:
		return &iotjobsdata.InvalidStateTransitionException{Message: r.message}
	case terminalStateReached:
		return &iotjobsdata.TerminalStateException{Message: r.message}
	}
	return &iotjobsdata.InvalidRequestException{Message: r.message}
}

// The bounds of statusDetails.
const (
	maxDetails     = 10
	maxDetailKey   = 128
	maxDetailValue = 1024
	maxTimeout     = 7 * 24 * 60 // minutes
	detailKeyRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_-"
)

func checkDetails(d map[string]string) error {
	if len(d) > maxDetails {
		return refuse(invalidRequest, "statusDetails has at most %d members", maxDetails)
	}
	for k, v := range d {
		if k == "" || len(k) > maxDetailKey || v == "" || utf8.RuneCountInString(v) > maxDetailValue {
			return refuse(invalidRequest, "statusDetails: a name has 1 to %d characters, a value 1 to %d", maxDetailKey, maxDetailValue)
		}
		if strings.ContainsFunc(k, func(r rune) bool { return !strings.ContainsRune(detailKeyRunes, r) }) {
			return refuse(invalidRequest, "statusDetails: names are of letters, digits, colon, underscore and hyphen")
		}
		for _, r := range v {
			if unicode.Is(unicode.C, r) {
				return refuse(invalidRequest, "statusDetails: %s has a control character", k)
			}
		}
	}
	return nil
}

// stepTimer sets the step timer of an execution: minutes from now; -1 takes it away, nil leaves it.
func (e *execution) stepTimer(minutes *int64, now time.Time) error {
	switch {
	case minutes == nil:
	case *minutes == -1:
		e.stepDeadline = nil
	case *minutes < 1 || *minutes > maxTimeout:
		return refuse(invalidRequest, "stepTimeoutInMinutes must be -1, or between 1 and %d", maxTimeout)
	default:
		at := now.Add(time.Duration(*minutes) * time.Minute).UnixMilli()
		if e.jobDeadline != nil && at > *e.jobDeadline {
			return refuse(invalidRequest, "The step timer may not outlast the in-progress timer of the job")
		}
		e.stepDeadline = &at
	}
	return nil
}

// begin moves an execution to IN_PROGRESS.
func (e *execution) begin(b *job, now time.Time) {
	e.status, e.started = inProgress, new(now.UnixMilli())
	if t := b.def.TimeoutConfig; t != nil && t.InProgressTimeoutInMinutes != nil {
		e.jobDeadline = new(now.Add(time.Duration(*t.InProgressTimeoutInMinutes) * time.Minute).UnixMilli())
	}
}

// startNext gives the next execution of a thing, started if it was queued; nil when nothing is pending.
func (j *Jobs) startNext(ctx context.Context, in *iotjobsdata.StartNextPendingJobExecutionRequest) (*iotjobsdata.JobExecution, error) {
	if err := checkDetails(in.StatusDetails); err != nil {
		return nil, err
	}
	var e *execution
	var b *job
	var began bool
	err := j.retrying(ctx, func(_ context.Context, tx store.Tx) error {
		var err error
		began = false
		if e, err = head(tx, in.ThingName, ""); err != nil || e == nil {
			return err
		}
		if b, err = getJob(tx, e.jobID); err != nil {
			return err
		}
		if e.status == inProgress {
			return nil
		}
		began = true
		now := j.cfg.Now()
		e.begin(b, now)
		e.modified = now.UnixMilli()
		if in.StatusDetails != nil {
			e.details = in.StatusDetails
		}
		if err := e.stepTimer(in.StepTimeoutInMinutes, now); err != nil {
			return err
		}
		return saveExecution(tx, e, queued)
	})
	if err != nil || e == nil {
		return nil, err
	}
	if began {
		j.tell(ctx, told{in.ThingName, b.space(), e.key()})
	}
	return j.deviceExecution(ctx, b, e, true)
}

// describe gives an execution to its thing; jobID may be $next, then nil says that nothing is pending. A job of another
// namespace than the one that is asked for, if one is, is not found.
func (j *Jobs) describe(ctx context.Context, thing, jobID, space string, number *int64, withDocument bool) (*iotjobsdata.JobExecution, error) {
	var e *execution
	var b *job
	err := j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		var err error
		if jobID == next {
			if e, err = head(tx, thing, space); err != nil || e == nil {
				return err
			}
		} else if e, err = latest(tx, thing, jobID, number); errors.Is(err, store.ErrNotFound) {
			return refuse(resourceNotFound, "There is no execution of job %s for thing %s", jobID, thing)
		} else if err != nil {
			return err
		}
		if b, err = getJob(tx, e.jobID); err != nil {
			return err
		}
		return b.servedIn(space, thing)
	})
	if err != nil || e == nil {
		return nil, err
	}
	if !e.pending() {
		return nil, refuse(terminalStateReached, "The execution of job %s for thing %s is in the terminal state %s", jobID, thing, e.status)
	}
	return j.deviceExecution(ctx, b, e, withDocument)
}

// next stands for the id of the next job.
const next = "$next"

// change is what update answers.
type change struct {
	state    *iotjobsdata.JobExecutionState
	document *string
}

// servedIn refuses a thing's request that names a namespace, if the job is not of it.
func (b *job) servedIn(space, thing string) error {
	if space != "" && space != b.space() {
		return refuse(resourceNotFound, "There is no execution of job %s for thing %s", b.id, thing)
	}
	return nil
}

// update changes the state of an execution as its thing says. space is as for describe.
func (j *Jobs) update(ctx context.Context, in *iotjobsdata.UpdateJobExecutionRequest, space string) (change, error) {
	if err := checkDetails(in.StatusDetails); err != nil {
		return change{}, err
	}
	switch in.Status {
	case inProgress, succeeded, failed, rejected:
	default:
		return change{}, refuse(invalidRequest, "A thing may set IN_PROGRESS, SUCCEEDED, FAILED or REJECTED, not %q", in.Status)
	}
	var e *execution
	var b *job
	var first, was string
	err := j.retrying(ctx, func(ctx context.Context, tx store.Tx) error {
		var err error
		if e, err = latest(tx, in.ThingName, in.JobId, in.ExecutionNumber); errors.Is(err, store.ErrNotFound) {
			return refuse(resourceNotFound, "There is no execution of job %s for thing %s", in.JobId, in.ThingName)
		} else if err != nil {
			return err
		}
		if b, err = getJob(tx, e.jobID); err != nil {
			return err
		}
		if err := b.servedIn(space, e.thing); err != nil {
			return err
		}
		if in.ExpectedVersion != nil && *in.ExpectedVersion != e.version {
			return &refusal{versionMismatch, fmt.Sprintf("The version of the execution is %d, not %d", e.version, *in.ExpectedVersion), e.state()}
		}
		if !e.pending() {
			return &refusal{invalidStateTransition, fmt.Sprintf("The execution can't go from %s to %s", e.status, in.Status), e.state()}
		}
		if first, err = headOf(tx, e.thing, b.space()); err != nil {
			return err
		}
		now := j.cfg.Now()
		was = e.status
		e.modified = now.UnixMilli()
		if was == queued {
			e.begin(b, now)
		}
		e.status = in.Status
		if in.StatusDetails != nil {
			e.details = in.StatusDetails
		}
		if err := e.stepTimer(in.StepTimeoutInMinutes, now); err != nil {
			return err
		}
		if err := j.save(ctx, tx, e, was); err != nil {
			return err
		}
		return j.ended(tx, b, e)
	})
	if err != nil {
		return change{}, err
	}
	out := change{}
	if value(in.IncludeJobExecutionState) {
		out.state = e.state()
	}
	if value(in.IncludeJobDocument) {
		text, err := j.document(ctx, b)
		if err != nil {
			return change{}, err
		}
		out.document = &text
	}
	if !e.pending() {
		j.stir()
	}
	if e.status != was {
		j.tell(ctx, told{e.thing, b.space(), first})
	}
	return out, nil
}

func (e *execution) state() *iotjobsdata.JobExecutionState {
	d := e.details
	if d == nil {
		d = map[string]string{}
	}
	return &iotjobsdata.JobExecutionState{Status: new(e.status), StatusDetails: d, VersionNumber: new(e.version)}
}

func seconds(ms int64) *int64 { return new(ms / 1000) }

func secondsOf(ms *int64) *int64 {
	if ms == nil {
		return nil
	}
	return seconds(*ms)
}

// deviceExecution is an execution as its thing sees it. Times are seconds since 1970.
func (j *Jobs) deviceExecution(ctx context.Context, b *job, e *execution, withDocument bool) (*iotjobsdata.JobExecution, error) {
	out := &iotjobsdata.JobExecution{
		JobId: new(e.jobID), ThingName: new(e.thing), Status: new(e.status), StatusDetails: e.details, QueuedAt: seconds(e.queued),
		StartedAt: secondsOf(e.started), LastUpdatedAt: seconds(e.modified), VersionNumber: new(e.version), ExecutionNumber: new(e.number),
	}
	if due := e.due(); due != nil {
		out.ApproximateSecondsBeforeTimedOut = new(max(0, (*due-j.nowMS())/1000))
	}
	if withDocument {
		text, err := j.document(ctx, b)
		if err != nil {
			return nil, err
		}
		out.JobDocument = &text
	}
	return out, nil
}

func summary(e *execution) *iotjobsdata.JobExecutionSummary {
	return &iotjobsdata.JobExecutionSummary{
		JobId: new(e.jobID), QueuedAt: seconds(e.queued), StartedAt: secondsOf(e.started), LastUpdatedAt: seconds(e.modified),
		VersionNumber: new(e.version), ExecutionNumber: new(e.number),
	}
}

// pending lists what a thing has to do: in progress, and queued.
func (j *Jobs) pending(ctx context.Context, thing string) (current, waiting []*iotjobsdata.JobExecutionSummary, err error) {
	var list []*execution
	err = j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		list, err = listed(tx, thing, "")
		return err
	})
	current, waiting = []*iotjobsdata.JobExecutionSummary{}, []*iotjobsdata.JobExecutionSummary{}
	for _, e := range list {
		if e.status == inProgress {
			current = append(current, summary(e))
		} else {
			waiting = append(waiting, summary(e))
		}
	}
	return current, waiting, err
}

// GetPendingJobExecutions lists the executions of a thing that it may work on now, at most ten and five of maintenance windows.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_iot-jobs-data_GetPendingJobExecutions.html
func (j *Jobs) GetPendingJobExecutions(ctx context.Context, in *iotjobsdata.GetPendingJobExecutionsRequest) (*iotjobsdata.GetPendingJobExecutionsResponse, error) {
	if err := j.mustBeThing(ctx, in.ThingName); err != nil {
		return nil, dataException(err)
	}
	current, waiting, err := j.pending(ctx, in.ThingName)
	if err != nil {
		return nil, err
	}
	return &iotjobsdata.GetPendingJobExecutionsResponse{InProgressJobs: current, QueuedJobs: waiting}, nil
}

// StartNextPendingJobExecution gives the next execution of a thing and starts it. Errors: InvalidRequestException,
// ResourceNotFoundException (no such thing).
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_iot-jobs-data_StartNextPendingJobExecution.html
func (j *Jobs) StartNextPendingJobExecution(ctx context.Context, in *iotjobsdata.StartNextPendingJobExecutionRequest) (*iotjobsdata.StartNextPendingJobExecutionResponse, error) {
	if err := j.mustBeThing(ctx, in.ThingName); err != nil {
		return nil, dataException(err)
	}
	e, err := j.startNext(ctx, in)
	if err != nil {
		return nil, dataException(err)
	}
	return &iotjobsdata.StartNextPendingJobExecutionResponse{Execution: e}, nil
}

// DescribeDeviceJobExecution is DescribeJobExecution of the data plane: an execution that has not ended, by the id of its
// job or $next. Errors: ResourceNotFoundException, TerminalStateException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_iot-jobs-data_DescribeJobExecution.html
func (j *Jobs) DescribeDeviceJobExecution(ctx context.Context, in *iotjobsdata.DescribeJobExecutionRequest) (*iotjobsdata.DescribeJobExecutionResponse, error) {
	if err := j.mustBeThing(ctx, in.ThingName); err != nil {
		return nil, dataException(err)
	}
	e, err := j.describe(ctx, in.ThingName, in.JobId, "", in.ExecutionNumber, value(in.IncludeJobDocument))
	if err != nil {
		return nil, dataException(err)
	}
	return &iotjobsdata.DescribeJobExecutionResponse{Execution: e}, nil
}

// UpdateJobExecution changes the state of an execution. Errors: InvalidRequestException, InvalidStateTransitionException
// (also for another version than was expected), ResourceNotFoundException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_iot-jobs-data_UpdateJobExecution.html
func (j *Jobs) UpdateJobExecution(ctx context.Context, in *iotjobsdata.UpdateJobExecutionRequest) (*iotjobsdata.UpdateJobExecutionResponse, error) {
	if err := j.mustBeThing(ctx, in.ThingName); err != nil {
		return nil, dataException(err)
	}
	c, err := j.update(ctx, in, "")
	if err != nil {
		return nil, dataException(err)
	}
	return &iotjobsdata.UpdateJobExecutionResponse{ExecutionState: c.state, JobDocument: c.document}, nil
}
