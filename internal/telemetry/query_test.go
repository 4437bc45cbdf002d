package telemetry_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/telemetry"
)

// result is what a query gives, a line a row.
func result(t testing.TB, dir string, q telemetry.Query) string {
	t.Helper()
	q.Stream = "s"
	var out strings.Builder
	line := func(values []any) error {
		for i, v := range values {
			if at, ok := v.(time.Time); ok {
				v = at.Format(time.RFC3339Nano)
			}
			fmt.Fprint(&out, strings.Repeat(" ", min(i, 1)), v)
		}
		out.WriteByte('\n')
		return nil
	}
	err := q.Run(t.Context(), dir, func(columns []string) error {
		_, err := fmt.Fprintln(&out, strings.Join(columns, " "))
		return err
	}, line)
	if err != nil {
		return err.Error()
	}
	return out.String()
}

func filled(t *testing.T, format string, compacted bool) string {
	a, dir := open(t, format)
	write(t, a, rowsOf(1, `{"site":"a","temp":20,"o":{"x":1}}`, `{"site":"b","temp":21.5}`))
	write(t, a, rowsOf(3, `{"site":"a","temp":30}`, `{"site":null,"temp":-1,"ok":true}`, `"text"`))
	late := rowsOf(6, `{"site":"b","temp":5,"name":"it's"}`)
	late[0].Received = day.Add(time.Hour)
	write(t, a, late)
	if compacted {
		if _, err := a.Compact(t.Context(), "", now); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestQuery(t *testing.T) {
	type q = telemetry.Query
	tests := []struct {
		q    q
		want string
	}{
		{q{Select: []string{"site", "temp", "o.x"}}, "site temp o.x\na 20 1\nb 21.5 <nil>\na 30 <nil>\n<nil> -1 <nil>\n<nil> <nil> <nil>\nb 5 <nil>\n"},
		{q{Select: []string{"flotilla_id"}, Where: "temp > 20 AND site = 'a' OR ok"}, "query: filter, character 31: the end, where there should be a comparison"},
		{q{Select: []string{"flotilla_id"}, Where: "temp > 20 and site = 'a' or ok = true"}, "flotilla_id\n3\n4\n"},
		{q{Select: []string{"flotilla_id"}, Where: "NOT (temp > 20)"}, "flotilla_id\n1\n4\n6\n"},
		{q{Select: []string{"flotilla_id"}, Where: "site IS NULL"}, "flotilla_id\n4\n5\n"},
		{q{Select: []string{"flotilla_id"}, Where: "site IN ('b', 'c') AND temp BETWEEN 1"}, "query: filter, character 29: BETWEEN, where there should be a comparison"},
		{q{Select: []string{"flotilla_id"}, Where: `"site" NOT IN ('b', 'c')`}, "flotilla_id\n1\n3\n"},
		{q{Select: []string{"flotilla_id"}, Where: "flotilla_value LIKE '%ex_' OR name = 'it''s'"}, "flotilla_id\n5\n6\n"},
		{q{Select: []string{"flotilla_id"}, Where: "temp <= -1e0"}, "flotilla_id\n4\n"},
		{q{Select: []string{"flotilla_id"}, Since: day.Add(time.Minute)}, "flotilla_id\n6\n"},
		{q{Select: []string{"flotilla_id", "flotilla_received"}, Until: day.Add(time.Millisecond), Limit: 1}, "flotilla_id flotilla_received\n1 2026-11-24T23:59:59.5Z\n"},
		{q{Aggregates: []string{"count", "avg(temp)", "sum:temp", "min:temp", "max:temp", "count:site"}}, "count avg(temp) sum:temp min:temp max:temp count:site\n6 15.1 75.5 -1 30 4\n"},
		{q{Aggregates: []string{"avg:temp"}, By: []string{"site"}}, "site avg:temp\n<nil> -1\na 25\nb 13.25\n"},
		{q{By: []string{"site"}, Every: time.Hour}, "flotilla_received site count\n2026-11-24T23:00:00Z <nil> 2\n2026-11-24T23:00:00Z a 2\n2026-11-24T23:00:00Z b 1\n2026-11-25T00:00:00Z b 1\n"},
		{q{Aggregates: []string{"sum:site"}, Where: "temp > 1000"}, "sum:site\n<nil>\n"},
		{q{Aggregates: []string{"sum:none"}, Since: day.Add(24 * time.Hour)}, "sum:none\n<nil>\n"},
		{q{Aggregates: []string{"median:temp"}}, `query: the aggregate "median:temp" is not count, count:COLUMN, sum:COLUMN, avg:COLUMN, min:COLUMN or max:COLUMN`},
		{q{Where: "temp > 29"}, "flotilla_id flotilla_part flotilla_rule flotilla_topic flotilla_client_id flotilla_received flotilla_value name o.x ok site temp\n" +
			"3 0 r t/1 c 2026-11-24T23:59:59.5Z <nil> <nil> <nil> <nil> a 30\n"},
		{q{Where: "a = 'x"}, "query: filter, character 5: the end, where there should be a closing quote"},
		{q{Where: strings.Repeat("(", 200)}, "query: filter, character 101: (, where there should be less depth"},
	}
	for _, format := range []string{telemetry.Parquet, telemetry.JSONLines} {
		for _, compacted := range []bool{false, true} {
			dir := filled(t, format, compacted)
			for _, tt := range tests {
				if diff := cmp.Diff(tt.want, result(t, dir, tt.q)); diff != "" {
					t.Errorf("%s, compacted %t: %+v: %s", format, compacted, tt.q, diff)
				}
			}
		}
	}
	for _, stream := range []string{"none", "../s", ""} {
		if err := (q{Stream: stream}).Run(t.Context(), t.TempDir(), nil, nil); err == nil {
			t.Errorf("stream %q was found", stream)
		}
	}
}

func TestListAndVerify(t *testing.T) {
	dir := filled(t, "", true)
	var found []telemetry.Partition
	err := telemetry.List(t.Context(), dir, "s", func(p telemetry.Partition) error {
		p.Bytes = 0
		found = append(found, p)
		return nil
	})
	want := []telemetry.Partition{
		{Directory: "s/year=2026/month=11/day=24", Files: 1, Rows: 5, Compacted: true, First: day, Last: day},
		{Directory: "s/year=2026/month=11/day=25", Files: 1, Rows: 1, First: day.Add(time.Hour), Last: day.Add(time.Hour)},
	}
	if diff := cmp.Diff(want, found); diff != "" || err != nil {
		t.Error(diff, err)
	}
	verify := func() telemetry.Verified {
		t.Helper()
		v, err := telemetry.Verify(t.Context(), dir, "")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if diff := cmp.Diff(telemetry.Verified{Files: 2, Rows: 6, Problems: []string{}}, verify()); diff != "" {
		t.Error(diff)
	}
	files, _ := count(t, dir)
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(filepath.Dir(files[0]), "0000000000000007-0000000000000002-0000000000000002.parquet")
	if err := os.WriteFile(copied, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if v := verify(); len(v.Problems) != 1 || !strings.HasSuffix(v.Problems[0], "4 rows that its name does not cover") && !strings.Contains(v.Problems[0], "that its name does not cover") {
		t.Errorf("%v", v.Problems)
	}
	if err := os.WriteFile(files[0], b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(copied); err != nil {
		t.Fatal(err)
	}
	if v := verify(); len(v.Problems) != 1 {
		t.Errorf("%v", v.Problems)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if v := verify(); len(v.Problems) != 1 || !strings.HasSuffix(v.Problems[0], "is in the manifest, but not there") {
		t.Errorf("%v", v.Problems)
	}
}

// No filter makes the parser fail otherwise than with a sentence.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"a > 1", `"x y" LIKE '%''' AND NOT (b IN (1, 'c', NULL) OR c IS NOT NULL)`, "a <> -1.5e-7", "((("} {
		f.Add(s)
	}
	a, dir := open(f, "")
	write(f, a, rowsOf(1, `{"a":1,"b":"x","c":true}`))
	f.Fuzz(func(t *testing.T, where string) {
		q := telemetry.Query{Stream: "s", Select: []string{"a"}, Where: where}
		nothing := func([]any) error { return nil }
		err := q.Run(t.Context(), dir, func([]string) error { return nil }, nothing)
		if err != nil && !errors.Is(err, telemetry.ErrQuery) {
			t.Errorf("%q: %v", where, err)
		}
	})
}
