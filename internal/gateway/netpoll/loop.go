package netpoll

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Event says what happened to a socket.
type Event uint32

// The events. Hangup comes with the end of the peer's stream, and with errors: who sees
// it reads until the end.
const (
	Readable Event = unix.EPOLLIN
	Writable Event = unix.EPOLLOUT
	Hangup   Event = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
)

// Owner is what a loop serves; its methods are called by the loop's goroutine alone.
type Owner[T any] interface {
	// Ready is called for each event of a registered socket.
	Ready(conn T, ev Event)
	// Turn is called once after the events and posts of a wake-up. It returns true when
	// work is left that can go on at once: the loop then does not sleep.
	Turn() (more bool)
	// Tick is called about every interval, also when nothing happens.
	Tick()
}

const maxEvents = 512

// Loop is one epoll instance and its goroutine.
type Loop[T comparable] struct {
	epfd, wakefd int
	tick         time.Duration
	woken        atomic.Bool

	mu     sync.Mutex
	posted []func()
	closed bool

	table []T // by descriptor; touched by the loop's goroutine alone
	done  chan struct{}
}

// New opens a loop whose owner is ticked at the given interval.
func New[T comparable](tick time.Duration) (*Loop[T], error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("netpoll: epoll: %w", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		_ = unix.Close(epfd)
		return nil, fmt.Errorf("netpoll: eventfd: %w", err)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wakefd)}
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, wakefd, &ev); err != nil {
		_ = unix.Close(epfd)
		_ = unix.Close(wakefd)
		return nil, fmt.Errorf("netpoll: epoll: %w", err)
	}
	return &Loop[T]{epfd: epfd, wakefd: wakefd, tick: tick, done: make(chan struct{})}, nil
}

// Post has fn called by the loop's goroutine, before the next events. It returns false
// when the loop has ended. The caller bounds how much it posts.
func (l *Loop[T]) Post(fn func()) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	l.posted = append(l.posted, fn)
	l.mu.Unlock()
	l.Wake()
	return true
}

// Wake has the loop make a turn soon, whether or not anything happened. It is cheap
// when the loop has been woken already.
func (l *Loop[T]) Wake() {
	if l.woken.Swap(true) {
		return
	}
	one := uint64(1)
	_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, uintptr(l.wakefd), uintptr(unsafe.Pointer(&one)), 8)
}

// Add registers a non-blocking socket. It may be called by the loop's goroutine alone.
// Events that are due already follow in the next round.
func (l *Loop[T]) Add(fd int, conn T) error {
	for fd >= len(l.table) {
		l.table = append(l.table, make([]T, max(1024, len(l.table)))...)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd)}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("netpoll: add: %w", err)
	}
	l.table[fd] = conn
	return nil
}

// Remove forgets a socket; the caller closes it afterwards. It may be called by the
// loop's goroutine alone.
func (l *Loop[T]) Remove(fd int) {
	var zero T
	if fd < len(l.table) && l.table[fd] != zero {
		l.table[fd] = zero
		_ = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, fd, nil)
	}
}

// Run serves o until Close. It is the loop's goroutine.
func (l *Loop[T]) Run(o Owner[T]) {
	defer close(l.done)
	events := make([]unix.EpollEvent, maxEvents)
	var posted []func()
	nextTick := time.Now().Add(l.tick)
	more := false
	for {
		n := 0
		if more {
			n = l.poll(events)
		} else if n = l.poll(events); n == 0 {
			n = l.wait(events, time.Until(nextTick))
		}
		for i := range n {
			fd := int(events[i].Fd)
			if fd == l.wakefd {
				var drain [8]byte
				_, _, _ = syscall.RawSyscall(syscall.SYS_READ, uintptr(l.wakefd), uintptr(unsafe.Pointer(&drain)), 8)
				continue
			}
			if fd < len(l.table) {
				var zero T
				if c := l.table[fd]; c != zero {
					o.Ready(c, Event(events[i].Events))
				}
			}
		}
		if l.woken.Swap(false) {
			l.mu.Lock()
			posted, l.posted = l.posted, posted[:0]
			closed := l.closed
			l.mu.Unlock()
			for i, fn := range posted {
				fn()
				posted[i] = nil
			}
			if closed {
				o.Turn()
				return
			}
		}
		if now := time.Now(); !now.Before(nextTick) {
			nextTick = now.Add(l.tick)
			o.Tick()
		}
		more = o.Turn()
	}
}

// poll takes what is there without telling the scheduler, for it cannot block.
func (l *Loop[T]) poll(events []unix.EpollEvent) int {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func (l *Loop[T]) wait(events []unix.EpollEvent, d time.Duration) int {
	ms := max(0, int((d+time.Millisecond-1)/time.Millisecond))
	n, _, errno := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(ms), 0, 0)
	if errno != 0 {
		return 0 // EINTR
	}
	return int(n)
}

// Close ends Run, after what was posted before, and closes the loop's own descriptors.
// Sockets that are still registered stay open: they are the owner's.
func (l *Loop[T]) Close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	l.mu.Unlock()
	l.Wake()
	<-l.done
	_ = unix.Close(l.epfd)
	_ = unix.Close(l.wakefd)
}
