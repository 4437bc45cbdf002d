package account

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// maxEvents is how many events of a node wait to be published before further ones are dropped.
const maxEvents = 100_000

// Deps are the others that the room works with.
type Deps struct {
	DB *store.DB
	// Endpoint is the address, host:port, that devices use for an endpoint type
	// of AWS; "" when there is none.
	Endpoint func(endpointType string) string
	// Events are the event types that this build publishes when they are enabled.
	Events    []string
	Publisher Publisher
	NodeID    string
	MaxEvents int // that wait to be published on this node; 0: 100,000
	Log       *slog.Logger
	Metrics   *prometheus.Registry // nil: none
	Now       func() time.Time     // time.Now when nil
}

// Account is the room. It is safe for concurrent use.
type Account struct {
	Deps
	wake    chan struct{} // events wait
	waiting atomic.Int64  // how many, about
	dropped prometheus.Counter

	reading sync.Mutex
	read    atomic.Int64             // ms, when enabled was; 0 = it must be
	enabled atomic.Pointer[[]string] // event types
}

// New makes the room; [Account.Run] publishes events.
func New(d Deps) *Account {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.MaxEvents <= 0 {
		d.MaxEvents = maxEvents
	}
	a := &Account{Deps: d, wake: make(chan struct{}, 1), dropped: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "flotilla_account_events_dropped_total", Help: "Events that were not published, or not to all, as too many waited, a queue was full or no message can have their topic.",
	})}
	if d.Metrics != nil {
		d.Metrics.MustRegister(a.dropped)
	}
	return a
}

// defaultEndpoint is the type that a request without one means.
const defaultEndpoint = "iot:Data"

// DescribeEndpoint gives the address that devices use.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeEndpoint.html
func (a *Account) DescribeEndpoint(_ context.Context, in *iot.DescribeEndpointRequest) (*iot.DescribeEndpointResponse, error) {
	kind := defaultEndpoint
	if in.EndpointType != nil {
		kind = *in.EndpointType
	}
	address := a.Endpoint(kind)
	if address == "" {
		return nil, &iot.InvalidRequestException{Message: "Invalid endpoint type " + kind}
	}
	return &iot.DescribeEndpointResponse{EndpointAddress: &address}, nil
}

func date(ms int64) *aws.Time { return &aws.Time{Time: time.UnixMilli(ms).UTC()} }
