package api

import (
	"log/slog"
	"net/http"
	"time"
)

// maxHeaderBytes bounds the request line and the headers.
const maxHeaderBytes = 32 << 10

// HTTPServer is a net/http server for h that bounds what a client may send, and
// how slowly. The caller listens, and shuts it down.
func HTTPServer(h http.Handler, cfg Config, log *slog.Logger) *http.Server {
	cfg = cfg.withDefaults()
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10*time.Second + cfg.BodyTimeout,
		WriteTimeout:      10*time.Second + cfg.BodyTimeout + cfg.Timeout + 30*time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
