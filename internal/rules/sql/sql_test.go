package sql_test

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/rules/sql"
)

// eachLine calls fn with the fields of each line of a data file.
func eachLine(t *testing.T, file string, fn func(line int, fields []string)) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		line := sc.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Split(line+" ", " | ")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		fn(n, fields)
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
}

func TestFunctions(t *testing.T) {
	version := sql.Version20160323
	eachLine(t, "testdata/functions.txt", func(line int, fields []string) {
		if v, ok := strings.CutPrefix(fields[0], "version "); ok {
			version = v
			return
		}
		if len(fields) != 3 {
			t.Fatalf("line %d has %d fields", line, len(fields))
		}
		s, err := sql.Parse("SELECT VALUE ("+fields[0]+") FROM 'a/+/c'", version)
		if err != nil {
			t.Errorf("line %d: %s: %v", line, fields[0], err)
			return
		}
		in := &sql.Input{
			Topic: "a/b/c", Payload: []byte(fields[1]), Now: time.UnixMilli(1609459200123),
			Rand:    func() float64 { return 0.25 },
			NewUUID: func() string { return "123a4567-b89c-12d3-e456-789012345000" },
		}
		out, selected, err := s.Evaluate(in)
		if err != nil || !selected {
			t.Errorf("line %d: %s: selected %v, %v", line, fields[0], selected, err)
			return
		}
		got := string(out.Payload)
		if got != fields[2] && (fields[2] == "" || diffJSON([]byte(fields[2]), out.Payload, 0) != "") {
			t.Errorf("line %d: %s of %s: got %s, want %s", line, fields[0], fields[1], got, fields[2])
		}
	})
}

func TestParseErrors(t *testing.T) {
	eachLine(t, "testdata/errors.txt", func(line int, fields []string) {
		_, err := sql.Parse(fields[0], sql.Version20160323)
		var pe *sql.ParseError
		if !errors.As(err, &pe) {
			t.Errorf("line %d: %s: got %v", line, fields[0], err)
			return
		}
		if got := fmt.Sprintf("%d:%d: %s", pe.Line, pe.Column, pe.Message); got != fields[1] {
			t.Errorf("line %d: %s\ngot  %s\nwant %s", line, fields[0], got, fields[1])
		}
	})
}

func TestParseErrorPosition(t *testing.T) {
	_, err := sql.Parse("SELECT ä,\n  grün +\n  FROM 'x'", "")
	var pe *sql.ParseError
	if !errors.As(err, &pe) {
		t.Fatal(err)
	}
	want := &sql.ParseError{Offset: 23, Line: 3, Column: 3, Message: "expected an expression but found FROM"}
	if diff := cmp.Diff(want, pe); diff != "" {
		t.Error(diff)
	}
}

