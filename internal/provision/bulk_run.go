package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"flotilla/internal/aws/iot"
	"flotilla/internal/provision/template"
	"flotilla/internal/store"
)

const (
	bulkLook   = 2 * time.Second // how often a node looks for a task
	bulkLease  = 30 * time.Second
	bulkChunk  = 1 << 20   // bytes read at once
	maxLine    = 256 << 10 // AWS's limit of a line, in bytes
	bulkGroup  = 16        // most lines that are registered at a time, and between two notes of where the task is
	bulkTries  = 5         // at what fails for reasons of our own, or of the object store
	bulkRetry  = time.Second
	sweepLines = 1000
)

// bulk is the part of the room that registers in bulk.
type bulk struct {
	holder string
	limit  *rate.Limiter
	group  int // lines; no more than a second's, so that a task stops soon
	wake   chan struct{}
}

func newBulk(node string, linesPerSecond int) *bulk {
	group := min(bulkGroup, linesPerSecond)
	return &bulk{holder: node, limit: rate.NewLimiter(rate.Limit(linesPerSecond), group), group: group, wake: make(chan struct{}, 1)}
}

// nudge has the node look for a task now.
func (b *bulk) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// errTaskEnded stops the work at a task that is not this node's to go on with.
var errTaskEnded = errors.New("provision: the task was stopped, or is another node's")

// runBulk works at bulk registration tasks until ctx ends.
func (t *Templates) runBulk(ctx context.Context) {
	tick := time.NewTicker(bulkLook)
	defer tick.Stop()
	for {
		if err := t.workAtTask(ctx); err != nil && ctx.Err() == nil {
			t.Log.Warn("bulk registration is interrupted, it will go on", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.bulk.wake:
		case <-tick.C:
		}
	}
}

// workAtTask takes the open task, if there is one that no other node holds, and works at it to its end.
func (t *Templates) workAtTask(ctx context.Context) error {
	var k *task
	err := t.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		k, err = selectOpenTask(tx)
		return err
	})
	now := t.nowMS()
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case k.holder != "" && k.holder != t.bulk.holder && k.heldUntil > now:
		return nil
	}
	var held bool
	err = t.DB.Write(ctx, func(_ context.Context, tx store.Tx) (err error) {
		if held, err = holdTask(tx, k.id, t.bulk.holder, now, now+bulkLease.Milliseconds()); err != nil || !held {
			return err
		}
		k, err = selectTask(tx, k.id) // as who had it before left it
		return err
	})
	if err != nil || !held {
		return err
	}
	err = t.registerAll(ctx, k)
	if errors.Is(err, errTaskEnded) {
		err = t.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
			k, err = selectTask(tx, k.id)
			return err
		})
		if err == nil && k.status == iot.StatusCancelling && k.holder == t.bulk.holder {
			return t.endTask(ctx, k, iot.StatusCancelled, "")
		}
	}
	return err
}

// endTask gives a task its last status.
func (t *Templates) endTask(ctx context.Context, k *task, status, message string) error {
	t.Log.Info("bulk registration ended", "op", "StartThingRegistrationTask", "status", status, "reason", message)
	return t.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		now, err := selectTask(tx, k.id)
		if err != nil {
			return err
		}
		if now.status == iot.StatusCancelling {
			status, message = iot.StatusCancelled, ""
		}
		return setTaskStatus(tx, k.id, status, clip(message, 2000), t.nowMS())
	})
}

// registerAll goes through the input from where the task is.
func (t *Templates) registerAll(ctx context.Context, k *task) error {
	tpl, err := template.Parse(k.body, template.RegisterThing)
	if err != nil {
		return t.endTask(ctx, k, iot.StatusFailed, err.Error())
	}
	for {
		switch {
		case k.status == iot.StatusCancelling:
			return t.endTask(ctx, k, iot.StatusCancelled, "")
		case k.created+taskLifetime.Milliseconds() <= t.nowMS():
			return t.endTask(ctx, k, iot.StatusCancelled, "The task has run for 30 days.")
		case k.size >= 0 && k.doneBytes >= k.size:
			return t.endTask(ctx, k, iot.StatusCompleted, "")
		}
		part, message, err := t.readPart(ctx, k)
		switch {
		case message != "":
			return t.endTask(ctx, k, iot.StatusFailed, message)
		case err != nil:
			return err
		case len(part) > 0:
			if err := t.registerPart(ctx, k, tpl, part); err != nil {
				return err
			}
		}
	}
}

