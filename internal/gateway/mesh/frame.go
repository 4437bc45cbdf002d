package mesh

import (
	"encoding/binary"
	"errors"
	"time"

	"flotilla/internal/gateway/codec"
	"flotilla/internal/mqtt"
)

// What goes over NATS begins with
//
//	byte     form, 1
//	byte     kind
//	byte, …  length of the node's id, the id
//	8 bytes  the node's incarnation, big endian as all that follows
//
// and goes on by kind:
//
//	alive    byte flags (1: farewell), text version
//	frame    8 bytes incarnation of the receiver, 8 link, 8 sequence, records
//	ack      8 bytes incarnation of the receiver, 8 link, 8 sequence, byte flags (1: send again from here)
//	question 8 bytes incarnation of the receiver, 4 milliseconds until nobody waits, its bytes
//	answer   byte code, its bytes
//
// A record is its type, its length as a uvarint, and its body.
const (
	form = 1

	kindAlive    = 1
	kindFrame    = 2
	kindAck      = 3
	kindQuestion = 4
	kindAnswer   = 5

	flagFarewell = 1
	flagAgain    = 1
)

// The types of records.
const (
	recMessage      = 1  // groups (count, texts), message
	recAddExact     = 2  // hashes, 8 bytes each
	recRemoveExact  = 3  //
	recAddFilter    = 4  // filter
	recRemoveFilter = 5  //
	recSynced       = 6  // the link's opening announcement is complete
	recNudge        = 7  // uvarint id, client id
	recKick         = 8  // 8 bytes request, 8 epoch, client id
	recChanged      = 9  // 8 bytes request, client id
	recDone         = 10 // 8 bytes request, byte code
	recShared       = 11 // 8 bytes request, then as recMessage
	recOutcome      = 12 // 8 bytes request, groups of which nobody took the message (count, texts)
)

const (
	maxNodeID    = 128
	maxVersion   = 128
	maxClientID  = 65535
	maxFilter    = 65535
	maxGroups    = 1 << 16
	frameTrailer = 8 + 8 + 8 // after the common head
)

var errMalformed = errors.New("mesh: not of a form that this version knows")

// header is the common head.
type header struct {
	kind        byte
	node        string
	incarnation uint64
}

func appendHeader(dst []byte, h header) []byte {
	dst = append(dst, form, h.kind, byte(len(h.node)))
	dst = append(dst, h.node...)
	return binary.BigEndian.AppendUint64(dst, h.incarnation)
}

// parseHeader gives what follows the head as a part of b.
func parseHeader(b []byte) (h header, rest []byte, err error) {
	if len(b) < 3 || b[0] != form {
		return h, nil, errMalformed
	}
	n := int(b[2])
	if n == 0 || n > maxNodeID || len(b) < 3+n+8 {
		return h, nil, errMalformed
	}
	h.kind, h.node = b[1], string(b[3:3+n])
	h.incarnation = binary.BigEndian.Uint64(b[3+n:])
	return h, b[3+n+8:], nil
}

type alive struct {
	farewell bool
	version  string
}

func appendAlive(dst []byte, a alive) []byte {
	flags := byte(0)
	if a.farewell {
		flags = flagFarewell
	}
	if len(a.version) > maxVersion {
		a.version = a.version[:maxVersion]
	}
	return append(append(dst, flags, byte(len(a.version))), a.version...)
}

func parseAlive(b []byte) (a alive, err error) {
	// A later version may add fields at the end.
	if len(b) < 2 || int(b[1]) > maxVersion || len(b) < 2+int(b[1]) {
		return a, errMalformed
	}
	return alive{b[0]&flagFarewell != 0, string(b[2 : 2+int(b[1])])}, nil
}

// place is where a frame or an ack belongs.
type place struct {
	to, link, seq uint64
}

func putPlace(dst []byte, p place) {
	binary.BigEndian.PutUint64(dst, p.to)
	binary.BigEndian.PutUint64(dst[8:], p.link)
	binary.BigEndian.PutUint64(dst[16:], p.seq)
}

func parsePlace(b []byte) (p place, rest []byte, err error) {
	if len(b) < frameTrailer {
		return p, nil, errMalformed
	}
	return place{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}, b[frameTrailer:], nil
}

// nextRecord takes a record from the front of b.
func nextRecord(b []byte) (kind byte, body, rest []byte, err error) {
	if len(b) < 2 {
		return 0, nil, nil, errMalformed
	}
	n, size := binary.Uvarint(b[1:])
	if size <= 0 || n > uint64(len(b)-1-size) {
		return 0, nil, nil, errMalformed
	}
	start := 1 + size
	end := start + int(n)
	return b[0], b[start:end:end], b[end:], nil
}

func appendRecord(dst []byte, kind byte, body ...[]byte) []byte {
	n := 0
	for _, b := range body {
		n += len(b)
	}
	dst = binary.AppendUvarint(append(dst, kind), uint64(n))
	for _, b := range body {
		dst = append(dst, b...)
	}
	return dst
}

