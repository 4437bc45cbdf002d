package audit_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/internal/audit"
	"flotilla/internal/audit/chain"
	"flotilla/internal/aws"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

var key = ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))

// world is a node's log.
type world struct {
	t   testing.TB
	db  *store.DB
	out *bytes.Buffer
	*audit.Log
	cfg  audit.Config
	now  func() time.Time
	node string
}

func newWorld(t testing.TB, db *store.DB, cfg audit.Config) *world {
	w := &world{t: t, db: db, cfg: cfg, out: &bytes.Buffer{}, node: "n"}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	l, err := audit.New(w.t.Context(), w.cfg, audit.Deps{DB: w.db, NodeID: w.node, Key: key, Now: w.now, Log: slog.New(slog.NewTextHandler(w.out, nil))})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Log = l
}

// change makes a change, as an operation of the API does.
func (w *world) change(name string, fn store.Func) error {
	e := &chain.Entry{Kind: chain.KindChange, RequestID: name, Principal: "arn:aws:iam::123456789012:user/ann", Operation: "CreateThing", Resources: []string{"arn:aws:iot:us-east-1:123456789012:thing/" + name}, Outcome: "ok"}
	ctx := w.Begin(w.t.Context(), e)
	err := w.db.Write(ctx, fn)
	if err != nil {
		e.Outcome = "failed"
	}
	return errors.Join(err, w.End(ctx, e, nil))
}

func set(name string) store.Func {
	return func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`INSERT INTO account_setting (name, value) VALUES ($1, '{}')`, name)
		return err
	}
}

func (w *world) verify(anchors ...chain.Anchor) *chain.Report {
	w.t.Helper()
	v := chain.NewVerifier(w.node, key.Public().(ed25519.PublicKey), anchors...)
	heads, err := w.ListAuditHeads(w.t.Context(), &flotilla.ListAuditHeadsRequest{NodeId: w.node, MaxResults: new(int32(1000))})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, h := range heads.Heads {
		v.AddHead(&chain.Head{Node: *h.NodeId, Seq: *h.Sequence, Trimmed: *h.Trimmed, Time: *h.Time, Hash: h.Hash, Key: h.PublicKey, Signature: h.Signature})
	}
	for after := int64(0); ; {
		out, err := w.ListAuditRecords(w.t.Context(), &flotilla.ListAuditRecordsRequest{NodeId: w.node, After: &after, MaxResults: new(int32(1000))})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, r := range out.Records {
			v.Add(&chain.Record{Node: *r.NodeId, Seq: *r.Sequence, Time: *r.Time, Body: *r.Body, Hash: r.Hash})
		}
		if out.Next == nil {
			return v.Report()
		}
		after = *out.Next
	}
}

func (w *world) sql(query string, args ...any) {
	w.t.Helper()
	err := w.db.Write(w.t.Context(), func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(query, args...)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) clean(records, signed int64) {
	w.t.Helper()
	if r := w.verify(); len(r.Problems) != 0 || r.Records != records || r.SignedTo != signed {
		w.t.Errorf("%+v; want %d records, signed to %d", r, records, signed)
	}
}

func TestChangesAreChained(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, audit.Config{})
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range 20 {
					name := fmt.Sprintf("%d-%d", g, i)
					if i%5 == 4 { // is taken back, alone or with the group that it is in
						err := w.change(name, func(ctx context.Context, tx store.Tx) error {
							if err := set(name)(ctx, tx); err != nil {
								return err
							}
							return errors.New("no")
						})
						if err == nil {
							t.Error("it was not taken back")
						}
						continue
					}
					if err := w.change(name, set(name)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		w.clean(160, 0) // the 32 that were taken back are recorded as such
		if err := w.Sign(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.clean(160, 160)
		w.open() // again
		if err := w.change("more", set("more")); err != nil {
			t.Fatal(err)
		}
		w.clean(161, 160)
		failed := 0
		out, err := w.ListAuditRecords(t.Context(), &flotilla.ListAuditRecordsRequest{NodeId: "n", MaxResults: new(int32(1000))})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range out.Records {
			var e chain.Entry
			if err := json.Unmarshal([]byte(*r.Body), &e); err != nil {
				t.Fatal(err)
			}
			if e.Outcome == "failed" {
				failed++
			}
		}
		if failed != 32 {
			t.Errorf("%d failed", failed)
		}
		if strings.Contains(w.out.String(), "tampered") {
			t.Error(w.out.String())
		}
	})
}

// The record commits with the change: neither is there without the other.
func TestRecordCommitsWithTheChange(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, audit.Config{MaxRecords: 2, WhenFull: audit.Refuse})
		for _, name := range []string{"a", "b"} {
			if err := w.change(name, set(name)); err != nil {
				t.Fatal(err)
			}
		}
		err := w.change("c", set("c"))
		exc, ok := errors.AsType[*aws.CommonError](err)
		if !ok || exc.Status != 503 {
			t.Errorf("a full log: %v", err)
		}
		var n int
		err = db.Read(t.Context(), func(_ context.Context, tx store.Tx) error {
			return tx.QueryRow(`SELECT COUNT(*) FROM account_setting WHERE name = 'c'`).Scan(&n)
		})
		if err != nil || n != 0 {
			t.Errorf("the change is there without its record: %d, %v", n, err)
		}
		// One record for all writes of an operation, and one more for what became of it.
		w.cfg.MaxRecords = 100
		w.open()
		e := &chain.Entry{Kind: chain.KindChange, RequestID: "r"}
		ctx := w.Begin(t.Context(), e)
		for _, name := range []string{"d", "e"} {
			if err := db.Write(ctx, set(name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.End(ctx, e, nil); err != nil {
			t.Fatal(err)
		}
		w.clean(3, 0)
		if err := w.End(ctx, e, &chain.Entry{Kind: chain.KindResult, RequestID: "r"}); err != nil {
			t.Fatal(err)
		}
		w.clean(4, 0)
	})
}

func TestTamperingIsFound(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, audit.Config{})
		for i := range 10 {
			if err := w.change(fmt.Sprint(i), set(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Sign(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.sql(`UPDATE audit_record SET body = '{}' WHERE seq = 5`)
		if r := w.verify(); len(r.Problems) == 0 {
			t.Error("an altered record is not found")
		}
		w.sql(`DELETE FROM audit_record WHERE seq > 7`)
		if r := w.verify(); !strings.Contains(fmt.Sprint(r.Problems), "the end is missing") {
			t.Errorf("%v", r.Problems)
		}
		// The server goes on, and says what it has seen.
		if err := w.change("x", set("x")); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(w.out.String(), "tampered with") {
			t.Errorf("not a word: %s", w.out.String())
		}
		w.out.Reset()
		w.open()
		if !strings.Contains(w.out.String(), "ends before its last signed head") {
			t.Errorf("not a word at the start: %s", w.out.String())
		}
	})
}

func TestOldRecordsAreDeleted(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, audit.Config{MaxRecords: 5, SignInterval: 10 * time.Millisecond})
		for i := range 20 {
			if err := w.change(fmt.Sprint(i), set(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		w.run(func() bool { return w.verify().Records == 5 })
		w.clean(5, 20)
		w.cfg = audit.Config{Retention: time.Hour, SignInterval: 10 * time.Millisecond}
		w.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
		w.open()
		w.run(func() bool { return w.verify().Records == 1 }) // the last stays
		w.clean(1, 20)
		if err := w.change("x", set("x")); err != nil {
			t.Fatal(err)
		}
		if r := w.verify(); len(r.Problems) != 0 || r.Records != 2 || r.First != 20 {
			t.Errorf("%+v", r)
		}
	})
}

// run has the log signed and trimmed until something is so.
func (w *world) run(ok func() bool) {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); w.Run(ctx) }()
	defer func() { stop(); <-ended }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			w.t.Fatal("it did not happen")
		}
	}
}

