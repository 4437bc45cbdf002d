package rollout_test

import (
	"strings"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/jobs/rollout"
)

func TestPerMinute(t *testing.T) {
	exponential := func(notified, succeeded *int32) *iot.JobExecutionsRolloutConfig {
		return &iot.JobExecutionsRolloutConfig{
			MaximumPerMinute: new(int32(500)),
			ExponentialRate: &iot.ExponentialRolloutRate{
				BaseRatePerMinute: 50, IncrementFactor: 2,
				RateIncreaseCriteria: &iot.RateIncreaseCriteria{NumberOfNotifiedThings: notified, NumberOfSucceededThings: succeeded},
			},
		}
	}
	for _, c := range []struct {
		name   string
		cfg    *iot.JobExecutionsRolloutConfig
		counts rollout.Counts
		want   int64
	}{
		{"none", nil, rollout.Counts{}, 1000},
		{"constant", &iot.JobExecutionsRolloutConfig{MaximumPerMinute: new(int32(7))}, rollout.Counts{Queued: 1000}, 7},
		{"constant over the greatest", &iot.JobExecutionsRolloutConfig{MaximumPerMinute: new(int32(5000))}, rollout.Counts{}, 1000},
		{"base", exponential(new(int32(1000)), nil), rollout.Counts{Queued: 999}, 50},
		{"one step", exponential(new(int32(1000)), nil), rollout.Counts{Queued: 900, Succeeded: 100}, 100},
		{"two steps", exponential(new(int32(1000)), nil), rollout.Counts{Queued: 2000, Removed: 1}, 200},
		{"bounded", exponential(new(int32(1)), nil), rollout.Counts{Queued: 2000}, 500},
		{"by success", exponential(nil, new(int32(10))), rollout.Counts{Queued: 2000, Succeeded: 25}, 200},
	} {
		if got := rollout.PerMinute(c.cfg, c.counts, 1000); got != c.want {
			t.Errorf("%s: %d, not %d", c.name, got, c.want)
		}
	}
}

func TestPace(t *testing.T) {
	now := time.Unix(600, 0)
	var p rollout.Pace
	if n := p.Allowed(100, now); n != 100 {
		t.Error(n)
	}
	p = p.Release(60, now)
	if n := p.Allowed(100, now.Add(59*time.Second)); n != 40 {
		t.Error(n)
	}
	p = p.Release(40, now.Add(59*time.Second))
	if n := p.Allowed(50, now.Add(59*time.Second)); n != 0 || !p.Again().Equal(now.Add(time.Minute)) {
		t.Error(n, p.Again())
	}
	if n := p.Allowed(100, now.Add(time.Minute)); n != 100 {
		t.Error(n)
	}
}

func TestAborts(t *testing.T) {
	cfg := &iot.AbortConfig{CriteriaList: []*iot.AbortCriteria{
		{FailureType: "FAILED", ThresholdPercentage: 20, MinNumberOfExecutedThings: 100},
		{FailureType: "ALL", ThresholdPercentage: 50, MinNumberOfExecutedThings: 200},
	}}
	for _, c := range []struct {
		counts rollout.Counts
		want   string
	}{
		{rollout.Counts{}, ""},
		{rollout.Counts{Failed: 99}, ""},
		{rollout.Counts{Failed: 20, Succeeded: 80}, "FAILED"},
		{rollout.Counts{Failed: 19, Succeeded: 81}, ""},
		{rollout.Counts{Rejected: 100, Succeeded: 100}, "ALL"},
		{rollout.Counts{Rejected: 60, TimedOut: 40, Succeeded: 101}, ""},
		{rollout.Counts{Canceled: 500, Removed: 500, Failed: 1}, ""},
	} {
		got := ""
		if a, ok := rollout.Aborts(cfg, c.counts); ok {
			got = a.FailureType
		}
		if got != c.want {
			t.Errorf("%+v: %q, not %q", c.counts, got, c.want)
		}
	}
	if _, ok := rollout.Aborts(nil, rollout.Counts{Failed: 5}); ok {
		t.Error("without a configuration")
	}
}

