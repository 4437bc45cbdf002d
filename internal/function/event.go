package function

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"flotilla/internal/function/environment"
	"flotilla/internal/store"
)

const (
	// lease is how long an attempt keeps an event to itself: longer than a function may run. The events of a node that
	// is gone are tried by others after that, and by itself when it is back.
	lease = maxTimeout + time.Minute
	// sweep is how often a node looks for events that nobody tries.
	sweep = 30 * time.Second
	// defaultRetries and defaultAge are Lambda's.
	//
	// AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
	defaultRetries = 2
	defaultAge     = 6 * time.Hour
	maxBackoff     = 5 * time.Minute
)

// event is an asynchronous invocation that is owed.
type event struct {
	id                  int64
	function, target    string
	requestID           string
	payload             []byte
	created             int64 // ms
	failures, throttled int64
	due                 int64 // ms
}

// events are those of this node: what was accepted is in the store until it was done, or has failed for good.
type events struct {
	f           *Functions
	node        string
	rows, bytes atomic.Int64 // about; counted anew with each sweep

	mu     sync.Mutex
	ctx    context.Context // nil: not started
	cancel context.CancelFunc
	drains map[string]chan struct{} // what wakes those that work, by function
	tasks  sync.WaitGroup
}

func newEvents(f *Functions, node string) *events {
	return &events{f: f, node: node, drains: map[string]chan struct{}{}}
}

// start takes back what this node was at when it ended, and goes on.
func (e *events) start(ctx context.Context) error {
	err := e.f.db.Write(ctx, func(_ context.Context, tx store.Tx) error {
		_, err := tx.Exec(`UPDATE function_event SET due = $1, node = '' WHERE node = $2`, e.f.now().UnixMilli(), e.node)
		return err
	})
	if err != nil {
		return fmt.Errorf("function: events: %w", err)
	}
	e.mu.Lock()
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.mu.Unlock()
	e.look(ctx)
	e.tasks.Go(func() {
		tick := time.NewTicker(sweep)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				e.look(e.ctx)
			case <-e.ctx.Done():
				return
			}
		}
	})
	return nil
}

func (e *events) stop() {
	e.mu.Lock()
	cancel := e.cancel
	e.mu.Unlock()
	if cancel != nil {
		cancel()
		e.tasks.Wait()
	}
}

// look counts what is owed, and wakes whoever has to do something about it.
func (e *events) look(ctx context.Context) {
	var names []string
	err := e.f.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		var rows, bytes int64
		if err := tx.QueryRow(`SELECT COUNT(*), COALESCE(SUM(LENGTH(payload)), 0) FROM function_event`).Scan(&rows, &bytes); err != nil {
			return err
		}
		e.rows.Store(rows)
		e.bytes.Store(bytes)
		list, err := tx.Query(`SELECT DISTINCT function FROM function_event`)
		if err != nil {
			return err
		}
		defer list.Close()
		names = names[:0]
		for list.Next() {
			var name string
			if err := list.Scan(&name); err != nil {
				return err
			}
			names = append(names, name)
		}
		return list.Err()
	})
	if err != nil {
		if ctx.Err() == nil {
			e.f.log.Warn("function: events could not be read", "err", err)
		}
		return
	}
	for _, name := range names {
		e.wake(name)
	}
}

// wake has the events of a function looked at.
func (e *events) wake(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx == nil || e.ctx.Err() != nil {
		return
	}
	if c := e.drains[name]; c != nil {
		select {
		case c <- struct{}{}:
		default:
		}
		return
	}
	c := make(chan struct{}, 1)
	e.drains[name] = c
	e.tasks.Go(func() { e.drain(name, c) })
}

