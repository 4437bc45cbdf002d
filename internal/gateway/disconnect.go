package gateway

import (
	"context"
	"errors"
	"time"

	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// teardown is what the end of a connection owes to others: the session is kept or ended, the
// will published, the lifecycle event too. It runs on a worker.
func (g *Gateway) teardown(c *Connection, why *cause) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*storeTimeout)
	defer cancel()
	s := c.session
	g.registry.leaves(c)
	s.conn.CompareAndSwap(c, nil)
	filters := s.filters()
	publish, later := g.willOf(c, why)
	ended, ours := !s.stored(), true
	if c.leased {
		out, err := g.disconnected(ctx, c, why, publish, later)
		switch {
		case errors.Is(err, sessionstore.ErrFenced):
			// Another node has the client now, and leaves the will to this one; or it had this
			// node taken for dead, and has published the will.
			publish, ours = publish && why.reason == reasonDuplicate, false
		case err != nil:
			g.log.Error("the end of a connection can't be stored", "clientId", s.clientID, "err", err)
		default:
			ended = ended || out.Ended
		}
	}
	if ended {
		g.endSession(s)
	}
	if err := g.announce(ctx, s, nil, filters); err != nil {
		g.log.Warn("other nodes were not told of the end of subscriptions", "clientId", s.clientID, "err", err)
	}
	if s.stored() && ours {
		g.sessionChanged(ctx, s.clientID)
	}
	if publish {
		m := *c.will.message
		m.Received, m.Source = g.now(), c.source()
		var extra store.Func
		if c.leased {
			extra = func(ctx context.Context, tx store.Tx) error {
				return g.sessions.ClearWill(ctx, tx, s.clientID, c.epoch)
			}
		}
		g.publishWill(&m, extra)
	}
	g.recent.left(c, why, g.now())
	if why.record != "" {
		c.deny(Denial{Action: why.record, Reason: why.detail, Code: why.code})
	}
	g.connected.Add(-1)
	g.calendar.remove(c)
	c.mu.Lock()
	greeted := c.greeted
	if !greeted {
		c.leaving = why
	}
	c.mu.Unlock()
	if greeted {
		g.depart(c, why)
	}
}

// greet publishes that the client has connected, before anybody hears of its end.
func (g *Gateway) greet(c *Connection) {
	g.presence(c, "connected", nil)
	c.mu.Lock()
	c.greeted = true
	why := c.leaving
	c.mu.Unlock()
	if why != nil {
		g.depart(c, why)
	}
}

// depart is the last step of a connection's end: who waits for that announces what comes after it.
func (g *Gateway) depart(c *Connection, why *cause) {
	g.presence(c, "disconnected", why)
	c.mu.Lock()
	c.ended = true
	gone := c.gone
	c.mu.Unlock()
	if gone != nil {
		close(gone)
	}
	g.registry.left(c)
}

// willOf tells whether the will is to be published now, or when.
func (g *Gateway) willOf(c *Connection, why *cause) (now bool, later time.Time) {
	if c.will == nil || why.keepsWill {
		return false, time.Time{}
	}
	if d := c.auth.Authorize("iot:Publish", g.topicARN(c.will.message.Topic)); !d.Allowed() {
		c.denied("iot:Publish", c.will.message.Topic, d)
		return false, time.Time{}
	}
	if c.will.message.Retain {
		if d := c.auth.Authorize("iot:RetainPublish", g.topicARN(c.will.message.Topic)); !d.Allowed() {
			c.denied("iot:RetainPublish", c.will.message.Topic, d)
			return false, time.Time{}
		}
	}
	delay := c.will.delay
	expiry := c.session.expiry
	if c.expiry != nil {
		expiry = *c.expiry
	}
	if delay == 0 || !c.session.stored() || expiry == 0 || why.wipe {
		return true, time.Time{}
	}
	return false, g.now().Add(min(delay, time.Duration(expiry)*time.Second)) // [MQTT-3.1.3-9]
}

func (g *Gateway) disconnected(ctx context.Context, c *Connection, why *cause, now bool, later time.Time) (sessionstore.Disconnected, error) {
	d := sessionstore.Disconnection{ClientID: c.session.clientID, Epoch: c.epoch, ExpirySeconds: c.expiry, End: why.wipe, WillDue: later}
	if d.ExpirySeconds != nil {
		*d.ExpirySeconds = min(*d.ExpirySeconds, uint32(g.cfg.SessionExpiry/time.Second))
	}
	if now {
		d.WillDue = g.now().Add(10 * time.Second) // should this process die before the publish below
	}
	c.session.mu.Lock()
	if c.expiry != nil {
		c.session.expiry = *c.expiry
	}
	if c.session.row != nil {
		row := *c.session.row
		row.Node = ""
		c.session.row = &row
	}
	c.session.mu.Unlock()
	return g.sessions.Disconnect(ctx, d)
}

func (g *Gateway) publishWill(m *mqtt.Message, extra store.Func) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if err := g.publish(ctx, m, extra); err != nil {
		g.log.Error("a will can't be published", "clientId", m.Source.ClientID, "topic", m.Topic, "err", err)
	}
}

// filters are those that the session subscribes to.
func (s *session) filters() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.subs) == 0 {
		return nil
	}
	out := make([]string, len(s.subs))
	for i, sub := range s.subs {
		out[i] = sub.filter
	}
	return out
}
