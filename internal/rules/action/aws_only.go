package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/awsclient"
	"flotilla/internal/rules/sql"
)

// onlyAWS is an action that no engine but AWS has.
func onlyAWS(open func(Env) (Sink, error)) *Action { return &Action{engine: EngineAWS, open: open} }

// rest posts a document of rest-json and reads the answer.
func rest(ctx context.Context, to AWS, service, operation, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	status, answer, err := to.REST(ctx, service, http.MethodPost, path, nil, body)
	switch {
	case err != nil:
		return err
	case status/100 != 2:
		return awsclient.Refusal(service, operation, status, answer)
	case json.Unmarshal(answer, out) != nil:
		return fmt.Errorf("%s %s: the answer is not what was to be expected", service, operation)
	}
	return nil
}

// compileStepFunctions makes an action that starts an execution of a state machine. Its name is made of the record, so
// that an attempt that is repeated starts no second one.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/stepfunctions-rule-action.html
func compileStepFunctions(c *compiler, a *iot.Action) *Action {
	p := a.StepFunctions
	c.role(p.RoleArn)
	machine := c.checked("stateMachineName", p.StateMachineName, named("stateMachineName", 80))
	prefix := c.template("executionNamePrefix", p.ExecutionNamePrefix, sql.Generic)
	type entry struct {
		StateMachineArn string `json:"stateMachineArn"`
		Name            string `json:"name"`
		Input           string `json:"input"`
	}
	return onlyAWS(func(env Env) (Sink, error) {
		s := &awsSink[entry]{limit: weight{awsInFlight, 1 << 20}, resource: func(r *Record) string { return r.Fields[machine] }}
		s.entry = func(r *Record) (entry, weight, error) {
			seed := fmt.Sprintf("%d/%d/%d/%s/%s", env.Source, r.ID, r.Received.UnixNano(), r.Topic, r.Payload)
			e := entry{env.Account.ARN("states", "stateMachine:"+r.Fields[machine]), optional(r, prefix, "") + uuid.NewSHA1(uuid.NameSpaceOID, []byte(seed)).String(), string(r.Payload)}
			if len(e.Name) > 80 {
				return e, weight{}, errors.New("executionNamePrefix has more than 44 characters") // of the name's 80
			}
			return e, one(r, 0), named("stateMachineName", 80)(r.Fields[machine])
		}
		s.send = func(ctx context.Context, _ string, entries []entry) ([]error, error) {
			return each(ctx, entries, func(ctx context.Context, e entry) error {
				err := s.aws.JSON(ctx, "states", "AWSStepFunctions.StartExecution", "1.0", e, nil)
				if x, ok := errors.AsType[*awsclient.Error](err); ok && x.Code == "ExecutionAlreadyExists" {
					return nil
				}
				return err
			})
		}
		return s.start(env)
	})
}

// named checks a text that is a name of at most limit characters.
func named(field string, limit int) func(string) error {
	return func(s string) error {
		if s == "" || len(s) > limit {
			return fmt.Errorf("%s %q has 1 to %d characters", field, s, limit)
		}
		return nil
	}
}

// message is one of IoT Events and IoT Analytics.
type message struct {
	InputName string `json:"inputName,omitempty"`
	MessageId string `json:"messageId"`
	Payload   []byte `json:"payload"`
}

// messages are those of a record: each has an id, which is the same in each attempt.
func messages(r *Record, split bool, input, id string) (out []message, w weight) {
	for i, p := range parts(r, split) {
		m := message{InputName: input, MessageId: id, Payload: p}
		if id == "" {
			m.MessageId = fmt.Sprintf("%d-%d", r.ID, i)
		}
		out, w.rows, w.bytes = append(out, m), w.rows+1, w.bytes+len(p)
	}
	return out, w
}

// messageErrors are the errors of entries in an answer, by message id.
type messageErrors []struct{ MessageId, ErrorCode, ErrorMessage string }

// put sends the messages of entries, most at a time.
func put(entries [][]message, most int, call func([]message) (messageErrors, error)) ([]error, error) {
	owner := map[string]int{}
	var all []message
	for i, e := range entries {
		for _, m := range e {
			owner[m.MessageId] = i
		}
		all = append(all, e...)
	}
	failed := make([]error, len(entries))
	for n := 0; n < len(all); n += most {
		out, err := call(all[n:min(n+most, len(all))])
		if err != nil {
			return nil, err
		}
		for _, e := range out {
			if i, ok := owner[e.MessageId]; ok {
				failed[i] = refused(e.ErrorCode, e.ErrorMessage)
			}
		}
	}
	return failed, nil
}

// compileIotEvents makes an action that sends to an input of IoT Events, 10 messages in a call.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iotevents-rule-action.html
func compileIotEvents(c *compiler, a *iot.Action) *Action {
	p := a.IotEvents
	c.role(p.RoleArn)
	input := c.checked("inputName", p.InputName, named("inputName", 128))
	id := c.template("messageId", p.MessageId, sql.Generic)
	split := value(p.BatchMode)
	if split && p.MessageId != nil {
		c.refuse("messageId can not be set when batchMode is true")
	}
	return onlyAWS(func(env Env) (Sink, error) {
		s := &awsSink[[]message]{limit: weight{10, 1 << 20}, resource: func(r *Record) string { return r.Fields[input] }}
		s.entry = func(r *Record) ([]message, weight, error) {
			given := optional(r, id, "")
			if len(given) > 64 {
				return nil, weight{}, errors.New("messageId has more than 64 characters")
			}
			m, w := messages(r, split, r.Fields[input], given)
			return m, w, nil
		}
		if id >= 0 { // the ids of a call are different
			s.key = func(r *Record) string { return r.Fields[id] }
		}
		s.send = func(ctx context.Context, _ string, entries [][]message) ([]error, error) {
			return put(entries, 10, func(m []message) (messageErrors, error) {
				var out struct{ BatchPutMessageErrorEntries messageErrors }
				err := rest(ctx, s.aws, "ioteventsdata", "BatchPutMessage", "/inputs/messages", map[string]any{"messages": m}, &out)
				return out.BatchPutMessageErrorEntries, err
			})
		}
		return s.start(env)
	})
}

