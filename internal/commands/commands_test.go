package commands_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotjobsdata"
	"flotilla/internal/commands"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

const arn = "arn:aws:iot:us-east-1:123456789012:"

// world is a room and what it works with.
type world struct {
	*commands.Commands
	t   testing.TB
	ctx context.Context
	db  *store.DB

	mu       sync.Mutex
	now      time.Time
	messages []*mqtt.Message
	fail     error // of Publish
	tags     map[string]int
}

func newWorld(t testing.TB, db *store.DB, cfg commands.Config) *world {
	t.Helper()
	w := &world{t: t, ctx: t.Context(), db: db, now: time.UnixMilli(1_800_000_000_000), tags: map[string]int{}}
	w.Commands = commands.New(cfg, commands.Deps{
		Account: aws.Account{ID: "123456789012", Region: "us-east-1"}, DB: db, Things: w, Publisher: w, Tags: w, Events: w,
		Now: func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
	})
	return w
}

// DescribeThing knows all things but none.
func (w *world) DescribeThing(_ context.Context, in *iot.DescribeThingRequest) (*iot.DescribeThingResponse, error) {
	if in.ThingName == "none" {
		return nil, &iot.ResourceNotFoundException{Message: "none"}
	}
	return &iot.DescribeThingResponse{}, nil
}

func (w *world) Publish(_ context.Context, m *mqtt.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return w.fail
	}
	w.messages = append(w.messages, m)
	return nil
}

// Awaited tells that everything is awaited.
func (w *world) Awaited(string) bool { return true }

func (w *world) Emit(ctx context.Context, topic string, payload []byte) error {
	w.db.AfterCommit(ctx, func() { _ = w.Publish(ctx, &mqtt.Message{Topic: topic, Payload: payload}) })
	return nil
}

func (w *world) TagResource(_ context.Context, in *iot.TagResourceRequest) (*iot.TagResourceResponse, error) {
	w.tags[in.ResourceArn] = len(in.Tags)
	return &iot.TagResourceResponse{}, nil
}

func (w *world) DeleteTags(_ context.Context, resource string) error {
	delete(w.tags, resource)
	return nil
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// said takes the messages so far.
func (w *world) said() []*mqtt.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.messages
	w.messages = nil
	return m
}

