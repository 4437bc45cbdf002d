package main

import (
	"encoding/csv"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"flotilla/internal/aws/flotilla"
)

type telemetryCmd struct {
	Query  telemetryQueryCmd  `cmd:"" help:"Show points of a stretch of time, or what an aggregate makes of them."`
	Last   telemetryLastCmd   `cmd:"" help:"Show the latest value of each measure."`
	Tables telemetryTablesCmd `cmd:"" help:"List the tables and their measures."`
}

// telemetrySeries says which series a command is about.
type telemetrySeries struct {
	target    `embed:""`
	Thing     string            `name:"thing" help:"Value of the dimension thing: short for --dimension thing=NAME."`
	Dimension map[string]string `name:"dimension" placeholder:"NAME=VALUE" help:"Dimension that series must have; may be repeated." mapsep:"none"`
	Database  string            `name:"database" help:"Database; without it all."`
	Table     string            `name:"table" help:"Table; without it all."`
	Measure   string            `name:"measure" help:"Measure; without it all."`
	JSON      bool              `name:"json" xor:"format" help:"Print JSON."`
	CSV       bool              `name:"csv" xor:"format" help:"Print CSV."`
}

func (c *telemetrySeries) dimensions() (map[string]string, error) {
	out := maps.Clone(c.Dimension)
	if out == nil {
		out = map[string]string{}
	}
	if c.Thing != "" {
		out["thing"] = c.Thing
	}
	if len(out) == 0 {
		return nil, usageError{fmt.Errorf("--thing or --dimension is needed")}
	}
	return out, nil
}

// optional is nil for the empty text.
func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func (c *telemetrySeries) print(s *streams, points []*flotilla.TelemetryPoint, count bool) error {
	if points == nil {
		points = []*flotilla.TelemetryPoint{}
	}
	if c.JSON {
		return printJSON(s, points)
	}
	header := []string{"TIME", "DATABASE", "TABLE", "DIMENSIONS", "MEASURE", "TYPE", "VALUE"}
	if count {
		header = append(header, "POINTS")
	}
	rows := [][]string{header}
	for _, p := range points {
		var dimensions []string
		for _, k := range slices.Sorted(maps.Keys(p.Dimensions)) {
			dimensions = append(dimensions, k+"="+p.Dimensions[k])
		}
		row := []string{time.Unix(0, *p.Time).UTC().Format(time.RFC3339Nano), *p.Database, *p.Table, strings.Join(dimensions, ","), *p.Measure, *p.Type, *p.Value}
		if count {
			row = append(row, fmt.Sprint(*p.Count))
		}
		rows = append(rows, row)
	}
	if c.CSV {
		for i := range rows[0] {
			rows[0][i] = strings.ToLower(rows[0][i])
		}
		return csv.NewWriter(s.out).WriteAll(rows)
	}
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

type telemetryQueryCmd struct {
	telemetrySeries
	Since string `name:"since" default:"1h" placeholder:"TIME" help:"From when: a time (2026-11-25T10:00:00Z) or how long ago (1h)."`
	Until string `name:"until" placeholder:"TIME" help:"Before when; without it until now."`
	Agg   string `name:"agg" placeholder:"FUNCTION[:BUCKET]" help:"avg, min, max, sum, count, last or p95, of all or for each bucket: avg:1m."`
	Limit int    `name:"limit" default:"10000" help:"Most points to print, at most 1000000."`
}

func (c *telemetryQueryCmd) Help() string {
	return "Example:\n\n  flotilla telemetry query --thing pump-1 --measure temperature --since 1h --agg avg:1m\n\n" +
		"Points come by day, series and time.\n"
}

func (c *telemetryQueryCmd) Run(s *streams) error {
	dimensions, err := c.dimensions()
	if err != nil {
		return err
	}
	if c.Limit < 1 || c.Limit > 1_000_000 {
		return usageError{fmt.Errorf("--limit %d is not 1 to 1000000", c.Limit)}
	}
	in := &flotilla.SearchTelemetryRequest{Database: optional(c.Database), Table: optional(c.Table), Measure: optional(c.Measure), Dimensions: dimensions}
	if in.Since, err = telemetryTime("since", c.Since); err != nil {
		return err
	}
	if in.Until, err = telemetryTime("until", c.Until); err != nil {
		return err
	}
	if c.Agg != "" {
		function, bucket, bucketed := strings.Cut(c.Agg, ":")
		in.Aggregate = &function
		if bucketed {
			d, err := time.ParseDuration(bucket)
			if err != nil || d < time.Second || d%time.Second != 0 {
				return usageError{fmt.Errorf("--agg %s: the bucket is whole seconds, such as 1m", c.Agg)}
			}
			in.BucketSeconds = new(int64(d / time.Second))
		}
	}
	var points []*flotilla.TelemetryPoint
	for {
		if in.Aggregate == nil {
			in.MaxResults = new(int32(min(10_000, c.Limit-len(points))))
		}
		var out flotilla.SearchTelemetryResponse
		if err := c.call(http.MethodPost, "/telemetry/search", in, &out); err != nil {
			return err
		}
		points = append(points, out.Points...)
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
		if len(points) >= c.Limit {
			fmt.Fprintf(s.err, "flotilla: there are more than %d points: --limit, or a shorter time\n", c.Limit)
			break
		}
	}
	return c.print(s, points, in.Aggregate != nil)
}

// telemetryTime is a time, or how long ago it was, in ms since 1970.
func telemetryTime(flag, text string) (*int64, error) {
	if text == "" {
		return nil, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return new(time.Now().Add(-d).UnixMilli()), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, usageError{fmt.Errorf("--%s %q is neither a time such as 2026-11-25T10:00:00Z nor a duration such as 1h", flag, text)}
	}
	return new(t.UnixMilli()), nil
}

type telemetryLastCmd struct{ telemetrySeries }

func (c *telemetryLastCmd) Help() string {
	return "Example:\n\n  flotilla telemetry last --thing pump-1 --json\n"
}

func (c *telemetryLastCmd) Run(s *streams) error {
	dimensions, err := c.dimensions()
	if err != nil {
		return err
	}
	var out flotilla.GetLastTelemetryResponse
	if err := c.call(http.MethodPost, "/telemetry/last", &flotilla.GetLastTelemetryRequest{
		Database: optional(c.Database), Table: optional(c.Table), Measure: optional(c.Measure), Dimensions: dimensions,
	}, &out); err != nil {
		return err
	}
	return c.print(s, out.Points, false)
}

type telemetryTablesCmd struct {
	target `embed:""`
	JSON   bool `name:"json" help:"Print JSON."`
}

func (c *telemetryTablesCmd) Help() string {
	return "Example:\n\n  flotilla telemetry tables\n"
}

func (c *telemetryTablesCmd) Run(s *streams) error {
	var out flotilla.ListTelemetryTablesResponse
	if err := c.call(http.MethodGet, "/telemetry/tables", nil, &out); err != nil {
		return err
	}
	if c.JSON {
		if out.Tables == nil {
			out.Tables = []*flotilla.TelemetryTable{}
		}
		return printJSON(s, out.Tables)
	}
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "DATABASE\tTABLE\tFROM\tTO\tMEASURES")
	for _, t := range out.Tables {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", *t.Database, *t.Table, *t.FirstDay, *t.LastDay, strings.Join(t.Measures, ","))
	}
	return w.Flush()
}
