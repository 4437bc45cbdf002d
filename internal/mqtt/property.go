package mqtt

// PropertyID identifies an MQTT 5.0 property (par. 2.2.2.2).
type PropertyID byte

// The properties of MQTT 5.0.
const (
	PropPayloadFormat         PropertyID = 0x01
	PropMessageExpiry         PropertyID = 0x02
	PropContentType           PropertyID = 0x03
	PropResponseTopic         PropertyID = 0x08
	PropCorrelationData       PropertyID = 0x09
	PropSubscriptionID        PropertyID = 0x0B
	PropSessionExpiry         PropertyID = 0x11
	PropAssignedClientID      PropertyID = 0x12
	PropServerKeepAlive       PropertyID = 0x13
	PropAuthMethod            PropertyID = 0x15
	PropAuthData              PropertyID = 0x16
	PropRequestProblem        PropertyID = 0x17
	PropWillDelay             PropertyID = 0x18
	PropRequestResponse       PropertyID = 0x19
	PropResponseInformation   PropertyID = 0x1A
	PropServerReference       PropertyID = 0x1C
	PropReasonString          PropertyID = 0x1F
	PropReceiveMaximum        PropertyID = 0x21
	PropTopicAliasMaximum     PropertyID = 0x22
	PropTopicAlias            PropertyID = 0x23
	PropMaximumQoS            PropertyID = 0x24
	PropRetainAvailable       PropertyID = 0x25
	PropUserProperty          PropertyID = 0x26
	PropMaximumPacketSize     PropertyID = 0x27
	PropWildcardAvailable     PropertyID = 0x28
	PropSubscriptionIDsUsable PropertyID = 0x29
	PropSharedAvailable       PropertyID = 0x2A

	maxProperty = 0x2A
)

// PropertySet is a set of properties.
type PropertySet uint64

// Has tells whether id is in the set.
func (s PropertySet) Has(id PropertyID) bool { return s&(1<<id) != 0 }

