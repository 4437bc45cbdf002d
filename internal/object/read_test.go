package object_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flotilla/internal/object"
)

// source is what can be read.
type source interface {
	ReadRange(ctx context.Context, bucket, key string, offset, length int64) (part []byte, size int64, version string, err error)
}

// readAll reads an object in parts of a length.
func readAll(t *testing.T, s source, bucket, key string, length int64) string {
	t.Helper()
	var b strings.Builder
	for {
		part, size, version, err := s.ReadRange(t.Context(), bucket, key, int64(b.Len()), length)
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(part)) > length || version == "" {
			t.Fatalf("%d bytes, version %q", len(part), version)
		}
		b.Write(part)
		if int64(b.Len()) >= size {
			return b.String()
		}
		if len(part) == 0 {
			t.Fatalf("it ends after %d bytes of %d", b.Len(), size)
		}
	}
}

func TestReadRangeOfDirectory(t *testing.T) {
	dir := t.TempDir()
	d, err := object.OpenDirectory(filepath.Join(dir, "objects"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	for name, text := range map[string]string{"objects/b/k/x.jsonl": "0123456789", "objects/b/empty": "", "secret": "secret"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../../secret", filepath.Join(dir, "objects", "b", "link")); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, d, "b", "k/x.jsonl", 3); got != "0123456789" {
		t.Errorf("read %q", got)
	}
	if got := readAll(t, d, "b", "empty", 3); got != "" {
		t.Errorf("read %q", got)
	}
	for _, c := range [][2]string{{"b", "none"}, {"c", "x"}, {"b", "k"}, {"b", "../../secret"}, {"..", "secret"}, {"b", "link"}, {"b", ""}, {"b", "k\x00"}} {
		if part, _, _, err := d.ReadRange(t.Context(), c[0], c[1], 0, 10); err == nil {
			t.Errorf("%q: read %q", c, part)
		}
	}
	if _, _, _, err := d.ReadRange(t.Context(), "b", "none", 0, 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no object: %v", err)
	}
}

func TestReadRangeOfEndpoint(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := map[string]string{"/b/x": "0123456789", "/b/empty": ""}[r.URL.Path]
		if !ok || !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AK/") {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>NoSuchKey</Code><Message>no</Message></Error>`)
			return
		}
		w.Header().Set("ETag", `"v1"`)
		if text == "" && r.Method == http.MethodGet { // as S3 does
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		var from, to int
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err != nil {
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
			return
		}
		to = min(to+1, len(text))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(text)))
		w.WriteHeader(http.StatusPartialContent)
		fmt.Fprint(w, text[from:to])
	}))
	t.Cleanup(server.Close)
	s, err := object.Endpoint{URL: server.URL, AccessKey: "AK", SecretKey: "SK"}.Open("eu-north-1")
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, s, "b", "x", 4); got != "0123456789" {
		t.Errorf("read %q", got)
	}
	if got := readAll(t, s, "b", "empty", 4); got != "" {
		t.Errorf("read %q", got)
	}
	if _, _, _, err := s.ReadRange(t.Context(), "b", "none", 0, 4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no object: %v", err)
	}
}
