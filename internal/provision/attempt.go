package provision

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/flotilla"
)

// The flows that lead to an attempt.
const (
	flowClaim = "claim"         // over MQTT
	flowAPI   = "RegisterThing" // over HTTP
	flowJITP  = "JITP"          // at the first connect
	flowBulk  = "bulk"          // a line of a bulk registration
)

// The outcomes of an attempt.
const (
	outcomeAccepted = "accepted"
	outcomeRejected = "rejected"
	outcomeDenied   = "denied"  // by a policy, before it came here
	outcomePending  = "pending" // a certificate was given and not used yet
	outcomeExpired  = "expired" // it never was
)

// attempt is what happened to a request to be provisioned. It is filled by who serves the request, and turned into
// what an operator may see when it is kept.
type attempt struct {
	now     func() time.Time
	started time.Time

	flow, operation, outcome           string
	clientID, principal, certificateID string
	thing, template                    string
	version                            int64
	parameters                         map[string]string // as they came
	neededPolicy                       string
	steps                              []step
	err                                error
	repeats                            int32
}

// step is one thing that was done for an attempt, or tried: then it has no result.
type step struct {
	name, subject, result, detail string
	values                        map[string]string // rendered as the detail
	after                         time.Duration
}

// begin adds a step that is to be done with something.
func (a *attempt) begin(name, subject string) {
	if a == nil {
		return
	}
	if len(a.steps) >= maxSteps { // the last one is what matters
		a.steps = a.steps[:maxSteps-1]
	}
	a.steps = append(a.steps, step{name: name, subject: subject, after: a.now().Sub(a.started)})
}

// done gives the step that was begun last its result.
func (a *attempt) done(result string) {
	if a == nil || len(a.steps) == 0 {
		return
	}
	a.steps[len(a.steps)-1].result = result
}

// subject names what the last step is about, when that was not known before.
func (a *attempt) subject(text string) {
	if a != nil && len(a.steps) > 0 {
		a.steps[len(a.steps)-1].subject = text
	}
}

// overridden is done for a hook that allowed the attempt.
func (a *attempt) overridden(values map[string]string, took time.Duration) {
	a.done("allowed in " + took.Round(time.Millisecond).String())
	if a != nil && len(a.steps) > 0 {
		a.steps[len(a.steps)-1].values = values
	}
}

// issued tells of the certificate that a token stands for.
func (a *attempt) issued(k *token) {
	result := "valid; the certificate was given with keys"
	if k.withCSR {
		result = "valid; the certificate was made from a CSR"
	}
	a.done(result)
}

// made tells what came out.
func (a *attempt) made(out *outcome) {
	if a == nil {
		return
	}
	a.thing = out.thing
	if a.certificateID == "" {
		a.certificateID = out.certificateID
	}
}

// mark and back let a transaction that runs again begin anew.
func (a *attempt) mark() int {
	if a == nil {
		return 0
	}
	return len(a.steps)
}

func (a *attempt) back(mark int) {
	if a != nil {
		a.steps = a.steps[:mark]
	}
}

// Bounds of what is kept of an attempt, in bytes and numbers.
const (
	maxSteps       = 40
	maxShown       = 24 // parameters
	maxShownName   = 64
	maxShownValue  = 128
	maxText        = 256
	maxRecord      = 8 << 10
	minSecretBytes = 4 // shorter ones would black out half the text
)

const masked = "***"

// secretWords in the name of a parameter make its value a secret.
var secretWords = []string{"secret", "pass", "pwd", "token", "credential", "private", "key", "auth", "psk"}

// isSecret tells whether the value of a parameter must not be shown.
func isSecret(name, value string) bool {
	lower := strings.ToLower(name)
	if lower == "pin" || strings.Contains(value, "PRIVATE KEY") {
		return true
	}
	return slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(lower, w) })
}

// serialOf is the value of the parameter that is called a serial number, "" without one.
func serialOf(parameters map[string]string) string {
	found, value := "", ""
	for name, v := range parameters {
		if !strings.Contains(strings.ToLower(name), "serial") || isSecret(name, v) || v == "" || len(v) > maxShownValue {
			continue
		}
		if found == "" || name < found {
			found, value = name, v
		}
	}
	return value
}

