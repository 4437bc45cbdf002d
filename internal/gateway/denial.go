package gateway

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"flotilla/internal/mqtt"
	"flotilla/internal/policy/lang"
)

// Denial is something that was refused to a client, and why. It never holds secrets or
// payloads.
type Denial struct {
	Time      time.Time
	Action    string // "iot:Publish", or "connect", "packet"
	Resource  string // topic or filter; "" none
	Principal string // its id
	Remote    netip.Addr
	Reason    string
	Policy    string // that decided; "" when no statement allows
	Statement int
	Code      mqtt.ReasonCode
}

const (
	denialsPerClient = 8
	denialClients    = 10_000
	// maxDenialText is how much is kept of a name that the client chose.
	maxDenialText = 1024
)

// cut is the beginning of a text, in whole characters.
func cut(s string) string {
	if len(s) <= maxDenialText {
		return s
	}
	return strings.ToValidUTF8(s[:maxDenialText], "") + "…"
}

// denials keeps the last denials of the clients that had some last.
type denials struct {
	mu      sync.Mutex
	clients map[string][]Denial
	order   []string // clients by their first denial
}

// add records n; it returns false when the client's last one, less than a second ago, was the same.
func (d *denials) add(clientID string, n Denial) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.clients == nil {
		d.clients = map[string][]Denial{}
	}
	list, known := d.clients[clientID]
	if !known {
		if len(d.order) >= denialClients {
			delete(d.clients, d.order[0])
			d.order = d.order[1:]
		}
		d.order = append(d.order, clientID)
	}
	if k := len(list) - 1; k >= 0 {
		last := list[k]
		recent := n.Time.Sub(last.Time) < time.Second
		if last.Time = n.Time; recent && last == n {
			list[k].Time = n.Time
			return false
		}
	}
	if len(list) >= denialsPerClient {
		list = append(list[:0], list[1:]...)
	}
	d.clients[clientID] = append(list, n)
	return true
}

// Denials are the last things that were refused to a client id, oldest first.
func (g *Gateway) Denials(clientID string) []Denial {
	g.denials.mu.Lock()
	defer g.denials.mu.Unlock()
	return append([]Denial(nil), g.denials.clients[clientID]...)
}

// deny records a denial, and logs it unless it only repeats.
func (g *Gateway) deny(clientID, principal string, n Denial) {
	n.Time, n.Principal, n.Resource = g.now(), principal, cut(n.Resource)
	clientID = cut(clientID)
	if !g.denials.add(clientID, n) {
		return
	}
	if g.onDenied != nil {
		g.onDenied(clientID, n)
	}
	g.log.Info("refused", "clientId", clientID, "principal", principal, "remote", n.Remote, "action", n.Action, "topic", n.Resource, "err", n.Reason)
}

// denyArrival records why a connection was refused: for its client id, and for its certificate, by which the operator
// finds a device of whose client id nothing is known.
func (g *Gateway) denyArrival(clientID, principal string, a *arrival, r *refusal) {
	n := Denial{Remote: address(a.remote).Addr(), Action: "connect", Reason: r.detail, Code: r.code}
	g.deny(clientID, principal, n)
	if principal != "" && principal != clientID {
		n.Time, n.Principal = g.now(), principal
		g.denials.add(principal, n)
	}
}

// deny records what was refused to the connection.
func (c *Connection) deny(n Denial) {
	n.Remote = c.addr.Addr()
	c.g.deny(c.clientID(), c.who.ID, n)
}

// denied records a decision of the policies.
func (c *Connection) denied(action, topic string, d lang.Decision) {
	reason := "no statement allows it"
	if d.Effect == lang.ExplicitDeny {
		reason = "a statement denies it"
	}
	c.deny(Denial{Action: action, Resource: topic, Reason: reason, Policy: d.Policy, Statement: d.Statement, Code: mqtt.NotAuthorized})
}

// decide asks the policies; ok is false when that would block the loop.
func (c *Connection) decide(t *turn, action, resource string) (d lang.Decision, ok bool) {
	if t.loop == nil {
		return c.auth.Authorize(action, resource), true
	}
	if c.now == nil {
		return d, false
	}
	return c.now.Cached(action, resource)
}
