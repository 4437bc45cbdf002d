package rules_test

import (
	"path/filepath"
	"testing"
	"time"

	"flotilla/internal/telemetry"
)

// The engine merges the small files of its archive by itself, and removes what is
// too old.
func TestArchiveIsTended(t *testing.T) {
	w := newWorld(t, openDB(t))
	w.cfg.FirehoseRows, w.cfg.ArchiveQuiet, w.cfg.ArchiveEvery = 1, time.Nanosecond, 20*time.Millisecond
	e := w.start(t)
	create(t, e, "r", payload("SELECT * FROM 'in'", firehose("a")))
	const n = 10
	for range n {
		w.mustPublish(t, e, "in", `{"a":1}`)
	}
	count := func() (files, rows int) {
		names, rows, err := telemetry.CountRows(filepath.Join(w.dir, "archive", "a"))
		if err != nil {
			t.Fatal(err)
		}
		return len(names), rows
	}
	// A day that ends meanwhile makes two partitions.
	eventually(t, "few files", func() bool { files, rows := count(); return rows == n && files <= 2 })
	stop(t, e)
	if v, err := telemetry.Verify(t.Context(), filepath.Join(w.dir, "archive"), ""); err != nil || len(v.Problems) > 0 || v.Rows != n {
		t.Errorf("%+v, %v", v, err)
	}
	w.cfg.ArchiveKeep = time.Nanosecond
	w.start(t)
	eventually(t, "old rows to go", func() bool { _, rows := count(); return rows == 0 })
}
