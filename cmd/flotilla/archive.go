package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"

	"flotilla/internal/telemetry"
)

type archiveCmd struct {
	List    archiveListCmd    `cmd:"" help:"List the partitions of the archive: files, rows, times."`
	Query   archiveQueryCmd   `cmd:"" help:"Select rows of a stream, or count, sum and average them."`
	Compact archiveCompactCmd `cmd:"" help:"Merge small files, and remove old ones."`
	Verify  archiveVerifyCmd  `cmd:"" help:"Read all files and hold them to their manifests."`
}

// archiveDir is where the archive is.
type archiveDir struct {
	Data string `name:"data" default:"./flotilla-data" placeholder:"DIR" help:"Data directory of the server; the archive is archive/ in it."`
	Dir  string `name:"dir" placeholder:"DIR" help:"Directory of the archive itself, such as a copy of it."`
	JSON bool   `name:"json" help:"Print JSON."`
}

func (a *archiveDir) path() string {
	if a.Dir != "" {
		return a.Dir
	}
	return filepath.Join(a.Data, "archive")
}

func untilInterrupted() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

// badQuery makes what the author of a query got wrong a bad command line.
func badQuery(err error) error {
	if errors.Is(err, telemetry.ErrQuery) {
		return usageError{err}
	}
	return err
}

type archiveListCmd struct {
	archiveDir
	Stream string `arg:"" optional:"" name:"stream" help:"Stream, as deliveryStreamName of the firehose action names it; all without it."`
}

func (c *archiveListCmd) Help() string {
	return "Example:\n\n  flotilla archive list telemetry --data ./flotilla-data\n"
}

func (c *archiveListCmd) Run(s *streams) error {
	ctx, stop := untilInterrupted()
	defer stop()
	all := []telemetry.Partition{}
	err := telemetry.List(ctx, c.path(), c.Stream, func(p telemetry.Partition) error {
		all = append(all, p)
		return nil
	})
	if err != nil {
		return badQuery(err)
	}
	if c.JSON {
		return printJSON(s, all)
	}
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "PARTITION\tFILES\tROWS\tBYTES\tFIRST\tLAST")
	for _, p := range all {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\n", p.Directory, p.Files, p.Rows, p.Bytes, p.First.Format(time.RFC3339), p.Last.Format(time.RFC3339))
	}
	return w.Flush()
}

type archiveQueryCmd struct {
	archiveDir
	Stream string        `arg:"" name:"stream" help:"Stream, as deliveryStreamName of the firehose action names it."`
	Select []string      `name:"select" placeholder:"COLUMN,..." help:"Columns to print; all without it."`
	Where  string        `name:"where" placeholder:"CONDITION" help:"Which rows: comparisons of columns, numbers and 'text' with = <> < <= > >=, IN, LIKE, IS NULL, AND, OR, NOT."`
	Since  string        `name:"since" placeholder:"TIME" help:"Messages received since then: 2026-11-24T10:00:00Z, 2026-11-24, or 1h for an hour ago."`
	Until  string        `name:"until" placeholder:"TIME" help:"Messages received before then."`
	Agg    []string      `name:"agg" placeholder:"FUNCTION,..." help:"Numbers instead of rows: count, count(COLUMN), sum(COLUMN), avg(COLUMN), min(COLUMN), max(COLUMN)."`
	By     []string      `name:"by" placeholder:"COLUMN,..." help:"Group by these columns."`
	Every  time.Duration `name:"every" placeholder:"DURATION" help:"Group by intervals of time too."`
	Limit  int           `name:"limit" default:"0" help:"Most rows to print; 0: all."`
	CSV    bool          `name:"csv" help:"Print CSV."`
}

func (c *archiveQueryCmd) Help() string {
	return "Example:\n\n  flotilla archive query telemetry --where \"temperature > 20\" --since 24h --agg 'avg(temperature),count' --by thing --every 1h\n\n" +
		"A nested member has the column parent.child. Columns about the message are flotilla_id, flotilla_part, flotilla_rule, flotilla_topic,\n" +
		"flotilla_client_id and flotilla_received. Files are read where they are, also while the server writes.\n"
}

func (c *archiveQueryCmd) Run(s *streams) error {
	if c.JSON && c.CSV {
		return usageError{errors.New("either --json or --csv")}
	}
	if c.Limit < 0 {
		return usageError{errors.New("--limit takes 0 or more")}
	}
	q := telemetry.Query{Stream: c.Stream, Select: c.Select, Where: c.Where, Aggregates: c.Agg, By: c.By, Every: c.Every, Limit: c.Limit}
	var err, err2 error
	q.Since, err = pointInTime(c.Since, time.Now())
	q.Until, err2 = pointInTime(c.Until, time.Now())
	if err := errors.Join(err, err2); err != nil {
		return usageError{err}
	}
	ctx, stop := untilInterrupted()
	defer stop()
	p := c.printer(s)
	if err := q.Run(ctx, c.path(), p.header, p.row); err != nil {
		return badQuery(err)
	}
	return p.end()
}

// pointInTime reads a time, or a duration before now; the zero time when empty.
func pointInTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is neither a time, such as 2026-11-24T10:00:00Z, nor a duration, such as 90m or 7d", text)
}

// resultPrinter prints the result of a query.
type resultPrinter struct {
	header func([]string) error
	row    func([]any) error
	end    func() error
}

