package telemetry_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"

	"flotilla/internal/telemetry"
)

var day = time.Date(2026, 11, 24, 23, 59, 59, 500e6, time.UTC)

func open(t testing.TB, format string) (*telemetry.Archive, string) {
	t.Helper()
	dir := t.TempDir()
	a, err := telemetry.OpenArchive(dir, format)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a, dir
}

func rowsOf(first int64, payloads ...string) (rows []telemetry.Row) {
	for i, p := range payloads {
		rows = append(rows, telemetry.Row{ID: first + int64(i), Rule: "r", Topic: "t/1", ClientID: "c", Received: day, Payload: []byte(p)})
	}
	return rows
}

func write(t testing.TB, a *telemetry.Archive, rows []telemetry.Row) []string {
	t.Helper()
	files, err := a.Write(t.Context(), "s", 7, rows)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// read gives the rows of a file as a reader of Parquet sees them, nulls left out,
// and the types of its columns.
func read(t testing.TB, name string) (rows []map[string]any, types map[string]string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	pf, err := parquet.OpenFile(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	types = map[string]string{}
	columns := pf.Schema().Columns()
	for _, c := range columns {
		leaf, _ := pf.Schema().Lookup(c...)
		types[strings.Join(c, "/")] = leaf.Node.Type().String()
	}
	for _, g := range pf.RowGroups() {
		r := g.Rows()
		buf := make([]parquet.Row, 16)
		for {
			n, err := r.ReadRows(buf)
			for _, row := range buf[:n] {
				m := map[string]any{}
				for _, v := range row {
					if !v.IsNull() {
						m[strings.Join(columns[v.Column()], "/")] = plain(v)
					}
				}
				rows = append(rows, m)
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return rows, types
}

func plain(v parquet.Value) any {
	switch v.Kind() {
	case parquet.Boolean:
		return v.Boolean()
	case parquet.Int32:
		return int64(v.Int32())
	case parquet.Int64:
		return v.Int64()
	case parquet.Double:
		return v.Double()
	}
	return string(v.ByteArray())
}

// own takes the columns that describe the message out of rows.
func own(rows []map[string]any) (described []map[string]any) {
	for _, r := range rows {
		d := map[string]any{}
		for _, k := range []string{"id", "part", "rule", "topic", "client_id", "received"} {
			if v, ok := r["flotilla_"+k]; ok {
				d[k] = v
				delete(r, "flotilla_"+k)
			}
		}
		described = append(described, d)
	}
	return described
}

func TestParquetColumns(t *testing.T) {
	a, dir := open(t, "")
	files := write(t, a, rowsOf(
		100,
		`{"n":1,"f":1,"b":true,"s":"x","mix":1,"big":9007199254740993,"o":{"a":1,"p":{"q":"deep"}},"list":[1, "a"],"null":null}`,
		`{"n":-2,"f":1.5,"b":false,"s":"y","mix":true,"big":0.5,"o":{"a":2,"e":{}}}`,
		`{"a.b":1,"a":{"b":2},"flotilla_id":3,"":4,"dup":1,"dup":2,"huge":123456789012345678901234567890}`,
		`[1,2]`,
		`"text"`,
		"\x00\x01binary",
		`{"n":1} trailing`,
		``,
	))
	if diff := cmp.Diff([]string{"s/year=2026/month=11/day=24/0000000000000007-0000000000000064-000000000000006b.parquet"}, files); diff != "" {
		t.Fatal(diff)
	}
	rows, types := read(t, filepath.Join(dir, files[0]))
	described := own(rows)
	want := []map[string]any{
		{"n": int64(1), "f": 1.0, "b": true, "s": "x", "mix": "1", "big": "9007199254740993", "o.a": int64(1), "o.p.q": "deep", "list": `[1, "a"]`},
		{"n": int64(-2), "f": 1.5, "b": false, "s": "y", "mix": "true", "big": "0.5", "o.a": int64(2), "o.e": "{}"},
		{"a%2Eb": int64(1), "a.b": int64(2), "%flotilla_id": int64(3), "%": int64(4), "dup": int64(2), "huge": "123456789012345678901234567890"},
		{"flotilla_value": "[1,2]"},
		{"flotilla_value": "text"},
		{"flotilla_payload": "\x00\x01binary"},
		{"flotilla_payload": `{"n":1} trailing`},
		{"flotilla_payload": ""},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Error(diff)
	}
	for i, d := range described {
		if diff := cmp.Diff(map[string]any{"id": int64(100 + i), "part": int64(0), "rule": "r", "topic": "t/1", "client_id": "c", "received": day.UnixMilli()}, d); diff != "" {
			t.Error(diff)
		}
	}
	for column, want := range map[string]string{"n": "INT(64,true)", "f": "DOUBLE", "b": "BOOLEAN", "s": "STRING", "big": "STRING", "flotilla_received": "TIMESTAMP(isAdjustedToUTC=true,unit=MILLIS)"} {
		if types[column] != want {
			t.Errorf("column %s has the type %s, want %s", column, types[column], want)
		}
	}
	if found, n, err := telemetry.CountRows(dir); err != nil || n != 8 || len(found) != 1 {
		t.Errorf("counted %d in %v, %v", n, found, err)
	}
}

// A message with more members than a file has columns loses none of them.
func TestManyColumns(t *testing.T) {
	a, dir := open(t, "")
	members := make([]string, 1200)
	for i := range members {
		members[i] = fmt.Sprintf(`"m%04d":%d`, i, i)
	}
	files := write(t, a, rowsOf(1, "{"+strings.Join(members, ",")+"}"))
	rows, _ := read(t, filepath.Join(dir, files[0]))
	var rest map[string]int
	if err := json.Unmarshal([]byte(rows[0]["flotilla_rest"].(string)), &rest); err != nil {
		t.Fatal(err)
	}
	if rows[0]["m0999"] != int64(999) || rest["m1199"] != 1199 || len(rest) != 200 {
		t.Errorf("rest has %d members", len(rest))
	}
}

// A member with a long name is kept whole: its name is not repeated for what it holds.
func TestLongNames(t *testing.T) {
	a, dir := open(t, "")
	long := strings.Repeat("x", 20_000)
	members := make([]string, 1000)
	for i := range members {
		members[i] = fmt.Sprintf(`"m%04d":%d`, i, i)
	}
	files := write(t, a, rowsOf(1, `{"`+long+`":{`+strings.Join(members, ",")+`},"short":1}`))
	rows, _ := read(t, filepath.Join(dir, files[0]))
	var rest map[string]map[string]int
	if err := json.Unmarshal([]byte(rows[0]["flotilla_rest"].(string)), &rest); err != nil {
		t.Fatal(err)
	}
	if rows[0]["short"] != int64(1) || len(rest[long]) != len(members) {
		t.Errorf("rest has %d members", len(rest[long]))
	}
	if info, err := os.Stat(filepath.Join(dir, files[0])); err != nil || info.Size() > 200_000 {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
}

// A batch that is written again after a crash adds what is missing, and only that.
func TestRepeatedBatch(t *testing.T) {
	for _, format := range []string{telemetry.Parquet, telemetry.JSONLines} {
		t.Run(format, func(t *testing.T) {
			a, dir := open(t, format)
			rows := rowsOf(1, `{"i":1}`, `{"i":2}`, `{"i":3}`, `{"i":4}`)
			rows[2].ID, rows[2].Part = 2, 1 // two rows of one message
			write(t, a, rows[:2])
			if files := write(t, a, slices.Clone(rows)); len(files) != 1 {
				t.Errorf("files %v", files)
			}
			if files := write(t, a, slices.Clone(rows)); len(files) != 0 {
				t.Errorf("nothing was missing, but %v", files)
			}
			if _, n, err := telemetry.CountRows(dir); err != nil || n != 4 {
				t.Errorf("%d rows, want 4, %v", n, err)
			}
			// Another source with the same ids is another matter.
			if files, err := a.Write(t.Context(), "s", 8, rows[:1]); err != nil || len(files) != 1 {
				t.Errorf("%v, %v", files, err)
			}
		})
	}
}

func TestPartitions(t *testing.T) {
	a, dir := open(t, "")
	rows := rowsOf(1, `{"i":1}`, `{"i":2}`)
	rows[1].Received = day.Add(time.Second)
	want := []string{"s/year=2026/month=11/day=24/", "s/year=2026/month=11/day=25/"}
	for i, f := range write(t, a, rows) {
		if !strings.HasPrefix(f, want[i]) {
			t.Errorf("file %s, want it in %s", f, want[i])
		}
	}
	if _, n, err := telemetry.CountRows(filepath.Join(dir, "s")); err != nil || n != 2 {
		t.Errorf("%d rows, %v", n, err)
	}
	if files, n, err := telemetry.CountRows(filepath.Join(dir, "none")); files != nil || n != 0 || err != nil {
		t.Errorf("%v, %d, %v", files, n, err)
	}
}

func TestJSONLines(t *testing.T) {
	a, dir := open(t, telemetry.JSONLines)
	rows := rowsOf(5, `{"a": 1, "flotilla_id": 9}`, `[1]`, "\xff", "{}")
	files := write(t, a, rows)
	b, err := os.ReadFile(filepath.Join(dir, files[0]))
	if err != nil {
		t.Fatal(err)
	}
	ms := fmt.Sprint(day.UnixMilli())
	head := func(id string) string {
		return `{"flotilla_id":` + id + `,"flotilla_rule":"r","flotilla_topic":"t/1","flotilla_client_id":"c","flotilla_received":` + ms
	}
	want := []string{head("5") + `,"a":1,"flotilla_id":9}`, head("6") + `,"flotilla_value":[1]}`, head("7") + `,"flotilla_payload":"/w=="}`, head("8") + `}`}
	var got []string
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		got = append(got, s.Text())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if files := write(t, a, rows); len(files) != 0 {
		t.Errorf("repeated: %v", files)
	}
}

// Rows end with the separator, and are found whatever they hold of it, in merged files too.
func TestSeparators(t *testing.T) {
	for _, separator := range []string{"\n", "\t", "\r\n", ","} {
		t.Run(fmt.Sprintf("%q", separator), func(t *testing.T) {
			plain, dir := open(t, telemetry.JSONLines)
			a := plain.Separated(separator)
			payloads := []string{
				`{"a":"x,{\\"y","b":[1,{"c":"}"}]}`, "{\"a\":\t1}", `"text, with \t and \n"`, "\xff,\n\t", `{}`,
				`{"long":"` + strings.Repeat(`,}\\`, 50_000) + `"}`,
			}
			rows := rowsOf(1, payloads...)
			files := write(t, a, slices.Clone(rows))
			b, err := os.ReadFile(filepath.Join(dir, files[0]))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasSuffix(b, []byte("}"+separator)) || !bytes.Contains(b, []byte("}"+separator+`{"flotilla_id":2,`)) {
				t.Errorf("the file begins with %.100q", b)
			}
			if again := write(t, a, slices.Clone(rows)); len(again) != 0 {
				t.Errorf("written again: %v", again)
			}
			write(t, plain, rowsOf(7, `{"a":7}`)) // the separator was another one later
			write(t, a.Separated(","), rowsOf(8, `{"a":8}`, `{"a":9}`))
			if done, err := a.Compact(t.Context(), "", now); err != nil || done.Rows != 9 {
				t.Errorf("%+v, %v", done, err)
			}
			merged, n := count(t, dir)
			if n != 9 || len(merged) != 1 {
				t.Fatalf("%d rows in %v", n, merged)
			}
			if b, err = os.ReadFile(merged[0]); err != nil || bytes.Count(b, []byte("}"+separator+`{"flotilla_id"`)) != 8 {
				t.Errorf("the merged file has %d separators, %v", bytes.Count(b, []byte("}"+separator+`{"flotilla_id"`)), err)
			}
			if v, err := telemetry.Verify(t.Context(), dir, ""); err != nil || len(v.Problems) > 0 || v.Rows != 9 {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
}

func TestStreamNames(t *testing.T) {
	a, _ := open(t, "")
	for _, name := range []string{"", ".", "..", "../x", "a/b", ".hidden", strings.Repeat("x", 65), "a b"} {
		if _, err := a.Write(t.Context(), name, 1, rowsOf(1, "{}")); !errors.Is(err, telemetry.ErrStreamName) {
			t.Errorf("stream %q: %v", name, err)
		}
	}
	if _, err := telemetry.OpenArchive(t.TempDir(), "csv"); err == nil {
		t.Error("format csv was accepted")
	}
}

// Whatever devices send can be archived, and is found again.
func FuzzWrite(f *testing.F) {
	for _, s := range []string{`{"a":{"b":{"c":{"d":{"e":1}}}}}`, `{"a":1e400}`, `{"":{"":null}}`, `{"\ud800":"\ud800"}`, `[`, `1`, "\xff", `{"a":1,"a":"x"}`, `{"a":-0,"b":1E5}`} {
		f.Add([]byte(s), []byte(`{"a":true}`))
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		for _, format := range []string{telemetry.Parquet, telemetry.JSONLines} {
			a, dir := open(t, format)
			rows := rowsOf(1, string(one), string(two))
			write(t, a, rows)
			if files := write(t, a, rows); len(files) != 0 {
				t.Errorf("%s: rows were not found again", format)
			}
			if _, n, err := telemetry.CountRows(dir); err != nil || n != 2 {
				t.Errorf("%s: %d rows, %v", format, n, err)
			}
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	const n = 50_000
	rows := make([]telemetry.Row, n)
	for i := range rows {
		rows[i] = telemetry.Row{
			ID: int64(i), Rule: "r", Topic: fmt.Sprintf("telemetry/run/thing-%d", i%500), ClientID: fmt.Sprintf("thing-%d", i%500), Received: day,
			Payload: fmt.Appendf(nil, `{"sequence":%d,"temperature":%d.%d,"humidity":%d,"battery":{"volts":3.%d,"charging":%t},"firmware":"1.2.%d","thing":"thing-%d","receivedAt":%d}`,
				i, 20+i%70, i%10, i%100, i%100, i%2 == 0, i%5, i%500, 1764000000000+i),
		}
	}
	for _, format := range []string{telemetry.Parquet, telemetry.JSONLines} {
		b.Run(format, func(b *testing.B) {
			a, _ := open(b, format)
			for source := int64(0); b.Loop(); source++ {
				if _, err := a.Write(b.Context(), "s", source, rows); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
