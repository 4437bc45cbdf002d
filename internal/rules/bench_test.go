package rules_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flotilla/internal/mqtt"
)

const benchSQL = "SELECT *, topic(2) AS site FROM 'in/+' WHERE value > 10"

func benchMessage() *mqtt.Message {
	return &mqtt.Message{
		Topic: "in/berlin", QoS: 1, Received: time.Now(), Source: mqtt.Source{ClientID: "c1", PrincipalID: "p1", Protocol: "MQTT"},
		Payload: []byte(`{"value":42,"text":"` + strings.Repeat("x", 230) + `"}`),
	}
}

// BenchmarkEvaluate is the work for a message before its write.
func BenchmarkEvaluate(b *testing.B) {
	for _, rules := range []int{1, 1000} {
		b.Run(fmt.Sprintf("rules=%d", rules), func(b *testing.B) {
			w := newWorld(b, openDB(b))
			e := w.start(b)
			create(b, e, "r", payload(benchSQL, kinesis("s", "${topic(2)}")))
			for i := 1; i < rules; i++ {
				create(b, e, fmt.Sprintf("r%d", i), payload(fmt.Sprintf("SELECT * FROM 'other/%d/+'", i), kinesis("s", "k")))
			}
			m := benchMessage()
			b.ReportAllocs()
			for b.Loop() {
				if owed, err := e.Evaluate(context.Background(), m); err != nil || owed == nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkToStream is the whole way from a message to its stream, acknowledged,
// with as many messages in flight as a few busy connections have.
func BenchmarkToStream(b *testing.B) {
	w := newWorld(b, openDB(b))
	e := w.start(b)
	create(b, e, "r", payload(benchSQL, kinesis("s", "${topic(2)}")))
	m := benchMessage()
	flight := make(chan struct{}, 1024)
	var failed atomic.Pointer[error]
	b.ReportAllocs()
	start := time.Now()
	for b.Loop() {
		owed, err := e.Evaluate(context.Background(), m)
		if err != nil {
			b.Fatal(err)
		}
		flight <- struct{}{}
		w.db.WriteAsync(owed, func(err error) {
			if err != nil {
				failed.Store(&err)
			}
			<-flight
		})
	}
	stored := time.Since(start)
	eventually(b, "the outbox to be empty", func() bool { return e.Status()[0].Rows == 0 })
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
	b.ReportMetric(float64(b.N)/stored.Seconds(), "acknowledged/s")
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "streamed/s")
}

// BenchmarkLatency is the time from a message to a consumer of its stream, its own
// commit included, while nothing else goes on.
func BenchmarkLatency(b *testing.B) {
	w := newWorld(b, openDB(b))
	e := w.start(b)
	create(b, e, "r", payload(benchSQL, kinesis("s", "${topic(2)}")))
	got, err := w.bus.Conn().SubscribeSync("kinesis.s.>")
	if err != nil {
		b.Fatal(err)
	}
	m := benchMessage()
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := w.publishMessage(e, m); err != nil {
			b.Fatal(err)
		}
		if _, err := got.NextMsg(10 * time.Second); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}
