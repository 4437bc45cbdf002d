package environment

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

var errState = errors.New("environment: the runtime has an invocation already")

// runtimeAPI is the Lambda Runtime API of one process.
type runtimeAPI struct {
	*http.Server
	addr net.Addr
}

const apiVersion = "/2018-06-01/runtime"

// listen serves the Runtime API of the process on a port of its own, until Close.
func (p *process) listen() (*runtimeAPI, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+apiVersion+"/invocation/next", p.serveNext)
	mux.HandleFunc("POST "+apiVersion+"/invocation/{id}/response", p.serveResponse)
	mux.HandleFunc("POST "+apiVersion+"/invocation/{id}/error", p.serveError)
	mux.HandleFunc("POST "+apiVersion+"/init/error", p.serveInitError)
	host := l.Addr().String()
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// A browser of the same user must not be made to take part, be it by a form or by a name that leads here.
			if r.Host != host || r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
				http.Error(w, "forbidden", http.StatusForbidden)
				return
			}
			mux.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 30 * time.Second, IdleTimeout: time.Hour, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(p.pool.e.log.Handler(), slog.LevelDebug),
	}
	go func() { _ = s.Serve(&peers{Listener: l, log: p.pool.e.log}) }() // ends with Close
	return &runtimeAPI{s, l.Addr()}, nil
}

func (p *process) serveNext(w http.ResponseWriter, r *http.Request) {
	job, err := p.next(r.Context())
	if err != nil {
		if errors.Is(err, errState) {
			refuse(w, http.StatusForbidden, "InvalidStateTransition", "The invocation under way has no response yet")
		}
		return
	}
	h := w.Header()
	h.Set("Lambda-Runtime-Aws-Request-Id", job.RequestID)
	h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(job.ends.UnixMilli(), 10))
	h.Set("Lambda-Runtime-Invoked-Function-Arn", job.FunctionARN)
	if job.ClientContext != "" {
		h.Set("Lambda-Runtime-Client-Context", job.ClientContext)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(job.Payload)))
	_, _ = w.Write(job.Payload) // a runtime that does not read it runs into its timeout
}

func (p *process) serveResponse(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(w, r)
	res := &Result{Payload: body}
	switch trailer := r.Trailer.Get("Lambda-Runtime-Function-Error-Type"); {
	case errors.As(err, new(*http.MaxBytesError)):
		res = failed("Function.ResponseSizeTooLarge", "Response payload size exceeded maximum allowed payload size ("+strconv.Itoa(MaxPayload)+" bytes).")
	case err != nil:
		return // what it sends further, or its end, decides
	case trailer != "": // a streamed response that failed on its way
		res = failed(trailer, "The response ended with an error")
	}
	p.accept(w, r, res, err != nil)
}

func (p *process) serveError(w http.ResponseWriter, r *http.Request) {
	if res, ok := readError(w, r); ok {
		p.accept(w, r, res, false)
	}
}

// accept takes an answer, and tells the runtime.
func (p *process) accept(w http.ResponseWriter, r *http.Request, res *Result, tooLarge bool) {
	switch ok := p.answered(r.PathValue("id"), res); {
	case !ok:
		refuse(w, http.StatusBadRequest, "InvalidRequestID", "Invalid request ID")
	case tooLarge:
		refuse(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "Exceeded maximum allowed payload size")
	default:
		accepted(w)
	}
}

func (p *process) serveInitError(w http.ResponseWriter, r *http.Request) {
	res, ok := readError(w, r)
	if !ok {
		return
	}
	p.mu.Lock()
	late := p.ready
	if !late {
		p.initErr = res
	}
	p.mu.Unlock()
	if late {
		refuse(w, http.StatusForbidden, "InvalidStateTransition", "The runtime has begun already")
		return
	}
	accepted(w)
	_ = http.NewResponseController(w).Flush()
	p.kill("initialization failed")
}

// readError reads what a runtime says of a failure. What is no JSON object is replaced by one.
func readError(w http.ResponseWriter, r *http.Request) (*Result, bool) {
	body, err := readBody(w, r)
	if err != nil && !errors.As(err, new(*http.MaxBytesError)) {
		return nil, false
	}
	kind := r.Header.Get("Lambda-Runtime-Function-Error-Type")
	if err != nil || !json.Valid(body) || !strings.HasPrefix(strings.TrimSpace(string(body)), "{") {
		if kind == "" {
			kind = "Runtime.Unknown"
		}
		return failed(kind, "The runtime reported an error without an error object"), true
	}
	return &Result{Payload: body, Error: "Unhandled"}, true
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	return io.ReadAll(http.MaxBytesReader(w, r.Body, MaxPayload))
}

func accepted(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"status":"OK"}`+"\n")
}

func refuse(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"errorType": kind, "errorMessage": message})
}
