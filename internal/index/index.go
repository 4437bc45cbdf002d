package index

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/index/query"
	"flotilla/internal/store"
)

// Registry is what this room asks of the registry. Methods join a transaction in ctx.
type Registry interface {
	DescribeThing(context.Context, *iot.DescribeThingRequest) (*iot.DescribeThingResponse, error)
	ListThings(context.Context, *iot.ListThingsRequest) (*iot.ListThingsResponse, error)
	ListThingGroupsForThing(context.Context, *iot.ListThingGroupsForThingRequest) (*iot.ListThingGroupsForThingResponse, error)
	DescribeThingGroup(context.Context, *iot.DescribeThingGroupRequest) (*iot.DescribeThingGroupResponse, error)
	ListThingGroups(context.Context, *iot.ListThingGroupsRequest) (*iot.ListThingGroupsResponse, error)
}

// DynamicGroups is what this room asks of the registry about dynamic thing groups. Methods join a transaction in ctx.
type DynamicGroups interface {
	// DynamicThingGroups gives those that have things, by name; BUILDING until DynamicThingGroupBuilt.
	DynamicThingGroups(ctx context.Context) ([]*iot.DescribeThingGroupResponse, error)
	// SetDynamicThingGroups has a thing be in some and not in others, as far as it exists and there is room.
	SetDynamicThingGroups(ctx context.Context, thing string, in, out []string) error
	DynamicThingGroupBuilt(ctx context.Context, name, query string) error
	// TouchThing has nodes that do something about the same thing wait for each other until the transaction ends.
	TouchThing(ctx context.Context, thing string) (exists bool, err error)
	ListThingsInThingGroup(context.Context, *iot.ListThingsInThingGroupRequest) (*iot.ListThingsInThingGroupResponse, error)
}

// Shadows is what this room asks of shadow. It joins a transaction in ctx; a shadow that does not exist is
// iotdata.ResourceNotFoundException.
type Shadows interface {
	GetThingShadow(context.Context, *iotdata.GetThingShadowRequest) (*iotdata.GetThingShadowResponse, error)
}

// Tags keeps the tags of fleet metrics. Methods join a transaction in ctx.
type Tags interface {
	TagResource(context.Context, *iot.TagResourceRequest) (*iot.TagResourceResponse, error)
	DeleteTags(ctx context.Context, resourceARN string) error
}

// Changes carries news of changes of the configuration between nodes.
type Changes interface {
	Changed(kind, key string)
	OnChange(kind string, fn func(key string))
}

// Config bounds the room. Zero values are the profile's.
type Config struct {
	MaxMarks        int `name:"index.max-marks" default:"200000" help:"Most changed things that wait in memory to be indexed; beyond it everything is indexed anew."`
	MaxFields       int `name:"index.max-fields" default:"10000" help:"Most fields of an index; values of further ones are not found."`
	MaxValues       int `name:"index.max-values" default:"1000" help:"Most values of a thing that are indexed."`
	MaxFleetMetrics int `name:"index.max-fleet-metrics" default:"100" help:"Most fleet metrics."`

	// Limits is the profile: aws, default or unlimited; "" is default.
	Limits string `kong:"-" toml:"-"`
}

// Deps are the others that the room works with.
type Deps struct {
	Account  aws.Account
	DB       *store.DB
	Registry Registry
	Dynamic  DynamicGroups // nil: there are none
	Shadows  Shadows
	Changes  Changes
	Tags     Tags // of fleet metrics
	NodeID   string
	Log      *slog.Logger
	Metrics  *prometheus.Registry // nil: none
	Now      func() time.Time     // time.Now when nil
}

// Index is the room. It is safe for concurrent use.
type Index struct {
	cfg     Config
	limits  query.Limits
	deps    Deps
	db      *store.DB
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics

	on           atomic.Bool // something is indexed
	connectivity atomic.Bool // that things are connected, too

	few, walk int // documents that a search tries itself

	queries atomic.Pointer[map[string]*query.Query] // of dynamic groups, by text; nil values do not parse

	marks  marks
	wake   chan struct{} // marks are there
	lead   chan struct{} // the leader has something to do
	meter  chan struct{} // fleet metrics have changed
	mu     sync.Mutex
	fields [kinds]map[string]int64 // numbers of fields' names, as far as they are known
}

// kindSetting is news of a changed configuration.
const kindSetting = "index"

// The indexes, as index_document.kind has them.
const (
	things = int64(iota)
	groups
	kinds
)

// names of the indexes.
var indexNames = [kinds]string{"AWS_Things", "AWS_ThingGroups"}

// New makes the room; [Index.Run] makes it follow what changes.
func New(cfg Config, d Deps) *Index {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxMarks <= 0 {
		cfg.MaxMarks = 200_000
	}
	if cfg.MaxFields <= 0 {
		cfg.MaxFields = 10_000
	}
	if cfg.MaxValues <= 0 {
		cfg.MaxValues = 1000
	}
	if cfg.MaxFleetMetrics <= 0 {
		cfg.MaxFleetMetrics = 100
	}
	x := &Index{
		cfg: cfg, deps: d, db: d.DB, log: d.Log, now: d.Now, metrics: newMetrics(d.Metrics),
		wake: make(chan struct{}, 1), lead: make(chan struct{}, 1), meter: make(chan struct{}, 1),
		limits: query.Limits{Bytes: 4096, Terms: 64}, few: fewDocuments, walk: walkDocuments,
	}
	if cfg.Limits == "aws" {
		x.limits = query.Limits{Bytes: 1000, Terms: 12, Stars: 2, Questions: 5, LeadingStars: 1, LeadingBytes: 100}
	}
	x.marks.most = cfg.MaxMarks
	for k := range x.fields {
		x.fields[k] = map[string]int64{}
	}
	d.Changes.OnChange(kindSetting, func(string) {
		x.marks.reload()
		poke(x.wake)
		poke(x.lead)
	})
	d.Changes.OnChange(kindMetric, func(string) { poke(x.meter) })
	return x
}

// poke tells who waits on c that there is something to do.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// number gives a field's number, a new one when insert is set; false when there is none.
func (x *Index) field(tx store.Tx, known map[string]int64, kind int64, name string, insert bool) (int64, bool, error) {
	if n, ok := known[name]; ok {
		return n, n != 0, nil
	}
	x.mu.Lock()
	n, ok := x.fields[kind][name]
	x.mu.Unlock()
	if ok {
		return n, true, nil
	}
	n, err := selectField(tx, kind, name)
	if err == nil && n == 0 && insert {
		n, err = insertField(tx, kind, name, x.cfg.MaxFields)
	}
	if err != nil {
		return 0, false, fmt.Errorf("index: field: %w", err)
	}
	if n != 0 || insert {
		known[name] = n
	}
	return n, n != 0, nil
}

// learn keeps the numbers of fields that a committed transaction used.
func (x *Index) learn(kind int64, known map[string]int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for name, n := range known {
		if n != 0 {
			x.fields[kind][name] = n
		}
	}
}

func invalid(format string, args ...any) error {
	return &iot.InvalidRequestException{Message: fmt.Sprintf(format, args...)}
}

// value is what p points to, the zero value when it is nil.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
