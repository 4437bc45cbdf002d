package mesh

import (
	"context"
	"errors"
	"fmt"
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

type waiting struct {
	peer   *Peer
	answer chan error // of one
}

func (r *requests) add(p *Peer) (id uint64, answer chan error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	w := &waiting{p, make(chan error, 1)}
	r.waiting[r.last] = w
	return r.last, w.answer
}

func (r *requests) forget(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, id)
}

// answer ends a request to p.
func (r *requests) answer(p *Peer, id uint64, code byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.waiting[id]
	if w == nil || w.peer != p {
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
func (r *requests) gone(p *Peer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, w := range r.waiting {
		if w.peer == p {
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
		id, answer := m.requests.add(p)
		r.id = id
		all = append(all, asked{p, id, answer})
		p.link.record([][]byte{r.append(nil)}, nil)
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
