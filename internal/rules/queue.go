package rules

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"flotilla/internal/rules/action"
	"flotilla/internal/store"
)

// queue is what this node owes to one action, and its dispatcher: a goroutine that
// runs while there is something to do. It outlives the rule for as long as there is.
type queue struct {
	e          *Engine
	id         int64
	rule, kind string
	position   int
	act        *action.Action // nil: broken says why
	broken     error
	batch      action.Batch
	counters   queueCounters
	errors     atomic.Pointer[queue] // takes what fails for good; nil: none
	retired    atomic.Int64          // when, in ms; 0: the rule has the action

	rows, bytes atomic.Int64 // committed and not executed
	attempts    atomic.Int64 // that failed since the last success
	last        atomic.Pointer[Failure]

	mu      sync.Mutex
	running bool
	again   bool    // there may be more than the dispatcher saw
	lanes   []*lane // by writer

	more    chan struct{} // wakes a lingering dispatcher
	deletes chan struct{} // a token per delete on its way
	sink    action.Sink   // the dispatcher's
}

// lane is the part of the queue that one writer wrote.
type lane struct {
	writer int64
	after  int64 // id of the last row executed; the dispatcher's
}

// maxDeletes is how many deletes of executed rows may be on their way.
const maxDeletes = 4

func (e *Engine) newQueue(a actionRecord) *queue {
	q := &queue{
		e: e, id: a.id, rule: a.rule, position: a.position, kind: "unknown",
		more: make(chan struct{}, 1), deletes: make(chan struct{}, maxDeletes),
	}
	if q.act, q.broken = compileAction(a.definition); q.broken == nil {
		q.kind, q.batch = q.act.Kind, q.act.Batch(e.env)
	}
	q.counters = e.metrics.action(a.rule, q.kind, a.position == errorPosition)
	if w, _ := e.currentWriter(); w != 0 {
		q.lanes = []*lane{{writer: w}}
	}
	return q
}

// full tells that the queue takes no more. What is being committed comes on top.
func (q *queue) full() bool {
	c := &q.e.cfg
	return q.rows.Load() >= c.OutboxRows || q.bytes.Load() >= c.OutboxBytes || q.e.bytes.Load() >= c.OutboxTotal
}

// count adds to what waits.
func (q *queue) count(rows, bytes int64) {
	q.rows.Add(rows)
	q.bytes.Add(bytes)
	q.e.bytes.Add(bytes)
}

// settle takes a row from what waits.
func (q *queue) settle(size int) { q.count(-1, -int64(size)) }

// committed hears of a row of this node's writer.
func (q *queue) committed(bytes int64) {
	q.count(1, bytes)
	q.wake()
}

// adopt adds what a writer left.
func (q *queue) adopt(writer, rows, bytes int64) {
	q.mu.Lock()
	if !slices.ContainsFunc(q.lanes, func(l *lane) bool { return l.writer == writer }) {
		q.lanes = append(q.lanes, &lane{writer: writer})
		slices.SortFunc(q.lanes, func(a, b *lane) int { return int(min(1, max(-1, a.writer-b.writer))) })
		q.count(rows, bytes)
	}
	q.mu.Unlock()
	q.wake()
}

// abandon forgets a lane that another node executes now.
func (q *queue) abandon(writer int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lanes = slices.DeleteFunc(q.lanes, func(l *lane) bool { return l.writer == writer })
}

// holds tells whether there may be rows of a writer.
func (q *queue) holds(writer int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(q.lanes, func(l *lane) bool { return l.writer == writer })
}

// wake starts the dispatcher, or tells it that there is more.
func (q *queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running {
		q.again = true
		if q.batch.Linger == 0 || q.rows.Load() >= int64(q.batch.Rows) || q.bytes.Load() >= int64(q.batch.Bytes) {
			select {
			case q.more <- struct{}{}:
			default:
			}
		}
		return
	}
	if q.e.enter() {
		q.running = true
		go q.run()
	}
}

// stop closes the sink of a queue that has nothing to do.
func (q *queue) stop() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running || q.rows.Load() > 0 {
		return false
	}
	q.closeSink()
	return true
}

func (q *queue) closeSink() {
	if q.sink == nil {
		return
	}
	if err := q.sink.Close(); err != nil {
		q.e.log.Warn("rules: an action could not be closed", "rule", q.rule, "action", q.kind, "err", err)
	}
	q.sink = nil
}

// run executes until there is nothing to do, or the engine stops.
func (q *queue) run() {
	defer q.e.dispatch.Done()
	for q.open() && q.work() {
		q.mu.Lock()
		if !q.again {
			q.running = false
			q.mu.Unlock()
			return
		}
		q.again = false
		q.mu.Unlock()
	}
	// The engine stops; running stays, so that nobody starts another.
}

