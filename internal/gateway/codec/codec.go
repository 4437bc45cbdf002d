package codec

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"flotilla/internal/mqtt"
)

const form = 1

const certificate = "certificate" // the usual type of principals

const (
	flagQoS1 = 1 << iota
	flagRetain
	flagProperties
	flagSource
	flagRecipient
	flagCertificate   // the source's principal is a certificate
	flagPrincipalType // it is of another type, which is written

	allFlags = 1<<iota - 1
)

// maxText bounds every text: MQTT's own limit of strings, and room for a list of
// properties.
const (
	maxText       = 65535
	maxProperties = 1 << 20
)

// ErrMalformed is returned for what Append can not have made.
var ErrMalformed = errors.New("codec: not an encoded message")

// Append encodes m at the end of dst. Quality of service above 1 becomes 1; texts
// beyond MQTT's 65,535 bytes are not supported.
func Append(dst []byte, m *mqtt.Message) []byte {
	return appendMessage(dst, m, m.Source != mqtt.Source{})
}

// AppendWithoutSource encodes m without who published it: what a queue needs.
func AppendWithoutSource(dst []byte, m *mqtt.Message) []byte { return appendMessage(dst, m, false) }

func appendMessage(dst []byte, m *mqtt.Message, source bool) []byte {
	flags := byte(0)
	if m.QoS > 0 {
		flags |= flagQoS1
	}
	if m.Retain {
		flags |= flagRetain
	}
	if !empty(m.Properties) {
		flags |= flagProperties
	}
	if source {
		flags |= flagSource
		switch m.Source.PrincipalType {
		case "":
		case certificate:
			flags |= flagCertificate
		default:
			flags |= flagPrincipalType
		}
	}
	if m.Recipient != "" {
		flags |= flagRecipient
	}
	dst = append(dst, form, flags)
	var ms uint64
	if !m.Received.IsZero() {
		ms = uint64(max(0, m.Received.UnixMilli()))
	}
	dst = binary.AppendUvarint(dst, ms)
	dst = appendText(dst, m.Topic)
	if flags&flagProperties != 0 {
		dst = appendProperties(dst, m.Properties)
	}
	if source {
		dst = appendText(dst, m.Source.ClientID)
		dst = appendText(dst, m.Source.PrincipalID)
		if flags&flagPrincipalType != 0 {
			dst = appendText(dst, m.Source.PrincipalType)
		}
		dst = appendText(dst, m.Source.Protocol)
		switch a := m.Source.Address.Unmap(); {
		case a.Is4():
			b := a.As4()
			dst = append(append(dst, 4), b[:]...)
		case a.Is6():
			b := a.As16()
			dst = append(append(dst, 16), b[:]...)
		default:
			dst = append(dst, 0)
		}
	}
	if flags&flagRecipient != 0 {
		dst = appendText(dst, m.Recipient)
	}
	return append(dst, m.Payload...)
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// appendProperties leaves three bytes for the length, which is written padded.
func appendProperties(dst []byte, p *mqtt.PublishProperties) []byte {
	start := len(dst)
	dst = p.AppendProperties(append(dst, 0, 0, 0))
	n := len(dst) - start - 3
	dst[start], dst[start+1], dst[start+2] = byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14)&0x7f
	return dst
}

// Parse decodes what Append made. The message's texts are copies; its payload is a
// part of b.
func Parse(b []byte) (*mqtt.Message, error) {
	if len(b) < 2 || b[0] != form || b[1]&^allFlags != 0 {
		return nil, ErrMalformed
	}
	flags := b[1]
	r := reader{b: b[2:]}
	m := &mqtt.Message{Retain: flags&flagRetain != 0}
	if flags&flagQoS1 != 0 {
		m.QoS = 1
	}
	if ms := r.uvarint(); ms > 1<<48 {
		return nil, ErrMalformed
	} else if ms != 0 {
		m.Received = time.UnixMilli(int64(ms))
	}
	m.Topic = string(r.text(maxText))
	if flags&flagProperties != 0 {
		list := r.text(maxProperties)
		if r.bad {
			return nil, ErrMalformed
		}
		p, err := mqtt.ParsePublishProperties(list)
		if err != nil {
			return nil, errors.Join(ErrMalformed, err)
		}
		if !empty(p) {
			m.Properties = p
		}
	}
	if flags&flagSource != 0 {
		m.Source.ClientID = string(r.text(maxText))
		m.Source.PrincipalID = string(r.text(maxText))
		switch {
		case flags&flagCertificate != 0:
			m.Source.PrincipalType = certificate
		case flags&flagPrincipalType != 0:
			m.Source.PrincipalType = string(r.text(64))
		}
		m.Source.Protocol = protocol(r.text(16))
		if a := r.text(16); len(a) > 0 {
			addr, ok := netip.AddrFromSlice(a)
			if !ok {
				return nil, ErrMalformed
			}
			m.Source.Address = addr
		}
	}
	if flags&flagRecipient != 0 {
		if m.Recipient = string(r.text(maxText)); m.Recipient == "" {
			return nil, ErrMalformed // it would reach everybody
		}
	}
	if r.bad {
		return nil, ErrMalformed
	}
	if len(r.b) > 0 {
		m.Payload = r.b
	}
	return m, nil
}

func empty(p *mqtt.PublishProperties) bool {
	return p == nil || p.PayloadFormat == nil && p.MessageExpiry == nil && p.ContentType == "" && p.ResponseTopic == "" &&
		p.CorrelationData == nil && len(p.UserProperties) == 0
}

// protocol spares a copy of the names in use.
func protocol(b []byte) string {
	switch string(b) {
	case "MQTT":
		return "MQTT"
	case "HTTP":
		return "HTTP"
	case "WebSocket":
		return "WebSocket"
	}
	return string(b)
}

// reader takes values from the front of b until one is bad.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// text is a part of the input.
func (r *reader) text(limit int) []byte {
	n := r.uvarint()
	if r.bad || n > uint64(limit) || n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}
