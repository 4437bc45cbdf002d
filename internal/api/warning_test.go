package api_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	sdkiot "github.com/aws/aws-sdk-go-v2/service/iot"

	"flotilla/internal/api"
	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
)

// What a handler warns of is in a header, which the SDK does not mind.
func TestWarningHeader(t *testing.T) {
	w := newWorld(t, api.Config{})
	api.Handle(w.Server, iot.CreatePolicy, func(ctx context.Context, in *iot.CreatePolicyRequest) (*iot.CreatePolicyResponse, error) {
		aws.Warn(ctx, "one")
		aws.Warn(ctx, "two\r\nX-Other: 1")
		return &iot.CreatePolicyResponse{PolicyName: &in.PolicyName}, nil
	})
	body := `{"policyDocument":"{}"}`
	a := send(t, http.DefaultClient, sign(t, w.request(t, "POST", "/policies/p", body), "iot", body, time.Now()))
	if got := a.header.Values("X-Flotilla-Warning"); a.status != 200 || len(got) != 2 || got[1] != "two??X-Other: 1" {
		t.Errorf("%d %q", a.status, got)
	}
	name, document := "p", "{}"
	if _, err := w.iot().CreatePolicy(t.Context(), &sdkiot.CreatePolicyInput{PolicyName: &name, PolicyDocument: &document}); err != nil {
		t.Error(err)
	}
}
