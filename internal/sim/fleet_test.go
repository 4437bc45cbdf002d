package sim_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flotilla/internal/server/servertest"
	"flotilla/internal/sim"
)

// fleet is a short life of a few devices in rough weather.
func fleet(n *servertest.Node, run string) *sim.Fleet {
	s := sim.DefaultScenario()
	s.Devices, s.Duration, s.Settle = 12, sim.Duration(4*time.Second), sim.Duration(time.Minute)
	s.Telemetry.Every, s.Telemetry.Bytes = sim.Duration(100*time.Millisecond), 200
	s.DropOuts.Every, s.DropOuts.For = sim.Duration(time.Second), sim.Duration(300*time.Millisecond)
	s.SlowLinks.Share, s.SlowLinks.Latency = 0.3, sim.Duration(5*time.Millisecond)
	s.Clocks.Share, s.Clocks.Skew = 0.5, sim.Duration(5*time.Minute)
	s.Desired.Every = sim.Duration(time.Second)
	s.Jobs.Takes = sim.Duration(200 * time.Millisecond)
	e := n.Endpoints()
	return &sim.Fleet{
		Cloud: sim.NewCloud(e.API, "us-east-1", n.AccessKey, n.Secret), Addr: e.MQTT, Roots: n.Roots,
		Run: run, Seed: 5, Scenario: s,
	}
}

func play(t *testing.T, f *sim.Fleet) *sim.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r, err := f.Play(ctx)
	if err != nil {
		t.Fatalf("%v\n%+v", err, r)
	}
	b, _ := json.Marshal(r)
	t.Logf("%s", b)
	return r
}

func TestFleetAddsUp(t *testing.T) {
	n := servertest.Start(t).Node(0)
	for _, enroll := range []string{"claim", "api"} {
		t.Run(enroll, func(t *testing.T) {
			f := fleet(n, enroll)
			f.Scenario.Enroll = enroll
			var phases atomic.Int64
			f.Progress = func(s sim.Status) {
				phases.Or(map[string]int64{"enroll": 1, "run": 2}[s.Phase])
			}
			r := play(t, f)
			if len(r.Failures) != 0 {
				t.Errorf("%q", r.Failures)
			}
			if r.Enrolled != 12 || r.Readings.Acknowledged < 12 || r.Readings.Arrived < r.Readings.Acknowledged || r.Desired.Written == 0 {
				t.Errorf("too little happened: %+v", r)
			}
			if r.Connections.DropOuts == 0 || r.Requests.Refused != 0 || r.Readings.Strange != 0 || r.Connections.SessionsLost != 0 {
				t.Errorf("connections: %+v, requests: %+v", r.Connections, r.Requests)
			}
			if len(r.Jobs) != 2 || r.Jobs[0].Succeeded != r.Jobs[0].ExpectedSucceeded || r.Jobs[0].Succeeded+r.Jobs[0].Failed != 12 {
				t.Errorf("jobs: %+v", r.Jobs)
			}
			if phases.Load() != 3 {
				t.Errorf("progress told phases %b", phases.Load())
			}
		})
	}
}

// TestFleetTellsWhatDoesNotAddUp: executions that take an hour are not terminal, and devices whose clock is years late trust
// no server, so they never learn what is desired.
func TestFleetTellsWhatDoesNotAddUp(t *testing.T) {
	n := servertest.Start(t).Node(0)
	f := fleet(n, "slow")
	f.Scenario.Settle, f.Scenario.Desired.Every, f.Scenario.Telemetry.Every = 0, 0, 0
	f.Scenario.Jobs.Takes = sim.Duration(1000 * time.Hour)
	r := play(t, f)
	if len(r.Failures) != 2 || !strings.Contains(r.Failures[0], "and 12 of its 12 executions are not terminal") {
		t.Errorf("%q", r.Failures)
	}
	f = fleet(n, "late")
	f.Scenario.Settle, f.Scenario.Jobs.Count = 0, 0
	f.Scenario.Clocks.Share, f.Scenario.Clocks.Skew = 1, sim.Duration(200*365*24*time.Hour)
	r = play(t, f)
	if len(r.Failures) != 1 || !strings.Contains(r.Failures[0], "things have not applied their desired state, as sim-late-0") {
		t.Errorf("%q", r.Failures)
	}
	if r.Connections.Made != 0 || r.Connections.Lost == 0 || r.Connections.LastLoss == "" {
		t.Errorf("%+v", r.Connections)
	}
}

func TestFleetIsInterrupted(t *testing.T) {
	f := fleet(servertest.Start(t).Node(0), "short")
	f.Scenario.Duration = sim.Duration(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.Progress = func(s sim.Status) {
		if s.Phase == "run" && s.Connected > 0 {
			cancel()
		}
	}
	if _, err := f.Play(ctx); err == nil || ctx.Err() == nil {
		t.Errorf("it ended with %v", err)
	}
}
