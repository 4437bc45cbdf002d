package mqtt

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

func (s PropertySet) first() PropertyID { return PropertyID(bits.TrailingZeros64(uint64(s))) }

// reader takes values from the front of b; after the first failure err stays.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(reason string) {
	if r.err == nil {
		r.err = newError(MalformedPacket, reason)
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) < 1 {
		r.fail("the packet ends before its fields")
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// flag is a byte that is 0 or 1.
func (r *reader) flag() byte {
	v := r.byte()
	if v > 1 && r.err == nil {
		r.err = newError(ProtocolError, "a flag is neither 0 nor 1")
	}
	return v
}

func (r *reader) uint16() uint16 {
	if len(r.b) < 2 {
		r.fail("the packet ends before its fields")
		return 0
	}
	v := binary.BigEndian.Uint16(r.b)
	r.b = r.b[2:]
	return v
}

func (r *reader) uint32() uint32 {
	if len(r.b) < 4 {
		r.fail("the packet ends before its fields")
		return 0
	}
	v := binary.BigEndian.Uint32(r.b)
	r.b = r.b[4:]
	return v
}

// varint is a variable byte integer; it must have the least number of bytes
// [MQTT-1.5.5-1].
func (r *reader) varint() int {
	v, n := varint(r.b)
	if n <= 0 {
		r.fail("not a variable byte integer")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes is a length-prefixed field, as a part of the input.
func (r *reader) bytes() []byte {
	n := int(r.uint16())
	if r.err != nil {
		return nil
	}
	if n > len(r.b) {
		r.fail("a field runs past the packet")
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// text is a UTF-8 encoded string [MQTT-1.5.4-1, MQTT-1.5.4-2], as a part of the input.
func (r *reader) text() []byte {
	v := r.bytes()
	if r.err == nil && !validText(v) {
		r.fail("a string is not UTF-8, or has U+0000")
		return nil
	}
	return v
}

func validText(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }

func (r *reader) string() string { return string(r.text()) }

// binary is a copy.
func (r *reader) binary() []byte {
	v := r.bytes()
	if r.err != nil {
		return nil
	}
	return append(make([]byte, 0, len(v)), v...)
}

// end fails unless everything was read.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("bytes after the last field")
	}
	return r.err
}

// varint returns n = 0 when b is too short and n < 0 when it is malformed.
func varint(b []byte) (v, n int) {
	for i := range 4 {
		if i >= len(b) {
			return 0, 0
		}
		v |= int(b[i]&0x7f) << (7 * i)
		if b[i]&0x80 == 0 {
			if i > 0 && b[i] == 0 {
				return 0, -1 // not the least number of bytes
			}
			return v, i + 1
		}
	}
	return 0, -1
}

func appendVarint(dst []byte, v int) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

func varintSize(v int) int {
	switch {
	case v < 1<<7:
		return 1
	case v < 1<<14:
		return 2
	case v < 1<<21:
		return 3
	}
	return 4
}

func appendUint16(dst []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(dst, v) }
func appendUint32(dst []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(dst, v) }

// appendString writes at most the 65,535 bytes that the format has room for.
func appendString[S string | []byte](dst []byte, s S) []byte {
	if len(s) > 65535 {
		s = s[:65535]
	}
	return append(appendUint16(dst, uint16(len(s))), s...)
}

func appendBinary(dst, b []byte) []byte { return appendString(dst, b) }
