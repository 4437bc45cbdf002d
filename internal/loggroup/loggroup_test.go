package loggroup_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/loggroup"
)

func add(t *testing.T, g *loggroup.Groups, group string, messages ...string) {
	t.Helper()
	var events []loggroup.Event
	for i, m := range messages {
		events = append(events, loggroup.Event{Timestamp: int64(i), IngestionTime: 9, Message: m})
	}
	if err := g.Append(group, events); err != nil {
		t.Fatal(err)
	}
}

func tail(t *testing.T, dir, group string, n int) (messages []string) {
	t.Helper()
	events, err := loggroup.Tail(dir, group, n)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		messages = append(messages, e.Message)
	}
	return messages
}

func TestTail(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	g := loggroup.Open(dir, loggroup.Config{})
	add(t, g, "/iot/devices", "a", "two\nlines")
	add(t, g, "..", "c")
	add(t, loggroup.Open(dir, loggroup.Config{}), "/iot/devices", "d") // after a restart
	if diff := cmp.Diff([]string{"two\nlines", "d"}, tail(t, dir, "/iot/devices", 2)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"c"}, tail(t, dir, "..", 100)); diff != "" {
		t.Error(diff)
	}
	names, err := loggroup.List(dir)
	if diff := cmp.Diff([]string{"..", "/iot/devices"}, names); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if _, err := loggroup.Tail(dir, "none", 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v for a group that there is not", err)
	}
	for _, name := range []string{"", "a b", "../x\x00", "a+b", "%x", strings.Repeat("a", 251)} {
		if err := g.Append(name, nil); err == nil {
			t.Errorf("the group %q is not refused", name)
		}
	}
}

// A write that broke off costs its own line alone.
func TestTornLine(t *testing.T) {
	dir := t.TempDir()
	g := loggroup.Open(dir, loggroup.Config{})
	add(t, g, "g", "a")
	f, err := os.OpenFile(filepath.Join(dir, "g", "current.jsonl"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"timestamp":1,"mess`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	add(t, g, "g", "b")
	if diff := cmp.Diff([]string{"a", "b"}, tail(t, dir, "g", 9)); diff != "" {
		t.Error(diff)
	}
}

func TestBounds(t *testing.T) {
	dir := t.TempDir()
	g := loggroup.Open(dir, loggroup.Config{FileBytes: 200, Files: 3, Groups: 2})
	var want []string
	for i := range 100 {
		add(t, g, "g", fmt.Sprintf("message %03d", i))
		want = append(want, fmt.Sprintf("message %03d", i))
	}
	files, err := os.ReadDir(filepath.Join(dir, "g"))
	if err != nil || len(files) > 3 {
		t.Errorf("%d files, %v", len(files), err)
	}
	got := tail(t, dir, "g", 100)
	if len(got) < 6 || len(got) > 12 {
		t.Errorf("%d messages are left", len(got))
	}
	if diff := cmp.Diff(want[100-len(got):], got); diff != "" {
		t.Error(diff)
	}
	add(t, g, "h", "x")
	if err := g.Append("i", nil); !errors.Is(err, loggroup.ErrTooMany) {
		t.Errorf("a third group: %v", err)
	}
	if err := g.Append("g", []loggroup.Event{{Message: strings.Repeat("x", loggroup.MaxMessage+1)}}); err == nil {
		t.Error("a message of more than 1 MiB is taken")
	}
}
