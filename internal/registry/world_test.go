package registry_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/registry"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

const (
	arn   = "arn:aws:iot:us-east-1:123456789012:"
	certA = arn + "cert/aaaa"
	certB = arn + "cert/bbbb"
)

// world is a registry and what it works with.
type world struct {
	*registry.Registry
	db *store.DB

	mu        sync.Mutex
	listeners map[string][]func(string)
	changes   []string // kind/key
	events    []event
	unwanted  string // an event type
	now       time.Time
	detached  []string
	shadows   []string // things whose shadows were deleted
}

type event struct{ topic, payload string }

func newWorld(t testing.TB, db *store.DB, cfg registry.Config) *world {
	t.Helper()
	w := &world{db: db, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	w.Registry = registry.New(cfg, registry.Deps{
		Account: aws.Account{ID: "123456789012", Region: "us-east-1"}, DB: db, Changes: w, Certificates: w, Events: w,
		Now: func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
	})
	w.Use(w, w, map[string]registry.Exists{"policy": func(_ context.Context, name string) error {
		if name != "p" {
			return &iot.ResourceNotFoundException{Message: "no policy"}
		}
		return nil
	}})
	return w
}

func (w *world) Changed(kind, key string) {
	w.mu.Lock()
	w.changes = append(w.changes, kind+"/"+key)
	fns := w.listeners[kind]
	w.mu.Unlock()
	for _, fn := range fns {
		fn(key)
	}
}

func (w *world) OnChange(kind string, fn func(string)) {
	if w.listeners == nil {
		w.listeners = map[string][]func(string){}
	}
	w.listeners[kind] = append(w.listeners[kind], fn)
}

// announced takes what was announced since it was last called.
func (w *world) announced() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.Join(w.changes, " ")
	w.changes = nil
	return s
}

// Enabled tells that all events but one are wanted.
func (w *world) Enabled(_ context.Context, eventType string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unwanted != eventType
}

func (w *world) Emit(ctx context.Context, topic string, payload []byte) error {
	w.db.AfterCommit(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, event{topic, string(payload)})
	})
	return nil
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// DescribeCertificate knows certificates whose ids are of one letter, or start
// with f.
func (w *world) DescribeCertificate(_ context.Context, in *iot.DescribeCertificateRequest) (*iot.DescribeCertificateResponse, error) {
	if in.CertificateId[0] != 'f' && strings.Trim(in.CertificateId, in.CertificateId[:1]) != "" {
		return nil, &iot.ResourceNotFoundException{Message: "no certificate"}
	}
	return &iot.DescribeCertificateResponse{}, nil
}

func (w *world) DetachAll(_ context.Context, target string) error {
	w.detached = append(w.detached, target)
	return nil
}

func (w *world) DeleteAll(_ context.Context, thing string) error {
	w.shadows = append(w.shadows, thing)
	return nil
}

// each runs fn on an empty registry of each engine.
func each(t *testing.T, fn func(t *testing.T, w *world)) {
	eachConfig(t, registry.Config{}, fn)
}

func eachConfig(t *testing.T, cfg registry.Config, fn func(t *testing.T, w *world)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) { fn(t, newWorld(t, db, cfg)) })
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// want checks the type of an exception, and that its message has the text.
func want[E error](t *testing.T, err error, text string) (e E) {
	t.Helper()
	if !errors.As(err, &e) {
		t.Fatalf("got %T %v, want %T", err, err, e)
	}
	if !strings.Contains(e.Error(), text) {
		t.Errorf("message %q, want %q", e.Error(), text)
	}
	return e
}

// thing makes a thing with attributes, given as name, value, ....
func (w *world) thing(t testing.TB, name, typeName string, attributes ...string) {
	t.Helper()
	in := &iot.CreateThingRequest{ThingName: name, AttributePayload: &iot.AttributePayload{Attributes: pairs(attributes)}}
	if typeName != "" {
		in.ThingTypeName = &typeName
	}
	must[*iot.CreateThingResponse](t)(w.CreateThing(t.Context(), in))
}

func pairs(list []string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(list); i += 2 {
		m[list[i]] = list[i+1]
	}
	return m
}

func (w *world) describe(t testing.TB, name string) *iot.DescribeThingResponse {
	t.Helper()
	return must[*iot.DescribeThingResponse](t)(w.DescribeThing(t.Context(), &iot.DescribeThingRequest{ThingName: name}))
}

// group makes a group below a parent, "" for none.
func (w *world) group(t testing.TB, name, parent string) {
	t.Helper()
	in := &iot.CreateThingGroupRequest{ThingGroupName: name}
	if parent != "" {
		in.ParentGroupName = &parent
	}
	must[*iot.CreateThingGroupResponse](t)(w.CreateThingGroup(t.Context(), in))
}

func (w *world) join(t testing.TB, thing, group string) {
	t.Helper()
	must[*iot.AddThingToThingGroupResponse](t)(w.AddThingToThingGroup(t.Context(), &iot.AddThingToThingGroupRequest{ThingName: &thing, ThingGroupName: &group}))
}

func (w *world) attach(t testing.TB, thing, principal string) {
	t.Helper()
	must[*iot.AttachThingPrincipalResponse](t)(w.AttachThingPrincipal(t.Context(), &iot.AttachThingPrincipalRequest{ThingName: thing, Principal: principal}))
}

func names(list []*iot.GroupNameAndArn) string {
	var out []string
	for _, g := range list {
		out = append(out, *g.GroupName)
	}
	return strings.Join(out, " ")
}

func thingNames(list []*iot.ThingAttribute) string {
	var out []string
	for _, g := range list {
		out = append(out, *g.ThingName)
	}
	return strings.Join(out, " ")
}
