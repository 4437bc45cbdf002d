package gateway

import (
	"context"
	"crypto/x509"
	"math"
	"sync"
	"time"

	"flotilla/internal/mqtt"
)

// terms are what limits a connection beside its certificate and its keep alive. Most have none.
type terms struct {
	webSocket bool
	vouched   *Vouched  // nil: no custom authorizer vouched for it
	ends      time.Time // zero: never
	reason    string    // of the lifecycle event then
	refresh   time.Time // when policies are asked for again; zero: never
	due       int64     // second under which calendar has it; 0: not at all
}

// termsOf gives the terms of a connection that begins now.
func (g *Gateway) termsOf(a *arrival, v *Vouched, now time.Time) *terms {
	if a.upgrade == nil && v == nil {
		return nil
	}
	t := &terms{webSocket: a.upgrade != nil, vouched: v}
	if d := g.limits.WebSocketDuration; t.webSocket && d > 0 {
		t.ends, t.reason = now.Add(d), reasonWebSocketTTL
	}
	if v != nil {
		if end := now.Add(v.DisconnectAfter); t.ends.IsZero() || end.Before(t.ends) {
			t.ends, t.reason = end, reasonCustomTTL
		}
		t.nextRefresh(now)
	}
	return t
}

func (t *terms) nextRefresh(now time.Time) {
	t.refresh = time.Time{}
	if v := t.vouched; v.RefreshAfter < v.DisconnectAfter {
		t.refresh = now.Add(v.RefreshAfter)
	}
}

// expiry is the first second at which a certificate is not valid any more; 0 when that is beyond what 32 bits count.
func expiry(leaf *x509.Certificate) uint32 {
	if at := leaf.NotAfter.Unix() + 1; at > 0 && at <= math.MaxUint32 {
		return uint32(at)
	}
	return 0
}

func (c *Connection) expired(now time.Time) bool {
	return c.expires != 0 && now.Unix() >= int64(c.expires)
}

// next is when something is due, zero for never.
func (t *terms) next() time.Time {
	if t.ends.IsZero() || !t.refresh.IsZero() && t.refresh.Before(t.ends) {
		return t.refresh
	}
	return t.ends
}

// calendar has the connections with terms by the second when something is due.
type calendar struct {
	mu    sync.Mutex
	byDue map[int64]map[*Connection]struct{}
	last  int64 // second that was looked at last
}

// add notes when c's next time comes; remove forgets it.
func (k *calendar) add(c *Connection) {
	if c.terms == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.removeLocked(c)
	at := c.terms.next()
	if at.IsZero() {
		return
	}
	c.terms.due = max(at.Add(time.Second-time.Nanosecond).Unix(), k.last+1) // never early
	if k.byDue == nil {
		k.byDue = map[int64]map[*Connection]struct{}{}
	}
	if k.byDue[c.terms.due] == nil {
		k.byDue[c.terms.due] = map[*Connection]struct{}{}
	}
	k.byDue[c.terms.due][c] = struct{}{}
}

func (k *calendar) remove(c *Connection) {
	if c.terms == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.removeLocked(c)
}

func (k *calendar) removeLocked(c *Connection) {
	if c.terms.due == 0 {
		return
	}
	delete(k.byDue[c.terms.due], c)
	if len(k.byDue[c.terms.due]) == 0 {
		delete(k.byDue, c.terms.due)
	}
	c.terms.due = 0
}

// take gives the connections whose time has come.
func (k *calendar) take(now time.Time) (due []*Connection) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last = max(k.last, now.Unix())
	for second, conns := range k.byDue {
		if second > k.last {
			continue
		}
		for c := range conns {
			c.terms.due = 0
			due = append(due, c)
		}
		delete(k.byDue, second)
	}
	return due
}

// keepTerms ends the connections whose time is over, and has policies asked for again.
func (g *Gateway) keepTerms(now time.Time) {
	for _, c := range g.calendar.take(now) {
		t := c.terms
		if !t.ends.IsZero() && !now.Before(t.ends) {
			c.end(&cause{code: mqtt.MaximumConnectTime, send: true, reason: t.reason, detail: "the connection has lasted as long as it may"})
			continue
		}
		g.workers.run(func() { g.refresh(c) })
	}
}

// refresh asks the custom authorizer again; without an answer the connection ends.
func (g *Gateway) refresh(c *Connection) {
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.HandshakeTimeout)
	defer cancel()
	v, err := c.terms.vouched.Refresh(ctx)
	if err != nil {
		c.deny(Denial{Action: "refresh", Reason: err.Error(), Code: mqtt.NotAuthorized})
		c.end(&cause{code: mqtt.NotAuthorized, send: true, reason: reasonAuthError, detail: "the custom authorizer no longer vouches for it"})
		return
	}
	c.auth.(*guest).replace(v.Policies)
	c.terms.vouched = v
	c.terms.nextRefresh(g.now())
	c.mu.Lock()
	over := c.ended
	c.mu.Unlock()
	if !over {
		g.calendar.add(c)
	}
	g.watch.poke() // iot:Connect is asked again
}
