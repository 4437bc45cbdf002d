package mqtt

import "strings"

// maxFilters bounds what one SUBSCRIBE makes the decoder allocate; AWS allows 8.
const maxFilters = 1024

// Decode decodes the body of any packet. The version is that of the connection; CONNECT
// names its own. Everything malformed gives an *Error with the code to answer. Only a
// Publish keeps parts of body.
func Decode(v Version, h Header, body []byte) (Packet, error) {
	switch h.Type {
	case CONNECT:
		return decode(&Connect{}, body, (*Connect).Parse)
	case PUBLISH:
		p := &Publish{}
		if err := p.Parse(v, h.Flags, body); err != nil {
			return nil, err
		}
		return p, nil
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		p := &Ack{Type: h.Type}
		if err := p.Parse(v, body); err != nil {
			return nil, err
		}
		return p, nil
	case CONNACK:
		return decode(&Connack{}, body, func(p *Connack, b []byte) error { return p.Parse(v, b) })
	case SUBSCRIBE:
		return decode(&Subscribe{}, body, func(p *Subscribe, b []byte) error { return p.Parse(v, b) })
	case SUBACK:
		return decode(&Suback{}, body, func(p *Suback, b []byte) error { return p.Parse(v, b) })
	case UNSUBSCRIBE:
		return decode(&Unsubscribe{}, body, func(p *Unsubscribe, b []byte) error { return p.Parse(v, b) })
	case UNSUBACK:
		return decode(&Unsuback{}, body, func(p *Unsuback, b []byte) error { return p.Parse(v, b) })
	case DISCONNECT:
		return decode(&Disconnect{}, body, func(p *Disconnect, b []byte) error { return p.Parse(v, b) })
	case AUTH:
		return decode(&Auth{}, body, func(p *Auth, b []byte) error { return p.Parse(v, b) })
	case PINGREQ, PINGRESP:
		if len(body) > 0 {
			return nil, newError(MalformedPacket, "a ping has no body")
		}
		if h.Type == PINGREQ {
			return Pingreq{}, nil
		}
		return Pingresp{}, nil
	}
	return nil, newError(MalformedPacket, "unknown packet type")
}

func decode[P Packet](p P, body []byte, parse func(P, []byte) error) (Packet, error) {
	if err := parse(p, body); err != nil {
		return nil, err
	}
	return p, nil
}

// Parse decodes the body of a CONNECT (par. 3.1). A failure before the version is known
// leaves Version 0. A protocol that is not MQTT 3.1.1 or 5.0 gives
// UnsupportedProtocolVersion [MQTT-3.1.2-1, MQTT-3.1.2-2].
func (p *Connect) Parse(body []byte) error {
	r := reader{b: body}
	name := r.text()
	version := r.byte()
	if r.err != nil {
		return r.err
	}
	if string(name) != "MQTT" || version != byte(V311) && version != byte(V5) {
		return newError(UnsupportedProtocolVersion, "the protocol is neither MQTT 3.1.1 nor MQTT 5.0")
	}
	p.Version = Version(version)
	flags := r.byte()
	p.KeepAlive = r.uint16()
	if r.err != nil {
		return r.err
	}
	if err := checkConnectFlags(p.Version, flags); err != nil {
		return err
	}
	p.CleanStart = flags&0x02 != 0
	p.HasUsername, p.HasPassword = flags&0x80 != 0, flags&0x40 != 0
	if p.Version == V5 {
		if err := p.Properties.parse(&r, connectProperties); err != nil {
			return err
		}
		if p.Properties.Present.Has(PropAuthData) && !p.Properties.Present.Has(PropAuthMethod) {
			return newError(ProtocolError, "authentication data without a method") // 3.1.2.11.10
		}
	}
	p.ClientID = r.string()
	if flags&0x04 != 0 {
		p.Will = &Will{QoS: flags >> 3 & 3, Retain: flags&0x20 != 0}
		if err := p.Will.parse(p.Version, &r); err != nil {
			return err
		}
	}
	if p.HasUsername {
		p.Username = r.string()
	}
	if p.HasPassword {
		p.Password = r.binary()
	}
	return r.end()
}

