package live_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws/flotilla"
	"flotilla/internal/telemetry/live"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func open(t testing.TB, dir string, cfg live.Config) *live.Store {
	t.Helper()
	s, err := live.Open(cfg, live.Deps{Dir: dir, Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func point(thing, measure string, at time.Time, value any, version int64) live.Point {
	return live.Point{
		Database: "factory", Table: "pumps", Dimensions: []live.Dimension{{Name: "site", Value: "a"}, {Name: "thing", Value: thing}},
		Measure: measure, Time: at.UnixNano(), Value: value, Version: version,
	}
}

func write(t testing.TB, s *live.Store, points ...live.Point) {
	t.Helper()
	for i := range points {
		if err := s.Check(&points[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Write(context.Background(), points); err != nil {
		t.Fatal(err)
	}
}

func search(t testing.TB, s *live.Store, in flotilla.SearchTelemetryRequest) *flotilla.SearchTelemetryResponse {
	t.Helper()
	if in.Dimensions == nil {
		in.Dimensions = map[string]string{"thing": "p1"}
	}
	if in.Since == nil {
		in.Since = new(int64(0))
	}
	out, err := s.SearchTelemetry(context.Background(), &in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// lines are points as measure, time, type and value.
func lines(points []*flotilla.TelemetryPoint) (out []string) {
	for _, p := range points {
		out = append(out, fmt.Sprintf("%s %s %s %s", *p.Measure, time.Unix(0, *p.Time).UTC().Format("02T15:04:05"), *p.Type, *p.Value))
	}
	return out
}

func TestTypes(t *testing.T) {
	s := open(t, t.TempDir(), live.Config{})
	write(t, s, point("p1", "b", noon, true, 1), point("p1", "d", noon, 10.0, 1), point("p1", "i", noon, int64(-7), 1), point("p1", "v", noon, "öl", 1), point("p2", "i", noon, int64(1), 1))
	want := []string{"b 25T12:00:00 BOOLEAN true", "d 25T12:00:00 DOUBLE 10", "i 25T12:00:00 BIGINT -7", "v 25T12:00:00 VARCHAR öl"}
	out := search(t, s, flotilla.SearchTelemetryRequest{})
	if diff := cmp.Diff(want, lines(out.Points)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"site": "a", "thing": "p1"}, out.Points[0].Dimensions); diff != "" {
		t.Error(diff)
	}
	for name, in := range map[string]flotilla.SearchTelemetryRequest{
		"measure": {Measure: new("i")}, "database": {Database: new("factory"), Table: new("pumps"), Measure: new("i")},
		"two dimensions": {Measure: new("i"), Dimensions: map[string]string{"thing": "p1", "site": "a"}},
	} {
		if got := lines(search(t, s, in).Points); len(got) != 1 {
			t.Errorf("%s: %q", name, got)
		}
	}
	for name, in := range map[string]flotilla.SearchTelemetryRequest{
		"table": {Table: new("other")}, "dimension": {Dimensions: map[string]string{"thing": "p1", "site": "b"}},
		"before": {Until: new(noon.UnixMilli())}, "after": {Since: new(noon.UnixMilli() + 1)},
	} {
		if got := lines(search(t, s, in).Points); len(got) != 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// Of two points of a series and time the one of the higher version stays, in whichever order they come.
//
// AWS: https://docs.aws.amazon.com/timestream/latest/developerguide/API_Record.html#timestream-Type-Record-Version
func TestVersions(t *testing.T) {
	s := open(t, t.TempDir(), live.Config{})
	for _, p := range []struct {
		value   int64
		version int64
		want    string
	}{{1, 5, "1"}, {2, 6, "2"}, {1, 5, "2"}, {2, 6, "2"}, {3, 7, "3"}} {
		write(t, s, point("p1", "m", noon, p.value, p.version))
		out := search(t, s, flotilla.SearchTelemetryRequest{})
		if len(out.Points) != 1 || *out.Points[0].Value != p.want {
			t.Errorf("after version %d: %q, want one point of %s", p.version, lines(out.Points), p.want)
		}
	}
}

func TestDaysAndPages(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, live.Config{})
	var want []string
	for d := 3; d >= 0; d-- {
		for i := range 5 {
			at := noon.AddDate(0, 0, -d).Add(time.Duration(i-5) * time.Second)
			write(t, s, point("p1", "m", at, int64(10*d+i), 1))
			want = append(want, fmt.Sprintf("m %s BIGINT %d", at.Format("02T15:04:05"), 10*d+i))
		}
	}
	for _, size := range []int32{1, 3, 5, 20, 21} {
		var got []string
		in := flotilla.SearchTelemetryRequest{MaxResults: &size}
		for {
			out := search(t, s, in)
			got = append(got, lines(out.Points)...)
			if in.NextToken = out.NextToken; in.NextToken == nil {
				break
			}
			if len(out.Points) != int(size) {
				t.Fatalf("a page of %d", len(out.Points))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pages of %d: %s", size, diff)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "2026-11-2[2-5].db")); len(files) != 4 {
		t.Errorf("files %q", files)
	}
	last, err := s.GetLastTelemetry(context.Background(), &flotilla.GetLastTelemetryRequest{Dimensions: map[string]string{"thing": "p1"}})
	if err != nil || len(last.Points) != 1 || *last.Points[0].Value != "4" {
		t.Errorf("last %v %v", last, err)
	}
	tables, err := s.ListTelemetryTables(context.Background(), nil)
	wantTables := []*flotilla.TelemetryTable{{Database: new("factory"), Table: new("pumps"), Measures: []string{"m"}, FirstDay: new("2026-11-22"), LastDay: new("2026-11-25")}}
	if err != nil || !cmp.Equal(wantTables, tables.Tables) {
		t.Errorf("%v %s", err, cmp.Diff(wantTables, tables.Tables))
	}
}

func TestAggregates(t *testing.T) {
	s := open(t, t.TempDir(), live.Config{})
	midnight := noon.Truncate(24 * time.Hour)
	for i := 1; i <= 100; i++ { // half of them yesterday, one a second
		write(t, s, point("p1", "m", midnight.Add(time.Duration(i-51)*time.Second), int64(i), 1))
	}
	write(t, s, point("p1", "text", noon, "x", 1))
	for aggregate, want := range map[string]string{
		"avg": "DOUBLE 50.5", "min": "DOUBLE 1", "max": "DOUBLE 100", "sum": "DOUBLE 5050", "count": "BIGINT 100", "last": "BIGINT 100", "p95": "DOUBLE 95",
	} {
		out := search(t, s, flotilla.SearchTelemetryRequest{Aggregate: &aggregate, Measure: new("m")})
		if len(out.Points) != 1 || *out.Points[0].Type+" "+*out.Points[0].Value != want || *out.Points[0].Count != 100 {
			t.Errorf("%s: %q, want %s", aggregate, lines(out.Points), want)
		}
	}
	out := search(t, s, flotilla.SearchTelemetryRequest{Aggregate: new("sum"), BucketSeconds: new(int64(60))})
	if diff := cmp.Diff([]string{"m 24T23:59:00 DOUBLE 1275", "m 25T00:00:00 DOUBLE 3775"}, lines(out.Points)); diff != "" {
		t.Error(diff)
	}
	for name, in := range map[string]*flotilla.SearchTelemetryRequest{
		"dimensions": {}, "aggregate": {Dimensions: map[string]string{"a": "b"}, Aggregate: new("median")},
		"bucketSeconds": {Dimensions: map[string]string{"a": "b"}, BucketSeconds: new(int64(1))},
		"since":         {Dimensions: map[string]string{"a": "b"}, Since: new(int64(2)), Until: new(int64(1))},
		"nextToken":     {Dimensions: map[string]string{"a": "b"}, NextToken: new("x")},
	} {
		_, err := s.SearchTelemetry(context.Background(), in)
		if _, ok := errors.AsType[*flotilla.InvalidRequestException](err); !ok || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRejected(t *testing.T) {
	s := open(t, t.TempDir(), live.Config{KeepDays: 2})
	for name, change := range map[string]func(*live.Point){
		"databaseName":  func(p *live.Point) { p.Database = "a/b" },
		"tableName":     func(p *live.Point) { p.Table = "t" },
		"measure":       func(p *live.Point) { p.Measure = "" },
		"dimensions":    func(p *live.Point) { p.Dimensions = nil },
		"twice":         func(p *live.Point) { p.Dimensions = []live.Dimension{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}} },
		"name of a dim": func(p *live.Point) { p.Dimensions = []live.Dimension{{Name: "Time", Value: "1"}} },
		"the dimension": func(p *live.Point) { p.Dimensions = []live.Dimension{{Name: "a"}} },
		"VARCHAR":       func(p *live.Point) { p.Value = strings.Repeat("x", 2049) },
		"time range":    func(p *live.Point) { p.Time = noon.AddDate(0, 0, -2).UnixNano() },
		"ingestion":     func(p *live.Point) { p.Time = noon.Add(16 * time.Minute).UnixNano() },
	} {
		p := point("p1", "m", noon, int64(1), 1)
		change(&p)
		if err := s.Check(&p); !errors.Is(err, live.ErrRejected) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRetention(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, live.Config{})
	for d := range 10 {
		write(t, s, point("p1", "m", noon.AddDate(0, 0, -d), int64(d), 1))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, live.Config{KeepDays: 3})
	if got := lines(search(t, s, flotilla.SearchTelemetryRequest{}).Points); len(got) != 3 || got[0] != "m 23T12:00:00 BIGINT 2" {
		t.Errorf("%q", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// Today is never dropped: what does not fit is not taken, and reads go on.
	s = open(t, dir, live.Config{MaxBytes: 1})
	if got := lines(search(t, s, flotilla.SearchTelemetryRequest{}).Points); len(got) != 1 {
		t.Errorf("%q", got)
	}
	if err := s.Write(context.Background(), []live.Point{point("p1", "m", noon, int64(1), 2)}); !errors.Is(err, live.ErrFull) {
		t.Errorf("full: %v", err)
	}
}

// A damaged day costs its own points alone, and takes new ones.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, live.Config{})
	write(t, s, point("p1", "m", noon, int64(1), 1), point("p1", "m", noon.AddDate(0, 0, -1), int64(2), 1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "2026-11-25.db")
	if err := os.WriteFile(file, []byte(strings.Repeat("this is no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, live.Config{})
	if got := lines(search(t, s, flotilla.SearchTelemetryRequest{}).Points); len(got) != 1 {
		t.Errorf("%q", got)
	}
	if aside, _ := filepath.Glob(file + ".damaged-*"); len(aside) == 0 {
		t.Error("nothing was set aside")
	}
	write(t, s, point("p1", "m", noon, int64(3), 1))
	if got := lines(search(t, s, flotilla.SearchTelemetryRequest{}).Points); len(got) != 2 {
		t.Errorf("%q", got)
	}
}

func TestConcurrent(t *testing.T) {
	s := open(t, t.TempDir(), live.Config{})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 20 {
				at := noon.AddDate(0, 0, -i%12).Add(-time.Duration(i) * time.Second)
				if err := s.Write(context.Background(), []live.Point{point("p"+strconv.Itoa(w), "m", at, int64(i), 1)}); err != nil {
					t.Error(err)
				}
				search(t, s, flotilla.SearchTelemetryRequest{Dimensions: map[string]string{"site": "a"}})
			}
		})
	}
	wg.Wait()
	if got := search(t, s, flotilla.SearchTelemetryRequest{Dimensions: map[string]string{"site": "a"}}); len(got.Points) != 160 {
		t.Errorf("%d points", len(got.Points))
	}
}

// What Write has acknowledged is there after kill -9, once.
func TestKill(t *testing.T) {
	if dir := os.Getenv("FLOTILLA_LIVE_WRITER"); dir != "" {
		s := open(t, dir, live.Config{})
		for i := 0; ; i++ {
			write(t, s, point("p1", "m", noon.Add(-time.Duration(i)*time.Millisecond), int64(i), int64(i)))
			fmt.Println("written", i)
		}
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKill$")
	cmd.Env = append(os.Environ(), "FLOTILLA_LIVE_WRITER="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	written := -1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, ok := strings.CutPrefix(lines.Text(), "written "); ok {
			written, _ = strconv.Atoi(n)
		}
		if written == 200 {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	if written < 200 {
		t.Fatalf("the writer ended after %d", written)
	}
	s := open(t, dir, live.Config{})
	for range 2 { // as after a crash: the same again
		for i := range written + 1 {
			if i%50 == 0 {
				write(t, s, point("p1", "m", noon.Add(-time.Duration(i)*time.Millisecond), int64(i), int64(i)))
			}
		}
		got := search(t, s, flotilla.SearchTelemetryRequest{MaxResults: new(int32(10_000))}).Points
		if len(got) < written+1 || len(got) > written+2 {
			t.Errorf("%d points of %d that were acknowledged", len(got), written+1)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	s := open(b, b.TempDir(), live.Config{})
	const batch = 2000
	points := make([]live.Point, batch)
	n := 0
	for b.Loop() {
		for i := range points {
			points[i] = point("p"+strconv.Itoa(i%1000), "m", noon.Add(-time.Duration(n+i/1000)*time.Millisecond), float64(n)+0.5, int64(n+i))
		}
		n += batch / 1000
		write(b, s, points...)
	}
	b.ReportMetric(float64(batch)*float64(b.N)/b.Elapsed().Seconds(), "points/s")
}
