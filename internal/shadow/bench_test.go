package shadow_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"flotilla/internal/mqtt"
	"flotilla/internal/shadow"
	"flotilla/internal/store/storetest"
)

// Durable updates of a thousand shadows by many clients at once.
func BenchmarkDurableUpdates(b *testing.B) {
	s := shadow.New(storetest.Open(b), things{"t": true}, drop{}, shadow.Config{})
	var n atomic.Int64
	b.SetParallelism(100)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			err := s.ServeMQTT(context.Background(), &mqtt.Message{
				Topic:   fmt.Sprintf("$aws/things/t/shadow/name/s%d/update", i%1000),
				Payload: fmt.Appendf(nil, `{"state":{"desired":{"interval":60},"reported":{"interval":60,"temperature":%d,"battery":{"volt":3.7,"percent":81}}}}`, i),
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

// drop is a Publisher without subscribers.
type drop struct{}

func (drop) Publish(context.Context, *mqtt.Message) error { return nil }

func (drop) Awaited(string) bool { return false }

func (drop) Withdraw(context.Context, string, int64) error { return nil }
