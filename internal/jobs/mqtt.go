package jobs

import (
	"bytes"
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
	t, ok := parseTopic(m.Topic)
	if !ok {
		return fmt.Errorf("jobs: %s: %w", m.Topic, mqtt.TopicNameInvalid)
	}
	var r request
	a, err := j.serve(ctx, t, m.Payload, &r)
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

// address is what a request's topic says.
type address struct {
	thing, jobID, space, verb string // jobID "": all jobs; space "": no namespace
}

// inSpace begins the level of a topic that names a namespace.
const inSpace = "namespace-"

// parseTopic takes a request's topic apart.
func parseTopic(topic string) (a address, ok bool) {
	parts := strings.Split(strings.TrimPrefix(topic, "$aws/things/"), "/")
	if len(parts) < 3 || parts[1] != "jobs" {
		return a, false
	}
	a.thing, a.verb = parts[0], parts[len(parts)-1]
	if len(parts) == 3 {
		return a, a.verb == "get" || a.verb == "start-next"
	}
	a.jobID = parts[2]
	if len(parts) == 5 {
		if a.space, ok = strings.CutPrefix(parts[3], inSpace); !ok || a.space == "" {
			return a, false
		}
	}
	return a, len(parts) <= 5 && a.jobID != "" && (a.verb == "get" || a.verb == "update")
}

func (j *Jobs) serve(ctx context.Context, t address, payload []byte, r *request) (*answer, error) {
	if len(payload) > 0 {
		if err := json.Unmarshal(payload, r); err != nil {
			return nil, refuse(invalidJSON, "The payload is not valid: %v", plain(err))
		}
	}
	if err := j.mustBeThing(ctx, t.thing); err != nil {
		return nil, err
	}
	switch {
	case t.jobID == "" && t.verb == "get":
		current, waiting, err := j.pending(ctx, t.thing)
		return &answer{InProgressJobs: current, QueuedJobs: waiting}, err
	case t.jobID == "":
		e, err := j.startNext(ctx, &iotjobsdata.StartNextPendingJobExecutionRequest{
			ThingName: t.thing, StatusDetails: r.StatusDetails, StepTimeoutInMinutes: r.StepTimeoutInMinutes,
		})
		return &answer{Execution: inPayload(e)}, err
	case t.verb == "get":
		e, err := j.describe(ctx, t.thing, t.jobID, t.space, r.ExecutionNumber, r.IncludeJobDocument == nil || *r.IncludeJobDocument)
		return &answer{Execution: inPayload(e)}, err
	}
	expected, err := versionOf(r.ExpectedVersion)
	if err != nil {
		return nil, err
	}
	c, err := j.update(ctx, &iotjobsdata.UpdateJobExecutionRequest{
		JobId: t.jobID, ThingName: t.thing, Status: r.Status, StatusDetails: r.StatusDetails, StepTimeoutInMinutes: r.StepTimeoutInMinutes,
		ExpectedVersion: expected, ExecutionNumber: r.ExecutionNumber,
		IncludeJobExecutionState: r.IncludeJobExecutionState, IncludeJobDocument: r.IncludeJobDocument,
	}, t.space)
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
	b, _ := encode(*text) // of a string: it can't fail
	return b
}

// encode is JSON in which URLs stand as they are: devices may read it without undoing escapes.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func (j *Jobs) publish(ctx context.Context, topic string, payload any) error {
	b, err := encode(payload)
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

// headOf names the execution that a thing is to take next; "" when there is none.
func headOf(tx store.Tx, thing, space string) (string, error) {
	e, err := head(tx, thing, space)
	if err != nil || e == nil {
		return "", err
	}
	return e.key(), nil
}

func (e *execution) key() string { return fmt.Sprintf("%s/%d", e.jobID, e.number) }

// told is a thing that is to be told that its executions of a namespace have changed, and what its head was.
type told struct{ thing, space, head string }

// beforeChange is what tell needs after the commit of a change that the transaction is about to make.
func beforeChange(tx store.Tx, b *job, thing string) (t told, err error) {
	t = told{thing: thing, space: b.space()}
	t.head, err = headOf(tx, thing, t.space)
	return t, err
}

// notification is the payload of notify.
type notification struct {
	Timestamp int64                                         `json:"timestamp"`
	Jobs      map[string][]*iotjobsdata.JobExecutionSummary `json:"jobs"`
}

// tell publishes notify, as the list of a thing's pending executions has changed, and notify-next if its head is another
// than it was. A message that can't be published is logged: the thing asks when it connects again.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/jobs-comm-notifications.html
func (j *Jobs) tell(ctx context.Context, t told) {
	var list []*execution
	var b *job
	err := j.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		var err error
		if list, err = listed(tx, t.thing, t.space); err != nil || len(list) == 0 {
			return err
		}
		b, err = getJob(tx, list[0].jobID)
		return err
	})
	if err == nil {
		err = j.notify(ctx, t, list, b)
	}
	if err != nil {
		j.Log.Warn("a thing can't be told of its jobs", "thing", t.thing, "err", err)
	}
}

// notify publishes what tell is for; b is the job of the first of list.
func (j *Jobs) notify(ctx context.Context, t told, list []*execution, b *job) error {
	base, suffix := "$aws/things/"+t.thing+"/jobs/notify", ""
	if t.space != "" {
		suffix = "-" + inSpace + t.space
	}
	now := j.cfg.Now().Unix()
	n := notification{Timestamp: now, Jobs: map[string][]*iotjobsdata.JobExecutionSummary{}}
	for _, e := range list {
		n.Jobs[e.status] = append(n.Jobs[e.status], summary(e))
	}
	if err := j.publish(ctx, base+suffix, n); err != nil {
		return err
	}
	a, first := &answer{Timestamp: now}, ""
	if len(list) > 0 {
		first = list[0].key()
	}
	if first == t.head {
		return nil
	}
	if first != "" {
		e, err := j.deviceExecution(ctx, b, list[0], true)
		if err != nil {
			return err
		}
		a.Execution = inPayload(e)
	}
	return j.publish(ctx, base+"-next"+suffix, a)
}