func checkConnectFlags(v Version, flags byte) error {
	will := flags&0x04 != 0
	switch {
	case flags&0x01 != 0:
		return newError(MalformedPacket, "reserved connect flag") // [MQTT-3.1.2-3]
	case !will && flags&0x38 != 0:
		return newError(MalformedPacket, "will QoS or will retain without a will") // [MQTT-3.1.2-11, 13]
	case flags&0x18 == 0x18:
		return newError(MalformedPacket, "will QoS 3") // [MQTT-3.1.2-12]
	case v == V311 && flags&0xc0 == 0x40:
		return newError(MalformedPacket, "a password without a user name") // [MQTT-3.1.2-22]
	}
	return nil
}

func (w *Will) parse(v Version, r *reader) error {
	if v == V5 {
		if err := w.Properties.parse(r, willProperties); err != nil {
			return err
		}
		if err := checkResponseTopic(w.Properties.Present, w.Properties.ResponseTopic); err != nil {
			return err
		}
	}
	w.Topic = r.string()
	w.Payload = r.binary()
	if r.err == nil && (w.Topic == "" || strings.ContainsAny(w.Topic, "+#")) {
		return newError(TopicNameInvalid, "the will topic")
	}
	return r.err
}

// checkResponseTopic obeys [MQTT-3.3.2-14].
func checkResponseTopic(present PropertySet, topic string) error {
	if present.Has(PropResponseTopic) && (topic == "" || strings.ContainsAny(topic, "+#")) {
		return newError(ProtocolError, "the response topic is not a topic name")
	}
	return nil
}

// Parse decodes the body of a CONNACK (par. 3.2).
func (p *Connack) Parse(v Version, body []byte) error {
	r := reader{b: body}
	p.SessionPresent = r.byte() == 1
	if r.err == nil && body[0] > 1 {
		return newError(MalformedPacket, "reserved connack flags") // [MQTT-3.2.2-1]
	}
	p.Code = ReasonCode(r.byte())
	if v == V5 {
		if err := p.Properties.parse(&r, connackProperties); err != nil {
			return err
		}
	} else if p.Code = connackFrom311(p.Code); p.Code == UnspecifiedError {
		return newError(ProtocolError, "reserved connack code")
	}
	return r.end()
}

// Parse decodes the body of a PUBLISH (par. 3.3) without allocating, unless it has
// properties. Topic and Payload are parts of body. The topic is checked for UTF-8 and
// wildcards only; see ValidTopicName. Any earlier content of p is overwritten.
func (p *Publish) Parse(v Version, flags byte, body []byte) error {
	*p = Publish{Dup: flags&8 != 0, QoS: flags >> 1 & 3, Retain: flags&1 != 0}
	if p.QoS == 3 {
		return newError(MalformedPacket, "QoS 3") // [MQTT-3.3.1-4]
	}
	if p.Dup && p.QoS == 0 {
		return newError(MalformedPacket, "DUP with QoS 0") // [MQTT-3.3.1-2]
	}
	r := reader{b: body}
	p.Topic = r.text()
	if r.err != nil {
		return r.err
	}
	for _, c := range p.Topic {
		if c == '+' || c == '#' {
			return newError(TopicNameInvalid, "a topic name has no wildcards") // [MQTT-3.3.2-2]
		}
	}
	if p.QoS > 0 {
		if p.PacketID = r.uint16(); r.err == nil && p.PacketID == 0 {
			return newError(ProtocolError, "packet identifier 0") // [MQTT-2.2.1-3]
		}
	}
	if v == V5 {
		if err := p.parseProperties(&r); err != nil {
			return err
		}
	}
	if r.err != nil {
		return r.err
	}
	if len(p.Topic) == 0 && p.TopicAlias == 0 {
		return newError(ProtocolError, "an empty topic name") // [MQTT-4.7.3-1]
	}
	p.Payload = r.b
	return nil
}

func (p *Publish) parseProperties(r *reader) error {
	if len(r.b) > 0 && r.b[0] == 0 {
		r.b = r.b[1:]
		return nil
	}
	var in Properties
	if err := in.parse(r, publishProperties); err != nil {
		return err
	}
	if err := checkResponseTopic(in.Present, in.ResponseTopic); err != nil {
		return err
	}
	p.TopicAlias = in.TopicAlias
	p.SubscriptionIDs = in.SubscriptionIDs
	p.Properties = in.message()
	return nil
}

