package sim

import (
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"flotilla/internal/api/client"
)

// group creates a thing group.
func (c *Cloud) group(ctx context.Context, name string) error {
	if err := c.iot(ctx, http.MethodPost, client.Path("thing-groups", name), object{}, nil); err != nil {
		return fmt.Errorf("create the thing group: %w", err)
	}
	return nil
}

// register makes a thing of the device through the API: RegisterThing with a CSR.
func (c *Cloud) register(ctx context.Context, templateBody string, d *Device) error {
	key, request, err := newRequest(d.Serial)
	if err != nil {
		return err
	}
	in := object{"templateBody": templateBody, "parameters": object{"SerialNumber": d.Serial, "CSR": string(request)}}
	var out answer // its member certificatePem is that of RegisterThing
	if err := c.iot(ctx, http.MethodPost, "/things", in, &out); err != nil {
		return fmt.Errorf("%s: register: %w", d.Serial, err)
	}
	if d.cert, err = keyPair(&out, key); err != nil {
		return fmt.Errorf("%s: register: %w", d.Serial, err)
	}
	d.thing = "sim-" + d.Serial
	return nil
}

// desired is what the back end wrote for a thing.
type desired struct {
	writing  sync.Mutex // held while a revision is written: they arrive in their order
	mu       sync.Mutex // of what follows
	revision int        // the last that was tried
	written  int        // the last that was acknowledged
	at       time.Time
}

// reported is called when the report of a revision was accepted.
func (d *desired) reported(m *member, revision int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m.fleet.stats.desiredReported.Add(1)
	// How long it took says something only if the device was there all the time.
	if revision == d.revision && d.revision > 0 && m.since.Load() > 0 && d.at.UnixMilli() > m.since.Load() {
		m.fleet.stats.convergence.add(time.Since(d.at))
	}
}

// agenda is when which thing's desired state changes next.
type agenda []appointment

type appointment struct {
	at   time.Duration
	m    *member
	next func() (time.Duration, bool)
}

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].at < a[j].at }
func (a agenda) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)        { *a = append(*a, x.(appointment)) }
func (a *agenda) Pop() any {
	old := *a
	x := old[len(old)-1]
	*a = old[:len(old)-1]
	return x
}

// changeDesired writes desired states as the scenario says, until ctx ends.
func (f *Fleet) changeDesired(ctx context.Context) error {
	var a agenda
	for _, m := range f.members {
		next := f.Scenario.changes(f.Seed, m.n)
		if at, ok := next(); ok {
			a = append(a, appointment{at, m, next})
		}
	}
	heap.Init(&a)
	var g errgroup.Group
	g.SetLimit(16) // when the service is slower than that, changes come later
	defer func() { _ = g.Wait() }()
	for len(a) > 0 {
		next := a[0]
		pause(ctx, time.Until(f.start.Add(next.at)))
		if ctx.Err() != nil {
			return nil
		}
		if at, ok := next.next(); ok {
			a[0].at = at
			heap.Fix(&a, 0)
		} else {
			heap.Pop(&a)
		}
		g.Go(func() error {
			f.change(ctx, next.m)
			return nil
		})
	}
	return nil
}

// change writes the next revision of a thing's desired state.
func (f *Fleet) change(ctx context.Context, m *member) {
	m.desired.writing.Lock()
	defer m.desired.writing.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience) // one that was begun is finished
	defer cancel()
	m.desired.mu.Lock()
	m.desired.revision++
	revision := m.desired.revision
	m.desired.at = time.Now()
	m.desired.mu.Unlock()
	err := f.Cloud.Configure(ctx, m.thing, object{"revision": revision, "intervalSeconds": 30 + (revision+m.n)%30})
	if err != nil {
		f.stats.refuse("desired", err.Error())
		return
	}
	f.stats.desiredWritten.Add(1)
	m.desired.mu.Lock()
	m.desired.written = max(m.desired.written, revision)
	m.desired.mu.Unlock()
}

// createJobs creates the jobs one by one, from a tenth of the time on and before its last fifth.
func (f *Fleet) createJobs(ctx context.Context) error {
	for i := range f.Scenario.Jobs.Count {
		at := time.Duration(f.Scenario.Duration) / 10 * time.Duration(10+70*i/max(1, f.Scenario.Jobs.Count)) / 10
		pause(ctx, time.Until(f.start.Add(at)))
		if ctx.Err() != nil {
			return nil
		}
		id := f.jobID(strconv.Itoa(i))
		document, err := json.Marshal(object{"operation": "firmware", "version": fmt.Sprintf("1.%d.0", i)})
		if err != nil {
			return err
		}
		in := object{"targets": []string{f.Cloud.arn("thinggroup/" + f.prefix())}, "document": string(document)}
		if err := f.createJob(ctx, id, in); err != nil {
			return err
		}
		f.jobs = append(f.jobs, id)
	}
	return nil
}

// createJob tries until the job is there or the time is over: the service may be restarting.
func (f *Fleet) createJob(ctx context.Context, id string, in object) error {
	for {
		err := f.Cloud.iot(ctx, http.MethodPut, client.Path("jobs", id), in, nil)
		var e *client.Error
		switch {
		case err == nil, errors.As(err, &e) && e.Type == "ResourceAlreadyExistsException":
			return nil
		case e != nil && e.Status < 500 && e.Status != http.StatusTooManyRequests:
			return fmt.Errorf("create the job %s: %w", id, err)
		case ctx.Err() != nil:
			return fmt.Errorf("create the job %s: the time is over: %w", id, err)
		}
		f.stats.refuse("jobs", err.Error())
		pause(ctx, time.Second+rand.N(time.Second))
	}
}

// jobState is what DescribeJob says.
type jobState struct {
	Status  string
	Process struct {
		Queued     int `json:"numberOfQueuedThings"`
		InProgress int `json:"numberOfInProgressThings"`
		Succeeded  int `json:"numberOfSucceededThings"`
		Failed     int `json:"numberOfFailedThings"`
		Rejected   int `json:"numberOfRejectedThings"`
		Removed    int `json:"numberOfRemovedThings"`
		Canceled   int `json:"numberOfCanceledThings"`
		TimedOut   int `json:"numberOfTimedOutThings"`
	} `json:"jobProcessDetails"`
}

func (c *Cloud) job(ctx context.Context, id string) (jobState, error) {
	var out struct{ Job jobState }
	err := c.iot(ctx, http.MethodGet, client.Path("jobs", id), nil, &out)
	return out.Job, err
}

// shadowState is what a thing's shadow says about the revision: 0 where there is none.
type shadowState struct {
	Desired, Reported int
	Delta             bool
}

func (c *Cloud) shadow(ctx context.Context, thing string) (shadowState, error) {
	var s shadowState
	var out []byte
	if err := c.api.Call(ctx, "iotdata", http.MethodGet, client.Path("things", thing, "shadow"), nil, &out); err != nil {
		return s, err
	}
	var doc struct {
		State struct {
			Desired, Reported struct{ Revision int }
			Delta             json.RawMessage
		}
	}
	err := json.Unmarshal(out, &doc)
	return shadowState{doc.State.Desired.Revision, doc.State.Reported.Revision, len(doc.State.Delta) > 0}, err
}
