package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"
	"github.com/eclipse/paho.golang/paho"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"flotilla/internal/server"
	"flotilla/internal/server/servertest"
)

// TestMain is also the server process that TestKill kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("FLOTILLA_E2E_SERVER"); dir != "" {
		if err := serve(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serve(dir string) error {
	srv, err := server.Start(context.Background(), servertest.Config(dir), slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return err
	}
	return <-srv.Failed()
}

// process is a server in a process of its own.
type process struct {
	*servertest.Node
	cmd *exec.Cmd
	e   server.Endpoints
}

func startProcess(t *testing.T, dir string) *process {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, "endpoints.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), "FLOTILLA_E2E_SERVER="+dir)
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.kill(t) })
	eventually(t, "the server to be ready", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "endpoints.json"))
		return err == nil && json.Unmarshal(b, &p.e) == nil
	})
	p.Node = servertest.AttachTo(t, p.e, servertest.Config(dir))
	return p
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	if p.cmd.ProcessState == nil {
		if err := p.cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = p.cmd.Wait()
	}
}

// load is what clients were told, and so may count on.
type load struct {
	mu       sync.Mutex
	queued   map[int]bool   // PUBACK for a message owed to the absent subscriber
	retained map[string]int // PUBACK for a retained message: topic -> newest value
	versions map[string]int64
}

// TestKill kills the server while devices publish, retain and update shadows, and
// holds it to everything it acknowledged.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	p := startProcess(t, dir)
	policy := append([]string{"iot:Publish topic/$aws/things/*", "iot:Subscribe topicfilter/$aws/things/*", "iot:Receive topic/$aws/things/*"}, everything...)
	id := p.Identity(t, "all", policy...)
	makeRule(t, p.Node, "stream", "SELECT * FROM 'test/queue'",
		types.Action{Kinesis: &types.KinesisAction{RoleArn: new(roleARN), StreamName: new("kept"), PartitionKey: new("k")}},
		types.Action{Republish: &types.RepublishAction{RoleArn: new(roleARN), Topic: new("test/again"), Qos: new(int32(1))}})
	absent := connect5(t, p.Node, id, "absent", persistent)
	absent.subscribe(t, 1, "test/queue")
	if err := absent.Disconnect(&paho.Disconnect{}); err != nil {
		t.Fatal(err)
	}
	again := connect5(t, p.Node, id, "again", persistent)
	again.subscribe(t, 1, "test/again")
	if err := again.Disconnect(&paho.Disconnect{}); err != nil {
		t.Fatal(err)
	}
	const publishers, things = 8, 4
	for i := range things {
		if _, err := p.IoT().CreateThing(t.Context(), &iot.CreateThingInput{ThingName: new("thing" + strconv.Itoa(i))}); err != nil {
			t.Fatal(err)
		}
	}
	told := &load{queued: map[int]bool{}, retained: map[string]int{}, versions: map[string]int64{}}
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for round := range rounds {
		told.run(t, p, id, publishers, things, round)
		t.Logf("round %d: %d queued, %d retained topics, %v shadow versions acknowledged before the kill", round, len(told.queued), len(told.retained), told.versions)
		p = startProcess(t, dir)
		told.check(t, p, id)
	}
}