// open makes the sink unless it is there; false means that the engine stops.
func (q *queue) open() bool {
	pauses := newBackoff()
	for q.sink == nil {
		err := q.broken
		if err == nil {
			env := q.e.env
			env.Source = q.id
			q.sink, err = q.act.Open(env)
		}
		if err != nil {
			q.note(err)
			if !q.e.pause(pauses.NextBackOff()) {
				return false
			}
		}
	}
	return true
}

func newBackoff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.Multiplier, b.MaxInterval = 50*time.Millisecond, 2, 30*time.Second
	return b
}

// next gives the lane to work on: the oldest of those that other runs left, then
// this run's, which has no end; nil when there is none.
func (q *queue) next() (l *lane, own bool) {
	writer, _ := q.e.currentWriter()
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l = range q.lanes {
		if l.writer != writer {
			return l, false
		}
	}
	return l, true
}

// work executes what the lanes hold; false means that the engine stops.
func (q *queue) work() bool {
	pauses := newBackoff()
	for {
		l, own := q.next()
		if l == nil {
			return true
		}
		entries, sizes, err := q.read(l)
		switch {
		case err != nil:
			if q.e.ctx.Err() != nil {
				return false
			}
			q.note(err)
			if !q.e.pause(pauses.NextBackOff()) {
				return false
			}
		case len(entries) > 0:
			pauses.Reset()
			if !q.execute(l, entries, sizes) {
				return false
			}
		case own:
			return true
		default:
			q.abandon(l.writer) // executed; stragglers are adopted
		}
	}
}

// read gives the next batch of a lane, once it is full or has lingered.
func (q *queue) read(l *lane) (entries []entry, sizes []int, err error) {
	if q.batch.Linger > 0 {
		first, _, err := q.rowsAfter(l, 1, 1)
		if err != nil || len(first) == 0 {
			return nil, nil, err
		}
		if !q.linger(first[0].Received) {
			return nil, nil, context.Canceled
		}
	}
	return q.rowsAfter(l, q.batch.Rows, q.batch.Bytes)
}

func (q *queue) rowsAfter(l *lane, rows, bytes int) (entries []entry, sizes []int, err error) {
	err = q.e.d.DB.Read(q.e.ctx, func(_ context.Context, tx store.Tx) (err error) {
		entries, sizes, err = selectRows(tx, q.id, l.writer, l.after, rows, bytes)
		return err
	})
	for i := range entries {
		entries[i].Rule = q.rule
	}
	return entries, sizes, err
}

// linger waits until the batch is full or its oldest row has waited long enough;
// false means that the engine stops.
func (q *queue) linger(oldest time.Time) bool {
	wait := min(q.batch.Linger-q.e.now().Sub(oldest), q.batch.Linger)
	t := time.NewTimer(wait)
	defer t.Stop()
	for q.rows.Load() < int64(q.batch.Rows) && q.bytes.Load() < int64(q.batch.Bytes) {
		select {
		case <-t.C:
			return true
		case <-q.more:
		case <-q.e.closing:
			return false
		case <-q.e.ctx.Done():
			return false
		}
	}
	return true
}

// failed is an entry that no attempt is left for, and why.
type failed struct {
	*entry
	size  int
	cause error
}

// execute does a batch; false means that the engine stops.
func (q *queue) execute(l *lane, entries []entry, sizes []int) bool {
	pauses := newBackoff()
	records := make([]action.Record, 0, len(entries))
	var fails []failed // not handed on yet; all before them is done
	for len(entries) > 0 {
		records = records[:0]
		for i := range entries {
			if q.unexecutable(&entries[i]) != nil {
				break
			}
			records = append(records, entries[i].Record)
		}
		done, err := 0, error(nil)
		if len(records) > 0 {
			done, err = q.do(records)
		} else {
			err = action.Permanent(q.unexecutable(&entries[0]))
		}
		if done > 0 {
			if !q.handOn(l, fails) {
				return false
			}
			fails = nil
			q.counters.success.Add(float64(done))
			q.attempts.Store(0)
			pauses.Reset()
			q.done(l, entries[done-1].ID, sizes[:done])
			entries, sizes = entries[done:], sizes[done:]
		}
		if err == nil {
			continue
		}
		if q.e.ctx.Err() != nil {
			return false
		}
		q.note(err)
		if action.IsPermanent(err) || action.IsExhausted(err) && q.errors.Load() != nil || q.hopeless(&entries[0]) {
			fails = append(fails, failed{&entries[0], sizes[0], err})
			entries, sizes = entries[1:], sizes[1:]
			continue
		}
		if !q.handOn(l, fails) || !q.e.pause(pauses.NextBackOff()) {
			return false
		}
		fails = nil
	}
	return q.handOn(l, fails)
}

// unexecutable tells why no attempt can be made at an entry.
func (q *queue) unexecutable(e *entry) error {
	switch {
	case e.fault != "":
		return fmt.Errorf("its templates could not be filled: %s", e.fault)
	case e.damaged, len(e.Fields) != len(q.act.Templates):
		return errEntry
	}
	return nil
}

