package commands

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotjobsdata"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// Things is what this room asks of the registry.
type Things interface {
	// DescribeThing gives an iot.ResourceNotFoundException for one that does not exist.
	DescribeThing(context.Context, *iot.DescribeThingRequest) (*iot.DescribeThingResponse, error)
}

// Publisher delivers messages of the service.
type Publisher interface {
	// Publish returns once the message is kept for all who are owed it.
	Publish(context.Context, *mqtt.Message) error
	// Awaited tells whether a message on topic would reach anybody.
	Awaited(topic string) bool
}

// Tags are the tags of resources; both join a Write in ctx.
type Tags interface {
	TagResource(context.Context, *iot.TagResourceRequest) (*iot.TagResourceResponse, error)
	DeleteTags(ctx context.Context, resourceARN string) error
}

// Events publishes events.
type Events interface {
	// Emit publishes an event, a JSON document, once the Write in ctx has committed.
	Emit(ctx context.Context, topic string, payload []byte) error
}

// Config bounds the room. Zero values are the defaults.
type Config struct {
	MaxCommands int           `name:"commands.max-commands" default:"10000" help:"Most commands."`
	MaxActive   int           `name:"commands.max-active" default:"1000" help:"Most executions of commands of a device that it has not ended."`
	Keep        time.Duration `name:"commands.keep" default:"4392h" help:"How long executions of commands are kept; AWS keeps them six months."`
}

// Deps are the others that the room works with.
type Deps struct {
	Account   aws.Account
	DB        *store.DB
	Things    Things
	Publisher Publisher
	Tags      Tags
	Events    Events
	Log       *slog.Logger
	Now       func() time.Time // time.Now when nil
}

// Commands is the room. It is safe for concurrent use.
type Commands struct {
	cfg Config
	Deps
}

// New makes the room; [Commands.Run] lets executions time out.
func New(cfg Config, d Deps) *Commands {
	if cfg.MaxCommands <= 0 {
		cfg.MaxCommands = 10_000
	}
	if cfg.MaxActive <= 0 {
		cfg.MaxActive = 1000
	}
	if cfg.Keep <= 0 {
		cfg.Keep = 183 * 24 * time.Hour
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	return &Commands{cfg: cfg, Deps: d}
}

func (c *Commands) arn(id string) string { return c.Account.ARN("iot", "command/"+id) }

func (c *Commands) nowMS() int64 { return c.Now().UnixMilli() }

func invalid(format string, args ...any) error {
	return &iot.ValidationException{Message: fmt.Sprintf(format, args...)}
}

// invalidStart is invalid for the data plane.
func invalidStart(format string, args ...any) error {
	return &iotjobsdata.ValidationException{Message: fmt.Sprintf(format, args...)}
}

// targetOf is what the ARN of a target names: thing/NAME or client/ID.
func (c *Commands) targetOf(arn string) (target string, ok bool) {
	target, ok = strings.CutPrefix(arn, c.Account.ARN("iot", ""))
	kind, name, _ := strings.Cut(target, "/")
	return target, ok && (kind == "thing" || kind == "client") && name != "" && len(name) <= 128 && !strings.ContainsAny(name, "/+#\x00")
}

func (c *Commands) targetARN(target string) string { return c.Account.ARN("iot", target) }

// topicOf is where a target's executions are.
func topicOf(target, id string) string {
	kind, name, _ := strings.Cut(target, "/")
	return "$aws/commands/" + kind + "s/" + name + "/executions/" + id + "/"
}

func date(ms int64) *aws.Time {
	if ms == 0 {
		return nil
	}
	return &aws.Time{Time: time.UnixMilli(ms).UTC()}
}

// value is what p points to, the zero value when it is nil.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func tokenOf(text string) *string { return new(base64.RawURLEncoding.EncodeToString([]byte(text))) }

func readToken(token *string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(value(token))
	if err != nil {
		return "", invalid("Invalid nextToken")
	}
	return string(b), nil
}

const (
	defaultPage = 25
	maxPage     = 100
)

func pageOf(n *int32) int {
	if n == nil {
		return defaultPage
	}
	return max(1, min(int(*n), maxPage))
}
