package observe_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"flotilla/internal/observe"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestMount(t *testing.T) {
	var h observe.Health
	broken := errors.New("disk full")
	var state error
	h.Add("store", func(context.Context) error { return state })
	mux := http.NewServeMux()
	observe.Mount(mux, &h, observe.Metrics())
	srv := httptest.NewServer(mux)
	defer srv.Close()

	if code, _ := get(t, srv.URL+"/healthz"); code != 200 {
		t.Errorf("healthz: %d", code)
	}
	if code, _ := get(t, srv.URL+"/readyz"); code != 503 {
		t.Errorf("readyz before the start: %d", code)
	}
	h.SetReady(true)
	if code, body := get(t, srv.URL+"/readyz"); code != 200 {
		t.Errorf("readyz: %d %s", code, body)
	}
	state = broken
	if code, body := get(t, srv.URL+"/readyz"); code != 503 || !strings.Contains(body, "disk full") {
		t.Errorf("readyz with a broken part: %d %s", code, body)
	}
	if code, body := get(t, srv.URL+"/metrics"); code != 200 || !strings.Contains(body, "go_goroutines") {
		t.Errorf("metrics: %d %.80s", code, body)
	}
}

func TestLogger(t *testing.T) {
	var b strings.Builder
	log, err := observe.Logger(observe.Config{LogLevel: "warn", LogFormat: "json"}, &b)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("quiet")
	log.Warn("loud", "clientId", "c1")
	if got := b.String(); strings.Contains(got, "quiet") || !strings.Contains(got, `"clientId":"c1"`) {
		t.Errorf("logged %s", got)
	}
	if _, err := observe.Logger(observe.Config{LogLevel: "shout"}, &b); err == nil {
		t.Error("an unknown level was accepted")
	}
}
