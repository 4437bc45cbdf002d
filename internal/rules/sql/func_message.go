package sql

import (
	"encoding/base64"
	"strings"
)

// optional is a String that is Undefined when it is empty.
func optional(s string) value {
	if s == "" {
		return value{}
	}
	return stringValue(s)
}

func accountID(f *frame) value  { return optional(f.in.AccountID) }
func principal(f *frame) value  { return optional(f.in.PrincipalID) }
func traceID(f *frame) value    { return optional(f.in.TraceID) }
func sourceIP(f *frame) value   { return optional(f.in.SourceIP) }
func sqlVersion(f *frame) value { return stringValue(f.prog.version) }
func timestamp(f *frame) value  { return intValue(f.in.Now.UnixMilli()) }

func clientID(f *frame) value {
	if f.in.ClientID == "" {
		return stringValue("n/a")
	}
	return stringValue(f.in.ClientID)
}

func newUUID(f *frame) value {
	if f.in.NewUUID == nil {
		return value{}
	}
	return stringValue(f.in.NewUUID())
}

// topicSegment is the topic, or one of its levels counted from 1.
func topicSegment(c *compiler, args []expr) eval {
	if len(args) == 0 {
		return func(f *frame) value { return optional(f.in.topic()) }
	}
	of := c.expr(args[0])
	return func(f *frame) value {
		n, ok := of(f).toIndex()
		if !ok || n < 1 {
			return value{}
		}
		level, rest, more := strings.Cut(f.in.topic(), "/")
		for ; n > 1; n-- {
			if !more {
				return value{}
			}
			level, rest, more = strings.Cut(rest, "/")
		}
		return stringValue(level)
	}
}

// mqttProperty is a property of an MQTT 5 PUBLISH.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-functions.html#iot-sql-function-get-mqtt-property
func mqttProperty(f *frame, name value) value {
	p := f.in.Properties
	if p == nil || name.kind != stringKind {
		return value{}
	}
	switch name.text {
	case "content_type":
		return optional(p.ContentType)
	case "response_topic":
		return optional(p.ResponseTopic)
	case "correlation_data":
		if p.CorrelationData != nil {
			return stringValue(base64.StdEncoding.EncodeToString(p.CorrelationData))
		}
	case "format_indicator":
		switch {
		case p.PayloadFormat == nil:
		case *p.PayloadFormat == 0:
			return stringValue("UNSPECIFIED_BYTES")
		default:
			return stringValue("UTF8_DATA")
		}
	}
	return value{}
}

// userProperties are the values of a user property, or all properties as objects of one
// member. The order is that of the message.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-functions.html#iot-sql-function-get-user-properties
func userProperties(f *frame, args []value) value {
	if len(args) == 1 && args[0].kind != stringKind {
		return value{}
	}
	out := []value{}
	if p := f.in.Properties; p != nil {
		f.spend(len(p.UserProperties))
		for _, u := range p.UserProperties {
			switch {
			case len(args) == 0:
				o := newObject(1)
				o.set(u.Key, stringValue(u.Value))
				out = append(out, objectValue(o))
			case u.Key == args[0].text:
				out = append(out, stringValue(u.Value))
			}
		}
	}
	return arrayValue(out)
}
