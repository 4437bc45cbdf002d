package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"flotilla/internal/api/client"
)

// Report is what a run came to. Times are in milliseconds unless the name says otherwise.
type Report struct {
	Run      string  `json:"run"`
	Seed     uint64  `json:"seed"`
	Devices  int     `json:"devices"`
	Enrolled int     `json:"enrolled"`
	Seconds  float64 `json:"seconds"`

	Readings struct {
		Acknowledged int64   `json:"acknowledged"`
		Arrived      int64   `json:"arrived"`
		SentAgain    int64   `json:"sentAgain"`     // without an acknowledgement at first
		Repeated     int64   `json:"arrivedAgain"`  // after the first time
		AckP50       float64 `json:"ackP50Ms"`      // until a reading was acknowledged
		AckP99       float64 `json:"ackP99Ms"`      //
		Strange      int64   `json:"notOfTheFleet"` // on the fleet's topics
	} `json:"readings"`
	Connections struct {
		Made         int64  `json:"made"`
		DropOuts     int64  `json:"dropOuts"`     // by the scenario
		Lost         int64  `json:"lost"`         // otherwise; attempts that failed, too
		LastLoss     string `json:"lastLoss"`     //
		SessionsLost int64  `json:"sessionsLost"` // of witnesses
	} `json:"connections"`
	Requests struct {
		Refused     int64  `json:"refused"`
		LastRefusal string `json:"lastRefusal"`
		Unanswered  int64  `json:"unanswered"` // for 30 s
		WorkRefused int64  `json:"jobUpdatesRefused"`
	} `json:"requests"`
	Desired struct {
		Written  int64   `json:"written"`
		Reported int64   `json:"reportsAccepted"`
		P50      float64 `json:"convergenceP50Ms"` // from the writing until the report was accepted, of devices that were there
		P99      float64 `json:"convergenceP99Ms"`
	} `json:"desired"`
	Jobs []JobReport `json:"jobs"`

	// Failures are the assertions that did not hold, a sentence each.
	Failures []string `json:"failures"`
}

// JobReport is what became of a job.
type JobReport struct {
	ID         string `json:"id"`
	Status     string `json:"status"`
	Succeeded  int    `json:"succeeded"`
	Failed     int    `json:"failed"`
	Unfinished int    `json:"unfinished"`
	// Expected are what the seed says.
	ExpectedSucceeded int `json:"expectedSucceeded"`
	ExpectedFailed    int `json:"expectedFailed"`
}

func (f *Fleet) report() *Report {
	s := &f.stats
	r := &Report{Run: f.Run, Seed: f.Seed, Devices: f.Scenario.Devices, Enrolled: int(s.enrolled.Load()), Jobs: s.jobs, Failures: s.failures}
	for _, m := range f.members {
		r.Readings.Acknowledged += m.acked.Load()
	}
	r.Readings.Arrived, r.Readings.Repeated, r.Readings.Strange = s.arrived.Load(), s.repeated.Load(), s.strange.Load()
	r.Readings.SentAgain, r.Readings.AckP50, r.Readings.AckP99 = s.again.Load(), s.acks.milliseconds(0.5), s.acks.milliseconds(0.99)
	r.Connections.Made, r.Connections.DropOuts, r.Connections.Lost = s.connects.Load(), s.dropOuts.Load(), s.lost.Load()
	r.Connections.SessionsLost = s.sessionsLost.Load()
	r.Requests.Refused, r.Requests.Unanswered, r.Requests.WorkRefused = s.refused.Load(), s.unanswered.Load(), s.workRefused.Load()
	r.Desired.Written, r.Desired.Reported = s.desiredWritten.Load(), s.desiredReported.Load()
	r.Desired.P50, r.Desired.P99 = s.convergence.milliseconds(0.5), s.convergence.milliseconds(0.99)
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Connections.LastLoss, r.Requests.LastRefusal = s.lastLoss, s.lastRefusal
	if r.Jobs == nil {
		r.Jobs = []JobReport{}
	}
	if r.Failures == nil {
		r.Failures = []string{}
	}
	return r
}

// settle waits until all that should come true is true, as long as the scenario lets it, and notes what is not.
func (f *Fleet) settle(ctx context.Context) error {
	deadline := time.Now().Add(time.Duration(f.Scenario.Settle))
	c := &checks{fleet: f, applied: make([]bool, len(f.members))}
	for {
		failures, err := c.all(ctx)
		f.stats.failures, f.stats.jobs = failures, c.jobs
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && len(failures) == 0 {
			return nil
		}
		f.tell("settle", 3-min(3, len(failures)), 3)
		if time.Now().After(deadline) {
			return err
		}
		pause(ctx, time.Second)
	}
}

