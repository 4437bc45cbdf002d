package provision

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"flotilla/internal/store"
)

const (
	// Further ones are not kept, and counted. Failures are what a stranger with a claim can make many of.
	maxWaiting = 2048 // attempts
	maxFailed  = 128  // of them

	keptFailures = 10 // of one client, and the one that is added
	flushBatch   = 128
	gatherTime   = 200 * time.Millisecond
	finishTime   = 5 * time.Second
	defaultKept  = 5000
)

// journal keeps attempts in the store, off the way of the requests: they wait in memory for a moment and are written
// together. A crash loses that moment's.
type journal struct {
	db   *store.DB
	log  *slog.Logger
	kept int // of those that failed, and of those that did not

	wake chan struct{} // holds one when something waits

	mu      sync.Mutex
	waiting []*attempt
	failed  map[failure]*attempt // those of waiting, to count repetitions
	lost    int

	flushing sync.Mutex // held by who writes
	written  int        // since the last pruning; under flushing
}

// failure is what makes two failures the same.
type failure struct{ flow, operation, client, principal, template, certificate, err string }

func newJournal(db *store.DB, log *slog.Logger, kept int) *journal {
	return &journal{db: db, log: log, kept: kept, wake: make(chan struct{}, 1), failed: map[failure]*attempt{}}
}

// add takes an attempt that is over; nobody changes it any more.
func (j *journal) add(a *attempt) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if a.err != nil {
		f := failure{a.flow, a.operation, a.clientID, a.principal, a.template, a.certificateID, a.err.Error()}
		if same := j.failed[f]; same != nil {
			same.repeats++
			return
		}
		if len(j.failed) >= maxFailed {
			j.lost++
			return
		}
		if len(j.waiting) < maxWaiting {
			j.failed[f] = a
		}
	}
	if len(j.waiting) >= maxWaiting {
		j.lost++
		return
	}
	j.waiting = append(j.waiting, a)
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// run writes what comes until ctx ends, and then the rest.
func (j *journal) run(ctx context.Context) {
	for {
		select {
		case <-j.wake:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
			defer cancel()
			j.report(j.flush(last))
			return
		}
		gather := time.NewTimer(gatherTime)
		select {
		case <-gather.C:
		case <-ctx.Done():
			gather.Stop()
		}
		j.report(j.flush(context.WithoutCancel(ctx)))
	}
}

func (j *journal) report(err error) {
	if err != nil && !errors.Is(err, store.ErrClosed) {
		j.log.Warn("provisioning attempts can't be kept for explanations", "err", err)
	}
}

// flush writes what waits. It returns once all that was added before is in the store.
func (j *journal) flush(ctx context.Context) error {
	j.flushing.Lock()
	defer j.flushing.Unlock()
	j.mu.Lock()
	batch, lost := j.waiting, j.lost
	j.waiting, j.lost = nil, 0
	clear(j.failed)
	j.mu.Unlock()
	if lost > 0 {
		j.log.Warn("too many provisioning attempts at once: some are not kept for explanations", "count", lost)
	}
	for len(batch) > 0 {
		n := min(len(batch), flushBatch)
		failed, succeeded := j.rows(batch[:n])
		err := j.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
			if err := insertAttempts(tx, failed); err != nil || succeeded == nil {
				return err
			}
			return insertSuccesses(tx, succeeded)
		})
		if err != nil {
			return err
		}
		batch = batch[n:]
		j.written += n
	}
	if j.written > j.kept/10 {
		j.written = 0
		return j.prune(ctx)
	}
	return nil
}

// rows are attempts as the store has them: those that failed one by one, the others, nil without any, together.
func (j *journal) rows(batch []*attempt) (failed []attemptRow, succeeded *successRow) {
	var list []byte
	var n int64
	for _, a := range batch {
		r := a.row(j.db.NextID())
		if r.failed {
			failed = append(failed, r)
			continue
		}
		list = append(append(list, ','), r.detail...)
		n++
	}
	if n > 0 {
		list[0] = '['
		succeeded = &successRow{id: j.db.NextID(), attempts: n, detail: string(append(list, ']'))}
	}
	return failed, succeeded
}

// prune deletes the oldest beyond the bound, of failures and of successes.
func (j *journal) prune(ctx context.Context) error {
	var failed, succeeded int64
	err := j.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		if failed, err = oldestKept(tx, j.kept); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		succeeded, err = oldestSuccess(tx, int64(j.kept))
		return err
	})
	if err != nil {
		return err
	}
	return j.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		if err := deleteAttempts(tx, failed); err != nil {
			return err
		}
		return deleteSuccesses(tx, succeeded)
	})
}

// row is the attempt as the store has it.
func (a *attempt) row(id int64) attemptRow {
	r := a.record()
	text, err := json.Marshal(r)
	if err == nil && len(text) > maxRecord {
		r.Parameters = nil
		for _, s := range r.Steps {
			s.Detail = nil
		}
		text, err = json.Marshal(r)
	}
	if err != nil || len(text) > maxRecord {
		r.Steps = nil
		text, _ = json.Marshal(r)
	}
	return attemptRow{
		id: id, failed: a.err != nil || a.outcome != outcomeAccepted,
		clientID: value(r.ClientId), certificateID: value(r.CertificateId), thing: value(r.ThingName), serial: value(r.Serial),
		detail: string(text),
	}
}
