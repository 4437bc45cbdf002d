package gateway_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"flotilla/internal/gateway"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// as connects with a certificate.
func (w *world) as(t testing.TB, cert tls.Certificate, id string, change ...func(*mqtt.Connect)) (*client, *mqtt.Connack) {
	t.Helper()
	cfg := &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{cert}, ServerName: "localhost"}
	return handshake(t, w.dialTLS(t, w.Addrs().MQTT, cfg), id, change...)
}

const noReceive = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"},{"Effect":"Deny","Action":"iot:Receive","Resource":"*/sec/*"}]}`

// miss leaves a persistent session of cert with two messages that it has not received.
func (w *world) miss(t testing.TB, cert tls.Certificate, id string, version func(*mqtt.Connect)) {
	t.Helper()
	c, _ := w.as(t, cert, id, version, persistent)
	c.subscribe(1, "sec/#")
	c.disconnect()
	a, _ := w.connect(t, "publisher")
	a.publish("sec/a", "one", 1)
	a.publish("sec/a", "two", 1)
	a.disconnect()
}

func (c *client) wantBacklog() {
	c.t.Helper()
	for _, want := range []string{"one", "two"} {
		if got := string(c.message().Payload); got != want {
			c.t.Errorf("got %q, want %q", got, want)
		}
	}
}

func v5(*mqtt.Connect) {}

func TestClaimTakesNothingOfOthers(t *testing.T) {
	for name, version := range map[string]func(*mqtt.Connect){"3.1.1": v311, "5": v5} {
		t.Run(name, func(t *testing.T) {
			w := start(t)
			owner, claim := certificate(t, "owner"), certificate(t, "claim")
			w.rules.claims.Store(certificateID(claim.Leaf), true)
			refused := func(change ...func(*mqtt.Connect)) {
				t.Helper()
				cfg := &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{claim}, ServerName: "localhost"}
				p := &mqtt.Connect{Version: mqtt.V5, CleanStart: true, KeepAlive: 60, ClientID: "pump"}
				for _, c := range change {
					c(p)
				}
				c := &client{t: t, conn: w.dialTLS(t, w.Addrs().MQTT, cfg), v: p.Version}
				c.send(p)
				if got, err := c.read(patience); err == nil {
					if ack, ok := got.(*mqtt.Connack); !ok || ack.Code != mqtt.NotAuthorized {
						t.Errorf("a claim with another's client id got %T %+v", got, got)
					}
				}
				if d := w.Denials("pump"); len(d) == 0 || !strings.Contains(d[len(d)-1].Reason, "claim certificate") {
					t.Errorf("the refusal is not explained: %+v", d)
				}
			}
			w.miss(t, owner, "pump", version)
			refused(version, persistent)
			refused(version)
			c, ack := w.as(t, owner, "pump", version, persistent)
			if !ack.SessionPresent {
				t.Fatal("the session is gone")
			}
			c.wantBacklog()
			refused(version, persistent)
			refused(version)
			c.quiet() // still there

			clean, _ := w.as(t, owner, "pump", version)
			refused(version)
			clean.quiet()

			// Its own is all that it gets, and for as long as it is there.
			c, ack = w.as(t, claim, "phone", version, persistent)
			if ack.SessionPresent || version != nil && c.v == mqtt.V5 && !ack.Properties.Present.Has(mqtt.PropSessionExpiry) {
				t.Errorf("%+v", ack)
			}
			c.subscribe(1, "x")
			again, ack := w.as(t, claim, "phone", version, persistent)
			c.gone()
			if ack.SessionPresent {
				t.Error("a claim's session outlived its connection")
			}
			// A device may have the id.
			if _, ack := w.as(t, owner, "phone", version); ack.Code.Failed() {
				t.Errorf("%+v", ack)
			}
			again.gone()
		})
	}
}

func TestMessagesQueuedForAnotherPrincipalAreKept(t *testing.T) {
	w := start(t)
	owner, other := certificate(t, "owner"), certificate(t, "other")
	w.rules.allowOne(t, other, noReceive)
	w.miss(t, owner, "pump", v5)
	for range 2 { // also once the other one has had the session before
		c, ack := w.as(t, other, "pump", persistent)
		if !ack.SessionPresent {
			t.Fatal("the session was not resumed")
		}
		c.quiet()
		c.disconnect()
	}
	// What comes for it while it has the session is its own, and not delivered to anybody.
	a, _ := w.connect(t, "publisher")
	a.publish("sec/a", "three", 1)
	c, _ := w.as(t, other, "pump", persistent)
	c.quiet()
	a.publish("sec/a", "four", 1)
	c.quiet()
	eventually(t, "the end of what it may not receive", func() bool { return w.queued(t) == 2 })
	c.disconnect()
	w.startAgain(t)
	c, ack := w.as(t, owner, "pump", persistent)
	if !ack.SessionPresent {
		t.Fatal("the session is gone")
	}
	c.wantBacklog()
	c.quiet()
}

// queued counts the messages in all queues.
func (w *world) queued(t testing.TB) (n int) {
	t.Helper()
	err := w.db.Read(context.Background(), func(_ context.Context, tx store.Tx) error {
		return tx.QueryRow(`SELECT COUNT(*) FROM mqtt_queue`).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *world) startAgain(t testing.TB) {
	w.stop(t)
	w.restart(t)
}

// A certificate that takes the place of another keeps the session.
func TestRotatedCertificateResumesTheSession(t *testing.T) {
	w := start(t)
	w.miss(t, certificate(t, "old"), "pump", v5)
	c, ack := w.as(t, certificate(t, "new"), "pump", persistent)
	if !ack.SessionPresent {
		t.Fatal("the session was not resumed")
	}
	c.wantBacklog()
	a, _ := w.connect(t, "publisher")
	a.publish("sec/a", "three", 1)
	if got := string(c.message().Payload); got != "three" {
		t.Errorf("got %q", got)
	}
}

// What a principal may not receive of its own is not kept for it.
func TestDeniedMessagesDoNotFillTheQueue(t *testing.T) {
	w := start(t, func(c *gateway.Config, _ *gateway.Deps) { c.Sessions.MaxQueueMessages = 3 })
	owner := certificate(t, "owner")
	w.miss(t, owner, "pump", v5)
	w.rules.allowOne(t, owner, noReceive)
	c, _ := w.as(t, owner, "pump", persistent)
	c.quiet()
	a, _ := w.connect(t, "publisher")
	for range 10 {
		eventually(t, "room in the queue", func() bool {
			a.id++
			a.send(&mqtt.Publish{Topic: []byte("sec/a"), Payload: []byte("x"), QoS: 1, PacketID: a.id})
			return !next[*mqtt.Ack](a).Code.Failed()
		})
	}
}

// Who may not use a client id does not keep its owner from connecting.
func TestRefusedConnectsUseUpNoRate(t *testing.T) {
	w := start(t, limits("aws"))
	owner, stranger, claim := certificate(t, "owner"), certificate(t, "stranger"), certificate(t, "claim")
	w.rules.allowOne(t, stranger, `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}`)
	w.rules.claims.Store(certificateID(claim.Leaf), true)
	refused := func(cert tls.Certificate, id string) {
		t.Helper()
		c := &client{t: t, conn: w.dialTLS(t, w.Addrs().MQTT, &tls.Config{RootCAs: w.roots, Certificates: []tls.Certificate{cert}, ServerName: "localhost"}), v: mqtt.V5}
		c.send(&mqtt.Connect{Version: mqtt.V5, CleanStart: true, KeepAlive: 60, ClientID: id})
		if got, ok := c.next().(*mqtt.Connack); !ok || !got.Code.Failed() {
			t.Errorf("got %+v", got)
		}
	}
	refused(stranger, "pump")
	if _, ack := w.as(t, owner, "pump"); ack.Code.Failed() {
		t.Errorf("%v", ack.Code)
	}
	eventually(t, "the next connect", func() bool { // a second later
		refused(claim, "pump")
		_, ack := w.as(t, owner, "pump")
		return !ack.Code.Failed()
	})
}

// A member of a shared subscription that may not receive a message does not swallow it.
func TestSharedSubscriptionSkipsMembersThatMayNotReceive(t *testing.T) {
	for name, session := range map[string]func(*mqtt.Connect){"clean": v5, "persistent": persistent} {
		t.Run(name, func(t *testing.T) {
			w := start(t)
			deaf := certificate(t, "deaf")
			w.rules.allowOne(t, deaf, noReceive)
			d, _ := w.as(t, deaf, "deaf", session)
			d.subscribe(1, "$share/g/+/sec/+")
			good, _ := w.as(t, certificate(t, "good"), "good", session)
			good.subscribe(1, "$share/g/+/sec/+")
			a, _ := w.connect(t, "a")
			for i := range 40 {
				a.publish("x/sec/y", fmt.Sprint(i), byte(i%2))
				if got := string(good.message().Payload); got != fmt.Sprint(i) {
					t.Fatalf("message %d is %s", i, got)
				}
			}
			d.quiet()
			// With nobody there who may, it is as if nobody were there.
			good.disconnect()
			for i := range 4 {
				a.publish("x/sec/y", fmt.Sprint(i), 1)
			}
			d.quiet()
			d.disconnect()
			if name == "clean" {
				return
			}
			// It claims what waits for the group when it comes back, and gives it back.
			d, _ = w.as(t, deaf, "deaf", session)
			d.quiet()
			first := ""
			eventually(t, "the messages", func() bool {
				good, _ = w.as(t, certificate(t, "good"), "good", session)
				p, err := good.read(50 * time.Millisecond)
				if m, ok := p.(*mqtt.Publish); err == nil && ok {
					first = string(m.Payload)
				}
				return first != ""
			})
			// In order, though what was given and not yet acknowledged may come again.
			for got, want := first, 0; ; got = string(good.message().Payload) {
				n, err := strconv.Atoi(got)
				if err != nil || n > want {
					t.Fatalf("message %d is %s", want, got)
				}
				if n == want {
					want++
				}
				if want == 4 {
					break
				}
			}
		})
	}
}

// An answer with a secret goes to the connection that asked, not to the one that has its client id by then.
func TestAnswersGoToTheConnectionThatAsked(t *testing.T) {
	asked, answer := make(chan *mqtt.Message, 2), make(chan struct{})
	var w *world
	w = start(t, func(_ *gateway.Config, d *gateway.Deps) {
		d.Reserved = &mqtt.Mux{}
		d.Reserved.Handle("$aws/certificates/create/json", func(ctx context.Context, m *mqtt.Message) error {
			asked <- m
			<-answer
			return w.Publish(ctx, &mqtt.Message{
				Topic: m.Topic + "/accepted", Payload: []byte("key"), QoS: 1, Recipient: m.Source.ClientID, RecipientConnection: m.Source.ConnectionID,
			})
		})
	})
	ask := func(c *client) string {
		c.subscribe(1, "$aws/certificates/create/json/accepted")
		c.id++
		c.send(&mqtt.Publish{Topic: []byte("$aws/certificates/create/json"), QoS: 1, PacketID: c.id, Payload: []byte("{}")})
		return (<-asked).Source.ConnectionID
	}
	first, _ := w.connect(t, "c")
	one := ask(first)
	taken := make(chan *client)
	go func() {
		c, _ := w.connect(t, "c") // waits for the end of the first one, which waits for its answer
		taken <- c
	}()
	_, _ = first.read(100 * time.Millisecond)
	close(answer)
	second := <-taken
	two := ask(second)
	if one == "" || one == two {
		t.Errorf("connections %q and %q", one, two)
	}
	keys := 0
	for range 2 {
		if p, ok := second.next().(*mqtt.Publish); ok && string(p.Payload) == "key" {
			keys++
		}
	}
	if keys != 1 {
		t.Errorf("%d answers", keys)
	}
	second.quiet()
}

func TestMessageForAnotherConnectionIsDropped(t *testing.T) {
	w := start(t)
	c, _ := w.connect(t, "c")
	c.subscribe(1, "t")
	if err := w.Publish(t.Context(), &mqtt.Message{Topic: "t", Payload: []byte("secret"), Recipient: "c", RecipientConnection: "another"}); err != nil {
		t.Fatal(err)
	}
	c.quiet()
}
