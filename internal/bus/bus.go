package bus

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// user is the name under which everything connects to the embedded server.
const user = "flotilla"

// Config says which NATS to use.
type Config struct {
	NATS     string `name:"nats" help:"External NATS, as nats:// URLs separated by commas; the embedded server is not started."`
	NATSAddr string `name:"nats-addr" default:"127.0.0.1:4222" help:"Address of the embedded NATS server; port 0 picks a free one."`
	Prefix   string `name:"bus.prefix" default:"flotilla" help:"First token of all subjects between nodes; deployments that share one NATS differ in it."`

	// NodeID names this node among those that share NATS.
	NodeID string `kong:"-" toml:"-"`
	// Dir holds the embedded server's streams.
	Dir string `kong:"-" toml:"-"`
	// Password guards the embedded server.
	Password string       `kong:"-" toml:"-"`
	Log      *slog.Logger `kong:"-" toml:"-"`
}

// Bus is an open connection to NATS. It is safe for concurrent use.
type Bus struct {
	cfg  Config
	log  *slog.Logger
	srv  *server.Server // nil when external
	conn *nats.Conn
	js   jetstream.JetStream
	url  string

	mu        sync.RWMutex
	listeners map[string][]func(key string)
}

// change is what a node tells the others.
type change struct {
	Node string `json:"node"`
	Kind string `json:"kind"`
	Key  string `json:"key"`
}

