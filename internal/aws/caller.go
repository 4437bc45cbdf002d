package aws

import "context"

// Principal is who acts: the owner of a certificate or of an access key. The
// zero value is nobody. It is comparable.
type Principal struct {
	Type string // "certificate" or "user"
	ID   string // certificate id, or access key id
	ARN  string
}

// Caller is who makes the request that is being served.
type Caller struct {
	Principal
	Account   string
	SourceIP  string // without port
	RequestID string
}

type callerKey struct{}

// WithCaller returns a context in which [CallerFrom] finds c.
func WithCaller(ctx context.Context, c *Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom is the caller of the request that ctx belongs to; nil for what the
// server does by itself.
func CallerFrom(ctx context.Context) *Caller {
	c, _ := ctx.Value(callerKey{}).(*Caller)
	return c
}
