package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"flotilla/internal/aws"
	"flotilla/internal/aws/wire"
)

// exchange is one request and its answer.
type exchange struct {
	s        *Server
	w        http.ResponseWriter
	r        *http.Request
	start    time.Time
	id       string // of the request
	path     string // escaped, as it was sent
	rawQuery string
	query    url.Values
	body     []byte
	service  *service                  // nil while it is not known
	endpoint *endpoint                 // nil while it is not known
	labels   []string                  // of the path, unescaped
	named    []string                  // ARNs of what the request is about
	parsed   map[string]jsontext.Value // members of the body; nil while nobody asked
	status   int                       // 0 until it is answered
}

// ServeHTTP serves a caller that signs with an access key.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := s.begin(w, r)
	defer x.end()
	if err := x.parse(); err != nil {
		x.fail(err)
		return
	}
	sig, err := parseSignature(r, x.query)
	if err != nil {
		x.fail(err)
		return
	}
	x.service = s.byScope[sig.service]
	s.serveSigned(x, sig)
}

// serveSigned serves a request that bears a signature.
func (s *Server) serveSigned(x *exchange, sig *signature) {
	if sig.service == scopeS3 {
		s.serveObjects(x, sig)
		return
	}
	principal, err := s.authenticate(x.r.Context(), x, sig)
	if err != nil {
		x.fail(err)
		return
	}
	if x.service == nil {
		x.fail(&aws.CommonError{
			Status: http.StatusNotImplemented, Code: "NotImplementedException",
			Message: "The service " + printable(sig.service) + " is not implemented.",
		})
		return
	}
	e, labels, err := x.route()
	if err != nil {
		x.fail(err)
		return
	}
	x.endpoint, x.labels = e, labels
	if err := x.authorize(principal, sig.region); err != nil {
		x.recordDenied(principal, err)
		x.fail(err)
		return
	}
	x.call(e, labels, principal)
}

// begin starts an exchange; end finishes it.
func (s *Server) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{s: s, w: w, r: r, start: s.now(), id: uuid.NewString()}
	w.Header().Set("X-Amzn-Requestid", x.id)
	return x
}

// parse takes the request line apart. Requests that no AWS API has end here.
func (x *exchange) parse() error {
	switch x.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		x.w.Header().Set("Allow", "GET, POST, PUT, PATCH, DELETE")
		return &aws.CommonError{Status: http.StatusMethodNotAllowed, Code: "MethodNotAllowedException", Message: "The method " + printable(x.r.Method) + " is not allowed."}
	}
	target := x.r.RequestURI
	if target == "" { // requests that did not come over a socket
		target = x.r.URL.RequestURI()
	}
	if !strings.HasPrefix(target, "/") { // absolute form, RFC 9112 par. 3.2.2
		target = x.r.URL.RequestURI()
	}
	x.path, x.rawQuery, _ = strings.Cut(target, "?")
	q, err := url.ParseQuery(x.rawQuery)
	if err != nil {
		return &aws.CommonError{Status: http.StatusBadRequest, Code: "MalformedQueryStringException", Message: "The query string can't be parsed."}
	}
	x.query = q
	return nil
}

var errTooLarge = &aws.CommonError{Status: http.StatusRequestEntityTooLarge, Code: "RequestEntityTooLargeException", Message: "The request body is too large."}

// tooLarge is the refusal of a body, in the words of the service.
func (x *exchange) tooLarge(most *bounds) error {
	if x.service != nil && x.service == x.s.byScope["lambda"] {
		return &aws.CommonError{
			Status: http.StatusRequestEntityTooLarge, Code: "RequestTooLargeException",
			Message: "Request must be smaller than " + strconv.FormatInt(most.BodyBytes, 10) + " bytes for the operation",
		}
	}
	return errTooLarge
}

// readBody reads the whole body, within the limit and the deadline.
func (x *exchange) readBody() error {
	most := x.bounds()
	if x.r.ContentLength > most.BodyBytes {
		return x.tooLarge(most)
	}
	if x.r.ContentLength == 0 {
		return nil
	}
	if !x.s.take(x.r.Context(), most.reading) {
		return x.throttled()
	}
	defer func() { <-most.reading }()
	control := http.NewResponseController(x.w)
	_ = control.SetReadDeadline(time.Now().Add(most.BodyTimeout)) // not every ResponseWriter has one
	body, err := io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, most.BodyBytes))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return x.tooLarge(most)
		}
		return &aws.CommonError{Status: http.StatusRequestTimeout, Code: "RequestTimeoutException", Message: "The request body did not arrive in time."}
	}
	_ = control.SetReadDeadline(time.Time{})
	x.body = body
	return nil
}

