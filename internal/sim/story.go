package sim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"flotilla/internal/mqtt/client"
	"flotilla/internal/telemetry"
)

// Story is one run of everything that the system is for.
type Story struct {
	Cloud *Cloud
	Names Names
	// Addr is the device gateway's host:port, NATSURL where streams are read.
	Addr, NATSURL string
	Roots         *x509.CertPool
	// ArchiveDir is the directory under which the run's Parquet files appear.
	ArchiveDir string
	// Devices is the size of the fleet, Messages how many readings each sends.
	Devices, Messages int
	// Parallel is how many devices provision at once.
	Parallel int
	// Progress is told of each step done; it may be called from many goroutines.
	Progress func(step string, done, of int)
}

// Summary is what a story came to. Times are in milliseconds.
type Summary struct {
	Run               string   `json:"run"`
	Devices           int      `json:"devices"`
	Provisioned       int      `json:"provisioned"`
	WithOwnKey        int      `json:"provisionedByCsr"`
	Published         int      `json:"messagesPublished"`
	Streamed          int      `json:"messagesStreamed"`
	Alerts            int      `json:"alertsExpected"`
	AlertsRepublished int      `json:"alertsRepublished"`
	AlertsNotified    int      `json:"alertsNotified"`
	Archived          int      `json:"messagesArchived"`
	ArchiveFiles      []string `json:"archiveFiles"`
	Configured        int      `json:"configurationsApplied"`
	ShadowP50         float64  `json:"shadowRoundTripP50Ms"`
	ShadowP99         float64  `json:"shadowRoundTripP99Ms"`
	ProvisionPerSec   float64  `json:"provisionedPerSecond"`
	PublishPerSec     float64  `json:"publishedPerSecond"`
	Seconds           float64  `json:"seconds"`
}

// Check returns what does not add up, in one sentence, or nil.
func (s *Summary) Check() error {
	for _, c := range []struct {
		what      string
		got, want int
	}{
		{"devices were provisioned", s.Provisioned, s.Devices},
		{"messages reached the stream", s.Streamed, s.Published},
		{"messages were archived", s.Archived, s.Published},
		{"alerts were republished", s.AlertsRepublished, s.Alerts},
		{"alerts reached the topic", s.AlertsNotified, s.Alerts},
		{"configurations were applied", s.Configured, s.Devices},
	} {
		if c.got != c.want {
			return fmt.Errorf("%d %s, %d should have been", c.got, c.what, c.want)
		}
	}
	return nil
}

// Run plays the story. An error says what went wrong first; the summary says how
// far it came.
func (st *Story) Run(ctx context.Context) (*Summary, error) {
	start := time.Now()
	s := &Summary{Run: st.Names.Run, Devices: st.Devices}
	defer func() { s.Seconds = time.Since(start).Seconds() }()

	claimCert, err := st.Cloud.SetUp(ctx, st.Names)
	if err != nil {
		return s, err
	}
	claim := Claim{Addr: st.Addr, Roots: st.Roots, Certificate: claimCert, Template: st.Names.Template}
	operator, alerts, err := st.operator(ctx)
	if err != nil {
		return s, err
	}
	defer operator.Disconnect()

	devices, err := st.provision(ctx, claim, s)
	if err != nil {
		return s, err
	}
	defer func() {
		for _, d := range devices {
			d.Close()
		}
	}()
	if err := st.telemetry(ctx, devices, s); err != nil {
		return s, err
	}
	if err := st.configure(ctx, devices, s); err != nil {
		return s, err
	}
	return s, st.settle(ctx, s, alerts)
}

// operator connects a client that counts the alerts.
func (st *Story) operator(ctx context.Context) (*client.Client, *atomic.Int64, error) {
	cert, err := st.Cloud.Operator(ctx, st.Names)
	if err != nil {
		return nil, nil, err
	}
	var alerts atomic.Int64
	c, err := client.Dial(ctx, client.Config{
		Addr: st.Addr, ClientID: "operator-" + st.Names.Run, CleanStart: true,
		TLS:       &tls.Config{RootCAs: st.Roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		OnMessage: func(client.Message) { alerts.Add(1) },
	})
	if err != nil {
		return nil, nil, fmt.Errorf("operator: %w", err)
	}
	if err := c.Subscribe(ctx, 1, st.Names.alertTopic("+")); err != nil {
		c.Disconnect()
		return nil, nil, fmt.Errorf("operator: %w", err)
	}
	return c, &alerts, nil
}

func (st *Story) group(ctx context.Context) (*errgroup.Group, context.Context) {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, st.Parallel))
	return g, gctx
}

