package mqtt

import (
	"net/netip"
	"time"
)

// Message is one application message on its way through the broker: what a
// PUBLISH carried, and who sent it. It is immutable once published; receivers
// that keep it past their call keep the same Payload and must not write to it.
type Message struct {
	// Topic is the topic name as published, with any topic alias resolved.
	Topic string
	// Payload is the application message, at most the packet limit in bytes.
	Payload []byte
	// QoS is the publisher's quality of service, 0 or 1.
	QoS byte
	// Retain tells that the publisher asked the broker to retain the message.
	Retain bool
	// Properties are the MQTT 5 properties forwarded with the message; nil when
	// there are none.
	Properties *PublishProperties
	// Received is when the broker accepted the message.
	Received time.Time
	// Source is who published it; the zero value is the service itself.
	Source Source
	// Recipient, when not empty, is the only client id that may receive the
	// message, and only through a subscription of its own; rules do not see it,
	// it is never retained or queued. Answers with secrets (a provisioned key)
	// are sent so.
	Recipient string
	// RecipientConnection, when not empty, is the only connection of Recipient that
	// may receive the message, a Source's ConnectionID: the client id may have another
	// by now. Such a message stays on the node.
	RecipientConnection string
	// Place, above 0, is the message's among those on its topic, of which who was away
	// needs only the last: it takes the place of those with a lower one that wait for
	// clients that are not connected. Messages to connected clients are never left out.
	// It stays on the node.
	Place int64
	// Hops counts the rules that republished the message, one after the other. It stays
	// on the node.
	Hops int
}

// Source is the publisher of a Message.
type Source struct {
	// ClientID is the MQTT client id; empty for HTTP and for the service.
	ClientID string
	// ConnectionID is of the publisher's MQTT connection, and of no other ever; empty for
	// HTTP, for the service, and once the message has left the node.
	ConnectionID string
	// PrincipalID is the certificate id, or another kind of principal's id.
	PrincipalID string
	// PrincipalType says what kind of id that is, as aws.Principal has it: ids of two kinds may be equal.
	PrincipalType string
	// Protocol is "MQTT", "WebSocket", "HTTP" or "" for the service.
	Protocol string
	// Address is the remote address; zero for the service.
	Address netip.Addr
}

// PublishProperties are the MQTT 5 PUBLISH properties that a broker forwards
// [MQTT-3.3.2.3]. Topic alias and subscription identifiers belong to one hop
// and are not here.
type PublishProperties struct {
	// PayloadFormat is the payload format indicator: 0 bytes, 1 UTF-8; nil absent.
	PayloadFormat *byte
	// MessageExpiry is the lifetime in seconds counted from Message.Received; nil absent.
	MessageExpiry *uint32
	// ContentType is the content type; empty when absent.
	ContentType string
	// ResponseTopic is the response topic; empty when absent.
	ResponseTopic string
	// CorrelationData is nil when absent.
	CorrelationData []byte
	// UserProperties keep their order and repetitions.
	UserProperties []UserProperty
}

// UserProperty is one MQTT 5 user property.
type UserProperty struct{ Key, Value string }
