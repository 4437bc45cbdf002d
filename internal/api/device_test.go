package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flotilla/internal/api"
	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/aws/iotjobsdata"
	"flotilla/internal/policy/lang"
)

// fleet knows certificates by common name, and decides by one policy.
type fleet struct {
	set    *lang.Set
	opened atomic.Int32
}

func (*fleet) Identify(_ context.Context, leaf *x509.Certificate) (aws.Principal, *lang.Certificate, error) {
	name := leaf.Subject.CommonName
	if !strings.HasPrefix(name, "dev-") {
		return aws.Principal{}, nil, errors.New("certificate " + name + " is REVOKED")
	}
	return aws.Principal{Type: "certificate", ID: name, ARN: account.ARN("iot", "cert/"+name)}, &lang.Certificate{ID: name, Subject: map[string][]string{"CommonName": {name}}}, nil
}

func (f *fleet) Open(_ context.Context, _ aws.Principal, conn *lang.Connection) (lang.Authorizer, error) {
	f.opened.Add(1)
	if conn.Protocol != "http" || conn.ClientID != "" || conn.SourceIP != "127.0.0.1" || conn.Thing != nil || conn.Certificate == nil {
		return nil, fmt.Errorf("connection %+v", conn)
	}
	return authorizer{f.set, conn}, nil
}

type authorizer struct {
	set  *lang.Set
	conn *lang.Connection
}

func (a authorizer) Authorize(action, resource string) lang.Decision {
	return a.set.Evaluate(a.conn, action, resource)
}

