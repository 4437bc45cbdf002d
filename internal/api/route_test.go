package api_test

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"flotilla/internal/api"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotdata"
	"flotilla/internal/aws/iotjobsdata"
)

// TestEveryRoute: each operation of each service is found by its own path and by
// nothing else of its service.
func TestEveryRoute(t *testing.T) {
	w := newWorld(t, api.Config{})
	label := regexp.MustCompile(`\{[^}]+\}`)
	n := 0
	for _, r := range slices.Concat(iot.Routes(), iotdata.Routes(), iotjobsdata.Routes()) {
		target := label.ReplaceAllString(r.Path, "a%2Fb%20%24c")
		a := w.call(t, r.Service, r.Method, target, "")
		if want := "The operation " + r.Name + " is not implemented."; a.status != 501 || a.message != want {
			t.Errorf("%s %s: %d %s, want %s", r.Method, target, a.status, a.message, r.Name)
		}
		n++
	}
	if n != 272+11+5 {
		t.Errorf("%d operations", n)
	}
}

// TestRoutes holds the paths that break routers.
func TestRoutes(t *testing.T) {
	w := newWorld(t, api.Config{})
	for _, c := range []struct{ service, method, target, want string }{
		// Paths of services collide; the scope decides.
		{"iot", "GET", "/things/t/jobs/j", "DescribeJobExecution"},
		{"iot-jobs-data", "GET", "/things/t/jobs/j", "DescribeJobExecution"},
		{"iot", "GET", "/things/t/jobs", "ListJobExecutionsForThing"},
		{"iot-jobs-data", "GET", "/things/t/jobs", "GetPendingJobExecutions"},
		{"iot", "POST", "/command-executions", "ListCommandExecutions"},
		{"execute-api", "GET", "/things/t/jobs", "ListJobExecutionsForThing"}, // old clients
		{"iot-jobs-data", "POST", "/command-executions", "StartCommandExecution"},
		// SDKs differ in the slash at the end.
		{"iot", "GET", "/authorizers/", "ListAuthorizers"},
		{"iot", "GET", "/authorizers", "ListAuthorizers"},
		{"iot", "GET", "/certificate-providers/", "ListCertificateProviders"},
		{"iot", "GET", "/certificate-providers", "ListCertificateProviders"},
		{"iot", "GET", "/things/", ""},
		{"iot", "POST", "/things/", ""},
		{"iot", "GET", "/things/x/", ""},
		// A literal that a label would take as well, of another method.
		{"iot-jobs-data", "PUT", "/things/t/jobs/$next", "StartNextPendingJobExecution"},
		{"iot-jobs-data", "PUT", "/things/t/jobs/%24next", "StartNextPendingJobExecution"},
		{"iot-jobs-data", "GET", "/things/t/jobs/$next", "DescribeJobExecution"},
		{"iot-jobs-data", "POST", "/things/t/jobs/$next", "UpdateJobExecution"},
		{"iot", "PUT", "/thing-groups/addThingToThingGroup", "AddThingToThingGroup"},
		{"iot", "GET", "/thing-groups/addThingToThingGroup", "DescribeThingGroup"},
		// One path, several methods.
		{"iot", "PUT", "/target-policies/p", "AttachPolicy"},
		{"iot", "POST", "/target-policies/p", "DetachPolicy"},
		{"iot", "POST", "/policy-targets/p", "ListTargetsForPolicy"},
		{"iot", "POST", "/attached-policies/arn:aws:iot:us-east-1:1:thinggroup%2Fg", "ListAttachedPolicies"},
		{"iot", "POST", "/attached-policies/arn:aws:iot:us-east-1:1:thinggroup/g", ""},
		// Labels of several segments.
		{"iot", "GET", "/destinations/arn:aws:iot:us-east-1:1:ruledestination/http/1", "GetTopicRuleDestination"},
		{"iot", "GET", "/destinations/arn%3Aaws%3Aiot%3Aus-east-1%3A1%3Aruledestination%2Fhttp%2F1", "GetTopicRuleDestination"},
		{"iot", "GET", "/destinations", "ListTopicRuleDestinations"},
		{"iot", "GET", "/confirmdestination/a/b", "ConfirmTopicRuleDestination"},
		{"iotdata", "GET", "/retainedMessage", "ListRetainedMessages"},
		{"iotdata", "GET", "/retainedMessage/a/b", "GetRetainedMessage"},
		{"iotdata", "GET", "/retainedMessage/", ""},
		{"iotdevicegateway", "POST", "/topics/a%2Fb", "Publish"},
		{"iotdata", "POST", "/topics/", ""},
		{"iotdata", "POST", "/topics", ""},
		{"iotdata", "GET", "/api/things/shadow/ListNamedShadowsForThing/t", "ListNamedShadowsForThing"},
		{"iotdata", "GET", "/things//shadow", ""},
		{"iotdata", "GET", "//things/t/shadow", ""},
		{"iotdata", "GET", "/things/t/../t/shadow", ""},
	} {
		a := w.call(t, c.service, c.method, c.target, "")
		if c.want == "" {
			if a.status != 404 && a.status != 405 {
				t.Errorf("%s %s %s: %d %s", c.service, c.method, c.target, a.status, a.message)
			}
		} else if a.message != "The operation "+c.want+" is not implemented." {
			t.Errorf("%s %s %s: %d %s, want %s", c.service, c.method, c.target, a.status, a.message, c.want)
		}
	}
}

