package gateway

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/google/uuid"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/gateway/codec"
	"flotilla/internal/gateway/mesh"
	"flotilla/internal/mqtt"
)

// confirmations are direct messages that wait for their PUBACK, by a number below clean,
// which stands for them among the unacknowledged messages of the connection.
type confirmations struct {
	mu      sync.Mutex
	last    int64
	waiting map[int64]chan struct{}
}

func (w *confirmations) add() (number int64, acked <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting == nil {
		w.waiting, w.last = map[int64]chan struct{}{}, clean
	}
	w.last--
	done := make(chan struct{})
	w.waiting[w.last] = done
	return w.last, done
}

func (w *confirmations) remove(number int64) (done chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	done = w.waiting[number]
	delete(w.waiting, number)
	return done
}

// acked tells who waits that the client has the message.
func (w *confirmations) acked(number int64) {
	if done := w.remove(number); done != nil {
		close(done)
	}
}

const defaultConfirmation = 5 * time.Second

// SendDirectMessage sends a message to one client that is connected, to whichever node, whether it
// has subscribed or not; its policy must allow iot:Receive. With confirmation the message has
// QoS 1 and the answer waits for the PUBACK, 5 s unless timeout (1-15 s) says otherwise. Rules
// do not see it, and it is neither queued nor retained. After an error other than ForbiddenException the client may
// have it nevertheless.
// Errors: ResourceNotFoundException, ForbiddenException, GatewayTimeoutException, ServiceUnavailableException,
// RequestEntityTooLargeException, InvalidRequestException.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/direct-messaging.html
func (d *DataPlane) SendDirectMessage(ctx context.Context, in *iotdata.SendDirectMessageRequest) (*iotdata.SendDirectMessageResponse, error) {
	if err := mqtt.ValidTopicName(in.Topic); err != nil {
		return nil, invalid("the topic is not valid")
	}
	if mqtt.Reserved(in.Topic) {
		return nil, invalid("the topic is reserved")
	}
	if len(in.Payload) > d.g.limits.PayloadBytes {
		return nil, &iotdata.RequestEntityTooLargeException{Message: "the payload is larger than allowed"}
	}
	properties, err := d.properties(in.UserProperties, in.PayloadFormatIndicator, in.ContentType, in.ResponseTopic, in.CorrelationData, nil)
	if err != nil {
		return nil, err
	}
	m := &mqtt.Message{Topic: in.Topic, Payload: in.Payload, Properties: properties, Received: d.g.now()}
	m.Source.Protocol = "HTTP"
	if caller := aws.CallerFrom(ctx); caller != nil {
		m.Source.PrincipalID, m.Source.PrincipalType = principalID(caller.Principal), caller.Type
		m.Source.Address, _ = netip.ParseAddr(caller.SourceIP)
	}
	wait := time.Duration(0)
	if value(in.Confirmation) {
		wait = defaultConfirmation
		if in.Timeout != nil {
			wait = time.Duration(*in.Timeout) * time.Second
		}
	}
	outcome, err := d.g.sendDirect(ctx, in.ClientId, m, wait)
	if err != nil {
		return nil, err
	}
	switch outcome {
	case directSent:
		return &iotdata.SendDirectMessageResponse{Message: new("OK"), TraceId: new(uuid.NewString())}, nil
	case directForbidden:
		return nil, &iotdata.ForbiddenException{Message: "The client may not receive the topic."}
	case directLate:
		return nil, &iotdata.GatewayTimeoutException{Message: "The client has not acknowledged the message in time."}
	}
	return nil, &iotdata.ResourceNotFoundException{Message: "The client is not connected."}
}

// directOutcome is what became of a direct message.
type directOutcome string

const (
	directAbsent    directOutcome = "absent"    // the client is not connected there
	directSent      directOutcome = "sent"      // and acknowledged, if that was asked for
	directForbidden directOutcome = "forbidden" // the client may not receive it
	directLate      directOutcome = "late"      // the acknowledgement has not come
)

// directResult is what a node answers to askDirect.
type directResult struct {
	Outcome directOutcome `json:"outcome"`
}

// sendDirect sends m to the client's connection, here or on the node that has it, and waits up to wait for its
// PUBACK; 0: not at all. A client that moves to another node meanwhile is followed once.
func (g *Gateway) sendDirect(ctx context.Context, clientID string, m *mqtt.Message, wait time.Duration) (directOutcome, error) {
	for range 2 {
		if outcome := g.directHere(ctx, clientID, m, wait); outcome != directAbsent {
			return outcome, nil
		}
		p, err := g.locate(ctx, clientID)
		if err != nil || p == nil {
			return directAbsent, err
		}
		q := &question{Op: askDirect, ClientID: clientID, Message: codec.Append(nil, m), Wait: wait}
		asked, cancel := context.WithTimeout(ctx, wait+askTimeout)
		result, err := askPeer[directResult](asked, g, p, q)
		cancel()
		switch {
		case errors.Is(err, mesh.ErrTooLarge):
			return "", &iotdata.RequestEntityTooLargeException{Message: "the message is larger than what nodes exchange"}
		case err != nil:
			g.log.Warn("a direct message has no answer of the client's node", "node", p.ID(), "clientId", clientID, "err", err)
			return "", unanswered([]string{p.ID()})
		case result.Outcome != directAbsent:
			return result.Outcome, nil
		}
	}
	return directAbsent, nil
}

// locate finds the node that the client is connected to; nil for none.
func (g *Gateway) locate(ctx context.Context, clientID string) (*mesh.Peer, error) {
	answers, silent := askAll[connectionState](ctx, g, &question{Op: askConnection, ClientID: clientID})
	var best fromPeer[connectionState]
	for _, a := range answers {
		if a.answer.Connected && (best.peer == nil || a.answer.newer(best.answer)) {
			best = a
		}
	}
	if best.peer == nil && len(silent) > 0 {
		return nil, unanswered(silent)
	}
	return best.peer, nil
}

// directFromPeer sends what another node was asked to.
func (g *Gateway) directFromPeer(ctx context.Context, q *question) (*directResult, error) {
	m, err := codec.Parse(q.Message)
	if err != nil {
		return nil, err
	}
	return &directResult{g.directHere(ctx, q.ClientID, m, q.Wait)}, nil
}

// directHere sends m to the client's connection to this node.
func (g *Gateway) directHere(ctx context.Context, clientID string, m *mqtt.Message, wait time.Duration) directOutcome {
	c := g.registry.connection(clientID)
	if c == nil {
		return directAbsent
	}
	if decision := c.auth.Authorize("iot:Receive", g.topicARN(m.Topic)); !decision.Allowed() {
		c.denied("iot:Receive", m.Topic, decision)
		return directForbidden
	}
	t := turn{g: g, now: g.now()}
	msg := fromMessage(m)
	if wait == 0 {
		c.deliver(&t, &msg, 0, false, 0)
		t.flush()
		return directSent
	}
	msg.qos = 1
	number, acked := g.direct.add()
	defer g.direct.remove(number)
	c.deliver(&t, &msg, 1, false, number)
	t.flush()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-acked:
		return directSent
	case <-timer.C:
	case <-ctx.Done():
	}
	return directLate
}
