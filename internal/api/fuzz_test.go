package api_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"flotilla/internal/api"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotdata"
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
