package sql_test

import (
	"fmt"
	"strings"
	"testing"

	"flotilla/internal/rules/sql"
)

const hotStatement = "SELECT temperature, topic(2) AS site FROM 'a/+/b' WHERE temperature > 20"

// hotPayload has 256 bytes.
func hotPayload() []byte {
	s := `{"deviceId":"sensor-0017","seq":48151,"battery":{"level":87,"voltage":3.71},"location":{"lat":52.5200,"lon":13.4050},"humidity":48.2,"temperature":21.75,"status":"ok","note":"`
	return []byte(s + strings.Repeat("x", 256-len(s)-2) + `"}`)
}

func BenchmarkEvaluate(b *testing.B) {
	for _, text := range []string{
		hotStatement,
		"SELECT * FROM 'a/+/b'",
		"SELECT *, topic(2) AS site, timestamp() AS ts FROM 'a/+/b' WHERE temperature > 20",
		"SELECT (temperature * 9 / 5) + 32 AS fahrenheit, upper(deviceId) AS id FROM 'a/+/b' WHERE status = 'ok' AND battery.level > 20",
	} {
		b.Run(fmt.Sprintf("%.40s", text), func(b *testing.B) {
			s, err := sql.Parse(text, sql.Version20160323)
			if err != nil {
				b.Fatal(err)
			}
			payload := hotPayload()
			in := new(sql.Input)
			b.ReportAllocs()
			for b.Loop() {
				*in = sql.Input{Topic: "a/berlin/b", Payload: payload}
				if _, selected, err := s.Evaluate(in); !selected || err != nil {
					b.Fatal(selected, err)
				}
			}
		})
	}
}

func BenchmarkExpand(b *testing.B) {
	tmpl, err := sql.ParseTemplate("site/${topic(2)}/${deviceId}", sql.Version20160323, sql.RepublishTopic)
	if err != nil {
		b.Fatal(err)
	}
	payload := hotPayload()
	in := new(sql.Input)
	b.ReportAllocs()
	for b.Loop() {
		*in = sql.Input{Topic: "a/berlin/b", Payload: payload}
		if _, err := tmpl.Expand(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sql.Parse(hotStatement, sql.Version20160323); err != nil {
			b.Fatal(err)
		}
	}
}

// The budget of the hot path: a projection and a WHERE over 256 bytes.
func TestEvaluateAllocations(t *testing.T) {
	s, err := sql.Parse(hotStatement, sql.Version20160323)
	if err != nil {
		t.Fatal(err)
	}
	payload := hotPayload()
	allocs := testing.AllocsPerRun(100, func() {
		in := &sql.Input{Topic: "a/berlin/b", Payload: payload} // one of the three
		if _, selected, err := s.Evaluate(in); !selected || err != nil {
			t.Fatal(selected, err)
		}
	})
	if allocs > 3 {
		t.Errorf("got %v allocations, want at most 3", allocs)
	}
}
