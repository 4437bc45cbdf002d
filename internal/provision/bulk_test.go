package provision_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws/iot"
	"flotilla/internal/provision"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
)

// objects are inputs of bulk registration in memory.
type objects struct {
	mu    sync.Mutex
	texts map[string]string // by bucket/key
	fail  int               // so many reads fail
	read  func()            // after each one
}

func (o *objects) ReadRange(_ context.Context, bucket, key string, offset, length int64) ([]byte, int64, string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	text, ok := o.texts[bucket+"/"+key]
	switch {
	case !ok:
		return nil, 0, "", fs.ErrNotExist
	case o.fail > 0:
		o.fail--
		return nil, 0, "", errors.New("no answer")
	}
	if o.read != nil {
		o.read()
	}
	size := int64(len(text))
	from := min(offset, size)
	return []byte(text[from:min(from+length, size)]), size, fmt.Sprint(len(text), text[:min(len(text), 10)]), nil
}

func (o *objects) put(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.texts = map[string]string{"bucket/things.jsonl": text}
}

const bulkBody = `{"Parameters":{"ThingName":{"Type":"String"},"SerialNumber":{"Type":"String"},"CSR":{"Type":"String","Default":""}},"Resources":{
	"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"ThingName"},"AttributePayload":{"serial":{"Ref":"SerialNumber"}}}}}}`

const bulkCSRBody = `{"Parameters":{"ThingName":{"Type":"String"},"CSR":{"Type":"String"}},"Resources":{
	"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"ThingName"}}},
	"certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateSigningRequest":{"Ref":"CSR"},"Status":"ACTIVE"}}}}`

// bulkWorld is a world with inputs; run starts a node of it, that ends when stop is called.
func bulkWorld(t testing.TB, db *store.DB) (*world, *objects) {
	t.Helper()
	w := newWorld(t, db, nil)
	o := &objects{}
	w.use(o, "node-a", provision.Config{BulkRate: 100000})
	return w, o
}

func (w *world) use(o *objects, node string, cfg provision.Config) {
	d := w.Deps
	d.Objects, d.NodeID, d.ReportURL = o, node, func() string { return "http://api" }
	w.Templates = provision.New(cfg, d)
}

func (w *world) run(t testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	room := w.Templates
	go func() { defer close(done); room.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func (w *world) startTask(t testing.TB, body string) string {
	t.Helper()
	return *must[*iot.StartThingRegistrationTaskResponse](t)(w.StartThingRegistrationTask(t.Context(), &iot.StartThingRegistrationTaskRequest{
		TemplateBody: body, InputFileBucket: "bucket", InputFileKey: "things.jsonl", RoleArn: roleARN,
	})).TaskId
}

func (w *world) taskIs(t testing.TB, id string) *iot.DescribeThingRegistrationTaskResponse {
	t.Helper()
	return must[*iot.DescribeThingRegistrationTaskResponse](t)(w.DescribeThingRegistrationTask(t.Context(), &iot.DescribeThingRegistrationTaskRequest{TaskId: id}))
}

// ended waits until a task is over.
func (w *world) ended(t testing.TB, id string) *iot.DescribeThingRegistrationTaskResponse {
	t.Helper()
	var k *iot.DescribeThingRegistrationTaskResponse
	eventually(t, func() bool {
		k = w.taskIs(t, id)
		return *k.Status != iot.StatusInProgress && *k.Status != iot.StatusCancelling
	})
	return k
}

func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	limit, tick := time.After(time.Minute), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("it did not happen within a minute")
		}
	}
}

// report reads a report by its link; "" when there is none.
func (w *world) report(t testing.TB, id, kind string) string {
	t.Helper()
	out := must[*iot.ListThingRegistrationTaskReportsResponse](t)(w.ListThingRegistrationTaskReports(t.Context(), &iot.ListThingRegistrationTaskReportsRequest{TaskId: id, ReportType: kind}))
	if len(out.ResourceLinks) == 0 {
		return ""
	}
	rec := httptest.NewRecorder()
	w.ServeReport(rec, httptest.NewRequest(http.MethodGet, out.ResourceLinks[0], http.NoBody))
	body := must[[]byte](t)(io.ReadAll(rec.Body))
	if rec.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", out.ResourceLinks[0], rec.Code, body)
	}
	return string(body)
}

