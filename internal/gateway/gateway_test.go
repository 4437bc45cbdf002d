package gateway_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"flotilla/internal/aws/iotdata"
	"flotilla/internal/gateway"
	"flotilla/internal/mqtt"
)

func TestMessagesBetweenVersionsAndTransports(t *testing.T) {
	w := start(t)
	a, _ := handshake(t, w.dialTLS(t, w.Addrs().MQTT, w.clientTLS(t)), "a")
	b, _ := handshake(t, w.dialTLS(t, w.Addrs().HTTPS, w.clientTLS(t, "x-amzn-mqtt-ca")), "b", v311)
	c, _ := w.connect(t, "c", v311)
	for _, s := range []*client{a, b, c} {
		if codes := s.subscribe(1, "to/+/all"); codes[0] != mqtt.GrantedQoS1 {
			t.Fatalf("SUBACK %v", codes)
		}
	}
	for i, from := range []*client{a, b, c} {
		for qos := range byte(2) {
			want := fmt.Sprintf("%d at %d", i, qos)
			from.id++
			from.send(&mqtt.Publish{Topic: []byte("to/x/all"), Payload: []byte(want), QoS: qos, PacketID: from.id})
			for _, s := range []*client{a, b, c} {
				var got *mqtt.Publish
				for got == nil { // the publisher's PUBACK comes among the messages
					switch p := s.next().(type) {
					case *mqtt.Publish:
						got = p
					case *mqtt.Ack:
					default:
						t.Fatalf("got %T", p)
					}
				}
				if string(got.Payload) != want || got.QoS != qos || string(got.Topic) != "to/x/all" {
					t.Fatalf("got %q at QoS %d, want %q", got.Payload, got.QoS, want)
				}
				if qos == 1 {
					s.send(&mqtt.Ack{Type: mqtt.PUBACK, PacketID: got.PacketID})
				}
			}
			if qos == 1 {
				from.drainAck()
			}
		}
	}
}

// drainAck reads a PUBACK if it has not come yet.
func (c *client) drainAck() {
	c.send(mqtt.Pingreq{})
	for {
		if _, ok := c.next().(mqtt.Pingresp); ok {
			return
		}
	}
}

