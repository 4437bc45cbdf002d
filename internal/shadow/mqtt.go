package shadow

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"flotilla/internal/mqtt"
	"flotilla/internal/shadow/doc"
)

// ServeMQTT serves a request on $aws/things/T/shadow/{get,update,delete} or
// $aws/things/T/shadow/name/S/{get,update,delete} and publishes the answer, with
// QoS 1 whatever the request had. It returns once the request's effect is
// durable. A request that is refused is answered, and is no error.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/device-shadow-mqtt.html
func (s *Shadows) ServeMQTT(ctx context.Context, m *mqtt.Message) error {
	r, verb, ok := parseTopic(m.Topic)
	if !ok {
		return fmt.Errorf("shadow: %s: %w", m.Topic, mqtt.TopicNameInvalid)
	}
	var t doc.Token
	var err error
	switch verb {
	case "update":
		_, t, err = s.update(ctx, r, m.Payload, authorOf(ctx, m))
	case "delete":
		// "The content of the message is ignored", but a token is answered.
		t, _ = doc.ParseRequest(m.Payload)
		_, err = s.delete(ctx, r, t, authorOf(ctx, m))
	case "get":
		if t, err = doc.ParseRequest(m.Payload); err == nil {
			var body []byte
			if body, err = s.get(ctx, r, t); err == nil {
				return s.publish(ctx, r, "get/accepted", body)
			}
		}
	}
	if err == nil || errors.Is(err, errUnannounced) {
		return err
	}
	refusal, expected := errors.AsType[*doc.Error](err)
	if !expected {
		refusal = errInternal
	}
	body := doc.Rejected(refusal.Code, refusal.Message, s.cfg.Now().Unix(), t)
	published := s.publish(ctx, r, verb+"/rejected", body)
	if expected {
		return published
	}
	return errors.Join(err, published)
}

// parseTopic splits the topic of a request.
func parseTopic(topic string) (r ref, verb string, ok bool) {
	rest, ok := strings.CutPrefix(topic, "$aws/things/")
	if !ok {
		return ref{}, "", false
	}
	if r.thing, rest, ok = strings.Cut(rest, "/shadow/"); !ok {
		return ref{}, "", false
	}
	verb = rest
	if rest, named := strings.CutPrefix(rest, "name/"); named {
		if r.name, verb, ok = strings.Cut(rest, "/"); !ok || r.name == "" {
			return ref{}, "", false
		}
	}
	return r, verb, verb == "get" || verb == "update" || verb == "delete"
}
