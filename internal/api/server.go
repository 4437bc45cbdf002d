package api

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"flotilla/internal/aws"
	"flotilla/internal/aws/dynamodb"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/aws/iotjobsdata"
	"flotilla/internal/aws/lambda"
	"flotilla/internal/aws/sts"
	"flotilla/internal/aws/wire"
)

// Config is the room's part of the configuration; its zero value works.
type Config struct {
	MaxBodyBytes  int64         `name:"api.max-body-bytes" default:"1048576" help:"Largest body of a request."`
	MaxConcurrent int           `name:"api.max-concurrent" default:"256" help:"Most requests in progress; further ones are answered with ThrottlingException."`
	BodyTimeout   time.Duration `name:"api.body-timeout" default:"20s" help:"How long a client may take to send a body."`
	Timeout       time.Duration `name:"api.timeout" default:"30s" help:"How long an operation may take."`
	MaxClockSkew  time.Duration `name:"api.max-clock-skew" default:"15m" help:"How far the time of a signature may be from the server's."`
}

func (c Config) withDefaults() Config {
	if c.MaxBodyBytes <= 0 {
		c.MaxBodyBytes = 1 << 20
	}
	if c.MaxConcurrent <= 0 {
		c.MaxConcurrent = 256
	}
	if c.BodyTimeout <= 0 {
		c.BodyTimeout = 20 * time.Second
	}
	if c.Timeout <= 0 {
		c.Timeout = 30 * time.Second
	}
	if c.MaxClockSkew <= 0 {
		c.MaxClockSkew = 15 * time.Minute
	}
	return c
}

// Keys knows the access keys. secret is "" for one that does not exist or may
// not be used. It is called for each request.
type Keys interface {
	AccessKey(ctx context.Context, id string) (secret string, p aws.Principal, err error)
}

// Deps are the others that the room works with.
type Deps struct {
	Account     aws.Account
	Keys        Keys
	Objects     Objects              // nil: there are none
	Permissions Permissions          // nil: nobody may do anything
	Audit       Audit                // nil: changes are not recorded
	AuditReads  bool                 // operations that only read are recorded, too
	Log         *slog.Logger         // nil discards
	Metrics     *prometheus.Registry // nil: none
	Now         func() time.Time     // time.Now when nil
}

// Server is the door. It is an http.Handler for callers with access keys.
// [Handle] is called before the first request; after that the server is safe
// for concurrent use.
type Server struct {
	cfg         Config
	account     aws.Account
	keys        Keys
	objects     Objects
	permissions Permissions
	auditor     Audit
	auditReads  bool
	denials     refusals // that are recorded
	log         *slog.Logger
	now         func() time.Time
	metrics     *metrics
	services    []*service
	byScope     map[string]*service
	bounds      *bounds // of operations that have none of their own
	derived     signingKeys
}

// New makes a server that knows all operations of the AWS services here, and
// has a handler for none.
func New(cfg Config, d Deps) *Server {
	cfg = cfg.withDefaults()
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Permissions == nil {
		d.Permissions = nothing{}
	}
	control := newService("AWS IoT control plane", iot.Routes())
	data := newService("AWS IoT data plane", iotdata.Routes())
	jobs := newService("AWS IoT jobs data plane", iotjobsdata.Routes())
	functions := newService("AWS Lambda", lambda.Routes())
	tokens := newRPC("AWS Security Token Service", sts.Routes(), sts.Protocol())
	tables := newRPC("Amazon DynamoDB", dynamodb.Routes(), dynamodb.Protocol())
	operator := newService("Flotilla, for operators", flotilla.Routes())
	all := &bounds{reading: make(chan struct{}, cfg.MaxConcurrent), running: make(chan struct{}, cfg.MaxConcurrent)}
	all.complete(cfg)
	s := &Server{
		cfg: cfg, account: d.Account, keys: d.Keys, objects: d.Objects, permissions: d.Permissions, auditor: d.Audit, auditReads: d.AuditReads,
		denials: refusals{limit: rate.NewLimiter(rate.Every(deniedEvery), deniedBurst)}, log: d.Log, now: d.Now, metrics: newMetrics(d.Metrics),
		services: []*service{control, data, jobs, functions, tokens, tables, operator},
		byScope: map[string]*service{
			"iot": control, "iotdata": data, "iot-jobs-data": jobs, "lambda": functions, "sts": tokens, "dynamodb": tables, "flotilla": operator,
			"execute-api":      control, // what clients signed before 2023 (AWS CLI 2.9 of Debian 12, JavaScript SDK v2)
			"iotdevicegateway": data,    // https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html
		},
		bounds: all,
	}
	Handle(s, sts.GetCallerIdentity, s.getCallerIdentity)
	return s
}

// endpoint is an operation and what serves it.
type endpoint struct {
	*aws.Route
	labels []string // of the path, in its order
	// serve decodes, calls the room and encodes; nil while there is no handler.
	serve func(context.Context, *wire.Request, *wire.Response) error
	// bounds are its own; nil: the server's.
	bounds *bounds
}

// Handle plugs in the method that serves an operation. A second handler of one
// operation is a bug and panics.
func Handle[In, Out any](s *Server, op aws.Operation[In, Out], fn func(context.Context, *In) (*Out, error)) {
	e := s.byScope[op.Service].byName[op.Name]
	if e.serve != nil {
		panic("api: two handlers of " + op.Service + " " + op.Name)
	}
	e.serve = func(ctx context.Context, r *wire.Request, w *wire.Response) error {
		in, err := op.Decode(r)
		if err != nil {
			return err
		}
		out, err := fn(ctx, in)
		if err != nil {
			return err
		}
		if op.Status != 0 {
			w.Status = op.Status
		}
		op.Write(w, out)
		return nil
	}
}
