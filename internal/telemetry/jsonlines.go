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

// newline is what ends a row in files of JSON lines, unless an archive is Separated.
const newline = "\n"

// writeJSONLines writes one JSON object a line: the description, then the members
// of the message. Each ends with the separator, as each record of Firehose does.
func writeJSONLines(w io.Writer, rows []Row, separator string) error {
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
		if _, err := bw.Write(append(head, separator...)); err != nil {
			return err
		}
	}
	return bw.Flush()
}

// scanLines calls fn for each line, without its separator; fn must not keep it.
func scanLines(r io.Reader, fn func([]byte) error) error {
	_, err := scanSeparated(r, fn)
	return err
}

// scanSeparated is scanLines; it returns the separator of the file too, which is the
// one after its first line.
func scanSeparated(r io.Reader, fn func([]byte) error) (separator string, err error) {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	s.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if separator == "" {
			separator = separatorAfter(data, objectEnd(data))
			if separator == "" && !atEOF {
				return 0, nil, nil // more of the first line
			}
		}
		if separator == "" || separator == newline || separator == "\r\n" {
			return bufio.ScanLines(data, atEOF)
		}
		end := objectEnd(data) // a comma is within lines too
		if separator == "\t" {
			end = bytes.IndexByte(data, '\t') // JSON has no tab within texts
		}
		switch {
		case end >= 0 && end < len(data):
			return end + 1, data[:end], nil
		case atEOF && len(data) > 0:
			return len(data), data, nil
		}
		return 0, nil, nil
	})
	for s.Scan() {
		if err := fn(s.Bytes()); err != nil {
			return separator, err
		}
	}
	return separator, s.Err()
}

// separatorAfter returns the separator that begins at data[end], "" when that can not
// be told yet.
func separatorAfter(data []byte, end int) string {
	if end < 0 {
		return ""
	}
	for _, separator := range []string{newline, "\t", "\r\n", ","} {
		if bytes.HasPrefix(data[end:], []byte(separator)) {
			return separator
		}
	}
	return ""
}

// objectEnd returns the place after the JSON object at the start of data; -1 when
// data has no end of it.
func objectEnd(data []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
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
