package e2e_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"
	"github.com/eclipse/paho.golang/paho"
	mqtt3 "github.com/eclipse/paho.mqtt.golang"

	"flotilla/internal/server/servertest"
)

const (
	pumpDelta    = "$aws/things/pump/shadow/update/delta"
	pumpAccepted = "$aws/things/pump/shadow/update/accepted"
	pumpGet      = "$aws/things/pump/shadow/get"
)

// desire makes changes of the pump's desired state, n of them, from both sides of the deployment, and returns the last version.
func desire(t *testing.T, d *servertest.Deployment, n int) (version int64) {
	t.Helper()
	for i := range n {
		version = desired(t, d.Node(i), fmt.Sprintf(`{"speed":%d,"mode":"m%d"}`, i+1, i%7))
	}
	return version
}

// desired updates the pump's desired state; null takes it away.
func desired(t *testing.T, n *servertest.Node, state string) int64 {
	t.Helper()
	out, err := n.Data().UpdateThingShadow(t.Context(), &iotdataplane.UpdateThingShadowInput{
		ThingName: new("pump"), Payload: []byte(`{"state":{"desired":` + state + `}}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, out.Payload).Version
}

// away leaves a persistent session behind that listens to deltas. clientID has not been connected before: that its end is known means that
// it is stored.
func away(t *testing.T, n *servertest.Node, id servertest.Identity, clientID string) {
	t.Helper()
	dev := connect5(t, n, id, clientID, persistent)
	dev.subscribe(t, 1, pumpDelta)
	if err := dev.Disconnect(&paho.Disconnect{}); err != nil {
		t.Fatal(err)
	}
	dev.gone(t)
	eventually(t, clientID+" to be away", func() bool {
		out, err := n.Data().GetConnection(t.Context(), &iotdataplane.GetConnectionInput{ClientId: &clientID})
		return err == nil && !out.Connected
	})
}

// until collects what comes to the device up to the first message on topic.
func (d *device5) until(t *testing.T, topic string) (before []*paho.Publish, last *paho.Publish) {
	t.Helper()
	for {
		m := d.next(t)
		if m.Topic == topic {
			return before, m
		}
		before = append(before, m)
	}
}

// A device was away while its desired state changed a thousand times. Back with its session it finds one delta: the present one. It reports that,
// and nothing is left to do.
func TestCatchUp(t *testing.T) {
	d := servertest.Start(t)
	pump(t, d.Node(0))
	id := d.Node(0).Identity(t, "pump", shadowPolicy...)
	away(t, d.Node(1), id, "pump")
	const changes = 1000
	version := desire(t, d, changes)
	want := map[string]any{"speed": float64(changes), "mode": fmt.Sprintf("m%d", (changes-1)%7)}

	dev := connect5(t, d.Node(0), id, "pump", persistent)
	if !dev.connack.SessionPresent {
		t.Fatal("the session is gone")
	}
	dev.subscribe(t, 1, pumpGet+"/accepted", pumpAccepted, pumpDelta)
	dev.publish(t, pumpGet, `{"clientToken":"back"}`, 1)
	deltas, got := dev.until(t, pumpGet+"/accepted")
	if len(deltas) != 1 {
		t.Fatalf("%d messages came for a thousand changes", len(deltas))
	}
	if delta := stateOf(t, deltas[0]); deltas[0].Topic != pumpDelta || delta.Version != version || fmt.Sprint(delta.State) != fmt.Sprint(want) {
		t.Errorf("%s %s, want %v in version %d", deltas[0].Topic, deltas[0].Payload, want, version)
	}
	if doc := parse(t, got.Payload); doc.Version != version || fmt.Sprint(doc.State.Delta) != fmt.Sprint(want) || doc.ClientToken != "back" {
		t.Errorf("get/accepted %s, want delta %v in version %d", got.Payload, want, version)
	}
	dev.publish(t, "$aws/things/pump/shadow/update", fmt.Sprintf(`{"state":{"reported":{"speed":%d,"mode":%q}},"version":%d}`, changes, want["mode"], version), 1)
	before, m := dev.until(t, pumpAccepted)
	if got := parse(t, m.Payload).Version; len(before) != 0 || got != version+1 {
		t.Errorf("%d messages before the acceptance, version %d", len(before), got)
	}
	// It is here: each change is told.
	for i := range 3 {
		v := desired(t, d.Node(i), fmt.Sprintf(`{"speed":%d}`, 5000+i))
		_, m := dev.until(t, pumpDelta)
		if delta := stateOf(t, m); delta.Version != v || delta.State["speed"] != float64(5000+i) {
			t.Errorf("delta %s, want version %d", m.Payload, v)
		}
	}
}

type deltaBody struct {
	State   map[string]any
	Version int64
}

func stateOf(t *testing.T, m *paho.Publish) deltaBody {
	t.Helper()
	var b deltaBody
	if err := json.Unmarshal(m.Payload, &b); err != nil {
		t.Fatalf("%v in %s", err, m.Payload)
	}
	return b
}

// What was desired meanwhile and is not any more does not reach a device that was away: not after it was taken back, nor with the shadow deleted.
func TestCatchUpWithNothing(t *testing.T) {
	d := servertest.Start(t)
	pump(t, d.Node(0))
	id := d.Node(0).Identity(t, "pump", shadowPolicy...)
	data := d.Node(0).Data()
	for clientID, end := range map[string]func(){
		"taken-back": func() { desired(t, d.Node(0), `{"speed":null,"mode":null}`) },
		"deleted": func() {
			if _, err := data.DeleteThingShadow(t.Context(), &iotdataplane.DeleteThingShadowInput{ThingName: new("pump")}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(clientID, func(t *testing.T) {
			away(t, d.Node(1), id, clientID)
			desire(t, d, 10)
			end()
			dev := connect5(t, d.Node(0), id, clientID, persistent)
			dev.subscribe(t, 1, pumpGet+"/accepted", pumpGet+"/rejected")
			dev.publish(t, pumpGet, "", 1)
			if m := dev.next(t); m.Topic == pumpDelta {
				t.Errorf("a delta came: %s", m.Payload)
			}
			if err := dev.Disconnect(&paho.Disconnect{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// The flow of AWS's device SDKs with a clean session, by MQTT 3.1.1: subscribe, get, apply the delta of get/accepted, report.
func TestCatchUpClean(t *testing.T) {
	d := servertest.Start(t)
	pump(t, d.Node(0))
	id := d.Node(0).Identity(t, "pump", shadowPolicy...)
	version := desire(t, d, 100)
	dev := connect3(t, d.Node(1), id, "pump")
	for _, filter := range []string{pumpGet + "/accepted", pumpDelta, pumpAccepted} {
		done(t, dev.Subscribe(filter, 1, nil), "subscribe "+filter)
	}
	done(t, dev.Publish(pumpGet, 1, false, ""), "get")
	m := dev.next(t)
	doc := parse(t, m.Payload())
	if m.Topic() != pumpGet+"/accepted" || doc.Version != version || doc.State.Delta["speed"] != 100.0 {
		t.Fatalf("%s %s, want version %d", m.Topic(), m.Payload(), version)
	}
	done(t, dev.Publish("$aws/things/pump/shadow/update", 1, false, fmt.Sprintf(`{"state":{"reported":{"speed":100,"mode":"m1"}},"version":%d}`, version)), "report")
	if m := dev.next(t); m.Topic() != pumpAccepted || parse(t, m.Payload()).Version != version+1 {
		t.Errorf("%s %s: a delta is left", m.Topic(), m.Payload())
	}
}

// reports is what devices were told about their shadows.
type reports struct {
	mu       sync.Mutex
	accepted map[string]deviceReport // by thing
}

type deviceReport struct {
	n       int
	version int64
}

// TestKillShadows kills the server while devices report over MQTT and a back end desires: each accepted update is there afterwards, the versions go
// on from there, and a device that was away finds one delta: what is desired.
func TestKillShadows(t *testing.T) {
	dir := t.TempDir()
	p := startProcess(t, dir)
	id := p.Identity(t, "all", "iot:Connect client/*", "iot:Publish topic/$aws/things/*", "iot:Receive topic/$aws/things/*", "iot:Subscribe topicfilter/$aws/things/*")
	pump(t, p.Node)
	const devices = 8
	for i := range devices {
		if _, err := p.IoT().CreateThing(t.Context(), &iot.CreateThingInput{ThingName: new(fmt.Sprint("thing", i))}); err != nil {
			t.Fatal(err)
		}
	}
	away(t, p.Node, id, "pump")
	told := &reports{accepted: map[string]deviceReport{}}
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for round := range rounds {
		told.run(t, p, id, devices, round)
		t.Logf("round %d: %v accepted before the kill", round, told.accepted)
		p = startProcess(t, dir)
		told.check(t, p, id)
	}
}

// run has devices report, each update once the one before was accepted, and kills the server in the middle.
func (r *reports) run(t *testing.T, p *process, id servertest.Identity, devices, round int) {
	t.Helper()
	stop, accepted := make(chan struct{}), make(chan struct{}, 1<<16)
	var wg sync.WaitGroup
	for i := range devices {
		thing := fmt.Sprint("thing", i)
		prefix := "$aws/things/" + thing + "/shadow/update"
		answers := make(chan mqtt3.Message, 16)
		dev := connect3(t, p.Node, id, fmt.Sprintf("%s-%d", thing, round))
		done(t, dev.Subscribe(prefix+"/+", 1, func(_ mqtt3.Client, m mqtt3.Message) {
			select {
			case answers <- m:
			default:
			}
		}), "subscribe")
		wg.Go(func() {
			for n := round * 1_000_000; ; n++ {
				dev.Publish(prefix, 1, false, fmt.Sprintf(`{"state":{"reported":{"n":%d}}}`, n))
				for answered := false; !answered; {
					select {
					case <-stop:
						return
					case m := <-answers:
						switch {
						case m.Topic() == prefix+"/rejected":
							t.Errorf("%s: %s", thing, m.Payload())
							return
						case m.Topic() == prefix+"/accepted":
							var b document
							if err := json.Unmarshal(m.Payload(), &b); err != nil {
								t.Error(err)
								return
							}
							r.set(thing, deviceReport{n, b.Version})
							answered = true
							accepted <- struct{}{}
						}
					}
				}
			}
		})
	}
	wg.Go(func() {
		for n := round * 1_000_000; ; n++ {
			out, err := p.Data().UpdateThingShadow(t.Context(), &iotdataplane.UpdateThingShadowInput{
				ThingName: new("pump"), Payload: fmt.Appendf(nil, `{"state":{"desired":{"n":%d}}}`, n),
			})
			if err != nil {
				return // killed
			}
			var b document
			if err := json.Unmarshal(out.Payload, &b); err != nil {
				t.Error(err)
				return
			}
			r.set("pump", deviceReport{n, b.Version})
		}
	})
	for range 400 {
		select {
		case <-accepted:
		case <-time.After(patience):
			t.Fatal("no load came about")
		}
	}
	p.kill(t)
	close(stop)
	wg.Wait()
}

func (r *reports) set(thing string, now deviceReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accepted[thing] = now
}

// check compares what the restarted server has with what was accepted: that, or one update more, whose answer was lost.
func (r *reports) check(t *testing.T, p *process, id servertest.Identity) {
	t.Helper()
	for thing, was := range r.accepted {
		out, err := p.Data().GetThingShadow(t.Context(), &iotdataplane.GetThingShadowInput{ThingName: &thing})
		if err != nil {
			t.Fatal(err)
		}
		now := parse(t, out.Payload)
		section := now.State.Reported
		if thing == "pump" {
			section = now.State.Desired
		}
		n, ok := section["n"].(float64)
		if more := now.Version - was.version; !ok || more < 0 || more > 1 || int64(n) != int64(was.n)+more {
			t.Errorf("%s has %s, n = %d in version %d was accepted", thing, out.Payload, was.n, was.version)
		}
		r.accepted[thing] = deviceReport{int(n), now.Version}
		up, err := p.Data().UpdateThingShadow(t.Context(), &iotdataplane.UpdateThingShadowInput{ThingName: &thing, Payload: []byte(`{"state":{}}`)})
		if err != nil {
			t.Fatal(err)
		}
		if next := parse(t, up.Payload).Version; next != now.Version+1 {
			t.Errorf("%s: version %d follows %d", thing, next, now.Version)
		}
	}
	// The delta was queued, unless its update was not announced: the empty update above has queued it again.
	dev := connect5(t, p.Node, id, "pump", persistent)
	m := dev.next(t)
	if delta := stateOf(t, m); m.Topic != pumpDelta || delta.State["n"] != float64(r.accepted["pump"].n) {
		t.Errorf("%s %s, want n = %d", m.Topic, m.Payload, r.accepted["pump"].n)
	}
	dev.subscribe(t, 0, pumpGet+"/accepted") // at QoS 1 it might come again to the next connection, its PUBACK being lost in the DISCONNECT
	dev.publish(t, pumpGet, "", 1)
	if before, _ := dev.until(t, pumpGet+"/accepted"); len(before) != 0 {
		t.Errorf("%d messages came after the delta", len(before))
	}
	if err := dev.Disconnect(&paho.Disconnect{}); err != nil {
		t.Fatal(err)
	}
	dev.gone(t)
}
