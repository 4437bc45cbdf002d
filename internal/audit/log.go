package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"flotilla/internal/audit/chain"
	"flotilla/internal/aws"
	"flotilla/internal/store"
)

// What happens when the log is full.
const (
	DropOldest = "drop-oldest"
	Refuse     = "refuse"
)

// Config is the room's part of the configuration; its zero value works.
type Config struct {
	MaxRecords   int64         `name:"audit.max-records" default:"1000000" help:"Most records of changes that a node keeps, of 16 KiB at most and about 1 KiB each."`
	Retention    time.Duration `name:"audit.retention" default:"9600h" help:"How long records of changes are kept; 0 is for ever."`
	WhenFull     string        `name:"audit.when-full" default:"drop-oldest" enum:"drop-oldest,refuse" help:"What happens when there are audit.max-records: drop-oldest deletes old records, refuse refuses changes until audit.max-records or audit.retention is changed."`
	SignInterval time.Duration `name:"audit.sign-interval" default:"10s" help:"How often the end of the log is signed, at most 30m; what came later can be cut off unseen."`
	Reads        bool          `name:"audit.reads" help:"Record operations that only read, too."`
}

// Deps are the others that the room works with.
type Deps struct {
	DB     *store.DB
	NodeID string
	Key    ed25519.PrivateKey // signs the heads of this node
	Log    *slog.Logger       // nil discards; heads are logged, so that they are kept elsewhere too
	Now    func() time.Time   // time.Now when nil
}

// Log is the room. It is safe for concurrent use.
type Log struct {
	cfg    Config
	db     *store.DB
	node   string
	key    ed25519.PrivateKey
	log    *slog.Logger
	now    func() time.Time
	signed int64 // sequence number of the last head; owned by Run

	// tail is what the next record follows, as far as known; owned by the store's writer. What it says of a
	// transaction that was taken back is found out by the insert, which then reads the true one.
	tail link

	mu        sync.Mutex
	committed link  // the last record that is known to be kept
	first     int64 // the oldest record
}

type link struct {
	seq  int64
	hash []byte
}

// New opens the log of a node.
func New(ctx context.Context, cfg Config, d Deps) (*Log, error) {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if cfg.MaxRecords <= 0 {
		cfg.MaxRecords = 1_000_000
	}
	if cfg.SignInterval <= 0 {
		cfg.SignInterval = 10 * time.Second
	}
	if cfg.SignInterval > chain.MaxUnsigned/2 {
		return nil, fmt.Errorf("audit: audit.sign-interval is %s, at most %s is possible", cfg.SignInterval, chain.MaxUnsigned/2)
	}
	l := &Log{cfg: cfg, db: d.DB, node: d.NodeID, key: d.Key, log: d.Log, now: d.Now}
	err := l.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		if l.tail, err = selectTail(tx, l.node); err != nil {
			return err
		}
		l.committed = l.tail
		l.first, err = selectFirst(tx, l.node)
		if err != nil {
			return err
		}
		head, err := selectLastHead(tx, l.node)
		if err != nil || head == nil {
			return err
		}
		l.signed = head.Seq
		if head.Seq > l.tail.seq {
			l.log.Error("the log of changes ends before its last signed head", "head", head.Seq, "last", l.tail.seq)
		}
		return nil
	})
	return l, err
}

type writtenKey struct{}

// Begin returns the context for the operation that e is about: its first write commits together with the record.
func (l *Log) Begin(ctx context.Context, e *chain.Entry) context.Context {
	written := new(atomic.Bool)
	ctx = context.WithValue(ctx, writtenKey{}, written)
	return store.Alongside(ctx, func(ctx context.Context, tx store.Tx) error {
		if written.Load() {
			return nil
		}
		l.db.AfterCommit(ctx, func() { written.Store(true) })
		return l.append(ctx, tx, e)
	})
}

// End completes the record of an operation before its answer leaves. ctx is that of Begin, or one without when the
// operation was not begun. When the operation has written nothing, e is recorded now; else result is, unless it is
// nil. An error says that there is no record.
func (l *Log) End(ctx context.Context, e, result *chain.Entry) error {
	if written, _ := ctx.Value(writtenKey{}).(*atomic.Bool); written != nil && written.Load() {
		e = result
	}
	if e == nil {
		return nil
	}
	// A client that has gone does not keep the record from being written.
	ctx, cancel := context.WithTimeout(store.Alongside(context.WithoutCancel(ctx), nil), 10*time.Second)
	defer cancel()
	return l.db.Write(ctx, func(ctx context.Context, tx store.Tx) error { return l.append(ctx, tx, e) })
}

// Later records what became of a change, without waiting for the commit.
func (l *Log) Later(e *chain.Entry) {
	l.db.WriteAsync(
		func(ctx context.Context, tx store.Tx) error { return l.append(ctx, tx, e) },
		func(err error) {
			if err != nil {
				l.log.Error("the result of a change can't be recorded", "requestId", e.RequestID, "err", err)
			}
		})
}

