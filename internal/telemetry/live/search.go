package live

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"flotilla/internal/aws/flotilla"
)

const (
	defaultRows = 1000
	maxRows     = 10_000
	maxScanned  = 2_000_000 // points that an aggregation may read
	maxSeries   = 10_000    // series of a day that a request may be about
)

// filter says which series a request is about.
type filter struct {
	database, table, measure string
	dimensions               map[string]string
}

func invalid(format string, args ...any) error {
	return &flotilla.InvalidRequestException{Message: fmt.Sprintf(format, args...)}
}

func newFilter(database, table, measure *string, dimensions map[string]string) (f filter, err error) {
	if len(dimensions) == 0 || len(dimensions) > MaxDimensions {
		return f, invalid("dimensions: 1 to %d are needed, such as {\"thing\": \"pump-1\"}", MaxDimensions)
	}
	for _, p := range []*string{database, table, measure} {
		if p != nil && *p == "" {
			return f, invalid("database, table and measure are left out rather than empty")
		}
	}
	f.dimensions = dimensions
	for to, p := range map[*string]*string{&f.database: database, &f.table: table, &f.measure: measure} {
		if p != nil {
			*to = *p
		}
	}
	return f, nil
}

// series is what a day's file calls a number.
type series struct {
	id                                   int64
	database, table, measure, dimensions string
}

func (s *series) key() string {
	return strings.Join([]string{s.database, s.table, s.measure, s.dimensions}, "\x00")
}

func (s *series) point() *flotilla.TelemetryPoint {
	p := &flotilla.TelemetryPoint{Database: &s.database, Table: &s.table, Measure: &s.measure, Dimensions: map[string]string{}}
	_ = json.Unmarshal([]byte(s.dimensions), &p.Dimensions) // written by this package
	return p
}

// find gives the series of a day that pass the filter, in the order of their numbers.
func (d *day) find(ctx context.Context, f filter) (out []series, err error) {
	query, args := `SELECT s.id, s.database_name, s.table_name, s.measure, s.dimensions FROM series s WHERE 1 = 1`, []any{}
	arg := func(v any) string { args = append(args, v); return fmt.Sprintf("$%d", len(args)) }
	for _, name := range slices.Sorted(maps.Keys(f.dimensions)) {
		query += ` AND s.id IN (SELECT series FROM dimension WHERE name = ` + arg(name) + ` AND value = ` + arg(f.dimensions[name]) + `)`
	}
	for _, c := range [][2]string{{"database_name", f.database}, {"table_name", f.table}, {"measure", f.measure}} {
		if c[1] != "" {
			query += ` AND s.` + c[0] + ` = ` + arg(c[1])
		}
	}
	rows, err := d.db.QueryContext(ctx, query+` ORDER BY s.id LIMIT `+arg(maxSeries+1), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s series
		if err := rows.Scan(&s.id, &s.database, &s.table, &s.measure, &s.dimensions); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	if len(out) > maxSeries {
		return nil, invalid("more than %d series are asked for: name a measure or more dimensions", maxSeries)
	}
	return out, rows.Err()
}

// points calls fn with the points of a series from and until times, in their order, until it returns false.
func (d *day) points(ctx context.Context, id, from, until int64, limit int, fn func(at int64, value any) bool) error {
	rows, err := d.db.QueryContext(ctx, `SELECT time, value FROM point WHERE series = $1 AND time >= $2 AND time < $3 ORDER BY time LIMIT $4`, id, from, until, limit)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var at int64
		var value any
		if err := rows.Scan(&at, &value); err != nil {
			return err
		}
		if !fn(at, value) {
			return nil
		}
	}
	return rows.Err()
}

