package gateway

import (
	"context"
	"slices"
	"strings"
	"time"

	"flotilla/internal/aws/iotdata"
	"flotilla/internal/mqtt"
)

// Operations about connections serve clients of all nodes: the node that is asked answers from its own memory when
// it can, and asks the others otherwise. Where nobody knows the client, but a node does not answer, nothing is
// said instead of something that may be wrong.

// disconnection is what a node answers to askDisconnect.
type disconnection struct {
	Ended bool `json:"ended"` // it had the connection, which is gone
}

// DeleteConnection ends a client's connection, on whichever node it is, and returns once it is gone.
// Errors: ResourceNotFoundException, ServiceUnavailableException.
func (d *DataPlane) DeleteConnection(ctx context.Context, in *iotdata.DeleteConnectionRequest) (*iotdata.DeleteConnectionResponse, error) {
	q := &question{Op: askDisconnect, ClientID: in.ClientId, KeepsWill: value(in.PreventWillMessage), Wipe: value(in.CleanSession)}
	here, err := d.g.disconnectHere(ctx, q)
	if err != nil {
		return nil, err
	}
	if here.Ended {
		return &iotdata.DeleteConnectionResponse{}, nil
	}
	answers, silent := askAll[disconnection](ctx, d.g, q)
	for _, a := range answers {
		if a.answer.Ended {
			return &iotdata.DeleteConnectionResponse{}, nil
		}
	}
	if len(silent) > 0 {
		return nil, unanswered(silent)
	}
	return nil, &iotdata.ResourceNotFoundException{Message: "The client is not connected."}
}

// disconnectHere ends the client's connection to this node, if there is one, and returns once it is gone.
func (g *Gateway) disconnectHere(ctx context.Context, q *question) (*disconnection, error) {
	c := g.registry.connection(q.ClientID)
	if c == nil {
		return &disconnection{}, nil
	}
	c.end(&cause{
		code: mqtt.AdministrativeAction, send: true, reason: reasonAPI, detail: "DeleteConnection",
		keepsWill: q.KeepsWill, wipe: q.Wipe,
	})
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := c.waitGone(ctx); err != nil {
		return nil, err
	}
	return &disconnection{Ended: true}, nil
}

// connection is the client's, to this node; nil for none.
func (r *registry) connection(clientID string) *Connection {
	if s := r.get(clientID); s != nil {
		return s.conn.Load()
	}
	return nil
}

// disconnectedFor is how long a connection is known after its end.
const disconnectedFor = 30 * time.Minute

// connectionState is what a node knows of a client's connection to it, or of the last one.
type connectionState struct {
	Known     bool  `json:"known"`
	Connected bool  `json:"connected"`
	Epoch     int64 `json:"epoch"`
	Since     int64 `json:"since"` // ms, as Ended
	Ended     int64 `json:"ended"`

	Clean         bool   `json:"clean"`
	KeepAlive     int32  `json:"keepAlive"`
	SourceIP      string `json:"sourceIp"`
	SourcePort    int32  `json:"sourcePort"`
	Reason        string `json:"reason"`
	SessionExpiry *int64 `json:"sessionExpiry"` // of a stored session; nil none
}

// newer tells whether s says more about the client than o: it is connected, or was so last.
func (s *connectionState) newer(o *connectionState) bool {
	switch {
	case s.Known != o.Known:
		return s.Known
	case s.Connected != o.Connected:
		return s.Connected
	case s.Connected:
		return s.Epoch > o.Epoch
	}
	return s.Ended > o.Ended
}

// connectionHere is what this node knows.
func (g *Gateway) connectionHere(clientID string) *connectionState {
	out := &connectionState{}
	facts := func(f connectionFacts) {
		out.Known, out.Clean, out.KeepAlive, out.Since = true, f.clean, int32(f.keepAlive), f.since.UnixMilli()
		out.SourceIP, out.SourcePort = f.sourceIP, int32(f.port)
	}
	if s := g.registry.get(clientID); s != nil {
		s.mu.Lock()
		if s.stored() {
			out.SessionExpiry = new(int64(s.expiry))
		}
		s.mu.Unlock()
		if c := s.conn.Load(); c != nil {
			out.Connected, out.Epoch = true, c.epoch
			facts(connectionFacts{c.keepAlive, c.clean, c.addr.Addr().String(), c.addr.Port(), c.started})
			return out
		}
	}
	if l, ok := g.recent.seen(clientID); ok && g.now().Sub(l.ended) < disconnectedFor {
		out.Epoch, out.Ended, out.Reason = l.epoch, l.ended.UnixMilli(), l.reason
		facts(l.last)
	}
	return out
}

