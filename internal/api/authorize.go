package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"flotilla/internal/aws"
	"flotilla/internal/policy/lang"
)

// Permissions decide what holders of access keys may do.
type Permissions interface {
	// Authorize decides by the policies of the key's identity. resource is an ARN or "*"; conn, which says what else
	// policies may ask of the request, is not kept.
	Authorize(ctx context.Context, p aws.Principal, action, resource string, conn *lang.Connection) (lang.Decision, error)
}

// nothing allows nothing.
type nothing struct{}

func (nothing) Authorize(context.Context, aws.Principal, string, string, *lang.Connection) (lang.Decision, error) {
	return lang.Decision{}, nil
}

// actionPrefixes are those of services whose name in signatures is another.
//
// AWS: https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
var actionPrefixes = map[string]string{"iotdata": "iot", "iot-jobs-data": "iotjobsdata"}

// actions are those that are not named as their operation.
var actions = map[string]string{
	"lambda Invoke": "lambda:InvokeFunction", "lambda InvokeAsync": "lambda:InvokeFunction",
	"iot-jobs-data StartCommandExecution": "iot:StartCommandExecution",
}

// action is what policies call the operation.
func (e *endpoint) action() string {
	if a := actions[e.Service+" "+e.Name]; a != "" {
		return a
	}
	prefix := actionPrefixes[e.Service]
	if prefix == "" {
		prefix = e.Service
	}
	return prefix + ":" + e.Name
}

// authorize decides whether the signer of a request may do what it asks for. Of an operation on several resources,
// each must be allowed.
func (x *exchange) authorize(p aws.Principal, region string) error {
	if x.endpoint.Service == "sts" {
		return nil // no policy can deny it
	}
	resources, err := x.resources()
	if err != nil {
		return err
	}
	x.named = resources
	needs := make([]need, 0, 2)
	action := x.endpoint.action()
	for _, r := range resources {
		needs = append(needs, need{action, r})
		if action == "iot:Publish" && retains(x) {
			needs = append(needs, need{"iot:RetainPublish", r})
		}
	}
	a := asked{x: x, region: region}
	conn := &lang.Connection{Protocol: "http", SourceIP: x.sourceIP(), Time: x.start, Lookup: a.lookup}
	for _, n := range needs {
		d, err := x.s.permissions.Authorize(x.r.Context(), p, n.action, n.resource, conn)
		switch {
		case err != nil:
			return fmt.Errorf("api: permissions: %w", err)
		case a.err != nil:
			return a.err
		case !d.Allowed():
			x.s.log.Info("an API request is denied", "principal", p.ARN, "op", x.op(), "requestId", x.id, "action", n.action, "resource", n.resource, "effect", d.Effect, "policy", d.Policy)
			return x.denied(p, n, d)
		}
	}
	return nil
}

// denied is the answer to who may not. Who has signed is told why, as AWS does.
//
// AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
func (x *exchange) denied(p aws.Principal, n need, d lang.Decision) error {
	reason := "because no identity-based policy allows the " + n.action + " action"
	if d.Effect == lang.ExplicitDeny {
		reason = "with an explicit deny in an identity-based policy"
	}
	code := "AccessDeniedException"
	if x.endpoint.Service == "iotdata" {
		code = "ForbiddenException"
	}
	return &aws.CommonError{
		Status: http.StatusForbidden, Code: code,
		Message: "User: " + p.ARN + " is not authorized to perform: " + n.action + " on resource: " + n.resource + " " + reason,
	}
}

// asked answers what policies ask about a request. err is set when the request can't be understood.
//
// AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
type asked struct {
	x      *exchange
	region string // that the request was signed for
	tags   url.Values
	err    error
}

func (a *asked) lookup(key string) []string {
	switch key {
	case "aws:securetransport":
		if a.x.r.TLS != nil {
			return []string{"true"}
		}
		return []string{"false"}
	case "aws:useragent":
		if agent := a.x.r.UserAgent(); agent != "" {
			return []string{agent}
		}
		return nil
	case "aws:requestedregion":
		return []string{a.region}
	case "aws:tagkeys":
		var keys []string
		for k := range a.requestTags() {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		return keys
	}
	if name, ok := strings.CutPrefix(key, "aws:requesttag/"); ok {
		var values []string
		for k, v := range a.requestTags() {
			if strings.EqualFold(k, name) {
				values = append(values, v...)
			}
		}
		return values
	}
	if name, ok := strings.CutPrefix(key, "flotilla:request/"); ok {
		for i, label := range a.x.endpoint.labels {
			if strings.EqualFold(label, name) {
				return []string{a.x.labels[i]}
			}
		}
	}
	return nil
}

// requestTags are the tags that a request gives: a list of {Key, Value} or an object in the member tags, or the
// header X-Amz-Tagging.
func (a *asked) requestTags() url.Values {
	if a.tags != nil || a.err != nil {
		return a.tags
	}
	a.tags = url.Values{}
	for _, h := range a.x.r.Header["X-Amz-Tagging"] {
		q, err := url.ParseQuery(h)
		if err != nil {
			a.err = errBody
			return nil
		}
		for k, v := range q {
			a.tags[k] = append(a.tags[k], v...)
		}
	}
	members, err := a.x.members()
	if err != nil {
		if a.x.endpoint.Service == "iot" || a.x.endpoint.Service == "flotilla" {
			a.err = err
		}
		return a.tags
	}
	for _, name := range []string{"tags", "tagList", "Tags"} {
		if raw := members[name]; raw != nil && !a.addTags(raw) {
			a.err = errBody
		}
	}
	return a.tags
}

func (a *asked) addTags(raw jsontext.Value) bool {
	texts := func(raw jsontext.Value) (map[string]string, bool) {
		out := map[string]string{}
		d := jsontext.NewDecoder(strings.NewReader(string(raw)))
		if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
			return nil, false
		}
		for d.PeekKind() != '}' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, false
			}
			k := name.String()
			value, err := d.ReadToken()
			if err != nil || value.Kind() != '"' && value.Kind() != 'n' {
				return nil, false
			}
			if value.Kind() == '"' {
				out[k] = value.String()
			}
		}
		return out, true
	}
	switch raw.Kind() {
	case 'n':
		return true
	case '{':
		tags, ok := texts(raw)
		for k, v := range tags {
			a.tags.Add(k, v)
		}
		return ok
	case '[':
	default:
		return false
	}
	d := jsontext.NewDecoder(strings.NewReader(string(raw)))
	_, _ = d.ReadToken()
	for d.PeekKind() != ']' {
		one, err := d.ReadValue()
		if err != nil {
			return false
		}
		tag, ok := texts(one)
		if !ok {
			return false
		}
		a.tags.Add(tag["Key"], tag["Value"])
	}
	return true
}