func ok[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (w *world) create(id, payload, contentType string) {
	w.t.Helper()
	ok[*iot.CreateCommandResponse](w.t)(w.CreateCommand(w.ctx, &iot.CreateCommandRequest{
		CommandId: id, Payload: &iot.CommandPayload{Content: []byte(payload), ContentType: &contentType},
	}))
}

func (w *world) start(command, target string) string {
	w.t.Helper()
	return *ok[*iotjobsdata.StartCommandExecutionResponse](w.t)(w.StartCommandExecution(w.ctx, &iotjobsdata.StartCommandExecutionRequest{
		CommandArn: arn + "command/" + command, TargetArn: arn + target,
	})).ExecutionId
}

func (w *world) execution(target, id string) *iot.GetCommandExecutionResponse {
	w.t.Helper()
	return ok[*iot.GetCommandExecutionResponse](w.t)(w.GetCommandExecution(w.ctx, &iot.GetCommandExecutionRequest{
		ExecutionId: id, TargetArn: arn + target, IncludeResult: new(true),
	}))
}

// answer publishes an answer and gives "" when it was accepted, else the code of the refusal.
func (w *world) answer(topic, payload string) string {
	w.t.Helper()
	w.said()
	if err := w.ServeMQTT(w.ctx, &mqtt.Message{Topic: topic, Payload: []byte(payload)}); err != nil {
		w.t.Fatal(err)
	}
	for _, m := range w.said() {
		var a struct{ Error string }
		if strings.Contains(m.Topic, "/response/") {
			if err := json.Unmarshal(m.Payload, &a); err != nil {
				w.t.Fatal(err)
			}
			if strings.Contains(m.Topic, "/accepted") != (a.Error == "") {
				w.t.Errorf("%s: %s", m.Topic, m.Payload)
			}
			return a.Error
		}
	}
	w.t.Fatal("no answer")
	return ""
}

func TestExecution(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, commands.Config{})
		w.create("reboot", `{"in":5}`, "application/json")
		id := w.start("reboot", "thing/lamp")
		base := "$aws/commands/things/lamp/executions/" + id
		said := w.said()
		if len(said) != 2 || said[0].Topic != "$aws/events/commandExecution/reboot/CREATED" || said[1].Topic != base+"/request/json" || string(said[1].Payload) != `{"in":5}` || said[1].QoS != 1 ||
			said[1].Properties.ContentType != "application/json" || *said[1].Properties.MessageExpiry != 10 || said[1].Properties.ResponseTopic != base+"/response/json" {
			t.Fatalf("%+v", said)
		}
		if e := w.execution("thing/lamp", id); *e.Status != "CREATED" || *e.ExecutionTimeoutSeconds != 10 || e.StartedAt != nil {
			t.Errorf("%+v", e)
		}
		w.advance(time.Second)
		if code := w.answer(base+"/response/json", `{"status":"IN_PROGRESS","statusReason":{"reasonCode":"WAIT","reasonDescription":"soon"}}`); code != "" {
			t.Error(code)
		}
		if e := w.execution("thing/lamp", id); *e.Status != "IN_PROGRESS" || e.StatusReason.ReasonCode != "WAIT" || e.StartedAt.UnixMilli() != 1_800_000_001_000 || e.CompletedAt != nil {
			t.Errorf("%+v", e)
		}
		if code := w.answer(base+"/response", `{"status":"SUCCEEDED","result":{"volts":{"s":"3.3"},"ok":{"b":true},"raw":{"bin":"AQI="}}}`); code != "" {
			t.Error(code)
		}
		e := w.execution("thing/lamp", id)
		if *e.Status != "SUCCEEDED" || *e.Result["volts"].S != "3.3" || !*e.Result["ok"].B || string(e.Result["raw"].BIN) != "\x01\x02" || e.StatusReason != nil || e.CompletedAt == nil {
			t.Errorf("%+v", e)
		}
		if code := w.answer(base+"/response/json", `{"status":"FAILED"}`); code != "TerminalStateReached" {
			t.Errorf("after the end: %q", code)
		}
		if code := w.answer("$aws/commands/clients/lamp/executions/"+id+"/response/json", `{"status":"FAILED"}`); code != "ResourceNotFound" {
			t.Errorf("of another target: %q", code)
		}
		ok[*iot.DeleteCommandExecutionResponse](t)(w.DeleteCommandExecution(w.ctx, &iot.DeleteCommandExecutionRequest{ExecutionId: id, TargetArn: arn + "thing/lamp"}))
		if _, err := w.GetCommandExecution(w.ctx, &iot.GetCommandExecutionRequest{ExecutionId: id, TargetArn: arn + "thing/lamp"}); !errors.As(err, new(*iot.ResourceNotFoundException)) {
			t.Errorf("after its deletion: %v", err)
		}
	})
}

func TestCBORAnswer(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, commands.Config{})
		w.create("read", "\x01", "application/cbor")
		id := w.start("read", "client/c 1")
		base := "$aws/commands/clients/c 1/executions/" + id
		if said := w.said(); said[1].Topic != base+"/request/cbor" || said[1].Properties.PayloadFormat != nil {
			t.Errorf("%+v", said[1])
		}
		payload := ok[[]byte](t)(cbor.Marshal(map[string]any{"status": "FAILED", "result": map[string]any{"raw": map[string]any{"bin": []byte{1, 2}}}}))
		if err := w.ServeMQTT(w.ctx, &mqtt.Message{Topic: base + "/response/cbor", Payload: payload}); err != nil {
			t.Fatal(err)
		}
		said := w.said()
		var a map[string]string
		if err := cbor.Unmarshal(said[len(said)-1].Payload, &a); err != nil || said[len(said)-1].Topic != base+"/response/accepted/cbor" || a["executionId"] != id {
			t.Errorf("%s %v %v", said[len(said)-1].Topic, a, err)
		}
		if e := w.execution("client/c 1", id); *e.Status != "FAILED" || string(e.Result["raw"].BIN) != "\x01\x02" {
			t.Errorf("%+v", e)
		}
	})
}