func (q *queue) do(records []action.Record) (int, error) {
	ctx, cancel := context.WithTimeout(q.e.ctx, q.e.cfg.Timeout)
	defer cancel()
	return q.sink.Do(ctx, records)
}

// minAttempts are made at least before a message is given up, however old it is.
const minAttempts = 3

// hopeless tells that a message has been tried for long enough.
func (q *queue) hopeless(e *entry) bool {
	limit := q.e.cfg.KeepFor
	if q.errors.Load() != nil {
		limit = q.e.cfg.RetryFor
	}
	return q.attempts.Load() >= minAttempts && q.e.now().Sub(e.Received) > limit
}

// note keeps an error for Status; the first of a series is logged.
func (q *queue) note(err error) {
	q.last.Store(&Failure{At: q.e.now(), Message: err.Error()})
	if q.attempts.Add(1) == 1 {
		q.e.log.Warn("rules: an action failed", "rule", q.rule, "action", q.kind, "err", err)
	}
}

// done notes that all rows up to an id are executed, and has them deleted.
func (q *queue) done(l *lane, through int64, sizes []int) {
	l.after = through
	for _, s := range sizes {
		q.settle(s)
	}
	q.deletes <- struct{}{}
	q.e.d.DB.WriteAsync(func(_ context.Context, tx store.Tx) error {
		return deleteRows(tx, q.id, l.writer, through)
	}, func(err error) {
		<-q.deletes
		if err != nil { // the next delete takes them along
			q.e.log.Warn("rules: executed messages were not deleted", "rule", q.rule, "action", q.kind, "err", err)
		}
	})
}

// handOn gives failed messages to the error action, or drops them, in the commit
// that deletes them; false means that the engine stops first.
func (q *queue) handOn(l *lane, fails []failed) bool {
	if len(fails) == 0 {
		return true
	}
	to := q.errors.Load()
	var rows []outboxRow
	if to != nil {
		for _, f := range fails {
			if f.failure != nil {
				n := q.failureEntry(f.entry, f.cause)
				rows = append(rows, outboxRow{to, appendEntry(make([]byte, 0, entrySize(n)), n)})
			}
		}
		for to.full() {
			if !q.e.pause(250 * time.Millisecond) {
				return false
			}
		}
	}
	last := fails[len(fails)-1].ID
	pauses := newBackoff()
	for {
		err := q.e.d.DB.Write(q.e.ctx, func(ctx context.Context, tx store.Tx) error {
			if len(rows) > 0 {
				if err := q.e.owe(rows)(ctx, tx); err != nil {
					return err
				}
			}
			return deleteRows(tx, q.id, l.writer, last)
		})
		if err == nil {
			break
		}
		q.e.log.Warn("rules: failed messages could not be handed on", "rule", q.rule, "action", q.kind, "err", err)
		if !q.e.pause(pauses.NextBackOff()) {
			return false
		}
	}
	l.after = last
	q.counters.failure.Add(float64(len(fails)))
	for _, f := range fails {
		q.settle(f.size)
		if to == nil || f.failure == nil {
			q.counters.dropped.Inc()
			q.e.log.Error("rules: a message was dropped: its action failed for good", "rule", q.rule, "action", q.kind, "topic", f.Topic, "err", f.cause)
		}
	}
	return true
}

// errorMessage is what an error action gets.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/rule-error-handling.html
type errorMessage struct {
	RuleName              string         `json:"ruleName"`
	Topic                 string         `json:"topic"`
	CloudwatchTraceID     string         `json:"cloudwatchTraceId"`
	ClientID              string         `json:"clientId"`
	Base64OriginalPayload []byte         `json:"base64OriginalPayload"`
	Failures              []errorFailure `json:"failures"`
}

type errorFailure struct {
	FailedAction   string `json:"failedAction"`
	FailedResource string `json:"failedResource"`
	ErrorMessage   string `json:"errorMessage"`
}

func (q *queue) failureEntry(e *entry, cause error) *entry {
	m := errorMessage{
		RuleName: q.rule, Topic: e.Topic, CloudwatchTraceID: e.failure.trace, ClientID: e.ClientID, Base64OriginalPayload: e.failure.original,
		Failures: []errorFailure{{FailedAction: q.act.Name, ErrorMessage: cause.Error()}},
	}
	if m.ClientID == "" {
		m.ClientID = "n/a"
	}
	if q.unexecutable(e) == nil {
		m.Failures[0].FailedResource = q.sink.Resource(&e.Record)
	}
	payload, err := json.Marshal(&m)
	if err != nil {
		panic("rules: " + err.Error()) // texts always marshal
	}
	return &entry{
		Record: action.Record{Topic: e.Topic, ClientID: e.ClientID, Received: q.e.now(), Payload: payload, Hops: e.Hops, Fields: e.failure.fields},
		fault:  e.failure.fault,
	}
}