// patience is how long a request waits for its turn before it is throttled.
const patience = 250 * time.Millisecond

// take takes a place; false when none comes free in time.
func (s *Server) take(ctx context.Context, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case places <- struct{}{}:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// throttled is ThrottlingException with the status that the service gives it.
func (x *exchange) throttled() error {
	status := http.StatusTooManyRequests
	switch x.service {
	case x.s.byScope["iot"]:
		status = http.StatusBadRequest
	case x.s.byScope["lambda"]:
		return &aws.CommonError{Status: status, Code: "TooManyRequestsException", Message: "Rate Exceeded."}
	}
	return &aws.CommonError{Status: status, Code: "ThrottlingException", Message: "Rate exceeded"}
}

// route finds the operation that is asked for.
func (x *exchange) route() (*endpoint, []string, error) {
	if x.service.byTarget != nil {
		e, err := x.target()
		return e, nil, err
	}
	e, labels := x.service.find(x.r.Method, x.path)
	if e == nil {
		return nil, nil, x.service.unknown(x.r.Method, x.path)
	}
	return e, labels, nil
}

// unknown is the answer to a path that no operation has, or none of the method.
func (s *service) unknown(method, path string) error {
	for other := range s.methods {
		if other == method {
			continue
		}
		if e, _ := s.find(other, path); e != nil {
			return &aws.CommonError{Status: http.StatusMethodNotAllowed, Code: "MethodNotAllowedException", Message: "The method " + method + " is not allowed on this resource."}
		}
	}
	return &aws.CommonError{Status: http.StatusNotFound, Code: "UnknownOperationException", Message: "The " + s.title + " has no operation " + method + " " + printable(path) + "."}
}

// call runs the operation and answers.
func (x *exchange) call(e *endpoint, labels []string, p aws.Principal) {
	x.endpoint, x.labels = e, labels
	if e.serve == nil {
		x.fail(&aws.CommonError{Status: http.StatusNotImplemented, Code: "NotImplementedException", Message: "The operation " + e.Name + " is not implemented."})
		return
	}
	most := x.bounds()
	ctx, cancel := context.WithTimeout(x.r.Context(), most.Timeout)
	defer cancel()
	if !x.s.take(ctx, most.running) {
		x.fail(x.throttled())
		return
	}
	defer func() { <-most.running }()
	if most != x.s.bounds {
		_ = http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(most.Timeout + 40*time.Second)) // as in HTTPServer
	}
	ctx = aws.WithCaller(ctx, &aws.Caller{Principal: p, Account: x.s.account.ID, SourceIP: x.sourceIP(), RequestID: x.id})
	var warnings aws.Warnings
	ctx = aws.WithWarnings(ctx, &warnings)
	in := wire.Request{Labels: labels, Query: x.query, Header: x.r.Header, Body: x.body}
	out := wire.Response{Status: http.StatusOK}
	if err := x.run(ctx, p, &in, &out); err != nil {
		x.fail(err)
		return
	}
	for _, w := range warnings.List() {
		x.w.Header().Add("X-Flotilla-Warning", w) // SDKs don't look at it
	}
	for name, value := range out.Header {
		x.w.Header().Set(name, value)
	}
	if out.Raw || out.Status == http.StatusNoContent {
		x.write(out.Status, out.Body)
		return
	}
	x.answer(out.Status, out.Body)
}

// run has the operation served, and recorded if it is one that changes something.
func (x *exchange) run(ctx context.Context, p aws.Principal, in *wire.Request, out *wire.Response) error {
	r := x.audit(ctx, p)
	if r == nil {
		return x.endpoint.serve(ctx, in, out)
	}
	err := x.endpoint.serve(r.ctx, in, out)
	if unrecorded := x.finish(ctx, r, out.Body, err); unrecorded != nil && err == nil {
		return unrecorded
	}
	return err
}

// sourceIP is the address at the other end of the connection.
func (x *exchange) sourceIP() string {
	host, _, err := net.SplitHostPort(x.r.RemoteAddr)
	if err != nil {
		return x.r.RemoteAddr
	}
	return host
}
