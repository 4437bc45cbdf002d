package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"flotilla/internal/api/client"
)

func TestPath(t *testing.T) {
	if got, want := client.Path("things", "a/b c", "shadow"), "/things/a%2Fb%20c/shadow"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

// A call is made again only where that cannot carry it out twice.
func TestRetry(t *testing.T) {
	for _, c := range []struct {
		method string
		status int
		again  bool
	}{
		{http.MethodGet, 500, true},
		{http.MethodPut, 502, true},
		{http.MethodPost, 500, false},
		{http.MethodPatch, 504, false},
		{http.MethodPost, 429, true},
		{http.MethodPost, 503, true},
		{http.MethodGet, 404, false},
		{http.MethodDelete, 409, false},
	} {
		var calls atomic.Int64
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if body, _ := io.ReadAll(r.Body); string(body) != `{"a":1}` {
				t.Errorf("body %q", body)
			}
			if !strings.Contains(r.Header.Get("Authorization"), "/eu-x/iot/aws4_request") {
				t.Errorf("signed %q", r.Header.Get("Authorization"))
			}
			if calls.Add(1) == 1 {
				w.Header().Set("X-Amzn-Errortype", "SomeException")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, `{"message":"no"}`)
				return
			}
			_, _ = io.WriteString(w, `{"ok":true}`)
		}))
		var out struct{ OK bool }
		err := client.New(s.URL, "eu-x", "AKIA", "secret").Call(context.Background(), "iot", c.method, "/x", map[string]int{"a": 1}, &out)
		s.Close()
		if c.again {
			if err != nil || !out.OK || calls.Load() != 2 {
				t.Errorf("%s %d: %v, %v after %d calls", c.method, c.status, err, out, calls.Load())
			}
			continue
		}
		e, ok := errors.AsType[*client.Error](err)
		if !ok || *e != (client.Error{Status: c.status, Type: "SomeException", Message: "no"}) || calls.Load() != 1 {
			t.Errorf("%s %d: %v after %d calls", c.method, c.status, err, calls.Load())
		}
	}
}

func TestBytes(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	defer s.Close()
	var out []byte
	if err := client.New(s.URL, "r", "a", "s").Call(context.Background(), "iotdata", http.MethodPost, "/", []byte("no json"), &out); err != nil || string(out) != "no json" {
		t.Fatalf("%q, %v", out, err)
	}
}
