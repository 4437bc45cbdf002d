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

// jsonLinesIDs calls add for each row's identity.
func jsonLinesIDs(r io.Reader, add func(rowID)) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	for s.Scan() {
		id, err := lineID(s.Bytes())
		if err != nil {
			return fmt.Errorf("line that is not ours: %w", err)
		}
		add(id)
	}
	return s.Err()
}

// lineID reads the description alone: a message may have members of the same names.
func lineID(b []byte) (id rowID, err error) {
	d := jsontext.NewDecoder(bytes.NewReader(b), jsontext.AllowDuplicateNames(true))
	if _, err := d.ReadToken(); err != nil {
		return id, err
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return id, err
		}
		n := name.String()
		value, err := d.ReadToken()
		if err != nil {
			return id, err
		}
		switch n {
		case idColumn:
			if id.id, err = value.Int(); err != nil {
				return id, err
			}
		case partColumn:
			part, err := value.Int()
			id.part = int32(part)
			return id, err
		case ruleColumn: // after the part
			return id, nil
		}
	}
	return id, nil
}
