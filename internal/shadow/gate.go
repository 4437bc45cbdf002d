package shadow

import (
	"sync"
	"time"
)

// gate holds the requests of each thing to limits. It is safe for concurrent use.
type gate struct {
	inFlight  int     // most at once; 0: no limit
	perSecond float64 // most in a second, which may come all at once; 0: no limit

	mu     sync.Mutex
	things map[string]*traffic // those with requests of the last seconds
	swept  time.Time
}

// traffic is what a thing asks.
type traffic struct {
	inFlight int
	left     float64 // requests that may come at once
	at       time.Time
}

// enter lets a request of a thing in, or tells why not; the caller calls leave when it is done.
func (g *gate) enter(thing string, now time.Time) error {
	if g.inFlight <= 0 && g.perSecond <= 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweep(now)
	t := g.things[thing]
	if t == nil {
		t = &traffic{left: g.perSecond, at: now}
		g.things[thing] = t
	}
	if g.inFlight > 0 && t.inFlight >= g.inFlight {
		return errTooMany
	}
	if g.perSecond > 0 {
		t.left = min(g.perSecond, t.left+g.perSecond*max(0, now.Sub(t.at).Seconds()))
		t.at = now
		if t.left < 1 {
			return errRate
		}
		t.left--
	}
	t.inFlight++
	return nil
}

func (g *gate) leave(thing string) {
	if g.inFlight <= 0 && g.perSecond <= 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.things[thing]
	if t.inFlight--; t.inFlight == 0 && g.perSecond <= 0 {
		delete(g.things, thing)
	}
}

// sweep forgets, every second, things that have been silent for one: they have
// all their requests left.
func (g *gate) sweep(now time.Time) {
	if g.perSecond <= 0 || now.Sub(g.swept) < time.Second {
		return
	}
	g.swept = now
	for name, t := range g.things {
		if t.inFlight == 0 && now.Sub(t.at) >= time.Second {
			delete(g.things, name)
		}
	}
}
