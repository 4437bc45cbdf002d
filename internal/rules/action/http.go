package action

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"flotilla/internal/aws/iot"
	"flotilla/internal/outbound"
)

// Web is what the http action works with.
type Web struct {
	Client *outbound.Client
	// Enabled tells whether there is a destination of that confirmation URL that traffic may go to.
	Enabled func(ctx context.Context, confirmationURL string) (bool, error)
	// Credentials sign requests for actions with auth.
	Credentials func(ctx context.Context) (sdk.Credentials, error)
	// Timeout is how long all tries at a message may take together.
	Timeout time.Duration
}

const (
	maxURL         = 2000
	maxHTTPHeaders = 100
	maxHeaderValue = 4096 // filled
	httpTries      = 3
	httpParallel   = 16
)

var headerKey = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+.^_|~` + "`" + `-]{1,256}$`)

// ownHeaders are not an author's to set: they are about the connection, or are what a signature makes.
var ownHeaders = []string{"Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Upgrade"}

// compileHTTP makes an action that posts to url, once the destination confirmationUrl has been confirmed.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/https-rule-action.html
func compileHTTP(c *compiler, a *iot.Action) *Action {
	p := a.Http
	s := &httpSink{confirmation: -1}
	s.url = c.checked("url", p.Url, checkURL)
	if p.ConfirmationUrl != nil && *p.ConfirmationUrl != "" {
		s.confirmation = c.checked("confirmationUrl", *p.ConfirmationUrl, checkURL)
	}
	if len(p.Headers) > maxHTTPHeaders {
		c.refuse("headers has more than %d members", maxHTTPHeaders)
	}
	for _, h := range p.Headers {
		if h == nil {
			continue
		}
		key := textproto.CanonicalMIMEHeaderKey(h.Key)
		switch {
		case !headerKey.MatchString(h.Key):
			c.refuse("headers: %q is not the name of a header", h.Key)
		case slices.Contains(ownHeaders, key), p.Auth != nil && (key == "Authorization" || key == "X-Amz-Date" || key == "X-Amz-Security-Token"):
			c.refuse("headers: %s is not for rules to set", h.Key)
		}
		s.headers = append(s.headers, httpHeader{key, c.checked("headers."+h.Key, h.Value, checkHeaderValue)})
	}
	if p.Auth != nil {
		if s.auth = p.Auth.Sigv4; s.auth == nil {
			c.refuse("auth has no sigv4")
		} else {
			c.role(s.auth.RoleArn)
		}
	}
	out := &Action{}
	s.compileBatch(c, p, out)
	if c.err == nil && c.parse != nil {
		out.Destination = httpDestination(c, s)
	}
	out.open = func(env Env) (Sink, error) {
		if env.Web == nil {
			return nil, errors.New("http: requests to other servers are not allowed")
		}
		open := *s
		open.env, open.known = env, map[int64]error{}
		return &open, nil
	}
	return out
}

// compileBatch reads the parameters of batching.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/http_batching.html
func (s *httpSink) compileBatch(c *compiler, p *iot.HttpAction, out *Action) {
	b := Batch{Rows: 64, Bytes: 1 << 20}
	s.batch = p.EnableBatching != nil && *p.EnableBatching
	if !s.batch && p.BatchConfig != nil {
		c.refuse("batchConfig is for actions with enableBatching")
	}
	if s.batch {
		g := value(p.BatchConfig)
		bounded := func(name string, v *int32, least, most, otherwise int32) int {
			if v == nil {
				return int(otherwise)
			}
			if *v < least || *v > most {
				c.refuse("batchConfig.%s is between %d and %d", name, least, most)
			}
			return int(*v)
		}
		open := bounded("maxBatchOpenMs", g.MaxBatchOpenMs, 5, 200, 20)
		s.size = bounded("maxBatchSize", g.MaxBatchSize, 2, 10, 10)
		s.bytes = bounded("maxBatchSizeBytes", g.MaxBatchSizeBytes, 100, 131072, 5120)
		s.across = value(g.BatchAcrossTopics)
		b = Batch{Rows: httpParallel * s.size, Bytes: max(1<<20, httpParallel*s.bytes), Linger: time.Duration(open) * time.Millisecond}
	}
	out.batch = func(Env) Batch { return b }
}

// httpDestination is the constant confirmation URL of an action, "" when it is known only with a message.
func httpDestination(c *compiler, s *httpSink) string {
	address, constant := c.out[s.url].Constant()
	if s.confirmation < 0 {
		if !constant {
			c.refuse("url has a substitution template, so confirmationUrl is required")
		}
		return address
	}
	confirmation, ok := c.out[s.confirmation].Constant()
	if ok && constant {
		if err := checkPrefix(address, confirmation); err != nil {
			c.refuse("%w", err)
		}
	}
	return confirmation
}

