package rules_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"flotilla/internal/aws/iot"
	"flotilla/internal/rules"
)

// arrival is a request that a web service got.
type arrival struct {
	path   string
	query  string
	header http.Header
	body   string
}

// webService takes confirmations and messages.
type webService struct {
	*httptest.Server
	mu       sync.Mutex
	arrivals []arrival
	answer   func(n int, a arrival) int // status of the nth message; nil: 200
}

func newWebService(t *testing.T) *webService {
	t.Helper()
	s := &webService{}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		a := arrival{r.URL.Path, r.URL.RawQuery, r.Header, string(body)}
		s.arrivals = append(s.arrivals, a)
		n, answer := len(s.messagesLocked()), s.answer
		s.mu.Unlock()
		if a.header.Get("X-Amz-Rules-Engine-Message-Type") == "" && answer != nil {
			w.WriteHeader(answer(n, a))
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *webService) setAnswer(fn func(int, arrival) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = fn
}

func (s *webService) messagesLocked() (out []arrival) {
	for _, a := range s.arrivals {
		if a.header.Get("X-Amz-Rules-Engine-Message-Type") == "" {
			out = append(out, a)
		}
	}
	return out
}

func (s *webService) messages() []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.messagesLocked()
}

func (s *webService) confirmations() (out []arrival) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.arrivals {
		if a.header.Get("X-Amz-Rules-Engine-Message-Type") == "DestinationConfirmation" {
			out = append(out, a)
		}
	}
	return out
}

