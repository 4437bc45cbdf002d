package rules_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/telemetry"
)

// A rule's message reaches all its actions, in order, shaped by its SQL.
func TestFanOut(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		e := w.start(t)
		create(t, e, "fan", payload("SELECT *, topic(2) AS site FROM 'test/+/in' WHERE value > 10",
			kinesis("readings", "${topic(2)}"),
			republish("test/out/${topic(2)}"),
			&iot.Action{Sns: &iot.SnsAction{RoleArn: role, TargetArn: "arn:aws:sns:us-east-1:123456789012:alerts"}},
			&iot.Action{Sqs: &iot.SqsAction{RoleArn: role, QueueUrl: "https://sqs.us-east-1.amazonaws.com/123456789012/jobs", UseBase64: new(true)}},
			firehose("archive"),
			s3("bucket-1", "${topic(2)}/${value}.json"),
		))
		if some, block := e.Selects("test/berlin/in"); !some || block {
			t.Errorf("Selects: %v, %v", some, block)
		}
		if some, _ := e.Selects("test/berlin/out"); some {
			t.Error("Selects another topic")
		}
		const n = 20
		for i := range n {
			w.mustPublish(t, e, "test/berlin/in", fmt.Sprintf(`{"value":%d}`, i))
		}
		const selected = n - 11
		type body struct {
			Value int
			Site  string
		}
		eventually(t, "the republished messages", func() bool { return len(w.out.all()) == selected })
		for i, m := range w.out.all() {
			if got := decode[body](t, m.Payload); m.Topic != "test/out/berlin" || m.QoS != 1 || got != (body{11 + i, "berlin"}) {
				t.Errorf("republished %s %s", m.Topic, m.Payload)
			}
		}
		for i, m := range w.streamed(t, "readings", selected) {
			if got := decode[body](t, m.Data); got != (body{11 + i, "berlin"}) || m.Subject != "kinesis.readings.berlin" {
				t.Errorf("stream: %s %s", m.Subject, m.Data)
			}
			for name, want := range map[string]string{
				"Flotilla-Rule": "fan", "Flotilla-Topic": "test/berlin/in", "Flotilla-Client-Id": "c1", "Flotilla-Partition-Key": "berlin",
			} {
				if got := m.Header.Get(name); got != want {
					t.Errorf("header %s is %q, want %q", name, got, want)
				}
			}
		}
		if m := w.streamed(t, "alerts", selected)[0]; m.Subject != "sns.alerts" || decode[body](t, m.Data).Value != 11 {
			t.Errorf("topic: %s %s", m.Subject, m.Data)
		}
		if m := w.streamed(t, "jobs", selected)[0]; m.Subject != "sqs.jobs" || !strings.HasPrefix(string(m.Data), "eyJ") {
			t.Errorf("queue: %s %s", m.Subject, m.Data)
		}
		eventually(t, "the archive", func() bool {
			_, rows, err := telemetry.CountRows(filepath.Join(w.dir, "archive", "archive"))
			return err == nil && rows == selected
		})
		eventually(t, "the outbox to be empty", func() bool { return w.pending(t) == 0 })
		if names := files(t, filepath.Join(w.dir, "objects")); len(names) != selected {
			t.Errorf("objects: %v", names)
		}
		object, err := os.ReadFile(filepath.Join(w.dir, "objects", "bucket-1", "berlin", "15.json"))
		if err != nil || decode[body](t, object).Value != 15 {
			t.Errorf("object: %s, %v", object, err)
		}
		for _, s := range e.Status() {
			if s.Rows != 0 || s.Bytes != 0 || s.LastFailure != nil {
				t.Errorf("status %+v", s)
			}
		}
	})
}

