package gateway_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/gateway"
	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
)

// stuck is a client that subscribes and then reads nothing.
func (w *world) stuck(t *testing.T, id string, qos byte, filter string, change ...func(*mqtt.Connect)) *client {
	t.Helper()
	conn := w.dial(t)
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	c, _ := handshake(t, conn, id, change...)
	c.subscribe(qos, filter)
	return c
}

func smallBuffers(c *gateway.Config, d *gateway.Deps) {
	d.Metrics = prometheus.NewRegistry()
	c.MaxOutKiB, c.SlowTimeout = 64, 500*time.Millisecond
}

func TestSlowConsumerLosesQoS0AndSlowsNobody(t *testing.T) {
	w := start(t, smallBuffers)
	w.stuck(t, "slow", 0, "s")
	good, _ := w.connect(t, "good")
	good.subscribe(0, "s")
	a, _ := w.connect(t, "a")
	const n = 2000
	payload := bytes.Repeat([]byte("x"), 8192)
	for range n {
		a.send(&mqtt.Publish{Topic: []byte("s"), Payload: payload})
		good.message() // as long as it keeps up, it gets all
	}
	if !w.isConnected(t, "slow") {
		t.Error("the slow client was disconnected")
	}
	if dropped := counter(t, w.deps.Metrics, "flotilla_gateway_messages_dropped_total"); dropped == 0 || dropped >= n {
		t.Errorf("%v of %d messages were dropped", dropped, n)
	}
}

// flood publishes n messages of 8 KiB to topic s, each acknowledged before the next.
func (c *client) flood(n int) {
	c.t.Helper()
	payload := bytes.Repeat([]byte("x"), 8192)
	for i := range n {
		c.id++
		copy(payload, fmt.Sprintf("%08d", i))
		c.send(&mqtt.Publish{Topic: []byte("s"), Payload: payload, QoS: 1, PacketID: c.id})
		if ack := next[*mqtt.Ack](c); ack.PacketID != c.id || ack.Code.Failed() {
			c.t.Fatalf("PUBACK %+v", ack)
		}
	}
}

// kernelRoom is more messages of flood than the system keeps for a connection on loopback.
const kernelRoom = 1000

func TestSlowConsumerOfQoS1EndsAndSlowsNobody(t *testing.T) {
	w := start(t, smallBuffers, func(c *gateway.Config, _ *gateway.Deps) { c.SlowTimeout = time.Hour })
	events, _ := w.connect(t, "events")
	events.subscribe(1, "$aws/events/presence/disconnected/slow")
	for name, version := range map[string]func(*mqtt.Connect){"5": v5, "3.1.1": v311} {
		w.stuck(t, "slow", 1, "s", version)
		a, _ := w.connect(t, "a")
		a.flood(kernelRoom)
		if got := string(events.message().Payload); !strings.Contains(got, `"disconnectReason":"THROTTLED"`) {
			t.Errorf("%s: %s", name, got)
		}
		eventually(t, "a denial", func() bool {
			d := w.Denials("slow")
			return len(d) > 0 && d[len(d)-1].Code == mqtt.QuotaExceeded && strings.Contains(d[len(d)-1].Reason, "does not take")
		})
	}
}

// A client that takes nothing gives its memory back, though nobody sends it enough to end it for that.
func TestSlowConsumerThatTakesNothingEnds(t *testing.T) {
	w := start(t, smallBuffers, func(c *gateway.Config, _ *gateway.Deps) { c.MaxOutKiB, c.SlowTimeout = 4096, 50*time.Millisecond })
	w.stuck(t, "slow", 1, "s")
	a, _ := w.connect(t, "a")
	a.flood(1280) // 10 MiB: with what the system keeps more than 4 MiB wait, and less than 16
	eventually(t, "its end", func() bool { return !w.isConnected(t, "slow") })
}

