package gateway

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lobby holds the connections that have not sent their CONNECT yet, so that those who only stand there keep nobody out:
// when it is full, or holds as many from one address as it may, the one that has been silent longest goes, or else the
// one that has had us wait for it longest since it began to speak; but none before the time that a client in earnest
// needs, and none that waits for us: in a storm of devices it is we who are slow. With none to go a newcomer whose
// address has its share is refused; any other waits, in the kernel's queue, for a place.
type lobby struct {
	most, perAddress int
	grace            time.Duration // for those that have begun to speak; a quarter of it to begin
	evicted, refused func()

	mu       sync.Mutex
	visitors map[*visitor]struct{}
	from     map[netip.Addr]int
	left     chan struct{} // holds one: there may be a place
	over     chan struct{} // closed by close
	closed   bool
}

// visitor is a connection in the lobby.
type visitor struct {
	l    *lobby
	conn net.Conn
	addr netip.Addr

	// Guarded by l.mu.
	since  time.Time // when it came
	spoken bool
	asked  time.Time     // since when we wait for it; zero: it waits for us
	waited time.Duration // for it before, since it began to speak
	served bool          // it has said what it wants
}

// patience is how long we have waited for the client.
func (v *visitor) patience(now time.Time) time.Duration {
	switch {
	case !v.spoken:
		return now.Sub(v.since)
	case v.asked.IsZero():
		return v.waited
	}
	return v.waited + now.Sub(v.asked)
}

func newLobby(cfg *Config, m *metrics) *lobby {
	return &lobby{
		most: cfg.MaxHandshakes, perAddress: cfg.MaxHandshakesPerAddress, grace: min(time.Second, cfg.HandshakeTimeout/10),
		evicted: m.evicted.Inc, refused: m.crowded.Inc,
		visitors: map[*visitor]struct{}{}, from: map[netip.Addr]int{}, left: make(chan struct{}, 1), over: make(chan struct{}),
	}
}

// source is the address that a connection counts for: of IPv6 the network, whose addresses one host can all have.
func source(a net.Addr) netip.Addr {
	ip := address(a).Addr().Unmap()
	if ip.Is6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// visit lets a connection in that comes from an address, or returns nil: then the caller closes it.
func (l *lobby) visit(conn net.Conn, from net.Addr) *visitor {
	v := &visitor{l: l, conn: conn, addr: source(from)}
	if in, _ := l.place(v); in {
		return v
	}
	return nil
}

// enter is visit for a connection that was accepted: it may wait for a place.
func (l *lobby) enter(conn net.Conn) *visitor {
	v := &visitor{l: l, conn: conn, addr: source(conn.RemoteAddr())}
	for {
		in, wait := l.place(v)
		if !wait {
			if in {
				return v
			}
			return nil
		}
		timer := time.NewTimer(l.grace / 10)
		select {
		case <-l.left:
		case <-timer.C: // somebody's grace may be over
		case <-l.over:
		}
		timer.Stop()
	}
}

// place gives v a place, if necessary another's.
func (l *lobby) place(v *visitor) (in, wait bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false, false
	}
	now := time.Now()
	if l.perAddress < l.most && l.from[v.addr] >= l.perAddress && !l.evict(now, v.addr) {
		l.refused()
		return false, false
	}
	if len(l.visitors) >= l.most && !l.evict(now, netip.Addr{}) {
		return false, true
	}
	v.since = now
	l.visitors[v] = struct{}{}
	l.from[v.addr]++
	return true, false
}

// evict has the visitor go that deserves its place least, of those from an address if that is valid; false when there
// is none. It runs with mu held, and looks at all: that is a matter of microseconds, in a flood only.
func (l *lobby) evict(now time.Time, from netip.Addr) bool {
	for range evictTries {
		var worst *visitor
		var longest time.Duration
		for v := range l.visitors {
			waited := v.patience(now)
			switch {
			case from.IsValid() && v.addr != from, v.served, v.spoken && (v.asked.IsZero() || waited < l.grace), waited < l.grace/4:
			case worst == nil, worst.spoken && !v.spoken, worst.spoken == v.spoken && waited > longest:
				worst, longest = v, waited
			}
		}
		if worst == nil {
			return false
		}
		if hasData(worst.conn) { // it has answered: we have not come round to reading it
			worst.since, worst.asked = now, time.Time{}
			continue
		}
		l.remove(worst)
		l.evicted()
		_ = worst.conn.Close()
		return true
	}
	return false
}

// evictTries bounds how many are looked at more closely for one newcomer.
const evictTries = 8

// hasData tells whether something has come that was not read yet.
func hasData(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	var peek [1]byte
	err = raw.Control(func(fd uintptr) { n, _, _ = unix.Recvfrom(int(fd), peek[:], unix.MSG_PEEK|unix.MSG_DONTWAIT) })
	return err == nil && n > 0
}

func (l *lobby) remove(v *visitor) {
	if _, ok := l.visitors[v]; !ok {
		return
	}
	delete(l.visitors, v)
	if l.from[v.addr]--; l.from[v.addr] == 0 {
		delete(l.from, v.addr)
	}
	select {
	case l.left <- struct{}{}:
	default:
	}
}

// speaks tells that the client has begun to speak.
func (v *visitor) speaks() {
	v.l.mu.Lock()
	defer v.l.mu.Unlock()
	v.spoken = true
}

// waits tells that we begin, or cease, to wait for the client.
func (v *visitor) waits(begins bool) {
	v.l.mu.Lock()
	defer v.l.mu.Unlock()
	switch now := time.Now(); {
	case begins:
		v.asked = now
	case !v.asked.IsZero():
		v.waited, v.asked = v.waited+now.Sub(v.asked), time.Time{}
	}
}

// serve tells that the client has said what it wants: from now on it is not evicted.
func (v *visitor) serve() {
	if v == nil {
		return
	}
	v.l.mu.Lock()
	defer v.l.mu.Unlock()
	v.served = true
}

// leave gives the place back.
func (v *visitor) leave() {
	v.l.mu.Lock()
	defer v.l.mu.Unlock()
	v.l.remove(v)
}

func (l *lobby) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.visitors)
}

// close lets nobody in any more, and hurries those who are there.
func (l *lobby) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	close(l.over)
	for v := range l.visitors {
		_ = v.conn.SetDeadline(time.Unix(1, 0))
	}
}