// Basic Ingest: the rule alone sees the message, with the rest of the topic.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-basic-ingest.html
func TestBasicIngest(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		e := w.start(t)
		create(t, e, "one", payload("SELECT a FROM 'x/y'", republish("one/${topic(2)}")))
		create(t, e, "bare", payload("SELECT a", republish("bare/${topic(1)}")))
		create(t, e, "other", payload("SELECT a FROM '#'", republish("other/${topic()}")))
		create(t, e, "service", payload("SELECT a FROM '$aws/things/+/shadow/update/accepted'", republish("service/${topic(3)}")))
		w.mustPublish(t, e, "$aws/rules/one/x/y", `{"a":1}`)
		w.mustPublish(t, e, "$aws/rules/bare/q", `{"a":2}`)
		w.mustPublish(t, e, "$aws/rules/none/q", `{"a":3}`)
		w.mustPublish(t, e, "$aws/things/lamp/shadow/update/accepted", `{"a":4}`)
		var topics []string
		eventually(t, "three messages", func() bool { return len(w.out.all()) >= 3 && w.pending(t) == 0 })
		for _, m := range w.out.all() {
			topics = append(topics, m.Topic+" "+string(m.Payload))
		}
		want := map[string]bool{`one/y {"a":1}`: true, `bare/q {"a":2}`: true, `service/lamp {"a":4}`: true}
		for _, got := range topics {
			if !want[got] {
				t.Errorf("got %s", got)
			}
		}
		if len(topics) != len(want) {
			t.Errorf("got %q", topics)
		}
	})
}

func TestRecipientIsNotShown(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		e := w.start(t)
		create(t, e, "all", payload("SELECT * FROM '$aws/certificates/#'", republish("leak")))
		owed, err := e.Evaluate(t.Context(), &mqtt.Message{Topic: "$aws/certificates/create/json/accepted", Payload: []byte(`{}`), Recipient: "c1"})
		if owed != nil || err != nil {
			t.Errorf("a message for one recipient was evaluated: %v", err)
		}
	})
}

// A failed action goes to the error action with AWS's message.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/rule-error-handling.html
func TestErrorAction(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		e := w.start(t)
		p := payload("SELECT a FROM 'in/+'", s3("bucket", "${missing}/../.."), republish("fine"))
		p.ErrorAction = republish("err/${topic(2)}")
		create(t, e, "failing", p)
		w.mustPublish(t, e, "in/7", `{"a":1,"b":2}`)
		eventually(t, "both messages", func() bool { return len(w.out.all()) == 2 })
		for _, m := range w.out.all() {
			if m.Topic == "fine" {
				continue
			}
			got := decode[map[string]any](t, m.Payload)
			if id, _ := got["cloudwatchTraceId"].(string); len(id) != 36 {
				t.Errorf("cloudwatchTraceId %q", id)
			}
			message := got["failures"].([]any)[0].(map[string]any)["errorMessage"].(string)
			if !strings.Contains(message, "key") {
				t.Errorf("errorMessage %q", message)
			}
			want := map[string]any{
				"ruleName": "failing", "topic": "in/7", "clientId": "c1", "cloudwatchTraceId": got["cloudwatchTraceId"],
				"base64OriginalPayload": "eyJhIjoxLCJiIjoyfQ==",
				"failures":              []any{map[string]any{"failedAction": "S3Action", "failedResource": "bucket", "errorMessage": message}},
			}
			if diff := cmp.Diff(want, got); diff != "" || m.Topic != "err/7" {
				t.Errorf("%s\n%s", m.Topic, diff)
			}
		}
		eventually(t, "the outbox to be empty", func() bool { return w.pending(t) == 0 })
		if names := files(t, w.dir+"/objects"); len(names) > 0 {
			t.Errorf("objects: %v", names)
		}
	})
}

// What leads out of the bucket's directory fails, and nothing is written.
func TestObjectKeysStayInside(t *testing.T) {
	w := newWorld(t, openDB(t))
	e := w.start(t)
	p := payload("SELECT * FROM 'k'", s3("bucket", "${k}"))
	p.ErrorAction = republish("err")
	create(t, e, "keys", p)
	keys := []string{"../x", "a/../../x", "..", ".", "/etc/x", "a//b", "a/", "x\\u0000y", strings.Repeat("k", 1025), "a/" + strings.Repeat("k", 250), ".tmp-x"}
	for _, k := range keys {
		w.mustPublish(t, e, "k", `{"k":"`+k+`"}`)
	}
	w.mustPublish(t, e, "k", `{"k":"a"}`)
	w.mustPublish(t, e, "k", `{"k":"a/b"}`) // a is a file
	w.mustPublish(t, e, "k", `{"k":"c..d/..e"}`)
	eventually(t, "the errors", func() bool { return len(w.out.all()) == len(keys)+1 && w.pending(t) == 0 })
	if diff := cmp.Diff([]string{"bucket/a", "bucket/c..d/..e"}, files(t, filepath.Join(w.dir, "objects"))); diff != "" {
		t.Error(diff)
	}
}

