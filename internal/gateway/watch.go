package gateway

import (
	"context"
	"time"

	"flotilla/internal/mqtt"
)

// watch has connections follow changes of certificates, policies, things and domain configurations: whatever let them
// in is asked again, for all connections that it may have moved for.
type watch struct {
	g    *Gateway
	wake chan struct{} // holds one: something changed
}

const (
	// settleTime gathers changes that come together into one round.
	settleTime = 50 * time.Millisecond
	// Rounds take at most an eleventh of a core while things change all the time: who holds very many connections
	// waits for the next one ten times as long as the last took, but not longer than maxSettle, since connections
	// follow changes within a second. What a connection does meanwhile is decided on what holds then; the rounds end
	// those that do nothing.
	restShare = 10
	maxSettle = 500 * time.Millisecond
)

func (w *watch) init(g *Gateway) { w.g, w.wake = g, make(chan struct{}, 1) }

// poke has all connections looked at soon.
func (w *watch) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watch) start(ctx context.Context) {
	if w.g.bus != nil {
		for _, kind := range []string{"certificate", "policy", "principal", "thing", "accesskey", "identity", "domain"} {
			w.g.bus.OnChange(kind, func(string) { w.poke() })
		}
	}
	w.g.background.Go(func() { w.run(ctx) })
}

func (w *watch) run(ctx context.Context) {
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	var took time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		timer.Reset(min(max(settleTime, restShare*took), maxSettle))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		closed := w.closedDomains()
		for _, c := range w.g.registry.connections() {
			if ctx.Err() != nil {
				return
			}
			if closed(c.domain) {
				w.endDomain(c)
			} else {
				w.check(c)
			}
		}
		took = time.Since(began)
	}
}

// closedDomains gives a function that tells whether a domain configuration is DISABLED or gone; it asks once for each.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-custom-endpoints-managing.html
func (w *watch) closedDomains() func(name string) bool {
	known := map[string]bool{"": false}
	return func(name string) bool {
		closed, ok := known[name]
		if ok || w.g.domains == nil {
			return closed
		}
		enabled, err := w.g.domains.Enabled(name)
		if err != nil {
			w.g.log.Error("domain configurations can't be read", "op", "watch", "err", err)
		}
		known[name] = err == nil && !enabled
		return known[name]
	}
}

// look ends a connection that may no longer be.
func (w *watch) look(c *Connection) {
	if w.closedDomains()(c.domain) {
		w.endDomain(c)
		return
	}
	w.check(c)
}

// endDomain ends a connection with an authentication error, as AWS says.
func (w *watch) endDomain(c *Connection) {
	c.end(&cause{
		code: mqtt.NotAuthorized, send: true, reason: reasonAuthError, record: "iot:Connect",
		detail: "the domain configuration " + c.domain + " is no longer ENABLED",
	})
}

// check asks again for iot:Connect.
func (w *watch) check(c *Connection) {
	if c.signed && !w.holdsKey(c) {
		return
	}
	if c.now != nil {
		if epoch, ok := c.now.Epoch(); ok && epoch == c.connectEpoch.Load() {
			return
		}
	}
	epoch := uint64(0)
	if c.now != nil {
		epoch, _ = c.now.Epoch() // before the decision: what changes during it is looked at again
	}
	d := c.mayConnect(c.session.clientID)
	if d.Allowed() {
		c.connectEpoch.Store(epoch)
		return
	}
	c.denied("iot:Connect", "", d)
	c.end(&cause{code: mqtt.NotAuthorized, send: true, reason: reasonForbidden, detail: "iot:Connect is no longer allowed"})
}

// holdsKey ends a connection whose access key may no longer be used, and tells whether it goes on.
func (w *watch) holdsKey(c *Connection) bool {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	good, err := w.g.signatures.Holds(ctx, c.who)
	switch {
	case err != nil:
		w.g.log.Error("an access key can't be checked", "principal", c.who.ID, "err", err)
	case !good:
		const reason = "the access key is no longer active"
		c.deny(Denial{Action: "iot:Connect", Reason: reason, Code: mqtt.NotAuthorized})
		c.end(&cause{code: mqtt.NotAuthorized, send: true, reason: reasonForbidden, detail: reason})
	}
	return err != nil || good
}
