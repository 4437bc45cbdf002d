package account

import (
	"context"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// Deps are the others that the room works with.
type Deps struct {
	DB *store.DB
	// Endpoint is the address, host:port, that devices use for an endpoint type
	// of AWS; "" when there is none.
	Endpoint func(endpointType string) string
	// Events are the event types that this build publishes when they are enabled.
	Events []string
	Now    func() time.Time // time.Now when nil
}

// Account is the room. It is safe for concurrent use.
type Account struct{ Deps }

// New makes the room.
func New(d Deps) *Account {
	if d.Now == nil {
		d.Now = time.Now
	}
	return &Account{d}
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
