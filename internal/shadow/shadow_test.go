package shadow_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/mqtt"
	"flotilla/internal/shadow"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// things is a registry.
type things map[string]bool

func (t things) DescribeThing(_ context.Context, in *iot.DescribeThingRequest) (*iot.DescribeThingResponse, error) {
	if !t[in.ThingName] {
		return nil, &iot.ResourceNotFoundException{Message: "no thing"}
	}
	return &iot.DescribeThingResponse{}, nil
}

// outbox keeps what is published, in order.
type outbox struct {
	mu       sync.Mutex
	messages []*mqtt.Message
	publish  func(*mqtt.Message) error  // called first, if set
	awaited  func(topic string) bool    // nil: everything is
	waiting  map[string][]*mqtt.Message // what waits for a client that is away
}

func (o *outbox) Awaited(topic string) bool { return o.awaited == nil || o.awaited(topic) }

func (o *outbox) Publish(ctx context.Context, m *mqtt.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if o.publish != nil {
		if err := o.publish(m); err != nil {
			return err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.messages = append(o.messages, m)
	if m.Place > 0 {
		if o.waiting == nil {
			o.waiting = map[string][]*mqtt.Message{}
		}
		o.withdraw(m.Topic, m.Place-1)
		o.waiting[m.Topic] = append(o.waiting[m.Topic], m)
	}
	return nil
}

func (o *outbox) Withdraw(ctx context.Context, topic string, upTo int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.withdraw(topic, upTo)
	return ctx.Err()
}

func (o *outbox) withdraw(topic string, upTo int64) {
	left := slices.DeleteFunc(o.waiting[topic], func(m *mqtt.Message) bool { return m.Place <= upTo })
	if len(left) == 0 {
		delete(o.waiting, topic)
	} else {
		o.waiting[topic] = left
	}
}

// forget removes what waits.
func (o *outbox) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.waiting)
}

// waits are the messages on topic that wait for a client that is away.
func (o *outbox) waits(topic string) []*mqtt.Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.waiting[topic])
}

func (o *outbox) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.messages = nil
}

func (o *outbox) all() []*mqtt.Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]*mqtt.Message(nil), o.messages...)
}

// topics are the topics of what was published since the last call.
func (o *outbox) topics() (topics string) {
	for _, m := range o.all() {
		topics += strings.TrimPrefix(m.Topic, "$aws/things/") + " "
	}
	o.reset()
	return strings.TrimSpace(topics)
}

func update(t *testing.T, s *shadow.Shadows, thing, name, payload string) string {
	t.Helper()
	in := &iotdata.UpdateThingShadowRequest{ThingName: thing, Payload: []byte(payload)}
	if name != "" {
		in.ShadowName = &name
	}
	out, err := s.UpdateThingShadow(context.Background(), in)
	if err != nil {
		t.Fatalf("update %s %s: %v", thing, name, err)
	}
	return string(out.Payload)
}

func version(t *testing.T, body string) (v int64) {
	t.Helper()
	var b struct{ Version *int64 }
	if err := json.Unmarshal([]byte(body), &b); err != nil || b.Version == nil {
		t.Fatalf("no version in %s", body)
	}
	return *b.Version
}

