package server

import (
	"strings"

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
