package action

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/rules/sql"
)

// maxHeader bounds a filled header in bytes, as AWS bounds the template.
const maxHeader = 1024

// compileRepublish makes an action that publishes to a topic of the broker.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/republish-rule-action.html
func compileRepublish(c *compiler, a *iot.Action) *Action {
	p := a.Republish
	c.role(p.RoleArn)
	s := &republishSink{qos: byte(value(p.Qos))}
	if q := value(p.Qos); q < 0 || q > 1 {
		c.refuse("qos %d is neither 0 nor 1", q)
	}
	s.topic = c.template("topic", &p.Topic, sql.RepublishTopic)
	c.constant(s.topic, checkTopic)
	if h := p.Headers; h != nil {
		s.headers = true
		s.format = c.template("headers.payloadFormatIndicator", h.PayloadFormatIndicator, sql.Generic)
		s.contentType = c.template("headers.contentType", h.ContentType, sql.Generic)
		s.responseTopic = c.template("headers.responseTopic", h.ResponseTopic, sql.Generic)
		s.correlation = c.template("headers.correlationData", h.CorrelationData, sql.Generic)
		s.expiry = c.template("headers.messageExpiry", h.MessageExpiry, sql.Generic)
		if len(h.UserProperties) > 100 {
			c.refuse("headers.userProperties has more than 100 members")
		}
		for _, u := range h.UserProperties {
			if u == nil {
				continue
			}
			s.user = append(s.user, [2]int{
				c.template("headers.userProperties.key", &u.Key, sql.Generic),
				c.template("headers.userProperties.value", &u.Value, sql.Generic),
			})
		}
	}
	return &Action{open: func(env Env) (Sink, error) {
		if env.Publisher == nil {
			return nil, errors.New("republish: there is no gateway")
		}
		open := *s
		open.env = env
		return &open, nil
	}}
}

func checkTopic(s string) error {
	if err := mqtt.ValidTopicName(s); err != nil {
		return fmt.Errorf("topic %q: %w", s, err)
	}
	return nil
}

// republishSink publishes one message after the other: subscribers see them in order.
// Its numbers are indexes of Record.Fields.
type republishSink struct {
	env                                                     Env
	qos                                                     byte
	topic                                                   int
	headers                                                 bool
	format, contentType, responseTopic, correlation, expiry int

	user [][2]int
}

func (s *republishSink) Do(ctx context.Context, records []Record) (int, error) {
	for i := range records {
		m, err := s.message(&records[i])
		if err != nil {
			return i, Permanent(err)
		}
		if err := s.env.Publisher.Publish(ctx, m); err != nil {
			return i, err
		}
	}
	return len(records), nil
}

// maxHops is how many rules may republish a message one after the other.
const maxHops = 16

func (s *republishSink) message(r *Record) (*mqtt.Message, error) {
	if r.Hops >= maxHops {
		return nil, fmt.Errorf("the message has been republished by %d rules one after the other: they go round in a circle", r.Hops)
	}
	m := &mqtt.Message{Topic: r.Fields[s.topic], Payload: r.Payload, QoS: s.qos, Received: s.env.Now(), Hops: r.Hops + 1}
	if err := checkTopic(m.Topic); err != nil {
		return nil, err
	}
	if !s.headers {
		return m, nil
	}
	m.Properties = &mqtt.PublishProperties{}
	var err error
	field := func(name string, i int) (string, bool) {
		if i < 0 || r.Fields[i] == "" {
			return "", false
		}
		if len(r.Fields[i]) > maxHeader && err == nil {
			err = fmt.Errorf("headers.%s has more than %d bytes", name, maxHeader)
		}
		return r.Fields[i], true
	}
	if text, ok := field("payloadFormatIndicator", s.format); ok {
		switch text {
		case "UNSPECIFIED_BYTES", "0":
			m.Properties.PayloadFormat = new(byte(0))
		case "UTF8_DATA", "1":
			m.Properties.PayloadFormat = new(byte(1))
			if !utf8.Valid(r.Payload) {
				return nil, errors.New("headers.payloadFormatIndicator is UTF8_DATA, the payload is not")
			}
		default:
			return nil, fmt.Errorf("headers.payloadFormatIndicator %q is neither UNSPECIFIED_BYTES nor UTF8_DATA", text)
		}
	}
	m.Properties.ContentType, _ = field("contentType", s.contentType)
	if text, ok := field("responseTopic", s.responseTopic); ok {
		if err := mqtt.ValidTopicName(text); err != nil {
			return nil, fmt.Errorf("headers.responseTopic %q: %w", text, err)
		}
		m.Properties.ResponseTopic = text
	}
	if text, ok := field("correlationData", s.correlation); ok {
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, errors.New("headers.correlationData is not base64")
		}
		m.Properties.CorrelationData = data
	}
	if text, ok := field("messageExpiry", s.expiry); ok {
		seconds, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("headers.messageExpiry %q is not a number of seconds", text)
		}
		m.Properties.MessageExpiry = new(uint32(seconds))
	}
	for _, u := range s.user {
		key, _ := field("userProperties.key", u[0])
		text, _ := field("userProperties.value", u[1])
		m.Properties.UserProperties = append(m.Properties.UserProperties, mqtt.UserProperty{Key: key, Value: text})
	}
	return m, err
}

func (s *republishSink) Resource(r *Record) string { return r.Fields[s.topic] }

func (s *republishSink) Close() error { return nil }
