package gateway

import (
	"context"

	"flotilla/internal/aws"
	"flotilla/internal/aws/flotilla"
)

// ExplainClient tells what was refused to a client id on this node, and why: the last
// refusals of connects, publishes and subscribes, the oldest first.
func (g *Gateway) ExplainClient(_ context.Context, in *flotilla.ExplainClientRequest) (*flotilla.ExplainClientResponse, error) {
	s := g.registry.get(in.ClientId)
	out := &flotilla.ExplainClientResponse{
		ClientId: &in.ClientId, NodeId: &g.cfg.NodeID, Connected: new(s != nil && s.conn.Load() != nil),
	}
	for _, n := range g.Denials(in.ClientId) {
		r := &flotilla.ClientRefusal{
			Time: &aws.Time{Time: n.Time.UTC()}, Action: &n.Action, Reason: &n.Reason, ReasonCode: new(int32(n.Code)),
		}
		if n.Resource != "" {
			r.Resource = &n.Resource
		}
		if n.Principal != "" {
			r.Principal = &n.Principal
		}
		if n.Policy != "" {
			r.PolicyName, r.Statement = &n.Policy, new(int32(n.Statement))
		}
		out.Refusals = append(out.Refusals, r)
	}
	return out, nil
}