// The documents are published for those who await them, even if they came while the update was written.
func TestDocumentsAwaited(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		for _, c := range []struct {
			name    string
			answers []bool
			want    string
		}{
			{"by nobody", []bool{false, false}, "t/shadow/update/accepted"},
			{"all the time", []bool{true}, "t/shadow/update/documents t/shadow/update/accepted"},
			{"by one who comes meanwhile", []bool{false, true}, "t/shadow/update/documents t/shadow/update/accepted"},
		} {
			var out outbox
			s := shadow.New(db, things{"t": true}, &out, shadow.Config{Now: func() time.Time { return time.Unix(1000, 0) }})
			update(t, s, "t", "", `{"state":{"reported":{"a":1}}}`)
			before := out.all()[0].Payload
			out.reset()
			answers := c.answers
			out.awaited = func(topic string) bool {
				if topic != "$aws/things/t/shadow/update/documents" || len(answers) == 0 {
					t.Errorf("%s: asked about %s", c.name, topic)
					return false
				}
				answer := answers[0]
				answers = answers[1:]
				return answer
			}
			update(t, s, "t", "", `{"state":{"reported":{"a":2}}}`)
			if got := out.topics(); got != c.want || len(answers) > 0 {
				t.Errorf("%s: published %s, want %s; %d answers left", c.name, got, c.want, len(answers))
			}
			if got := out.all(); len(got) > 1 {
				var was, is struct{ Previous, Current json.RawMessage }
				if err := errors.Join(json.Unmarshal(before, &was), json.Unmarshal(got[0].Payload, &is)); err != nil {
					t.Fatal(err)
				}
				if string(is.Previous) != string(was.Current) || !strings.Contains(string(is.Current), `"a":2`) {
					t.Errorf("%s: documents %s after %s", c.name, got[0].Payload, before)
				}
			}
		}
	})
}

// HTTP writes publish what MQTT writes do, refusals apart.
func TestHTTP(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := context.Background()
		var out outbox
		s := shadow.New(db, things{"t": true}, &out, shadow.Config{Now: func() time.Time { return time.Unix(1000, 0) }})

		got := update(t, s, "t", "", `{"state":{"desired":{"a":1}}}`)
		if want := `{"state":{"desired":{"a":1}},"metadata":{"desired":{"a":{"timestamp":1000}}},"version":1,"timestamp":1000}`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got, want := out.topics(), "t/shadow/update/delta t/shadow/update/documents t/shadow/update/accepted"; got != want {
			t.Errorf("published %s, want %s", got, want)
		}
		read, err := s.GetThingShadow(ctx, &iotdata.GetThingShadowRequest{ThingName: "t"})
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"state":{"desired":{"a":1},"delta":{"a":1}},"metadata":{"desired":{"a":{"timestamp":1000}}},"version":1,"timestamp":1000}`; string(read.Payload) != want {
			t.Errorf("got %s, want %s", read.Payload, want)
		}
		forRules, err := s.ShadowDocument(ctx, "t", "")
		if err != nil || string(forRules) != string(read.Payload) {
			t.Errorf("for rules: %s, %v", forRules, err)
		}
		gone, err := s.DeleteThingShadow(ctx, &iotdata.DeleteThingShadowRequest{ThingName: "t"})
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"version":1,"timestamp":1000}`; string(gone.Payload) != want {
			t.Errorf("got %s, want %s", gone.Payload, want)
		}
		if got, want := out.topics(), "t/shadow/delete/accepted"; got != want {
			t.Errorf("published %s, want %s", got, want)
		}

		// Refusals are exceptions, and no messages.
		updateWith := func(thing, payload string) error {
			_, err := s.UpdateThingShadow(ctx, &iotdata.UpdateThingShadowRequest{ThingName: thing, Payload: []byte(payload)})
			return err
		}
		refused[*iotdata.InvalidRequestException](t, updateWith("t", `{`))
		refused[*iotdata.ConflictException](t, updateWith("t", `{"state":{},"version":7}`))
		refused[*iotdata.RequestEntityTooLargeException](t, updateWith("t", `{"state":{"desired":{"a":"`+strings.Repeat("x", 9000)+`"}}}`))
		refused[*iotdata.UnsupportedDocumentEncodingException](t, updateWith("t", "\xff"))
		refused[*iotdata.ResourceNotFoundException](t, updateWith("u", `{"state":{}}`))
		_, err = s.GetThingShadow(ctx, &iotdata.GetThingShadowRequest{ThingName: "t", ShadowName: new("n")})
		if e := refused[*iotdata.ResourceNotFoundException](t, err); e != nil && e.Message != "No shadow exists with name: 't~n'" {
			t.Error(e.Message)
		}
		_, err = s.GetThingShadow(ctx, &iotdata.GetThingShadowRequest{ThingName: "u"})
		if e := refused[*iotdata.ResourceNotFoundException](t, err); e != nil && e.Message != "Thing not found" {
			t.Error(e.Message)
		}
		_, err = s.DeleteThingShadow(ctx, &iotdata.DeleteThingShadowRequest{ThingName: "t"})
		refused[*iotdata.ResourceNotFoundException](t, err)
		if got := out.topics(); got != "" {
			t.Errorf("refusals published %s", got)
		}
	})
}

