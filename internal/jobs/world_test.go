package jobs_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/jobs"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

var account = aws.Account{ID: "123456789012", Region: "us-east-1"}

// patience is how long tests wait for what must happen.
const patience = time.Minute

// world is a room with a registry of its own.
type world struct {
	*jobs.Jobs
	t    testing.TB
	db   *store.DB
	stop func()

	mu       sync.Mutex
	now      time.Time
	things   map[string]bool
	groups   map[string][]string
	objects  map[string]string
	messages []*mqtt.Message
}

func newWorld(t testing.TB, db *store.DB, change ...func(*jobs.Config)) *world {
	w := &world{t: t, db: db, now: time.Unix(1_800_000_000, 0), things: map[string]bool{}, groups: map[string][]string{}, objects: map[string]string{}}
	w.open(change...)
	t.Cleanup(func() { w.stop() })
	return w
}

// open starts the room as a server would; again after stop, as after a restart.
func (w *world) open(change ...func(*jobs.Config)) {
	cfg := jobs.Config{Now: w.clock, Poll: 5 * time.Millisecond}
	for _, c := range change {
		c(&cfg)
	}
	w.Jobs = jobs.New(cfg, jobs.Deps{Account: account, DB: w.db, Things: w, Publisher: w, Tags: w, Events: w, Objects: w, Presigner: w})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	w.stop = func() { cancel(); <-done; w.stop = func() {} }
}

func (w *world) clock() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now }

func (w *world) pass(d time.Duration) { w.mu.Lock(); defer w.mu.Unlock(); w.now = w.now.Add(d) }

func (w *world) DescribeThing(_ context.Context, in *iot.DescribeThingRequest) (*iot.DescribeThingResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.things[in.ThingName] {
		return nil, &iot.ResourceNotFoundException{Message: "no thing " + in.ThingName}
	}
	return &iot.DescribeThingResponse{}, nil
}

func (w *world) DescribeThingGroup(_ context.Context, in *iot.DescribeThingGroupRequest) (*iot.DescribeThingGroupResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.groups[in.ThingGroupName]; !ok {
		return nil, &iot.ResourceNotFoundException{Message: "no group " + in.ThingGroupName}
	}
	return &iot.DescribeThingGroupResponse{}, nil
}

func (w *world) ListThingsInThingGroup(_ context.Context, in *iot.ListThingsInThingGroupRequest) (*iot.ListThingsInThingGroupResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all, ok := w.groups[in.ThingGroupName]
	if !ok {
		return nil, &iot.ResourceNotFoundException{Message: "no group " + in.ThingGroupName}
	}
	from := 0
	if in.NextToken != nil {
		_, _ = fmt.Sscan(*in.NextToken, &from)
	}
	to := min(len(all), from+int(*in.MaxResults))
	out := &iot.ListThingsInThingGroupResponse{Things: all[from:to]}
	if to < len(all) {
		out.NextToken = new(fmt.Sprint(to))
	}
	return out, nil
}

func (w *world) ListThingGroupsForThing(_ context.Context, in *iot.ListThingGroupsForThingRequest) (*iot.ListThingGroupsForThingResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.things[in.ThingName] {
		return nil, &iot.ResourceNotFoundException{Message: "no thing " + in.ThingName}
	}
	out := &iot.ListThingGroupsForThingResponse{}
	for g, members := range w.groups {
		if slices.Contains(members, in.ThingName) {
			out.ThingGroups = append(out.ThingGroups, &iot.GroupNameAndArn{GroupName: &g})
		}
	}
	return out, nil
}

// join has a thing come into a group, or leave it; told says whether the room hears of it.
func (w *world) join(group, thing string, in, told bool) {
	w.mu.Lock()
	members := slices.DeleteFunc(slices.Clone(w.groups[group]), func(m string) bool { return m == thing })
	if in {
		members = append(members, thing)
		w.things[thing] = true
	}
	slices.Sort(members)
	w.groups[group] = members
	w.mu.Unlock()
	if told {
		w.ThingChanged(thing)
	}
}

// drop deletes a thing.
func (w *world) drop(thing string, told bool) {
	w.mu.Lock()
	delete(w.things, thing)
	for g, members := range w.groups {
		w.groups[g] = slices.DeleteFunc(slices.Clone(members), func(m string) bool { return m == thing })
	}
	w.mu.Unlock()
	if told {
		w.ThingChanged(thing)
	}
}

func (w *world) TagResource(context.Context, *iot.TagResourceRequest) (*iot.TagResourceResponse, error) {
	return &iot.TagResourceResponse{}, nil
}

func (w *world) DeleteTags(context.Context, string) error { return nil }

// ReadRange has the objects that the world has, by bucket/key.
func (w *world) ReadRange(_ context.Context, bucket, key string, _, length int64) ([]byte, int64, string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text, ok := w.objects[bucket+"/"+key]
	if !ok {
		return nil, 0, "", fs.ErrNotExist
	}
	return []byte(text[:min(len(text), int(length))]), int64(len(text)), "1", nil
}

