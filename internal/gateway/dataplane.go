package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/netip"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
)

// DataPlane are the operations of AWS's data plane that are about messages and connections.
// It is safe for concurrent use.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_Operations_AWS_IoT_Data_Plane.html
type DataPlane struct{ g *Gateway }

// DataPlane gives the operations.
func (g *Gateway) DataPlane() *DataPlane { return &DataPlane{g} }

// Publish publishes a message. It returns once what is owed to the absent is durable.
// Errors: InvalidRequestException, RequestEntityTooLarge, ThrottlingException.
func (d *DataPlane) Publish(ctx context.Context, in *iotdata.PublishRequest) (*iotdata.PublishResponse, error) {
	m := &mqtt.Message{Topic: in.Topic, Payload: in.Payload, QoS: byte(value(in.Qos)), Retain: value(in.Retain), Received: d.g.now()}
	if value(in.Qos) < 0 || value(in.Qos) > 1 {
		return nil, invalid("qos is 0 or 1")
	}
	if err := d.checkTopic(in.Topic); err != nil {
		return nil, err
	}
	if m.Retain && !mqtt.MayRetain(in.Topic) {
		return nil, invalid("a message on a reserved topic is not retained")
	}
	if len(in.Payload) > d.g.limits.PayloadBytes {
		return nil, &iotdata.RequestEntityTooLargeException{Message: "the payload is larger than allowed"}
	}
	var err error
	m.Properties, err = d.properties(in.UserProperties, in.PayloadFormatIndicator, in.ContentType, in.ResponseTopic, in.CorrelationData, in.MessageExpiry)
	if err != nil {
		return nil, err
	}
	m.Source.Protocol = "HTTP"
	if c := aws.CallerFrom(ctx); c != nil {
		m.Source.PrincipalID, m.Source.PrincipalType = principalID(c.Principal), c.Type
		m.Source.Address, _ = netip.ParseAddr(c.SourceIP)
	}
	if err := d.publish(ctx, m); err != nil {
		return nil, err
	}
	return &iotdata.PublishResponse{}, nil
}

// publish has a reserved topic's room serve the message, as if it had come by MQTT.
func (d *DataPlane) publish(ctx context.Context, m *mqtt.Message) error {
	if _, _, basic := mqtt.BasicIngest(m.Topic); mqtt.Reserved(m.Topic) && !basic {
		if h, ok := d.g.reserved.Match(m.Topic); ok {
			return h(ctx, m)
		}
		return nil
	}
	err := d.g.Publish(ctx, m)
	var code mqtt.ReasonCode
	if errors.As(err, &code) && code == mqtt.QuotaExceeded {
		return &iotdata.ThrottlingException{Message: "a queue that the message is owed to is full"}
	}
	return err
}

func (d *DataPlane) checkTopic(topic string) error {
	if err := mqtt.ValidTopicName(topic); err != nil {
		return invalid("the topic is not valid")
	}
	if !mqtt.MayPublish(topic) || mqtt.Confidential(topic) { // provisioning answers MQTT clients only
		return &iotdata.UnauthorizedException{Message: "the topic is reserved"}
	}
	return nil
}

func (d *DataPlane) properties(user, format, contentType, responseTopic, correlation *string, expiry *int64) (*mqtt.PublishProperties, error) {
	var p mqtt.PublishProperties
	set := false
	if user != nil {
		list, err := userProperties(*user)
		if err != nil {
			return nil, invalid("userProperties is a JSON array of objects with one member each")
		}
		if size := len(*user); size > d.g.limits.UserPropertyBytes {
			return nil, invalid("userProperties are larger than allowed")
		}
		p.UserProperties, set = list, set || len(list) > 0
	}
	switch {
	case format == nil:
	case *format == iotdata.PayloadFormatIndicatorUtf8Data:
		p.PayloadFormat, set = new(byte(1)), true
	case *format == iotdata.PayloadFormatIndicatorUnspecifiedBytes:
		p.PayloadFormat, set = new(byte(0)), true
	default:
		return nil, invalid("payloadFormatIndicator is UNSPECIFIED_BYTES or UTF8_DATA")
	}
	if contentType != nil {
		p.ContentType, set = *contentType, true
	}
	if responseTopic != nil {
		if mqtt.ValidTopicName(*responseTopic) != nil {
			return nil, invalid("the response topic is not valid")
		}
		p.ResponseTopic, set = *responseTopic, true
	}
	if correlation != nil {
		b, err := base64.StdEncoding.DecodeString(*correlation)
		if err != nil {
			return nil, invalid("correlationData is base64")
		}
		p.CorrelationData, set = b, true
	}
	if expiry != nil {
		p.MessageExpiry, set = new(uint32(min(max(*expiry, 1), maxMessageExpiry))), true
	}
	if !set {
		return nil, nil
	}
	return &p, nil
}

