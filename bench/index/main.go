// Command index measures the fleet index of very many things, each with a shadow of 1 KB: how long it takes to build,
// searches, exact counts, how soon dynamic groups follow, and how long a shadow takes to read while others are updated.
//
//	go run ./bench/index [-things 1000000] [-reps 50] [-duration 20s] [-dir DIR] [-store URL]
//
// It fills a store by SQL, in the order of the keys and with the index, and asks a server of its own by its API and by MQTT.
// With -build the server indexes what is there first, which takes the better part of an hour for a million. A JSON line a measurement has the median, the 99th percentile and the worst, in milliseconds, and the server's CPU. A store of SQLite
// stays in -dir if that is given, and is filled only once. -store names an empty PostgreSQL database;
// bench/postgres.sh makes one.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"flotilla/bench/target"
	"flotilla/internal/store"
)

type result struct {
	What   string  `json:"what"`
	Things int     `json:"things"`
	Store  string  `json:"store"`
	Runs   int     `json:"runs,omitzero"`
	P50    float64 `json:"p50_ms,omitzero"`
	P99    float64 `json:"p99_ms,omitzero"`
	Worst  float64 `json:"worst_ms,omitzero"`
	CPU    float64 `json:"srv_ms,omitzero"` // the server's, a run, all that it does meanwhile
	Note   string  `json:"note,omitzero"`
}

// bench is a server over a filled store.
type bench struct {
	*target.Server
	iot    *iot.Client
	things int
	store  string
	reps   int
}

func main() {
	things := flag.Int("things", 1_000_000, "things")
	reps := flag.Int("reps", 50, "how often each query is asked")
	duration := flag.Duration("duration", 20*time.Second, "how long shadows are read and updated")
	dir := flag.String("dir", "", "directory of the store, to keep it; only for SQLite")
	url := flag.String("store", "sqlite", "sqlite, or the URL of a PostgreSQL database")
	build := flag.Bool("build", false, "have the server index the things, and measure that")
	flag.Parse()
	if err := run(context.Background(), *things, *reps, *duration, *dir, *url, *build); err != nil {
		fmt.Fprintln(os.Stderr, "index:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, things, reps int, duration time.Duration, dir, url string, build bool) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "flotilla-bench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	b := &bench{things: things, store: "sqlite", reps: reps}
	if url != "sqlite" {
		b.store = "postgres"
	}
	filled := filepath.Join(dir, "filled")
	if _, err := os.Stat(filled); errors.Is(err, os.ErrNotExist) {
		began := time.Now()
		if err := fill(ctx, store.Config{Dir: dir, Store: url, Durability: "process"}, things, !build); err != nil {
			return fmt.Errorf("fill: %w", err)
		}
		b.print("filled", nil, fmt.Sprintf("%.0f s", time.Since(began).Seconds()))
		if err := os.WriteFile(filled, nil, 0o600); err != nil {
			return err
		}
	}
	if build {
		if err := b.serve(ctx, dir, url, b.build); err != nil {
			return err
		}
	}
	return b.serve(ctx, dir, url, b.searches, b.counts, b.groups, func(ctx context.Context) error { return b.shadows(ctx, duration) })
}

// serve starts a server and takes steps.
func (b *bench) serve(ctx context.Context, dir, url string, steps ...func(context.Context) error) (err error) {
	b.Server, err = target.StartAt(ctx, dir, "--store", url, "--limits", "unlimited", "--mqtt-plain-addr", "127.0.0.1:0", "--mqtt-plain-policy", "bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Stop()) }()
	if b.iot, err = b.IoT(); err != nil {
		return err
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	rss, err := b.RSS()
	b.print("resident at the end", nil, fmt.Sprintf("%d MiB", rss>>20))
	return err
}

func (b *bench) print(what string, took []time.Duration, note string) {
	b.printCPU(what, took, 0, note)
}

func (b *bench) printCPU(what string, took []time.Duration, used time.Duration, note string) {
	r := result{What: what, Things: b.things, Store: b.store, Runs: len(took), Note: note}
	if n := len(took); n > 0 {
		slices.Sort(took)
		ms := func(q float64) float64 {
			return float64(took[int(math.Ceil(q*float64(n)))-1].Microseconds()) / 1000
		}
		r.P50, r.P99, r.Worst = ms(0.5), ms(0.99), ms(1)
		r.CPU = math.Round(float64(used.Microseconds())/float64(n)/100) / 10
	}
	_ = json.NewEncoder(os.Stdout).Encode(r)
}

// build switches indexing on and waits until all is indexed.
func (b *bench) build(ctx context.Context) error {
	const name = "AWS_Things"
	used, err := b.CPU()
	if err != nil {
		return err
	}
	began := time.Now()
	text, err := json.Marshal(configuration())
	if err != nil {
		return err
	}
	in := &iot.UpdateIndexingConfigurationInput{ThingIndexingConfiguration: &types.ThingIndexingConfiguration{}}
	if err := json.Unmarshal(text, in.ThingIndexingConfiguration); err != nil { // names differ in case only
		return err
	}
	_, err = b.iot.UpdateIndexingConfiguration(ctx, in)
	if err != nil {
		return err
	}
	for {
		d, err := b.iot.DescribeIndex(ctx, &iot.DescribeIndexInput{IndexName: new(name)})
		if err != nil {
			return err
		}
		if d.IndexStatus == types.IndexStatusActive {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	took := time.Since(began)
	after, err := b.CPU()
	b.print("build of the index", nil, fmt.Sprintf("%.0f s, %.0f things/s, %.0f us of server CPU a thing", took.Seconds(), float64(b.things)/took.Seconds(),
		float64((after-used).Microseconds())/float64(b.things)))
	return err
}