func refused[E error](t *testing.T, err error) (e E) {
	t.Helper()
	e, ok := errors.AsType[E](err)
	if !ok {
		t.Errorf("got %v (%T), want %T", err, err, e)
	}
	return e
}

// On AWS a client that was away gets all deltas.
func TestEveryDelta(t *testing.T) {
	for _, c := range []struct {
		cfg  shadow.Config
		last bool
	}{
		{shadow.Config{}, true},
		{shadow.Config{Limits: "unlimited"}, true},
		{shadow.Config{Limits: "aws"}, false},
		{shadow.Config{EveryDelta: true}, false},
	} {
		var out outbox
		s := shadow.New(storetest.Open(t), things{"t": true}, &out, c.cfg)
		update(t, s, "t", "", `{"state":{"desired":{"a":1}}}`)
		if m := out.all()[0]; m.Topic != "$aws/things/t/shadow/update/delta" || (m.Place == 1) != c.last || !c.last && m.Place != 0 {
			t.Errorf("%+v: %s has place %d", c.cfg, m.Topic, m.Place)
		}
	}
}

func TestMQTTRefusals(t *testing.T) {
	var out outbox
	s := shadow.New(storetest.Open(t), things{"t": true}, &out, shadow.Config{Now: func() time.Time { return time.Unix(5, 0) }})
	for _, c := range []struct{ topic, payload, want string }{
		{"t/shadow/get", `{"clientToken":"c"}`, `t/shadow/get/rejected {"code":404,"message":"No shadow exists with name: 't'","timestamp":5,"clientToken":"c"}`},
		{"t/shadow/name/n/delete", ``, `t/shadow/name/n/delete/rejected {"code":404,"message":"No shadow exists with name: 't~n'","timestamp":5}`},
		{"u/shadow/update", `{"state":{},"clientToken":"c"}`, `u/shadow/update/rejected {"code":404,"message":"Thing not found","timestamp":5,"clientToken":"c"}`},
		{"t/shadow/name/no good/update", `{"state":{}}`, `t/shadow/name/no good/update/rejected {"code":400,"message":"Invalid shadow name","timestamp":5}`},
		{"t/shadow/get", `x`, `t/shadow/get/rejected {"code":400,"message":"Invalid JSON","timestamp":5}`},
	} {
		out.reset()
		if err := s.ServeMQTT(context.Background(), &mqtt.Message{Topic: "$aws/things/" + c.topic, Payload: []byte(c.payload)}); err != nil {
			t.Errorf("%s: %v", c.topic, err)
		}
		var got string
		for _, m := range out.all() {
			got += strings.TrimPrefix(m.Topic, "$aws/things/") + " " + string(m.Payload)
		}
		if got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.topic, got, c.want)
		}
	}
	out.reset()
	for _, topic := range []string{"$aws/things/t/shadow/update/accepted", "$aws/things/t/shadow/name/get", "$aws/things/t/jobs/get", "x"} {
		if err := s.ServeMQTT(context.Background(), &mqtt.Message{Topic: topic}); !errors.Is(err, mqtt.TopicNameInvalid) {
			t.Errorf("%s: %v", topic, err)
		}
	}
	if got := out.topics(); got != "" {
		t.Errorf("published %s", got)
	}
}

