package rules

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"flotilla/internal/rules/action"
)

// entry is a row of the outbox: a message as an action is to execute it, and as
// the error action would.
type entry struct {
	action.Record // without Rule
	// damaged tells that the row could not be read; nothing but ID is set.
	damaged bool
	// fault tells that the action can not be executed at all: its templates failed.
	fault string
	// The rest serves the error action; it is empty when the rule has none.
	failure *failure
}

// failure is what the error action needs beside the reason.
type failure struct {
	trace    string
	original []byte   // payload as published
	fields   []string // of the error action
	fault    string   // the error action's templates failed
}

// entryVersion is the first byte of an encoded entry. Version 1:
//
//	flags    byte: 1 has a failure, 2 the failure's original is the payload, 4 has hops
//	hops     uvarint (if any)
//	received varint, ms since 1970
//	topic, clientID, fault   strings
//	fields   uvarint count, strings
//	failure  (if any) trace, fault strings; fields; original string unless flag 2
//	payload  string
//
// A string is its length (uvarint) and its bytes.
const entryVersion = 1

const (
	flagFailure = 1 << iota
	flagSamePayload
	flagHops
)

// appendEntry encodes an entry but for its id.
func appendEntry(b []byte, e *entry) []byte {
	flags := byte(0)
	if e.failure != nil {
		flags |= flagFailure
		if len(e.Payload) > 0 && len(e.Payload) == len(e.failure.original) && &e.Payload[0] == &e.failure.original[0] {
			flags |= flagSamePayload
		}
	}
	if e.Hops > 0 {
		flags |= flagHops
	}
	b = append(b, entryVersion, flags)
	if e.Hops > 0 {
		b = binary.AppendUvarint(b, uint64(e.Hops))
	}
	b = binary.AppendVarint(b, e.Received.UnixMilli())
	b = appendText(b, e.Topic)
	b = appendText(b, e.ClientID)
	b = appendText(b, e.fault)
	b = appendTexts(b, e.Fields)
	if f := e.failure; f != nil {
		b = appendText(b, f.trace)
		b = appendText(b, f.fault)
		b = appendTexts(b, f.fields)
		if flags&flagSamePayload == 0 {
			b = appendText(b, f.original)
		}
	}
	return appendText(b, e.Payload)
}

// entrySize is at least the size of the encoded entry.
func entrySize(e *entry) int {
	n := 64 + len(e.Topic) + len(e.ClientID) + len(e.fault) + len(e.Payload)
	for _, f := range e.Fields {
		n += len(f) + 5
	}
	if f := e.failure; f != nil {
		n += len(f.trace) + len(f.fault) + len(f.original)
		for _, s := range f.fields {
			n += len(s) + 5
		}
	}
	return n
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendTexts(b []byte, texts []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(texts)))
	for _, s := range texts {
		b = appendText(b, s)
	}
	return b
}

var errEntry = errors.New("rules: a row of the outbox is damaged")

// parseEntry decodes what appendEntry made; it keeps b.
func parseEntry(b []byte) (e entry, err error) {
	if len(b) < 2 || b[0] != entryVersion {
		return e, errEntry
	}
	flags := b[1]
	r := entryReader{b: b[2:]}
	if flags&flagHops != 0 {
		hops, n := binary.Uvarint(r.b)
		if n <= 0 || hops > math.MaxInt32 {
			return e, errEntry
		}
		r.b, e.Hops = r.b[n:], int(hops)
	}
	received, n := binary.Varint(r.b)
	if n <= 0 {
		return e, errEntry
	}
	r.b = r.b[n:]
	e.Received = time.UnixMilli(received)
	e.Topic, e.ClientID, e.fault = string(r.text()), string(r.text()), string(r.text())
	e.Fields = r.texts()
	if flags&flagFailure != 0 {
		e.failure = &failure{trace: string(r.text()), fault: string(r.text())}
		e.failure.fields = r.texts()
		if flags&flagSamePayload == 0 {
			e.failure.original = r.text()
		}
	}
	e.Payload = r.text()
	if flags&flagFailure != 0 && flags&flagSamePayload != 0 {
		e.failure.original = e.Payload
	}
	if r.bad || len(r.b) > 0 {
		return entry{}, errEntry
	}
	return e, nil
}

type entryReader struct {
	b   []byte
	bad bool
}

func (r *entryReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > uint64(len(r.b)-n) { // all numbers count what follows
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *entryReader) text() []byte {
	n := r.uvarint()
	s := r.b[:n:n]
	r.b = r.b[n:]
	return s
}

func (r *entryReader) texts() []string {
	n := r.uvarint()
	if n == 0 {
		return nil
	}
	out := make([]string, 0, min(n, 128))
	for range n {
		out = append(out, string(r.text()))
	}
	return out
}
