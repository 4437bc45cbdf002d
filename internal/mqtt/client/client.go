// Package client is an MQTT 5 client for the project's own tools: simulated
// devices, the command line, bridges. It is small in memory, so that one process
// can be a fleet, and speaks what AWS IoT Core does: QoS 0 and 1, TLS.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"flotilla/internal/mqtt"
)

// Config describes a connection; Addr and ClientID are required.
type Config struct {
	Addr string // host:port
	// Dial makes the connection that TLS, if any, is spoken on; a net.Dialer does when nil.
	Dial       func(ctx context.Context, network, addr string) (net.Conn, error)
	TLS        *tls.Config
	ClientID   string
	CleanStart bool
	// SessionExpiry is in seconds; 0 ends the session with the connection.
	SessionExpiry uint32
	// KeepAlive is the interval of PINGREQs, a minute when zero.
	KeepAlive time.Duration
	// OnMessage receives what arrives, one call at a time; a QoS 1 message is
	// acknowledged when it returns. It must not call Publish at QoS 1 or Subscribe,
	// which wait for the same reader.
	OnMessage func(Message)
}

// Message is what the server sent.
type Message struct {
	Topic   string
	Payload []byte // the receiver's own
	QoS     byte
	Retain  bool
}

// ReasonError is a refusal by the server.
type ReasonError struct {
	Packet string
	Code   mqtt.ReasonCode
}

func (e *ReasonError) Error() string { return fmt.Sprintf("%s refused: %s", e.Packet, e.Code) }

// ErrClosed is the error of a connection that Disconnect ended.
var ErrClosed = errors.New("mqtt client: closed")

const (
	maxPacket = 1 << 20
	window    = 64 // unacknowledged packets
)

// Client is a connection. Its methods are safe for concurrent use.
type Client struct {
	conn           net.Conn
	onMessage      func(Message)
	sessionPresent bool

	write sync.Mutex // guards writes to conn

	mu      sync.Mutex
	waiting map[uint16]chan result
	nextID  uint16
	err     error

	slots chan struct{}
	done  chan struct{}
}

type result struct {
	codes []mqtt.ReasonCode
	err   error
}

// Dial connects, and returns once the server has accepted the connection.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	conn, err := dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	keepAlive := cfg.KeepAlive
	if keepAlive == 0 {
		keepAlive = time.Minute
	}
	c := &Client{
		conn: conn, onMessage: cfg.OnMessage,
		waiting: map[uint16]chan result{}, slots: make(chan struct{}, window), done: make(chan struct{}),
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	rest, err := c.handshake(cfg, keepAlive)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		if cerr := ctx.Err(); cerr != nil {
			err = cerr
		}
		return nil, err
	}
	go c.read(rest)
	go c.ping(keepAlive)
	return c, nil
}

// dial connects and, with TLS, shakes hands.
func dial(ctx context.Context, cfg Config) (net.Conn, error) {
	connect := cfg.Dial
	if connect == nil {
		connect = (&net.Dialer{}).DialContext
	}
	conn, err := connect(ctx, "tcp", cfg.Addr)
	if err != nil || cfg.TLS == nil {
		return conn, err
	}
	config := cfg.TLS
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(cfg.Addr)
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		config = config.Clone()
		config.ServerName = host
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}

// handshake sends CONNECT, awaits CONNACK and returns what was read beyond it.
func (c *Client) handshake(cfg Config, keepAlive time.Duration) ([]byte, error) {
	p := mqtt.Connect{Version: mqtt.V5, CleanStart: cfg.CleanStart, KeepAlive: uint16(keepAlive / time.Second), ClientID: cfg.ClientID}
	if cfg.SessionExpiry > 0 {
		p.Properties.Present = p.Properties.Present.With(mqtt.PropSessionExpiry)
		p.Properties.SessionExpiry = cfg.SessionExpiry
	}
	if _, err := c.conn.Write(p.Append(nil, mqtt.V5)); err != nil {
		return nil, err
	}
	buf := make([]byte, 0, 4096)
	for {
		h, body, n, err := mqtt.Next(buf, maxPacket)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			if len(buf) == cap(buf) {
				return nil, errors.New("mqtt client: the server's first packet is no CONNACK")
			}
			m, err := c.conn.Read(buf[len(buf):cap(buf)])
			buf = buf[:len(buf)+m]
			if err != nil {
				return nil, err
			}
			continue
		}
		if h.Type != mqtt.CONNACK {
			return nil, errors.New("mqtt client: the server's first packet is no CONNACK")
		}
		var ack mqtt.Connack
		if err := ack.Parse(mqtt.V5, body); err != nil {
			return nil, err
		}
		if ack.Code != 0 {
			return nil, &ReasonError{"CONNECT", ack.Code}
		}
		c.sessionPresent = ack.SessionPresent
		return buf[n:], nil
	}
}

