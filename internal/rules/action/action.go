package action

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/rules/sql"
	"flotilla/internal/telemetry"
)

// Record is one message for an action.
type Record struct {
	// ID identifies the record in the deployment.
	ID int64
	// Rule is the rule's name.
	Rule string
	// Topic is the topic that the rule saw; ClientID is empty for the service and for HTTP.
	Topic, ClientID string
	// Received is when the broker accepted the message.
	Received time.Time
	// Payload is what the rule made of the message. Sinks must not write to it.
	Payload []byte
	// Hops counts the rules that republished the message before this one saw it.
	Hops int
	// Fields are the filled templates of the action, in the order of Action.Templates.
	Fields []string
}

// Sink executes one action of one rule. Its methods are called by one goroutine
// at a time.
type Sink interface {
	// Do executes records in their order and returns how many of them, counted
	// from the first, were executed; err tells why the next one was not, and is
	// nil only when all were. An error made by Permanent says that another
	// attempt at that record can not succeed.
	Do(ctx context.Context, records []Record) (done int, err error)
	// Resource names what the action acts on for a record, as failedResource of
	// an error action's message does.
	Resource(r *Record) string
	// Close ends the use of the sink.
	Close() error
}

// Batch says how many records Do wants at once.
type Batch struct {
	// Rows and Bytes bound a batch; a single record may be larger than Bytes.
	Rows, Bytes int
	// Linger is how long the oldest record may wait for the batch to fill.
	Linger time.Duration
}

// Action is a compiled action. It is immutable.
type Action struct {
	// Kind is the name in the model: kinesis. Name is how a message to an error
	// action calls it: KinesisAction.
	Kind, Name string
	// Templates are the fields to fill for each message, Fields their names in the model, such as topic.
	Templates []*sql.Template
	Fields    []string
	// Destination is the confirmation URL that must be confirmed before the action works, when it is the same for
	// all messages; "" otherwise.
	Destination string

	batch  func(Env) Batch
	open   func(Env) (Sink, error)
	engine string // the only one that has it; "" when there is a choice
	check  func(Env) error
}

// Batch is how many records the action's sink wants at once.
func (a *Action) Batch(env Env) Batch {
	b := Batch{Rows: 512, Bytes: 1 << 20}
	if a.batch != nil {
		b = a.batch(env)
	}
	return b
}

// Open makes the sink. It does not wait for the destination.
func (a *Action) Open(env Env) (Sink, error) { return a.open(env) }

// Check tells why the deployment does not have what the action needs.
func (a *Action) Check(env Env) error {
	if a.engine == EngineAWS && (env.AWS == nil || !env.AWS.Configured()) {
		return fmt.Errorf("the action %s writes to AWS, and %w", a.Kind, errNoAWS)
	}
	if a.check != nil {
		return a.check(env)
	}
	return nil
}

// Publisher delivers messages of the service; Publish returns once what it owes to
// absent subscribers is durable.
type Publisher interface {
	Publish(ctx context.Context, m *mqtt.Message) error
}

// Objects stores objects under a bucket and a key. An object appears whole, in the
// place of the one that was there; Put returns once it is on stable storage.
type Objects interface {
	Put(ctx context.Context, bucket, key string, payload []byte) error
}

// Functions invokes functions asynchronously, once for each payload, for the resource that [aws.SourceFrom] knows.
// InvokeEvents returns once all of that is on stable storage.
type Functions interface {
	InvokeEvents(ctx context.Context, functionARN string, payloads [][]byte) error
}

// AWS calls services of AWS, or what speaks their API, once for each call: package
// awsclient says how. Service is the name that requests are signed for.
type AWS interface {
	// Configured tells whether there are credentials.
	Configured() bool
	JSON(ctx context.Context, service, target, version string, in, out any) error
	Query(ctx context.Context, service, version string, form url.Values) ([]byte, error)
	REST(ctx context.Context, service, method, path string, header http.Header, body []byte) (status int, answer []byte, err error)
}

