package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/jobs/rollout"
	"flotilla/internal/mqtt"
	"flotilla/internal/store"
)

// Statuses of jobs and executions.
const (
	scheduled  = iot.JobStatusScheduled
	inProgress = iot.JobStatusInProgress // of executions too
	completed  = iot.JobStatusCompleted
	canceled   = iot.JobStatusCanceled // of executions too
	deleting   = iot.JobStatusDeletionInProgress

	queued    = iot.JobExecutionStatusQueued
	succeeded = iot.JobExecutionStatusSucceeded
	failed    = iot.JobExecutionStatusFailed
	timedOut  = iot.JobExecutionStatusTimedOut
	rejected  = iot.JobExecutionStatusRejected
	removed   = iot.JobExecutionStatusRemoved
)

// Config bounds the room.
type Config struct {
	MaxPerMinute  int64         `name:"jobs.max-per-minute" default:"0" help:"Most executions of a job that start in a minute, and the rate of a job that says none; 0: 1000 under --limits aws, 1000000 otherwise."`
	MaxExecutions int           `name:"jobs.max-pending-per-thing" default:"1000" help:"Most executions of a thing that have not ended; a rollout waits for such a thing."`
	Poll          time.Duration `name:"jobs.poll" default:"1s" help:"How often the node that leads looks at rollouts, schedules and timers."`

	Sweep time.Duration `name:"jobs.sweep" default:"5m" help:"How often memberships of all things with unfinished executions are looked at anew, for news that got lost."`

	MaxContinuous int           `name:"jobs.max-continuous" default:"0" help:"Most continuous jobs IN_PROGRESS; 0: 100 under --limits aws, any number otherwise."`
	MaxSnapshot   int           `name:"jobs.max-snapshot" default:"0" help:"Most snapshot jobs IN_PROGRESS; 0: 100 under --limits aws, any number otherwise."`
	MaxConcurrent int           `name:"jobs.max-concurrent" default:"0" help:"Most jobs that roll out, or cancel executions, at the same time; 0: 20 under --limits aws, any number otherwise."`
	MaxTemplates  int           `name:"jobs.max-templates" default:"0" help:"Most job templates; 0: 100 under --limits aws, any number otherwise."`
	Retention     time.Duration `name:"jobs.retention" default:"17520h" help:"How long jobs that are COMPLETED or CANCELED are kept, with their executions; negative: for good."`

	Limits string           `kong:"-" toml:"-"` // aws | default | unlimited
	Now    func() time.Time `kong:"-" toml:"-"`
}

// Publisher delivers messages of the service. Publish returns once what it owes to absent subscribers is durable.
type Publisher interface {
	Publish(ctx context.Context, m *mqtt.Message) error
}

// Things is the registry. All give iot.ResourceNotFoundException for what does not exist.
type Things interface {
	DescribeThing(ctx context.Context, in *iot.DescribeThingRequest) (*iot.DescribeThingResponse, error)
	DescribeThingGroup(ctx context.Context, in *iot.DescribeThingGroupRequest) (*iot.DescribeThingGroupResponse, error)
	ListThingGroupsForThing(ctx context.Context, in *iot.ListThingGroupsForThingRequest) (*iot.ListThingGroupsForThingResponse, error)
	ListThingsInThingGroup(ctx context.Context, in *iot.ListThingsInThingGroupRequest) (*iot.ListThingsInThingGroupResponse, error)
}

// Tags keeps the tags of jobs.
type Tags interface {
	TagResource(context.Context, *iot.TagResourceRequest) (*iot.TagResourceResponse, error)
	// DeleteTags takes all tags from a resource; it joins a Write in ctx.
	DeleteTags(ctx context.Context, resourceARN string) error
}

// Deps are the others that the room works with.
type Deps struct {
	Account   aws.Account
	DB        *store.DB
	Things    Things
	Publisher Publisher
	Tags      Tags
	Events    Events    // nil: none are published
	Objects   Objects   // nil: documents have no sources
	Presigner Presigner // nil: documents have no presigned URLs
	Log       *slog.Logger
}

// Jobs serves all jobs of the account. It is safe for concurrent use.
type Jobs struct {
	cfg Config
	Deps
	bounds rollout.Bounds
	marks  marks
	wake   chan struct{} // a rollout has something to do at once
}

// New returns the jobs in d.DB. Run must run for rollouts to move.
func New(cfg Config, d Deps) *Jobs {
	if cfg.MaxPerMinute <= 0 {
		cfg.MaxPerMinute = 1_000_000
		if cfg.Limits == "aws" {
			cfg.MaxPerMinute = 1000
		}
	}
	if cfg.MaxExecutions <= 0 {
		cfg.MaxExecutions = 1000
	}
	if cfg.Poll <= 0 {
		cfg.Poll = time.Second
	}
	if cfg.Retention == 0 {
		cfg.Retention = 730 * 24 * time.Hour
	}
	if cfg.Limits == "aws" {
		inherent(&cfg.MaxContinuous, 100)
		inherent(&cfg.MaxSnapshot, 100)
		inherent(&cfg.MaxConcurrent, 20)
		inherent(&cfg.MaxTemplates, 100)
	}
	if cfg.Sweep <= 0 {
		cfg.Sweep = 5 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	j := &Jobs{cfg: cfg, Deps: d, wake: make(chan struct{}, 1)}
	if cfg.Limits == "aws" {
		const day = 24 * time.Hour
		j.bounds = rollout.Bounds{Ahead: 30 * time.Minute, Farthest: 365 * day, Shortest: 30 * time.Minute, Longest: 2 * 365 * day}
	}
	return j
}

func (j *Jobs) nowMS() int64 { return j.cfg.Now().UnixMilli() }

// stir has the runner of this node look at once, if it leads.
func (j *Jobs) stir() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

func (j *Jobs) arn(jobID string) string { return j.Account.ARN("iot", "job/"+jobID) }

func (j *Jobs) thingARN(thing string) string { return j.Account.ARN("iot", "thing/"+thing) }

func invalid(format string, args ...any) error {
	return &iot.InvalidRequestException{Message: fmt.Sprintf(format, args...)}
}

func noJob(id string) error {
	return &iot.ResourceNotFoundException{Message: fmt.Sprintf("Job %s cannot be found.", id)}
}

func noExecution(thing, job string) error {
	return &iot.ResourceNotFoundException{Message: fmt.Sprintf("There is no execution of job %s for thing %s.", job, thing)}
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// set is nil for the zero value.
func set[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func timeOf(ms *int64) *aws.Time {
	if ms == nil {
		return nil
	}
	return &aws.Time{Time: time.UnixMilli(*ms)}
}