// What is acknowledged to a publisher reaches a stored session, however slow its client is.
func TestSlowConsumerWithAQueueLosesNothing(t *testing.T) {
	for name, encrypted := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			w := start(t, smallBuffers, func(c *gateway.Config, _ *gateway.Deps) { c.SlowTimeout = time.Hour })
			var conn net.Conn = w.dial(t)
			if encrypted {
				conn = w.dialTLS(t, w.Addrs().MQTT, w.clientTLS(t))
			}
			slow, _ := handshake(t, conn, "slow", persistent)
			slow.subscribe(1, "s")
			a, _ := w.connect(t, "a")
			a.flood(kernelRoom)
			for i := range kernelRoom {
				if got := string(slow.message().Payload[:8]); got != fmt.Sprintf("%08d", i) {
					t.Fatalf("message %d is %s", i, got)
				}
			}
			slow.quiet()
		})
	}
}

// Who reads late, but reads, is not ended for a burst.
func TestBurstIsTaken(t *testing.T) {
	w := start(t, func(c *gateway.Config, _ *gateway.Deps) { c.SlowTimeout = time.Hour })
	late, _ := w.connect(t, "late")
	late.subscribe(1, "s")
	a, _ := w.connect(t, "a")
	const n = 480 // more than MaxOutKiB, of which four times as much may wait
	a.flood(n)
	for i := range n {
		if got := string(late.message().Payload[:8]); got != fmt.Sprintf("%08d", i) {
			t.Fatalf("message %d is %s", i, got)
		}
	}
	late.quiet()
}

