package provision

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/store"
)

// ReportPath begins the paths that ServeReport serves: ReportPath{task}/{RESULTS|ERRORS}?expires=…&signature=….
const ReportPath = "/flotilla/registration-reports/"

const (
	linkLifetime = time.Hour
	reportPage   = 500              // lines read at once
	reportPause  = 30 * time.Second // within which a page must be taken
)

// resultLine is a line of the report RESULTS, errorLine of ERRORS. AWS does not document their form.
type resultLine struct {
	Line     int64        `json:"lineNumber"`
	Offset   int64        `json:"offset"` // in bytes, of the line in the input
	Response lineResponse `json:"response"`
}

// lineResponse is what RegisterThing would answer; the certificate is added when the report is read.
type lineResponse struct {
	Certificate  string            `json:"certificatePem,omitempty"`
	ResourceARNs map[string]string `json:"resourceArns"`
}

type errorLine struct {
	Line    int64  `json:"lineNumber"`
	Offset  int64  `json:"offset"`
	Code    string `json:"errorCode"`
	Message string `json:"errorMessage"`
}

// lineError says why a line failed, as RegisterThing would; internal is true when that is not the line's fault.
func lineError(err error) (p errorLine, internal bool) {
	var exc aws.Exception
	if errors.As(exception(err), &exc) && exc.StatusCode() < 500 {
		return errorLine{Code: exc.ErrorCode(), Message: clip(exc.Error(), 2*maxText)}, false
	}
	return errorLine{Code: "InternalFailureException", Message: "An internal failure occurred."}, true
}

// ListThingRegistrationTaskReports gives a link to a report of a task, for an hour; none while the report is empty.
// While the task is in progress a report has the lines that are done.
//
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_ListThingRegistrationTaskReports.html
func (t *Templates) ListThingRegistrationTaskReports(ctx context.Context, in *iot.ListThingRegistrationTaskReportsRequest) (*iot.ListThingRegistrationTaskReportsResponse, error) {
	k, err := t.task(ctx, in.TaskId)
	if err != nil {
		var e *iot.ResourceNotFoundException // which this operation does not have
		if errors.As(err, &e) {
			return nil, invalid(e.Message)
		}
		return nil, err
	}
	out := &iot.ListThingRegistrationTaskReportsResponse{ReportType: &in.ReportType}
	lines := k.succeeded
	if in.ReportType == iot.ReportTypeErrors {
		lines = k.failed
	}
	if lines == 0 || value(in.NextToken) != "" {
		return out, nil
	}
	expires := strconv.FormatInt(t.Now().Add(linkLifetime).Unix(), 10)
	query := url.Values{"expires": {expires}, "signature": {sign(k.reportKey, k.id, in.ReportType, expires)}}
	out.ResourceLinks = []string{strings.TrimSuffix(t.ReportURL(), "/") + ReportPath + k.id + "/" + in.ReportType + "?" + query.Encode()}
	return out, nil
}

func sign(key []byte, task, report, expires string) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(task + "\n" + report + "\n" + expires))
	return hex.EncodeToString(h.Sum(nil))
}

// ServeReport serves the links of ListThingRegistrationTaskReports: JSON lines. Who has a link needs nothing else, for
// an hour. All that is wrong with a link is answered alike.
func (t *Templates) ServeReport(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	id, report, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, ReportPath), "/")
	query := r.URL.Query()
	expires, err := strconv.ParseInt(query.Get("expires"), 10, 64)
	if err != nil || expires <= t.Now().Unix() || len(id) > 40 || report != iot.ReportTypeResults && report != iot.ReportTypeErrors {
		http.Error(w, "this link is not valid, or not any more", http.StatusForbidden)
		return
	}
	k, err := t.task(r.Context(), id)
	if err != nil || !hmac.Equal([]byte(sign(k.reportKey, id, report, query.Get("expires"))), []byte(query.Get("signature"))) {
		http.Error(w, "this link is not valid, or not any more", http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		return
	}
	if err := t.writeReport(w, r, id, report == iot.ReportTypeErrors); err != nil && r.Context().Err() == nil {
		t.Log.Warn("a report of bulk registration is cut short", "err", err)
		panic(http.ErrAbortHandler) // the reader must not take it for whole
	}
}

func (t *Templates) writeReport(w http.ResponseWriter, r *http.Request, id string, failed bool) error {
	to := http.NewResponseController(w)
	for after, more := int64(0), true; more; {
		var lines []reportLine
		err := t.DB.Read(r.Context(), func(_ context.Context, tx store.Tx) (err error) {
			lines, err = selectLines(tx, id, failed, after, reportPage)
			return err
		})
		if err != nil {
			return err
		}
		if err := to.SetWriteDeadline(time.Now().Add(reportPause)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		for _, l := range lines {
			text := l.report
			if !failed {
				text = t.withCertificate(r.Context(), text)
			}
			if _, err := w.Write([]byte(text + "\n")); err != nil {
				return err
			}
			after = l.line
		}
		more = len(lines) == reportPage
	}
	return nil
}

// withCertificate adds the certificate, as it is now, to a line of the results.
func (t *Templates) withCertificate(ctx context.Context, text string) string {
	var l resultLine
	if json.Unmarshal([]byte(text), &l) != nil {
		return text
	}
	for _, arn := range l.Response.ResourceARNs {
		_, id, ok := strings.Cut(arn, ":cert/")
		if !ok {
			continue
		}
		d, err := t.Certificates.DescribeCertificate(ctx, &iot.DescribeCertificateRequest{CertificateId: id})
		if err != nil {
			return text
		}
		l.Response.Certificate = value(d.CertificateDescription.CertificatePem)
		with, err := json.Marshal(l, json.Deterministic(true))
		if err == nil {
			return string(with)
		}
	}
	return text
}
