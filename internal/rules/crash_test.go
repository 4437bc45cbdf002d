package rules_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/bus"
	"flotilla/internal/mqtt"
	"flotilla/internal/rules"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

func openDB(t testing.TB) *store.DB { return storetest.Open(t) }

// Everything acknowledged is executed after a restart, in order.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, nil)
	w.cfg.Drain = time.Millisecond
	db, err := store.Open(t.Context(), store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	w.db = db
	w.out.publish = func(context.Context, *mqtt.Message) error { return errors.New("the sink is stalled") }
	e := w.start(t)
	create(t, e, "r", payload("SELECT * FROM 'in'", republish("out"), kinesis("s", "k")))
	create(t, e, "deleted", payload("SELECT * FROM 'in'", republish("deleted")))
	const n = 300
	for i := range n {
		w.mustPublish(t, e, "in", strconv.Itoa(i))
	}
	// A rule that is gone still finishes what it owes.
	if _, err := e.DeleteTopicRule(t.Context(), &iot.DeleteTopicRuleRequest{RuleName: "deleted"}); err != nil {
		t.Fatal(err)
	}
	stop(t, e)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	w.db = storetest.OpenConfig(t, store.Config{Dir: dir})
	if w.pending(t) < n {
		t.Fatalf("%d rows are left", w.pending(t))
	}
	w.out.setPublish(nil)
	e = w.start(t)
	for i := range n {
		w.mustPublish(t, e, "in", strconv.Itoa(n+i))
	}
	eventually(t, "all messages", func() bool { return len(w.out.all()) >= 3*n })
	next := map[string]int{}
	for _, m := range w.out.all() {
		if string(m.Payload) != strconv.Itoa(next[m.Topic]) {
			t.Fatalf("%s: message %d is %s", m.Topic, next[m.Topic], m.Payload)
		}
		next[m.Topic]++
	}
	if next["out"] != 2*n || next["deleted"] != n {
		t.Errorf("%v", next)
	}
	for i, m := range w.streamed(t, "s", 2*n) {
		if string(m.Data) != strconv.Itoa(i) {
			t.Fatalf("stream: message %d is %s", i, m.Data)
		}
	}
	eventually(t, "the outbox to be empty", func() bool { return w.pending(t) == 0 })
}

