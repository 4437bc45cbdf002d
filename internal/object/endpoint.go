package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// Refused marks err as one that no further attempt can help.
func Refused(err error) error { return &refusedError{err} }

type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// IsRefused tells whether err was marked by Refused.
func IsRefused(err error) bool {
	_, is := errors.AsType[*refusedError](err)
	return is
}

// Endpoint is an S3-compatible service.
type Endpoint struct {
	URL       string `name:"objects.s3-endpoint" env:"FLOTILLA_OBJECTS_S3_ENDPOINT" help:"S3-compatible service that has all objects, as a URL; they are in the data directory when it is empty."`
	Region    string `name:"objects.s3-region" env:"FLOTILLA_OBJECTS_S3_REGION" help:"Region that requests to it are signed for; the deployment's when empty."`
	AccessKey string `name:"objects.s3-access-key" env:"FLOTILLA_OBJECTS_S3_ACCESS_KEY" help:"Access key for it."`
	SecretKey string `name:"objects.s3-secret-key" env:"FLOTILLA_OBJECTS_S3_SECRET_KEY" help:"Secret key for it."`
	// VirtualHost is how AWS itself wants it; most others want the bucket in the path.
	VirtualHost bool `name:"objects.s3-virtual-host" env:"FLOTILLA_OBJECTS_S3_VIRTUAL_HOST" help:"Name buckets in the host of its URLs, not in the path."`
}

// Open makes a client; region is used when the endpoint has none of its own.
func (e Endpoint) Open(region string) (*Service, error) {
	if e.AccessKey == "" || e.SecretKey == "" {
		return nil, errors.New("objects.s3-endpoint needs objects.s3-access-key and objects.s3-secret-key")
	}
	if e.Region != "" {
		region = e.Region
	}
	return &Service{s3.New(s3.Options{
		BaseEndpoint: &e.URL, Region: region, UsePathStyle: !e.VirtualHost,
		Credentials:      credentials.NewStaticCredentialsProvider(e.AccessKey, e.SecretKey, ""),
		RetryMaxAttempts: 1, // the dispatcher repeats
		HTTPClient:       &http.Client{Timeout: time.Minute},
		// Checksums beyond what S3 itself demands are unknown to other services.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
	})}, nil
}

// Service is an S3-compatible service.
type Service struct{ client *s3.Client }

// Put stores an object; buckets are not made. Refusals of the request (4xx but 403,
// 404 of the bucket, 408 and 429, which an operator or time may mend) are permanent.
func (b *Service) Put(ctx context.Context, bucket, key string, payload []byte) error {
	_, err := b.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &bucket, Key: &key, Body: bytes.NewReader(payload), ContentLength: aws.Int64(int64(len(payload))),
	})
	if err == nil {
		return nil
	}
	var answer interface{ HTTPStatusCode() int }
	var api smithy.APIError
	if errors.As(err, &api) {
		wrapped := fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage())
		if errors.As(err, &answer) {
			switch answer.HTTPStatusCode() {
			case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong:
				return Refused(wrapped)
			}
		}
		return wrapped
	}
	return err
}
