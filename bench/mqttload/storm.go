package main

import (
	"bufio"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// runStorm connects a fleet, waits until the server has gone away and come back, and
// measures how long all of it takes to return. Each device tries by itself, after a
// random part of a wait that doubles from -wait to -most. Who restarts the server
// learns from the line "connected" on standard error that it may, and writes the
// new process id to standard input when it has.
func runStorm(args []string) (map[string]any, error) {
	var c common
	fs := flag.NewFlagSet("storm", flag.ExitOnError)
	c.register(fs)
	n := fs.Int("n", 15000, "devices")
	conc := fs.Int("c", 16, "connections at a time before the restart; after it there is no such bound")
	wait := fs.Duration("wait", time.Second, "first wait of a device before it tries again, at most")
	most := fs.Duration("most", 8*time.Second, "longest such wait")
	resume := fs.Bool("resume", false, "resume TLS sessions where the server can")
	fs.Parse(args)
	if *n < 1 || *n > 19000 || *conc < 1 {
		return nil, fmt.Errorf("flag out of range")
	}
	armDeadline(c.deadline)
	d, err := newDialer(&c)
	if err != nil {
		return nil, err
	}
	if *resume {
		d.sessions, d.each = map[int]tls.ClientSessionCache{}, true // a device's own, from before the restart
	}
	id := func(i int) string { return fmt.Sprintf("%s-c%d", c.prefix, i) }
	conns := make([]net.Conn, *n)
	var next atomic.Int64
	var wg sync.WaitGroup
	var firstErr atomic.Pointer[error]
	for range *conc {
		wg.Go(func() {
			for i := int(next.Add(1) - 1); i < *n && firstErr.Load() == nil; i = int(next.Add(1) - 1) {
				k, err := d.open(i, id(i))
				if err != nil {
					firstErr.CompareAndSwap(nil, &err)
					return
				}
				conns[i] = k
			}
		})
	}
	wg.Wait()
	if p := firstErr.Load(); p != nil {
		return nil, *p
	}

	var attempts, resumed, inTime atomic.Int64
	var reasons sync.Map // of errors: text to *atomic.Int64
	var back atomic.Int64
	var mu sync.Mutex
	var lat hist
	for i := range *n {
		wg.Go(func() {
			_, _ = io.Copy(io.Discard, conns[i]) // until the server ends it
			conns[i].Close()
			for pause := *wait; ; pause = min(2*pause, *most) {
				time.Sleep(rand.N(pause))
				attempts.Add(1)
				t := time.Now()
				k, err := d.open(i, id(i))
				if err != nil {
					v, _ := reasons.LoadOrStore(kindOf(err), new(atomic.Int64))
					v.(*atomic.Int64).Add(1)
					continue
				}
				if t, ok := k.(*tls.Conn); ok && t.ConnectionState().DidResume {
					resumed.Add(1)
				}
				mu.Lock()
				lat.add(int64(time.Since(t)))
				mu.Unlock()
				conns[i] = k
				back.Add(1)
				return
			}
		})
	}
	fmt.Fprintln(os.Stderr, "connected")
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return nil, err
	}
	all := make(chan struct{})
	go func() { wg.Wait(); close(all) }()
	var peak float64
	var half, most99 time.Duration
	self := selfCPU()
	for over := false; !over; {
		select {
		case <-all:
			over = true
		case <-time.After(50 * time.Millisecond):
		}
		peak = max(peak, readMemory(pid).rss)
		if b := back.Load(); half == 0 && b >= int64(*n/2) {
			half = time.Since(begin)
		} else if most99 == 0 && b >= int64(*n)*99/100 {
			most99 = time.Since(begin)
		}
	}
	took := time.Since(begin)
	inTime.Store(back.Load())
	alive := 0
	for i := 0; i < *n; i += max(1, *n/200) {
		if ping(conns[i]) {
			alive++
		}
	}
	failures := map[string]int64{}
	reasons.Range(func(k, v any) bool { failures[k.(string)] = v.(*atomic.Int64).Load(); return true })
	return map[string]any{
		"label": c.label, "devices": *n, "back": inTime.Load(), "secs": round(took.Seconds(), 2),
		"half_secs": round(half.Seconds(), 2), "p99_secs": round(most99.Seconds(), 2), "attempts": attempts.Load(), "failures": failures, "resumed": resumed.Load(),
		"srv_ms_conn": round(procCPU(pid).Seconds()*1e3/float64(*n), 3), // with the start of the server
		"gen_ms_conn": round((selfCPU()-self).Seconds()*1e3/float64(*n), 3),
		"p50_ms":      round(lat.quantileMs(.5), 1), "p99_ms": round(lat.quantileMs(.99), 1),
		"peak_rss_mib": round(peak/1024, 1), "rss_mib": round(readMemory(pid).rss/1024, 1), "alive": alive,
	}, nil
}

// kindOf is an error without its addresses.
func kindOf(err error) string {
	for _, kind := range []string{"connection refused", "connection reset", "timeout", "EOF", "broken pipe", "CONNACK"} {
		if strings.Contains(err.Error(), kind) {
			return kind
		}
	}
	return err.Error()
}