// compileIotAnalytics makes an action that sends to a channel of IoT Analytics, 100 messages in a call.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iotanalytics-rule-action.html
func compileIotAnalytics(c *compiler, a *iot.Action) *Action {
	p := a.IotAnalytics
	if p.RoleArn != nil {
		c.role(*p.RoleArn)
	}
	name := p.ChannelName
	if arn, ok := aws.ParseARN(value(p.ChannelArn)); name == nil && ok {
		if channel, found := strings.CutPrefix(arn.Resource, "channel/"); found && arn.Service == "iotanalytics" {
			name = &channel
		}
	}
	if name == nil {
		c.refuse("channelName is required")
		name = new("")
	}
	channel := c.checked("channelName", *name, named("channelName", 128))
	split := value(p.BatchMode)
	return onlyAWS(func(env Env) (Sink, error) {
		s := &awsSink[[]message]{limit: weight{100, 500 << 10}, resource: func(r *Record) string { return r.Fields[channel] }}
		s.entry = func(r *Record) ([]message, weight, error) {
			m, w := messages(r, split, "", "")
			return m, w, nil
		}
		s.send = func(ctx context.Context, resource string, entries [][]message) ([]error, error) {
			return put(entries, 100, func(m []message) (messageErrors, error) {
				var out struct{ BatchPutMessageErrorEntries messageErrors }
				err := rest(ctx, s.aws, "iotanalytics", "BatchPutMessage", "/messages/batch", map[string]any{"channelName": resource, "messages": m}, &out)
				return out.BatchPutMessageErrorEntries, err
			})
		}
		return s.start(env)
	})
}

// compileLocation makes an action that sends positions to a tracker of Amazon Location, 10 devices in a call.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/location-rule-action.html
func compileLocation(c *compiler, a *iot.Action) *Action {
	p := a.Location
	c.role(p.RoleArn)
	tracker := c.checked("trackerName", p.TrackerName, named("trackerName", 100))
	device := c.checked("deviceId", p.DeviceId, named("deviceId", 100))
	latitude := c.checked("latitude", p.Latitude, degrees("latitude", 90))
	longitude := c.checked("longitude", p.Longitude, degrees("longitude", 180))
	at, unit := -1, -1
	if p.Timestamp != nil {
		at = c.template("timestamp.value", &p.Timestamp.Value, sql.Generic)
		unit = c.template("timestamp.unit", p.Timestamp.Unit, sql.Generic)
	}
	type update struct {
		DeviceId   string
		Position   [2]float64
		SampleTime string
	}
	return onlyAWS(func(env Env) (Sink, error) {
		s := &awsSink[update]{limit: weight{10, 1 << 20}, resource: func(r *Record) string { return r.Fields[tracker] }}
		s.key = func(r *Record) string { return r.Fields[device] }
		s.entry = func(r *Record) (update, weight, error) {
			u, when := update{DeviceId: r.Fields[device]}, r.Received
			var err error
			if at >= 0 {
				when, err = instant(r.Fields[at], optional(r, unit, "MILLISECONDS"))
			}
			u.SampleTime = when.UTC().Format("2006-01-02T15:04:05.000Z")
			err = errors.Join(err, named("deviceId", 100)(u.DeviceId), degrees("latitude", 90)(r.Fields[latitude]), degrees("longitude", 180)(r.Fields[longitude]))
			u.Position[0], _ = strconv.ParseFloat(r.Fields[longitude], 64)
			u.Position[1], _ = strconv.ParseFloat(r.Fields[latitude], 64)
			return u, weight{1, 200}, err
		}
		s.send = func(ctx context.Context, resource string, entries []update) ([]error, error) {
			var out struct {
				Errors []struct {
					DeviceId string
					Error    struct{ Code, Message string }
				}
			}
			path := "/tracking/v0/trackers/" + url.PathEscape(resource) + "/positions"
			if err := rest(ctx, s.aws, "geo", "BatchUpdateDevicePosition", path, map[string]any{"Updates": entries}, &out); err != nil {
				return nil, err
			}
			failed := make([]error, len(entries))
			for i := range entries {
				for _, e := range out.Errors {
					if e.DeviceId == entries[i].DeviceId {
						failed[i] = refused(e.Error.Code, e.Error.Message)
					}
				}
			}
			return failed, nil
		}
		return s.start(env)
	})
}

// degrees checks a coordinate.
func degrees(field string, limit float64) func(string) error {
	return func(s string) error {
		if f, err := strconv.ParseFloat(s, 64); err != nil || !(f >= -limit && f <= limit) {
			return fmt.Errorf("%s %q is not a number from -%v to %v", field, s, limit, limit)
		}
		return nil
	}
}