// A full outbox refuses what is not acknowledged yet.
func TestFullOutboxRefuses(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.cfg.OutboxRows = 5
		dead := make(chan struct{})
		w.out.publish = func(ctx context.Context, _ *mqtt.Message) error {
			select {
			case <-dead:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		e := w.start(t)
		create(t, e, "full", payload("SELECT * FROM 'full'", republish("out")))
		create(t, e, "free", payload("SELECT * FROM 'free'", kinesis("free", "k")))
		acknowledged := 0
		for range 20 {
			err := w.publish(e, "full", `{}`)
			if err == nil {
				acknowledged++
				continue
			}
			if !errors.Is(err, mqtt.QuotaExceeded) {
				t.Fatal(err)
			}
		}
		if acknowledged != 5 {
			t.Errorf("%d messages were acknowledged, 5 have room", acknowledged)
		}
		// A sink that hangs slows nobody else.
		for range 10 {
			eventually(t, "room", func() bool { return w.publish(e, "free", `{}`) == nil })
		}
		w.streamed(t, "free", 10)
		close(dead)
		eventually(t, "everything acknowledged", func() bool { return len(w.out.all()) == acknowledged })
		eventually(t, "room", func() bool { return w.publish(e, "full", `{}`) == nil })
	})
}

// An action that fails for a while is tried again, in order.
func TestRetry(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		failures := 3
		w.out.publish = func(context.Context, *mqtt.Message) error {
			if failures > 0 {
				failures--
				return errors.New("not yet")
			}
			return nil
		}
		e := w.start(t)
		create(t, e, "retry", payload("SELECT * FROM 'in'", republish("out")))
		for i := range 10 {
			w.mustPublish(t, e, "in", strconv.Itoa(i))
		}
		eventually(t, "all messages", func() bool { return len(w.out.all()) == 10 })
		for i, m := range w.out.all() {
			if string(m.Payload) != strconv.Itoa(i) {
				t.Errorf("message %d is %s", i, m.Payload)
			}
		}
		if s := e.Status()[0]; s.LastFailure == nil || s.LastFailure.Message != "not yet" || s.Attempts != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

// A rule that republishes to what it selects from ends with an error, and so does its error action.
func TestCircle(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		e := w.start(t)
		w.out.publish = func(_ context.Context, m *mqtt.Message) error { return w.publishMessage(e, m) }
		p := payload("SELECT * FROM 'in'", republish("in"))
		p.ErrorAction = kinesis("errors", "k")
		create(t, e, "circle", p)
		q := payload("SELECT * FROM 'in'", republish("elsewhere"))
		q.ErrorAction = republish("in")
		create(t, e, "along", q)
		w.mustPublish(t, e, "in", `{"a":1}`)
		m := w.streamed(t, "errors", 1)[0]
		if !strings.Contains(string(m.Data), `"failedAction":"RepublishAction","failedResource":"in","errorMessage":"the message has been republished by 16 rules one after the other`) {
			t.Errorf("%s", m.Data)
		}
		eventually(t, "the outbox to be empty", func() bool { return w.pending(t) == 0 })
		if n := len(w.out.all()); n != 16+16 { // "along" sees what goes round, its last one is one too many
			t.Errorf("%d messages were published", n)
		}
	})
}

// After RetryFor the error action gets the message; one that fails itself does not loop.
func TestGivesUp(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.cfg.RetryFor, w.cfg.KeepFor = 1, 1
		w.out.publish = func(_ context.Context, m *mqtt.Message) error { return errors.New("no " + m.Topic) }
		e := w.start(t)
		p := payload("SELECT * FROM 'in'", republish("out"))
		p.ErrorAction = kinesis("errors", "k")
		create(t, e, "give_up", p)
		q := payload("SELECT * FROM 'in'", republish("out"))
		q.ErrorAction = republish("error")
		create(t, e, "give_up_twice", q)
		w.mustPublish(t, e, "in", `{}`)
		m := w.streamed(t, "errors", 1)[0]
		if !strings.Contains(string(m.Data), `"failedAction":"RepublishAction","failedResource":"out","errorMessage":"no out"`) {
			t.Errorf("%s", m.Data)
		}
		eventually(t, "the outbox to be empty", func() bool { return w.pending(t) == 0 })
	})
}
