package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"golang.org/x/sync/errgroup"

	"flotilla/internal/mqtt/client"
)

const (
	updaters       = 64
	updatesASecond = 1000
	getters        = 4
	getsASecond    = 200
	answerTime     = 30 * time.Second
	acceptedGets   = "$aws/things/+/shadow/get/accepted"
)

// device is a connection that asks for shadows of any thing, one request at a time.
type device struct {
	*client.Client
	token  string
	answer chan struct{}
	wanted atomic.Pointer[string]
}

// device connects the i-th of a kind; it hears what the filters that it subscribes to bring, and waits for its own token.
func (b *bench) device(ctx context.Context, kind string, i int) (*device, error) {
	if _, err := b.iot.CreatePolicy(ctx, &iot.CreatePolicyInput{
		PolicyName: new("bench"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`),
	}); err != nil && !errors.As(err, new(*types.ResourceAlreadyExistsException)) {
		return nil, err
	}
	d := &device{token: fmt.Sprint(kind, "-", i, "-"), answer: make(chan struct{}, 1)}
	var err error
	d.Client, err = client.Dial(ctx, client.Config{Addr: b.Endpoints.MQTTPlain, ClientID: fmt.Sprint(kind, i), CleanStart: true, OnMessage: func(m client.Message) {
		if w := d.wanted.Load(); w != nil && strings.Contains(string(m.Payload), *w) {
			d.wanted.Store(nil)
			d.answer <- struct{}{}
		}
	}})
	return d, err
}

// wait waits for the answer that has the token.
func (d *device) wait() error {
	t := time.NewTimer(answerTime)
	defer t.Stop()
	select {
	case <-d.answer:
		return nil
	case <-d.Done():
		return d.Err()
	case <-t.C:
		return errors.New("no answer")
	}
}

// update changes a shadow and waits until it is accepted.
func (d *device) update(ctx context.Context, thing, payload string) error {
	topic := "$aws/things/" + thing + "/shadow/update"
	if err := d.Subscribe(ctx, 0, topic+"/accepted"); err != nil {
		return err
	}
	token := fmt.Sprintf(`"%s%s"`, d.token, thing)
	d.wanted.Store(&token)
	if err := d.Publish(ctx, topic, []byte(strings.TrimSuffix(payload, "}")+`,"clientToken":`+token+`}`), 0); err != nil {
		return err
	}
	return d.wait()
}

// shadows reads shadows of things at random while as many are updated.
func (b *bench) shadows(ctx context.Context, duration time.Duration) error {
	var updated, late atomic.Int64
	end := time.Now().Add(duration)
	g, ctx := errgroup.WithContext(ctx)
	for i := range updaters {
		d, err := b.device(ctx, "updater", i)
		if err != nil {
			return err
		}
		defer d.Disconnect()
		g.Go(func() error {
			interval := time.Second * updaters / updatesASecond
			return paced(end, interval, interval*time.Duration(i)/updaters, &late, func(n int, _ time.Time) error {
				k := n*updaters + i
				updated.Add(1)
				return d.update(ctx, thing(mix(k, 50, b.things)), fmt.Sprintf(`{"state":{"reported":{"battery":%d,"uptime":%d}}}`, mix(k, 51, 101), k))
			})
		})
	}
	var mu sync.Mutex
	var took []time.Duration
	for i := range getters {
		d, err := b.device(ctx, "getter", i)
		if err != nil {
			return err
		}
		defer d.Disconnect()
		if err := d.Subscribe(ctx, 0, acceptedGets); err != nil {
			return err
		}
		g.Go(func() error {
			interval := time.Second * getters / getsASecond
			return paced(end, interval, interval*time.Duration(i)/getters, &late, func(n int, due time.Time) error {
				token := fmt.Sprintf(`"%s%d"`, d.token, n)
				d.wanted.Store(&token)
				if err := d.Publish(ctx, "$aws/things/"+thing(mix(n*getters+i, 52, b.things))+"/shadow/get", []byte(`{"clientToken":`+token+`}`), 0); err != nil {
					return err
				}
				if err := d.wait(); err != nil {
					return err
				}
				mu.Lock()
				took = append(took, time.Since(due))
				mu.Unlock()
				return nil
			})
		})
	}
	used, err := b.CPU()
	if err != nil {
		return err
	}
	if err := g.Wait(); err != nil {
		return err
	}
	after, err := b.CPU()
	if err != nil {
		return err
	}
	b.print("shadow get while shadows are updated", took, fmt.Sprintf("%.0f updates/s accepted, %d requests late, %.2f cores of the server",
		float64(updated.Load())/duration.Seconds(), late.Load(), (after-used).Seconds()/duration.Seconds()))
	return b.caughtUp(context.WithoutCancel(ctx))
}

// paced calls fn once an interval until end, begun after a while, and tells it when it was due; late counts calls that
// began more than an interval after that.
func paced(end time.Time, interval, after time.Duration, late *atomic.Int64, fn func(n int, due time.Time) error) error {
	next := time.Now().Add(after)
	for n := 0; next.Before(end); n++ {
		if wait := time.Until(next); wait > 0 {
			time.Sleep(wait)
		} else if -wait > interval {
			late.Add(1)
		}
		if err := fn(n, next); err != nil {
			return err
		}
		next = next.Add(interval)
	}
	return nil
}

// caughtUp waits until the index has a change that was made now, after all the others.
func (b *bench) caughtUp(ctx context.Context) error {
	d, err := b.device(ctx, "last", 0)
	if err != nil {
		return err
	}
	defer d.Disconnect()
	mark := fmt.Sprint("mark", time.Now().UnixNano())
	began := time.Now()
	if err := d.update(ctx, thing(0), fmt.Sprintf(`{"state":{"reported":{"mark":"%s"}}}`, mark)); err != nil {
		return err
	}
	for {
		out, err := b.iot.SearchIndex(ctx, &iot.SearchIndexInput{QueryString: new("shadow.reported.mark:" + mark)})
		if err != nil {
			return err
		}
		if len(out.Things) == 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.print("after that, until the index has a new value", []time.Duration{time.Since(began)}, "")
	return nil
}
