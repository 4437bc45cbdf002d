package e2e_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// TestDiskFull fills the disk under QoS 1 load: what is acknowledged is kept, what can't
// be is refused with a reason code, and the server goes on when space returns.
func TestDiskFull(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=36m"); err != nil {
		if os.Getenv("CI") != "" && os.Getuid() == 0 {
			t.Fatalf("mount a small disk: %v", err)
		}
		t.Skipf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 26<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(disk, "data")
	p := startProcess(t, dir)
	id := p.Identity(t, "all", everything...)
	absent := connect5(t, p.Node, id, "absent", persistent)
	absent.subscribe(t, 1, "test/fill")
	if err := absent.Disconnect(&paho.Disconnect{}); err != nil {
		t.Fatal(err)
	}
	pub := connect5(t, p.Node, id, "pub")
	told := map[int]bool{}
	n := 0
	publish := func() error {
		n++
		payload := strconv.Itoa(n) + strings.Repeat(" ", 50_000)
		answer, err := pub.Publish(deadline(t), &paho.Publish{Topic: "test/fill", QoS: 1, Payload: []byte(payload)})
		if err == nil {
			told[n] = true
		} else if answer == nil || answer.ReasonCode < 0x80 {
			t.Fatalf("no reason code: %v", err)
		}
		return err
	}
	var refusal error
	for range 2000 {
		if refusal = publish(); refusal != nil {
			break
		}
	}
	if refusal == nil {
		t.Fatal("a full disk refused nothing")
	}
	t.Logf("%d messages acknowledged, then: %v", len(told), refusal)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); publish() != nil; {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("the server did not recover when there was space again")
		}
	}
	p.kill(t)
	p = startProcess(t, dir)
	l := &load{queued: told}
	l.reachedSession(t, p, id, "absent")
}
