package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"flotilla/internal/gateway/netpoll"
	"flotilla/internal/mqtt"
)

// webSocketPath is where AWS has MQTT over WebSocket.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html
const webSocketPath = "/mqtt"

const (
	// webSocketMessage is the largest WebSocket message that is read; its packets have limits of their own.
	webSocketMessage = 1 << 20
	// webSocketWrite is how long a client may take to read a message of bridgeBytes.
	webSocketWrite = 30 * time.Second
	bridgeBytes    = 16 << 10
	bridgeSocket   = 64 << 10 // bytes that the kernel keeps between a WebSocket and its connection
)

// upgrade is the HTTP request that a WebSocket began with.
type upgrade struct {
	header   http.Header
	rawQuery string
	custom   bool // asks for a custom authorizer
}

// bridges are the WebSocket connections. Each has a socket pair, whose one end is served by an event loop as any
// other connection's socket, and two goroutines that carry bytes between the other end and the WebSocket; they
// hold no buffer while nothing happens. What waits in the pair is bounded, so whoever is slow, or held back, is
// noticed on the other side.
type bridges struct {
	group   sync.WaitGroup
	buffers sync.Pool
	ctx     context.Context // ends all at once
	stop    context.CancelFunc
}

func (b *bridges) init() {
	b.buffers.New = func() any { return new([bridgeBytes]byte) }
	b.ctx, b.stop = context.WithCancel(context.Background())
}

// wait returns when all bridges have ended; those that are left when ctx ends are cut off.
func (b *bridges) wait(ctx context.Context) {
	defer b.stop()
	stop := context.AfterFunc(ctx, b.stop)
	defer stop()
	b.group.Wait()
}

// WebSocket serves MQTT over WebSocket at the path /mqtt: that of the ALPN port, and of any other HTTP server.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/mqtt.html
func (g *Gateway) WebSocket() http.Handler { return http.HandlerFunc(g.serveWebSocket) }

func (g *Gateway) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	a, refused := g.arrivalOf(r)
	if refused != nil {
		g.metrics.connects.WithLabelValues("refused").Inc()
		g.deny("", a.signer.ID, Denial{Remote: address(a.remote).Addr(), Action: "upgrade", Reason: refused.detail, Code: refused.code})
		http.Error(w, "Forbidden", http.StatusForbidden)
		return
	}
	if !offersMQTT(r.Header) {
		http.Error(w, "the subprotocol is mqtt", http.StatusBadRequest) // [MQTT-6.0.0-3]
		return
	}
	ours, theirs, err := socketPair()
	if err != nil {
		g.log.Warn("a WebSocket can't be served", "remote", r.RemoteAddr, "err", err)
		http.Error(w, "Service Unavailable", http.StatusServiceUnavailable)
		return
	}
	if a.visitor = g.door.lobby.visit(ours, a.remote); a.visitor == nil { // a moment's wait is for the client
		_ = ours.Close()
		_ = theirs.Close()
		http.Error(w, "Service Unavailable", http.StatusServiceUnavailable)
		return
	}
	defer a.visitor.leave()
	a.visitor.speaks()
	ws, err := websocket.Accept(thrifty{w}, r, &websocket.AcceptOptions{
		Subprotocols: []string{"mqtt"},
		// A signature or token is not sent by browsers on their own account; a client certificate is.
		InsecureSkipVerify: a.leaf == nil,
	})
	if err != nil {
		_ = ours.Close()
		_ = theirs.Close()
		g.log.Debug("upgrade to WebSocket", "remote", r.RemoteAddr, "err", err)
		return
	}
	ws.SetReadLimit(webSocketMessage)
	b := &bridge{of: &g.bridges, ws: ws, end: theirs}
	g.bridges.group.Go(b.in)
	g.bridges.group.Go(b.out)
	a.sock = netpoll.NewSocket(ours)
	a.sock.OnWait(a.visitor.waits)
	_ = a.sock.SetDeadline(time.Now().Add(g.cfg.HandshakeTimeout))
	g.admit(a)
}

// thrifty is a ResponseWriter whose connection, once it is a WebSocket's, has smaller buffers than those of net/http,
// which stay with it for as long as it lives.
type thrifty struct{ http.ResponseWriter }

// Hijack implements http.Hijacker.
func (t thrifty) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil || rw.Reader.Buffered()+rw.Writer.Buffered() > 0 {
		return conn, rw, err
	}
	return conn, bufio.NewReadWriter(bufio.NewReaderSize(conn, 512), bufio.NewWriterSize(conn, 1024)), nil
}

