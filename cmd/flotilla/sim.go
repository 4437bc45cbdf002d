package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"flotilla/internal/api/client"
	"flotilla/internal/server"
	"flotilla/internal/sim"
)

type simCmd struct {
	target      `embed:""`
	Devices     int           `name:"devices" placeholder:"N" help:"Simulated devices, 100 unless the scenario says otherwise; up to 10,000 in a process are well below 1 GiB."`
	Seed        uint64        `name:"seed" default:"1" help:"What devices are like and what happens to them follows from it."`
	Duration    time.Duration `name:"duration" placeholder:"TIME" help:"How long the fleet lives, 1m unless the scenario says otherwise; then it comes to rest."`
	Scenario    string        `name:"scenario" placeholder:"FILE" help:"TOML file with behaviours: docs/simulation.md."`
	Name        string        `name:"run" placeholder:"NAME" help:"Name of the run, in the names of all that it creates; the time unless given."`
	Credentials string        `name:"credentials" placeholder:"FILE" help:"Credentials file of AWS's tools."`
	MQTT        string        `name:"mqtt" placeholder:"HOST:PORT" help:"Device gateway of that server; what DescribeEndpoint says unless given."`
	CA          string        `name:"ca" placeholder:"FILE" help:"What devices trust there, PEM; the system's roots unless given."`
	JSON        bool          `name:"json" help:"Print the report as JSON."`
}

func (c *simCmd) Help() string {
	return "Example:\n\n  flotilla sim --devices 500 --seed 7 --duration 10m --data ./flotilla-data\n\n" +
		"Devices with certificates of their own send telemetry, follow their shadows and do jobs, while links go and come back.\n" +
		"At the end all must add up: each acknowledged reading arrived at a subscriber, each desired state was applied, each job\n" +
		"execution is terminal. Exit code 1 and a sentence for each that does not hold. What was created stays.\n"
}

func (c *simCmd) Run(s *streams) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	scenario, err := c.scenario()
	if err != nil {
		return usageError{err}
	}
	fleet, err := c.fleet(ctx)
	if err != nil {
		return err
	}
	fleet.Run, fleet.Seed, fleet.Scenario = c.Name, c.Seed, scenario
	if fleet.Run == "" {
		fleet.Run = strconv.FormatInt(time.Now().UnixMilli(), 36)
	}
	bar := newProgress(s.err)
	fleet.Progress = func(st sim.Status) { bar.line(simLine(st)) }
	report, err := fleet.Play(ctx)
	bar.end()
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if perr := c.print(s, report, err == nil); perr != nil {
		return perr
	}
	for _, failure := range report.Failures {
		err = errors.Join(err, errors.New(failure))
	}
	return err
}

// scenario is the default one, with what the file says, and then the flags.
func (c *simCmd) scenario() (sim.Scenario, error) {
	s := sim.DefaultScenario()
	if c.Scenario != "" {
		text, err := os.ReadFile(c.Scenario)
		if err != nil {
			return s, err
		}
		if err := s.Read(text); err != nil {
			return s, fmt.Errorf("%s: %w", c.Scenario, err)
		}
	}
	if c.Devices < 0 || c.Duration < 0 {
		return s, errors.New("--devices and --duration are above 0")
	}
	if c.Devices != 0 {
		s.Devices = c.Devices
	}
	if c.Duration != 0 {
		s.Duration = sim.Duration(c.Duration)
	}
	return s, s.Validate()
}

