package gateway

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"flotilla/internal/gateway/mesh"
	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
)

// session is what a client id has here: its subscriptions, and its queue when it is stored. A
// session that ends with its connection is made anew for each; a stored one stays, on
// every node, until it expires.
type session struct {
	g        *Gateway
	clientID string
	version  mqtt.Version
	number   int64 // in the store; 0: it ends with its connection
	conn     atomic.Pointer[Connection]

	mu     sync.Mutex
	ended  bool
	subs   []*subscription
	places map[string]int        // of filters in subs, when there are many
	row    *sessionstore.Session // of the present connection, for the store
	expiry uint32
	queue  queue
}

// stored tells whether the session outlives its connection.
func (s *session) stored() bool { return s.number != 0 }

// connected tells whether the client is connected, here or on another node.
func (s *session) connected() bool { return s.conn.Load() != nil || s.peer() != nil }

// peer is the other node that a stored session's client is connected to; nil for none.
func (s *session) peer() *mesh.Peer {
	if !s.stored() || s.g.mesh == nil || s.g.mesh.Alone() {
		return nil
	}
	s.mu.Lock()
	node := ""
	if s.row != nil {
		node = s.row.Node
	}
	s.mu.Unlock()
	if node == "" || node == s.g.cfg.NodeID {
		return nil
	}
	p, _ := s.g.mesh.Peer(node)
	return p
}

func (s *session) persistent() bool { return s.stored() }

// window is how many unacknowledged messages the client may have.
func (s *session) window(c *Connection) int {
	n := c.g.limits.MaxInflight
	if c.limits.receive > 0 {
		n = min(n, int(c.limits.receive))
	}
	return n
}

// manySubs is from how many on a session has an index of its filters.
const manySubs = 24

// find is the place of a filter among subs; -1 none. With mu held, as its kin.
func (s *session) find(filter string) int {
	if s.places != nil {
		if i, ok := s.places[filter]; ok {
			return i
		}
		return -1
	}
	for i, sub := range s.subs {
		if sub.filter == filter {
			return i
		}
	}
	return -1
}

func (s *session) add(sub *subscription) {
	s.subs = append(s.subs, sub)
	switch {
	case s.places != nil:
		s.places[sub.filter] = len(s.subs) - 1
	case len(s.subs) >= manySubs:
		s.places = make(map[string]int, 2*manySubs)
		for i, sub := range s.subs {
			s.places[sub.filter] = i
		}
	}
}

func (s *session) drop(i int) {
	last := len(s.subs) - 1
	if s.places != nil {
		delete(s.places, s.subs[i].filter)
		if i != last {
			s.places[s.subs[last].filter] = i
		}
	}
	s.subs[i] = s.subs[last]
	s.subs[last] = nil
	s.subs = s.subs[:last]
}

// announced are the filters among those that other nodes must know: shared subscriptions of
// stored sessions they know from the store.
func (s *session) announced(filters []string) []string {
	if !s.stored() {
		return filters
	}
	var out []string
	for _, f := range filters {
		if _, _, shared := mqtt.Share(f); !shared {
			out = append(out, f)
		}
	}
	return out
}

// group is a shared subscription: a filter with the members that share what it matches.
type group struct {
	filter     string // $share/name/filter
	inner      string
	entry      *subscription // in the trie
	persistent atomic.Int32  // members whose sessions are stored
	share      atomic.Int64  // number of the group's queue; 0 none

	mu      sync.RWMutex
	members []*subscription
}

// registry are all sessions that this node knows, and the shared subscriptions.
type registry struct {
	seed  maphash.Seed
	turns [1024]sync.Mutex // by client id: connects of one take turns

	mu       sync.RWMutex
	sessions map[string]*session
	leavers  map[string]*Connection // whose end is under way, by client id: the last one

	groupMu sync.Mutex
	groups  map[string]*group
}

func newRegistry() *registry {
	return &registry{seed: maphash.MakeSeed(), sessions: map[string]*session{}, leavers: map[string]*Connection{}, groups: map[string]*group{}}
}

func (r *registry) turn(clientID string) *sync.Mutex {
	return &r.turns[maphash.String(r.seed, clientID)%uint64(len(r.turns))]
}

// group is a shared subscription; nil when nobody here is in it.
func (r *registry) group(filter string) *group {
	r.groupMu.Lock()
	defer r.groupMu.Unlock()
	return r.groups[filter]
}