// userProperties reads AWS's form, [{"name":"value"}, ...], keeping order and repetitions.
func userProperties(text string) ([]mqtt.UserProperty, error) {
	var list []map[string]string
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, err
	}
	var out []mqtt.UserProperty
	for _, o := range list {
		if len(o) != 1 {
			return nil, errors.New("not one member")
		}
		for k, v := range o {
			out = append(out, mqtt.UserProperty{Key: k, Value: v})
		}
	}
	return out, nil
}

// GetRetainedMessage gives a topic's retained message. Errors: ResourceNotFoundException.
func (d *DataPlane) GetRetainedMessage(ctx context.Context, in *iotdata.GetRetainedMessageRequest) (*iotdata.GetRetainedMessageResponse, error) {
	r, err := d.g.sessions.Retained(ctx, in.Topic)
	if errors.Is(err, sessionstore.ErrNotFound) {
		return nil, &iotdata.ResourceNotFoundException{Message: "There is no retained message on the topic."}
	}
	if err != nil {
		return nil, err
	}
	out := &iotdata.GetRetainedMessageResponse{
		Topic: new(r.Message.Topic), Payload: r.Message.Payload, Qos: new(int32(r.Message.QoS)), LastModifiedTime: new(r.Modified.UnixMilli()),
	}
	if p := r.Message.Properties; p != nil && len(p.UserProperties) > 0 {
		list := make([]map[string]string, 0, len(p.UserProperties))
		for _, u := range p.UserProperties {
			list = append(list, map[string]string{u.Key: u.Value})
		}
		if out.UserProperties, err = json.Marshal(list); err != nil {
			return nil, err
		}
	}
	return out, nil
}

const maxRetainedPage = 200

// ListRetainedMessages gives topics with retained messages, in their order.
func (d *DataPlane) ListRetainedMessages(ctx context.Context, in *iotdata.ListRetainedMessagesRequest) (*iotdata.ListRetainedMessagesResponse, error) {
	after, err := fromToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := pageLimit(in.MaxResults, maxRetainedPage)
	list, err := d.g.sessions.ListRetained(ctx, after, limit+1)
	if err != nil {
		return nil, err
	}
	out := &iotdata.ListRetainedMessagesResponse{RetainedTopics: []*iotdata.RetainedMessageSummary{}}
	for i, r := range list {
		if i == limit {
			out.NextToken = toToken(list[i-1].Topic)
			break
		}
		out.RetainedTopics = append(out.RetainedTopics, &iotdata.RetainedMessageSummary{
			Topic: new(r.Topic), PayloadSize: new(r.PayloadBytes), Qos: new(int32(r.QoS)), LastModifiedTime: new(r.Modified.UnixMilli()),
		})
	}
	return out, nil
}

// pageLimit is how many entries a page has at most.
func pageLimit(asked *int32, most int) int {
	if n := int(value(asked)); n > 0 && n < most {
		return n
	}
	return most
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func toToken(s string) *string { return new(base64.RawURLEncoding.EncodeToString([]byte(s))) }

func fromToken(t *string) (string, error) {
	if t == nil {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(*t)
	if err != nil {
		return "", invalid("the nextToken is not one of ours")
	}
	return string(b), nil
}

func invalid(message string) error { return &iotdata.InvalidRequestException{Message: message} }
