package index_test

import (
	"errors"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/index"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// What is told of a thing's client follows its connections, and is forgotten when they are followed no longer.
func TestThingConnectivity(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, index.Config{})
		w.thing("a", nil)
		get := func(name string) (*iot.GetThingConnectivityDataResponse, error) {
			return w.GetThingConnectivityData(w.ctx, &iot.GetThingConnectivityDataRequest{ThingName: name})
		}
		if _, err := get("a"); !errors.As(err, new(*iot.IndexNotReadyException)) {
			t.Errorf("not indexed: %v", err)
		}
		w.index(everything)
		for _, name := range []string{"a", "none"} {
			if _, err := get(name); !errors.As(err, new(*iot.ResourceNotFoundException)) {
				t.Errorf("%s: %v", name, err)
			}
		}
		w.PresenceChanged("a", true, "", time.UnixMilli(1500))
		w.PresenceChanged("none", true, "", time.UnixMilli(1500))
		w.settle()
		if c := ok[*iot.GetThingConnectivityDataResponse](t)(get("a")); !*c.Connected || *c.DisconnectReason != "NONE" || c.Timestamp.UnixMilli() != 1500 {
			t.Errorf("connected: %v %s %v", *c.Connected, *c.DisconnectReason, c.Timestamp)
		}
		w.PresenceChanged("a", false, "CONNECTION_LOST", time.UnixMilli(2500))
		w.settle()
		if c := ok[*iot.GetThingConnectivityDataResponse](t)(get("a")); *c.Connected || *c.DisconnectReason != "CONNECTION_LOST" || c.Timestamp.UnixMilli() != 2500 {
			t.Errorf("disconnected: %v %s %v", *c.Connected, *c.DisconnectReason, c.Timestamp)
		}
		if _, err := get("none"); !errors.As(err, new(*iot.ResourceNotFoundException)) {
			t.Errorf("a client that is no thing: %v", err)
		}
		w.index(&iot.ThingIndexingConfiguration{ThingIndexingMode: "REGISTRY"})
		w.index(everything)
		if _, err := get("a"); !errors.As(err, new(*iot.ResourceNotFoundException)) {
			t.Errorf("after it was switched off: %v", err)
		}
	})
}