func TestRecordsAreListed(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, audit.Config{})
		other := &world{t: t, db: db, out: &bytes.Buffer{}, node: "m"}
		other.open()
		for i := range 7 {
			if err := w.change(fmt.Sprint("a", i), set(fmt.Sprint("a", i))); err != nil {
				t.Fatal(err)
			}
		}
		if err := other.change("b", set("b")); err != nil {
			t.Fatal(err)
		}
		// A node whose records somebody deleted is one, too: its heads tell.
		w.sql(`INSERT INTO audit_head (node, seq, trimmed, time, hash, key, signature) VALUES ('k', 9, FALSE, 1, $1, $1, $1), ('m', 9, FALSE, 1, $1, $1, $1)`, []byte{1})
		nodes, err := w.ListAuditNodes(t.Context(), &flotilla.ListAuditNodesRequest{})
		if err != nil || fmt.Sprint(nodes.NodeIds) != "[k m n]" || *nodes.NodeId != "n" {
			t.Errorf("%v, %v", nodes, err)
		}
		count := func(in flotilla.ListAuditRecordsRequest) int {
			t.Helper()
			in.NodeId = "n"
			n := 0
			for {
				out, err := w.ListAuditRecords(t.Context(), &in)
				if err != nil {
					t.Fatal(err)
				}
				n += len(out.Records)
				if out.Next == nil {
					return n
				}
				if in.Descending != nil {
					in.Before = out.Next
				} else {
					in.After = out.Next
				}
			}
		}
		for name, c := range map[string]struct {
			in   flotilla.ListAuditRecordsRequest
			want int
		}{
			"all":        {flotilla.ListAuditRecordsRequest{MaxResults: new(int32(3))}, 7},
			"descending": {flotilla.ListAuditRecordsRequest{MaxResults: new(int32(3)), Descending: new(true)}, 7},
			"who":        {flotilla.ListAuditRecordsRequest{Principal: new("ann")}, 7},
			"nobody":     {flotilla.ListAuditRecordsRequest{Principal: new("bob")}, 0},
			"operation":  {flotilla.ListAuditRecordsRequest{Operation: new("CreateThing")}, 7},
			"resource":   {flotilla.ListAuditRecordsRequest{Resource: new("thing/a3")}, 1},
			"later":      {flotilla.ListAuditRecordsRequest{Since: new(time.Now().Add(time.Hour).UnixMilli())}, 0},
			"since":      {flotilla.ListAuditRecordsRequest{Since: new(time.Now().Add(-time.Hour).UnixMilli()), Descending: new(true)}, 7},
		} {
			if got := count(c.in); got != c.want {
				t.Errorf("%s: %d", name, got)
			}
		}
	})
}

func BenchmarkChange(b *testing.B) {
	w := newWorld(b, storetest.Open(b), audit.Config{})
	i := 0
	for b.Loop() {
		i++
		if err := w.change(fmt.Sprint(i), set(fmt.Sprint(i))); err != nil {
			b.Fatal(err)
		}
	}
}
