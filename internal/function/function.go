package function

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws"
	"flotilla/internal/function/environment"
	"flotilla/internal/store"
)

// maxPayload bounds what a function is given and what it answers, in bytes: Lambda's limit of synchronous calls.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
const maxPayload = 6 << 20

// Config says which functions there are, and what they may use; its zero value is none.
type Config struct {
	Endpoints   map[string]string `name:"function.endpoint" placeholder:"ARN=URL" help:"Function ARN, or name, and what serves it: an http or https URL, or lambda://REGION/FUNCTION; may be repeated."`
	Concurrency int               `name:"function.concurrency" default:"100" help:"Most calls of one configured function at a time; further ones wait."`
	MaxWaiting  int               `name:"function.max-waiting" default:"1000" help:"Most calls of one function that may wait; further ones fail at once."`
	Timeout     time.Duration     `name:"function.timeout" default:"30s" help:"How long a call of a configured function may take at most; callers may allow less."`

	Local        string        `name:"function.local" default:"auto" enum:"auto,on,off" help:"Whether functions may be created and run as processes of this machine: on, off, or auto (on if the API listens on loopback alone)."`
	Processes    int           `name:"function.processes" default:"50" help:"Most processes of local functions together."`
	PerFunction  int           `name:"function.processes-per-function" default:"10" help:"Most processes of one local function."`
	Idle         time.Duration `name:"function.idle" default:"5m" help:"How long an idle process of a local function is kept warm."`
	LogOutput    bool          `name:"function.log-output" help:"Write what local functions print to the server's log as well."`
	MaxFunctions int64         `name:"function.max-functions" default:"1000" help:"Most local functions."`
	MaxCodeBytes int64         `name:"function.max-code-bytes" default:"5368709120" help:"Most bytes of zipped code of all local functions together."`

	MaxEvents     int64         `name:"function.max-events" default:"100000" help:"Most asynchronous invocations that wait on one node; further ones are refused."`
	MaxEventBytes int64         `name:"function.max-event-bytes" default:"1073741824" help:"Most bytes of them."`
	RetryDelay    time.Duration `name:"function.retry-delay" default:"1m" help:"Pause before the second attempt of an asynchronous invocation whose function failed; twice as long before the third."`
}

func (c Config) withDefaults() Config {
	positive := func(n *int, otherwise int) {
		if *n <= 0 {
			*n = otherwise
		}
	}
	positive64 := func(n *int64, otherwise int64) {
		if *n <= 0 {
			*n = otherwise
		}
	}
	duration := func(d *time.Duration, otherwise time.Duration) {
		if *d <= 0 {
			*d = otherwise
		}
	}
	positive(&c.Concurrency, 100)
	positive(&c.MaxWaiting, 1000)
	duration(&c.Timeout, 30*time.Second)
	positive(&c.Processes, 50)
	positive(&c.PerFunction, 10)
	duration(&c.Idle, 5*time.Minute)
	positive64(&c.MaxFunctions, 1000)
	positive64(&c.MaxCodeBytes, 5<<30)
	positive64(&c.MaxEvents, 100_000)
	positive64(&c.MaxEventBytes, 1<<30)
	duration(&c.RetryDelay, time.Minute)
	return c
}

// Changes carries news of changes between the rooms of this node and of others.
type Changes interface {
	Changed(kind, key string)
	OnChange(kind string, fn func(key string))
}

// Deps are the others that the room works with.
type Deps struct {
	Account aws.Account
	DB      *store.DB // nil: configured functions alone, and none asynchronously
	Changes Changes   // set when DB is
	NodeID  string    // among those that share the store
	Dir     string    // for the code of local functions and their temporary files; wiped at the start
	Trusted bool      // what function.local=auto asks: only users of this machine reach the API
	Log     *slog.Logger
	Metrics *prometheus.Registry // nil: none
	Now     func() time.Time     // time.Now when nil
}

// kind runs the functions of one kind. It is safe for concurrent use.
type kind interface {
	// invoke gives payload to the function and returns its result, at most maxPayload bytes. It heeds ctx, which has a
	// deadline, and returns a *FunctionError, or an error that is that of ctx.
	invoke(ctx context.Context, c *call) ([]byte, error)
	close()
}

