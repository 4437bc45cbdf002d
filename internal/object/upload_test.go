package object_test

import (
	"encoding/xml"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"flotilla/internal/object"
)

// serve has a door carry out a request that is authorized.
func serve(t testing.TB, d *object.Door, method, target, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	d.Serve(w, r, object.OperationOf(r, r.URL.Path, query), "id")
	return w
}

func newDoor(t testing.TB, root string, cfg object.Config) *object.Door {
	t.Helper()
	dir, err := object.OpenDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	d := object.NewDoor(dir, cfg, "us-east-1", slog.New(slog.DiscardHandler))
	if w := serve(t, d, http.MethodPut, "/bucket", ""); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	return d
}

// An object has no more bytes than were uploaded: a part counts once.
func TestPartsTwice(t *testing.T) {
	d := newDoor(t, t.TempDir(), object.Config{MaxBytes: 1000})
	var up struct{ UploadId string }
	if err := xml.Unmarshal(serve(t, d, http.MethodPost, "/bucket/k?uploads", "").Body.Bytes(), &up); err != nil {
		t.Fatal(err)
	}
	etags := make([]string, 4)
	for i := range 3 {
		w := serve(t, d, http.MethodPut, fmt.Sprintf("/bucket/k?partNumber=%d&uploadId=%s", i+1, up.UploadId), strings.Repeat("x", 300))
		if etags[i+1] = w.Header().Get("Etag"); w.Code != http.StatusOK {
			t.Fatal(w.Body)
		}
	}
	complete := func(numbers ...int) *httptest.ResponseRecorder {
		text := "<CompleteMultipartUpload>"
		for _, n := range numbers {
			text += fmt.Sprintf("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", n, etags[n])
		}
		return serve(t, d, http.MethodPost, "/bucket/k?uploadId="+up.UploadId, text+"</CompleteMultipartUpload>")
	}
	for _, numbers := range [][]int{{1, 1}, {1, 2, 2}, {2, 1}, {0}, {1, 1, 1, 1, 1, 1, 1, 1}} {
		if w := complete(numbers...); !strings.Contains(w.Body.String(), "InvalidPartOrder") {
			t.Errorf("%v: %s", numbers, w.Body)
		}
	}
	if w := complete(1, 3); w.Code != http.StatusOK {
		t.Error(w.Body)
	}
	if w := serve(t, d, http.MethodGet, "/bucket/k", ""); w.Body.Len() != 600 {
		t.Errorf("%d bytes", w.Body.Len())
	}
}
