package mqtt

// connack311 are the return codes of 3.1.1 (par. 3.2.2.3), by number.
var connack311 = [...]ReasonCode{Success, UnsupportedProtocolVersion, ClientIDNotValid, ServerUnavailable, BadUserNameOrPassword, NotAuthorized}

func connackTo311(c ReasonCode) byte {
	for i, k := range connack311 {
		if k == c {
			return byte(i)
		}
	}
	if c == Banned || c == BadAuthenticationMethod {
		return 5
	}
	return 3
}

// connackFrom311 gives UnspecifiedError for a number that 3.1.1 does not define.
func connackFrom311(c ReasonCode) ReasonCode {
	if int(c) < len(connack311) {
		return connack311[c]
	}
	return UnspecifiedError
}

// frame encodes a packet whose size is not known beforehand.
func frame(dst []byte, first byte, body func([]byte) []byte) []byte {
	start := len(dst)
	dst = body(append(dst, first, 0))
	n := len(dst) - start - 2
	if n < 128 {
		dst[start+1] = byte(n)
		return dst
	}
	var length [4]byte
	l := appendVarint(length[:0], n)
	dst = append(dst, l[1:]...)
	copy(dst[start+1+len(l):], dst[start+2:start+2+n])
	copy(dst[start+1:], l)
	return dst
}

// Append encodes the packet for the version that it names; v is not used.
func (p *Connect) Append(dst []byte, _ Version) []byte {
	return frame(dst, byte(CONNECT)<<4, func(b []byte) []byte {
		var flags byte
		if p.CleanStart {
			flags |= 0x02
		}
		if w := p.Will; w != nil {
			flags |= 0x04 | w.QoS&3<<3
			if w.Retain {
				flags |= 0x20
			}
		}
		if p.HasPassword {
			flags |= 0x40
		}
		if p.HasUsername {
			flags |= 0x80
		}
		b = appendString(b, "MQTT")
		b = appendUint16(append(b, byte(p.Version), flags), p.KeepAlive)
		if p.Version == V5 {
			b = p.Properties.append(b)
		}
		b = appendString(b, p.ClientID)
		if w := p.Will; w != nil {
			if p.Version == V5 {
				b = w.Properties.append(b)
			}
			b = appendBinary(appendString(b, w.Topic), w.Payload)
		}
		if p.HasUsername {
			b = appendString(b, p.Username)
		}
		if p.HasPassword {
			b = appendBinary(b, p.Password)
		}
		return b
	})
}

// Append encodes the packet.
func (p *Connack) Append(dst []byte, v Version) []byte {
	var present byte
	if p.SessionPresent {
		present = 1
	}
	if v != V5 {
		return append(dst, byte(CONNACK)<<4, 2, present, connackTo311(p.Code))
	}
	return frame(dst, byte(CONNACK)<<4, func(b []byte) []byte {
		return p.Properties.append(append(b, present, byte(p.Code)))
	})
}

// Append encodes the packet. A topic alias and subscription identifiers are for 5.0.
func (p *Publish) Append(dst []byte, v Version) []byte {
	var in Properties
	if v == V5 {
		in.fromMessage(p.Properties)
		in.SubscriptionIDs = p.SubscriptionIDs
		if p.TopicAlias != 0 {
			in.Present |= 1 << PropTopicAlias
			in.TopicAlias = p.TopicAlias
		}
		if in.Present != 0 || len(in.SubscriptionIDs) > 0 {
			return p.appendWith(dst, &in)
		}
	}
	return AppendPublish(dst, v, p.first(), p.Topic, p.PacketID, p.Payload)
}

func (p *Publish) first() byte {
	b := byte(PUBLISH)<<4 | p.QoS&3<<1
	if p.Dup {
		b |= 8
	}
	if p.Retain {
		b |= 1
	}
	return b
}

func (p *Publish) appendWith(dst []byte, in *Properties) []byte {
	return frame(dst, p.first(), func(b []byte) []byte {
		b = appendString(b, p.Topic)
		if p.QoS > 0 {
			b = appendUint16(b, p.PacketID)
		}
		return append(in.append(b), p.Payload...)
	})
}

func (p *Properties) fromMessage(m *PublishProperties) {
	if m == nil {
		return
	}
	if m.PayloadFormat != nil {
		p.Present |= 1 << PropPayloadFormat
		p.PayloadFormat = *m.PayloadFormat
	}
	if m.MessageExpiry != nil {
		p.Present |= 1 << PropMessageExpiry
		p.MessageExpiry = *m.MessageExpiry
	}
	if m.ContentType != "" {
		p.Present |= 1 << PropContentType
		p.ContentType = m.ContentType
	}
	if m.ResponseTopic != "" {
		p.Present |= 1 << PropResponseTopic
		p.ResponseTopic = m.ResponseTopic
	}
	if m.CorrelationData != nil {
		p.Present |= 1 << PropCorrelationData
		p.CorrelationData = m.CorrelationData
	}
	if len(m.UserProperties) > 0 {
		p.Present |= 1 << PropUserProperty
		p.UserProperties = m.UserProperties
	}
}

// WillProperties are the properties of a CONNECT's will that carry m, delayed by
// delaySeconds.
func WillProperties(m *PublishProperties, delaySeconds uint32) Properties {
	var p Properties
	p.fromMessage(m)
	if delaySeconds > 0 {
		p.Present |= 1 << PropWillDelay
		p.WillDelay = delaySeconds
	}
	return p
}

