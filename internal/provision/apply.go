package provision

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/provision/template"
)

// outcome is what carrying out a plan made.
type outcome struct {
	thing string            // its name, "" when the plan has none
	arns  map[string]string // by logical name
	pem   string            // of the certificate

	certificateID string
}

// sign has the plan's CSR signed, so that its certificate only has to be registered. It is called before the Write that
// carries the plan out: whoever keeps the key may be slow, and other writes do not wait for it. A certificate that was
// signed and then not registered lets nobody in.
func (t *Templates) sign(ctx context.Context, plan *template.Plan, a *attempt) error {
	c := plan.Certificate
	if c == nil || c.SigningRequest == "" {
		return nil
	}
	a.begin("sign", "")
	text, err := t.Issuer.SignRequest(ctx, c.SigningRequest)
	if err != nil {
		return err
	}
	c.SigningRequest, c.PEM = "", text
	a.done("the CSR is signed")
	return nil
}

// apply carries out a plan, whose CSR is signed. It is called inside a Write, which the other rooms join: an error undoes
// all of it.
//
// The order is AWS's: thing, certificate, policies, attachments, and the certificate's status last.
func (t *Templates) apply(ctx context.Context, plan *template.Plan, a *attempt) (*outcome, error) {
	out := &outcome{arns: map[string]string{}}
	if th := plan.Thing; th != nil {
		arn, err := t.applyThing(ctx, th, a)
		if err != nil {
			return nil, err
		}
		out.thing, out.arns[th.Logical] = th.Name, arn
	}
	var certificate string // its ARN
	var finish func() error
	if c := plan.Certificate; c != nil {
		a.begin("certificate", c.ID)
		var err error
		if certificate, out.pem, finish, err = t.applyCertificate(ctx, c); err != nil {
			return nil, err
		}
		out.arns[c.Logical] = certificate
		_, out.certificateID, _ = strings.Cut(certificate, ":cert/")
		if c.ID == "" {
			a.subject(out.certificateID)
		}
		a.done("found or made")
	}
	for _, p := range plan.Policies {
		a.begin("policy", p.Name)
		arn, made, err := t.applyPolicy(ctx, p)
		if err != nil {
			return nil, err
		}
		out.arns[p.Logical] = arn
		if certificate == "" {
			a.done(made)
			continue
		}
		if _, err := t.Policies.AttachPolicy(ctx, &iot.AttachPolicyRequest{PolicyName: p.Name, Target: certificate}); err != nil {
			return nil, err
		}
		a.done(made + ", attached to the certificate")
	}
	if certificate != "" && plan.Thing != nil {
		a.begin("attach", plan.Thing.Name)
		_, err := t.Things.AttachThingPrincipal(ctx, &iot.AttachThingPrincipalRequest{
			ThingName: plan.Thing.Name, Principal: certificate, ThingPrincipalType: optional(plan.Certificate.PrincipalType),
		})
		if err != nil {
			return nil, err
		}
		a.done("the certificate is a principal of the thing")
	}
	if finish != nil {
		a.begin("status", plan.Certificate.Status)
		if err := finish(); err != nil {
			return nil, err
		}
		a.done("set")
	}
	return out, nil
}

// applyThing creates the thing, or treats the one that exists as OverrideSettings say; without settings it is left
// as it is.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/provision-template.html#override-settings
func (t *Templates) applyThing(ctx context.Context, th *template.Thing, a *attempt) (arn string, err error) {
	a.begin("thing", th.Name)
	old, err := t.Things.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: th.Name})
	switch {
	case isNotFound(err):
		in := &iot.CreateThingRequest{ThingName: th.Name, ThingTypeName: optional(th.TypeName), BillingGroupName: optional(th.BillingGroup)}
		if len(th.Attributes) > 0 {
			in.AttributePayload = &iot.AttributePayload{Attributes: th.Attributes}
		}
		made, err := t.Things.CreateThing(ctx, in)
		if err != nil {
			return "", err
		}
		a.done("created")
		return value(made.ThingArn), t.join(ctx, th.Name, th.Groups, nil, a)
	case err != nil:
		return "", err
	}
	if err := t.override(ctx, th, a); err != nil {
		return "", err
	}
	return value(old.ThingArn), t.bill(ctx, th, value(old.BillingGroupName), a)
}

// override changes a thing that exists.
func (t *Templates) override(ctx context.Context, th *template.Thing, a *attempt) error {
	for _, s := range []struct {
		name string
		on   template.Override
	}{{"AttributePayload", th.OnAttributes}, {"ThingTypeName", th.OnTypeName}, {"ThingGroups", th.OnGroups}} {
		if s.on == template.Fail {
			return &conflictError{fmt.Sprintf("Thing %s exists already, and OverrideSettings of %s is FAIL.", th.Name, s.name)}
		}
	}
	in := &iot.UpdateThingRequest{ThingName: th.Name}
	merge := th.OnAttributes == template.Merge
	if th.Attributes != nil && (merge || th.OnAttributes == template.Replace) {
		in.AttributePayload = &iot.AttributePayload{Attributes: th.Attributes, Merge: &merge}
	}
	if th.TypeName != "" && th.OnTypeName == template.Replace {
		in.ThingTypeName = &th.TypeName
	}
	if in.AttributePayload != nil || in.ThingTypeName != nil {
		if _, err := t.Things.UpdateThing(ctx, in); err != nil {
			return err
		}
		a.done("existed, changed as OverrideSettings say")
	} else {
		a.done("existed, left as it was")
	}
	if th.Groups == nil || th.OnGroups != template.Merge && th.OnGroups != template.Replace {
		return nil
	}
	has, err := t.groupsOf(ctx, th.Name)
	if err != nil {
		return err
	}
	if th.OnGroups == template.Replace {
		for _, g := range has {
			if slices.Contains(th.Groups, g) {
				continue
			}
			a.begin("group", g)
			if _, err := t.Groups.RemoveThingFromThingGroup(ctx, &iot.RemoveThingFromThingGroupRequest{ThingName: &th.Name, ThingGroupName: &g}); err != nil {
				return err
			}
			a.done("left")
		}
	}
	return t.join(ctx, th.Name, th.Groups, has, a)
}

