package rules

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/outbound"
	"flotilla/internal/rules/action"
	"flotilla/internal/rules/sql"
	"flotilla/internal/store"
	"flotilla/internal/telemetry"
)

// kindRule is the kind of changes on the bus; the key is the rule's name.
const kindRule = "rule"

// Bus is NATS and the news between nodes.
type Bus interface {
	// Changed tells that something changed; called after its commit.
	Changed(kind, key string)
	// OnChange asks for fn to be called at changes of a kind; key "" is everything of it.
	OnChange(kind string, fn func(key string))
	// Conn is the connection to NATS, JetStream included.
	Conn() *nats.Conn
	// NodeID names this node among those that share the store.
	NodeID() string
}

// Publisher delivers what rules republish. Publish returns once what is owed to
// absent subscribers is durable.
type Publisher interface {
	Publish(ctx context.Context, m *mqtt.Message) error
}

// Nodes are the other nodes of the deployment.
type Nodes interface {
	// AskOthers puts a question, JSON, to all of them, and has their answers by node; silent are those that do not answer.
	AskOthers(ctx context.Context, name string, question []byte) (answers map[string][]byte, silent []string)
}

// Tags keeps the tags of rules; it joins a transaction in the context.
type Tags interface {
	TagResource(context.Context, *iot.TagResourceRequest) (*iot.TagResourceResponse, error)
	DeleteTags(ctx context.Context, resourceARN string) error
}