// startWeb starts an engine whose http actions trust the services and may reach this machine.
func (w *world) startWeb(t *testing.T, services ...*webService) *rules.Engine {
	t.Helper()
	roots := x509.NewCertPool()
	for _, s := range services {
		roots.AddCert(s.Certificate())
	}
	w.cfg.HTTPPrivate, w.cfg.HTTPTimeout = true, time.Minute
	w.ext = func(d *rules.Deps) {
		d.Roots, d.APIURL = roots, func() string { return "http://api.example" }
	}
	e := w.start(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Confirm(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return e
}

func httpAction(url string) *iot.Action { return &iot.Action{Http: &iot.HttpAction{Url: url}} }

func status(t *testing.T, e *rules.Engine, arn string) (string, string) {
	t.Helper()
	out, err := e.GetTopicRuleDestination(context.Background(), &iot.GetTopicRuleDestinationRequest{Arn: arn})
	if err != nil {
		t.Fatal(err)
	}
	reason := ""
	if r := out.TopicRuleDestination.StatusReason; r != nil {
		reason = *r
	}
	return *out.TopicRuleDestination.Status, reason
}

type confirmation struct{ Arn, ConfirmationToken, EnableUrl, MessageType string }

// confirmed has a destination made and confirmed, and gives its ARN.
func (s *webService) confirmed(t *testing.T, e *rules.Engine, url string) string {
	t.Helper()
	out, err := e.CreateTopicRuleDestination(context.Background(), &iot.CreateTopicRuleDestinationRequest{
		DestinationConfiguration: &iot.TopicRuleDestinationConfiguration{HttpUrlConfiguration: &iot.HttpUrlDestinationConfiguration{ConfirmationUrl: url}},
	})
	if err != nil {
		t.Fatal(err)
	}
	arn := *out.TopicRuleDestination.Arn
	s.confirm(t, e, arn)
	return arn
}

// confirm answers the last confirmation message for a destination.
func (s *webService) confirm(t *testing.T, e *rules.Engine, arn string) confirmation {
	t.Helper()
	var c confirmation
	eventually(t, "a confirmation message", func() bool {
		for _, a := range s.confirmations() {
			if m := decode[confirmation](t, []byte(a.body)); m.Arn == arn {
				c = m
			}
		}
		return c.Arn != ""
	})
	if _, err := e.ConfirmTopicRuleDestination(context.Background(), &iot.ConfirmTopicRuleDestinationRequest{ConfirmationToken: c.ConfirmationToken}); err != nil {
		t.Fatal(err)
	}
	return c
}

func update(e *rules.Engine, arn, status string) error {
	_, err := e.UpdateTopicRuleDestination(context.Background(), &iot.UpdateTopicRuleDestinationRequest{Arn: arn, Status: status})
	return err
}

func TestDestination(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		s := newWebService(t)
		e := w.startWeb(t, s)
		create(t, e, "r", payload(`SELECT * FROM 'a'`, httpAction(s.URL+"/in")))
		list, err := e.ListTopicRuleDestinations(context.Background(), &iot.ListTopicRuleDestinationsRequest{})
		if err != nil || len(list.DestinationSummaries) != 1 || *list.DestinationSummaries[0].HttpUrlSummary.ConfirmationUrl != s.URL+"/in" {
			t.Fatalf("%+v %v", list, err)
		}
		arn := *list.DestinationSummaries[0].Arn
		if !strings.HasPrefix(arn, "arn:aws:iot:us-east-1:123456789012:ruledestination/http/") {
			t.Errorf("arn %s", arn)
		}
		if st, _ := status(t, e, arn); st != "IN_PROGRESS" {
			t.Errorf("status %s", st)
		}
		isA[*iot.InvalidRequestException](t, update(e, arn, "ENABLED"))

		// The link of the message needs no signature, and works once and again.
		eventually(t, "a confirmation message", func() bool { return len(s.confirmations()) == 1 })
		a := s.confirmations()[0]
		m := decode[confirmation](t, []byte(a.body))
		if m.Arn != arn || m.MessageType != "DestinationConfirmation" || m.EnableUrl != "http://api.example/confirmdestination/"+m.ConfirmationToken ||
			a.path != "/in" || a.query != "confirmationToken="+m.ConfirmationToken || a.header.Get("X-Amz-Rules-Engine-Destination-Arn") != arn {
			t.Errorf("%+v", a)
		}
		visit := func(path string) int {
			r := httptest.NewRecorder()
			e.ServeConfirmation(r, httptest.NewRequest(http.MethodGet, path, nil))
			return r.Code
		}
		if code := visit("/confirmdestination/" + m.ConfirmationToken + "x"); code != http.StatusForbidden {
			t.Errorf("another token: %d", code)
		}
		for range 2 {
			if code := visit(strings.TrimPrefix(m.EnableUrl, "http://api.example")); code != http.StatusOK {
				t.Errorf("the link: %d", code)
			}
		}
		if st, _ := status(t, e, arn); st != "ENABLED" {
			t.Errorf("status %s", st)
		}

		// Disabled, enabled, asked again: the old token is gone.
		if err := update(e, arn, "DISABLED"); err != nil {
			t.Error(err)
		}
		if code := visit("/confirmdestination/" + m.ConfirmationToken); code != http.StatusForbidden {
			t.Errorf("the link of a disabled destination: %d", code)
		}
		if err := update(e, arn, "ENABLED"); err != nil {
			t.Error(err)
		}
		if err := update(e, arn, "IN_PROGRESS"); err != nil {
			t.Error(err)
		}
		eventually(t, "another confirmation message", func() bool { return len(s.confirmations()) == 2 })
		if code := visit("/confirmdestination/" + m.ConfirmationToken); code != http.StatusForbidden {
			t.Errorf("the old link: %d", code)
		}

		_, err = e.CreateTopicRuleDestination(context.Background(), &iot.CreateTopicRuleDestinationRequest{
			DestinationConfiguration: &iot.TopicRuleDestinationConfiguration{HttpUrlConfiguration: &iot.HttpUrlDestinationConfiguration{ConfirmationUrl: s.URL + "/in"}},
		})
		isA[*iot.ConflictingResourceUpdateException](t, err)
		if _, err := e.DeleteTopicRuleDestination(context.Background(), &iot.DeleteTopicRuleDestinationRequest{Arn: arn}); err != nil {
			t.Error(err)
		}
		_, err = e.GetTopicRuleDestination(context.Background(), &iot.GetTopicRuleDestinationRequest{Arn: arn})
		isA[*iot.UnauthorizedException](t, err)
	})
}

func TestDestination_Unreachable(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		s := newWebService(t)
		e := w.startWeb(t) // does not trust s
		create(t, e, "r", payload(`SELECT * FROM 'a'`, httpAction(s.URL)))
		list, err := e.ListTopicRuleDestinations(context.Background(), &iot.ListTopicRuleDestinationsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the status ERROR", func() bool {
			st, reason := status(t, e, *list.DestinationSummaries[0].Arn)
			return st == "ERROR" && strings.Contains(reason, "certificate")
		})
	})
}

