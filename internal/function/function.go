package function

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws"
)

// maxPayload bounds what a function is given and what it answers, in bytes: Lambda's limit of synchronous calls.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
const maxPayload = 6 << 20

// Config says which functions there are; its zero value is none.
type Config struct {
	Endpoints   map[string]string `name:"function.endpoint" placeholder:"ARN=URL" help:"Function ARN, or name, and the http or https URL that serves it; may be repeated."`
	Concurrency int               `name:"function.concurrency" default:"100" help:"Most calls of one function at a time; further ones wait."`
	MaxWaiting  int               `name:"function.max-waiting" default:"1000" help:"Most calls of one function that may wait; further ones fail at once."`
	Timeout     time.Duration     `name:"function.timeout" default:"30s" help:"How long a call may take at most; callers may allow less."`
}

// Deps are the others that the room works with.
type Deps struct {
	Metrics *prometheus.Registry // nil: none
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
	metrics *metrics
	by      map[string]*function // by the configured ARN or name
	kinds   map[string]func(name string, address *url.URL) (kind, error)
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
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = 100
	}
	if cfg.MaxWaiting <= 0 {
		cfg.MaxWaiting = 1000
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	endpoints := newEndpoints(cfg.Concurrency)
	f := &Functions{
		cfg: cfg, metrics: newMetrics(d.Metrics), by: map[string]*function{},
		kinds: map[string]func(string, *url.URL) (kind, error){"http": endpoints.open, "https": endpoints.open},
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Endpoints)) {
		if err := f.add(name, cfg.Endpoints[name]); err != nil {
			return nil, err
		}
	}
	return f, nil
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
		return fmt.Errorf("function: address of %s: scheme %q is not supported, http and https are", name, u.Scheme)
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

// Exists tells whether Invoke knows a function of that ARN or name.
func (f *Functions) Exists(functionARN string) bool {
	_, ok := f.find(functionARN)
	return ok
}

// Invoke gives payload, a JSON document, to a function and returns the one that it answers.
//
//	functionARN  as it is configured, with or without a version; or a function's name
//	payload      at most 6 MiB, not kept
//	returned     at most 6 MiB, the caller's own
//
// It returns when ctx ends, at the latest after Config.Timeout. Errors: *[NotFoundError], *[FunctionError],
// *[TimeoutError], *[ThrottledError], *[TooLargeError], or that of a ctx that was cancelled.
func (f *Functions) Invoke(ctx context.Context, functionARN string, payload []byte) ([]byte, error) {
	fn, ok := f.find(functionARN)
	if !ok {
		return nil, &NotFoundError{bounded(functionARN)}
	}
	start := time.Now()
	answer, err := f.invoke(ctx, fn, functionARN, payload)
	f.metrics.observe(fn.name, err, time.Since(start))
	return answer, err
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

// Close drops idle connections. Calls under way go on.
func (f *Functions) Close() {
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
