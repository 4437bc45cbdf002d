package aws

import (
	"context"
	"sync"
)

const (
	maxWarnings     = 16
	maxWarningBytes = 512
)

// Warnings are what a handler tells the caller of a request beside its answer: advice that no client depends on. The
// zero value is ready. It is safe for concurrent use.
type Warnings struct {
	mu   sync.Mutex
	list []string
}

type warningsKey struct{}

// WithWarnings returns a context in which [Warn] adds to w.
func WithWarnings(ctx context.Context, w *Warnings) context.Context {
	return context.WithValue(ctx, warningsKey{}, w)
}

// Warn tells the caller of the request that ctx belongs to. The first 16 warnings are kept, and 512 characters of
// each; what is not printable ASCII becomes "?", so that a warning can be the value of a header. Without a caller it
// does nothing.
func Warn(ctx context.Context, text string) {
	w, _ := ctx.Value(warningsKey{}).(*Warnings)
	if w == nil {
		return
	}
	clean := make([]byte, 0, min(len(text), maxWarningBytes))
	for _, r := range text {
		if len(clean) == maxWarningBytes {
			break
		}
		if r < ' ' || r > '~' {
			r = '?'
		}
		clean = append(clean, byte(r))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.list) < maxWarnings {
		w.list = append(w.list, string(clean))
	}
}

// List gives the warnings in the order in which they came.
func (w *Warnings) List() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.list...)
}
