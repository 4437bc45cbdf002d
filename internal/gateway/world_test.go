package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/gateway"
	"flotilla/internal/gateway/mesh"
	"flotilla/internal/mqtt"
	"flotilla/internal/policy/lang"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// patience is for a machine that does a lot else.
const patience = time.Minute

// steady is a mesh that takes no silent node for dead.
var steady = mesh.Config{Timeout: time.Hour}

var account = aws.Account{ID: "123456789012", Region: "us-east-1"}

const everything = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`

// world is a gateway with neighbours that the test controls.
type world struct {
	*gateway.Gateway
	db    *store.DB
	cfg   gateway.Config
	deps  gateway.Deps
	rules *fakePolicies
	ids   *fakePrincipals
	roots *x509.CertPool
}

// fakePolicies governs all connections by one document, which may change.
type fakePolicies struct {
	set    atomic.Pointer[lang.Set]
	serial atomic.Uint64
	claims sync.Map // ids of claim certificates
	others sync.Map // *lang.Set by certificate id, in set's place
}

// allowOne governs one certificate by a document of its own.
func (p *fakePolicies) allowOne(t testing.TB, cert tls.Certificate, document string) {
	t.Helper()
	d, err := lang.Parse(document)
	if err != nil {
		t.Fatal(err)
	}
	p.others.Store(certificateID(cert.Leaf), lang.Compile(lang.Named{Name: "one", Document: d}))
	p.serial.Add(1)
}

func certificateID(leaf *x509.Certificate) string {
	sum := sha256.Sum256(leaf.Raw)
	return hex.EncodeToString(sum[:])
}

func (p *fakePolicies) allow(t testing.TB, document string) {
	t.Helper()
	d, err := lang.Parse(document)
	if err != nil {
		t.Fatal(err)
	}
	p.set.Store(lang.Compile(lang.Named{Name: "test", Document: d}))
	p.serial.Add(1)
}

func (p *fakePolicies) Open(_ context.Context, _ aws.Principal, c *lang.Connection) (lang.Authorizer, error) {
	return &fakeAuthorizer{p, *c}, nil
}

func (p *fakePolicies) OpenNamed(_ context.Context, _ string, c *lang.Connection) (lang.Authorizer, error) {
	return &fakeAuthorizer{p, *c}, nil
}

type fakeAuthorizer struct {
	p *fakePolicies
	c lang.Connection
}

func (a *fakeAuthorizer) Authorize(action, resource string) lang.Decision {
	if a.c.Certificate != nil {
		if set, ok := a.p.others.Load(a.c.Certificate.ID); ok {
			return set.(*lang.Set).Evaluate(&a.c, action, resource)
		}
	}
	return a.p.set.Load().Evaluate(&a.c, action, resource)
}

func (a *fakeAuthorizer) Confined() bool {
	if a.c.Certificate == nil {
		return false
	}
	_, ok := a.p.claims.Load(a.c.Certificate.ID)
	return ok
}
func (a *fakeAuthorizer) Epoch() (uint64, bool) { return a.p.serial.Load(), true }
func (a *fakeAuthorizer) Cached(action, resource string) (lang.Decision, bool) {
	return a.Authorize(action, resource), true
}

// fakePrincipals knows every certificate, unless it is revoked.
type fakePrincipals struct{ revoked sync.Map }

func (p *fakePrincipals) Identify(_ context.Context, leaf *x509.Certificate) (aws.Principal, *lang.Certificate, error) {
	if leaf == nil {
		return aws.Principal{}, nil, errors.New("no certificate")
	}
	id := certificateID(leaf)
	if _, gone := p.revoked.Load(id); gone {
		return aws.Principal{}, nil, errors.New("revoked")
	}
	return aws.Principal{Type: "certificate", ID: id, ARN: account.ARN("iot", "cert/"+id)}, &lang.Certificate{ID: id}, nil
}

// openStore opens a store that does not wait for the disk, which may take seconds: power is not cut here.
func openStore(t testing.TB) *store.DB {
	t.Helper()
	return storetest.OpenConfig(t, store.Config{Dir: t.TempDir(), Durability: "process"})
}

// start starts a gateway on free ports: plain, mutual TLS and ALPN.
func start(t testing.TB, change ...func(*gateway.Config, *gateway.Deps)) *world {
	t.Helper()
	w := &world{db: openStore(t), rules: &fakePolicies{}, ids: &fakePrincipals{}, roots: x509.NewCertPool()}
	w.rules.allow(t, everything)
	server := certificate(t, "localhost")
	w.roots.AddCert(server.Leaf)
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("FLOTILLA_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	w.cfg = gateway.Config{MQTTAddr: "127.0.0.1:0", HTTPSAddr: "127.0.0.1:0", PlainAddr: "127.0.0.1:0", PlainPolicy: "test", NodeID: "one", Mesh: steady, DrainTimeout: patience}
	w.deps = gateway.Deps{
		Account: account, DB: w.db, Principals: w.ids, Policies: w.rules, Log: log,
		TLS:  &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12},
		HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.Proto)) }),
	}
	for _, c := range change {
		c(&w.cfg, &w.deps)
	}
	w.restart(t)
	t.Cleanup(func() { w.stop(t) })
	return w
}

func (w *world) restart(t testing.TB) {
	t.Helper()
	g, err := gateway.New(w.cfg, w.deps)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.Gateway = g
}

func (w *world) stop(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func limits(name string) func(*gateway.Config, *gateway.Deps) {
	return func(c *gateway.Config, _ *gateway.Deps) { c.Limits = name }
}

func certificate(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (w *world) clientTLS(t testing.TB, alpn ...string) *tls.Config {
	t.Helper()
	return &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{certificate(t, "device")}, NextProtos: alpn, ServerName: "localhost"}
}

// clock is one that tests set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// client is a connection that speaks raw packets.
type client struct {
	t    testing.TB
	conn net.Conn
	v    mqtt.Version
	buf  []byte
	id   uint16
}

func (w *world) dial(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", w.Addrs().Plain.String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (w *world) dialTLS(t testing.TB, addr net.Addr, cfg *tls.Config) *tls.Conn {
	t.Helper()
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*tls.Conn)
}

// connect opens a plain connection of MQTT 5 with a clean start and returns it with its CONNACK.
func (w *world) connect(t testing.TB, id string, change ...func(*mqtt.Connect)) (*client, *mqtt.Connack) {
	t.Helper()
	return handshake(t, w.dial(t), id, change...)
}

func handshake(t testing.TB, conn net.Conn, id string, change ...func(*mqtt.Connect)) (*client, *mqtt.Connack) {
	t.Helper()
	p := &mqtt.Connect{Version: mqtt.V5, CleanStart: true, KeepAlive: 60, ClientID: id}
	for _, c := range change {
		c(p)
	}
	c := &client{t: t, conn: conn, v: p.Version}
	c.send(p)
	ack, ok := c.next().(*mqtt.Connack)
	if !ok {
		t.Fatalf("%s: no CONNACK", id)
	}
	return c, ack
}

func v311(p *mqtt.Connect) { p.Version = mqtt.V311 }

func persistent(p *mqtt.Connect) {
	p.CleanStart = false
	if p.Version == mqtt.V5 {
		p.Properties.Present = p.Properties.Present.With(mqtt.PropSessionExpiry)
		p.Properties.SessionExpiry = 600
	}
}

func (c *client) send(packets ...mqtt.Packet) {
	c.t.Helper()
	var b []byte
	for _, p := range packets {
		b = p.Append(b, c.v)
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// read gives the next packet, or the error of the connection.
func (c *client) read(d time.Duration) (mqtt.Packet, error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(d))
	for {
		h, body, n, err := mqtt.Next(c.buf, 1<<21)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			p, err := mqtt.Decode(c.v, h, append([]byte(nil), body...))
			c.buf = c.buf[n:]
			return p, err
		}
		chunk := make([]byte, 64<<10)
		n, err = c.conn.Read(chunk)
		c.buf = append(c.buf, chunk[:n]...)
		if err != nil {
			return nil, err
		}
	}
}

func (c *client) next() mqtt.Packet {
	c.t.Helper()
	p, err := c.read(patience)
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return p
}

func next[P mqtt.Packet](c *client) P {
	c.t.Helper()
	p := c.next()
	v, ok := p.(P)
	if !ok {
		var want P
		c.t.Fatalf("got %T %+v, want %T", p, p, want)
	}
	return v
}

// gone waits for the end of the connection and returns the DISCONNECT before it, if any.
func (c *client) gone() *mqtt.Disconnect {
	c.t.Helper()
	var last *mqtt.Disconnect
	for {
		p, err := c.read(patience)
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				c.t.Fatal("the connection stays open")
			}
			return last
		}
		if d, ok := p.(*mqtt.Disconnect); ok {
			last = d
		}
	}
}

func (c *client) subscribe(qos byte, filters ...string) []mqtt.ReasonCode {
	c.t.Helper()
	c.id++
	p := &mqtt.Subscribe{PacketID: c.id}
	for _, f := range filters {
		p.Subscriptions = append(p.Subscriptions, mqtt.Subscription{Filter: f, QoS: qos})
	}
	c.send(p)
	return next[*mqtt.Suback](c).Codes
}

func (c *client) publish(topic, payload string, qos byte) {
	c.t.Helper()
	p := &mqtt.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos}
	if qos == 0 {
		c.send(p)
		return
	}
	c.id++
	p.PacketID = c.id
	c.send(p)
	if ack := next[*mqtt.Ack](c); ack.PacketID != c.id || ack.Code.Failed() {
		c.t.Fatalf("PUBACK %+v", ack)
	}
}

// message gives the next PUBLISH, acknowledged.
func (c *client) message() *mqtt.Publish {
	c.t.Helper()
	p := next[*mqtt.Publish](c)
	if p.QoS == 1 {
		c.send(&mqtt.Ack{Type: mqtt.PUBACK, PacketID: p.PacketID})
	}
	return p
}

// quiet checks that nothing but the answer to a PINGREQ comes.
func (c *client) quiet() {
	c.t.Helper()
	c.send(mqtt.Pingreq{})
	if p := c.next(); p != (mqtt.Pingresp{}) {
		c.t.Fatalf("got %T %+v, want nothing", p, p)
	}
}

func (c *client) disconnect() {
	c.t.Helper()
	c.send(&mqtt.Disconnect{})
	c.gone()
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		<-tick.C
	}
}

func (w *world) isConnected(t testing.TB, id string) bool {
	t.Helper()
	out, err := w.DataPlane().GetConnection(context.Background(), &iotdata.GetConnectionRequest{ClientId: id})
	return err == nil && *out.Connected
}
