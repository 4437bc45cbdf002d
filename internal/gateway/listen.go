package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"flotilla/internal/aws/iot"
	"flotilla/internal/gateway/netpoll"
)

// Protocols of the ALPN port.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html
const (
	alpnMQTT   = "x-amzn-mqtt-ca" // MQTT with a client certificate
	alpnHTTP   = "x-amzn-http-ca" // HTTPS with a client certificate
	alpnCustom = "mqtt"           // MQTT with a custom authorizer
)

// door are the listeners and what has not sent its CONNECT yet.
type door struct {
	g     *Gateway
	tls   *tls.Config
	alpn  *tls.Config
	http  *http.Server
	conns handedOver // for http

	mqtt, https, plain net.Listener

	lobby *lobby
	web   atomic.Int64 // connections that the HTTP server has
	group sync.WaitGroup
}

func (d *door) init(g *Gateway, cfg *tls.Config, h http.Handler) {
	d.g, d.lobby = g, newLobby(&g.cfg, g.metrics)
	if cfg != nil {
		d.tls, d.alpn = cfg.Clone(), cfg.Clone()
		d.tls.NextProtos = nil
		d.alpn.NextProtos = []string{alpnMQTT, alpnHTTP, alpnCustom, "h2", "http/1.1"}
		d.alpn.ClientAuth = tls.RequestClientCert // who needs one is for domain and ALPN to say, and for CONNECT
		// Larger records from the start: what we write is gathered already.
		d.tls.DynamicRecordSizingDisabled, d.alpn.DynamicRecordSizingDisabled = true, true
		if g.domains != nil {
			d.tls, d.alpn = g.domains.TLS(d.tls), g.domains.TLS(d.alpn)
		}
	}
	if h == nil {
		h = http.NotFoundHandler()
	}
	mux := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == webSocketPath {
			g.serveWebSocket(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
	if cfg != nil {
		d.conns = handedOver{conns: make(chan net.Conn), closed: make(chan struct{}), once: &sync.Once{}}
		d.http = &http.Server{
			Handler: withTLS(mux), ConnContext: rememberConn, ConnState: d.count, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 60 * time.Second,
			IdleTimeout: 60 * time.Second, MaxHeaderBytes: 32 << 10, ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
		}
	}
}

// open listens.
func (d *door) open(ctx context.Context) error {
	cfg := &d.g.cfg
	for _, l := range []struct {
		at   *net.Listener
		addr string
		kind kind
	}{{&d.mqtt, cfg.MQTTAddr, kindMQTT}, {&d.https, cfg.HTTPSAddr, kindALPN}, {&d.plain, cfg.PlainAddr, kindPlain}} {
		if l.addr == "" {
			continue
		}
		ln, err := (&net.ListenConfig{KeepAlive: -1}).Listen(ctx, "tcp", l.addr)
		if err != nil {
			return fmt.Errorf("gateway: listen: %w", err)
		}
		*l.at = ln
		d.group.Go(func() { d.accept(ln, l.kind) })
	}
	if d.http != nil && d.https != nil {
		d.conns.addr = d.https.Addr()
		d.group.Go(func() { _ = d.http.Serve(d.conns) })
	}
	return nil
}

func (d *door) addrs() (a Addrs) {
	for at, ln := range map[*net.Addr]net.Listener{&a.MQTT: d.mqtt, &a.HTTPS: d.https, &a.Plain: d.plain} {
		if ln != nil {
			*at = ln.Addr()
		}
	}
	return a
}

type kind uint8

const (
	kindMQTT kind = iota
	kindALPN
	kindPlain
)

// accept gives each connection a goroutine until its CONNECT is answered.
func (d *door) accept(ln net.Listener, k kind) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			d.g.log.Warn("accept", "err", err)
			timer := time.NewTimer(50 * time.Millisecond) // no descriptors: they come back
			<-timer.C
			continue
		}
		if limit := int64(d.g.cfg.MaxConnections); limit > 0 && d.g.connected.Load()+d.pending()+d.web.Load() >= limit {
			_ = conn.Close()
			continue
		}
		v := d.lobby.enter(conn)
		if v == nil {
			_ = conn.Close()
			continue
		}
		d.group.Go(func() {
			defer v.leave()
			d.greet(v, k)
		})
	}
}

func (d *door) pending() int64 { return int64(d.lobby.len()) }

