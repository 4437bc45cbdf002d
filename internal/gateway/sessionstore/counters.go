package sessionstore

import (
	"sync"
	"sync/atomic"
	"time"
)

const queueShards = 64

// queues counts what is queued, by session, and what is about to be.
type queues struct {
	maxMessages, maxBytes, maxTotal int64
	total                           atomic.Int64 // bytes
	shards                          [queueShards]queueShard
}

type queueShard struct {
	mu sync.Mutex
	of map[int64]counter
	_  [32]byte
}

type counter struct {
	messages, bytes int64
	since           int64     // messages of this node since the count was verified
	verified        time.Time // zero: never
}

func (q *queues) init(cfg Config) {
	q.maxMessages, q.maxBytes, q.maxTotal = int64(cfg.MaxQueueMessages), cfg.MaxQueueBytes, cfg.MaxTotalBytes
	q.total.Store(0)
	for i := range q.shards {
		q.shards[i].mu.Lock()
		q.shards[i].of = map[int64]counter{}
		q.shards[i].mu.Unlock()
	}
}

// shard spreads by the bits of NextID that change.
func (q *queues) shard(session int64) *queueShard {
	return &q.shards[uint64(session)*0x9E3779B97F4A7C15>>58]
}

// verifyAgain is how long a count from the store is believed when it says full.
const verifyAgain = 250 * time.Millisecond

// reserve adds one message, or tells that it does not fit; verify says that the
// store has to be asked, since other nodes change the queue too.
func (q *queues) reserve(session, size int64, shared bool, now time.Time) (ok, verify bool) {
	s := q.shard(session)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.of[session]
	full := c.messages+1 > q.maxMessages || c.bytes+size > q.maxBytes
	if full && (!shared || now.Sub(c.verified) < verifyAgain) {
		return false, false
	}
	c.messages++
	c.bytes += size
	c.since++
	s.of[session] = c
	q.total.Add(size)
	return true, shared && (full || c.since > q.maxMessages/4+1)
}

// add changes a count; with several nodes it may be below what was added.
func (q *queues) add(session, messages, bytes int64) {
	s := q.shard(session)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.of[session]
	before := c.bytes
	c.messages, c.bytes = max(0, c.messages+messages), max(0, c.bytes+bytes)
	q.total.Add(c.bytes - before)
	if c.messages == 0 && c.verified.IsZero() {
		delete(s.of, session)
		q.total.Add(-c.bytes)
		return
	}
	s.of[session] = c
}

// set replaces a count by the store's.
func (q *queues) set(session, messages, bytes int64) {
	q.put(session, counter{messages: messages, bytes: bytes})
}

// verify replaces a count by the store's at now.
func (q *queues) verify(session, messages, bytes int64, now time.Time) {
	q.put(session, counter{messages: messages, bytes: bytes, verified: now})
}

func (q *queues) put(session int64, c counter) {
	s := q.shard(session)
	s.mu.Lock()
	defer s.mu.Unlock()
	q.total.Add(c.bytes - s.of[session].bytes)
	s.of[session] = c
}

func (q *queues) forget(session int64) {
	s := q.shard(session)
	s.mu.Lock()
	defer s.mu.Unlock()
	q.total.Add(-s.of[session].bytes)
	delete(s.of, session)
}

func (q *queues) get(session int64) (messages, bytes int64) {
	s := q.shard(session)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.of[session]
	return c.messages, c.bytes
}