func bulkLines(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, `{"ThingName":"bulk-%d","SerialNumber":"S%d"}`+"\n", i, i)
	}
	return b.String()
}

// TestBulkRegistration: https://docs.aws.amazon.com/iot/latest/developerguide/bulk-provisioning.html
func TestBulkRegistration(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w, o := bulkWorld(t, db)
		o.put(`{"ThingName":"a","SerialNumber":"1"}` + "\n\n" +
			`{"ThingName":"not a name","SerialNumber":"2"}` + "\r\n" +
			`{"ThingName":"c"}` + "\n" +
			`{"ThingName":7}` + "\n" + `not JSON` + "\n" + `{"ThingName":"f","ThingName":"g"}` + "\n" +
			`{"ThingName":"` + strings.Repeat("x", 256<<10) + `"}` + "\n" +
			`{"ThingName":"` + strings.Repeat("y", 3<<20) + `"}` + "\n" +
			`{"ThingName":"z","SerialNumber":"9"}`)
		w.run(t)
		id := w.startTask(t, bulkBody)
		k := w.ended(t, id)
		if *k.Status != iot.StatusCompleted || *k.SuccessCount != 2 || *k.FailureCount != 7 || *k.PercentageProgress != 100 || k.Message != nil {
			t.Errorf("%s", must[[]byte](t)(json.Marshal(k)))
		}
		if diff := cmp.Diff([]string{"a", "z"}, w.things(t)); diff != "" {
			t.Error(diff)
		}
		want := `{"lineNumber":1,"offset":0,"response":{"resourceArns":{"thing":"` + account.ARN("iot", "thing/a") + `"}}}` + "\n"
		if got := w.report(t, id, iot.ReportTypeResults); !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 2 {
			t.Errorf("results %s", got)
		}
		var codes []string
		for text := range strings.Lines(w.report(t, id, iot.ReportTypeErrors)) {
			l := parse[struct {
				LineNumber, Offset int64
				ErrorCode          string
			}](t, []byte(text))
			codes = append(codes, fmt.Sprint(l.LineNumber, " ", l.Offset, " ", l.ErrorCode))
		}
		if len(codes) != 7 || codes[0] != "3 38 InvalidRequestException" || !strings.HasPrefix(codes[6], "9 ") {
			t.Errorf("errors %q", codes)
		}
		if a := w.last(t, "9"); *a.Flow != "bulk" || *a.Outcome != "accepted" || *a.ThingName != "z" {
			t.Errorf("%s", story(t, a))
		}
		list := must[*iot.ListThingRegistrationTasksResponse](t)(w.ListThingRegistrationTasks(t.Context(), &iot.ListThingRegistrationTasksRequest{Status: new(iot.StatusCompleted)}))
		none := must[*iot.ListThingRegistrationTasksResponse](t)(w.ListThingRegistrationTasks(t.Context(), &iot.ListThingRegistrationTasksRequest{Status: new(iot.StatusFailed)}))
		if diff := cmp.Diff([]string{id}, list.TaskIds); diff != "" || len(none.TaskIds) > 0 {
			t.Error(diff, none.TaskIds)
		}
	})
}

// A certificate for each CSR, in the results.
func TestBulkRegistrationWithCSR(t *testing.T) {
	w, o := bulkWorld(t, openDB(t))
	csr := newCSR(t)
	o.put(string(must[[]byte](t)(json.Marshal(map[string]string{"ThingName": "a", "CSR": csr}))) + "\n" + `{"ThingName":"b","CSR":"nonsense"}`)
	w.run(t)
	id := w.startTask(t, bulkCSRBody)
	if k := w.ended(t, id); *k.SuccessCount != 1 || *k.FailureCount != 1 {
		t.Errorf("%s", must[[]byte](t)(json.Marshal(k)))
	}
	r := parse[struct {
		Response struct{ CertificatePem string }
	}](t, []byte(w.report(t, id, iot.ReportTypeResults)))
	if !samePublicKey(t, csr, r.Response.CertificatePem) {
		t.Errorf("another certificate: %s", r.Response.CertificatePem)
	}
}

