package shadow_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"flotilla/internal/aws/iotdata"
	"flotilla/internal/mqtt"
	"flotilla/internal/shadow"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// counters reads {"wK": n} out of a shadow's reported state.
func counters(t *testing.T, s *shadow.Shadows, name string) (map[string]int, int64) {
	t.Helper()
	body, err := s.ShadowDocument(context.Background(), "t", name)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		State   struct{ Reported map[string]int }
		Version int64
	}
	if err := json.Unmarshal(body, &d); err != nil {
		t.Fatal(err)
	}
	return d.State.Reported, d.Version
}

// Many writers of two shadows: no update is lost, and the messages of each
// shadow are published in the order of its versions, none missing.
func TestConcurrentUpdates(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		const writers, each = 16, 25
		var out outbox
		s := shadow.New(db, things{"t": true}, &out, shadow.Config{})
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				topic := fmt.Sprintf("$aws/things/t/shadow/name/n%d/update", w%2)
				for i := range each {
					payload := fmt.Sprintf(`{"state":{"desired":{"x":0},"reported":{"w%d":%d}}}`, w, i+1)
					if err := s.ServeMQTT(context.Background(), &mqtt.Message{Topic: topic, Payload: []byte(payload)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		last := map[string]int64{}
		for _, m := range out.all() {
			v := version(t, string(documents(t, m)))
			if v != last[m.Topic]+1 {
				t.Fatalf("%s: version %d after %d", m.Topic, v, last[m.Topic])
			}
			last[m.Topic] = v
		}
		if len(last) != 6 { // delta, documents, accepted of two shadows
			t.Errorf("published on %v", last)
		}
		for n := range 2 {
			got, v := counters(t, s, fmt.Sprintf("n%d", n))
			if v != writers/2*each || len(got) != writers/2 {
				t.Errorf("n%d: version %d, %v", n, v, got)
			}
			for w, i := range got {
				if i != each {
					t.Errorf("n%d: %s is %d", n, w, i)
				}
			}
		}
	})
}

// documents is the part of a message that has the version.
func documents(t *testing.T, m *mqtt.Message) []byte {
	t.Helper()
	if !strings.HasSuffix(m.Topic, "/documents") {
		return m.Payload
	}
	var d struct{ Current json.RawMessage }
	if err := json.Unmarshal(m.Payload, &d); err != nil {
		t.Fatal(err)
	}
	return d.Current
}

// Optimistic locking: of those who name the same version one wins, so a counter
// that all increment counts every success.
func TestOptimisticLocking(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := shadow.New(db, things{"t": true}, &outbox{}, shadow.Config{})
		update(t, s, "t", "", `{"state":{"reported":{"n":0}}}`)
		increment(t, 10, s, s, s, s)
		if got, v := counters(t, s, ""); got["n"] != 40 || v != 41 {
			t.Errorf("n = %d in version %d, want 40 in 41", got["n"], v)
		}
	})
}

// increment has each of all increment n so many times.
func increment(t *testing.T, times int, all ...*shadow.Shadows) {
	var wg sync.WaitGroup
	for _, s := range all {
		wg.Go(func() {
			for done := 0; done < times; {
				got, v := counters(t, s, "")
				payload := fmt.Sprintf(`{"state":{"reported":{"n":%d}},"version":%d}`, got["n"]+1, v)
				_, err := s.UpdateThingShadow(context.Background(), &iotdata.UpdateThingShadowRequest{ThingName: "t", Payload: []byte(payload)})
				if _, lost := errors.AsType[*iotdata.ConflictException](err); lost {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				done++
			}
		})
	}
	wg.Wait()
}

// Two nodes on one PostgreSQL: versions are linear and nothing is lost.
func TestTwoNodes(t *testing.T) {
	server := os.Getenv("FLOTILLA_TEST_POSTGRES")
	if server == "" {
		t.Skip("FLOTILLA_TEST_POSTGRES is not set")
	}
	url := storetest.Postgres(t, server)
	var nodes []*shadow.Shadows
	var out outbox
	for i := range 2 {
		db := storetest.OpenConfig(t, store.Config{Store: url, NodeID: fmt.Sprint("node", i)})
		nodes = append(nodes, shadow.New(db, things{"t": true}, &out, shadow.Config{}))
	}
	update(t, nodes[0], "t", "", `{"state":{"reported":{"n":0}}}`)
	increment(t, 20, nodes[0], nodes[1])
	if got, v := counters(t, nodes[1], ""); got["n"] != 40 || v != 41 {
		t.Errorf("n = %d in version %d, want 40 in 41", got["n"], v)
	}
	out.reset()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 10 {
				payload := fmt.Sprintf(`{"state":{"reported":{"w%d":%d}}}`, w, i+1)
				if _, err := nodes[w%2].UpdateThingShadow(context.Background(), &iotdata.UpdateThingShadowRequest{ThingName: "t", ShadowName: new("new"), Payload: []byte(payload)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := map[int64]bool{}
	for _, m := range out.all() {
		if strings.HasSuffix(m.Topic, "/accepted") {
			seen[version(t, string(m.Payload))] = true
		}
	}
	got, v := counters(t, nodes[0], "new")
	if v != 80 || len(seen) != 80 || len(got) != 8 {
		t.Errorf("version %d, %d versions announced, %v", v, len(seen), got)
	}
}

// The process is killed in the middle of updates; what it acknowledged is there
// after reopening.
func TestKill(t *testing.T) {
	const variable = "FLOTILLA_TEST_SHADOW_DIR"
	if dir := os.Getenv(variable); dir != "" {
		updateForever(t, dir)
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKill$")
	cmd.Env = append(os.Environ(), variable+"="+dir)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged := map[string]int{}
	lines := bufio.NewScanner(stdout)
	for n := 0; lines.Scan(); n++ {
		var writer string
		var i int
		if _, err := fmt.Sscanf(lines.Text(), "ack %s %d", &writer, &i); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		acknowledged[writer] = i
		if n == 300 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	if len(acknowledged) == 0 {
		t.Fatal("nothing was acknowledged")
	}
	s := shadow.New(storetest.OpenConfig(t, store.Config{Dir: dir}), things{"t": true}, &outbox{}, shadow.Config{})
	got, v := counters(t, s, "")
	total := 0
	for w, i := range got {
		total += i
		if i < acknowledged[w] {
			t.Errorf("%s is %d, %d was acknowledged", w, i, acknowledged[w])
		}
	}
	if int64(total) != v {
		t.Errorf("%d updates made, version %d", total, v)
	}
	if next := version(t, update(t, s, "t", "", `{"state":{}}`)); next != v+1 {
		t.Errorf("the next version is %d after %d", next, v)
	}
}

// updateForever writes until it is killed, and says on standard output what
// was acknowledged.
func updateForever(t *testing.T, dir string) {
	db, err := store.Open(context.Background(), store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	s := shadow.New(db, things{"t": true}, &outbox{publish: func(*mqtt.Message) error { return nil }}, shadow.Config{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 1; ; i++ {
				payload := fmt.Sprintf(`{"state":{"reported":{"w%d":%d}}}`, w, i)
				if err := s.ServeMQTT(context.Background(), &mqtt.Message{Topic: "$aws/things/t/shadow/update", Payload: []byte(payload)}); err != nil {
					t.Error(err)
					return
				}
				if _, err := fmt.Printf("ack w%d %d\n", w, i); err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
}
