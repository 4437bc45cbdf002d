package sim

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"flotilla/internal/mqtt/client"
)

// witness subscribes to what some devices publish, with a session that outlives its connection.
type witness struct {
	fleet *Fleet
	shard int
	cert  tls.Certificate
}

// listen starts the witnesses, and returns when all of them are subscribed.
func (f *Fleet) listen(ctx context.Context, g *errgroup.Group, cert tls.Certificate) error {
	for shard := range (len(f.members) + perWitness - 1) / perWitness {
		w := &witness{f, shard, cert}
		c, err := w.connect(ctx, true)
		if err != nil {
			return fmt.Errorf("witness: %w", err)
		}
		g.Go(func() error {
			w.stay(ctx, c)
			return nil
		})
	}
	return nil
}

func (w *witness) connect(ctx context.Context, clean bool) (*client.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := client.Dial(ctx, client.Config{
		Addr: w.fleet.Addr, ClientID: w.fleet.prefix() + "-witness-" + strconv.Itoa(w.shard),
		CleanStart: clean, SessionExpiry: 3600,
		TLS:       &tls.Config{RootCAs: w.fleet.Roots, Certificates: []tls.Certificate{w.cert}, MinVersion: tls.VersionTLS12},
		OnMessage: w.deliver,
	})
	if err != nil {
		return nil, err
	}
	if !c.SessionPresent() {
		if err := c.Subscribe(ctx, 1, w.fleet.shardTopic(w.shard)+"/+"); err != nil {
			c.Disconnect()
			return nil, err
		}
	}
	return c, nil
}

// stay keeps the witness connected until ctx ends.
func (w *witness) stay(ctx context.Context, c *client.Client) {
	for {
		select {
		case <-ctx.Done():
			c.Disconnect()
			return
		case <-c.Done():
			w.fleet.stats.lose(fmt.Errorf("witness: %w", c.Err()))
		}
		for {
			pause(ctx, time.Second)
			if ctx.Err() != nil {
				return
			}
			var err error
			if c, err = w.connect(ctx, false); err == nil {
				if !c.SessionPresent() {
					w.fleet.stats.sessionsLost.Add(1)
				}
				break
			}
		}
	}
}

// deliver notes the reading that arrived.
func (w *witness) deliver(msg client.Message) {
	f := w.fleet
	_, number, _ := strings.Cut(msg.Topic, f.shardTopic(w.shard)+"/sim-"+f.Run+"-")
	n, err := strconv.Atoi(number)
	var body struct{ Sequence *int }
	if err != nil || n < 0 || n >= len(f.members) || json.Unmarshal(msg.Payload, &body) != nil || body.Sequence == nil {
		f.stats.strange.Add(1)
		return
	}
	if f.members[n].seen.add(*body.Sequence) {
		f.stats.arrived.Add(1)
	} else {
		f.stats.repeated.Add(1)
	}
}