func (st *Story) provision(ctx context.Context, claim Claim, s *Summary) ([]*Device, error) {
	start := time.Now()
	devices := make([]*Device, st.Devices)
	var done, own atomic.Int64
	g, gctx := st.group(ctx)
	for i := range devices {
		d := &Device{Serial: fmt.Sprintf("SN%05d", i+1), OwnKey: i%2 == 1}
		devices[i] = d
		g.Go(func() error {
			dctx, cancel := context.WithTimeout(gctx, time.Minute)
			defer cancel()
			if err := d.Provision(dctx, claim); err != nil {
				return err
			}
			if d.OwnKey {
				own.Add(1)
			}
			if err := d.Connect(dctx, claim); err != nil {
				return err
			}
			st.Progress("provision", int(done.Add(1)), st.Devices)
			return nil
		})
	}
	err := g.Wait()
	s.WithOwnKey = int(own.Load())
	s.ProvisionPerSec = float64(done.Load()) / time.Since(start).Seconds()
	if err != nil {
		s.Provisioned = int(done.Load())
		return devices, err
	}
	// What the devices believe is checked against what the registry has.
	s.Provisioned, err = st.Cloud.Things(ctx, st.Names.Run)
	return devices, err
}

func (st *Story) telemetry(ctx context.Context, devices []*Device, s *Summary) error {
	start := time.Now()
	total := len(devices) * st.Messages
	var done, hot atomic.Int64
	g, gctx := errgroup.WithContext(ctx) // all devices at once, as a fleet does
	for _, d := range devices {
		g.Go(func() error {
			n, err := d.Telemetry(gctx, st.Names.telemetryTopic(d.thing), st.Messages, func() {
				st.Progress("telemetry", int(done.Add(1)), total)
			})
			hot.Add(int64(n))
			return err
		})
	}
	err := g.Wait()
	s.Published, s.Alerts = int(done.Load()), int(hot.Load())
	s.PublishPerSec = float64(s.Published) / time.Since(start).Seconds()
	return err
}

// configure changes every device's desired state and measures how long it takes
// until the service has accepted the device's report.
func (st *Story) configure(ctx context.Context, devices []*Device, s *Summary) error {
	trips := make([]time.Duration, len(devices))
	var done atomic.Int64
	g, gctx := st.group(ctx)
	for i, d := range devices {
		g.Go(func() error {
			dctx, cancel := context.WithTimeout(gctx, 30*time.Second)
			defer cancel()
			start := time.Now()
			if err := st.Cloud.Configure(dctx, d.thing, map[string]any{"intervalSeconds": 30 + i%30, "mode": "eco"}); err != nil {
				return err
			}
			if err := d.Follow(dctx); err != nil {
				return err
			}
			trips[i] = time.Since(start)
			if err := st.Cloud.Applied(dctx, d.thing); err != nil {
				return err
			}
			st.Progress("configure", int(done.Add(1)), len(devices))
			return nil
		})
	}
	err := g.Wait()
	s.Configured = int(done.Load())
	if err != nil {
		return err
	}
	slices.Sort(trips)
	s.ShadowP50, s.ShadowP99 = milliseconds(quantile(trips, 0.50)), milliseconds(quantile(trips, 0.99))
	return nil
}

// quantile of sorted durations, by the nearest rank.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// settle waits until what was acknowledged has reached its destinations, for at
// most a minute, and counts it there.
func (st *Story) settle(ctx context.Context, s *Summary, alerts *atomic.Int64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	nc, err := nats.Connect(st.NATSURL, nats.Name("flotilla quickstart"))
	if err != nil {
		return fmt.Errorf("read the streams: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("read the streams: %w", err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if s.Streamed, err = streamed(ctx, js, st.Names.Stream); err != nil {
			return err
		}
		if s.AlertsNotified, err = streamed(ctx, js, st.Names.Topic); err != nil {
			return err
		}
		s.AlertsRepublished = int(alerts.Load())
		if s.ArchiveFiles, s.Archived, err = telemetry.CountRows(st.ArchiveDir); err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		st.Progress("settle", s.Archived, s.Published)
		if s.Check() == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return s.Check()
		case <-tick.C:
		}
	}
}

// streamed counts the messages of a stream; none when it does not exist yet.
func streamed(ctx context.Context, js jetstream.JetStream, name string) (int, error) {
	stream, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", name, err)
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", name, err)
	}
	return int(info.State.Msgs), nil
}
