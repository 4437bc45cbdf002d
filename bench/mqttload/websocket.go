package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
)

// webSocket carries MQTT over WebSocket: each write is a frame, and reads see payloads alone.
type webSocket struct {
	net.Conn
	left int // bytes of the frame under way
}

// upgrade asks for MQTT over WebSocket on a connection.
func upgrade(c net.Conn) (net.Conn, error) {
	_, err := io.WriteString(c, "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n")
	if err != nil {
		return nil, err
	}
	var head strings.Builder
	for b := make([]byte, 1); !strings.HasSuffix(head.String(), "\r\n\r\n"); head.Write(b) {
		if head.Len() > 4096 {
			return nil, fmt.Errorf("the answer to the upgrade has no end")
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return nil, err
		}
	}
	if !strings.HasPrefix(head.String(), "HTTP/1.1 101 ") {
		return nil, fmt.Errorf("upgrade: %.60q", head.String())
	}
	return &webSocket{Conn: c}, nil
}

func (w *webSocket) Write(b []byte) (int, error) {
	frame := []byte{0x82, 0x80 | 126, 0, 0, 0, 0, 0, 0} // binary, masked with zeros
	binary.BigEndian.PutUint16(frame[2:], uint16(len(b)))
	if len(b) < 126 {
		frame = append(frame[:0], 0x82, 0x80|byte(len(b)), 0, 0, 0, 0)
	}
	if len(b) > 65535 {
		return 0, fmt.Errorf("a write of %d bytes", len(b))
	}
	_, err := w.Conn.Write(append(frame, b...))
	return len(b), err
}

func (w *webSocket) Read(b []byte) (int, error) {
	for w.left == 0 {
		var h [8]byte
		if _, err := io.ReadFull(w.Conn, h[:2]); err != nil {
			return 0, err
		}
		if h[0] != 0x82 {
			return 0, io.EOF // a Close frame, or what this does not understand
		}
		switch w.left = int(h[1]); w.left {
		case 126:
			if _, err := io.ReadFull(w.Conn, h[:2]); err != nil {
				return 0, err
			}
			w.left = int(binary.BigEndian.Uint16(h[:]))
		case 127:
			if _, err := io.ReadFull(w.Conn, h[:8]); err != nil {
				return 0, err
			}
			w.left = int(binary.BigEndian.Uint64(h[:]))
		}
	}
	n, err := w.Conn.Read(b[:min(len(b), w.left)])
	w.left -= n
	return n, err
}

// NetConn is what it is carried by.
func (w *webSocket) NetConn() net.Conn { return w.Conn }
