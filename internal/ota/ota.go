package ota

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// Config bounds the room.
type Config struct {
	MaxFileBytes int64 `name:"ota.max-file-bytes" default:"0" help:"Largest file of a stream; 0: 25165824 (24 MiB) under --limits aws, what 98304 blocks of 128 KiB hold otherwise."`
	MaxRequests  int   `name:"ota.max-requests" default:"64" help:"Most requests for blocks that are served at once, each with up to 128 KiB in memory; further ones wait."`

	Limits string           `kong:"-" toml:"-"` // aws | default | unlimited
	Now    func() time.Time `kong:"-" toml:"-"`
}

// Publisher delivers messages of the service.
type Publisher interface {
	Publish(ctx context.Context, m *mqtt.Message) error
}

// Objects is the object store that has the files.
type Objects interface {
	// ReadRange gives at most length bytes of an object from an offset on, none at its end; the size of the whole; and a text
	// that changes when the object does. An error that is fs.ErrNotExist: there is no such object.
	ReadRange(ctx context.Context, bucket, key string, offset, length int64) (part []byte, size int64, version string, err error)
}

// Jobs tells things of updates. Both methods join a Write in ctx.
type Jobs interface {
	CreateJob(ctx context.Context, in *iot.CreateJobRequest) (*iot.CreateJobResponse, error)
	DeleteJob(ctx context.Context, in *iot.DeleteJobRequest) (*iot.DeleteJobResponse, error)
}

// Tags keeps the tags of streams and updates.
type Tags interface {
	TagResource(context.Context, *iot.TagResourceRequest) (*iot.TagResourceResponse, error)
	// DeleteTags takes all tags from a resource; it joins a Write in ctx.
	DeleteTags(ctx context.Context, resourceARN string) error
}

// Deps are the others that the room works with.
type Deps struct {
	Account   aws.Account
	DB        *store.DB
	Publisher Publisher
	Objects   Objects
	Jobs      Jobs
	Tags      Tags
	Log       *slog.Logger
	Metrics   *prometheus.Registry // nil: none are kept
}

const (
	maxStreams     = 10_000           // of an account, under --limits aws
	maxFileAWS     = 24 << 20         // bytes, under --limits aws
	maxFile        = maxOffset << 17  // bytes: what offsets and block sizes reach
	perThing       = 4                // requests of a thing that are served at once
	readTime       = 30 * time.Second // for the size of a file
	signedReadTime = time.Minute      // for a file whose signature is verified
)

// OTA serves all streams and updates of the account. It is safe for concurrent use.
type OTA struct {
	cfg Config
	Deps
	metrics *metrics
	slots   chan struct{} // one for each request that is served

	mu    sync.Mutex
	under map[string]int // requests of things that are served or wait
}

// New returns the streams and updates in d.DB.
func New(cfg Config, d Deps) *OTA {
	if cfg.MaxFileBytes <= 0 {
		cfg.MaxFileBytes = maxFile
		if cfg.Limits == "aws" {
			cfg.MaxFileBytes = maxFileAWS
		}
	}
	if cfg.MaxRequests <= 0 {
		cfg.MaxRequests = 64
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return &OTA{cfg: cfg, Deps: d, metrics: newMetrics(d.Metrics), slots: make(chan struct{}, cfg.MaxRequests), under: map[string]int{}}
}

func (o *OTA) nowMS() int64 { return o.cfg.Now().UnixMilli() }

func (o *OTA) streamARN(id string) string { return o.Account.ARN("iot", "stream/"+id) }

func (o *OTA) updateARN(id string) string { return o.Account.ARN("iot", "otaupdate/"+id) }

func invalid(format string, args ...any) error {
	return &iot.InvalidRequestException{Message: fmt.Sprintf(format, args...)}
}

func noStream(id string) error {
	return &iot.ResourceNotFoundException{Message: fmt.Sprintf("Stream %s cannot be found.", id)}
}

func noUpdate(id string) error {
	return &iot.ResourceNotFoundException{Message: fmt.Sprintf("OTA update %s cannot be found.", id)}
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func timeOf(ms int64) *aws.Time { return &aws.Time{Time: time.UnixMilli(ms)} }
