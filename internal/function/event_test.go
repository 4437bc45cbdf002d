package function_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/function"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// quiet is a bus without other nodes.
type quiet struct{}

func (quiet) Changed(string, string)        {}
func (quiet) OnChange(string, func(string)) {}

func node(t *testing.T, db *store.DB, cfg function.Config) *function.Functions {
	t.Helper()
	cfg.Local = "off"
	f, err := function.New(cfg, function.Deps{Account: aws.Account{ID: "123456789012", Region: "us-east-1"}, DB: db, Changes: quiet{}, NodeID: "one", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// TestEventsOfEndpoints: an endpoint that is down is tried until it is back; one that fails is tried three times; what is owed outlives
// the room.
func TestEventsOfEndpoints(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		var calls, broken atomic.Int32
		broken.Store(1)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			if broken.Load() != 0 {
				w.Header().Set("X-Amz-Function-Error", "Unhandled")
			}
		}))
		t.Cleanup(s.Close)
		cfg := function.Config{Endpoints: map[string]string{"hook": s.URL, "down": "http://127.0.0.1:1"}, RetryDelay: time.Millisecond}
		first := node(t, db, cfg)
		if err := first.InvokeEvents(t.Context(), "hook", [][]byte{[]byte("{}")}); err != nil {
			t.Fatal(err)
		}
		within(t, "three attempts", func() bool { return calls.Load() == 3 })
		if err := first.InvokeEvents(t.Context(), "down", [][]byte{[]byte("1"), []byte("2")}); err != nil {
			t.Fatal(err)
		}
		first.Close()
		if calls.Load() != 3 {
			t.Errorf("%d attempts", calls.Load())
		}
		broken.Store(0)
		cfg.Endpoints["down"] = s.URL
		node(t, db, cfg)
		within(t, "what was owed", func() bool { return calls.Load() == 5 })
	})
}

func TestEventsAreBounded(t *testing.T) {
	f := node(t, storetest.Open(t), function.Config{Endpoints: map[string]string{"down": "http://127.0.0.1:1"}, MaxEvents: 3})
	err := f.InvokeEvents(t.Context(), "down", [][]byte{nil, nil, nil, nil})
	if _, ok := errors.AsType[*function.ThrottledError](err); !ok {
		t.Errorf("got %v", err)
	}
	if err := f.InvokeEvents(t.Context(), "down", [][]byte{nil, nil, nil}); err != nil {
		t.Error(err)
	}
	err = f.InvokeEvents(t.Context(), "down", [][]byte{nil})
	if _, ok := errors.AsType[*function.ThrottledError](err); !ok {
		t.Errorf("got %v", err)
	}
	err = f.InvokeEvents(t.Context(), "down", [][]byte{make([]byte, 1<<20+1)})
	if _, ok := errors.AsType[*function.TooLargeError](err); !ok {
		t.Errorf("got %v", err)
	}
	err = f.InvokeEvents(t.Context(), "none", [][]byte{nil})
	if _, ok := errors.AsType[*function.NotFoundError](err); !ok {
		t.Errorf("got %v", err)
	}
}
