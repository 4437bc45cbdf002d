package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNotFound is what Row.Scan returns when the query gave no row.
var ErrNotFound = errors.New("store: not found")

// ErrConflict is wrapped by the error of a statement that broke a unique
// constraint.
var ErrConflict = errors.New("store: unique constraint violated")

// ErrClosed is returned by calls on a closed DB.
var ErrClosed = errors.New("store: closed")

// Config says where state is kept; its zero value is SQLite in the current
// directory.
type Config struct {
	Store      string       `name:"store" default:"sqlite" help:"Where state is kept: sqlite, or a postgres:// URL."`
	Durability string       `name:"durability" default:"disk" enum:"disk,process" help:"What an acknowledgement survives: disk (power loss) or process (kill -9 of the server)."`
	MaxBatch   int          `name:"store.max-batch" default:"512" help:"Most writes that share one commit."`
	MaxWaiting int          `name:"store.max-waiting" default:"16384" help:"Most writes that may wait for the writer; further ones block their caller."`
	Readers    int          `name:"store.readers" default:"4" help:"Connections for reads."`
	Checkpoint int          `name:"store.checkpoint-pages" default:"800" help:"SQLite: pages of write-ahead log after which the writer checkpoints."`
	CacheMiB   int          `name:"store.cache-mib" default:"32" help:"SQLite: page cache of the writer in MiB."`
	MapMiB     int          `name:"store.map-mib" default:"2047" help:"SQLite: how much of its file is read where the kernel has it in memory, at most 2047 MiB, instead of copied into page caches; -1: none."`
	Dir        string       `kong:"-" toml:"-"`
	NodeID     string       `kong:"-" toml:"-"`
	Log        *slog.Logger `kong:"-" toml:"-"`
}

