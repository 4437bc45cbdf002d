package object_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"flotilla/internal/object"
)

// bucketServer speaks as much S3 as storing an object takes.
type bucketServer struct {
	mu      sync.Mutex
	objects map[string]string
	answers []int // to the next requests; then 200
}

func (s *bucketServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil || r.Method != http.MethodPut || !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AK/") {
		http.Error(w, "not what was expected", http.StatusTeapot)
		return
	}
	if !strings.Contains(r.Header.Get("Authorization"), "/eu-north-1/s3/aws4_request") {
		http.Error(w, "another region", http.StatusTeapot)
		return
	}
	if len(s.answers) > 0 {
		status := s.answers[0]
		s.answers = s.answers[1:]
		if status != http.StatusOK {
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(status)
			fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>Code%d</Code><Message>no</Message></Error>`, status)
			return
		}
	}
	s.objects[r.URL.Path] = string(body)
	w.Header().Set("ETag", `"x"`)
}

func TestEndpoint(t *testing.T) {
	backend := &bucketServer{objects: map[string]string{}}
	server := httptest.NewServer(backend)
	defer server.Close()
	objects, err := object.Endpoint{URL: server.URL, AccessKey: "AK", SecretKey: "SK"}.Open("eu-north-1")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := objects.Put(ctx, "bucket", "a/../b c", []byte(`{"a":1}`)); err != nil {
		t.Fatal(err)
	}
	if got := backend.objects["/bucket/a/../b c"]; got != `{"a":1}` {
		t.Errorf("objects %v", backend.objects)
	}
	for status, permanent := range map[int]bool{400: true, 403: false, 404: false, 413: true, 429: false, 500: false, 503: false} {
		backend.answers = []int{status}
		err := objects.Put(ctx, "bucket", "k", nil)
		if err == nil || object.IsRefused(err) != permanent || !strings.Contains(err.Error(), fmt.Sprintf("Code%d", status)) {
			t.Errorf("%d: %v, permanent: %v", status, err, object.IsRefused(err))
		}
		if _, stored := backend.objects["/bucket/k"]; stored {
			t.Errorf("%d: stored", status)
		}
	}
	server.Close()
	if err := objects.Put(ctx, "bucket", "k", nil); err == nil || object.IsRefused(err) {
		t.Errorf("a server that is gone: %v", err)
	}
	if _, err := (object.Endpoint{URL: server.URL}).Open("eu-north-1"); err == nil {
		t.Error("an endpoint without keys was opened")
	}
}