// Engines say what serves an action: EngineAWS, another, or what is embedded.
type Engines struct {
	Kinesis, Firehose, SNS, SQS, DynamoDB string
}

// Check tells why an engine can not be used.
func (e Engines) Check(to AWS) error {
	if configured := to != nil && to.Configured(); configured {
		return nil
	}
	for flag, engine := range map[string]string{"kinesis": e.Kinesis, "firehose": e.Firehose, "sns": e.SNS, "sqs": e.SQS, "dynamodb": e.DynamoDB} {
		if engine == EngineAWS {
			return fmt.Errorf("--rules.%s=aws: %w", flag, errNoAWS)
		}
	}
	return nil
}

// Env is what the deployment has for actions.
type Env struct {
	Account aws.Account
	// Telemetry is the live store; nil: there is none.
	Telemetry Telemetry
	// Source identifies the action across all its records.
	Source    int64
	Publisher Publisher
	Conn      *nats.Conn
	Streams   Streams
	Archive   *telemetry.Archive
	Firehose  Batch
	Objects   Objects
	Functions Functions // nil: there are none
	Alarms    Alarms    // nil: there are none
	Logs      Logs      // nil: there are none
	Metrics   *Metrics  // nil: there are none
	AWS       AWS       // nil: there is none
	Engines   Engines
	Web       *Web // nil: there is no way out
	// SearchEndpoints are origins, beside domains of AWS, that openSearch actions may name.
	SearchEndpoints []string
	Log             *slog.Logger
	Now             func() time.Time
}

// Permanent marks err as one that no further attempt can help.
func Permanent(err error) error { return &permanentError{err} }

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// IsPermanent tells whether err was marked by Permanent.
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

// Parse compiles a substitution template of a rule. A nil Parse leaves templates
// out, as suits an action whose records have been filled already.
type Parse func(text string, field sql.Field) (*sql.Template, error)

// Exhausted marks err as one after which a rule with an error action makes no further attempt, and one without does.
func Exhausted(err error) error { return &exhaustedError{err} }

type exhaustedError struct{ err error }

func (e *exhaustedError) Error() string { return e.err.Error() }
func (e *exhaustedError) Unwrap() error { return e.err }

// IsExhausted tells whether err was marked by Exhausted.
func IsExhausted(err error) bool {
	var e *exhaustedError
	return errors.As(err, &e)
}

// compiler reads the parameters of an action.
type compiler struct {
	kind  string
	parse Parse
	err   error
	out   []*sql.Template
	names []string // of out
}

// template takes a field that is a substitution template and returns its index in
// Record.Fields; -1 when it is absent.
func (c *compiler) template(name string, text *string, field sql.Field) int {
	if text == nil || c.err != nil {
		return -1
	}
	if c.parse == nil {
		c.out, c.names = append(c.out, nil), append(c.names, name)
		return len(c.out) - 1
	}
	t, err := c.parse(*text, field)
	if err != nil {
		c.err = fmt.Errorf("%s: %s: %w", c.kind, name, err)
		return -1
	}
	c.out, c.names = append(c.out, t), append(c.names, name)
	return len(c.out) - 1
}

// checked is template for a field whose value must pass check; a constant is
// checked now.
func (c *compiler) checked(name, text string, check func(string) error) int {
	i := c.template(name, &text, sql.Generic)
	c.constant(i, check)
	return i
}

// constant checks a template now if it always expands to the same text.
func (c *compiler) constant(i int, check func(string) error) {
	if c.err != nil || i < 0 || c.out[i] == nil {
		return
	}
	if text, ok := c.out[i].Constant(); ok {
		if err := check(text); err != nil {
			c.refuse("%w", err)
		}
	}
}

// role checks the role that AWS would assume; here it stands for nothing.
func (c *compiler) role(arn string) {
	if a, ok := aws.ParseARN(arn); !ok || a.Service != "iam" {
		c.refuse("roleArn %q is not the ARN of a role", arn)
	}
}

