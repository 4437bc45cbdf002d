package mqtt

// Version is a protocol version, as CONNECT names it.
type Version byte

// The versions that AWS IoT Core serves.
const (
	V311 Version = 4
	V5   Version = 5
)

// PacketType is the upper half of a packet's first byte.
type PacketType byte

// The packet types (par. 2.1.2).
const (
	CONNECT PacketType = iota + 1
	CONNACK
	PUBLISH
	PUBACK
	PUBREC
	PUBREL
	PUBCOMP
	SUBSCRIBE
	SUBACK
	UNSUBSCRIBE
	UNSUBACK
	PINGREQ
	PINGRESP
	DISCONNECT
	AUTH
)

// MaxRemainingLength is the greatest length of what follows a fixed header.
const MaxRemainingLength = 268_435_455

// Header is the fixed header of a packet.
type Header struct {
	Type      PacketType
	Flags     byte // the lower half of the first byte
	Remaining int  // bytes that follow the header
}

// Next takes the packet at the front of b. n is its size; n = 0 without an error says
// that b holds only a part of it, of which h is known when h.Type is not 0. body is a
// part of b. A packet of more than maxSize bytes is refused as soon as its header is
// there, with PacketTooLarge.
func Next(b []byte, maxSize int) (h Header, body []byte, n int, err error) {
	if len(b) == 0 {
		return h, nil, 0, nil
	}
	h.Type, h.Flags = PacketType(b[0]>>4), b[0]&0x0f
	if err := checkFlags(h); err != nil {
		return h, nil, 0, err
	}
	remaining, size := varint(b[1:])
	if size < 0 {
		return h, nil, 0, newError(MalformedPacket, "remaining length") // [MQTT-1.5.5-1]
	}
	if size == 0 {
		return Header{}, nil, 0, nil
	}
	h.Remaining = remaining
	end := 1 + size + remaining
	if end > maxSize {
		return h, nil, 0, newError(PacketTooLarge, "the packet is larger than allowed")
	}
	if end > len(b) {
		return h, nil, 0, nil
	}
	return h, b[1+size : end : end], end, nil
}

// checkFlags obeys [MQTT-2.1.3-1], [MQTT-3.8.1-1] and their kin.
func checkFlags(h Header) error {
	want := byte(0)
	switch h.Type {
	case 0:
		return newError(MalformedPacket, "packet type 0")
	case PUBLISH:
		return nil
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		want = 2
	}
	if h.Flags != want {
		return newError(MalformedPacket, "reserved flags of the fixed header")
	}
	return nil
}

// Packet is a control packet. Append encodes it at the end of dst.
type Packet interface {
	Append(dst []byte, v Version) []byte
}

// Connect is a CONNECT packet.
type Connect struct {
	Version     Version
	CleanStart  bool // Clean Session in 3.1.1
	KeepAlive   uint16
	ClientID    string
	Will        *Will
	HasUsername bool
	HasPassword bool
	Username    string
	Password    []byte
	Properties  Properties
}

// Will is the will message of a CONNECT.
type Will struct {
	Topic      string
	Payload    []byte
	QoS        byte
	Retain     bool
	Properties Properties
}

// Connack is a CONNACK packet. In 3.1.1 the code is one of the five that it knows.
type Connack struct {
	SessionPresent bool
	Code           ReasonCode
	Properties     Properties
}

// Publish is a PUBLISH packet. Topic and Payload are parts of the input that it was
// parsed from.
type Publish struct {
	Dup        bool
	Retain     bool
	QoS        byte
	PacketID   uint16 // QoS 1 and 2
	TopicAlias uint16 // 0 = none
	Topic      []byte
	Payload    []byte
	// Properties are nil when there are none but an alias.
	Properties      *PublishProperties
	SubscriptionIDs []uint32
}

// Ack is a PUBACK, PUBREC, PUBREL or PUBCOMP packet.
type Ack struct {
	Type       PacketType
	PacketID   uint16
	Code       ReasonCode
	Properties Properties
}

// Subscription is one filter of a SUBSCRIBE with its options (par. 3.8.3.1); 3.1.1 has
// only the QoS.
type Subscription struct {
	Filter            string
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte // 0 send retained, 1 if new, 2 never
}

// Subscribe is a SUBSCRIBE packet.
type Subscribe struct {
	PacketID      uint16
	Subscriptions []Subscription
	Properties    Properties
}

// Suback is a SUBACK packet with a code for each filter.
type Suback struct {
	PacketID   uint16
	Codes      []ReasonCode
	Properties Properties
}

// Unsubscribe is an UNSUBSCRIBE packet.
type Unsubscribe struct {
	PacketID   uint16
	Filters    []string
	Properties Properties
}

// Unsuback is an UNSUBACK packet; 3.1.1 has no codes.
type Unsuback struct {
	PacketID   uint16
	Codes      []ReasonCode
	Properties Properties
}

// Pingreq is a PINGREQ packet.
type Pingreq struct{}

// Pingresp is a PINGRESP packet.
type Pingresp struct{}

// Disconnect is a DISCONNECT packet; 3.1.1 has neither code nor properties.
type Disconnect struct {
	Code       ReasonCode
	Properties Properties
}

// Auth is an AUTH packet. AWS IoT Core refuses it, but a decoder must know it.
type Auth struct {
	Code       ReasonCode
	Properties Properties
}