// checks are the assertions at the end of a run; they may be asked again while the fleet comes to rest.
type checks struct {
	fleet   *Fleet
	applied []bool // by device: known to be as it should
	jobs    []JobReport
}

// all gives a sentence for each assertion that does not hold. An error says that the service could not be asked.
func (c *checks) all(ctx context.Context) ([]string, error) {
	var failures []string
	note := func(sentence string) {
		if sentence != "" {
			failures = append(failures, sentence)
		}
	}
	note(c.readings())
	jobs, err := c.jobsEnded(ctx)
	for _, j := range jobs {
		note(j)
	}
	desired, derr := c.desiredApplied(ctx)
	note(desired)
	return failures, errors.Join(err, derr)
}

// readings: every reading that was acknowledged arrived at the witness.
func (c *checks) readings() string {
	missing, devices, example := 0, 0, ""
	for _, m := range c.fleet.members {
		n, first := m.seen.missing(int(min(m.acked.Load(), maxReadings)))
		if n == 0 {
			continue
		}
		if devices++; devices == 1 {
			example = fmt.Sprintf("number %d of %s", first, m.thing)
		}
		missing += n
	}
	if missing == 0 {
		return ""
	}
	return fmt.Sprintf("%d acknowledged readings of %d devices did not arrive, the first is %s", missing, devices, example)
}

// jobsEnded: every job is over, every execution of it too, and each ended as the device said.
func (c *checks) jobsEnded(ctx context.Context) ([]string, error) {
	f := c.fleet
	c.jobs = c.jobs[:0:0]
	var failures []string
	for i, id := range f.jobs {
		j, err := f.Cloud.job(ctx, id)
		if err != nil {
			return failures, fmt.Errorf("job %s: %w", id, err)
		}
		r := JobReport{ID: id, Status: j.Status, Succeeded: j.Process.Succeeded, Failed: j.Process.Failed}
		for _, m := range f.members {
			if _, succeeds := f.Scenario.execution(f.Seed, m.n, i); succeeds {
				r.ExpectedSucceeded++
			} else {
				r.ExpectedFailed++
			}
		}
		r.Unfinished = len(f.members) - r.Succeeded - r.Failed - j.Process.Rejected - j.Process.Removed - j.Process.Canceled - j.Process.TimedOut
		c.jobs = append(c.jobs, r)
		switch {
		case r.Unfinished != 0 || j.Status != "COMPLETED":
			failures = append(failures, fmt.Sprintf("job %s is %s, and %d of its %d executions are not terminal", id, j.Status, r.Unfinished, len(f.members)))
		case r.Succeeded != r.ExpectedSucceeded || r.Failed != r.ExpectedFailed:
			failures = append(failures, fmt.Sprintf("job %s has %d executions that succeeded and %d that failed, the devices ended it with %d and %d",
				id, r.Succeeded, r.Failed, r.ExpectedSucceeded, r.ExpectedFailed))
		}
	}
	return failures, nil
}

// desiredApplied: the last desired state of every thing was applied and reported.
func (c *checks) desiredApplied(ctx context.Context) (string, error) {
	f := c.fleet
	var mu sync.Mutex
	open, example := 0, ""
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i, m := range f.members {
		m.desired.mu.Lock()
		tried, written := m.desired.revision, m.desired.written
		m.desired.mu.Unlock()
		if c.applied[i] || tried == 0 {
			continue
		}
		g.Go(func() error {
			s, err := f.Cloud.shadow(gctx, m.thing)
			var e *client.Error
			switch {
			case errors.As(err, &e) && e.Status == 404 && written == 0:
				s = shadowState{} // the only attempt failed
			case err != nil:
				return fmt.Errorf("%s: shadow: %w", m.thing, err)
			}
			if s.Reported == s.Desired && !s.Delta && s.Desired >= written {
				c.applied[i] = true
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if open++; open == 1 {
				example = fmt.Sprintf("%s: %d was written, its shadow has desired %d and reported %d", m.thing, written, s.Desired, s.Reported)
			}
			return nil
		})
	}
	err := g.Wait()
	if open == 0 {
		return "", err
	}
	return fmt.Sprintf("%d things have not applied their desired state, as %s", open, example), err
}
