package push

import (
	"encoding/json"
	"fmt"
	"strings"

	"flotilla/internal/shadow/doc"
)

// statusKey is the member of reported in which a device says what became of a
// version, see the package's comment.
const statusKey = "configStatus"

// maxReason bytes of a device's reason are kept.
const maxReason = 256

// Status is where a thing is on its way to the desired state.
type Status string

// The statuses of a thing.
const (
	Pending    Status = "PENDING"    // written; not reported yet
	Applied    Status = "APPLIED"    // reported has it
	Failed     Status = "FAILED"     // the device reported that it could not
	Superseded Status = "SUPERSEDED" // somebody has written another desired state since
	Refused    Status = "REFUSED"    // the server did not take the update
)

// shadow is what is read of a shadow beyond what doc.Stand compares.
type shadow struct {
	Version int64
	State   struct {
		Reported struct {
			ConfigStatus json.RawMessage `json:"configStatus"`
		}
	}
	Metadata struct {
		Desired  any
		Reported struct {
			ConfigStatus any `json:"configStatus"`
		}
	}
}

// standing of a thing, as its shadow tells it.
type standing struct {
	status  Status
	held    bool // desired has what is wanted
	version int64
	reason  string
}

// judge tells from the body of an accepted get (nil: there is no shadow) how a
// thing stands to the desired state wanted, which was written as version since.
// Zero: it was there before; then the times in the metadata tell whether a
// failure is about it.
func judge(get, wanted []byte, since int64) (standing, error) {
	s, err := doc.Stand(get, wanted)
	if err != nil {
		return standing{}, err
	}
	var body shadow
	if get != nil {
		if err := json.Unmarshal(get, &body); err != nil {
			return standing{}, fmt.Errorf("push: shadow: %w", err)
		}
	}
	st := standing{status: Pending, held: s.Held, version: body.Version}
	if !s.Held {
		if since > 0 {
			st.status, st.reason = Superseded, "desired was changed by somebody else"
		}
		return st, nil
	}
	if !s.Differs {
		st.status = Applied
		return st, nil
	}
	if reason, failed := body.failure(wanted, since); failed {
		st.status, st.reason = Failed, reason
	}
	return st, nil
}

// failure tells whether the device said that it could not apply what was
// written, and why.
func (b *shadow) failure(wanted []byte, since int64) (reason string, failed bool) {
	var said struct {
		Version        int64
		Status, Reason string
	}
	if json.Unmarshal(b.State.Reported.ConfigStatus, &said) != nil || said.Status != "FAILED" {
		return "", false // a device may report anything there
	}
	if since > 0 {
		failed = said.Version >= since
	} else {
		var want any
		if json.Unmarshal(wanted, &want) != nil {
			return "", false
		}
		failed = newest(b.Metadata.Reported.ConfigStatus, nil) >= newest(b.Metadata.Desired, want)
	}
	if len(said.Reason) > maxReason {
		said.Reason = strings.ToValidUTF8(said.Reason[:maxReason], "")
	}
	return said.Reason, failed
}

// newest is the latest timestamp in metadata, in seconds, of what only names;
// nil names all. It is 0 when there is none.
func newest(metadata, only any) float64 {
	latest := 0.0
	switch m := metadata.(type) {
	case []any:
		for _, e := range m {
			latest = max(latest, newest(e, nil))
		}
	case map[string]any:
		if at, leaf := m["timestamp"].(float64); leaf {
			latest = at
		}
		names, some := only.(map[string]any)
		for k, v := range m {
			sub, named := names[k]
			if !some || named {
				latest = max(latest, newest(v, sub))
			}
		}
	}
	return latest
}
