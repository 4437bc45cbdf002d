package function

import (
	"archive/zip"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flotilla/internal/aws"
)

type entry struct {
	name, text string
	mode       fs.FileMode
}

func pack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		h.SetMode(e.mode)
		w, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnpack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "code")
	text := pack(t,
		entry{"bootstrap", "#!/bin/sh", 0o644}, entry{"lib/", "", fs.ModeDir | 0o755}, entry{"lib/a.txt", "a", 0o666}, entry{"deep/er/b", "b", 0o777 | fs.ModeSetuid},
		entry{"lib/link", "../deep/er/b", fs.ModeSymlink | 0o777}, entry{"./dot", "d", 0o644},
	)
	if err := unpack(text, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAll(dir) })
	for name, mode := range map[string]fs.FileMode{"bootstrap": 0o500, "lib/a.txt": 0o400, "deep/er/b": 0o500, "deep": fs.ModeDir | 0o500, "dot": 0o400} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "lib/link")); err != nil || string(b) != "b" {
		t.Errorf("%s, %v", b, err)
	}
	if err := unpack(text, dir); err != nil {
		t.Errorf("again: %v", err)
	}
}

// TestUnpackRefuses: nothing leaves the directory, and nothing of a refused zip is left.
func TestUnpackRefuses(t *testing.T) {
	bomb := strings.Repeat("0", 26<<20)
	var bombs []entry
	for i := range 10 {
		bombs = append(bombs, entry{"b" + string(rune('0'+i)), bomb, 0o644})
	}
	broken := pack(t, entry{"a", strings.Repeat("text ", 1000), 0o644})
	broken[60] ^= 0xff
	for name, text := range map[string][]byte{
		"no zip":             []byte("nonsense"),
		"empty":              pack(t),
		"dots":               pack(t, entry{"../a", "x", 0o644}),
		"dots inside":        pack(t, entry{"a/../../b", "x", 0o644}),
		"absolute":           pack(t, entry{"/etc/a", "x", 0o644}),
		"backslash":          pack(t, entry{`..\a`, "x", 0o644}),
		"NUL":                pack(t, entry{"a\x00b", "x", 0o644}),
		"twice":              pack(t, entry{"a", "x", 0o644}, entry{"a", "y", 0o644}),
		"file and directory": pack(t, entry{"a", "x", 0o644}, entry{"a/b", "y", 0o644}),
		"device":             pack(t, entry{"a", "x", fs.ModeDevice | 0o644}),
		"pipe":               pack(t, entry{"a", "x", fs.ModeNamedPipe | 0o644}),
		"link out":           pack(t, entry{"a", "../../etc/passwd", fs.ModeSymlink | 0o777}),
		"link absolute":      pack(t, entry{"a", "/etc/passwd", fs.ModeSymlink | 0o777}),
		"link through link":  pack(t, entry{"d/x", "", 0o644}, entry{"l", "d", fs.ModeSymlink | 0o777}, entry{"m", "l/../../../etc/passwd", fs.ModeSymlink | 0o777}),
		"link by way of a link": pack(t, entry{"q/x", "", 0o644}, entry{"m", "x/y/z/../../w", fs.ModeSymlink | 0o777},
			entry{"x/y/z", "../../q", fs.ModeSymlink | 0o777}),
		"write through link": pack(t, entry{"l", "d", fs.ModeSymlink | 0o777}, entry{"l/x", "y", 0o644}),
		"bomb":               pack(t, bombs...),
		"broken":             broken,
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			err := unpack(text, filepath.Join(top, "code"))
			if _, ok := err.(aws.Exception); !ok {
				t.Errorf("got %v", err)
			}
			if left, err := os.ReadDir(top); err != nil || len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
		})
	}
}

// FuzzUnpack: whatever a zip holds, it stays below its directory.
func FuzzUnpack(f *testing.F) {
	f.Add(pack(f, entry{"bootstrap", "x", 0o755}, entry{"d/l", "../bootstrap", fs.ModeSymlink | 0o777}))
	f.Add(pack(f, entry{"../x", "x", 0o755}))
	f.Fuzz(func(t *testing.T, text []byte) {
		top := t.TempDir()
		dir := filepath.Join(top, "in", "code")
		err := unpack(text, dir)
		defer removeAll(dir)
		for _, d := range []string{top, filepath.Join(top, "in")} {
			if list, rerr := os.ReadDir(d); rerr == nil && len(list) > 1 {
				t.Errorf("%v after %v", list, err)
			}
		}
	})
}
