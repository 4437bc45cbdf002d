package rules_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
	"flotilla/internal/telemetry"
)

// While the archive's disk is full messages are acknowledged and wait in the outbox,
// the action fails and is tried again, and nothing half-written is there; each row is
// written once when there is room. The disk is a small tmpfs in a namespace of a
// process of its own.
func TestDiskFull(t *testing.T) {
	if dir := os.Getenv("FLOTILLA_RULES_CHILD"); dir != "" {
		fillDisk(t, dir)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiskFull$", "-test.v")
	cmd.Env = append(os.Environ(), "FLOTILLA_RULES_CHILD="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Skipf("namespaces are not to be had here: %v", err)
	}
	err := cmd.Wait()
	switch {
	case strings.Contains(out.String(), "--- SKIP: TestDiskFull"):
		t.Skipf("a tmpfs is not to be had here:\n%s", out.String())
	case err != nil || !strings.Contains(out.String(), "--- PASS: TestDiskFull"):
		t.Fatalf("%v\n%s", err, out.String())
	}
}

func fillDisk(t *testing.T, dir string) {
	archive := filepath.Join(dir, "archive")
	if err := os.MkdirAll(archive, 0o700); err != nil {
		t.Fatal(err)
	}
	err := syscall.Mount("tmpfs", archive, "tmpfs", 0, "size=64k")
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	w := killed(t, dir, storetest.OpenConfig(t, store.Config{Dir: dir}))
	w.cfg.FirehoseFormat = telemetry.Parquet
	e := w.start(t)
	create(t, e, "r", payload("SELECT * FROM 'in'", firehose("a")))
	const n = 300 // of random text: twice the disk
	for i := range n {
		w.mustPublish(t, e, "in", fmt.Sprintf(`{"n":%d,"text":"%s"}`, i, noise(500)))
	}
	failed := func() bool {
		s := e.Status()
		return len(s) == 1 && s[0].LastFailure != nil && strings.Contains(s[0].LastFailure.Message, syscall.ENOSPC.Error())
	}
	eventually(t, "the action to fail", failed)
	if w.pending(t) == 0 {
		t.Error("nothing waits")
	}
	// What is there is whole, and none of it is more than was published.
	v, err := telemetry.Verify(t.Context(), archive, "")
	if err != nil || len(v.Problems) > 0 || v.Rows >= n {
		t.Errorf("with a full disk: %+v, %v", v, err)
	}
	if err := syscall.Mount("tmpfs", archive, "tmpfs", syscall.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the outbox to be empty", func() bool { return w.pending(t) == 0 })
	v, err = telemetry.Verify(t.Context(), archive, "")
	if err != nil || len(v.Problems) > 0 || v.Rows != n {
		t.Errorf("with room again: %+v, %v", v, err)
	}
	stop(t, e)
	for _, name := range files(t, archive) {
		if strings.HasPrefix(filepath.Base(name), ".tmp") {
			t.Errorf("%s was left over", name)
		}
	}
}

// noise is text that does not compress well.
func noise(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('!' + rand.IntN(90))
		if b[i] == '"' || b[i] == '\\' {
			b[i] = '.'
		}
	}
	return string(b)
}
