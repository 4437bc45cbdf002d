package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"
	"github.com/eclipse/paho.golang/paho"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"

	"flotilla/internal/server/servertest"
)

// everything lets a client do what it likes below test/.
var everything = []string{
	"iot:Connect client/*", "iot:Publish topic/test/*", "iot:Receive topic/test/*", "iot:Subscribe topicfilter/test/*", "iot:RetainPublish topic/test/*",
}

func TestMessageBetweenVersions(t *testing.T) {
	d := servertest.Start(t)
	id := d.Node(0).Identity(t, "all", everything...)
	b := connect3(t, d.Node(1), id, "b")
	done(t, b.Subscribe("test/+/x", 1, nil), "subscribe")
	a := connect5(t, d.Node(0), id, "a")
	a.subscribe(t, 1, "test/back/#")
	a.publish(t, "test/a/x", "hello", 1)
	if m := b.next(t); m.Topic() != "test/a/x" || string(m.Payload()) != "hello" || m.Qos() != 1 {
		t.Errorf("got %s %q at QoS %d", m.Topic(), m.Payload(), m.Qos())
	}
	done(t, b.Publish("test/back/y", 0, false, "again"), "publish")
	if m := a.next(t); m.Topic != "test/back/y" || string(m.Payload) != "again" || m.QoS != 0 {
		t.Errorf("got %s %q at QoS %d", m.Topic, m.Payload, m.QoS)
	}
}

func TestPersistentSessionGetsWhatItMissed(t *testing.T) {
	d := servertest.Start(t)
	id := d.Node(0).Identity(t, "all", everything...)
	b := connect5(t, d.Node(1), id, "b", persistent)
	b.subscribe(t, 1, "test/offline/+")
	if err := b.Disconnect(&paho.Disconnect{}); err != nil {
		t.Fatal(err)
	}
	b.gone(t)
	a := connect5(t, d.Node(0), id, "a")
	const n = 50
	for i := range n {
		a.publish(t, "test/offline/x", fmt.Sprint(i), 1)
	}
	// It may come back to any node.
	for _, node := range []int{0, 1} {
		again := connect5(t, d.Node(node), id, "b", persistent)
		if !again.connack.SessionPresent {
			t.Fatal("the session is not there")
		}
		if node == 0 {
			for i := range n {
				if got := string(again.next(t).Payload); got != fmt.Sprint(i) {
					t.Fatalf("message %d is %s", i, got)
				}
			}
		}
		a.publish(t, "test/offline/x", "live", 1)
		if got := string(again.next(t).Payload); got != "live" {
			t.Fatalf("then came %s", got)
		}
	}
}

func TestRetained(t *testing.T) {
	d := servertest.Start(t)
	id := d.Node(0).Identity(t, "all", everything...)
	a := connect3(t, d.Node(0), id, "a")
	done(t, a.Publish("test/retained", 1, true, "kept"), "publish")
	b := connect5(t, d.Node(1), id, "b")
	b.subscribe(t, 1, "test/retained")
	if m := b.next(t); string(m.Payload) != "kept" || !m.Retain {
		t.Errorf("got %q, retain %v", m.Payload, m.Retain)
	}
	done(t, a.Publish("test/retained", 1, true, ""), "clear")
	if m := b.next(t); len(m.Payload) != 0 {
		t.Errorf("got %q", m.Payload)
	}
	c := connect5(t, d.Node(1), id, "c")
	c.subscribe(t, 1, "test/retained", "test/marker")
	a.Publish("test/marker", 1, false, "end")
	if m := c.next(t); m.Topic != "test/marker" {
		t.Errorf("got %s %q: the retained message was not cleared", m.Topic, m.Payload)
	}
}

func TestWillAndTakeOver(t *testing.T) {
	d := servertest.Start(t)
	id := d.Node(0).Identity(t, "all", everything...)
	watcher := connect5(t, d.Node(0), id, "watcher")
	watcher.subscribe(t, 1, "test/will")
	first := connect5(t, d.Node(1), id, "twice", func(cp *paho.Connect) {
		cp.WillMessage = &paho.WillMessage{Topic: "test/will", Payload: []byte("gone"), QoS: 1}
	})
	connect5(t, d.Node(0), id, "twice")
	first.gone(t)
	select {
	case p := <-first.lost:
		if p.ReasonCode != 0x8e {
			t.Errorf("reason %#x, want session taken over", p.ReasonCode)
		}
	case <-time.After(patience): // Paho tells of it on a goroutine of its own
		t.Error("no DISCONNECT came")
	}
	if m := watcher.next(t); string(m.Payload) != "gone" {
		t.Errorf("will %q", m.Payload)
	}
}

