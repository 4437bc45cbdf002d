package provision

import (
	"context"
	"encoding/json"
	"fmt"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/provision/template"
	"flotilla/internal/store"
)

// What the model allows of the parameters of RegisterThing; over MQTT the number is bounded too.
const (
	maxParameters     = 256
	maxParameterName  = 2048
	maxParameterValue = 4096
)

// maxConfiguration bounds what a device is told, in bytes of JSON: with the answer around it it must fit in a PUBLISH.
const maxConfiguration = 100 << 10

// RegisterThing carries out a template that the caller brings along.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_RegisterThing.html
func (t *Templates) RegisterThing(ctx context.Context, in *iot.RegisterThingRequest) (*iot.RegisterThingResponse, error) {
	a := t.attempt(flowAPI, opRegister)
	a.parameters = in.Parameters
	out, err := t.carryOut(ctx, in.TemplateBody, template.RegisterThing, template.Input{Parameters: in.Parameters}, a)
	t.over(a, err)
	if err != nil {
		return nil, exception(err)
	}
	return &iot.RegisterThingResponse{CertificatePem: optional(out.pem), ResourceArns: out.arns}, nil
}

// JustInTime carries out a template for a certificate that was registered, PENDING_ACTIVATION, at its first
// connect. The subject's values are by key: Id (the certificate id), CommonName, SerialNumber, Country, …
// Errors are those of RegisterThing.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/jit-provisioning.html
func (t *Templates) JustInTime(ctx context.Context, templateBody string, subject map[string]string) (thingName string, err error) {
	a := t.attempt(flowJITP, opRegister)
	a.parameters, a.certificateID = subject, subject["Id"]
	out, err := t.carryOut(ctx, templateBody, template.JITP, template.Input{Certificate: subject}, a)
	t.over(a, err)
	if err != nil {
		return "", exception(err)
	}
	return out.thing, nil
}

// carryOut resolves a template and does what it says, all of it or nothing.
func (t *Templates) carryOut(ctx context.Context, body string, flow template.Flow, in template.Input, a *attempt) (out *outcome, err error) {
	a.begin("template", "")
	tpl, err := template.Parse(body, flow)
	if err != nil {
		return nil, err
	}
	plan, err := tpl.Resolve(in)
	if err != nil {
		return nil, err
	}
	a.done("resolved")
	if err := t.sign(ctx, plan, a); err != nil {
		return nil, err
	}
	mark := a.mark()
	err = t.DB.Write(ctx, func(ctx context.Context, _ store.Tx) (err error) {
		a.back(mark)
		out, err = t.apply(ctx, plan, a)
		return err
	})
	if err != nil {
		return nil, err
	}
	a.made(out)
	return out, nil
}

// registerRequest is the payload of …/provision/{format}.
type registerRequest struct {
	Token      string            `json:"certificateOwnershipToken"`
	Parameters map[string]string `json:"parameters"`
}

// registerResponse is the payload of …/provision/{format}/accepted. A template without a thing gives no name.
type registerResponse struct {
	DeviceConfiguration map[string]any `json:"deviceConfiguration"`
	ThingName           string         `json:"thingName,omitempty"`
}

func checkParameters(parameters map[string]string) error {
	if len(parameters) > maxParameters {
		return invalid(fmt.Sprintf("More than %d parameters.", maxParameters))
	}
	for name, v := range parameters {
		if len(name) > maxParameterName || len(v) > maxParameterValue {
			return invalid(fmt.Sprintf("A parameter's name is longer than %d bytes, or its value than %d.", maxParameterName, maxParameterValue))
		}
	}
	return nil
}

