package provision

import (
	"context"
	"fmt"
	"strings"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
)

// Filters are the topics that ServeMQTT serves.
func Filters() []string {
	var out []string
	for _, f := range []string{"json", "cbor"} {
		out = append(out, "$aws/certificates/create/"+f, "$aws/certificates/create-from-csr/"+f, "$aws/provisioning-templates/+/provision/"+f)
	}
	return out
}

// keysResponse is the payload of $aws/certificates/create/{format}/accepted and, without a key, of create-from-csr.
type keysResponse struct {
	CertificateID  string `json:"certificateId"`
	CertificatePEM string `json:"certificatePem"`
	PrivateKey     string `json:"privateKey,omitempty"`
	Token          string `json:"certificateOwnershipToken"`
}

type csrRequest struct {
	SigningRequest string `json:"certificateSigningRequest"`
}

// ServeMQTT serves the device provisioning API: it answers on the topic of the request with /accepted or /rejected
// added, to the connection that asked and to nobody else. What it returns is what the operator must hear of.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/fleet-provision-api.html
func (t *Templates) ServeMQTT(ctx context.Context, m *mqtt.Message) error {
	if m.Source.ClientID == "" || m.Source.ConnectionID == "" {
		return fmt.Errorf("provision: %s: not from an MQTT client", m.Topic)
	}
	op, template, format, ok := parseTopic(m.Topic)
	if !ok {
		return fmt.Errorf("provision: %s: not a topic of this API", m.Topic)
	}
	a := t.attempt(flowClaim, op)
	a.clientID, a.principal, a.template = m.Source.ClientID, owner(m.Source), template
	response, err := t.serve(ctx, op, template, format, m, a)
	if err != nil || op == opRegister { // a certificate that was given is told of by its token
		t.over(a, err)
	}
	suffix, internal := "/accepted", error(nil)
	if err != nil {
		payload, isInternal := rejected(err)
		suffix, response = "/rejected", payload
		if isInternal {
			internal = fmt.Errorf("provision: %s: %w", m.Topic, err)
		} else {
			t.Log.Info("provisioning refused", "op", op, "clientId", m.Source.ClientID, "principal", m.Source.PrincipalID, "topic", m.Topic, "err", err)
		}
	}
	payload, err := format.encode(response)
	if err != nil {
		return fmt.Errorf("provision: %s: answer: %w", m.Topic, err)
	}
	err = t.Publisher.Publish(ctx, &mqtt.Message{
		Topic: m.Topic + suffix, Payload: payload, QoS: 1, Received: t.Now(),
		Recipient: m.Source.ClientID, RecipientConnection: m.Source.ConnectionID,
	})
	if err != nil {
		return fmt.Errorf("provision: %s: publish: %w", m.Topic, err)
	}
	return internal
}

func (t *Templates) serve(ctx context.Context, op, template string, f format, m *mqtt.Message, a *attempt) (any, error) {
	a.begin("rate", op)
	if l := t.rates[op]; l != nil && !l.AllowN(t.Now(), 1) {
		return nil, &iot.ThrottlingException{Message: "Rate exceeded."}
	}
	a.back(a.mark() - 1) // nothing to tell
	a.begin("payload", f.name())
	switch op {
	case opKeys:
		if len(m.Payload) > 0 {
			if err := f.decode(m.Payload, &struct{}{}); err != nil {
				return nil, err
			}
		}
		a.done("understood")
		return t.keys(ctx, "", m.Source, a)
	case opCSR:
		var in csrRequest
		if err := f.decode(m.Payload, &in); err != nil {
			return nil, err
		}
		if in.SigningRequest == "" {
			return nil, invalid("Certificate signing request cannot be empty.")
		}
		a.done("understood")
		return t.keys(ctx, in.SigningRequest, m.Source, a)
	}
	var in registerRequest
	if err := f.decode(m.Payload, &in); err != nil {
		return nil, err
	}
	a.done("understood")
	return t.provision(ctx, template, &in, m.Source, a)
}

func (t *Templates) keys(ctx context.Context, csr string, from mqtt.Source, a *attempt) (*keysResponse, error) {
	a.begin("certificate", "")
	cert, text, err := t.issue(ctx, csr, from)
	if err != nil {
		return nil, err
	}
	out := &keysResponse{CertificateID: value(cert.CertificateId), CertificatePEM: value(cert.CertificatePem), Token: text}
	if cert.KeyPair != nil {
		out.PrivateKey = value(cert.KeyPair.PrivateKey)
	}
	return out, nil
}

// The operations of the MQTT API.
const (
	opKeys     = "CreateKeysAndCertificate"
	opCSR      = "CreateCertificateFromCsr"
	opRegister = "RegisterThing"
)

// parseTopic takes a request's topic apart.
func parseTopic(topic string) (op, template string, f format, ok bool) {
	rest, ok := strings.CutPrefix(topic, "$aws/")
	if !ok {
		return "", "", 0, false
	}
	part := strings.Split(rest, "/")
	switch {
	case len(part) == 3 && part[0] == "certificates" && part[1] == "create":
		op = opKeys
	case len(part) == 3 && part[0] == "certificates" && part[1] == "create-from-csr":
		op = opCSR
	case len(part) == 4 && part[0] == "provisioning-templates" && part[2] == "provision" && part[1] != "":
		op, template = opRegister, part[1]
	default:
		return "", "", 0, false
	}
	switch part[len(part)-1] {
	case "json":
		f = formatJSON
	case "cbor":
		f = formatCBOR
	default:
		return "", "", 0, false
	}
	return op, template, f, true
}
