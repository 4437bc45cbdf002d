package shadow

import "sync"

// turns lets the goroutines that wrote one shadow publish in the order of their
// commits. join is called in that order; the goroutine then waits, publishes,
// and leaves. Shadows do not wait for each other.
type turns struct {
	mu   sync.Mutex
	last map[ref]*turn
}

type turn struct {
	t      *turns
	shadow ref
	before chan struct{} // closed when those before are done; nil for the first
	done   chan struct{}
}

// join takes the next turn at r. It does not block.
func (t *turns) join(r ref) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &turn{t: t, shadow: r, done: make(chan struct{})}
	if last := t.last[r]; last != nil {
		n.before = last.done
	}
	t.last[r] = n
	return n
}

// wait returns when it is n's turn.
func (n *turn) wait() {
	if n.before != nil {
		<-n.before
	}
}

// leave ends n's turn.
func (n *turn) leave() {
	n.t.mu.Lock()
	defer n.t.mu.Unlock()
	if n.t.last[n.shadow] == n {
		delete(n.t.last, n.shadow)
	}
	close(n.done)
}
