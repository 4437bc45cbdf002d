package object

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Operation is what a request of S3's protocol, in its path style, asks for.
type Operation struct {
	Name        string // as S3 has it: "PutObject"; "" for what is not implemented
	Bucket, Key string // "" where there is none
	Query       url.Values
}

// subresources are what the query of a request may ask about that is not implemented.
var subresources = []string{
	"accelerate", "acl", "analytics", "attributes", "cors", "delete", "encryption", "intelligent-tiering", "inventory", "legal-hold", "lifecycle",
	"logging", "metrics", "notification", "object-lock", "ownershipControls", "policy", "policyStatus", "publicAccessBlock",
	"replication", "requestPayment", "restore", "retention", "select", "tagging", "torrent", "versionId", "versioning", "versions", "website",
}

// OperationOf reads a request. path is unescaped.
//
// AWS: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
func OperationOf(r *http.Request, path string, query url.Values) Operation {
	op := Operation{Query: query}
	op.Bucket, op.Key, _ = strings.Cut(strings.TrimPrefix(path, "/"), "/")
	for _, s := range subresources {
		if query.Has(s) {
			return op
		}
	}
	level := "Object"
	switch {
	case op.Bucket == "":
		level = ""
	case op.Key == "":
		level = "Bucket"
	}
	switch r.Method + " " + level {
	case "GET ":
		op.Name = "ListBuckets"
	case "PUT Bucket":
		op.Name = "CreateBucket"
	case "HEAD Bucket":
		op.Name = "HeadBucket"
	case "DELETE Bucket":
		op.Name = "DeleteBucket"
	case "GET Bucket":
		switch {
		case query.Has("location"):
			op.Name = "GetBucketLocation"
		case query.Has("uploads"):
		case query.Get("list-type") == "2":
			op.Name = "ListObjectsV2"
		default:
			op.Name = "ListObjects"
		}
	case "GET Object":
		if !query.Has("uploadId") && !query.Has("partNumber") {
			op.Name = "GetObject"
		}
	case "HEAD Object":
		if !query.Has("partNumber") {
			op.Name = "HeadObject"
		}
	case "PUT Object":
		switch {
		case r.Header.Get("X-Amz-Copy-Source") != "":
		case query.Has("uploadId"):
			op.Name = "UploadPart"
		default:
			op.Name = "PutObject"
		}
	case "POST Object":
		switch {
		case query.Has("uploads"):
			op.Name = "CreateMultipartUpload"
		case query.Has("uploadId"):
			op.Name = "CompleteMultipartUpload"
		}
	case "DELETE Object":
		op.Name = "DeleteObject"
		if query.Has("uploadId") {
			op.Name = "AbortMultipartUpload"
		}
	}
	return op
}

// Reads tells whether the operation changes nothing.
func (o *Operation) Reads() bool {
	return strings.HasPrefix(o.Name, "Get") || strings.HasPrefix(o.Name, "Head") || strings.HasPrefix(o.Name, "List")
}

// demands tells whether a request's headers ask for what is not implemented and must not be left out unsaid: a write on a
// condition, encryption, locks, tags, and access for others.
func demands(r *http.Request, op *Operation) bool {
	for name, values := range r.Header {
		switch {
		case name == "If-Match" || name == "If-None-Match" || name == "If-Modified-Since" || name == "If-Unmodified-Since",
			strings.HasPrefix(name, "X-Amz-If-Match-"):
			if op.Reads() {
				continue
			}
		case name == "X-Amz-Acl":
			if len(values) == 1 && (values[0] == "private" || values[0] == "bucket-owner-full-control") {
				continue
			}
		case strings.HasPrefix(name, "X-Amz-Server-Side-Encryption"), strings.HasPrefix(name, "X-Amz-Object-Lock-"), strings.HasPrefix(name, "X-Amz-Bucket-Object-Lock-"),
			strings.HasPrefix(name, "X-Amz-Grant-"), name == "X-Amz-Tagging", name == "X-Amz-Website-Redirect-Location", name == "X-Amz-Write-Offset-Bytes":
		default:
			continue
		}
		return true
	}
	return false
}

