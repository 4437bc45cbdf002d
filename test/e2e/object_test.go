package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"flotilla/internal/server/servertest"
)

func s3Client(n *servertest.Node, accessKey, secret string) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: new(n.Endpoints().API), Region: "us-east-1", UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secret, ""),
	})
}

func s3Code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// AWS's S3 client keeps objects in the data directory.
func TestObjects(t *testing.T) {
	n := servertest.StartNode(t, t.TempDir())
	ctx := t.Context()
	c := s3Client(n, n.AccessKey, n.Secret)
	if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: new("firmware"), Key: new("a.bin"), Body: strings.NewReader("x")}); s3Code(err) != "NoSuchBucket" {
		t.Errorf("without a bucket: %v", err)
	}
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: new("firmware")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: new("firmware")}); err != nil {
		t.Error(err)
	}
	for key, text := range map[string]string{"a.bin": "0123456789", "a/b.bin": "b", "a/c d+é.bin": "c", "b/e.bin": "e", "empty": ""} {
		if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: new("firmware"), Key: &key, Body: strings.NewReader(text)}); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: new("firmware"), Key: &key})
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		if got, err := io.ReadAll(out.Body); err != nil || string(got) != text {
			t.Errorf("%s: %q, %v", key, got, err)
		}
		out.Body.Close()
	}
	out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: new("firmware"), Key: new("a.bin"), Range: new("bytes=3-5")})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(out.Body); string(got) != "345" || *out.ContentRange != "bytes 3-5/10" {
		t.Errorf("range: %q", got)
	}
	if _, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: new("firmware"), Key: new("none")}); s3Code(err) != "NoSuchKey" {
		t.Errorf("none: %v", err)
	}
	list := func(in *s3.ListObjectsV2Input) string {
		t.Helper()
		in.Bucket = new("firmware")
		var names []string
		for {
			page, err := c.ListObjectsV2(ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range page.Contents {
				names = append(names, *o.Key)
			}
			for _, p := range page.CommonPrefixes {
				names = append(names, *p.Prefix)
			}
			if in.ContinuationToken = page.NextContinuationToken; in.ContinuationToken == nil {
				return strings.Join(names, "|")
			}
		}
	}
	for _, size := range []int32{1, 2, 1000} {
		if got := list(&s3.ListObjectsV2Input{MaxKeys: &size}); got != "a.bin|a/b.bin|a/c d+é.bin|b/e.bin|empty" {
			t.Errorf("list by %d: %s", size, got)
		}
		if got := list(&s3.ListObjectsV2Input{MaxKeys: &size, Prefix: new("a/")}); got != "a/b.bin|a/c d+é.bin" {
			t.Errorf("list below a/ by %d: %s", size, got)
		}
	}
	if got := list(&s3.ListObjectsV2Input{Delimiter: new("/")}); got != "a.bin|empty|a/|b/" {
		t.Errorf("list by delimiter: %s", got)
	}
	if _, err := c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: new("firmware")}); s3Code(err) != "BucketNotEmpty" {
		t.Errorf("DeleteBucket: %v", err)
	}
	if _, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: new("firmware"), Key: new("b/e.bin")}); err != nil {
		t.Error(err)
	}
	if got := list(&s3.ListObjectsV2Input{Prefix: new("b")}); got != "" {
		t.Errorf("after a deletion: %s", got)
	}
	bad := s3Client(n, n.AccessKey, "wrong")
	if _, err := bad.GetObject(ctx, &s3.GetObjectInput{Bucket: new("firmware"), Key: new("a.bin")}); s3Code(err) != "SignatureDoesNotMatch" {
		t.Errorf("another secret: %v", err)
	}
	for _, key := range []string{"../x", "a/../../x", "a//b", "/x", ".tmp-x", "a/./b"} {
		if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: new("firmware"), Key: &key, Body: strings.NewReader("x")}); err == nil {
			t.Errorf("%s was stored", key)
		}
	}
	resp, err := http.Get(n.Endpoints().API + "/firmware/a.bin")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("unsigned: %d", resp.StatusCode)
	}
}

// An object is uploaded in parts.
func TestMultipartUpload(t *testing.T) {
	n := servertest.StartNode(t, t.TempDir())
	ctx := t.Context()
	c := s3Client(n, n.AccessKey, n.Secret)
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: new("big")}); err != nil {
		t.Fatal(err)
	}
	up, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: new("big"), Key: new("k")})
	if err != nil {
		t.Fatal(err)
	}
	var parts []s3types.CompletedPart
	want := []byte{}
	for i := range int32(3) {
		body := bytes.Repeat([]byte{byte('a' + i)}, 100_000)
		want = append(want, body...)
		p, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: new("big"), Key: new("k"), UploadId: up.UploadId, PartNumber: new(i + 1), Body: bytes.NewReader(body)})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, s3types.CompletedPart{PartNumber: new(i + 1), ETag: p.ETag})
	}
	complete := func(key string, parts ...s3types.CompletedPart) error {
		_, err := c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: new("big"), Key: &key, UploadId: up.UploadId, MultipartUpload: &s3types.CompletedMultipartUpload{Parts: parts},
		})
		return err
	}
	if err := complete("other", parts...); s3Code(err) != "NoSuchUpload" {
		t.Errorf("another key: %v", err)
	}
	if err := complete("k", s3types.CompletedPart{PartNumber: new(int32(1)), ETag: new(`"x"`)}); s3Code(err) != "InvalidPart" {
		t.Errorf("another part: %v", err)
	}
	if err := complete("k", parts...); err != nil {
		t.Fatal(err)
	}
	out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: new("big"), Key: new("k")})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(out.Body); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := complete("k", parts...); s3Code(err) != "NoSuchUpload" {
		t.Errorf("again: %v", err)
	}
}