func TestRetries(t *testing.T) {
	cfg := &iot.JobExecutionsRetryConfig{CriteriaList: []*iot.RetryCriteria{{FailureType: "FAILED", NumberOfRetries: 2}}}
	all := &iot.JobExecutionsRetryConfig{CriteriaList: []*iot.RetryCriteria{{FailureType: "ALL", NumberOfRetries: 1}}}
	both := &iot.JobExecutionsRetryConfig{CriteriaList: []*iot.RetryCriteria{{FailureType: "FAILED", NumberOfRetries: 2}, {FailureType: "TIMED_OUT", NumberOfRetries: 1}}}
	for _, c := range []struct {
		cfg              *iot.JobExecutionsRetryConfig
		status           string
		failed, timedOut int
		want             bool
	}{
		{nil, "FAILED", 0, 0, false},
		{cfg, "FAILED", 0, 0, true},
		{cfg, "FAILED", 1, 0, true},
		{cfg, "FAILED", 2, 0, false},
		{cfg, "TIMED_OUT", 0, 0, false},
		{all, "TIMED_OUT", 0, 0, true},
		{all, "TIMED_OUT", 0, 1, false},
		{all, "TIMED_OUT", 1, 0, false},
		{all, "REJECTED", 0, 0, false},
		{both, "FAILED", 1, 1, true},
		{both, "FAILED", 2, 0, false},
		{both, "TIMED_OUT", 2, 0, true},
		{both, "TIMED_OUT", 0, 1, false},
	} {
		if got := rollout.Retries(c.cfg, c.status, c.failed, c.timedOut); got != c.want {
			t.Errorf("%s after %d FAILED and %d TIMED_OUT: %v", c.status, c.failed, c.timedOut, got)
		}
	}
}