func TestListNamedShadows(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := context.Background()
		s := shadow.New(db, things{"t": true, "empty": true}, &outbox{}, shadow.Config{})
		update(t, s, "t", "", `{"state":{}}`)
		for i := range 30 {
			update(t, s, "t", fmt.Sprintf("s%02d", i), `{"state":{}}`)
		}
		if _, err := s.DeleteThingShadow(ctx, &iotdata.DeleteThingShadowRequest{ThingName: "t", ShadowName: new("s03")}); err != nil {
			t.Fatal(err)
		}
		var names []string
		in := &iotdata.ListNamedShadowsForThingRequest{ThingName: "t", PageSize: new(int32(7))}
		for pages := 0; ; pages++ {
			page, err := s.ListNamedShadowsForThing(ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, page.Results...)
			if in.NextToken = page.NextToken; in.NextToken == nil {
				break
			}
		}
		if len(names) != 29 || names[0] != "s00" || names[3] != "s04" || names[28] != "s29" {
			t.Errorf("got %v", names)
		}
		none, err := s.ListNamedShadowsForThing(ctx, &iotdata.ListNamedShadowsForThingRequest{ThingName: "empty"})
		if err != nil || len(none.Results) != 0 || none.NextToken != nil {
			t.Errorf("of a thing without shadows: %v, %v", none, err)
		}
		_, err = s.ListNamedShadowsForThing(ctx, &iotdata.ListNamedShadowsForThingRequest{ThingName: "u"})
		refused[*iotdata.ResourceNotFoundException](t, err)
		_, err = s.ListNamedShadowsForThing(ctx, &iotdata.ListNamedShadowsForThingRequest{ThingName: "t", NextToken: new("%")})
		refused[*iotdata.InvalidRequestException](t, err)
		_, err = s.ListNamedShadowsForThing(ctx, &iotdata.ListNamedShadowsForThingRequest{ThingName: "t", PageSize: new(int32(101))})
		refused[*iotdata.InvalidRequestException](t, err)
	})
}

// A successor within 48 hours continues the version, a later one begins anew;
// with the thing everything goes.
func TestVersionAfterDeletion(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := context.Background()
		now := time.Unix(1_700_000_000, 0)
		s := shadow.New(db, things{"t": true}, &outbox{}, shadow.Config{Now: func() time.Time { return now }})
		remove := func() {
			t.Helper()
			if _, err := s.DeleteThingShadow(ctx, &iotdata.DeleteThingShadowRequest{ThingName: "t"}); err != nil {
				t.Fatal(err)
			}
		}
		next := func(want int64) {
			t.Helper()
			if got := version(t, update(t, s, "t", "", `{"state":{"desired":{"a":1}}}`)); got != want {
				t.Errorf("version %d, want %d", got, want)
			}
		}
		next(1)
		next(2)
		remove()
		now = now.Add(48*time.Hour - time.Second)
		if err := s.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		next(3)
		remove()
		now = now.Add(48 * time.Hour)
		next(1) // before the sweep
		remove()
		now = now.Add(48 * time.Hour)
		if err := s.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if n := rows(t, db); n != 0 {
			t.Errorf("%d rows after the sweep", n)
		}
		next(1)
		next(2)
		update(t, s, "t", "n", `{"state":{}}`)
		// As part of a larger transaction that fails, then of one that does not.
		fail := errors.New("no")
		if err := db.Write(ctx, func(ctx context.Context, _ store.Tx) error {
			return errors.Join(s.DeleteAll(ctx, "t"), fail)
		}); !errors.Is(err, fail) {
			t.Fatal(err)
		}
		next(3)
		if err := s.DeleteAll(ctx, "t"); err != nil {
			t.Fatal(err)
		}
		if n := rows(t, db); n != 0 {
			t.Errorf("%d rows of a deleted thing", n)
		}
		next(1)
	})
}

