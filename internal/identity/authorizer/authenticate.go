package authorizer

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/policy/lang"
)

// PrincipalType is the Type of principals that an authorizer names.
const PrincipalType = "authorizer"

// Result is a connection that an authorizer vouches for. It is immutable.
type Result struct {
	// Principal has the ID that the function gave. It has no ARN: policies and things can't be attached to it.
	Principal  aws.Principal
	Authorizer string
	// Policies govern the connection by themselves: Policies.For makes its lang.Authorizer.
	Policies *lang.Set
	// DisconnectAfter is how long after Authenticate the connection ends, RefreshAfter how long after each answer the
	// policies are to be asked for again. RefreshAfter of DisconnectAfter or more means never.
	DisconnectAfter, RefreshAfter time.Duration

	request *Request // a copy, for Refresh
}

// Authenticate asks the authorizer that is responsible for a request whether its sender may come in, and as whom. The
// function has Config.Timeout; ctx may allow less. r may be changed afterwards. The error is a *[RefusedError], or
// that of the store or of ctx.
//
// HTTP requests on one connection, with the same credentials, share an answer for as long as its
// refreshAfterInSeconds if the authorizer has enableCachingForHttp.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/custom-authorizer.html
func (a *Authorizers) Authenticate(ctx context.Context, r *Request) (*Result, error) {
	known, err := a.load(ctx)
	if err != nil {
		return nil, err
	}
	kept := r.clone()
	ask, err := known.admit(kept)
	if err != nil {
		return nil, err
	}
	key, cached := a.cacheKey(ask, kept)
	if cached {
		if res := a.answers.get(key, a.now()); res != nil {
			return res, nil
		}
	}
	if kept.ConnectionID == "" {
		kept.ConnectionID = uuid.NewString()
	}
	res, err := a.ask(ctx, ask, kept)
	if err == nil && cached {
		a.answers.put(key, res, a.now())
	}
	return res, err
}

// Refresh asks again for the policies of a connection, with what it brought when it came in. The Result replaces the
// one before: with other policies and another RefreshAfter, but the same principal and DisconnectAfter, which no
// answer changes any more. The error is that of Authenticate; the connection must then end.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/custom-auth-lambda.html
func (a *Authorizers) Refresh(ctx context.Context, before *Result) (*Result, error) {
	known, err := a.load(ctx)
	if err != nil {
		return nil, err
	}
	ask, err := known.admit(before.request)
	if err != nil {
		return nil, err
	}
	if ask.name != before.Authorizer { // the default is another one by now
		if ask, err = known.named(before.request, before.Authorizer); err != nil {
			return nil, err
		}
	}
	res, err := a.ask(ctx, ask, before.request)
	if err != nil {
		return nil, err
	}
	if res.Principal != before.Principal {
		return nil, &RefusedError{Authorizer: res.Authorizer, Reason: ReasonOtherPrincipal}
	}
	res.DisconnectAfter = before.DisconnectAfter
	return res, nil
}

// clone copies all of a request that Result keeps.
func (r *Request) clone() *Request {
	c := *r
	c.Header = r.Header.Clone()
	c.Password = bytes.Clone(r.Password)
	for _, s := range []*string{
		&c.ConnectionID, &c.ServerName, &c.SourceIP, &c.RawQuery, &c.Username, &c.ClientID, &c.DefaultAuthorizer,
		&c.CertificateID, &c.AuthorizerName, &c.Token, &c.Signature,
	} {
		*s = strings.Clone(*s) // may be parts of a packet's buffer
	}
	return &c
}

// inquiry is a request that may be put to an authorizer's function.
type inquiry struct {
	*entry
	token, signature string
	verified         bool
}

// admit finds the authorizer of a request and checks everything that needs no function.
func (s *snapshot) admit(r *Request) (*inquiry, error) {
	src, err := r.source()
	if err != nil {
		return nil, &RefusedError{Reason: ReasonMalformed, Detail: err.Error()}
	}
	name, err := src.or(r.AuthorizerName, nameParameter)
	if err != nil {
		return nil, &RefusedError{Reason: ReasonMalformed, Detail: nameParameter + ": " + err.Error()}
	}
	switch {
	case name == "" && r.DefaultAuthorizer != "":
		name = r.DefaultAuthorizer
	case name == "":
		name = s.byDefault
	case r.DefaultAuthorizer != "" && name != r.DefaultAuthorizer && !r.AllowOverride:
		return nil, &RefusedError{Authorizer: r.DefaultAuthorizer, Reason: ReasonOverride}
	}
	if name == "" {
		return nil, &RefusedError{Reason: ReasonNoAuthorizer}
	}
	return s.named(r, name)
}

