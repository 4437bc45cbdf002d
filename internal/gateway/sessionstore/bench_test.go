package sessionstore_test

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

func benchStore(b *testing.B, sessions int) (*sessionstore.Store, *store.DB, []int64) {
	b.Helper()
	db := storetest.Open(b)
	s := sessionstore.New(db, sessionstore.Config{Node: "n1"})
	if err := s.Load(context.Background(), func(*sessionstore.Session) error { return nil }); err != nil {
		b.Fatal(err)
	}
	numbers := make([]int64, sessions)
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := g; i < sessions; i += 16 {
				c, err := s.Connect(context.Background(), sessionstore.ConnectRequest{ClientID: fmt.Sprint("c", i), Version: mqtt.V5, ExpirySeconds: hour})
				if err != nil {
					b.Error(err)
					return
				}
				numbers[i] = c.Session.Number
			}
		})
	}
	wg.Wait()
	return s, db, numbers
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// publishAll has b.N messages of 128 bytes each owed to fan of the sessions in turn, with up to
// 512 on their way, and acknowledges each delivery when ack is set.
func publishAll(b *testing.B, s *sessionstore.Store, db *store.DB, numbers []int64, fan int, ack bool) {
	payload := make([]byte, 128)
	way := make(chan struct{}, 512)
	b.ReportAllocs()
	b.ResetTimer()
	began := cpu()
	for i := range b.N {
		targets := make([]sessionstore.Target, fan)
		for k := range targets {
			targets[k].Session = numbers[(i*fan+k)%len(numbers)]
		}
		r, err := s.Reserve(&mqtt.Message{Topic: "bench/topic/of/some/length", Payload: payload, QoS: 1, Received: time.Now()}, 0, targets)
		if err != nil {
			b.Fatal(err)
		}
		way <- struct{}{}
		db.WriteAsync(r.Enqueue, func(err error) {
			if err != nil {
				b.Error(err)
			}
			if ack {
				for _, t := range targets {
					s.Ack(t.Session, r.ID())
				}
			}
			<-way
		})
	}
	for range cap(way) {
		way <- struct{}{}
	}
	if err := s.AckFlush(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N), "cpu-us/op")
}

// A message owed to one of 1,000 connected sessions, and its acknowledgement.
func BenchmarkQueueAndAck(b *testing.B) {
	s, db, numbers := benchStore(b, 1000)
	publishAll(b, s, db, numbers, 1, true)
}

// The same for sessions that are away: queues grow.
func BenchmarkQueueAway(b *testing.B) {
	s, db, numbers := benchStore(b, 1000)
	publishAll(b, s, db, numbers, 1, false)
}

// A message owed to 100 sessions at once, and their acknowledgements.
func BenchmarkQueueFanOut(b *testing.B) {
	s, db, numbers := benchStore(b, 1000)
	publishAll(b, s, db, numbers, 100, true)
}

func BenchmarkConnect(b *testing.B) {
	s, _, _ := benchStore(b, 0)
	b.SetParallelism(100)
	began := cpu()
	var mu sync.Mutex
	n := 0
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			n++
			id := n
			mu.Unlock()
			if _, err := s.Connect(context.Background(), sessionstore.ConnectRequest{ClientID: fmt.Sprint("c", id%20000), Version: mqtt.V5, ExpirySeconds: hour}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N), "cpu-us/op")
}

// Start-up with 100,000 sessions of two subscriptions and one queued message each.
func BenchmarkLoad(b *testing.B) {
	s, db, _ := benchStore(b, 0)
	err := db.Write(context.Background(), func(_ context.Context, tx store.Tx) error {
		for _, q := range []string{
			`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
				INSERT INTO mqtt_session SELECT 'client-' || i, i, 'certificate', 5, 3600, '', 1, 1, 1, NULL, NULL, 0, NULL FROM n`,
			`WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 200001)
				INSERT INTO mqtt_subscription SELECT i / 2, 'device/' || i || '/command', 1, 0 FROM n`,
			`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
				INSERT INTO mqtt_queue SELECT i, i, 0, 0, 300, NULL, zeroblob(236) FROM n`,
		} {
			if _, err := tx.Exec(q); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	began := cpu()
	for b.Loop() {
		n, subs := 0, 0
		if err := s.Load(context.Background(), func(p *sessionstore.Session) error { n++; subs += len(p.Subscriptions); return nil }); err != nil {
			b.Fatal(err)
		}
		if n != 100000 || subs != 200000 {
			b.Fatalf("%d sessions, %d subscriptions", n, subs)
		}
	}
	b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N)/100000, "cpu-us/session")
}
