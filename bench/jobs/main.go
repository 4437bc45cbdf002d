// Command jobs measures one job over a fleet: created, rolled out, and worked off by simulated things, which start their
// execution when they are told of it and end it with SUCCEEDED, through the room's operations and a real store.
//
//	go run ./bench/jobs -things 100000
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/jobs"
	"flotilla/internal/mqtt"
	"flotilla/internal/registry"
	"flotilla/internal/store"
)

func main() {
	things := flag.Int("things", 100_000, "things of the job")
	workers := flag.Int("workers", 64, "things that answer at the same time")
	dsn := flag.String("store", "", "URL of a PostgreSQL database; SQLite when empty")
	limit := flag.Duration("limit", 20*time.Minute, "give up after this time")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), *limit)
	defer cancel()
	if err := run(ctx, *things, *workers, *dsn); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// silent has nobody to tell of changes: there is one node.
type silent struct{}

func (silent) Changed(string, string)                   {}
func (silent) OnChange(string, func(string))            {}
func (silent) DeleteTags(context.Context, string) error { return nil }
func (silent) TagResource(context.Context, *iot.TagResourceRequest) (*iot.TagResourceResponse, error) {
	return &iot.TagResourceResponse{}, nil
}

// listener is the things' end of the gateway: it hands those that are told of a next execution to the workers.
type listener struct {
	told     chan string
	messages atomic.Int64
	refused  atomic.Int64
}

func (l *listener) Publish(_ context.Context, m *mqtt.Message) error {
	l.messages.Add(1)
	if thing, ok := strings.CutSuffix(strings.TrimPrefix(m.Topic, "$aws/things/"), "/jobs/notify-next"); ok && strings.Contains(string(m.Payload), `"execution"`) {
		l.told <- thing // as many as there are things fit
	} else if strings.HasSuffix(m.Topic, "/rejected") {
		l.refused.Add(1)
	}
	return nil
}

func run(ctx context.Context, n, workers int, dsn string) error {
	dir, err := os.MkdirTemp("", "flotilla-bench-jobs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	db, err := store.Open(ctx, store.Config{Dir: dir, Store: dsn})
	if err != nil {
		return err
	}
	defer db.Close()
	account := aws.Account{ID: "123456789012", Region: "us-east-1"}
	things := registry.New(registry.Config{}, registry.Deps{Account: account, DB: db, Changes: silent{}})
	begin := time.Now()
	if err := fill(ctx, db, things, n); err != nil {
		return err
	}
	fmt.Printf("things made              %v\n", time.Since(begin).Round(time.Second))

	l := &listener{told: make(chan string, n)}
	room := jobs.New(jobs.Config{}, jobs.Deps{Account: account, DB: db, Things: things, Publisher: l, Tags: silent{}})
	runs, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	all.Go(func() { room.Run(runs) })
	for range workers {
		all.Go(func() { work(runs, room, l) })
	}
	begin = time.Now()
	if _, err := room.CreateJob(ctx, &iot.CreateJobRequest{JobId: "all", Targets: []string{account.ARN("iot", "thinggroup/all")}, Document: new(`{"operation":"bench"}`)}); err != nil {
		return err
	}
	fmt.Printf("created                  %v\n", time.Since(begin).Round(time.Millisecond))
	for {
		out, err := room.DescribeJob(ctx, &iot.DescribeJobRequest{JobId: "all"})
		if err != nil {
			return err
		}
		if *out.Job.Status == iot.JobStatusCompleted {
			d := out.Job.JobProcessDetails
			fmt.Printf("all executions terminal  %v, %d SUCCEEDED of %d, %d messages, %d refusals\n", time.Since(begin).Round(100*time.Millisecond),
				*d.NumberOfSucceededThings, n, l.messages.Load(), l.refused.Load())
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Print("most memory              ", strings.TrimSpace(strings.TrimPrefix(line, "VmHWM:")), "\n")
		}
	}
	return nil
}

// fill makes the things, in a group.
func fill(ctx context.Context, db *store.DB, r *registry.Registry, n int) error {
	if _, err := r.CreateThingGroup(ctx, &iot.CreateThingGroupRequest{ThingGroupName: "all"}); err != nil {
		return err
	}
	const batch = 500
	for from := 0; from < n; from += batch {
		err := db.Write(ctx, func(ctx context.Context, _ store.Tx) error {
			for i := from; i < min(n, from+batch); i++ {
				name := fmt.Sprintf("thing-%07d", i)
				if _, err := r.CreateThing(ctx, &iot.CreateThingRequest{ThingName: name}); err != nil {
					return err
				}
				if _, err := r.AddThingToThingGroup(ctx, &iot.AddThingToThingGroupRequest{ThingGroupName: new("all"), ThingName: &name}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// work answers for things that are told.
func work(ctx context.Context, room *jobs.Jobs, l *listener) {
	for {
		select {
		case <-ctx.Done():
			return
		case thing := <-l.told:
			base := "$aws/things/" + thing + "/jobs/"
			for _, m := range []*mqtt.Message{
				{Topic: base + "start-next", Payload: []byte(`{}`)},
				{Topic: base + "all/update", Payload: []byte(`{"status":"SUCCEEDED","expectedVersion":2}`)},
			} {
				if err := room.ServeMQTT(ctx, m); err != nil && ctx.Err() == nil {
					fmt.Fprintln(os.Stderr, err)
				}
			}
		}
	}
}
