package function_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/function"
)

const arn = "arn:aws:lambda:us-east-1:123456789012:function:authorise"

func open(t testing.TB, cfg function.Config) *function.Functions {
	t.Helper()
	f, err := function.New(cfg, function.Deps{Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// serve starts a function, and gives the room that knows it by arn.
func serve(t testing.TB, cfg function.Config, h http.HandlerFunc) *function.Functions {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	cfg.Endpoints = map[string]string{arn: s.URL + "/run?stage=test"}
	return open(t, cfg)
}

func wantError[E error](t *testing.T, err error, text string) E {
	t.Helper()
	e, ok := errors.AsType[E](err)
	if !ok {
		t.Fatalf("got %T %v, want %T", err, err, e)
	}
	if !strings.Contains(e.Error(), text) {
		t.Errorf("got %q, want %q in it", e, text)
	}
	return e
}

// TestInvoke: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
func TestInvoke(t *testing.T) {
	f := serve(t, function.Config{}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got := []string{r.Method, r.URL.String(), r.Header.Get("Content-Type"), r.Header.Get("X-Amz-Invocation-Type"), r.Header.Get("Lambda-Runtime-Invoked-Function-Arn"), string(body)}
		want := []string{"POST", "/run?stage=test", "application/json", "RequestResponse", arn, `{"a":1}`}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if r.Header.Get("Lambda-Runtime-Deadline-Ms") == "" || r.Header.Get("Lambda-Runtime-Aws-Request-Id") == "" {
			t.Errorf("headers %v", r.Header)
		}
		_, _ = io.WriteString(w, `{"b":2}`)
	})
	answer, err := f.Invoke(t.Context(), arn, []byte(`{"a":1}`))
	if err != nil || string(answer) != `{"b":2}` {
		t.Errorf("got %s, %v", answer, err)
	}
}

func TestNames(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) }))
	t.Cleanup(s.Close)
	f := open(t, function.Config{Endpoints: map[string]string{
		arn: s.URL + "/arn", arn + ":live": s.URL + "/live", "hook": s.URL + "/hook",
	}})
	for name, want := range map[string]string{
		arn: "/arn", arn + ":7": "/arn", arn + ":live": "/live",
		"hook": "/hook", "hook:3": "/hook",
		"arn:aws:lambda:eu-west-1:123456789012:function:hook":   "/hook",
		"arn:aws:lambda:eu-west-1:123456789012:function:hook:1": "/hook",
	} {
		answer, err := f.Invoke(t.Context(), name, nil)
		if err != nil || string(answer) != want {
			t.Errorf("%s: got %s, %v", name, answer, err)
		}
	}
	for _, name := range []string{"", "authorise", "arn:aws:lambda:eu-west-1:123456789012:function:authorise", "arn:aws:s3:::hook", "arn:aws:lambda:us-east-1:123456789012:layer:hook"} {
		_, err := f.Invoke(t.Context(), name, nil)
		wantError[*function.NotFoundError](t, err, name+" is not configured")
	}
}

