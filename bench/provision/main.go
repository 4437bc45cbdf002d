// Command provision measures the whole claim flow: connect with the claim
// certificate over mutual TLS, get a certificate, register, reconnect as oneself.
//
//	go run ./bench/provision [-devices 2000] [-parallel 100] [-reps 5] [-store URL]
//
// It starts a server of its own for each repetition and prints a JSON line:
// devices a second, server CPU per device, latency of a device's whole flow, and the
// floor: what a bare TLS server needs for a device's two handshakes, with one
// signature. The devices' own work is part of what the machine does meanwhile.
package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"flotilla/bench/target"
	"flotilla/internal/server"
	"flotilla/internal/sim"
)

type result struct {
	Devices   int     `json:"devices"`
	Parallel  int     `json:"parallel"`
	PerSecond float64 `json:"devices_s"`
	ServerCPU float64 `json:"srv_ms_device"`
	Floor     float64 `json:"floor_ms_device"` // CPU of two mutual handshakes and a signature
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
}

func main() {
	devices := flag.Int("devices", 2000, "devices")
	parallel := flag.Int("parallel", 100, "devices at a time")
	reps := flag.Int("reps", 5, "repetitions")
	store := flag.String("store", "sqlite", "store of the server")
	bare := flag.String("bare", "", "only serve bare TLS with the certificate and key in this file, which the benchmark has a process of its own do")
	flag.Parse()
	if *bare != "" {
		fmt.Fprintln(os.Stderr, "provision:", serveBare(*bare))
		os.Exit(1)
	}
	for range *reps {
		r, err := run(context.Background(), *devices, *parallel, *store)
		if err != nil {
			fmt.Fprintln(os.Stderr, "provision:", err)
			os.Exit(1)
		}
		_ = json.NewEncoder(os.Stdout).Encode(r)
	}
}

func run(ctx context.Context, devices, parallel int, store string) (r *result, err error) {
	s, err := target.Start(ctx, "--store", store)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	access, secret, err := server.ReadCredentials(filepath.Join(s.Dir, "credentials"))
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(filepath.Join(s.Dir, "ca", "root.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	names := sim.NamesOf("bench")
	cert, err := sim.NewCloud(s.Endpoints.API, "us-east-1", access, secret).SetUp(ctx, names)
	if err != nil {
		return nil, err
	}
	claim := sim.Claim{Addr: s.Endpoints.MQTT, Roots: roots, Certificate: cert, Template: names.Template}
	before, err := s.CPU()
	if err != nil {
		return nil, err
	}
	took := make([]time.Duration, devices)
	fleet := make([]*sim.Device, devices)
	start := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i := range devices {
		g.Go(func() error {
			begin := time.Now()
			d := &sim.Device{Serial: fmt.Sprintf("SN%06d", i), OwnKey: i%2 == 1}
			fleet[i] = d
			err := d.Provision(gctx, claim)
			if err == nil {
				err = d.Connect(gctx, claim)
			}
			took[i] = time.Since(begin)
			return err
		})
	}
	err = g.Wait()
	elapsed := time.Since(start)
	after, cerr := s.CPU()
	for _, d := range fleet {
		if d != nil {
			d.Close()
		}
	}
	if err = errors.Join(err, cerr); err != nil {
		return nil, err
	}
	bare, err := floor(ctx, 2*devices, parallel, cert)
	if err != nil {
		return nil, err
	}
	slices.Sort(took)
	ms := func(q float64) float64 {
		return float64(took[min(devices-1, int(q*float64(devices)))].Microseconds()) / 1000
	}
	return &result{
		Devices: devices, Parallel: parallel, PerSecond: float64(devices) / elapsed.Seconds(),
		ServerCPU: float64((after - before).Microseconds()) / 1000 / float64(devices),
		Floor:     float64(bare.Microseconds()) / 1000 / float64(devices), P50: ms(0.5), P99: ms(0.99),
	}, nil
}
