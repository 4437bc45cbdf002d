package netpoll

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrWouldBlock is what Read returns when nothing has arrived. It is a net.Error that
// is temporary, so that crypto/tls keeps a partial record and goes on later.
var ErrWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "netpoll: would block" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

// Socket is a TCP connection in one of two states: attached to Go's poller, with
// blocking reads, writes and deadlines, as a handshake wants it; and, after Detach,
// non-blocking. Then Read returns ErrWouldBlock, and Write always takes everything:
// what the kernel does not take waits in the Socket until Flush.
//
// It is a net.Conn. One goroutine may Read while others Write.
type Socket struct {
	attached      net.Conn // nil once detached
	waits         func(begins bool)
	local, remote net.Addr

	mu      sync.Mutex
	fd      int
	corked  bool
	closed  bool
	pending []byte // not taken by the kernel yet
}

// NewSocket takes over conn.
func NewSocket(conn net.Conn) *Socket {
	return &Socket{attached: conn, local: conn.LocalAddr(), remote: conn.RemoteAddr(), fd: -1}
}

// OnWait has fn called before and after each Read that may wait for the peer, until Detach. It must be set before the
// first one.
func (s *Socket) OnWait(fn func(begins bool)) { s.waits = fn }

// Wait returns once there is something to read, before the deadline and before Detach.
func (s *Socket) Wait() error {
	sc, ok := s.attached.(syscall.Conn)
	if !ok {
		return errors.New("netpoll: not a connection of the system")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return fmt.Errorf("netpoll: %w", err)
	}
	var n int
	var peekErr error
	b := make([]byte, 1)
	err = raw.Read(func(fd uintptr) bool {
		for peekErr = unix.EINTR; peekErr == unix.EINTR; {
			n, _, peekErr = unix.Recvfrom(int(fd), b, unix.MSG_PEEK)
		}
		return peekErr != unix.EAGAIN
	})
	switch {
	case err != nil:
		return err
	case peekErr != nil:
		return fmt.Errorf("netpoll: %w", peekErr)
	case n == 0:
		return io.EOF
	}
	return nil
}

// Detach takes the connection off Go's poller and returns its descriptor, which the
// Socket owns. There must be no Read or Write under way.
func (s *Socket) Detach() (fd int, err error) {
	sc, ok := s.attached.(syscall.Conn)
	if !ok {
		return -1, errors.New("netpoll: not a connection of the system")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("netpoll: %w", err)
	}
	var dupErr error
	if err := raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, fmt.Errorf("netpoll: %w", err)
	}
	if dupErr != nil {
		return -1, fmt.Errorf("netpoll: dup: %w", dupErr)
	}
	_ = s.attached.Close() // the duplicate keeps the connection
	s.mu.Lock()
	s.attached, s.waits, s.fd = nil, nil, fd
	s.local, s.remote = nil, nil
	s.mu.Unlock()
	return fd, nil
}

// Read implements net.Conn.
func (s *Socket) Read(b []byte) (int, error) {
	if s.attached != nil {
		if s.waits != nil {
			s.waits(true)
			defer s.waits(false)
		}
		return s.attached.Read(b)
	}
	if len(b) == 0 {
		return 0, nil
	}
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch {
		case errno == 0 && n == 0:
			return 0, io.EOF
		case errno == 0:
			return int(n), nil
		case errno == syscall.EAGAIN:
			return 0, ErrWouldBlock
		case errno != syscall.EINTR:
			return 0, errno
		}
	}
}

// Write implements net.Conn. Detached, it fails only once the connection is broken.
func (s *Socket) Write(b []byte) (int, error) {
	if s.attached != nil {
		return s.attached.Write(b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	n := 0
	if len(s.pending) == 0 && !s.corked {
		var err error
		if n, err = s.write(b); err != nil {
			return n, err
		}
	}
	if n < len(b) {
		s.pending = append(s.pending, b[n:]...)
	}
	return len(b), nil
}

// TryWrite writes what the kernel takes, which is 0 when something is pending.
func (s *Socket) TryWrite(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	if len(s.pending) > 0 {
		return 0, nil
	}
	return s.write(b)
}

func (s *Socket) write(b []byte) (written int, err error) {
	for len(b) > 0 {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if errno == syscall.EINTR {
			continue
		}
		if errno == syscall.EAGAIN {
			return written, nil
		}
		if errno != 0 {
			return written, errno
		}
		written += int(n)
		b = b[n:]
	}
	return written, nil
}

// Cork has Write only collect, until Flush. buf is an empty buffer to collect in.
func (s *Socket) Cork(buf []byte) {
	s.mu.Lock()
	s.corked = true
	if s.pending == nil {
		s.pending = buf
	}
	s.mu.Unlock()
}

// Flush uncorks, writes what is pending as far as the kernel takes it, and returns how much is
// left. spare is the buffer that was used, when nothing is left, for reuse.
func (s *Socket) Flush() (left int, spare []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = false
	if s.closed {
		return 0, nil, net.ErrClosed
	}
	if len(s.pending) > 0 {
		n, err := s.write(s.pending)
		if err != nil {
			return 0, nil, err
		}
		if n < len(s.pending) {
			s.pending = s.pending[:copy(s.pending, s.pending[n:])]
			return len(s.pending), nil, nil
		}
	}
	spare, s.pending = s.pending, nil
	return 0, spare[:0], nil
}

// Pending is how many bytes wait for the kernel.
func (s *Socket) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending)
}

// CloseWrite ends the stream towards the peer.
func (s *Socket) CloseWrite() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 && !s.closed {
		_ = unix.Shutdown(s.fd, unix.SHUT_WR)
	}
}

// Close implements net.Conn. Detached, no Read may be under way, and the loop must have
// forgotten the descriptor.
func (s *Socket) Close() error {
	if s.attached != nil {
		return s.attached.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed, s.pending = true, nil
	return unix.Close(s.fd)
}

// LocalAddr implements net.Conn; nil once detached.
func (s *Socket) LocalAddr() net.Addr { return s.local }

// RemoteAddr implements net.Conn; nil once detached.
func (s *Socket) RemoteAddr() net.Addr { return s.remote }

// SetDeadline implements net.Conn; detached there are none.
func (s *Socket) SetDeadline(t time.Time) error {
	if s.attached == nil {
		return os.ErrNoDeadline
	}
	return s.attached.SetDeadline(t)
}

// SetReadDeadline implements net.Conn; detached there are none.
func (s *Socket) SetReadDeadline(t time.Time) error {
	if s.attached == nil {
		return os.ErrNoDeadline
	}
	return s.attached.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn; detached there are none.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if s.attached == nil {
		return os.ErrNoDeadline
	}
	return s.attached.SetWriteDeadline(t)
}