func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		kind   string
		text   string
	}{
		"handled error": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Amz-Function-Error", "Handled")
			_, _ = io.WriteString(w, `{"errorType":"KeyError","errorMessage":"no\nsuch"}`)
		}, "Handled", "KeyError: no such"},
		"status": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
		}, "Unhandled", "status 503: it gave no errorMessage"},
		"long message": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, `{"errorMessage":"`+strings.Repeat("é", 5000)+`"}`)
		}, "Unhandled", "éé..."},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/run" {
				t.Error("followed a redirect")
			}
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, "Unhandled", "status 307"},
		"huge answer": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(bytes.Repeat([]byte("a"), 6<<20+1))
		}, "Unhandled", "longer than 6291456 bytes"},
		"broken answer": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "{}")
		}, "", "not reached"},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, function.Config{}, c.answer)
			_, err := f.Invoke(t.Context(), arn, []byte("{}"))
			e := wantError[*function.FunctionError](t, err, c.text)
			if e.Kind != c.kind || len(e.Error()) > 512 {
				t.Errorf("kind %q, %d bytes", e.Kind, len(e.Error()))
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	address := strings.Replace(s.URL, "http://", "http://user:secret@", 1)
	s.Close()
	f := open(t, function.Config{Endpoints: map[string]string{arn: address}})
	_, err := f.Invoke(t.Context(), arn, []byte("{}"))
	wantError[*function.FunctionError](t, err, "not reached")
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

func TestPayloadTooLarge(t *testing.T) {
	f := serve(t, function.Config{}, func(http.ResponseWriter, *http.Request) { t.Error("called") })
	_, err := f.Invoke(t.Context(), arn, make([]byte, 6<<20+1))
	wantError[*function.TooLargeError](t, err, "6291457 bytes")
}

func TestTimeout(t *testing.T) {
	hang := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}
	t.Run("of the caller", func(t *testing.T) {
		f := serve(t, function.Config{}, hang)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := f.Invoke(ctx, arn, []byte("{}"))
		wantError[*function.TimeoutError](t, err, "no answer after")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error("not a DeadlineExceeded")
		}
	})
	t.Run("of the room", func(t *testing.T) {
		f := serve(t, function.Config{Timeout: 20 * time.Millisecond}, hang)
		_, err := f.Invoke(t.Context(), arn, []byte("{}"))
		wantError[*function.TimeoutError](t, err, "no answer after")
	})
	t.Run("of a slow body", func(t *testing.T) {
		f := serve(t, function.Config{Timeout: 20 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "{")
			w.(http.Flusher).Flush()
			hang(w, r)
		})
		_, err := f.Invoke(t.Context(), arn, []byte("{}"))
		wantError[*function.TimeoutError](t, err, "no answer after")
	})
	t.Run("cancelled", func(t *testing.T) {
		f := serve(t, function.Config{}, hang)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := f.Invoke(ctx, arn, []byte("{}"))
		if _, ok := errors.AsType[*function.TimeoutError](err); ok || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestConcurrencyIsBounded(t *testing.T) {
	var running, most atomic.Int32
	release := make(chan struct{})
	f := serve(t, function.Config{Concurrency: 2, MaxWaiting: 3}, func(w http.ResponseWriter, _ *http.Request) {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release
		running.Add(-1)
	})
	results := make(chan error, 10)
	for range 10 {
		go func() {
			_, err := f.Invoke(context.Background(), arn, []byte("{}"))
			results <- err
		}()
	}
	for range 5 { // ten calls, two run and three wait
		wantError[*function.ThrottledError](t, <-results, "too many calls")
	}
	close(release)
	for range 5 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if most.Load() > 2 {
		t.Errorf("%d at a time", most.Load())
	}
}

func TestBadConfiguration(t *testing.T) {
	for name, address := range map[string]string{
		"":                    "http://localhost",
		"exec":                "exec:/bin/true",
		"none":                "localhost:80",
		"host":                "http:///path",
		"frag":                "http://localhost/#f",
		"bad":                 "http://user:secret@[",
		"arn:aws:s3:::bucket": "http://localhost",
	} {
		_, err := function.New(function.Config{Endpoints: map[string]string{name: address}}, function.Deps{})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s=%s: %v", name, address, err)
		}
	}
}

func TestFlags(t *testing.T) {
	var c struct {
		function.Config `embed:""`
	}
	p, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse([]string{"--function.endpoint", arn + "=http://localhost:1/?a=b", "--function.endpoint=hook=https://h/"}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{arn: "http://localhost:1/?a=b", "hook": "https://h/"}
	if diff := cmp.Diff(want, c.Endpoints); diff != "" || c.Concurrency != 100 || c.Timeout != 30*time.Second {
		t.Errorf("%s%+v", diff, c)
	}
}

func BenchmarkInvoke(b *testing.B) {
	f := serve(b, function.Config{}, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") })
	for b.Loop() {
		if _, err := f.Invoke(b.Context(), arn, []byte("{}")); err != nil {
			b.Fatal(err)
		}
	}
}
