package rules_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/object"
	"flotilla/internal/telemetry"
)

// failures gives the messages of failed actions that were republished to err.
func failures(t *testing.T, w *world) (out []string) {
	t.Helper()
	for _, m := range w.out.all() {
		if m.Topic == "err" {
			got := decode[struct {
				Failures []struct{ ErrorMessage string }
			}](t, m.Payload)
			out = append(out, got.Failures[0].ErrorMessage)
		}
	}
	return out
}

// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/republish-rule-action.html
func TestRepublishHeaders(t *testing.T) {
	w := newWorld(t, openDB(t))
	e := w.start(t)
	a := republish("$$aws/things/${topic(2)}/shadow/update")
	a.Republish.Headers = &iot.MqttHeaders{
		PayloadFormatIndicator: new("UTF8_DATA"), ContentType: new("application/${kind}"), ResponseTopic: new("back/${topic(2)}"),
		CorrelationData: new("${encode(kind, 'base64')}"), MessageExpiry: new("${expiry}"),
		UserProperties: []*iot.UserProperty{{Key: "k1", Value: "${kind}"}, {Key: "k1", Value: "v2"}},
	}
	p := payload("SELECT state FROM 'in/+'", a)
	p.ErrorAction = republish("err")
	create(t, e, "r", p)
	w.mustPublish(t, e, "in/lamp", `{"state":{},"kind":"json","expiry":60}`)
	w.mustPublish(t, e, "in/lamp", `{"state":{},"kind":"json","expiry":"soon"}`)
	eventually(t, "both messages", func() bool { return len(w.out.all()) == 2 })
	m := w.out.all()[0]
	want := &mqtt.PublishProperties{
		PayloadFormat: new(byte(1)), ContentType: "application/json", ResponseTopic: "back/lamp", CorrelationData: []byte("json"),
		MessageExpiry: new(uint32(60)), UserProperties: []mqtt.UserProperty{{Key: "k1", Value: "json"}, {Key: "k1", Value: "v2"}},
	}
	if diff := cmp.Diff(want, m.Properties); diff != "" || m.Topic != "$aws/things/lamp/shadow/update" {
		t.Errorf("%s %s", m.Topic, diff)
	}
	if got := failures(t, w); len(got) != 1 || !strings.Contains(got[0], "headers.messageExpiry") {
		t.Errorf("failures %q", got)
	}
}

// Names of streams and partition keys become one token of a subject each.
func TestStreamNames(t *testing.T) {
	w := newWorld(t, openDB(t))
	e := w.start(t)
	p := payload("SELECT * FROM 'in'", kinesis("${name}", "${key}"))
	p.ErrorAction = republish("err")
	create(t, e, "r", p)
	for _, body := range []string{
		`{"name":"plain","key":"a b.*>"}`, `{"name":"dot.ted","key":""}`, `{"name":"no stream","key":"k"}`, `{"key":"k"}`,
		`{"name":"plain","key":"` + strings.Repeat("k", 257) + `"}`,
	} {
		w.mustPublish(t, e, "in", body)
	}
	if m := w.streamed(t, "plain", 1)[0]; m.Subject != "kinesis.plain.a%20b%2E%2A%3E" || m.Header.Get("Flotilla-Partition-Key") != "a b.*>" {
		t.Errorf("%s %v", m.Subject, m.Header)
	}
	if m := w.streamed(t, "dot%2Eted", 1)[0]; m.Subject != "kinesis.dot%2Eted.%" {
		t.Errorf("%s", m.Subject)
	}
	eventually(t, "the failures", func() bool { return len(failures(t, w)) == 3 })
	for _, f := range failures(t, w) {
		if !strings.Contains(f, "streamName") && !strings.Contains(f, "partitionKey") {
			t.Errorf("failure %q", f)
		}
	}
	s, err := w.bus.JetStream().Stream(t.Context(), "plain")
	if err != nil {
		t.Fatal(err)
	}
	if c := s.CachedInfo().Config; c.MaxAge != 24*time.Hour || c.MaxBytes != 512<<20 || c.Storage != jetstream.FileStorage || c.Discard != jetstream.DiscardOld {
		t.Errorf("%+v", c)
	}
}