// Config says which engines stand behind actions, and bounds them; zero values are
// the defaults.
type Config struct {
	MaxRules         int `name:"rules.max-rules" default:"1000" help:"Most topic rules."`
	MaxAlarms        int `name:"rules.max-alarms" default:"1000" help:"Most alarms that cloudwatchAlarm actions may make; changes of further ones fail."`
	CloudwatchSeries int `name:"rules.cloudwatch-series" default:"1000" help:"Most metrics (namespace, name, unit) that cloudwatchMetric actions may make on a node; data of further ones fail."`

	OutboxRows  int64         `name:"rules.outbox-rows" default:"1000000" help:"Most messages that wait for one action of a rule, on one node; further ones are refused."`
	OutboxBytes int64         `name:"rules.outbox-bytes" default:"1073741824" help:"Most bytes that wait for one action of a rule, on one node; further messages are refused."`
	OutboxTotal int64         `name:"rules.outbox-total" default:"8589934592" help:"Most bytes that wait for all actions together, on one node; further messages are refused."`
	RetryFor    time.Duration `name:"rules.retry-for" default:"10m" help:"How long an action is tried for a message before the rule's errorAction gets it."`
	KeepFor     time.Duration `name:"rules.keep-for" default:"24h" help:"How long an action is tried for a message when the rule has no errorAction; then it is dropped."`
	Timeout     time.Duration `name:"rules.timeout" default:"30s" help:"How long one attempt at an action may take."`
	Drain       time.Duration `name:"rules.drain" default:"5s" help:"How long the actions may go on when the server stops; what is left is done after its next start."`
	Lease       time.Duration `name:"rules.lease" default:"30s" help:"How long a node may be silent before others execute what it left."`

	StreamMaxBytes   int64         `name:"rules.stream-max-bytes" default:"536870912" help:"Bytes of a stream that an action makes; the oldest messages go, full queues (sqs) take nothing more."`
	StreamMaxAge     time.Duration `name:"rules.stream-max-age" default:"24h" help:"How long streams that actions make keep messages."`
	StreamDuplicates time.Duration `name:"rules.stream-duplicates" default:"2m" help:"How long streams that actions make remember message ids."`
	StreamReplicas   int           `name:"rules.stream-replicas" default:"1" help:"Replicas of streams that actions make, in a NATS cluster."`
	MaxStreams       int           `name:"rules.max-streams" default:"1000" help:"Most streams in NATS before actions make no more."`

	Kinesis         string   `name:"rules.kinesis" default:"embedded" enum:"embedded,aws" help:"What serves kinesis actions: embedded (a stream in NATS) or aws (Kinesis)."`
	Firehose        string   `name:"rules.firehose" default:"embedded" enum:"embedded,aws" help:"What serves firehose actions: embedded (the archive) or aws (Firehose)."`
	SNS             string   `name:"rules.sns" default:"embedded" enum:"embedded,aws" help:"What serves sns actions: embedded (a stream in NATS) or aws (SNS)."`
	SQS             string   `name:"rules.sqs" default:"embedded" enum:"embedded,aws" help:"What serves sqs actions: embedded (a stream in NATS) or aws (SQS)."`
	DynamoDB        string   `name:"rules.dynamodb" default:"embedded" enum:"embedded,aws" help:"What serves dynamoDB and dynamoDBv2 actions: embedded (not yet there) or aws (DynamoDB)."`
	SearchEndpoints []string `name:"rules.search-endpoints" help:"Origins (https://host:port) beside domains of Amazon OpenSearch Service that openSearch and elasticsearch actions may write to."`

	MaxDestinations int           `name:"rules.max-destinations" default:"1000" help:"Most topic rule destinations."`
	HTTPPlain       bool          `name:"rules.http-plain" help:"Let http actions and their destinations use http, for laboratories; otherwise https alone."`
	HTTPPrivate     bool          `name:"rules.http-private" help:"Let http actions and their destinations reach loopback and private addresses, and any port; otherwise public addresses at 443 and 8443 alone."`
	HTTPTimeout     time.Duration `name:"rules.http-timeout" default:"3s" help:"How long all tries of an http action at a message may take together."`
	HTTPSign        bool          `name:"rules.http-sign" help:"Let http actions with auth.sigv4 sign with the AWS credentials in the server's environment: whoever may create rules can then act with them."`

	FirehoseInterval time.Duration `name:"rules.firehose-interval" default:"60s" help:"How long a message may wait for its archive file."`
	FirehoseBytes    int           `name:"rules.firehose-bytes" default:"67108864" help:"Bytes of messages after which an archive file is written."`
	FirehoseRows     int           `name:"rules.firehose-rows" default:"200000" help:"Messages after which an archive file is written."`
	FirehoseFormat   string        `name:"rules.firehose-format" default:"parquet" enum:"parquet,jsonl" help:"Format of archive files: parquet or jsonl."`

	ArchiveQuiet     time.Duration `name:"rules.archive-quiet" default:"1h" help:"How long a partition of the archive must not have got a file before its small files are merged; negative: never."`
	ArchiveFileBytes int64         `name:"rules.archive-file-bytes" default:"134217728" help:"Size that merged archive files have about."`
	ArchiveKeep      time.Duration `name:"rules.archive-keep" default:"0s" help:"How long the archive keeps messages; files go whole. 0: for ever."`
	ArchiveMaxBytes  int64         `name:"rules.archive-max-bytes" default:"0" help:"Bytes of the archive, of all streams together, beyond which the oldest files go. 0: no bound."`
	ArchiveEvery     time.Duration `name:"rules.archive-every" default:"10m" help:"How often the archive is looked through for files to merge or to remove."`
}

func (c Config) withDefaults() Config {
	set(&c.MaxRules, 1000)
	set(&c.MaxDestinations, 1000)
	set(&c.OutboxRows, 1_000_000)
	set(&c.OutboxBytes, 1<<30)
	set(&c.OutboxTotal, 8<<30)
	set(&c.RetryFor, 10*time.Minute)
	set(&c.KeepFor, 24*time.Hour)
	set(&c.Timeout, 30*time.Second)
	set(&c.HTTPTimeout, 3*time.Second)
	set(&c.Drain, 5*time.Second)
	set(&c.Lease, 30*time.Second)
	set(&c.StreamMaxBytes, 512<<20)
	set(&c.StreamMaxAge, 24*time.Hour)
	set(&c.StreamDuplicates, 2*time.Minute)
	set(&c.StreamReplicas, 1)
	set(&c.MaxStreams, 1000)
	set(&c.MaxAlarms, 1000)
	set(&c.CloudwatchSeries, 1000)
	set(&c.FirehoseInterval, time.Minute)
	set(&c.FirehoseBytes, 64<<20)
	set(&c.FirehoseRows, 200_000)
	if c.ArchiveQuiet == 0 {
		c.ArchiveQuiet = time.Hour
	}
	set(&c.ArchiveFileBytes, 128<<20)
	set(&c.ArchiveEvery, 10*time.Minute)
	if c.FirehoseFormat == "" {
		c.FirehoseFormat = telemetry.Parquet
	}
	return c
}