func checkURL(s string) error {
	if len(s) > maxURL {
		return fmt.Errorf("the URL has more than %d bytes", maxURL)
	}
	if u, err := url.Parse(s); err != nil || u.Host == "" {
		return fmt.Errorf("%q is not a URL of the form https://host/path", s)
	}
	return nil
}

func checkHeaderValue(s string) error {
	if len(s) > maxHeaderValue {
		return fmt.Errorf("the value of a header has more than %d bytes", maxHeaderValue)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return errors.New("the value of a header has control characters")
	}
	return nil
}

// checkPrefix tells whether who confirmed a URL has thereby agreed to another: it begins with it, is at the same host
// and port, and does not leave its path again.
func checkPrefix(address, confirmation string) error {
	u, err := url.Parse(address)
	c, err2 := url.Parse(confirmation)
	if err != nil || err2 != nil || !strings.HasPrefix(address, confirmation) || u.Scheme != c.Scheme || u.Host != c.Host || u.User != nil {
		return errors.New("url does not begin with confirmationUrl")
	}
	for seg := range strings.FieldsFuncSeq(u.Path, func(r rune) bool { return r == '/' || r == '\\' }) {
		if seg == ".." || seg == "." {
			return errors.New("url has a path with . or .. in it")
		}
	}
	return nil
}

type httpHeader struct {
	key   string
	value int // an index of Record.Fields
}

// httpSink posts records, those of different clients beside each other and those of one client in their order. url and
// confirmation are indexes of Record.Fields; confirmation is -1 when it is the URL.
type httpSink struct {
	env               Env
	url, confirmation int
	headers           []httpHeader
	auth              *iot.SigV4Authorization

	batch       bool
	size, bytes int
	across      bool

	// known is what came of records that were executed before one that was not: nil, or what no attempt can help.
	known map[int64]error
}

// request is one POST: the records from first to last, counted in what Do has.
type request struct {
	key     string // requests of the same key are sent one after the other
	records []*Record
	err     error
	sent    bool
}

func (s *httpSink) Do(ctx context.Context, records []Record) (int, error) {
	requests := s.requests(records)
	lanes := map[string][]*request{}
	var order []string
	for _, q := range requests {
		if lanes[q.key] == nil {
			order = append(order, q.key)
		}
		lanes[q.key] = append(lanes[q.key], q)
	}
	enabled, err := s.enabled(ctx, records)
	if err != nil {
		return 0, err
	}
	places, done := make(chan struct{}, httpParallel), make(chan struct{}, len(order))
	for _, key := range order {
		places <- struct{}{}
		go func() {
			defer func() { <-places; done <- struct{}{} }()
			for _, q := range lanes[key] {
				if q.err, q.sent = s.send(ctx, q, enabled), true; q.err != nil {
					return
				}
			}
		}()
	}
	for range order {
		<-done
	}
	return s.outcome(records, requests)
}

// outcome counts what was executed from the first record on, and remembers what was beyond.
func (s *httpSink) outcome(records []Record, requests []*request) (int, error) {
	errs, known := map[int64]error{}, map[int64]error{}
	for id, err := range s.known {
		errs[id] = err
	}
	for _, q := range requests {
		for _, r := range q.records {
			switch {
			case !q.sent:
				errs[r.ID] = errUnsent
			default:
				errs[r.ID] = q.err
			}
		}
	}
	done := 0
	for done < len(records) && errs[records[done].ID] == nil {
		done++
	}
	var failed error
	if done < len(records) {
		failed = errs[records[done].ID]
		for _, r := range records[done+1:] {
			if err := errs[r.ID]; err == nil || IsPermanent(err) || IsExhausted(err) {
				known[r.ID] = err
			}
		}
	}
	s.known = known
	return done, failed
}

var errUnsent = errors.New("http: what is before it failed")

// requests divides records into requests, without those whose outcome is known.
func (s *httpSink) requests(records []Record) (out []*request) {
	open, sizes := map[string]*request{}, map[string]int{}
	for i := range records {
		r := &records[i]
		if _, ok := s.known[r.ID]; ok {
			continue
		}
		if !s.batch {
			key := r.ClientID
			if key == "" {
				key = "\x00" + r.Topic
			}
			out = append(out, &request{key: key, records: []*Record{r}})
			continue
		}
		key := r.Fields[s.url]
		if !s.across {
			key += "\n" + r.Topic
		}
		q := open[key]
		if q == nil || len(q.records) == s.size || sizes[key]+1+len(r.Payload) > s.bytes {
			q = &request{key: key}
			open[key], sizes[key] = q, 1
			out = append(out, q)
		}
		q.records = append(q.records, r)
		sizes[key] += len(r.Payload) + 1
	}
	return out
}

