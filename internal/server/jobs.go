package server

import (
	"context"
	"strings"
	"sync"
	"time"

	"flotilla/internal/account"
	"flotilla/internal/aws/iot"
	"flotilla/internal/jobs"
)

// followThings has jobs hear of things that changed, and of those that came into groups or left them.
func followThings(news announcer, j *jobs.Jobs) {
	news.OnChange("thing", j.ThingChanged)
	news.OnChange("membership", func(key string) {
		_, thing, _ := strings.Cut(key, "/") // +GROUP/THING or -GROUP/THING; "" is anything
		j.ThingChanged(thing)
	})
}

// eventsFresh is how soon a change of the event configurations is followed.
const eventsFresh = time.Second

// wantedEvents are the account's event configurations, read at most once in eventsFresh.
type wantedEvents struct {
	account **account.Account // it is made later than who asks

	mu      sync.Mutex
	read    time.Time
	enabled map[string]bool
}

// Enabled is of the interface jobs.Events. What can't be read is as it was.
func (w *wantedEvents) Enabled(ctx context.Context, eventType string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.read) >= eventsFresh {
		w.read = time.Now()
		if out, err := (*w.account).DescribeEventConfigurations(ctx, &iot.DescribeEventConfigurationsRequest{}); err == nil {
			w.enabled = map[string]bool{}
			for t, c := range out.EventConfigurations {
				w.enabled[t] = c.Enabled != nil && *c.Enabled
			}
		}
	}
	return w.enabled[eventType]
}
