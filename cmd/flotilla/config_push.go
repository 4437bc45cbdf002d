package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"flotilla/internal/push"
)

type configCmd struct {
	Push configPushCmd `cmd:"" help:"Write desired state for a slice of the fleet, and see it applied."`
}

type configPushCmd struct {
	target      `embed:""`
	File        string        `arg:"" name:"file" help:"JSON file with the desired state; - is standard input."`
	Query       string        `name:"query" placeholder:"QUERY" help:"Things that a query of the fleet index finds."`
	Group       string        `name:"group" placeholder:"GROUP" help:"Things in a thing group and the groups below it."`
	ThingsFile  string        `name:"things-file" placeholder:"FILE" help:"Things by name, one a line; - is standard input."`
	Name        string        `name:"name" placeholder:"SHADOW" help:"Name of a named shadow; without it the classic one."`
	Rate        float64       `name:"rate" default:"50" help:"Most updates in a second."`
	ReadRate    float64       `name:"read-rate" default:"500" help:"Most shadows that are read in a second."`
	Parallel    int           `name:"parallel" default:"16" help:"Most requests at once, at most 256."`
	Timeout     time.Duration `name:"timeout" default:"5m" help:"How long to wait for devices after the last update; 0: not at all."`
	RetryFailed bool          `name:"retry-failed" help:"Write again where the device had said that it could not apply it."`
	DryRun      bool          `name:"dry-run" help:"Show what would be written, and write nothing."`
	JSON        bool          `name:"json" help:"Print JSON."`
}

func (c *configPushCmd) Help() string {
	return "Example:\n\n  flotilla config push --query 'thingTypeName:pump AND attributes.site:north' --rate 20 desired.json\n" +
		"  echo '{\"interval\":60}' | flotilla config push --group pumps --name config --dry-run -\n\n" +
		"The file holds what is merged into the desired state; null removes. A shadow that has it all is not written again: after an\n" +
		"interruption run the same command, and it goes on. A thing has applied it once its delta names nothing of it; it has failed\n" +
		"when the device reports configStatus {\"version\":V,\"status\":\"FAILED\",\"reason\":\"...\"}: see docs/configuration.md.\n" +
		"Exit 0: all have applied it (with --timeout 0 or --dry-run: none refused, none failed); 1: some have not; 2: bad usage.\n"
}

func (c *configPushCmd) Run(s *streams) error {
	o, err := c.options()
	if err != nil {
		return err
	}
	api, err := c.client()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	bar := newProgress(s.err)
	var shown time.Time
	o.Progress = func(phase push.Phase, n push.Counts) {
		if now := time.Now(); n.Pending == 0 || now.Sub(shown) >= 50*time.Millisecond {
			shown = now
			bar.line(pushLine(phase, n))
		}
	}
	report, err := push.Run(ctx, api, *o)
	bar.end()
	if report != nil {
		if perr := c.print(s, report); err == nil {
			err = perr
		}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted; run it again to go on")
	case err != nil:
		return err
	}
	return c.verdict(report)
}

func pushLine(phase push.Phase, n push.Counts) string {
	return fmt.Sprintf("%s  %d/%d  written %d  applied %d  failed %d  pending %d", phase, n.Looked, n.Things, n.Written, n.Applied, n.Failed+n.Superseded+n.Refused, n.Pending)
}

// verdict is the error that a report amounts to.
func (c *configPushCmd) verdict(r *push.Report) error {
	bad := r.Failed + r.Superseded + r.Refused
	if bad == 0 && (r.Done() || c.DryRun || c.Timeout == 0) {
		return nil
	}
	return fmt.Errorf("%d of %d things have not applied it", r.Things-r.Applied, r.Things)
}

// options reads the files and checks the flags.
func (c *configPushCmd) options() (*push.Options, error) {
	switch {
	case !(c.Rate > 0) || !(c.ReadRate > 0):
		return nil, usageError{errors.New("--rate and --read-rate must be more than 0")}
	case c.Parallel < 1 || c.Parallel > 256:
		return nil, usageError{errors.New("--parallel must be 1 to 256")}
	case c.File == "-" && c.ThingsFile == "-":
		return nil, usageError{errors.New("standard input is one file, not two")}
	}
	o := &push.Options{
		Slice: push.Slice{Query: c.Query, Group: c.Group}, Shadow: c.Name,
		Rate: c.Rate, ReadRate: c.ReadRate, Parallel: c.Parallel, Timeout: c.Timeout, RetryFailed: c.RetryFailed, DryRun: c.DryRun,
	}
	var err error
	if o.Desired, err = readInput(c.File, maxDesired); err != nil {
		return nil, usageError{err}
	}
	if c.ThingsFile != "" {
		text, err := readInput(c.ThingsFile, maxThings)
		if err != nil {
			return nil, usageError{err}
		}
		o.Slice.Things = lines(string(text))
	}
	if err := o.Check(); err != nil {
		return nil, usageError{err}
	}
	return o, nil
}

// What the files of a push may take.
const (
	maxDesired = 1 << 20
	maxThings  = 256 << 20
)

// readInput reads a file, or standard input for "-", of at most limit bytes.
func readInput(name string, limit int64) ([]byte, error) {
	in := os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s: longer than %d bytes", name, limit)
	}
	return text, err
}

// lines are the lines of text that are not empty, without space around them.
func lines(text string) []string {
	list := []string{}
	for scan := bufio.NewScanner(strings.NewReader(text)); scan.Scan(); {
		if line := strings.TrimSpace(scan.Text()); line != "" {
			list = append(list, line)
		}
	}
	return list
}

// shownThings of each push are told one by one; --json tells all.
const shownThings = 20

func (c *configPushCmd) print(s *streams, r *push.Report) error {
	if c.JSON {
		return printJSON(s, r)
	}
	wrote := "written"
	if r.DryRun {
		wrote = "would be written"
	}
	fmt.Fprintf(s.out, "%d things: %d %s, %d had it\n", r.Things, r.Written, wrote, r.Unchanged)
	fmt.Fprintf(s.out, "applied %d, pending %d, failed %d, superseded %d, refused %d\n", r.Applied, r.Pending, r.Failed, r.Superseded, r.Refused)
	if r.DryRun || len(r.Open) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "THING\tSTATUS\tVERSION\tREASON")
	shown := 0
	for _, wantPending := range []bool{false, true} { // what needs a look comes first
		for _, t := range r.Open {
			if (t.Status == push.Pending) == wantPending && shown < shownThings {
				shown++
				fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", t.Name, t.Status, t.Version, orDash(t.Reason))
			}
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if more := len(r.Open) - shown; more > 0 {
		fmt.Fprintf(s.out, "and %d more: --json tells all\n", more)
	}
	name := ""
	if c.Name != "" {
		name = " --name " + c.Name
	}
	fmt.Fprintf(s.out, "'flotilla explain shadow %s%s' says more about one\n", r.Open[0].Name, name)
	return nil
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return fmt.Sprintf("%q", text)
}
