// Command shadow measures durable shadow updates: devices on MQTT, each with one
// update in flight, acknowledged on update/accepted after the commit.
//
//	go run ./bench/shadow [-devices 1024] [-duration 10s] [-reps 5] [-store URL] [-level server|room|store] [-section reported|desired] [-history 20|-1]
//
// It starts a server of its own for each repetition and prints a JSON line:
// updates a second, server CPU per update, latency. Levels room and store measure,
// in this process, what an update costs without network, and in the store alone.
// The levels do not share a store's rows: give each one of its own.
// Updates of desired go into the history, unless -history is -1, and have a delta.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"golang.org/x/sync/errgroup"

	"flotilla/bench/target"
	"flotilla/internal/mqtt/client"
)

type result struct {
	Level      string  `json:"level"`
	Section    string  `json:"section"`
	History    int     `json:"history"`
	Devices    int     `json:"devices"`
	Updates    int64   `json:"updates"`
	PerSecond  float64 `json:"updates_s"`
	ServerCPU  float64 `json:"srv_us_update"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Durability string  `json:"durability"`
}

func main() {
	devices := flag.Int("devices", 1024, "devices, each a connection with one update in flight")
	duration := flag.Duration("duration", 10*time.Second, "how long")
	reps := flag.Int("reps", 5, "repetitions")
	store := flag.String("store", "sqlite", "store of the server")
	durability := flag.String("durability", "disk", "durability of the server")
	level := flag.String("level", "server", "what is measured: server, room or store")
	w := workload{}
	flag.StringVar(&w.section, "section", "reported", "what is updated: reported or desired")
	flag.IntVar(&w.history, "history", 20, "changes of desired that are kept of each shadow; -1: none")
	flag.Parse()
	for range *reps {
		var r *result
		var err error
		switch *level {
		case "server":
			r, err = run(context.Background(), w, *devices, *duration, *store, *durability)
		case "room", "store":
			r, err = floor(context.Background(), w, *level, *devices, *duration, *store, *durability)
		default:
			err = errors.New("no such level")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "shadow:", err)
			os.Exit(1)
		}
		r.Level, r.Section, r.History = *level, w.section, w.history
		_ = json.NewEncoder(os.Stdout).Encode(r)
	}
}

func run(ctx context.Context, w workload, devices int, duration time.Duration, store, durability string) (r *result, err error) {
	s, err := target.Start(ctx, "--mqtt-plain-addr", "127.0.0.1:0", "--mqtt-plain-policy", "bench", "--limits", "unlimited",
		"--store", store, "--durability", durability, "--shadow.history="+strconv.Itoa(w.history))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	if err := prepare(ctx, s, devices); err != nil {
		return nil, err
	}
	fleet := make([]*device, devices)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	for i := range fleet {
		g.Go(func() (err error) {
			fleet[i], err = connect(gctx, s.Endpoints.MQTTPlain, thing(i))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	warm, cancel := context.WithTimeout(ctx, time.Second)
	_, err = load(warm, w, fleet)
	cancel()
	if err != nil {
		return nil, err
	}
	before, err := s.CPU()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	timed, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	latencies, err := load(timed, w, fleet)
	if err != nil {
		return nil, err
	}
	elapsed := time.Since(start)
	after, err := s.CPU()
	if err != nil {
		return nil, err
	}
	return report(latencies, elapsed, after-before, devices, durability)
}

func thing(i int) string { return fmt.Sprintf("device-%05d", i) }

func prepare(ctx context.Context, s *target.Server, devices int) error {
	c, err := s.IoT()
	if err != nil {
		return err
	}
	doc := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`
	_, err = c.CreatePolicy(ctx, &iot.CreatePolicyInput{PolicyName: new("bench"), PolicyDocument: &doc})
	if _, exists := errors.AsType[*types.ResourceAlreadyExistsException](err); err != nil && !exists { // a store of its own may be used again
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	for i := range devices {
		g.Go(func() error {
			_, err := c.CreateThing(gctx, &iot.CreateThingInput{ThingName: new(thing(i))})
			return err
		})
	}
	return g.Wait()
}

type device struct {
	*client.Client
	topic    string
	accepted chan struct{}
	refused  atomic.Pointer[string]
}

func connect(ctx context.Context, addr, name string) (*device, error) {
	d := &device{topic: "$aws/things/" + name + "/shadow/update", accepted: make(chan struct{}, 4)}
	var err error
	d.Client, err = client.Dial(ctx, client.Config{Addr: addr, ClientID: name, CleanStart: true, OnMessage: func(m client.Message) {
		if m.Topic != d.topic+"/accepted" {
			d.refused.Store(new(string(m.Payload)))
		}
		d.accepted <- struct{}{}
	}})
	if err != nil {
		return nil, err
	}
	return d, d.Subscribe(ctx, 0, d.topic+"/accepted", d.topic+"/rejected")
}

// load has every device update its shadow, one update after the other, until ctx ends.
func load(ctx context.Context, w workload, fleet []*device) ([]time.Duration, error) {
	var mu sync.Mutex
	var all []time.Duration
	var g errgroup.Group
	for _, d := range fleet {
		g.Go(func() error {
			var mine []time.Duration
			for n := 0; ctx.Err() == nil; n++ {
				start := time.Now()
				if err := d.Publish(context.Background(), d.topic, w.document(n), 0); err != nil {
					return err
				}
				select {
				case <-d.accepted:
				case <-d.Done():
					return d.Err()
				case <-time.After(30 * time.Second):
					return errors.New("no answer to an update within 30 s")
				}
				if text := d.refused.Load(); text != nil {
					return errors.New("refused: " + *text)
				}
				mine = append(mine, time.Since(start))
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
			return nil
		})
	}
	err := g.Wait()
	return all, err
}
