package gateway

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/gateway/netpoll"
	"flotilla/internal/mqtt"
	"flotilla/internal/policy/lang"
)

// Connection is a client's network connection after its CONNECT was accepted.
//
// Its packets are served by one goroutine at a time, in their order: the loop's, or a
// worker's while busy. Fields of the first group belong to that goroutine. Bytes to the client
// may be added by any goroutine, under mu.
type Connection struct {
	g       *Gateway
	r       *reactor
	sock    *netpoll.Socket
	tls     *tls.Conn // nil without TLS
	fd      int
	session *session
	auth    lang.Authorizer
	now     immediate // auth, when it can answer at once
	who     aws.Principal
	addr    netip.AddrPort
	started time.Time
	id      string // lifecycle events' sessionIdentifier
	epoch   int64  // of the client id; lifecycle events' versionNumber
	will    *will
	terms   *terms // nil for most
	domain  string // configuration that it came in by; "" without TLS

	limits        peerLimits
	connectEpoch  atomic.Uint64 // of the policies that allowed iot:Connect
	leased        bool          // the store knows of the connection
	signed        bool          // by an access key, which may be withdrawn
	keepAlive     uint16
	expires       uint32 // second from which its certificate is not valid any more; 0 never
	idleSeconds   uint16 // silence that ends the connection; 0 any
	version       mqtt.Version
	clean         bool // asked for a clean start
	wantsProblems bool

	// Owned by who serves its packets.
	partial []byte
	pub     *publisher // made by the first PUBLISH
	ending  *cause
	expiry  *uint32 // of DISCONNECT

	// Owned by the loop.
	busy, paused, finished, added, hungUp, holding, armed bool

	slot                 int16
	active               uint32 // second of the last packet
	wheelNext, wheelPrev *Connection

	kick    atomic.Pointer[cause] // another wants it ended
	blocked atomic.Bool           // the socket takes no more for now

	mu      sync.Mutex
	closed  bool // nothing is added any more
	dirty   bool // somebody will flush
	behind  bool // more waits for the client than should
	took    bool // it has taken something since slowClients looked
	out     []byte
	counted int         // bytes of out and backlog in the process's sum
	tookAt  time.Time   // since it is behind
	sub     *subscriber // made by the first QoS 1 delivery
	acks    ackQueue
	gone    chan struct{} // closed when the end is complete; made by who waits
	greeted bool          // its connected event is out; before that it does not depart
	leaving *cause        // it waits to be greeted
	ended   bool
}

// immediate is an Authorizer that can answer without blocking.
type immediate interface {
	// Epoch numbers the state that decisions rest on: what was decided stays true for as
	// long as Epoch gives the same number. ok is false when nothing may be kept.
	Epoch() (epoch uint64, ok bool)
	// Cached decides at once; ok is false when that needs the store.
	Cached(action, resource string) (d lang.Decision, ok bool)
}

// verdict says how to go on with a connection.
type verdict uint8

const (
	goOn     verdict = iota
	handOver         // the packet may block: a worker must serve it
	holdBack         // the packet was served; read no further for now
	endNow           // c.ending says why
)

// Reasons of lifecycle events.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/life-cycle-events.html
const (
	reasonAuthError      = "AUTH_ERROR"
	reasonClientInitated = "CLIENT_INITIATED_DISCONNECT"
	reasonClientError    = "CLIENT_ERROR"
	reasonConnectionLost = "CONNECTION_LOST"
	reasonDuplicate      = "DUPLICATE_CLIENTID"
	reasonForbidden      = "FORBIDDEN_ACCESS"
	reasonKeepAlive      = "MQTT_KEEP_ALIVE_TIMEOUT"
	reasonServerError    = "SERVER_ERROR"
	reasonServer         = "SERVER_INITIATED_DISCONNECT"
	reasonAPI            = "API_INITIATED_DISCONNECT"
	reasonThrottled      = "THROTTLED"
	reasonWebSocketTTL   = "WEBSOCKET_TTL_EXPIRATION"
	reasonCustomTTL      = "CUSTOMAUTH_TTL_EXPIRATION"
)

// cause is why a connection ends.
type cause struct {
	code      mqtt.ReasonCode
	send      bool   // tell an MQTT 5 client
	text      string // for it, when it wants to know
	reason    string // of the lifecycle event
	detail    string // for the operator
	keepsWill bool   // the will is not published
	wipe      bool   // the session ends too
	record    string // action of a Denial that shows the operator; "" none
}

// linger tells whether the peer must be given time to read our last packet.
func (w *cause) linger() bool { return w.send || w.reason == reasonClientInitated }

func (c *Connection) clientID() string {
	if c.session == nil {
		return ""
	}
	return c.session.clientID
}

