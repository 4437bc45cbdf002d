// Command floor is the least that a Go server with a goroutine for each connection
// does. Mode idle: accept (mutual TLS with -cert), answer CONNECT and PINGREQ, read
// with a small buffer. Mode relay: also copy each PUBLISH to every connection that
// ever subscribed; topics are not looked at. SIGUSR1 collects garbage and returns
// memory to the kernel.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"flag"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
)

var (
	addr  = flag.String("addr", "127.0.0.1:21900", "listen address")
	mode  = flag.String("mode", "idle", "idle or relay")
	cert  = flag.String("cert", "", "server certificate; plain TCP if empty")
	key   = flag.String("key", "", "server key")
	ca    = flag.String("ca", "", "CA of the client certificates")
	inl   = flag.Bool("inline", false, "relay: the reader writes to subscribers itself once its input is used up, instead of waking a writer goroutine for each")
	inBuf = flag.Int("buf", 512, "read buffer of a connection")
)

func main() {
	flag.Parse()
	ln, err := net.Listen("tcp", *addr)
	check(err)
	var cfg *tls.Config
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *key)
		check(err)
		pem, err := os.ReadFile(*ca)
		check(err)
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		cfg = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	}
	go func() {
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGUSR1)
		for range c {
			debug.FreeOSMemory()
		}
	}()
	for {
		c, err := ln.Accept()
		check(err)
		if cfg != nil {
			c = tls.Server(c, cfg)
		}
		if *mode == "relay" {
			go relay(c)
		} else {
			go idle(c)
		}
	}
}

func idle(c net.Conn) {
	defer c.Close()
	b := make([]byte, *inBuf)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if n > 0 && b[0] == 0x10 {
			c.Write([]byte{0x20, 2, 0, 0})
		} else if n > 0 && b[0] == 0xc0 {
			c.Write([]byte{0xd0, 0})
		}
	}
}

type out struct {
	mu   sync.Mutex
	buf  []byte
	wake chan struct{}
	done chan struct{}

	c    net.Conn // the rest is for -inline
	fmu  sync.Mutex
	mine []byte
}

// flush writes what is queued, unless another goroutine is at it: that one
// looks again before it leaves.
func (o *out) flush() {
	for o.fmu.TryLock() {
		o.mu.Lock()
		o.mine, o.buf = o.buf, o.mine[:0]
		o.mu.Unlock()
		n := len(o.mine)
		if n > 0 {
			o.c.Write(o.mine)
		}
		o.fmu.Unlock()
		o.mu.Lock()
		more := len(o.buf) > 0
		o.mu.Unlock()
		if !more {
			return
		}
	}
}

func (o *out) put(b ...byte) {
	o.mu.Lock()
	first := len(o.buf) == 0
	o.buf = append(o.buf, b...)
	o.mu.Unlock()
	if first && !*inl {
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
}

func (o *out) drain(c net.Conn) {
	var mine []byte
	for {
		select {
		case <-o.wake:
		case <-o.done:
			return
		}
		o.mu.Lock()
		mine, o.buf = o.buf, mine[:0]
		o.mu.Unlock()
		if len(mine) > 0 {
			if _, err := c.Write(mine); err != nil {
				return
			}
		}
	}
}

var (
	subsMu sync.Mutex
	subs   atomic.Pointer[[]*out]
)

func relay(c net.Conn) {
	defer c.Close()
	o := &out{wake: make(chan struct{}, 1), done: make(chan struct{}), c: c}
	defer close(o.done)
	if !*inl {
		go o.drain(c)
	}
	subscribed := false
	defer func() {
		if subscribed {
			setSubs(func(s []*out) (t []*out) {
				for _, x := range s {
					if x != o {
						t = append(t, x)
					}
				}
				return t
			})
		}
	}()
	r := bufio.NewReaderSize(c, 16<<10)
	for {
		h, err := r.Peek(2)
		if err != nil {
			return
		}
		n, w := int(h[1]), 1
		if n >= 128 {
			if h, err = r.Peek(3); err != nil {
				return
			}
			n, w = n&127|int(h[2])<<7, 2 // up to 16383 bytes
		}
		p, err := r.Peek(1 + w + n)
		if err != nil && err != io.EOF {
			return
		}
		body := p[1+w:]
		switch p[0] >> 4 {
		case 1:
			o.put(0x20, 2, 0, 0)
		case 3:
			if s := subs.Load(); s != nil {
				for _, x := range *s {
					x.put(p...)
				}
			}
			if p[0]&6 != 0 {
				at := 2 + int(binary.BigEndian.Uint16(body))
				o.put(0x40, 2, body[at], body[at+1])
			}
		case 8:
			o.put(0x90, 3, body[0], body[1], 0)
			if !subscribed {
				subscribed = true
				setSubs(func(s []*out) []*out { return append(s, o) })
			}
		case 12:
			o.put(0xd0, 0)
		}
		r.Discard(len(p))
		if *inl && r.Buffered() == 0 {
			o.flush()
			if s := subs.Load(); s != nil {
				for _, x := range *s {
					x.flush()
				}
			}
		}
	}
}

func setSubs(f func([]*out) []*out) {
	subsMu.Lock()
	defer subsMu.Unlock()
	var old []*out
	if s := subs.Load(); s != nil {
		old = append(old, *s...)
	}
	old = f(old)
	subs.Store(&old)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
