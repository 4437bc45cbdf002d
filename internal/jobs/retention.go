package jobs

import (
	"context"
	"time"

	"flotilla/internal/store"
)

// purge has jobs that were over long ago deleted, a batch in a step: first it is marked, then the runner erases it as it
// does what DeleteJob has marked.
//
// AWS: https://docs.aws.amazon.com/general/latest/gr/iot_device_management.html (730 days)
type purge struct {
	*Jobs
	last time.Time
}

// step is taken once in the interval of sweeps; more tells that it marked as many as a step may.
func (p *purge) step(ctx context.Context) (more bool, err error) {
	now := p.cfg.Now()
	if p.cfg.Retention < 0 || now.Sub(p.last) < p.cfg.Sweep {
		return false, nil
	}
	const old = `SELECT job_id FROM job WHERE completed IS NOT NULL AND completed <= $1 AND status <> 'DELETION_IN_PROGRESS' ORDER BY completed LIMIT $2`
	until := now.Add(-p.cfg.Retention).UnixMilli()
	var ids []string
	err = p.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		ids, err = scanTexts(tx.Query(old, until, batch))
		return err
	})
	if err == nil && len(ids) > 0 {
		err = p.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
			if ids, err = scanTexts(tx.Query(old, until, batch)); err != nil {
				return err
			}
			for _, id := range ids {
				b, err := getJob(tx, id)
				if err != nil {
					return err
				}
				if err := p.remove(ctx, tx, b); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return false, err
	}
	if len(ids) < batch {
		p.last = now
	}
	return len(ids) > 0, nil
}