// message are the properties that travel with the message; nil when there are none.
func (p *Properties) message() *PublishProperties {
	if p.Present&^PropertySet(0).With(PropTopicAlias, PropSubscriptionID, PropWillDelay) == 0 {
		return nil
	}
	m := &PublishProperties{
		ContentType: p.ContentType, ResponseTopic: p.ResponseTopic,
		CorrelationData: p.CorrelationData, UserProperties: p.UserProperties,
	}
	if p.Present.Has(PropPayloadFormat) {
		m.PayloadFormat = new(p.PayloadFormat)
	}
	if p.Present.Has(PropMessageExpiry) {
		m.MessageExpiry = new(p.MessageExpiry)
	}
	return m
}

// Message are the properties of a will's message; nil when it has none.
func (w *Will) Message() *PublishProperties { return w.Properties.message() }

// Parse decodes the body of a PUBACK or one of its kin, whose Type is set (par. 3.4).
func (p *Ack) Parse(v Version, body []byte) error {
	r := reader{b: body}
	p.PacketID = r.uint16()
	if r.err == nil && p.PacketID == 0 {
		return newError(ProtocolError, "packet identifier 0")
	}
	if v == V5 && len(r.b) > 0 {
		p.Code = ReasonCode(r.byte())
		if len(r.b) > 0 {
			if err := p.Properties.parse(&r, ackProperties); err != nil {
				return err
			}
		}
		if !validAckCode(p.Type, p.Code) {
			return newError(MalformedPacket, "a reason code that the packet can not have")
		}
	}
	return r.end()
}

func validAckCode(t PacketType, c ReasonCode) bool {
	if t == PUBREL || t == PUBCOMP {
		return c == Success || c == PacketIDNotFound
	}
	switch c {
	case Success, NoMatchingSubscribers, UnspecifiedError, ImplementationSpecificError, NotAuthorized,
		TopicNameInvalid, PacketIDInUse, QuotaExceeded, PayloadFormatInvalid:
		return true
	}
	return false
}

// Parse decodes the body of a SUBSCRIBE (par. 3.8). Filters are checked for UTF-8 only;
// see ValidTopicFilter.
func (p *Subscribe) Parse(v Version, body []byte) error {
	r := reader{b: body}
	if err := parsePacketID(&r, &p.PacketID); err != nil {
		return err
	}
	if v == V5 {
		if err := p.Properties.parse(&r, subscribeProperties); err != nil {
			return err
		}
	}
	if len(r.b) == 0 {
		return newError(ProtocolError, "a SUBSCRIBE without filters") // [MQTT-3.8.3-2]
	}
	for len(r.b) > 0 {
		if len(p.Subscriptions) == maxFilters {
			return newError(QuotaExceeded, "too many filters")
		}
		s := Subscription{Filter: r.string()}
		o := r.byte()
		if r.err != nil {
			return r.err
		}
		reserved := byte(0xc0)
		if v != V5 {
			reserved = 0xfc
		}
		s.QoS, s.NoLocal, s.RetainAsPublished, s.RetainHandling = o&3, o&4 != 0, o&8 != 0, o>>4&3
		switch {
		case o&reserved != 0:
			return newError(MalformedPacket, "reserved subscription options") // [MQTT-3.8.3-5]
		case s.QoS == 3:
			return newError(MalformedPacket, "QoS 3")
		case s.RetainHandling == 3:
			return newError(ProtocolError, "retain handling 3")
		case s.NoLocal && strings.HasPrefix(s.Filter, sharePrefix):
			return newError(ProtocolError, "no local on a shared subscription") // [MQTT-3.8.3-4]
		}
		p.Subscriptions = append(p.Subscriptions, s)
	}
	return r.err
}

func parsePacketID(r *reader, id *uint16) error {
	*id = r.uint16()
	if r.err == nil && *id == 0 {
		return newError(ProtocolError, "packet identifier 0") // [MQTT-2.2.1-3]
	}
	return r.err
}

