package account

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

const (
	// fresh is how soon a change of the event configurations is followed.
	fresh = time.Second
	// atOnce is how many events are published before they are deleted together.
	atOnce = 64
	// publishTime bounds publishing one.
	publishTime = 10 * time.Second
	// retryAfter is how long a node waits after it could not publish.
	retryAfter = time.Second
	// keptBackFor is how long an event is waited with that can't be kept for all who are owed it.
	keptBackFor = time.Minute
	// orphanedAfter is when a node is thought not to publish its events any more.
	orphanedAfter = time.Minute
)

// Publisher takes events.
type Publisher interface {
	// Publish returns once the message is kept for all who are owed it.
	Publish(context.Context, *mqtt.Message) error
}

// Enabled tells whether events of a type, one of iot.EventType..., are published. The store is asked at most once a
// second, by one caller for all: others go by what is known. What can't be read is as it was.
func (a *Account) Enabled(ctx context.Context, eventType string) bool {
	if now := a.Now().UnixMilli(); now-a.read.Load() >= fresh.Milliseconds() && a.reading.TryLock() {
		a.read.Store(now)
		err := a.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
			e, err := selectEvents(tx)
			if err == nil {
				a.enabled.Store(&e.Enabled)
			}
			return err
		})
		a.reading.Unlock()
		if err != nil {
			a.Log.Warn("the event configurations can't be read", "err", err)
		}
	}
	on := a.enabled.Load()
	return on != nil && slices.Contains(*on, eventType)
}

// Emit publishes an event, a JSON document, at least once after the Write in ctx has committed, also when this node ends
// meanwhile; see deliver for what can't be. Where Deps.MaxEvents of this node wait to be published it is dropped instead, and counted.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-events.html
func (a *Account) Emit(ctx context.Context, topic string, payload []byte) error {
	if a.waiting.Load() >= int64(a.MaxEvents) {
		a.dropped.Inc()
		return nil
	}
	return a.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		_, err := tx.Exec(`INSERT INTO account_event (id, node, at, topic, payload) VALUES ($1, $2, $3, $4, $5)`,
			a.DB.NextID(), a.NodeID, a.Now().UnixMilli(), topic, payload)
		if err != nil {
			return err
		}
		a.DB.AfterCommit(ctx, func() {
			a.waiting.Add(1)
			select {
			case a.wake <- struct{}{}:
			default:
			}
		})
		return nil
	})
}

// Run publishes events until ctx ends: this node's, and on the node that leads those of nodes that are gone.
func (a *Account) Run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.DB.Lead(ctx, "events", a.adopt)
	}()
	defer func() { <-done }()
	for {
		if err := a.publish(ctx); err != nil && ctx.Err() == nil {
			a.Log.Warn("events can't be published yet", "err", err)
			if !pause(ctx, retryAfter) {
				return
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// outEvent is a row of account_event.
type outEvent struct {
	id, at  int64
	topic   string
	payload []byte
}

// publish publishes what waits on this node, in the order in which it happened here.
func (a *Account) publish(ctx context.Context) error {
	for {
		var list []outEvent
		err := a.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
			list = list[:0]
			rows, err := tx.Query(`SELECT id, at, topic, payload FROM account_event WHERE node = $1 ORDER BY id LIMIT $2`, a.NodeID, atOnce)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var e outEvent
				if err := rows.Scan(&e.id, &e.at, &e.topic, &e.payload); err != nil {
					return err
				}
				e.payload = bytes.Clone(e.payload)
				list = append(list, e)
			}
			return rows.Err()
		})
		if err != nil || len(list) == 0 {
			return err
		}
		var failed error
		for i, e := range list {
			if failed = a.deliver(ctx, e); failed != nil {
				list = list[:i]
				break
			}
		}
		err = a.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
			for _, e := range list {
				if _, err := tx.Exec(`DELETE FROM account_event WHERE id = $1`, e.id); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			a.published(len(list))
			err = failed
		}
		if err != nil {
			return err
		}
	}
}

// published takes events off the count; those of before a restart were never on it.
func (a *Account) published(n int) {
	for {
		was := a.waiting.Load()
		if a.waiting.CompareAndSwap(was, max(0, was-int64(n))) {
			return
		}
	}
}

// deliver publishes an event. One that never can be, or that a queue has had no room for a minute for, must not keep back
// all that follow: the former is dropped, the latter goes to who is connected alone. Both are counted.
func (a *Account) deliver(ctx context.Context, e outEvent) error {
	err := a.publishOne(ctx, e, 1)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, mqtt.TopicNameInvalid):
		a.Log.Warn("an event has a topic that no message can have", "topic", e.topic, "err", err)
	case ctx.Err() != nil || a.Now().UnixMilli()-e.at < keptBackFor.Milliseconds() || a.publishOne(ctx, e, 0) != nil:
		return err
	}
	a.dropped.Inc()
	return nil
}

func (a *Account) publishOne(ctx context.Context, e outEvent, qos byte) error {
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	return a.Publisher.Publish(ctx, &mqtt.Message{Topic: e.topic, Payload: e.payload, QoS: qos, Received: time.UnixMilli(e.at)})
}

// adopt takes over events that their node has not published for long.
func (a *Account) adopt(ctx context.Context) {
	for {
		err := a.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
			n, err := tx.Exec(`UPDATE account_event SET node = $1 WHERE node <> $1 AND at < $2`, a.NodeID, a.Now().Add(-orphanedAfter).UnixMilli())
			if n > 0 {
				a.DB.AfterCommit(ctx, func() {
					a.waiting.Add(n)
					select {
					case a.wake <- struct{}{}:
					default:
					}
				})
			}
			return err
		})
		if err != nil && ctx.Err() == nil {
			a.Log.Warn("events of other nodes can't be taken over", "err", err)
		}
		if !pause(ctx, orphanedAfter/4) {
			return
		}
	}
}

// Published are the event types that rooms of this build emit.
var Published = []string{
	iot.EventTypeThing, iot.EventTypeThingGroup, iot.EventTypeThingType, iot.EventTypeThingGroupMembership,
	iot.EventTypeThingGroupHierarchy, iot.EventTypeThingTypeAssociation, iot.EventTypeJob, iot.EventTypeJobExecution,
}