// readPart reads what comes next. A message says why the task has failed.
func (t *Templates) readPart(ctx context.Context, k *task) (part []byte, message string, err error) {
	part, size, version, err := t.Objects.ReadRange(ctx, k.bucket, k.key, k.doneBytes, bulkChunk)
	for try := 1; err != nil && try < bulkTries && !errors.Is(err, fs.ErrNotExist); try++ {
		if err := wait(ctx, bulkRetry<<try); err != nil {
			return nil, "", err
		}
		part, size, version, err = t.Objects.ReadRange(ctx, k.bucket, k.key, k.doneBytes, bulkChunk)
	}
	switch {
	case ctx.Err() != nil:
		return nil, "", ctx.Err()
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Sprintf("There is no object %s in bucket %s.", k.key, k.bucket), nil
	case err != nil:
		return nil, fmt.Sprintf("The object %s in bucket %s cannot be read: %v", k.key, k.bucket, err), nil
	case size > t.cfg.BulkMaxBytes:
		return nil, fmt.Sprintf("The input has %d bytes; the most is %d.", size, t.cfg.BulkMaxBytes), nil
	case k.size >= 0 && (k.size != size || k.version != version):
		return nil, "The input was changed while it was read.", nil
	case len(part) == 0 && k.doneBytes < size:
		return nil, "The input ends before its size.", nil
	}
	if k.size < 0 {
		k.size, k.version = size, version
		err = t.DB.Write(ctx, func(_ context.Context, tx store.Tx) error { return setTaskInput(tx, k.id, size, version) })
	}
	return part, "", err
}

// line is one of the input's; long ones come without their text.
type line struct {
	number, offset int64
	text           []byte
	tooLong        bool
}

// registerPart registers the whole lines of a part, and the last one of the input though it may not end.
func (t *Templates) registerPart(ctx context.Context, k *task, tpl *template.Template, part []byte) error {
	start, offset := k.doneBytes, k.doneBytes
	last := offset+int64(len(part)) >= k.size
	number := k.doneLines
	var group []line
	flush := func() error {
		if err := t.registerGroup(ctx, k, tpl, group); err != nil {
			return err
		}
		group = group[:0]
		return t.advance(ctx, k, offset, number)
	}
	for len(part) > 0 {
		n := bytes.IndexByte(part, '\n')
		if n < 0 && !last {
			break
		}
		text := part
		if n >= 0 {
			text = part[:n]
			n++
		} else {
			n = len(part)
		}
		number++
		if text = bytes.TrimSpace(text); len(text) > 0 {
			group = append(group, line{number: number, offset: offset, text: text, tooLong: len(text) > maxLine})
		}
		offset, part = offset+int64(n), part[n:]
		if len(group) == t.bulk.group {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if offset == start { // not one end of line: it is longer than a part
		return t.skipLine(ctx, k, tpl)
	}
	return flush()
}

// skipLine reports a line that is far too long, and looks for its end.
func (t *Templates) skipLine(ctx context.Context, k *task, tpl *template.Template) error {
	number := k.doneLines + 1
	if err := t.registerGroup(ctx, k, tpl, []line{{number: number, offset: k.doneBytes, tooLong: true}}); err != nil {
		return err
	}
	for at := k.doneBytes; at < k.size; {
		part, size, version, err := t.Objects.ReadRange(ctx, k.bucket, k.key, at, bulkChunk)
		if err != nil {
			return err
		}
		if size != k.size || version != k.version || len(part) == 0 {
			return errors.New("provision: the input was changed while it was read")
		}
		n := bytes.IndexByte(part, '\n')
		if n >= 0 {
			return t.advance(ctx, k, at+int64(n)+1, number)
		}
		at += int64(len(part))
	}
	return t.advance(ctx, k, k.size, number)
}

// advance notes how far the task is.
func (t *Templates) advance(ctx context.Context, k *task, bytes, lines int64) error {
	now := t.nowMS()
	return t.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		mine, err := advanceTask(tx, k.id, t.bulk.holder, bytes, lines, now, now+bulkLease.Milliseconds())
		if err == nil && !mine {
			return errTaskEnded
		}
		k.doneBytes, k.doneLines = bytes, lines
		return err
	})
}

