package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrBusy says that a node has too many requests of others waiting.
var ErrBusy = errors.New("mesh: the node has too many requests waiting")

const (
	codeDone   = 0
	codeBusy   = 1
	codeFailed = 2
)

// requests are those of this node that wait for an answer.
type requests struct {
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]*waiting
}

// waiting is a request to a peer: one that asks (answer), or a message for its groups
// (done).
type waiting struct {
	peer   *Peer
	record []byte     // of an ask: may be sent again
	answer chan error // of one

	done   func(error)
	groups []string
	taken  time.Time // when the peer has acknowledged the message, which is not sent again; zero: not yet
}

// number is that of the next request.
func (r *requests) number() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	return r.last
}

func (r *requests) put(id uint64, w *waiting) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting[id] = w
}

// share notes a message for groups of p. taken is to be called when its frame ends, done
// will be by the outcome.
func (r *requests) share(p *Peer, groups []string, done func(error)) (id uint64, taken func(error)) {
	w := &waiting{peer: p, done: done, groups: groups}
	id = r.number()
	r.put(id, w)
	return id, func(err error) {
		if err == nil {
			r.mu.Lock()
			w.taken = time.Now()
			r.mu.Unlock()
		}
	}
}

// forget tells whether the request was still waiting.
func (r *requests) forget(id uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, there := r.waiting[id]
	delete(r.waiting, id)
	return there
}

// UntakenError says that a message was delivered, but to no member of these shared
// subscriptions ($share/name/filter).
type UntakenError struct{ Groups []string }

func (e *UntakenError) Error() string {
	return "mesh: no member of " + strings.Join(e.Groups, ", ") + " took the message"
}

// outcome ends the request for a message for groups of p.
func (r *requests) outcome(p *Peer, id uint64, untaken []string) {
	r.mu.Lock()
	w := r.waiting[id]
	if w == nil || w.peer != p || w.done == nil {
		r.mu.Unlock()
		return
	}
	delete(r.waiting, id)
	r.mu.Unlock()
	untaken = slices.DeleteFunc(untaken, func(g string) bool { return !slices.Contains(w.groups, g) })
	if len(untaken) > 0 {
		w.done(&UntakenError{untaken})
		return
	}
	w.done(nil)
}

// outcomeWait is how long a node that has acknowledged a message for its groups may take
// to say what became of it.
const outcomeWait = 10 * time.Second

// late ends the messages for groups that are waited for too long.
func (r *requests) late() {
	end := time.Now().Add(-outcomeWait)
	r.drop(func(w *waiting) bool { return !w.taken.IsZero() && w.taken.Before(end) }, ErrSilent)
}

// drop ends the messages for groups that are so.
func (r *requests) drop(so func(*waiting) bool, err error) {
	var all []func(error)
	r.mu.Lock()
	for id, w := range r.waiting {
		if w.done != nil && so(w) {
			delete(r.waiting, id)
			all = append(all, w.done)
		}
	}
	r.mu.Unlock()
	for _, done := range all {
		done(err)
	}
}

// forgotten is called when p had dropped this node: what it wanted to answer is lost. Requests
// are sent again; of messages for groups nobody knows who took them.
func (m *Mesh) forgotten(p *Peer) {
	r := &m.requests
	r.drop(func(w *waiting) bool { return w.peer == p && !w.taken.IsZero() }, ErrSilent)
	var records [][]byte
	r.mu.Lock()
	for _, w := range r.waiting {
		if w.peer == p && w.answer != nil {
			records = append(records, w.record)
		}
	}
	r.mu.Unlock()
	p.link.record(records, nil)
}

// answer ends a request to p.
func (r *requests) answer(p *Peer, id uint64, code byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.waiting[id]
	if w == nil || w.peer != p || w.answer == nil {
		return
	}
	delete(r.waiting, id)
	switch code {
	case codeDone:
		w.answer <- nil
	case codeBusy:
		w.answer <- ErrBusy
	default:
		w.answer <- errors.New("mesh: the node could not do it")
	}
}

