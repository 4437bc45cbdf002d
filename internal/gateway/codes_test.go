package gateway_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"flotilla/internal/aws/iotdata"
	"flotilla/internal/gateway"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// TestDisconnectCodes provokes what ends a connection with a DISCONNECT. Of AWS's codes 0x8D, 0x93 and that of a
// stopped subscriber have tests of their own; a filter that is not valid (0x8F) is answered by the SUBACK.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/mqtt.html#mqtt5-reason-codes
func TestDisconnectCodes(t *testing.T) {
	raw := func(b ...byte) func(*world, *client) { return func(_ *world, c *client) { _, _ = c.conn.Write(b) } }
	packet := func(p mqtt.Packet) func(*world, *client) { return func(_ *world, c *client) { c.send(p) } }
	for name, test := range map[string]struct {
		provoke func(*world, *client)
		code    mqtt.ReasonCode
		reason  string // of the lifecycle event
	}{
		"reserved packet type":        {raw(0x00, 0), mqtt.MalformedPacket, "CLIENT_ERROR"},
		"bad flags":                   {raw(0xC1, 0), mqtt.MalformedPacket, "CLIENT_ERROR"},
		"length without end":          {raw(0x30, 0xFF, 0xFF, 0xFF, 0xFF), mqtt.MalformedPacket, "CLIENT_ERROR"},
		"second CONNECT":              {packet(&mqtt.Connect{Version: mqtt.V5, ClientID: "c", CleanStart: true}), mqtt.ProtocolError, "CLIENT_ERROR"},
		"SUBACK from a client":        {packet(&mqtt.Suback{PacketID: 1, Codes: []mqtt.ReasonCode{0}}), mqtt.ProtocolError, "CLIENT_ERROR"},
		"alias that was never set":    {packet(&mqtt.Publish{TopicAlias: 3}), mqtt.ProtocolError, "CLIENT_ERROR"},
		"alias above the maximum":     {packet(&mqtt.Publish{Topic: []byte("t"), TopicAlias: 9}), mqtt.TopicAliasInvalid, "CLIENT_ERROR"},
		"publish that is not allowed": {packet(&mqtt.Publish{Topic: []byte("forbidden")}), mqtt.NotAuthorized, "FORBIDDEN_ACCESS"},
		"topic with a wildcard":       {packet(&mqtt.Publish{Topic: []byte("t/+")}), mqtt.TopicNameInvalid, "CLIENT_ERROR"},
		"QoS 2":                       {packet(&mqtt.Publish{Topic: []byte("t"), QoS: 2, PacketID: 1}), mqtt.QoSNotSupported, "CLIENT_ERROR"},
		"payload that is too large":   {packet(&mqtt.Publish{Topic: []byte("t"), Payload: make([]byte, 128<<10+1)}), mqtt.PacketTooLarge, "CLIENT_ERROR"},
		"user properties, too many":   {packet(&mqtt.Publish{Topic: []byte("t"), Properties: &mqtt.PublishProperties{UserProperties: []mqtt.UserProperty{{Key: "k", Value: strings.Repeat("v", 8<<10)}}}}), mqtt.QuotaExceeded, "CLIENT_ERROR"},
		"subscription identifier":     {raw(0x82, 9, 0, 1, 2, 0x0B, 7, 0, 1, 't', 0), mqtt.SubscriptionIDsNotSupported, "CLIENT_ERROR"},
		"AUTH":                        {raw(0xF0, 0), mqtt.ProtocolError, "CLIENT_ERROR"},
		"PUBREL":                      {raw(0x62, 2, 0, 1), mqtt.ProtocolError, "CLIENT_ERROR"},
		"taken over":                  {func(w *world, c *client) { w.connect(c.t, "c") }, mqtt.SessionTakenOver, "DUPLICATE_CLIENTID"},
		"connect is no longer allowed": {func(w *world, c *client) {
			w.rules.allow(c.t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Subscribe","Resource":"*"}]}`)
			w.KeysChanged()
		}, mqtt.NotAuthorized, ""},
		"DeleteConnection": {func(w *world, c *client) {
			if _, err := w.DataPlane().DeleteConnection(context.Background(), &iotdata.DeleteConnectionRequest{ClientId: "c"}); err != nil {
				c.t.Error(err)
			}
		}, mqtt.AdministrativeAction, "API_INITIATED_DISCONNECT"},
		"stop of the server": {func(w *world, _ *client) {
			go func() { _ = w.Close(context.Background()) }()
		}, mqtt.ServerShuttingDown, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t)
			w.rules.allow(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"},
				{"Effect":"Deny","Action":"iot:Publish","Resource":"*/forbidden"}]}`)
			events, _ := w.connect(t, "events")
			events.subscribe(1, "$aws/events/presence/disconnected/c")
			c, _ := w.connect(t, "c")
			test.provoke(w, c)
			if d := c.gone(); d == nil || d.Code != test.code {
				t.Errorf("DISCONNECT %+v, want %v", d, test.code)
			}
			if test.reason == "" {
				return // the listener's connection ends as well
			}
			if got := string(events.message().Payload); !strings.Contains(got, `"disconnectReason":"`+test.reason+`"`) {
				t.Errorf("event %s, want %s", got, test.reason)
			}
		})
	}
}

// A client that has more unacknowledged messages under way than CONNACK allowed is ended: here nothing is
// acknowledged, for the store does not answer. With 3.1.1, which cannot say so, it is not read any further.
func TestReceiveMaximumExceeded(t *testing.T) {
	const most = 16
	w := start(t, func(c *gateway.Config, _ *gateway.Deps) { c.Limit.ReceiveMaximum = most })
	absent, _ := w.connect(t, "absent", persistent)
	absent.subscribe(1, "t")
	absent.disconnect()
	c, ack := w.connect(t, "c")
	if ack.Properties.ReceiveMaximum != most {
		t.Fatalf("CONNACK %+v", ack)
	}
	old, _ := w.connect(t, "old", v311)
	busy, release := make(chan struct{}), make(chan struct{})
	go func() {
		_ = w.db.Write(context.Background(), func(context.Context, store.Tx) error { close(busy); <-release; return nil })
	}()
	<-busy
	publish := func(c *client, n int) {
		var b []byte
		for i := range n {
			b = (&mqtt.Publish{Topic: []byte("t"), QoS: 1, PacketID: uint16(i + 1), Payload: bytes.Repeat([]byte("x"), 100)}).Append(b, c.v)
		}
		if _, err := c.conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	publish(c, most)
	c.quiet() // as many as it may
	publish(c, most+1)
	if d := c.gone(); d == nil || d.Code != mqtt.ReceiveMaximumExceeded {
		t.Errorf("DISCONNECT %+v", d)
	}
	publish(old, 10*most)
	close(release)
	for i := range 10 * most {
		if got := next[*mqtt.Ack](old); int(got.PacketID) != i+1 {
			t.Fatalf("PUBACK %d is for %d", i+1, got.PacketID)
		}
	}
}

// A connection does not outlast its certificate.
func TestCertificateExpiresWhileConnected(t *testing.T) {
	clock := newClock()
	w := start(t, func(_ *gateway.Config, d *gateway.Deps) { d.Now = clock.now })
	long := func(p *mqtt.Connect) { p.KeepAlive = 1200 }
	events, _ := w.connect(t, "events", long)
	events.subscribe(1, "$aws/events/presence/disconnected/+")
	c, _ := w.as(t, certificate(t, "device"), "c", long) // for an hour
	for range 2 {
		clock.pass(29 * time.Minute)
		c.quiet()
		events.quiet()
	}
	clock.pass(3 * time.Minute)
	if d := c.gone(); d == nil || d.Code != mqtt.NotAuthorized {
		t.Errorf("DISCONNECT %+v", d)
	}
	if got := string(events.message().Payload); !strings.Contains(got, `"disconnectReason":"AUTH_ERROR"`) {
		t.Errorf("event %s", got)
	}
	eventually(t, "a denial", func() bool {
		d := w.Denials("c")
		return len(d) == 1 && strings.Contains(d[0].Reason, "expired")
	})
}