// However often nodes stop in the middle, and whichever goes on, each line is registered once.
func TestBulkRegistrationGoesOn(t *testing.T) {
	w, o := bulkWorld(t, openDB(t))
	const n = 300
	o.put(bulkLines(0, n))
	id := w.startTask(t, bulkBody)
	for i := 1; *w.taskIs(t, id).Status == iot.StatusInProgress; i++ {
		stop := w.run(t)
		before := *w.taskIs(t, id).SuccessCount
		eventually(t, func() bool {
			k := w.taskIs(t, id)
			return *k.SuccessCount > before || *k.Status != iot.StatusInProgress
		})
		stop()
		w.clock.advance(time.Minute) // the lease of the node is over
		w.use(o, fmt.Sprint("node-", i), provision.Config{BulkRate: 100000})
	}
	k := w.taskIs(t, id)
	if *k.Status != iot.StatusCompleted || *k.SuccessCount != n || *k.FailureCount != 0 {
		t.Errorf("%s", must[[]byte](t)(json.Marshal(k)))
	}
	if lines := strings.Count(w.report(t, id, iot.ReportTypeResults), "\n"); lines != n {
		t.Errorf("%d lines of results", lines)
	}
}

// Two nodes at once share no line, and a node waits for the lease of another.
func TestBulkRegistrationIsOneNodes(t *testing.T) {
	w, o := bulkWorld(t, openDB(t))
	const n = 200
	o.put(bulkLines(0, n))
	id := w.startTask(t, bulkBody)
	w.run(t)
	w.use(o, "node-b", provision.Config{BulkRate: 100000})
	w.run(t)
	if k := w.ended(t, id); *k.SuccessCount != n || *k.FailureCount != 0 {
		t.Errorf("%s", must[[]byte](t)(json.Marshal(k)))
	}
}

func TestStopBulkRegistration(t *testing.T) {
	w, o := bulkWorld(t, openDB(t))
	w.use(o, "node", provision.Config{BulkRate: 1})
	const n = 100
	o.put(bulkLines(0, n))
	id := w.startTask(t, bulkBody)
	w.run(t)
	start := &iot.StartThingRegistrationTaskRequest{TemplateBody: bulkBody, InputFileBucket: "bucket", InputFileKey: "k", RoleArn: roleARN}
	var refused *iot.InvalidRequestException
	if _, err := w.StartThingRegistrationTask(t.Context(), start); !errors.As(err, &refused) {
		t.Errorf("a second task: %v", err)
	}
	eventually(t, func() bool { return *w.taskIs(t, id).SuccessCount > 0 })
	stop := &iot.StopThingRegistrationTaskRequest{TaskId: id}
	must[*iot.StopThingRegistrationTaskResponse](t)(w.StopThingRegistrationTask(t.Context(), stop))
	k := w.ended(t, id)
	if *k.Status != iot.StatusCancelled || *k.SuccessCount >= n || int(*k.SuccessCount) != len(w.things(t)) {
		t.Errorf("%s", must[[]byte](t)(json.Marshal(k)))
	}
	if _, err := w.StopThingRegistrationTask(t.Context(), stop); !errors.As(err, &refused) {
		t.Errorf("stopped again: %v", err)
	}
	if _, err := w.StopThingRegistrationTask(t.Context(), &iot.StopThingRegistrationTaskRequest{TaskId: "none"}); !notFound(err) {
		t.Errorf("stopped what there is not: %v", err)
	}
	start.TemplateBody = `{}`
	if _, err := w.StartThingRegistrationTask(t.Context(), start); !errors.As(err, &refused) {
		t.Errorf("a bad template: %v", err)
	}
}