// provision is RegisterThing of the MQTT API: it carries out a fleet provisioning template for the certificate that
// the token stands for. Either all of it happens, token and all, or nothing.
func (t *Templates) provision(ctx context.Context, name string, in *registerRequest, from mqtt.Source, a *attempt) (*registerResponse, error) {
	a.parameters = in.Parameters
	a.begin("parameters", "")
	if err := checkParameters(in.Parameters); err != nil {
		return nil, err
	}
	a.back(a.mark() - 1) // nothing to tell
	r, v, k, err := t.admit(ctx, name, in.Token, from, a)
	if err != nil {
		return nil, err
	}
	a.begin("template", name)
	tpl, err := template.Parse(v.body, template.Fleet)
	if err != nil {
		return nil, err
	}
	a.done("read")
	parameters, vouched := in.Parameters, map[string]bool(nil)
	if r.hookARN != "" {
		d, err := t.pendingCertificate(ctx, k.certificateID)
		if err != nil {
			return nil, err
		}
		if parameters, vouched, err = t.askHook(ctx, r.hookARN, k.certificateID, value(d.CertificatePem), name, from, parameters, a); err != nil {
			return nil, err
		}
	}
	a.begin("resolve", name)
	plan, err := tpl.Resolve(template.Input{Parameters: parameters, Certificate: map[string]string{"Id": k.certificateID}, Vouched: vouched})
	if err != nil {
		return nil, err
	}
	if text, err := json.Marshal(plan.DeviceConfiguration); err != nil {
		return nil, fmt.Errorf("provision: device configuration: %w", err)
	} else if len(text) > maxConfiguration {
		return nil, invalid(fmt.Sprintf("The device configuration is longer than %d bytes.", maxConfiguration))
	}
	a.done("all values computed")
	if err := t.sign(ctx, plan, a); err != nil {
		return nil, err
	}
	out, err := t.useUp(ctx, r, in.Token, from, plan, a)
	if err != nil {
		return nil, err
	}
	a.made(out)
	t.pending.Add(-1)
	t.Log.Debug("device provisioned", "op", "RegisterThing", "thing", out.thing, "principal", k.certificateID, "clientId", from.ClientID)
	return &registerResponse{DeviceConfiguration: plan.DeviceConfiguration, ThingName: out.thing}, nil
}

// admit finds the token and the template that a client names, and refuses what it may not use.
func (t *Templates) admit(ctx context.Context, name, text string, from mqtt.Source, a *attempt) (r *record, v *version, k *token, err error) {
	a.begin("token", "")
	err = t.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		// The token first: a stranger does not learn which templates there are.
		if k, err = t.token(tx, text, from, a); err != nil {
			return err
		}
		a.issued(k)
		a.begin("find template", name)
		if r, err = selectTemplate(tx, name); err != nil {
			return noTemplate(err, name)
		}
		v, err = selectVersion(tx, name, r.defaultVersion)
		return err
	})
	if err != nil {
		return nil, nil, nil, err
	}
	a.version = v.number
	switch {
	case r.kind != iot.TemplateTypeFleetProvisioning:
		return nil, nil, nil, invalid("Provisioning template " + name + " is not of type FLEET_PROVISIONING.")
	case !r.enabled:
		return nil, nil, nil, notEnabled(name)
	}
	a.done("enabled")
	return r, v, k, nil
}

// useUp carries out the plan and takes the token away. A template that was disabled or deleted while its hook was
// asked counts no more.
func (t *Templates) useUp(ctx context.Context, r *record, text string, from mqtt.Source, plan *template.Plan, a *attempt) (out *outcome, err error) {
	mark := a.mark()
	err = t.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		a.back(mark)
		a.begin("token", "")
		k, err := t.token(tx, text, from, a)
		if err != nil {
			return err
		}
		if used, err := useToken(tx, k.hash); err != nil {
			return err
		} else if !used {
			return tokenNotValid("it was used in the meantime")
		}
		if _, err := t.pendingCertificate(ctx, k.certificateID); err != nil {
			return err
		}
		if r.hookARN != "" {
			now, err := selectTemplate(tx, r.name)
			if err != nil {
				return noTemplate(err, r.name)
			}
			if !now.enabled {
				return notEnabled(r.name)
			}
		}
		a.done("used up")
		out, err = t.apply(ctx, plan, a)
		return err
	})
	return out, err
}

// pendingCertificate describes the certificate of a token. One that someone has activated, revoked or deleted
// meanwhile is not the device's to provision any more.
func (t *Templates) pendingCertificate(ctx context.Context, id string) (*iot.CertificateDescription, error) {
	out, err := t.Certificates.DescribeCertificate(ctx, &iot.DescribeCertificateRequest{CertificateId: id})
	switch {
	case isNotFound(err):
		return nil, tokenNotValid("its certificate was deleted in the meantime")
	case err != nil:
		return nil, err
	case value(out.CertificateDescription.Status) != iot.CertificateStatusPendingActivation:
		return nil, tokenNotValid("its certificate is " + value(out.CertificateDescription.Status) + " by now, not PENDING_ACTIVATION")
	}
	return out.CertificateDescription, nil
}