func rows(t *testing.T, db *store.DB) (n int64) {
	t.Helper()
	if err := db.Read(context.Background(), func(_ context.Context, tx store.Tx) error {
		return tx.QueryRow(`SELECT COUNT(*) FROM shadow`).Scan(&n)
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestUnregisteredThings(t *testing.T) {
	s := shadow.New(storetest.Open(t), things{}, &outbox{}, shadow.Config{UnregisteredThings: true})
	update(t, s, "unknown", "", `{"state":{}}`)
}

// Under AWS's limits the eleventh request of a thing in flight is refused, and
// other things' are not.
func TestInFlight(t *testing.T) {
	entered, release := make(chan struct{}, 20), make(chan struct{})
	out := outbox{publish: func(*mqtt.Message) error {
		entered <- struct{}{}
		<-release
		return nil
	}}
	s := shadow.New(storetest.Open(t), things{"t": true, "u": true}, &out, shadow.Config{Limits: "aws"})
	var wg sync.WaitGroup
	send := func(thing, name string) {
		wg.Go(func() {
			_, err := s.UpdateThingShadow(context.Background(), &iotdata.UpdateThingShadowRequest{ThingName: thing, ShadowName: &name, Payload: []byte(`{"state":{}}`)})
			if err != nil {
				t.Error(err)
			}
		})
		<-entered
	}
	for i := range 10 {
		send("t", fmt.Sprintf("s%d", i))
	}
	_, err := s.GetThingShadow(context.Background(), &iotdata.GetThingShadowRequest{ThingName: "t"})
	refused[*iotdata.ThrottlingException](t, err)
	send("u", "s")
	close(release)
	wg.Wait()
	_, err = s.GetThingShadow(context.Background(), &iotdata.GetThingShadowRequest{ThingName: "t"})
	refused[*iotdata.ResourceNotFoundException](t, err)
}

// Under AWS's limits a thing may ask 20 times a second, and other things' requests
// do not count; the profile's limits can be lifted one by one.
func TestRate(t *testing.T) {
	now := time.Unix(1000, 0)
	ask := func(s *shadow.Shadows, thing string) error {
		_, err := s.GetThingShadow(t.Context(), &iotdata.GetThingShadowRequest{ThingName: thing})
		return err
	}
	open := func(cfg shadow.Config) *shadow.Shadows {
		cfg.Now = func() time.Time { return now }
		s := shadow.New(storetest.Open(t), things{"t": true, "u": true}, &outbox{}, cfg)
		update(t, s, "u", "", `{"state":{}}`)
		return s
	}
	s := open(shadow.Config{Limits: "aws"})
	for range 20 {
		refused[*iotdata.ResourceNotFoundException](t, ask(s, "t"))
	}
	refused[*iotdata.ThrottlingException](t, ask(s, "t"))
	if err := ask(s, "u"); err != nil {
		t.Error(err)
	}
	now = now.Add(100 * time.Millisecond)
	for range 2 {
		refused[*iotdata.ResourceNotFoundException](t, ask(s, "t"))
	}
	refused[*iotdata.ThrottlingException](t, ask(s, "t"))
	now = now.Add(time.Hour)
	for range 20 {
		refused[*iotdata.ResourceNotFoundException](t, ask(s, "t"))
	}
	refused[*iotdata.ThrottlingException](t, ask(s, "t"))

	for _, cfg := range []shadow.Config{{}, {Limits: "unlimited"}, {Limits: "aws", MaxPerSecond: -1}} {
		s := open(cfg)
		for range 100 {
			if err := ask(s, "u"); err != nil {
				t.Fatalf("%+v: %v", cfg, err)
			}
		}
	}
}

// Documents' size and depth by profile: AWS's are the default's too.
func TestDocumentLimits(t *testing.T) {
	payload := func(size, depth int) []byte {
		return []byte(`{"state":{"reported":` + strings.Repeat(`{"a":`, depth) + `"` + strings.Repeat("x", size) + `"` + strings.Repeat("}", depth) + `}}`)
	}
	for _, c := range []struct {
		limits      string
		size, depth int
		want        int // HTTP status
	}{
		{"aws", 8100, 6, 200},
		{"aws", 8200, 6, 413},
		{"aws", 1, 7, 400},
		{"default", 8100, 6, 200},
		{"default", 8200, 1, 413},
		{"default", 1, 7, 400},
		{"unlimited", 60_000, 64, 200},
		{"unlimited", 66_000, 1, 413},
		{"unlimited", 1, 65, 400},
	} {
		s := shadow.New(storetest.Open(t), things{"t": true}, &outbox{}, shadow.Config{Limits: c.limits})
		_, err := s.UpdateThingShadow(t.Context(), &iotdata.UpdateThingShadowRequest{ThingName: "t", Payload: payload(c.size, c.depth)})
		switch c.want {
		case 400:
			refused[*iotdata.InvalidRequestException](t, err)
		case 413:
			refused[*iotdata.RequestEntityTooLargeException](t, err)
		default:
			if err != nil {
				t.Errorf("%+v: %v", c, err)
			}
		}
	}
}

// What the service publishes has QoS 1 and is not retained; the content of a
// request to delete is ignored but for its token.
//
// AWS: device-shadow-mqtt.html#delete-pub-sub-topic
func TestReplies(t *testing.T) {
	var out outbox
	s := shadow.New(storetest.Open(t), things{"t": true}, &out, shadow.Config{Now: func() time.Time { return time.Unix(5, 0) }})
	for _, c := range []struct{ payload, want string }{
		{``, `{"version":1,"timestamp":5}`},
		{`{"clientToken":"c"}`, `{"version":2,"timestamp":5,"clientToken":"c"}`},
		{`not JSON`, `{"version":3,"timestamp":5}`},
		{`[1]`, `{"version":4,"timestamp":5}`},
		{"\xff", `{"version":5,"timestamp":5}`},
		{`{"clientToken":7}`, `{"version":6,"timestamp":5}`},
	} {
		update(t, s, "t", "", `{"state":{"desired":{"a":1}}}`)
		out.reset()
		if err := s.ServeMQTT(t.Context(), &mqtt.Message{Topic: "$aws/things/t/shadow/delete", Payload: []byte(c.payload), QoS: 0, Retain: true}); err != nil {
			t.Fatal(err)
		}
		all := out.all()
		if len(all) != 1 || all[0].Topic != "$aws/things/t/shadow/delete/accepted" || all[0].QoS != 1 || all[0].Retain {
			t.Fatalf("%q: %+v", c.payload, all)
		}
		if string(all[0].Payload) != c.want {
			t.Errorf("%q: got %s, want %s", c.payload, all[0].Payload, c.want)
		}
	}
}

// Requests of both doors are counted by how they ended.
func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := shadow.New(storetest.Open(t), things{"t": true}, &outbox{}, shadow.Config{Metrics: registry})
	update(t, s, "t", "", `{"state":{"desired":{"a":1}}}`)
	for _, topic := range []string{"get", "update", "name/n/get"} {
		if err := s.ServeMQTT(t.Context(), &mqtt.Message{Topic: "$aws/things/t/shadow/" + topic, Payload: []byte(`{}`)}); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]float64{}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), "flotilla_shadow_")
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	want := map[string]float64{
		"deltas_total": 1, "requests_in_progress": 0,
		"requests_total 200 get": 1, "requests_total 404 get": 1, "requests_total 200 update": 1, "requests_total 400 update": 1,
		"requests_total 200 delete": 0, "requests_total 200 restore": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A client that goes away does not keep others from hearing of its update.
func TestClientGone(t *testing.T) {
	var out outbox
	s := shadow.New(storetest.Open(t), things{"t": true}, &out, shadow.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.ServeMQTT(ctx, &mqtt.Message{Topic: "$aws/things/t/shadow/update", Payload: []byte(`{"state":{}}`)}); err != nil {
		t.Fatal(err)
	}
	if got, want := out.topics(), "t/shadow/update/documents t/shadow/update/accepted"; got != want {
		t.Errorf("published %s, want %s", got, want)
	}
}

// A message that cannot be published is an error, not a refusal, and does not
// hold up the shadow.
func TestPublisherFails(t *testing.T) {
	broken := errors.New("broken")
	out := outbox{publish: func(m *mqtt.Message) error {
		if strings.HasSuffix(m.Topic, "/documents") {
			return broken
		}
		return nil
	}}
	s := shadow.New(storetest.Open(t), things{"t": true}, &out, shadow.Config{})
	for range 2 {
		err := s.ServeMQTT(context.Background(), &mqtt.Message{Topic: "$aws/things/t/shadow/update", Payload: []byte(`{"state":{}}`)})
		if !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	}
	if got, want := out.topics(), "t/shadow/update/accepted t/shadow/update/accepted"; got != want {
		t.Errorf("published %s, want %s", got, want)
	}
}
