package policy

import (
	"context"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/policy/lang"
)

// exclusiveThing gives the thing to which the principal is attached exclusively, else the one given. Policy variables
// are then of that thing whatever the client id.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/exclusive-thing.html
func (p *Policies) exclusiveThing(ctx context.Context, principalARN string, otherwise *lang.Thing) (*lang.Thing, error) {
	name, err := p.exclusiveName(ctx, principalARN)
	if err != nil || name == "" {
		return otherwise, err
	}
	return p.exclusively(ctx, name, principalARN, otherwise)
}

// exclusiveName is the name of the thing to which the principal is attached exclusively; "" when there is none.
func (p *Policies) exclusiveName(ctx context.Context, principalARN string) (string, error) {
	list, err := p.things.ListPrincipalThingsV2(ctx, &iot.ListPrincipalThingsV2Request{
		Principal: principalARN, ThingPrincipalType: new(iot.ThingPrincipalTypeExclusiveThing), MaxResults: new(int32(1)),
	})
	if err != nil || len(list.PrincipalThingObjects) == 0 {
		return "", err
	}
	return list.PrincipalThingObjects[0].ThingName, nil
}

func (p *Policies) exclusively(ctx context.Context, name, principalARN string, otherwise *lang.Thing) (*lang.Thing, error) {
	t, err := p.things.PolicyThing(ctx, name, principalARN)
	if err != nil || t == nil || !t.Attached {
		return otherwise, err
	}
	t.Exclusive = true
	return t, nil
}

// subject is who a question is about that nobody is connected for.
type subject struct {
	names    []string // of the policies in force, in order
	inactive bool     // a certificate that may not act now
	claim    string   // the provisioning template of a claim certificate, which policies do not govern
}

// subjectOf looks up a certificate or a thing group, by its ARN, and puts into conn what policies may ask of it.
func (p *Policies) subjectOf(ctx context.Context, principal string, conn *lang.Connection) (s subject, err error) {
	targets, err := p.targetsOf(ctx, principal, false)
	if err != nil {
		return s, err
	}
	id, ok := strings.CutPrefix(principal, p.account.ARN("iot", certificateTarget))
	if !ok {
		s.names, err = p.attachedTo(ctx, targets)
		return s, err
	}
	if conn.Certificate, err = p.principals.PolicyCertificate(ctx, id); err != nil {
		return s, err
	}
	active, claim, err := p.principals.Standing(ctx, id)
	if err != nil {
		return s, err
	}
	s.inactive, s.claim = !active, claim
	if conn.ClientID != "" {
		if conn.Thing, err = p.things.PolicyThing(ctx, conn.ClientID, principal); err != nil {
			return s, err
		}
	}
	if conn.Thing == nil || !conn.Thing.Attached {
		if conn.Thing, err = p.exclusiveThing(ctx, principal, conn.Thing); err != nil {
			return s, err
		}
	}
	s.names, _, err = p.inForce(ctx, principal)
	return s, err
}
