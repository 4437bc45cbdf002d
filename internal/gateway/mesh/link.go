package mesh

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"flotilla/internal/mqtt"
)

const (
	// frameBytes is when a frame is closed; a larger record has a frame of its own.
	frameBytes = 64 << 10
	// firstProbe is how long the sender waits before it sends an unacknowledged
	// frame again; the wait doubles to lastProbe.
	firstProbe = 300 * time.Millisecond
	lastProbe  = 2 * time.Second
	// resendPause keeps one gap from making many repetitions.
	resendPause = 50 * time.Millisecond
)

// batch is a frame in the making, or on its way. Its buffer begins with room for
// the head.
type batch struct {
	buf   []byte
	seq   uint64
	bytes int // of messages
	done  []func(error)
}

// link carries records to one peer. Its numbers are those of the present link:
// after the peer has forgotten, a new one takes all that was not acknowledged over.
type link struct {
	m       *Mesh
	peer    *Peer
	subject string
	head    []byte // without the place
	wake    chan struct{}

	mu     sync.Mutex
	number uint64
	seq    uint64   // of the last frame sent
	acked  uint64   // all up to here
	sent   []*batch // in the order of seq
	ready  []*batch // closed, to be sent
	open   *batch   // nil, or not empty
	onWay  int      // bytes in sent
	bytes  int      // of messages in sent, ready and open
	room   chan struct{}
	dead   error

	progress time.Time // of the last ack, or the first frame after none
	wait     time.Duration
	resend   bool
	resentAt time.Time

	inFlight atomic.Int64 // bytes, for Members
}

// newLink is called with own.mu held: it begins with all that the node is interested in.
func newLink(m *Mesh, p *Peer) *link {
	l := &link{
		m: m, peer: p, subject: m.subject("d", p.id), wake: make(chan struct{}, 1), number: m.nextLink(),
		head: appendHeader(nil, header{kindFrame, m.node, m.incarnation}), wait: firstProbe,
	}
	l.begin()
	return l
}

// begin puts the opening announcement at the end of ready.
func (l *link) begin() {
	d := l.m.own.all()
	d.records(func(r []byte) { l.put(r) })
	l.put(appendRecord(nil, recSynced))
	l.close()
}

// slot returns the batch that n more bytes go to.
func (l *link) slot(n int) *batch {
	if l.open != nil && len(l.open.buf)+n > frameBytes {
		l.close()
	}
	if l.open == nil {
		size := len(l.head) + frameTrailer
		l.open = &batch{buf: make([]byte, size, size+max(n, 512))}
	}
	return l.open
}

func (l *link) close() {
	if l.open != nil {
		l.ready = append(l.ready, l.open)
		l.open = nil
	}
}

func (l *link) put(record []byte) *batch {
	b := l.slot(len(record))
	b.buf = append(b.buf, record...)
	return b
}

func (l *link) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// record sends records that are not messages; done, if not nil, is called when
// they, and all before them, were taken.
func (l *link) record(records [][]byte, done func(error)) {
	l.mu.Lock()
	if l.dead != nil {
		err := l.dead
		l.mu.Unlock()
		if done != nil {
			done(err)
		}
		return
	}
	for _, r := range records {
		l.put(r)
	}
	if done != nil {
		last := l.last()
		if last == nil {
			l.mu.Unlock()
			done(nil)
			return
		}
		last.done = append(last.done, done)
	}
	l.mu.Unlock()
	l.signal()
}

// last is the batch that will be acknowledged last; nil when all are.
func (l *link) last() *batch {
	switch {
	case l.open != nil:
		return l.open
	case len(l.ready) > 0:
		return l.ready[len(l.ready)-1]
	case len(l.sent) > 0:
		return l.sent[len(l.sent)-1]
	}
	return nil
}

// errTooLarge is returned for a message that NATS would refuse.
var errTooLarge = errors.New("mesh: the message is larger than NATS takes")

