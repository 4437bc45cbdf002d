package e2e_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/google/go-cmp/cmp"

	"flotilla/internal/api/client"
	"flotilla/internal/push"
	"flotilla/internal/server/servertest"
)

const configTopic = "$aws/things/%s/shadow/name/config/%s"

// configured lets a thing's device follow its shadow config: answer is what it
// reports on a delta.
func configured(t *testing.T, n *servertest.Node, id servertest.Identity, thing string, answer func(version int64, state json.RawMessage) string) {
	t.Helper()
	done := make(chan struct{})
	t.Cleanup(func() { <-done }) // after the connection's end
	dev := connect5(t, n, id, thing)
	dev.subscribe(t, 1, fmt.Sprintf(configTopic, thing, "update/delta"))
	go func() {
		defer close(done)
		for {
			select {
			case m := <-dev.got:
				var delta struct {
					Version int64
					State   json.RawMessage
				}
				if err := json.Unmarshal(m.Payload, &delta); err != nil {
					t.Errorf("delta: %v", err)
					return
				}
				report := publish5(fmt.Sprintf(configTopic, thing, "update"))
				report.Payload = []byte(answer(delta.Version, delta.State))
				if _, err := dev.Publish(deadline(t), report); err != nil {
					return // the test is over
				}
			case <-dev.Done():
				return
			}
		}
	}()
}

func statuses(r *push.Report) map[string]push.Status {
	out := map[string]push.Status{}
	for _, t := range r.Open {
		out[t.Name] = t.Status
	}
	return out
}

// A slice of the fleet that a query finds, with devices that apply, refuse, and
// stay away.
func TestConfigPush(t *testing.T) {
	d := servertest.Start(t)
	n := d.Node(0)
	everyone := []string{"pump-apply", "pump-away", "pump-refuse"}
	for _, name := range append(slices.Clone(everyone), "valve") {
		if _, err := n.IoT().CreateThing(t.Context(), &iot.CreateThingInput{ThingName: &name}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.IoT().UpdateIndexingConfiguration(t.Context(), &iot.UpdateIndexingConfigurationInput{
		ThingIndexingConfiguration: &types.ThingIndexingConfiguration{ThingIndexingMode: types.ThingIndexingModeRegistry},
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the index has the fleet", func() bool {
		found, err := n.IoT().SearchIndex(t.Context(), &iot.SearchIndexInput{QueryString: new("thingName:pump*")})
		return err == nil && len(found.Things) == len(everyone)
	})
	id := n.Identity(t, "pumps", "iot:Connect client/pump-*", "iot:Publish topic/$aws/things/pump-*", "iot:Receive topic/$aws/things/pump-*", "iot:Subscribe topicfilter/$aws/things/pump-*")
	configured(t, d.Node(1), id, "pump-apply", func(_ int64, state json.RawMessage) string {
		return fmt.Sprintf(`{"state":{"reported":%s}}`, state)
	})
	configured(t, d.Node(1), id, "pump-refuse", func(version int64, _ json.RawMessage) string {
		return fmt.Sprintf(`{"state":{"reported":{"configStatus":{"version":%d,"status":"FAILED","reason":"no such mode"}}}}`, version)
	})

	api := client.New(n.Endpoints().API, "us-east-1", n.AccessKey, n.Secret)
	options := func(desired string, timeout time.Duration) push.Options {
		return push.Options{
			Slice: push.Slice{Query: "thingName:pump*"}, Shadow: "config", Desired: []byte(desired),
			Timeout: timeout, Interval: 20 * time.Millisecond,
		}
	}
	// It ends early only if nothing is pending, so the one that is away is left out at first.
	o := options(`{"mode":"eco","limits":{"max":7}}`, patience)
	o.Slice = push.Slice{Things: []string{"pump-apply", "pump-refuse"}}
	r, err := push.Run(t.Context(), api, o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Applied != 1 || r.Failed != 1 || r.Written != 2 || r.Done() || r.Open[0].Reason != "no such mode" {
		t.Fatalf("%+v", r)
	}
	// The query has the third one: the first two are found as they are.
	r, err = push.Run(t.Context(), api, options(`{"mode":"eco","limits":{"max":7}}`, time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if want := (push.Counts{Things: 3, Looked: 3, Written: 1, Unchanged: 2, Pending: 1, Applied: 1, Failed: 1}); r.Counts != want {
		t.Errorf("%+v", r.Counts)
	}
	if diff := cmp.Diff(map[string]push.Status{"pump-refuse": push.Failed, "pump-away": push.Pending}, statuses(r)); diff != "" {
		t.Error(diff)
	}
	// A failure is about a version: the next push waits for another answer.
	o = options(`{"mode":"full"}`, 0)
	o.Slice = push.Slice{Things: []string{"pump-away"}}
	if r, err = push.Run(t.Context(), api, o); err != nil || r.Pending != 1 {
		t.Fatalf("%+v %v", r, err)
	}
	// The device comes, reads its shadow, and applies what is in it: one delta.
	away := connect5(t, d.Node(1), id, "pump-away")
	away.subscribe(t, 1, fmt.Sprintf(configTopic, "pump-away", "get/accepted"), fmt.Sprintf(configTopic, "pump-away", "update/accepted"))
	away.publish(t, fmt.Sprintf(configTopic, "pump-away", "get"), "", 1)
	delta, err := json.Marshal(parse(t, away.next(t).Payload).State.Delta)
	if want := `{"limits":{"max":7},"mode":"full"}`; err != nil || string(delta) != want {
		t.Errorf("delta %s, want %s (%v)", delta, want, err)
	}
	away.publish(t, fmt.Sprintf(configTopic, "pump-away", "update"), fmt.Sprintf(`{"state":{"reported":%s}}`, delta), 1)
	away.next(t)
	if r, err = push.Run(t.Context(), api, o); err != nil || !r.Done() || r.Unchanged != 1 {
		t.Errorf("%+v %v", r, err)
	}
	// Somebody else has overwritten it in the meantime: a push of the older state writes again.
	o = options(`{"mode":"eco"}`, 0)
	if r, err = push.Run(t.Context(), api, o); err != nil || r.Written != 1 || r.Unchanged != 2 {
		t.Errorf("%+v %v", r, err)
	}
}