// greet makes the handshake, finds out what is spoken, and serves the CONNECT.
func (d *door) greet(v *visitor, k kind) {
	conn, start := v.conn, time.Now()
	sock := netpoll.NewSocket(conn)
	_ = sock.SetDeadline(start.Add(min(d.g.cfg.FirstByteTimeout, d.g.cfg.HandshakeTimeout)))
	if err := sock.Wait(); err != nil {
		d.g.metrics.silent.Inc()
		_ = sock.Close()
		return
	}
	v.speaks()
	sock.OnWait(v.waits)
	_ = sock.SetDeadline(start.Add(d.g.cfg.HandshakeTimeout))
	arrival := arrival{sock: sock, visitor: v, remote: conn.RemoteAddr(), plain: k == kindPlain}
	if k != kindPlain {
		cfg := d.tls
		if k == kindALPN {
			cfg = d.alpn
		}
		tc := tls.Server(sock, cfg)
		if err := tc.Handshake(); err != nil {
			d.g.metrics.failed.Inc()
			if id := refusedPrincipal(err); id != "" {
				d.g.denyArrival(id, id, &arrival, notAuthorized(err.Error()))
			} else {
				d.g.log.Debug("TLS handshake", "remote", arrival.remote, "err", err)
			}
			_ = sock.Close()
			return
		}
		d.g.metrics.handshakes.Inc()
		state := tc.ConnectionState()
		arrival.tls, arrival.serverName, arrival.alpn = tc, state.ServerName, state.NegotiatedProtocol
		if len(state.PeerCertificates) > 0 {
			arrival.leaf, arrival.chain = state.PeerCertificates[0], state.PeerCertificates
		}
		var known bool
		if arrival.domain, known = d.g.ofDomain(state.ServerName); !known { // it was, when the handshake began
			_ = tc.Close()
			return
		}
		if k == kindALPN && !arrival.speaksMQTT() {
			v.serve()
			d.handOver(tc)
			return
		}
	}
	d.g.admit(&arrival)
}

// speaksMQTT tells whether a connection to the ALPN port is MQTT, else HTTPS: without ALPN the domain says.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html
func (a *arrival) speaksMQTT() bool {
	switch a.alpn {
	case alpnMQTT, alpnCustom:
		return true
	case "":
		return a.domain.ApplicationProtocol == iot.ApplicationProtocolSecureMqtt
	}
	return false
}

// handOver gives an HTTPS connection to the HTTP server.
func (d *door) handOver(tc *tls.Conn) {
	if d.http == nil {
		_ = tc.Close()
		return
	}
	_ = tc.SetDeadline(time.Time{})
	timer := time.NewTimer(d.g.cfg.HandshakeTimeout)
	defer timer.Stop()
	select {
	case d.conns.conns <- forHTTP(tc):
	case <-timer.C:
		_ = tc.Close()
	}
}

// close stops accepting, and ends what has not sent its CONNECT.
func (d *door) close(ctx context.Context) {
	for _, ln := range []net.Listener{d.mqtt, d.https, d.plain} {
		if ln != nil {
			_ = ln.Close()
		}
	}
	d.lobby.close()
	if d.http != nil {
		if err := d.http.Shutdown(ctx); err != nil {
			_ = d.http.Close()
		}
	}
	d.group.Wait()
}

// handedOver is the listener of connections that were accepted elsewhere.
type handedOver struct {
	conns  chan net.Conn
	closed chan struct{}
	once   *sync.Once
	addr   net.Addr
}

func (l handedOver) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l handedOver) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l handedOver) Addr() net.Addr { return l.addr }

// net/http serves only protocols that it knows on a *tls.Conn. x-amzn-http-ca is HTTP/1.1
// by another name, so its connections are shown to it as something else.
type otherHTTP struct{ *tls.Conn }

func forHTTP(tc *tls.Conn) net.Conn {
	if tc.ConnectionState().NegotiatedProtocol == alpnHTTP {
		return otherHTTP{tc}
	}
	return tc
}

// count keeps web.
func (d *door) count(_ net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		d.web.Add(1)
	case http.StateClosed, http.StateHijacked:
		d.web.Add(-1)
	}
}

type (
	tlsKey        struct{}
	connectionKey struct{}
)

// ConnectionID names the connection that a request to the ALPN port came by; "" for other requests.
func ConnectionID(ctx context.Context) string {
	id, _ := ctx.Value(connectionKey{}).(string)
	return id
}

func rememberConn(ctx context.Context, c net.Conn) context.Context {
	ctx = context.WithValue(ctx, connectionKey{}, uuid.NewString())
	if o, ok := c.(otherHTTP); ok {
		return context.WithValue(ctx, tlsKey{}, o.Conn)
	}
	return ctx
}

// withTLS tells the handler of the TLS connection, of which net/http does not know.
func withTLS(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tc, ok := r.Context().Value(tlsKey{}).(*tls.Conn); ok && r.TLS == nil {
			state := tc.ConnectionState()
			r.TLS = &state
		}
		h.ServeHTTP(w, r)
	})
}