// AWS: https://docs.aws.amazon.com/sns/latest/api/API_Publish.html (MessageStructure)
func TestSNSStructure(t *testing.T) {
	w := newWorld(t, openDB(t))
	e := w.start(t)
	p := payload("SELECT * FROM 'in'", &iot.Action{Sns: &iot.SnsAction{RoleArn: role, TargetArn: "arn:aws:sns:us-east-1:123456789012:alerts", MessageFormat: new("JSON")}})
	p.ErrorAction = republish("err")
	create(t, e, "r", p)
	w.mustPublish(t, e, "in", `{"default":"text","email":"longer"}`)
	w.mustPublish(t, e, "in", `{"email":"longer"}`)
	if m := w.streamed(t, "alerts", 1)[0]; m.Header.Get("Flotilla-Message-Structure") != "json" || m.Header.Get("Flotilla-Topic-Arn") == "" {
		t.Errorf("%v", m.Header)
	}
	eventually(t, "the failure", func() bool { return len(failures(t, w)) == 1 })
	if f := failures(t, w)[0]; !strings.Contains(f, "No default entry") {
		t.Errorf("failure %q", f)
	}
}

// Two services with one name: the second waits, and says why.
func TestStreamIsTaken(t *testing.T) {
	w := newWorld(t, openDB(t))
	e := w.start(t)
	create(t, e, "one", payload("SELECT * FROM 'one'", kinesis("same", "k")))
	create(t, e, "two", payload("SELECT * FROM 'two'", &iot.Action{Sns: &iot.SnsAction{RoleArn: role, TargetArn: "arn:aws:sns:us-east-1:123456789012:same"}}))
	w.mustPublish(t, e, "one", `{}`)
	w.streamed(t, "same", 1)
	w.mustPublish(t, e, "two", `{}`)
	eventually(t, "the reason", func() bool {
		s := e.Status()[1]
		return s.LastFailure != nil && strings.Contains(s.LastFailure.Message, "is for kinesis.same") && s.Rows == 1
	})
	// An operator mends it; nothing was lost.
	if err := w.bus.JetStream().DeleteStream(t.Context(), "same"); err != nil {
		t.Fatal(err)
	}
	if m := w.streamed(t, "same", 1)[0]; m.Subject != "sns.same" {
		t.Errorf("%s", m.Subject)
	}
}

// A stream that was deleted is made again; one that a user made is used as it is.
func TestStreamOfOthers(t *testing.T) {
	w := newWorld(t, openDB(t))
	e := w.start(t)
	create(t, e, "r", payload("SELECT * FROM 'in'", kinesis("s", "k")))
	js := w.bus.JetStream()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "s", Subjects: []string{"kinesis.s.>"}, Storage: jetstream.MemoryStorage, MaxMsgs: 3}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		w.mustPublish(t, e, "in", `{}`)
	}
	eventually(t, "the outbox to be empty", func() bool { return w.pending(t) == 0 })
	w.streamed(t, "s", 3)
	if err := js.DeleteStream(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	w.mustPublish(t, e, "in", `{}`)
	w.streamed(t, "s", 1)
}

// batchMode makes a row of each element of an array.
func TestFirehoseBatchMode(t *testing.T) {
	w := newWorld(t, openDB(t))
	e := w.start(t)
	a := firehose("split")
	a.Firehose.BatchMode, a.Firehose.Separator = new(true), new("\n")
	create(t, e, "r", payload("SELECT VALUE * FROM 'in'", a, firehose("whole")))
	w.mustPublish(t, e, "in", `[{"a":1},{"a":2},{"a":3}]`)
	w.mustPublish(t, e, "in", `{"a":4}`)
	count := func(stream string) int {
		_, n, err := telemetry.CountRows(filepath.Join(w.dir, "archive", stream))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	eventually(t, "the rows", func() bool { return count("split") == 4 && count("whole") == 2 })
}

// A message that does not fit the declared columns goes to the error action, with all
// of its rows; those around it are archived.
func TestFirehoseSchema(t *testing.T) {
	w := newWorld(t, openDB(t))
	dir := filepath.Join(w.dir, "archive", "a")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, telemetry.SchemaName), []byte(`{"n":"BIGINT"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	w.cfg.FirehoseInterval, w.cfg.FirehoseRows = time.Hour, 5 // one batch
	e := w.start(t)
	a := firehose("a")
	a.Firehose.BatchMode = new(true)
	p := payload("SELECT VALUE * FROM 'in'", a)
	p.ErrorAction = republish("errors")
	create(t, e, "r", p)
	for _, m := range []string{`{"n":1}`, `[{"n":2},{"n":"x"}]`, `{"n":3}`, `{"m":4}`, `[{"n":5},{"n":6}]`} {
		w.mustPublish(t, e, "in", m)
	}
	eventually(t, "the outbox to be empty", func() bool { return w.pending(t) == 0 })
	if _, n, err := telemetry.CountRows(dir); err != nil || n != 4 {
		t.Errorf("%d rows, %v", n, err)
	}
	told := w.out.all()
	if len(told) != 2 || !strings.Contains(string(told[0].Payload), `column \"n\" is BIGINT`) || !strings.Contains(string(told[1].Payload), `column \"m\" is not declared`) {
		for _, m := range told {
			t.Errorf("%s", m.Payload)
		}
	}
}