var errFull = &aws.CommonError{Status: 503, Code: "ServiceUnavailableException", Message: "The log of changes is full."}

// append makes a record of the chain. It runs in the store's writer.
func (l *Log) append(ctx context.Context, tx store.Tx, e *chain.Entry) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	r := chain.Record{Node: l.node, Time: l.now().UnixMilli(), Body: string(body)}
	for range 2 {
		r.Seq = l.tail.seq + 1
		r.Hash = chain.Hash(l.tail.hash, r.Node, r.Seq, r.Time, r.Body)
		if l.full(r.Seq) {
			return errFull
		}
		n, err := insertAfter(tx, &r, l.tail)
		if err != nil {
			return err
		}
		if n == 1 {
			made := link{r.Seq, r.Hash}
			l.tail = made
			l.db.AfterCommit(ctx, func() { l.kept(made) })
			return nil
		}
		if err := l.follow(tx); err != nil {
			return err
		}
	}
	return errors.New("audit: the end of the log changes under its writer")
}

func (l *Log) full(next int64) bool {
	if l.cfg.WhenFull != Refuse {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first > 0 && next-l.first >= l.cfg.MaxRecords
}

// follow reads the tail anew: the last transaction was taken back, or somebody has been at the log.
func (l *Log) follow(tx store.Tx) error {
	tail, err := selectTail(tx, l.node)
	if err != nil {
		return err
	}
	l.mu.Lock()
	kept := l.committed
	l.mu.Unlock()
	if tail.seq < kept.seq || tail.seq == kept.seq && !bytes.Equal(tail.hash, kept.hash) {
		l.log.Error("the log of changes was tampered with: its end is not what was written", "last", tail.seq, "written", kept.seq)
	}
	l.tail = tail
	return nil
}

func (l *Log) kept(made link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == 0 {
		l.first = made.seq
	}
	if made.seq > l.committed.seq {
		l.committed = made
	}
}

// Run signs the end of the log at intervals and deletes what is old, until ctx ends; then it signs once more.
func (l *Log) Run(ctx context.Context) {
	tick := time.NewTicker(l.cfg.SignInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			l.keep(last)
			return
		case <-tick.C:
			l.keep(ctx)
		}
	}
}

func (l *Log) keep(ctx context.Context) {
	if err := errors.Join(l.Sign(ctx), l.trim(ctx)); err != nil && ctx.Err() == nil {
		l.log.Error("the log of changes can't be signed or trimmed", "err", err)
	}
}

// Sign signs the end of the log, unless it is signed.
func (l *Log) Sign(ctx context.Context) error {
	l.mu.Lock()
	end := l.committed
	l.mu.Unlock()
	if end.seq == l.signed {
		return nil
	}
	h := &chain.Head{Node: l.node, Seq: end.seq, Time: l.now().UnixMilli(), Hash: end.hash}
	h.Sign(l.key)
	if err := l.db.Write(ctx, func(_ context.Context, tx store.Tx) error { return insertHead(tx, h) }); err != nil {
		return err
	}
	l.signed = end.seq
	l.log.Info("the log of changes is signed", "node", h.Node, "seq", h.Seq, "hash", hex.EncodeToString(h.Hash))
	return nil
}

// trimBatch bounds how many records one write deletes.
const trimBatch = 2000

// trim deletes records that are too old or too many, and signs that it did.
func (l *Log) trim(ctx context.Context) error {
	for {
		more := false
		err := l.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
			first, err := selectFirst(tx, l.node)
			if err != nil || first == 0 {
				return err
			}
			l.mu.Lock()
			last := l.committed.seq
			l.mu.Unlock()
			cut := int64(0) // the last to go
			if l.cfg.WhenFull != Refuse && last-first+1 > l.cfg.MaxRecords {
				cut = last - l.cfg.MaxRecords
			}
			if l.cfg.Retention > 0 {
				old, err := selectOlder(tx, l.node, l.now().Add(-l.cfg.Retention).UnixMilli())
				if err != nil {
					return err
				}
				cut = max(cut, old)
			}
			cut = min(cut, first+trimBatch-1, last-1) // the last record stays: the next follows it
			if cut < first {
				return nil
			}
			more = cut == first+trimBatch-1
			h := &chain.Head{Node: l.node, Seq: cut, Trimmed: true, Time: l.now().UnixMilli()}
			if h.Hash, err = selectHash(tx, l.node, cut); err != nil {
				return err
			}
			h.Sign(l.key)
			l.db.AfterCommit(ctx, func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.first = cut + 1
			})
			return deleteUpTo(tx, h)
		})
		if err != nil || !more {
			return err
		}
	}
}
