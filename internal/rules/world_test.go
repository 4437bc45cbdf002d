package rules_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/bus"
	"flotilla/internal/mqtt"
	"flotilla/internal/object"
	"flotilla/internal/rules"
	"flotilla/internal/rules/action"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

const role = "arn:aws:iam::123456789012:role/rules"

// gateway takes what rules republish.
type gateway struct {
	mu       sync.Mutex
	messages []*mqtt.Message
	publish  func(context.Context, *mqtt.Message) error // called first, if set
}

func (g *gateway) Publish(ctx context.Context, m *mqtt.Message) error {
	g.mu.Lock()
	publish := g.publish
	g.mu.Unlock()
	if publish != nil {
		if err := publish(ctx, m); err != nil {
			return err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.messages = append(g.messages, m)
	return nil
}

func (g *gateway) setPublish(fn func(context.Context, *mqtt.Message) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.publish = fn
}

func (g *gateway) all() []*mqtt.Message {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]*mqtt.Message(nil), g.messages...)
}

// world is what an engine stands on.
type world struct {
	db      *store.DB
	bus     *bus.Bus
	out     *gateway
	dir     string
	cfg     rules.Config
	ext     func(*rules.Deps)
	objects action.Objects // nil: files of dir
}

func openBus(t testing.TB, dir, node string) *bus.Bus {
	t.Helper()
	b, err := bus.Open(context.Background(), bus.Config{NATSAddr: "127.0.0.1:0", NodeID: node, Dir: dir, Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func newWorld(t testing.TB, db *store.DB) *world {
	t.Helper()
	dir := t.TempDir()
	return &world{db: db, bus: openBus(t, dir, "n1"), out: &gateway{}, dir: dir, cfg: rules.Config{FirehoseInterval: 50 * time.Millisecond, Drain: 2 * time.Second}}
}

// start starts an engine that stops with the test, if not before.
func (w *world) start(t testing.TB) *rules.Engine {
	t.Helper()
	if w.objects == nil {
		objects, err := object.OpenDirectory(filepath.Join(w.dir, "objects"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = objects.Close() })
		w.objects = objects
	}
	d := rules.Deps{
		Account: aws.Account{ID: "123456789012", Region: "us-east-1"}, DB: w.db, Bus: w.bus, Publisher: w.out,
		Archive: filepath.Join(w.dir, "archive"), Objects: w.objects,
	}
	if w.ext != nil {
		w.ext(&d)
	}
	e, err := rules.New(w.cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, e) })
	return e
}

func stop(t testing.TB, e *rules.Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// each runs fn with a world on every kind of store.
func each(t *testing.T, fn func(t *testing.T, w *world)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) { fn(t, newWorld(t, db)) })
}

// publish does what the gateway does with a message: it returns once what is owed is durable.
func (w *world) publish(e *rules.Engine, topic, payload string) error {
	return w.publishMessage(e, &mqtt.Message{
		Topic: topic, Payload: []byte(payload), QoS: 1, Received: time.Now(),
		Source: mqtt.Source{ClientID: "c1", PrincipalID: "p1", Protocol: "MQTT"},
	})
}

func (w *world) publishMessage(e *rules.Engine, m *mqtt.Message) error {
	owed, err := e.Evaluate(context.Background(), m)
	if err != nil || owed == nil {
		return err
	}
	answer := make(chan error, 1)
	w.db.WriteAsync(owed, func(err error) { answer <- err })
	return <-answer
}

func (w *world) mustPublish(t testing.TB, e *rules.Engine, topic, payload string) {
	t.Helper()
	eventually(t, "a message to be taken", func() bool {
		err := w.publish(e, topic, payload)
		if err != nil && !errors.Is(err, mqtt.ServerBusy) { // a slow machine misses beats of short leases
			t.Fatalf("publish to %s: %v", topic, err)
		}
		return err == nil
	})
}

func payload(sql string, actions ...*iot.Action) *iot.TopicRulePayload {
	return &iot.TopicRulePayload{Sql: sql, AwsIotSqlVersion: new("2016-03-23"), Actions: actions}
}

func create(t testing.TB, e *rules.Engine, name string, p *iot.TopicRulePayload) {
	t.Helper()
	if _, err := e.CreateTopicRule(context.Background(), &iot.CreateTopicRuleRequest{RuleName: name, TopicRulePayload: p}); err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
}

func republish(topic string) *iot.Action {
	return &iot.Action{Republish: &iot.RepublishAction{RoleArn: role, Topic: topic, Qos: new(int32(1))}}
}

func kinesis(stream, key string) *iot.Action {
	return &iot.Action{Kinesis: &iot.KinesisAction{RoleArn: role, StreamName: stream, PartitionKey: &key}}
}

func firehose(stream string) *iot.Action {
	return &iot.Action{Firehose: &iot.FirehoseAction{RoleArn: role, DeliveryStreamName: stream}}
}

func s3(bucket, key string) *iot.Action {
	return &iot.Action{S3: &iot.S3Action{RoleArn: role, BucketName: bucket, Key: key}}
}

// eventually waits for a condition, for at most 20 seconds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if ok() {
		return
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

// streamed gives the messages of a stream once there are n.
func (w *world) streamed(t testing.TB, stream string, n uint64) []*jetstream.RawStreamMsg {
	t.Helper()
	var s jetstream.Stream
	eventually(t, fmt.Sprintf("%d messages in stream %s", n, stream), func() bool {
		var err error
		if s, err = w.bus.JetStream().Stream(context.Background(), stream); err != nil {
			return false
		}
		return s.CachedInfo().State.Msgs >= n
	})
	var out []*jetstream.RawStreamMsg
	for seq := s.CachedInfo().State.FirstSeq; seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(context.Background(), seq)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

// pending counts the rows of the outbox.
func (w *world) pending(t testing.TB) (n int) {
	t.Helper()
	err := w.db.Read(context.Background(), func(_ context.Context, tx store.Tx) error {
		return tx.QueryRow(`SELECT COUNT(*) FROM outbox`).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func decode[T any](t testing.TB, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

func isA[T error](t *testing.T, err error) {
	t.Helper()
	if _, ok := errors.AsType[T](err); !ok {
		var want T
		t.Errorf("%T %v, want %T", err, err, want)
	}
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, p)
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