// Parse decodes the body of a SUBACK (par. 3.9).
func (p *Suback) Parse(v Version, body []byte) error {
	r := reader{b: body}
	if err := parsePacketID(&r, &p.PacketID); err != nil {
		return err
	}
	if v == V5 {
		if err := p.Properties.parse(&r, ackProperties); err != nil {
			return err
		}
	}
	if len(r.b) == 0 {
		return newError(ProtocolError, "a SUBACK without codes")
	}
	p.Codes = codes(&r)
	for _, c := range p.Codes {
		if v != V5 && c > GrantedQoS2 && c != UnspecifiedError {
			return newError(MalformedPacket, "a reserved SUBACK code") // [MQTT-3.9.3-2]
		}
	}
	return r.err
}

func codes(r *reader) []ReasonCode {
	out := make([]ReasonCode, len(r.b))
	for i, c := range r.b {
		out[i] = ReasonCode(c)
	}
	r.b = nil
	return out
}

// Parse decodes the body of an UNSUBSCRIBE (par. 3.10).
func (p *Unsubscribe) Parse(v Version, body []byte) error {
	r := reader{b: body}
	if err := parsePacketID(&r, &p.PacketID); err != nil {
		return err
	}
	if v == V5 {
		if err := p.Properties.parse(&r, userProperties); err != nil {
			return err
		}
	}
	if len(r.b) == 0 {
		return newError(ProtocolError, "an UNSUBSCRIBE without filters") // [MQTT-3.10.3-2]
	}
	for len(r.b) > 0 {
		if len(p.Filters) == maxFilters {
			return newError(QuotaExceeded, "too many filters")
		}
		f := r.string()
		if r.err != nil {
			return r.err
		}
		p.Filters = append(p.Filters, f)
	}
	return r.err
}

// Parse decodes the body of an UNSUBACK (par. 3.11).
func (p *Unsuback) Parse(v Version, body []byte) error {
	r := reader{b: body}
	if err := parsePacketID(&r, &p.PacketID); err != nil {
		return err
	}
	if v == V5 {
		if err := p.Properties.parse(&r, ackProperties); err != nil {
			return err
		}
		if len(r.b) == 0 {
			return newError(ProtocolError, "an UNSUBACK without codes")
		}
		p.Codes = codes(&r)
	}
	return r.end()
}

// Parse decodes the body of a DISCONNECT (par. 3.14).
func (p *Disconnect) Parse(v Version, body []byte) error {
	if len(body) == 0 {
		return nil
	}
	if v != V5 {
		return newError(MalformedPacket, "DISCONNECT has no body")
	}
	r := reader{b: body}
	p.Code = ReasonCode(r.byte())
	if len(r.b) > 0 {
		if err := p.Properties.parse(&r, disconnectProperties); err != nil {
			return err
		}
	}
	switch {
	case r.err != nil:
	case p.Code == Success, p.Code == DisconnectWithWill:
	case p.Code.Failed() && reasonNames[p.Code] != "" && !notInDisconnect(p.Code):
	default:
		return newError(ProtocolError, "a reason code that DISCONNECT can not have") // [MQTT-3.14.2-1]
	}
	return r.end()
}

func notInDisconnect(c ReasonCode) bool {
	switch c {
	case UnsupportedProtocolVersion, ClientIDNotValid, BadUserNameOrPassword, ServerUnavailable, Banned,
		BadAuthenticationMethod, PacketIDInUse, PacketIDNotFound:
		return true
	}
	return false
}

// Parse decodes the body of an AUTH (par. 3.15).
func (p *Auth) Parse(v Version, body []byte) error {
	if v != V5 {
		return newError(MalformedPacket, "MQTT 3.1.1 has no AUTH")
	}
	if len(body) == 0 {
		return nil
	}
	r := reader{b: body}
	p.Code = ReasonCode(r.byte())
	if p.Code != Success && p.Code != ContinueAuthentication && p.Code != ReAuthenticate {
		return newError(ProtocolError, "a reason code that AUTH can not have")
	}
	if len(r.b) > 0 {
		if err := p.Properties.parse(&r, authProperties); err != nil {
			return err
		}
	}
	return r.end()
}