func (w *world) Presign(_ context.Context, bucket, key string, expires time.Duration, role string) (string, error) {
	if strings.Contains(bucket, "_") {
		return "", fmt.Errorf("%s is no name of a bucket", bucket)
	}
	return fmt.Sprintf("https://signed/%s/%s?expires=%v&role=%s", bucket, key, expires, role), nil
}

func (w *world) Publish(_ context.Context, m *mqtt.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.messages = append(w.messages, m)
	return nil
}

// fleet makes things n-0, n-1 and so on, in a group n, and gives their names.
func (w *world) fleet(name string, n int) (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range n {
		names = append(names, fmt.Sprintf("%s-%d", name, i))
		w.things[names[i]] = true
	}
	w.groups[name] = names
	return names
}

func thing(name string) string { return account.ARN("iot", "thing/"+name) }

func group(name string) string { return account.ARN("iot", "thinggroup/"+name) }

// create creates a job with a document.
func (w *world) create(id string, in iot.CreateJobRequest, targets ...string) {
	w.t.Helper()
	in.JobId, in.Targets = id, targets
	if in.Document == nil {
		in.Document = new(`{"operation":"` + id + `"}`)
	}
	if _, err := w.CreateJob(w.t.Context(), &in); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not in time", what)
		}
		<-time.After(time.Millisecond)
	}
}

func (w *world) describe(id string) *iot.Job {
	w.t.Helper()
	out, err := w.DescribeJob(w.t.Context(), &iot.DescribeJobRequest{JobId: id})
	if err != nil {
		w.t.Fatal(err)
	}
	return out.Job
}

// counts are the executions of a job by status, such as "1 QUEUED 2 SUCCEEDED".
func (w *world) counts(id string) string {
	w.t.Helper()
	d := w.describe(id).JobProcessDetails
	var parts []string
	for _, c := range []struct {
		n    *int32
		name string
	}{
		{d.NumberOfQueuedThings, "QUEUED"},
		{d.NumberOfInProgressThings, "IN_PROGRESS"},
		{d.NumberOfSucceededThings, "SUCCEEDED"},
		{d.NumberOfFailedThings, "FAILED"},
		{d.NumberOfRejectedThings, "REJECTED"},
		{d.NumberOfTimedOutThings, "TIMED_OUT"},
		{d.NumberOfCanceledThings, "CANCELED"},
		{d.NumberOfRemovedThings, "REMOVED"},
	} {
		if *c.n != 0 {
			parts = append(parts, fmt.Sprint(*c.n, " ", c.name))
		}
	}
	return strings.Join(parts, " ")
}

func (w *world) waitCounts(id, want string) {
	w.t.Helper()
	got := ""
	for deadline := time.Now().Add(patience); ; {
		if got = w.counts(id); got == want {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: %q, not %q", id, got, want)
		}
		<-time.After(time.Millisecond)
	}
}

func (w *world) waitStatus(id, want string) {
	w.t.Helper()
	w.eventually(id+" is "+want, func() bool { return *w.describe(id).Status == want })
}

// ask sends a request of a thing and gives the answer, with "accepted" or "rejected".
func (w *world) ask(thing, verb, payload string) (string, map[string]any) {
	w.t.Helper()
	topic := "$aws/things/" + thing + "/jobs/" + verb
	if err := w.ServeMQTT(w.t.Context(), &mqtt.Message{Topic: topic, Payload: []byte(payload)}); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range slices.Backward(w.messages) {
		if outcome, ok := strings.CutPrefix(m.Topic, topic+"/"); ok {
			return outcome, decode(w.t, m.Payload)
		}
	}
	w.t.Fatalf("%s is not answered", topic)
	return "", nil
}

// accepted is ask for a request that must be accepted.
func (w *world) accepted(thing, verb, payload string) map[string]any {
	w.t.Helper()
	outcome, a := w.ask(thing, verb, payload)
	if outcome != "accepted" {
		w.t.Fatalf("%s %s %s: %v", thing, verb, payload, a)
	}
	return a
}

// refused is ask for a request that must be rejected with a code.
func (w *world) refused(thing, verb, payload, code string) map[string]any {
	w.t.Helper()
	outcome, a := w.ask(thing, verb, payload)
	if outcome != "rejected" || a["code"] != code {
		w.t.Errorf("%s %s %s: %s %v, not %s", thing, verb, payload, outcome, a, code)
	}
	return a
}

// told are the messages on a topic of a thing, and forgets them.
func (w *world) told(thing, topic string) (out []map[string]any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.messages = slices.DeleteFunc(w.messages, func(m *mqtt.Message) bool {
		if m.Topic != "$aws/things/"+thing+"/jobs/"+topic {
			return false
		}
		out = append(out, decode(w.t, m.Payload))
		return true
	})
	return out
}

func decode(t testing.TB, b []byte) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return m
}