func set[T int | int64 | time.Duration](p *T, v T) {
	if *p <= 0 {
		*p = v
	}
}

// Deps are the others that the room works with.
type Deps struct {
	Account   aws.Account
	DB        *store.DB
	Bus       Bus
	Publisher Publisher // nil: the republish action fails
	Nodes     Nodes     // nil: there are no others
	Tags      Tags      // nil: rules can't have tags
	// External serves the functions of SQL that read other systems; a rule that calls
	// one without an implementation is refused.
	External sql.External
	// Functions are those of the lambda action; nil: it fails.
	Functions action.Functions
	// Roots verify the servers of http actions; nil: those of the system.
	Roots *x509.CertPool
	// APIURL is how others reach the API, for links in confirmation messages; nil: links have no host.
	APIURL    func() string
	Archive   string         // directory of the firehose action
	Objects   action.Objects // of the s3 action; nil: it fails
	AWS       action.AWS     // of actions that AWS serves; nil: they fail
	Logs      action.Logs    // of the cloudwatchLogs action; nil: it fails
	Log       *slog.Logger
	Metrics   prometheus.Registerer
	Now       func() time.Time // time.Now when nil
	Telemetry action.Telemetry // of the timestream action; nil: it fails
}

// Engine is the room. It is safe for concurrent use.
type Engine struct {
	cfg     Config
	d       Deps
	log     *slog.Logger
	now     func() time.Time
	env     action.Env
	metrics *metrics
	alarms  *alarms
	client  *outbound.Client
	closers []func() error

	evaluations sync.Pool // of *evaluation

	generation atomic.Uint64
	mu         sync.RWMutex // guards byName and what trie says of it
	byName     map[string]*rule
	trie       *mqtt.Trie[*rule]

	queuesMu sync.Mutex
	queues   map[int64]*queue // by action id
	bytes    atomic.Int64     // that wait in all queues

	writer   atomic.Pointer[writerState] // nil before Start
	observed map[int64]observation       // writers of other nodes
	held     map[int64]*heldWriter       // writers of other runs that this node executes

	unconfirmed chan struct{} // confirmation messages are due
	loading     sync.Mutex
	stale       chan string // names of rules to load again; "" all
	ctx         context.Context
	cancel      context.CancelFunc
	closing     chan struct{}
	tasks       sync.WaitGroup // follow, beat, tend
	gate        sync.Mutex     // guards closed, and dispatch against its end
	closed      bool
	dispatch    sync.WaitGroup // dispatchers
}

// New makes the engine and opens the directories of its actions.
func New(cfg Config, d Deps) (*Engine, error) {
	cfg = cfg.withDefaults()
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		cfg: cfg, d: d, log: d.Log, now: d.Now, metrics: newMetrics(d.Metrics), alarms: newAlarms(d.DB, cfg.MaxAlarms),
		byName: map[string]*rule{}, trie: mqtt.NewTrie[*rule](), queues: map[int64]*queue{},
		stale: make(chan string, 1024), unconfirmed: make(chan struct{}, 1), closing: make(chan struct{}),
		observed: map[int64]observation{}, held: map[int64]*heldWriter{},
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.client = outbound.New(outbound.Policy{Plain: cfg.HTTPPlain, Private: cfg.HTTPPrivate, Roots: d.Roots}, 32)
	e.closers = append(e.closers, func() error { e.client.Close(); return nil })
	web := &action.Web{Client: e.client, Timeout: cfg.HTTPTimeout, Enabled: e.destinationEnabled, Credentials: func(ctx context.Context) (sdk.Credentials, error) {
		if !cfg.HTTPSign {
			return sdk.Credentials{}, errors.New("the server does not sign requests of rules (--rules.http-sign)")
		}
		return credentials(ctx)
	}}
	e.env = action.Env{
		Web:     web,
		Account: d.Account, Functions: d.Functions, Objects: d.Objects, AWS: d.AWS, Publisher: d.Publisher, Conn: d.Bus.Conn(), Log: d.Log, Now: d.Now,
		Logs: d.Logs, Alarms: e.alarms, Metrics: action.NewMetrics(cfg.CloudwatchSeries),
		Telemetry: d.Telemetry,
		Streams: action.Streams{
			Max: cfg.MaxStreams, MaxBytes: cfg.StreamMaxBytes, MaxAge: cfg.StreamMaxAge,
			Duplicates: min(cfg.StreamDuplicates, cfg.StreamMaxAge), Replicas: cfg.StreamReplicas,
		},
		SearchEndpoints: cfg.SearchEndpoints,
		Engines:         action.Engines{Kinesis: cfg.Kinesis, Firehose: cfg.Firehose, SNS: cfg.SNS, SQS: cfg.SQS, DynamoDB: cfg.DynamoDB},
		Firehose:        action.Batch{Rows: cfg.FirehoseRows, Bytes: cfg.FirehoseBytes, Linger: cfg.FirehoseInterval},
	}
	if err := e.openDestinations(); err != nil {
		return nil, errors.Join(err, e.closeDestinations())
	}
	if d.Metrics != nil {
		d.Metrics.MustRegister(backlogs{e}, e.alarms, e.env.Metrics)
	}
	d.Bus.OnChange(kindRule, e.changed)
	return e, nil
}

