package e2e_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane/types"

	"flotilla/internal/server/servertest"
)

var shadowPolicy = []string{
	"iot:Connect client/*", "iot:Publish topic/$aws/things/*", "iot:Receive topic/$aws/things/*", "iot:Subscribe topicfilter/$aws/things/*",
	"iot:GetThingShadow thing/pump", "iot:UpdateThingShadow thing/pump", "iot:Publish topic/test/*",
}

func pump(t *testing.T, n *servertest.Node) {
	t.Helper()
	if _, err := n.IoT().CreateThing(t.Context(), &iot.CreateThingInput{ThingName: new("pump")}); err != nil {
		t.Fatal(err)
	}
}

type document struct {
	State struct {
		Desired, Reported, Delta map[string]any
	}
	Version     int64
	ClientToken string
	Code        int
	Message     string
}

func parse(t *testing.T, b []byte) (d document) {
	t.Helper()
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return d
}

func TestShadowFromBackEndToDevice(t *testing.T) {
	d := servertest.Start(t)
	pump(t, d.Node(0))
	id := d.Node(0).Identity(t, "pump", shadowPolicy...)
	dev := connect5(t, d.Node(1), id, "pump")
	dev.subscribe(t, 1, "$aws/things/pump/shadow/update/delta", "$aws/things/pump/shadow/update/accepted", "$aws/things/pump/shadow/update/rejected")
	data := d.Node(0).Data()
	up, err := data.UpdateThingShadow(t.Context(), &iotdataplane.UpdateThingShadowInput{
		ThingName: new("pump"), Payload: []byte(`{"state":{"desired":{"speed":7}}}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	if v := parse(t, up.Payload).Version; v != 1 {
		t.Errorf("version %d", v)
	}
	sawDelta := false
	for range 2 { // accepted and delta, in either order
		m := dev.next(t)
		if m.Topic == "$aws/things/pump/shadow/update/delta" {
			sawDelta = true
		}
	}
	if !sawDelta {
		t.Fatal("no delta")
	}
	dev.publish(t, "$aws/things/pump/shadow/update", `{"state":{"reported":{"speed":7}},"clientToken":"t1"}`, 1)
	if m := dev.next(t); parse(t, m.Payload).ClientToken != "t1" || m.Topic != "$aws/things/pump/shadow/update/accepted" {
		t.Errorf("%s %s", m.Topic, m.Payload)
	}
	// The other node sees what was accepted.
	got, err := data.GetThingShadow(t.Context(), &iotdataplane.GetThingShadowInput{ThingName: new("pump")})
	if err != nil {
		t.Fatal(err)
	}
	if doc := parse(t, got.Payload); doc.Version != 2 || doc.State.Reported["speed"] != 7.0 || len(doc.State.Delta) != 0 {
		t.Errorf("shadow %s", got.Payload)
	}
	// Optimistic locking, at each door.
	_, err = data.UpdateThingShadow(t.Context(), &iotdataplane.UpdateThingShadowInput{
		ThingName: new("pump"), Payload: []byte(`{"state":{"desired":{"speed":8}},"version":1}`),
	})
	var conflict *types.ConflictException
	if !errors.As(err, &conflict) {
		t.Errorf("stale version: %v", err)
	}
	dev.publish(t, "$aws/things/pump/shadow/update", `{"state":{"reported":{"speed":8}},"version":1}`, 1)
	if m := dev.next(t); parse(t, m.Payload).Code != 409 {
		t.Errorf("%s %s", m.Topic, m.Payload)
	}
}

func TestNamedShadow(t *testing.T) {
	d := servertest.Start(t)
	pump(t, d.Node(0))
	data := d.Node(0).Data()
	for _, name := range []string{"config", "state"} {
		if _, err := data.UpdateThingShadow(t.Context(), &iotdataplane.UpdateThingShadowInput{
			ThingName: new("pump"), ShadowName: &name, Payload: []byte(`{"state":{"desired":{"a":1}}}`),
		}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := d.Node(1).Data().ListNamedShadowsForThing(t.Context(), &iotdataplane.ListNamedShadowsForThingInput{ThingName: new("pump")})
	if err != nil || len(list.Results) != 2 {
		t.Errorf("%v %v", list, err)
	}
	if _, err := data.DeleteThingShadow(t.Context(), &iotdataplane.DeleteThingShadowInput{ThingName: new("pump"), ShadowName: new("state")}); err != nil {
		t.Fatal(err)
	}
	_, err = data.GetThingShadow(t.Context(), &iotdataplane.GetThingShadowInput{ThingName: new("pump"), ShadowName: new("state")})
	var missing *types.ResourceNotFoundException
	if !errors.As(err, &missing) {
		t.Errorf("deleted shadow: %v", err)
	}
}

// Devices that speak HTTPS with their certificate.
func TestHTTPSWithCertificate(t *testing.T) {
	d := servertest.Start(t)
	pump(t, d.Node(0))
	id := d.Node(0).Identity(t, "pump", shadowPolicy...)
	client := func(n *servertest.Node, cfg *tls.Config) *http.Client {
		return &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}, Timeout: patience}
	}
	n := d.Node(1)
	https := client(n, n.ClientTLS(id))
	base := "https://" + n.Endpoints().HTTPS
	call := func(c *http.Client, method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(deadline(t), method, base+path, bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if code, body := call(https, "POST", "/things/pump/shadow", `{"state":{"reported":{"on":true}}}`); code != 200 {
		t.Errorf("update: %d %s", code, body)
	}
	if code, body := call(https, "GET", "/things/pump/shadow", ""); code != 200 || parse(t, []byte(body)).State.Reported["on"] != true {
		t.Errorf("get: %d %s", code, body)
	}
	if code, _ := call(https, "GET", "/things/other/shadow", ""); code != 403 {
		t.Errorf("another thing's shadow: %d", code)
	}
	listener := d.Node(0).Identity(t, "listener", everything...)
	sub := connect5(t, d.Node(0), listener, "listener")
	sub.subscribe(t, 1, "test/#")
	if code, body := call(https, "POST", "/topics/test/https?qos=1", "over https"); code != 200 {
		t.Errorf("publish: %d %s", code, body)
	}
	if m := sub.next(t); m.Topic != "test/https" || string(m.Payload) != "over https" {
		t.Errorf("got %s %q", m.Topic, m.Payload)
	}
	if code, _ := call(https, "POST", "/topics/secret/x?qos=1", "no"); code != 403 {
		t.Errorf("publish elsewhere: %d", code)
	}
	bare := n.ClientTLS(id)
	bare.Certificates = nil
	if code, _ := call(client(n, bare), "GET", "/things/pump/shadow", ""); code != 403 {
		t.Errorf("no certificate: %d", code)
	}
}
