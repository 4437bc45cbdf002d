package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config says how much is logged, and in what form.
type Config struct {
	LogLevel  string `name:"log-level" default:"info" enum:"debug,info,warn,error" help:"Least severe level that is logged."`
	LogFormat string `name:"log-format" default:"text" enum:"text,json" help:"Form of log lines on standard error."`
}

// Logger makes the process's logger, writing to w.
func Logger(cfg Config, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if cfg.LogLevel != "" {
		if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
			return nil, fmt.Errorf("log-level: %w", err)
		}
	}
	opts := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return slog.New(slog.NewTextHandler(w, opts)), nil
}

// Metrics is a new registry that already describes the process.
func Metrics() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Check reports why a part of the process cannot serve, or nil.
type Check func(context.Context) error

// Health answers whether the process lives and whether it can serve. The zero
// value is not ready.
type Health struct {
	mu     sync.Mutex
	ready  bool
	checks map[string]Check
}

// Add names a part that readiness depends on.
func (h *Health) Add(name string, c Check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.checks == nil {
		h.checks = map[string]Check{}
	}
	h.checks[name] = c
}

// SetReady says whether the process takes work at all: false while it starts
// and while it drains.
func (h *Health) SetReady(ready bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready = ready
}

// Status runs the checks, each for at most two seconds: part -> "ok" or what is wrong.
func (h *Health) Status(ctx context.Context) (map[string]string, bool) {
	h.mu.Lock()
	ready, checks := h.ready, make(map[string]Check, len(h.checks))
	for n, c := range h.checks {
		checks[n] = c
	}
	h.mu.Unlock()
	status := map[string]string{}
	for n, c := range checks {
		cctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := c(cctx)
		cancel()
		status[n] = "ok"
		if err != nil {
			status[n], ready = err.Error(), false
		}
	}
	return status, ready
}

// Mount adds /healthz (the process lives), /readyz (it can serve; 503 with the
// failing parts otherwise) and /metrics (Prometheus text) to mux.
func Mount(mux *http.ServeMux, h *Health, r *prometheus.Registry) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, req *http.Request) {
		status, ready := h.Status(req.Context())
		w.Header().Set("Content-Type", "application/json")
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"ready": ready, "checks": status})
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
}
