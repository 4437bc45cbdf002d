package api

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"strconv"

	"flotilla/internal/aws"
)

var (
	errInternal    = &aws.CommonError{Status: http.StatusInternalServerError, Code: "InternalFailureException", Message: "An unexpected error has occurred."}
	errUnavailable = &aws.CommonError{Status: http.StatusServiceUnavailable, Code: "ServiceUnavailableException", Message: "The service is temporarily unavailable."}
)

// fail answers with the exception in err. What is none is logged, and answered
// as an internal failure without a word of it.
func (x *exchange) fail(err error) {
	exc, ok := errors.AsType[aws.Exception](err)
	switch {
	case ok && exc.StatusCode() < http.StatusInternalServerError || ok && exc.StatusCode() == http.StatusNotImplemented:
	case x.r.Context().Err() != nil:
		exc = errUnavailable // nobody reads it
	case errors.Is(err, context.DeadlineExceeded):
		x.s.log.Error("an API request took too long", "op", x.op(), "requestId", x.id, "err", err)
		exc = errUnavailable
	default:
		x.s.log.Error("an API request failed", "op", x.op(), "requestId", x.id, "err", err)
		if !ok {
			exc = errInternal
		}
	}
	x.exception(exc)
}

// exception answers in the protocol of the service.
func (x *exchange) exception(exc aws.Exception) {
	switch p := x.spoken(); {
	case p.Query != "":
		x.exceptionXML(p, exc)
		return
	case p.JSON != "":
		x.writeAs(p.contentType(), exc.StatusCode(), appendTyped(exc))
		return
	}
	x.w.Header().Set("X-Amzn-Errortype", exc.ErrorCode())
	x.write(exc.StatusCode(), exc.AppendJSON(make([]byte, 0, 256)))
}

// answer sends a response. One without members is an empty object, but that of
// the data plane says what AWS's does.
func (x *exchange) answer(status int, body []byte) {
	if len(body) == 0 {
		body = []byte("{}")
		if x.service == x.s.byScope["iotdata"] {
			body = []byte(`{"message":"OK","traceId":"` + x.id + `"}`)
		}
	}
	switch p := x.spoken(); {
	case p.Query != "":
		x.answerXML(p, status, body)
	case p.JSON != "":
		x.writeAs(p.contentType(), status, body)
	default:
		x.write(status, body)
	}
}

func (x *exchange) write(status int, body []byte) {
	x.writeAs("application/json", status, body)
}

func (x *exchange) writeAs(contentType string, status int, body []byte) {
	x.status = status
	h := x.w.Header()
	if status == http.StatusNoContent {
		body = nil // RFC 9110 par. 15.3.5
	} else {
		h.Set("Content-Type", contentType)
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write(body) // the client is gone: nothing is left to do
	}
}

// end finishes the exchange: it answers for a handler that panicked, and counts.
func (x *exchange) end() {
	if v := recover(); v != nil {
		if v == http.ErrAbortHandler {
			panic(v)
		}
		x.s.log.Error("a handler panicked", "op", x.op(), "requestId", x.id, "err", v, "stack", string(debug.Stack()))
		if x.status == 0 {
			x.exception(errInternal)
		}
	}
	x.s.metrics.observe(x)
}

// op names the operation for logs and metrics; "" while it is not known.
func (x *exchange) op() string {
	if x.endpoint == nil {
		return ""
	}
	return x.endpoint.Name
}