// Permission is what policies call the operation, and the ARN that it is on.
//
// AWS: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
func (o *Operation) Permission() (action, resource string) {
	resource = "arn:aws:s3:::" + o.Bucket
	if o.Key != "" {
		resource += "/" + o.Key
	}
	switch o.Name {
	case "ListBuckets":
		return "s3:ListAllMyBuckets", "*"
	case "HeadBucket", "ListObjects", "ListObjectsV2":
		return "s3:ListBucket", resource
	case "HeadObject":
		return "s3:GetObject", resource
	case "UploadPart", "CreateMultipartUpload", "CompleteMultipartUpload":
		return "s3:PutObject", resource
	}
	return "s3:" + o.Name, resource
}

// Error is an answer of S3's protocol that is none of success.
//
// AWS: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
type Error struct {
	Status        int
	Code, Message string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// What is answered to requests that can't be served.
var (
	errNoBucket    = &Error{http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist"}
	errNoKey       = &Error{http.StatusNotFound, "NoSuchKey", "The specified key does not exist."}
	errNoUpload    = &Error{http.StatusNotFound, "NoSuchUpload", "The specified multipart upload does not exist."}
	errBusy        = &Error{http.StatusConflict, "OperationAborted", "The object is being written. Try again."}
	errNotEmpty    = &Error{http.StatusConflict, "BucketNotEmpty", "The bucket you tried to delete is not empty"}
	errTooLarge    = &Error{http.StatusBadRequest, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size"}
	errNoLength    = &Error{http.StatusLengthRequired, "MissingContentLength", "You must provide the Content-Length HTTP header."}
	errIncomplete  = &Error{http.StatusBadRequest, "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header"}
	errSlowDown    = &Error{http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate."}
	errFull        = &Error{http.StatusInsufficientStorage, "InsufficientStorage", "There is no room left."}
	errInternal    = &Error{http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again."}
	errUnsupported = &Error{http.StatusNotImplemented, "NotImplemented", "A header or parameter you provided implies functionality that is not implemented."}
)

func invalidArgument(message string) *Error {
	return &Error{http.StatusBadRequest, "InvalidArgument", message}
}

// WriteError answers with err: an *Error, or an internal one of which nothing is said. It returns the status.
func WriteError(w http.ResponseWriter, r *http.Request, requestID string, err error) int {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = errInternal
	}
	body, _ := xml.Marshal(struct {
		XMLName                  xml.Name `xml:"Error"`
		Code, Message, RequestId string
	}{Code: e.Code, Message: e.Message, RequestId: requestID}) // of strings: it can't fail
	writeXML(w, r, e.Status, body)
	return e.Status
}

func writeXML(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/xml")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(xml.Header)+len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, xml.Header)
		_, _ = w.Write(body) // the client is gone: nothing is left to do
	}
}

// Config is how the door is bound, and where devices find it. Its zero value works.
type Config struct {
	PublicURL string `name:"objects.public-url" help:"Where devices get objects of the data directory, as a URL without a path; the HTTPS port of devices when it is empty."`

	MaxBytes int64 `name:"objects.max-bytes" default:"1073741824" help:"Largest object that the S3 API takes."`
	MaxOpen  int   `name:"objects.max-concurrent" default:"64" help:"Most objects that are read or written by the S3 API at the same time, of one address at most half of it; further requests are answered with SlowDown."`
}

// Door serves a directory by S3's protocol, to callers that are authorized already. It is safe for concurrent use.
type Door struct {
	dir    *Directory
	cfg    Config
	open   chan struct{}
	region string
	log    *slog.Logger

	mu   sync.Mutex
	from map[string]int // requests of addresses that are served
}

// NewDoor makes a door of a directory.
func NewDoor(d *Directory, cfg Config, region string, log *slog.Logger) *Door {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 1 << 30
	}
	if cfg.MaxOpen <= 0 {
		cfg.MaxOpen = 64
	}
	return &Door{dir: d, cfg: cfg, open: make(chan struct{}, cfg.MaxOpen), region: region, log: log, from: map[string]int{}}
}

// enter takes a place and gives what ends it; false when there is none. An address has no more than half of all places:
// nobody who reads slowly on purpose keeps everybody out.
func (d *Door) enter(r *http.Request) (leave func(), ok bool) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.from[host] >= (cap(d.open)+1)/2 {
		return nil, false
	}
	select {
	case d.open <- struct{}{}:
	default:
		return nil, false
	}
	d.from[host]++
	return func() {
		<-d.open
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.from[host]--; d.from[host] == 0 {
			delete(d.from, host)
		}
	}, true
}

// idle is how long a client may neither send nor take anything.
const idle = 30 * time.Second

// Serve carries an operation out and returns the status that was answered. r's body is what was signed, or fails at its end.
func (d *Door) Serve(w http.ResponseWriter, r *http.Request, op Operation, requestID string) int {
	leave, ok := d.enter(r)
	if !ok {
		return WriteError(w, r, requestID, errSlowDown)
	}
	defer leave()
	w = &patient{w, http.NewResponseController(w)}
	status, err := d.serve(w, r, op)
	if err == nil {
		return status
	}
	var e *Error
	switch {
	case errors.As(err, &e):
	case errors.Is(err, ErrBusy):
		err = errBusy
	case errors.Is(err, syscall.ENOSPC):
		err = errFull
	case IsRefused(err), errors.Is(err, fs.ErrInvalid):
		err = invalidArgument(err.Error())
	case errors.Is(err, fs.ErrNotExist):
		err = errNoKey
	case r.Context().Err() != nil, errors.Is(err, io.ErrUnexpectedEOF):
		err = errIncomplete
	default:
		d.log.Error("a request for an object failed", "op", op.Name, "bucket", op.Bucket, "key", op.Key, "requestId", requestID, "err", err)
	}
	return WriteError(w, r, requestID, err)
}

func (d *Door) serve(w http.ResponseWriter, r *http.Request, op Operation) (status int, err error) {
	if op.Name == "" || demands(r, &op) {
		return 0, errUnsupported
	}
	if op.Name == "ListBuckets" {
		return d.listBuckets(w, r)
	}
	if err := Check(op.Bucket, op.Key); err != nil {
		if op.Reads() {
			return 0, fs.ErrNotExist
		}
		return 0, err
	}
	if op.Name != "CreateBucket" && !d.dir.HasBucket(op.Bucket) {
		return 0, errNoBucket
	}
	done := func(err error) (int, error) {
		if err != nil {
			return 0, err
		}
		w.WriteHeader(http.StatusNoContent)
		return http.StatusNoContent, nil
	}
	switch op.Name {
	case "CreateBucket":
		if err := d.dir.MakeBucket(op.Bucket); err != nil {
			return 0, err
		}
		w.Header().Set("Location", "/"+op.Bucket)
		w.WriteHeader(http.StatusOK)
		return http.StatusOK, nil
	case "HeadBucket":
		w.Header().Set("X-Amz-Bucket-Region", d.region)
		w.WriteHeader(http.StatusOK)
		return http.StatusOK, nil
	case "DeleteBucket":
		err := d.dir.RemoveBucket(op.Bucket)
		if errors.Is(err, ErrNotEmpty) {
			err = errNotEmpty
		}
		return done(err)
	case "GetBucketLocation":
		return d.answer(w, r, struct {
			XMLName xml.Name `xml:"LocationConstraint"`
			Xmlns   string   `xml:"xmlns,attr"`
			Region  string   `xml:",chardata"`
		}{Xmlns: namespace, Region: d.region})
	case "ListObjects", "ListObjectsV2":
		return d.list(w, r, op)
	case "GetObject", "HeadObject":
		return d.get(w, r, op)
	case "PutObject":
		return d.put(w, r, op)
	case "DeleteObject":
		return done(d.dir.Delete(op.Bucket, op.Key))
	case "CreateMultipartUpload":
		return d.createUpload(w, r, op)
	case "UploadPart":
		return d.uploadPart(w, r, op)
	case "CompleteMultipartUpload":
		return d.completeUpload(w, r, op)
	case "AbortMultipartUpload":
		return done(d.abortUpload(op))
	}
	return 0, errUnsupported
}

const namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

func (d *Door) answer(w http.ResponseWriter, r *http.Request, v any) (int, error) {
	body, err := xml.Marshal(v)
	if err != nil {
		return 0, err
	}
	writeXML(w, r, http.StatusOK, body)
	return http.StatusOK, nil
}

const isoTime = "2006-01-02T15:04:05.000Z"

func (d *Door) listBuckets(w http.ResponseWriter, r *http.Request) (int, error) {
	buckets, err := d.dir.Buckets()
	if err != nil {
		return 0, err
	}
	type bucket struct{ Name, CreationDate string }
	out := struct {
		XMLName xml.Name `xml:"ListAllMyBucketsResult"`
		Xmlns   string   `xml:"xmlns,attr"`
		Buckets []bucket `xml:"Buckets>Bucket"`
	}{Xmlns: namespace}
	for _, b := range buckets {
		out.Buckets = append(out.Buckets, bucket{b.Key, b.Modified.UTC().Format(isoTime)})
	}
	return d.answer(w, r, out)
}

// maxKeys bounds a page of a list.
const maxKeys = 1000

// listed is the result of ListObjectsV2 and of ListObjects.
type listed struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	Xmlns                 string   `xml:"xmlns,attr"`
	Name, Prefix          string
	Delimiter             string `xml:",omitempty"`
	Marker                string `xml:",omitempty"`
	NextMarker            string `xml:",omitempty"`
	ContinuationToken     string `xml:",omitempty"`
	NextContinuationToken string `xml:",omitempty"`
	StartAfter            string `xml:",omitempty"`
	EncodingType          string `xml:",omitempty"`
	KeyCount, MaxKeys     int
	IsTruncated           bool
	Contents              []content
	CommonPrefixes        []commonPrefix
}

