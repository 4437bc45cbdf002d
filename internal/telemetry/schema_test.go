package telemetry_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/telemetry"
)

func declare(t testing.TB, dir, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "s"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "s", telemetry.SchemaName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Files of a stream that declares its columns have all of them, with these types,
// whatever the messages hold, also when they are merged.
func TestDeclared(t *testing.T) {
	a, dir := open(t, "")
	declare(t, dir, `{"temperature":"DOUBLE","count":"BIGINT","ok":"BOOLEAN","site":"VARCHAR","gps.lat":"DOUBLE"}`)
	one := rowsOf(1, `{"temperature":20}`, `{"temperature":20.5,"count":1,"gps":{"lat":52}}`, `{}`, `{"site":null}`)
	two := rowsOf(5, `{"site":"x","ok":true}`)
	for _, rows := range [][]telemetry.Row{one, two} {
		if n, err := a.Fit("s", rows); n != len(rows) || err != nil {
			t.Errorf("%d of %d fit, %v", n, len(rows), err)
		}
	}
	check := func(name string) {
		t.Helper()
		_, types := read(t, name)
		got := map[string]string{}
		for _, c := range []string{"temperature", "count", "ok", "site", "gps.lat"} {
			got[c] = types[c]
		}
		want := map[string]string{"temperature": "DOUBLE", "count": "INT(64,true)", "ok": "BOOLEAN", "site": "STRING", "gps.lat": "DOUBLE"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	check(filepath.Join(dir, write(t, a, one)[0]))
	check(filepath.Join(dir, write(t, a, two)[0]))
	if _, err := a.Compact(t.Context(), "", now); err != nil {
		t.Fatal(err)
	}
	files, n := count(t, dir)
	if n != 5 || len(files) != 1 {
		t.Fatalf("%d rows in %v", n, files)
	}
	check(files[0])
	rows, _ := read(t, files[0])
	own(rows)
	want := []map[string]any{{"temperature": 20.0}, {"temperature": 20.5, "count": int64(1), "gps.lat": 52.0}, {}, {}, {"site": "x", "ok": true}}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Error(diff)
	}
}

func TestFit(t *testing.T) {
	a, dir := open(t, "")
	declare(t, dir, `{"d":"DOUBLE","n":"BIGINT","b":"BOOLEAN","v":"VARCHAR"}`)
	for payload, want := range map[string]bool{
		`{"d":1e3,"n":-1,"b":false,"v":""}`: true,
		`{"v":[1]}`:                         true,
		`{"v":{}}`:                          true,
		`{"v":123456789012345678901234}`:    true,
		`{"d":9007199254740992}`:            true,
		`{"d":9007199254740993}`:            false,
		`{"d":"1"}`:                         false,
		`{"n":1.5}`:                         false,
		`{"n":true}`:                        false,
		`{"b":0}`:                           false,
		`{"v":1}`:                           false,
		`{"v":{"w":"x"}}`:                   false,
		`{"other":1}`:                       false,
		`{"other":null}`:                    true,
		`[]`:                                false,
		`"text"`:                            false,
		"\xff":                              false,
	} {
		rows := rowsOf(1, `{"n":1}`, payload, `{"n":"x"}`)
		n, err := a.Fit("s", rows)
		if fits := n == 2; fits != want || !errors.Is(err, telemetry.ErrSchema) || n < 1 {
			t.Errorf("%s: %d, %v", payload, n, err)
		}
	}
	if n, err := a.Fit("undeclared", rowsOf(1, "\xff")); n != 1 || err != nil {
		t.Errorf("a stream that declares nothing: %d, %v", n, err)
	}
	for _, bad := range []string{``, `{}`, `[]`, `{"a":"TEXT"}`, `{"a":1}`, `{"":"DOUBLE"}`, `{"flotilla_id":"BIGINT"}`} {
		declare(t, dir, bad)
		if _, err := a.Fit("s", rowsOf(1, `{}`)); err == nil || errors.Is(err, telemetry.ErrSchema) {
			t.Errorf("schema %s: %v", bad, err)
		}
		if _, err := a.Write(t.Context(), "s", 1, rowsOf(1, `{}`)); err == nil {
			t.Errorf("schema %s: the row was written", bad)
		}
	}
}
