package iam

import (
	"context"
	"time"

	"flotilla/internal/store"
)

// Run makes keys inactive whose time is over, and writes down when keys were last
// used, until ctx ends. Each node runs it.
func (k *Keys) Run(ctx context.Context) {
	flush := time.NewTicker(k.cfg.LastUsedInterval)
	defer flush.Stop()
	for {
		wait, err := k.expire(ctx)
		if err != nil && ctx.Err() == nil {
			k.log.Error("access keys can't be looked through", "err", err)
			wait = time.Minute
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			k.writeUses(last)
			return
		case <-k.wake:
		case <-timer.C:
		case <-flush.C:
			k.writeUses(ctx)
		}
		timer.Stop()
	}
}

// expire makes expired keys inactive and says how long to wait for the next.
func (k *Keys) expire(ctx context.Context) (time.Duration, error) {
	var over []string
	var next time.Time
	err := k.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		if over, err = selectExpired(tx, k.now()); err == nil {
			next, err = selectNextExpiry(tx)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, id := range over {
		if err := k.SetStatus(ctx, id, Inactive); err != nil {
			return 0, err
		}
	}
	if next.IsZero() {
		return time.Hour, nil
	}
	return max(next.Sub(k.now()), 10*time.Millisecond), nil
}

// touch remembers that a key was used; Run writes it.
func (k *Keys) touch(id string) {
	if c, _ := k.cache.get(id); c != nil {
		c.used.Store(k.now().UnixMilli())
	}
}

func (k *Keys) writeUses(ctx context.Context) {
	uses := k.cache.uses()
	if len(uses) == 0 {
		return
	}
	err := k.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		for id, at := range uses {
			if err := updateLastUsed(tx, id, at); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		k.log.Error("the last use of access keys can't be written", "err", err)
	}
}