type content struct {
	Key, LastModified, ETag string
	Size                    int64
	StorageClass            string
}

type commonPrefix struct{ Prefix string }

// list pages a bucket. With a delimiter, keys that have it after the prefix are one entry.
func (d *Door) list(w http.ResponseWriter, r *http.Request, op Operation) (int, error) {
	q := op.Query
	v2 := op.Name == "ListObjectsV2"
	out := listed{
		Xmlns: namespace, Name: op.Bucket, Prefix: q.Get("prefix"), Delimiter: q.Get("delimiter"), MaxKeys: maxKeys,
		Marker: q.Get("marker"), StartAfter: q.Get("start-after"), ContinuationToken: q.Get("continuation-token"), EncodingType: q.Get("encoding-type"),
	}
	if text := q.Get("max-keys"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return 0, invalidArgument("Provided max-keys not an integer or within integer range")
		}
		out.MaxKeys = min(n, maxKeys)
	}
	after := out.Marker
	if v2 {
		after = out.StartAfter
		if out.ContinuationToken != "" {
			text, err := base64.RawURLEncoding.DecodeString(out.ContinuationToken)
			if err != nil {
				return 0, invalidArgument("The continuation token provided is incorrect")
			}
			after = string(text)
		}
	}
	encode := func(s string) string { return s }
	if out.EncodingType == "url" {
		encode = func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "%2F", "/") }
	}
	last := after
	for full := false; !full && out.MaxKeys > 0; {
		page, err := d.dir.List(r.Context(), op.Bucket, out.Prefix, after, maxKeys+1)
		if err != nil {
			return 0, err
		}
		for _, o := range page {
			if o.Key <= last {
				continue // the common prefix before stands for it
			}
			if out.KeyCount == out.MaxKeys {
				out.IsTruncated, full = true, true
				break
			}
			if head, _, is := strings.Cut(o.Key[len(out.Prefix):], out.Delimiter); is && out.Delimiter != "" {
				prefix := out.Prefix + head + out.Delimiter
				out.CommonPrefixes = append(out.CommonPrefixes, commonPrefix{encode(prefix)})
				out.KeyCount++
				last = prefix + "\xff" // behind all that it stands for
				continue
			}
			out.Contents = append(out.Contents, content{encode(o.Key), o.Modified.UTC().Format(isoTime), etag(o.Version), o.Size, "STANDARD"})
			out.KeyCount++
			last = o.Key
		}
		full = full || last == after
		after = last
	}
	if out.IsTruncated && v2 {
		out.NextContinuationToken = base64.RawURLEncoding.EncodeToString([]byte(last))
	} else if out.IsTruncated {
		out.NextMarker = encode(last)
	}
	out.Prefix, out.Delimiter, out.Marker, out.StartAfter = encode(out.Prefix), encode(out.Delimiter), encode(out.Marker), encode(out.StartAfter)
	return d.answer(w, r, out)
}

