package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"flotilla/internal/rules"
	"flotilla/internal/rules/sql"
)

type rulesReplayCmd struct {
	ruleSource `embed:""`

	File    string `arg:"" placeholder:"FILE" help:"Recording, or a file of the archive in JSON lines; - for the standard input."`
	Account string `name:"account" default:"123456789012" help:"What accountid() gives."`
	Quiet   bool   `name:"quiet" short:"q" help:"Print the summary only."`
	JSON    bool   `name:"json" help:"Print JSON lines, the last of them the summary."`
}

func (c *rulesReplayCmd) Help() string {
	return "Examples:\n\n" +
		"  flotilla rules replay --rule hot traffic.jsonl\n" +
		"  flotilla rules replay --sql \"SELECT * FROM 'plant/+' WHERE t > 80\" traffic.jsonl --json\n\n" +
		"Nothing is executed. Shown is what each message becomes, the actions with their filled templates, and what AWS would charge.\n" +
		"A line of a recording is {\"topic\":...,\"payload\":TEXT | \"payloadBase64\":...,\"clientId\":...,\"time\":...}. Of the archive (flotilla_topic, ...)\n" +
		"the payloads are what its rule made of the messages. Exit code 1 when the SQL failed on a message or a template can't be filled.\n"
}

// replayed is what --json prints of a message.
type replayed struct {
	Line  int    `json:"line"`
	Topic string `json:"topic"`
	testResult
}

// replaySummary is the last line of --json.
type replaySummary struct {
	Messages  int            `json:"messages"`
	Matched   int            `json:"matched"`
	Selected  int            `json:"selected"`
	Failed    int            `json:"failed"`
	Actions   map[string]int `json:"actions"`
	Units     rules.Cost     `json:"units"`
	CostUSD   float64        `json:"costUSD"`
	PriceOf   rules.Prices   `json:"prices"`
	FirstTime time.Time      `json:"from,omitzero"`
	LastTime  time.Time      `json:"to,omitzero"`
}

// maxRecorded bounds a line: a message of 128 KiB as text with each byte escaped, and its description.
const maxRecorded = 1 << 20