// Who only talks does not fill the memory with answers.
func TestAnswersAreBounded(t *testing.T) {
	w := start(t, smallBuffers)
	for name, packet := range map[string]mqtt.Packet{"PINGREQ": mqtt.Pingreq{}, "PUBLISH": &mqtt.Publish{Topic: []byte("t"), QoS: 1, PacketID: 1}} {
		c := w.stuck(t, "talker", 1, "x")
		b := packet.Append(nil, c.v)
		b = bytes.Repeat(b, 1<<20/len(b))
		eventually(t, "its end for "+name, func() bool {
			_ = c.conn.SetWriteDeadline(time.Now().Add(patience))
			_, err := c.conn.Write(b)
			return err != nil || !w.isConnected(t, "talker")
		})
		if d := w.Denials("talker"); len(d) == 0 || d[len(d)-1].Code != mqtt.QuotaExceeded {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func counter(t *testing.T, r *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestHalfOpenConnectionsAreBounded(t *testing.T) {
	w := start(t, func(c *gateway.Config, _ *gateway.Deps) {
		c.MaxHandshakes, c.MaxHandshakesPerAddress, c.HandshakeTimeout = 8, 8, 10*time.Second
	})
	var idle []net.Conn
	for i := range 40 {
		addr := w.Addrs().Plain
		if i%2 == 0 {
			addr = w.Addrs().MQTT
		}
		conn, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%4 < 2 {
			_, _ = conn.Write([]byte{0x16, 3}) // the beginning of a handshake, or of nothing
		}
		idle = append(idle, conn)
	}
	c, _ := w.connect(t, "patient")
	c.quiet()
	for _, conn := range idle {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 64)); err == nil {
			// A TLS alert may come first.
			_, err = conn.Read(make([]byte, 64))
			if err == nil {
				t.Fatal("a half-open connection was not ended")
			}
		}
	}
}

// crowd opens connections that never send a CONNECT; those that speak say a little of a handshake.
func (w *world) crowd(t *testing.T, n int, speak bool) (all []net.Conn) {
	t.Helper()
	for i := range n {
		addr := w.Addrs().Plain
		if i%2 == 0 {
			addr = w.Addrs().MQTT
		}
		conn, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if speak {
			_, _ = conn.Write([]byte{0x10})
		}
		all = append(all, conn)
	}
	return all
}

func (c *client) hasEnded(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	for {
		if _, err := conn.Read(make([]byte, 64)); err != nil {
			var ne net.Error
			return !errors.As(err, &ne) || !ne.Timeout()
		}
	}
}

// earnest connects a client, at last: connections may end before the server has read their CONNECT.
func (w *world) earnest(t *testing.T) (c *client) {
	t.Helper()
	eventually(t, "a connect", func() bool {
		c = &client{t: t, conn: w.dial(t), v: mqtt.V5}
		_, _ = c.conn.Write((&mqtt.Connect{Version: mqtt.V5, CleanStart: true, KeepAlive: 60, ClientID: "earnest"}).Append(nil, mqtt.V5))
		p, err := c.read(patience)
		_, ok := p.(*mqtt.Connack)
		return err == nil && ok
	})
	return c
}

func TestCrowdOfHalfOpenConnectionsKeepsNobodyOut(t *testing.T) {
	for name, speak := range map[string]bool{"silent": false, "speaking": true} {
		t.Run(name, func(t *testing.T) {
			w := start(t, func(c *gateway.Config, d *gateway.Deps) {
				c.MaxHandshakes, c.FirstByteTimeout, c.HandshakeTimeout = 16, time.Minute, time.Minute
				d.Metrics = prometheus.NewRegistry()
			})
			w.crowd(t, 64, speak)
			c := w.earnest(t) // the first may be refused, with all others so young
			if n := counter(t, w.deps.Metrics, "flotilla_gateway_pending_evicted_total") + counter(t, w.deps.Metrics, "flotilla_gateway_pending_refused_total"); n < 48 {
				t.Errorf("%v were evicted or refused", n)
			}
			c.quiet()
		})
	}
}

// In a storm it is the server that is slow: who waits for it does not have to go for those who come later.
func TestCrowdDoesNotPushOutWhoWaitsForUs(t *testing.T) {
	const n = 4
	busy, release := make(chan struct{}, n), make(chan struct{})
	w := start(t, func(c *gateway.Config, d *gateway.Deps) {
		c.MaxHandshakes, c.MaxHandshakesPerAddress, c.HandshakeTimeout, c.FirstByteTimeout = n, n, patience, patience
		server := d.TLS.Certificates[0]
		d.TLS.Certificates = nil
		d.TLS.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			busy <- struct{}{}
			<-release
			return &server, nil
		}
	})
	addr, cfg := w.Addrs().MQTT.String(), w.clientTLS(t)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			conn, err := tls.Dial("tcp", addr, cfg)
			if err != nil {
				t.Errorf("client %d: %v", i, err)
				return
			}
			defer conn.Close()
			if _, err := conn.Write((&mqtt.Connect{Version: mqtt.V5, CleanStart: true, ClientID: fmt.Sprint("c", i)}).Append(nil, mqtt.V5)); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
			b := make([]byte, 4)
			if _, err := io.ReadFull(conn, b); err != nil || b[3] != 0 {
				t.Errorf("client %d: CONNACK % x, %v", i, b, err)
			}
		})
	}
	for range n {
		<-busy
	}
	w.crowd(t, 4*n, false)
	<-time.After(2 * time.Second) // twice as long as a client may keep us waiting
	close(release)
	group.Wait()
}

func TestSilentConnectionsEndSoon(t *testing.T) {
	w := start(t, func(c *gateway.Config, _ *gateway.Deps) {
		c.FirstByteTimeout, c.HandshakeTimeout = 50*time.Millisecond, time.Minute
	})
	c := w.earnest(t)
	for _, conn := range w.crowd(t, 4, false) {
		if !c.hasEnded(conn) {
			t.Error("a silent connection stays")
		}
	}
	c.quiet()
}

