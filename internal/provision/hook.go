package provision

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/go-json-experiment/json"

	"flotilla/internal/aws"
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

// askHook gives the parameters to provision with: the device's, with the hook's overrides, and the names of these.
// Whatever goes wrong, and anything but allowProvisioning true, is ACCESS_DENIED; why is for the operator alone.
func (t *Templates) askHook(ctx context.Context, arn, certificateID, certificatePEM, templateName string, from mqtt.Source, parameters map[string]string, a *attempt) (merged map[string]string, overridden map[string]bool, err error) {
	if parameters == nil {
		parameters = map[string]string{}
	}
	a.begin("hook", arn)
	start := t.Now()
	refuse := func(why string) error {
		why += " (after " + t.Now().Sub(start).Round(time.Millisecond).String() + ")"
		return accessDenied("The pre-provisioning hook denied the request.", "hook "+arn+": "+why)
	}
	if t.Hook == nil {
		return nil, nil, refuse("functions are not available")
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
		return nil, nil, refuse("the request cannot be written: " + err.Error())
	}
	answer, err := t.invoke(ctx, t.arn(templateName), arn, payload)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, nil, refuse("it did not answer within " + t.cfg.HookTimeout.String())
	case err != nil:
		return nil, nil, refuse("it failed: " + err.Error())
	case len(answer) > maxHookResponse:
		return nil, nil, refuse("its answer is too long")
	}
	var response hookResponse
	if err := json.Unmarshal(answer, &response); err != nil {
		return nil, nil, refuse("its answer is not understood: " + malformed(err))
	}
	if !response.AllowProvisioning {
		return nil, nil, refuse("it did not answer allowProvisioning true")
	}
	merged = maps.Clone(parameters)
	maps.Copy(merged, response.ParameterOverrides)
	if err := checkParameters(merged); err != nil {
		return nil, nil, refuse("its parameterOverrides are refused: " + err.Error())
	}
	a.overridden(response.ParameterOverrides, t.Now().Sub(start))
	overridden = map[string]bool{}
	for name := range response.ParameterOverrides {
		overridden[name] = true
	}
	return merged, overridden, nil
}

// invoke calls the hook and stops waiting for it after Config.HookTimeout, whether or not it heeds its context.
func (t *Templates) invoke(ctx context.Context, source, arn string, payload []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.HookTimeout)
	defer cancel()
	type result struct {
		answer []byte
		err    error
	}
	done := make(chan result, 1)
	go func() {
		answer, err := t.Hook.Invoke(aws.WithSource(ctx, source), arn, payload)
		done <- result{answer, err}
	}()
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