// call is one call of a function.
type call struct {
	arn       string // as the caller has it
	requestID string
	payload   []byte
}

// Functions is the room. It is safe for concurrent use.
type Functions struct {
	cfg     Config
	account aws.Account
	db      *store.DB
	bus     Changes
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics
	by      map[string]*function // by the configured ARN or name
	kinds   map[string]func(name string, address *url.URL) (kind, error)
	local   *local  // nil: there are no local functions
	events  *events // nil: there is no store
}

// function is one that is configured.
type function struct {
	name    string
	kind    kind
	running chan struct{} // a place for each call under way
	waiting chan struct{} // a place for each call that waits or runs
}

// New makes the room. It fails for an address that no kind of function has.
func New(cfg Config, d Deps) (*Functions, error) {
	cfg = cfg.withDefaults()
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	endpoints := newEndpoints(cfg.Concurrency)
	f := &Functions{
		cfg: cfg, account: d.Account, db: d.DB, bus: d.Changes, log: d.Log, now: d.Now, metrics: newMetrics(d.Metrics), by: map[string]*function{},
		kinds: map[string]func(string, *url.URL) (kind, error){"http": endpoints.open, "https": endpoints.open, "lambda": (&remotes{endpoints.client}).open},
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Endpoints)) {
		if err := f.add(name, cfg.Endpoints[name]); err != nil {
			return nil, err
		}
	}
	if d.DB == nil {
		return f, nil
	}
	f.events = newEvents(f, d.NodeID)
	if cfg.Local == "on" || cfg.Local != "off" && d.Trusted {
		var err error
		if f.local, err = openLocal(f, d.Dir); err != nil {
			return nil, err
		}
		d.Changes.OnChange(kindFunction, f.local.forget)
	}
	return f, nil
}

// Start goes on with the asynchronous invocations that are owed. Close ends them.
func (f *Functions) Start(ctx context.Context) error {
	if f.events == nil {
		return nil
	}
	if err := forgetOrphans(ctx, f.db); err != nil {
		return fmt.Errorf("function: %w", err)
	}
	return f.events.start(ctx)
}

func (f *Functions) add(name, address string) error {
	if a, ok := aws.ParseARN(name); strings.HasPrefix(name, "arn:") && (!ok || a.Service != "lambda" || !strings.HasPrefix(a.Resource, "function:")) {
		return fmt.Errorf("function: %q is not the ARN of a function", name)
	}
	if name == "" {
		return errors.New("function: an endpoint has no name")
	}
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("function: address of %s is not a URL", name) // it may hold a password
	}
	open, ok := f.kinds[u.Scheme]
	if !ok {
		return fmt.Errorf("function: address of %s: scheme %q is not supported, http, https and lambda are", name, u.Scheme)
	}
	k, err := open(name, u)
	if err != nil {
		return fmt.Errorf("function: address of %s: %w", name, err)
	}
	f.by[name] = &function{
		name: name, kind: k, running: make(chan struct{}, f.cfg.Concurrency),
		waiting: make(chan struct{}, f.cfg.Concurrency+f.cfg.MaxWaiting),
	}
	return nil
}

// find gives the function that an ARN or a name means: the one configured by that text, by the ARN without its version
// or alias, or by the name alone, in this order.
func (f *Functions) find(arn string) (*function, bool) {
	if fn, ok := f.by[arn]; ok {
		return fn, true
	}
	name, _, _ := strings.Cut(arn, ":")
	if a, ok := aws.ParseARN(arn); ok && a.Service == "lambda" {
		resource, ok := strings.CutPrefix(a.Resource, "function:")
		if !ok {
			return nil, false
		}
		name, _, _ = strings.Cut(resource, ":")
		a.Resource = "function:" + name
		if fn, ok := f.by[a.String()]; ok {
			return fn, true
		}
	}
	fn, ok := f.by[name]
	return fn, ok
}