func TestNothingLeaks(t *testing.T) {
	w := start(t)
	warm, _ := w.connect(t, "warm")
	warm.disconnect()
	eventually(t, "quiet", func() bool { return !w.isConnected(t, "warm") })
	goroutines, fds := runtime.NumGoroutine(), descriptors(t)
	var wg sync.WaitGroup
	cfg := w.clientTLS(t)
	for g := range 10 {
		wg.Go(func() {
			for i := range 100 {
				id := fmt.Sprintf("c-%d-%d", g, i)
				var c *client
				if i%2 == 0 {
					c, _ = w.connect(t, id)
				} else {
					c, _ = handshake(t, w.dialTLS(t, w.Addrs().MQTT, cfg), id)
				}
				c.subscribe(1, id)
				c.publish("to/"+id, "x", 1)
				if i%3 == 0 {
					c.send(&mqtt.Disconnect{})
				}
				_ = c.conn.Close()
			}
		})
	}
	wg.Wait()
	eventually(t, "goroutines and descriptors as before", func() bool {
		return runtime.NumGoroutine() <= goroutines+2 && descriptors(t) <= fds+2
	})
}

func descriptors(t *testing.T) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

func TestKeepAlive(t *testing.T) {
	clock := newClock()
	w := start(t, func(_ *gateway.Config, d *gateway.Deps) { d.Now = clock.now })
	c, _ := w.connect(t, "c", func(p *mqtt.Connect) { p.KeepAlive = 40 })
	clock.pass(50 * time.Second)
	c.quiet() // within one and a half times
	clock.pass(61 * time.Second)
	if d := c.gone(); d == nil || d.Code != mqtt.KeepAliveTimeout {
		t.Errorf("DISCONNECT %+v", d)
	}
}

func TestAWSRates(t *testing.T) {
	at := time.Now()
	w := start(t, limits("aws"), func(_ *gateway.Config, d *gateway.Deps) { d.Now = func() time.Time { return at } })
	c, _ := w.connect(t, "c")
	refused := 0
	for range 150 { // within a second, as the clock stands
		c.id++
		c.send(&mqtt.Publish{Topic: []byte("t"), QoS: 1, PacketID: c.id})
		if next[*mqtt.Ack](c).Code == mqtt.QuotaExceeded {
			refused++
		}
	}
	if refused != 50 {
		t.Errorf("of 150 messages in a second %d were refused, want 50", refused)
	}
	if _, ack := w.connect(t, "c"); ack.Code != mqtt.QuotaExceeded {
		t.Errorf("a second CONNECT within the second: %v", ack.Code)
	}
	s, _ := w.connect(t, "s")
	var filters []string
	for i := range 8 {
		filters = append(filters, fmt.Sprint("f/", i))
	}
	for range 6 {
		s.subscribe(0, filters...)
	}
	if codes := s.subscribe(0, append(filters, "f/9")...); codes[0] != mqtt.QuotaExceeded || codes[8] != mqtt.QuotaExceeded {
		t.Errorf("nine filters: %v", codes)
	}
}

func TestTopicsBeyondLimits(t *testing.T) {
	w := start(t)
	c, _ := w.connect(t, "c")
	c.send(&mqtt.Publish{Topic: []byte("a/b/c/d/e/f/g/h/i")})
	if d := c.gone(); d == nil || d.Code != mqtt.TopicNameInvalid {
		t.Errorf("DISCONNECT %+v", d)
	}
	c, _ = w.connect(t, "c")
	c.send(&mqtt.Publish{Topic: []byte("a"), QoS: 2, PacketID: 1})
	if d := c.gone(); d == nil || d.Code != mqtt.QoSNotSupported {
		t.Errorf("DISCONNECT %+v", d)
	}
}

// fill leaves an absent session whose queue is full.
func (w *world) fill(t *testing.T, id, filter string, n int) {
	t.Helper()
	s, _ := w.connect(t, id, persistent)
	s.subscribe(1, filter)
	s.disconnect()
	a, _ := w.connect(t, "filler")
	for i := range n {
		a.publish(filter, fmt.Sprint(i), 1)
	}
}

