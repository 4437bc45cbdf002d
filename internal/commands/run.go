package commands

import (
	"context"
	"errors"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

const (
	batch      = 100
	lookAfter  = 500 * time.Millisecond // how late an execution of another node may time out
	sweepAfter = time.Minute
)

// Run lets executions time out and deletes what is to be deleted, on one node at a time, until ctx ends.
func (c *Commands) Run(ctx context.Context) { c.DB.Lead(ctx, "commands", c.lead) }

func (c *Commands) lead(ctx context.Context) {
	tick := time.NewTicker(lookAfter)
	defer tick.Stop()
	swept := time.Time{}
	for {
		err := c.timeOut(ctx)
		if time.Since(swept) >= sweepAfter {
			err = errors.Join(err, c.sweep(ctx))
			swept = time.Now()
		}
		if err != nil && ctx.Err() == nil {
			c.Log.Warn("executions of commands can't be looked after", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// timeOut ends the executions whose time is up.
func (c *Commands) timeOut(ctx context.Context) error {
	for ctx.Err() == nil {
		var late []*execution
		err := c.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
			late, err = executions(tx, `SELECT `+executionColumns+` FROM command_execution WHERE due > 0 AND due <= $1 ORDER BY due LIMIT $2`, c.nowMS(), batch)
			return err
		})
		if err != nil || len(late) == 0 {
			return err
		}
		err = c.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
			for _, l := range late {
				// As it is now: its device may have answered.
				n, err := tx.Exec(`UPDATE command_execution SET modified = modified WHERE target = $1 AND id = $2 AND due > 0`, l.target, l.id)
				if err != nil {
					return err
				}
				if n == 0 {
					continue
				}
				e, err := selectExecution(tx, l.target, l.id)
				if err != nil {
					return err
				}
				if !e.move(iot.CommandExecutionStatusTimedOut, false, c.nowMS()) {
					continue
				}
				e.reason = &iot.StatusReason{ReasonCode: noResponse}
				if err := errors.Join(saveExecution(tx, e), c.event(ctx, e)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// sweep deletes commands that nothing runs of any more, and executions that were kept long enough.
func (c *Commands) sweep(ctx context.Context) error {
	err := c.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		list, err := commandsOf(tx, `SELECT `+commandColumns+` FROM command WHERE deleting > 0 ORDER BY deleting LIMIT $1`, batch)
		if err != nil {
			return err
		}
		for _, m := range list {
			running, err := runs(tx, m.id)
			if err == nil && !running {
				err = c.erase(ctx, tx, m.id)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for more := true; more && ctx.Err() == nil; {
		err := c.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
			old, err := executions(tx, `SELECT `+executionColumns+` FROM command_execution WHERE created < $1 AND due = 0 ORDER BY created LIMIT $2`, c.nowMS()-c.cfg.Keep.Milliseconds(), batch)
			for _, e := range old {
				if err == nil {
					_, err = tx.Exec(`DELETE FROM command_execution WHERE target = $1 AND id = $2`, e.target, e.id)
				}
			}
			more = len(old) == batch
			return err
		})
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}