// An execution times out; its device may still say how it ended, once.
func TestTimeout(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, commands.Config{})
		w.create("c", "x", "text/plain")
		id := w.start("c", "thing/lamp")
		if said := w.said(); !strings.HasSuffix(said[1].Topic, "/request") {
			t.Errorf("%s", said[1].Topic)
		}
		ctx, cancel := context.WithCancel(w.ctx)
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		defer func() { cancel(); <-done }()
		w.advance(9 * time.Second)
		if e := w.execution("thing/lamp", id); *e.Status != "CREATED" {
			t.Errorf("%s", *e.Status)
		}
		w.advance(time.Second)
		for deadline := time.Now().Add(time.Minute); *w.execution("thing/lamp", id).Status != "TIMED_OUT"; {
			if time.Now().After(deadline) {
				t.Fatal("it does not time out")
			}
			<-time.After(10 * time.Millisecond)
		}
		if e := w.execution("thing/lamp", id); e.StatusReason.ReasonCode != "$NO_RESPONSE_FROM_DEVICE" || e.CompletedAt == nil {
			t.Errorf("%+v", e)
		}
		base := "$aws/commands/things/lamp/executions/" + id + "/response/json"
		if code := w.answer(base, `{"status":"IN_PROGRESS"}`); code != "InvalidStateTransition" {
			t.Errorf("IN_PROGRESS after the time: %q", code)
		}
		if code := w.answer(base, `{"status":"SUCCEEDED"}`); code != "" {
			t.Errorf("SUCCEEDED after the time: %q", code)
		}
		if code := w.answer(base, `{"status":"FAILED"}`); code != "TerminalStateReached" {
			t.Errorf("after the end: %q", code)
		}
	})
}

func TestStartRefusals(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, commands.Config{MaxActive: 3})
		w.create("c", "x", "")
		in := func(change func(*iotjobsdata.StartCommandExecutionRequest)) error {
			r := &iotjobsdata.StartCommandExecutionRequest{CommandArn: arn + "command/c", TargetArn: arn + "thing/lamp"}
			change(r)
			_, err := w.StartCommandExecution(w.ctx, r)
			return err
		}
		for what, change := range map[string]func(*iotjobsdata.StartCommandExecutionRequest){
			"another account": func(r *iotjobsdata.StartCommandExecutionRequest) { r.TargetArn = "arn:aws:iot:us-east-1:1:thing/lamp" },
			"a group":         func(r *iotjobsdata.StartCommandExecutionRequest) { r.TargetArn = arn + "thinggroup/g" },
			"a wildcard":      func(r *iotjobsdata.StartCommandExecutionRequest) { r.TargetArn = arn + "client/+" },
			"no timeout":      func(r *iotjobsdata.StartCommandExecutionRequest) { r.ExecutionTimeoutSeconds = new(int64(0)) },
			"a long timeout":  func(r *iotjobsdata.StartCommandExecutionRequest) { r.ExecutionTimeoutSeconds = new(int64(43201)) },
			"a parameter": func(r *iotjobsdata.StartCommandExecutionRequest) {
				r.Parameters = map[string]*iotjobsdata.CommandParameterValue{"p": {S: new("x")}}
			},
		} {
			if err := in(change); !errors.As(err, new(*iotjobsdata.ValidationException)) {
				t.Errorf("%s: %v", what, err)
			}
		}
		for what, change := range map[string]func(*iotjobsdata.StartCommandExecutionRequest){
			"no command": func(r *iotjobsdata.StartCommandExecutionRequest) { r.CommandArn = arn + "command/none" },
			"no thing":   func(r *iotjobsdata.StartCommandExecutionRequest) { r.TargetArn = arn + "thing/none" },
		} {
			if err := in(change); !errors.As(err, new(*iotjobsdata.ResourceNotFoundException)) {
				t.Errorf("%s: %v", what, err)
			}
		}
		same := func(r *iotjobsdata.StartCommandExecutionRequest) { r.ClientToken = new("t") }
		if err := errors.Join(in(same), in(same), in(same), in(same)); err != nil {
			t.Errorf("with one token: %v", err)
		}
		nothing := func(*iotjobsdata.StartCommandExecutionRequest) {}
		if err := errors.Join(in(nothing), in(nothing)); err != nil {
			t.Error(err)
		}
		if err := in(nothing); !errors.As(err, new(*iotjobsdata.ServiceQuotaExceededException)) {
			t.Errorf("a fourth: %v", err)
		}
		ok[*iot.UpdateCommandResponse](t)(w.UpdateCommand(w.ctx, &iot.UpdateCommandRequest{CommandId: "c", Deprecated: new(true)}))
		if err := in(func(r *iotjobsdata.StartCommandExecutionRequest) { r.TargetArn = arn + "thing/other" }); !errors.As(err, new(*iotjobsdata.ConflictException)) {
			t.Errorf("deprecated: %v", err)
		}
	})
}