func TestFullQueueRefusesAndNamesItsClient(t *testing.T) {
	w := start(t, func(c *gateway.Config, d *gateway.Deps) { c.Sessions.MaxQueueMessages = 3 })
	w.fill(t, "absent", "t", 3)
	a, _ := w.connect(t, "a")
	a.send(&mqtt.Publish{Topic: []byte("t"), QoS: 1, PacketID: 1})
	if ack := next[*mqtt.Ack](a); ack.Code != mqtt.QuotaExceeded {
		t.Errorf("PUBACK %v", ack.Code)
	}
	if d := w.Denials("a"); len(d) != 1 || !strings.Contains(d[0].Reason, "the queue of absent is full") || !d[0].Remote.IsLoopback() {
		t.Errorf("the publisher's: %+v", d)
	}
	if d := w.Denials("absent"); len(d) != 1 || d[0].Action != "queue" || !strings.Contains(d[0].Reason, "its queue is full") {
		t.Errorf("the subscriber's: %+v", d)
	}
	if err := w.Publish(t.Context(), &mqtt.Message{Topic: "t", QoS: 1}); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("a room's: %v", err)
	}
}

func TestFullQueueOfOneIsLeftOut(t *testing.T) {
	for name, change := range map[string]func(*gateway.Config){
		"drop": func(c *gateway.Config) { c.Sessions.WhenFull = "drop" },
		"aws":  func(c *gateway.Config) { c.Limits = "aws" },
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, func(c *gateway.Config, d *gateway.Deps) {
				change(c)
				c.Sessions.MaxQueueMessages, d.Metrics = 3, prometheus.NewRegistry()
			})
			w.fill(t, "absent", "t", 3)
			other, _ := w.connect(t, "other", persistent)
			other.subscribe(1, "t")
			old, _ := w.connect(t, "old", v311)
			for i := range 5 {
				old.publish("t", fmt.Sprint(i), 1)
				if got := string(other.message().Payload); got != fmt.Sprint(i) {
					t.Errorf("got %s, want %d", got, i)
				}
				eventually(t, "room in the other one's queue", func() bool { return w.queued(t) == 3 })
			}
			if n := counter(t, w.deps.Metrics, "flotilla_gateway_messages_dropped_total"); n != 5 {
				t.Errorf("%v are counted", n)
			}
			if d := w.Denials("absent"); len(d) != 1 || !strings.Contains(d[0].Reason, "does not get") {
				t.Errorf("%+v", d)
			}
			var absent *client
			eventually(t, "the next connect", func() bool { // with the aws profile a second after the last
				c, ack := w.connect(t, "absent", persistent)
				absent = c
				return !ack.Code.Failed()
			})
			for i := range 3 {
				if got := string(absent.message().Payload); got != fmt.Sprint(i) {
					t.Errorf("got %s, want %d", got, i)
				}
			}
			eventually(t, "room", func() bool {
				old.publish("t", "again", 1)
				other.message()
				eventually(t, "room in the other one's queue", func() bool { return w.queued(t) <= 3 })
				p, err := absent.read(50 * time.Millisecond)
				if err != nil {
					return false
				}
				got := p.(*mqtt.Publish)
				absent.send(&mqtt.Ack{Type: mqtt.PUBACK, PacketID: got.PacketID})
				return string(got.Payload) == "again"
			})
		})
	}
}

func TestWhenFullIsOneOfTwo(t *testing.T) {
	if err := (gateway.Config{Sessions: sessionstore.Config{WhenFull: "wait"}}).Validate(); err == nil {
		t.Error("accepted")
	}
}

func TestDenialOfASharedSubscriptionShowsItWhole(t *testing.T) {
	w := start(t)
	w.rules.allow(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}`)
	c, _ := w.connect(t, "c")
	c.subscribe(1, "$share/g/t")
	if d := w.Denials("c"); len(d) != 1 || d[0].Resource != "$share/g/t" {
		t.Errorf("%+v", d)
	}
}
