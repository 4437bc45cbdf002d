package push_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/api/client"
	"flotilla/internal/push"
)

// cloud answers calls: shadows by path, pages by request.
type cloud struct {
	mu      sync.Mutex
	shadows map[string]string // path -> body of get
	pages   map[string]string // method, path and body -> answer
	refuse  map[string]error  // path -> what an update or a get meets
	writes  []time.Time
	onWrite func(path string) // after it; the lock is held
	version int
	broken  error
}

func (c *cloud) Call(ctx context.Context, service, method, path string, in, out any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(c.broken, ctx.Err()); err != nil {
		return err
	}
	body, raw := in.([]byte)
	if !raw && in != nil {
		body, _ = json.Marshal(in)
	}
	if answer, ok := c.pages[strings.TrimSpace(method+" "+path+" "+string(body))]; ok && service == "iot" {
		return json.Unmarshal([]byte(answer), out)
	}
	if service != "iotdata" {
		return fmt.Errorf("unexpected %s %s %s %s", service, method, path, body)
	}
	if err := c.refuse[method+" "+path]; err != nil {
		return err
	}
	if method == "GET" {
		shadow, ok := c.shadows[path]
		if !ok {
			return &client.Error{Status: 404, Type: "ResourceNotFoundException", Message: "No shadow exists with name: 'x'"}
		}
		*out.(*[]byte) = []byte(shadow)
		return nil
	}
	c.version++
	c.writes = append(c.writes, time.Now())
	var update struct {
		State struct{ Desired json.RawMessage }
	}
	if err := json.Unmarshal(body, &update); err != nil {
		return err
	}
	c.set(path, update.State.Desired, update.State.Desired, "")
	if c.onWrite != nil {
		c.onWrite(path)
	}
	return json.Unmarshal(fmt.Appendf(nil, `{"version":%d}`, c.version), out)
}

// set makes a shadow of the present version.
func (c *cloud) set(path string, desired, delta json.RawMessage, status string) {
	text := fmt.Sprintf(`{"state":{"desired":%s`, desired)
	if status != "" {
		text += fmt.Sprintf(`,"reported":{"configStatus":%s}`, status)
	}
	if delta != nil {
		text += fmt.Sprintf(`,"delta":%s`, delta)
	}
	c.shadows[path] = text + fmt.Sprintf(`},"version":%d}`, c.version)
}

func things(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("t%03d", i))
	}
	return names
}

func counts(t *testing.T, r *push.Report, err error, want push.Counts) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, r.Counts); diff != "" {
		t.Errorf("%s\n%+v", diff, r.Open)
	}
}

// Updates keep to the rate; a second run writes nothing.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cloud{shadows: map[string]string{}}
		o := push.Options{Slice: push.Slice{Things: things(100)}, Desired: []byte(`{"a":1}`), Rate: 10}
		r, err := push.Run(t.Context(), c, o)
		counts(t, r, err, push.Counts{Things: 100, Looked: 100, Written: 100, Pending: 100})
		if took := c.writes[99].Sub(c.writes[0]); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("100 updates at 10 a second took %s", took)
		}
		r, err = push.Run(t.Context(), c, o)
		counts(t, r, err, push.Counts{Things: 100, Looked: 100, Unchanged: 100, Pending: 100})
		if len(c.writes) != 100 {
			t.Errorf("%d updates", len(c.writes))
		}
	})
}

// What becomes of things within the time, and after it.
func TestStatuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := func(thing string) string { return "/things/" + thing + "/shadow?name=s" }
		c := &cloud{shadows: map[string]string{}, version: 7, refuse: map[string]error{
			"POST " + path("gone"):  &client.Error{Status: 404, Type: "ResourceNotFoundException", Message: "Thing not found"},
			"GET " + path("denied"): &client.Error{Status: 403, Type: "ForbiddenException", Message: "no"},
		}}
		c.set(path("failed-before"), []byte(`{"a":0}`), []byte(`{"a":0}`), `{"version":7,"status":"FAILED"}`)
		desired := json.RawMessage(`{"a":1}`)
		c.onWrite = func(at string) {
			version := c.version
			time.AfterFunc(90*time.Second, func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				switch at {
				case path("applies"):
					c.set(at, desired, nil, "")
				case path("fails"):
					c.set(at, desired, desired, fmt.Sprintf(`{"version":%d,"status":"FAILED","reason":"no"}`, version))
				case path("overwritten"):
					c.set(at, []byte(`{"a":2}`), []byte(`{"a":2}`), "")
				case path("says-something-else"):
					c.set(at, desired, desired, `"FAILED"`)
				}
			})
		}
		start := time.Now()
		r, err := push.Run(t.Context(), c, push.Options{
			Slice:  push.Slice{Things: []string{"applies", "fails", "overwritten", "says-something-else", "gone", "denied", "failed-before", "fails"}},
			Shadow: "s", Desired: desired, Timeout: 5 * time.Minute,
		})
		counts(t, r, err, push.Counts{Things: 7, Looked: 7, Written: 5, Pending: 2, Applied: 1, Failed: 1, Superseded: 1, Refused: 2})
		got := map[string]push.Status{}
		for _, thing := range r.Open {
			got[thing.Name] = thing.Status
		}
		if diff := cmp.Diff(map[string]push.Status{
			"fails": push.Failed, "overwritten": push.Superseded, "says-something-else": push.Pending, "gone": push.Refused,
			"denied": push.Refused, "failed-before": push.Pending,
		}, got); diff != "" {
			t.Error(diff)
		}
		if took := time.Since(start); took < 5*time.Minute || took > 5*time.Minute+10*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// A failure of a version that an earlier run wrote counts if it came after that;
