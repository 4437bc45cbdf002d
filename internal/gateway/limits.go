package gateway

import (
	"fmt"
	"math"
	"time"
)

// Limits are what the gateway holds connections to. Zero means no limit, but for the
// sizes, which are always there.
//
//	limit                      aws      default  unlimited  a breach is answered by
//	PayloadBytes               128 KiB  128 KiB  1 MiB      v5 DISCONNECT 0x95; 3.1.1 close
//	ClientIDBytes              128      128      1024       CONNACK 0x85 / 2
//	FiltersPerSubscribe        8        8        1024       SUBACK 0x97 (0x80) for all of them
//	Subscriptions a connection 50       1000     -          SUBACK 0x97 (0x80)
//	PublishPerSecond in        100      -        -          discarded; QoS 1: v5 PUBACK 0x97, 3.1.1 none
//	ReceiveMaximum (inbound)   100      1024     65535      v5 DISCONNECT 0x93; 3.1.1: not read further
//	MaxInflight (outbound)     100      1024     65535      waits in queue or connection
//	ConnectInterval per client 1 s      -        -          CONNACK 0x97 / 3
//	TopicAliasMaximum          8        8        8          v5 DISCONNECT 0x94
//	KeepAlive                  30-1200 s, 0 is 1200 s      v5 Server Keep Alive tells
//	UserPropertyBytes          8 KiB    8 KiB    64 KiB     v5 PUBACK or DISCONNECT 0x97
//	WebSocketDuration          24 h     -        -          v5 DISCONNECT 0xA0; 3.1.1 close
//	MessageExpiry              1-604,800 s                  brought into the range
//
// Topics and filters have at most 256 bytes and 7 slashes in each profile: package mqtt.
//
// AWS: https://docs.aws.amazon.com/general/latest/gr/iot-core.html
type Limits struct {
	PayloadBytes        int
	ClientIDBytes       int
	FiltersPerSubscribe int
	Subscriptions       int
	PublishPerSecond    int
	ReceiveMaximum      int
	MaxInflight         int
	ConnectInterval     time.Duration
	TopicAliasMaximum   int
	UserPropertyBytes   int
	WebSocketDuration   time.Duration
}

const (
	minKeepAlive     = 30
	maxKeepAlive     = 1200
	maxMessageExpiry = 604_800

	// headroom is what a packet may have beside payload and user properties; with it the
	// aws profile arrives at the 149,504 bytes that AWS announces.
	headroom = 10 << 10
)

// LimitSettings replace single limits of the profile; zero keeps it, -1 lifts a limit that
// may be lifted.
type LimitSettings struct {
	PayloadBytes        int           `name:"gateway.max-payload-bytes" help:"Largest payload of a message in bytes; 0 is what the limits profile says, here as below."`
	ClientIDBytes       int           `name:"gateway.max-client-id-bytes" help:"Longest client id in bytes."`
	FiltersPerSubscribe int           `name:"gateway.max-filters-per-subscribe" help:"Most filters in a SUBSCRIBE."`
	Subscriptions       int           `name:"gateway.max-subscriptions" help:"Most subscriptions of a connection; -1 is no limit."`
	PublishPerSecond    int           `name:"gateway.max-publish-per-second" help:"Most messages that a connection publishes in a second; -1 is no limit."`
	ReceiveMaximum      int           `name:"gateway.receive-maximum" help:"Most unacknowledged QoS 1 messages from a client, up to 65535."`
	MaxInflight         int           `name:"gateway.max-inflight" help:"Most unacknowledged QoS 1 messages to a client, up to 65535."`
	ConnectInterval     time.Duration `name:"gateway.connect-interval" help:"Least time between two CONNECTs of a client id."`
	TopicAliasMaximum   int           `name:"gateway.topic-alias-maximum" help:"Most topic aliases of a connection in each direction; -1 is none."`
	UserPropertyBytes   int           `name:"gateway.max-user-property-bytes" help:"Most bytes of user properties of a packet."`
	WebSocketDuration   time.Duration `name:"gateway.max-websocket-duration" help:"Longest life of a WebSocket connection."`
}

// apply replaces the limits that are set.
func (o *LimitSettings) apply(l *Limits) {
	for _, f := range []struct {
		set int
		at  *int
		max int
	}{
		{o.PayloadBytes, &l.PayloadBytes, 64 << 20},
		{o.ClientIDBytes, &l.ClientIDBytes, 65535},
		{o.FiltersPerSubscribe, &l.FiltersPerSubscribe, 1024},
		{o.Subscriptions, &l.Subscriptions, math.MaxInt},
		{o.PublishPerSecond, &l.PublishPerSecond, math.MaxInt},
		{o.ReceiveMaximum, &l.ReceiveMaximum, 65535},
		{o.MaxInflight, &l.MaxInflight, 65535},
		{o.TopicAliasMaximum, &l.TopicAliasMaximum, 65535},
		{o.UserPropertyBytes, &l.UserPropertyBytes, 16 << 20},
	} {
		switch lifts := f.at == &l.Subscriptions || f.at == &l.PublishPerSecond || f.at == &l.TopicAliasMaximum; {
		case f.set > 0:
			*f.at = min(f.set, f.max)
		case f.set < 0 && lifts:
			*f.at = 0
		}
	}
	if o.ConnectInterval > 0 {
		l.ConnectInterval = o.ConnectInterval
	}
	if o.WebSocketDuration > 0 {
		l.WebSocketDuration = o.WebSocketDuration
	}
}

// profile gives the limits of that name; "" is default.
func profile(name string) (Limits, error) {
	switch name {
	case "aws":
		return Limits{
			PayloadBytes: 128 << 10, ClientIDBytes: 128, FiltersPerSubscribe: 8, Subscriptions: 50, PublishPerSecond: 100,
			ReceiveMaximum: 100, MaxInflight: 100, ConnectInterval: time.Second, TopicAliasMaximum: 8, WebSocketDuration: 24 * time.Hour,
			UserPropertyBytes: 8 << 10,
		}, nil
	case "", "default":
		return Limits{
			PayloadBytes: 128 << 10, ClientIDBytes: 128, FiltersPerSubscribe: 8, Subscriptions: 1000,
			ReceiveMaximum: 1024, MaxInflight: 1024, TopicAliasMaximum: 8,
			UserPropertyBytes: 8 << 10,
		}, nil
	case "unlimited":
		return Limits{
			PayloadBytes: 1 << 20, ClientIDBytes: 1024, FiltersPerSubscribe: 1024,
			ReceiveMaximum: 65535, MaxInflight: 65535, TopicAliasMaximum: 8,
			UserPropertyBytes: 64 << 10,
		}, nil
	}
	return Limits{}, fmt.Errorf("gateway: limits %q: not aws, default or unlimited", name)
}

// maxPacket is the largest packet that is read.
func (l *Limits) maxPacket() int { return l.PayloadBytes + l.UserPropertyBytes + headroom }
