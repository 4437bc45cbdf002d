package gateway

import (
	"errors"
	"sync"
	"time"

	"flotilla/internal/gateway/sessionstore"
	"flotilla/internal/mqtt"
)

// fullQueues are those that the log was told of lately.
type fullQueues struct {
	mu   sync.Mutex
	told map[string]time.Time
}

const (
	// tellFullAgain is how often the log hears of a queue that stays full.
	tellFullAgain = 10 * time.Second
	maxFullTold   = 10_000
)

// tell tells whether the log is to hear of a queue now.
func (f *fullQueues) tell(name string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at, ok := f.told[name]; ok && now.Sub(at) < tellFullAgain {
		return false
	}
	if f.told == nil || len(f.told) >= maxFullTold {
		f.told = map[string]time.Time{}
	}
	f.told[name] = now
	return true
}

// noteFull tells the operator of a queue that had no room for a message: that of a client id, or of a shared
// subscription. The client id's refusals show it too.
func (g *Gateway) noteFull(name, topic, effect string) {
	if !g.full.tell(name, g.now()) {
		return
	}
	g.log.Warn("a session's queue is full", "clientId", name, "topic", topic, "err", effect)
	g.denials.add(name, Denial{Time: g.now(), Action: "queue", Resource: topic, Reason: "its queue is full: " + effect, Code: mqtt.QuotaExceeded})
}

// noteRefused is noteFull for all whose queues had a message refused.
func (g *Gateway) noteRefused(topic string, err error) {
	var full *sessionstore.FullError
	if !errors.As(err, &full) || full.Total {
		return
	}
	g.metrics.full.Add(float64(len(full.Names)))
	for _, name := range full.Names {
		g.noteFull(name, topic, "its publishers are refused")
	}
}