// AppendPublish encodes a PUBLISH without properties: the hot path of a broker. first
// is the packet's first byte; packetID is written when it says QoS 1 or 2.
func AppendPublish[T string | []byte](dst []byte, v Version, first byte, topic T, packetID uint16, payload []byte) []byte {
	n := 2 + len(topic) + len(payload)
	if first&0x06 != 0 {
		n += 2
	}
	if v == V5 {
		n++
	}
	dst = appendVarint(append(dst, first), n)
	dst = appendString(dst, topic)
	if first&0x06 != 0 {
		dst = appendUint16(dst, packetID)
	}
	if v == V5 {
		dst = append(dst, 0)
	}
	return append(dst, payload...)
}

// AppendProperties encodes the property list of a PUBLISH, its length included.
func (m *PublishProperties) AppendProperties(dst []byte) []byte {
	var in Properties
	in.fromMessage(m)
	return in.append(dst)
}

// ParsePublishProperties decodes what AppendProperties encoded; the lists of clients
// have passed stricter rules.
func ParsePublishProperties(b []byte) (*PublishProperties, error) {
	r := reader{b: b}
	var in Properties
	if err := in.parse(&r, publishProperties); err != nil {
		return nil, err
	}
	return in.message(), r.end()
}

// PublishSize is the size of the packet that Append makes, for limits.
func (p *Publish) PublishSize(v Version) int {
	n := 2 + len(p.Topic) + len(p.Payload)
	if p.QoS > 0 {
		n += 2
	}
	if v == V5 {
		if p.Properties == nil {
			n++
		} else {
			n += len(p.Properties.AppendProperties(nil))
		}
	}
	return 1 + varintSize(n) + n
}

// Append encodes the packet, as short as 5.0 allows.
func (p *Ack) Append(dst []byte, v Version) []byte {
	first := byte(p.Type) << 4
	if p.Type == PUBREL {
		first |= 2
	}
	bare := p.Properties.Present == 0
	switch {
	case v != V5 || bare && p.Code == Success:
		return appendUint16(append(dst, first, 2), p.PacketID)
	case bare:
		return append(appendUint16(append(dst, first, 3), p.PacketID), byte(p.Code))
	}
	return frame(dst, first, func(b []byte) []byte {
		return p.Properties.append(append(appendUint16(b, p.PacketID), byte(p.Code)))
	})
}

// Append encodes the packet.
func (p *Subscribe) Append(dst []byte, v Version) []byte {
	return frame(dst, byte(SUBSCRIBE)<<4|2, func(b []byte) []byte {
		b = appendUint16(b, p.PacketID)
		if v == V5 {
			b = p.Properties.append(b)
		}
		for _, s := range p.Subscriptions {
			o := s.QoS & 3
			if v == V5 {
				if s.NoLocal {
					o |= 4
				}
				if s.RetainAsPublished {
					o |= 8
				}
				o |= s.RetainHandling & 3 << 4
			}
			b = append(appendString(b, s.Filter), o)
		}
		return b
	})
}

// Append encodes the packet; in 3.1.1 every failure is 0x80 [MQTT-3.9.3-2].
func (p *Suback) Append(dst []byte, v Version) []byte {
	return frame(dst, byte(SUBACK)<<4, func(b []byte) []byte {
		b = appendUint16(b, p.PacketID)
		if v == V5 {
			b = p.Properties.append(b)
		}
		for _, c := range p.Codes {
			if v != V5 && c.Failed() {
				c = UnspecifiedError
			}
			b = append(b, byte(c))
		}
		return b
	})
}

// Append encodes the packet.
func (p *Unsubscribe) Append(dst []byte, v Version) []byte {
	return frame(dst, byte(UNSUBSCRIBE)<<4|2, func(b []byte) []byte {
		b = appendUint16(b, p.PacketID)
		if v == V5 {
			b = p.Properties.append(b)
		}
		for _, f := range p.Filters {
			b = appendString(b, f)
		}
		return b
	})
}

// Append encodes the packet.
func (p *Unsuback) Append(dst []byte, v Version) []byte {
	if v != V5 {
		return appendUint16(append(dst, byte(UNSUBACK)<<4, 2), p.PacketID)
	}
	return frame(dst, byte(UNSUBACK)<<4, func(b []byte) []byte {
		b = p.Properties.append(appendUint16(b, p.PacketID))
		for _, c := range p.Codes {
			b = append(b, byte(c))
		}
		return b
	})
}

// Append encodes the packet.
func (Pingreq) Append(dst []byte, _ Version) []byte { return append(dst, byte(PINGREQ)<<4, 0) }

// Append encodes the packet.
func (Pingresp) Append(dst []byte, _ Version) []byte { return append(dst, byte(PINGRESP)<<4, 0) }

// Append encodes the packet.
func (p *Disconnect) Append(dst []byte, v Version) []byte {
	bare := p.Properties.Present == 0
	switch {
	case v != V5 || bare && p.Code == Success:
		return append(dst, byte(DISCONNECT)<<4, 0)
	case bare:
		return append(dst, byte(DISCONNECT)<<4, 1, byte(p.Code))
	}
	return frame(dst, byte(DISCONNECT)<<4, func(b []byte) []byte {
		return p.Properties.append(append(b, byte(p.Code)))
	})
}

// Append encodes the packet.
func (p *Auth) Append(dst []byte, _ Version) []byte {
	if p.Code == Success && p.Properties.Present == 0 {
		return append(dst, byte(AUTH)<<4, 0)
	}
	return frame(dst, byte(AUTH)<<4, func(b []byte) []byte {
		return p.Properties.append(append(b, byte(p.Code)))
	})
}
