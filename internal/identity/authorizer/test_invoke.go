package authorizer

import (
	"context"
	"errors"
	"net/http"

	"github.com/google/uuid"

	"flotilla/internal/aws/iot"
)

// TestInvokeAuthorizer asks an authorizer's function, of whatever status the authorizer is, and tells what it
// answered. A token that would not be put to the function is an InvalidRequestException, a function that failed or
// answered what no connection could use an InvalidResponseException; their messages say why.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_TestInvokeAuthorizer.html
func (a *Authorizers) TestInvokeAuthorizer(ctx context.Context, in *iot.TestInvokeAuthorizerRequest) (*iot.TestInvokeAuthorizerResponse, error) {
	known, err := a.load(ctx)
	if err != nil {
		return nil, err
	}
	e := known.byName[in.AuthorizerName]
	if e == nil {
		return nil, &iot.ResourceNotFoundException{Message: "Authorizer " + in.AuthorizerName + " was not found."}
	}
	r := &Request{ConnectionID: uuid.NewString(), Token: value(in.Token), Signature: value(in.TokenSignature)}
	if c := in.HttpContext; c != nil {
		r.Protocol, r.RawQuery, r.Header = HTTP, value(c.QueryString), http.Header{}
		for name, v := range c.Headers {
			r.Header.Add(name, v)
		}
	}
	if c := in.MqttContext; c != nil {
		r.Username, r.Password, r.ClientID = value(c.Username), c.Password, value(c.ClientId)
		if r.Protocol == HTTP {
			r.Protocol = WebSocket
		}
	}
	if c := in.TlsContext; c != nil {
		r.ServerName = value(c.ServerName)
	}
	i, err := e.check(r)
	if err != nil {
		return nil, tested(err)
	}
	ev := newEvent(r, i.token, i.verified)
	if in.HttpContext == nil && in.MqttContext == nil { // a token alone
		ev.Protocols, ev.ProtocolData.MQTT = []string{"tls"}, nil
	}
	ans, err := a.invoke(ctx, i, r, ev)
	if err != nil {
		return nil, tested(err)
	}
	out := &iot.TestInvokeAuthorizerResponse{IsAuthenticated: &ans.authenticated}
	if ans.authenticated {
		out.PrincipalId, out.PolicyDocuments = &ans.principal, ans.documents
		out.DisconnectAfterInSeconds = new(int32(ans.disconnectAfter.Seconds()))
		out.RefreshAfterInSeconds = new(int32(ans.refreshAfter.Seconds()))
	}
	return out, nil
}

// tested turns a refusal into the exception that the operation has for it.
func tested(err error) error {
	r, ok := errors.AsType[*RefusedError](err)
	if !ok {
		return err
	}
	switch r.Reason {
	case ReasonFunctionTimeout, ReasonFunctionFailed, ReasonInvalidAnswer:
		return &iot.InvalidResponseException{Message: r.Error()}
	}
	return &iot.InvalidRequestException{Message: r.Error()}
}