// Invoke gives payload, a JSON document, to a function and returns the one that it answers. It is for rooms of this server,
// which act as iot.amazonaws.com for the resource that [aws.SourceFrom] knows: a local function must have a permission
// that allows it. What is configured needs none.
//
//	functionARN  as it is configured, with or without a version; or the ARN or name of a local function
//	payload      at most 6 MiB, not kept
//	returned     at most 6 MiB, the caller's own
//
// It returns when ctx ends, at the latest after Config.Timeout. Errors: *[NotFoundError], *[FunctionError],
// *[TimeoutError], *[ThrottledError], *[TooLargeError], *[DeniedError], or that of a ctx that was cancelled.
func (f *Functions) Invoke(ctx context.Context, functionARN string, payload []byte) ([]byte, error) {
	start := time.Now()
	name, answer, err := f.call(ctx, functionARN, payload, f.permitted)
	if name != "" {
		f.metrics.observe(name, err, time.Since(start))
	}
	return answer, err
}

// call finds a function and invokes it, if allowed lets it. name is that of the function, "" when there is none.
func (f *Functions) call(ctx context.Context, functionARN string, payload []byte, allowed func(context.Context, *chosen) error) (name string, answer []byte, err error) {
	if fn, ok := f.find(functionARN); ok {
		answer, err := f.invoke(ctx, fn, functionARN, payload)
		return fn.name, answer, err
	}
	c, err := f.choose(ctx, functionARN, "")
	if err != nil {
		return "", nil, unknown(functionARN, err)
	}
	if err := allowed(ctx, c); err != nil {
		return "", nil, err
	}
	if len(payload) > maxPayload {
		return c.name, nil, &TooLargeError{c.name, len(payload)}
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	start := time.Now()
	res, err := f.local.run(ctx, c, &environment.Invocation{RequestID: newRequestID(), FunctionARN: functionARN, Payload: payload})
	switch {
	case errors.Is(err, environment.ErrThrottled):
		err = &ThrottledError{c.name}
	case err != nil && ctx.Err() != nil:
		err = ended(ctx, c.name, start)
	case err == nil && res.Error != "":
		err = failure(c.name, res.Error, res.Payload)
	}
	if err != nil {
		return c.name, nil, err
	}
	return c.name, res.Payload, nil
}

// unknown is the error for who calls a function that can not be chosen.
func unknown(functionARN string, err error) error {
	if _, ok := errors.AsType[aws.Exception](err); ok {
		return &NotFoundError{bounded(functionARN)}
	}
	return err
}

func (f *Functions) invoke(ctx context.Context, fn *function, arn string, payload []byte) ([]byte, error) {
	if len(payload) > maxPayload {
		return nil, &TooLargeError{fn.name, len(payload)}
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	start := time.Now()
	select {
	case fn.waiting <- struct{}{}:
		defer func() { <-fn.waiting }()
	default:
		return nil, &ThrottledError{fn.name}
	}
	select {
	case fn.running <- struct{}{}:
		defer func() { <-fn.running }()
	case <-ctx.Done():
		return nil, ended(ctx, fn.name, start)
	}
	answer, err := fn.kind.invoke(ctx, &call{arn, newRequestID(), payload})
	if err == nil {
		return answer, nil
	}
	if _, failed := errors.AsType[*FunctionError](err); !failed && ctx.Err() != nil {
		return nil, ended(ctx, fn.name, start)
	}
	return nil, err
}

// ended is the error of a call whose context has ended.
func ended(ctx context.Context, name string, start time.Time) error {
	if err := ctx.Err(); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("function: %s: %w", name, err)
	}
	return &TimeoutError{name, time.Since(start)}
}

// Close ends local functions, and drops idle connections to others. Calls of those go on.
func (f *Functions) Close() {
	if f.events != nil {
		f.events.stop()
	}
	if f.local != nil {
		f.local.close()
	}
	for _, fn := range f.by {
		fn.kind.close()
	}
}

// maxMessage bounds what errors take over from functions, in bytes.
const maxMessage = 256

// bounded cuts a text for an error, and takes control characters out of it.
func bounded(s string) string {
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
