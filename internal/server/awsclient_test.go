package server_test

import (
	"net/http"
	"testing"

	"flotilla/internal/awsclient"
	"flotilla/internal/server/servertest"
)

// What awsclient signs, our own door verifies: paths, queries and bodies.
func TestAWSClientSignature(t *testing.T) {
	s := servertest.Start(t)
	for _, name := range []string{"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_LAMBDA", "AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(name, "")
	}
	n := s.Node(0)
	t.Setenv("AWS_ACCESS_KEY_ID", n.AccessKey)
	for secret, want := range map[string]int{n.Secret: http.StatusNotFound, "wrong": http.StatusForbidden} {
		t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
		c, err := awsclient.New(awsclient.Config{EndpointURL: n.Endpoints().API}, "us-east-1", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		status, answer, err := c.REST(t.Context(), "lambda", http.MethodPost, "/2015-03-31/functions/no-such/invocations?Qualifier=%241", nil, []byte(`{"a":1}`))
		if err != nil || status != want {
			t.Errorf("%d %s %v, not %d", status, answer, err, want)
		}
	}
}
