// Command registry compares a store of very many things and certificates with one of few: look-ups and pages that no
// cache answers, attachments, what a CONNECT reads, and, against a server of its own, start-up and real connects.
//
//	go run ./bench/registry [-sizes 1000,1000000] [-reps 7] [-runs 1000] [-only REGEXP] [-dir DIR] [-store URL]
//
// It fills a store of each size by SQL, in the order of the keys, and measures the sizes in turns: a million take ten
// minutes of a busy machine. A JSON line an
// operation has the median of each size and their ratio. Stores of SQLite stay in -dir if that is given, and are filled
// only if they are not there yet. -store names a PostgreSQL server, on which it makes a database for each size;
// bench/postgres.sh starts one.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"flotilla/internal/store"
)

type result struct {
	What  string    `json:"what"`
	Store string    `json:"store"`
	Unit  string    `json:"unit"`
	Sizes []int     `json:"things"`
	Each  []float64 `json:"median"` // of each size
	Ratio float64   `json:"ratio"`  // of the last to the first
}

func main() {
	sizes := flag.String("sizes", "1000,1000000", "numbers of things to compare")
	reps := flag.Int("reps", 7, "repetitions of each measurement")
	runs := flag.Int("runs", 1000, "operations a repetition")
	only := flag.String("only", "", "measure only operations of which the name matches this regular expression, and no server")
	dir := flag.String("dir", "", "directory of filled stores, to keep them; only for SQLite")
	url := flag.String("store", "sqlite", "sqlite, or the URL of a PostgreSQL server")
	flag.Parse()
	if err := run(context.Background(), *sizes, *only, *dir, *url, *reps, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, sizes, only, dir, url string, reps, runs int) (err error) {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	if dir == "" {
		temp, err := os.MkdirTemp("", "flotilla-bench-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(temp) }()
		dir = temp
	}
	known, err := keptIdentities(filepath.Join(dir, "identities.pem"))
	if err != nil {
		return err
	}
	var fleets []*fleet
	for _, text := range strings.Split(sizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < identities {
			return fmt.Errorf("sizes are numbers of at least %d", identities)
		}
		f := &fleet{n: n, known: known, cfg: store.Config{Dir: filepath.Join(dir, text), Store: url}}
		if f.cfg.Store, err = database(ctx, url, n); err != nil {
			return err
		}
		f.name()
		filled := filepath.Join(f.cfg.Dir, "filled")
		if _, err := os.Stat(filled); errors.Is(err, os.ErrNotExist) {
			start := time.Now()
			if err := f.fill(ctx); err != nil {
				return fmt.Errorf("fill: %w", err)
			}
			fmt.Fprintf(os.Stderr, "%d things in %v\n", n, time.Since(start).Round(time.Second))
			if err := os.WriteFile(filled, nil, 0o600); err != nil {
				return err
			}
		}
		fleets = append(fleets, f)
	}
	out := json.NewEncoder(os.Stdout)
	print := func(what, unit string, took [][]float64) {
		r := result{What: what, Store: "sqlite", Unit: unit}
		if url != "sqlite" {
			r.Store = "postgres"
		}
		for i, f := range fleets {
			slices.Sort(took[i])
			r.Sizes, r.Each = append(r.Sizes, f.n), append(r.Each, took[i][len(took[i])/2])
		}
		r.Ratio = r.Each[len(r.Each)-1] / r.Each[0]
		_ = out.Encode(r)
	}
	if err := operations(ctx, fleets, wanted, reps, runs, print); err != nil || only != "" {
		return err
	}
	return servers(ctx, fleets, reps, print)
}

// database makes a database for n things on a PostgreSQL server and gives its URL.
func database(ctx context.Context, server string, n int) (string, error) {
	if server == "sqlite" {
		return server, nil
	}
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	name := fmt.Sprintf("things_%d", n)
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", err
	}
	u.Path = "/" + name
	return u.String(), nil
}
