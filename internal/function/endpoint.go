package function

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"
)

func newRequestID() string { return uuid.NewString() }

// endpoints are functions behind HTTP. They share a client and its connections.
type endpoints struct{ client *http.Client }

func newEndpoints(concurrency int) *endpoints {
	return &endpoints{&http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout:    5 * time.Second,
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           4 * concurrency,
			MaxIdleConnsPerHost:    concurrency,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		},
		// A payload holds what devices authenticate with: it goes where the operator said, and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (e *endpoints) open(name string, address *url.URL) (kind, error) {
	if address.Host == "" || address.Fragment != "" {
		return nil, errors.New("it must be http[s]://host[:port][/path][?query]")
	}
	return &endpoint{name, address.String(), e.client}, nil
}

// endpoint is one function behind HTTP.
type endpoint struct {
	name, url string
	client    *http.Client
}

func (e *endpoint) close() { e.client.CloseIdleConnections() }

// invoke posts the payload. The request has the headers of Lambda's Invoke API and of its Runtime API; a response with
// X-Amz-Function-Error, or with another status than 2xx, is an error of the function.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
func (e *endpoint) invoke(ctx context.Context, c *call) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(c.payload))
	if err != nil {
		return nil, e.unreached(err)
	}
	h := req.Header
	h.Set("Content-Type", "application/json")
	h.Set("Accept", "application/json")
	h.Set("User-Agent", "flotilla")
	h.Set("X-Amz-Invocation-Type", "RequestResponse")
	h.Set("X-Amzn-Requestid", c.requestID)
	h.Set("Lambda-Runtime-Aws-Request-Id", c.requestID)
	h.Set("Lambda-Runtime-Invoked-Function-Arn", c.arn)
	if deadline, ok := ctx.Deadline(); ok {
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(deadline.UnixMilli(), 10))
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return nil, e.unreached(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPayload+1))
	switch kind := resp.Header.Get("X-Amz-Function-Error"); {
	case err != nil:
		return nil, e.unreached(err)
	case len(body) > maxPayload:
		return nil, &FunctionError{e.name, "Unhandled", "", fmt.Sprintf("its answer is longer than %d bytes", maxPayload)}
	case kind != "":
		return nil, failure(e.name, bounded(kind), body)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		failed := failure(e.name, "Unhandled", body)
		failed.Message = fmt.Sprintf("status %d: %s", resp.StatusCode, failed.Message)
		return nil, failed
	}
	return body, nil
}

// failure reads what a function says of its failure.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html#runtimes-api-invokeerror
func failure(name, kind string, body []byte) *FunctionError {
	var said struct {
		Type    string `json:"errorType"`
		Message string `json:"errorMessage"`
	}
	if err := json.Unmarshal(body, &said); err != nil || said.Message == "" && said.Type == "" {
		said.Message = "it gave no errorMessage"
	}
	return &FunctionError{name, kind, bounded(said.Type), bounded(said.Message)}
}

// unreached is the error of a call that had no response. The address stays out of it: it may hold a password.
func (e *endpoint) unreached(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &FunctionError{Function: e.name, Message: "not reached: " + bounded(err.Error())}
}