// InvokeEvents invokes a function asynchronously, once for each payload. It returns once all of them are on stable storage; they
// are tried at least once, in no order. It is for rooms of this server, as [Functions.Invoke] is.
//
// Errors: *[NotFoundError], *[DeniedError], *[TooLargeError], *[ThrottledError] when too many wait already.
func (f *Functions) InvokeEvents(ctx context.Context, functionARN string, payloads [][]byte) error {
	if _, configured := f.find(functionARN); !configured {
		c, err := f.choose(ctx, functionARN, "")
		if err != nil {
			return unknown(functionARN, err)
		}
		if err := f.permitted(ctx, c); err != nil {
			return err
		}
	}
	return f.enqueue(ctx, functionARN, payloads)
}

// enqueue stores events.
func (f *Functions) enqueue(ctx context.Context, target string, payloads [][]byte) error {
	name, err := f.nameOf(target)
	if err != nil {
		return err
	}
	e := f.events
	var size int64
	for _, p := range payloads {
		if len(p) > MaxEventPayload {
			return &TooLargeError{name, len(p)}
		}
		size += int64(len(p))
	}
	if e.rows.Load()+int64(len(payloads)) > f.cfg.MaxEvents || e.bytes.Load()+size > f.cfg.MaxEventBytes {
		return &ThrottledError{name}
	}
	return f.db.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		for _, p := range payloads {
			if err := e.insert(ctx, tx, name, target, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// nameOf is what the events of a function are kept under.
func (f *Functions) nameOf(target string) (string, error) {
	if f.events == nil {
		return "", errors.New("function: asynchronous invocations need a store")
	}
	if fn, ok := f.find(target); ok {
		return fn.name, nil
	}
	name, _, ok := f.split(target)
	if !ok {
		return "", &NotFoundError{bounded(target)}
	}
	return name, nil
}

func (e *events) insert(ctx context.Context, tx store.Tx, name, target string, payload []byte) error {
	now := e.f.now().UnixMilli()
	if payload == nil {
		payload = []byte{}
	}
	_, err := tx.Exec(`INSERT INTO function_event (id, function, target, request_id, payload, created, failures, throttled, due, node) VALUES ($1, $2, $3, $4, $5, $6, 0, 0, $6, '')`,
		e.f.db.NextID(), name, target, newRequestID(), payload, now)
	if err != nil {
		return err
	}
	e.f.db.AfterCommit(ctx, func() {
		e.rows.Add(1)
		e.bytes.Add(int64(len(payload)))
		e.wake(name)
	})
	return nil
}

// drain tries the events of one function until there are none.
func (e *events) drain(name string, woken chan struct{}) {
	slots := make(chan struct{}, min(e.f.cfg.PerFunction, 64))
	freed := make(chan struct{}, 1)
	var running sync.WaitGroup
	defer running.Wait()
	for {
		list, next, err := e.claim(name, cap(slots)-len(slots))
		if err != nil && e.ctx.Err() == nil {
			e.f.log.Warn("function: events could not be claimed", "function", name, "err", err)
			next = time.Now().Add(time.Second).UnixMilli()
		}
		for _, ev := range list {
			slots <- struct{}{}
			running.Go(func() {
				e.attempt(ev)
				<-slots
				select {
				case freed <- struct{}{}:
				default:
				}
			})
		}
		if next == 0 && len(slots) == 0 && e.leave(name, woken) {
			return
		}
		wait := time.NewTimer(sweep)
		if next != 0 && len(slots) < cap(slots) {
			wait.Reset(min(max(time.Until(time.UnixMilli(next)), time.Millisecond), sweep))
		}
		select {
		case <-woken:
		case <-freed:
		case <-wait.C:
		case <-e.ctx.Done():
			wait.Stop()
			return
		}
		wait.Stop()
	}
}

// leave ends the work on a function, unless there is news of it.
func (e *events) leave(name string, woken chan struct{}) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(woken) > 0 {
		return false
	}
	delete(e.drains, name)
	return true
}

// claim takes up to most events that are due; next is when the next of the others is, 0 when there is none.
func (e *events) claim(name string, most int) (list []*event, next int64, err error) {
	now := e.f.now().UnixMilli()
	until := now + lease.Milliseconds()
	err = e.f.db.Write(e.ctx, func(_ context.Context, tx store.Tx) error {
		list, next = nil, 0
		due, err := selectDue(tx, name, now, most)
		if err != nil {
			return err
		}
		for _, ev := range due {
			n, err := tx.Exec(`UPDATE function_event SET due = $1, node = $2 WHERE id = $3 AND due = $4`, until, e.node, ev.id, ev.due)
			if err != nil {
				return err
			}
			if n == 1 { // else another node has it
				list = append(list, ev)
			}
		}
		return tx.QueryRow(`SELECT COALESCE(MIN(due), 0) FROM function_event WHERE function = $1 AND node <> $2`, name, e.node).Scan(&next)
	})
	if err != nil {
		return nil, 0, err
	}
	return list, next, nil
}

func selectDue(tx store.Tx, name string, now int64, most int) ([]*event, error) {
	if most <= 0 {
		return nil, nil
	}
	rows, err := tx.Query(`SELECT id, function, target, request_id, payload, created, failures, throttled, due FROM function_event
		WHERE function = $1 AND due <= $2 ORDER BY due LIMIT $3`, name, now, most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []*event
	for rows.Next() {
		ev := new(event)
		if err := rows.Scan(&ev.id, &ev.function, &ev.target, &ev.requestID, &ev.payload, &ev.created, &ev.failures, &ev.throttled, &ev.due); err != nil {
			return nil, err
		}
		list = append(list, ev)
	}
	return list, rows.Err()
}

// attempt tries an event once, and notes how it went.
func (e *events) attempt(ev *event) {
	cfg := e.config(ev)
	age := defaultAge
	if cfg.MaxAgeSeconds != nil {
		age = time.Duration(*cfg.MaxAgeSeconds) * time.Second
	}
	if e.f.now().Sub(time.UnixMilli(ev.created)) > age {
		e.settle(ev, cfg.OnFailure, "EventAgeExceeded", nil)
		return
	}
	res, err := e.try(ev)
	retries := int64(defaultRetries)
	if cfg.Retries != nil {
		retries = int64(*cfg.Retries)
	}
	_, missing := errors.AsType[*NotFoundError](err)
	switch {
	case e.ctx.Err() != nil: // it stays claimed by this node until that is back
	case missing:
		e.settle(ev, cfg.OnFailure, "ResourceNotFound", nil)
	case err != nil:
		e.later(ev, true, min(time.Second<<min(ev.throttled, 10), maxBackoff), err)
	case res.Error == "":
		e.settle(ev, cfg.OnSuccess, "Success", res)
	case ev.failures >= retries:
		e.settle(ev, cfg.OnFailure, "RetriesExhausted", res)
	default:
		e.later(ev, false, e.f.cfg.RetryDelay<<ev.failures, failure(ev.function, res.Error, res.Payload))
	}
}

// config is how the events of a function are to be tried.
func (e *events) config(ev *event) *eventConfig {
	if _, configured := e.f.find(ev.target); configured {
		return &eventConfig{}
	}
	c, err := e.f.choose(e.ctx, ev.target, "")
	if err != nil || c.settings.Events[c.qualifier] == nil {
		return &eventConfig{}
	}
	return c.settings.Events[c.qualifier]
}

// try invokes the function. An error says that it was not reached; what the function says of its failure is in the result.
func (e *events) try(ev *event) (*environment.Result, error) {
	f := e.f
	start := time.Now()
	if fn, ok := f.find(ev.target); ok {
		answer, err := f.invoke(e.ctx, fn, ev.target, ev.payload)
		f.metrics.observe(fn.name, err, time.Since(start))
		failed, ok := errors.AsType[*FunctionError](err)
		_, late := errors.AsType[*TimeoutError](err)
		switch {
		case ok && failed.Kind != "":
			text, _ := json.Marshal(map[string]string{"errorType": failed.Type, "errorMessage": failed.Message}) // strings alone
			return &environment.Result{Payload: text, Error: failed.Kind}, nil
		case late:
			return &environment.Result{Payload: []byte(`{"errorType":"Sandbox.Timedout","errorMessage":"Task timed out"}`), Error: "Unhandled"}, nil
		}
		return &environment.Result{Payload: answer}, err
	}
	c, err := f.choose(e.ctx, ev.target, "")
	if err != nil {
		return nil, unknown(ev.target, err)
	}
	res, err := f.local.run(e.ctx, c, &environment.Invocation{RequestID: ev.requestID, FunctionARN: ev.target, Payload: ev.payload})
	var failed error
	if err == nil && res.Error != "" {
		failed = failure(c.name, res.Error, res.Payload)
	}
	f.metrics.observe(c.name, errors.Join(err, failed), time.Since(start))
	return res, err
}

// later has an event tried again.
func (e *events) later(ev *event, throttled bool, pause time.Duration, why error) {
	failures, times := ev.failures, ev.throttled
	if throttled {
		times++
	} else {
		failures++
	}
	e.f.log.Info("an asynchronous invocation failed and will be repeated", "function", ev.function, "requestId", ev.requestID, "pause", pause, "err", why)
	e.write(ev, func(ctx context.Context, tx store.Tx) error {
		_, err := tx.Exec(`UPDATE function_event SET failures = $1, throttled = $2, due = $3, node = '' WHERE id = $4 AND node = $5`,
			failures, times, e.f.now().Add(pause).UnixMilli(), ev.id, e.node)
		return err
	})
}

// settle ends an event, and owes a record of it to its destination.
func (e *events) settle(ev *event, destination, condition string, res *environment.Result) {
	if condition != "Success" {
		var why error
		if res != nil {
			why = failure(ev.function, res.Error, res.Payload)
		}
		e.f.log.Warn("an asynchronous invocation failed for good", "function", ev.function, "requestId", ev.requestID, "reason", condition, "err", why)
	}
	record := invocationRecord(e.f, ev, condition, res)
	e.write(ev, func(ctx context.Context, tx store.Tx) error {
		n, err := tx.Exec(`DELETE FROM function_event WHERE id = $1 AND node = $2`, ev.id, e.node)
		if err != nil || n == 0 {
			return err
		}
		e.f.db.AfterCommit(ctx, func() {
			e.rows.Add(-1)
			e.bytes.Add(-int64(len(ev.payload)))
		})
		if destination == "" {
			return nil
		}
		name, err := e.f.nameOf(destination)
		if err != nil {
			return err
		}
		return e.insert(ctx, tx, name, destination, record)
	})
}

// write notes how an attempt went; if that fails, the event is tried again when its lease has run out.
func (e *events) write(ev *event, fn store.Func) {
	if err := e.f.db.Write(context.WithoutCancel(e.ctx), fn); err != nil {
		e.f.log.Error("function: the outcome of an event could not be stored", "function", ev.function, "requestId", ev.requestID, "err", err)
	}
}

// invocationRecord tells a destination of an event.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
func invocationRecord(f *Functions, ev *event, condition string, res *environment.Result) []byte {
	type object = map[string]any
	raw := func(b []byte) any {
		if json.Valid(b) {
			return json.RawMessage(b)
		}
		return string(b)
	}
	doc := object{
		"version": "1.0", "timestamp": f.now().UTC().Format("2006-01-02T15:04:05.000Z"),
		"requestContext": object{"requestId": ev.requestID, "functionArn": ev.target, "condition": condition, "approximateInvokeCount": ev.failures + 1},
		"requestPayload": raw(ev.payload),
	}
	if res != nil {
		context := object{"statusCode": 200, "executedVersion": latestTag}
		if res.Error != "" {
			context["functionError"] = res.Error
		}
		doc["responseContext"], doc["responsePayload"] = context, raw(res.Payload)
	}
	text, err := json.Marshal(doc)
	if err != nil || len(text) > MaxEventPayload {
		delete(doc, "requestPayload")
		delete(doc, "responsePayload")
		text, _ = json.Marshal(doc) // nothing of a function is left in it
	}
	return text
}
