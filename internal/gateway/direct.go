package gateway

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/google/uuid"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iotdata"
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

// SendDirectMessage sends a message to one client that is connected to this node, whether it
// has subscribed or not; its policy must allow iot:Receive. With confirmation the message has
// QoS 1 and the answer waits for the PUBACK, 5 s unless timeout (1-15 s) says otherwise. Rules
// do not see it, and it is neither queued nor retained.
// Errors: ResourceNotFoundException, ForbiddenException, GatewayTimeoutException,
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
	var c *Connection
	s := d.g.registry.get(in.ClientId)
	if s != nil {
		c = s.conn.Load()
	}
	if c == nil {
		return nil, &iotdata.ResourceNotFoundException{Message: "The client is not connected."}
	}
	if decision := c.auth.Authorize("iot:Receive", d.g.topicARN(in.Topic)); !decision.Allowed() {
		c.denied("iot:Receive", in.Topic, decision)
		return nil, &iotdata.ForbiddenException{Message: "The client may not receive the topic."}
	}
	m := &mqtt.Message{Topic: in.Topic, Payload: in.Payload, Properties: properties, Received: d.g.now()}
	m.Source.Protocol = "HTTP"
	if caller := aws.CallerFrom(ctx); caller != nil {
		m.Source.PrincipalID, m.Source.PrincipalType = principalID(caller.Principal), caller.Type
		m.Source.Address, _ = netip.ParseAddr(caller.SourceIP)
	}
	out := &iotdata.SendDirectMessageResponse{Message: new("OK"), TraceId: new(uuid.NewString())}
	t := turn{g: d.g, now: d.g.now()}
	msg := fromMessage(m)
	if !value(in.Confirmation) {
		c.deliver(&t, &msg, 0, false, 0)
		t.flush()
		return out, nil
	}
	msg.qos = 1
	number, acked := d.g.direct.add()
	defer d.g.direct.remove(number)
	c.deliver(&t, &msg, 1, false, number)
	t.flush()
	wait := defaultConfirmation
	if in.Timeout != nil {
		wait = time.Duration(*in.Timeout) * time.Second
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-acked:
		return out, nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil, &iotdata.GatewayTimeoutException{Message: "The client has not acknowledged the message in time."}
}