func TestALPNGivesHTTPSToItsHandler(t *testing.T) {
	w := start(t)
	for _, proto := range []string{"x-amzn-http-ca", "http/1.1", ""} {
		cfg := w.clientTLS(t)
		if proto != "" {
			cfg.NextProtos = []string{proto}
		}
		conn := w.dialTLS(t, w.Addrs().HTTPS, cfg)
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(conn)
		if err != nil || len(b) < 12 || string(b[:15]) != "HTTP/1.1 200 OK" {
			t.Errorf("%q: %q, %v", proto, b, err)
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: w.clientTLS(t), ForceAttemptHTTP2: true}}
	r, err := client.Get("https://" + w.Addrs().HTTPS.String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if b, _ := io.ReadAll(r.Body); string(b) != "HTTP/2.0" {
		t.Errorf("got %q", b)
	}
}

func TestPersistentSessionKeepsMessages(t *testing.T) {
	w := start(t)
	for _, v := range []mqtt.Version{mqtt.V5, mqtt.V311} {
		t.Run(fmt.Sprint(v), func(t *testing.T) {
			id := fmt.Sprintf("keeper-%d", v)
			version := func(p *mqtt.Connect) { p.Version = v }
			b, ack := w.connect(t, id, version, persistent)
			if ack.SessionPresent {
				t.Error("a session where there was none")
			}
			b.subscribe(1, id+"/+")
			a, _ := w.connect(t, "publisher")
			a.publish(id+"/x", "live", 1)
			if got := string(b.message().Payload); got != "live" {
				t.Fatalf("got %q", got)
			}
			b.disconnect()
			const n = 300
			for i := range n {
				a.publish(id+"/x", fmt.Sprint(i), 1)
			}
			a.publish(id+"/x", "QoS 0 is not kept", 0)
			a.disconnect()
			for range 2 { // the same node, and one that has started anew
				b, ack = w.connect(t, id, version, persistent)
				if !ack.SessionPresent {
					t.Fatal("no session present")
				}
				first := string(next[*mqtt.Publish](b).Payload)
				if first != "0" {
					t.Fatalf("first is %q", first)
				}
				_ = b.conn.Close() // unacknowledged: it comes again
				eventually(t, "the end of the connection", func() bool {
					out, err := w.DataPlane().GetConnection(t.Context(), &iotdata.GetConnectionRequest{ClientId: id})
					return err == nil && !*out.Connected
				})
				w.stop(t)
				w.restart(t)
			}
			b, _ = w.connect(t, id, version, persistent)
			for i := range n {
				if got := string(b.message().Payload); got != fmt.Sprint(i) {
					t.Fatalf("message %d is %q", i, got)
				}
			}
			a, _ = w.connect(t, "publisher")
			a.publish(id+"/x", "live again", 1)
			if got := string(b.message().Payload); got != "live again" {
				t.Fatalf("got %q", got)
			}
			b.quiet()
		})
	}
}

func TestCleanStartDiscardsTheSession(t *testing.T) {
	w := start(t)
	b, _ := w.connect(t, "b", persistent)
	b.subscribe(1, "t")
	b.disconnect()
	if _, ack := w.connect(t, "b"); ack.SessionPresent {
		t.Error("session present after a clean start")
	}
	b, ack := w.connect(t, "b", persistent)
	if ack.SessionPresent {
		t.Error("the session was not discarded")
	}
	a, _ := w.connect(t, "a")
	a.publish("t", "x", 1)
	b.quiet()
}

func TestRetained(t *testing.T) {
	w := start(t)
	a, _ := w.connect(t, "a")
	a.id++
	a.send(&mqtt.Publish{Topic: []byte("r/1"), Payload: []byte("kept"), QoS: 1, Retain: true, PacketID: a.id})
	next[*mqtt.Ack](a)
	b, _ := w.connect(t, "b")
	b.subscribe(1, "r/1")
	if m := b.message(); string(m.Payload) != "kept" || !m.Retain || m.QoS != 1 {
		t.Errorf("got %+v", m)
	}
	b.subscribe(1, "r/+") // AWS: none for wildcards
	b.quiet()
	out, err := w.DataPlane().GetRetainedMessage(t.Context(), &iotdata.GetRetainedMessageRequest{Topic: "r/1"})
	if err != nil || string(out.Payload) != "kept" {
		t.Errorf("GetRetainedMessage: %+v, %v", out, err)
	}
	a.id++
	a.send(&mqtt.Publish{Topic: []byte("r/1"), QoS: 1, Retain: true, PacketID: a.id})
	next[*mqtt.Ack](a)
	if m := b.message(); len(m.Payload) != 0 || m.Retain {
		t.Errorf("got %+v", m)
	}
	list, err := w.DataPlane().ListRetainedMessages(t.Context(), &iotdata.ListRetainedMessagesRequest{})
	if err != nil || len(list.RetainedTopics) != 0 {
		t.Errorf("ListRetainedMessages: %+v, %v", list, err)
	}
}

func TestTakeOverPublishesTheWill(t *testing.T) {
	w := start(t)
	watcher, _ := w.connect(t, "watcher")
	watcher.subscribe(1, "will")
	withWill := func(p *mqtt.Connect) { p.Will = &mqtt.Will{Topic: "will", Payload: []byte("gone"), QoS: 1} }
	first, _ := w.connect(t, "twice", withWill)
	second, _ := w.connect(t, "twice")
	if d := first.gone(); d == nil || d.Code != mqtt.SessionTakenOver {
		t.Errorf("DISCONNECT %+v", d)
	}
	if m := watcher.message(); string(m.Payload) != "gone" {
		t.Errorf("will %q", m.Payload)
	}
	second.quiet()
	third, _ := w.connect(t, "polite", withWill)
	third.disconnect()
	watcher.quiet()
	fourth, _ := w.connect(t, "rude", withWill)
	_ = fourth.conn.Close()
	if m := watcher.message(); string(m.Payload) != "gone" {
		t.Errorf("will %q", m.Payload)
	}
}

func TestPoliciesDecide(t *testing.T) {
	w := start(t)
	w.rules.allow(t, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:us-east-1:123456789012:client/good*"},
		{"Effect":"Allow","Action":["iot:Publish"],"Resource":"arn:aws:iot:us-east-1:123456789012:topic/yes*"},
		{"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:us-east-1:123456789012:topicfilter/*"},
		{"Effect":"Allow","Action":"iot:Receive","Resource":"arn:aws:iot:us-east-1:123456789012:topic/yes"},
		{"Effect":"Deny","Action":"iot:Subscribe","Resource":"arn:aws:iot:us-east-1:123456789012:topicfilter/no"}]}`)
	if _, ack := w.connect(t, "bad"); ack.Code != mqtt.NotAuthorized {
		t.Errorf("CONNACK %v", ack.Code)
	}
	c, _ := w.connect(t, "good")
	if codes := c.subscribe(1, "no", "#"); codes[0] != mqtt.NotAuthorized || codes[1] != mqtt.GrantedQoS1 {
		t.Errorf("SUBACK %v", codes)
	}
	c.publish("yes2", "may not be received", 1)
	c.publish("yes", "may be", 0)
	if m := c.message(); string(m.Topic) != "yes" {
		t.Errorf("got %s", m.Topic)
	}
	c.id++
	c.send(&mqtt.Publish{Topic: []byte("no"), QoS: 1, PacketID: c.id})
	if ack := next[*mqtt.Ack](c); ack.Code != mqtt.NotAuthorized {
		t.Errorf("PUBACK %v", ack.Code)
	}
	c.id++
	c.send(&mqtt.Publish{Topic: []byte("yes"), QoS: 1, Retain: true, PacketID: c.id})
	if ack := next[*mqtt.Ack](c); ack.Code != mqtt.NotAuthorized {
		t.Errorf("PUBACK %v of RETAIN", ack.Code)
	}
	c.send(&mqtt.Publish{Topic: []byte("no")})
	if d := c.gone(); d == nil || d.Code != mqtt.NotAuthorized {
		t.Errorf("DISCONNECT %+v", d)
	}
	old, _ := w.connect(t, "good", v311)
	old.id++
	old.send(&mqtt.Publish{Topic: []byte("no"), QoS: 1, PacketID: old.id})
	if d := old.gone(); d != nil {
		t.Errorf("3.1.1 got %+v", d)
	}
	denials := w.Denials("good")
	if len(denials) == 0 {
		t.Fatal("no denials")
	}
	for _, d := range denials {
		if d.Action == "" || d.Reason == "" || d.Time.IsZero() {
			t.Errorf("%+v", d)
		}
	}
}

func TestSharedSubscription(t *testing.T) {
	w := start(t)
	var members []*client
	for i := range 3 {
		m, _ := w.connect(t, fmt.Sprint("member", i))
		m.subscribe(1, "$share/g/s/+")
		members = append(members, m)
	}
	a, _ := w.connect(t, "a")
	const n = 60
	for i := range n {
		a.publish("s/x", fmt.Sprint(i), byte(i%2))
	}
	got := 0
	for i, m := range members {
		m.send(mqtt.Pingreq{})
		mine := 0
		for {
			p := m.next()
			if _, ok := p.(mqtt.Pingresp); ok {
				break
			}
			if p, ok := p.(*mqtt.Publish); ok {
				mine++
				if p.QoS == 1 {
					m.send(&mqtt.Ack{Type: mqtt.PUBACK, PacketID: p.PacketID})
				}
			}
		}
		if mine == 0 {
			t.Errorf("member %d got nothing", i)
		}
		got += mine
	}
	if got != n {
		t.Errorf("members got %d of %d", got, n)
	}
}

func TestSharedSubscriptionKeepsForAbsentMembers(t *testing.T) {
	w := start(t)
	m, _ := w.connect(t, "m", persistent)
	m.subscribe(1, "$share/g/s/+")
	m.disconnect()
	a, _ := w.connect(t, "a")
	for i := range 10 {
		a.publish("s/x", fmt.Sprint(i), 1)
	}
	m, _ = w.connect(t, "m", persistent)
	for i := range 10 {
		if got := string(m.message().Payload); got != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, got)
		}
	}
}

func TestLifecycleEvents(t *testing.T) {
	w := start(t)
	watcher, _ := w.connect(t, "watcher")
	watcher.subscribe(1, "$aws/events/#")
	read := func(topic string) map[string]any {
		t.Helper()
		m := watcher.message()
		if string(m.Topic) != topic {
			t.Fatalf("event on %s, want %s", m.Topic, topic)
		}
		var e map[string]any
		if err := json.Unmarshal(m.Payload, &e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	read("$aws/events/subscriptions/subscribed/watcher")
	c, _ := w.connect(t, "c")
	connected := read("$aws/events/presence/connected/c")
	if connected["eventType"] != "connected" || connected["ipAddress"] != "127.0.0.1" || connected["versionNumber"] == nil {
		t.Errorf("%v", connected)
	}
	c.subscribe(0, "x", "y")
	if e := read("$aws/events/subscriptions/subscribed/c"); fmt.Sprint(e["topics"]) != "[x y]" {
		t.Errorf("%v", e)
	}
	c.disconnect()
	e := read("$aws/events/presence/disconnected/c")
	if e["clientInitiatedDisconnect"] != true || e["disconnectReason"] != "CLIENT_INITIATED_DISCONNECT" ||
		e["sessionIdentifier"] != connected["sessionIdentifier"] || e["versionNumber"] != connected["versionNumber"] {
		t.Errorf("%v after %v", e, connected)
	}
}

func TestReservedTopicsGoToTheirRoom(t *testing.T) {
	got := make(chan *mqtt.Message, 1)
	var w *world
	w = start(t, func(_ *gateway.Config, d *gateway.Deps) {
		d.Reserved = &mqtt.Mux{}
		d.Reserved.Handle("$aws/things/+/shadow/#", func(ctx context.Context, m *mqtt.Message) error {
			got <- m
			return w.Publish(ctx, &mqtt.Message{Topic: m.Topic + "/accepted", Payload: []byte("yes"), Recipient: m.Source.ClientID})
		})
	})
	c, _ := w.connect(t, "c")
	other, _ := w.connect(t, "other")
	c.subscribe(1, "$aws/things/t/shadow/+/accepted")
	other.subscribe(1, "$aws/things/t/shadow/+/accepted")
	c.id++
	c.send(&mqtt.Publish{Topic: []byte("$aws/things/t/shadow/get"), QoS: 1, PacketID: c.id})
	answers := map[string]int{}
	for range 2 {
		switch p := c.next().(type) {
		case *mqtt.Ack:
			answers["puback"]++
		case *mqtt.Publish:
			answers[string(p.Payload)]++
		}
	}
	if answers["puback"] != 1 || answers["yes"] != 1 {
		t.Errorf("%v", answers)
	}
	if m := <-got; m.Source.ClientID != "c" || m.Topic != "$aws/things/t/shadow/get" {
		t.Errorf("%+v", m)
	}
	other.quiet()
	c.id++
	c.send(&mqtt.Publish{Topic: []byte("$aws/events/x"), QoS: 1, PacketID: c.id})
	if ack := next[*mqtt.Ack](c); ack.Code != mqtt.NotAuthorized {
		t.Errorf("PUBACK %v", ack.Code)
	}
}

func TestRevokedCertificateIsRefused(t *testing.T) {
	w := start(t)
	cfg := w.clientTLS(t)
	conn := w.dialTLS(t, w.Addrs().MQTT, cfg)
	c, _ := handshake(t, conn, "c")
	c.quiet()
	p, _, err := w.ids.Identify(t.Context(), cfg.Certificates[0].Leaf)
	if err != nil {
		t.Fatal(err)
	}
	w.ids.revoked.Store(p.ID, true)
	again := w.dialTLS(t, w.Addrs().MQTT, cfg)
	if _, ack := handshake(t, again, "c"); ack.Code != mqtt.NotAuthorized {
		t.Errorf("CONNACK %v", ack.Code)
	}
}

func TestConnackTellsTheLimits(t *testing.T) {
	w := start(t, limits("aws"))
	_, ack := w.connect(t, "", func(p *mqtt.Connect) {
		p.KeepAlive = 5
		p.Properties.Present = p.Properties.Present.With(mqtt.PropSessionExpiry)
		p.Properties.SessionExpiry = 0xFFFFFFFF
	})
	p := ack.Properties
	if p.AssignedClientID == "" || p.ServerKeepAlive != 30 || p.SessionExpiry != 3600 || p.MaximumQoS != 1 || p.ReceiveMaximum != 100 ||
		p.TopicAliasMaximum != 8 || p.MaximumPacketSize != 149504 || p.SubIDsUsable != 0 || p.SharedAvailable != 1 {
		t.Errorf("%+v", p)
	}
}

func TestTopicAliases(t *testing.T) {
	w := start(t)
	b, _ := w.connect(t, "b", func(p *mqtt.Connect) {
		p.Properties.Present = p.Properties.Present.With(mqtt.PropTopicAliasMaximum)
		p.Properties.TopicAliasMaximum = 2
	})
	b.subscribe(1, "a/+")
	a, _ := w.connect(t, "a")
	a.send(&mqtt.Publish{Topic: []byte("a/1"), TopicAlias: 3, Payload: []byte("1")}, &mqtt.Publish{TopicAlias: 3, Payload: []byte("2")},
		&mqtt.Publish{Topic: []byte("a/2"), Payload: []byte("3")}, &mqtt.Publish{Topic: []byte("a/3"), Payload: []byte("4")}, &mqtt.Publish{TopicAlias: 3, Payload: []byte("5")})
	known := map[uint16]string{}
	for i, want := range []string{"a/1", "a/1", "a/2", "a/3", "a/1"} {
		m := b.message()
		topic := string(m.Topic)
		if topic == "" {
			topic = known[m.TopicAlias]
		} else if m.TopicAlias != 0 {
			known[m.TopicAlias] = topic
		}
		if topic != want || string(m.Payload) != fmt.Sprint(i+1) || m.TopicAlias > 2 {
			t.Errorf("message %d: %s %q alias %d", i, topic, m.Payload, m.TopicAlias)
		}
	}
}

func TestMessageExpiryCountsDown(t *testing.T) {
	clock := newClock()
	w := start(t, func(_ *gateway.Config, d *gateway.Deps) { d.Now = clock.now })
	b, _ := w.connect(t, "b", persistent)
	b.subscribe(1, "e/+")
	b.disconnect()
	a, _ := w.connect(t, "a")
	for topic, seconds := range map[string]uint32{"e/short": 1, "e/long": 100} {
		a.id++
		a.send(&mqtt.Publish{Topic: []byte(topic), QoS: 1, PacketID: a.id, Properties: &mqtt.PublishProperties{MessageExpiry: new(seconds)}})
		next[*mqtt.Ack](a)
	}
	clock.pass(2 * time.Second)
	b, _ = w.connect(t, "b", persistent)
	m := b.message()
	if string(m.Topic) != "e/long" || *m.Properties.MessageExpiry < 97 || *m.Properties.MessageExpiry > 98 { // whole seconds
		t.Errorf("got %s expiring in %v", m.Topic, *m.Properties.MessageExpiry)
	}
	b.quiet()
}

func TestNoLocalAndRetainAsPublished(t *testing.T) {
	w := start(t)
	c, _ := w.connect(t, "c")
	c.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "n", NoLocal: true}, {Filter: "p", RetainAsPublished: true}}})
	next[*mqtt.Suback](c)
	c.publish("n", "mine", 0)
	c.send(&mqtt.Publish{Topic: []byte("p"), Retain: true, Payload: []byte("x")})
	if m := c.message(); string(m.Topic) != "p" || !m.Retain {
		t.Errorf("got %s, retain %v", m.Topic, m.Retain)
	}
	c.quiet()
}

func TestReceiveMaximumOfTheClient(t *testing.T) {
	w := start(t)
	b, _ := w.connect(t, "b", func(p *mqtt.Connect) {
		p.Properties.Present = p.Properties.Present.With(mqtt.PropReceiveMaximum)
		p.Properties.ReceiveMaximum = 2
	})
	b.subscribe(1, "t")
	a, _ := w.connect(t, "a")
	const n = 20
	for i := range n {
		a.publish("t", fmt.Sprint(i), 1)
	}
	first, second := next[*mqtt.Publish](b), next[*mqtt.Publish](b)
	b.quiet()
	b.send(&mqtt.Ack{Type: mqtt.PUBACK, PacketID: second.PacketID}, &mqtt.Ack{Type: mqtt.PUBACK, PacketID: first.PacketID})
	for i := 2; i < n; i++ {
		if got := string(b.message().Payload); got != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, got)
		}
	}
	b.quiet()
}

func TestResumedTLSSession(t *testing.T) {
	w := start(t)
	cfg := w.clientTLS(t)
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for i := range 2 {
		conn := w.dialTLS(t, w.Addrs().MQTT, cfg)
		c, ack := handshake(t, conn, fmt.Sprint("c", i))
		if ack.Code != 0 {
			t.Fatalf("CONNACK %v", ack.Code)
		}
		c.quiet()
		if got := conn.ConnectionState().DidResume; got != (i == 1) {
			t.Errorf("connection %d resumed: %v", i, got)
		}
		c.disconnect()
	}
}
