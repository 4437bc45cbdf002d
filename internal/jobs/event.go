package jobs

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/google/uuid"

	"flotilla/internal/aws/iot"
	"flotilla/internal/jobs/rollout"
	"flotilla/internal/store"
)

// Events says which events the account wants.
type Events interface {
	// Enabled tells whether events of a type, one of iot.EventType..., are published. It is quick.
	Enabled(ctx context.Context, eventType string) bool
	// Emit publishes an event, a JSON document, once the Write in ctx has committed.
	Emit(ctx context.Context, topic string, payload []byte) error
}

// Operations of events of jobs.
const (
	jobCompleted = "completed"
	jobCanceled  = "canceled"
	jobDeleted   = "deleted"
	jobCanceling = "cancellation_in_progress"
	jobDeleting  = "deletion_in_progress"
)

// processDetails are the counts that an event shows.
type processDetails struct {
	Canceled  int64 `json:"numberOfCanceledThings"`
	Rejected  int64 `json:"numberOfRejectedThings"`
	Failed    int64 `json:"numberOfFailedThings"`
	Removed   int64 `json:"numberOfRemovedThings"`
	Succeeded int64 `json:"numberOfSucceededThings"`
	TimedOut  int64 `json:"numberOfTimedOutThings"`
}

// event is the payload of an event of a job or an execution. timestamp is in seconds, other times are in milliseconds.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/events-jobs.html
type event struct {
	EventType       string            `json:"eventType"`
	EventID         string            `json:"eventId"`
	Timestamp       int64             `json:"timestamp"`
	Operation       string            `json:"operation"`
	JobID           string            `json:"jobId"`
	ThingArn        string            `json:"thingArn,omitempty"`
	Status          string            `json:"status"`
	ForceCanceled   bool              `json:"forceCanceled,omitempty"`
	TargetSelection string            `json:"targetSelection,omitempty"`
	Targets         []string          `json:"targets,omitempty"`
	Description     *string           `json:"description,omitempty"`
	CompletedAt     *int64            `json:"completedAt,omitempty"`
	CreatedAt       int64             `json:"createdAt,omitempty"`
	LastUpdatedAt   int64             `json:"lastUpdatedAt,omitempty"`
	Comment         *string           `json:"comment,omitempty"`
	Details         *processDetails   `json:"jobProcessDetails,omitempty"`
	StatusDetails   map[string]string `json:"statusDetails,omitempty"`
}

// emit publishes an event of what the Write in ctx does.
func (j *Jobs) emit(ctx context.Context, topic string, e event) error {
	e.EventID, e.Timestamp = uuid.NewString(), j.cfg.Now().Unix()
	payload, err := json.Marshal(e)
	if err != nil {
		panic("jobs: " + err.Error()) // strings and numbers always marshal
	}
	return j.Events.Emit(ctx, "$aws/events/"+topic+"/"+e.JobID+"/"+e.Operation, payload)
}

func (j *Jobs) wants(ctx context.Context, eventType string) bool {
	return j.Events != nil && j.Events.Enabled(ctx, eventType)
}

// jobEvent tells of a job; it is called in the transaction of what happened.
func (j *Jobs) jobEvent(ctx context.Context, tx store.Tx, b *job, operation string) error {
	if !j.wants(ctx, iot.EventTypeJob) {
		return nil
	}
	e := event{
		EventType: iot.EventTypeJob, Operation: operation, JobID: b.id, Status: strings.ToUpper(operation), TargetSelection: b.selection,
		Description: b.def.Description, CreatedAt: b.created, LastUpdatedAt: b.modified, Comment: b.comment,
	}
	var err error
	if e.Targets, err = targets(tx, b.id); err != nil {
		return err
	}
	if operation == jobCompleted || operation == jobCanceled {
		var c rollout.Counts
		if c, err = counts(tx, b.id); err != nil {
			return err
		}
		e.Details = &processDetails{c.Canceled, c.Rejected, c.Failed, c.Removed, c.Succeeded, c.TimedOut}
		e.ForceCanceled = b.forced
		if operation == jobCompleted {
			e.CompletedAt = b.completed
		}
	}
	return j.emit(ctx, "job", e)
}

// executionEvent tells of an execution that has ended, or was deleted; its status is then what it was before.
func (j *Jobs) executionEvent(ctx context.Context, e *execution, operation string) error {
	if !j.wants(ctx, iot.EventTypeJobExecution) {
		return nil
	}
	return j.emit(ctx, "jobExecution", event{
		EventType: iot.EventTypeJobExecution, Operation: operation, JobID: e.jobID, ThingArn: j.thingARN(e.thing), Status: e.status, StatusDetails: e.details,
	})
}

// save is saveExecution, and tells when the execution has ended.
func (j *Jobs) save(ctx context.Context, tx store.Tx, e *execution, was string) error {
	if err := saveExecution(tx, e, was); err != nil {
		return err
	}
	if e.pending() {
		return nil
	}
	return j.executionEvent(ctx, e, strings.ToLower(e.status))
}

// canceledEvent tells that the cancellation of a job is over, when nothing is left to be canceled.
func (j *Jobs) canceledEvent(ctx context.Context, tx store.Tx, b *job) error {
	c, err := counts(tx, b.id)
	if err != nil || c.Queued > 0 || b.forced && c.InProgress > 0 {
		return err
	}
	return j.jobEvent(ctx, tx, b, jobCanceled)
}