// A command that runs goes when its executions are over.
func TestDeleteCommand(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, commands.Config{})
		ok[*iot.CreateCommandResponse](t)(w.CreateCommand(w.ctx, &iot.CreateCommandRequest{
			CommandId: "c", Payload: &iot.CommandPayload{Content: []byte("x")}, Tags: []*iot.Tag{{Key: "k"}},
		}))
		if _, err := w.CreateCommand(w.ctx, &iot.CreateCommandRequest{CommandId: "c", Payload: &iot.CommandPayload{Content: []byte("x")}}); !errors.As(err, new(*iot.ConflictException)) {
			t.Errorf("a second: %v", err)
		}
		id := w.start("c", "thing/lamp")
		del := func() int32 {
			return *ok[*iot.DeleteCommandResponse](t)(w.DeleteCommand(w.ctx, &iot.DeleteCommandRequest{CommandId: "c"})).StatusCode
		}
		if status := del(); status != 202 {
			t.Errorf("while it runs: %d", status)
		}
		if m := ok[*iot.GetCommandResponse](t)(w.GetCommand(w.ctx, &iot.GetCommandRequest{CommandId: "c"})); !*m.PendingDeletion {
			t.Errorf("%+v", m)
		}
		if _, err := w.UpdateCommand(w.ctx, &iot.UpdateCommandRequest{CommandId: "c"}); !errors.As(err, new(*iot.ConflictException)) {
			t.Errorf("update: %v", err)
		}
		if code := w.answer("$aws/commands/things/lamp/executions/"+id+"/response/json", `{"status":"REJECTED"}`); code != "" {
			t.Error(code)
		}
		if status := del(); status != 204 || len(w.tags) != 0 {
			t.Errorf("afterwards: %d, tags %v", status, w.tags)
		}
		if _, err := w.GetCommand(w.ctx, &iot.GetCommandRequest{CommandId: "c"}); !errors.As(err, new(*iot.ResourceNotFoundException)) {
			t.Errorf("%v", err)
		}
		if e := w.execution("thing/lamp", id); *e.Status != "REJECTED" {
			t.Errorf("%+v", e)
		}
	})
}

