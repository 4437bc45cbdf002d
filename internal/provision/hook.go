package provision

import (
	"context"
	"maps"

	"github.com/go-json-experiment/json"

	"flotilla/internal/mqtt"
)

// hookRequest is what a pre-provisioning hook is given.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/pre-provisioning-hook.html
type hookRequest struct {
	ClaimCertificateID string            `json:"claimCertificateId"`
	CertificateID      string            `json:"certificateId"`
	CertificatePEM     string            `json:"certificatePem"`
	TemplateARN        string            `json:"templateArn"`
	ClientID           string            `json:"clientId"`
	Parameters         map[string]string `json:"parameters"`
}

// hookResponse is what it answers.
type hookResponse struct {
	AllowProvisioning  bool              `json:"allowProvisioning"`
	ParameterOverrides map[string]string `json:"parameterOverrides"`
}

// maxHookResponse bounds what a hook may answer, in bytes.
const maxHookResponse = 128 << 10

// askHook gives the parameters to provision with: the device's, with the hook's overrides. Whatever goes wrong, and
// anything but allowProvisioning true, is ACCESS_DENIED; why is for the log alone.
func (t *Templates) askHook(ctx context.Context, arn, certificateID, certificatePEM, templateName string, from mqtt.Source, parameters map[string]string) (map[string]string, error) {
	if parameters == nil {
		parameters = map[string]string{}
	}
	denied := accessDenied("The pre-provisioning hook denied the request.")
	refuse := func(why string, err error) error {
		t.Log.Info("provisioning denied by hook", "op", "RegisterThing", "clientId", from.ClientID, "principal", from.PrincipalID, "reason", why, "err", err)
		return denied
	}
	if t.Hook == nil {
		return nil, refuse("functions are not available", nil)
	}
	claim := from.PrincipalID
	if from.PrincipalType != "" && from.PrincipalType != typeCertificate {
		claim = "" // whoever vouches for the device, no claim certificate does
	}
	payload, err := json.Marshal(hookRequest{
		ClaimCertificateID: claim, CertificateID: certificateID, CertificatePEM: certificatePEM,
		TemplateARN: t.arn(templateName), ClientID: from.ClientID, Parameters: parameters,
	})
	if err != nil {
		return nil, refuse("request", err)
	}
	answer, err := t.invoke(ctx, arn, payload)
	if err != nil {
		return nil, refuse("failed", err)
	}
	var response hookResponse
	if len(answer) > maxHookResponse {
		return nil, refuse("its answer is too long", nil)
	}
	if err := json.Unmarshal(answer, &response); err != nil {
		return nil, refuse("its answer is not understood", err)
	}
	if !response.AllowProvisioning {
		return nil, refuse("allowProvisioning is not true", nil)
	}
	merged := maps.Clone(parameters)
	maps.Copy(merged, response.ParameterOverrides)
	return merged, nil
}

// invoke calls the hook and stops waiting for it after Config.HookTimeout, whether or not it heeds its context.
func (t *Templates) invoke(ctx context.Context, arn string, payload []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.HookTimeout)
	defer cancel()
	type result struct {
		answer []byte
		err    error
	}
	done := make(chan result, 1)
	go func() {
		answer, err := t.Hook.Invoke(ctx, arn, payload)
		done <- result{answer, err}
	}()
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
