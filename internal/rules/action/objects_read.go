package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// Source reads objects.
type Source interface {
	// ReadRange gives at most length bytes of an object from an offset on, none at its end; the size of the whole
	// object; and a text that changes when the object does. An error that is fs.ErrNotExist: there is no such object.
	ReadRange(ctx context.Context, bucket, key string, offset, length int64) (part []byte, size int64, version string, err error)
}

// Source makes a client that reads; region is used when the endpoint has none of its own.
func (e Endpoint) Source(region string) (Source, error) {
	objects, err := e.Open(region)
	if err != nil {
		return nil, err
	}
	return objects.(*bucketStore), nil
}

// ReadRange reads the file <dir>/<bucket>/<key>.
func (d *Directory) ReadRange(_ context.Context, bucket, key string, offset, length int64) (part []byte, size int64, version string, err error) {
	if err := checkPath(bucket + "/" + key); err != nil {
		return nil, 0, "", fmt.Errorf("objects: %w: %w", err, fs.ErrNotExist)
	}
	f, err := d.root.Open(bucket + "/" + key)
	if err != nil {
		return nil, 0, "", fmt.Errorf("objects: %w", err)
	}
	defer f.Close()
	of, err := f.Stat()
	if err != nil {
		return nil, 0, "", fmt.Errorf("objects: %w", err)
	}
	if !of.Mode().IsRegular() {
		return nil, 0, "", fmt.Errorf("objects: %s/%s is no file: %w", bucket, key, fs.ErrNotExist)
	}
	part = make([]byte, max(0, min(length, of.Size()-offset)))
	if _, err := f.ReadAt(part, offset); err != nil && !(errors.Is(err, io.EOF) && len(part) == 0) {
		return nil, 0, "", fmt.Errorf("objects: %w", err)
	}
	return part, of.Size(), strconv.FormatInt(of.Size(), 10) + "-" + strconv.FormatInt(of.ModTime().UnixNano(), 10), nil
}

// ReadRange reads by a range request; the version is the ETag.
func (b *bucketStore) ReadRange(ctx context.Context, bucket, key string, offset, length int64) (part []byte, size int64, version string, err error) {
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &bucket, Key: &key, Range: new(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)),
	})
	if err != nil {
		return b.notRead(ctx, bucket, key, err)
	}
	defer out.Body.Close()
	if part, err = io.ReadAll(io.LimitReader(out.Body, length)); err != nil {
		return nil, 0, "", err
	}
	size = offset + int64(len(part))
	if out.ContentRange != nil {
		_, total, _ := strings.Cut(*out.ContentRange, "/")
		if size, err = strconv.ParseInt(total, 10, 64); err != nil {
			return nil, 0, "", fmt.Errorf("the object store answered with the range %q", *out.ContentRange)
		}
	} else if offset > 0 {
		return nil, 0, "", errors.New("the object store answers no ranges")
	} else if out.ContentLength != nil {
		size = *out.ContentLength
	}
	if out.ETag != nil {
		version = *out.ETag
	}
	return part, size, version, nil
}

// notRead tells an object that is not there, or that ends before the range, from a failure.
func (b *bucketStore) notRead(ctx context.Context, bucket, key string, err error) ([]byte, int64, string, error) {
	var answer interface{ HTTPStatusCode() int }
	var api smithy.APIError
	status := 0
	if errors.As(err, &answer) {
		status = answer.HTTPStatusCode()
	}
	if errors.As(err, &api) {
		err = fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage())
	}
	switch status {
	case http.StatusNotFound:
		return nil, 0, "", fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	case http.StatusRequestedRangeNotSatisfiable:
		head, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
		if err != nil {
			return nil, 0, "", err
		}
		var size int64
		if head.ContentLength != nil {
			size = *head.ContentLength
		}
		version := ""
		if head.ETag != nil {
			version = *head.ETag
		}
		return nil, size, version, nil
	}
	return nil, 0, "", err
}