// it is written again only on request.
func TestFailedBefore(t *testing.T) {
	shadow := func(desiredAt, statusAt int) string {
		return fmt.Sprintf(`{"state":{"desired":{"a":1,"b":1},"reported":{"configStatus":{"version":3,"status":"FAILED"}},"delta":{"a":1}},
			"metadata":{"desired":{"a":{"timestamp":%d},"b":{"timestamp":999}},"reported":{"configStatus":{"version":{"timestamp":%d},"status":{"timestamp":1}}}},"version":4}`, desiredAt, statusAt)
	}
	c := &cloud{shadows: map[string]string{"/things/old/shadow": shadow(100, 99), "/things/new/shadow": shadow(100, 100)}}
	o := push.Options{Slice: push.Slice{Things: []string{"old", "new"}}, Desired: []byte(`{"a":1}`)}
	r, err := push.Run(t.Context(), c, o)
	counts(t, r, err, push.Counts{Things: 2, Looked: 2, Unchanged: 2, Pending: 1, Failed: 1})
	o.RetryFailed = true
	r, err = push.Run(t.Context(), c, o)
	counts(t, r, err, push.Counts{Things: 2, Looked: 2, Written: 1, Unchanged: 1, Pending: 2})
}

// Queries and groups are read page by page.
func TestSlices(t *testing.T) {
	c := &cloud{shadows: map[string]string{}, pages: map[string]string{
		`POST /indices/search {"queryString":"thingName:*","maxResults":500}`:                 `{"things":[{"thingName":"a"},{"thingName":"b"}],"nextToken":"n"}`,
		`POST /indices/search {"queryString":"thingName:*","nextToken":"n","maxResults":500}`: `{"things":[{"thingName":"b"},{"thingName":"c"}]}`,
		`GET /thing-groups/g%2Fh/things?maxResults=250&recursive=true`:                        `{"things":["a","b"],"nextToken":"n"}`,
		`GET /thing-groups/g%2Fh/things?maxResults=250&nextToken=n&recursive=true`:            `{"things":["d"]}`,
		`GET /things/a`: `{"thingName":"a"}`, `GET /things/b`: `{"thingName":"b"}`, `GET /things/c`: `{"thingName":"c"}`, `GET /things/d`: `{"thingName":"d"}`,
	}}
	for _, s := range []push.Slice{{Query: "thingName:*"}, {Group: "g/h"}} {
		r, err := push.Run(t.Context(), c, push.Options{Slice: s, Desired: []byte(`{"a":1}`), DryRun: true, Timeout: time.Hour})
		counts(t, r, err, push.Counts{Things: 3, Looked: 3, Written: 3, Pending: 3})
	}
	if len(c.writes) > 0 {
		t.Error("a dry run wrote")
	}
}

// A server that does not answer ends the push; the report says how far it came.
func TestBroken(t *testing.T) {
	c := &cloud{shadows: map[string]string{}}
	c.onWrite = func(string) {
		if len(c.writes) == 3 {
			c.broken = errors.New("connection refused")
		}
	}
	r, err := push.Run(t.Context(), c, push.Options{Slice: push.Slice{Things: things(50)}, Desired: []byte(`{"a":1}`), Parallel: 1, Timeout: time.Hour, Rate: 1e6})
	if err == nil || !strings.Contains(err.Error(), "connection refused") || r.Written != 3 {
		t.Errorf("%v %+v", err, r)
	}
}

func TestCheck(t *testing.T) {
	some := push.Slice{Things: []string{"a"}}
	for name, o := range map[string]push.Options{
		"no slice":       {Desired: []byte(`{"a":1}`)},
		"two slices":     {Slice: push.Slice{Query: "q", Group: "g"}, Desired: []byte(`{"a":1}`)},
		"no JSON":        {Slice: some, Desired: []byte(`{`)},
		"no object":      {Slice: some, Desired: []byte(`[1]`)},
		"null":           {Slice: some, Desired: []byte(`null`)},
		"nothing":        {Slice: some, Desired: []byte(`{}`)},
		"more than one":  {Slice: some, Desired: []byte(`{"a":1},"reported":{"b":1}`)},
		"null in arrays": {Slice: some, Desired: []byte(`{"a":[null]}`)},
		"a whole update": {Slice: some, Desired: []byte(`{"state":{"desired":{"a":1}}}`)},
		"reserved":       {Slice: some, Desired: []byte(`{"configStatus":{}}`)},
		"negative":       {Slice: some, Desired: []byte(`{"a":1}`), Rate: -1},
	} {
		if err := o.Check(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := (&push.Options{Slice: some, Desired: []byte(`{"state":"on"}`)}).Check(); err != nil {
		t.Errorf("a member named state: %v", err)
	}
}