// device makes a client with a self-signed certificate; no certificate for "".
func device(t *testing.T, s *httptest.Server, name string) *http.Client {
	t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true}
	if name != "" {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

const devicePolicy = `{"Version":"2012-10-17","Statement":[
	{"Effect":"Allow","Action":["iot:GetThingShadow","iot:UpdateThingShadow","iot:DeleteThingShadow"],"Resource":[
		"arn:aws:iot:us-east-1:123456789012:thing/dev-1","arn:aws:iot:us-east-1:123456789012:thing/dev-1/config"]},
	{"Effect":"Allow","Action":"iot:ListNamedShadowsForThing","Resource":"*"},
	{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:us-east-1:123456789012:topic/data/${iot:Certificate.Subject.CommonName}/*"},
	{"Effect":"Allow","Action":"iot:RetainPublish","Resource":"arn:aws:iot:us-east-1:123456789012:topic/data/dev-1/state"},
	{"Effect":"Allow","Action":["iot:GetRetainedMessage"],"Resource":"arn:aws:iot:us-east-1:123456789012:topic/cfg/*"},
	{"Effect":"Allow","Action":"iot:DescribeJobExecution","Resource":"arn:aws:iot:us-east-1:123456789012:thing/dev-1"}]}`

// TestDevice: https://docs.aws.amazon.com/iot/latest/developerguide/http.html
func TestDevice(t *testing.T) {
	w := newWorld(t, api.Config{})
	var reached string
	var caller *aws.Caller
	see := func(ctx context.Context, format string, args ...any) {
		reached, caller = fmt.Sprintf(format, args...), aws.CallerFrom(ctx)
	}
	api.Handle(w.Server, iotdata.GetThingShadow, func(ctx context.Context, in *iotdata.GetThingShadowRequest) (*iotdata.GetThingShadowResponse, error) {
		see(ctx, "get %s %v", in.ThingName, in.ShadowName != nil)
		return &iotdata.GetThingShadowResponse{Payload: []byte(`{"state":{}}`)}, nil
	})
	api.Handle(w.Server, iotdata.UpdateThingShadow, func(ctx context.Context, in *iotdata.UpdateThingShadowRequest) (*iotdata.UpdateThingShadowResponse, error) {
		see(ctx, "update %s %s", in.ThingName, in.Payload)
		return &iotdata.UpdateThingShadowResponse{Payload: []byte(`{}`)}, nil
	})
	api.Handle(w.Server, iotdata.ListNamedShadowsForThing, func(ctx context.Context, in *iotdata.ListNamedShadowsForThingRequest) (*iotdata.ListNamedShadowsForThingResponse, error) {
		see(ctx, "list %s", in.ThingName)
		return &iotdata.ListNamedShadowsForThingResponse{}, nil
	})
	api.Handle(w.Server, iotdata.Publish, func(ctx context.Context, in *iotdata.PublishRequest) (*iotdata.PublishResponse, error) {
		see(ctx, "publish %s %s", in.Topic, in.Payload)
		return &iotdata.PublishResponse{}, nil
	})
	api.Handle(w.Server, iotdata.DeleteConnection, func(ctx context.Context, in *iotdata.DeleteConnectionRequest) (*iotdata.DeleteConnectionResponse, error) {
		see(ctx, "disconnect")
		return &iotdata.DeleteConnectionResponse{}, nil
	})
	api.Handle(w.Server, iotjobsdata.DescribeJobExecution, func(ctx context.Context, in *iotjobsdata.DescribeJobExecutionRequest) (*iotjobsdata.DescribeJobExecutionResponse, error) {
		see(ctx, "job %s %s", in.ThingName, in.JobId)
		return &iotjobsdata.DescribeJobExecutionResponse{}, nil
	})
	api.Handle(w.Server, iot.CreateThing, func(ctx context.Context, in *iot.CreateThingRequest) (*iot.CreateThingResponse, error) {
		see(ctx, "create")
		return &iot.CreateThingResponse{}, nil
	})
	doc, err := lang.Parse(devicePolicy)
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{set: lang.Compile(lang.Named{Name: "p", Document: doc})}
	s := httptest.NewUnstartedServer(w.Device(api.Devices{Principals: f, Policies: f}))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)

	good := device(t, s, "dev-1")
	const forbidden, missing = "ForbiddenException", "UnknownOperationException"
	for _, c := range []struct {
		client               *http.Client
		method, target, body string
		code, reached        string
	}{
		{good, "GET", "/things/dev-1/shadow", "", "", "get dev-1 false"},
		{good, "GET", "/things/dev-1/shadow?name=config", "", "", "get dev-1 true"},
		{good, "POST", "/things/dev-1/shadow", `{"state":{}}`, "", `update dev-1 {"state":{}}`},
		{good, "GET", "/api/things/shadow/ListNamedShadowsForThing/dev-1", "", "", "list dev-1"},
		{good, "POST", "/topics/data/dev-1/t?qos=1", "x", "", "publish data/dev-1/t x"},
		{good, "POST", "/topics/data%2Fdev-1%2Ft", "y", "", "publish data/dev-1/t y"},
		{good, "POST", "/topics/data/dev-1/state?retain=true", "z", "", "publish data/dev-1/state z"},
		{good, "POST", "/topics/data/dev-1/t?retain=false", "z", "", "publish data/dev-1/t z"},
		{good, "GET", "/things/dev-1/jobs/j?executionNumber=1", "", "", "job dev-1 j"},

		{good, "GET", "/things/dev-1/shadow?name=other", "", forbidden, ""},
		{good, "GET", "/things/dev-1/shadow?name=other&name=config", "", forbidden, ""},
		{good, "GET", "/things/dev-2/shadow", "", forbidden, ""},
		{good, "GET", "/things/dev-1%2Fconfig/shadow", "", "InvalidRequestException", ""},
		{good, "POST", "/topics/data/dev-2/t", "x", forbidden, ""},
		{good, "POST", "/topics/data/dev-1/t?retain=true", "x", forbidden, ""},
		{good, "POST", "/topics/data/dev-1/t?retain=1", "x", forbidden, ""},
		{good, "GET", "/retainedMessage/data", "", forbidden, ""},
		{good, "GET", "/retainedMessage/cfg/a", "", "NotImplementedException", ""},
		{good, "GET", "/retainedMessage", "", forbidden, ""},
		{good, "GET", "/things/dev-2/jobs/j", "", forbidden, ""},
		{good, "DELETE", "/connections/dev-2", "", forbidden, ""},
		{good, "POST", "/things/new", "{}", missing, ""},
		{good, "OPTIONS", "/topics/a", "", "MethodNotAllowedException", ""},
		{good, "POST", "/topics/data/dev-1/t", strings.Repeat("x", 1<<20+1), "RequestEntityTooLargeException", ""},
		{device(t, s, ""), "GET", "/things/dev-1/shadow", "", forbidden, ""},
		{device(t, s, "revoked"), "GET", "/things/dev-1/shadow", "", forbidden, ""},
	} {
		reached = ""
		r, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.target, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		a := send(t, c.client, r)
		if a.code != c.code || reached != c.reached || (a.status == 200) != (c.code == "") {
			t.Errorf("%s %s: %d %s %s, reached %q", c.method, c.target, a.status, a.code, a.body, reached)
		}
		if a.code == forbidden && (a.status != 403 || a.body != `{"message":"Forbidden"}`) {
			t.Errorf("%s %s: a stranger is told %s", c.method, c.target, a.body)
		}
		if c.reached != "" && (caller.Type != "certificate" || caller.ID != "dev-1" || caller.SourceIP != "127.0.0.1") {
			t.Errorf("caller %+v", caller)
		}
	}
	if n := f.opened.Load(); n != 1 {
		t.Errorf("%d authorizers for one device", n)
	}
	if log := w.log.String(); !strings.Contains(log, "is REVOKED") || !strings.Contains(log, "action=iot:Publish resource=arn:aws:iot:us-east-1:123456789012:topic/data/dev-2/t effect=implicit-deny") {
		t.Errorf("the operator is not told why:\n%s", log)
	}
}