func TestHTTP(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		s := newWebService(t)
		e := w.startWeb(t, s)
		arn := s.confirmed(t, e, s.URL+"/base/")
		p := payload(`SELECT * FROM 'a/+'`, &iot.Action{Http: &iot.HttpAction{
			Url: s.URL + "/base/${name}", ConfirmationUrl: new(s.URL + "/base/"),
			Headers: []*iot.HttpActionHeader{{Key: "x-topic", Value: "${topic()}"}, {Key: "content-type", Value: "application/vnd.x+json"}},
		}})
		p.ErrorAction = republish("failed")
		create(t, e, "r", p)
		w.mustPublish(t, e, "a/1", `{"name":"one"}`)
		eventually(t, "a message", func() bool { return len(s.messages()) == 1 })
		if a := s.messages()[0]; a.path != "/base/one" || a.header.Get("X-Topic") != "a/1" || a.header.Get("Content-Type") != "application/vnd.x+json" || a.body != `{"name":"one"}` {
			t.Errorf("%+v", a)
		}

		// At most three tries of what may succeed, one of what may not.
		tried := func(status, tries, failures int) {
			t.Helper()
			before := len(s.messages())
			s.setAnswer(func(int, arrival) int { return status })
			w.mustPublish(t, e, "a/1", `{"name":"two"}`)
			eventually(t, "the error action", func() bool { return len(w.out.all()) == failures })
			if n := len(s.messages()) - before; n != tries {
				t.Errorf("status %d: %d tries", status, n)
			}
			f := decode[struct {
				Failures []struct{ FailedAction, FailedResource, ErrorMessage string }
			}](t, w.out.all()[failures-1].Payload).Failures[0]
			if f.FailedAction != "HttpAction" || f.FailedResource != s.URL+"/base/two" || !strings.Contains(f.ErrorMessage, fmt.Sprint(status)) {
				t.Errorf("%+v", f)
			}
		}
		tried(http.StatusServiceUnavailable, 3, 1)
		tried(http.StatusTooManyRequests, 3, 2)
		tried(http.StatusNotFound, 1, 3)
		tried(http.StatusFound, 1, 4)

		// What leads elsewhere than to who confirmed is not sent.
		before := len(s.messages())
		for i, name := range []string{"../other", `x/%2e%2e/%2e%2e/other`, `x\\..\\y`} {
			w.mustPublish(t, e, "a/1", `{"name":"`+name+`"}`)
			eventually(t, "the error action", func() bool { return len(w.out.all()) == 5+i })
		}
		if err := update(e, arn, "DISABLED"); err != nil {
			t.Fatal(err)
		}
		w.mustPublish(t, e, "a/1", `{"name":"one"}`)
		eventually(t, "the error action", func() bool { return len(w.out.all()) == 8 })
		if n := len(s.messages()); n != before {
			t.Errorf("%d requests were sent", n-before)
		}
	})
}

// Without an error action a message is tried until it arrives.
func TestHTTP_Recovers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		s := newWebService(t)
		e := w.startWeb(t, s)
		s.confirmed(t, e, s.URL)
		s.setAnswer(func(n int, _ arrival) int {
			if n <= 5 {
				return http.StatusInternalServerError
			}
			return http.StatusOK
		})
		create(t, e, "r", payload(`SELECT * FROM 'a'`, httpAction(s.URL)))
		w.mustPublish(t, e, "a", `1`)
		eventually(t, "the outbox to be empty", func() bool { return w.pending(t) == 0 })
		if n := len(s.messages()); n != 6 {
			t.Errorf("%d tries", n)
		}
	})
}

func TestHTTP_Batch(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		s := newWebService(t)
		e := w.startWeb(t, s)
		s.confirmed(t, e, s.URL)
		create(t, e, "r", payload(`SELECT * FROM 'a/+'`, &iot.Action{Http: &iot.HttpAction{
			Url: s.URL, EnableBatching: new(true), BatchConfig: &iot.BatchConfig{MaxBatchOpenMs: new(int32(200)), MaxBatchSize: new(int32(3))},
		}}))
		for i := range 20 {
			w.mustPublish(t, e, fmt.Sprintf("a/%d", i%2), fmt.Sprintf(`{"t":%d,"n":%d}`, i%2, i))
		}
		eventually(t, "the outbox to be empty", func() bool { return w.pending(t) == 0 })
		next := map[int]int{0: 0, 1: 1}
		for _, a := range s.messages() {
			batch := decode[[]struct{ T, N int }](t, []byte(a.body))
			if len(batch) == 0 || len(batch) > 3 || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("%+v", a)
			}
			for _, m := range batch {
				if m.T != batch[0].T || m.N != next[m.T] {
					t.Errorf("%s: want %v next", a.body, next)
				}
				next[m.T] += 2
			}
		}
		if next[0] != 20 || next[1] != 21 {
			t.Errorf("arrived until %v", next)
		}
	})
}

// A web service that does not answer keeps no other waiting, and messages of one client keep their order.
func TestHTTP_Dead(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		dead, alive := newWebService(t), newWebService(t)
		e := w.startWeb(t, dead, alive)
		dead.confirmed(t, e, dead.URL)
		alive.confirmed(t, e, alive.URL)
		release := make(chan struct{})
		defer close(release)
		dead.setAnswer(func(int, arrival) int { <-release; return http.StatusOK })
		create(t, e, "dead", payload(`SELECT * FROM 'a'`, httpAction(dead.URL)))
		create(t, e, "alive", payload(`SELECT * FROM 'a'`, httpAction(alive.URL)))
		for i := range 50 {
			w.mustPublish(t, e, "a", fmt.Sprint(i))
		}
		eventually(t, "the messages at the other service", func() bool { return len(alive.messages()) == 50 })
		for i, a := range alive.messages() {
			if a.body != fmt.Sprint(i) {
				t.Errorf("message %d is %s", i, a.body)
			}
		}
	})
}