func (c Config) withDefaults() Config {
	if c.Store == "" {
		c.Store = "sqlite"
	}
	if c.Durability == "" {
		c.Durability = "disk"
	}
	if c.MaxBatch <= 0 {
		c.MaxBatch = 512
	}
	if c.MaxWaiting <= 0 {
		c.MaxWaiting = 16384
	}
	if c.Readers <= 0 {
		c.Readers = 4
	}
	if c.Checkpoint <= 0 {
		c.Checkpoint = 800
	}
	if c.CacheMiB <= 0 {
		c.CacheMiB = 32
	}
	if c.MapMiB == 0 {
		c.MapMiB = 2047
	}
	if c.Dir == "" {
		c.Dir = "."
	}
	if c.NodeID == "" {
		c.NodeID = "local"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate refuses a store that there is not.
func (c Config) Validate() error {
	if c.Store == "" || c.Store == "sqlite" || strings.HasPrefix(c.Store, "postgres://") || strings.HasPrefix(c.Store, "postgresql://") {
		return nil
	}
	return fmt.Errorf("store: %q is neither sqlite nor a postgres:// URL", c.Store)
}

// Tx is one transaction, for the duration of the function it was passed to.
// Close Rows before the next statement: PostgreSQL has one cursor a connection.
type Tx interface {
	// Exec runs a statement and returns how many rows it changed.
	Exec(query string, args ...any) (rowsAffected int64, err error)
	// Query runs a query; the caller closes the Rows.
	Query(query string, args ...any) (Rows, error)
	// QueryRow runs a query of at most one row; its error comes from Scan.
	QueryRow(query string, args ...any) Row
}

// Rows is the result of Tx.Query.
type Rows interface {
	Next() bool
	Scan(dest ...any) error
	Close() error
	Err() error
}

// Row is the result of Tx.QueryRow; Scan returns ErrNotFound when there is none.
type Row interface{ Scan(dest ...any) error }

// Func is the body of a transaction. It may be run more than once, so it must
// have no effect but through tx, AfterCommit, and by assigning results that a
// further run overwrites.
type Func func(ctx context.Context, tx Tx) error

// engine is what SQLite and PostgreSQL differ in.
type engine interface {
	// begin starts a write transaction on the writer's connection.
	begin(ctx context.Context) (writeTx, error)
	read(ctx context.Context, fn func(Tx) error) error
	retryable(error) bool
	migrate(ctx context.Context) error
	close() error
	name() string
}

// writeTx is a write transaction that can be taken back in part.
type writeTx interface {
	Tx
	// wrote tells whether a statement may have changed something, or has broken
	// the transaction, since the last call of mark.
	wrote() bool
	mark()
	exec(sql string) error // SAVEPOINT and its kin
	commit(ctx context.Context) error
	rollback() error
}

// DB is an open store. It is safe for concurrent use.
type DB struct {
	cfg    Config
	eng    engine
	ids    ids
	jobs   chan *job
	stop   chan struct{} // closed by Close: no further writes are taken
	done   chan struct{} // closed when the writer has ended
	closed atomic.Bool
	finish completer

	mu      sync.RWMutex // held for reading while a job is handed over
	commits atomic.Int64
	writes  atomic.Int64
}

// Open opens the store that cfg names, creating and migrating it as needed.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	cfg = cfg.withDefaults()
	var eng engine
	err := cfg.Validate()
	switch {
	case err != nil:
	case cfg.Store == "sqlite":
		eng, err = openSQLite(ctx, cfg)
	default:
		eng, err = openPostgres(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	if err := eng.migrate(ctx); err != nil {
		_ = eng.close()
		return nil, fmt.Errorf("store: migrate: %w", err)
	}
	db := &DB{
		cfg: cfg, eng: eng, jobs: make(chan *job, cfg.MaxWaiting),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	db.finish.init()
	go db.write()
	go db.finish.run()
	if err := db.claimNodeNumber(ctx); err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

// Name is "sqlite" or "postgres".
func (db *DB) Name() string { return db.eng.name() }

// Counts returns how many writes were committed and in how many commits.
func (db *DB) Counts() (writes, commits int64) { return db.writes.Load(), db.commits.Load() }

// Waiting is how many writes wait for the writer.
func (db *DB) Waiting() int { return len(db.jobs) }

// Close waits for the writes already taken, then closes the store.
func (db *DB) Close() error {
	if !db.closed.CompareAndSwap(false, true) {
		return nil
	}
	db.mu.Lock() // no job is being handed over
	close(db.stop)
	db.mu.Unlock()
	<-db.done
	db.finish.close()
	return db.eng.close()
}

// txKey is the context key of the transaction in progress.
type txKey struct{}

type txState struct {
	tx    Tx
	write bool
	hooks []func()
}

func stateFrom(ctx context.Context) *txState {
	st, _ := ctx.Value(txKey{}).(*txState)
	return st
}

// InTransaction tells whether ctx carries a transaction, which a Read or Write
// with it would join. What is read there may be old, or may never be committed:
// caches don't keep it.
func InTransaction(ctx context.Context) bool { return stateFrom(ctx) != nil }

// Read runs fn with a consistent view of the store; inside a Write's function
// it sees that transaction. Statements that change anything fail.
func (db *DB) Read(ctx context.Context, fn Func) error {
	if st := stateFrom(ctx); st != nil {
		return fn(ctx, st.tx)
	}
	if db.closed.Load() {
		return ErrClosed
	}
	return db.eng.read(ctx, func(tx Tx) error {
		return fn(context.WithValue(ctx, txKey{}, &txState{tx: tx}), tx)
	})
}

// Write runs fn in a transaction and returns once it is on stable storage, or
// with fn's error and nothing changed. Inside another Write's function it joins
// that transaction. Hooks given to AfterCommit have run, on this goroutine,
// when Write returns; there is no order among those of concurrent Writes.
//
// Once handed to the writer the transaction is not given up when ctx ends:
// Write then still waits, so that its answer is true.
func (db *DB) Write(ctx context.Context, fn Func) error {
	if st := stateFrom(ctx); st != nil {
		if !st.write {
			return errors.New("store: Write inside Read")
		}
		return fn(ctx, st.tx)
	}
	if also, _ := ctx.Value(alongsideKey{}).(Func); also != nil {
		fn = both(fn, also)
	}
	answer := make(chan error, 1)
	j := &job{ctx: context.WithoutCancel(ctx), fn: fn, done: func(err error) { answer <- err }, callerRunsHooks: true}
	if err := db.hand(ctx, j); err != nil {
		return err
	}
	err := <-answer
	if err == nil {
		for _, h := range j.state.hooks {
			h()
		}
	}
	return err
}

type alongsideKey struct{}

// Alongside returns a context with which every Write that joins no other runs fn
// too, after its own function and in the same transaction; nil takes an earlier
// one away.
func Alongside(ctx context.Context, fn Func) context.Context {
	return context.WithValue(ctx, alongsideKey{}, fn)
}

func both(first, second Func) Func {
	return func(ctx context.Context, tx Tx) error {
		if err := first(ctx, tx); err != nil {
			return err
		}
		return second(ctx, tx)
	}
}

// WriteAsync hands fn to the writer, in order with all other writes, and
// returns; it blocks only while the writer's queue is full. After the commit, or
// the failure, first the AfterCommit hooks and then done run on a goroutine that
// serves all asynchronous writes in commit order: they must not block, and must
// not call Write or Read.
func (db *DB) WriteAsync(fn Func, done func(error)) {
	j := &job{ctx: context.Background(), fn: fn, done: done}
	if err := db.hand(context.Background(), j); err != nil {
		done(err)
	}
}

// AfterCommit runs fn once the Write in ctx has committed, or at once when
// there is none.
func (db *DB) AfterCommit(ctx context.Context, fn func()) {
	if st := stateFrom(ctx); st != nil && st.write {
		st.hooks = append(st.hooks, fn)
		return
	}
	fn()
}

func (db *DB) hand(ctx context.Context, j *job) error {
	db.mu.RLock()
	defer db.mu.RUnlock()
	if db.closed.Load() {
		return ErrClosed
	}
	select {
	case db.jobs <- j:
		return nil
	default:
	}
	select {
	case db.jobs <- j:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ids makes increasing numbers: 41 bits of milliseconds since 2024, 10 bits of
// node, 12 bits of counter.
type ids struct {
	mu   sync.Mutex
	last int64
	node int64
}

const idEpoch = 1704067200000 // 2024-01-01T00:00:00Z in ms

// NextID returns a positive number greater than all that this node got before
// and different from those of all other nodes.
func (db *DB) NextID() int64 {
	g := &db.ids
	g.mu.Lock()
	defer g.mu.Unlock()
	now := (time.Now().UnixMilli() - idEpoch) << 22
	if now>>22 <= g.last>>22 {
		// Same millisecond, or the clock went back: count on.
		seq := g.last & 0xfff
		if seq == 0xfff {
			now = (g.last>>22 + 1) << 22
		} else {
			now = (g.last>>22)<<22 | (seq + 1)
		}
	}
	g.last = now&^(0x3ff<<12) | g.node<<12
	return g.last
}

// claimNodeNumber gives this node its part of NextID, the same at each start.
func (db *DB) claimNodeNumber(ctx context.Context) error {
	var number int64
	err := db.Write(ctx, func(_ context.Context, tx Tx) error {
		err := tx.QueryRow(`SELECT number FROM node WHERE node_id = $1`, db.cfg.NodeID).Scan(&number)
		if err == nil || !errors.Is(err, ErrNotFound) {
			return err
		}
		if err := tx.QueryRow(`SELECT COALESCE(MAX(number), -1) + 1 FROM node`).Scan(&number); err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO node (node_id, number) VALUES ($1, $2)`, db.cfg.NodeID, number)
		return err
	})
	if err != nil {
		return fmt.Errorf("store: node number of %s: %w", db.cfg.NodeID, err)
	}
	if number > 1023 {
		return fmt.Errorf("store: node %s would be number %d; at most 1024 nodes may ever have used one store", db.cfg.NodeID, number)
	}
	db.ids.node = number
	return nil
}
