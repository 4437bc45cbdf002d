package provision

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"

	"flotilla/internal/aws/iot"
	"flotilla/internal/provision/template"
	"flotilla/internal/store"
)

// Objects are where bulk registration reads its input.
type Objects interface {
	// ReadRange gives at most length bytes of an object from an offset on, none at its end; the size of the whole
	// object; and a text that changes when the object does. An error that is fs.ErrNotExist: there is no such object.
	ReadRange(ctx context.Context, bucket, key string, offset, length int64) (part []byte, size int64, version string, err error)
}

const (
	taskLifetime = 30 * 24 * time.Hour // a task is given up, and a finished one forgotten
	maxTasks     = 100                 // finished ones that are remembered
)

// StartThingRegistrationTask begins to register a thing for each line of an object: a JSON object of parameters for
// the template. One task runs at a time.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/bulk-provisioning.html
func (t *Templates) StartThingRegistrationTask(ctx context.Context, in *iot.StartThingRegistrationTaskRequest) (*iot.StartThingRegistrationTaskResponse, error) {
	if t.Objects == nil {
		return nil, invalid("There is no object store that bulk registration could read from.")
	}
	if _, err := template.Parse(in.TemplateBody, template.RegisterThing); err != nil {
		return nil, exception(err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("provision: task id: %w", err)
	}
	now := t.nowMS()
	k := &task{
		id: id.String(), body: in.TemplateBody, bucket: in.InputFileBucket, key: in.InputFileKey, roleARN: in.RoleArn,
		status: iot.StatusInProgress, created: now, modified: now, size: -1, reportKey: make([]byte, 32),
	}
	rand.Read(k.reportKey) // never fails
	err = t.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		if open, err := selectOpenTask(tx); err == nil {
			return invalid("Bulk registration task " + open.id + " is in progress: only one can run at a time.")
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return insertTask(tx, k)
	})
	if err != nil {
		return nil, err
	}
	t.bulk.nudge()
	return &iot.StartThingRegistrationTaskResponse{TaskId: &k.id}, nil
}

// DescribeThingRegistrationTask tells how far a task is.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeThingRegistrationTask.html
func (t *Templates) DescribeThingRegistrationTask(ctx context.Context, in *iot.DescribeThingRegistrationTaskRequest) (*iot.DescribeThingRegistrationTaskResponse, error) {
	k, err := t.task(ctx, in.TaskId)
	if err != nil {
		return nil, err
	}
	return &iot.DescribeThingRegistrationTaskResponse{
		TaskId: &k.id, CreationDate: date(k.created), LastModifiedDate: date(k.modified), TemplateBody: &k.body,
		InputFileBucket: &k.bucket, InputFileKey: &k.key, RoleArn: &k.roleARN, Status: &k.status, Message: optional(k.message),
		SuccessCount: new(count(k.succeeded)), FailureCount: new(count(k.failed)), PercentageProgress: new(k.percent()),
	}, nil
}

func count(n int64) int32 { return int32(min(n, math.MaxInt32)) }

// percent is how much of the input is done.
func (k *task) percent() int32 {
	switch {
	case k.status == iot.StatusCompleted:
		return 100
	case k.size <= 0:
		return 0
	}
	return int32(100 * k.doneBytes / k.size)
}

func (t *Templates) task(ctx context.Context, id string) (k *task, err error) {
	err = t.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		k, err = selectTask(tx, id)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, &iot.ResourceNotFoundException{Message: "Thing registration task " + id + " was not found."}
	}
	return k, err
}

// ListThingRegistrationTasks lists task ids, the oldest first.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListThingRegistrationTasks.html
func (t *Templates) ListThingRegistrationTasks(ctx context.Context, in *iot.ListThingRegistrationTasksRequest) (*iot.ListThingRegistrationTasksResponse, error) {
	after, err := parseToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := pageSize(in.MaxResults)
	var ids []string
	err = t.DB.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		ids, err = selectTaskIDs(tx, after, value(in.Status), limit+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &iot.ListThingRegistrationTasksResponse{TaskIds: ids}
	if len(ids) > limit {
		out.TaskIds = ids[:limit]
		out.NextToken = nextToken(ids[limit-1])
	}
	return out, nil
}

// StopThingRegistrationTask ends a task: no further line is begun. What was registered stays.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_StopThingRegistrationTask.html
func (t *Templates) StopThingRegistrationTask(ctx context.Context, in *iot.StopThingRegistrationTaskRequest) (*iot.StopThingRegistrationTaskResponse, error) {
	if _, err := t.task(ctx, in.TaskId); err != nil {
		return nil, err
	}
	err := t.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		k, err := selectTask(tx, in.TaskId)
		switch {
		case err != nil:
			return err
		case k.status == iot.StatusCancelling:
			return nil
		case k.status != iot.StatusInProgress:
			return invalid("Thing registration task " + k.id + " is not in progress: it is " + k.status + ".")
		}
		return setTaskStatus(tx, k.id, iot.StatusCancelling, "", t.nowMS())
	})
	if err != nil {
		return nil, err
	}
	t.bulk.nudge()
	return &iot.StopThingRegistrationTaskResponse{}, nil
}
