package rules

import (
	"context"
	"errors"
	"time"

	"flotilla/internal/telemetry"
)

// tend keeps the archive in order until the engine closes: what is too old goes,
// small files are merged.
func (e *Engine) tend() {
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() { // ends with tend
		select {
		case <-e.closing:
			cancel()
		case <-stop:
		}
	}()
	tick := time.NewTicker(e.cfg.ArchiveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := e.tendOnce(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, telemetry.ErrCompacting) {
			e.log.Warn("the archive could not be compacted", "err", err)
		}
	}
}

func (e *Engine) tendOnce(ctx context.Context) error {
	a := e.env.Archive
	if e.cfg.ArchiveKeep > 0 || e.cfg.ArchiveMaxBytes > 0 {
		var before time.Time
		if e.cfg.ArchiveKeep > 0 {
			before = e.now().Add(-e.cfg.ArchiveKeep)
		}
		if _, err := a.Expire(ctx, "", before, e.cfg.ArchiveMaxBytes); err != nil {
			return err
		}
	}
	if e.cfg.ArchiveQuiet < 0 {
		return nil
	}
	_, err := a.Compact(ctx, "", telemetry.Compaction{Quiet: e.cfg.ArchiveQuiet, FileBytes: e.cfg.ArchiveFileBytes, Now: e.now()})
	return err
}
