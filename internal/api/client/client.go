// Package client calls AWS-shaped JSON APIs, ours above all, for our own tools:
// requests signed with an access key (SigV4), retried where that is safe.
package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	maxAnswer = 16 << 20
	attempts  = 4
	timeout   = 30 * time.Second // of an attempt
)

// Client calls the API at an endpoint with an access key. It is safe for
// concurrent use.
type Client struct {
	endpoint, region string
	credentials      aws.Credentials
	signer           *v4.Signer
	http             *http.Client
}

// New calls the API at endpoint, a URL without a path.
func New(endpoint, region, accessKey, secretKey string) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	return &Client{
		endpoint: endpoint, region: region, signer: v4.NewSigner(), http: &http.Client{Transport: transport},
		credentials: aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey},
	}
}

// Error is an exception that the API answered with.
type Error struct {
	Status  int    // of HTTP
	Type    string // as "ResourceNotFoundException"; empty when none was given
	Message string
}

func (e *Error) Error() string {
	if e.Type == "" {
		return e.Message
	}
	return e.Type + ": " + e.Message
}

// Path joins the segments of a path, escaping each as a label.
func Path(segments ...string) string {
	var b []byte
	for _, s := range segments {
		b = append(append(b, '/'), url.PathEscape(s)...)
	}
	return string(b)
}

// Call calls the operation at method and path, which has its query, of the API
// that a SigV4 service name stands for. In is the body: nil, bytes as they are,
// or encoded as JSON; out is where the answer goes: nil, *[]byte as it is, or
// decoded from JSON. A call that was throttled, refused as unavailable, or that
// did not reach the server is made again, up to four times in all: one that may
// have been carried out only if the method is idempotent (not POST or PATCH).
// Its errors are *Error or those of package net/http.
func (c *Client) Call(ctx context.Context, service, method, path string, in, out any) error {
	body, isRaw := in.([]byte)
	if in != nil && !isRaw {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	for attempt := 1; ; attempt++ {
		answer, again, err := c.try(ctx, service, method, path, body)
		if err == nil {
			return decode(answer, out)
		}
		if !again || attempt == attempts || ctx.Err() != nil {
			return err
		}
		pause := time.Duration(rand.Int64N(int64(100*time.Millisecond) << attempt))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

func decode(answer []byte, out any) error {
	switch out := out.(type) {
	case nil:
		return nil
	case *[]byte:
		*out = answer
		return nil
	}
	return json.Unmarshal(answer, out)
}

// try makes one attempt, and tells whether another one is safe and may help.
func (c *Client) try(ctx context.Context, service, method, path string, body []byte) (answer []byte, again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.endpoint+path, bytes.NewReader(body))
	if err != nil {
		return nil, false, err
	}
	sum := sha256.Sum256(body)
	if err := c.signer.SignHTTP(ctx, c.credentials, req, hex.EncodeToString(sum[:]), service, c.region, time.Now()); err != nil {
		return nil, false, err
	}
	idempotent := method != http.MethodPost && method != http.MethodPatch
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, idempotent, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, idempotent, err
	}
	if len(answer) > maxAnswer {
		return nil, false, fmt.Errorf("%s %s: the answer is longer than %d bytes", method, path, maxAnswer)
	}
	if resp.StatusCode/100 == 2 {
		return answer, false, nil
	}
	again = resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable ||
		idempotent && resp.StatusCode >= http.StatusInternalServerError
	return nil, again, exception(resp, answer)
}

func exception(resp *http.Response, answer []byte) error {
	var e struct{ Message string }
	if json.Unmarshal(answer, &e) != nil || e.Message == "" {
		e.Message = resp.Status
	}
	return &Error{Status: resp.StatusCode, Type: resp.Header.Get("X-Amzn-Errortype"), Message: e.Message}
}
