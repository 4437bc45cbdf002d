package mqtt_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"flotilla/internal/mqtt"
)

func props(set func(*mqtt.Properties), ids ...mqtt.PropertyID) mqtt.Properties {
	p := mqtt.Properties{Present: mqtt.PropertySet(0).With(ids...)}
	set(&p)
	return p
}

func samples() []mqtt.Packet {
	user := []mqtt.UserProperty{{Key: "k", Value: "v"}, {Key: "k", Value: ""}}
	return []mqtt.Packet{
		&mqtt.Connect{Version: mqtt.V311, CleanStart: true, KeepAlive: 60, ClientID: "c1"},
		&mqtt.Connect{
			Version: mqtt.V5, KeepAlive: 1, ClientID: "ü", HasUsername: true, Username: "u", HasPassword: true, Password: []byte{0, 1},
			Will: &mqtt.Will{
				Topic: "w", Payload: []byte("gone"), QoS: 1, Retain: true,
				Properties: mqtt.WillProperties(&mqtt.PublishProperties{ContentType: "x", UserProperties: user}, 5),
			},
			Properties: props(func(p *mqtt.Properties) { p.SessionExpiry, p.ReceiveMaximum, p.UserProperties = 10, 20, user },
				mqtt.PropSessionExpiry, mqtt.PropReceiveMaximum, mqtt.PropUserProperty),
		},
		&mqtt.Connack{SessionPresent: true},
		&mqtt.Connack{Code: mqtt.NotAuthorized},
		&mqtt.Publish{Topic: []byte("a/b"), Payload: []byte("x")},
		&mqtt.Publish{Topic: []byte("a/b"), Payload: bytes.Repeat([]byte("x"), 300), QoS: 1, PacketID: 7, Dup: true, Retain: true},
		&mqtt.Ack{Type: mqtt.PUBACK, PacketID: 1},
		&mqtt.Ack{Type: mqtt.PUBREL, PacketID: 1},
		&mqtt.Subscribe{PacketID: 2, Subscriptions: []mqtt.Subscription{{Filter: "a/#", QoS: 1}, {Filter: "b"}}},
		&mqtt.Suback{PacketID: 2, Codes: []mqtt.ReasonCode{1, 0x80}},
		&mqtt.Unsubscribe{PacketID: 3, Filters: []string{"a", "b"}},
		&mqtt.Unsuback{PacketID: 3},
		mqtt.Pingreq{},
		mqtt.Pingresp{},
		&mqtt.Disconnect{},
	}
}

func samples5() []mqtt.Packet {
	user := []mqtt.UserProperty{{Key: "k", Value: strings.Repeat("v", 200)}}
	return []mqtt.Packet{
		&mqtt.Connack{Properties: props(func(p *mqtt.Properties) {
			p.MaximumQoS, p.ReceiveMaximum, p.TopicAliasMaximum, p.AssignedClientID, p.RetainAvailable = 1, 100, 8, "id", 1
			p.SessionExpiry, p.ServerKeepAlive, p.ReasonString, p.MaximumPacketSize = 9, 30, "r", 1000
			p.AuthMethod, p.AuthData, p.ResponseInformation, p.ServerReference, p.SharedAvailable, p.WildcardAvailable = "m", []byte{1}, "i", "s", 1, 1
		}, mqtt.PropMaximumQoS, mqtt.PropReceiveMaximum, mqtt.PropTopicAliasMaximum, mqtt.PropAssignedClientID, mqtt.PropRetainAvailable,
			mqtt.PropSessionExpiry, mqtt.PropServerKeepAlive, mqtt.PropReasonString, mqtt.PropMaximumPacketSize, mqtt.PropSubscriptionIDsUsable,
			mqtt.PropAuthMethod, mqtt.PropAuthData, mqtt.PropResponseInformation, mqtt.PropServerReference, mqtt.PropSharedAvailable, mqtt.PropWildcardAvailable)},
		&mqtt.Publish{
			Topic: []byte{}, TopicAlias: 3, Payload: []byte("{}"), SubscriptionIDs: []uint32{1, 200},
			Properties: &mqtt.PublishProperties{
				PayloadFormat: new(byte(1)), MessageExpiry: new(uint32(0)), ContentType: "application/json",
				ResponseTopic: "r", CorrelationData: []byte("id"), UserProperties: user,
			},
		},
		&mqtt.Ack{Type: mqtt.PUBACK, PacketID: 1, Code: mqtt.NotAuthorized},
		&mqtt.Ack{Type: mqtt.PUBACK, PacketID: 1, Properties: props(func(p *mqtt.Properties) { p.ReasonString = "why" }, mqtt.PropReasonString)},
		&mqtt.Subscribe{PacketID: 2, Subscriptions: []mqtt.Subscription{{Filter: "a", NoLocal: true, RetainAsPublished: true, RetainHandling: 2}}},
		&mqtt.Unsuback{PacketID: 3, Codes: []mqtt.ReasonCode{0, 0x11}},
		&mqtt.Disconnect{Code: mqtt.SessionTakenOver},
		&mqtt.Disconnect{Code: mqtt.QuotaExceeded, Properties: props(func(p *mqtt.Properties) { p.ReasonString = "why" }, mqtt.PropReasonString)},
		&mqtt.Auth{Code: mqtt.ReAuthenticate},
	}
}

