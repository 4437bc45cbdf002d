package object

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// MaxExpires is how long a presigned URL may be valid, as S3 has it.
const MaxExpires = 7 * 24 * time.Hour

// Presigner signs URLs by which anybody may get one object of the directory for a while. It is safe for concurrent use.
type Presigner struct {
	id, secret string
	region     string
	base       func() string
	signer     *v4.Signer
	now        func() time.Time
}

// NewPresigner makes a presigner with the deployment's secret. base is the URL that devices reach objects at, without a
// path; now may be nil.
func NewPresigner(secret []byte, region string, base func() string, now func() time.Time) *Presigner {
	if now == nil {
		now = time.Now
	}
	return &Presigner{
		id: "FLOTILLAOBJECTS", secret: hex.EncodeToString(secret), region: region, base: base, now: now,
		signer: v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }),
	}
}

// Secret is that of an access key id; "" when it is not the presigner's.
func (p *Presigner) Secret(id string) string {
	if id != p.id {
		return ""
	}
	return p.secret
}

// Presign gives a URL that gets the object until expires from now. role is not needed here.
//
// AWS: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
func (p *Presigner) Presign(ctx context.Context, bucket, key string, expires time.Duration, _ string) (string, error) {
	if err := Check(bucket, key); err != nil || key == "" {
		return "", fmt.Errorf("object: %s/%s can't be an object: %w", bucket, key, err)
	}
	u, err := url.Parse(p.base())
	if err != nil {
		return "", err
	}
	u.Path = "/" + bucket + "/" + key
	u.RawPath = escapePath(u.Path)
	u.RawQuery = url.Values{"X-Amz-Expires": {strconv.Itoa(int(min(expires, MaxExpires) / time.Second))}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	signed, _, err := p.signer.PresignHTTP(ctx, aws.Credentials{AccessKeyID: p.id, SecretAccessKey: p.secret}, req, "UNSIGNED-PAYLOAD", "s3", p.region, p.now())
	return signed, err
}

// escapePath escapes a path as S3 signs it: all but unreserved characters and slashes.
func escapePath(path string) string {
	var b []byte
	for i := range len(path) {
		c := path[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~' || c == '/' {
			b = append(b, c)
			continue
		}
		b = append(b, '%')
		const digits = "0123456789ABCDEF"
		b = append(b, digits[c>>4], digits[c&15])
	}
	return string(b)
}

// Presign gives a URL of the service that gets the object until expires from now.
func (b *Service) Presign(ctx context.Context, bucket, key string, expires time.Duration, _ string) (string, error) {
	out, err := s3.NewPresignClient(b.client).PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key}, s3.WithPresignExpires(min(expires, MaxExpires)))
	if err != nil {
		return "", err
	}
	return out.URL, nil
}