func (c *Connection) read(b []byte) (int, error) {
	if c.tls != nil {
		n, err := c.tls.Read(b)
		if n == 0 && err != nil && errors.Is(err, netpoll.ErrWouldBlock) {
			return 0, netpoll.ErrWouldBlock
		}
		return n, err
	}
	return c.sock.Read(b)
}

func (c *Connection) closeWrite() {
	if c.tls != nil {
		_ = c.tls.CloseWrite()
	}
	c.sock.CloseWrite()
}

// serve serves the packets in b and returns the rest: a partial packet, or the packets
// from the one that has to wait.
func (c *Connection) serve(t *turn, b []byte) ([]byte, verdict) {
	for {
		if t.loop == nil && c.kick.Load() != nil {
			return b, goOn // the loop ends it
		}
		h, body, n, err := mqtt.Next(b, c.g.limits.maxPacket())
		if err != nil {
			return nil, c.fail(err)
		}
		if n == 0 {
			return b, goOn
		}
		v := c.packet(t, h, body, b[:n])
		switch v {
		case goOn:
			b = b[n:]
			if t.loop == nil {
				t.flush()
			}
		case holdBack:
			return b[n:], v
		default:
			return b, v
		}
	}
}

// packet serves one packet.
func (c *Connection) packet(t *turn, h mqtt.Header, body, raw []byte) verdict {
	switch h.Type {
	case mqtt.PUBLISH:
		return c.onPublish(t, h, body, raw)
	case mqtt.PUBACK:
		var p mqtt.Ack
		p.Type = mqtt.PUBACK
		if err := p.Parse(c.version, body); err != nil {
			return c.fail(err)
		}
		return c.onPuback(t, p.PacketID)
	case mqtt.PINGREQ:
		if len(body) > 0 {
			return c.fail(mqtt.MalformedPacket)
		}
		c.append(t, pingresp)
		return goOn
	case mqtt.SUBSCRIBE, mqtt.UNSUBSCRIBE:
		if t.loop != nil {
			return handOver
		}
		if h.Type == mqtt.SUBSCRIBE {
			return c.onSubscribe(t, body)
		}
		return c.onUnsubscribe(t, body)
	case mqtt.DISCONNECT:
		return c.onDisconnect(body)
	case mqtt.AUTH:
		return c.protocolError("AUTH is not supported")
	case mqtt.CONNECT:
		return c.protocolError("a second CONNECT") // [MQTT-3.1.0-2]
	case mqtt.PUBREC, mqtt.PUBREL, mqtt.PUBCOMP:
		return c.protocolError("a packet of QoS 2")
	default:
		return c.protocolError("a packet that only servers send")
	}
}

var pingresp = []byte{byte(mqtt.PINGRESP) << 4, 0}

// onDisconnect is par. 3.14.
func (c *Connection) onDisconnect(body []byte) verdict {
	var p mqtt.Disconnect
	if err := p.Parse(c.version, body); err != nil {
		return c.fail(err)
	}
	if p.Properties.Present.Has(mqtt.PropServerReference) {
		return c.protocolError("a server reference from a client")
	}
	if p.Properties.Present.Has(mqtt.PropSessionExpiry) {
		if p.Properties.SessionExpiry > 0 && !c.session.persistent() {
			return c.protocolError("a session expiry where CONNECT had none") // 3.14.2.2.2
		}
		c.expiry = new(p.Properties.SessionExpiry)
	}
	c.ending = &cause{reason: reasonClientInitated, keepsWill: p.Code != mqtt.DisconnectWithWill}
	return endNow
}

// fail ends the connection because of a packet that is not MQTT, or beyond a limit.
func (c *Connection) fail(err error) verdict {
	code := mqtt.MalformedPacket
	_ = errors.As(err, &code)
	return c.endWith(code, reasonClientError, err.Error())
}

func (c *Connection) protocolError(detail string) verdict {
	return c.endWith(mqtt.ProtocolError, reasonClientError, detail)
}

// endWith ends the connection with a code for MQTT 5 clients.
func (c *Connection) endWith(code mqtt.ReasonCode, reason, detail string) verdict {
	c.ending = &cause{code: code, send: true, text: code.Error(), reason: reason, detail: detail}
	if reason == reasonClientError || reason == reasonForbidden {
		c.deny(Denial{Action: "packet", Reason: detail, Code: code})
	}
	return endNow
}

// source is the publisher of this connection's messages.
func (c *Connection) source() mqtt.Source {
	s := c.sourceAs(c.session.clientID)
	s.ConnectionID = c.id
	return s
}

func (c *Connection) sourceAs(clientID string) mqtt.Source {
	protocol := "MQTT"
	if c.terms != nil && c.terms.webSocket {
		protocol = "WebSocket"
	}
	return mqtt.Source{ClientID: clientID, PrincipalID: principalID(c.who), PrincipalType: c.who.Type, Protocol: protocol, Address: c.addr.Addr()}
}
