package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"flotilla/internal/aws/iot"
	"flotilla/internal/loggroup"
)

// Logs keeps groups of log events. Append returns once they are on stable storage.
type Logs interface {
	Append(group string, events []loggroup.Event) error
}

const (
	// maxLogEvents is how many entries a message of batchMode may have: those of one PutLogEvents.
	//
	// AWS: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
	maxLogEvents = 10_000
	// logPast and logFuture are how far the time of an entry may be away.
	logPast, logFuture = 14 * 24 * time.Hour, 2 * time.Hour
)

// compileCloudwatchLogs makes an action that appends messages to the log group logGroupName. With
// batchMode a message is an array of entries {"timestamp": ms, "message": text}; without, it is one entry.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/cloudwatch-logs-rule-action.html
func compileCloudwatchLogs(c *compiler, a *iot.Action) *Action {
	p := a.CloudwatchLogs
	c.role(p.RoleArn)
	group := c.checked("logGroupName", p.LogGroupName, loggroup.CheckName)
	batch := value(p.BatchMode)
	return &Action{open: func(env Env) (Sink, error) {
		if env.Logs == nil {
			return nil, errors.New("cloudwatchLogs: there are no log groups")
		}
		return &logsSink{env: env, group: group, batch: batch}, nil
	}}
}

// logsSink appends. group is an index of Record.Fields.
type logsSink struct {
	env   Env
	group int
	batch bool
}

// Do appends the records that follow each other for one group together.
func (s *logsSink) Do(ctx context.Context, records []Record) (int, error) {
	for done := 0; done < len(records); {
		group, n := records[done].Fields[s.group], 0
		var events []loggroup.Event
		var broken error
		for _, r := range records[done:] {
			if r.Fields[s.group] != group {
				break
			}
			var more []loggroup.Event
			if more, broken = s.events(&r); broken != nil {
				break
			}
			events, n = append(events, more...), n+1
		}
		if err := loggroup.CheckName(group); err != nil {
			return done, Permanent(err)
		}
		if len(events) > 0 {
			if err := s.env.Logs.Append(group, events); err != nil {
				return done, err
			}
		}
		if done += n; broken != nil {
			return done, Permanent(broken)
		}
		if err := ctx.Err(); err != nil && done < len(records) {
			return done, err
		}
	}
	return len(records), nil
}

// events are the entries of a record.
func (s *logsSink) events(r *Record) ([]loggroup.Event, error) {
	now := s.env.Now()
	if !s.batch {
		if len(r.Payload) > loggroup.MaxMessage || !utf8.Valid(r.Payload) {
			return nil, fmt.Errorf("cloudwatchLogs: the message is not text of at most %d bytes", loggroup.MaxMessage)
		}
		return []loggroup.Event{{Timestamp: r.Received.UnixMilli(), IngestionTime: now.UnixMilli(), Message: string(r.Payload)}}, nil
	}
	var entries []struct {
		Timestamp *int64  `json:"timestamp"`
		Message   *string `json:"message"`
	}
	if err := json.Unmarshal(r.Payload, &entries); err != nil || len(entries) == 0 || len(entries) > maxLogEvents {
		return nil, fmt.Errorf("cloudwatchLogs: with batchMode a message is an array of 1 to %d entries with timestamp and message", maxLogEvents)
	}
	out := make([]loggroup.Event, len(entries))
	for i, e := range entries {
		if e.Timestamp == nil || e.Message == nil || *e.Message == "" || len(*e.Message) > loggroup.MaxMessage {
			return nil, fmt.Errorf("cloudwatchLogs: the entry at %d has not both a timestamp in milliseconds and a message of 1 to %d bytes", i, loggroup.MaxMessage)
		}
		if at := time.UnixMilli(*e.Timestamp); at.Before(r.Received.Add(-logPast)) || at.After(r.Received.Add(logFuture)) {
			return nil, fmt.Errorf("cloudwatchLogs: the timestamp of the entry at %d is more than 14 days ago or 2 hours ahead", i)
		}
		out[i] = loggroup.Event{Timestamp: *e.Timestamp, IngestionTime: now.UnixMilli(), Message: *e.Message}
	}
	return out, nil
}

func (s *logsSink) Resource(r *Record) string { return r.Fields[s.group] }

func (s *logsSink) Close() error { return nil }