// What is wrong with the input as a whole ends the task with a message.
func TestBulkRegistrationFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*objects, *provision.Config)
		want   string
	}{
		{"no object", func(o *objects, _ *provision.Config) { o.texts = nil }, "There is no object"},
		{"too large", func(_ *objects, cfg *provision.Config) { cfg.BulkMaxBytes = 10 }, "the most is 10"},
		{"changed", func(o *objects, _ *provision.Config) {
			o.texts["bucket/things.jsonl"] = strings.Repeat(strings.Repeat(" ", 700<<10)+"\n", 3)
			o.read = sync.OnceFunc(func() { o.texts["bucket/things.jsonl"] += "x" })
		}, "changed while it was read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, o := bulkWorld(t, openDB(t))
			o.put(bulkLines(0, 3))
			cfg := provision.Config{BulkRate: 100000}
			c.change(o, &cfg)
			w.use(o, "node", cfg)
			id := w.startTask(t, bulkBody)
			w.run(t)
			k := w.ended(t, id)
			if *k.Status != iot.StatusFailed || k.Message == nil || !strings.Contains(*k.Message, c.want) {
				t.Errorf("%s", must[[]byte](t)(json.Marshal(k)))
			}
		})
	}
}

// An object store that fails for a while, an empty input, and a link's protection.
func TestBulkReports(t *testing.T) {
	w, o := bulkWorld(t, openDB(t))
	o.put("")
	w.run(t)
	id := w.startTask(t, bulkBody)
	if k := w.ended(t, id); *k.Status != iot.StatusCompleted {
		t.Errorf("empty input: %s", must[[]byte](t)(json.Marshal(k)))
	}
	if got := w.report(t, id, iot.ReportTypeErrors); got != "" {
		t.Errorf("a report of nothing: %s", got)
	}
	o.put(bulkLines(0, 3))
	o.mu.Lock()
	o.fail = 1
	o.mu.Unlock()
	id = w.startTask(t, bulkBody)
	if k := w.ended(t, id); *k.SuccessCount != 3 {
		t.Errorf("%s", must[[]byte](t)(json.Marshal(k)))
	}
	out := must[*iot.ListThingRegistrationTaskReportsResponse](t)(w.ListThingRegistrationTaskReports(t.Context(), &iot.ListThingRegistrationTaskReportsRequest{TaskId: id, ReportType: "RESULTS"}))
	link := out.ResourceLinks[0]
	for name, bad := range map[string]string{
		"another report":    strings.Replace(link, "RESULTS", "ERRORS", 1),
		"another time":      strings.Replace(link, "expires=", "expires=9", 1),
		"no signature":      link[:strings.Index(link, "&signature")],
		"another task":      strings.Replace(link, id, strings.Repeat("0", 36), 1),
		"another signature": link[:len(link)-1] + "g",
		"nothing":           "http://api" + provision.ReportPath,
	} {
		rec := httptest.NewRecorder()
		w.ServeReport(rec, httptest.NewRequest(http.MethodGet, bad, http.NoBody))
		if rec.Code != http.StatusForbidden {
			t.Errorf("%s: %d", name, rec.Code)
		}
	}
	w.clock.advance(time.Hour)
	rec := httptest.NewRecorder()
	w.ServeReport(rec, httptest.NewRequest(http.MethodGet, link, http.NoBody))
	if rec.Code != http.StatusForbidden {
		t.Errorf("after an hour: %d", rec.Code)
	}
}

// Tasks that are over are forgotten after 30 days.
func TestOldTasksAreForgotten(t *testing.T) {
	w, o := bulkWorld(t, openDB(t))
	o.put(bulkLines(0, 3))
	stop := w.run(t)
	id := w.startTask(t, bulkBody)
	w.ended(t, id)
	stop()
	w.clock.advance(31 * 24 * time.Hour)
	w.use(o, "node", provision.Config{})
	w.run(t)
	eventually(t, func() bool {
		_, err := w.DescribeThingRegistrationTask(t.Context(), &iot.DescribeThingRegistrationTaskRequest{TaskId: id})
		return notFound(err)
	})
}