func (l *link) message(msg *mqtt.Message, groups []string, done func(error)) error {
	n := 128 + len(msg.Topic) + len(msg.Payload) // about
	request := uint64(0)
	if len(groups) > 0 && done != nil {
		request, done = l.m.requests.share(l.peer, groups, done)
	}
	err := l.add(n, request, msg, groups, done)
	if err != nil && request != 0 && !l.m.requests.forget(request) {
		return nil // the end of the peer has been told to done already
	}
	return err
}

// add puts a message of about n bytes into the batch that is open.
func (l *link) add(n int, request uint64, msg *mqtt.Message, groups []string, done func(error)) error {
	l.mu.Lock()
	if l.dead != nil {
		err := l.dead
		l.mu.Unlock()
		return err
	}
	if l.bytes > 0 && l.bytes+n > l.m.cfg.MaxInFlight {
		l.mu.Unlock()
		return ErrFull
	}
	b := l.slot(n)
	before := len(b.buf)
	b.buf = appendMessage(b.buf, request, msg, groups)
	n = len(b.buf) - before
	if len(b.buf) > frameBytes {
		if max := int(l.m.conn.MaxPayload()); max > 0 && len(b.buf) > max {
			b.buf = b.buf[:before]
			if before == len(l.head)+frameTrailer {
				l.open = nil
			}
			l.mu.Unlock()
			return errTooLarge
		}
	}
	b.bytes += n
	l.bytes += n
	if done != nil {
		b.done = append(b.done, done)
	}
	l.mu.Unlock()
	l.signal()
	return nil
}

// messageWait waits for room.
func (l *link) messageWait(ctx context.Context, msg *mqtt.Message, groups []string, done func(error)) error {
	for {
		l.mu.Lock()
		if l.room == nil {
			l.room = make(chan struct{})
		}
		room := l.room
		l.mu.Unlock()
		if err := l.message(msg, groups, done); !errors.Is(err, ErrFull) {
			return err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// run sends what there is to send until the link is dead.
func (l *link) run() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-l.wake:
		case <-tick.C:
			l.probe()
		case <-l.peer.gone:
			return
		}
		if l.m.conn.IsConnected() {
			l.repeat()
			l.send()
		}
	}
}

// send sends closed and open batches while the way is not full.
func (l *link) send() {
	for {
		l.mu.Lock()
		if l.dead != nil || l.onWay > 0 && l.onWay >= max(l.m.cfg.MaxInFlight, 2*frameBytes) {
			l.mu.Unlock()
			return
		}
		if len(l.ready) == 0 {
			l.close()
		}
		if len(l.ready) == 0 {
			l.mu.Unlock()
			return
		}
		b := l.ready[0]
		l.ready[0] = nil
		l.ready = l.ready[1:]
		if len(l.sent) == 0 {
			l.progress, l.wait = time.Now(), firstProbe
		}
		l.seq++
		b.seq = l.seq
		l.seal(b)
		l.sent = append(l.sent, b)
		l.onWay += len(b.buf)
		l.inFlight.Store(int64(l.bytes))
		l.mu.Unlock()
		l.publish(b.buf)
	}
}

func (l *link) seal(b *batch) {
	n := copy(b.buf, l.head)
	putPlace(b.buf[n:], place{l.peer.incarnation, l.number, b.seq})
}

// publish copies buf into NATS's buffer. What fails is repeated later.
func (l *link) publish(buf []byte) {
	if err := l.m.conn.Publish(l.subject, buf); err != nil {
		l.m.log.Debug("mesh: not sent", "node", l.peer.id, "err", err)
	}
}

// probe repeats the first unacknowledged frame after a silence: the peer's answer
// says what else is missing.
func (l *link) probe() {
	l.mu.Lock()
	var buf []byte
	if len(l.sent) > 0 && time.Since(l.progress) >= l.wait && l.m.conn.IsConnected() {
		l.progress = time.Now()
		l.wait = min(2*l.wait, lastProbe)
		buf = l.sent[0].buf
	}
	l.mu.Unlock()
	if buf != nil {
		l.publish(buf)
	}
}

