package api_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"flotilla/internal/api"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/aws/iot"
	"flotilla/internal/aws/iotdata"
)

// Each label of each path either names a resource or is known to name none.
func TestEveryLabelHasAMeaning(t *testing.T) {
	handled := []string{"arn", "target", "metricName", "versionName"} // by sources, or by resourcesOfLabels
	for op, labels := range newWorld(t, api.Config{}).Routes() {
		service, name, _ := strings.Cut(op, " ")
		if !strings.HasPrefix(service, "iot") || api.Named(name) {
			continue
		}
		for _, label := range labels {
			if _, ok := api.ResourceType(label); !ok && !slices.Contains(handled, label) {
				t.Errorf("%s: nothing says what %s names", op, label)
			}
		}
	}
}

const arn = "arn:aws:iot:us-east-1:123456789012:"

// What is asked of the policies, for each shape of request.
func TestWhatIsAsked(t *testing.T) {
	w := newWorld(t, api.Config{})
	for _, c := range []struct {
		service, method, path, body string
		header                      http.Header
		want                        []string
	}{
		{"iot", "POST", "/things/lamp", `{}`, nil, []string{"iot:CreateThing " + arn + "thing/lamp"}},
		{"iot", "POST", "/things/a%2Fb", `{}`, nil, []string{"iot:CreateThing " + arn + "thing/a/b"}},
		{"execute-api", "POST", "/things/lamp", `{}`, nil, []string{"iot:CreateThing " + arn + "thing/lamp"}},
		{"iot", "GET", "/things", "", nil, []string{"iot:ListThings *"}},
		{"iot", "GET", "/policies/p/version/2", "", nil, []string{"iot:GetPolicyVersion " + arn + "policy/p"}},
		{"iot", "PUT", "/target-policies/p", `{"target":"arn:aws:iot:us-east-1:123456789012:cert/abc"}`, nil, []string{"iot:AttachPolicy " + arn + "cert/abc"}},
		{"iot", "PUT", "/target-policies/p", `{"target":"arn:aws:iot:eu-west-1:999999999999:thinggroup/g"}`, nil, []string{"iot:AttachPolicy " + arn + "thinggroup/g"}},
		{"iot", "PUT", "/target-policies/p", `{}`, nil, []string{"iot:AttachPolicy *"}},
		{"iot", "PUT", "/principal-policies/p", "", http.Header{"X-Amzn-Iot-Principal": {arn + "cert/abc"}}, []string{"iot:AttachPrincipalPolicy " + arn + "cert/abc"}},
		{"iot", "PUT", "/things/lamp/principals", "", http.Header{"X-Amzn-Principal": {"abc"}}, []string{"iot:AttachThingPrincipal " + arn + "cert/abc"}},
		{"iot", "PUT", "/thing-groups/addThingToThingGroup", `{"thingName":"lamp","thingGroupArn":"` + arn + `thinggroup/g"}`, nil, []string{"iot:AddThingToThingGroup " + arn + "thing/lamp", "iot:AddThingToThingGroup " + arn + "thinggroup/g"}},
		{"iot", "PUT", "/thing-groups/updateThingGroupsForThing", `{"thingName":"lamp","thingGroupsToAdd":["a","b"],"thingGroupsToRemove":["b"]}`, nil, []string{"iot:UpdateThingGroupsForThing " + arn + "thing/lamp", "iot:UpdateThingGroupsForThing " + arn + "thinggroup/a", "iot:UpdateThingGroupsForThing " + arn + "thinggroup/b"}},
		{"iot", "POST", "/thing-groups/g", `{"parentGroupName":"top"}`, nil, []string{"iot:CreateThingGroup " + arn + "thinggroup/g", "iot:CreateThingGroup " + arn + "thinggroup/top"}},
		{"iot", "PUT", "/jobs/j", `{"targets":["` + arn + `thing/lamp"]}`, nil, []string{"iot:CreateJob " + arn + "job/j", "iot:CreateJob " + arn + "thing/lamp"}},
		{"iot", "POST", "/otaUpdates/u", `{"targets":["` + arn + `thing/lamp"]}`, nil, []string{"iot:CreateOTAUpdate " + arn + "otaupdate/u", "iot:CreateOTAUpdate " + arn + "thing/lamp"}},
		{"iot", "PUT", "/things/lamp/jobs/j/cancel", "", nil, []string{"iot:CancelJobExecution " + arn + "thing/lamp", "iot:CancelJobExecution " + arn + "job/j"}},
		{"iot", "POST", "/tags", `{"resourceArn":"` + arn + `rule/r","tags":[]}`, nil, []string{"iot:TagResource " + arn + "rule/r"}},
		{"iot", "GET", "/tags?resourceArn=arn%3Aaws%3Aiot%3Aus-east-1%3A123456789012%3Arule%2Fr", "", nil, []string{"iot:ListTagsForResource " + arn + "rule/r"}},
		{"iot", "POST", "/indices/search", `{"queryString":"x"}`, nil, []string{"iot:SearchIndex " + arn + "index/AWS_Things"}},
		{"iot", "PUT", "/packages/p/versions/1", `{}`, nil, []string{"iot:CreatePackageVersion " + arn + "package/p/version/1"}},
		{"iot", "PUT", "/fleet-metric/m", `{}`, nil, []string{"iot:CreateFleetMetric " + arn + "fleetmetric/m"}},
		{"iot", "GET", "/cacertificate/abc", "", nil, []string{"iot:DescribeCACertificate " + arn + "cacert/abc"}},
		{"iotdata", "POST", "/topics/a%2Fb?qos=1", "x", nil, []string{"iot:Publish " + arn + "topic/a/b"}},
		{"iotdata", "POST", "/topics/a?retain=true", "x", nil, []string{"iot:Publish " + arn + "topic/a", "iot:RetainPublish " + arn + "topic/a"}},
		{"iotdata", "GET", "/things/lamp/shadow?name=s", "", nil, []string{"iot:GetThingShadow " + arn + "thing/lamp/s"}},
		{"iotdata", "DELETE", "/connections/c", "", nil, []string{"iot:DeleteConnection " + arn + "client/c"}},
		{"iot-jobs-data", "GET", "/things/lamp/jobs", "", nil, []string{"iotjobsdata:GetPendingJobExecutions " + arn + "thing/lamp"}},
		{"iot", "GET", "/command-executions/e?targetArn=arn%3Aaws%3Aiot%3Aus-east-1%3A123456789012%3Athing%2Flamp", "", nil, []string{"iot:GetCommandExecution " + arn + "thing/lamp"}},
		{"iot", "DELETE", "/command-executions/e?targetArn=arn%3Aaws%3Aiot%3Aus-east-1%3A123456789012%3Athing%2Flamp", "", nil, []string{"iot:DeleteCommandExecution " + arn + "thing/lamp"}},
		{"iot", "POST", "/command-executions", `{"targetArn":"` + arn + `client/c"}`, nil, []string{"iot:ListCommandExecutions " + arn + "client/c"}},
		{"lambda", "POST", "/2015-03-31/functions/", `{"FunctionName":"f"}`, nil, []string{"lambda:CreateFunction arn:aws:lambda:us-east-1:123456789012:function:f"}},
		{"lambda", "POST", "/2015-03-31/functions/f%3A7/invocations", `{}`, nil, []string{"lambda:InvokeFunction arn:aws:lambda:us-east-1:123456789012:function:f"}},
		{"lambda", "GET", "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Af", "", nil, []string{"lambda:ListTags arn:aws:lambda:us-east-1:123456789012:function:f"}},
		{"lambda", "GET", "/2015-03-31/functions/", "", nil, []string{"lambda:ListFunctions *"}},
		{"flotilla", "GET", "/explain/client/c", "", nil, []string{"flotilla:ExplainClient arn:aws:flotilla:us-east-1:123456789012:explain/client/c"}},
		{"flotilla", "POST", "/identities/ann/access-keys", "{}", nil, []string{"flotilla:CreateAccessKey arn:aws:iam::123456789012:user/ann"}},
		{"flotilla", "DELETE", "/access-keys/AKIAAAAAAAAAAAAAAAAA", "", nil, []string{"flotilla:DeleteAccessKey arn:aws:flotilla:us-east-1:123456789012:access-keys/AKIAAAAAAAAAAAAAAAAA"}},
	} {
		w.permissions.allow(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`)
		r := w.request(t, c.method, c.path, c.body)
		for k, v := range c.header {
			r.Header[k] = v
		}
		send(t, http.DefaultClient, sign(t, r, c.service, c.body, time.Now()))
		if got := w.permissions.asked; !slices.Equal(got, c.want) {
			t.Errorf("%s %s %s:\n got %q\nwant %q", c.method, c.path, c.body, got, c.want)
		}
	}
}

func TestWhoMayNotIsToldWhy(t *testing.T) {
	w := newWorld(t, api.Config{})
	called := false
	api.Handle(w.Server, iot.CreateThing, func(context.Context, *iot.CreateThingRequest) (*iot.CreateThingResponse, error) {
		called = true
		return &iot.CreateThingResponse{}, nil
	})
	api.Handle(w.Server, iotdata.GetThingShadow, func(context.Context, *iotdata.GetThingShadowRequest) (*iotdata.GetThingShadowResponse, error) {
		called = true
		return nil, nil
	})
	api.Handle(w.Server, flotilla.CreateAccessKey, func(context.Context, *flotilla.CreateAccessKeyRequest) (*flotilla.CreateAccessKeyResponse, error) {
		called = true
		return nil, nil
	})
	w.permissions.allow(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:List*","Resource":"*"},{"Effect":"Deny","Action":"iot:GetThingShadow","Resource":"*"}]}`)
	user := "User: arn:aws:iam::123456789012:user/admin is not authorized to perform: "
	for _, c := range []struct{ service, method, path, code, message string }{
		{"iot", "POST", "/things/lamp", "AccessDeniedException", user + "iot:CreateThing on resource: " + arn + "thing/lamp because no identity-based policy allows the iot:CreateThing action"},
		{"iotdata", "GET", "/things/lamp/shadow", "ForbiddenException", user + "iot:GetThingShadow on resource: " + arn + "thing/lamp with an explicit deny in an identity-based policy"},
		{"flotilla", "POST", "/identities/ann/access-keys", "AccessDeniedException", user + "flotilla:CreateAccessKey on resource: arn:aws:iam::123456789012:user/ann because no identity-based policy allows the flotilla:CreateAccessKey action"},
		{"iot", "DELETE", "/streams/s", "AccessDeniedException", user + "iot:DeleteStream on resource: " + arn + "stream/s because no identity-based policy allows the iot:DeleteStream action"}, // has no handler
	} {
		// What is wrong with the body is not told to who may not.
		a := send(t, http.DefaultClient, sign(t, w.request(t, c.method, c.path, "{"), c.service, "{", time.Now()))
		if a.status != 403 || a.code != c.code || a.message != c.message {
			t.Errorf("%s %s: %d %s %s", c.method, c.path, a.status, a.code, a.body)
		}
	}
	if called {
		t.Error("a handler was called")
	}
	w.permissions.err = errors.New("out of order")
	if a := send(t, http.DefaultClient, sign(t, w.request(t, "GET", "/things", ""), "iot", "", time.Now())); a.status != 500 {
		t.Errorf("%+v", a)
	}
}

// A decision is about the members that the operation acts on.
func TestMembersGivenTwiceAreRefused(t *testing.T) {
	w := newWorld(t, api.Config{})
	api.Handle(w.Server, iot.TagResource, func(context.Context, *iot.TagResourceRequest) (*iot.TagResourceResponse, error) {
		t.Error("called")
		return &iot.TagResourceResponse{}, nil
	})
	w.permissions.allow(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:RequestTag/env":"prod"}}}]}`)
	for name, body := range map[string]string{
		"twice":       `{"resourceArn":"` + arn + `rule/a","resourceArn":"` + arn + `rule/b","tags":[]}`,
		"escaped":     `{"resourceArn":"` + arn + `rule/a","resource\u0041rn":"` + arn + `rule/b","tags":[]}`,
		"no object":   `[]`,
		"no JSON":     `{"resourceArn":`,
		"tag":         `{"resourceArn":"` + arn + `rule/a","tags":[{"Key":"env","Value":"prod"}]}`,
		"tag's case":  `{"resourceArn":"` + arn + `rule/a","tags":[{"Key":"ENV","Value":"prod"}]}`,
		"tag's twice": `{"resourceArn":"` + arn + `rule/a","tags":[{"Key":"env","Value":"x","Value":"prod"}]}`,
		"two tags":    `{"resourceArn":"` + arn + `rule/a","tags":[{"Key":"env","Value":"prod"},{"Key":"b"}]}`,
	} {
		a := send(t, http.DefaultClient, sign(t, w.request(t, "POST", "/tags", body), "iot", body, time.Now()))
		if a.status/100 != 4 {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// Without permissions nobody may do anything.
func TestNoPermissionsAllowNothing(t *testing.T) {
	w := newWorld(t, api.Config{})
	s := api.New(api.Config{}, api.Deps{Account: account, Keys: w.keys})
	r := sign(t, w.request(t, "GET", "/things", ""), "iot", "", time.Now())
	if a := statusOf(s, r); a != 403 {
		t.Errorf("status %d", a)
	}
}

func statusOf(h http.Handler, r *http.Request) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}
