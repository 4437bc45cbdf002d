package store

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// job is one write on its way to the writer.
type job struct {
	ctx             context.Context
	fn              Func
	done            func(error)
	callerRunsHooks bool

	state *txState // of the run that was committed
	err   error
}

// run calls the job's function in tx, anew.
func (j *job) run(tx Tx) (err error) {
	j.state = &txState{tx: tx, write: true}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: panic in a write: %v\n%s", p, debug.Stack())
		}
	}()
	return j.fn(context.WithValue(j.ctx, txKey{}, j.state), tx)
}

// write is the writer goroutine: it takes what is waiting, commits it together,
// and answers.
func (db *DB) write() {
	defer close(db.done)
	batch := make([]*job, 0, db.cfg.MaxBatch)
	for {
		batch = batch[:0]
		select {
		case j := <-db.jobs:
			batch = append(batch, j)
		case <-db.stop:
			select {
			case j := <-db.jobs:
				batch = append(batch, j)
			default:
				return
			}
		}
		for more := true; more && len(batch) < db.cfg.MaxBatch; {
			select {
			case j := <-db.jobs:
				batch = append(batch, j)
			default:
				more = false
			}
		}
		db.commitGroup(batch)
		db.finish.add(batch)
	}
}

// attempts at a group whose commit the database refused because of what other
// nodes wrote meanwhile; the last ones are made one write at a time.
const attempts = 5

func (db *DB) commitGroup(batch []*job) {
	ctx := context.Background()
	var err error
	for try := range attempts {
		if try < 2 || len(batch) == 1 {
			err = db.tryGroup(ctx, batch, try > 0)
			if err == nil || !db.eng.retryable(err) {
				break
			}
			continue
		}
		for i := range batch {
			db.commitGroup(batch[i : i+1])
		}
		return
	}
	if err != nil {
		for _, j := range batch {
			j.err = err
		}
		return
	}
}

// tryGroup runs the batch in one transaction. Without savepoints a write that
// fails after it changed something costs the group a second run, with them; the
// rare case pays. The error is the group's: nothing of it was kept.
func (db *DB) tryGroup(ctx context.Context, batch []*job, savepoints bool) error {
	tx, err := db.eng.begin(ctx)
	if err != nil {
		return fmt.Errorf("store: begin: %w", err)
	}
	savepoints = savepoints && len(batch) > 1
	kept := int64(0)
	for _, j := range batch {
		if savepoints {
			if err := tx.exec("SAVEPOINT one"); err != nil {
				_ = tx.rollback()
				return fmt.Errorf("store: savepoint: %w", err)
			}
		}
		tx.mark()
		j.err = j.run(tx)
		switch {
		case j.err == nil:
			kept++
			if savepoints {
				err = tx.exec("RELEASE SAVEPOINT one")
			}
		case db.eng.retryable(j.err):
			_ = tx.rollback()
			return j.err
		case savepoints:
			if err = tx.exec("ROLLBACK TO SAVEPOINT one"); err == nil {
				err = tx.exec("RELEASE SAVEPOINT one")
			}
		case tx.wrote():
			_ = tx.rollback()
			if len(batch) == 1 {
				return nil
			}
			return db.tryGroup(ctx, batch, true)
		}
		if err != nil {
			_ = tx.rollback()
			return fmt.Errorf("store: savepoint: %w", err)
		}
	}
	if err := tx.commit(ctx); err != nil {
		_ = tx.rollback()
		return fmt.Errorf("store: commit: %w", err)
	}
	db.commits.Add(1)
	db.writes.Add(kept)
	return nil
}

// completer runs what follows commits, in their order, off the writer's
// goroutine. Its queue has no bound of its own: it holds at most the jobs that
// callers have handed over and not been answered.
type completer struct {
	mu     sync.Mutex
	wake   *sync.Cond
	queue  []*job
	closed bool
	ended  chan struct{}
}

func (c *completer) init() {
	c.wake = sync.NewCond(&c.mu)
	c.ended = make(chan struct{})
}

func (c *completer) add(batch []*job) {
	c.mu.Lock()
	for _, j := range batch {
		if j.callerRunsHooks {
			j.done(j.err) // buffered channel: never blocks
			continue
		}
		c.queue = append(c.queue, j)
	}
	c.mu.Unlock()
	c.wake.Signal()
}

func (c *completer) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wake.Signal()
	<-c.ended
}

func (c *completer) run() {
	defer close(c.ended)
	var work []*job
	for {
		c.mu.Lock()
		for len(c.queue) == 0 && !c.closed {
			c.wake.Wait()
		}
		if len(c.queue) == 0 {
			c.mu.Unlock()
			return
		}
		work, c.queue = c.queue, work[:0]
		c.mu.Unlock()
		for i, j := range work {
			if j.err == nil {
				for _, h := range j.state.hooks {
					h()
				}
			}
			j.done(j.err)
			work[i] = nil
		}
	}
}