func at(s string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestCron(t *testing.T) {
	for _, c := range []struct{ cron, from, want string }{
		{"cron(0 12 * * ? *)", "2026-01-31 12:00", "2026-02-01 12:00"},
		{"0 12 * * ? *", "2026-01-31 11:59", "2026-01-31 12:00"},
		{"cron(0/15 9-17 ? * MON-FRI *)", "2026-11-27 17:46", "2026-11-30 09:00"},
		{"cron(*/10 * * * ? *)", "2026-11-27 17:46", "2026-11-27 17:50"},
		{"cron(5,35 14 ? * * *)", "2026-11-27 14:05", "2026-11-27 14:35"},
		{"cron(0 0 L * ? *)", "2026-02-01 00:00", "2026-02-28 00:00"},
		{"cron(0 0 LW * ? *)", "2026-02-01 00:00", "2026-02-27 00:00"}, // the 28th is a Saturday
		{"cron(0 0 1W * ? *)", "2026-07-31 00:00", "2026-08-03 00:00"}, // the 1st is a Saturday
		{"cron(0 0 15W * ? *)", "2026-11-01 00:00", "2026-11-16 00:00"},
		{"cron(0 0 ? * 6L *)", "2026-11-01 00:00", "2026-11-27 00:00"},
		{"cron(0 0 ? * 3#2 *)", "2026-11-01 00:00", "2026-11-10 00:00"},
		{"cron(0 0 29 2 ? *)", "2026-01-01 00:00", "2028-02-29 00:00"},
		{"cron(0 0 1 JAN ? 2030)", "2026-01-01 00:00", "2030-01-01 00:00"},
		{"cron(0 0 1 JAN ? 2020)", "2026-01-01 00:00", ""},
		{"cron(0 0 31 2 ? *)", "2026-01-01 00:00", ""},
		{"cron(30 23 ? * SUN,SAT 2026-2027)", "2026-11-28 23:30", "2026-11-29 23:30"},
	} {
		k, err := rollout.ParseCron(c.cron)
		if err != nil {
			t.Errorf("%s: %v", c.cron, err)
			continue
		}
		got := ""
		if n, ok := k.Next(at(c.from)); ok {
			got = n.Format("2006-01-02 15:04")
		}
		if got != c.want {
			t.Errorf("%s after %s: %s, not %s", c.cron, c.from, got, c.want)
		}
	}
	for _, bad := range []string{
		"", "cron(0 12 * * ? *", "0 12 * * *", "60 0 * * ? *", "0 24 * * ? *", "0 0 32 * ? *", "0 0 0 * ? *", "0 0 * 13 ? *", "0 0 ? * 8 *", "0 0 * * * *", "0 0 ? * ? *",
		"0 0 * * ? 1969", "a 0 * * ? *", "5-1 0 * * ? *", "*/0 0 * * ? *", "0 0 ? * 3#6 *", "0 0 XW * ? *", "0 0 ? * XL *", "0, 0 * * ? *", "-1 0 * * ? *",
	} {
		if _, err := rollout.ParseCron(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestSchedule(t *testing.T) {
	now := at("2026-11-25 10:00")
	b := rollout.Bounds{Ahead: 30 * time.Minute, Farthest: 365 * 24 * time.Hour, Shortest: 30 * time.Minute, Longest: 2 * 365 * 24 * time.Hour}
	for _, c := range []struct {
		cfg  iot.SchedulingConfig
		says string
	}{
		{iot.SchedulingConfig{StartTime: new("2026-11-25T10:30")}, ""},
		{iot.SchedulingConfig{StartTime: new("2026-11-25 12:29+02:00")}, "no date and time"},
		{iot.SchedulingConfig{StartTime: new("2026-11-25T12:29+02:00")}, "startTime: it must be at least 30m"},
		{iot.SchedulingConfig{StartTime: new("2028-01-01T00:00:00Z")}, "startTime: it must be at most"},
		{iot.SchedulingConfig{EndTime: new("2026-11-25T10:29Z")}, "endTime: it must be at least"},
		{iot.SchedulingConfig{EndTime: new("2036-11-25T10:29Z")}, "endTime: it must be at most"},
		{iot.SchedulingConfig{StartTime: new("2027-11-01T00:00Z"), EndTime: new("2028-12-01T00:00Z")}, "endTime: it must be at most 17520h0m0s from now"},
		{iot.SchedulingConfig{EndBehavior: new("CANCEL")}, "no endTime"},
		{iot.SchedulingConfig{MaintenanceWindows: []*iot.MaintenanceWindow{{StartTime: "x", DurationInMinutes: 1}}}, "maintenanceWindows: cron"},
	} {
		_, err := rollout.ParseSchedule(&c.cfg, now, b)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}

	s, err := rollout.ParseSchedule(&iot.SchedulingConfig{
		StartTime: new("2026-11-26T00:00Z"), EndTime: new("2026-11-28T00:00Z"), EndBehavior: new("CANCEL"),
		MaintenanceWindows: []*iot.MaintenanceWindow{{StartTime: "cron(0 22 * * ? *)", DurationInMinutes: 180}},
	}, now, b)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at                   string
		started, open, ended bool
	}{
		{"2026-11-25 22:30", false, false, false}, // before the start
		{"2026-11-26 00:30", true, true, false},   // within the window that began the evening before
		{"2026-11-26 01:00", true, false, false},
		{"2026-11-26 22:00", true, true, false},
		{"2026-11-27 23:59", true, true, false},
		{"2026-11-28 00:00", true, false, true},
	} {
		n := at(c.at)
		if s.Started(now, n) != c.started || s.Open(n) != c.open || s.Ended(n) != c.ended {
			t.Errorf("%s: started %v open %v ended %v", c.at, s.Started(now, n), s.Open(n), s.Ended(n))
		}
	}
	if n := s.Next(at("2026-11-26 01:00")); !n.Equal(at("2026-11-26 22:00")) {
		t.Error(n)
	}
	up := s.Upcoming(now, 10)
	if len(up) != 2 || !up[0].Equal(at("2026-11-26 22:00")) || !up[1].Equal(at("2026-11-27 22:00")) {
		t.Error(up)
	}
	none, _ := rollout.ParseSchedule(nil, now, b)
	if !none.Open(now) || !none.Started(now, now) || none.Ended(now) || !none.Next(now).IsZero() {
		t.Error("a job without a schedule rolls out at once")
	}
}

// What ParseCron accepts has times that follow each other.
func FuzzCron(f *testing.F) {
	f.Add("cron(0/15 9-17 ? * MON-FRI *)")
	f.Add("0 0 LW 2 ? 2024-2032/4")
	f.Add("0 0 ? * 3#5,1L *")
	start := at("2026-01-01 00:00")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := rollout.ParseCron(s)
		if err != nil {
			return
		}
		prev := start
		for range 3 {
			next, ok := c.Next(prev)
			if !ok {
				return
			}
			if !next.After(prev) || next.Second() != 0 {
				t.Fatalf("%q: %v after %v", s, next, prev)
			}
			if again, ok := c.Next(next.Add(-time.Minute)); !ok || !again.Equal(next) {
				t.Fatalf("%q: %v, but %v after the minute before", s, next, again)
			}
			prev = next
		}
	})
}