func (c *rulesReplayCmd) Run(s *streams) error {
	p, err := c.payload()
	if err != nil {
		return err
	}
	d, err := rules.NewDryRun(p)
	if err != nil {
		return err
	}
	in := io.Reader(os.Stdin)
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	out := bufio.NewWriter(s.out)
	sum := replaySummary{Actions: map[string]int{}, PriceOf: rules.AWSPrices()}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), maxRecorded)
	n := 0
	for lines.Scan() {
		if n++; len(lines.Bytes()) == 0 {
			continue
		}
		if err := c.one(out, d, &sum, n, lines.Bytes()); err != nil {
			return fmt.Errorf("%s, line %d: %w", c.File, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s, line %d: %w", c.File, n+1, err)
	}
	sum.CostUSD = sum.Units.USD(sum.PriceOf)
	if err := c.summary(out, &sum); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if sum.Failed > 0 {
		return fmt.Errorf("%d messages failed", sum.Failed)
	}
	return nil
}

// one replays a line.
func (c *rulesReplayCmd) one(out io.Writer, d *rules.DryRun, sum *replaySummary, n int, line []byte) error {
	m, payload, err := readRecorded(line)
	if err != nil {
		return err
	}
	if !m.Time.IsZero() {
		if sum.FirstTime.IsZero() || m.Time.Before(sum.FirstTime) {
			sum.FirstTime = m.Time
		}
		if m.Time.After(sum.LastTime) {
			sum.LastTime = m.Time
		}
	} else {
		m.Time = time.Now()
	}
	r := replayed{Line: n, Topic: m.Topic}
	o := d.Run(&sql.Input{
		Topic: m.Topic, Payload: payload, AccountID: c.Account, ClientID: m.ClientID, TraceID: uuid.NewString(), Now: m.Time, Rand: rand.Float64,
		NewUUID: uuid.NewString,
		Failed:  func(function string, err error) { r.Undefined = append(r.Undefined, function+": "+err.Error()) },
	})
	sum.Messages++
	sum.add(len(payload)+len(m.Topic), &o)
	r.Matches, r.Selected, r.Actions, r.Reason = o.Matches, o.Selected, o.Actions, whyNothing(d.SQL, &o, m.Topic)
	if o.Selected && o.Err == nil {
		r.show(o.Output)
	}
	switch {
	case c.Quiet:
		return nil
	case c.JSON:
		return jsonLine(out, r)
	case r.Reason != "":
		_, err = fmt.Fprintf(out, "%d %s: nothing: %s\n", n, m.Topic, r.Reason)
	default:
		_, err = fmt.Fprintf(out, "%d %s: %s\n", n, m.Topic, o.Output.Payload)
	}
	for _, a := range o.Actions {
		fmt.Fprintf(out, "    %s\n", actionLine(a))
	}
	for _, f := range r.Undefined {
		fmt.Fprintf(out, "    Undefined: %s\n", f)
	}
	return err
}

func (sum *replaySummary) add(size int, o *rules.Outcome) {
	sum.Units.Add(sum.PriceOf, size, o)
	if o.Matches {
		sum.Matched++
	}
	if o.Selected {
		sum.Selected++
	}
	failed := o.Err != nil
	for _, a := range o.Actions {
		if a.Fault != "" {
			failed = true
			continue
		}
		sum.Actions[a.Kind]++
	}
	if failed {
		sum.Failed++
	}
}

func (c *rulesReplayCmd) summary(out io.Writer, sum *replaySummary) error {
	if c.JSON {
		return jsonLine(out, sum)
	}
	fmt.Fprintf(out, "%d messages, %d on the rule's topics, %d selected, %d failed\n", sum.Messages, sum.Matched, sum.Selected, sum.Failed)
	for _, kind := range slices.Sorted(maps.Keys(sum.Actions)) {
		fmt.Fprintf(out, "%s: %d\n", kind, sum.Actions[kind])
	}
	_, err := fmt.Fprintf(out, "at AWS: %d units of rules triggered, %d of actions, %d of republished messages = %.6f USD (%s, prices of %s, first tier)\n",
		sum.Units.Triggered, sum.Units.Actions, sum.Units.Messages, sum.CostUSD, sum.PriceOf.Region, sum.PriceOf.Date)
	return err
}

func jsonLine(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// readRecorded reads a line of a recording, or of an archive's file.
func readRecorded(line []byte) (m recorded, payload []byte, err error) {
	if err := json.Unmarshal(line, &m); err != nil {
		return m, nil, err
	}
	if !archived(line) && m.Topic != "" {
		payload, err = m.bytes()
		return m, payload, err
	}
	return readArchived(line)
}

// archived tells a line of the archive: it begins with the description.
func archived(line []byte) bool {
	const first = `{"flotilla_id":`
	return len(line) > len(first) && string(line[:len(first)]) == first
}

// readArchived reads a line of the archive: first the description, then the members of the payload.
func readArchived(line []byte) (m recorded, payload []byte, err error) {
	described, payload, err := describedPart(line)
	if err != nil {
		return m, nil, err
	}
	var head struct {
		Topic    string          `json:"flotilla_topic"`
		ClientID string          `json:"flotilla_client_id"`
		Received int64           `json:"flotilla_received"`
		Value    json.RawMessage `json:"flotilla_value"`
		Payload  []byte          `json:"flotilla_payload"`
	}
	if err := json.Unmarshal(described, &head); err != nil {
		return m, nil, err
	}
	if head.Topic == "" {
		return m, nil, errors.New("neither a recorded message (topic) nor a line of the archive (flotilla_topic)")
	}
	m = recorded{Topic: head.Topic, ClientID: head.ClientID, Time: time.UnixMilli(head.Received).UTC()}
	switch {
	case head.Value != nil:
		payload = head.Value
	case head.Payload != nil:
		payload = head.Payload
	}
	return m, payload, nil
}

// describedPart splits an object into the members that describe the message and the others. A second member of the
// same name is the message's own.
func describedPart(line []byte) (description, rest []byte, err error) {
	left := map[string]bool{}
	for _, name := range []string{"id", "part", "rule", "topic", "client_id", "received", "value", "payload"} {
		left["flotilla_"+name] = true
	}
	d := jsontext.NewDecoder(bytes.NewReader(line), jsontext.AllowDuplicateNames(true))
	if _, err := d.ReadToken(); err != nil {
		return nil, nil, err
	}
	description, rest = []byte{'{'}, []byte{'{'}
	for d.PeekKind() == '"' {
		name, err := d.ReadValue()
		if err != nil {
			return nil, nil, err
		}
		quoted := bytes.Clone(name)
		val, err := d.ReadValue()
		if err != nil {
			return nil, nil, err
		}
		to := &rest
		if key := string(bytes.Trim(quoted, `"`)); left[key] {
			delete(left, key)
			to = &description
		}
		if len(*to) > 1 {
			*to = append(*to, ',')
		}
		*to = append(append(append(*to, quoted...), ':'), val...)
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, nil, err
	}
	return append(description, '}'), append(rest, '}'), nil
}
