package environment

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxLog  = 256 << 10 // kept of a function, in bytes
	maxLine = 16 << 10  // longer ones are cut
	maxTail = 4 << 10   // of an invocation, as X-Amz-Log-Result has it
)

// Line is one line that a function printed, or that tells of an invocation.
type Line struct {
	Time time.Time
	Text string
}

// Log keeps the last lines of a function. It is safe for concurrent use; its zero value is empty.
type Log struct {
	mu    sync.Mutex
	lines []Line
	size  int
}

func (l *Log) add(texts ...string) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, text := range texts {
		l.lines = append(l.lines, Line{now, text})
		l.size += len(text) + 32
	}
	drop := 0
	for l.size > maxLog && drop < len(l.lines)-1 {
		l.size -= len(l.lines[drop].Text) + 32
		drop++
	}
	if drop > 0 {
		l.lines = append(l.lines[:0], l.lines[drop:]...)
	}
}

// Lines are those that are kept, the oldest first.
func (l *Log) Lines() []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Line(nil), l.lines...)
}

// output reads what a process prints.
type output struct {
	from *os.File
	pool *Pool
	done chan struct{}

	mu      sync.Mutex
	reading bool   // all that was read before is noted
	recent  []byte // of the invocation under way, its end
	cut     bool
}

func newOutput(from *os.File, p *Pool) *output {
	o := &output{from: from, pool: p, done: make(chan struct{})}
	go o.read()
	return o
}

func (o *output) read() {
	defer close(o.done)
	b := make([]byte, maxLine)
	var rest []byte
	for {
		o.mark(true)
		n, err := o.from.Read(b)
		o.mark(false)
		o.note(b[:n])
		rest = append(rest, b[:n]...)
		for len(rest) > 0 {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 && len(rest) < maxLine && err == nil {
				break
			}
			if i < 0 || i > maxLine {
				i = min(len(rest), maxLine)
			}
			o.line(rest[:i])
			rest = rest[min(i+1, len(rest)):]
		}
		if err != nil {
			return
		}
	}
}

func (o *output) line(b []byte) {
	text := strings.ToValidUTF8(strings.TrimSuffix(string(b), "\r"), "\ufffd")
	o.pool.log.add(text)
	if o.pool.e.cfg.Output {
		o.pool.e.log.Info("a function printed", "function", o.pool.f.Name, "text", text)
	}
}

func (o *output) mark(reading bool) {
	o.mu.Lock()
	o.reading = reading
	o.mu.Unlock()
}

func (o *output) note(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.recent = append(o.recent, b...)
	if drop := len(o.recent) - maxTail; drop > 0 {
		o.recent, o.cut = append(o.recent[:0], o.recent[drop:]...), true
	}
}

// begin starts the tail of another invocation.
func (o *output) begin() {
	o.mu.Lock()
	o.recent, o.cut = o.recent[:0], false
	o.mu.Unlock()
}

// tail gives the last 4 KiB of the log of the invocation, with the lines that frame it.
func (o *output) tail(first, last string) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b []byte
	if !o.cut {
		b = append(b, first...)
	}
	b = append(b, o.recent...)
	if n := len(b); n > 0 && b[n-1] != '\n' {
		b = append(b, '\n')
	}
	b = append(b, last...)
	return b[max(len(b)-maxTail, 0):]
}

// settle waits until what the process has printed so far is noted, but not for long.
func (o *output) settle() {
	for range 50 {
		o.mu.Lock()
		reading := o.reading
		o.mu.Unlock()
		if reading && o.unread() == 0 {
			return
		}
		select {
		case <-o.done:
			return
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// unread is how many bytes wait in the pipe.
func (o *output) unread() (n int) {
	conn, err := o.from.SyscallConn()
	if err != nil {
		return 0
	}
	_ = conn.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }) // closed: nothing is unread
	return n
}

// close ends reading, even if a grandchild holds the other end.
func (o *output) close() {
	_ = o.from.Close()
	<-o.done
}
