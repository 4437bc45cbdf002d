package gateway

import (
	"fmt"
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
//	QueuedMessages a session   -        100,000  1,000,000  the newest is not queued for it
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
	QueuedMessages      int
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

// profile gives the limits of that name; "" is default.
func profile(name string) (Limits, error) {
	switch name {
	case "aws":
		return Limits{
			PayloadBytes: 128 << 10, ClientIDBytes: 128, FiltersPerSubscribe: 8, Subscriptions: 50, PublishPerSecond: 100,
			ReceiveMaximum: 100, MaxInflight: 100, ConnectInterval: time.Second, TopicAliasMaximum: 8, WebSocketDuration: 24 * time.Hour,
			UserPropertyBytes: 8 << 10, QueuedMessages: 100_000,
		}, nil
	case "", "default":
		return Limits{
			PayloadBytes: 128 << 10, ClientIDBytes: 128, FiltersPerSubscribe: 8, Subscriptions: 1000,
			ReceiveMaximum: 1024, MaxInflight: 1024, TopicAliasMaximum: 8,
			UserPropertyBytes: 8 << 10, QueuedMessages: 100_000,
		}, nil
	case "unlimited":
		return Limits{
			PayloadBytes: 1 << 20, ClientIDBytes: 1024, FiltersPerSubscribe: 1024,
			ReceiveMaximum: 65535, MaxInflight: 65535, TopicAliasMaximum: 8,
			UserPropertyBytes: 64 << 10, QueuedMessages: 1_000_000,
		}, nil
	}
	return Limits{}, fmt.Errorf("gateway: limits %q: not aws, default or unlimited", name)
}

// maxPacket is the largest packet that is read.
func (l *Limits) maxPacket() int { return l.PayloadBytes + l.UserPropertyBytes + headroom }