func (s *httpSink) confirmationURL(r *Record) string {
	if s.confirmation < 0 {
		return r.Fields[s.url]
	}
	return r.Fields[s.confirmation]
}

// enabled tells of each confirmation URL of the records whether its destination is enabled.
func (s *httpSink) enabled(ctx context.Context, records []Record) (map[string]bool, error) {
	out := map[string]bool{}
	for i := range records {
		at := s.confirmationURL(&records[i])
		if _, ok := out[at]; ok {
			continue
		}
		yes, err := s.env.Web.Enabled(ctx, at)
		if err != nil {
			return nil, err
		}
		out[at] = yes
	}
	return out, nil
}

// send posts a request: at most three times and for three seconds in all, as AWS does.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/https-rule-action.html#https-rule-action-retry-logic
func (s *httpSink) send(ctx context.Context, q *request, enabled map[string]bool) error {
	last := q.records[len(q.records)-1]
	address, confirmation := last.Fields[s.url], s.confirmationURL(last)
	err := checkURL(address)
	if err == nil {
		err = checkPrefix(address, confirmation)
	}
	if err == nil {
		err = s.env.Web.Client.Check(address)
	}
	if err == nil && !enabled[confirmation] {
		err = errors.New("its destination is not confirmed and enabled")
	}
	body, kind, err2 := s.body(q)
	if err = errors.Join(err, err2); err != nil {
		return Permanent(fmt.Errorf("http: %w", err))
	}
	limit, cancel := context.WithTimeout(ctx, s.env.Web.Timeout)
	defer cancel()
	for try := 1; ; try++ {
		again, err := s.try(limit, last, address, kind, body)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil: // not of this request's time
			return ctx.Err()
		case !again:
			return Permanent(fmt.Errorf("http: %w", err))
		case try == httpTries || !wait(limit, time.Duration(try)*100*time.Millisecond):
			return Exhausted(fmt.Errorf("http: %w, at try %d", err, try))
		}
	}
}

// wait pauses; false means that there is no time left.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// body is what is posted, and its type: of a batch a JSON array.
func (s *httpSink) body(q *request) ([]byte, string, error) {
	if !s.batch {
		payload := q.records[0].Payload
		if json.Valid(payload) {
			return payload, "application/json", nil
		}
		return payload, "application/octet-stream", nil
	}
	out := []byte{'['}
	for i, r := range q.records {
		if !json.Valid(r.Payload) {
			return nil, "", errors.New("a batch is of JSON, and a payload is not")
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, r.Payload...)
	}
	return append(out, ']'), "application/json", nil
}

// try posts once; again tells whether another try makes sense.
func (s *httpSink) try(ctx context.Context, r *Record, address, kind string, body []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return false, errors.New("the request can't be made")
	}
	req.Header.Set("User-Agent", "flotilla")
	req.Header.Set("Content-Type", kind)
	for _, h := range s.headers {
		if s.batch && h.key == "Content-Type" {
			continue
		}
		if err := checkHeaderValue(r.Fields[h.value]); err != nil {
			return false, err
		}
		req.Header.Set(h.key, r.Fields[h.value])
	}
	if s.auth != nil {
		keys, err := s.env.Web.Credentials(ctx)
		if err != nil {
			return true, err
		}
		sum := sha256.Sum256(body)
		if err := v4.NewSigner().SignHTTP(ctx, keys, req, hex.EncodeToString(sum[:]), s.auth.ServiceName, s.auth.SigningRegion, s.env.Now()); err != nil {
			return false, err
		}
	}
	a, err := s.env.Web.Client.Do(ctx, req)
	switch {
	case err != nil:
		return !outbound.IsRefused(err), err
	case a.Status >= 200 && a.Status <= 299:
		return false, nil
	case a.Long:
		return false, fmt.Errorf("status %d with an answer longer than %d bytes", a.Status, outbound.MaxAnswer)
	}
	return a.Status == http.StatusTooManyRequests || a.Status >= 500, fmt.Errorf("status %d", a.Status)
}

func (s *httpSink) Resource(r *Record) string { return r.Fields[s.url] }

func (s *httpSink) Close() error { return nil }
