package telemetry_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/telemetry"
)

var now = telemetry.Compaction{Quiet: -1}

func count(t testing.TB, dir string) (files []string, rows int) {
	t.Helper()
	files, rows, err := telemetry.CountRows(dir)
	if err != nil {
		t.Fatal(err)
	}
	return files, rows
}

// Small files become one, whose columns are those of all, and nothing changes in
// value; another source keeps its own file.
func TestCompact(t *testing.T) {
	a, dir := open(t, "")
	write(t, a, rowsOf(1, `{"n":1,"b":true,"big":9007199254740993}`, `{"only":"first"}`))
	write(t, a, rowsOf(3, `{"n":1.5,"b":7,"big":0.5}`, "\xff"))
	write(t, a, rowsOf(5, `{"n":-3}`))
	if _, err := a.Write(t.Context(), "s", 8, rowsOf(1, `{"other":1}`)); err != nil {
		t.Fatal(err)
	}
	done, err := a.Compact(t.Context(), "", now)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(telemetry.Compacted{Partitions: 1, Removed: 3, Written: 1, Rows: 5}, done); diff != "" {
		t.Error(diff)
	}
	files, n := count(t, dir)
	if n != 6 || len(files) != 2 {
		t.Fatalf("%d rows in %v", n, files)
	}
	rows, types := read(t, files[0])
	own(rows)
	want := []map[string]any{
		{"n": 1.0, "b": "true", "big": "9007199254740993"},
		{"only": "first"},
		{"n": 1.5, "b": "7", "big": "0.5"},
		{"flotilla_payload": "\xff"},
		{"n": -3.0},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Error(diff)
	}
	if types["n"] != "DOUBLE" || types["big"] != "STRING" {
		t.Errorf("types %v", types)
	}
	// Rows that are written again are known in the merged file too.
	if again := write(t, a, rowsOf(1, `{}`, `{}`, `{}`, `{}`, `{}`)); len(again) != 0 {
		t.Errorf("wrote %v again", again)
	}
	// A late row makes a file of its own; the next compaction takes it in.
	write(t, a, rowsOf(9, `{"late":1}`))
	if _, err := a.Compact(t.Context(), "s", now); err != nil {
		t.Fatal(err)
	}
	if files, n := count(t, dir); n != 7 || len(files) != 2 {
		t.Errorf("%d rows in %v", n, files)
	}
	if done, err := a.Compact(t.Context(), "s", now); err != nil || done != (telemetry.Compacted{}) {
		t.Errorf("nothing is left to do, but %+v, %v", done, err)
	}
	checkManifest(t, filepath.Dir(files[0]), 2, 7)
}

func checkManifest(t *testing.T, dir string, files int, rows int64) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, telemetry.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	var m telemetry.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	for _, f := range m.Files {
		n += f.Rows
		if info, err := os.Stat(filepath.Join(dir, f.Name)); err != nil || info.Size() != f.Bytes || !f.First.Equal(day) || !f.Last.Equal(day) || f.Columns["flotilla_id"] != "BIGINT" {
			t.Errorf("%+v, %v", f, err)
		}
	}
	if len(m.Files) != files || n != rows || len(m.Replaced) != 0 {
		t.Errorf("manifest %+v", m)
	}
}

func TestCompactLines(t *testing.T) {
	a, dir := open(t, telemetry.JSONLines)
	for i := range 5 {
		write(t, a, rowsOf(int64(i+1), fmt.Sprintf(`{"i":%d,"flotilla_id":77}`, i)))
	}
	if done, err := a.Compact(t.Context(), "", now); err != nil || done.Rows != 5 {
		t.Fatalf("%+v, %v", done, err)
	}
	if files, n := count(t, dir); n != 5 || len(files) != 1 {
		t.Errorf("%d rows in %v", n, files)
	}
}

// A partition that got a file a moment ago is left alone, and so are large files.
func TestCompactLeavesAlone(t *testing.T) {
	a, dir := open(t, "")
	write(t, a, rowsOf(1, `{}`))
	write(t, a, rowsOf(2, `{}`))
	for _, c := range []telemetry.Compaction{{}, {Quiet: -1, FileBytes: 100}} {
		if done, err := a.Compact(t.Context(), "", c); err != nil || done.Written != 0 {
			t.Errorf("%+v: %+v, %v", c, done, err)
		}
	}
	if files, _ := count(t, dir); len(files) != 2 {
		t.Errorf("files %v", files)
	}
}

