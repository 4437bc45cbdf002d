package gateway

import (
	"context"
	"errors"

	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
)

// onSubscribe serves a SUBSCRIBE (par. 3.8) on a worker.
func (c *Connection) onSubscribe(t *turn, body []byte) verdict {
	var p mqtt.Subscribe
	if err := p.Parse(c.version, body); err != nil {
		return c.fail(err)
	}
	if len(p.Properties.SubscriptionIDs) > 0 {
		return c.endWith(mqtt.SubscriptionIDsNotSupported, reasonClientError, "subscription identifiers are not supported")
	}
	codes := make([]mqtt.ReasonCode, len(p.Subscriptions))
	var add []sessionstore.Subscription
	places := make([]int, 0, len(p.Subscriptions))
	tooMany := len(p.Subscriptions) > c.g.limits.FiltersPerSubscribe
	c.session.mu.Lock()
	have := len(c.session.subs)
	c.session.mu.Unlock()
	for i := range p.Subscriptions {
		in := &p.Subscriptions[i]
		switch codes[i] = c.maySubscribe(in); {
		case codes[i].Failed():
		case tooMany:
			codes[i] = mqtt.QuotaExceeded
		case c.g.limits.Subscriptions > 0 && have+len(add) >= c.g.limits.Subscriptions:
			codes[i] = mqtt.QuotaExceeded
		default:
			codes[i] = mqtt.ReasonCode(min(in.QoS, 1))
			add = append(add, sessionstore.Subscription{
				Filter: in.Filter, QoS: min(in.QoS, 1), NoLocal: in.NoLocal, RetainAsPublished: in.RetainAsPublished, RetainHandling: in.RetainHandling,
			})
			places = append(places, i)
		}
	}
	fresh, err := c.subscribe(add)
	if err != nil {
		c.g.log.Error("subscriptions can't be stored", "clientId", c.session.clientID, "err", err)
		for _, i := range places {
			codes[i] = mqtt.UnspecifiedError
		}
		add = nil
	}
	c.send(t, &mqtt.Suback{PacketID: p.PacketID, Codes: codes})
	t.flush()
	for i := range add {
		c.sendRetained(t, &add[i], fresh[i])
	}
	c.subscriptionEvent("subscribed", filtersOf(add))
	return goOn
}

func filtersOf(subs []sessionstore.Subscription) []string {
	out := make([]string, len(subs))
	for i := range subs {
		out[i] = subs[i].Filter
	}
	return out
}

// maySubscribe decides about a filter; its code is a failure or Success.
func (c *Connection) maySubscribe(in *mqtt.Subscription) mqtt.ReasonCode {
	if err := mqtt.ValidTopicFilter(in.Filter); err != nil {
		c.deny(Denial{Action: "iot:Subscribe", Resource: in.Filter, Reason: err.Error(), Code: mqtt.TopicFilterInvalid})
		return mqtt.TopicFilterInvalid
	}
	if !mqtt.MaySubscribe(in.Filter) {
		c.deny(Denial{Action: "iot:Subscribe", Resource: in.Filter, Reason: "the topics are the service's own", Code: mqtt.NotAuthorized})
		return mqtt.NotAuthorized
	}
	_, filter, _ := mqtt.Share(in.Filter)
	d := c.auth.Authorize("iot:Subscribe", c.g.account.ARN("iot", "topicfilter/"+filter))
	if !d.Allowed() {
		c.denied("iot:Subscribe", in.Filter, d)
		return mqtt.NotAuthorized
	}
	return mqtt.Success
}

// subscribe stores subscriptions, puts them into effect here and on other nodes, and
// tells for each whether its filter is new.
func (c *Connection) subscribe(add []sessionstore.Subscription) (fresh []bool, err error) {
	if len(add) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	s := c.session
	stored := add
	if s.stored() {
		s.mu.Lock()
		row := s.row
		s.mu.Unlock()
		if stored, err = c.g.sessions.Subscribe(ctx, row, add); err != nil {
			return nil, err
		}
	}
	var news []string
	for i := range stored {
		in := &stored[i]
		sub := &subscription{session: s, filter: in.Filter, qos: in.QoS, noLocal: in.NoLocal, asPublished: in.RetainAsPublished, share: in.Group}
		ok, isNew := c.g.subscribe(s, sub)
		if !ok {
			return nil, errors.New("gateway: the session has ended")
		}
		fresh = append(fresh, isNew)
		if isNew {
			news = append(news, in.Filter)
		}
	}
	if s.stored() {
		c.g.sessionChanged(ctx, s.clientID)
	}
	return fresh, c.g.announce(ctx, s, news, nil)
}

// sendRetained sends the retained message of a new subscription: AWS does so for filters without
// wildcards that are not shared.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/mqtt.html#mqtt-retain
func (c *Connection) sendRetained(t *turn, in *sessionstore.Subscription, fresh bool) {
	_, _, shared := mqtt.Share(in.Filter)
	if shared || mqtt.HasWildcard(in.Filter) || in.RetainHandling == 2 || in.RetainHandling == 1 && !fresh {
		return
	}
	if (c.g.mesh == nil || c.g.mesh.Alone()) && c.g.sessions.RetainedMessages() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	r, err := c.g.sessions.Retained(ctx, in.Filter)
	if err != nil {
		if !errors.Is(err, sessionstore.ErrNotFound) {
			c.g.log.Error("a retained message can't be read", "clientId", c.session.clientID, "topic", in.Filter, "err", err)
		}
		return
	}
	out := fromMessage(r.Message)
	out.retained = true
	t.enc = t.enc[:0]
	tg := target{session: c.session, sub: &subscription{session: c.session, filter: in.Filter, qos: in.QoS}}
	c.g.deliverTo(t, &tg, &out, 0)
	t.flush()
}

// onUnsubscribe serves an UNSUBSCRIBE (par. 3.10) on a worker.
func (c *Connection) onUnsubscribe(t *turn, body []byte) verdict {
	var p mqtt.Unsubscribe
	if err := p.Parse(c.version, body); err != nil {
		return c.fail(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	codes := make([]mqtt.ReasonCode, len(p.Filters))
	s := c.session
	if s.stored() {
		s.mu.Lock()
		row := s.row
		s.mu.Unlock()
		if _, err := c.g.sessions.Unsubscribe(ctx, row, p.Filters); err != nil {
			c.g.log.Error("subscriptions can't be removed", "clientId", s.clientID, "err", err)
			return c.endWith(mqtt.UnspecifiedError, reasonServerError, "the store failed")
		}
	}
	var had []string
	for i, f := range p.Filters {
		switch {
		case mqtt.ValidTopicFilter(f) != nil:
			codes[i] = mqtt.TopicFilterInvalid
		case c.g.unsubscribe(s, f):
			had = append(had, f)
		default:
			codes[i] = mqtt.NoSubscriptionExisted
		}
	}
	if s.stored() {
		c.g.sessionChanged(ctx, s.clientID)
	}
	if err := c.g.announce(ctx, s, nil, had); err != nil {
		c.g.log.Warn("other nodes were not told of the end of subscriptions", "clientId", s.clientID, "err", err)
	}
	c.send(t, &mqtt.Unsuback{PacketID: p.PacketID, Codes: codes})
	t.flush()
	c.subscriptionEvent("unsubscribed", had)
	return goOn
}
