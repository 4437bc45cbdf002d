package e2e_test

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"

	"flotilla/internal/server/servertest"
)

const patience = time.Minute

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// device5 is a connection by Eclipse Paho, MQTT 5.
type device5 struct {
	*paho.Client
	got     chan *paho.Publish
	lost    chan *paho.Disconnect // the server's DISCONNECT
	connack *paho.Connack
}

func connect5(t testing.TB, n *servertest.Node, id servertest.Identity, clientID string, change ...func(*paho.Connect)) *device5 {
	t.Helper()
	d, err := dial5(t, n, id, clientID, change...)
	if err != nil {
		t.Fatalf("connect %s: %v", clientID, err)
	}
	return d
}

func dial5(t testing.TB, n *servertest.Node, id servertest.Identity, clientID string, change ...func(*paho.Connect)) (*device5, error) {
	t.Helper()
	ctx := deadline(t)
	conn, err := (&tls.Dialer{Config: n.ClientTLS(id)}).DialContext(ctx, "tcp", n.Endpoints().MQTT)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	d := &device5{got: make(chan *paho.Publish, 4096), lost: make(chan *paho.Disconnect, 1)}
	d.Client = paho.NewClient(paho.ClientConfig{
		Conn: packets.NewThreadSafeConn(conn),
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			d.got <- p.Packet
			return true, nil
		}},
		OnServerDisconnect: func(p *paho.Disconnect) {
			select {
			case d.lost <- p:
			default:
			}
		},
		PacketTimeout: patience,
	})
	cp := &paho.Connect{ClientID: clientID, KeepAlive: 60, CleanStart: true}
	for _, c := range change {
		c(cp)
	}
	d.connack, err = d.Connect(ctx, cp)
	return d, err
}

func persistent(cp *paho.Connect) {
	cp.CleanStart = false
	cp.Properties = &paho.ConnectProperties{SessionExpiryInterval: new(uint32(3600))}
}

func (d *device5) subscribe(t testing.TB, qos byte, filters ...string) {
	t.Helper()
	s := &paho.Subscribe{}
	for _, f := range filters {
		s.Subscriptions = append(s.Subscriptions, paho.SubscribeOptions{Topic: f, QoS: qos})
	}
	if _, err := d.Subscribe(deadline(t), s); err != nil {
		t.Fatalf("subscribe %v: %v", filters, err)
	}
}

func (d *device5) publish(t testing.TB, topic, payload string, qos byte) {
	t.Helper()
	if _, err := d.Publish(deadline(t), &paho.Publish{Topic: topic, QoS: qos, Payload: []byte(payload)}); err != nil {
		t.Fatalf("publish %s: %v", topic, err)
	}
}

// next waits for a message.
func (d *device5) next(t testing.TB) *paho.Publish {
	t.Helper()
	select {
	case p := <-d.got:
		return p
	case <-time.After(patience):
		t.Fatal("no message came")
		return nil
	}
}

// gone waits until the server has ended the connection.
func (d *device5) gone(t testing.TB) {
	t.Helper()
	select {
	case <-d.Done():
	case <-time.After(patience):
		t.Fatal("the connection is still there")
	}
}

// device3 is a connection by Eclipse Paho, MQTT 3.1.1.
type device3 struct {
	mqtt3.Client
	got chan mqtt3.Message
}

func connect3(t testing.TB, n *servertest.Node, id servertest.Identity, clientID string, change ...func(*mqtt3.ClientOptions)) *device3 {
	t.Helper()
	d := &device3{got: make(chan mqtt3.Message, 4096)}
	opts := mqtt3.NewClientOptions().
		AddBroker("ssl://" + n.Endpoints().MQTT).SetTLSConfig(n.ClientTLS(id)).SetClientID(clientID).
		SetProtocolVersion(4).SetAutoReconnect(false).SetConnectTimeout(patience).
		SetDefaultPublishHandler(func(_ mqtt3.Client, m mqtt3.Message) { d.got <- m })
	for _, c := range change {
		c(opts)
	}
	d.Client = mqtt3.NewClient(opts)
	done(t, d.Connect(), "connect "+clientID)
	t.Cleanup(func() { d.Disconnect(0) })
	return d
}

func done(t testing.TB, token mqtt3.Token, what string) {
	t.Helper()
	if !token.WaitTimeout(patience) {
		t.Fatalf("%s: no answer", what)
	}
	if err := token.Error(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func (d *device3) next(t testing.TB) mqtt3.Message {
	t.Helper()
	select {
	case m := <-d.got:
		return m
	case <-time.After(patience):
		t.Fatal("no message came")
		return nil
	}
}

// eventually waits until ok is true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); ; {
		if ok() {
			return
		}
		select {
		case <-end:
			t.Fatalf("%s: not within %s", what, patience)
		case <-tick.C:
		}
	}
}

func publish5(topic string) *paho.Publish { return &paho.Publish{Topic: topic, QoS: 1} }
