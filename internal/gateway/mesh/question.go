package mesh

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// maxQuestions of other nodes are worked on at a time, of maxQuestionBytes together.
	maxQuestions     = 1024
	maxQuestionBytes = 32 << 20
	// maxQuestionTime is how long a question of another node may take.
	maxQuestionTime = 30 * time.Second
)

// ErrTooLarge says that a question or its answer is larger than NATS takes.
var ErrTooLarge = errors.New("mesh: larger than NATS takes")

// questions are those of other nodes that are worked on.
type questions struct {
	group sync.WaitGroup

	mu       sync.Mutex
	n, bytes int
}

func (q *questions) begin(size int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n >= maxQuestions || q.bytes+size > maxQuestionBytes {
		return false
	}
	q.n++
	q.bytes += size
	return true
}

func (q *questions) end(size int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.n--
	q.bytes -= size
}

// Ask asks a node something and returns what its Handlers.Answer gives. It waits until
// ctx ends, which must have a deadline; the other node knows it. A question is put
// once: after an error it may have been answered nevertheless. Errors: ErrGone for a node that is
// no member, or ceases to be one meanwhile; ErrBusy; ErrTooLarge; those of ctx.
func (m *Mesh) Ask(ctx context.Context, p *Peer, question []byte) ([]byte, error) {
	answer, err := m.put(ctx, p, question)
	if err != nil {
		return nil, fmt.Errorf("mesh: ask %s: %w", p.id, err)
	}
	return answer, nil
}

func (m *Mesh) put(ctx context.Context, p *Peer, question []byte) ([]byte, error) {
	if m.closed.Load() {
		return nil, ErrClosed
	}
	until, ok := ctx.Deadline()
	if !ok {
		return nil, errors.New("a question needs a deadline")
	}
	left := min(time.Until(until), maxQuestionTime)
	if left <= 0 {
		return nil, context.DeadlineExceeded
	}
	buf := appendHeader(make([]byte, 0, 64+len(p.id)+len(question)), header{kindQuestion, m.node, m.incarnation})
	buf = appendQuestion(buf, p.incarnation, left, question)
	if max := m.conn.MaxPayload(); max > 0 && int64(len(buf)) > max {
		return nil, ErrTooLarge
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-p.gone:
			cancel(ErrGone)
		case <-ctx.Done():
		}
	}()
	defer func() {
		cancel(nil)
		<-watched
	}()
	msg, err := m.conn.RequestWithContext(ctx, m.subject("q", p.id), buf)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	h, rest, err := parseHeader(msg.Data)
	if err != nil || h.kind != kindAnswer || h.node != p.id || h.incarnation != p.incarnation || len(rest) < 1 {
		return nil, errMalformed
	}
	switch rest[0] {
	case codeDone:
		return rest[1:], nil
	case codeBusy:
		return nil, ErrBusy
	}
	return nil, errors.New("the node could not answer")
}

// heardQuestion has a question of another node worked on.
func (m *Mesh) heardQuestion(msg *nats.Msg) {
	h, rest, err := parseHeader(msg.Data)
	if err != nil || h.kind != kindQuestion || msg.Reply == "" {
		m.malformed("question", err)
		return
	}
	to, limit, question, err := parseQuestion(rest)
	if err != nil {
		m.malformed("question", err)
		return
	}
	if to != m.incarnation || h.node == m.node || m.closed.Load() || m.heard(h) == nil {
		return
	}
	if !m.questions.begin(len(question)) {
		m.answer(msg.Reply, codeBusy, nil)
		return
	}
	m.questions.group.Go(func() {
		defer m.questions.end(len(question))
		ctx, cancel := context.WithTimeout(m.ctx, limit)
		defer cancel()
		code := byte(codeFailed)
		var answer []byte
		if m.h.Answer != nil {
			if answer, err = m.h.Answer(ctx, question); err == nil {
				code = codeDone
			} else if m.ctx.Err() == nil {
				m.log.Warn("mesh: a question of another node is not answered", "node", h.node, "err", err)
			}
		}
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) { // else nobody waits
			m.answer(msg.Reply, code, answer)
		}
	})
}

func (m *Mesh) answer(to string, code byte, body []byte) {
	buf := appendHeader(make([]byte, 0, 64+len(m.node)+len(body)), header{kindAnswer, m.node, m.incarnation})
	if max := m.conn.MaxPayload(); max > 0 && int64(len(buf)+1+len(body)) > max {
		m.log.Warn("mesh: an answer is larger than NATS takes", "err", ErrTooLarge)
		code, body = codeFailed, nil
	}
	if err := m.conn.Publish(to, append(append(buf, code), body...)); err != nil {
		m.log.Debug("mesh: answer not sent", "err", err)
	}
}