func TestPoliciesDecide(t *testing.T) {
	d := servertest.Start(t)
	id := d.Node(0).Identity(t, "narrow",
		"iot:Connect client/${iot:Connection.Thing.ThingName}", "iot:Publish topic/test/${iot:ClientId}/*",
		"iot:Subscribe topicfilter/test/mine", "iot:Receive topic/test/none")
	cloud := d.Node(0).IoT()
	if _, err := cloud.CreateThing(t.Context(), &iot.CreateThingInput{ThingName: new("pump")}); err != nil {
		t.Fatal(err)
	}
	if _, err := cloud.AttachThingPrincipal(t.Context(), &iot.AttachThingPrincipalInput{ThingName: new("pump"), Principal: &id.ARN}); err != nil {
		t.Fatal(err)
	}
	if _, err := dial5(t, d.Node(1), id, "other"); err == nil {
		t.Error("a client id that the policy does not name could connect")
	}
	c := connect5(t, d.Node(1), id, "pump")
	c.publish(t, "test/pump/a", "x", 1)
	if _, err := c.Publish(deadline(t), &paho.Publish{Topic: "test/other/a", QoS: 1}); err == nil {
		t.Error("a topic that the policy does not name was published")
	}
	c = connect5(t, d.Node(1), id, "pump")
	if _, err := c.Subscribe(deadline(t), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "test/other"}}}); err == nil {
		t.Error("a filter that the policy does not name was subscribed")
	}
}

func TestRevocationIsFollowed(t *testing.T) {
	d := servertest.Start(t)
	id := d.Node(0).Identity(t, "all", everything...)
	c := connect5(t, d.Node(1), id, "c")
	c.publish(t, "test/x", "x", 1)
	start := time.Now()
	if _, err := d.Node(0).IoT().UpdateCertificate(t.Context(), &iot.UpdateCertificateInput{
		CertificateId: &id.ID, NewStatus: types.CertificateStatusInactive,
	}); err != nil {
		t.Fatal(err)
	}
	c.gone(t)
	t.Logf("disconnected after %s", time.Since(start))
	if _, err := dial5(t, d.Node(1), id, "c"); err == nil {
		t.Error("an inactive certificate could connect")
	}
	if _, err := d.Node(1).IoT().UpdateCertificate(t.Context(), &iot.UpdateCertificateInput{
		CertificateId: &id.ID, NewStatus: types.CertificateStatusActive,
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connect with the certificate active again", func() bool {
		_, err := dial5(t, d.Node(0), id, "c")
		return err == nil
	})
}

func TestDetachedPolicyIsFollowed(t *testing.T) {
	d := servertest.Start(t)
	id := d.Node(0).Identity(t, "all", everything...)
	c := connect5(t, d.Node(1), id, "c")
	c.publish(t, "test/x", "x", 1)
	if _, err := d.Node(0).IoT().DetachPolicy(t.Context(), &iot.DetachPolicyInput{PolicyName: new("all"), Target: &id.ARN}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "publish refused", func() bool {
		_, err := c.Publish(deadline(t), &paho.Publish{Topic: "test/x", QoS: 1})
		return err != nil
	})
}

func TestAPIPublishReachesDevices(t *testing.T) {
	d := servertest.Start(t)
	id := d.Node(0).Identity(t, "all", everything...)
	b := connect3(t, d.Node(1), id, "b", func(o *mqtt3.ClientOptions) { o.SetCleanSession(true) })
	done(t, b.Subscribe("test/api", 1, nil), "subscribe")
	if _, err := d.Node(0).Data().Publish(t.Context(), &iotdataplane.PublishInput{Topic: new("test/api"), Qos: 1, Payload: []byte("from the back end")}); err != nil {
		t.Fatal(err)
	}
	if m := b.next(t); string(m.Payload()) != "from the back end" {
		t.Errorf("got %q", m.Payload())
	}
}