// With is the set with ids added.
func (s PropertySet) With(ids ...PropertyID) PropertySet {
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

// Properties are those of one packet. Only the members that Present names have a
// meaning, except for the two that may be repeated: SubscriptionIDs and UserProperties.
type Properties struct {
	Present PropertySet

	PayloadFormat       byte
	RequestProblem      byte
	RequestResponse     byte
	MaximumQoS          byte
	RetainAvailable     byte
	WildcardAvailable   byte
	SubscriptionIDs     []uint32
	SubIDsUsable        byte
	SharedAvailable     byte
	ServerKeepAlive     uint16
	ReceiveMaximum      uint16
	TopicAliasMaximum   uint16
	TopicAlias          uint16
	MessageExpiry       uint32 // seconds
	SessionExpiry       uint32 // seconds; 0xFFFFFFFF = never
	WillDelay           uint32 // seconds
	MaximumPacketSize   uint32
	ContentType         string
	ResponseTopic       string
	AssignedClientID    string
	AuthMethod          string
	ResponseInformation string
	ServerReference     string
	ReasonString        string
	CorrelationData     []byte
	AuthData            []byte
	UserProperties      []UserProperty
}

// Which properties a packet may carry (par. 2.2.2.2, table 2-4).
var (
	connectProperties = PropertySet(0).With(PropSessionExpiry, PropAuthMethod, PropAuthData, PropRequestProblem,
		PropRequestResponse, PropReceiveMaximum, PropTopicAliasMaximum, PropUserProperty, PropMaximumPacketSize)
	willProperties = PropertySet(0).With(PropPayloadFormat, PropMessageExpiry, PropContentType, PropResponseTopic,
		PropCorrelationData, PropWillDelay, PropUserProperty)
	connackProperties = PropertySet(0).With(PropSessionExpiry, PropAssignedClientID, PropServerKeepAlive, PropAuthMethod,
		PropAuthData, PropResponseInformation, PropServerReference, PropReasonString, PropReceiveMaximum,
		PropTopicAliasMaximum, PropMaximumQoS, PropRetainAvailable, PropUserProperty, PropMaximumPacketSize,
		PropWildcardAvailable, PropSubscriptionIDsUsable, PropSharedAvailable)
	publishProperties = PropertySet(0).With(PropPayloadFormat, PropMessageExpiry, PropContentType, PropResponseTopic,
		PropCorrelationData, PropSubscriptionID, PropTopicAlias, PropUserProperty)
	ackProperties        = PropertySet(0).With(PropReasonString, PropUserProperty)
	subscribeProperties  = PropertySet(0).With(PropSubscriptionID, PropUserProperty)
	userProperties       = PropertySet(0).With(PropUserProperty)
	disconnectProperties = PropertySet(0).With(PropSessionExpiry, PropServerReference, PropReasonString, PropUserProperty)
	authProperties       = PropertySet(0).With(PropAuthMethod, PropAuthData, PropReasonString, PropUserProperty)
)

// maxUserProperties bounds what one packet makes the decoder allocate; AWS bounds
// their bytes to 8 KB.
const maxUserProperties = 1024

// parse decodes a property list, length included, of a packet that allows the given
// properties.
func (p *Properties) parse(r *reader, allowed PropertySet) error {
	n := r.varint()
	if r.err != nil {
		return r.err
	}
	if n > len(r.b) {
		return newError(MalformedPacket, "the properties run past the packet")
	}
	if n == 0 {
		return nil
	}
	in := reader{b: r.b[:n]}
	r.b = r.b[n:]
	for len(in.b) > 0 && in.err == nil {
		raw := in.varint() // an identifier is a variable byte integer, though all fit one byte
		if in.err != nil {
			break
		}
		if raw > maxProperty {
			return newError(MalformedPacket, "unknown property")
		}
		id := PropertyID(raw)
		if !allowed.Has(id) {
			return newError(ProtocolError, "a property that the packet can not have")
		}
		// A client's SUBSCRIBE has one Subscription Identifier, a PUBLISH to it any number.
		repeats := id == PropUserProperty || id == PropSubscriptionID && allowed == publishProperties
		if p.Present.Has(id) && !repeats {
			return newError(ProtocolError, "a property is repeated")
		}
		p.Present |= 1 << id
		if err := p.parseOne(id, &in); err != nil {
			return err
		}
	}
	return in.err
}

func (p *Properties) parseOne(id PropertyID, r *reader) error {
	switch id {
	case PropPayloadFormat:
		p.PayloadFormat = r.flag()
	case PropMessageExpiry:
		p.MessageExpiry = r.uint32()
	case PropContentType:
		p.ContentType = r.string()
	case PropResponseTopic:
		p.ResponseTopic = r.string()
	case PropCorrelationData:
		p.CorrelationData = r.binary()
	case PropSubscriptionID:
		v := r.varint()
		if r.err == nil && v == 0 {
			return newError(ProtocolError, "subscription identifier 0")
		}
		if len(p.SubscriptionIDs) >= maxUserProperties {
			return newError(QuotaExceeded, "too many subscription identifiers")
		}
		p.SubscriptionIDs = append(p.SubscriptionIDs, uint32(v))
	case PropSessionExpiry:
		p.SessionExpiry = r.uint32()
	case PropAssignedClientID:
		p.AssignedClientID = r.string()
	case PropServerKeepAlive:
		p.ServerKeepAlive = r.uint16()
	case PropAuthMethod:
		p.AuthMethod = r.string()
	case PropAuthData:
		p.AuthData = r.binary()
	case PropRequestProblem:
		p.RequestProblem = r.flag()
	case PropWillDelay:
		p.WillDelay = r.uint32()
	case PropRequestResponse:
		p.RequestResponse = r.flag()
	case PropResponseInformation:
		p.ResponseInformation = r.string()
	case PropServerReference:
		p.ServerReference = r.string()
	case PropReasonString:
		p.ReasonString = r.string()
	case PropReceiveMaximum:
		if p.ReceiveMaximum = r.uint16(); r.err == nil && p.ReceiveMaximum == 0 {
			return newError(ProtocolError, "receive maximum 0")
		}
	case PropTopicAliasMaximum:
		p.TopicAliasMaximum = r.uint16()
	case PropTopicAlias:
		if p.TopicAlias = r.uint16(); r.err == nil && p.TopicAlias == 0 {
			return newError(TopicAliasInvalid, "topic alias 0") // [MQTT-3.3.2-8]
		}
	case PropMaximumQoS:
		p.MaximumQoS = r.flag()
	case PropRetainAvailable:
		p.RetainAvailable = r.flag()
	case PropUserProperty:
		if len(p.UserProperties) >= maxUserProperties {
			return newError(QuotaExceeded, "too many user properties")
		}
		k := r.string()
		p.UserProperties = append(p.UserProperties, UserProperty{k, r.string()})
	case PropMaximumPacketSize:
		if p.MaximumPacketSize = r.uint32(); r.err == nil && p.MaximumPacketSize == 0 {
			return newError(ProtocolError, "maximum packet size 0")
		}
	case PropWildcardAvailable:
		p.WildcardAvailable = r.flag()
	case PropSubscriptionIDsUsable:
		p.SubIDsUsable = r.flag()
	case PropSharedAvailable:
		p.SharedAvailable = r.flag()
	default:
		return newError(MalformedPacket, "unknown property")
	}
	return r.err
}

// append encodes the list with its length. nil is the empty list.
func (p *Properties) append(dst []byte) []byte {
	if p == nil || p.Present == 0 && len(p.UserProperties) == 0 && len(p.SubscriptionIDs) == 0 {
		return append(dst, 0)
	}
	// The length goes before the list: leave a byte for it, and make room if it needs more.
	start := len(dst)
	dst = append(dst, 0)
	dst = p.appendList(dst)
	n := len(dst) - start - 1
	if n < 128 {
		dst[start] = byte(n)
		return dst
	}
	var length [4]byte
	l := appendVarint(length[:0], n)
	dst = append(dst, l[1:]...)
	copy(dst[start+len(l):], dst[start+1:start+1+n])
	copy(dst[start:], l)
	return dst
}

func (p *Properties) appendList(dst []byte) []byte {
	for s := p.Present &^ (1<<PropUserProperty | 1<<PropSubscriptionID); s != 0; s &= s - 1 {
		id := s.first()
		dst = append(dst, byte(id))
		switch id {
		case PropPayloadFormat:
			dst = append(dst, p.PayloadFormat)
		case PropMessageExpiry:
			dst = appendUint32(dst, p.MessageExpiry)
		case PropContentType:
			dst = appendString(dst, p.ContentType)
		case PropResponseTopic:
			dst = appendString(dst, p.ResponseTopic)
		case PropCorrelationData:
			dst = appendBinary(dst, p.CorrelationData)
		case PropSessionExpiry:
			dst = appendUint32(dst, p.SessionExpiry)
		case PropAssignedClientID:
			dst = appendString(dst, p.AssignedClientID)
		case PropServerKeepAlive:
			dst = appendUint16(dst, p.ServerKeepAlive)
		case PropAuthMethod:
			dst = appendString(dst, p.AuthMethod)
		case PropAuthData:
			dst = appendBinary(dst, p.AuthData)
		case PropRequestProblem:
			dst = append(dst, p.RequestProblem)
		case PropWillDelay:
			dst = appendUint32(dst, p.WillDelay)
		case PropRequestResponse:
			dst = append(dst, p.RequestResponse)
		case PropResponseInformation:
			dst = appendString(dst, p.ResponseInformation)
		case PropServerReference:
			dst = appendString(dst, p.ServerReference)
		case PropReasonString:
			dst = appendString(dst, p.ReasonString)
		case PropReceiveMaximum:
			dst = appendUint16(dst, p.ReceiveMaximum)
		case PropTopicAliasMaximum:
			dst = appendUint16(dst, p.TopicAliasMaximum)
		case PropTopicAlias:
			dst = appendUint16(dst, p.TopicAlias)
		case PropMaximumQoS:
			dst = append(dst, p.MaximumQoS)
		case PropRetainAvailable:
			dst = append(dst, p.RetainAvailable)
		case PropMaximumPacketSize:
			dst = appendUint32(dst, p.MaximumPacketSize)
		case PropWildcardAvailable:
			dst = append(dst, p.WildcardAvailable)
		case PropSubscriptionIDsUsable:
			dst = append(dst, p.SubIDsUsable)
		case PropSharedAvailable:
			dst = append(dst, p.SharedAvailable)
		}
	}
	for _, id := range p.SubscriptionIDs {
		dst = appendVarint(append(dst, byte(PropSubscriptionID)), int(id))
	}
	for _, u := range p.UserProperties {
		dst = appendString(appendString(append(dst, byte(PropUserProperty)), u.Key), u.Value)
	}
	return dst
}
