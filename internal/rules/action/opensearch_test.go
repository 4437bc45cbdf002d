package action_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws/iot"
	"flotilla/internal/rules/action"
)

func search(endpoint string) *iot.Action {
	return &iot.Action{OpenSearch: &iot.OpenSearchAction{RoleArn: role, Endpoint: endpoint, Index: "i", Type: "_doc", Id: "${id}"}}
}

// A document is put where its index, type and id say, in no other place of the endpoint, and signed.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/opensearch-rule-action.html
func TestOpenSearch(t *testing.T) {
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		signed := strings.Contains(r.Header.Get("Authorization"), "/us-east-1/es/aws4_request")
		got = append(got, r.Method+" "+r.URL.EscapedPath())
		if !signed {
			w.WriteHeader(http.StatusForbidden)
		}
		if strings.HasSuffix(r.URL.Path, "bad") {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	defer server.Close()
	compiled, err := action.Compile(search(server.URL+"/base/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	env := action.Env{AWS: client(t, "http://127.0.0.1:1"), SearchEndpoints: []string{server.URL}}
	s, err := compiled.Open(env)
	if err != nil {
		t.Fatal(err)
	}
	must(t, s, record(1, `{"a":1}`, "i", "_doc", "x/../y"))
	for _, id := range []string{"bad", "", ".."} {
		if done, err := s.Do(t.Context(), []action.Record{record(2, `{"a":1}`, "i", "_doc", id)}); done != 0 || !action.IsPermanent(err) {
			t.Errorf("%q: %d %v", id, done, err)
		}
	}
	if diff := cmp.Diff([]string{"PUT /base/i/_doc/x%2F..%2Fy", "PUT /base/i/_doc/bad"}, got); diff != "" {
		t.Error(diff)
	}
}

// Rules send requests to domains of AWS and to what the deployment names, and nowhere else.
func TestOpenSearchEndpoints(t *testing.T) {
	env := action.Env{AWS: client(t, "http://127.0.0.1:1"), SearchEndpoints: []string{"http://search:9200"}}
	for endpoint, want := range map[string]bool{
		"https://search-d-abc.us-east-1.es.amazonaws.com": true, "http://search:9200": true,
		"http://search-d-abc.us-east-1.es.amazonaws.com": false, "https://search-d-abc.us-east-1.es.amazonaws.com:8443": false,
		"http://169.254.169.254": false, "https://es.amazonaws.com.evil.example": false, "https://evil.example/.es.amazonaws.com": false,
		"https://a@search-d.us-east-1.es.amazonaws.com": false, "https://${host}": false, "http://search:9201": false, "file:///etc": false,
	} {
		compiled, err := action.Compile(search(endpoint), nil)
		if err == nil {
			err = compiled.Check(env)
		}
		if (err == nil) != want {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}
