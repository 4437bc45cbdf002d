package gateway

import "sync"

// workers run what may block, at most limit at a time; what is beyond waits. A
// connection is in the queue at most once, and what else is run belongs to the end of
// one, so the queue is bounded by the number of connections.
type workers struct {
	g     *Gateway
	limit int

	mu      sync.Mutex
	queue   []func()
	head    int
	running int
	idle    *sync.Cond // running fell to zero
}

func newWorkers(g *Gateway, limit int) *workers {
	w := &workers{g: g, limit: limit}
	w.idle = sync.NewCond(&w.mu)
	return w
}

// run has fn called by a worker.
func (w *workers) run(fn func()) {
	w.mu.Lock()
	if w.running >= w.limit {
		w.queue = append(w.queue, fn)
		w.mu.Unlock()
		return
	}
	w.running++
	w.mu.Unlock()
	go w.work(fn)
}

func (w *workers) work(fn func()) {
	for fn != nil {
		fn()
		w.mu.Lock()
		fn = nil
		if w.head < len(w.queue) {
			fn = w.queue[w.head]
			w.queue[w.head] = nil
			if w.head++; w.head == len(w.queue) {
				w.queue, w.head = w.queue[:0], 0
			}
		} else if w.running--; w.running == 0 {
			w.idle.Broadcast()
		}
		w.mu.Unlock()
	}
}

// wait returns once nothing runs.
func (w *workers) wait() {
	w.mu.Lock()
	for w.running > 0 {
		w.idle.Wait()
	}
	w.mu.Unlock()
}

// waiting is how many functions have no worker yet.
func (w *workers) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) - w.head
}

// serve has a worker go on with c's packets, which are in c.partial, and give it back.
func (w *workers) serve(c *Connection) {
	w.run(func() {
		t := turn{g: w.g, now: w.g.now()}
		b := c.partial
		c.partial = nil
		rest, v := c.serve(&t, b)
		if len(rest) > 0 {
			c.partial = append(c.g.pool.get(len(rest)), rest...)
		}
		c.g.pool.put(b)
		t.flush()
		c.holding = v == holdBack
		c.r.notify(note{c: c, action: actReturn})
	})
}
