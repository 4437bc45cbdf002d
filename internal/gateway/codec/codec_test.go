package codec_test

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/gateway/codec"
	"flotilla/internal/mqtt"
)

var messages = map[string]*mqtt.Message{
	"least": {Topic: "t"},
	"usual": {Topic: "a/b", Payload: []byte("x"), QoS: 1, Received: time.UnixMilli(1_700_000_000_001)},
	"all": {
		Topic: "a/ä", Payload: []byte{0, 1, 255}, QoS: 1, Retain: true, Received: time.UnixMilli(1),
		Properties: &mqtt.PublishProperties{
			PayloadFormat: new(byte(1)), MessageExpiry: new(uint32(0)), ContentType: "c", ResponseTopic: "r", CorrelationData: []byte{1},
			UserProperties: []mqtt.UserProperty{{Key: "k", Value: strings.Repeat("v", 300)}, {}},
		},
		Source:    mqtt.Source{ClientID: "c", PrincipalID: "p", PrincipalType: "user", Protocol: "WebSocket", Address: netip.MustParseAddr("192.0.2.1")},
		Recipient: "only",
	},
	"certificate": {Topic: "t", Source: mqtt.Source{ClientID: "c", PrincipalID: "p", PrincipalType: "certificate"}},
	"six":         {Topic: "t", Source: mqtt.Source{ClientID: "c", Protocol: "other", Address: netip.MustParseAddr("2001:db8::1")}},
}

var equal = cmp.Options{
	cmp.Comparer(func(a, b mqtt.Source) bool { return a == b }),
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
}

func TestRoundTrip(t *testing.T) {
	for name, want := range messages {
		b := codec.Append([]byte("before"), want)
		got, err := codec.Parse(b[len("before"):])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, got, equal); diff != "" {
			t.Errorf("%s\n%s", name, diff)
		}
		stored, err := codec.Parse(codec.AppendWithoutSource(nil, want))
		if err != nil || stored.Source != (mqtt.Source{}) || stored.Topic != want.Topic || !bytes.Equal(stored.Payload, want.Payload) {
			t.Errorf("%s without source: %+v, %v", name, stored, err)
		}
		payload := len(b) - len(want.Payload)
		for n := len("before"); n < payload; n++ {
			if m, err := codec.Parse(b[len("before"):n]); err == nil {
				t.Errorf("%s: cut to %d bytes gives %+v", name, n, m)
				break
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, m := range messages {
		f.Add(codec.Append(nil, m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := codec.Parse(b)
		if err != nil {
			return
		}
		again, err := codec.Parse(codec.Append(nil, m))
		if err != nil {
			t.Fatalf("%+v can not be parsed again: %v", m, err)
		}
		if diff := cmp.Diff(m, again, equal); diff != "" {
			t.Error(diff)
		}
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	m := messages["usual"]
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = codec.Append(buf[:0], m)
		if _, err := codec.Parse(buf); err != nil {
			b.Fatal(err)
		}
	}
}
