package main

import (
	"crypto/rand"
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// runFlood attacks a server before CONNECT, and measures what its devices feel: -half
// connections send nothing, or the first bytes of a handshake; -storm others begin
// handshakes one after the other and give up when they have cost the server its
// signature. Probes, which are whole connects of devices one after the other, say how
// long a device takes before and meanwhile.
func runFlood(args []string) (map[string]any, error) {
	var c common
	fs := flag.NewFlagSet("flood", flag.ExitOnError)
	c.register(fs)
	half := fs.Int("half", 5000, "half-open connections; each is opened again when the server ends it")
	storm := fs.Int("storm", 0, "attackers that begin handshakes without end")
	hold := fs.Duration("hold", 20*time.Second, "how long")
	every := fs.Duration("every", 50*time.Millisecond, "time between probes")
	fs.Parse(args)
	if *half < 0 || *half > 15000 || *storm < 0 || *storm > 1000 {
		return nil, fmt.Errorf("flag out of range")
	}
	c.tls = true
	armDeadline(c.deadline)
	d, err := newDialer(&c)
	if err != nil {
		return nil, err
	}
	quiet, err := probes(d, 3*time.Second, *every, 0)
	if err != nil {
		return nil, err
	}
	mem0 := readMemory(c.pid)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var opened, ended, begun, shed atomic.Int64
	for i := range *half {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				k, err := net.DialTimeout("tcp", c.addr, 5*time.Second)
				if err != nil {
					shed.Add(1)
					time.Sleep(100 * time.Millisecond)
					continue
				}
				opened.Add(1)
				if i%2 == 1 {
					_, _ = k.Write([]byte{22, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3}) // a ClientHello that never ends
				}
				done := make(chan struct{})
				go func() {
					select {
					case <-stop:
						k.Close()
					case <-done:
					}
				}()
				_, _ = k.Read(make([]byte, 1))
				close(done)
				k.Close()
				ended.Add(1)
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
	}
	for range *storm {
		wg.Go(func() {
			cfg := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", Rand: rand.Reader, CurvePreferences: []tls.CurveID{tls.X25519}, MinVersion: tls.VersionTLS13}
			for {
				select {
				case <-stop:
					return
				default:
				}
				k, err := net.DialTimeout("tcp", c.addr, 5*time.Second)
				if err != nil {
					shed.Add(1)
					time.Sleep(100 * time.Millisecond)
					continue
				}
				k.SetDeadline(time.Now().Add(5 * time.Second))
				_ = tls.Client(k, cfg).Handshake() // without a certificate, which the server refuses after its own part
				begun.Add(1)
				k.(*net.TCPConn).SetLinger(0)
				k.Close()
			}
		})
	}
	time.Sleep(time.Second)
	cpu, begin := procCPU(c.pid), time.Now()
	var peak float64
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				peak = max(peak, readMemory(c.pid).rss)
			}
		}
	}()
	under, err := probes(d, *hold, *every, 100000)
	used, took := procCPU(c.pid)-cpu, time.Since(begin)
	close(stop)
	wg.Wait()
	<-watched
	time.Sleep(2 * time.Second)
	after, err2 := probes(d, 3*time.Second, *every, 200000)
	if err == nil {
		err = err2
	}
	out := map[string]any{
		"label": c.label, "half": *half, "storm": *storm, "opened": opened.Load(), "ended": ended.Load(), "refused": shed.Load(), "handshakes": begun.Load(),
		"srv_cores": round(used.Seconds()/took.Seconds(), 2), "rss0_mib": round(mem0.rss/1024, 1), "peak_rss_mib": round(peak/1024, 1),
		"after_rss_mib": round(readMemory(c.pid).rss/1024, 1),
	}
	for name, p := range map[string]*probe{"quiet": quiet, "under": under, "after": after} {
		out[name+"_p50_ms"], out[name+"_p99_ms"] = round(p.lat.quantileMs(.5), 1), round(p.lat.quantileMs(.99), 1)
		out[name+"_connects"], out[name+"_failed"] = p.lat.c, p.failed
	}
	return out, err
}

// probe is what a device that connects again and again saw.
type probe struct {
	lat    hist
	failed int
}

func probes(d *dialer, long, every time.Duration, from int) (*probe, error) {
	var p probe
	for i, end := 0, time.Now().Add(long); time.Now().Before(end); i++ {
		t := time.Now()
		k, err := d.open(from+i, fmt.Sprintf("%s-probe%d", d.c.prefix, from+i))
		if err != nil {
			p.failed++
			if from == 0 {
				return nil, err
			}
		} else {
			p.lat.add(int64(time.Since(t)))
			k.Close()
		}
		time.Sleep(max(0, every-time.Since(t)))
	}
	return &p, nil
}
