package ota_test

import (
	"context"
	"fmt"
	"io/fs"
	"sync"
	"testing"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/ota"
	"flotilla/internal/store"
)

var account = aws.Account{ID: "123456789012", Region: "us-east-1"}

const role = "arn:aws:iam::123456789012:role/ota"

// world is a room with objects and jobs of its own.
type world struct {
	*ota.OTA
	t testing.TB

	mu       sync.Mutex
	objects  map[string][]byte
	versions map[string]int
	reading  chan struct{} // not nil: a read waits for a value
	jobs     map[string]*iot.CreateJobRequest
	running  bool // jobs have not ended
	messages []*mqtt.Message
	tags     map[string]int
}

func newWorld(t testing.TB, db *store.DB, change ...func(*ota.Config)) *world {
	w := &world{t: t, objects: map[string][]byte{}, versions: map[string]int{}, jobs: map[string]*iot.CreateJobRequest{}, tags: map[string]int{}}
	now := time.Unix(1_800_000_000, 0)
	cfg := ota.Config{Now: func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); now = now.Add(time.Second); return now }}
	for _, c := range change {
		c(&cfg)
	}
	w.OTA = ota.New(cfg, ota.Deps{Account: account, DB: db, Publisher: w, Objects: w, Jobs: w, Tags: w})
	return w
}

// put stores an object.
func (w *world) put(bucket, key string, b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.objects[bucket+"/"+key] = b
	w.versions[bucket+"/"+key]++
}

func (w *world) ReadRange(ctx context.Context, bucket, key string, offset, length int64) ([]byte, int64, string, error) {
	w.mu.Lock()
	b, ok := w.objects[bucket+"/"+key]
	version, reading := fmt.Sprint(w.versions[bucket+"/"+key]), w.reading
	w.mu.Unlock()
	if reading != nil {
		select {
		case <-reading:
		case <-ctx.Done():
			return nil, 0, "", ctx.Err()
		}
	}
	if !ok {
		return nil, 0, "", fmt.Errorf("no object: %w", fs.ErrNotExist)
	}
	size := int64(len(b))
	return b[min(offset, size):min(offset+length, size)], size, version, nil
}

func (w *world) Publish(_ context.Context, m *mqtt.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.messages = append(w.messages, m)
	return nil
}

func (w *world) CreateJob(_ context.Context, in *iot.CreateJobRequest) (*iot.CreateJobResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.jobs[in.JobId] != nil {
		return nil, &iot.ResourceAlreadyExistsException{Message: in.JobId}
	}
	w.jobs[in.JobId] = in
	return &iot.CreateJobResponse{JobArn: new(account.ARN("iot", "job/"+in.JobId))}, nil
}

func (w *world) DeleteJob(_ context.Context, in *iot.DeleteJobRequest) (*iot.DeleteJobResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.jobs[in.JobId] == nil:
		return nil, &iot.ResourceNotFoundException{Message: in.JobId}
	case w.running && (in.Force == nil || !*in.Force):
		return nil, &iot.InvalidStateTransitionException{Message: in.JobId}
	}
	delete(w.jobs, in.JobId)
	return &iot.DeleteJobResponse{}, nil
}

func (w *world) TagResource(_ context.Context, in *iot.TagResourceRequest) (*iot.TagResourceResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tags[in.ResourceArn] = len(in.Tags)
	return &iot.TagResourceResponse{}, nil
}

func (w *world) DeleteTags(_ context.Context, arn string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.tags, arn)
	return nil
}

func (w *world) job(id string) *iot.CreateJobRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.jobs[id]
}

// ask sends a request of thing T and gives the answers to it.
func (w *world) ask(topic string, payload []byte) []*mqtt.Message {
	w.t.Helper()
	w.mu.Lock()
	w.messages = nil
	w.mu.Unlock()
	if err := w.ServeMQTT(w.t.Context(), &mqtt.Message{Topic: topic, Payload: payload}); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.messages
}

// stream makes a stream of one object bucket/key, file 0.
func (w *world) stream(id, bucket, key string) {
	w.t.Helper()
	_, err := w.CreateStream(w.t.Context(), &iot.CreateStreamRequest{StreamId: id, RoleArn: role, Files: []*iot.StreamFile{inBucket(0, bucket, key)}})
	if err != nil {
		w.t.Fatal(err)
	}
}

func inBucket(id int32, bucket, key string) *iot.StreamFile {
	return &iot.StreamFile{FileId: &id, S3Location: &iot.S3Location{Bucket: &bucket, Key: &key}}
}

// image is n bytes that don't repeat with any block size.
func image(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}