func TestRoundTrip(t *testing.T) {
	check := func(v mqtt.Version, p mqtt.Packet) {
		b := p.Append(nil, v)
		h, body, n, err := mqtt.Next(b, 1<<20)
		if err != nil || n != len(b) {
			t.Fatalf("%#v: Next %d of %d, %v", p, n, len(b), err)
		}
		got, err := mqtt.Decode(v, h, body)
		if err != nil {
			t.Fatalf("%#v: %v", p, err)
		}
		if d := cmp.Diff(p, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%T: %s", p, d)
		}
		for i := range b {
			if _, _, n, err := mqtt.Next(b[:i], 1<<20); n != 0 || err != nil {
				t.Fatalf("%T: %d of %d bytes: %d, %v", p, i, len(b), n, err)
			}
		}
	}
	for _, p := range samples() {
		if c, ok := p.(*mqtt.Connect); ok {
			check(c.Version, p)
			continue
		}
		check(mqtt.V311, p)
		if _, ok := p.(*mqtt.Unsuback); !ok {
			check(mqtt.V5, p)
		}
	}
	for _, p := range samples5() {
		check(mqtt.V5, p)
	}
}

func TestMalformed(t *testing.T) {
	for _, c := range []struct {
		name, hex string
		v         mqtt.Version
		code      mqtt.ReasonCode
	}{
		{"MQTT_1_5_5_1 overlong", "c08000", 5, mqtt.MalformedPacket},
		{"five length bytes", "10ffffffff7f", 4, mqtt.MalformedPacket},
		{"type 0", "0000", 4, mqtt.MalformedPacket},
		{"MQTT_3_8_1_1", "8006000100016100", 4, mqtt.MalformedPacket},
		{"MQTT_3_3_1_4", "3606000161000178", 4, mqtt.MalformedPacket},
		{"MQTT_3_3_2_2", "300400012378", 4, mqtt.TopicNameInvalid},
		{"MQTT_2_2_1_3", "3206000161000078", 4, mqtt.ProtocolError},
		{"alias 0", "30080001610323000078", 5, mqtt.TopicAliasInvalid},
		{"alias twice", "300b0001610623000123000178", 5, mqtt.ProtocolError},
		{"MQTT_3_8_3_4", "8210000100000a2473686172652f672f6104", 5, mqtt.ProtocolError},
		{"MQTT_3_1_2_3", "100e00044d5154540403003c00026331", 4, mqtt.MalformedPacket},
		{"MQTT_3_1_2_1", "100e00044d5154580402003c00026331", 4, mqtt.UnsupportedProtocolVersion},
		{"DISCONNECT code", "e00103", 5, mqtt.ProtocolError},
		{"too large", "30ffffff7f", 4, mqtt.PacketTooLarge},
		{"surrogate", "30070003eda08078", 4, mqtt.MalformedPacket},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := hex.DecodeString(c.hex)
			if err != nil {
				t.Fatal(err)
			}
			h, body, _, err := mqtt.Next(b, 1000)
			if err == nil {
				_, err = mqtt.Decode(c.v, h, body)
			}
			var code mqtt.ReasonCode
			if !errors.As(err, &code) || code != c.code {
				t.Errorf("%v, want %v", err, c.code)
			}
		})
	}
}

func TestPropertiesOfMessages(t *testing.T) {
	want := &mqtt.PublishProperties{ContentType: "t", MessageExpiry: new(uint32(3)), UserProperties: []mqtt.UserProperty{{Key: "a", Value: strings.Repeat("b", 300)}}}
	got, err := mqtt.ParsePublishProperties(want.AppendProperties(nil))
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(err, d)
	}
	var none *mqtt.PublishProperties
	if got, err := mqtt.ParsePublishProperties(none.AppendProperties(nil)); got != nil || err != nil {
		t.Error(got, err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, p := range samples() {
		f.Add(p.Append(nil, mqtt.V311), false)
	}
	for _, p := range samples5() {
		f.Add(p.Append(nil, mqtt.V5), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, five bool) {
		v := mqtt.V311
		if five {
			v = mqtt.V5
		}
		h, body, n, err := mqtt.Next(b, 1<<16)
		if n == 0 {
			return
		}
		if err != nil || n > len(b) {
			t.Fatal(n, err)
		}
		p, err := mqtt.Decode(v, h, body)
		if err != nil {
			var e *mqtt.Error
			if !errors.As(err, &e) || !e.Code.Failed() {
				t.Fatalf("not a typed error: %v", err)
			}
			return
		}
		if c, ok := p.(*mqtt.Connect); ok {
			v = c.Version
		}
		again := p.Append(nil, v)
		h2, body2, n2, err := mqtt.Next(again, 1<<18)
		if err != nil || n2 != len(again) {
			t.Fatalf("%#v: encoded as %x: %v", p, again, err)
		}
		q, err := mqtt.Decode(v, h2, body2)
		if err != nil {
			t.Fatalf("%#v: encoded as %x: %v", p, again, err)
		}
		if d := cmp.Diff(p, q, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
}

func BenchmarkPublishParse(b *testing.B) {
	in := mqtt.AppendPublish(nil, mqtt.V5, 0x30, "dt/site/a/temperature", 0, make([]byte, 128))
	var p mqtt.Publish
	b.ReportAllocs()
	for b.Loop() {
		h, body, _, err := mqtt.Next(in, 1<<17)
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Parse(mqtt.V5, h.Flags, body); err != nil {
			b.Fatal(err)
		}
	}
}

func TestPublishParseDoesNotAllocate(t *testing.T) {
	in := mqtt.AppendPublish(nil, mqtt.V5, 0x32, "dt/site/a/temperature", 9, make([]byte, 128))
	out := make([]byte, 0, 256)
	var p mqtt.Publish
	n := testing.AllocsPerRun(100, func() {
		h, body, _, _ := mqtt.Next(in, 1<<17)
		if p.Parse(mqtt.V5, h.Flags, body) != nil {
			t.Fatal("parse")
		}
		out = mqtt.AppendPublish(out[:0], mqtt.V5, 0x30, p.Topic, 0, p.Payload)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