func (e *Engine) openDestinations() error {
	if err := e.env.Engines.Check(e.d.AWS); err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	if e.d.Archive != "" {
		archive, err := telemetry.OpenArchive(e.d.Archive, e.cfg.FirehoseFormat)
		if err != nil {
			return err
		}
		e.env.Archive = archive
		e.closers = append(e.closers, archive.Close)
	}
	return nil
}

func (e *Engine) closeDestinations() (err error) {
	for _, c := range e.closers {
		err = errors.Join(err, c())
	}
	return err
}

// Start loads the rules and goes on with what the outbox holds.
func (e *Engine) Start(ctx context.Context) error {
	if err := e.startWriter(ctx); err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	if err := e.load(ctx, ""); err != nil {
		return fmt.Errorf("rules: load: %w", err)
	}
	if err := e.takeOver(ctx); err != nil {
		return fmt.Errorf("rules: outbox: %w", err)
	}
	e.tasks.Go(e.follow)
	e.tasks.Go(e.beat)
	if e.env.Archive != nil {
		e.tasks.Go(e.tend)
	}
	return nil
}

// Close lets the actions go on for at most Config.Drain and stops. What is left
// stays in the outbox. Nothing may be evaluated any more.
func (e *Engine) Close() error {
	e.gate.Lock()
	if e.closed {
		e.gate.Unlock()
		return nil
	}
	e.closed = true
	close(e.closing)
	e.gate.Unlock()
	e.tasks.Wait()
	idle := make(chan struct{})
	go func() {
		e.dispatch.Wait()
		close(idle)
	}()
	drain := time.NewTimer(e.cfg.Drain)
	defer drain.Stop()
	select {
	case <-idle:
	case <-drain.C:
	}
	e.cancel()
	<-idle
	e.queuesMu.Lock()
	for _, q := range e.queues {
		q.closeSink()
	}
	e.queuesMu.Unlock()
	return errors.Join(e.leaveWriter(), e.closeDestinations())
}

// enter admits a dispatcher, which then leaves by dispatch.Done; false means that
// the engine is closing.
func (e *Engine) enter() bool {
	e.gate.Lock()
	defer e.gate.Unlock()
	if e.closed {
		return false
	}
	e.dispatch.Add(1)
	return true
}

// changed hears from the bus that a rule is new, other or gone.
func (e *Engine) changed(name string) {
	select {
	case e.stale <- name:
	default:
		// Full: whoever reads the last of it loads everything.
		select {
		case <-e.stale:
		default:
		}
		select {
		case e.stale <- "":
		default:
		}
	}
}

// follow loads what changed.
func (e *Engine) follow() {
	for {
		select {
		case name := <-e.stale:
			for err := e.load(e.ctx, name); err != nil; err = e.load(e.ctx, name) {
				e.log.Warn("rules: a change could not be read", "rule", name, "err", err)
				if !e.pause(250 * time.Millisecond) {
					return
				}
			}
		case <-e.closing:
			return
		}
	}
}

// pause waits; false means that the engine stops.
func (e *Engine) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-e.closing:
		return false
	case <-e.ctx.Done():
		return false
	}
}
