package action

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"flotilla/internal/aws/iot"
	"flotilla/internal/telemetry"
)

// compileFirehose makes an action that archives: rows in files of the archive's
// directory deliveryStreamName. With batchMode a payload that is a JSON array
// becomes a row per element. separator ends each row in files of JSON lines, a newline
// when there is none; Parquet files have no separator. A message that does not fit the
// declared columns of its stream goes to the errorAction.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/kinesis-firehose-rule-action.html
func compileFirehose(c *compiler, a *iot.Action) *Action {
	p := a.Firehose
	c.role(p.RoleArn)
	stream := c.checked("deliveryStreamName", p.DeliveryStreamName, telemetry.CheckStream)
	switch sep := value(p.Separator); sep {
	case "", "\n", "\t", "\r\n", ",":
	default:
		c.refuse(`separator %q is none of \n, \t, \r\n and ,`, sep)
	}
	split := value(p.BatchMode)
	return &Action{
		batch: func(env Env) Batch {
			if env.Engines.Firehose == EngineAWS {
				return Batch{Rows: 500, Bytes: 4 << 20}
			}
			return env.Firehose
		},
		open: func(env Env) (Sink, error) {
			if env.Engines.Firehose == EngineAWS {
				return onAWSFirehose(env, stream, value(p.Separator), split)
			}
			if env.Archive == nil {
				return nil, errors.New("firehose: there is no archive")
			}
			return &firehoseSink{env: env, archive: env.Archive.Separated(value(p.Separator)), stream: stream, split: split}, nil
		},
	}
}

// firehoseSink writes a batch as files. A row carries its record's id, so that the
// rows of a batch that is repeated after a crash are found again.
type firehoseSink struct {
	env     Env
	archive *telemetry.Archive
	stream  int
	split   bool
}

func (s *firehoseSink) Do(ctx context.Context, records []Record) (int, error) {
	done := 0
	for done < len(records) {
		// Files are of one stream: a run of records with the same name.
		name, end := records[done].Fields[s.stream], done+1
		for end < len(records) && records[end].Fields[s.stream] == name {
			end++
		}
		rows := s.rows(records[done:end])
		fit, misfit := s.archive.Fit(name, rows)
		if misfit != nil && !errors.Is(misfit, telemetry.ErrSchema) {
			return done, hopeless(misfit)
		}
		if misfit != nil {
			id := rows[fit].ID // its message goes whole, whichever of its rows does not fit
			end = done + slices.IndexFunc(records[done:end], func(r Record) bool { return r.ID == id })
			rows = rows[:slices.IndexFunc(rows, func(r telemetry.Row) bool { return r.ID == id })]
		}
		if _, err := s.archive.Write(ctx, name, s.env.Source, rows); err != nil {
			return done, hopeless(err)
		}
		if done = end; misfit != nil {
			return done, Permanent(misfit)
		}
	}
	return done, nil
}

// hopeless marks the errors of the archive that no further attempt can help.
func hopeless(err error) error {
	if errors.Is(err, telemetry.ErrStreamName) {
		return Permanent(err)
	}
	return err
}

func (s *firehoseSink) rows(records []Record) []telemetry.Row {
	rows := make([]telemetry.Row, 0, len(records))
	for i := range records {
		r := &records[i]
		row := telemetry.Row{ID: r.ID, Rule: r.Rule, Topic: r.Topic, ClientID: r.ClientID, Received: r.Received, Payload: r.Payload}
		var parts []json.RawMessage
		if s.split && json.Unmarshal(r.Payload, &parts) == nil {
			for n, part := range parts {
				row.Part, row.Payload = int32(n), part
				rows = append(rows, row)
			}
			continue
		}
		rows = append(rows, row)
	}
	return rows
}

func (s *firehoseSink) Resource(r *Record) string { return r.Fields[s.stream] }

func (s *firehoseSink) Close() error { return nil }
