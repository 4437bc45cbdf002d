package api

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"flotilla/internal/audit/chain"
	"flotilla/internal/aws"
	"flotilla/internal/object"
	"flotilla/internal/policy/lang"
)

// Objects are served to those who sign for S3.
type Objects interface {
	// Serve carries out what is authorized already, and returns the status that it answered.
	Serve(w http.ResponseWriter, r *http.Request, op object.Operation, requestID string) int
	// Secret is that of the key which signs URLs of objects that are handed out; "" for another id.
	Secret(keyID string) string
}

const (
	scopeS3         = "s3"
	unsignedPayload = "UNSIGNED-PAYLOAD"
	chunkedPayload  = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// serveObjects serves a request that is signed for S3, in its path style.
//
// AWS: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
func (s *Server) serveObjects(x *exchange, sig *signature) {
	fail := func(err error) {
		if exc, ok := errors.AsType[aws.Exception](err); ok {
			err = &object.Error{Status: exc.StatusCode(), Code: strings.TrimSuffix(exc.ErrorCode(), "Exception"), Message: exc.Error()}
		} else if _, ok := errors.AsType[*object.Error](err); !ok {
			s.log.Error("a request for an object failed", "requestId", x.id, "err", err)
		}
		x.status = object.WriteError(x.w, x.r, x.id, err)
	}
	if s.objects == nil {
		fail(&object.Error{Status: http.StatusNotImplemented, Code: "NotImplemented", Message: "Objects are at another service than this."})
		return
	}
	path, err := url.PathUnescape(x.path)
	if err != nil {
		fail(&object.Error{Status: http.StatusBadRequest, Code: "InvalidURI", Message: "Couldn't parse the specified URI."})
		return
	}
	op := object.OperationOf(x.r, path, x.query)
	x.endpoint = &endpoint{Route: &aws.Route{Service: scopeS3, Name: op.Name, Method: x.r.Method}}
	principal, err := s.authenticateObjects(x, sig, op, path)
	if err == nil && op.Name != "" {
		err = s.authorizeObjects(x, sig, op, principal)
	}
	if err != nil {
		fail(err)
		return
	}
	body, err := payload(x.r)
	if err != nil {
		fail(err)
		return
	}
	r := x.r.WithContext(x.r.Context())
	r.Body, r.ContentLength = body, body.length
	x.status = s.objects.Serve(x.w, r, op, x.id)
	if s.auditor != nil && op.Name != "" && !op.Reads() {
		e := x.entry(chain.KindChange, principal)
		if x.status/100 != 2 {
			e.Outcome, e.Code = "failed", strconv.Itoa(x.status)
		}
		if err := s.auditor.End(x.r.Context(), e, nil); err != nil {
			s.log.Error("a change of an object can't be recorded", "requestId", x.id, "err", err)
		}
	}
}

// authenticateObjects proves the signature of a request for an object. A URL that was handed out gets that one object.
func (s *Server) authenticateObjects(x *exchange, sig *signature, op object.Operation, path string) (p aws.Principal, err error) {
	secret := s.objects.Secret(sig.keyID)
	if secret != "" {
		if !sig.presigned || op.Name != "GetObject" && op.Name != "HeadObject" {
			return p, unrecognizedClient()
		}
	} else if secret, p, err = s.keys.AccessKey(x.r.Context(), sig.keyID); err != nil {
		return p, fmt.Errorf("api: access key: %w", err)
	}
	if secret == "" {
		return p, &object.Error{Status: http.StatusForbidden, Code: "InvalidAccessKeyId", Message: "The AWS Access Key Id you provided does not exist in our records."}
	}
	if err := sig.current(s.now(), s.cfg.MaxClockSkew); err != nil {
		return p, &object.Error{Status: http.StatusForbidden, Code: "AccessDenied", Message: "Request has expired: " + err.Error()}
	}
	if name := unsigned(sig, x.r.Header); name != "" && (!sig.presigned || name != "x-amz-content-sha256") {
		return p, &object.Error{Status: http.StatusForbidden, Code: "AccessDenied", Message: "There were headers present in the request which were not signed: " + name}
	}
	hash := x.r.Header.Get("X-Amz-Content-Sha256")
	if sig.presigned && hash == "" {
		hash = unsignedPayload
	}
	if hash == "" {
		return p, &object.Error{Status: http.StatusBadRequest, Code: "InvalidRequest", Message: "Missing required header for this request: x-amz-content-sha256"}
	}
	request, err := canonicalRequest(sig, x.r, escape(path, true), x.rawQuery, hash)
	if err != nil {
		return p, err
	}
	if !hmac.Equal(sig.sign(s.derived.get(secret, sig.date, sig.region, sig.service), request), sig.mac[:]) {
		return p, &object.Error{Status: http.StatusForbidden, Code: "SignatureDoesNotMatch", Message: "The request signature we calculated does not match the signature you provided. Check your key and signing method."}
	}
	return p, nil
}

// authorizeObjects decides by the policies of who signed. Whoever handed a URL out has decided already.
func (s *Server) authorizeObjects(x *exchange, sig *signature, op object.Operation, p aws.Principal) error {
	if s.objects.Secret(sig.keyID) != "" {
		return nil
	}
	action, resource := op.Permission()
	x.named = []string{resource}
	a := asked{x: x, region: sig.region}
	d, err := s.permissions.Authorize(x.r.Context(), p, action, resource, &lang.Connection{Protocol: "http", SourceIP: x.sourceIP(), Time: x.start, Lookup: a.lookup})
	if err != nil {
		return fmt.Errorf("api: permissions: %w", err)
	}
	if d.Allowed() {
		return nil
	}
	s.log.Info("an API request is denied", "principal", p.ARN, "op", op.Name, "requestId", x.id, "action", action, "resource", resource, "effect", d.Effect, "policy", d.Policy)
	denied := x.denied(p, need{action, resource}, d)
	x.recordDenied(p, denied)
	return &object.Error{Status: http.StatusForbidden, Code: "AccessDenied", Message: strings.TrimPrefix(denied.Error(), "AccessDeniedException: ")}
}

// signedBody is a body that fails at its end when it is not what was signed.
type signedBody struct {
	io.Closer
	r      io.Reader
	length int64
	hash   hash.Hash // nil: the payload is not signed
	want   string
}

var errPayload = &object.Error{Status: http.StatusBadRequest, Code: "XAmzContentSHA256Mismatch", Message: "The provided 'x-amz-content-sha256' header does not match what was computed."}

func (b *signedBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.hash == nil {
		return n, err
	}
	b.hash.Write(p[:n])
	if errors.Is(err, io.EOF) && hex.EncodeToString(b.hash.Sum(nil)) != b.want {
		return n, errPayload
	}
	return n, err
}

// payload is the body of a request for an object, out of its chunks.
func payload(r *http.Request) (*signedBody, error) {
	b := &signedBody{Closer: r.Body, r: r.Body, length: r.ContentLength}
	switch want := r.Header.Get("X-Amz-Content-Sha256"); {
	case want == unsignedPayload || want == "":
	case want == chunkedPayload:
		n, err := strconv.ParseInt(r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64)
		if err != nil || n < 0 {
			return nil, &object.Error{Status: http.StatusLengthRequired, Code: "MissingContentLength", Message: "x-amz-decoded-content-length is required"}
		}
		b.length, b.r = n, &chunked{r: bufio.NewReader(r.Body), left: n}
	case len(want) == 2*sha256.Size:
		b.hash, b.want = sha256.New(), strings.ToLower(want)
	default:
		return nil, &object.Error{Status: http.StatusNotImplemented, Code: "NotImplemented", Message: "The payload " + printable(want) + " is not implemented."}
	}
	return b, nil
}

// chunked reads a body of the form aws-chunked: each chunk after its length in hexadecimal, the trailers ignored.
//
// AWS: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
type chunked struct {
	r    *bufio.Reader
	rest int64 // of the chunk
	left int64 // of the payload
	done bool
}

var errChunk = &object.Error{Status: http.StatusBadRequest, Code: "InvalidRequest", Message: "The body is not aws-chunked, or not as long as it says."}

func (c *chunked) Read(p []byte) (int, error) {
	if c.done {
		return 0, io.EOF
	}
	if c.rest == 0 {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, errChunk
		}
		size, _, _ := strings.Cut(strings.TrimSpace(string(line)), ";")
		n, err := strconv.ParseInt(size, 16, 64)
		if err != nil || n < 0 || n > c.left || n == 0 && c.left > 0 {
			return 0, errChunk
		}
		if n == 0 {
			c.done = true
			return 0, io.EOF
		}
		c.rest = n
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.rest)])
	c.rest -= int64(n)
	c.left -= int64(n)
	if err != nil {
		return n, errChunk
	}
	if c.rest == 0 {
		var end [2]byte
		if _, err := io.ReadFull(c.r, end[:]); err != nil || string(end[:]) != "\r\n" {
			return n, errChunk
		}
	}
	return n, nil
}