func etag(version string) string { return `"` + version + `"` }

// get answers with the object, or the ranges of it that are asked for.
func (d *Door) get(w http.ResponseWriter, r *http.Request, op Operation) (int, error) {
	f, info, err := d.dir.Get(op.Bucket, op.Key)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h := w.Header()
	h.Set("Etag", etag(info.Version))
	h.Set("Content-Type", "binary/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	for parameter, header := range map[string]string{
		"response-content-type": "Content-Type", "response-content-disposition": "Content-Disposition", "response-cache-control": "Cache-Control",
	} {
		if v := op.Query.Get(parameter); v != "" && !strings.ContainsAny(v, "\r\n") {
			h.Set(header, v)
		}
	}
	seen := &counted{ResponseWriter: w, status: http.StatusOK}
	http.ServeContent(seen, r, "", info.Modified, f)
	return seen.status, nil
}

// counted notes the status.
type counted struct {
	http.ResponseWriter
	status int
}

func (c *counted) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

// body is a request's body, of which there is no more than may be; the rest of it is refused.
func (d *Door) body(w http.ResponseWriter, r *http.Request) (io.Reader, error) {
	switch {
	case r.ContentLength < 0:
		return nil, errNoLength
	case r.ContentLength > d.cfg.MaxBytes:
		return nil, errTooLarge
	}
	return &bounded{&steady{r.Body, http.NewResponseController(w)}, d.cfg.MaxBytes}, nil
}

// bounded fails after so many bytes.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

// steady has each read of the body wait no longer than idle.
type steady struct {
	r       io.Reader
	control *http.ResponseController
}

func (s *steady) Read(p []byte) (int, error) {
	_ = s.control.SetReadDeadline(time.Now().Add(idle)) // not every ResponseWriter has one
	return s.r.Read(p)
}

// patient has each write of the answer wait no longer than idle.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (p *patient) Write(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(idle))
	return p.ResponseWriter.Write(b)
}

func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (d *Door) put(w http.ResponseWriter, r *http.Request, op Operation) (int, error) {
	body, err := d.body(w, r)
	if err != nil {
		return 0, err
	}
	if err := d.dir.PutFrom(context.WithoutCancel(r.Context()), op.Bucket, op.Key, body); err != nil {
		return 0, err
	}
	return http.StatusOK, d.stored(w, op)
}

func (d *Door) stored(w http.ResponseWriter, op Operation) error {
	f, info, err := d.dir.Get(op.Bucket, op.Key)
	if err != nil {
		return err
	}
	f.Close()
	w.Header().Set("Etag", etag(info.Version))
	w.WriteHeader(http.StatusOK)
	return nil
}