// arrivalOf says all that the upgrade tells of a connection.
func (g *Gateway) arrivalOf(r *http.Request) (*arrival, *refusal) {
	a := &arrival{
		id: uuid.NewString(), remote: net.TCPAddrFromAddrPort(addrPort(r.RemoteAddr)),
		upgrade: &upgrade{header: r.Header, rawQuery: r.URL.RawQuery},
	}
	if r.TLS != nil {
		a.serverName = r.TLS.ServerName
		if len(r.TLS.PeerCertificates) > 0 {
			a.leaf, a.chain = r.TLS.PeerCertificates[0], r.TLS.PeerCertificates
		}
	}
	var ok bool
	if a.domain, ok = g.ofDomain(a.serverName); !ok {
		return a, notAuthorized("no domain configuration has this server name")
	}
	if g.authorizers != nil {
		a.upgrade.custom = g.authorizers.IsCustom(r.Header, r.URL.RawQuery)
	}
	if g.signatures == nil {
		return a, nil
	}
	p, signed, err := g.signatures.Signer(r)
	switch {
	case !signed:
	case err != nil:
		return a, notAuthorized(err.Error())
	default:
		a.signer = p
		if how := a.authentication(&mqtt.Connect{}); how == authSigV4 && !a.admits(how) {
			return a, notAuthorized("the domain configuration " + a.domain.Name + " does not admit " + how)
		}
	}
	return a, nil
}

func offersMQTT(h http.Header) bool {
	for _, list := range h.Values("Sec-Websocket-Protocol") {
		for name := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(name), "mqtt") {
				return true
			}
		}
	}
	return false
}

func addrPort(s string) netip.AddrPort {
	a, _ := netip.ParseAddrPort(s) // the zero one is shown as it is
	return a
}

// socketPair makes two connected stream sockets.
func socketPair() (ours, theirs *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("gateway: socket pair: %w", err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bridgeSocket) // else the system's own bound
		f := os.NewFile(uintptr(fd), "")
		c, fileErr := net.FileConn(f)
		_ = f.Close()
		if fileErr != nil {
			err = errors.Join(err, fileErr)
			continue
		}
		conns[i] = c.(*net.UnixConn)
	}
	if err != nil {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
		return nil, nil, fmt.Errorf("gateway: socket pair: %w", err)
	}
	return conns[0], conns[1], nil
}

// bridge carries bytes between a WebSocket and its connection.
type bridge struct {
	of  *bridges
	ws  *websocket.Conn
	end *net.UnixConn
}

// goodbye is the MQTT DISCONNECT of a client that ends its WebSocket in good order.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/life-cycle-events.html
var goodbye = []byte{byte(mqtt.DISCONNECT) << 4, 0}

// in carries what the client sends. Pings are answered meanwhile.
func (b *bridge) in() {
	for {
		typ, r, err := b.ws.Reader(b.of.ctx)
		if err != nil {
			if closed, ok := errors.AsType[websocket.CloseError](err); ok && (closed.Code == websocket.StatusNormalClosure || closed.Code == websocket.StatusGoingAway || closed.Code == websocket.StatusNoStatusRcvd) {
				_, _ = b.end.Write(goodbye)
			}
			break
		}
		if typ != websocket.MessageBinary { // [MQTT-6.0.0-1]
			_ = b.ws.Close(websocket.StatusUnsupportedData, "")
			break
		}
		if b.carry(r) != nil {
			break
		}
	}
	_ = b.end.CloseWrite()
}

// carry writes a message, which may be a part of a packet or hold several [MQTT-6.0.0-2].
func (b *bridge) carry(r io.Reader) error {
	buf := b.of.buffers.Get().(*[bridgeBytes]byte)
	defer b.of.buffers.Put(buf)
	for {
		n, err := r.Read(buf[:])
		if n > 0 {
			if _, err := b.end.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// out carries what the connection sends, until it ends.
func (b *bridge) out() {
	defer b.end.Close()
	for {
		buf, n, err := b.read()
		if n > 0 {
			ctx, cancel := context.WithTimeout(b.of.ctx, webSocketWrite)
			err = b.ws.Write(ctx, websocket.MessageBinary, buf[:n])
			cancel()
		}
		if buf != nil {
			b.of.buffers.Put(buf)
		}
		if err != nil || n == 0 {
			break
		}
	}
	_ = b.ws.Close(websocket.StatusNormalClosure, "")
}

// read waits without a buffer until there is something to read.
func (b *bridge) read() (buf *[bridgeBytes]byte, n int, err error) {
	raw, err := b.end.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		buf = b.of.buffers.Get().(*[bridgeBytes]byte)
		for {
			n, readErr = unix.Read(int(fd), buf[:])
			if readErr != unix.EINTR {
				break
			}
		}
		if readErr == unix.EAGAIN {
			b.of.buffers.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	return buf, max(n, 0), errors.Join(err, readErr)
}

// address is an address of the Internet; the zero one for others.
func address(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := t.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}
