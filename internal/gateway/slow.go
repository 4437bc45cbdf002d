package gateway

import (
	"sync"
	"time"
)

// slowClients are those for which more waits than should.
type slowClients struct {
	mu      sync.Mutex
	clients map[*Connection]struct{}
	timeout time.Duration
}

func (s *slowClients) add(c *Connection) {
	s.mu.Lock()
	if s.clients == nil {
		s.clients = map[*Connection]struct{}{}
	}
	s.clients[c] = struct{}{}
	s.mu.Unlock()
}

// check disconnects those that have taken nothing for too long: what waits for them is others' room.
func (s *slowClients) check(now time.Time) {
	s.mu.Lock()
	clients := make([]*Connection, 0, len(s.clients))
	for c := range s.clients {
		clients = append(clients, c)
	}
	s.mu.Unlock() // a connection's mu is locked first
	remove := func(c *Connection) {
		s.mu.Lock()
		delete(s.clients, c)
		s.mu.Unlock()
	}
	for _, c := range clients {
		c.mu.Lock()
		if c.took {
			c.took, c.tookAt = false, now
		}
		behind, at, closed := c.behind, c.tookAt, c.closed
		if !behind || closed {
			remove(c) // with mu held: it may fall behind again
		}
		c.mu.Unlock()
		if behind && !closed && now.Sub(at) > s.timeout {
			remove(c)
			c.r.notify(note{c: c, action: actEnd, cause: tooSlow()})
		}
	}
}