// gone ends all requests to a node that is gone: it holds nothing any more.
func (r *requests) gone(p *Peer, why error) {
	r.drop(func(w *waiting) bool { return w.peer == p }, why)
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, w := range r.waiting {
		if w.peer == p && w.answer != nil {
			delete(r.waiting, id)
			w.answer <- nil
		}
	}
}

// ask sends r to a peer and waits for its answer.
func (m *Mesh) ask(ctx context.Context, peers []*Peer, r request) error {
	type asked struct {
		peer   *Peer
		id     uint64
		answer chan error
	}
	all := make([]asked, 0, len(peers))
	for _, p := range peers {
		w := &waiting{peer: p, answer: make(chan error, 1)}
		r.id = m.requests.number()
		w.record = r.append(nil)
		m.requests.put(r.id, w)
		all = append(all, asked{p, r.id, w.answer})
		p.link.record([][]byte{w.record}, nil)
	}
	var errs []error
	for _, a := range all {
		select {
		case err := <-a.answer:
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", a.peer.id, err))
			}
		case <-a.peer.gone: // also when it was before the request
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("%s: %w", a.peer.id, ctx.Err()))
		}
		m.requests.forget(a.id)
	}
	return errors.Join(errs...)
}

// Kick has a node end connections of the client id with an epoch below the given
// one; nil when it has, or is no member any more. node "" asks all peers at once.
func (m *Mesh) Kick(ctx context.Context, node, clientID string, epoch int64) error {
	var peers []*Peer
	if node == "" {
		peers = m.members()
	} else if p, ok := m.Peer(node); ok {
		peers = []*Peer{p}
	}
	return m.ask(ctx, peers, request{kind: recKick, clientID: clientID, epoch: epoch})
}

// SessionChanged has all peers load the session of a client id again, and returns
// once those that live have: before the SUBACK of a persistent session, and after
// its connect or end.
func (m *Mesh) SessionChanged(ctx context.Context, clientID string) error {
	if m.Alone() {
		return nil
	}
	return m.ask(ctx, m.members(), request{kind: recChanged, clientID: clientID})
}

const (
	maxJobs    = 16384
	maxWorkers = 32
	// jobTimeout is how long a request of another node may take.
	jobTimeout = 5 * time.Second
)

// jobs are requests of other nodes, done by a few goroutines that end when there
// is nothing to do.
type jobs struct {
	mu      sync.Mutex
	queue   []job
	workers int
	group   sync.WaitGroup
}

type job struct {
	peer *Peer
	r    request
}

func (m *Mesh) serve(p *Peer, r request) {
	j := &m.jobs
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.queue) >= maxJobs {
		p.link.record([][]byte{appendDone(nil, r.id, codeBusy)}, nil)
		return
	}
	j.queue = append(j.queue, job{p, r})
	if j.workers < maxWorkers {
		j.workers++
		j.group.Go(m.work)
	}
}

func (m *Mesh) work() {
	j := &m.jobs
	for {
		j.mu.Lock()
		if len(j.queue) == 0 || m.ctx.Err() != nil {
			j.workers--
			j.mu.Unlock()
			return
		}
		next := j.queue[0]
		j.queue[0] = job{}
		j.queue = j.queue[1:]
		j.mu.Unlock()
		code := byte(codeDone)
		if err := m.do(next.r); err != nil {
			code = codeFailed
			m.log.Warn("mesh: a request of another node failed", "node", next.peer.id, "clientId", next.r.clientID, "err", err)
		}
		next.peer.link.record([][]byte{appendDone(nil, next.r.id, code)}, nil)
	}
}

func (m *Mesh) do(r request) error {
	ctx, cancel := context.WithTimeout(m.ctx, jobTimeout)
	defer cancel()
	switch r.kind {
	case recKick:
		if m.h.Kick != nil {
			m.h.Kick(ctx, r.clientID, r.epoch)
		}
		return ctx.Err()
	case recChanged:
		if m.h.SessionChanged != nil {
			return m.h.SessionChanged(ctx, r.clientID)
		}
	}
	return nil
}
