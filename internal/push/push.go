package push

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"flotilla/internal/api/client"
	"flotilla/internal/aws/iot"
	"flotilla/internal/shadow/doc"
)

// API calls the server; client.Client does. Its errors are *client.Error when
// the server answered. It is called from several goroutines.
type API interface {
	Call(ctx context.Context, service, method, path string, in, out any) error
}

// Options say what is pushed, to what, and how fast.
type Options struct {
	Slice       Slice
	Shadow      string        // a named shadow; "" is the classic one
	Desired     []byte        // JSON object: merged into desired, null removes
	Rate        float64       // most updates a second; 0: 50
	ReadRate    float64       // most reads of shadows a second; 0: 500
	Parallel    int           // most requests at once; 0: 16
	Timeout     time.Duration // how long to wait for devices after the last update; 0: not at all
	Interval    time.Duration // least time between two looks at a thing; 0: a second. It grows to 15 times that
	RetryFailed bool          // write again where the device had said that it could not
	DryRun      bool          // write nothing, wait for nothing
	// Progress is told how far it is, often, from one goroutine at a time; nil: nobody is.
	Progress func(phase Phase, c Counts)
}

// Phase is what a push is doing.
type Phase string

// The phases of a push, in order.
const (
	Writing Phase = "writing"
	Waiting Phase = "waiting"
)

// Counts are things by what became of them.
type Counts struct {
	Things    int `json:"things"`
	Looked    int `json:"-"`         // read at least once
	Written   int `json:"written"`   // desired was written; in a dry run: would be
	Unchanged int `json:"unchanged"` // desired had it all

	Pending    int `json:"pending"`
	Applied    int `json:"applied"`
	Failed     int `json:"failed"`
	Superseded int `json:"superseded"`
	Refused    int `json:"refused"`
}

// Thing is what became of one thing.
type Thing struct {
	Name    string `json:"thing"`
	Status  Status `json:"status"`
	Version int64  `json:"version,omitempty"` // of the shadow when it was last seen
	Reason  string `json:"reason,omitempty"`

	since   int64 // version that was written
	written bool
	looked  bool
}

// Report is the end of a push.
type Report struct {
	// ID tells pushes of different desired states apart; it is the clientToken of the updates.
	ID string `json:"id"`
	Counts
	// Open are the things that have not applied it, in the slice's order.
	Open   []Thing `json:"open"`
	DryRun bool    `json:"dryRun,omitempty"`
}

// Done tells whether all things of the slice have applied it.
func (r *Report) Done() bool { return r.Applied == r.Things }

// Check says what is wrong with options; it is what Run does first.
func (o *Options) Check() error {
	if err := o.Slice.check(); err != nil {
		return err
	}
	if o.Rate < 0 || o.ReadRate < 0 || o.Parallel < 0 || o.Timeout < 0 {
		return errors.New("rates, numbers and times must not be negative")
	}
	if _, err := doc.ParseUpdate(o.update(), 0, doc.Limits{Bytes: 1 << 20, Depth: 1 << 10}); err != nil {
		return fmt.Errorf("desired state: %w", err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(o.Desired, &members); err != nil || len(members) == 0 {
		return errors.New("desired state: must be a JSON object with a member at least")
	}
	if _, reserved := members[statusKey]; reserved {
		return fmt.Errorf("desired state: %s is where devices report", statusKey)
	}
	var update struct {
		State struct{ Desired, Reported json.RawMessage }
	}
	if len(members) == 1 && json.Unmarshal(o.Desired, &update) == nil && (update.State.Desired != nil || update.State.Reported != nil) {
		return errors.New(`desired state: this is a whole update; give what stands in its state.desired`)
	}
	return nil
}

// update is the body of the updates.
func (o *Options) update() []byte {
	return fmt.Appendf(nil, `{"state":{"desired":%s},"clientToken":"%s"}`, o.Desired, o.id())
}

// id is the same for the same desired state.
func (o *Options) id() string {
	var text bytes.Buffer
	if json.Compact(&text, o.Desired) != nil {
		text.Write(o.Desired)
	}
	sum := sha256.Sum256(text.Bytes())
	return "push-" + hex.EncodeToString(sum[:6])
}

// Run pushes, and returns once every thing is at an end or the time is over. The
// names of the slice are held in memory. With an error the report is of what was
// done until then: nil if the slice could not be read. What the server refuses
// for one thing is that thing's status, and no error; when it does not answer the
// push ends.
func Run(ctx context.Context, api API, o Options) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	names, err := o.Slice.names(ctx, api)
	if err != nil {
		return nil, fmt.Errorf("which things: %w", err)
	}
	p := &push{api: api, o: o, body: o.update(), writes: limiter(o.Rate, 50), reads: limiter(o.ReadRate, 500), things: make([]Thing, len(names))}
	all := make([]*Thing, len(names))
	for i, name := range names {
		p.things[i] = Thing{Name: name, Status: Pending}
		all[i] = &p.things[i]
	}
	p.counts = Counts{Things: len(names), Pending: len(names)}
	err = p.each(ctx, Writing, all, p.begin)
	if err == nil && o.Timeout > 0 && !o.DryRun {
		err = p.wait(ctx)
	}
	return p.report(), err
}

type push struct {
	api           API
	o             Options
	body          []byte
	writes, reads *rate.Limiter
	things        []Thing

	mu     sync.Mutex
	counts Counts
}

func limiter(perSecond, byDefault float64) *rate.Limiter {
	if perSecond == 0 {
		perSecond = byDefault
	}
	return rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond/20)))
}