// named is admit for an authorizer that is known by name.
func (s *snapshot) named(r *Request, name string) (*inquiry, error) {
	if !validName.MatchString(name) { // not to be shown: it may be anything
		return nil, &RefusedError{Reason: ReasonUnknown}
	}
	e := s.byName[name]
	switch {
	case e == nil:
		return nil, &RefusedError{Authorizer: name, Reason: ReasonUnknown}
	case e.status != iot.AuthorizerStatusActive:
		return nil, &RefusedError{Authorizer: name, Reason: ReasonInactive}
	}
	return e.check(r)
}

// check takes the token out of a request and checks its signature.
func (e *entry) check(r *Request) (*inquiry, error) {
	refuse := func(reason Reason, detail string) (*inquiry, error) {
		return nil, &RefusedError{Authorizer: e.name, Reason: reason, Detail: detail}
	}
	src, err := r.source()
	if err != nil {
		return refuse(ReasonMalformed, err.Error())
	}
	i := &inquiry{entry: e}
	if i.token, err = src.or(r.Token, e.tokenKeyName); err != nil {
		return refuse(ReasonMalformed, e.tokenKeyName+": "+err.Error())
	}
	if i.signature, err = src.or(r.Signature, signatureParameter); err != nil {
		return refuse(ReasonMalformed, signatureParameter+": "+err.Error())
	}
	if e.signingDisabled {
		return i, nil
	}
	switch {
	case i.token == "":
		return refuse(ReasonNoToken, e.tokenKeyName)
	case i.signature == "":
		return refuse(ReasonNoSignature, "")
	case !verify(e.keys, i.token, i.signature):
		return refuse(ReasonBadSignature, "")
	}
	i.verified = true
	return i, nil
}

// ask puts a request to the function.
func (a *Authorizers) ask(ctx context.Context, i *inquiry, r *Request) (*Result, error) {
	ans, err := a.invoke(ctx, i, r, newEvent(r, i.token, i.verified))
	if err != nil {
		return nil, err
	}
	if !ans.authenticated {
		return nil, &RefusedError{Authorizer: i.name, Reason: ReasonNotAuthenticated}
	}
	return &Result{
		Principal: aws.Principal{Type: PrincipalType, ID: ans.principal}, Authorizer: i.name, Policies: ans.policies,
		DisconnectAfter: ans.disconnectAfter, RefreshAfter: ans.refreshAfter, request: r,
	}, nil
}

// invoke calls the function and checks its answer.
func (a *Authorizers) invoke(ctx context.Context, i *inquiry, r *Request, ev *event) (*answer, error) {
	payload, err := ev.marshal()
	if err != nil {
		return nil, err
	}
	refuse := func(reason Reason, err error) (*answer, error) {
		return nil, &RefusedError{i.name, reason, detail(err.Error(), i.secrets(r)...)}
	}
	within, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	text, err := a.functions.Invoke(aws.WithSource(within, a.arn(i.name)), i.functionARN, payload)
	switch {
	case err == nil:
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled):
		return nil, ctx.Err() // the connection has gone
	case errors.Is(err, context.DeadlineExceeded):
		return refuse(ReasonFunctionTimeout, err)
	default:
		return refuse(ReasonFunctionFailed, err)
	}
	ans, err := decodeAnswer(i.name, text)
	if err != nil {
		return refuse(ReasonInvalidAnswer, err)
	}
	return ans, nil
}

// secrets are the parts of a request that must not be shown.
func (i *inquiry) secrets(r *Request) []string {
	out := []string{i.token, i.signature, r.Username, string(r.Password), r.RawQuery}
	for name, values := range r.Header {
		if name != "Host" && !slices.Contains(perRequest, name) {
			out = append(out, values...)
		}
	}
	if src, err := r.source(); err == nil {
		for _, p := range slices.Concat(src.query, src.username) {
			if p.name != nameParameter && !slices.Contains(perRequest, p.name) {
				out = append(out, p.value)
			}
		}
	}
	// The longest first: a secret may be part of another.
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) })
	return out
}
