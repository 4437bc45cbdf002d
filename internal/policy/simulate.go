package policy

import (
	"context"
	"errors"
	"slices"
	"strings"

	"flotilla/internal/aws/flotilla"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
)

// SimulatePolicy decides questions as they would be decided for a connection that need not be there, and says why.
// A principal, a thing, policies by name and documents can be given together: all govern. A document given under the
// name of a stored policy stands in its place, so that a new version can be tried before it is made.
func (p *Policies) SimulatePolicy(ctx context.Context, in *flotilla.SimulatePolicyRequest) (*flotilla.SimulatePolicyResponse, error) {
	conn, err := p.simulated(in)
	if err != nil {
		return nil, err
	}
	var s subject
	switch {
	case in.Principal != nil:
		principal := *in.Principal
		if !strings.Contains(principal, ":") {
			principal = p.account.ARN("iot", certificateTarget+principal)
		}
		s, err = p.subjectOf(ctx, principal, conn)
	case in.ThingName != nil:
		s, err = p.subjectThing(ctx, *in.ThingName, conn)
	}
	if err != nil {
		return nil, err
	}
	set, versions, names, err := p.simulatedSet(ctx, in, s)
	if err != nil {
		return nil, err
	}
	out := &flotilla.SimulatePolicyResponse{Policies: names}
	for _, q := range in.Questions {
		resource := lang.ResourceARN(p.account.ARN("iot", ""), q.Action, q.Resource)
		r := Simulation(set.Explain(conn, q.Action, resource), versions)
		r.Action, r.Resource = &q.Action, &resource
		if s.inactive {
			r.Hint = new(strings.TrimSpace("The certificate may not act now, so everything is refused to it. " + text(r.Hint)))
		}
		out.Results = append(out.Results, r)
	}
	return out, nil
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// simulated is the connection that a request describes.
func (p *Policies) simulated(in *flotilla.SimulatePolicyRequest) (*lang.Connection, error) {
	c := &lang.Connection{
		Protocol: "mqtt", ClientID: text(in.ClientId), SourceIP: text(in.SourceIp), DomainName: text(in.DomainName),
		ConnectAttributes: in.ConnectAttributes, Time: p.now(),
	}
	switch protocol := text(in.Protocol); protocol {
	case "", "mqtt":
	case "https", "http":
		c.Protocol = protocol
	default:
		return nil, &flotilla.InvalidRequestException{Message: "protocol is mqtt or https"}
	}
	if c.ClientID == "" && in.ThingName != nil {
		c.ClientID = *in.ThingName
	}
	if in.Time != nil {
		c.Time = in.Time.Time
	}
	return c, nil
}

// subjectThing asks for a thing as if it were attached to the principal: the policies of its groups govern.
func (p *Policies) subjectThing(ctx context.Context, name string, conn *lang.Connection) (s subject, err error) {
	if conn.Thing, err = p.things.PolicyThing(ctx, name, ""); err != nil {
		return s, err
	}
	if conn.Thing == nil {
		return s, &flotilla.ResourceNotFoundException{Message: "Thing " + name + " was not found."}
	}
	conn.Thing.Attached = true
	groups, err := p.groupsOfThing(ctx, name)
	if err != nil {
		return s, err
	}
	s.names, err = p.attachedTo(ctx, groups)
	return s, err
}

// simulatedSet compiles the policies that govern, and tells their versions and names.
func (p *Policies) simulatedSet(ctx context.Context, in *flotilla.SimulatePolicyRequest, s subject) (*lang.Set, map[string]string, []string, error) {
	if s.claim != "" {
		return claimSet(p.account, s.claim), nil, nil, nil
	}
	var named []lang.Named
	versions := map[string]string{}
	given := map[string]bool{}
	for _, g := range in.Policies {
		if err := lang.Validate(g.PolicyDocument); err != nil {
			return nil, nil, nil, &flotilla.InvalidRequestException{Message: g.PolicyName + ": " + err.Error()}
		}
		d, err := lang.Parse(g.PolicyDocument)
		if err != nil {
			return nil, nil, nil, err
		}
		named = append(named, lang.Named{Name: g.PolicyName, Document: d})
		given[g.PolicyName] = true
	}
	names := append(s.names, in.PolicyNames...)
	names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(in.PolicyNamesToSkip, n) || given[n] })
	slices.Sort(names)
	names = slices.Compact(names)
	documents := named
	err := p.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		named = documents[:len(documents):len(documents)]
		for _, n := range names {
			v, err := selectDefault(tx, n)
			if errors.Is(err, store.ErrNotFound) {
				return &flotilla.ResourceNotFoundException{Message: "Policy " + n + " was not found."}
			}
			if err != nil {
				return err
			}
			d, err := lang.Parse(v.document)
			if err != nil {
				return err
			}
			named = append(named, lang.Named{Name: n, Document: d})
			versions[n] = *versionID(v.version)
		}
		return nil
	})
	all := make([]string, len(named))
	for i, n := range named {
		all[i] = n.Name
	}
	return lang.Compile(named...), versions, all, err
}

// Simulation writes an explanation in the shape of the operator's API. versions has the version ids of policies that
// are stored, by name.
func Simulation(e lang.Explanation, versions map[string]string) *flotilla.Simulation {
	out := &flotilla.Simulation{Decision: new(e.Decision.Effect.String()), Hint: optional(e.Hint), Needed: optional(e.Needed)}
	if e.Decision.Policy != "" {
		out.PolicyName, out.Statement = &e.Decision.Policy, new(int32(e.Decision.Statement))
		out.Sid, out.PolicyVersionId = optional(e.Decision.Sid), optional(versions[e.Decision.Policy])
	}
	for _, v := range e.Variables {
		out.Variables = append(out.Variables, &flotilla.SimulationVariable{Name: &v.Name, Values: v.Values})
	}
	for _, s := range e.Considered {
		effect := "Allow"
		if s.Deny {
			effect = "Deny"
		}
		out.Considered = append(out.Considered, &flotilla.SimulationStatement{
			PolicyName: &s.Policy, PolicyVersionId: optional(versions[s.Policy]), Statement: new(int32(s.Statement)), Sid: optional(s.Sid),
			Effect: &effect, Applies: &s.Applies, Reason: optional(s.Reason),
		})
	}
	return out
}
