package telemetry_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"flotilla/internal/telemetry"
)

// A file that can not be written to its end is not there, leaves nothing, and the
// rows are written once there is room; the same of a merged file. The limit is one of
// the whole process, so a process of its own has it.
func TestNoRoom(t *testing.T) {
	if os.Getenv(killDir) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestNoRoom$", "-test.v")
		cmd.Env = append(os.Environ(), killDir+"="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestNoRoom") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for _, format := range []string{telemetry.Parquet, telemetry.JSONLines} {
		a, dir := open(t, format)
		var rows []telemetry.Row
		for i := range 400 {
			rows = append(rows, rowsOf(int64(i+1), fmt.Sprintf(`{"text":"%016x%016x"}`, rand.Uint64(), rand.Uint64()))...)
		}
		left := func(when string, files, want int) {
			t.Helper()
			if _, n := count(t, dir); n != want {
				t.Errorf("%s, %s: %d rows are there, want %d", format, when, n, want)
			}
			all, err := filepath.Glob(filepath.Join(dir, "s", "*", "*", "*", "*"+format))
			if err != nil || len(all) != files {
				t.Errorf("%s, %s: %v, %v", format, when, all, err)
			}
		}
		for i, batch := range [][]telemetry.Row{rows[:200], rows[200:]} {
			limitFiles(t, 2000)
			if files, err := a.Write(t.Context(), "s", 7, slices.Clone(batch)); !errors.Is(err, syscall.EFBIG) || len(files) != 0 {
				t.Errorf("%s: without room: %v, %v", format, files, err)
			}
			left("without room", i, 200*i)
			limitFiles(t, 1<<30)
			write(t, a, slices.Clone(batch))
			left("with room again", i+1, 200*(i+1))
		}
		limitFiles(t, 4000) // a manifest fits, two files in one do not
		if _, err := a.Compact(t.Context(), "", now); !errors.Is(err, syscall.EFBIG) {
			t.Errorf("%s: compaction without room: %v", format, err)
		}
		left("after the compaction without room", 2, 400)
		limitFiles(t, 1<<30)
		if _, err := a.Compact(t.Context(), "", now); err != nil {
			t.Errorf("%s: compaction: %v", format, err)
		}
		left("after the compaction", 1, 400)
	}
}

// limitFiles bounds the size of files that the process writes.
func limitFiles(t *testing.T, bytes uint64) {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
		t.Fatal(err)
	}
	l.Cur = min(bytes, l.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
		t.Fatal(err)
	}
}
