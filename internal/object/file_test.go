package object_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flotilla/internal/object"
)

func TestPublishFile(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	put := func(name, text string, fail error) error {
		return object.PublishFile(root, name, func(w io.Writer) error {
			if _, err := io.WriteString(w, text); err != nil {
				return err
			}
			return fail
		})
	}
	if err := put("a/b/c", "one", nil); err != nil {
		t.Fatal(err)
	}
	// A failure leaves what was there, and no traces.
	no := errors.New("no")
	if err := put("a/b/c", "two", no); !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "a/b/c")); err != nil || string(b) != "one" {
		t.Errorf("%s, %v", b, err)
	}
	long := strings.Repeat("n", 255)
	if err := put("a/"+long, "long", nil); err != nil {
		t.Errorf("the longest name: %v", err)
	}
	for _, name := range []string{"../x", "a/../../x", "/etc/x", "a/b/c/d"} {
		if err := put(name, "x", nil); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	if err := os.Symlink(os.TempDir(), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := put("link/x", "x", nil); err == nil {
		t.Error("a symbolic link led out")
	}
	entries, err := os.ReadDir(filepath.Join(dir, "a", "b"))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	info, err := os.Stat(filepath.Join(dir, "a/b/c"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
