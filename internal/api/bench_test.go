package api_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"flotilla/internal/api"
	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/policy/lang"
)

// anyone identifies and allows everything.
type anyone struct{}

func (*anyone) Identify(context.Context, *x509.Certificate) (aws.Principal, *lang.Certificate, error) {
	return aws.Principal{Type: "certificate", ID: "c", ARN: "arn"}, &lang.Certificate{}, nil
}

func (*anyone) Open(context.Context, aws.Principal, *lang.Connection) (lang.Authorizer, error) {
	return &anyone{}, nil
}

func (*anyone) Authorize(string, string) lang.Decision { return lang.Decision{Effect: lang.Allow} }

func deviceRequest(method, path, query string, body []byte) *http.Request {
	return &http.Request{
		Method: method, Host: "localhost", RequestURI: path + "?" + query, URL: &url.URL{}, Header: http.Header{},
		TLS:        &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}},
		RemoteAddr: "127.0.0.1:1", Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// sink is a ResponseWriter that keeps nothing.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(status int)      { s.status = status }

// BenchmarkSigned is a signed request through the door, verification included.
func BenchmarkSigned(b *testing.B) {
	s := api.New(api.Config{}, api.Deps{Account: account, Keys: &keys{}, Permissions: everything{}})
	api.Handle(s, iot.CreateThing, func(_ context.Context, in *iot.CreateThingRequest) (*iot.CreateThingResponse, error) {
		return &iot.CreateThingResponse{ThingName: &in.ThingName}, nil
	})
	const body = `{"thingTypeName":"lamp","attributePayload":{"attributes":{"site":"x"}}}`
	w := &world{url: "http://localhost"}
	r := sign(b, w.request(b, "POST", "/things/t", body), "iot", body, time.Now())
	r.RequestURI = "/things/t"
	out := &sink{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		r.Body = io.NopCloser(bytes.NewReader([]byte(body)))
		if s.ServeHTTP(out, r); out.status != 200 {
			b.Fatal(out.status)
		}
	}
}

// BenchmarkDevicePublish is what a device's HTTPS publish costs without TLS.
func BenchmarkDevicePublish(b *testing.B) {
	s := api.New(api.Config{}, api.Deps{Account: account, Keys: &keys{}, Permissions: everything{}})
	api.Handle(s, iotdata.Publish, func(context.Context, *iotdata.PublishRequest) (*iotdata.PublishResponse, error) {
		return &iotdata.PublishResponse{}, nil
	})
	h := s.Device(api.Devices{Principals: &anyone{}, Policies: &anyone{}})
	out := &sink{header: http.Header{}}
	r := deviceRequest("POST", "/topics/a/b/c", "qos=1", nil)
	payload := make([]byte, 128)
	b.ReportAllocs()
	for b.Loop() {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(payload)), 128
		if h.ServeHTTP(out, r); out.status != 200 {
			b.Fatal(out.status)
		}
	}
}
