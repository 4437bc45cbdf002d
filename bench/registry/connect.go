package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"flotilla/bench/target"
	"flotilla/internal/mqtt/client"
)

// servers starts a server on each fleet's store, in turns: how long until it is ready, what it then has resident, and
// what the first connect of each known device costs it.
func servers(ctx context.Context, fleets []*fleet, reps int, print func(string, string, [][]float64)) error {
	started, resident, cost := make([][]float64, len(fleets)), make([][]float64, len(fleets)), make([][]float64, len(fleets))
	for range reps {
		for i, f := range fleets {
			s, err := target.StartAt(ctx, f.cfg.Dir, "--store", f.cfg.Store)
			if err != nil {
				return err
			}
			started[i] = append(started[i], s.StartUp.Seconds())
			rss, err := s.RSS()
			if err != nil {
				return err
			}
			resident[i] = append(resident[i], float64(rss)/(1<<20))
			d, err := connects(ctx, s, f)
			if err == nil {
				err = s.Stop()
			}
			if err != nil {
				return err
			}
			cost[i] = append(cost[i], float64(d.Microseconds())/1000/float64(len(f.known)))
		}
	}
	print("start-up", "s", started)
	print("resident after start-up", "MiB", resident)
	print("first connect of a device, server CPU", "ms", cost)
	return nil
}

// connects has every known device connect once, and gives the server's CPU for all.
func connects(ctx context.Context, s *target.Server, f *fleet) (time.Duration, error) {
	pem, err := os.ReadFile(filepath.Join(s.Dir, "ca", "root.pem"))
	if err != nil {
		return 0, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	before, err := s.CPU()
	if err != nil {
		return 0, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range f.known {
		g.Go(func() error {
			name := thingName(f.at(i))
			c, err := client.Dial(ctx, client.Config{Addr: s.Endpoints.MQTT, ClientID: name, CleanStart: true, TLS: &tls.Config{
				RootCAs: roots, ServerName: "localhost", Certificates: f.known[i : i+1],
			}})
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			c.Disconnect()
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	after, err := s.CPU()
	return after - before, err
}