// TestTopics: topics come escaped, or as devices write them; none is redirected.
func TestTopics(t *testing.T) {
	w := newWorld(t, api.Config{})
	var got string
	api.Handle(w.Server, iotdata.Publish, func(_ context.Context, in *iotdata.PublishRequest) (*iotdata.PublishResponse, error) {
		got = in.Topic
		return &iotdata.PublishResponse{}, nil
	})
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
		t.Error("redirected")
		return http.ErrUseLastResponse
	}}
	for path, want := range map[string]string{
		"a/b/c": "a/b/c", "a%2Fb%2Fc": "a/b/c", "a%2fb/c": "a/b/c", "/a": "/a", "%2Fa": "/a", "a/": "a/", "a%2F": "a/",
		"a//b": "a//b", "a%2F%2Fb": "a//b", "/": "/", "$aws/rules/r/x": "$aws/rules/r/x", "%24aws%2Frules": "$aws/rules",
		"a%20b": "a b", "a+b": "a+b", "%C3%A9": "é", "a%252Fb": "a%2Fb", "a/./b": "a/./b", "a/../b": "a/../b", "..": "..",
	} {
		r := w.request(t, "POST", "/", "x")
		r.URL.Opaque = "//" + r.URL.Host + "/topics/" + path
		a := send(t, client, sign(t, r, "iotdata", "x", time.Now()))
		if a.status != 200 || got != want {
			t.Errorf("%s: topic %q, want %q; %+v", path, got, want, a)
		}
		if !strings.HasPrefix(a.body, `{"message":"OK","traceId":"`) {
			t.Errorf("%s: %s", path, a.body)
		}
	}
}

// TestNormalizedPath: what acts is the path that was signed, not the one that a
// stranger made of it.
func TestNormalizedPath(t *testing.T) {
	w := newWorld(t, api.Config{})
	var got string
	api.Handle(w.Server, iotdata.Publish, func(_ context.Context, in *iotdata.PublishRequest) (*iotdata.PublishResponse, error) {
		got = in.Topic
		return &iotdata.PublishResponse{}, nil
	})
	for _, path := range []string{"/topics//a/b", "/topics/a/./b", "/topics/x/../a/b", "/things/../topics/a/b"} {
		got = ""
		r := sign(t, w.request(t, "POST", "/topics/a/b", "x"), "iotdata", "x", time.Now())
		r.URL.Opaque = "//" + r.URL.Host + path
		if a := send(t, http.DefaultClient, r); a.status != 200 || got != "a/b" {
			t.Errorf("%s: topic %q; %+v", path, got, a)
		}
	}
}

func TestCoverage(t *testing.T) {
	w := newWorld(t, api.Config{})
	api.Handle(w.Server, iot.CreateThing, func(context.Context, *iot.CreateThingRequest) (*iot.CreateThingResponse, error) { return nil, nil })
	text := string(api.Coverage(w.Server))
	for _, want := range []string{
		"| AWS IoT control plane | 272 | 1 |", "| AWS Security Token Service | 1 | 1 |", "`POST / GetCallerIdentity`", "| CreateThing | yes | `POST /things/{thingName}` |",
		"| ListThings |  | `GET /things` |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("two handlers of one operation")
		}
	}()
	api.Handle(w.Server, iot.CreateThing, func(context.Context, *iot.CreateThingRequest) (*iot.CreateThingResponse, error) { return nil, nil })
}
