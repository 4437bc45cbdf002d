package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotjobsdata"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// Filter is the topics that ServeMQTT serves.
const Filter = "$aws/things/+/jobs/#"

// request is the payload of any request; each takes its own members.
type request struct {
	ClientToken              string            `json:"clientToken"`
	IncludeJobDocument       *bool             `json:"includeJobDocument"`
	IncludeJobExecutionState *bool             `json:"includeJobExecutionState"`
	ExecutionNumber          *int64            `json:"executionNumber"`
	Status                   string            `json:"status"`
	StatusDetails            map[string]string `json:"statusDetails"`
	ExpectedVersion          json.RawMessage   `json:"expectedVersion"` // a number, or a string with one
	StepTimeoutInMinutes     *int64            `json:"stepTimeoutInMinutes"`
}

// deviceExecution is an execution in a payload: the document is JSON there, not a string of it.
type deviceExecution struct {
	*iotjobsdata.JobExecution
	JobDocument json.RawMessage `json:"jobDocument,omitempty"`
}

// answer is the payload of an answer or of a notification.
type answer struct {
	ClientToken    string                             `json:"clientToken,omitempty"`
	Timestamp      int64                              `json:"timestamp"` // seconds
	InProgressJobs []*iotjobsdata.JobExecutionSummary `json:"inProgressJobs,omitzero"`
	QueuedJobs     []*iotjobsdata.JobExecutionSummary `json:"queuedJobs,omitzero"`
	Execution      *deviceExecution                   `json:"execution,omitempty"`
	ExecutionState *iotjobsdata.JobExecutionState     `json:"executionState,omitempty"`
	JobDocument    json.RawMessage                    `json:"jobDocument,omitempty"`
	Code           string                             `json:"code,omitempty"`
	Message        string                             `json:"message,omitempty"`
}

// ServeMQTT serves a request on $aws/things/T/jobs/…: it answers on the topic of the request with /accepted or /rejected
// added. It returns once the request's effect is durable. A request that is refused is answered, and is no error.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/jobs-mqtt-api.html
func (j *Jobs) ServeMQTT(ctx context.Context, m *mqtt.Message) error {
	thing, jobID, verb, ok := parseTopic(m.Topic)
	if !ok {
		return fmt.Errorf("jobs: %s: %w", m.Topic, mqtt.TopicNameInvalid)
	}
	var r request
	a, err := j.serve(ctx, thing, jobID, verb, m.Payload, &r)
	suffix := "/accepted"
	var refused *refusal
	if err != nil {
		suffix = "/rejected"
		if !errors.As(err, &refused) {
			refused = &refusal{code: internalError, message: "The request can't be served now"}
		} else {
			err = nil
		}
		a = &answer{Code: refused.code, Message: refused.message, ExecutionState: refused.state}
	}
	a.ClientToken, a.Timestamp = r.ClientToken, j.cfg.Now().Unix()
	return errors.Join(err, j.publish(ctx, m.Topic+suffix, a))
}

// parseTopic takes a request's topic apart.
func parseTopic(topic string) (thing, jobID, verb string, ok bool) {
	parts := strings.Split(strings.TrimPrefix(topic, "$aws/things/"), "/")
	switch {
	case len(parts) == 3 && parts[1] == "jobs" && (parts[2] == "get" || parts[2] == "start-next"):
		return parts[0], "", parts[2], true
	case len(parts) == 4 && parts[1] == "jobs" && parts[2] != "" && (parts[3] == "get" || parts[3] == "update"):
		return parts[0], parts[2], parts[3], true
	}
	return "", "", "", false
}

func (j *Jobs) serve(ctx context.Context, thing, jobID, verb string, payload []byte, r *request) (*answer, error) {
	if len(payload) > 0 {
		if err := json.Unmarshal(payload, r); err != nil {
			return nil, refuse(invalidJSON, "The payload is not valid: %v", plain(err))
		}
	}
	if err := j.mustBeThing(ctx, thing); err != nil {
		return nil, err
	}
	switch {
	case jobID == "" && verb == "get":
		current, waiting, err := j.pending(ctx, thing)
		return &answer{InProgressJobs: current, QueuedJobs: waiting}, err
	case jobID == "":
		e, err := j.startNext(ctx, &iotjobsdata.StartNextPendingJobExecutionRequest{
			ThingName: thing, StatusDetails: r.StatusDetails, StepTimeoutInMinutes: r.StepTimeoutInMinutes,
		})
		return &answer{Execution: inPayload(e)}, err
	case verb == "get":
		e, err := j.describe(ctx, thing, jobID, r.ExecutionNumber, r.IncludeJobDocument == nil || *r.IncludeJobDocument)
		return &answer{Execution: inPayload(e)}, err
	}
	expected, err := versionOf(r.ExpectedVersion)
	if err != nil {
		return nil, err
	}
	c, err := j.update(ctx, &iotjobsdata.UpdateJobExecutionRequest{
		JobId: jobID, ThingName: thing, Status: r.Status, StatusDetails: r.StatusDetails, StepTimeoutInMinutes: r.StepTimeoutInMinutes,
		ExpectedVersion: expected, ExecutionNumber: r.ExecutionNumber,
		IncludeJobExecutionState: r.IncludeJobExecutionState, IncludeJobDocument: r.IncludeJobDocument,
	})
	if err != nil {
		return nil, err
	}
	return &answer{ExecutionState: c.state, JobDocument: document(c.document)}, nil
}

