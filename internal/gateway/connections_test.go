package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"flotilla/internal/aws/flotilla"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/gateway"
	"flotilla/internal/gateway/mesh"
	"flotilla/internal/mqtt"
)

// mute adds a member to the nodes that answers no question.
func mute(t *testing.T, one *world) {
	t.Helper()
	b := openBus(t, "mute", one.deps.Bus.URL())
	m := mesh.New(b, steady, mesh.Handlers{Answer: func(context.Context, []byte) ([]byte, error) { return nil, errors.New("mute") }})
	t.Cleanup(m.Close)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func isA[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

func TestGetConnectionReachesAllNodes(t *testing.T) {
	one, two := startNodes(t)
	get := func(w *world, id string) (*iotdata.GetConnectionResponse, error) {
		return w.DataPlane().GetConnection(t.Context(), &iotdata.GetConnectionRequest{ClientId: id, IncludeSocketInformation: new(true)})
	}
	if _, err := get(one, "there"); !isA[*iotdata.ResourceNotFoundException](err) {
		t.Errorf("nobody: %v", err)
	}
	there, _ := two.connect(t, "there")
	for _, w := range []*world{one, two} {
		out, err := get(w, "there")
		if err != nil {
			t.Fatal(err)
		}
		if !*out.Connected || !*out.CleanSession || *out.KeepAliveDuration != 60 || *out.SourceIp != "127.0.0.1" || *out.SourcePort == 0 || out.SessionExpiry != nil {
			t.Errorf("connected: %+v", out)
		}
	}
	there.disconnect()
	eventually(t, "the end is known", func() bool {
		out, err := get(one, "there")
		return err == nil && !*out.Connected && *out.DisconnectReason == "CLIENT_INITIATED_DISCONNECT" && *out.DisconnectedSince >= *out.ConnectedSince
	})
	// A client that has moved is where it is now, whoever is asked.
	here, _ := one.connect(t, "there", persistent)
	for _, w := range []*world{one, two} {
		if out, err := get(w, "there"); err != nil || !*out.Connected || *out.CleanSession || *out.SessionExpiry != 600 {
			t.Errorf("moved: %+v %v", out, err)
		}
	}
	here.quiet()
	mute(t, one)
	eventually(t, "what nobody knows for sure is not said", func() bool {
		_, err := get(two, "nobody")
		return isA[*iotdata.ServiceUnavailableException](err) && strings.Contains(err.Error(), "mute")
	})
	if out, err := get(two, "there"); err != nil || !*out.Connected {
		t.Errorf("with a node that does not answer: %+v %v", out, err)
	}
}

func TestListSubscriptionsReachesAllNodes(t *testing.T) {
	one, two := startNodes(t)
	there, _ := two.connect(t, "there")
	var want []string
	for i := range 7 {
		want = append(want, fmt.Sprintf("a/%d", i))
	}
	there.subscribe(1, want...)
	for _, w := range []*world{one, two} {
		var got []string
		in := &iotdata.ListSubscriptionsRequest{ClientId: "there", MaxResults: new(int32(3))}
		for {
			out, err := w.DataPlane().ListSubscriptions(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if len(out.Subscriptions) > 3 {
				t.Fatalf("a page of %d", len(out.Subscriptions))
			}
			for _, s := range out.Subscriptions {
				got = append(got, s.TopicFilter)
				if s.Qos != 1 {
					t.Errorf("%+v", s)
				}
			}
			if in.NextToken = out.NextToken; out.NextToken == nil {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	}
	_, err := one.DataPlane().ListSubscriptions(t.Context(), &iotdata.ListSubscriptionsRequest{ClientId: "nobody"})
	if !isA[*iotdata.ResourceNotFoundException](err) {
		t.Errorf("nobody: %v", err)
	}
}

func TestDirectMessagesReachAllNodes(t *testing.T) {
	one, two := startNodes(t)
	there, _ := two.connect(t, "there")
	send := func(client, topic string, confirm bool, timeout int32) <-chan error {
		result := make(chan error, 1)
		go func() {
			_, err := one.DataPlane().SendDirectMessage(context.Background(), &iotdata.SendDirectMessageRequest{
				ClientId: client, Topic: topic, Payload: []byte("now"), Confirmation: &confirm, Timeout: &timeout, ContentType: new("text/plain"),
			})
			result <- err
		}()
		return result
	}
	if err := <-send("there", "direct/x", false, 5); err != nil {
		t.Fatal(err)
	}
	if m := there.message(); m.QoS != 0 || string(m.Payload) != "now" || string(m.Topic) != "direct/x" || m.Properties.ContentType != "text/plain" {
		t.Errorf("got %+v", m)
	}
	result := send("there", "direct/x", true, 15)
	m := next[*mqtt.Publish](there)
	select {
	case err := <-result:
		t.Fatalf("answered before the PUBACK: %v", err)
	default:
	}
	there.send(&mqtt.Ack{Type: mqtt.PUBACK, PacketID: m.PacketID})
	if err := <-result; err != nil || m.QoS != 1 {
		t.Errorf("confirmed: %v %+v", err, m)
	}
	if err := <-send("there", "direct/x", true, 1); !isA[*iotdata.GatewayTimeoutException](err) {
		t.Errorf("without a PUBACK: %v", err)
	}
	if err := <-send("nobody", "direct/x", true, 5); !isA[*iotdata.ResourceNotFoundException](err) {
		t.Errorf("nobody: %v", err)
	}
	two.rules.allow(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}`)
	if err := <-send("there", "direct/x", true, 5); !isA[*iotdata.ForbiddenException](err) {
		t.Errorf("forbidden: %v", err)
	}
	if n := two.Denials("there"); len(n) != 1 || n[0].Action != "iot:Receive" {
		t.Errorf("denials %+v", n)
	}
}

func TestDeleteConnectionReachesAllNodes(t *testing.T) {
	one, two := startNodes(t)
	watcher, _ := one.connect(t, "watcher")
	watcher.subscribe(1, "will/+", "$aws/events/presence/disconnected/+")
	withWill := func(p *mqtt.Connect) { p.Will = &mqtt.Will{Topic: "will/" + p.ClientID, Payload: []byte("gone")} }
	remove := func(id string, noWill, wipe bool) error {
		_, err := one.DataPlane().DeleteConnection(t.Context(), &iotdata.DeleteConnectionRequest{ClientId: id, PreventWillMessage: &noWill, CleanSession: &wipe})
		return err
	}
	end := func(c *client) {
		t.Helper()
		if d := c.gone(); d == nil || d.Code != mqtt.AdministrativeAction {
			t.Errorf("DISCONNECT %+v", d)
		}
	}
	if err := remove("loud", false, false); !isA[*iotdata.ResourceNotFoundException](err) {
		t.Errorf("nobody: %v", err)
	}
	loud, _ := two.connect(t, "loud", persistent, withWill)
	loud.subscribe(1, "x")
	if err := remove("loud", false, false); err != nil {
		t.Fatal(err)
	}
	end(loud)
	got := map[string]string{}
	for range 2 {
		m := watcher.message()
		got[string(m.Topic)] = string(m.Payload)
	}
	if got["will/loud"] != "gone" || !strings.Contains(got["$aws/events/presence/disconnected/loud"], "API_INITIATED_DISCONNECT") {
		t.Errorf("got %v", got)
	}
	if _, ack := one.connect(t, "loud", persistent); !ack.SessionPresent {
		t.Error("the session is gone")
	}
	silent, _ := two.connect(t, "silent", persistent, withWill)
	silent.subscribe(1, "x")
	if err := remove("silent", true, true); err != nil {
		t.Fatal(err)
	}
	end(silent)
	if m := watcher.message(); string(m.Topic) != "$aws/events/presence/disconnected/silent" {
		t.Errorf("got %s", m.Topic)
	}
	if _, ack := one.connect(t, "silent", persistent); ack.SessionPresent {
		t.Error("the session is still there")
	}
	if err := remove("nobody", false, false); !isA[*iotdata.ResourceNotFoundException](err) {
		t.Errorf("nobody: %v", err)
	}
	mute(t, one)
	eventually(t, "a node that does not answer is named", func() bool {
		err := remove("nobody", false, false)
		return isA[*iotdata.ServiceUnavailableException](err) && strings.Contains(err.Error(), "mute")
	})
}

func TestRefusalsOfAllNodesAreExplained(t *testing.T) {
	one, two := startNodes(t)
	const narrow = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}`
	for _, w := range []*world{one, two} {
		w.rules.allow(t, narrow)
	}
	long := strings.Repeat("x", 5000)
	refusedOn := func(w *world, topic string) {
		t.Helper()
		c, _ := w.connect(t, "moves")
		if codes := c.subscribe(1, topic); !codes[0].Failed() {
			t.Fatal("subscribed")
		}
	}
	refusedOn(one, "first")
	refusedOn(two, "second")
	refusedOn(one, "third/"+long)
	for i, w := range []*world{one, two} {
		out, err := w.ExplainClient(t.Context(), &flotilla.ExplainClientRequest{ClientId: "moves"})
		if err != nil {
			t.Fatal(err)
		}
		if *out.NodeId != []string{"one", "two"}[i] || !*out.Connected || *out.ConnectedTo != "one" || len(out.UnansweredNodes) != 0 || len(out.Refusals) != 3 {
			t.Fatalf("%+v", out)
		}
		for j, want := range []struct{ node, topic string }{{"one", "first"}, {"two", "second"}, {"one", "third/"}} {
			r := out.Refusals[j]
			if *r.NodeId != want.node || !strings.HasPrefix(*r.Resource, want.topic) || *r.Action != "iot:Subscribe" || len(*r.Resource) > 2000 {
				t.Errorf("refusal %d: %s %s %s", j, *r.NodeId, *r.Action, *r.Resource)
			}
		}
	}
	mute(t, one)
	eventually(t, "the node that does not answer is named", func() bool {
		out, err := two.ExplainClient(t.Context(), &flotilla.ExplainClientRequest{ClientId: "moves"})
		return err == nil && slices.Equal(out.UnansweredNodes, []string{"mute"}) && len(out.Refusals) == 3
	})
}

// TestAskOthers puts a question of another room: whoever knows it answers, and the others are named.
func TestAskOthers(t *testing.T) {
	echo := func(node string) func(*gateway.Config, *gateway.Deps) {
		return func(_ *gateway.Config, d *gateway.Deps) {
			d.Asked = map[string]func(context.Context, []byte) ([]byte, error){"room.echo": func(_ context.Context, question []byte) ([]byte, error) {
				return fmt.Appendf(nil, `{"node":%q,"asked":%s}`, node, question), nil
			}}
		}
	}
	first := openBus(t, "one", "")
	one := start(t, func(_ *gateway.Config, d *gateway.Deps) { d.Bus = first }, echo("one"))
	two := one.another(t, "two", echo("two"))
	for other, w := range map[string]*world{"two": one, "one": two} {
		eventually(t, "the other node answers", func() bool {
			answers, silent := w.AskOthers(t.Context(), "room.echo", []byte(`{"a":1}`))
			return len(silent) == 0 && len(answers) == 1 && string(answers[other]) == `{"node":"`+other+`","asked":{"a":1}}`
		})
	}
	if answers, silent := one.AskOthers(t.Context(), "room.unknown", []byte(`{}`)); len(answers) != 0 || !slices.Equal(silent, []string{"two"}) {
		t.Errorf("answers %q, silent %q", answers, silent)
	}
}
