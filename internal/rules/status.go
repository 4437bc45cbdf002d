package rules

import (
	"cmp"
	"slices"
	"strconv"
	"time"
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
