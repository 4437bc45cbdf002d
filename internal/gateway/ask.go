package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"flotilla/internal/aws/iotdata"
	"flotilla/internal/gateway/mesh"
)

// askTimeout is how long a node waits for what others know; they are known to be gone
// after about the same time.
const askTimeout = 3 * time.Second

// question is what one node asks another, as JSON. Nodes of the next version may ask what this one does not
// know: then it says so.
type question struct {
	Op       string `json:"op"`
	ClientID string `json:"clientId"`

	// Of "subscriptions": filters behind After, at most Limit.
	After string `json:"after,omitempty"`
	Limit int    `json:"limit,omitempty"`
	// Of "disconnect".
	KeepsWill bool `json:"keepsWill,omitempty"`
	Wipe      bool `json:"wipe,omitempty"`
	// Of "direct": the message as bytes, and for how long its PUBACK is waited for; 0 not at all.
	Message []byte        `json:"message,omitempty"`
	Wait    time.Duration `json:"wait,omitempty"`
	// Of a question of another room, which is JSON.
	Body json.RawMessage `json:"body,omitempty"`
}

// What a node may be asked.
const (
	askConnection    = "connection"    // connectionState
	askSubscriptions = "subscriptions" // subscriptionPage
	askDisconnect    = "disconnect"    // disconnection
	askDirect        = "direct"        // directResult
	askRefusals      = "refusals"      // refusals
)

// answerPeer answers another node's question about this node's clients.
func (g *Gateway) answerPeer(ctx context.Context, b []byte) ([]byte, error) {
	var q question
	if err := json.Unmarshal(b, &q); err != nil {
		return nil, fmt.Errorf("gateway: a question: %w", err)
	}
	var answer any
	var err error
	switch q.Op {
	case askConnection:
		answer = g.connectionHere(q.ClientID)
	case askSubscriptions:
		answer = g.subscriptionsHere(q.ClientID, q.After, q.Limit)
	case askDisconnect:
		answer, err = g.disconnectHere(ctx, &q)
	case askDirect:
		answer, err = g.directFromPeer(ctx, &q)
	case askRefusals:
		answer = g.refusalsHere(q.ClientID)
	default:
		if asked := g.asked[q.Op]; asked != nil {
			return asked(ctx, q.Body)
		}
		return nil, fmt.Errorf("gateway: a question that this version does not know: %.64q", q.Op)
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}

// askPeer puts a question to one node.
func askPeer[A any](ctx context.Context, g *Gateway, p *mesh.Peer, q *question) (*A, error) {
	b, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	if b, err = g.mesh.Ask(ctx, p, b); err != nil {
		return nil, err
	}
	answer := new(A)
	if err := json.Unmarshal(b, answer); err != nil {
		return nil, fmt.Errorf("gateway: the answer of %s: %w", p.ID(), err)
	}
	return answer, nil
}

// fromPeer is one node's answer.
type fromPeer[A any] struct {
	peer   *mesh.Peer
	answer *A
}

// askAll puts a question to all other nodes at once. silent are those that have not answered in time; a node
// that is gone holds nothing, and is not among them.
func askAll[A any](ctx context.Context, g *Gateway, q *question) (answers []fromPeer[A], silent []string) {
	if g.mesh == nil || g.mesh.Alone() {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	peers := g.mesh.Peers()
	got, errs := make([]*A, len(peers)), make([]error, len(peers))
	var all sync.WaitGroup
	for i, p := range peers {
		all.Go(func() { got[i], errs[i] = askPeer[A](ctx, g, p, q) })
	}
	all.Wait()
	for i, p := range peers {
		switch {
		case errs[i] == nil:
			answers = append(answers, fromPeer[A]{p, got[i]})
		case !errors.Is(errs[i], mesh.ErrGone):
			g.log.Warn("another node does not answer", "node", p.ID(), "op", q.Op, "clientId", q.ClientID, "err", errs[i])
			silent = append(silent, p.ID())
		}
	}
	return answers, silent
}

// AskOthers puts a question of another room, JSON, to all other nodes at once: they answer it by the function that
// Deps.Asked has under the question's name. The answers are by node; silent are the nodes that have not answered in
// time, or do not know the question.
func (g *Gateway) AskOthers(ctx context.Context, name string, body []byte) (answers map[string][]byte, silent []string) {
	got, silent := askAll[json.RawMessage](ctx, g, &question{Op: name, Body: body})
	answers = make(map[string][]byte, len(got))
	for _, a := range got {
		answers[a.peer.ID()] = *a.answer
	}
	return answers, silent
}

// unanswered is the error for what can't be said without nodes that do not answer.
func unanswered(silent []string) error {
	return &iotdata.ServiceUnavailableException{Message: "These nodes do not answer: " + strings.Join(silent, ", ")}
}
