package telemetry

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// line is a message in a file of JSON lines.
type line struct {
	ID       int64           `json:"flotilla_id"`
	Part     int32           `json:"flotilla_part,omitempty"`
	Rule     string          `json:"flotilla_rule"`
	Topic    string          `json:"flotilla_topic"`
	ClientID string          `json:"flotilla_client_id,omitempty"`
	Received int64           `json:"flotilla_received"` // ms
	Value    json.RawMessage `json:"flotilla_value,omitempty"`
	Payload  []byte          `json:"flotilla_payload,omitempty"` // not JSON: base64
}

// maxLine bounds a line when a file is read; a message is 128 KiB at most, base64 and
// the description included it is well below.
const maxLine = 1 << 20

// writeJSONLines writes one JSON object a line: the description, then the members
// of the message.
func writeJSONLines(w io.Writer, rows []Row) error {
	bw := bufio.NewWriterSize(w, 256<<10)
	for i := range rows {
		r := &rows[i]
		l := line{ID: r.ID, Part: r.Part, Rule: r.Rule, Topic: r.Topic, ClientID: r.ClientID, Received: r.Received.UnixMilli()}
		payload := jsontext.Value(bytes.Clone(r.Payload))
		members := []byte(nil)
		switch err := payload.Compact(jsontext.AllowDuplicateNames(true)); {
		case err != nil:
			l.Payload = r.Payload
		case payload.Kind() == '{':
			members = payload[1 : len(payload)-1]
		default:
			l.Value = json.RawMessage(payload)
		}
		head, err := json.Marshal(&l)
		if err != nil {
			return err
		}
		if len(members) > 0 {
			head = append(append(append(head[:len(head)-1], ','), members...), '}')
		}
		if _, err := bw.Write(append(head, '\n')); err != nil {
			return err
		}
	}
	return bw.Flush()
}

// scanLines calls fn for each line; fn must not keep it.
func scanLines(r io.Reader, fn func([]byte) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	for s.Scan() {
		if err := fn(s.Bytes()); err != nil {
			return err
		}
	}
	return s.Err()
}

// jsonLinesIDs calls add for each row's identity.
func jsonLinesIDs(r io.Reader, add func(rowID)) error {
	return scanLines(r, func(b []byte) error {
		l, _, err := splitLine(b)
		if err == nil {
			add(rowID{l.ID, l.Part})
		}
		return err
	})
}

// splitLine takes a line apart: the description, and the members of the message as
// a JSON object. A message may have members of the description's names: they come
// after it.
func splitLine(b []byte) (l line, members []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("line that is not ours: %w", err)
		}
	}()
	d := jsontext.NewDecoder(bytes.NewReader(b), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := d.ReadToken(); err != nil {
		return l, nil, err
	}
	targets := []struct {
		name string
		to   any
	}{{idColumn, &l.ID}, {partColumn, &l.Part}, {ruleColumn, &l.Rule}, {topicColumn, &l.Topic}, {clientColumn, &l.ClientID}, {receivedColumn, &l.Received}, {valueColumn, &l.Value}, {payloadColumn, &l.Payload}}
	for d.PeekKind() == '"' {
		before := d.InputOffset()
		token, err := d.ReadToken()
		if err != nil {
			return l, nil, err
		}
		name := token.String()
		for len(targets) > 0 && targets[0].name != name {
			targets = targets[1:]
		}
		if len(targets) == 0 {
			rest := bytes.TrimLeft(b[before:], ", ")
			return l, append([]byte{'{'}, rest...), nil
		}
		value, err := d.ReadValue()
		if err != nil {
			return l, nil, err
		}
		if err := json.Unmarshal(value, targets[0].to); err != nil {
			return l, nil, err
		}
		targets = targets[1:]
	}
	_, err = d.ReadToken()
	return l, nil, err
}