// registerGroup registers lines, some at a time. All are over when it returns.
func (t *Templates) registerGroup(ctx context.Context, k *task, tpl *template.Template, lines []line) error {
	if len(lines) == 0 {
		return nil
	}
	if err := t.bulk.limit.WaitN(ctx, len(lines)); err != nil {
		return err
	}
	var g errgroup.Group
	for _, l := range lines {
		g.Go(func() (err error) {
			for try := 1; ; try++ {
				if err = t.registerLine(ctx, k, tpl, l, try == bulkTries); err == nil || errors.Is(err, errTaskEnded) || try == bulkTries {
					return err
				}
				if err := wait(ctx, bulkRetry<<try/8); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// registerLine registers what a line says, and notes it in the same transaction. An error is one of our own, unless
// last has it count as the line's.
func (t *Templates) registerLine(ctx context.Context, k *task, tpl *template.Template, l line, last bool) error {
	a := t.attempt(flowBulk, opRegister)
	a.begin("line", fmt.Sprintf("%d of task %s", l.number, k.id))
	out, err := t.tryLine(ctx, k, tpl, l, a)
	if errors.Is(err, errTaskEnded) || errors.Is(err, errLineDone) {
		return ignoreDone(err)
	}
	if err != nil {
		p, internal := lineError(err)
		if internal && !last {
			return err
		}
		err2 := t.noteLine(ctx, k, l, p)
		if errors.Is(err2, errTaskEnded) || errors.Is(err2, errLineDone) {
			return ignoreDone(err2)
		}
		if err2 != nil {
			return err2
		}
	} else {
		a.made(out)
	}
	t.over(a, err)
	return nil
}

// errLineDone: the line was tried before.
var errLineDone = errors.New("provision: the line is done")

func ignoreDone(err error) error {
	if errors.Is(err, errLineDone) {
		return nil
	}
	return err
}

func (t *Templates) tryLine(ctx context.Context, k *task, tpl *template.Template, l line, a *attempt) (out *outcome, err error) {
	if l.tooLong {
		return nil, invalid(fmt.Sprintf("The line is longer than %d bytes.", maxLine))
	}
	var parameters map[string]string
	if err := json.Unmarshal(l.text, &parameters); err != nil {
		return nil, invalid("The line is not a JSON object of strings: " + malformed(err) + ".")
	}
	a.parameters = parameters
	if err := checkParameters(parameters); err != nil {
		return nil, err
	}
	a.done("understood")
	a.begin("resolve", "")
	plan, err := tpl.Resolve(template.Input{Parameters: parameters})
	if err != nil {
		return nil, err
	}
	a.done("all values computed")
	if err := t.sign(ctx, plan, a); err != nil {
		return nil, err
	}
	mark := a.mark()
	err = t.DB.Write(ctx, func(ctx context.Context, tx store.Tx) error {
		a.back(mark)
		if err := t.beginLine(tx, k, l, false); err != nil {
			return err
		}
		if out, err = t.apply(ctx, plan, a); err != nil {
			return err
		}
		report, err := json.Marshal(resultLine{l.number, l.offset, lineResponse{ResourceARNs: out.arns}}, json.Deterministic(true))
		if err != nil {
			return err
		}
		return insertLine(tx, k.id, l.number, false, string(report))
	})
	return out, err
}

// beginLine counts a line that was not tried before.
func (t *Templates) beginLine(tx store.Tx, k *task, l line, failed bool) error {
	switch may, err := countLine(tx, k.id, t.bulk.holder, failed); {
	case err != nil:
		return err
	case !may:
		return errTaskEnded
	}
	done, err := lineIsDone(tx, k.id, l.number)
	if err == nil && done {
		return errLineDone
	}
	return err
}

// noteLine reports a line that failed.
func (t *Templates) noteLine(ctx context.Context, k *task, l line, p errorLine) error {
	p.Line, p.Offset = l.number, l.offset
	report, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return t.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		if err := t.beginLine(tx, k, l, true); err != nil {
			return err
		}
		return insertLine(tx, k.id, l.number, true, string(report))
	})
}

// sweepTasks forgets tasks that are long over.
func (t *Templates) sweepTasks(ctx context.Context) error {
	var ids []string
	err := t.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		ids, err = selectForgotten(tx, t.nowMS()-taskLifetime.Milliseconds(), maxTasks)
		return err
	})
	for _, id := range ids {
		for n := int64(sweepLines); err == nil && n == sweepLines; {
			err = t.DB.Write(ctx, func(_ context.Context, tx store.Tx) (err error) {
				if n, err = deleteLines(tx, id, sweepLines); err == nil && n < sweepLines {
					err = deleteTask(tx, id)
				}
				return err
			})
		}
	}
	return err
}

// wait waits, unless ctx ends before.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