// value is what an optional parameter holds, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// refuse notes the first thing that is wrong.
func (c *compiler) refuse(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(c.kind+": "+format, args...)
	}
}

// kind is a line of the table: an action of the model.
type kind struct {
	name string
	// has tells whether the action is of this kind.
	has func(*iot.Action) bool
	// compile is nil for a kind that is not implemented.
	compile func(*compiler, *iot.Action) *Action
}

// kinds are all actions of the model.
var kinds = []kind{
	{"republish", func(a *iot.Action) bool { return a.Republish != nil }, compileRepublish},
	{"kinesis", func(a *iot.Action) bool { return a.Kinesis != nil }, compileKinesis},
	{"sns", func(a *iot.Action) bool { return a.Sns != nil }, compileSNS},
	{"sqs", func(a *iot.Action) bool { return a.Sqs != nil }, compileSQS},
	{"firehose", func(a *iot.Action) bool { return a.Firehose != nil }, compileFirehose},
	{"s3", func(a *iot.Action) bool { return a.S3 != nil }, compileS3},
	{"lambda", func(a *iot.Action) bool { return a.Lambda != nil }, compileLambda},
	{"http", func(a *iot.Action) bool { return a.Http != nil }, compileHTTP},
	{"timestream", func(a *iot.Action) bool { return a.Timestream != nil }, compileTimestream},

	{"cloudwatchAlarm", func(a *iot.Action) bool { return a.CloudwatchAlarm != nil }, compileCloudwatchAlarm},
	{"cloudwatchLogs", func(a *iot.Action) bool { return a.CloudwatchLogs != nil }, compileCloudwatchLogs},
	{"cloudwatchMetric", func(a *iot.Action) bool { return a.CloudwatchMetric != nil }, compileCloudwatchMetric},
	{"dynamoDB", func(a *iot.Action) bool { return a.DynamoDB != nil }, compileDynamoDB},
	{"dynamoDBv2", func(a *iot.Action) bool { return a.DynamoDBv2 != nil }, compileDynamoDBv2},
	{"elasticsearch", func(a *iot.Action) bool { return a.Elasticsearch != nil }, compileElasticsearch},
	{"iotAnalytics", func(a *iot.Action) bool { return a.IotAnalytics != nil }, compileIotAnalytics},
	{"iotEvents", func(a *iot.Action) bool { return a.IotEvents != nil }, compileIotEvents},
	{"iotSiteWise", func(a *iot.Action) bool { return a.IotSiteWise != nil }, compileIotSiteWise},
	{"kafka", func(a *iot.Action) bool { return a.Kafka != nil }, nil},
	{"location", func(a *iot.Action) bool { return a.Location != nil }, compileLocation},
	{"openSearch", func(a *iot.Action) bool { return a.OpenSearch != nil }, compileOpenSearch},
	{"salesforce", func(a *iot.Action) bool { return a.Salesforce != nil }, nil},
	{"stepFunctions", func(a *iot.Action) bool { return a.StepFunctions != nil }, compileStepFunctions},
}

// Compile checks an action of a rule and compiles it. The error is one sentence for
// the rule's author that names the parameter.
func Compile(a *iot.Action, parse Parse) (*Action, error) {
	var found *kind
	for i := range kinds {
		if a == nil || !kinds[i].has(a) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("an action is of one kind: it has both %s and %s", found.name, kinds[i].name)
		}
		found = &kinds[i]
	}
	switch {
	case found == nil:
		return nil, errors.New("an action has no kind, such as republish or kinesis")
	case found.compile == nil:
		return nil, fmt.Errorf("the action %s is not implemented", found.name)
	}
	c := &compiler{kind: found.name, parse: parse}
	out := found.compile(c, a)
	if c.err != nil {
		return nil, c.err
	}
	out.Kind, out.Name, out.Templates = found.name, strings.ToUpper(found.name[:1])+found.name[1:]+"Action", c.out
	out.Fields = c.names
	return out, nil
}
