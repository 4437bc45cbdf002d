package shadow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/shadow/doc"
	"flotilla/internal/store"
)

// Config is what an operator may set; its zero value is AWS's behaviour but for
// the number of requests in flight, which the limits profile decides.
type Config struct {
	MaxDocumentBytes   int           `name:"shadow.max-document-bytes" default:"0" help:"Most bytes of a shadow's desired and reported state. 0: 8192, or 65536 under --limits unlimited."`
	MaxDepth           int           `name:"shadow.max-depth" default:"0" help:"Most levels of nesting below desired and reported. 0: 6, or 64 under --limits unlimited."`
	MaxInFlight        int           `name:"shadow.max-in-flight" default:"0" help:"Most shadow requests of one thing in progress; further ones are refused with 429. 0: 10 under --limits aws, else no limit; -1: no limit."`
	MaxPerSecond       float64       `name:"shadow.max-per-second" default:"0" help:"Most shadow requests of one thing in a second, on a node; further ones are refused with 429. 0: 20 under --limits aws, else no limit; -1: no limit."`
	UnregisteredThings bool          `name:"shadow.unregistered-things" default:"false" help:"Keep shadows of things that are not in the registry, too."`
	KeepVersion        time.Duration `name:"shadow.keep-version" default:"48h" help:"How long after a shadow's deletion its successor continues its version."`

	DeleteWithThing bool `name:"shadow.delete-with-thing" default:"false" help:"Delete a thing's shadows with the thing. AWS keeps them: a new thing of that name finds them."`
	EveryDelta      bool `name:"shadow.every-delta" default:"false" help:"Keep all deltas of a shadow for clients that are away, not the last alone. Always on under --limits aws, as on AWS."`

	History         int  `name:"shadow.history" default:"20" help:"Changes that are kept of each shadow, at most 100: who changed what when. -1: none."`
	HistoryReported bool `name:"shadow.history-reported" default:"false" help:"Keep updates of reported state alone in the history, too."`

	// Limits is the profile: aws, default or unlimited; "" is default.
	Limits string `kong:"-" toml:"-"`
	// Now is the clock; nil is time.Now.
	Now func() time.Time `kong:"-" toml:"-"`
	// Changed is told the thing's name after the commit of a shadow's update or deletion; it must not block. nil: nobody is.
	Changed func(thingName string) `kong:"-" toml:"-"`
	// Metrics is where the counters are registered; nil: nowhere.
	Metrics *prometheus.Registry `kong:"-" toml:"-"`
	// Log receives what goes wrong in the background; nil discards it.
	Log *slog.Logger `kong:"-" toml:"-"`
}

