package index

import (
	"context"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// GetThingConnectivityData tells whether the client that has a thing's name is connected, since when, and else why not.
//
// Errors: iot.ResourceNotFoundException (the thing, or nothing is known of its client), IndexNotReadyException
// (connectivity is not indexed).
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetThingConnectivityData.html
func (x *Index) GetThingConnectivityData(ctx context.Context, in *iot.GetThingConnectivityDataRequest) (*iot.GetThingConnectivityDataResponse, error) {
	var c *iot.ThingConnectivity
	err := x.db.Read(ctx, func(ctx context.Context, tx store.Tx) error {
		s, err := selectSettings(tx)
		if err != nil {
			return err
		}
		if !s.connectivity() {
			return &iot.IndexNotReadyException{Message: "Connectivity is not indexed"}
		}
		if _, err := x.deps.Registry.DescribeThing(ctx, &iot.DescribeThingRequest{ThingName: in.ThingName}); err != nil {
			return err
		}
		c, err = selectConnectivity(tx, in.ThingName)
		return err
	})
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, &iot.ResourceNotFoundException{Message: "No connection of " + in.ThingName + " is known"}
	}
	reason := iot.DisconnectReasonValueNone
	if !*c.Connected {
		reason = *c.DisconnectReason
	}
	return &iot.GetThingConnectivityDataResponse{
		ThingName: &in.ThingName, Connected: c.Connected, Timestamp: &aws.Time{Time: time.UnixMilli(*c.Timestamp).UTC()}, DisconnectReason: &reason,
	}, nil
}

// forgetConnectivity drops what is known of clients, which is followed no longer.
func forgetConnectivity(tx store.Tx) error {
	_, err := tx.Exec(`DELETE FROM index_connectivity`)
	return err
}