// SessionPresent tells whether the server had a session to resume.
func (c *Client) SessionPresent() bool { return c.sessionPresent }

// Done is closed when the connection has ended; Err then says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the connection ended, nil while it lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Disconnect ends the connection in good order.
func (c *Client) Disconnect() {
	_ = c.send((&mqtt.Disconnect{}).Append(nil, mqtt.V5))
	c.end(ErrClosed)
}

// Subscribe subscribes to filters; it fails when any is refused.
func (c *Client) Subscribe(ctx context.Context, qos byte, filters ...string) error {
	codes, err := c.request(ctx, func(id uint16) []byte {
		p := mqtt.Subscribe{PacketID: id}
		for _, f := range filters {
			p.Subscriptions = append(p.Subscriptions, mqtt.Subscription{Filter: f, QoS: qos})
		}
		return p.Append(nil, mqtt.V5)
	})
	if err != nil {
		return err
	}
	for i, code := range codes {
		if code >= 0x80 {
			return fmt.Errorf("filter %s: %w", filters[min(i, len(filters)-1)], &ReasonError{"SUBSCRIBE", code})
		}
	}
	return nil
}

// Publish sends a message; at QoS 1 it returns once the server has acknowledged
// it. Calls from several goroutines share the connection's window.
func (c *Client) Publish(ctx context.Context, topic string, payload []byte, qos byte) error {
	if qos == 0 {
		return c.send(mqtt.AppendPublish(nil, mqtt.V5, byte(mqtt.PUBLISH)<<4, topic, 0, payload))
	}
	codes, err := c.request(ctx, func(id uint16) []byte {
		return mqtt.AppendPublish(nil, mqtt.V5, byte(mqtt.PUBLISH)<<4|1<<1, topic, id, payload)
	})
	if err == nil && len(codes) > 0 && codes[0] >= 0x80 {
		err = &ReasonError{"PUBLISH", codes[0]}
	}
	return err
}

// request sends a packet with an id of its own and waits for its answer.
func (c *Client) request(ctx context.Context, packet func(id uint16) []byte) ([]mqtt.ReasonCode, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-c.done:
		return nil, c.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	answer := make(chan result, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, c.err
	}
	for c.nextID++; c.nextID == 0 || c.waiting[c.nextID] != nil; c.nextID++ {
	}
	id := c.nextID
	c.waiting[id] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
	}()
	if err := c.send(packet(id)); err != nil {
		return nil, err
	}
	select {
	case r := <-answer:
		return r.codes, r.err
	case <-c.done:
		return nil, c.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Client) send(b []byte) error {
	c.write.Lock()
	defer c.write.Unlock()
	if _, err := c.conn.Write(b); err != nil {
		c.end(err)
		return c.Err()
	}
	return nil
}

func (c *Client) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	_ = c.conn.Close()
	close(c.done)
}

// read serves what arrives until the connection ends.
func (c *Client) read(buf []byte) {
	for {
		h, body, n, err := mqtt.Next(buf, maxPacket)
		if err != nil {
			c.end(err)
			return
		}
		if n > 0 {
			if err := c.packet(h, body); err != nil {
				c.end(err)
				return
			}
			buf = buf[n:]
			continue
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, max(4096, 2*len(buf))), buf...)
		}
		m, err := c.conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+m]
		if err != nil {
			c.end(err)
			return
		}
	}
}

func (c *Client) packet(h mqtt.Header, body []byte) error {
	p, err := mqtt.Decode(mqtt.V5, h, body)
	if err != nil {
		return err
	}
	switch p := p.(type) {
	case *mqtt.Publish:
		if c.onMessage != nil {
			c.onMessage(Message{Topic: string(p.Topic), Payload: append([]byte(nil), p.Payload...), QoS: p.QoS, Retain: p.Retain})
		}
		if p.QoS == 1 {
			return c.send((&mqtt.Ack{Type: mqtt.PUBACK, PacketID: p.PacketID}).Append(nil, mqtt.V5))
		}
	case *mqtt.Ack:
		c.answer(p.PacketID, []mqtt.ReasonCode{p.Code})
	case *mqtt.Suback:
		c.answer(p.PacketID, p.Codes)
	case *mqtt.Disconnect:
		return &ReasonError{"connection", p.Code}
	case *mqtt.Pingresp, mqtt.Pingresp:
	default:
		return fmt.Errorf("mqtt client: the server sent a packet of type %d", h.Type)
	}
	return nil
}

func (c *Client) answer(id uint16, codes []mqtt.ReasonCode) {
	c.mu.Lock()
	answer := c.waiting[id]
	c.mu.Unlock()
	if answer != nil {
		select {
		case answer <- result{codes: codes}:
		default: // answered twice
		}
	}
}

func (c *Client) ping(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-tick.C:
			if c.send(mqtt.Pingreq{}.Append(nil, mqtt.V5)) != nil {
				return
			}
		}
	}
}
