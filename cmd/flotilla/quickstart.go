package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"flotilla/internal/server"
	"flotilla/internal/sim"
)

type quickstartCmd struct {
	Data     string `name:"data" default:"./flotilla-quickstart" placeholder:"DIR" help:"Data directory; made when missing, and may be used again."`
	Devices  int    `name:"devices" default:"25" help:"Simulated devices, 1 to 5000."`
	Messages int    `name:"messages" default:"40" help:"Readings that each device publishes, 1 to 100000."`
	Keep     bool   `name:"keep" help:"Leave the server running after the story, until interrupted."`
	Store    string `name:"store" default:"sqlite" help:"Where state is kept: sqlite, or a postgres:// URL."`
	NATS     string `name:"nats" help:"External NATS instead of the embedded one."`
	MQTTAddr string `name:"mqtt-addr" default:"127.0.0.1:0" help:"Device gateway; port 0 picks a free one."`
	HTTPS    string `name:"https-addr" default:"127.0.0.1:0" help:"Device HTTPS."`
	APIAddr  string `name:"api-addr" default:"127.0.0.1:0" help:"AWS APIs."`
	NATSAddr string `name:"nats-addr" default:"127.0.0.1:0" help:"Embedded NATS."`
	JSON     bool   `name:"json" help:"Print the summary as JSON."`
}

func (c *quickstartCmd) Help() string {
	return "Example:\n\n  flotilla quickstart --devices 100 --keep\n\n" +
		"Starts a server with everything embedded, provisions a fleet of simulated devices by claim over mutual TLS,\n" +
		"has them send telemetry through a rule to a stream, alerts and a Parquet archive, changes their configuration\n" +
		"through the shadow, and checks that every count adds up.\n"
}

func (c *quickstartCmd) Validate() error {
	if c.Devices < 1 || c.Devices > 5000 {
		return errors.New("--devices takes 1 to 5000")
	}
	if c.Messages < 1 || c.Messages > 100000 {
		return errors.New("--messages takes 1 to 100000")
	}
	return nil
}

func (c *quickstartCmd) Run(s *streams) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// Warnings and errors only: the story tells what happens.
	log := slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelError}))
	cfg := server.DefaultConfig()
	cfg.Data = c.Data
	cfg.MQTTAddr, cfg.HTTPSAddr, cfg.APIAddr = c.MQTTAddr, c.HTTPS, c.APIAddr
	cfg.Bus.NATSAddr, cfg.Bus.NATS, cfg.Store.Store = c.NATSAddr, c.NATS, c.Store
	cfg.Rules.FirehoseInterval = time.Second // the archive of a short story need not wait a minute
	srv, err := server.Start(ctx, cfg, log)
	if err != nil {
		return err
	}
	bar := newProgress(s.err)
	summary, err := c.story(ctx, srv, bar)
	bar.end()
	if err == nil {
		err = summary.Check()
	}
	if summary != nil {
		if perr := c.print(s.out, srv, summary); err == nil {
			err = perr
		}
	}
	if err == nil && c.Keep {
		fmt.Fprintln(s.err, "The server goes on until you press ctrl-c.")
		select {
		case <-ctx.Done():
		case err = <-srv.Failed():
		}
	}
	if cerr := srv.Close(); err == nil {
		err = cerr
	}
	return err
}

func (c *quickstartCmd) story(ctx context.Context, srv *server.Server, bar *progress) (*sim.Summary, error) {
	e := srv.Endpoints()
	roots, err := readRoots(filepath.Join(c.Data, "ca", "root.pem"))
	if err != nil {
		return nil, err
	}
	access, secret, err := server.ReadCredentials(filepath.Join(c.Data, "credentials"))
	if err != nil {
		return nil, err
	}
	names := sim.NamesOf(time.Now().UTC().Format("20060102150405"))
	story := &sim.Story{
		Cloud: sim.NewCloud(e.API, srv.Account().Region, access, secret),
		Names: names, Addr: e.MQTT, NATSURL: e.NATS, Roots: roots,
		ArchiveDir: filepath.Join(c.Data, "archive", names.Archive),
		Devices:    c.Devices, Messages: c.Messages, Parallel: 16,
		Progress: bar.step,
	}
	return story.Run(ctx)
}

func (c *quickstartCmd) print(w io.Writer, srv *server.Server, s *sim.Summary) error {
	e := srv.Endpoints()
	if c.JSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(map[string]any{
			"summary": s, "data": c.Data, "endpoints": map[string]string{"mqtt": e.MQTT, "https": e.HTTPS, "api": e.API},
		})
	}
	next := "  go run ./cmd/flotilla serve --data " + c.Data + "\n"
	api := "http://127.0.0.1:8080"
	if c.Keep {
		next, api = "", e.API
	}
	_, err := fmt.Fprintf(w, `
Fleet      %d devices provisioned by claim over mutual TLS, %d of them with a key of their own (CSR); %.0f a second
Telemetry  %d messages published at QoS 1 and acknowledged; %.0f a second
Rules      %d to the stream, %d archived as Parquet (%d files), %d alerts notified, %d republished
Shadow     %d configurations applied; round trip p50 %.1f ms, p99 %.1f ms
Time       %.1f s

Files      %s
           archive/   Parquet      objects/   objects      flotilla.db   all state
           ca/root.pem   what devices trust      credentials   the admin key for AWS SDKs and CLI

Next
%s  export AWS_ENDPOINT_URL=%s AWS_REGION=%s AWS_SHARED_CREDENTIALS_FILE=%s
  aws iot list-things --attribute-name run --attribute-value %s
`,
		s.Provisioned, s.WithOwnKey, s.ProvisionPerSec, s.Published, s.PublishPerSec,
		s.Streamed, s.Archived, len(s.ArchiveFiles), s.AlertsNotified, s.AlertsRepublished,
		s.Configured, s.ShadowP50, s.ShadowP99, s.Seconds, c.Data,
		next, api, srv.Account().Region, filepath.Join(c.Data, "credentials"), s.Run)
	return err
}

// progress draws one bar, on a terminal only.
type progress struct {
	mu   sync.Mutex
	w    io.Writer
	on   bool
	last time.Time
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	if !ok {
		return &progress{}
	}
	info, err := f.Stat()
	return &progress{w: w, on: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

func (p *progress) step(name string, done, of int) {
	if !p.on || of == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if done < of && time.Since(p.last) < 50*time.Millisecond {
		return
	}
	p.last = time.Now()
	full := 30 * done / of
	fmt.Fprintf(p.w, "\r\x1b[K%-10s [%s%s] %d/%d", name, strings.Repeat("=", full), strings.Repeat(" ", max(0, 30-full)), done, of)
	if done >= of {
		fmt.Fprintln(p.w)
	}
}

// line shows text in the place of the bar.
func (p *progress) line(text string) {
	if !p.on {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "\r\x1b[K%s", text)
}

func (p *progress) end() {
	if p.on {
		p.mu.Lock()
		defer p.mu.Unlock()
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
