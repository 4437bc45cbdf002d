package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/shadow"
	"flotilla/internal/store"
)

// floor measures what an update costs without a server around it, in this process:
// at level "store" the two statements alone, at level "room" all of internal/shadow.
func floor(ctx context.Context, w workload, level string, devices int, duration time.Duration, url, durability string) (r *result, err error) {
	dir, err := os.MkdirTemp("", "flotilla-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := store.Open(ctx, store.Config{Dir: dir, Store: url, Durability: durability})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	room := shadow.New(db, anyThing{}, nobody{}, shadow.Config{History: w.history})
	update := func(i, n int) error {
		return room.ServeMQTT(ctx, &mqtt.Message{Topic: "$aws/things/" + thing(i) + "/shadow/update", Payload: w.document(n)})
	}
	if level == "store" {
		update = func(i, n int) error { return w.statements(ctx, db, thing(i), int64(n)) }
	}
	if _, err := updates(devices, time.Second, update); err != nil { // the rows, and a warm cache
		return nil, err
	}
	start, used := time.Now(), processCPU()
	latencies, err := updates(devices, duration, update)
	if err != nil {
		return nil, err
	}
	return report(latencies, time.Since(start), processCPU()-used, devices, durability)
}

// updates has each device make one update after the other.
func updates(devices int, duration time.Duration, update func(i, n int) error) ([]time.Duration, error) {
	var mu sync.Mutex
	var all []time.Duration
	var g errgroup.Group
	end := time.Now().Add(duration)
	for i := range devices {
		g.Go(func() error {
			var mine []time.Duration
			for n := 0; time.Now().Before(end); n++ {
				start := time.Now()
				if err := update(i, n); err != nil {
					return err
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

// statements are what an update asks of the store: read the row, write its successor.
func (w workload) statements(ctx context.Context, db *store.DB, name string, n int64) error {
	body := w.document(int(n))
	body = append(body, body...) // with metadata a document is about twice the update
	return db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		var version int64
		var old []byte
		err := tx.QueryRow(`SELECT version, document FROM shadow WHERE thing = $1 AND name = $2`, name, "").Scan(&version, &old)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		_, err = tx.Exec(`INSERT INTO shadow (thing, name, version, document, modified) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (thing, name) DO UPDATE SET version = EXCLUDED.version, document = EXCLUDED.document, modified = EXCLUDED.modified
			WHERE shadow.version = $6`, name, "", version+1, body, n, version)
		return err
	})
}

// workload is what the updates are like.
type workload struct {
	section string
	history int
}

// document is the nth update of a device.
func (w workload) document(n int) []byte {
	return fmt.Appendf(nil, `{"state":{"%s":{"sequence":%d,"temperature":%d.5,"status":"running","battery":{"volts":3.%d}}}}`, w.section, n, n%40, n%10)
}

// report sums up a run.
func report(latencies []time.Duration, elapsed, cpu time.Duration, devices int, durability string) (*result, error) {
	n := len(latencies)
	if n == 0 {
		return nil, errors.New("no update was accepted")
	}
	slices.Sort(latencies)
	ms := func(q float64) float64 { return float64(latencies[min(n-1, int(q*float64(n)))].Microseconds()) / 1000 }
	return &result{
		Devices: devices, Updates: int64(n), PerSecond: float64(n) / elapsed.Seconds(),
		ServerCPU: float64(cpu.Microseconds()) / float64(n), P50: ms(0.5), P99: ms(0.99), Durability: durability,
	}, nil
}

func processCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// anyThing is a registry in which every thing exists.
type anyThing struct{}

func (anyThing) DescribeThing(_ context.Context, in *iot.DescribeThingRequest) (*iot.DescribeThingResponse, error) {
	return &iot.DescribeThingResponse{ThingName: new(in.ThingName)}, nil
}

// nobody subscribes to the answers.
type nobody struct{}

func (nobody) Publish(context.Context, *mqtt.Message) error { return nil }
func (nobody) Awaited(string) bool                          { return false }

func (nobody) Withdraw(context.Context, string, int64) error { return nil }