// visit calls fn with the days from and until times that there are, the oldest first; newest turns that round.
func (s *Store) visit(from, until int64, newest bool, fn func(*day) (more bool, err error)) error {
	names, err := s.days()
	if err != nil {
		return err
	}
	if newest {
		slices.Reverse(names)
	}
	first, last := dayName(max(0, from)/dayNanos), dayName(max(0, until-1)/dayNanos)
	for _, name := range names {
		if name < first || name > last {
			continue
		}
		d, err := s.use(name, false)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("live telemetry: %s: %w", name, err)
		}
		more, err := fn(d)
		s.examine(d, err)
		s.leave(d)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// cursor is where the next page begins: after a time of a series of a day.
type cursor struct {
	Day    string `json:"d"`
	Series int64  `json:"s"`
	Time   int64  `json:"t"`
}

func (c cursor) token() string {
	b, _ := json.Marshal(c) // numbers and a text
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseCursor(token *string) (c cursor, err error) {
	if token == nil {
		return c, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(*token)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if _, dayErr := time.Parse(dayLayout, c.Day); err != nil || dayErr != nil {
		return c, invalid("nextToken is not one that a search has returned")
	}
	return c, nil
}

// SearchTelemetry gives points, or what an aggregate makes of them, of the series that have all dimensions that the
// request names. It is not among AWS's operations.
//
//	since, until  ms since 1970, from and before; the last hour when they are absent
//	aggregate     avg, min, max, sum, count, last or p95, for each bucket of bucketSeconds (0: one bucket)
//	returned      points by day, series and time; times in ns. Aggregates by series and time, with the bucket's begin
//
// Errors: flotilla.InvalidRequestException.
func (s *Store) SearchTelemetry(ctx context.Context, in *flotilla.SearchTelemetryRequest) (*flotilla.SearchTelemetryResponse, error) {
	f, err := newFilter(in.Database, in.Table, in.Measure, in.Dimensions)
	if err != nil {
		return nil, err
	}
	from, until, err := s.window(in.Since, in.Until)
	if err != nil {
		return nil, err
	}
	limit := defaultRows
	if in.MaxResults != nil {
		limit = int(*in.MaxResults)
	}
	if in.Aggregate != nil {
		return s.aggregated(ctx, in, f, from, until)
	}
	if in.BucketSeconds != nil {
		return nil, invalid("bucketSeconds goes with aggregate")
	}
	start, err := parseCursor(in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &flotilla.SearchTelemetryResponse{Points: []*flotilla.TelemetryPoint{}}
	err = s.visit(from, until, false, func(d *day) (bool, error) {
		if d.name < start.Day {
			return true, nil
		}
		list, err := d.find(ctx, f)
		for i := 0; i < len(list) && err == nil && out.NextToken == nil; i++ {
			one, begin := &list[i], from
			if d.name == start.Day && one.id < start.Series {
				continue
			}
			if d.name == start.Day && one.id == start.Series {
				begin = max(begin, start.Time+1)
			}
			err = d.points(ctx, one.id, begin, until, limit-len(out.Points)+1, func(at int64, value any) bool {
				if len(out.Points) == limit {
					out.NextToken = new(cursor{d.name, one.id, at - 1}.token())
					return false
				}
				p := one.point()
				kind, v := text(value)
				p.Time, p.Type, p.Value = &at, &kind, &v
				out.Points = append(out.Points, p)
				return true
			})
		}
		return out.NextToken == nil, err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Store) window(since, until *int64) (from, to int64, err error) {
	const last = int64(1) << 62 / int64(time.Millisecond)
	to = s.d.Now().Add(maxAhead).UnixMilli()
	if until != nil {
		to = *until
	}
	from = s.d.Now().Add(-time.Hour).UnixMilli()
	if since != nil {
		from = *since
	}
	if from < 0 || to > last || from >= to {
		return 0, 0, invalid("since (%d) and until (%d) are milliseconds since 1970, and since is the earlier", from, to)
	}
	return from * int64(time.Millisecond), to * int64(time.Millisecond), nil
}

// GetLastTelemetry gives the latest point of each series that has all dimensions that the request names, of the
// days that are kept. It is not among AWS's operations.
//
// Errors: flotilla.InvalidRequestException.
func (s *Store) GetLastTelemetry(ctx context.Context, in *flotilla.GetLastTelemetryRequest) (*flotilla.GetLastTelemetryResponse, error) {
	f, err := newFilter(in.Database, in.Table, in.Measure, in.Dimensions)
	if err != nil {
		return nil, err
	}
	out := &flotilla.GetLastTelemetryResponse{Points: []*flotilla.TelemetryPoint{}}
	seen := map[string]bool{}
	err = s.visit(0, s.d.Now().Add(2*maxAhead).UnixNano(), true, func(d *day) (bool, error) {
		list, err := d.find(ctx, f)
		for i := 0; i < len(list) && err == nil; i++ {
			one := &list[i]
			if seen[one.key()] {
				continue
			}
			if len(seen) == maxRows {
				return false, invalid("more than %d series are asked for: name a measure or more dimensions", maxRows)
			}
			seen[one.key()] = true
			var at int64
			var value any
			if err = d.db.QueryRowContext(ctx, `SELECT time, value FROM point WHERE series = $1 ORDER BY time DESC LIMIT 1`, one.id).Scan(&at, &value); err == nil {
				p := one.point()
				kind, v := text(value)
				p.Time, p.Type, p.Value = &at, &kind, &v
				out.Points = append(out.Points, p)
			}
		}
		return true, err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out.Points, func(a, b *flotilla.TelemetryPoint) int {
		return cmp.Or(cmp.Compare(*a.Database, *b.Database), cmp.Compare(*a.Table, *b.Table), cmp.Compare(*a.Measure, *b.Measure))
	})
	return out, nil
}

// ListTelemetryTables gives the tables of the days that are kept, with their measures, at most 1,000 of each table.
// It is not among AWS's operations.
func (s *Store) ListTelemetryTables(ctx context.Context, _ *flotilla.ListTelemetryTablesRequest) (*flotilla.ListTelemetryTablesResponse, error) {
	const maxTables, maxMeasures = 1000, 1000
	tables := map[[2]string]*flotilla.TelemetryTable{}
	err := s.visit(0, s.d.Now().Add(2*maxAhead).UnixNano(), false, func(d *day) (bool, error) {
		rows, err := d.db.QueryContext(ctx, `SELECT DISTINCT database_name, table_name, measure FROM series ORDER BY 1, 2, 3 LIMIT 100000`)
		if err != nil {
			return false, err
		}
		defer rows.Close()
		for rows.Next() {
			var database, table, measure string
			if err := rows.Scan(&database, &table, &measure); err != nil {
				return false, err
			}
			t := tables[[2]string{database, table}]
			if t == nil {
				if len(tables) == maxTables {
					return false, invalid("there are more than %d tables", maxTables)
				}
				t = &flotilla.TelemetryTable{Database: &database, Table: &table, FirstDay: &d.name}
				tables[[2]string{database, table}] = t
			}
			t.LastDay = &d.name
			if i, found := slices.BinarySearch(t.Measures, measure); !found && len(t.Measures) < maxMeasures {
				t.Measures = slices.Insert(t.Measures, i, measure)
			}
		}
		return true, rows.Err()
	})
	if err != nil {
		return nil, err
	}
	out := &flotilla.ListTelemetryTablesResponse{Tables: slices.SortedFunc(maps.Values(tables), func(a, b *flotilla.TelemetryTable) int {
		return cmp.Or(cmp.Compare(*a.Database, *b.Database), cmp.Compare(*a.Table, *b.Table))
	})}
	return out, nil
}
