package environment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// MaxPayload bounds what a function is given and what it answers, in bytes.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
const MaxPayload = 6 << 20

// initTimeout is how long a process may take until it asks for its first invocation, or for its next.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
const initTimeout = 10 * time.Second

// Config bounds the processes of all functions; its zero value works.
type Config struct {
	Dir       string        // for runtimes and temporary files; private to this server, and wiped
	Processes int           // most at a time; 0: 50
	Idle      time.Duration // how long a process is kept warm; 0: 5 minutes
	Output    bool          // what functions print goes to Log as well
	Log       *slog.Logger  // nil discards
}

// Function is one version of a function, ready to run.
type Function struct {
	Name, Version, ARN string
	Runtime, Handler   string // as CreateFunction has them; [Supported] holds
	Code               string // absolute path of the directory with the unpacked code
	Timeout            time.Duration
	MemoryMiB          int
	Variables          map[string]string
	Region             string
	Concurrency        int // most processes; 0 throttles every invocation
	MaxWaiting         int // most invocations that wait for one
}

// Invocation is one event for a function.
type Invocation struct {
	RequestID     string
	FunctionARN   string // as the caller has it
	Payload       []byte // not kept longer than the invocation
	ClientContext string // JSON, "" without
}

// Result is the answer of a function.
type Result struct {
	Payload []byte
	// Error is "" for success and "Unhandled" otherwise, as X-Amz-Function-Error has it; Payload is then a JSON object
	// with errorType and errorMessage.
	Error string
	Log   []byte // the last 4 KiB of the log of the invocation
}

var (
	// ErrThrottled says that as many invocations run and wait as may.
	ErrThrottled = errors.New("environment: too many invocations")
	// ErrClosed says that the server, or this version of the function, is ending.
	ErrClosed = errors.New("environment: closed")
)

// Environments are the processes of all functions. It is safe for concurrent use.
type Environments struct {
	cfg     Config
	log     *slog.Logger
	places  chan struct{} // one for each process
	runtime *interpreters

	mu     sync.Mutex
	all    map[*process]struct{}
	closed bool
	tasks  sync.WaitGroup
	stop   chan struct{}
}

// Open makes the directory anew and starts to look after processes.
func Open(cfg Config) (*Environments, error) {
	if cfg.Processes <= 0 {
		cfg.Processes = 50
	}
	if cfg.Idle <= 0 {
		cfg.Idle = 5 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	if err := os.RemoveAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("environment: %w", err)
	}
	for _, d := range []string{"tmp", "runtime"} {
		if err := os.MkdirAll(filepath.Join(cfg.Dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("environment: %w", err)
		}
	}
	e := &Environments{
		cfg: cfg, log: cfg.Log, places: make(chan struct{}, cfg.Processes),
		all: map[*process]struct{}{}, stop: make(chan struct{}),
	}
	if e.runtime, err = openInterpreters(filepath.Join(cfg.Dir, "runtime")); err != nil {
		return nil, fmt.Errorf("environment: %w", err)
	}
	e.tasks.Go(e.watch)
	return e, nil
}

// Close kills all processes and waits for their end.
func (e *Environments) Close() {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	e.closed = true
	close(e.stop)
	for p := range e.all {
		p.kill("the server ends")
	}
	e.mu.Unlock()
	e.tasks.Wait()
}

// place waits for a place for one more process. When all are taken, the one that has been idle for longest gives its own.
func (e *Environments) place(ctx context.Context) error {
	for {
		select {
		case e.places <- struct{}{}:
			return nil
		default:
		}
		e.evict()
		again := time.NewTimer(50 * time.Millisecond) // another may have become idle by then
		select {
		case e.places <- struct{}{}:
			again.Stop()
			return nil
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-e.stop:
			again.Stop()
			return ErrClosed
		}
	}
}

// evict ends the process that has been idle for longest, of any function.
func (e *Environments) evict() {
	e.mu.Lock()
	var oldest *process
	var since time.Time
	for p := range e.all {
		if at, idle := p.idleSince(); idle && (oldest == nil || at.Before(since)) {
			oldest, since = p, at
		}
	}
	e.mu.Unlock()
	if oldest != nil && oldest.pool.forget(oldest) {
		oldest.kill("its place is needed")
	}
}

// watch ends processes that have been idle for long, or have grown too large.
func (e *Environments) watch() {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-tick.C:
		}
		e.mu.Lock()
		list := make([]*process, 0, len(e.all))
		for p := range e.all {
			list = append(list, p)
		}
		e.mu.Unlock()
		for _, p := range list {
			if at, idle := p.idleSince(); idle && time.Since(at) > e.cfg.Idle && p.pool.forget(p) {
				p.kill("it was idle")
				continue
			}
			p.checkMemory()
		}
	}
}

// add takes a process in, or refuses it when the end has come.
func (e *Environments) add(p *process) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.all[p] = struct{}{}
	e.tasks.Add(1)
	return true
}

func (e *Environments) remove(p *process) {
	e.mu.Lock()
	delete(e.all, p)
	e.mu.Unlock()
	<-e.places
	e.tasks.Done()
}

// Count is how many processes there are.
func (e *Environments) Count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.all)
}
