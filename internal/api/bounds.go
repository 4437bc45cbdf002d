package api

import (
	"time"

	"flotilla/internal/aws"
)

// Bounds are what one operation may use, where it needs more than [Config] gives to all.
type Bounds struct {
	BodyBytes   int64         // 0: Config.MaxBodyBytes
	BodyTimeout time.Duration // 0: Config.BodyTimeout
	Timeout     time.Duration // of the operation; 0: Config.Timeout
	// Reading and Running are how many of its bodies are read, and how many of its calls run, at a time. Such an
	// operation takes no places from the others.
	Reading, Running int
}

// Bound gives an operation bounds of its own. It is called before the first request.
func Bound[In, Out any](s *Server, op aws.Operation[In, Out], b Bounds) {
	own := &bounds{Bounds: b, reading: make(chan struct{}, b.Reading), running: make(chan struct{}, b.Running)}
	own.complete(s.cfg)
	s.byScope[op.Service].byName[op.Name].bounds = own
}

// bounds are those that hold for a request.
type bounds struct {
	Bounds
	reading chan struct{} // a place for each body that is being read
	running chan struct{} // a place for each call in progress
}

func (b *bounds) complete(cfg Config) {
	if b.BodyBytes <= 0 {
		b.BodyBytes = cfg.MaxBodyBytes
	}
	if b.BodyTimeout <= 0 {
		b.BodyTimeout = cfg.BodyTimeout
	}
	if b.Timeout <= 0 {
		b.Timeout = cfg.Timeout
	}
}

// bounds are those of the operation that the request seems to be for. Nothing of it is proved yet.
func (x *exchange) bounds() *bounds {
	e := x.endpoint
	if e == nil && x.service != nil {
		e, _ = x.service.find(x.r.Method, x.path)
	}
	if e == nil || e.bounds == nil {
		return x.s.bounds
	}
	return e.bounds
}
