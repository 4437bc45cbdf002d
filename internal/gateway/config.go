package gateway

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"

	"flotilla/internal/gateway/mesh"
	"flotilla/internal/gateway/sessionstore"
)

// Config holds the settings of the gateway; zero values are the defaults.
type Config struct {
	PlainAddr               string        `name:"mqtt-plain-addr" help:"Address for MQTT without TLS, for benchmarks and trusted networks; off when empty."`
	PlainPolicy             string        `name:"mqtt-plain-policy" help:"IoT policy that governs connections without TLS; without it they may do nothing."`
	PlainAnywhere           bool          `name:"gateway.plain-anywhere" help:"Allow mqtt-plain-addr to be other than loopback."`
	Loops                   int           `name:"gateway.loops" help:"Event loops; 0 is half the processors, at least one."`
	Workers                 int           `name:"gateway.workers" default:"256" help:"Most connections whose packets wait for the store or a room at the same time."`
	MaxConnections          int           `name:"gateway.max-connections" help:"Most connections; 0 is no limit but the system's."`
	MaxHandshakes           int           `name:"gateway.max-handshakes" default:"1024" help:"Most connections that have not sent their CONNECT yet; when more come, those go that say nothing or take longest."`
	MaxHandshakesPerAddress int           `name:"gateway.max-handshakes-per-address" help:"The same from one address, of IPv6 from one /64; 0 is three quarters of that. As many as max-handshakes is no limit: for a balancer that hides addresses."`
	FirstByteTimeout        time.Duration `name:"gateway.first-byte-timeout" default:"3s" help:"Time until a client has begun to speak."`
	HandshakeTimeout        time.Duration `name:"gateway.handshake-timeout" default:"10s" help:"Time for TLS handshake and CONNECT."`
	SessionExpiry           time.Duration `name:"gateway.session-expiry" default:"1h" help:"Longest life of a persistent session without a connection."`
	MaxOutKiB               int           `name:"gateway.max-out-kib" default:"1024" help:"KiB that may wait for a client before it is behind: QoS 0 messages are not for it then, and those of its queue stay there. Four times as much of QoS 1 without a queue ends the connection."`
	MaxTotalOutMiB          int           `name:"gateway.max-total-out-mib" default:"256" help:"MiB that may wait for all clients together; beyond that whoever has more than 256 KiB waiting is as one at its bound."`
	SlowTimeout             time.Duration `name:"gateway.slow-timeout" default:"10s" help:"How long a client that is behind may take nothing at all before it is disconnected."`
	NoLifecycle             bool          `name:"gateway.no-lifecycle-events" help:"Do not publish lifecycle events on $aws/events/."`
	DrainTimeout            time.Duration `name:"gateway.drain-timeout" default:"5s" help:"Time for connections to end in good order when the server stops."`

	Sessions sessionstore.Config `embed:""`
	Mesh     mesh.Config         `embed:""`

	// MQTTAddr is the address of MQTT with mutual TLS, HTTPSAddr that of the port that
	// tells protocols by ALPN; empty is off.
	MQTTAddr  string `kong:"-" toml:"-"`
	HTTPSAddr string `kong:"-" toml:"-"`
	// Limit replaces single limits of the profile.
	Limit LimitSettings `embed:""`

	// Limits names the limits profile: "aws", "default" or "unlimited"; see Limits.
	Limits string `kong:"-" toml:"-"`
	// NodeID names this node among those that share the store.
	NodeID string `kong:"-" toml:"-"`
}

func (c Config) withDefaults() (Config, error) {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	dur := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.Loops, max(1, runtime.GOMAXPROCS(0)/2))
	def(&c.Workers, 256)
	def(&c.MaxHandshakes, 1024)
	def(&c.MaxHandshakesPerAddress, max(1, c.MaxHandshakes*3/4))
	dur(&c.FirstByteTimeout, 3*time.Second)
	dur(&c.HandshakeTimeout, 10*time.Second)
	dur(&c.SessionExpiry, time.Hour)
	def(&c.MaxOutKiB, 1024)
	def(&c.MaxTotalOutMiB, 256)
	dur(&c.SlowTimeout, 10*time.Second)
	dur(&c.DrainTimeout, 5*time.Second)
	if c.NodeID == "" {
		c.NodeID = "local"
	}
	if err := c.Validate(); err != nil {
		return c, err
	}
	return c, nil
}

// Validate refuses what would open a door that nobody asked for.
func (c Config) Validate() error {
	switch w := c.Sessions.WhenFull; w {
	case "", sessionstore.WhenFullRefuse, sessionstore.WhenFullDrop:
	default:
		return fmt.Errorf("gateway: sessions.when-full %q: not refuse or drop", w)
	}
	if c.PlainAddr == "" || c.PlainAnywhere {
		return nil
	}
	host, _, err := net.SplitHostPort(c.PlainAddr)
	if err != nil {
		return fmt.Errorf("gateway: mqtt-plain-addr: %w", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return errors.New("gateway: mqtt-plain-addr is beyond loopback, where anybody could use it; gateway.plain-anywhere allows that")
	}
	return nil
}
