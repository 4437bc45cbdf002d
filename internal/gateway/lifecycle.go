package gateway

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"flotilla/internal/mqtt"
)

// presenceEvent is a lifecycle event, with AWS's members in AWS's order.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/life-cycle-events.html
type presenceEvent struct {
	ClientID  string   `json:"clientId"`
	Timestamp int64    `json:"timestamp"` // ms
	EventType string   `json:"eventType"`
	Initiated *bool    `json:"clientInitiatedDisconnect,omitempty"`
	SessionID string   `json:"sessionIdentifier"`
	Principal string   `json:"principalIdentifier"`
	IPAddress string   `json:"ipAddress,omitempty"`
	Reason    string   `json:"disconnectReason,omitempty"`
	Version   *int64   `json:"versionNumber,omitempty"`
	Topics    []string `json:"topics,omitempty"`
}

// presence publishes that a client has connected or disconnected.
func (g *Gateway) presence(c *Connection, what string, why *cause) {
	e := presenceEvent{ClientID: c.session.clientID, EventType: what, Version: new(c.epoch)}
	if why != nil {
		e.Reason, e.Initiated = why.reason, new(why.reason == reasonClientInitated)
	} else {
		e.IPAddress = c.addr.Addr().String()
	}
	if g.onPresence != nil {
		g.onPresence(e.ClientID, why == nil, e.Reason, g.now())
	}
	g.event("$aws/events/presence/"+what+"/"+e.ClientID, c, e)
}

// subscriptionEvent publishes that a client has subscribed or unsubscribed.
func (c *Connection) subscriptionEvent(what string, filters []string) {
	if len(filters) > 0 {
		c.g.event("$aws/events/subscriptions/"+what+"/"+c.session.clientID, c, presenceEvent{ClientID: c.session.clientID, EventType: what, Topics: filters})
	}
}

// event publishes a lifecycle event if anybody is there to hear it. Client ids with wildcards
// get none.
func (g *Gateway) event(topic string, c *Connection, e presenceEvent) {
	if g.cfg.NoLifecycle || strings.ContainsAny(e.ClientID, "+#") || mqtt.ValidTopicName(topic) != nil {
		return
	}
	r := &route{topic: topic}
	g.lookUp(r)
	if len(r.targets) == 0 && len(r.groups) == 0 && len(r.peers) == 0 && len(r.elsewhere) == 0 && !r.selected {
		return
	}
	now := g.now()
	e.Timestamp, e.SessionID, e.Principal = now.UnixMilli(), c.id, principalID(c.who)
	payload, err := json.Marshal(e)
	if err != nil {
		panic("gateway: " + err.Error()) // strings and numbers always marshal
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if err := g.Publish(ctx, &mqtt.Message{Topic: topic, Payload: payload, QoS: 1, Received: now}); err != nil {
		g.log.Warn("a lifecycle event can't be published", "clientId", e.ClientID, "err", err)
	}
}

// recent remembers clients that were here lately: the number of their last connection, when it began,
// how it ended. Bounded.
type recent struct {
	mu      sync.Mutex
	clients map[string]*lastSeen
}

type lastSeen struct {
	epoch     int64
	connected time.Time
	ended     time.Time // zero while connected
	reason    string
	last      connectionFacts
}

// connectionFacts are what GetConnection tells of a connection that has ended.
type connectionFacts struct {
	keepAlive uint16
	clean     bool
	sourceIP  string
	port      uint16
	since     time.Time
}

const (
	maxRecent = 200_000
	// rememberFor is after how long AWS's versionNumber begins again.
	rememberFor = time.Hour
)

func (r *recent) get(clientID string) *lastSeen {
	if r.clients == nil {
		r.clients = map[string]*lastSeen{}
	}
	s := r.clients[clientID]
	if s == nil {
		if len(r.clients) >= maxRecent {
			for id, old := range r.clients { // any that is gone
				if !old.ended.IsZero() {
					delete(r.clients, id)
					break
				}
			}
		}
		s = &lastSeen{}
		r.clients[clientID] = s
	}
	return s
}

// nextEpoch is the number of a client id's next connection, when the store does not count them.
func (r *recent) nextEpoch(clientID string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.clients[clientID]
	if s == nil {
		return 0
	}
	return s.epoch + 1
}

// mayConnect tells whether the client id's last CONNECT is long enough ago.
func (r *recent) mayConnect(clientID string, now time.Time, interval time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.get(clientID)
	if now.Sub(s.connected) < interval {
		return false
	}
	s.connected = now
	return true
}

// left notes the end of a connection.
func (r *recent) left(c *Connection, why *cause, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.get(c.session.clientID)
	s.epoch, s.ended, s.reason = c.epoch, now, why.reason
	s.last = connectionFacts{c.keepAlive, c.clean, c.addr.Addr().String(), c.addr.Port(), c.started}
}

func (r *recent) seen(clientID string) (lastSeen, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.clients[clientID]
	if s == nil || s.ended.IsZero() {
		return lastSeen{}, false
	}
	return *s, true
}

func (r *recent) expire(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, s := range r.clients {
		if now.Sub(s.ended) > rememberFor && now.Sub(s.connected) > rememberFor {
			delete(r.clients, id)
		}
	}
}
