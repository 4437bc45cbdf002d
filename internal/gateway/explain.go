package gateway

import (
	"context"
	"slices"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/flotilla"
)

// maxRefusals are shown of a client, the last ones.
const maxRefusals = 100

// refusals is what one node knows of a client.
type refusals struct {
	Connected bool      `json:"connected"`
	Epoch     int64     `json:"epoch"` // of the connection
	Denials   []refused `json:"denials"`
}

// refused is a Denial on its way between nodes.
type refused struct {
	Time      time.Time `json:"time"`
	Action    string    `json:"action"`
	Resource  string    `json:"resource,omitempty"`
	Principal string    `json:"principal,omitempty"`
	Reason    string    `json:"reason"`
	Policy    string    `json:"policy,omitempty"`
	Statement int32     `json:"statement,omitempty"`
	Code      int32     `json:"code"`
}

// refusalsHere is what this node knows.
func (g *Gateway) refusalsHere(clientID string) *refusals {
	out := &refusals{}
	if c := g.registry.connection(clientID); c != nil {
		out.Connected, out.Epoch = true, c.epoch
	}
	for _, n := range g.Denials(clientID) {
		out.Denials = append(out.Denials, refused{n.Time, n.Action, n.Resource, n.Principal, n.Reason, n.Policy, int32(n.Statement), int32(n.Code)})
	}
	return out
}

// ExplainClient tells what was refused to a client id on any node, and why: the last
// refusals of connects, publishes and subscribes, the oldest first, each with its node. Nodes that do not answer in
// time are named: what they refused is missing.
func (g *Gateway) ExplainClient(ctx context.Context, in *flotilla.ExplainClientRequest) (*flotilla.ExplainClientResponse, error) {
	out := &flotilla.ExplainClientResponse{ClientId: &in.ClientId, NodeId: &g.cfg.NodeID, Connected: new(false)}
	epoch := int64(-1)
	add := func(node string, r *refusals) {
		if r.Connected && r.Epoch > epoch {
			out.Connected, out.ConnectedTo, epoch = new(true), &node, r.Epoch
		}
		for i := range r.Denials {
			out.Refusals = append(out.Refusals, r.Denials[i].shown(node))
		}
	}
	add(g.cfg.NodeID, g.refusalsHere(in.ClientId))
	answers, silent := askAll[refusals](ctx, g, &question{Op: askRefusals, ClientID: in.ClientId})
	for _, a := range answers {
		add(a.peer.ID(), a.answer)
	}
	out.UnansweredNodes = silent
	slices.SortStableFunc(out.Refusals, func(a, b *flotilla.ClientRefusal) int { return a.Time.Compare(b.Time.Time) })
	if n := len(out.Refusals) - maxRefusals; n > 0 {
		out.Refusals = out.Refusals[n:]
	}
	return out, nil
}

// shown is a refusal as operators get it.
func (n *refused) shown(node string) *flotilla.ClientRefusal {
	r := &flotilla.ClientRefusal{
		Time: &aws.Time{Time: n.Time.UTC()}, Action: &n.Action, Reason: &n.Reason, ReasonCode: &n.Code, NodeId: &node,
	}
	if n.Resource != "" {
		r.Resource = &n.Resource
	}
	if n.Principal != "" {
		r.Principal = &n.Principal
	}
	if n.Policy != "" {
		r.PolicyName, r.Statement = &n.Policy, &n.Statement
	}
	return r
}