// A job's document has URLs by which a device, which has no key, gets the object over TLS and nothing else.
func TestPresignedURLOfAJob(t *testing.T) {
	n := servertest.StartNode(t, t.TempDir())
	ctx := t.Context()
	c := s3Client(n, n.AccessKey, n.Secret)
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: new("firmware")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: new("firmware"), Key: new("v 2/pump.bin"), Body: strings.NewReader("new firmware")}); err != nil {
		t.Fatal(err)
	}
	pump(t, n)
	if _, err := n.IoT().CreateJob(ctx, &iot.CreateJobInput{
		JobId: new("update"), Targets: []string{"arn:aws:iot:us-east-1:" + n.Account() + ":thing/pump"},
		Document:           new(`{"url":"${aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/firmware/v 2/pump.bin}"}`),
		PresignedUrlConfig: &types.PresignedUrlConfig{ExpiresInSec: new(int64(300)), RoleArn: new("arn:aws:iam::" + n.Account() + ":role/r")},
	}); err != nil {
		t.Fatal(err)
	}
	id := n.Identity(t, "pump", "iot:Connect client/*", "iot:Publish topic/$aws/things/pump/jobs/*", "iot:Receive topic/*", "iot:Subscribe topicfilter/*")
	dev := connect5(t, n, id, "pump")
	dev.subscribe(t, 1, "$aws/things/pump/jobs/$next/get/accepted")
	var m struct {
		Execution struct {
			JobDocument struct{ URL string }
		}
	}
	for deadline := time.Now().Add(patience); m.Execution.JobDocument.URL == ""; { // the rollout may not have reached the thing
		if time.Now().After(deadline) {
			t.Fatal("no execution")
		}
		dev.publish(t, "$aws/things/pump/jobs/$next/get", `{}`, 1)
		payload := dev.next(t).Payload
		if err := json.Unmarshal(payload, &m); err != nil {
			t.Fatal(err)
		}
		if link := m.Execution.JobDocument.URL; !bytes.Contains(payload, []byte(link)) { // devices may not undo escapes
			t.Fatalf("%s is not in %s as it is", link, payload)
		}
	}
	link := m.Execution.JobDocument.URL
	config := n.ClientTLS(servertest.Identity{})
	config.Certificates, config.NextProtos = nil, nil
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	get := func(method, link string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, link, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if status, body := get(http.MethodGet, link); status != http.StatusOK || body != "new firmware" {
		t.Fatalf("%s: %d %s", link, status, body)
	}
	for what, other := range map[string]string{
		"another object": strings.Replace(link, "pump.bin", "other.bin", 1), "a longer life": strings.Replace(link, "X-Amz-Expires=300", "X-Amz-Expires=3000", 1),
		"no signature": link[:strings.Index(link, "?")], "another key": strings.Replace(link, "FLOTILLAOBJECTS", "FLOTILLAOBJECTX", 1),
	} {
		if status, body := get(http.MethodGet, other); status != http.StatusForbidden || strings.Contains(body, "firmware") {
			t.Errorf("%s: %d %s", what, status, body)
		}
	}
	for _, method := range []string{http.MethodPut, http.MethodDelete} {
		if status, _ := get(method, link); status/100 != 4 {
			t.Errorf("%s: %d", method, status)
		}
	}
	if status, body := get(http.MethodGet, link); status != http.StatusOK || body != "new firmware" {
		t.Fatalf("afterwards: %d %s", status, body)
	}
}

// Objects are for those whose policies say so, and a change of one is on record.
func TestObjectsNeedPermission(t *testing.T) {
	n := servertest.StartNode(t, t.TempDir())
	ctx := t.Context()
	c := s3Client(n, n.AccessKey, n.Secret)
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: new("firmware")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: new("firmware"), Key: new("k"), Body: strings.NewReader("x")}); err != nil {
		t.Fatal(err)
	}
	key := identity(t, n, "reader", "read-only", nil)
	other := s3Client(n, key.AccessKeyID, key.SecretAccessKey)
	if _, err := other.GetObject(ctx, &s3.GetObjectInput{Bucket: new("firmware"), Key: new("k")}); s3Code(err) != "AccessDenied" {
		t.Errorf("GetObject: %v", err)
	}
	if _, err := other.ListBuckets(ctx, &s3.ListBucketsInput{}); s3Code(err) != "AccessDenied" {
		t.Errorf("ListBuckets: %v", err)
	}
	if _, err := other.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: new("firmware"), Key: new("k")}); s3Code(err) != "AccessDenied" {
		t.Errorf("DeleteObject: %v", err)
	}
	if _, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: new("firmware"), Key: new("k")}); err != nil {
		t.Error(err)
	}
	_, text := changes(t, n)
	for _, want := range []string{`"PutObject"`, `"arn:aws:s3:::firmware/k"`, `"denied"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not on record", want)
		}
	}
}