// Whatever a crash leaves of a compaction, each row counts once and the next
// compaction clears it away.
func TestCompactCrash(t *testing.T) {
	a, dir := open(t, "")
	for i := range 4 {
		write(t, a, rowsOf(int64(i+1), fmt.Sprintf(`{"i":%d}`, i)))
	}
	before, _ := count(t, dir)
	keep := map[string][]byte{}
	for _, f := range before {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		keep[f] = b
	}
	if _, err := a.Compact(t.Context(), "", now); err != nil {
		t.Fatal(err)
	}
	after, _ := count(t, dir)
	part := filepath.Dir(after[0])
	manifest := filepath.Join(part, telemetry.ManifestName)
	b, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	var done telemetry.Manifest
	if err := json.Unmarshal(b, &done); err != nil {
		t.Fatal(err)
	}
	set := func(m telemetry.Manifest) {
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(manifest, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for f, b := range keep {
			if err := os.WriteFile(f, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	var names []string
	for f := range keep {
		names = append(names, filepath.Base(f))
	}
	check := func(what string) {
		t.Helper()
		if _, n := count(t, dir); n != 4 {
			t.Errorf("%s: %d rows", what, n)
		}
		if files := write(t, a, rowsOf(1, `{}`, `{}`, `{}`, `{}`)); len(files) != 0 {
			t.Errorf("%s: wrote %v again", what, files)
		}
		if _, err := a.Compact(t.Context(), "", now); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if files, n := count(t, dir); n != 4 || len(files) != 1 {
			t.Errorf("%s: after another compaction %d rows in %v", what, n, files)
		}
		entries, err := filepath.Glob(filepath.Join(part, "*.parquet"))
		if err != nil || len(entries) != 1 {
			t.Errorf("%s: on the disk: %v, %v", what, entries, err)
		}
	}
	set(telemetry.Manifest{Version: 1, Generation: 1}) // the merged file is there, the manifest does not know it
	check("before the manifest")
	if b, err = os.ReadFile(manifest); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &done); err != nil {
		t.Fatal(err)
	}
	done.Replaced = names
	set(done) // the manifest knows it, the old ones are there
	check("before the removal")
}

// Writers and readers see each row once while files are merged under them.
func TestCompactUnderLoad(t *testing.T) {
	a, dir := open(t, "")
	const n = 60
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := a.Compact(t.Context(), "s", now); err != nil {
				t.Errorf("compact: %v", err)
				return
			}
		}
	})
	for i := range n {
		rows := rowsOf(int64(i+1), `{"i":1}`)
		write(t, a, slices.Clone(rows))
		if again := write(t, a, rows); len(again) != 0 {
			t.Errorf("row %d was written twice", i+1)
		}
		if _, rows := count(t, dir); rows != i+1 {
			t.Errorf("%d rows, want %d", rows, i+1)
		}
	}
	close(stop)
	wg.Wait()
}

func TestExpire(t *testing.T) {
	a, dir := open(t, "")
	rows := rowsOf(1, `{}`, `{}`, `{}`)
	write(t, a, rows[:1])
	write(t, a, rows[1:2])
	if _, err := a.Compact(t.Context(), "", now); err != nil {
		t.Fatal(err)
	}
	rows[2].Received = day.Add(48 * time.Hour)
	write(t, a, rows[2:])
	if done, err := a.Expire(t.Context(), "", day, 0); err != nil || done.Removed != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	if done, err := a.Expire(t.Context(), "", day.Add(time.Minute), 0); err != nil || done.Removed != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	if _, n := count(t, dir); n != 1 {
		t.Errorf("%d rows", n)
	}
	if done, err := a.Expire(t.Context(), "s", time.Time{}, 1); err != nil || done.Removed != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	if _, n := count(t, dir); n != 0 {
		t.Errorf("%d rows", n)
	}
}

func TestOneCompactor(t *testing.T) {
	a, dir := open(t, "")
	lock, err := os.OpenFile(filepath.Join(dir, ".compaction"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	flock(t, lock)
	if _, err := a.Compact(t.Context(), "", now); !errors.Is(err, telemetry.ErrCompacting) {
		t.Errorf("%v", err)
	}
}

func flock(t *testing.T, f *os.File) {
	t.Helper()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
}

// Files of different columns become no file that is wider than one of messages.
func TestCompactWide(t *testing.T) {
	a, dir := open(t, "")
	for i := range 4 {
		members := make([]string, 600)
		for j := range members {
			members[j] = fmt.Sprintf(`"c%d_%d":%d`, i, j, j)
		}
		write(t, a, rowsOf(int64(1+i), "{"+strings.Join(members, ",")+"}"))
	}
	done, err := a.Compact(t.Context(), "", telemetry.Compaction{Quiet: -1})
	if err != nil || done.Written != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	if files, n, err := telemetry.CountRows(dir); err != nil || n != 4 {
		t.Errorf("%d rows in %v, %v", n, files, err)
	}
}

// A partition that can't be read keeps no other from being merged.
func TestCompactGoesOn(t *testing.T) {
	a, dir := open(t, "")
	write(t, a, rowsOf(1, `{"a":1}`))
	write(t, a, rowsOf(2, `{"a":2}`))
	broken := filepath.Join(dir, "a-broken", "year=2026", "month=11", "day=24")
	if err := os.MkdirAll(broken, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{telemetry.ManifestName: "{", "1-1-1.parquet": "x"} {
		if err := os.WriteFile(filepath.Join(broken, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	done, err := a.Compact(t.Context(), "", telemetry.Compaction{Quiet: -1})
	if err == nil || done.Written != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	if _, err := a.Expire(t.Context(), "", time.Now().Add(time.Hour), 0); err == nil {
		t.Error("the broken partition is not told of")
	}
	if _, n, err := telemetry.CountRows(filepath.Join(dir, "s")); err == nil && n != 0 {
		t.Errorf("%d rows are left", n)
	}
}
