package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"flotilla/internal/loggroup"
)

type logsCmd struct {
	Tail logsTailCmd `cmd:"" help:"Print the last entries of a log group."`
	List logsListCmd `cmd:"" help:"List the log groups."`
}

// logsDir is where a node keeps its log groups.
type logsDir struct {
	Data string `name:"data" default:"./flotilla-data" placeholder:"DIR" help:"Data directory of the node; a server need not run."`
}

func (d logsDir) path() string { return filepath.Join(d.Data, "logs") }

type logsTailCmd struct {
	logsDir `embed:""`
	Group   string `arg:"" name:"group" help:"Name of the log group."`
	Lines   int    `name:"lines" short:"n" default:"20" help:"How many entries."`
	JSON    bool   `name:"json" help:"Print JSON lines."`
}

func (c *logsTailCmd) Help() string {
	return "Example:\n\n  flotilla logs tail /iot/devices -n 100\n\n" +
		"Shows what cloudwatchLogs actions of topic rules wrote to a log group on the node of the data directory, the newest entry last.\n"
}

func (c *logsTailCmd) Run(s *streams) error {
	if c.Lines < 1 || c.Lines > 1_000_000 {
		return usageError{errors.New("--lines is a number from 1 to 1000000")}
	}
	if err := loggroup.CheckName(c.Group); err != nil {
		return usageError{err}
	}
	events, err := loggroup.Tail(c.path(), c.Group, c.Lines)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s has no log group %s", c.Data, c.Group)
	}
	if err != nil {
		return err
	}
	out := json.NewEncoder(s.out)
	for _, e := range events {
		if !c.JSON {
			fmt.Fprintf(s.out, "%s  %s\n", time.UnixMilli(e.Timestamp).UTC().Format("2006-01-02T15:04:05.000Z"), clean(e.Message))
		} else if err := out.Encode(e); err != nil {
			return err
		}
	}
	return nil
}

type logsListCmd struct {
	logsDir `embed:""`
	JSON    bool `name:"json" help:"Print JSON."`
}

func (c *logsListCmd) Help() string { return "Example:\n\n  flotilla logs list\n" }

func (c *logsListCmd) Run(s *streams) error {
	names, err := loggroup.List(c.path())
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(s.out).Encode(append([]string{}, names...))
	}
	for _, name := range names {
		fmt.Fprintln(s.out, name)
	}
	return nil
}