func TestHTTP_Signed(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
	t.Setenv("AWS_SESSION_TOKEN", "")
	each(t, func(t *testing.T, w *world) {
		s := newWebService(t)
		w.cfg.HTTPSign = true
		e := w.startWeb(t, s)
		s.confirmed(t, e, s.URL)
		create(t, e, "r", payload(`SELECT * FROM 'a'`, &iot.Action{Http: &iot.HttpAction{
			Url: s.URL, Auth: &iot.HttpAuthorization{Sigv4: &iot.SigV4Authorization{SigningRegion: "eu-west-1", ServiceName: "execute-api", RoleArn: role}},
		}}))
		w.mustPublish(t, e, "a", `1`)
		eventually(t, "a message", func() bool { return len(s.messages()) == 1 })
		if auth := s.messages()[0].header.Get("Authorization"); !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/") || !strings.Contains(auth, "/eu-west-1/execute-api/aws4_request") {
			t.Errorf("Authorization: %s", auth)
		}
	})
}

func TestHTTP_Refused(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		e := w.start(t) // the default: https and public addresses
		sign := &iot.HttpAuthorization{Sigv4: &iot.SigV4Authorization{SigningRegion: "eu-west-1", ServiceName: "es", RoleArn: role}}
		for name, a := range map[string]iot.HttpAction{
			"plain":           {Url: "http://example.com/"},
			"loopback":        {Url: "https://127.0.0.1/"},
			"metadata":        {Url: "https://169.254.169.254/"},
			"port":            {Url: "https://example.com:22/"},
			"password":        {Url: "https://a:b@example.com/"},
			"no URL":          {Url: "example"},
			"template alone":  {Url: "https://example.com/${a}"},
			"other host":      {Url: "https://example.com.evil.example/", ConfirmationUrl: new("https://example.com")},
			"no prefix":       {Url: "https://example.com/a", ConfirmationUrl: new("https://example.com/b")},
			"leaves the path": {Url: "https://example.com/a/../b", ConfirmationUrl: new("https://example.com/a/")},
			"host header":     {Url: "https://example.com/", Headers: []*iot.HttpActionHeader{{Key: "HOST", Value: "a"}}},
			"header":          {Url: "https://example.com/", Headers: []*iot.HttpActionHeader{{Key: "a b", Value: "a"}}},
			"injection":       {Url: "https://example.com/", Headers: []*iot.HttpActionHeader{{Key: "a", Value: "a\r\nb: c"}}},
			"auth":            {Url: "https://example.com/", Auth: sign},
			"batchConfig":     {Url: "https://example.com/", BatchConfig: &iot.BatchConfig{}},
			"batch size":      {Url: "https://example.com/", EnableBatching: new(true), BatchConfig: &iot.BatchConfig{MaxBatchSize: new(int32(11))}},
		} {
			_, err := e.CreateTopicRule(context.Background(), &iot.CreateTopicRuleRequest{RuleName: "r", TopicRulePayload: payload(`SELECT * FROM 'a'`, &iot.Action{Http: &a})})
			if err == nil {
				t.Errorf("%s: taken", name)
				continue
			}
			isA[*iot.InvalidRequestException](t, err)
		}
		list, err := e.ListTopicRuleDestinations(context.Background(), &iot.ListTopicRuleDestinationsRequest{})
		if err != nil || len(list.DestinationSummaries) != 0 {
			t.Errorf("%+v %v", list, err)
		}
	})
}

// A confirmation that was due when the server stopped is asked for after the next start.
func TestDestination_DueAfterRestart(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		s := newWebService(t)
		w.cfg.HTTPPrivate = true
		first := w.start(t) // nobody sends its confirmations
		create(t, first, "r", payload(`SELECT * FROM 'a'`, httpAction(s.URL)))
		stop(t, first)
		e := w.startWeb(t, s)
		eventually(t, "a confirmation message", func() bool { return len(s.confirmations()) == 1 })
		m := decode[confirmation](t, []byte(s.confirmations()[0].body))
		s.confirm(t, e, m.Arn)
		w.mustPublish(t, e, "a", `1`)
		eventually(t, "a message", func() bool { return len(s.messages()) == 1 })
	})
}
