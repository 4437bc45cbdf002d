package object_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"flotilla/internal/object"
)

// What a request makes conditions of, and is not implemented, is refused: an object that must not be there is not replaced.
func TestDemands(t *testing.T) {
	dir, err := object.OpenDirectory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	d := object.NewDoor(dir, object.Config{}, "us-east-1", slog.New(slog.DiscardHandler))
	call := func(method, target, header, value, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
		if header != "" {
			r.Header.Set(header, value)
		}
		w := httptest.NewRecorder()
		d.Serve(w, r, object.OperationOf(r, r.URL.Path, r.URL.Query()), "id")
		return w
	}
	for _, target := range []string{"/bucket", "/bucket/k"} {
		if w := call(http.MethodPut, target, "X-Amz-Acl", "private", "first"); w.Code != http.StatusOK {
			t.Fatal(w.Body)
		}
	}
	for header, value := range map[string]string{
		"If-None-Match": "*", "If-Match": `"x"`, "X-Amz-Acl": "public-read", "X-Amz-Server-Side-Encryption-Customer-Key": "k",
		"X-Amz-Object-Lock-Mode": "COMPLIANCE", "X-Amz-Tagging": "a=b", "X-Amz-Grant-Read": "x",
	} {
		if w := call(http.MethodPut, "/bucket/k", header, value, "second"); w.Code != http.StatusNotImplemented {
			t.Errorf("%s: %d", header, w.Code)
		}
	}
	w := call(http.MethodGet, "/bucket/k", "", "", "")
	if w.Body.String() != "first" {
		t.Errorf("%q", w.Body)
	}
	if w := call(http.MethodGet, "/bucket/k", "If-None-Match", w.Header().Get("Etag"), ""); w.Code != http.StatusNotModified {
		t.Errorf("a read on a condition: %d", w.Code)
	}
	if w := call(http.MethodGet, "/bucket/k?partNumber=1", "", "", ""); w.Code != http.StatusNotImplemented {
		t.Errorf("a part: %d", w.Code)
	}
}

// slow is a client that takes nothing until it may.
type slow struct {
	*httptest.ResponseRecorder
	begun, may chan struct{}
}

func (s *slow) Write(b []byte) (int, error) {
	s.begun <- struct{}{}
	<-s.may
	return len(b), nil
}

// One address that reads nothing leaves places to others.
func TestSlowReaders(t *testing.T) {
	dir, err := object.OpenDirectory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	if err := dir.Put(t.Context(), "bucket", "k", []byte("x")); err != nil {
		t.Fatal(err)
	}
	d := object.NewDoor(dir, object.Config{MaxOpen: 4}, "us-east-1", slog.New(slog.DiscardHandler))
	get := func(w http.ResponseWriter, addr string) int {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/bucket/k", http.NoBody)
		r.RemoteAddr = addr
		return d.Serve(w, r, object.OperationOf(r, r.URL.Path, r.URL.Query()), "id")
	}
	s := &slow{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	done := make(chan int)
	for range 2 {
		go func() { done <- get(&slow{httptest.NewRecorder(), s.begun, s.may}, "192.0.2.1:1") }()
		<-s.begun
	}
	if code := get(httptest.NewRecorder(), "192.0.2.1:2"); code != http.StatusServiceUnavailable {
		t.Errorf("a third of one address: %d", code)
	}
	if code := get(httptest.NewRecorder(), "192.0.2.2:1"); code != http.StatusOK {
		t.Errorf("of another: %d", code)
	}
	close(s.may)
	for range 2 {
		if code := <-done; code != http.StatusOK {
			t.Error(code)
		}
	}
	if code := get(httptest.NewRecorder(), "192.0.2.1:3"); code != http.StatusOK {
		t.Errorf("afterwards: %d", code)
	}
}
