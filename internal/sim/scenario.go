package sim

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// Duration is a time.Duration that files write as "90s".
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration takes.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// MarshalText writes it as time.Duration prints it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Scenario says what a fleet does. Shares are of 1. What is zero does not happen.
type Scenario struct {
	Devices  int      `toml:"devices"`
	Duration Duration `toml:"duration"`
	// Settle is how long, after Duration, the fleet may take to come to rest.
	Settle Duration `toml:"settle"`
	// Enroll is how devices get their certificates: "claim" (each by itself, with the fleet's claim certificate) or "api"
	// (RegisterThing, from keys that the simulator makes).
	Enroll string `toml:"enroll"`

	Telemetry struct {
		Every  Duration `toml:"every"`  // between the readings of a device
		Jitter float64  `toml:"jitter"` // share of Every by which one may come earlier or later
		Bytes  int      `toml:"bytes"`  // least size of a reading
	} `toml:"telemetry"`
	DropOuts struct {
		Every Duration `toml:"every"` // mean time that a device is connected; the link then goes, without a DISCONNECT
		For   Duration `toml:"for"`   // mean time that it is gone
	} `toml:"drop-outs"`
	SlowLinks struct {
		Share          float64  `toml:"share"`
		Latency        Duration `toml:"latency"` // of each read and of each write
		BytesPerSecond int      `toml:"bytes-per-second"`
	} `toml:"slow-links"`
	Clocks struct {
		Share float64  `toml:"share"`
		Skew  Duration `toml:"skew"` // at most, either way: of the time in readings and of that which certificates are held against
	} `toml:"clocks"`
	Desired struct {
		Every Duration `toml:"every"` // mean time between changes of a thing's desired state
	} `toml:"desired"`
	Jobs struct {
		Count   int      `toml:"count"`   // jobs for the whole fleet, spread over Duration
		Success float64  `toml:"success"` // share of executions that succeed; the others fail
		Takes   Duration `toml:"takes"`   // mean time of an execution
	} `toml:"jobs"`
}

// DefaultScenario is a fleet in ordinary weather.
func DefaultScenario() Scenario {
	var s Scenario
	s.Devices, s.Duration, s.Settle, s.Enroll = 100, Duration(time.Minute), Duration(2*time.Minute), "claim"
	s.Telemetry.Every, s.Telemetry.Jitter = Duration(5*time.Second), 0.2
	s.DropOuts.Every, s.DropOuts.For = Duration(2*time.Minute), Duration(5*time.Second)
	s.SlowLinks.Share, s.SlowLinks.Latency, s.SlowLinks.BytesPerSecond = 0.1, Duration(100*time.Millisecond), 8192
	s.Clocks.Share, s.Clocks.Skew = 0.1, Duration(5*time.Minute)
	s.Desired.Every = Duration(30 * time.Second)
	s.Jobs.Count, s.Jobs.Success, s.Jobs.Takes = 2, 0.9, Duration(3*time.Second)
	return s
}

// Read changes what the TOML text says; an unknown name is an error.
func (s *Scenario) Read(text []byte) error {
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(s)
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		row, _ := strict.Errors[0].Position()
		return fmt.Errorf("line %d: a scenario has no %v", row, strict.Errors[0].Key())
	}
	return err
}

// Validate says in one sentence what can't be played.
func (s *Scenario) Validate() error {
	share := func(v float64) bool { return v >= 0 && v <= 1 }
	switch {
	case s.Devices < 1 || s.Devices > 100_000:
		return errors.New("devices takes 1 to 100000 in a process")
	case s.Duration < Duration(time.Second) || s.Duration > Duration(30*24*time.Hour):
		return errors.New("duration takes 1s to 720h")
	case s.Enroll != "claim" && s.Enroll != "api":
		return fmt.Errorf("enroll is claim or api, not %q", s.Enroll)
	case s.Telemetry.Every < 0 || s.Telemetry.Every > 0 && s.Telemetry.Every < Duration(time.Millisecond):
		return errors.New("telemetry.every takes at least 1ms")
	case s.Telemetry.Bytes < 0 || s.Telemetry.Bytes > 100_000:
		return errors.New("telemetry.bytes takes 0 to 100000")
	case s.Settle < 0, s.DropOuts.Every < 0, s.DropOuts.For < 0, s.SlowLinks.Latency < 0, s.SlowLinks.BytesPerSecond < 0,
		s.Clocks.Skew < 0, s.Desired.Every < 0, s.Jobs.Count < 0, s.Jobs.Takes < 0:
		return errors.New("durations and counts are not negative")
	case !share(s.Telemetry.Jitter), !share(s.SlowLinks.Share), !share(s.Clocks.Share), !share(s.Jobs.Success):
		return errors.New("shares are 0 to 1")
	case s.DropOuts.Every > 0 && s.DropOuts.Every < Duration(100*time.Millisecond):
		return errors.New("drop-outs.every takes at least 100ms")
	case s.Jobs.Count > 1000:
		return errors.New("jobs.count takes 0 to 1000")
	}
	return nil
}
