package provision

import (
	"context"
	"math"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"flotilla/internal/aws/flotilla"
	"flotilla/internal/store"
)

// defaultAttempts is how many attempts ExplainProvisioning gives unless asked for another number.
const defaultAttempts = 20

// attempt begins one.
func (t *Templates) attempt(flow, operation string) *attempt {
	return &attempt{now: t.Now, started: t.Now(), flow: flow, operation: operation, outcome: outcomeAccepted, steps: make([]step, 0, 12)}
}

// over keeps an attempt that ended with err.
func (t *Templates) over(a *attempt, err error) {
	if a.err = err; err != nil {
		a.outcome = outcomeRejected
	}
	t.journal.add(a)
}

// Denial is what the gateway refused to a client on a topic of the device provisioning API.
type Denial struct {
	ClientID, PrincipalID string
	Action                string // iot:Publish, iot:Subscribe or iot:Receive
	Topic                 string // name or filter
	Reason                string
	Policy                string // that has a statement which denies it, "" when none allows it
}

// Concerns tells whether a topic name or filter is one of the device provisioning API.
func Concerns(topic string) bool {
	return strings.HasPrefix(topic, "$aws/certificates/") || strings.HasPrefix(topic, "$aws/provisioning-templates/")
}

// Denied keeps a denial for explanations, with the statement that is missing. It does not block.
func (t *Templates) Denied(d Denial) {
	a := t.attempt(flowClaim, d.Action)
	a.outcome, a.clientID, a.principal, a.certificateID = outcomeDenied, d.ClientID, d.PrincipalID, d.PrincipalID
	if part := strings.Split(d.Topic, "/"); part[0] == "$aws" && len(part) > 2 && part[1] == "provisioning-templates" {
		a.template = part[2]
	}
	a.begin("policy", d.Policy)
	a.neededPolicy = t.needed(d)
	a.err = &rejection{403, "", "", d.Reason + ": " + d.Action + " on " + d.Topic}
	t.journal.add(a)
}

// needed is the statement that a policy of the client's principal must have.
func (t *Templates) needed(d Denial) string {
	kind := "topic/"
	if d.Action == "iot:Subscribe" {
		kind = "topicfilter/"
	}
	text, err := json.Marshal(struct {
		Effect   string
		Action   string
		Resource string
	}{"Allow", d.Action, t.Account.ARN("iot", kind+clip(d.Topic, maxText))})
	if err != nil {
		return ""
	}
	return string(text)
}

// ExplainProvisioning tells what became of the attempts to provision a device, the oldest first. The key is a client
// id, a certificate id, a thing's name or a serial number. Attempts of other nodes appear within a second.
func (t *Templates) ExplainProvisioning(ctx context.Context, in *flotilla.ExplainProvisioningRequest) (*flotilla.ExplainProvisioningResponse, error) {
	if err := t.journal.flush(ctx); err != nil {
		return nil, err
	}
	limit := defaultAttempts
	if in.MaxResults != nil {
		limit = int(*in.MaxResults)
	}
	out := &flotilla.ExplainProvisioningResponse{Key: &in.Key}
	err := t.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		out.Attempts, err = t.attempts(tx, in.Key, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(out.Attempts, func(a, b *flotilla.ProvisioningAttempt) int { return a.Time.Compare(b.Time.Time) })
	out.Attempts = out.Attempts[max(0, len(out.Attempts)-limit):]
	return out, nil
}

// attempts reads what is known of a key: of each kind the newest, those of a millisecond in their order.
func (t *Templates) attempts(tx store.Tx, key string, limit int) (out []*flotilla.ProvisioningAttempt, err error) {
	tokens, err := selectTokensOf(tx, key, limit)
	if err != nil {
		return nil, err
	}
	for i := range tokens {
		out = append(out, t.unused(&tokens[i], outcomePending).record())
	}
	rows, err := selectAttempts(tx, key, limit)
	if err != nil {
		return nil, err
	}
	slices.Reverse(rows)
	for i := range rows {
		a := &flotilla.ProvisioningAttempt{}
		if err := json.Unmarshal([]byte(rows[i].detail), a); err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	successes, err := successesOf(tx, key, limit)
	slices.Reverse(successes)
	return append(out, successes...), err
}

// successPage is how many rows of attempts that ended well are read at once.
const successPage = 100

// successesOf looks the newest attempts that ended well through for a key, the newest first.
func successesOf(tx store.Tx, key string, limit int) (out []*flotilla.ProvisioningAttempt, err error) {
	quoted, err := json.Marshal(key)
	if err != nil {
		return nil, nil // not UTF-8: nothing has it
	}
	for before, more := int64(math.MaxInt64), true; more && len(out) < limit; {
		rows, err := selectSuccesses(tx, before, successPage)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			before = r.id
			if !strings.Contains(r.detail, string(quoted)) {
				continue
			}
			var list []*flotilla.ProvisioningAttempt
			if err := json.Unmarshal([]byte(r.detail), &list); err != nil {
				return nil, err
			}
			for _, a := range slices.Backward(list) {
				if key == value(a.ClientId) || key == value(a.CertificateId) || key == value(a.ThingName) || key == value(a.Serial) {
					out = append(out, a)
				}
			}
		}
		more = len(rows) == successPage
	}
	return out, nil
}
