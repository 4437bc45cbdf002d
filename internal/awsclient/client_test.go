package awsclient_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/awsclient"
)

// alone takes from the environment what would lead to credentials and endpoints.
func alone(t *testing.T) {
	t.Helper()
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "config"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "credentials"))
}

// request is what reached the server.
type request struct {
	Method, Path, Type, Target, Body string
	Credential, Token                string
}

// counterpart answers with status and body, and keeps what it was asked.
func counterpart(t *testing.T, answer http.HandlerFunc) (string, func() []request) {
	t.Helper()
	var got []request
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
		scope, _, _ = strings.Cut(scope, ",")
		got = append(got, request{r.Method, r.RequestURI, r.Header.Get("Content-Type"), r.Header.Get("X-Amz-Target"), string(body), scope, r.Header.Get("X-Amz-Security-Token")})
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() []request { server.Close(); return got }
}

func text(status int, s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); fmt.Fprint(w, s) }
}

func open(t *testing.T, cfg awsclient.Config) *awsclient.Client {
	t.Helper()
	c, err := awsclient.New(cfg, "eu-central-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func keys(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
}

// Each protocol has the request that its service documents.
func TestProtocols(t *testing.T) {
	alone(t)
	keys(t)
	at, got := counterpart(t, text(200, `{"FailedRecordCount":0}`))
	c := open(t, awsclient.Config{EndpointURL: at})
	var out struct{ FailedRecordCount *int }
	if err := c.JSON(t.Context(), "kinesis", "Kinesis_20131202.PutRecords", "1.1", map[string]any{"StreamName": "s"}, &out); err != nil || out.FailedRecordCount == nil {
		t.Fatalf("%v %+v", err, out)
	}
	if _, err := c.Query(t.Context(), "sns", "2010-03-31", url.Values{"Action": {"Publish"}, "Message": {"a b"}}); err != nil {
		t.Fatal(err)
	}
	if status, _, err := c.REST(t.Context(), "geo", http.MethodPost, "/tracking/v0/trackers/a%2Fb/positions", nil, []byte("{}")); err != nil || status != 200 {
		t.Fatalf("%d %v", status, err)
	}
	var scopes []string
	requests := got()
	for i := range requests {
		scopes = append(scopes, strings.SplitN(requests[i].Credential, "/", 3)[2])
		requests[i].Credential = ""
	}
	want := []request{
		{"POST", "/", "application/x-amz-json-1.1", "Kinesis_20131202.PutRecords", `{"StreamName":"s"}`, "", ""},
		{"POST", "/", "application/x-www-form-urlencoded; charset=utf-8", "", "Action=Publish&Message=a+b&Version=2010-03-31", "", ""},
		{"POST", "/tracking/v0/trackers/a%2Fb/positions", "application/json", "", "{}", "", ""},
	}
	if diff := cmp.Diff(want, requests); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"eu-central-1/kinesis/aws4_request", "eu-central-1/sns/aws4_request", "eu-central-1/geo/aws4_request"}, scopes); diff != "" {
		t.Error(diff)
	}
}

