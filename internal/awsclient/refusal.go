package awsclient

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"net/http"
	"strings"
	"time"
)

// Refusal makes an error of an answer of REST.
func Refusal(service, operation string, status int, answer []byte) *Error {
	return refusal(service, operation, status, nil, answer)
}

// maxMessage bounds what is kept of a message of the other side.
const maxMessage = 1000

// refusal reads the error of any of the protocols.
//
// AWS: https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html#operation-error-serialization
func refusal(service, operation string, status int, header http.Header, body []byte) *Error {
	e := &Error{Service: service, Operation: operation, Status: status, Body: body}
	var j struct {
		Type, Code, Message string
		Underscored         string `json:"__type"`
	}
	var x struct {
		Code    string `xml:"Error>Code"`
		Message string `xml:"Error>Message"`
	}
	switch {
	case json.Unmarshal(body, &j) == nil:
		e.Code, e.Message = first(header.Get("X-Amzn-Errortype"), j.Underscored, j.Code, j.Type), j.Message
	case xml.Unmarshal(body, &x) == nil && x.Code != "":
		e.Code, e.Message = x.Code, x.Message
	default:
		e.Code, e.Message = header.Get("X-Amzn-Errortype"), http.StatusText(status)
	}
	e.Code, _, _ = strings.Cut(e.Code, ":") // Code:http://internal.amazon.com/...
	if _, after, ok := strings.Cut(e.Code, "#"); ok {
		e.Code = after
	}
	e.Code, e.Message = bounded(first(e.Code, "Unknown"), 128), bounded(e.Message, maxMessage)
	return e
}

func bounded(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	return strings.ToValidUTF8(s, "?")
}

// discovered is an endpoint that a service has told.
type discovered struct {
	base  string
	until time.Time
}

// discover is base for a service that tells its endpoint itself. An endpoint that is configured is used as it is.
//
// AWS: https://docs.aws.amazon.com/timestream/latest/developerguide/Using.API.endpoint-discovery.html
func (c *Client) discover(ctx context.Context, service string) (string, error) {
	base, err := c.base(service, "DescribeEndpoints")
	if err != nil || service != "timestream" || c.endpoints[service] != "" {
		return base, err
	}
	return c.discoverAt(ctx, base, service)
}

func (c *Client) discoverAt(ctx context.Context, base, service string) (string, error) {
	c.mu.Lock()
	d := c.discovered[service]
	c.mu.Unlock()
	if c.now().Before(d.until) {
		return d.base, nil
	}
	var out struct {
		Endpoints []struct {
			Address              string
			CachePeriodInMinutes int64
		}
	}
	err := c.json(ctx, base, service, "DescribeEndpoints", "Timestream_20181101.DescribeEndpoints", "1.0", []byte("{}"), &out)
	switch {
	case err != nil:
		return "", err
	case len(out.Endpoints) == 0 || !strings.HasSuffix(out.Endpoints[0].Address, ".amazonaws.com") && !strings.HasSuffix(out.Endpoints[0].Address, ".amazonaws.com.cn"):
		return "", &Error{Service: service, Operation: "DescribeEndpoints", Code: "InvalidAnswer", Message: "it tells no endpoint of AWS"}
	}
	minutes := min(max(out.Endpoints[0].CachePeriodInMinutes, 1), 24*60)
	d = discovered{"https://" + out.Endpoints[0].Address, c.now().Add(time.Duration(minutes) * time.Minute)}
	c.mu.Lock()
	c.discovered[service] = d
	c.mu.Unlock()
	return d.base, nil
}
