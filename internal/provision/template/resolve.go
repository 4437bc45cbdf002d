package template

import (
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"strings"
)

// Input is what a template is resolved with.
type Input struct {
	// Parameters are the caller's; in JITP there are none.
	Parameters map[string]string
	// Certificate gives the values of AWS::IoT::Certificate::<key> by key: Id,
	// CommonName, … For Fleet and JITP these names come from here alone, and Id
	// is the certificate that is being provisioned.
	Certificate map[string]string
	// Vouched has the names of parameters whose values are not the device's, but the operator's: of its hook.
	Vouched map[string]bool
}

// Plan is what a resolved template asks for.
type Plan struct {
	Thing       *Thing       // nil when the template has none
	Certificate *Certificate // nil when the template has none
	Policies    []Policy
	// DeviceConfiguration is flat: string, bool, json.Number, or a list of these
	// ([]any). Nil when the template has none.
	DeviceConfiguration map[string]any
}

// Thing is the thing that a plan asks for. Nil Attributes and Groups, and empty
// TypeName and BillingGroup, are not given.
type Thing struct {
	Logical      string
	Name         string
	Attributes   map[string]string
	TypeName     string
	Groups       []string
	BillingGroup string
	// What to do with each of them when the thing exists; "" is not given.
	OnAttributes, OnTypeName, OnGroups Override
}

// Certificate is the certificate that a plan asks for: exactly one of
// SigningRequest, ID and PEM is not empty.
type Certificate struct {
	Logical        string
	SigningRequest string
	ID             string
	PEM, CAPEM     string
	Status         string // ACTIVE or INACTIVE
	OnStatus       Override
	// PrincipalType is EXCLUSIVE_THING, NON_EXCLUSIVE_THING or "".
	PrincipalType string
}

// Policy is a policy that a plan asks for. With a Document it is created unless
// a policy of that Name exists; Name is then a hash of the document.
type Policy struct {
	Logical  string
	Name     string
	Document string
}

// Resolve computes the plan. Errors are *Error.
func (t *Template) Resolve(in Input) (*Plan, error) {
	e := &env{t: t, parameters: in.Parameters, in: in, left: maxProduced}
	if t.flow == JITP {
		// The certificate must have a value for each parameter of the template.
		for _, name := range t.names {
			if _, err := e.lookup("Parameters."+name, name); err != nil {
				return nil, err
			}
		}
	}
	p := &Plan{}
	var err error
	if t.thing != nil {
		if p.Thing, err = t.thing.resolve(e); err != nil {
			return nil, err
		}
	}
	if t.certificate != nil {
		if p.Certificate, err = t.certificate.resolve(e); err != nil {
			return nil, err
		}
		if own := in.Certificate["Id"]; t.flow != RegisterThing && p.Certificate.ID != own {
			return nil, fail(InvalidRequest, "Resources."+p.Certificate.Logical, "CertificateId is not the certificate that is being provisioned")
		}
	}
	for _, r := range t.policies {
		resolved, err := r.resolve(e)
		if err != nil {
			return nil, err
		}
		p.Policies = append(p.Policies, resolved)
	}
	if t.device != nil {
		p.DeviceConfiguration = make(map[string]any, len(t.device))
	}
	for _, s := range t.device {
		if p.DeviceConfiguration[s.name], err = s.conf.resolve(e, "DeviceConfiguration."+s.name); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (r *thing) resolve(e *env) (*Thing, error) {
	path := "Resources." + r.logical + ".Properties."
	out := &Thing{Logical: r.logical, OnAttributes: r.onAttributes, OnTypeName: r.onType, OnGroups: r.onGr}
	var err error
	if out.Name, err = evalText(r.name, e, path+"ThingName"); err != nil {
		return nil, err
	}
	if err := checkThingName(path+"ThingName", out.Name); err != nil {
		return nil, err
	}
	if out.TypeName, err = optional(r.typeName, e, path+"ThingTypeName"); err != nil {
		return nil, err
	}
	if out.BillingGroup, err = optional(r.billing, e, path+"BillingGroup"); err != nil {
		return nil, err
	}
	if r.groups != nil {
		if out.Groups, err = evalList(r.groups, e, path+"ThingGroups"); err != nil {
			return nil, err
		}
	}
	if r.hasAttributes {
		out.Attributes = make(map[string]string, len(r.attributes))
	}
	for _, a := range r.attributes {
		if out.Attributes[a.name], err = evalText(a.x, e, path+"AttributePayload."+a.name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (r *certificate) resolve(e *env) (*Certificate, error) {
	path := "Resources." + r.logical + ".Properties."
	out := &Certificate{Logical: r.logical, OnStatus: r.onStatus, Status: "ACTIVE"}
	for _, f := range []struct {
		name string
		x    expr
		to   *string
	}{
		{"CertificateSigningRequest", r.csr, &out.SigningRequest},
		{"CertificateId", r.id, &out.ID},
		{"CertificatePem", r.pem, &out.PEM},
		{"CACertificatePem", r.ca, &out.CAPEM},
		{"ThingPrincipalType", r.binding, &out.PrincipalType},
	} {
		var err error
		if *f.to, err = optional(f.x, e, path+f.name); err != nil {
			return nil, err
		}
	}
	switch out.PrincipalType {
	case "", "EXCLUSIVE_THING", "NON_EXCLUSIVE_THING":
	default:
		return nil, fail(InvalidTemplate, path+"ThingPrincipalType", "%q is neither EXCLUSIVE_THING nor NON_EXCLUSIVE_THING", clip(out.PrincipalType))
	}
	if r.status != nil {
		text, err := evalText(r.status, e, path+"Status")
		if err != nil {
			return nil, err
		}
		if out.Status, err = checkStatus(path+"Status", text); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (r *policy) resolve(e *env) (Policy, error) {
	path := "Resources." + r.logical + ".Properties.PolicyName"
	out := Policy{Logical: r.logical}
	var err error
	if r.document == nil {
		out.Name, err = optional(r.name, e, path)
		return out, err
	}
	e.document = true
	out.Document, err = r.document.text(e)
	e.document = false
	if err != nil {
		return Policy{}, err
	}
	out.Name = PolicyName(out.Document)
	return out, nil
}

// PolicyName is the name of a policy that a template gives by its document: the
// upper-case hexadecimal SHA-1 of the document, as in AWS's examples.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/single-thing-provisioning.html
func PolicyName(document string) string {
	sum := sha1.Sum([]byte(document))
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// optional is the text of x, "" without one; a text that is given is not empty.
func optional(x expr, e *env, path string) (string, error) {
	if x == nil {
		return "", nil
	}
	text, err := evalText(x, e, path)
	if err == nil && text == "" {
		return "", fail(InvalidRequest, path, "the value is empty")
	}
	return text, err
}

func (c config) resolve(e *env, path string) (any, error) {
	switch {
	case c.many:
		list := make([]any, len(c.list))
		for i, item := range c.list {
			var err error
			if list[i], err = item.resolve(e, path); err != nil {
				return nil, err
			}
		}
		return list, nil
	case c.x == nil && c.plain.kind == '0':
		return json.Number(c.plain.text), nil
	case c.x == nil:
		return c.plain.kind == 't', nil
	}
	v, err := c.x.eval(e)
	if err != nil || !v.many {
		return v.text, err
	}
	list := make([]any, len(v.list))
	for i, s := range v.list {
		list[i] = s
	}
	return list, nil
}