// appendMessage encodes a message record; its length, four bytes, is known last. A
// request other than 0 asks for a recOutcome.
func appendMessage(dst []byte, request uint64, m *mqtt.Message, groups []string) []byte {
	kind := byte(recMessage)
	if request != 0 {
		kind = recShared
	}
	dst = append(dst, kind, 0, 0, 0, 0)
	start := len(dst)
	if request != 0 {
		dst = binary.BigEndian.AppendUint64(dst, request)
	}
	dst = codec.Append(appendGroups(dst, groups), m)
	n := len(dst) - start
	for i := range 4 {
		dst[start-4+i] = byte(n>>(7*i))&0x7f | 0x80
	}
	dst[start-1] &= 0x7f
	return dst
}

func appendGroups(dst []byte, groups []string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(groups)))
	for _, g := range groups {
		dst = appendText(dst, g)
	}
	return dst
}

func cutGroups(b []byte) (groups []string, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > maxGroups || n > uint64(len(b)) {
		return nil, nil, errMalformed
	}
	b = b[size:]
	for range n {
		var g []byte
		if g, b, err = cutText(b, maxFilter); err != nil {
			return nil, nil, err
		}
		groups = append(groups, string(g))
	}
	return groups, b, nil
}

// parseMessage decodes a message record; it keeps nothing of body.
func parseMessage(body []byte) (m *mqtt.Message, groups []string, err error) {
	groups, body, err = cutGroups(body)
	if err != nil {
		return nil, nil, err
	}
	// The frame holds many messages, of which some are kept for longer: each has
	// its own bytes.
	m, err = codec.Parse(append(make([]byte, 0, len(body)), body...))
	return m, groups, err
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func cutText(b []byte, limit int) (text, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(limit) || n > uint64(len(b)-size) {
		return nil, nil, errMalformed
	}
	return b[size : size+int(n)], b[size+int(n):], nil
}

// request is a record that is answered with recDone.
type request struct {
	kind     byte // recKick or recChanged
	id       uint64
	epoch    int64 // of recKick
	clientID string
}

func (r request) append(dst []byte) []byte {
	var fixed [16]byte
	binary.BigEndian.PutUint64(fixed[:], r.id)
	n := 8
	if r.kind == recKick {
		binary.BigEndian.PutUint64(fixed[8:], uint64(r.epoch))
		n = 16
	}
	return appendRecord(dst, r.kind, fixed[:n], []byte(r.clientID))
}

func parseRequest(kind byte, body []byte) (r request, err error) {
	r.kind = kind
	fixed := 8
	if kind == recKick {
		fixed = 16
	}
	if len(body) < fixed || len(body) > fixed+maxClientID {
		return r, errMalformed
	}
	r.id = binary.BigEndian.Uint64(body)
	if kind == recKick {
		r.epoch = int64(binary.BigEndian.Uint64(body[8:]))
	}
	r.clientID = string(body[fixed:])
	return r, nil
}

func appendDone(dst []byte, id uint64, code byte) []byte {
	var b [9]byte
	binary.BigEndian.PutUint64(b[:], id)
	b[8] = code
	return appendRecord(dst, recDone, b[:])
}

func parseDone(body []byte) (id uint64, code byte, err error) {
	if len(body) != 9 {
		return 0, 0, errMalformed
	}
	return binary.BigEndian.Uint64(body), body[8], nil
}

func appendOutcome(dst []byte, id uint64, untaken []string) []byte {
	return appendRecord(dst, recOutcome, binary.BigEndian.AppendUint64(nil, id), appendGroups(nil, untaken))
}

// cutRequest takes the number of a request from the front of b.
func cutRequest(b []byte) (id uint64, rest []byte, err error) {
	if len(b) < 8 {
		return 0, nil, errMalformed
	}
	return binary.BigEndian.Uint64(b), b[8:], nil
}

func appendNudge(dst []byte, clientID string, id int64) []byte {
	var b [binary.MaxVarintLen64]byte
	return appendRecord(dst, recNudge, b[:binary.PutUvarint(b[:], uint64(id))], []byte(clientID))
}

func parseNudge(body []byte) (clientID string, id int64, err error) {
	v, n := binary.Uvarint(body)
	if n <= 0 || v > 1<<63-1 || len(body)-n > maxClientID {
		return "", 0, errMalformed
	}
	return string(body[n:]), int64(v), nil
}

// appendQuestion writes what follows the head of a question that waits for limit.
func appendQuestion(dst []byte, to uint64, limit time.Duration, question []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, to)
	dst = binary.BigEndian.AppendUint32(dst, uint32(limit.Milliseconds()))
	return append(dst, question...)
}

func parseQuestion(b []byte) (to uint64, limit time.Duration, question []byte, err error) {
	if len(b) < 12 {
		return 0, 0, nil, errMalformed
	}
	limit = time.Duration(binary.BigEndian.Uint32(b[8:])) * time.Millisecond
	return binary.BigEndian.Uint64(b), min(limit, maxQuestionTime), b[12:], nil
}