// record is the attempt as it is kept and shown.
func (a *attempt) record() *flotilla.ProvisioningAttempt {
	hide := a.hider()
	out := &flotilla.ProvisioningAttempt{
		Time: &aws.Time{Time: a.started.UTC()}, Flow: &a.flow, Operation: &a.operation, Outcome: &a.outcome,
		NeededPolicy: optional(a.neededPolicy), ClientId: optional(clip(a.clientID, maxText)), Principal: optional(clip(a.principal, maxText)),
		CertificateId: optional(a.certificateID), ThingName: optional(clip(a.thing, maxText)), Serial: optional(serialOf(a.parameters)),
		TemplateName: optional(clip(a.template, maxText)), Parameters: shown(a.parameters),
	}
	if a.version > 0 {
		out.TemplateVersion = &a.version
	}
	if a.repeats > 0 {
		out.Repeats = &a.repeats
	}
	if a.err != nil {
		p, _ := rejected(a.err)
		out.StatusCode, out.ErrorCode, out.Message = new(int32(p.StatusCode)), optional(p.ErrorCode), optional(hide(p.ErrorMessage))
		out.Reason = optional(hide(reason(a.err)))
	}
	for i := range a.steps {
		out.Steps = append(out.Steps, a.steps[i].record(hide))
	}
	if k := len(out.Steps) - 1; k >= 0 && a.err != nil && out.Steps[k].Result == nil {
		out.Steps[k].Failed, out.Steps[k].Result = new(true), new("failed")
	}
	return out
}

func (s *step) record(hide func(string) string) *flotilla.ProvisioningStep {
	out := &flotilla.ProvisioningStep{
		Name: &s.name, Subject: optional(hide(s.subject)), Result: optional(hide(s.result)), Milliseconds: new(s.after.Milliseconds()),
	}
	detail := s.detail
	if len(s.values) > 0 {
		var b strings.Builder
		values := shown(s.values)
		for i, name := range slices.Sorted(maps.Keys(values)) {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(name + "=" + values[name])
		}
		detail = b.String()
	}
	out.Detail = optional(hide(detail))
	return out
}

// hider gives the function that takes the values of secret parameters out of a text, and bounds it.
func (a *attempt) hider() func(string) string {
	var secrets []string
	note := func(values map[string]string) {
		for name, v := range values {
			if len(v) >= minSecretBytes && isSecret(name, v) {
				secrets = append(secrets, v)
			}
		}
	}
	note(a.parameters)
	for i := range a.steps {
		note(a.steps[i].values)
	}
	return func(s string) string {
		for _, secret := range secrets {
			s = strings.ReplaceAll(s, secret, masked)
			if len(secret) > maxQuoted { // an error quotes no more of it
				s = strings.ReplaceAll(s, secret[:maxQuoted], masked)
			}
		}
		return clip(s, maxText)
	}
}

// maxQuoted is how much of a value package template quotes in an error.
const maxQuoted = 140

// shown are parameters as an operator may see them.
func shown(parameters map[string]string) map[string]string {
	if len(parameters) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(parameters))
	out := make(map[string]string, min(len(names), maxShown))
	for _, name := range names[:min(len(names), maxShown)] {
		v := parameters[name]
		if isSecret(name, v) {
			v = masked
		}
		out[clip(name, maxShownName)] = clip(v, maxShownValue)
	}
	return out
}

// clip bounds a text and makes it fit for a terminal and for SQL: no control characters, valid UTF-8.
func clip(s string, limit int) string {
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	clean := func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }
	if strings.IndexFunc(s, clean) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if clean(r) {
			return ' '
		}
		return r
	}, s)
}

// reason is what only the operator hears of a refusal.
func reason(err error) string {
	var r *rejection
	if errors.As(err, &r) {
		return r.why
	}
	if p, internal := rejected(err); internal && p.ErrorMessage != err.Error() {
		return err.Error()
	}
	return ""
}
