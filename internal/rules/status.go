package rules

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/flotilla"
)

// AskStatus is the name of the question that AnswerStatus answers to other nodes.
const AskStatus = "rules.status"

// Bounds of what a node tells of its actions.
const (
	maxStatuses      = 1000
	maxStatusMessage = 500
)

// Failure is when something last went wrong, and how.
type Failure struct {
	At      time.Time `json:"at"`
	Message string    `json:"message"`
}

// ActionStatus is how an action of a rule gets on, on this node.
type ActionStatus struct {
	Rule string `json:"rule"`
	// ID identifies the action; it changes with its definition.
	ID string `json:"id"`
	// Action is its kind, such as kinesis.
	Action string `json:"action"`
	// Position is its place in the rule's actions, from 0; -1 is the error action.
	Position int `json:"position"`
	// Retired tells that the rule does not have it any more: it finishes what it owes.
	Retired bool `json:"retired,omitempty"`
	// Rows and Bytes wait for it.
	Rows  int64 `json:"rows"`
	Bytes int64 `json:"bytes"`
	// Attempts have failed since the last that succeeded.
	Attempts int `json:"failedAttempts"`
	// LastFailure is nil when no attempt has failed since the start.
	LastFailure *Failure `json:"lastFailure,omitempty"`
}

// Status tells of all actions, by rule and position.
func (e *Engine) Status() []ActionStatus {
	e.queuesMu.Lock()
	out := make([]ActionStatus, 0, len(e.queues))
	for _, q := range e.queues {
		out = append(out, q.status())
	}
	e.queuesMu.Unlock()
	slices.SortFunc(out, func(a, b ActionStatus) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Position, b.Position), cmp.Compare(a.ID, b.ID))
	})
	return out
}

func (q *queue) status() ActionStatus {
	s := ActionStatus{
		Rule: q.rule, ID: strconv.FormatInt(q.id, 10), Action: q.kind, Position: q.position,
		Retired: q.retired.Load() > 0, Rows: q.rows.Load(), Bytes: q.bytes.Load(), LastFailure: q.last.Load(),
	}
	s.Attempts = int(q.attempts.Load())
	return s
}

// statusQuestion is what a node asks the others; Rule "" are all rules.
type statusQuestion struct {
	Rule string `json:"rule,omitempty"`
}

// nodeStatus is what a node answers.
type nodeStatus struct {
	Actions []ActionStatus `json:"actions"`
	Omitted int            `json:"omitted,omitempty"` // left out for their number
}

// AnswerStatus answers another node's AskStatus.
func (e *Engine) AnswerStatus(_ context.Context, question []byte) ([]byte, error) {
	var q statusQuestion
	if err := json.Unmarshal(question, &q); err != nil {
		return nil, fmt.Errorf("rules: a question: %w", err)
	}
	return json.Marshal(e.statusHere(q.Rule))
}

// statusHere is the status of a rule's actions on this node, or of all, without retired ones that owe nothing. When
// there are too many, those that most waits for are told.
func (e *Engine) statusHere(rule string) nodeStatus {
	s := nodeStatus{Actions: slices.DeleteFunc(e.Status(), func(a ActionStatus) bool {
		return rule != "" && a.Rule != rule || a.Retired && a.Rows == 0
	})}
	if s.Omitted = max(0, len(s.Actions)-maxStatuses); s.Omitted > 0 {
		slices.SortStableFunc(s.Actions, func(a, b ActionStatus) int { return cmp.Compare(b.Rows, a.Rows) })
		s.Actions = s.Actions[:maxStatuses]
	}
	for i := range s.Actions {
		if f := s.Actions[i].LastFailure; f != nil && len(f.Message) > maxStatusMessage {
			s.Actions[i].LastFailure = &Failure{f.At, strings.ToValidUTF8(f.Message[:maxStatusMessage], "") + "…"}
		}
	}
	return s
}

// DescribeRuleStatus tells of the actions of a rule, or of all rules, how much waits for each on each node and what
// last went wrong: by rule, position and node. Nodes that do not answer in time are named: what waits there is missing.
func (e *Engine) DescribeRuleStatus(ctx context.Context, in *flotilla.DescribeRuleStatusRequest) (*flotilla.DescribeRuleStatusResponse, error) {
	q := statusQuestion{}
	if in.RuleName != nil {
		q.Rule = *in.RuleName
	}
	here := e.d.Bus.NodeID()
	out := &flotilla.DescribeRuleStatusResponse{NodeId: &here, OmittedActions: new(int32(0))}
	add := func(node string, s nodeStatus) {
		*out.OmittedActions += int32(s.Omitted)
		for i := range s.Actions {
			out.Actions = append(out.Actions, s.Actions[i].shown(node))
		}
	}
	add(here, e.statusHere(q.Rule))
	if e.d.Nodes != nil {
		question, err := json.Marshal(q)
		if err != nil {
			return nil, err
		}
		answers, silent := e.d.Nodes.AskOthers(ctx, AskStatus, question)
		for node, answer := range answers {
			var s nodeStatus
			if err := json.Unmarshal(answer, &s); err != nil {
				e.log.Warn("rules: a node's answer can't be read", "node", node, "err", err)
				silent = append(silent, node)
				continue
			}
			add(node, s)
		}
		slices.Sort(silent)
		out.UnansweredNodes = silent
	}
	slices.SortFunc(out.Actions, func(a, b *flotilla.RuleActionStatus) int {
		return cmp.Or(cmp.Compare(*a.RuleName, *b.RuleName), cmp.Compare(*a.Position, *b.Position), cmp.Compare(*a.ActionId, *b.ActionId), cmp.Compare(*a.NodeId, *b.NodeId))
	})
	return out, nil
}

// shown is the status as operators get it.
func (a *ActionStatus) shown(node string) *flotilla.RuleActionStatus {
	out := &flotilla.RuleActionStatus{
		RuleName: &a.Rule, Action: &a.Action, ActionId: &a.ID, Position: new(int32(a.Position)), NodeId: &node, Retired: &a.Retired,
		BacklogRows: &a.Rows, BacklogBytes: &a.Bytes, FailedAttempts: new(int32(a.Attempts)),
	}
	if f := a.LastFailure; f != nil {
		out.LastError, out.LastErrorTime = &f.Message, &aws.Time{Time: f.At.UTC()}
	}
	return out
}
