package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"flotilla/internal/telemetry"
)

const (
	killSources = 4
	killDir     = "FLOTILLA_TELEMETRY_CHILD"
)

// record is a row's identity across sources.
type record struct{ source, id int64 }

// acknowledged reads what a child was told to be stored: the last id of each source;
// ids of a source are stored in order.
func acknowledged(t testing.TB, dir string) map[int64]int64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "acknowledged"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	last := map[int64]int64{}
	for line := range bytes.Lines(b) {
		var r record
		if _, err := fmt.Sscanf(string(line), "%d %d\n", &r.source, &r.id); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		last[r.source] = r.id
	}
	return last
}

// TestKill kills a process that writes and compacts with all its might: while a file
// is written, while a merged one is, and between the manifest and the removal of what
// it replaces. Each acknowledged row is seen once right after the restart, and is in
// exactly one file of the directory after one compaction.
func TestKill(t *testing.T) {
	if dir := os.Getenv(killDir); dir != "" {
		archiveUntilKilled(t, dir)
		return
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "archive")
	for _, moment := range []struct {
		name string
		is   func() bool
	}{
		{"writing", func() bool { return temporaries(t, archive, false) }},
		{"merging", func() bool { return temporaries(t, archive, true) }},
		{"replacing", func() bool { return replacing(t, archive) }},
	} {
		killAt(t, dir, moment.name, moment.is)
		told := acknowledged(t, dir)
		files, _ := count(t, archive)
		once(t, moment.name+", after the restart", files, told)

		a, err := telemetry.OpenArchive(archive, "")
		if err != nil {
			t.Fatal(err)
		}
		// Two days on, what the dead process did not live to rename is old enough to go. No
		// file is small enough to be merged: a merge leaves out doubles by itself.
		_, err = a.Compact(t.Context(), "", telemetry.Compaction{Quiet: -1, FileBytes: 1, Now: time.Now().Add(48 * time.Hour)})
		if err := errors.Join(err, a.Close()); err != nil {
			t.Fatal(err)
		}
		if temporaries(t, archive, false) || temporaries(t, archive, true) || replacing(t, archive) {
			t.Errorf("%s: the compaction left something over", moment.name)
		}
		once(t, moment.name+", after a compaction", parquetFiles(t, archive), told)
		if v, err := telemetry.Verify(t.Context(), archive, ""); err != nil || len(v.Problems) > 0 {
			t.Errorf("%s: verify: %+v, %v", moment.name, v, err)
		}
	}
}

// killAt runs a child and kills it at a moment: it is stopped to look.
func killAt(t *testing.T, dir, name string, is func() bool) {
	t.Helper()
	before := acknowledged(t, dir)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), killDir+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); {
		if !is() {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		var ws syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &ws, syscall.WUNTRACED, nil); err != nil || !ws.Stopped() {
			t.Fatalf("%s: the child ended early: %v", name, err)
		}
		if now := acknowledged(t, dir); is() && len(now) == killSources && now[1] > before[1] {
			return
		}
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("%s: gave up waiting for the moment", name)
}

func parquetFiles(t testing.TB, archive string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(archive, "s", "*", "*", "*", "[0-9a-f]*.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// temporaries tells whether there is a file that is not whole, merged or not.
func temporaries(t testing.TB, archive string, merged bool) bool {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(archive, "s", "*", "*", "*", ".*.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.Contains(name, "-m") == merged {
			return true
		}
	}
	return false
}

// replacing tells whether the manifest names replaced files that are still there.
func replacing(t testing.TB, archive string) bool {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(archive, "s", "*", "*", "*", telemetry.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var m telemetry.Manifest
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		for _, r := range m.Replaced {
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), r)); err == nil {
				return true
			}
		}
	}
	return false
}

// once holds files to what was acknowledged: all of it, and nothing twice.
func once(t *testing.T, when string, files []string, told map[int64]int64) {
	t.Helper()
	found := map[record]int{}
	for _, name := range files {
		source, err := strconv.ParseInt(filepath.Base(name)[:16], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := parquet.ReadFile[struct {
			ID int64 `parquet:"flotilla_id"`
			N  int64 `parquet:"n,optional"`
		}](name)
		if err != nil {
			t.Fatalf("%s: %s: %v", when, name, err)
		}
		for _, r := range rows {
			found[record{source, r.ID}]++
			if r.N != r.ID {
				t.Errorf("%s: row %d of source %d holds %d", when, r.ID, source, r.N)
			}
		}
	}
	for r, n := range found {
		if n != 1 {
			t.Errorf("%s: row %d of source %d is there %d times", when, r.id, r.source, n)
		}
	}
	total := int64(0)
	for source, last := range told {
		for id := int64(1); id <= last; id++ {
			if found[record{source, id}] == 0 {
				t.Errorf("%s: row %d of source %d was acknowledged and is not there", when, id, source)
			}
		}
		total += last
	}
	t.Logf("%s: %d rows were acknowledged, %d are there, in %d files", when, total, len(found), len(files))
}

// archiveUntilKilled goes on after what was acknowledged, in other batches.
func archiveUntilKilled(t *testing.T, dir string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	last := acknowledged(t, dir)
	a, err := telemetry.OpenArchive(filepath.Join(dir, "archive"), "")
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(filepath.Join(dir, "acknowledged"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for source := int64(1); source <= killSources; source++ {
		wg.Go(func() {
			for id := last[source]; ; {
				var rows []telemetry.Row
				for range 1 + rand.IntN(40) {
					id++
					rows = append(rows, telemetry.Row{ID: id, Rule: "r", Topic: "t", Received: day, Payload: fmt.Appendf(nil, `{"n":%d,"text":"%032x"}`, id, rand.Uint64())})
				}
				if _, err := a.Write(ctx, "s", source, rows); err != nil {
					panic(err)
				}
				if _, err := fmt.Fprintf(out, "%d %d\n", source, id); err != nil {
					panic(err)
				}
			}
		})
	}
	wg.Go(func() {
		for {
			if _, err := a.Compact(ctx, "", telemetry.Compaction{Quiet: -1, FileBytes: 64 << 10}); err != nil {
				panic(err)
			}
		}
	})
	wg.Wait()
}
