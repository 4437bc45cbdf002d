package sim

import (
	"context"
	"net"
	"sync"
	"time"
)

// link is a device's way to the network: slow perhaps, and it can be cut.
type link struct {
	latency        time.Duration
	bytesPerSecond int

	mu    sync.Mutex
	conn  net.Conn
	isCut bool
}

// dial connects over the link, as net.Dialer does.
func (l *link) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isCut {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	l.conn = conn
	if l.latency > 0 || l.bytesPerSecond > 0 {
		return &slowConn{Conn: conn, link: l, closed: make(chan struct{})}, nil
	}
	return conn, nil
}

// cut ends the connection, without a word if silently and else as the system closes one that is left open.
func (l *link) cut(silently bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isCut {
		return
	}
	l.isCut = true
	if l.conn == nil {
		return
	}
	if tcp, ok := l.conn.(*net.TCPConn); ok && silently {
		_ = tcp.SetLinger(0) // what was not sent is lost
	}
	_ = l.conn.Close()
}

func (l *link) wasCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.isCut
}

// slowConn takes its time with each read and each write.
type slowConn struct {
	net.Conn
	link   *link
	once   sync.Once
	closed chan struct{}
}

func (c *slowConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.wait(n)
	return n, err
}

func (c *slowConn) Write(b []byte) (int, error) {
	c.wait(len(b))
	return c.Conn.Write(b)
}

func (c *slowConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *slowConn) wait(bytes int) {
	d := c.link.latency
	if rate := c.link.bytesPerSecond; rate > 0 {
		d += time.Duration(bytes) * time.Second / time.Duration(rate)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.closed:
	}
}