// Open starts the embedded server, unless cfg names an external one, and
// connects to it.
func Open(ctx context.Context, cfg Config) (*Bus, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = "flotilla"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Bus{cfg: cfg, log: cfg.Log, listeners: map[string][]func(string){}}
	opts := []nats.Option{
		nats.Name("flotilla " + cfg.NodeID),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectHandler(func(*nats.Conn) {
			b.log.Info("bus reconnected")
			b.everythingChanged()
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				b.log.Warn("bus disconnected", "err", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			b.log.Warn("bus", "err", err)
			if errors.Is(err, nats.ErrSlowConsumer) {
				b.everythingChanged()
			}
		}),
	}
	target := cfg.NATS
	if target == "" {
		if err := b.startServer(); err != nil {
			return nil, err
		}
		target = b.srv.ClientURL()
		opts = append(opts, nats.InProcessServer(b.srv), nats.UserInfo(user, cfg.Password))
	} else {
		opts = append(opts, nats.Timeout(5*time.Second))
		b.url = target
	}
	var err error
	if b.conn, err = nats.Connect(target, opts...); err != nil {
		b.stopServer()
		return nil, fmt.Errorf("bus: connect: %w", err)
	}
	if b.js, err = jetstream.New(b.conn); err != nil {
		b.Close()
		return nil, fmt.Errorf("bus: %w", err)
	}
	if _, err := b.conn.Subscribe(cfg.Prefix+".changed", b.heard); err != nil {
		b.Close()
		return nil, fmt.Errorf("bus: subscribe: %w", err)
	}
	if err := b.conn.FlushTimeout(5 * time.Second); err != nil {
		b.Close()
		return nil, fmt.Errorf("bus: %w", err)
	}
	return b, ctx.Err()
}

func (b *Bus) startServer() error {
	host, port, err := net.SplitHostPort(b.cfg.NATSAddr)
	if err != nil {
		return fmt.Errorf("bus: nats-addr %q: %w", b.cfg.NATSAddr, err)
	}
	p, err := strconv.Atoi(port)
	if err != nil || p < 0 || p > 65535 {
		return fmt.Errorf("bus: nats-addr %q: no such port", b.cfg.NATSAddr)
	}
	if p == 0 {
		p = server.RANDOM_PORT
	}
	if b.cfg.Password == "" {
		return errors.New("bus: the embedded server needs a password")
	}
	b.srv, err = server.NewServer(&server.Options{
		ServerName: "flotilla-" + b.cfg.NodeID,
		Host:       host, Port: p,
		CustomClientAuthentication: credentials{user, b.cfg.Password},
		JetStream:                  true, StoreDir: filepath.Join(b.cfg.Dir, "nats"),
		NoSigs: true, NoLog: true,
		MaxPayload:     8 << 20,
		MaxControlLine: 4096,
	})
	if err != nil {
		return fmt.Errorf("bus: embedded server: %w", err)
	}
	b.srv.SetLoggerV2(serverLog{b.log}, false, false, false)
	b.srv.Start()
	if !b.srv.ReadyForConnections(20 * time.Second) {
		b.stopServer()
		return fmt.Errorf("bus: the embedded server did not start on %s; is the address taken?", b.cfg.NATSAddr)
	}
	u := url.URL{Scheme: "nats", User: url.UserPassword(user, b.cfg.Password), Host: b.srv.Addr().String()}
	b.url = u.String()
	return nil
}

func (b *Bus) stopServer() {
	if b.srv != nil {
		b.srv.Shutdown()
		b.srv.WaitForShutdown()
	}
}

// Close says farewell to NATS, and stops the embedded server.
func (b *Bus) Close() {
	if b.conn != nil {
		_ = b.conn.FlushTimeout(2 * time.Second)
		b.conn.Close()
	}
	b.stopServer()
}

// URL is where consumers of streams connect, with their credentials.
func (b *Bus) URL() string { return b.url }

// NodeID names this node among those that share NATS.
func (b *Bus) NodeID() string { return b.cfg.NodeID }

// Prefix is the first token of the subjects between nodes.
func (b *Bus) Prefix() string { return b.cfg.Prefix }

// Shared tells whether other nodes may be on this NATS: it is not the embedded server.
func (b *Bus) Shared() bool { return b.srv == nil }

// Conn is the connection to NATS.
func (b *Bus) Conn() *nats.Conn { return b.conn }

// JetStream manages the streams that rules feed.
func (b *Bus) JetStream() jetstream.JetStream { return b.js }

// OnChange has fn called whenever something of that kind has changed, on this
// node (by Changed, on its caller's goroutine) or on another; key "" says that
// anything of the kind may have. fn must be quick and must not call the store's
// Write. Register before the server accepts its first connection.
func (b *Bus) OnChange(kind string, fn func(key string)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listeners[kind] = append(b.listeners[kind], fn)
}

// Changed tells every node, this one first and before it returns, that something
// was changed and committed.
func (b *Bus) Changed(kind, key string) {
	b.local(kind, key)
	data, err := json.Marshal(change{b.cfg.NodeID, kind, key})
	if err != nil {
		panic("bus: " + err.Error()) // three strings always marshal
	}
	if err := b.conn.Publish(b.cfg.Prefix+".changed", data); err != nil {
		// Others hear everythingChanged when the connection is back.
		b.log.Warn("bus: change not sent", "err", err)
	}
}

func (b *Bus) local(kind, key string) {
	b.mu.RLock()
	fns := b.listeners[kind]
	b.mu.RUnlock()
	for _, fn := range fns {
		fn(key)
	}
}

func (b *Bus) heard(m *nats.Msg) {
	var c change
	if err := json.Unmarshal(m.Data, &c); err != nil {
		b.log.Warn("bus: not a change", "err", err)
		return
	}
	if c.Node != b.cfg.NodeID {
		b.local(c.Kind, c.Key)
	}
}

// everythingChanged is called when news may have been missed.
func (b *Bus) everythingChanged() {
	b.mu.RLock()
	var fns []func(string)
	for _, l := range b.listeners {
		fns = append(fns, l...)
	}
	b.mu.RUnlock()
	for _, fn := range fns {
		fn("")
	}
}

// Healthy tells whether NATS answers.
func (b *Bus) Healthy() error {
	if s := b.conn.Status(); s != nats.CONNECTED {
		return fmt.Errorf("bus: %s", s)
	}
	return nil
}

// credentials are the only ones that the embedded server takes.
type credentials struct{ user, password string }

// Check implements server.Authentication.
func (c credentials) Check(client server.ClientAuthentication) bool {
	o := client.GetOpts()
	return subtle.ConstantTimeCompare([]byte(o.Username), []byte(c.user))&subtle.ConstantTimeCompare([]byte(o.Password), []byte(c.password)) == 1
}

// serverLog passes what the embedded server has to say on.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Noticef(string, ...any)    {}
func (l serverLog) Debugf(string, ...any)     {}
func (l serverLog) Tracef(string, ...any)     {}
func (l serverLog) Warnf(f string, v ...any)  { l.log.Warn("nats", "err", fmt.Sprintf(f, v...)) }
func (l serverLog) Errorf(f string, v ...any) { l.log.Error("nats", "err", fmt.Sprintf(f, v...)) }
func (l serverLog) Fatalf(f string, v ...any) { l.log.Error("nats", "err", fmt.Sprintf(f, v...)) }
