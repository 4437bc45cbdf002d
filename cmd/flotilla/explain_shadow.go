package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"flotilla/internal/api/client"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/shadow/doc"
)

type explainShadowCmd struct {
	target `embed:""`
	Thing  string `arg:"" name:"thing" help:"Name of the thing."`
	Name   string `name:"name" placeholder:"SHADOW" help:"Name of a named shadow; without it the classic one."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (c *explainShadowCmd) Help() string {
	return "Example:\n\n  flotilla explain shadow pump-1 --name config\n\n" +
		"Says what desired asks that reported lacks, who wrote that when and as which version (as far as the history goes back), when the\n" +
		"device reported last, whether it said that it could not (docs/configuration.md), and whether a client with the thing's name is connected.\n"
}

// pendingShadow is why a shadow's delta is pending.
type pendingShadow struct {
	Thing       string          `json:"thing"`
	Shadow      string          `json:"shadow,omitempty"`
	Version     int64           `json:"version"`
	Delta       json.RawMessage `json:"delta,omitempty"`   // nothing is pending without it
	Writer      *shadowWriter   `json:"writer,omitempty"`  // unknown to the history without it
	Refusal     *deviceRefusal  `json:"refusal,omitempty"` // what the device said
	Reported    *time.Time      `json:"reported,omitempty"`
	Connected   bool            `json:"connected"` // the client whose id is the thing's name
	ConnectedTo string          `json:"connectedTo,omitempty"`
}

type shadowWriter struct {
	Version   int64     `json:"version"`
	Time      time.Time `json:"time"`
	Operation string    `json:"operation"`
	Principal string    `json:"principal,omitempty"`
	ClientID  string    `json:"clientId,omitempty"`
}

type deviceRefusal struct {
	Version int64  `json:"version"`
	Status  string `json:"status"`
	Reason  string `json:"reason,omitempty"`
}

func (c *explainShadowCmd) Run(s *streams) error {
	get, err := c.shadow()
	if err != nil {
		return err
	}
	p := pendingShadow{Thing: c.Thing, Shadow: c.Name}
	if err := p.read(get); err != nil {
		return err
	}
	if p.Delta != nil {
		if p.Writer, err = c.writer(get); err != nil {
			return err
		}
	}
	var connection flotilla.ExplainClientResponse
	if err := c.call(http.MethodGet, client.Path("explain", "client", c.Thing), nil, &connection); err != nil {
		return err
	}
	p.Connected, p.ConnectedTo = connection.Connected != nil && *connection.Connected, text(connection.ConnectedTo)
	if c.JSON {
		return printJSON(s, p)
	}
	p.print(s.out)
	return nil
}

func (c *explainShadowCmd) shadow() (get []byte, err error) {
	path := client.Path("things", c.Thing, "shadow")
	if c.Name != "" {
		path += "?name=" + url.QueryEscape(c.Name)
	}
	err = c.callService("iotdata", http.MethodGet, path, nil, &get)
	return get, err
}

// read takes from the body of an accepted get what it tells.
func (p *pendingShadow) read(get []byte) error {
	var body struct {
		Version int64
		State   struct {
			Delta    json.RawMessage
			Reported struct {
				ConfigStatus json.RawMessage `json:"configStatus"`
			}
		}
		Metadata struct{ Reported any }
	}
	if err := json.Unmarshal(get, &body); err != nil {
		return err
	}
	p.Version, p.Delta = body.Version, body.State.Delta
	if at := latest(body.Metadata.Reported); at > 0 {
		p.Reported = new(time.Unix(at, 0).UTC())
	}
	var said deviceRefusal
	if json.Unmarshal(body.State.Reported.ConfigStatus, &said) == nil && said.Status == "FAILED" {
		p.Refusal = &said
	}
	return nil
}

// latest is the newest timestamp in metadata, 0 when there is none.
func latest(metadata any) (seconds int64) {
	switch m := metadata.(type) {
	case []any:
		for _, e := range m {
			seconds = max(seconds, latest(e))
		}
	case map[string]any:
		if at, leaf := m["timestamp"].(float64); leaf {
			return int64(at)
		}
		for _, e := range m {
			seconds = max(seconds, latest(e))
		}
	}
	return seconds
}

// writer is the last change in the history that wrote something of the delta of
// the shadow get; nil when the history does not say, or is off.
func (c *explainShadowCmd) writer(get []byte) (*shadowWriter, error) {
	var history flotilla.ListShadowHistoryResponse
	of := oneShadow{target: c.target, Thing: c.Thing, Name: c.Name}
	err := c.call(http.MethodGet, of.path(), nil, &history)
	if e, ok := errors.AsType[*client.Error](err); ok && e.Type == "InvalidRequestException" {
		return nil, nil // it is off
	}
	if err != nil {
		return nil, err
	}
	for _, e := range history.Entries {
		var change struct{ Desired json.RawMessage }
		if e.Change == nil || json.Unmarshal([]byte(*e.Change), &change) != nil || len(change.Desired) == 0 {
			continue
		}
		if st, err := doc.Stand(get, change.Desired); err == nil && st.Differs {
			return &shadowWriter{*e.Version, e.Time.UTC(), *e.Operation, text(e.Principal), text(e.ClientId)}, nil
		}
	}
	return nil, nil
}

func (p *pendingShadow) print(w io.Writer) {
	name := p.Thing
	if p.Shadow != "" {
		name += ", shadow " + p.Shadow
	}
	if p.Delta == nil {
		fmt.Fprintf(w, "%s, version %d: nothing is pending\n", name, p.Version)
	} else {
		fmt.Fprintf(w, "%s, version %d: pending is %s\n", name, p.Version, p.Delta)
		if by := p.Writer; by == nil {
			fmt.Fprintln(w, "the history does not say who wrote it")
		} else {
			fmt.Fprintf(w, "written as version %d at %s by %s, client %s (%s)\n", by.Version, by.Time.Format(time.RFC3339), orNone(by.Principal), orNone(by.ClientID), by.Operation)
		}
	}
	if r := p.Refusal; r != nil {
		fmt.Fprintf(w, "the device reported that it could not apply version %d: %q\n", r.Version, r.Reason)
	}
	if p.Reported == nil {
		fmt.Fprintln(w, "the device never reported")
	} else {
		fmt.Fprintf(w, "the device reported last at %s\n", p.Reported.Format(time.RFC3339))
	}
	if p.Connected {
		fmt.Fprintf(w, "a client named %s is connected to %s\n", p.Thing, p.ConnectedTo)
	} else {
		fmt.Fprintf(w, "no client named %s is connected\n", p.Thing)
	}
}

func orNone(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
