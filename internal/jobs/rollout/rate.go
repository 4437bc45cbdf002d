package rollout

import (
	"math"
	"time"

	"flotilla/internal/aws/iot"
)

// Counts are how many executions of a job are in which state.
type Counts struct {
	Queued, InProgress                                       int64
	Succeeded, Failed, Rejected, TimedOut, Canceled, Removed int64
}

// Executed is how many executions have ended by the thing's doing or by its silence.
func (c Counts) Executed() int64 { return c.Succeeded + c.Failed + c.Rejected + c.TimedOut }

// Notified is how many things were told of the job.
func (c Counts) Notified() int64 {
	return c.Queued + c.InProgress + c.Executed() + c.Canceled + c.Removed
}

// Open is how many executions have not ended.
func (c Counts) Open() int64 { return c.Queued + c.InProgress }

// PerMinute is how many executions may start in a minute. most is the greatest rate that is allowed, and the rate of a
// job without a configuration.
//
// An exponential rate is the base rate, raised by the increment factor each time that the criterion's number of things
// has been notified, or has succeeded, again.
func PerMinute(cfg *iot.JobExecutionsRolloutConfig, c Counts, most int64) int64 {
	if cfg == nil {
		return most
	}
	rate := most
	if e := cfg.ExponentialRate; e != nil {
		steps := int64(0)
		if r := e.RateIncreaseCriteria; r != nil {
			switch {
			case r.NumberOfNotifiedThings != nil:
				steps = c.Notified() / int64(max(1, *r.NumberOfNotifiedThings))
			case r.NumberOfSucceededThings != nil:
				steps = c.Succeeded / int64(max(1, *r.NumberOfSucceededThings))
			}
		}
		exact := float64(e.BaseRatePerMinute) * math.Pow(max(1, e.IncrementFactor), float64(steps))
		rate = int64(min(exact, float64(most)))
	}
	if m := cfg.MaximumPerMinute; m != nil {
		rate = min(rate, int64(*m))
	}
	return max(1, rate)
}

// Pace spreads what a rate allows over time. Its zero value has released nothing yet. It is kept with the job, so that a
// restart releases nothing twice.
type Pace struct {
	Minute   int64 // minutes since 1970 of the last release
	Released int64 // in that minute
}

// Allowed is how many more may be released now.
func (p Pace) Allowed(perMinute int64, now time.Time) int64 {
	if now.Unix()/60 != p.Minute {
		return perMinute
	}
	return max(0, perMinute-p.Released)
}

// Release counts n as released now.
func (p Pace) Release(n int64, now time.Time) Pace {
	if m := now.Unix() / 60; m != p.Minute {
		p = Pace{Minute: m}
	}
	p.Released += n
	return p
}

// Again is when more may be released once Allowed is zero.
func (p Pace) Again() time.Time { return time.Unix((p.Minute+1)*60, 0) }

// Aborts tells whether one of the criteria for an abort is met, and which: enough things have executed, and at least so
// many per cent of them in the way that the criterion names.
func Aborts(cfg *iot.AbortConfig, c Counts) (*iot.AbortCriteria, bool) {
	if cfg == nil {
		return nil, false
	}
	executed := c.Executed()
	for _, a := range cfg.CriteriaList {
		failures := c.Failed + c.Rejected + c.TimedOut
		switch a.FailureType {
		case iot.JobExecutionFailureTypeFailed:
			failures = c.Failed
		case iot.JobExecutionFailureTypeRejected:
			failures = c.Rejected
		case iot.JobExecutionFailureTypeTimedOut:
			failures = c.TimedOut
		}
		if executed > 0 && executed >= int64(a.MinNumberOfExecutedThings) && failures > 0 &&
			float64(failures)*100 >= a.ThresholdPercentage*float64(executed) {
			return a, true
		}
	}
	return nil, false
}

// Retries tells whether an execution that ended as status (FAILED or TIMED_OUT) is to be tried again. failed and timedOut
// are how many executions of the job on the thing have ended so before: each criterion counts its own.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/jobs-configurations-details.html#job-timeout-retry
func Retries(cfg *iot.JobExecutionsRetryConfig, status string, failed, timedOut int) bool {
	if cfg == nil {
		return false
	}
	for _, r := range cfg.CriteriaList {
		var retried int
		switch {
		case r.FailureType == iot.RetryableFailureTypeAll && (status == "FAILED" || status == "TIMED_OUT"):
			retried = failed + timedOut
		case r.FailureType != status:
			continue
		case status == "FAILED":
			retried = failed
		default:
			retried = timedOut
		}
		if retried < int(r.NumberOfRetries) {
			return true
		}
	}
	return false
}
