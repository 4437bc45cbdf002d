package e2e_test

import (
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane/types"

	"flotilla/internal/server/servertest"
)

// TestConnectionsAreKnownEverywhere asks one node about a client of another, if there are two.
func TestConnectionsAreKnownEverywhere(t *testing.T) {
	d := servertest.Start(t)
	asked, n := d.Node(0), d.Node(1)
	c := connect5(t, n, asked.Identity(t, "all", everything...), "pump")
	c.subscribe(t, 1, "test/a", "test/b")
	data := asked.Data()
	got, err := data.GetConnection(t.Context(), &iotdataplane.GetConnectionInput{ClientId: new("pump")})
	if err != nil {
		t.Fatal(err)
	}
	if !got.Connected || !got.CleanSession || got.ConnectedSince == 0 {
		t.Errorf("%+v", got)
	}
	subs, err := data.ListSubscriptions(t.Context(), &iotdataplane.ListSubscriptionsInput{ClientId: new("pump")})
	if err != nil {
		t.Fatal(err)
	}
	if len(subs.Subscriptions) != 2 || *subs.Subscriptions[1].TopicFilter != "test/b" {
		t.Errorf("%+v", subs.Subscriptions)
	}
	if _, err := data.DeleteConnection(t.Context(), &iotdataplane.DeleteConnectionInput{ClientId: new("pump")}); err != nil {
		t.Fatal(err)
	}
	c.gone(t)
	var missing *types.ResourceNotFoundException
	if _, err := data.DeleteConnection(t.Context(), &iotdataplane.DeleteConnectionInput{ClientId: new("pump")}); !errors.As(err, &missing) {
		t.Errorf("deleted twice: %v", err)
	}
	got, err = data.GetConnection(t.Context(), &iotdataplane.GetConnectionInput{ClientId: new("pump")})
	if err != nil || got.Connected || got.DisconnectReason == nil || *got.DisconnectReason != "API_INITIATED_DISCONNECT" {
		t.Errorf("%+v %v", got, err)
	}
}
