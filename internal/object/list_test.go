package object_test

import (
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flotilla/internal/object"
)

// Pages of a list have each key and each common prefix once, in order, whatever their size.
func TestListOfDirectories(t *testing.T) {
	d := newDoor(t, t.TempDir(), object.Config{})
	var keys []string
	for _, dir := range []string{"", "a/", "a.b/", "a/c/", "ab/", "é/", "z/y/x/"} {
		for i := range 7 {
			keys = append(keys, fmt.Sprintf("%s%d", dir, i))
		}
	}
	keys = append(keys, "a!", "a0", "a.b!", "z/y!")
	for _, k := range keys {
		if w := serve(t, d, http.MethodPut, (&url.URL{Path: "/bucket/" + k}).EscapedPath(), "x"); w.Code != http.StatusOK {
			t.Fatal(k, w.Body)
		}
	}
	if w := serve(t, d, http.MethodPut, "/bucket/a/%FF%FF", "x"); w.Code != http.StatusBadRequest {
		t.Errorf("a key that no list could tell: %d", w.Code)
	}
	list := func(prefix, delimiter string, size int) (found []string) {
		for token := ""; ; {
			w := serve(t, d, http.MethodGet, "/bucket?"+url.Values{
				"list-type": {"2"}, "prefix": {prefix}, "delimiter": {delimiter}, "max-keys": {fmt.Sprint(size)}, "continuation-token": {token},
			}.Encode(), "")
			var page struct {
				Contents              []struct{ Key string }
				CommonPrefixes        []struct{ Prefix string }
				IsTruncated           bool
				NextContinuationToken string
			}
			if err := xml.Unmarshal(w.Body.Bytes(), &page); err != nil {
				t.Fatal(err)
			}
			var part []string
			for _, c := range page.Contents {
				part = append(part, c.Key)
			}
			for _, c := range page.CommonPrefixes {
				part = append(part, c.Prefix)
			}
			slices.Sort(part)
			if len(part) > size {
				t.Fatalf("%d in a page of %d", len(part), size)
			}
			found = append(found, part...)
			if token = page.NextContinuationToken; !page.IsTruncated {
				return found
			}
		}
	}
	for _, prefix := range []string{"", "a", "a/", "a.b/", "z/", "none"} {
		for _, delimiter := range []string{"", "/", "y", "."} {
			set := map[string]struct{}{}
			for _, k := range keys {
				rest, ok := strings.CutPrefix(k, prefix)
				if !ok {
					continue
				}
				if head, _, is := strings.Cut(rest, delimiter); is && delimiter != "" {
					k = prefix + head + delimiter
				}
				set[k] = struct{}{}
			}
			want := slices.Sorted(maps.Keys(set))
			for _, size := range []int{1, 2, 5, 1000} {
				if got := list(prefix, delimiter, size); !slices.Equal(got, want) {
					t.Errorf("prefix %q, delimiter %q, pages of %d:\n%q, not\n%q", prefix, delimiter, size, got, want)
				}
			}
		}
	}
}

// What a page takes does not grow with what lies before and behind it.
func BenchmarkListOfDirectories(b *testing.B) {
	root := b.TempDir()
	for i := range 300 {
		dir := filepath.Join(root, "bucket", fmt.Sprintf("%04d", i))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		for k := range 100 {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(k)), nil, 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	d := newDoor(b, root, object.Config{})
	for b.Loop() {
		if w := serve(b, d, http.MethodGet, "/bucket?list-type=2&delimiter=/", ""); w.Code != http.StatusOK || strings.Count(w.Body.String(), "<CommonPrefixes>") != 300 {
			b.Fatal(w.Body)
		}
	}
}