// What a version does not have is refused by name.
func TestVersions(t *testing.T) {
	for _, text := range []string{
		"SELECT encode(*, 'base64') AS x FROM 'a'", "SELECT [1] AS x FROM 'a'", "SELECT cast(a AS Decimal) FROM 'a'",
		"SELECT (SELECT a FROM b) AS x FROM 'a'", "SELECT isUndefined(a) FROM 'a'",
	} {
		if _, err := sql.Parse(text, ""); err == nil || !strings.Contains(err.Error(), "need") {
			t.Errorf("%s: got %v", text, err)
		}
		if _, err := sql.Parse(text, sql.VersionBeta); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func evaluate(t *testing.T, text string, in *sql.Input) (sql.Output, bool, error) {
	t.Helper()
	s, err := sql.Parse(text, sql.Version20160323)
	if err != nil {
		t.Fatal(err)
	}
	return s.Evaluate(in)
}

// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-select.html
func TestSelect(t *testing.T) {
	for _, c := range []struct{ sql, payload, want string }{
		{"SELECT * FROM 'a'", "{ \"b\" : 1 }", "{ \"b\" : 1 }"},
		{"SELECT * FROM 'a'", "", ""},
		{"SELECT *, 1 AS n FROM 'a'", "", `{"n":1}`},
		{"SELECT *, 1 AS n, nope AS m FROM 'a'", `{"n": 0, "a\"b": [1, 2], "m": 5, "m": 6}`, `{"a\"b":[1,2],"m":6,"n":1}`},
		{"SELECT 1 AS n, * FROM 'a'", `{"n": 0}`, `{"n":0}`},
		{"SELECT *, 1 AS a.b FROM 'a'", `{"a": {"c": 2}}`, `{"a":{"c":2,"b":1}}`},
		{"SELECT a AS x.y, b AS x.z FROM 'a'", `{"a":1,"b":2}`, `{"x":{"y":1,"z":2}}`},
		{"SELECT a AS x, b AS x FROM 'a'", `{"a":1,"b":2}`, `{"x":2}`},
		{"SELECT upper(a), a.b, @v, @v.c FROM 'a'", `{"a":{"b":1},"c":{"c":2}}`, `{"upper(a)":"{\"B\":1}","b":1,"v":{"c":2},"c":2}`},
		{"SELECT VALUE * FROM 'a'", `[1]`, `[1]`},
		{"SELECT value, case FROM 'a'", `{"value":1}`, ""},
		{"SELECT value FROM 'a'", `{"value":1}`, `{"value":1}`},
		{"SELECT value AS x FROM 'a'", `{"value":1}`, `{"x":1}`},
		{"SELECT value + 1 AS x FROM 'a'", `{"value":1}`, `{"x":2}`},
		{"SELECT a FROM 'a'", `{"a": {"b": [ 1 , "x y" ] } }`, `{"a":{"b":[1,"x y"]}}`},
		{"SELECT a, b FROM 'a'", `{"a": 1E2, "b": "x`, `{}`},
	} {
		set := ""
		if strings.Contains(c.sql, "@v") {
			set = "SET @v = c "
		}
		s, err := sql.Parse(set+c.sql, sql.Version20160323)
		if err != nil {
			if c.want != "" {
				t.Errorf("%s: %v", c.sql, err)
			}
			continue
		}
		out, selected, err := s.Evaluate(&sql.Input{Payload: []byte(c.payload)})
		if err != nil || !selected || string(out.Payload) != c.want {
			t.Errorf("%s of %s: got %s, %v, %v, want %s", c.sql, c.payload, out.Payload, selected, err, c.want)
		}
	}
}

func TestLargeMerge(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"k0":0`)
	for i := 1; i < 100; i++ {
		fmt.Fprintf(&b, `,"k%d":%d`, i, i)
	}
	out, _, err := evaluate(t, "SELECT *, 'x' AS k7 FROM 'a'", &sql.Input{Payload: []byte(b.String() + "}")})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(b.String()+"}", `"k7":7,`, `"k7":"x",`, 1)
	if string(out.Payload) != want {
		t.Errorf("got %s", out.Payload)
	}
}

func TestOutputJSON(t *testing.T) {
	for payload, want := range map[string]bool{`{"a":1}`: true, ` 5 `: true, "\x00\xff": false, "text": false, "": false, `"\ud800"`: true} {
		out, selected, err := evaluate(t, "SELECT * FROM 'a'", &sql.Input{Payload: []byte(payload)})
		if err != nil || !selected || out.JSON != want || string(out.Payload) != payload {
			t.Errorf("%q: got %q, %v, %v, %v", payload, out.Payload, out.JSON, selected, err)
		}
	}
	out, _, err := evaluate(t, "SELECT VALUE nope FROM 'a'", &sql.Input{Payload: []byte("{}")})
	if err != nil || out.JSON || out.Payload == nil || len(out.Payload) != 0 {
		t.Errorf("got %+v, %v", out, err)
	}
}

func TestRuntimeErrors(t *testing.T) {
	big := `{"v":[` + strings.Repeat("1,", 10_000) + `1],"s":"` + strings.Repeat("ab", 20_000) + `"}`
	for _, c := range []struct {
		sql, payload string
		want         error
	}{
		{"SELECT *, 1 AS n FROM 'a'", "text", sql.ErrPayload},
		{"SELECT *, 1 AS n FROM 'a'", "[1]", sql.ErrPayload},
		{"SELECT (SELECT VALUE (SELECT VALUE 1 FROM @v) FROM @v) AS n FROM 'a'", big, sql.ErrBudget},
		{"SELECT replace(s, '', s) AS n FROM 'a'", big, sql.ErrBudget},
		{"SELECT regexp_replace(s, '', s) AS n FROM 'a'", big, sql.ErrBudget},
		{"SELECT regexp_matches(s, '(x+x+)+y|(a?b?){500}c') AS n FROM 'a'", big, sql.ErrBudget},
		{"SELECT regexp_replace(s, '[ab]*x|a', '') AS n FROM 'a'", big, sql.ErrBudget},
		{"SELECT concat(s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s,s) AS n FROM 'a'", big, sql.ErrBudget},
		{"SELECT get_dynamodb('t','k','v','r') AS a, get_dynamodb('t','k','v','r') AS b FROM 'a'", "{}", sql.ErrCalls},
	} {
		text := c.sql
		if strings.Contains(text, "@v") {
			text = "SET @v = v " + text
		}
		begin := time.Now()
		_, selected, err := evaluate(t, text, &sql.Input{Payload: []byte(c.payload)})
		var re *sql.RuntimeError
		if !errors.Is(err, c.want) || !errors.As(err, &re) || selected {
			t.Errorf("%s: got %v, %v, want %v", c.sql, selected, err, c.want)
		}
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("%s: took %v", c.sql, took)
		}
	}
}

// Arrays of arrays by variables grow exponentially.
func TestVariablesAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("SET @v0 = [nope]")
	for i := 1; i < 100; i++ {
		fmt.Fprintf(&b, ", @v%d = [@v%d, @v%d]", i, i-1, i-1)
	}
	for _, end := range []string{"SELECT @v99 AS x FROM 'a'", "SELECT @v99 = @v98 AS x FROM 'a'", "SELECT @v99 = @v99 AS x FROM 'a'", "SELECT cast(@v99 AS String) AS x FROM 'a'"} {
		_, _, err := evaluate(t, b.String()+" "+end, &sql.Input{Payload: []byte("{}")})
		if err != nil && !errors.Is(err, sql.ErrBudget) {
			t.Errorf("%s: %v", end, err)
		}
	}
}

func TestParseIsBounded(t *testing.T) {
	for name, text := range map[string]string{
		"parentheses": "SELECT " + strings.Repeat("(", 10_000) + "1" + strings.Repeat(")", 10_000),
		"not":         "SELECT " + strings.Repeat("NOT ", 10_000) + "a",
		"minus":       "SELECT " + strings.Repeat("- ", 10_000) + "a",
		"sum":         "SELECT " + strings.Repeat("1+", 50_000) + "1",
		"path":        "SELECT a" + strings.Repeat(".a", 50_000),
		"text":        "SELECT '" + strings.Repeat("a", 300_000) + "'",
	} {
		if _, err := sql.Parse(text, sql.Version20160323); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	long := "SELECT " + strings.Repeat("1+", 9000) + "1 AS n FROM 'a'"
	out, _, err := evaluate(t, long, &sql.Input{})
	if err != nil || string(out.Payload) != `{"n":9001}` {
		t.Errorf("got %s, %v", out.Payload, err)
	}
}

func TestDeepPayload(t *testing.T) {
	deep := `{"a":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`
	out, selected, err := evaluate(t, "SELECT * FROM 'x'", &sql.Input{Payload: []byte(deep)})
	if err != nil || !selected || out.JSON || len(out.Payload) != len(deep) {
		t.Errorf("got JSON %v, selected %v, %v", out.JSON, selected, err)
	}
}

// One Input serves many statements of different versions.
func TestManyStatements(t *testing.T) {
	in := &sql.Input{Topic: "$aws/rules/r/a/b", Payload: []byte(`{"a": {"b": 10.0}, "c": [1, 2]}`)}
	for range 2 {
		for i := range 100 {
			v := versions[i%2]
			s, err := sql.Parse(fmt.Sprintf("SELECT cast(a.b AS String) AS x%d, topic() AS t FROM 'a/b'", i), v)
			if err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf(`{"x%d":"%s","t":"a/b"}`, i, []string{"10.0", "10"}[i%2])
			if out, _, err := s.Evaluate(in); err != nil || string(out.Payload) != want {
				t.Fatalf("got %s, %v, want %s", out.Payload, err, want)
			}
		}
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		sql, topic string
		want       bool
	}{
		{"SELECT * FROM 'a/+'", "a/b", true},
		{"SELECT * FROM 'a/+'", "a/b/c", false},
		{"SELECT * FROM 'a/+'", "$aws/rules/r/a/b", true},
		{"SELECT * FROM 'a/+'", "$aws/rules/r/b", false},
		{"SELECT *", "$aws/rules/r/b", true},
		{"SELECT *", "b", false},
	} {
		s, err := sql.Parse(c.sql, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Matches(c.topic); got != c.want {
			t.Errorf("%s, %s: got %v", c.sql, c.topic, got)
		}
	}
}

func TestComplexity(t *testing.T) {
	s, err := sql.Parse(`SELECT CASE a WHEN 1 THEN CASE b WHEN 1 THEN 2 END END AS x, (SELECT VALUE v FROM e) AS y,
		aws_lambda('f', 1) AS z FROM 'a' WHERE a > 1 AND (b = 2 OR NOT c) AND startswith(d, 'x')`, sql.Version20160323)
	if err != nil {
		t.Fatal(err)
	}
	want := sql.Complexity{Conditions: 4, Expressions: 9, CaseDepth: 2, NestedQueries: 1, ExternalCalls: 1}
	if diff := cmp.Diff(want, s.Complexity()); diff != "" {
		t.Error(diff)
	}
}

func TestTemplates(t *testing.T) {
	for _, c := range []struct {
		template string
		field    sql.Field
		want     string
	}{
		{"", sql.Generic, ""},
		{"$$aws/x", sql.Generic, "$$aws/x"},
		{"$$aws/x", sql.RepublishTopic, "$aws/x"},
		{"a/$$b", sql.RepublishTopic, "a/$$b"},
		{"$${a}", sql.RepublishTopic, "$1"},
		{"${'}'}${\"}\"}", sql.Generic, "}}"},
		{"${ {'a': {'b': 1}} }", sql.Generic, `{"a":{"b":1}}`},
		{"{${a}}", sql.Generic, "{1}"},
		{"${a}$", sql.Generic, "1$"},
	} {
		tmpl, err := sql.ParseTemplate(c.template, sql.Version20160323, c.field)
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		got, err := tmpl.Expand(&sql.Input{Payload: []byte(`{"a":1}`)})
		if err != nil || got != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.template, got, err, c.want)
		}
	}
	for _, bad := range []string{"${", "${}", "${a", "x${a b}", "${@v}", "${*}", "${'a}"} {
		if _, err := sql.ParseTemplate(bad, sql.Version20160323, sql.Generic); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func TestBinaryTemplate(t *testing.T) {
	tmpl, err := sql.ParseTemplate("${encode(*, 'base64')}", sql.Version20160323, sql.Generic)
	if err != nil {
		t.Fatal(err)
	}
	payload := []byte{0, 255, 7}
	got, err := tmpl.Expand(&sql.Input{Payload: payload})
	if want := base64.StdEncoding.EncodeToString(payload); err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
}