// plain leaves Go's types out of an error of encoding/json.
func plain(err error) error {
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		return fmt.Errorf("%s is of the wrong type", t.Field)
	}
	return err
}

// versionOf reads expectedVersion, which AWS's documents show as a string and its SDKs send as a number.
func versionOf(raw json.RawMessage) (*int64, error) {
	text := strings.Trim(string(raw), `"`)
	if text == "" || text == "null" {
		return nil, nil
	}
	var v int64
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return nil, refuse(invalidRequest, "expectedVersion is not a number")
	}
	return &v, nil
}

func inPayload(e *iotjobsdata.JobExecution) *deviceExecution {
	if e == nil {
		return nil
	}
	d := &deviceExecution{JobExecution: e, JobDocument: document(e.JobDocument)}
	e.JobDocument = nil
	return d
}

// document is a job document as JSON; one that is not JSON goes as a string.
func document(text *string) json.RawMessage {
	if text == nil {
		return nil
	}
	if json.Valid([]byte(*text)) {
		return json.RawMessage(*text)
	}
	b, _ := json.Marshal(*text) // of a string: it can't fail
	return b
}

func (j *Jobs) publish(ctx context.Context, topic string, payload any) error {
	b, err := json.Marshal(payload)
	if err != nil {
		return fmt.Errorf("jobs: %s: %w", topic, err)
	}
	if err := j.Publisher.Publish(ctx, &mqtt.Message{Topic: topic, Payload: b, QoS: 1, Received: j.cfg.Now()}); err != nil {
		return fmt.Errorf("jobs: %s: %w", topic, err)
	}
	return nil
}

// mustBeThing refuses what is no thing.
func (j *Jobs) mustBeThing(ctx context.Context, name string) error {
	_, err := j.Things.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: name})
	if _, no := errors.AsType[*iot.ResourceNotFoundException](err); no {
		return refuse(resourceNotFound, "Thing %s does not exist", name)
	}
	return err
}

// headOf names a thing's next execution; "" when there is none.
func headOf(tx store.Tx, thing string) (string, error) {
	list, err := pendingOf(tx, thing, 1)
	if err != nil || len(list) == 0 {
		return "", err
	}
	return list[0].key(), nil
}

func (e *execution) key() string { return fmt.Sprintf("%s/%d", e.jobID, e.number) }

// notification is the payload of notify.
type notification struct {
	Timestamp int64                                         `json:"timestamp"`
	Jobs      map[string][]*iotjobsdata.JobExecutionSummary `json:"jobs"`
}

// tell publishes notify if the list of a thing's pending executions has changed, and notify-next if its head is another than
// it was. A message that can't be published is logged: the thing asks when it connects again.
func (j *Jobs) tell(ctx context.Context, thing string, listChanged bool, head string) {
	var list []*execution
	var b *job
	err := j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		var err error
		if list, err = pendingOf(tx, thing, maxListed); err != nil || len(list) == 0 {
			return err
		}
		b, err = getJob(tx, list[0].jobID)
		return err
	})
	base := "$aws/things/" + thing + "/jobs/"
	now := j.cfg.Now().Unix()
	if err == nil && listChanged {
		n := notification{Timestamp: now, Jobs: map[string][]*iotjobsdata.JobExecutionSummary{}}
		for _, e := range list {
			n.Jobs[e.status] = append(n.Jobs[e.status], summary(e))
		}
		err = j.publish(ctx, base+"notify", n)
	}
	if err == nil {
		a, now := &answer{Timestamp: now}, ""
		if len(list) > 0 {
			now = list[0].key()
			var e *iotjobsdata.JobExecution
			if now != head {
				if e, err = j.deviceExecution(ctx, b, list[0], true); err == nil {
					a.Execution = inPayload(e)
				}
			}
		}
		if err == nil && now != head {
			err = j.publish(ctx, base+"notify-next", a)
		}
	}
	if err != nil {
		j.Log.Warn("a thing can't be told of its jobs", "thing", thing, "err", err)
	}
}
