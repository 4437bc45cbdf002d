package rules_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/internal/mqtt"
	"flotilla/internal/rules"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// killed is the world of the process that is killed, and of the one after it.
func killed(t testing.TB, dir string, db *store.DB) *world {
	return &world{
		db: db, bus: openBus(t, dir, "n1"), out: &gateway{}, dir: dir,
		cfg: rules.Config{FirehoseInterval: 50 * time.Millisecond, FirehoseFormat: "jsonl", Drain: 2 * time.Second},
	}
}

// TestKill kills a process under load, and finds each message that it acknowledged
// in the stream, in order, and exactly once in the archive.
func TestKill(t *testing.T) {
	if dir := os.Getenv("FLOTILLA_RULES_CHILD"); dir != "" {
		publishUntilKilled(t, dir)
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "FLOTILLA_RULES_CHILD="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var told []string
	for s := bufio.NewScanner(out); s.Scan(); {
		told = append(told, s.Text())
		if len(told) == 4000 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	if len(told) < 4000 {
		t.Fatalf("the child ended early:\n%s", strings.Join(told, "\n"))
	}

	w := killed(t, dir, storetest.OpenConfig(t, store.Config{Dir: dir}))
	t.Logf("%d messages were acknowledged, %d rows were left", len(told), w.pending(t))
	w.start(t)
	eventually(t, "the outbox to be empty", func() bool { return w.pending(t) == 0 })
	streamed, last := map[string]bool{}, map[string]int{}
	for _, m := range w.streamed(t, "s", 4000) {
		id := string(m.Data)
		if streamed[id] {
			t.Errorf("%s is in the stream twice", id)
		}
		streamed[id] = true
		publisher, number, _ := strings.Cut(decode[map[string]string](t, m.Data)["id"], "-")
		n, err := strconv.Atoi(number)
		if err != nil || n <= last[publisher] {
			t.Errorf("%s came after %d", id, last[publisher])
		}
		last[publisher] = n
	}
	archived := map[string]int{}
	for _, name := range files(t, filepath.Join(dir, "archive", "a")) {
		b, err := os.ReadFile(filepath.Join(dir, "archive", "a", name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			var row struct{ ID string }
			if err := json.Unmarshal(line, &row); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			archived[row.ID]++
		}
	}
	for _, id := range told {
		if !streamed[`{"id":"`+id+`"}`] || archived[id] != 1 {
			t.Errorf("%s: in the stream %v, in the archive %d times", id, streamed[`{"id":"`+id+`"}`], archived[id])
		}
	}
}

func publishUntilKilled(t *testing.T, dir string) {
	db, err := store.Open(t.Context(), store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	w := killed(t, dir, db)
	e := w.start(t)
	create(t, e, "r", payload("SELECT * FROM 'in/+'", kinesis("s", "${topic(2)}"), firehose("a")))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 1_000_000 {
				id := fmt.Sprintf("%d-%d", g, i+1)
				m := &mqtt.Message{Topic: fmt.Sprintf("in/%d", g), Payload: []byte(`{"id":"` + id + `"}`), QoS: 1, Received: time.Now()}
				owed, err := e.Evaluate(context.Background(), m)
				if err == nil {
					err = db.Write(context.Background(), owed)
				}
				if err != nil {
					panic(err)
				}
				_, _ = os.Stdout.WriteString(id + "\n")
			}
		})
	}
	wg.Wait()
}