// groupsOf lists the groups that a thing is in.
func (t *Templates) groupsOf(ctx context.Context, thing string) (names []string, err error) {
	in := &iot.ListThingGroupsForThingRequest{ThingName: thing}
	for {
		page, err := t.Groups.ListThingGroupsForThing(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, g := range page.ThingGroups {
			names = append(names, value(g.GroupName))
		}
		if page.NextToken == nil {
			return names, nil
		}
		in.NextToken = page.NextToken
	}
}

// join adds a thing to the groups that it is not in.
func (t *Templates) join(ctx context.Context, thing string, groups, has []string, a *attempt) error {
	done := slices.Clone(has)
	for _, g := range groups {
		if slices.Contains(done, g) {
			continue
		}
		done = append(done, g)
		a.begin("group", g)
		if _, err := t.Groups.AddThingToThingGroup(ctx, &iot.AddThingToThingGroupRequest{ThingName: &thing, ThingGroupName: &g}); err != nil {
			return err
		}
		a.done("joined")
	}
	return nil
}

func (t *Templates) bill(ctx context.Context, th *template.Thing, has string, a *attempt) error {
	if th.BillingGroup == "" || th.BillingGroup == has {
		return nil
	}
	a.begin("billing group", th.BillingGroup)
	if t.BillingGroups == nil {
		return invalid("BillingGroup is not supported for a thing that exists already.")
	}
	_, err := t.BillingGroups.AddThingToBillingGroup(ctx, &iot.AddThingToBillingGroupRequest{ThingName: &th.Name, BillingGroupName: &th.BillingGroup})
	if err == nil {
		a.done("joined")
	}
	return err
}

// applyPolicy makes sure that the policy exists. One that is given by its document has a hash of it as name, so
// that a policy of that name is the same policy.
func (t *Templates) applyPolicy(ctx context.Context, p template.Policy) (arn, made string, err error) {
	old, err := t.Policies.GetPolicy(ctx, &iot.GetPolicyRequest{PolicyName: p.Name})
	if err == nil {
		return value(old.PolicyArn), "existed", nil
	}
	if !isNotFound(err) || p.Document == "" {
		return "", "", err
	}
	created, err := t.Policies.CreatePolicy(ctx, &iot.CreatePolicyRequest{PolicyName: p.Name, PolicyDocument: p.Document})
	if err != nil {
		return "", "", err
	}
	return value(created.PolicyArn), "created", nil
}

// applyCertificate makes sure that the certificate exists; finish, when not nil, sets its status.
func (t *Templates) applyCertificate(ctx context.Context, c *template.Certificate) (arn, text string, finish func() error, err error) {
	id := c.ID
	if c.PEM != "" {
		if id, err = certificateID(c.PEM); err != nil {
			return "", "", nil, err
		}
	}
	old, err := t.Certificates.DescribeCertificate(ctx, &iot.DescribeCertificateRequest{CertificateId: id})
	if isNotFound(err) && c.PEM != "" {
		made, err := t.Issuer.RegisterCertificate(ctx, &iot.RegisterCertificateRequest{CertificatePem: c.PEM, CaCertificatePem: optional(c.CAPEM), Status: &c.Status})
		if err != nil {
			return "", "", nil, err
		}
		return value(made.CertificateArn), c.PEM, nil, nil
	}
	if err != nil {
		return "", "", nil, err
	}
	d := old.CertificateDescription
	// A certificate that waits for its activation is what is being provisioned: it counts as new.
	if value(d.Status) != iot.CertificateStatusPendingActivation {
		switch c.OnStatus {
		case template.DoNothing:
			return value(d.CertificateArn), value(d.CertificatePem), nil, nil
		case template.Fail:
			return "", "", nil, &conflictError{"Certificate " + id + " exists already, and OverrideSettings of Status is FAIL."}
		}
	}
	if value(d.Status) != c.Status {
		finish = func() error {
			_, err := t.Certificates.UpdateCertificate(ctx, &iot.UpdateCertificateRequest{CertificateId: id, NewStatus: c.Status})
			return err
		}
	}
	return value(d.CertificateArn), value(d.CertificatePem), finish, nil
}

// certificateID is the id that a certificate has or will have: the SHA-256 of its DER encoding.
func certificateID(text string) (string, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return "", invalid("CertificatePem is not a certificate in PEM format.")
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:]), nil
}