// A kill between an action and its delete repeats the action; the stream recognises it.
func TestStreamDropsRepeats(t *testing.T) {
	w := newWorld(t, openDB(t))
	e := w.start(t)
	create(t, e, "r", payload("SELECT * FROM 'in'", kinesis("s", "k")))
	stop(t, e) // sinks are closed; what is published now stays in the outbox
	e = w.start(t)
	for i := range 50 {
		w.mustPublish(t, e, "in", strconv.Itoa(i))
	}
	w.streamed(t, "s", 50)
	eventually(t, "the outbox to be empty", func() bool { return w.pending(t) == 0 })
	// The rows are back, as if their delete had been lost.
	var writer, action int64
	err := w.db.Read(t.Context(), func(_ context.Context, tx store.Tx) error {
		if err := tx.QueryRow(`SELECT MAX(id) FROM outbox_writer`).Scan(&writer); err != nil {
			return err
		}
		return tx.QueryRow(`SELECT id FROM topic_rule_action`).Scan(&action)
	})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, m := range w.streamed(t, "s", 50) {
		ids = append(ids, m.Header.Get("Nats-Msg-Id"))
	}
	err = w.db.Write(t.Context(), func(_ context.Context, tx store.Tx) error {
		if _, err := tx.Exec(`INSERT INTO outbox_writer (id, node, beat) VALUES (1, 'n1', 1)`); err != nil {
			return err
		}
		for _, text := range ids {
			id, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return err
			}
			body := append([]byte{1, 0, 0, 2}, "in\x00\x00\x02\x01s\x01k\x02{}"...)
			if _, err := tx.Exec(`INSERT INTO outbox (action, writer, id, body) VALUES ($1, 1, $2, $3)`, action, id, body); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	stop(t, e)
	e = w.start(t)
	w.mustPublish(t, e, "in", "last")
	eventually(t, "the outbox to be empty", func() bool { return w.pending(t) == 0 })
	if got := w.streamed(t, "s", 51); len(got) != 51 {
		t.Errorf("%d messages in the stream, want 51", len(got))
	}
	if s := e.Status(); len(s) != 1 || s[0].LastFailure != nil {
		t.Errorf("status %+v", s)
	}
}

// distinct are the texts with a prefix that a node has published, each once: a node
// that was slow may have been taken for gone, and its messages come twice.
func distinct(w *world, prefix string) (out []string) {
	for _, m := range w.out.all() {
		if text := string(m.Payload); strings.HasPrefix(text, prefix) && !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

// Rules made on one node work on another soon; the rows of a node that
// is gone are executed by one that lives.
func TestNodes(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.cfg.Lease, w.cfg.Drain = 15*time.Second, time.Millisecond
		one := w.start(t)
		other, err := bus.Open(t.Context(), bus.Config{NATS: w.bus.URL(), NodeID: "n2"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(other.Close)
		w2 := &world{db: db, bus: other, out: &gateway{}, dir: t.TempDir(), cfg: w.cfg}
		two := w2.start(t)

		generation := two.Generation()
		follows := func(what string, want bool) {
			t.Helper()
			eventually(t, what, func() bool { some, _ := two.Selects("in"); return some == want })
			if g := two.Generation(); g == generation {
				t.Errorf("%s: the generation is the same", what)
			} else {
				generation = g
			}
		}
		create(t, one, "r", payload("SELECT * FROM 'in'", republish("out")))
		follows("the new rule", true)
		ctx := context.Background()
		if _, err := one.DisableTopicRule(ctx, &iot.DisableTopicRuleRequest{RuleName: "r"}); err != nil {
			t.Fatal(err)
		}
		follows("the disabled rule", false)
		if _, err := one.EnableTopicRule(ctx, &iot.EnableTopicRuleRequest{RuleName: "r"}); err != nil {
			t.Fatal(err)
		}
		follows("the enabled rule", true)
		if _, err := one.ReplaceTopicRule(ctx, &iot.ReplaceTopicRuleRequest{RuleName: "r", TopicRulePayload: payload("SELECT * FROM 'elsewhere'", republish("out"))}); err != nil {
			t.Fatal(err)
		}
		follows("the replaced rule", false)
		if _, err := two.ReplaceTopicRule(ctx, &iot.ReplaceTopicRuleRequest{RuleName: "r", TopicRulePayload: payload("SELECT * FROM 'in'", republish("out"))}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the rule on the first node", func() bool { some, _ := one.Selects("in"); return some })

		// Each row is executed by the node that wrote it.
		for i := range 20 {
			w.mustPublish(t, one, "in", fmt.Sprint("one ", i))
			w2.mustPublish(t, two, "in", fmt.Sprint("two ", i))
		}
		eventually(t, "all messages", func() bool { return len(distinct(w, "one ")) == 20 && len(distinct(w2, "two ")) == 20 })

		// The second node goes, and leaves rows.
		w2.out.setPublish(func(context.Context, *mqtt.Message) error { return errors.New("stalled") })
		for i := range 20 {
			w2.mustPublish(t, two, "in", fmt.Sprint("left ", i))
		}
		stop(t, two)
		eventually(t, "the other node's messages", func() bool { return len(distinct(w, "left ")) == 20 })
		for i, text := range distinct(w, "left ") {
			if text != fmt.Sprint("left ", i) {
				t.Errorf("message %d is %s", i, text)
			}
		}
		eventually(t, "the outbox to be empty", func() bool { return w.pending(t) == 0 })
		if err := w2.publish(two, "in", "late"); err == nil {
			t.Log("a closed engine still evaluates; its rows are found later")
		}
	})
}

// A node that was taken for gone notices, and begins anew.
func TestTakenForGone(t *testing.T) {
	w := newWorld(t, openDB(t))
	w.cfg.Lease = 5 * time.Second
	e := w.start(t)
	create(t, e, "r", payload("SELECT * FROM 'in'", republish("out")))
	w.mustPublish(t, e, "in", "0")
	eventually(t, "the message", func() bool { return len(w.out.all()) == 1 })
	err := w.db.Write(t.Context(), func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`UPDATE outbox_writer SET node = 'n9'`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	writers := func() (n int) {
		_ = w.db.Read(t.Context(), func(_ context.Context, tx store.Tx) error {
			return tx.QueryRow(`SELECT COUNT(*) FROM outbox_writer WHERE node = 'n1'`).Scan(&n)
		})
		return n
	}
	eventually(t, "a new writer", func() bool { return writers() == 1 })
	eventually(t, "publishing to work", func() bool { return w.publish(e, "in", "1") == nil })
	eventually(t, "the message", func() bool { return len(w.out.all()) >= 2 })
	// Nobody else is there: n9 is taken for gone in turn.
	eventually(t, "the old writer", func() bool { return writers() >= 1 && w.pending(t) == 0 })
}

var _ rules.Bus = (*bus.Bus)(nil)
