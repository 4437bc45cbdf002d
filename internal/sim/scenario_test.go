package sim_test

import (
	"strings"
	"testing"
	"time"

	"flotilla/internal/sim"
)

func TestReadScenario(t *testing.T) {
	s := sim.DefaultScenario()
	text := "devices = 7\nduration = \"90s\"\n[drop-outs]\nevery = \"10s\"\n[jobs]\nsuccess = 0.5\n"
	if err := s.Read([]byte(text)); err != nil {
		t.Fatal(err)
	}
	want := sim.DefaultScenario()
	want.Devices, want.Duration = 7, sim.Duration(90*time.Second)
	want.DropOuts.Every, want.Jobs.Success = sim.Duration(10*time.Second), 0.5
	if s != want {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
}

func TestBadScenarios(t *testing.T) {
	for text, want := range map[string]string{
		"[telemetry]\nevry = \"1s\"":       "line 2: a scenario has no",
		"duration = \"soon\"":              "soon",
		"devices = 0":                      "devices",
		"devices = 100001":                 "devices",
		"duration = \"1ms\"":               "duration",
		"enroll = \"magic\"":               "magic",
		"[telemetry]\nevery = \"1us\"":     "telemetry.every",
		"[telemetry]\nbytes = 200000":      "telemetry.bytes",
		"[jobs]\nsuccess = 1.5":            "shares",
		"[jobs]\ncount = 1001":             "jobs.count",
		"[jobs]\ntakes = \"-1s\"":          "not negative",
		"[drop-outs]\nevery = \"10ms\"":    "drop-outs.every",
		"[slow-links]\nshare = -0.1":       "shares",
		"[slow-links]\nlatency = \"-10s\"": "not negative",
	} {
		s := sim.DefaultScenario()
		err := s.Read([]byte(text))
		if err == nil {
			err = s.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
