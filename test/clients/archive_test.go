package clients_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/telemetry"
)

// A reader of Parquet that is not ours reads the archive's files, as they were
// written and merged.
func TestArchiveFiles(t *testing.T) {
	environ := nodeModules(t)
	var modules string
	for _, e := range environ {
		if dir, ok := strings.CutPrefix(e, "NODE_PATH="); ok {
			modules = dir
		}
	}
	dir := t.TempDir()
	a, err := telemetry.OpenArchive(dir, telemetry.Parquet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	received := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	want := []map[string]any{}
	for i, payload := range []string{`{"n":1,"s":"ä","ok":true,"o":{"x":[1,"a"]}}`, `{"n":2.5,"s":""}`, `"text"`} {
		row := telemetry.Row{ID: int64(i + 1), Rule: "r", Topic: "t/1", ClientID: "c", Received: received, Payload: []byte(payload)}
		if _, err := a.Write(t.Context(), "s", 1, []telemetry.Row{row}); err != nil {
			t.Fatal(err)
		}
		want = append(want, map[string]any{
			"flotilla_id": float64(i + 1), "flotilla_part": 0.0, "flotilla_rule": "r", "flotilla_topic": "t/1", "flotilla_client_id": "c", "flotilla_received": "2026-11-24T10:00:00.000Z",
		})
	}
	want[0]["n"], want[0]["s"], want[0]["ok"], want[0]["o.x"] = 1.0, "ä", true, `[1,"a"]`
	want[1]["n"], want[1]["s"] = 2.5, ""
	want[2]["flotilla_value"] = "text"
	check := func(what string, files int) {
		t.Helper()
		names, _, err := telemetry.CountRows(dir)
		if err != nil || len(names) != files {
			t.Fatalf("%s: %v, %v", what, names, err)
		}
		out, err := try(t, os.Environ(), program(t, "node"), append([]string{"node/archive.js", modules}, names...)...)
		if err != nil {
			t.Fatalf("%s: %v: %s", what, err, out)
		}
		var got []map[string]any
		for line := range strings.Lines(out) {
			var row map[string]any
			if err := json.Unmarshal([]byte(line), &row); err != nil {
				t.Fatalf("%s: %s", what, line)
			}
			for k, v := range row {
				if v == nil {
					delete(row, k)
				}
			}
			got = append(got, row)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	check("as written", 3)
	if _, err := a.Compact(t.Context(), "s", telemetry.Compaction{Quiet: -1}); err != nil {
		t.Fatal(err)
	}
	check("merged", 1)
}
