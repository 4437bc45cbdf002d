package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flotilla/internal/gateway/mesh"
)

// proxy is a wire to NATS that can be cut, silently or not.
type proxy struct {
	target string
	ln     net.Listener
	mu     sync.Mutex
	cut    bool
	deaf   atomic.Bool // bytes are swallowed
	conns  []net.Conn
	group  sync.WaitGroup
}

func newProxy(t *testing.T, natsURL string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(natsURL)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: u.Host, ln: ln}
	p.group.Go(p.serve)
	t.Cleanup(func() { _ = ln.Close(); p.sever(true); p.group.Wait() })
	u.Host = ln.Addr().String()
	return p, u.String()
}

func (p *proxy) serve() {
	for {
		a, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		b, err := net.Dial("tcp", p.target)
		if p.cut || err != nil {
			_ = a.Close()
			if err == nil {
				_ = b.Close()
			}
			p.mu.Unlock()
			continue
		}
		p.conns = append(p.conns, a, b)
		p.mu.Unlock()
		p.group.Go(func() { p.pipe(a, b) })
		p.group.Go(func() { p.pipe(b, a) })
	}
}

func (p *proxy) pipe(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.deaf.Load() {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// sever closes all connections and, while cut, takes no others.
func (p *proxy) sever(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func TestPartitionAndHealing(t *testing.T) {
	for _, silently := range []bool{false, true} {
		t.Run(fmt.Sprintf("silently %v", silently), func(t *testing.T) {
			t.Parallel()
			partition(t, silently)
		})
	}
}

func partition(t *testing.T, silently bool) {
	h := hub(t)
	wire, through := newProxy(t, h.URL())
	var in inbox
	var missedOne, missedTwo atomic.Int64
	left := make(chan string, 8)
	one := join(t, h.URL(), "n1", quick, mesh.Handlers{
		Left: func(n string, _ bool) { left <- n }, Missed: func(string) { missedOne.Add(1) },
	})
	two := join(t, through, "n2", quick, mesh.Handlers{Deliver: in.deliver, Missed: func(string) { missedTwo.Add(1) }})
	eventually(t, "joined", func() bool { return !one.Alone() })
	if err := two.Announce(t.Context(), []string{"t", "w/+"}, nil); err != nil {
		t.Fatal(err)
	}
	p := peer(t, one.Mesh, "n2")
	if silently {
		wire.deaf.Store(true)
	} else {
		wire.sever(true)
	}
	answer := make(chan error, 1)
	if err := one.Send(p, numbered(1, 0), nil, func(err error) { answer <- err }); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-answer:
		if !errors.Is(err, mesh.ErrGone) {
			t.Errorf("the send ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the send never ended")
	}
	if n := <-left; n != "n2" {
		t.Errorf("%s left", n)
	}
	if !one.Alone() || interested(one.Mesh, "t") != nil {
		t.Error("the node that left is still of interest")
	}
	if err := one.Send(p, numbered(2, 0), nil, nil); !errors.Is(err, mesh.ErrGone) {
		t.Errorf("send to a former member: %v", err)
	}
	// Nobody waits for who is not there.
	if err := one.Announce(t.Context(), []string{"x"}, nil); err != nil {
		t.Error(err)
	}
	eventually(t, "the other side sees it, too", two.Alone)
	if err := two.Announce(t.Context(), []string{"meanwhile"}, []string{"w/+"}); err != nil {
		t.Error(err)
	}

	wire.deaf.Store(false)
	wire.sever(false)
	eventually(t, "they find each other", func() bool { return !one.Alone() && !two.Alone() })
	eventually(t, "interest is whole", func() bool {
		return len(interested(one.Mesh, "t")) == 1 && len(interested(one.Mesh, "meanwhile")) == 1 && interested(one.Mesh, "w/1") == nil &&
			len(interested(two.Mesh, "x")) == 1
	})
	eventually(t, "both know that they may have missed something", func() bool { return missedOne.Load() > 0 && missedTwo.Load() > 0 })
	acked := sendAll(t, one.Mesh, peer(t, one.Mesh, "n2"), 1000, nil)
	if len(acked) != 1000 {
		t.Errorf("%d acknowledged after healing", len(acked))
	}
	if err := one.Announce(t.Context(), []string{"y"}, nil); err != nil {
		t.Error(err)
	}
	if len(interested(two.Mesh, "y")) != 1 {
		t.Error("announcements do not arrive after healing")
	}
}

// One side forgets the other, which has noticed nothing: no acknowledged message is lost.
func TestForgottenBySlowSide(t *testing.T) {
	t.Parallel()
	h := hub(t)
	wire, through := newProxy(t, h.URL())
	var in inbox
	patient := quick
	patient.Timeout = time.Hour
	var missed atomic.Int64
	one := join(t, h.URL(), "n1", patient, mesh.Handlers{Missed: func(string) { missed.Add(1) }})
	two := join(t, through, "n2", quick, mesh.Handlers{Deliver: in.deliver})
	eventually(t, "joined", func() bool { return !one.Alone() })
	if err := one.Announce(t.Context(), []string{"mine"}, nil); err != nil {
		t.Fatal(err)
	}
	p := peer(t, one.Mesh, "n2")
	acked := sendAll(t, one.Mesh, p, 100, nil)
	wire.deaf.Store(true)
	eventually(t, "n2 has dropped n1", two.Alone)
	var late atomic.Int64
	for i := range uint64(50) {
		if err := one.Send(p, numbered(100+i, 0), nil, func(err error) {
			if err != nil {
				t.Error(err)
			}
			late.Add(1)
		}); err != nil {
			t.Fatal(err)
		}
	}
	wire.deaf.Store(false)
	wire.sever(false)
	eventually(t, "all were acknowledged", func() bool { return late.Load() == 50 })
	if len(acked) != 100 || missed.Load() == 0 {
		t.Errorf("%d acknowledged before, missed %d times", len(acked), missed.Load())
	}
	eventually(t, "interest is known again", func() bool { return len(interested(two.Mesh, "mine")) == 1 && interested(two.Mesh, "else") == nil })
	got := slices.Compact(in.all())
	slices.Sort(got)
	if got = slices.Compact(got); len(got) != 150 {
		t.Errorf("%d different messages delivered", len(got))
	}
}

func TestRestartIsNoticed(t *testing.T) {
	h := hub(t)
	one := join(t, h.URL(), "n1", steady, mesh.Handlers{})
	b := connect(t, h.URL(), "n2")
	first := start(t, b, steady, mesh.Handlers{})
	if err := first.Announce(t.Context(), []string{"old"}, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "known", func() bool { return len(interested(one.Mesh, "old")) == 1 && interested(one.Mesh, "new") == nil })
	// The old incarnation says nothing more, and no farewell either.
	b.Conn().Close()
	second := join(t, h.URL(), "n2", steady, mesh.Handlers{})
	if err := second.Announce(t.Context(), []string{"new"}, nil); err != nil {
		t.Fatal(err)
	}
	if got := interested(one.Mesh, "old"); got != nil {
		t.Errorf("the old incarnation's interest: %v", got)
	}
	if got := interested(one.Mesh, "new"); len(got) != 1 {
		t.Errorf("the new one's: %v", got)
	}
}

func TestKickOfDeadNodeEnds(t *testing.T) {
	t.Parallel()
	h := hub(t)
	wire, through := newProxy(t, h.URL())
	one := join(t, h.URL(), "n1", quick, mesh.Handlers{})
	join(t, through, "n2", quick, mesh.Handlers{})
	eventually(t, "joined", func() bool { return !one.Alone() })
	wire.deaf.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := one.Kick(ctx, "", "cl", 1); err != nil {
		t.Error(err)
	}
}
