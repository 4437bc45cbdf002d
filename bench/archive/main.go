// Command archive measures the archive alone: rows per second of CPU time that it
// writes, merges and queries, on one core.
//
//	go run ./bench/archive -rows 500000 -batch 50000
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"flotilla/internal/telemetry"
)

func main() {
	n := flag.Int("rows", 500_000, "rows to write")
	batch := flag.Int("batch", 50_000, "rows of a file")
	format := flag.String("format", telemetry.Parquet, "parquet or jsonl")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	if err := run(*n, *batch, *format); err != nil {
		fmt.Fprintln(os.Stderr, "archive:", err)
		os.Exit(1)
	}
}

func run(n, batch int, format string) error {
	dir, err := os.MkdirTemp("", "bench-archive-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	a, err := telemetry.OpenArchive(dir, format)
	if err != nil {
		return err
	}
	defer a.Close()
	ctx := context.Background()
	all := payloads(n)
	err = measure("write", n, func() error {
		for first := 0; first < n; first += batch {
			if _, err := a.Write(ctx, "s", 1, all[first:min(n, first+batch)]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("%-20s %10.1f bytes a row\n", "size", float64(size(dir))/float64(n))
	query := func() error {
		q := telemetry.Query{Stream: "s", Where: "temperature > 50", Aggregates: []string{"avg:humidity", "count"}, By: []string{"thing"}}
		return q.Run(ctx, dir, func([]string) error { return nil }, func([]any) error { return nil })
	}
	if err := measure("query", n, query); err != nil {
		return err
	}
	err = measure("compact", n, func() error {
		_, err := a.Compact(ctx, "s", telemetry.Compaction{Quiet: -1})
		return err
	})
	if err != nil {
		return err
	}
	return measure("query, merged", n, query)
}

func payloads(n int) []telemetry.Row {
	rows := make([]telemetry.Row, n)
	received := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	for i := range rows {
		rows[i] = telemetry.Row{
			ID: int64(i), Rule: "r", Topic: fmt.Sprintf("telemetry/thing-%d", i%500), ClientID: fmt.Sprintf("thing-%d", i%500), Received: received,
			Payload: fmt.Appendf(nil, `{"sequence":%d,"temperature":%d.%d,"humidity":%d,"battery":{"volts":3.%d,"charging":%t},"firmware":"1.2.%d","thing":"thing-%d","receivedAt":%d}`,
				i, 20+i%70, i%10, i%100, i%100, i%2 == 0, i%5, i%500, 1764000000000+i),
		}
	}
	return rows
}

func measure(what string, n int, fn func() error) error {
	before, start := cpu(), time.Now()
	if err := fn(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Printf("%-20s %10.0f rows/s of CPU time, %10.0f rows/s\n", what, float64(n)/(cpu()-before).Seconds(), float64(n)/time.Since(start).Seconds())
	return nil
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func size(dir string) (total int64) {
	files, _, err := telemetry.CountRows(dir)
	if err != nil {
		return 0
	}
	for _, f := range files {
		if info, err := os.Stat(filepath.Clean(f)); err == nil {
			total += info.Size()
		}
	}
	return total
}