// run puts load on p and kills it in the middle.
func (l *load) run(t *testing.T, p *process, id servertest.Identity, publishers, things, round int) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	acked := make(chan struct{}, 1<<16)
	var wg sync.WaitGroup
	for g := range publishers {
		d := connect5(t, p.Node, id, fmt.Sprintf("pub-%d-%d", round, g))
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				n := round*1_000_000_000 + g*1_000_000 + i
				if i%4 == 3 {
					topic := "test/retain/" + strconv.Itoa(g)
					if _, err := d.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Retain: true, Payload: []byte(strconv.Itoa(n))}); err != nil {
						return
					}
					l.mu.Lock()
					l.retained[topic] = n
					l.mu.Unlock()
					continue
				}
				if _, err := d.Publish(ctx, &paho.Publish{Topic: "test/queue", QoS: 1, Payload: []byte(strconv.Itoa(n))}); err != nil {
					return
				}
				l.mu.Lock()
				l.queued[n] = true
				l.mu.Unlock()
				acked <- struct{}{}
			}
		})
	}
	data := p.Data()
	for i := range things {
		name := "thing" + strconv.Itoa(i)
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				out, err := data.UpdateThingShadow(ctx, &iotdataplane.UpdateThingShadowInput{
					ThingName: &name, Payload: fmt.Appendf(nil, `{"state":{"reported":{"n":%d}}}`, n),
				})
				if err != nil {
					return
				}
				var doc struct{ Version int64 }
				if err := json.Unmarshal(out.Payload, &doc); err != nil {
					t.Error(err)
					return
				}
				l.mu.Lock()
				l.versions[name] = doc.Version
				l.mu.Unlock()
			}
		})
	}
	for range 300 {
		select {
		case <-acked:
		case <-time.After(patience):
			t.Fatal("no load came about")
		}
	}
	p.kill(t)
	cancel()
	wg.Wait()
}

// check compares what the restarted server has with what was acknowledged.
func (l *load) check(t *testing.T, p *process, id servertest.Identity) {
	t.Helper()
	for name, version := range l.versions {
		out, err := p.Data().GetThingShadow(t.Context(), &iotdataplane.GetThingShadowInput{ThingName: &name})
		if err != nil {
			t.Fatal(err)
		}
		if doc := parse(t, out.Payload); doc.Version < version {
			t.Errorf("%s has version %d, %d was acknowledged", name, doc.Version, version)
		}
	}
	reader := connect5(t, p.Node, id, "reader")
	for topic, n := range l.retained {
		reader.subscribe(t, 1, topic)
		if got, _ := strconv.Atoi(string(reader.next(t).Payload)); got < n {
			t.Errorf("%s retains %d, %d was acknowledged", topic, got, n)
		}
	}
	l.reachedSession(t, p, id, "absent")
	l.reachedSession(t, p, id, "again") // by way of a rule
	l.reachedStream(t, p)
	clear(l.queued)
}

// reachedSession has an absent subscriber come back and wait for all that it is owed.
func (l *load) reachedSession(t *testing.T, p *process, id servertest.Identity, clientID string) {
	t.Helper()
	d := connect5(t, p.Node, id, clientID, persistent)
	if !d.connack.SessionPresent {
		t.Fatalf("the session of %s is gone", clientID)
	}
	seen := map[int]bool{}
	for missing := len(l.queued); missing > 0; {
		select {
		case m := <-d.got:
			n, err := strconv.Atoi(strings.TrimSpace(string(m.Payload)))
			if err != nil {
				t.Fatal(err)
			}
			if l.queued[n] && !seen[n] {
				missing--
				seen[n] = true
			}
		case <-time.After(patience):
			t.Fatalf("%d acknowledged messages never came to %s", missing, clientID)
		}
	}
	if err := d.Disconnect(&paho.Disconnect{}); err != nil {
		t.Fatal(err)
	}
}

// reachedStream reads the rule's stream until it has shown every acknowledged message.
func (l *load) reachedStream(t *testing.T, p *process) {
	t.Helper()
	nc, err := nats.Connect(p.e.NATS)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	var s jetstream.Stream
	eventually(t, "the stream", func() bool { s, err = js.Stream(t.Context(), "kept"); return err == nil })
	c, err := s.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]bool{}
	for n := range l.queued {
		wanted[strconv.Itoa(n)] = true
	}
	for end := time.Now().Add(patience); len(wanted) > 0; {
		if time.Now().After(end) {
			t.Fatalf("%d acknowledged messages never reached the stream", len(wanted))
		}
		batch, err := c.Fetch(1000, jetstream.FetchMaxWait(200*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			delete(wanted, strings.TrimSpace(string(m.Data())))
		}
	}
}