// repeat sends all unacknowledged frames again, if that was asked for.
func (l *link) repeat() {
	l.mu.Lock()
	if !l.resend {
		l.mu.Unlock()
		return
	}
	l.resend, l.resentAt = false, time.Now()
	sent := append([]*batch(nil), l.sent...)
	number := l.number
	l.mu.Unlock()
	for _, b := range sent {
		l.mu.Lock()
		stale := l.number != number || l.dead != nil
		l.mu.Unlock()
		if stale {
			return
		}
		l.publish(b.buf)
	}
}

// acknowledged is called with what the peer says it has taken.
func (l *link) acknowledged(number, upTo uint64, again bool) {
	l.mu.Lock()
	if l.dead != nil || number != l.number && (number != 0 || !again) || upTo > l.seq {
		l.mu.Unlock()
		return
	}
	if again && upTo < l.acked {
		l.mu.Unlock()
		if upTo == 0 { // else it was overtaken on its way
			l.restart(number)
		}
		return
	}
	var done []func(error)
	n := 0
	for n < len(l.sent) && l.sent[n].seq <= upTo {
		b := l.sent[n]
		l.sent[n] = nil
		l.onWay -= len(b.buf)
		l.bytes -= b.bytes
		done = append(done, b.done...)
		n++
	}
	if n > 0 {
		l.sent = l.sent[n:]
		l.acked = upTo
		l.progress, l.wait = time.Now(), firstProbe
		l.inFlight.Store(int64(l.bytes))
		if l.room != nil {
			close(l.room)
			l.room = nil
		}
	}
	if again && time.Since(l.resentAt) >= resendPause { // else it was said before that arrived
		l.resend = true
	}
	more := again || len(l.ready) > 0 || l.open != nil
	l.mu.Unlock()
	if more {
		l.signal()
	}
	for _, fn := range done {
		fn(nil)
	}
}

// restart begins a new link in the place of one that the peer has forgotten.
func (l *link) restart(number uint64) {
	l.m.own.mu.Lock()
	l.mu.Lock()
	if l.dead != nil || number != 0 && number != l.number || l.acked == 0 {
		l.mu.Unlock()
		l.m.own.mu.Unlock()
		return
	}
	l.close()
	pending := append(append([]*batch(nil), l.sent...), l.ready...)
	l.number, l.seq, l.acked, l.onWay = l.m.nextLink(), 0, 0, 0
	l.sent, l.ready = nil, nil
	// Changes of interest among what follows repeat what the announcement has: the
	// last word on a filter is the same.
	l.begin()
	l.ready = append(l.ready, pending...)
	l.progress, l.wait = time.Now(), firstProbe
	l.mu.Unlock()
	l.m.own.mu.Unlock()
	l.signal()
	l.m.log.Info("mesh: the node had forgotten this one", "node", l.peer.id)
	l.m.forgotten(l.peer)
	if fn := l.m.h.Missed; fn != nil {
		fn(l.peer.id)
	}
}

// reconnected has all that was on its way sent again.
func (l *link) reconnected() {
	l.mu.Lock()
	l.resend = true
	l.mu.Unlock()
	l.signal()
}

// fail ends the link.
func (l *link) fail(err error) {
	l.mu.Lock()
	if l.dead != nil {
		l.mu.Unlock()
		return
	}
	l.dead = err
	l.close()
	var done []func(error)
	for _, b := range append(l.sent, l.ready...) {
		done = append(done, b.done...)
	}
	l.sent, l.ready, l.bytes, l.onWay = nil, nil, 0, 0
	l.inFlight.Store(0)
	if l.room != nil {
		close(l.room)
		l.room = nil
	}
	l.mu.Unlock()
	for _, fn := range done {
		fn(err)
	}
}
