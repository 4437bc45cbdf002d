package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"flotilla/internal/audit/chain"
	"flotilla/internal/aws"
	"flotilla/internal/aws/wire"
)

// Audit keeps the log of changes.
type Audit interface {
	// Begin returns the context of the operation that e is about: its first write commits together with the record.
	Begin(ctx context.Context, e *chain.Entry) context.Context
	// End completes the record before the answer leaves: e, when the operation has written nothing, else result,
	// unless it is nil. ctx is what Begin returned, or another when it was not called.
	End(ctx context.Context, e, result *chain.Entry) error
	// Later records what became of a change, without waiting.
	Later(e *chain.Entry)
}

const (
	maxAuditJSON = 4 << 10 // of request, before and after each; of larger ones there is size and hash
	deniedEvery  = 100 * time.Millisecond
	deniedBurst  = 200
)

// readingVerbs begin the names of operations that change nothing.
var readingVerbs = []string{"Describe", "Explain", "Get", "Lint", "List", "Search", "Simulate", "Test", "Validate"}

// dataEvents are the actions that handle messages and items of other services: as CloudTrail has it, they are not
// among the changes.
//
// AWS: https://docs.aws.amazon.com/awscloudtrail/latest/userguide/logging-data-events-with-cloudtrail.html
var dataEvents = map[string]bool{
	"lambda:InvokeFunction": true, "sns:Publish": true, "sns:PublishBatch": true, "events:PutEvents": true,
	"dynamodb:PutItem": true, "dynamodb:UpdateItem": true, "dynamodb:DeleteItem": true, "dynamodb:BatchWriteItem": true,
	"dynamodb:BatchGetItem": true, "dynamodb:Query": true, "dynamodb:Scan": true,
	"sqs:SendMessage": true, "sqs:SendMessageBatch": true, "sqs:ReceiveMessage": true, "sqs:DeleteMessage": true,
	"sqs:DeleteMessageBatch": true, "sqs:ChangeMessageVisibility": true, "sqs:ChangeMessageVisibilityBatch": true,
}

// changes tells whether an operation is one of the control plane that changes something.
func (e *endpoint) changes() bool {
	return e.Service != "iotdata" && e.Service != "iot-jobs-data" && !dataEvents[e.action()] && !e.reads()
}

func (e *endpoint) reads() bool {
	return slices.ContainsFunc(readingVerbs, func(verb string) bool { return strings.HasPrefix(e.Name, verb) })
}

// begins are the verbs of operations on something that is there; of others nothing is read before.
var changingVerbs = []string{"Cancel", "Delete", "Deprecate", "Disable", "Enable", "Replace", "Update"}

// readers are the operations that read what others change, where the name does not tell.
var readers = map[string]string{
	"AttachIdentityPolicy": "DescribeIdentity", "DetachIdentityPolicy": "DescribeIdentity", "SetDefaultPolicyVersion": "GetPolicy",
	"DeleteDynamicThingGroup": "DescribeThingGroup", "UpdateDynamicThingGroup": "DescribeThingGroup",
}

// reader is the operation that reads what e changes; nil when there is none with a handler.
func (s *service) reader(e *endpoint) *endpoint {
	fits := func(r *endpoint) bool {
		return r != nil && r.serve != nil && !slices.ContainsFunc(r.labels, func(l string) bool { return !slices.Contains(e.labels, l) })
	}
	if r := s.byName[readers[e.Name]]; fits(r) {
		return r
	}
	for _, verb := range changingVerbs {
		noun, ok := strings.CutPrefix(e.Name, verb)
		if !ok {
			continue
		}
		for _, prefix := range []string{"Describe", "Get"} {
			if r := s.byName[prefix+noun]; fits(r) {
				return r
			}
		}
	}
	return nil
}

// state reads what the operation is about, without secrets; nil when it is not there or can't be read.
func (x *exchange) state(ctx context.Context, r *endpoint) json.RawMessage {
	in := wire.Request{Query: nil, Header: http.Header{}}
	for _, name := range r.labels {
		in.Labels = append(in.Labels, x.labels[slices.Index(x.endpoint.labels, name)])
	}
	out := wire.Response{Status: http.StatusOK}
	if err := r.serve(ctx, &in, &out); err != nil {
		return nil
	}
	return masked(r.Name, out.Body)
}

// record is an operation on its way into the log of changes.
type record struct {
	entry  *chain.Entry
	ctx    context.Context // of the operation
	reader *endpoint       // nil: nothing reads what is changed
}

// entry says who asks for what.
func (x *exchange) entry(kind string, p aws.Principal) *chain.Entry {
	return &chain.Entry{
		Kind: kind, Time: x.start.UTC().Format(time.RFC3339Nano), RequestID: x.id, Principal: p.ARN, AccessKeyID: p.ID,
		SourceIP: x.sourceIP(), UserAgent: printable(x.r.UserAgent()), Service: x.endpoint.Service, Operation: x.endpoint.Name,
		Resources: x.named, Outcome: "ok", Request: masked(x.endpoint.Name, x.body),
	}
}

