package api_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"flotilla/internal/api"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/object"
)

// FuzzSignature: no request without the secret gets through, and none breaks the
// door.
func FuzzSignature(f *testing.F) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	reached := false
	s := api.New(api.Config{}, api.Deps{Account: account, Keys: &keys{}, Permissions: everything{}, Now: func() time.Time { return at }})
	api.Handle(s, iot.ListThings, func(context.Context, *iot.ListThingsRequest) (*iot.ListThingsResponse, error) {
		reached = true
		return &iot.ListThingsResponse{}, nil
	})
	mac := "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
	scope := keyID + "/20260102/us-east-1/iot/aws4_request"
	f.Add("AWS4-HMAC-SHA256 Credential="+scope+", SignedHeaders=host;x-amz-date, Signature="+mac, "20260102T030405Z", "", "/things", "")
	f.Add("AWS4-HMAC-SHA256 Credential="+scope+",SignedHeaders=host,Signature="+mac, "Fri, 02 Jan 2026 03:04:05 GMT", "maxResults=5&a=%zz", "//things/..", "x-amzn-principal")
	f.Add("", "", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="+url.QueryEscape(scope)+"&X-Amz-Date=20260102T030405Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature="+mac, "/things", "")
	f.Fuzz(func(t *testing.T, auth, date, query, path, header string) {
		r := &http.Request{
			Method: "GET", Host: "localhost", RequestURI: path + "?" + query, URL: &url.URL{Path: path, RawQuery: query},
			Header: http.Header{}, RemoteAddr: "127.0.0.1:1", Body: http.NoBody,
		}
		if auth != "" {
			r.Header["Authorization"] = []string{auth}
		}
		r.Header["X-Amz-Date"] = []string{date}
		if header != "" {
			r.Header.Set(header, "x")
		}
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, r)
		if reached {
			t.Fatal("a request without the secret got through")
		}
		if rec.Code != 403 && rec.Code != 400 {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
	})
}

// FuzzDecoder: whatever comes, decoding ends with a request or an exception.
func FuzzDecoder(f *testing.F) {
	s := api.New(api.Config{}, api.Deps{Account: account, Keys: &keys{}, Permissions: everything{}})
	api.Handle(s, iotdata.Publish, func(context.Context, *iotdata.PublishRequest) (*iotdata.PublishResponse, error) {
		return &iotdata.PublishResponse{}, nil
	})
	accept := &anyone{}
	h := s.Device(api.Devices{Principals: accept, Policies: accept})
	f.Add("a/b", "qos=1&retain=true&messageExpiry=60", "W3siayI6InYifV0=", []byte("x"))
	f.Add("a%2Fb", "qos=9", "!", []byte{})
	f.Fuzz(func(t *testing.T, topic, query, properties string, body []byte) {
		r := deviceRequest("POST", "/topics/"+topic, query, body)
		r.Header.Set("X-Amz-Mqtt5-User-Properties", properties)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code >= 500 {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
	})
}

// handedOut is an object store that remembers what was asked of it.
type handedOut struct {
	secret  string
	reached *object.Operation
}

func (h *handedOut) Secret(id string) string {
	if id != "HANDEDOUT" {
		return ""
	}
	return h.secret
}

func (h *handedOut) Serve(_ http.ResponseWriter, _ *http.Request, op object.Operation, _ string) int {
	h.reached = &op
	return http.StatusOK
}

// FuzzObjectURL: a URL that was handed out gets that object, and what is made of it gets no other and changes nothing.
func FuzzObjectURL(f *testing.F) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	h := &handedOut{secret: "secret"}
	s := api.New(api.Config{}, api.Deps{Account: account, Keys: &keys{}, Permissions: everything{}, Objects: h, Now: func() time.Time { return at }})
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	r, err := http.NewRequestWithContext(f.Context(), http.MethodGet, "https://localhost/bucket/key?X-Amz-Expires=60", nil)
	if err != nil {
		f.Fatal(err)
	}
	good, _, err := signer.PresignHTTP(f.Context(), aws.Credentials{AccessKeyID: "HANDEDOUT", SecretAccessKey: h.secret}, r, "UNSIGNED-PAYLOAD", "s3", "us-east-1", at)
	if err != nil {
		f.Fatal(err)
	}
	u, err := url.Parse(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("GET", u.Path, u.RawQuery, "", "")
	f.Add("GET", "/bucket/other", u.RawQuery, "", "")
	f.Add("PUT", u.Path, u.RawQuery, "X-Amz-Copy-Source", "/bucket/other")
	f.Add("GET", "/bucket/../bucket/key", u.RawQuery+"&versionId=1", "Range", "bytes=0-1")
	f.Add("HEAD", "//bucket%2Fkey", u.RawQuery+"&uploadId=1", "X-Http-Method-Override", "DELETE")
	f.Fuzz(func(t *testing.T, method, path, query, header, value string) {
		h.reached = nil
		r := &http.Request{
			Method: method, Host: "localhost", RequestURI: path + "?" + query, URL: &url.URL{Path: path, RawQuery: query},
			Header: http.Header{}, RemoteAddr: "127.0.0.1:1", Body: http.NoBody,
		}
		if header != "" {
			r.Header.Set(header, value)
		}
		s.ServeHTTP(httptest.NewRecorder(), r)
		if op := h.reached; op != nil && (op.Bucket != "bucket" || op.Key != "key" || op.Name != "GetObject" && op.Name != "HeadObject") {
			t.Fatalf("%s %s?%s: %+v", method, path, query, op)
		}
		if h.reached == nil && method == "GET" && path == u.Path && query == u.RawQuery && header == "" {
			t.Fatal("the URL as it was handed out is refused")
		}
	})
}