// GetConnection describes a client's connection, on whichever node it is, or one that ended in the last half hour.
// Errors: ResourceNotFoundException, ServiceUnavailableException.
func (d *DataPlane) GetConnection(ctx context.Context, in *iotdata.GetConnectionRequest) (*iotdata.GetConnectionResponse, error) {
	state := d.g.connectionHere(in.ClientId)
	if !state.Connected {
		answers, silent := askAll[connectionState](ctx, d.g, &question{Op: askConnection, ClientID: in.ClientId})
		for _, a := range answers {
			if a.answer.newer(state) {
				state = a.answer
			}
		}
		if !state.Connected && len(silent) > 0 {
			return nil, unanswered(silent)
		}
	}
	if !state.Known {
		return nil, &iotdata.ResourceNotFoundException{Message: "The client is not known."}
	}
	out := &iotdata.GetConnectionResponse{
		ClientId: new(in.ClientId), Connected: new(state.Connected), CleanSession: new(state.Clean), KeepAliveDuration: new(state.KeepAlive),
		ConnectedSince: new(state.Since), SessionExpiry: state.SessionExpiry,
	}
	if !state.Connected {
		out.DisconnectedSince, out.DisconnectReason = new(state.Ended), new(state.Reason)
	}
	if value(in.IncludeSocketInformation) {
		out.SourceIp, out.SourcePort = new(state.SourceIP), new(state.SourcePort)
	}
	return out, nil
}

const (
	maxSubscriptionsPage = 200
	// maxSubscriptionsBytes of filters make a page, which has one at least.
	maxSubscriptionsBytes = 64 << 10
)

// subscriptionPage is a part of a session's filters, in their order.
type subscriptionPage struct {
	Known         bool                          `json:"known"` // there is a session
	Subscriptions []iotdata.SubscriptionSummary `json:"subscriptions"`
	More          bool                          `json:"more"`
}

// subscriptionsHere is the page of filters behind after, of a session that this node knows.
func (g *Gateway) subscriptionsHere(clientID, after string, limit int) *subscriptionPage {
	out := &subscriptionPage{}
	s := g.registry.get(clientID)
	if s == nil {
		return out
	}
	s.mu.Lock()
	subs := slices.Clone(s.subs)
	out.Known = !s.ended
	s.mu.Unlock()
	slices.SortFunc(subs, func(a, b *subscription) int { return strings.Compare(a.filter, b.filter) })
	limit = min(max(limit, 1), maxSubscriptionsPage)
	size := 0
	for _, sub := range subs {
		if sub.filter <= after {
			continue
		}
		if n := len(out.Subscriptions); n == limit || n > 0 && size+len(sub.filter) > maxSubscriptionsBytes {
			out.More = true
			break
		}
		size += len(sub.filter)
		out.Subscriptions = append(out.Subscriptions, iotdata.SubscriptionSummary{TopicFilter: sub.filter, Qos: int32(sub.qos)})
	}
	return out
}

// ListSubscriptions gives the filters of a client's session, in their order, on whichever node it is connected.
// Errors: ResourceNotFoundException, ServiceUnavailableException.
func (d *DataPlane) ListSubscriptions(ctx context.Context, in *iotdata.ListSubscriptionsRequest) (*iotdata.ListSubscriptionsResponse, error) {
	after, err := fromToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := pageLimit(in.MaxResults, maxSubscriptionsPage)
	page := d.g.subscriptionsHere(in.ClientId, after, limit) // stored sessions are known on all nodes
	if !page.Known {
		q := &question{Op: askSubscriptions, ClientID: in.ClientId, After: after, Limit: limit}
		answers, silent := askAll[subscriptionPage](ctx, d.g, q)
		for _, a := range answers {
			if a.answer.Known {
				page = a.answer
			}
		}
		if !page.Known && len(silent) > 0 {
			return nil, unanswered(silent)
		}
	}
	if !page.Known {
		return nil, &iotdata.ResourceNotFoundException{Message: "The client has no session."}
	}
	out := &iotdata.ListSubscriptionsResponse{Subscriptions: make([]*iotdata.SubscriptionSummary, 0, len(page.Subscriptions))}
	for i := range page.Subscriptions {
		out.Subscriptions = append(out.Subscriptions, &page.Subscriptions[i])
	}
	if n := len(page.Subscriptions); page.More && n > 0 {
		out.NextToken = toToken(page.Subscriptions[n-1].TopicFilter)
	}
	return out, nil
}
