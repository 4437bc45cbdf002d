package object

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

// ReadRange reads the file <dir>/<bucket>/<key>: at most length bytes of it from an offset on, none at its end; the size
// of the whole; and a text that changes when the object does. An error that is fs.ErrNotExist: there is no such object.
func (d *Directory) ReadRange(_ context.Context, bucket, key string, offset, length int64) (part []byte, size int64, version string, err error) {
	f, of, err := d.Get(bucket, key)
	if err != nil {
		return nil, 0, "", err
	}
	defer f.Close()
	part = make([]byte, max(0, min(length, of.Size-offset)))
	if _, err := f.ReadAt(part, offset); err != nil && !(errors.Is(err, io.EOF) && len(part) == 0) {
		return nil, 0, "", fmt.Errorf("objects: %w", err)
	}
	return part, of.Size, of.Version, nil
}

// ReadRange is as of Directory, by a range request; the version is the ETag.
func (b *Service) ReadRange(ctx context.Context, bucket, key string, offset, length int64) (part []byte, size int64, version string, err error) {
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
func (b *Service) notRead(ctx context.Context, bucket, key string, err error) ([]byte, int64, string, error) {
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
