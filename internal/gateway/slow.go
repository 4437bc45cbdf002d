package gateway

import (
	"sync"
	"time"

	"flotilla/internal/mqtt"
)

// slowClients are those that hold publishers back.
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

// check disconnects those that have been full for too long.
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
		full, at, closed := c.full, c.fullAt, c.closed
		c.mu.Unlock()
		switch {
		case closed || !full:
			remove(c)
		case now.Sub(at) > s.timeout:
			remove(c)
			c.r.notify(note{c: c, action: actEnd, cause: &cause{
				code: mqtt.QuotaExceeded, send: true, reason: reasonThrottled, detail: "the client does not read what it subscribed to",
			}})
		}
	}
}