func (c *archiveQueryCmd) printer(s *streams) resultPrinter {
	var names []string
	switch {
	case c.JSON: // an object a line
		e := json.NewEncoder(s.out)
		e.SetEscapeHTML(false)
		return resultPrinter{
			header: func(n []string) error { names = n; return nil },
			row: func(values []any) error {
				object := make(map[string]any, len(values))
				for i, v := range values {
					if f, ok := v.(float64); ok && (math.IsInf(f, 0) || math.IsNaN(f)) {
						v = nil
					}
					if v != nil {
						object[names[i]] = v
					}
				}
				return e.Encode(object)
			},
			end: func() error { return nil },
		}
	case c.CSV:
		w := csv.NewWriter(s.out)
		return resultPrinter{
			header: w.Write,
			row:    func(values []any) error { return w.Write(texts(values, "")) },
			end:    func() error { w.Flush(); return w.Error() },
		}
	}
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	n := 0
	return resultPrinter{
		header: func(names []string) error {
			_, err := fmt.Fprintln(w, strings.Join(names, "\t"))
			return err
		},
		row: func(values []any) error {
			cells := texts(values, "-")
			for i := range cells {
				cells[i] = oneLine(cells[i])
			}
			_, err := fmt.Fprintln(w, strings.Join(cells, "\t"))
			if n++; n%1000 == 0 { // what waits for its width is bounded
				err = errors.Join(err, w.Flush())
			}
			return err
		},
		end: w.Flush,
	}
}

func texts(values []any, null string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		switch x := v.(type) {
		case nil:
			out[i] = null
		case time.Time:
			out[i] = x.Format("2006-01-02T15:04:05.000Z07:00")
		case float64:
			out[i] = strconv.FormatFloat(x, 'f', -1, 64)
		default:
			out[i] = fmt.Sprint(v)
		}
	}
	return out
}

// oneLine makes text of devices safe for a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '.'
		}
		return r
	}, s)
}

type archiveCompactCmd struct {
	archiveDir
	Stream    string        `arg:"" optional:"" name:"stream" help:"Stream; all without it."`
	Quiet     time.Duration `name:"quiet" default:"1h" help:"Leave partitions alone that got a file less than so long ago; 0: none."`
	FileBytes int64         `name:"file-bytes" default:"134217728" help:"Size that merged files have about."`
	Keep      time.Duration `name:"keep" placeholder:"DURATION" help:"Remove files whose rows are all older; without it none."`
	MaxBytes  int64         `name:"max-bytes" help:"Remove the oldest files until no more than so many bytes are left; 0: none."`
}

func (c *archiveCompactCmd) Help() string {
	return "Example:\n\n  flotilla archive compact telemetry --data ./flotilla-data\n\n" +
		"The server does this by itself (--rules.archive-quiet); both at once is refused. Writers and readers go on.\n"
}

func (c *archiveCompactCmd) Run(s *streams) error {
	if c.FileBytes < 1<<10 || c.Quiet < 0 || c.Keep < 0 || c.MaxBytes < 0 {
		return usageError{errors.New("--file-bytes takes at least 1024; no duration and no size is negative")}
	}
	if c.Stream != "" {
		if err := telemetry.CheckStream(c.Stream); err != nil {
			return usageError{err}
		}
	}
	if _, err := os.Stat(c.path()); err != nil {
		return err
	}
	a, err := telemetry.OpenArchive(c.path(), "")
	if err != nil {
		return err
	}
	defer a.Close()
	ctx, stop := untilInterrupted()
	defer stop()
	how := telemetry.Compaction{Quiet: c.Quiet, FileBytes: c.FileBytes}
	if c.Quiet == 0 {
		how.Quiet = -1
	}
	var expired telemetry.Compacted
	if c.Keep > 0 || c.MaxBytes > 0 {
		var before time.Time
		if c.Keep > 0 {
			before = time.Now().Add(-c.Keep)
		}
		if expired, err = a.Expire(ctx, c.Stream, before, c.MaxBytes); err != nil {
			return err
		}
	}
	done, err := a.Compact(ctx, c.Stream, how)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s, map[string]any{"compacted": done, "filesExpired": expired.Removed})
	}
	fmt.Fprintf(s.out, "%d files of %d partitions became %d, with %d rows; %d files were too old\n", done.Removed, done.Partitions, done.Written, done.Rows, expired.Removed)
	return nil
}

type archiveVerifyCmd struct {
	archiveDir
	Stream string `arg:"" optional:"" name:"stream" help:"Stream; all without it."`
}

func (c *archiveVerifyCmd) Help() string {
	return "Example:\n\n  flotilla archive verify --data ./flotilla-data\n\nExit 1 when a file is damaged, missing, or has a row that another one has.\n"
}

func (c *archiveVerifyCmd) Run(s *streams) error {
	ctx, stop := untilInterrupted()
	defer stop()
	v, err := telemetry.Verify(ctx, c.path(), c.Stream)
	if err != nil {
		return badQuery(err)
	}
	if c.JSON {
		err = printJSON(s, v)
	} else {
		for _, p := range v.Problems {
			fmt.Fprintln(s.out, p)
		}
		fmt.Fprintf(s.out, "%d files, %d rows, %d problems\n", v.Files, v.Rows, len(v.Problems))
	}
	if err == nil && len(v.Problems) > 0 {
		err = errors.New("the archive is damaged")
	}
	return err
}
