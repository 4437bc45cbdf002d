package policy

import (
	"context"
	"fmt"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

const (
	certificateTarget = "cert/"
	groupTarget       = "thinggroup/"
)

// AttachPolicy attaches a policy to a certificate or a thing group, both of which must exist; attaching it again
// changes nothing. It is in force from now on, for connections that are open as well.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_AttachPolicy.html
func (p *Policies) AttachPolicy(ctx context.Context, in *iot.AttachPolicyRequest) (*iot.AttachPolicyResponse, error) {
	if err := p.attach(ctx, in.PolicyName, in.Target); err != nil {
		return nil, err
	}
	return &iot.AttachPolicyResponse{}, nil
}

// AttachPrincipalPolicy is the deprecated form of AttachPolicy, for certificates.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_AttachPrincipalPolicy.html
func (p *Policies) AttachPrincipalPolicy(ctx context.Context, in *iot.AttachPrincipalPolicyRequest) (*iot.AttachPrincipalPolicyResponse, error) {
	if err := p.principalOnly(in.Principal); err != nil {
		return nil, err
	}
	if err := p.attach(ctx, in.PolicyName, in.Principal); err != nil {
		return nil, err
	}
	return &iot.AttachPrincipalPolicyResponse{}, nil
}

func (p *Policies) principalOnly(principal string) error {
	if _, ok := strings.CutPrefix(principal, p.account.ARN("iot", certificateTarget)); !ok {
		return &iot.InvalidRequestException{Message: "Invalid principal: " + principal}
	}
	return nil
}

func (p *Policies) attach(ctx context.Context, name, target string) error {
	return p.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if _, err := selectPolicy(tx, name); err != nil {
			return noPolicy(err, name)
		}
		limit, err := p.target(ctx, target)
		if err != nil {
			return err
		}
		attached, err := insertAttachment(tx, target, name, p.now().UnixMilli())
		if err != nil || !attached {
			return err
		}
		n, err := countAttached(tx, target)
		if err != nil {
			return err
		}
		if n > limit {
			return &iot.LimitExceededException{Message: fmt.Sprintf("The maximum number of policies (%d) is attached to %s", limit, target)}
		}
		p.db.AfterCommit(ctx, func() { p.bus.Changed(kindPrincipal, target) })
		return nil
	})
}

// target checks that a target exists and says how many policies it may have.
func (p *Policies) target(ctx context.Context, target string) (limit int, err error) {
	if id, ok := strings.CutPrefix(target, p.account.ARN("iot", certificateTarget)); ok {
		if strings.Trim(id, "0123456789abcdef") != "" { // another spelling of the id would govern nothing
			return 0, &iot.InvalidRequestException{Message: "Invalid target: " + target}
		}
		_, err := p.principals.DescribeCertificate(ctx, &iot.DescribeCertificateRequest{CertificateId: id})
		return p.cfg.MaxPerCertificate, err
	}
	if name, ok := strings.CutPrefix(target, p.account.ARN("iot", groupTarget)); ok {
		g, err := p.groups.DescribeThingGroup(ctx, &iot.DescribeThingGroupRequest{ThingGroupName: name})
		if err == nil && g.QueryString != nil {
			err = &iot.InvalidRequestException{Message: "Thing group " + name + " is dynamic and can't have policies"}
		}
		return p.cfg.MaxPerThingGroup, err
	}
	return 0, &iot.InvalidRequestException{Message: "Invalid target: " + target}
}

// DetachPolicy detaches a policy; detaching what is not attached changes nothing.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DetachPolicy.html
func (p *Policies) DetachPolicy(ctx context.Context, in *iot.DetachPolicyRequest) (*iot.DetachPolicyResponse, error) {
	if err := p.detach(ctx, in.PolicyName, in.Target); err != nil {
		return nil, err
	}
	return &iot.DetachPolicyResponse{}, nil
}

// DetachPrincipalPolicy is the deprecated form of DetachPolicy.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DetachPrincipalPolicy.html
func (p *Policies) DetachPrincipalPolicy(ctx context.Context, in *iot.DetachPrincipalPolicyRequest) (*iot.DetachPrincipalPolicyResponse, error) {
	if err := p.principalOnly(in.Principal); err != nil {
		return nil, err
	}
	if err := p.detach(ctx, in.PolicyName, in.Principal); err != nil {
		return nil, err
	}
	return &iot.DetachPrincipalPolicyResponse{}, nil
}

func (p *Policies) detach(ctx context.Context, name, target string) error {
	return p.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		if _, err := selectPolicy(tx, name); err != nil {
			return noPolicy(err, name)
		}
		gone, err := deleteAttachment(tx, target, name)
		if gone {
			p.db.AfterCommit(ctx, func() { p.bus.Changed(kindPrincipal, target) })
		}
		return err
	})
}

