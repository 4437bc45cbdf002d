package mesh_test

import (
	"syscall"
	"testing"
	"time"

	"flotilla/internal/gateway/mesh"
	"flotilla/internal/mqtt"
)

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A QoS 1 message of 128 bytes from one node to another: both nodes and the NATS
// server share the process, so that cpu-us/op is all that it costs.
func BenchmarkSend(b *testing.B) {
	h := hub(b)
	n := 0
	one := join(b, h.URL(), "n1", mesh.Config{}, mesh.Handlers{})
	join(b, h.URL(), "n2", mesh.Config{}, mesh.Handlers{Deliver: func(*mqtt.Message, []string) []string { n++; return nil }})
	eventually(b, "joined", func() bool { return !one.Alone() })
	p := peer(b, one.Mesh, "n2")
	m := &mqtt.Message{Topic: "fleet/7/device/4711/state", Payload: make([]byte, 128), QoS: 1, Received: time.Now(), Source: mqtt.Source{ClientID: "device4711"}}
	done := make(chan struct{}, 1<<20)
	answer := func(err error) {
		if err != nil {
			b.Error(err)
		}
		done <- struct{}{}
	}
	b.ReportAllocs()
	b.ResetTimer()
	began := cpu()
	for range b.N {
		if err := one.SendWait(b.Context(), p, m, nil, answer); err != nil {
			b.Fatal(err)
		}
	}
	for range b.N {
		<-done
	}
	b.StopTimer()
	b.ReportMetric(float64((cpu()-began).Nanoseconds())/1000/float64(b.N), "cpu-us/op")
	if n != b.N {
		b.Errorf("%d of %d delivered", n, b.N)
	}
}

// The same one at a time: the latency.
func BenchmarkSendAndWait(b *testing.B) {
	h := hub(b)
	one := join(b, h.URL(), "n1", mesh.Config{}, mesh.Handlers{})
	join(b, h.URL(), "n2", mesh.Config{}, mesh.Handlers{})
	eventually(b, "joined", func() bool { return !one.Alone() })
	p := peer(b, one.Mesh, "n2")
	done := make(chan error, 1)
	m := &mqtt.Message{Topic: "t", Payload: make([]byte, 128), QoS: 1}
	began := cpu()
	for b.Loop() {
		if err := one.Send(p, m, nil, func(err error) { done <- err }); err != nil {
			b.Fatal(err)
		}
		<-done
	}
	b.ReportMetric(float64((cpu()-began).Nanoseconds())/1000/float64(b.N), "cpu-us/op")
}