func TestTemplate(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, commands.Config{})
		between := []*iot.CommandParameterValueCondition{{ComparisonOperator: "IN_RANGE", Operand: &iot.CommandParameterValueComparisonOperand{NumberRange: &iot.CommandParameterValueNumberRange{Min: "0", Max: "100"}}}}
		def := &iot.CreateCommandRequest{
			CommandId: "dim",
			PayloadTemplate: new(`{"to":"${aws:iot:commandexecution::parameter:to}","why":"because ${aws:iot:commandexecution::parameter:why}!",` +
				`"within":"${aws:iot:commandexecution::executionTimeoutSec}","on":"${aws:iot:commandexecution::parameter:on}"}`),
			MandatoryParameters: []*iot.CommandParameter{
				{Name: "to", Type: new("INTEGER"), ValueConditions: between},
				{Name: "why", Type: new("STRING"), DefaultValue: &iot.CommandParameterValue{S: new(`"s&o"`)}},
				{Name: "on", Type: new("BOOLEAN"), Value: &iot.CommandParameterValue{B: new(true)}},
			},
		}
		ok[*iot.CreateCommandResponse](t)(w.CreateCommand(w.ctx, def))
		asCBOR := *def
		asCBOR.CommandId, asCBOR.Preprocessor = "dim-cbor", &iot.CommandPreprocessor{AwsJsonSubstitution: &iot.AwsJsonSubstitutionCommandPreprocessorConfig{OutputFormat: "CBOR"}}
		ok[*iot.CreateCommandResponse](t)(w.CreateCommand(w.ctx, &asCBOR))
		start := func(command string, parameters map[string]*iotjobsdata.CommandParameterValue) error {
			w.said()
			_, err := w.StartCommandExecution(w.ctx, &iotjobsdata.StartCommandExecutionRequest{CommandArn: arn + "command/" + command, TargetArn: arn + "thing/lamp", Parameters: parameters})
			return err
		}
		for what, bad := range map[string]map[string]*iotjobsdata.CommandParameterValue{
			"none": nil, "another type": {"to": {S: new("5")}}, "out of range": {"to": {I: new(int32(101))}}, "two values": {"to": {I: new(int32(1)), L: new(int64(1))}},
			"unknown": {"to": {I: new(int32(1))}, "x": {S: new("x")}},
		} {
			if err := start("dim", bad); !errors.As(err, new(*iotjobsdata.ValidationException)) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := start("dim", map[string]*iotjobsdata.CommandParameterValue{"to": {I: new(int32(50))}}); err != nil {
			t.Fatal(err)
		}
		if m := w.said()[1]; string(m.Payload) != `{"to":50,"why":"because \"s&o\"!","within":10,"on":true}` || !strings.HasSuffix(m.Topic, "/request/json") {
			t.Errorf("%s: %s", m.Topic, m.Payload)
		}
		if err := start("dim-cbor", map[string]*iotjobsdata.CommandParameterValue{"to": {I: new(int32(50))}}); err != nil {
			t.Fatal(err)
		}
		m := w.said()[1]
		var got map[string]any
		if err := cbor.Unmarshal(m.Payload, &got); err != nil || fmt.Sprint(got) != `map[on:true to:50 why:because "s&o"! within:10]` || !strings.HasSuffix(m.Topic, "/request/cbor") {
			t.Errorf("%s: %v, %v", m.Topic, got, err)
		}
		for what, change := range map[string]func(*iot.CreateCommandRequest){
			"no JSON": func(r *iot.CreateCommandRequest) { r.PayloadTemplate = new(`{`) },
			"unknown parameter": func(r *iot.CreateCommandRequest) {
				r.PayloadTemplate = new(`"${aws:iot:commandexecution::parameter:x}"`)
			},
			"unknown kind":      func(r *iot.CreateCommandRequest) { r.PayloadTemplate = new(`"${aws:iot:commandexecution::thing}"`) },
			"both":              func(r *iot.CreateCommandRequest) { r.Payload = &iot.CommandPayload{Content: []byte("x")} },
			"neither":           func(r *iot.CreateCommandRequest) { r.PayloadTemplate = nil },
			"another namespace": func(r *iot.CreateCommandRequest) { r.Namespace = new("AWS-IoT-FleetWise") },
			"default of no type": func(r *iot.CreateCommandRequest) {
				r.MandatoryParameters[0].DefaultValue = &iot.CommandParameterValue{}
			},
		} {
			r := *def
			r.CommandId, r.MandatoryParameters = "bad", slices.Clone(def.MandatoryParameters)
			first := *r.MandatoryParameters[0]
			r.MandatoryParameters[0] = &first
			change(&r)
			if _, err := w.CreateCommand(w.ctx, &r); !errors.As(err, new(*iot.ValidationException)) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

func TestListExecutions(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db, commands.Config{})
		w.create("a", "x", "")
		w.create("b", "x", "")
		var ids []string
		for i := range 7 {
			ids = append(ids, w.start([]string{"a", "b"}[i%2], fmt.Sprint("thing/t", i%3)))
			w.advance(time.Minute)
		}
		list := func(in iot.ListCommandExecutionsRequest) string {
			t.Helper()
			in.MaxResults = new(int32(2))
			var got []string
			for {
				out := ok[*iot.ListCommandExecutionsResponse](t)(w.ListCommandExecutions(w.ctx, &in))
				for _, e := range out.CommandExecutions {
					got = append(got, fmt.Sprint(slices.Index(ids, *e.ExecutionId)))
				}
				if in.NextToken = out.NextToken; in.NextToken == nil {
					return strings.Join(got, "")
				}
			}
		}
		w.answer("$aws/commands/things/t2/executions/"+ids[5]+"/response/json", `{"status":"SUCCEEDED"}`)
		for want, in := range map[string]iot.ListCommandExecutionsRequest{
			"6543210": {}, "0123456": {SortOrder: new("ASCENDING")}, "6420": {CommandArn: new(arn + "command/a")}, "630": {TargetArn: new(arn + "thing/t0")}, "5": {Status: new("SUCCEEDED")},
			"643210": {Status: new("CREATED")},
		} {
			if got := list(in); got != want {
				t.Errorf("%+v: %s instead of %s", in, got, want)
			}
		}
		at := time.UnixMilli(1_800_000_000_000).UTC().Add(150 * time.Second).Format("2006-01-02T15:04:05")
		if got := list(iot.ListCommandExecutionsRequest{StartedTimeFilter: &iot.TimeFilter{After: &at}}); got != "6543" {
			t.Errorf("after %s: %s", at, got)
		}
		if got := list(iot.ListCommandExecutionsRequest{CompletedTimeFilter: &iot.TimeFilter{After: &at}}); got != "5" {
			t.Errorf("completed after %s: %s", at, got)
		}
		for _, size := range []int32{1, 2, 25} {
			var names []string
			in := &iot.ListCommandsRequest{MaxResults: &size}
			for {
				out := ok[*iot.ListCommandsResponse](t)(w.ListCommands(w.ctx, in))
				for _, m := range out.Commands {
					names = append(names, *m.CommandId)
				}
				if in.NextToken = out.NextToken; in.NextToken == nil {
					break
				}
			}
			if strings.Join(names, "") != "ab" {
				t.Errorf("commands by %d: %v", size, names)
			}
		}
	})
}

