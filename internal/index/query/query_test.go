package query_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"flotilla/internal/index/query"
)

// aws are the limits that AWS documents.
var aws = query.Limits{Bytes: 1000, Terms: 12, Stars: 2, Questions: 5, LeadingStars: 1, LeadingBytes: 100}

// testCase is a line of testdata/match.jsonl.
type testCase struct {
	Source   string         `json:"source"`
	Document map[string]any `json:"document"` // nested; attributes are strings
	Finds    []string       `json:"finds"`
	Misses   []string       `json:"misses"`
	Geo      []string       `json:"geo"` // fields that are locations
}

func document(t *testing.T, c testCase) query.Document {
	var d query.Document
	for field, v := range c.Document {
		var whole bool
		if d, whole = query.Leaves(d, field, v, 1000); !whole {
			t.Fatal("too many values")
		}
	}
	for _, g := range c.Geo {
		var v any = c.Document
		for _, k := range strings.Split(g, ".") {
			v = v.(map[string]any)[k]
		}
		lat, lon, ok := query.Location(v, false)
		if !ok {
			t.Fatalf("%s is no location", g)
		}
		d = append(d, query.Value{Field: g, Located: true, Lat: lat, Lon: lon})
	}
	return d
}

func TestMatch(t *testing.T) {
	f, err := os.Open("testdata/match.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var c testCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		d := document(t, c)
		try := func(text string, want bool) {
			n++
			q, err := query.Parse(text, aws)
			if err != nil {
				t.Errorf("%s: %v", text, err)
			} else if q.Match(d) != want {
				t.Errorf("%s: %v (%s)", text, !want, c.Source)
			}
		}
		for _, q := range c.Finds {
			try(q, true)
		}
		for _, q := range c.Misses {
			try(q, false)
		}
	}
	if n < 60 {
		t.Errorf("only %d cases", n)
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct {
		query  string
		offset int
		says   string
	}{
		{"", 0, "expected a term"},
		{"a AND", 5, "expected a term"},
		{"(a OR b", 0, "not closed"},
		{"a)", 1, "unexpected"},
		{`thingName:"a`, 10, "not closed"},
		{`thingName:""`, 10, "nothing between"},
		{"attributes.a:[1 2]", 16, "expected TO"},
		{"attributes.a:[1 TO 2", 13, "not closed"},
		{"attributes.a:[1* TO 2]", 14, "no wildcard"},
		{"attributes.a:", 13, "expected a value"},
		{"attributes.a:b:c", 14, "colon"},
		{"attributes.a:b@c", 14, "backslash"},
		{"attributes.a<", 13, "expected a value"},
		{"thingName:(attributes.a:b)", 11, "about the field thingName"},
		{"thingName:***a", 10, "at most 2 *"},
		{"thingName:a??????", 10, "at most 5 ?"},
		{"thingName:*a thingTypeName:*b", 10, "begin with a wildcard"},
		{"thingName:*" + strings.Repeat("a", 100), 10, "at most 100 characters"},
		{strings.Repeat("a ", 13), 24, "at most 12 terms"},
		{strings.Repeat("a", 1001), 1000, "longer than 1000"},
		{strings.Repeat("(", 100) + "a" + strings.Repeat(")", 100), 51, "nest too deep"},
		{"a\xff", 0, "no UTF-8"},
		{`a\`, 1, "backslash at the end"},
		{"l:geo_distance,91,0,1km", 2, "latitude"},
		{"l:geo_distance,x,0,1km", 2, "expected a number"},
		{"l:geo_bounding_box,1,2,3", 2, "expected geo_distance"},
		{"l:geo_polygon,1,2,3,4", 2, "three or more points"},
	} {
		_, err := query.Parse(c.query, aws)
		var pe *query.ParseError
		if !errors.As(err, &pe) {
			t.Errorf("%s: %v", c.query, err)
			continue
		}
		if pe.Offset != c.offset || !strings.Contains(pe.Message, c.says) {
			t.Errorf("%s: %d, %s", c.query, pe.Offset, pe.Message)
		}
	}
}

func TestLocations(t *testing.T) {
	for _, c := range []struct {
		json   string
		lonLat bool
		ok     bool
	}{
		{`"47.5,-122.25"`, false, true},
		{`"-122.25, 47.5"`, true, true},
		{`"POINT(-122.25 47.5)"`, false, true},
		{`{"lat":47.5,"lon":-122.25}`, false, true},
		{`{"latitude":"47.5","longitude":-122.25}`, true, true},
		{`[47.5,-122.25]`, false, true},
		{`[-122.25,47.5]`, true, true},
		{`[-122.25,47.5]`, false, false}, // no latitude
		{`"47.5"`, false, false},
		{`{"lat":47.5}`, false, false},
		{`[1,2,3]`, false, false},
		{`true`, false, false},
	} {
		var v any
		if err := json.Unmarshal([]byte(c.json), &v); err != nil {
			t.Fatal(err)
		}
		lat, lon, ok := query.Location(v, c.lonLat)
		if ok != c.ok || ok && (lat != 47.5 || lon != -122.25) {
			t.Errorf("%s: %v %v %v", c.json, lat, lon, ok)
		}
	}
}

// Parsing takes any input, and what it accepts is evaluated without a panic; its negation finds the other documents.
func FuzzParse(f *testing.F) {
	f.Add(`thingName:my* AND (attributes.a:[1 TO 5} OR NOT shadow.reported.x:"a b") -c?d`)
	f.Add(`l:geo_polygon,1,2,3,4,5,6 OR l:geo_distance,1,2,3mi`)
	f.Add(`a<5 b>="x" c:(d OR e)`)
	d, _ := query.Leaves(nil, "shadow", map[string]any{"a": "b c", "n": 5.0, "t": true}, 10)
	d = append(d, query.Text("thingName", "my-thing"), query.Value{Field: "l", Located: true, Lat: 2, Lon: 3})
	f.Fuzz(func(t *testing.T, text string) {
		q, err := query.Parse(text, query.Limits{})
		if err != nil {
			return
		}
		not, err := query.Parse("NOT ("+text+")", query.Limits{})
		if err != nil {
			return // deeper than allowed
		}
		if q.Match(d) == not.Match(d) {
			t.Errorf("%q finds the same as its negation", text)
		}
	})
}