// The separator of the action ends each row in files of JSON lines.
func TestFirehoseSeparator(t *testing.T) {
	w := newWorld(t, openDB(t))
	w.cfg.FirehoseFormat = telemetry.JSONLines
	e := w.start(t)
	a := firehose("a")
	a.Firehose.Separator = new(",")
	create(t, e, "r", payload("SELECT * FROM 'in'", a))
	w.mustPublish(t, e, "in", `{"a":1}`)
	dir := filepath.Join(w.dir, "archive")
	eventually(t, "the row", func() bool { _, n, err := telemetry.CountRows(dir); return err == nil && n == 1 })
	names, _, err := telemetry.CountRows(dir)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(names[0]); err != nil || !strings.HasSuffix(string(b), `,"a":1},`) {
		t.Errorf("%s, %v", b, err)
	}
}

// A file is written when the interval is over, or as soon as there is enough for one.
func TestFirehoseBatches(t *testing.T) {
	w := newWorld(t, openDB(t))
	w.cfg.FirehoseInterval, w.cfg.FirehoseRows = time.Hour, 10
	e := w.start(t)
	create(t, e, "r", payload("SELECT * FROM 'in'", firehose("a")))
	for range 25 {
		w.mustPublish(t, e, "in", `{"a":1}`)
	}
	count := func() (files, rows int) {
		names, rows, err := telemetry.CountRows(filepath.Join(w.dir, "archive"))
		if err != nil {
			t.Fatal(err)
		}
		return len(names), rows
	}
	eventually(t, "two files", func() bool { _, rows := count(); return rows == 20 })
	eventually(t, "five rows to wait", func() bool { return w.pending(t) == 5 })
	// What waits survives the engine, and goes when it is old enough.
	stop(t, e)
	w.cfg.FirehoseInterval = 50 * time.Millisecond
	w.start(t)
	eventually(t, "the rest", func() bool { _, rows := count(); return rows == 25 })
	if files, _ := count(); files != 3 {
		t.Errorf("%d files, want 3", files)
	}
}

// With an endpoint, objects go there.
func TestObjectsAtAnEndpoint(t *testing.T) {
	var mu sync.Mutex
	objects, refusals := map[string]string{}, 2
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if refusals > 0 {
			refusals--
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		objects[r.Method+" "+r.URL.Path] = string(body)
	}))
	t.Cleanup(server.Close)
	w := newWorld(t, openDB(t))
	service, err := object.Endpoint{URL: server.URL, AccessKey: "AK", SecretKey: "SK"}.Open("us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	w.objects = service
	e := w.start(t)
	create(t, e, "r", payload("SELECT * FROM 'in'", s3("bucket", "a/${n}.json")))
	w.mustPublish(t, e, "in", `{"n":1}`)
	w.mustPublish(t, e, "in", `{"n":2}`)
	eventually(t, "the outbox to be empty", func() bool { return w.pending(t) == 0 })
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(map[string]string{"PUT /bucket/a/1.json": `{"n":1}`, "PUT /bucket/a/2.json": `{"n":2}`}, objects); diff != "" {
		t.Error(diff)
	}
}

// A full queue (sqs) takes nothing more and loses nothing.
func TestFullQueue(t *testing.T) {
	w := newWorld(t, openDB(t))
	w.cfg.StreamMaxBytes = 4096
	e := w.start(t)
	create(t, e, "r", payload("SELECT * FROM 'in'", &iot.Action{Sqs: &iot.SqsAction{RoleArn: role, QueueUrl: "https://sqs/1/q"}}))
	const n = 20
	for range n {
		w.mustPublish(t, e, "in", `{"text":"`+strings.Repeat("x", 300)+`"}`)
	}
	eventually(t, "the queue to be full", func() bool { return e.Status()[0].LastFailure != nil })
	s, err := w.bus.JetStream().Stream(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	eventually(t, "all messages", func() bool {
		batch, err := c.Fetch(5, jetstream.FetchMaxWait(100*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			got[m.Headers().Get("Nats-Msg-Id")] = true
			if err := m.DoubleAck(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		return len(got) == n
	})
}