// each does something with things, some at once, until the first error.
func (p *push) each(ctx context.Context, phase Phase, things []*Thing, do func(context.Context, *Thing) error) error {
	g, gctx := errgroup.WithContext(ctx)
	parallel := p.o.Parallel
	if parallel == 0 {
		parallel = 16
	}
	g.SetLimit(parallel)
	for _, t := range things {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			before := *t
			err := do(gctx, t)
			p.note(phase, &before, t)
			return err
		})
	}
	return errors.Join(g.Wait(), ctx.Err())
}

// note counts what has become of a thing.
func (p *push) note(phase Phase, before, t *Thing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !before.looked && t.looked {
		p.counts.Looked++
		if t.Status != Refused && !t.written {
			p.counts.Unchanged++
		}
	}
	if !before.written && t.written {
		p.counts.Written++
	}
	*p.counts.of(before.Status)--
	*p.counts.of(t.Status)++
	if p.o.Progress != nil {
		p.o.Progress(phase, p.counts)
	}
}

func (c *Counts) of(s Status) *int {
	switch s {
	case Applied:
		return &c.Applied
	case Failed:
		return &c.Failed
	case Superseded:
		return &c.Superseded
	case Refused:
		return &c.Refused
	}
	return &c.Pending
}

// begin looks at a thing and writes desired if it must.
func (p *push) begin(ctx context.Context, t *Thing) error {
	s, err := p.look(ctx, t)
	if err != nil || t.Status == Refused {
		return err
	}
	if s.held && !(s.status == Failed && p.o.RetryFailed) {
		t.Status, t.Version, t.Reason, t.looked = s.status, s.version, s.reason, true
		return nil
	}
	if p.o.DryRun {
		t.written, t.looked = true, true
		return nil
	}
	if err := p.writes.Wait(ctx); err != nil {
		return err
	}
	var answer struct{ Version int64 }
	err = p.api.Call(ctx, "iotdata", http.MethodPost, p.path(t), p.body, &answer)
	if err != nil {
		return p.refused(t, err)
	}
	t.since, t.Version, t.written, t.looked = answer.Version, answer.Version, true, true
	return nil
}

// again looks at a thing that was pending.
func (p *push) again(ctx context.Context, t *Thing) error {
	s, err := p.look(ctx, t)
	if err != nil || t.Status == Refused {
		return err
	}
	t.Status, t.Version, t.Reason = s.status, s.version, s.reason
	if !s.held {
		t.Status, t.Reason = Superseded, "desired was changed by somebody else"
	}
	return nil
}

// look reads a shadow and judges it.
func (p *push) look(ctx context.Context, t *Thing) (standing, error) {
	if err := p.reads.Wait(ctx); err != nil {
		return standing{}, err
	}
	var body []byte
	err := p.api.Call(ctx, "iotdata", http.MethodGet, p.path(t), nil, &body)
	if e, ok := errors.AsType[*client.Error](err); ok && e.Status == http.StatusNotFound {
		body, err = nil, p.exists(ctx, t)
	}
	if err != nil {
		return standing{}, p.refused(t, err)
	}
	return judge(body, p.o.Desired, t.since)
}

// exists tells a thing without this shadow from one that is not registered.
func (p *push) exists(ctx context.Context, t *Thing) error {
	if !p.o.DryRun {
		return nil // the update will tell
	}
	var out iot.DescribeThingResponse
	return p.api.Call(ctx, "iot", http.MethodGet, client.Path("things", t.Name), nil, &out)
}

func (p *push) path(t *Thing) string {
	path := client.Path("things", t.Name, "shadow")
	if p.o.Shadow != "" {
		path += "?name=" + url.QueryEscape(p.o.Shadow)
	}
	return path
}

// refused makes the server's refusal a thing's status.
func (p *push) refused(t *Thing, err error) error {
	e, answered := errors.AsType[*client.Error](err)
	if !answered {
		return fmt.Errorf("%s: %w", t.Name, err)
	}
	t.Status, t.Reason, t.looked = Refused, e.Error(), true
	return nil
}

// grace is how long after the end of the time the last look may take.
const grace = 2 * time.Second

// wait looks at pending things until there are none or the time is over.
func (p *push) wait(ctx context.Context) error {
	end := time.Now().Add(p.o.Timeout)
	interval := p.o.Interval
	if interval == 0 {
		interval = time.Second
	}
	for longest := 15 * interval; ; interval = min(interval*3/2, longest) {
		var pending []*Thing
		for i := range p.things {
			if p.things[i].Status == Pending {
				pending = append(pending, &p.things[i])
			}
		}
		left := time.Until(end)
		if len(pending) == 0 || left <= 0 {
			return nil
		}
		pause := time.NewTimer(min(interval, left))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		}
		// A look that has begun in time may end a little later.
		round, cancel := context.WithCancel(ctx)
		over := time.AfterFunc(time.Until(end)+grace, cancel)
		err := p.each(round, Waiting, pending, p.again)
		late := !over.Stop()
		cancel()
		if err != nil && (!late || ctx.Err() != nil) {
			return err
		}
	}
}

func (p *push) report() *Report {
	r := &Report{ID: p.o.id(), Counts: p.counts, Open: []Thing{}, DryRun: p.o.DryRun}
	for _, t := range p.things {
		if t.Status != Applied {
			r.Open = append(r.Open, t)
		}
	}
	return r
}