// DetachAll detaches every policy from a target that is about to be deleted; it joins a Write in ctx.
func (p *Policies) DetachAll(ctx context.Context, target string) error {
	return p.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		gone, err := deleteAttachments(tx, target)
		if gone {
			p.db.AfterCommit(ctx, func() { p.bus.Changed(kindPrincipal, target) })
		}
		return err
	})
}

// ListAttachedPolicies lists the policies of a target by name; recursive adds those of a group's parents.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListAttachedPolicies.html
func (p *Policies) ListAttachedPolicies(ctx context.Context, in *iot.ListAttachedPoliciesRequest) (*iot.ListAttachedPoliciesResponse, error) {
	out := &iot.ListAttachedPoliciesResponse{}
	var err error
	out.Policies, out.NextMarker, err = p.attachedPage(ctx, in.Target, isTrue(in.Recursive), in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ListPrincipalPolicies is the deprecated form of ListAttachedPolicies, for certificates.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListPrincipalPolicies.html
func (p *Policies) ListPrincipalPolicies(ctx context.Context, in *iot.ListPrincipalPoliciesRequest) (*iot.ListPrincipalPoliciesResponse, error) {
	if err := p.principalOnly(in.Principal); err != nil {
		return nil, err
	}
	out := &iot.ListPrincipalPoliciesResponse{}
	var err error
	out.Policies, out.NextMarker, err = p.attachedPage(ctx, in.Principal, false, in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (p *Policies) attachedPage(ctx context.Context, target string, recursive bool, from *string, pageSizeIn *int32) (list []*iot.Policy, next *string, err error) {
	after, err := parseMarker(from, 1)
	if err != nil {
		return nil, nil, err
	}
	size := pageSize(pageSizeIn)
	err = p.db.Read(ctx, func(ctx context.Context, tx store.Tx) error {
		if _, err := p.target(ctx, target); err != nil {
			return err
		}
		targets := []string{target}
		if group, ok := strings.CutPrefix(target, p.account.ARN("iot", groupTarget)); ok && recursive {
			parents, err := p.parents(ctx, group)
			if err != nil {
				return err
			}
			targets = append(targets, parents...)
		}
		names, err := selectAttached(tx, targets, first(after), size+1)
		list, next = nil, nil
		if len(names) > size {
			names = names[:size]
			next = marker(names[size-1])
		}
		for _, n := range names {
			list = append(list, p.summary(n))
		}
		return err
	})
	return list, next, err
}

func first(key []string) string {
	if len(key) == 0 {
		return ""
	}
	return key[0]
}

// parents gives the ARNs of a group's parents.
func (p *Policies) parents(ctx context.Context, group string) ([]string, error) {
	d, err := p.groups.DescribeThingGroup(ctx, &iot.DescribeThingGroupRequest{ThingGroupName: group})
	if err != nil {
		return nil, err
	}
	var arns []string
	if d.ThingGroupMetadata != nil {
		for _, g := range d.ThingGroupMetadata.RootToParentThingGroups {
			if g.GroupArn != nil {
				arns = append(arns, *g.GroupArn)
			}
		}
	}
	return arns, nil
}

// ListTargetsForPolicy lists what a policy is attached to.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListTargetsForPolicy.html
func (p *Policies) ListTargetsForPolicy(ctx context.Context, in *iot.ListTargetsForPolicyRequest) (*iot.ListTargetsForPolicyResponse, error) {
	out := &iot.ListTargetsForPolicyResponse{}
	var err error
	out.Targets, out.NextMarker, err = p.targetsPage(ctx, in.PolicyName, "", in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ListPolicyPrincipals is the deprecated form of ListTargetsForPolicy, for certificates.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListPolicyPrincipals.html
func (p *Policies) ListPolicyPrincipals(ctx context.Context, in *iot.ListPolicyPrincipalsRequest) (*iot.ListPolicyPrincipalsResponse, error) {
	out := &iot.ListPolicyPrincipalsResponse{}
	var err error
	out.Principals, out.NextMarker, err = p.targetsPage(ctx, in.PolicyName, p.account.ARN("iot", certificateTarget), in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (p *Policies) targetsPage(ctx context.Context, name, prefix string, from *string, pageSizeIn *int32) (list []string, next *string, err error) {
	after, err := parseMarker(from, 1)
	if err != nil {
		return nil, nil, err
	}
	size := pageSize(pageSizeIn)
	err = p.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		if _, err := selectPolicy(tx, name); err != nil {
			return noPolicy(err, name)
		}
		list, err = selectTargets(tx, name, prefix, first(after), size+1)
		next = nil
		if len(list) > size {
			list = list[:size]
			next = marker(list[size-1])
		}
		return err
	})
	return list, next, err
}