// Random answers and times follow a model of the states.
func TestStatesModel(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		r := rand.New(rand.NewPCG(3, 5))
		w := newWorld(t, db, commands.Config{})
		w.create("c", "x", "")
		type model struct {
			status string
			final  bool
		}
		statuses := []string{"CREATED", "IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "OTHER", ""}
		for range 60 {
			id := w.start("c", "thing/lamp")
			m := model{status: "CREATED"}
			for range 6 {
				s := statuses[r.IntN(len(statuses))]
				code := w.answer("$aws/commands/things/lamp/executions/"+id+"/response/json", fmt.Sprintf(`{"status":%q}`, s))
				want := ""
				switch {
				case m.final:
					want = "TerminalStateReached"
				case s == "IN_PROGRESS":
					m.status = s
				case s == "SUCCEEDED" || s == "FAILED" || s == "REJECTED" || s == "TIMED_OUT":
					m.status, m.final = s, true
				default:
					want = "InvalidStateTransition"
				}
				if code != want {
					t.Fatalf("%s: %q instead of %q", s, code, want)
				}
				if got := *w.execution("thing/lamp", id).Status; got != m.status {
					t.Fatalf("%s instead of %s", got, m.status)
				}
			}
		}
	})
}

func FuzzAnswer(f *testing.F) {
	db := storetest.Open(f)
	w := newWorld(f, db, commands.Config{MaxActive: 1 << 30})
	w.ctx = context.Background()
	w.create("c", "x", "")
	id := w.start("c", "thing/lamp")
	for _, s := range []string{`{"status":"IN_PROGRESS"}`, `{"status":"x","result":{"a":{"s":"x"}}}`, "\xa1fstatuskIN_PROGRESS"} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, payload []byte, asJSON bool) {
		format := "cbor"
		if asJSON {
			format = "json"
		}
		if err := w.ServeMQTT(context.Background(), &mqtt.Message{Topic: "$aws/commands/things/lamp/executions/" + id + "/response/" + format, Payload: payload}); err != nil {
			t.Fatal(err)
		}
		w.said()
	})
}