func (r *registry) get(clientID string) *session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.sessions[clientID]
}

// put makes s the session of its client id and returns the one before.
func (r *registry) put(s *session) (old *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old = r.sessions[s.clientID]
	r.sessions[s.clientID] = s
	return old
}

// remove forgets s, unless its client id has another session by now.
func (r *registry) remove(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions[s.clientID] == s {
		delete(r.sessions, s.clientID)
	}
}

// connections are those that are there now.
func (r *registry) connections() []*Connection {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]*Connection, 0, len(r.sessions))
	for _, s := range r.sessions {
		if c := s.conn.Load(); c != nil {
			out = append(out, c)
		}
	}
	return out
}

// subscribe adds a subscription to the session and the trie, in the place of one with the same filter;
// it returns false when the session has ended, and whether the filter is new.
func (g *Gateway) subscribe(s *session, sub *subscription) (ok, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false, false
	}
	i := s.find(sub.filter)
	if i < 0 {
		s.add(sub)
		g.addToTrie(sub)
		return true, true
	}
	old := s.subs[i]
	s.subs[i] = sub
	g.addToTrie(sub) // first: there is no moment without
	g.removeFromTrie(old)
	return true, false
}

// unsubscribe takes a subscription away; false when there was none.
func (g *Gateway) unsubscribe(s *session, filter string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(filter)
	if i < 0 {
		return false
	}
	g.removeFromTrie(s.subs[i])
	s.drop(i)
	return true
}

// endSession takes all subscriptions of a session away, and returns their filters.
func (g *Gateway) endSession(s *session) (filters []string) {
	g.registry.remove(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, sub := range s.subs {
		g.removeFromTrie(sub)
		filters = append(filters, sub.filter)
	}
	s.subs, s.places = nil, nil
	return filters
}

func (g *Gateway) addToTrie(sub *subscription) {
	_, inner, shared := mqtt.Share(sub.filter)
	if !shared {
		g.trie.Add(sub.filter, sub)
		return
	}
	r := g.registry
	r.groupMu.Lock()
	defer r.groupMu.Unlock()
	gr := r.groups[sub.filter]
	if gr == nil {
		gr = &group{filter: sub.filter, inner: inner}
		gr.entry = &subscription{group: gr, filter: sub.filter}
		r.groups[sub.filter] = gr
		g.trie.Add(inner, gr.entry)
	}
	gr.mu.Lock()
	gr.members = append(gr.members, sub)
	gr.mu.Unlock()
	if sub.session.stored() {
		gr.persistent.Add(1)
		gr.share.Store(sub.share)
	}
	g.trieChanged.Add(1)
}

func (g *Gateway) removeFromTrie(sub *subscription) {
	_, _, shared := mqtt.Share(sub.filter)
	if !shared {
		g.trie.Remove(sub.filter, sub)
		return
	}
	r := g.registry
	r.groupMu.Lock()
	defer r.groupMu.Unlock()
	gr := r.groups[sub.filter]
	if gr == nil {
		return
	}
	gr.mu.Lock()
	for i, m := range gr.members {
		if m == sub {
			gr.members = append(gr.members[:i], gr.members[i+1:]...)
			if sub.session.stored() {
				gr.persistent.Add(-1)
			}
			break
		}
	}
	empty := len(gr.members) == 0
	gr.mu.Unlock()
	if empty {
		delete(r.groups, sub.filter)
		g.trie.Remove(gr.inner, gr.entry)
	}
	g.trieChanged.Add(1)
}

// leaves notes that the connection's end is under way.
func (r *registry) leaves(c *Connection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leavers[c.session.clientID] = c
}

// left notes that it is complete.
func (r *registry) left(c *Connection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leavers[c.session.clientID] == c {
		delete(r.leavers, c.session.clientID)
	}
}

// waitLeft returns once no connection of the client id with a lesser epoch is about to end, or ctx ends.
func (r *registry) waitLeft(ctx context.Context, clientID string, epoch int64) {
	r.mu.RLock()
	c := r.leavers[clientID]
	r.mu.RUnlock()
	if c != nil && c.epoch < epoch {
		_ = c.waitGone(ctx)
	}
}

// waitGone returns once the connection's end is complete, or ctx ends.
func (c *Connection) waitGone(ctx context.Context) error {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return nil
	}
	if c.gone == nil {
		c.gone = make(chan struct{})
	}
	gone := c.gone
	c.mu.Unlock()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
