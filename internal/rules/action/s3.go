package action

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"flotilla/internal/aws/iot"
	"flotilla/internal/object"
	"flotilla/internal/rules/sql"
)

var s3Bucket = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// maxKey is S3's limit in bytes.
const maxKey = 1024

func checkBucket(s string) error {
	if !s3Bucket.MatchString(s) {
		return fmt.Errorf("bucketName %q is not the name of a bucket", s)
	}
	return nil
}

// compileS3 makes an action that stores each message as an object. cannedAcl is
// checked and has no effect: objects are as private as the directory or bucket.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/s3-rule-action.html
func compileS3(c *compiler, a *iot.Action) *Action {
	p := a.S3
	c.role(p.RoleArn)
	bucket := c.checked("bucketName", p.BucketName, checkBucket)
	key := c.template("key", &p.Key, sql.Generic)
	switch acl := value(p.CannedAcl); acl {
	case "", "private", "public-read", "public-read-write", "aws-exec-read", "authenticated-read", "bucket-owner-read",
		"bucket-owner-full-control", "log-delivery-write":
	default:
		c.refuse("cannedAcl %q is not a canned ACL", acl)
	}
	return &Action{
		batch: func(Env) Batch { return Batch{Rows: 32, Bytes: 4 << 20} },
		open: func(env Env) (Sink, error) {
			if env.Objects == nil {
				return nil, errors.New("s3: there is no object store")
			}
			return &s3Sink{env: env, bucket: bucket, key: key}, nil
		},
	}
}

// s3Sink stores one object after the other: of two with one key, the later one stays.
type s3Sink struct {
	env         Env
	bucket, key int
}

func (s *s3Sink) Do(ctx context.Context, records []Record) (int, error) {
	for i := range records {
		r := &records[i]
		bucket, key := r.Fields[s.bucket], r.Fields[s.key]
		if err := checkBucket(bucket); err != nil {
			return i, Permanent(err)
		}
		if key == "" || len(key) > maxKey {
			return i, Permanent(fmt.Errorf("key has %d bytes; it has 1 to %d", len(key), maxKey))
		}
		err := s.env.Objects.Put(ctx, bucket, key, r.Payload)
		if object.IsRefused(err) {
			return i, Permanent(err)
		}
		if err != nil {
			return i, err
		}
	}
	return len(records), nil
}

func (s *s3Sink) Resource(r *Record) string { return r.Fields[s.bucket] }

func (s *s3Sink) Close() error { return nil }
