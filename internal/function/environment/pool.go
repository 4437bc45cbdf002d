package environment

import (
	"context"
	"sync"
	"time"
)

// Pool are the processes of one version of a function. It is safe for concurrent use.
type Pool struct {
	e   *Environments
	f   *Function
	log *Log

	mu      sync.Mutex
	idle    []*process // the warmest last
	count   int        // processes, and those about to start
	waiting []chan *process
	retired bool
}

// Pool makes the pool of a version of a function; log takes what it prints. Nothing is started yet.
func (e *Environments) Pool(f *Function, log *Log) *Pool { return &Pool{e: e, f: f, log: log} }

// Retire ends idle processes now, and others after their invocation. Nothing is invoked any more.
func (p *Pool) Retire() {
	p.mu.Lock()
	p.retired = true
	idle, waiting := p.idle, p.waiting
	p.idle, p.waiting = nil, nil
	p.mu.Unlock()
	for _, c := range waiting {
		close(c)
	}
	for _, proc := range idle {
		proc.kill("its function was changed or deleted")
	}
}

// Invoke gives an event to the function and returns its answer. A function that was begun goes on to its own timeout,
// whether or not ctx ends before. Errors: [ErrThrottled], [ErrClosed], or that of ctx.
func (p *Pool) Invoke(ctx context.Context, inv *Invocation) (*Result, error) {
	for {
		proc, err := p.acquire(ctx)
		if err != nil {
			return nil, err
		}
		r := &run{Invocation: inv, done: make(chan outcome, 1)}
		proc.begin(r)
		select {
		case o := <-r.done:
			if o.again {
				continue // the process ended while it was idle: the function has not seen the event
			}
			return o.result, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// acquire gives a process that nothing is under way in.
func (p *Pool) acquire(ctx context.Context) (*process, error) {
	p.mu.Lock()
	switch n := len(p.idle); {
	case p.retired:
		p.mu.Unlock()
		return nil, ErrClosed
	case n > 0:
		proc := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return proc, nil
	case p.count < p.f.Concurrency:
		p.count++
		p.mu.Unlock()
		return p.start(ctx)
	case len(p.waiting) >= p.f.MaxWaiting || p.f.Concurrency <= 0:
		p.mu.Unlock()
		return nil, ErrThrottled
	}
	turn := make(chan *process, 1)
	p.waiting = append(p.waiting, turn)
	p.mu.Unlock()
	select {
	case proc, ok := <-turn:
		return p.taken(ctx, proc, ok)
	case <-ctx.Done():
	}
	p.mu.Lock()
	for i, c := range p.waiting {
		if c == turn {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			p.mu.Unlock()
			return nil, ctx.Err()
		}
	}
	p.mu.Unlock()
	if proc, ok := <-turn; ok { // it came at the same moment
		if proc == nil {
			p.gone()
		} else {
			p.release(proc)
		}
	}
	return nil, ctx.Err()
}

// taken is what a turn in the queue gave: a process, the right to start one (nil), or nothing.
func (p *Pool) taken(ctx context.Context, proc *process, ok bool) (*process, error) {
	switch {
	case !ok:
		return nil, ErrClosed
	case proc == nil:
		return p.start(ctx)
	}
	return proc, nil
}

// start starts a process; count has it already.
func (p *Pool) start(ctx context.Context) (*process, error) {
	if err := p.e.place(ctx); err != nil {
		p.gone()
		return nil, err
	}
	proc := newProcess(p)
	if !p.e.add(proc) {
		<-p.e.places
		p.gone()
		return nil, ErrClosed
	}
	go proc.supervise()
	return proc, nil
}

// release takes back a process that has done its work.
func (p *Pool) release(proc *process) {
	p.mu.Lock()
	switch {
	case p.retired:
		p.mu.Unlock()
		proc.kill("its function was changed or deleted")
		return
	case len(p.waiting) > 0:
		turn := p.waiting[0]
		p.waiting = p.waiting[1:]
		p.mu.Unlock()
		turn <- proc
		return
	}
	proc.setIdle(time.Now())
	p.idle = append(p.idle, proc)
	p.mu.Unlock()
}

// forget takes an idle process out; false when it is not idle any more.
func (p *Pool) forget(proc *process) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.idle {
		if other == proc {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return true
		}
	}
	return false
}

// gone counts a process that has ended, or was not started; who waits may start another.
func (p *Pool) gone() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) > 0 && !p.retired {
		turn := p.waiting[0]
		p.waiting = p.waiting[1:]
		turn <- nil
		return
	}
	p.count--
}
