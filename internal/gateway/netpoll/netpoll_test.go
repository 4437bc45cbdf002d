package netpoll_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"flotilla/internal/gateway/netpoll"
)

// echo sends back what comes, by a loop.
type echo struct {
	loop  *netpoll.Loop[*netpoll.Socket]
	fds   map[*netpoll.Socket]int
	turns int
	buf   [8192]byte
}

func (e *echo) Ready(s *netpoll.Socket, ev netpoll.Event) {
	if ev&netpoll.Writable != 0 {
		_, _, _ = s.Flush()
	}
	for {
		n, err := s.Read(e.buf[:])
		if err == netpoll.ErrWouldBlock {
			return
		}
		if err != nil {
			e.loop.Remove(e.fds[s])
			_ = s.Close()
			return
		}
		_, _ = s.Write(e.buf[:n])
	}
}

func (e *echo) Turn() bool { e.turns++; return false }
func (e *echo) Tick()      {}

func TestLoopServesManySockets(t *testing.T) {
	loop, err := netpoll.New[*netpoll.Socket](50 * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{loop: loop, fds: map[*netpoll.Socket]int{}}
	go loop.Run(e)
	defer loop.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var wg sync.WaitGroup
	for i := range uint64(20) {
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		accepted, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		s := netpoll.NewSocket(accepted)
		fd, err := s.Detach()
		if err != nil {
			t.Fatal(err)
		}
		loop.Post(func() {
			e.fds[s] = fd
			if err := loop.Add(fd, s); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			// Far more than socket buffers hold, and read late: the rest waits in the Socket.
			want := make([]byte, 3<<20)
			r := rand.New(rand.NewPCG(i, 1))
			for k := range want {
				want[k] = byte(r.Uint32())
			}
			_ = client.SetDeadline(time.Now().Add(time.Minute))
			if _, err := client.Write(want); err != nil {
				t.Error(err)
				return
			}
			got := make([]byte, len(want))
			if _, err := io.ReadFull(client, got); err != nil {
				t.Error(err)
				return
			}
			if !bytes.Equal(got, want) {
				t.Error("what came back is not what was sent")
			}
		})
	}
	wg.Wait()
}

func TestPostAfterCloseIsRefused(t *testing.T) {
	loop, err := netpoll.New[*netpoll.Socket](time.Second)
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{loop: loop, fds: map[*netpoll.Socket]int{}}
	go loop.Run(e)
	ran := make(chan struct{})
	if !loop.Post(func() { close(ran) }) {
		t.Fatal("refused while running")
	}
	loop.Close()
	<-ran
	if loop.Post(func() {}) {
		t.Error("taken after Close")
	}
}
