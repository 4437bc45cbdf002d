package gateway_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"
)

func TestPahoClients(t *testing.T) {
	w := start(t)
	const n = 500
	got := make(chan string, 4*n)
	old := mqtt3.NewClient(mqtt3.NewClientOptions().AddBroker("ssl://" + w.Addrs().MQTT.String()).SetClientID("paho3").
		SetTLSConfig(w.clientTLS(t)).SetAutoReconnect(false).SetCleanSession(false))
	wait := func(tok mqtt3.Token) {
		t.Helper()
		if !tok.WaitTimeout(patience) || tok.Error() != nil {
			t.Fatalf("paho: %v", tok.Error())
		}
	}
	wait(old.Connect())
	defer old.Disconnect(100)
	wait(old.Subscribe("to3/+", 1, func(_ mqtt3.Client, m mqtt3.Message) { got <- string(m.Payload()) }))

	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	received := make(chan string, 4*n)
	c := paho.NewClient(paho.ClientConfig{
		ClientID: "paho5", Conn: packets.NewThreadSafeConn(w.dialTLS(t, w.Addrs().MQTT, w.clientTLS(t))), PacketTimeout: patience,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			received <- string(p.Packet.Payload)
			return true, nil
		}},
	})
	if _, err := c.Connect(ctx, &paho.Connect{ClientID: "paho5", KeepAlive: 30, CleanStart: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "to5/#", QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	go func() {
		for i := range n {
			old.Publish("to5/x", byte(i%2), false, fmt.Sprint(i))
		}
	}()
	for i := range n {
		if _, err := c.Publish(ctx, &paho.Publish{Topic: "to3/x", QoS: 1, Payload: []byte(fmt.Sprint(i))}); err != nil {
			t.Fatal(err)
		}
	}
	for what, ch := range map[string]chan string{"3.1.1": got, "5": received} {
		seen := map[string]bool{}
		for len(seen) < n {
			select {
			case s := <-ch:
				seen[s] = true
			case <-time.After(patience):
				t.Fatalf("%s got %d of %d", what, len(seen), n)
			}
		}
	}
	if err := c.Disconnect(&paho.Disconnect{}); err != nil {
		t.Error(err)
	}
}