// What the services answer when they refuse, by protocol, and whether another attempt helps.
func TestRefusals(t *testing.T) {
	alone(t)
	keys(t)
	tests := []struct {
		name      string
		answer    http.HandlerFunc
		code      string
		temporary bool
	}{
		{"validation", text(400, `{"__type":"com.amazonaws.kinesis#ValidationException","message":"no"}`), "ValidationException", false},
		{"throttled", text(400, `{"__type":"ProvisionedThroughputExceededException"}`), "ProvisionedThroughputExceededException", true},
		{"missing", text(400, `{"__type":"ResourceNotFoundException","Message":"no"}`), "ResourceNotFoundException", true},
		{"fault", text(500, `<html>`), "Unknown", true},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, "Unknown", true},
		{"xml", text(400, `<ErrorResponse><Error><Type>Sender</Type><Code>InvalidParameter</Code><Message>m</Message></Error></ErrorResponse>`), "InvalidParameter", false},
		{"long", text(200, strings.Repeat(" ", 1<<20+1)), "NotReached", true},
		{"nonsense", text(200, "<"), "InvalidAnswer", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			at, got := counterpart(t, test.answer)
			err := open(t, awsclient.Config{EndpointURL: at}).JSON(t.Context(), "kinesis", "Kinesis_20131202.PutRecords", "1.1", struct{}{}, &struct{}{})
			e, ok := errors.AsType[*awsclient.Error](err)
			if !ok || e.Code != test.code || e.Temporary() != test.temporary || awsclient.IsTemporary(err) != test.temporary {
				t.Errorf("%v", err)
			}
			if n := len(got()); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// Keys are found where the SDKs look for them, in their order.
func TestCredentials(t *testing.T) {
	alone(t)
	at, got := counterpart(t, func(w http.ResponseWriter, r *http.Request) {
		expiry := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		switch {
		case r.URL.Path == "/container" && r.Header.Get("Authorization") == "secret":
			fmt.Fprintf(w, `{"AccessKeyId":"CONTAINER","SecretAccessKey":"s","Token":"ct","Expiration":%q}`, expiry)
		case r.FormValue("Action") == "AssumeRoleWithWebIdentity":
			fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>WEB</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>wt</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, expiry)
		default:
			fmt.Fprint(w, "{}")
		}
	})
	use := func(profile string) {
		t.Helper()
		c := open(t, awsclient.Config{EndpointURL: at, Profile: profile})
		if !c.Configured() {
			t.Error("not configured")
		}
		if err := c.JSON(t.Context(), "sqs", "AmazonSQS.SendMessageBatch", "1.0", struct{}{}, nil); err != nil {
			t.Error(err)
		}
	}
	if c := open(t, awsclient.Config{EndpointURL: at}); c.Configured() || awsclient.IsTemporary(c.JSON(t.Context(), "sqs", "AmazonSQS.SendMessage", "1.0", nil, nil)) != true {
		t.Error("configured without credentials")
	}
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", at+"/container")
	t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "secret")
	use("")
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, "jwt\n")
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token)
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r")
	use("")
	write(t, os.Getenv("AWS_SHARED_CREDENTIALS_FILE"), "[default]\naws_access_key_id=DEFAULT\naws_secret_access_key = s\n[other]\naws_access_key_id = OTHER\naws_secret_access_key = s\n")
	write(t, os.Getenv("AWS_CONFIG_FILE"), "# comment\n[profile other]\nregion = us-west-2\ns3 =\n  region = nested\n")
	use("")
	use("other")
	keys(t)
	t.Setenv("AWS_SESSION_TOKEN", "token")
	use("other")
	var found []string
	for _, r := range got() {
		if r.Target != "" {
			found = append(found, strings.SplitN(r.Credential, "/", 2)[0]+" "+strings.Split(r.Credential, "/")[2]+" "+r.Token)
		}
	}
	want := []string{"CONTAINER eu-central-1 ct", "WEB eu-central-1 wt", "DEFAULT eu-central-1 ", "OTHER us-west-2 ", "AKIDEXAMPLE us-west-2 token"}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}
}

// Secrets are not asked for over plain HTTP elsewhere.
func TestContainerOnlyNearby(t *testing.T) {
	alone(t)
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/credentials")
	err := open(t, awsclient.Config{}).JSON(t.Context(), "sqs", "AmazonSQS.SendMessage", "1.0", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "neither https nor") {
		t.Error(err)
	}
}

func TestEndpoints(t *testing.T) {
	alone(t)
	keys(t)
	all, gotAll := counterpart(t, text(200, "{}"))
	own, gotOwn := counterpart(t, text(200, "{}"))
	t.Setenv("AWS_ENDPOINT_URL_SQS", own)
	c := open(t, awsclient.Config{EndpointURL: all})
	for _, s := range []string{"sqs", "kinesis", "timestream"} {
		if err := c.JSON(t.Context(), s, "A.B", "1.0", struct{}{}, nil); err != nil {
			t.Error(err)
		}
	}
	if a, o := len(gotAll()), len(gotOwn()); a != 2 || o != 1 {
		t.Errorf("%d requests at the common endpoint, %d at the service's", a, o)
	}
	for _, bad := range []string{"ftp://x", "http://", "http://u:p@x", "x"} {
		if _, err := awsclient.New(awsclient.Config{EndpointURL: bad}, "us-east-1", nil); err == nil {
			t.Errorf("%s is taken for an endpoint", bad)
		}
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
