package gateway_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"flotilla/internal/mqtt"
)

type wireVector struct {
	ID, Version, Note string
	Steps             []struct {
		Send string
		Fill *struct {
			Byte  string
			Count int
		}
		AnyOf []wireOutcome
	}
}

type wireOutcome struct {
	Type        string
	Hex         string
	Codes       []int
	PacketID    uint16
	ThenClose   bool
	HasProperty json.RawMessage
}

// TestVectorsMQTTWire sends raw packets to a live listener. FLOTILLA_VECTORS names the folder
// of the vectors.
func TestVectorsMQTTWire(t *testing.T) {
	dir := os.Getenv("FLOTILLA_VECTORS")
	if dir == "" {
		dir = "testdata"
	}
	// AWS's limits, but for the one that hinders tests: the vectors share client ids.
	w := start(t)
	for _, v := range loadVectors(t, filepath.Join(dir, "mqtt-wire.jsonl")) {
		t.Run(v.ID, func(t *testing.T) {
			if err := runWire(w.dial(t), v); err != nil {
				t.Errorf("%v (%s)", err, v.Note)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "mqtt-wire.low.jsonl")); err == nil {
		for _, v := range loadVectors(t, filepath.Join(dir, "mqtt-wire.low.jsonl")) {
			if err := runWire(w.dial(t), v); err != nil {
				t.Logf("for information: %s: %v", v.ID, err)
			}
		}
	}
}

func loadVectors(t *testing.T, path string) (out []wireVector) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<22)
	for sc.Scan() {
		var v wireVector
		if err := json.Unmarshal(sc.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatal("no vectors")
	}
	return out
}

func runWire(conn net.Conn, v wireVector) error {
	defer conn.Close()
	version := mqtt.V311
	if v.Version == "5.0" {
		version = mqtt.V5
	}
	for i, s := range v.Steps {
		if err := sendWire(conn, s.Send); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		if s.Fill != nil {
			b, err := hex.DecodeString(s.Fill.Byte)
			if err != nil {
				return err
			}
			// It may be refused before it is all there.
			_, _ = conn.Write(bytes.Repeat(b, s.Fill.Count))
		}
		got := observe(conn, version, s.AnyOf)
		ok := slices.ContainsFunc(s.AnyOf, func(o wireOutcome) bool { return got.is(o) })
		if !ok {
			return fmt.Errorf("step %d: got %x, closed %v; want any of %+v", i, got.bytes, got.closed, s.AnyOf)
		}
	}
	return nil
}

// sendWire writes hex; "|" is a pause between two writes.
func sendWire(conn net.Conn, text string) error {
	for i, part := range strings.Split(text, "|") {
		if i > 0 {
			timer := time.NewTimer(50 * time.Millisecond)
			<-timer.C
		}
		b, err := hex.DecodeString(part)
		if err != nil {
			return err
		}
		if _, err := conn.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// seen is what came after a step.
type seen struct {
	bytes  []byte
	closed bool
	alive  bool // answered a PINGREQ
	v      mqtt.Version
}

// observe reads until the connection is closed, or what came is one of the outcomes and nothing more comes for a while.
func observe(conn net.Conn, v mqtt.Version, want []wireOutcome) seen {
	s := seen{v: v}
	quiet := 60 * time.Millisecond
	if silenceIsEnough(want) || expectsMore(want) {
		quiet = 300 * time.Millisecond
	}
	buf := make([]byte, 4096)
	for end := time.Now().Add(patience); ; {
		_ = conn.SetReadDeadline(time.Now().Add(quiet))
		n, err := conn.Read(buf)
		s.bytes = append(s.bytes, buf[:n]...)
		var ne net.Error
		if err != nil && !(errors.As(err, &ne) && ne.Timeout()) {
			s.closed = true
			return s
		}
		if err != nil && (silenceIsEnough(want) && len(s.bytes) == 0 || slices.ContainsFunc(want, s.is) || time.Now().After(end)) {
			break
		}
	}
	for _, o := range want {
		if o.Type == "open" && len(s.bytes) == 0 {
			_, _ = conn.Write([]byte{0xc0, 0})
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			n, _ := io.ReadFull(conn, buf[:2])
			s.alive = bytes.Equal(buf[:n], []byte{0xd0, 0})
		}
	}
	return s
}

// silenceIsEnough tells whether nothing at all may be an outcome.
func silenceIsEnough(want []wireOutcome) bool {
	return slices.ContainsFunc(want, func(o wireOutcome) bool { return o.Type == "noReply" || o.Type == "open" })
}

func expectsMore(want []wireOutcome) bool {
	return slices.ContainsFunc(want, func(o wireOutcome) bool { return o.ThenClose || o.Type == "disconnect" || o.Type == "close" })
}

func (s *seen) is(o wireOutcome) bool {
	switch o.Type {
	case "packet":
		b, err := hex.DecodeString(o.Hex)
		return err == nil && !s.closed && bytes.Equal(s.bytes, b)
	case "close":
		return s.closed && len(s.bytes) == 0
	case "noReply":
		return !s.closed && len(s.bytes) == 0
	case "open":
		return s.alive
	case "connack":
		p, ok := s.packet().(*mqtt.Connack)
		if !ok || s.closed != o.ThenClose {
			return false
		}
		code := int(p.Code)
		if s.v == mqtt.V311 {
			code = int(s.bytes[3])
		}
		return slices.Contains(o.Codes, code)
	case "disconnect":
		p, ok := s.packet().(*mqtt.Disconnect)
		return ok && s.closed && slices.Contains(o.Codes, int(p.Code))
	case "puback", "suback", "unsuback":
		return !s.closed && s.answers(o)
	}
	return false
}

func (s *seen) answers(o wireOutcome) bool {
	var codes []mqtt.ReasonCode
	var id uint16
	switch p := s.packet().(type) {
	case *mqtt.Ack:
		if o.Type != "puback" {
			return false
		}
		id, codes = p.PacketID, []mqtt.ReasonCode{p.Code}
	case *mqtt.Suback:
		if o.Type != "suback" {
			return false
		}
		id, codes = p.PacketID, p.Codes
	case *mqtt.Unsuback:
		if o.Type != "unsuback" {
			return false
		}
		id, codes = p.PacketID, p.Codes
	default:
		return false
	}
	for _, c := range codes {
		if !slices.Contains(o.Codes, int(c)) {
			return false
		}
	}
	return id == o.PacketID
}

func (s *seen) packet() mqtt.Packet {
	h, body, n, err := mqtt.Next(s.bytes, 1<<20)
	if err != nil || n == 0 || n != len(s.bytes) {
		return nil
	}
	p, err := mqtt.Decode(s.v, h, body)
	if err != nil {
		return nil
	}
	return p
}