// audit begins the record of an operation; nil when it is not recorded.
func (x *exchange) audit(ctx context.Context, p aws.Principal) *record {
	e := x.endpoint
	if x.s.auditor == nil || !e.changes() && !(x.s.auditReads && e.reads()) {
		return nil
	}
	r := &record{}
	if !e.changes() {
		r.entry, r.ctx = x.entry(chain.KindRead, p), ctx
		return r
	}
	r.entry = x.entry(chain.KindChange, p)
	if r.reader = x.service.reader(e); r.reader != nil {
		r.entry.Before = x.state(ctx, r.reader)
	}
	r.ctx = x.s.auditor.Begin(ctx, r.entry)
	return r
}

// finish completes the record of an operation that gave body or err.
func (x *exchange) finish(ctx context.Context, r *record, body []byte, err error) error {
	result := *r.entry
	result.Kind, result.Request, result.Before = chain.KindResult, nil, nil
	if err != nil {
		code, message := "InternalFailureException", ""
		if exc, ok := errors.AsType[aws.Exception](err); ok {
			code, message = exc.ErrorCode(), exc.Error()
		}
		for _, e := range []*chain.Entry{r.entry, &result} {
			e.Outcome, e.Code, e.Message = "failed", code, bounded(message)
		}
		return x.s.auditor.End(r.ctx, r.entry, &result)
	}
	if r.entry.Kind == chain.KindChange && (x.service == x.s.byScope["flotilla"] || len(x.endpoint.labels) == 0) {
		// The answer says what was made.
		result.Response = masked(x.endpoint.Name, body)
		return x.s.auditor.End(r.ctx, r.entry, &result)
	}
	if err := x.s.auditor.End(r.ctx, r.entry, nil); err != nil {
		return err
	}
	if r.reader != nil && !strings.HasPrefix(x.endpoint.Name, "Delete") {
		if result.After = x.state(ctx, r.reader); result.After != nil {
			x.s.auditor.Later(&result)
		}
	}
	return nil
}

func bounded(s string) string {
	const most = 1024
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "")
	}
	return s
}

// refusals bounds how many attempts of who may not are recorded.
type refusals struct {
	limit      *rate.Limiter
	mu         sync.Mutex
	suppressed int64
}

// recordDenied records an attempt of who may not.
func (x *exchange) recordDenied(p aws.Principal, denied error) {
	exc, ok := errors.AsType[*aws.CommonError](denied)
	if x.s.auditor == nil || !ok || exc.Status != http.StatusForbidden {
		return
	}
	r := &x.s.denials
	r.mu.Lock()
	if !r.limit.Allow() {
		r.suppressed++
		r.mu.Unlock()
		return
	}
	missed := r.suppressed
	r.suppressed = 0
	r.mu.Unlock()
	e := x.entry(chain.KindDenied, p)
	e.Outcome, e.Code, e.Message, e.Suppressed = "denied", exc.Code, bounded(exc.Message), missed
	if x.endpoint.Service == "iotdata" || x.endpoint.Service == "iot-jobs-data" || dataEvents[x.endpoint.action()] || x.endpoint.action() == "dynamodb:GetItem" {
		e.Request = nil // messages of devices, and items
	}
	if err := x.s.auditor.End(x.r.Context(), e, nil); err != nil {
		x.s.log.Error("a denied request can't be recorded", "requestId", x.id, "err", err)
	}
}

// masked is a JSON text without secrets, or its size and hash when it is too large; nil when it is empty or no JSON.
func masked(operation string, text []byte) json.RawMessage {
	if len(text) == 0 || string(text) == "{}" {
		return nil
	}
	var v any
	if json.Unmarshal(text, &v) != nil {
		return nil
	}
	mask(v, strings.Contains(operation, "Package"))
	out, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	if len(out) > maxAuditJSON {
		sum := sha256.Sum256(text)
		out, _ = json.Marshal(map[string]any{"omitted": true, "bytes": len(text), "sha256": hex.EncodeToString(sum[:])})
	}
	return out
}

const maskText = "***"

// mask replaces secrets within a decoded JSON value. What the models call sensitive is among them (of software
// packages: attributes, description and recipe), and what by its name should be.
func mask(v any, ofPackage bool) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			mask(one, ofPackage)
		}
	case map[string]any:
		for name, one := range v {
			if isSecret(name) || ofPackage && (name == "attributes" || name == "description" || name == "recipe") {
				v[name] = maskText
				continue
			}
			mask(one, ofPackage)
		}
	}
}

// isSecret tells whether a member of this name may hold a secret.
func isSecret(name string) bool {
	lower := strings.ToLower(name)
	switch lower {
	case "token", "tokenvalue", "tokensignature", "certificateownershiptoken", "headers", "zipfile", "variables", "payload", "connectivityapithingname":
		return true
	}
	for _, part := range []string{"privatekey", "secret", "password", "passphrase", "credential", "keystore"} {
		if strings.Contains(lower, part) {
			return true
		}
	}
	return false
}
