package policy

import (
	"context"
	"maps"
	"slices"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
)

// GetEffectivePolicies lists the policies that govern a principal, a thing, or the two together: those attached to
// the principal, and those of the thing's groups and their parents.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetEffectivePolicies.html
func (p *Policies) GetEffectivePolicies(ctx context.Context, in *iot.GetEffectivePoliciesRequest) (*iot.GetEffectivePoliciesResponse, error) {
	if in.CognitoIdentityPoolId != nil {
		return nil, &iot.InvalidRequestException{Message: "cognitoIdentityPoolId is not supported"}
	}
	if in.Principal == nil && in.ThingName == nil {
		return nil, &iot.InvalidRequestException{Message: "A principal or a thing name is required"}
	}
	var targets []string
	if in.Principal != nil {
		list, err := p.targetsOf(ctx, *in.Principal, in.ThingName == nil)
		if err != nil {
			return nil, err
		}
		targets = list
	}
	if in.ThingName != nil {
		groups, err := p.groupsOfThing(ctx, *in.ThingName)
		if err != nil {
			return nil, err
		}
		targets = append(targets, groups...)
	}
	names, err := p.attachedTo(ctx, targets)
	if err != nil {
		return nil, err
	}
	out := &iot.GetEffectivePoliciesResponse{}
	for _, n := range names {
		text, err := p.defaultDocument(ctx, n)
		if err != nil {
			return nil, err
		}
		out.EffectivePolicies = append(out.EffectivePolicies, &iot.EffectivePolicy{PolicyName: &n, PolicyArn: new(p.arn(n)), PolicyDocument: &text})
	}
	return out, nil
}

// targetsOf gives the ARNs whose policies govern a principal: a certificate and, with groups, the groups of its things;
// or a thing group and its parents.
func (p *Policies) targetsOf(ctx context.Context, principal string, groups bool) ([]string, error) {
	if _, err := p.target(ctx, principal); err != nil {
		return nil, err
	}
	if group, ok := strings.CutPrefix(principal, p.account.ARN("iot", groupTarget)); ok {
		parents, err := p.parents(ctx, group)
		return append(parents, principal), err
	}
	if !groups {
		return []string{principal}, nil
	}
	list, err := p.things.ThingGroupsOfPrincipal(ctx, principal)
	return append(list, principal), err
}

// groupsOfThing gives the ARNs of the groups that a thing is in, and of their parents.
func (p *Policies) groupsOfThing(ctx context.Context, thing string) (arns []string, err error) {
	var next *string
	for {
		page, err := p.groups.ListThingGroupsForThing(ctx, &iot.ListThingGroupsForThingRequest{ThingName: thing, NextToken: next})
		if err != nil {
			return nil, err
		}
		for _, g := range page.ThingGroups {
			if g.GroupArn == nil || g.GroupName == nil {
				continue
			}
			parents, err := p.parents(ctx, *g.GroupName)
			if err != nil {
				return nil, err
			}
			arns = append(append(arns, *g.GroupArn), parents...)
		}
		if next = page.NextToken; next == nil {
			slices.Sort(arns)
			return slices.Compact(arns), nil
		}
	}
}

// actionsOf maps ActionType to the policy action and the resource kind, for resources given without an ARN.
var actionsOf = map[string]string{
	iot.ActionTypeConnect: "iot:Connect", iot.ActionTypePublish: "iot:Publish",
	iot.ActionTypeSubscribe: "iot:Subscribe", iot.ActionTypeReceive: "iot:Receive",
}

// TestAuthorization tells for each action and its resources what the policies of the principal, a certificate or a
// thing group, would decide, with policies added or left out. An AuthInfo with several resources is allowed when all of them are.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_TestAuthorization.html
func (p *Policies) TestAuthorization(ctx context.Context, in *iot.TestAuthorizationRequest) (*iot.TestAuthorizationResponse, error) {
	if in.CognitoIdentityPoolId != nil {
		return nil, &iot.InvalidRequestException{Message: "cognitoIdentityPoolId is not supported"}
	}
	conn := &lang.Connection{Protocol: "mqtt", Time: p.now()}
	if in.ClientId != nil {
		conn.ClientID = *in.ClientId
	}
	var names []string
	if in.Principal != nil {
		s, err := p.subjectOf(ctx, *in.Principal, conn)
		if err != nil {
			return nil, err
		}
		names = s.names
	}
	names = append(names, in.PolicyNamesToAdd...)
	names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(in.PolicyNamesToSkip, n) })
	slices.Sort(names)
	names = slices.Compact(names)
	sets := make([]*lang.Set, len(names))
	for i, n := range names {
		text, err := p.defaultDocument(ctx, n)
		if err != nil {
			return nil, err
		}
		if text == "" {
			return nil, noPolicy(store.ErrNotFound, n)
		}
		if sets[i], err = p.set(ctx, []string{n}); err != nil {
			return nil, err
		}
	}
	out := &iot.TestAuthorizationResponse{}
	for _, info := range in.AuthInfos {
		r, err := p.test(conn, info, names, sets)
		if err != nil {
			return nil, err
		}
		out.AuthResults = append(out.AuthResults, r)
	}
	return out, nil
}

func (p *Policies) test(conn *lang.Connection, info *iot.AuthInfo, names []string, sets []*lang.Set) (*iot.AuthResult, error) {
	action := ""
	if info.ActionType != nil {
		action = actionsOf[*info.ActionType]
	}
	if action == "" {
		return nil, &iot.InvalidRequestException{Message: "actionType is required"}
	}
	allowing, denying, missing := map[string]bool{}, map[string]bool{}, map[string]bool{}
	decision := iot.AuthDecisionAllowed
	for _, resource := range info.Resources {
		allowed, denied := false, false
		for i, s := range sets {
			e := s.Explain(conn, action, resource)
			for _, v := range e.Variables {
				if len(v.Values) == 0 {
					missing[v.Name] = true
				}
			}
			switch e.Decision.Effect {
			case lang.Allow:
				allowed, allowing[names[i]] = true, true
			case lang.ExplicitDeny:
				denied, denying[names[i]] = true, true
			}
		}
		switch {
		case denied:
			decision = iot.AuthDecisionExplicitDeny
		case !allowed && decision == iot.AuthDecisionAllowed:
			decision = iot.AuthDecisionImplicitDeny
		}
	}
	list := func(keep func(string) bool) (out []*iot.Policy) {
		for _, n := range names {
			if keep(n) {
				out = append(out, p.summary(n))
			}
		}
		return out
	}
	return &iot.AuthResult{
		AuthInfo:             info,
		AuthDecision:         &decision,
		MissingContextValues: slices.Sorted(maps.Keys(missing)),
		Allowed:              &iot.Allowed{Policies: list(func(n string) bool { return allowing[n] })},
		Denied: &iot.Denied{
			ExplicitDeny: &iot.ExplicitDeny{Policies: list(func(n string) bool { return denying[n] })},
			ImplicitDeny: &iot.ImplicitDeny{Policies: list(func(n string) bool { return !allowing[n] && !denying[n] })},
		},
	}, nil
}