func (c Config) withDefaults() Config {
	if c.Limits == "unlimited" {
		if c.MaxDocumentBytes <= 0 {
			c.MaxDocumentBytes = 65536
		}
		if c.MaxDepth <= 0 {
			c.MaxDepth = 64
		}
	}
	if c.Limits == "aws" {
		if c.MaxInFlight == 0 {
			c.MaxInFlight = 10
		}
		if c.MaxPerSecond == 0 {
			c.MaxPerSecond = 20
		}
		c.EveryDelta = true
	}
	if c.KeepVersion <= 0 {
		c.KeepVersion = 48 * time.Hour
	}
	if c.History == 0 {
		c.History = 20
	}
	c.History = min(c.History, maxHistory)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Publisher delivers messages of the service. It is called from several
// goroutines.
type Publisher interface {
	// Publish returns once what it owes to absent subscribers is durable.
	Publish(ctx context.Context, m *mqtt.Message) error
	// Awaited tells whether a message on topic would reach anybody, a rule or
	// another node included: if not, it need not be published. It does not block.
	Awaited(topic string) bool
	// Withdraw removes messages on topic with places up to one that wait for
	// subscribers who are not connected, and returns once that is durable.
	Withdraw(ctx context.Context, topic string, upTo int64) error
}

// Things is the registry. DescribeThing gives iot.ResourceNotFoundException for
// a thing that does not exist; ctx may carry a transaction.
type Things interface {
	DescribeThing(ctx context.Context, in *iot.DescribeThingRequest) (*iot.DescribeThingResponse, error)
}

// Shadows serves all shadows of the account. It is safe for concurrent use.
type Shadows struct {
	db        *store.DB
	things    Things
	publisher Publisher
	cfg       Config
	limits    doc.Limits
	changes   *store.Bundle[*change]
	turns     turns
	gate      gate
	metrics   *metrics
}

// New returns the shadows in db. publisher may not be used before the first
// request is served.
func New(db *store.DB, things Things, publisher Publisher, cfg Config) *Shadows {
	cfg = cfg.withDefaults()
	s := &Shadows{
		db: db, things: things, publisher: publisher, cfg: cfg,
		limits:  doc.Limits{Bytes: cfg.MaxDocumentBytes, Depth: cfg.MaxDepth},
		turns:   turns{last: map[ref]*turn{}},
		gate:    gate{inFlight: cfg.MaxInFlight, perSecond: cfg.MaxPerSecond, things: map[string]*traffic{}},
		metrics: newMetrics(cfg.Metrics),
	}
	s.changes = store.NewBundle(db, s.run, s.written)
	return s
}

// ref names a shadow; name is "" for the classic one.
type ref struct{ thing, name string }

// topic is a topic of the shadow, such as update/accepted.
func (r ref) topic(verb string) string {
	if r.name == "" {
		return "$aws/things/" + r.thing + "/shadow/" + verb
	}
	return "$aws/things/" + r.thing + "/shadow/name/" + r.name + "/" + verb
}

// The refusals that are the room's; the others come from doc.
var (
	errNoThing    = &doc.Error{Code: 404, Message: "Thing not found"}
	errShadowName = &doc.Error{Code: 400, Message: "Invalid shadow name"}
	errTooMany    = &doc.Error{Code: 429, Message: "Too many requests in flight for this thing"}
	errRate       = &doc.Error{Code: 429, Message: "Rate exceeded"}
	errInternal   = &doc.Error{Code: 500, Message: "Internal service failure"}
)

// errUnannounced marks requests whose effect is durable while the messages
// about it could not all be published.
var errUnannounced = errors.New("not announced")

// errNoShadow is the refusal for a shadow that does not exist. The name is
// written as the live service writes it: the thing's, with ~ and the shadow's
// for a named one (seen in clients that compare the text; the documents show
// one without quotes).
func errNoShadow(r ref) *doc.Error {
	name := r.thing
	if r.name != "" {
		name += "~" + r.name
	}
	return &doc.Error{Code: 404, Message: "No shadow exists with name: '" + name + "'"}
}

// begin checks the names and counts the request; the caller calls end when it
// is done.
func (s *Shadows) begin(r ref) (end func(), err error) {
	if !validName(r.thing, 128, false) {
		return nil, errNoThing
	}
	if r.name != "" && !validName(r.name, 64, true) {
		return nil, errShadowName
	}
	if err := s.gate.enter(r.thing, s.cfg.Now()); err != nil {
		return nil, err
	}
	return func() { s.gate.leave(r.thing) }, nil
}

// validName checks names as the API's models do: [a-zA-Z0-9:_-]+, of shadows
// with $ too.
func validName(s string, longest int, dollar bool) bool {
	if s == "" || len(s) > longest {
		return false
	}
	for _, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		digit := c >= '0' && c <= '9'
		if !letter && !digit && c != ':' && c != '_' && c != '-' && (c != '$' || !dollar) {
			return false
		}
	}
	return true
}

// delta announces what differs in version, or takes back what does not any more:
// a device that was away is told once, of the present difference.
func (s *Shadows) delta(ctx context.Context, r ref, version int64, body []byte) error {
	topic := r.topic("update/delta")
	var err error
	switch {
	case body != nil:
		s.metrics.deltas.Inc()
		m := s.message(topic, body)
		if !s.cfg.EveryDelta {
			m.Place = version
		}
		err = s.publisher.Publish(context.WithoutCancel(ctx), m)
	case !s.cfg.EveryDelta:
		err = s.publisher.Withdraw(context.WithoutCancel(ctx), topic, version)
	}
	if err != nil {
		return fmt.Errorf("shadow: %s: %w: %w", topic, errUnannounced, err)
	}
	return nil
}

// message is what the service publishes about a shadow.
func (s *Shadows) message(topic string, payload []byte) *mqtt.Message {
	return &mqtt.Message{Topic: topic, Payload: payload, QoS: 1, Received: s.cfg.Now()}
}
