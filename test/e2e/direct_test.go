package e2e_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"

	"flotilla/internal/server/servertest"
)

// TestDirectMessage sends to a client that has subscribed to nothing, and is connected to another node if there is one.
func TestDirectMessage(t *testing.T) {
	d := servertest.Start(t)
	n := d.Node(0)
	c := connect5(t, d.Node(1), n.Identity(t, "all", everything...), "pump")
	send := func(client, topic string, confirm bool) error {
		_, err := n.Data().SendDirectMessage(t.Context(), &iotdataplane.SendDirectMessageInput{
			ClientId: &client, Topic: &topic, Confirmation: confirm, Payload: []byte("now"), ContentType: new("text/plain"),
		})
		return err
	}
	for _, confirm := range []bool{true, false} {
		if err := send("pump", "test/direct", confirm); err != nil {
			t.Fatal(err)
		}
		if m := c.next(t); m.Topic != "test/direct" || string(m.Payload) != "now" || (m.QoS == 1) != confirm || m.Properties.ContentType != "text/plain" {
			t.Errorf("got %+v", m)
		}
	}
	if err := send("pump", "secret/x", true); err == nil {
		t.Error("a topic that the client may not receive was sent")
	}
	if err := send("nobody", "test/direct", true); err == nil {
		t.Error("sent to a client that is not connected")
	}
}