// fleet is a fleet of the server that the flags mean.
func (c *simCmd) fleet(ctx context.Context) (*sim.Fleet, error) {
	if c.Endpoint == "" {
		return c.localFleet()
	}
	access, secret := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	if c.Credentials != "" {
		var err error
		if access, secret, err = server.ReadCredentials(c.Credentials); err != nil {
			return nil, err
		}
	}
	if access == "" || secret == "" {
		return nil, usageError{errors.New("--endpoint takes a key: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or --credentials FILE")}
	}
	f := &sim.Fleet{Cloud: sim.NewCloud(c.Endpoint, "us-east-1", access, secret), Addr: c.MQTT}
	if c.CA != "" {
		var err error
		if f.Roots, err = readRoots(c.CA); err != nil {
			return nil, err
		}
	}
	if f.Addr == "" {
		var out struct{ EndpointAddress string }
		api := client.New(c.Endpoint, "us-east-1", access, secret)
		if err := api.Call(ctx, "iot", http.MethodGet, "/endpoint?endpointType=iot:Data-ATS", nil, &out); err != nil {
			return nil, fmt.Errorf("describe the endpoint: %w", err)
		}
		f.Addr = out.EndpointAddress
		if _, _, err := net.SplitHostPort(f.Addr); err != nil { // MQTT's own port is not said
			f.Addr = net.JoinHostPort(f.Addr, "8883")
		}
	}
	return f, nil
}

func (c *simCmd) localFleet() (*sim.Fleet, error) {
	text, err := os.ReadFile(filepath.Join(c.Data, "endpoints.json"))
	if err != nil {
		return nil, fmt.Errorf("no server runs on the data directory %s", c.Data)
	}
	var e server.Endpoints
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(c.Data, "endpoints.json"), err)
	}
	access, secret, err := server.ReadCredentials(filepath.Join(c.Data, "credentials"))
	if err != nil {
		return nil, err
	}
	roots, err := readRoots(filepath.Join(c.Data, "ca", "root.pem"))
	if err != nil {
		return nil, err
	}
	return &sim.Fleet{Cloud: sim.NewCloud(e.API, "us-east-1", access, secret), Addr: e.MQTT, Roots: roots}, nil
}

func readRoots(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return roots, nil
}

func simLine(s sim.Status) string {
	if s.Phase == "enroll" {
		return fmt.Sprintf("enroll  %d/%d devices", s.Done, s.Of)
	}
	where := fmt.Sprintf("%d/%d s", s.Done, s.Of)
	if s.Phase == "settle" {
		where = "coming to rest"
	}
	return fmt.Sprintf("%-7s %s  %d connected  %d readings acknowledged, %d arrived  %d desired written, %d reported",
		s.Phase, where, s.Connected, s.Acknowledged, s.Arrived, s.DesiredWritten, s.DesiredReported)
}

func (c *simCmd) print(s *streams, r *sim.Report, whole bool) error {
	if c.JSON {
		return printJSON(s, r)
	}
	_, err := fmt.Fprintf(s.out, `Fleet        %d of %d devices enrolled, run %s, seed %d, %.0f s
Readings     %d acknowledged, %d arrived; %d sent again, %d arrived again; acknowledged within p50 %.1f ms, p99 %.1f ms
Connections  %d made, %d dropped out, %d lost otherwise%s
Desired      %d written, %d reports accepted; converged within p50 %.1f ms, p99 %.1f ms
Requests     %d refused%s, %d unanswered
`,
		r.Enrolled, r.Devices, r.Run, r.Seed, r.Seconds,
		r.Readings.Acknowledged, r.Readings.Arrived, r.Readings.SentAgain, r.Readings.Repeated, r.Readings.AckP50, r.Readings.AckP99,
		r.Connections.Made, r.Connections.DropOuts, r.Connections.Lost, inBrackets(r.Connections.LastLoss),
		r.Desired.Written, r.Desired.Reported, r.Desired.P50, r.Desired.P99,
		r.Requests.Refused, inBrackets(r.Requests.LastRefusal), r.Requests.Unanswered)
	for _, j := range r.Jobs {
		if err == nil {
			_, err = fmt.Fprintf(s.out, "Job          %s %s: %d succeeded, %d failed, %d unfinished\n", j.ID, j.Status, j.Succeeded, j.Failed, j.Unfinished)
		}
	}
	if err == nil && whole && len(r.Failures) == 0 {
		_, err = fmt.Fprintln(s.out, "All adds up.")
	}
	return err
}

func inBrackets(last string) string {
	if last == "" {
		return ""
	}
	return " (last: " + last + ")"
}
