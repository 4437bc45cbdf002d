package sql_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"flotilla/internal/mqtt"
	"flotilla/internal/rules/sql"
)

// vector is a line of rules-sql.jsonl or substitution.jsonl.
type vector struct {
	ID, Note, SQL, SQLVersion, Topic string

	Template, Field string

	Payload                    json.RawMessage
	PayloadText, PayloadBase64 *string
	Context                    vectorContext
	Expect                     struct {
		Output       json.RawMessage
		Approx       float64
		OutputText   *string
		OutputBase64 *string
		NotSelected  bool
		Error        string
		Text         *string
	}
}

type vectorContext struct {
	AccountID, ClientID, Principal, TraceID, SourceIP string

	Timestamp      int64
	UserProperties [][2]string
	MQTTProperties struct {
		ContentType            string
		PayloadFormatIndicator *byte
		ResponseTopic          string
		CorrelationDataBase64  []byte
	}
	Stubs stubs
}

// stubs are other systems.
type stubs struct {
	Shadow   map[string]map[string]json.RawMessage
	DynamoDB []struct {
		Table     string
		Key, Item map[string]json.RawMessage
	}
	Lambda  []struct{ ARN, Input, Output rawText }
	Secrets map[string]struct{ SecretString string }
}

// rawText is a string or the text of any other JSON.
type rawText string

func (r *rawText) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*r = rawText(s)
		return nil
	}
	*r = rawText(b)
	return nil
}

func (s *stubs) InvokeLambda(_ context.Context, arn string, input []byte) ([]byte, error) {
	for _, l := range s.Lambda {
		if string(l.ARN) == arn && diffJSON([]byte(l.Input), input, 0) == "" {
			return []byte(l.Output), nil
		}
	}
	return nil, fmt.Errorf("no function %s for %s", arn, input)
}

func (s *stubs) GetThingShadow(_ context.Context, thing, shadow, _ string) ([]byte, error) {
	if doc, ok := s.Shadow[thing][shadow]; ok {
		return doc, nil
	}
	return nil, errors.New("no such shadow")
}

func (s *stubs) GetItem(_ context.Context, key sql.TableKey) ([]byte, error) {
	for _, d := range s.DynamoDB {
		want := map[string]json.RawMessage{key.PartitionKey: json.RawMessage(key.PartitionValue)}
		if key.SortKey != "" {
			want[key.SortKey] = json.RawMessage(key.SortValue)
		}
		a, _ := json.Marshal(d.Key)
		b, _ := json.Marshal(want)
		if d.Table == key.TableName && diffJSON(a, b, 0) == "" {
			return json.Marshal(d.Item)
		}
	}
	return nil, nil
}

func (s *stubs) GetSecret(_ context.Context, id, _, _ string) ([]byte, error) {
	if secret, ok := s.Secrets[id]; ok {
		return []byte(secret.SecretString), nil
	}
	return nil, errors.New("no such secret")
}

func (v *vector) input(t testing.TB) *sql.Input {
	t.Helper()
	c := &v.Context
	in := &sql.Input{
		Topic: v.Topic, AccountID: c.AccountID, ClientID: c.ClientID, PrincipalID: c.Principal,
		TraceID: c.TraceID, SourceIP: c.SourceIP, Now: time.UnixMilli(c.Timestamp),
		Rand:    func() float64 { return 0.25 },
		NewUUID: func() string { return "123a4567-b89c-12d3-e456-789012345000" },
		External: sql.External{
			Lambda: &c.Stubs, Shadows: &c.Stubs, Tables: &c.Stubs, Secrets: &c.Stubs,
		},
	}
	p := &mqtt.PublishProperties{
		ContentType: c.MQTTProperties.ContentType, ResponseTopic: c.MQTTProperties.ResponseTopic,
		PayloadFormat: c.MQTTProperties.PayloadFormatIndicator, CorrelationData: c.MQTTProperties.CorrelationDataBase64,
	}
	for _, u := range c.UserProperties {
		p.UserProperties = append(p.UserProperties, mqtt.UserProperty{Key: u[0], Value: u[1]})
	}
	in.Properties = p
	switch {
	case v.PayloadText != nil:
		in.Payload = []byte(*v.PayloadText)
	case v.PayloadBase64 != nil:
		var err error
		if in.Payload, err = base64.StdEncoding.DecodeString(*v.PayloadBase64); err != nil {
			t.Fatal(err)
		}
	default:
		var compact bytes.Buffer
		if err := json.Compact(&compact, v.Payload); err != nil {
			t.Fatal(err)
		}
		in.Payload = compact.Bytes()
	}
	return in
}

// diffJSON tells how got differs from want, in which {"$decimal": "s"} stands for the
// number with the text s.
func diffJSON(want, got []byte, approx float64) string {
	var w, g any
	for i, text := range [][]byte{want, got} {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode([]*any{&w, &g}[i]); err != nil {
			return fmt.Sprintf("not JSON: %s", text)
		}
		if d.More() {
			return fmt.Sprintf("more than one JSON value: %s", text)
		}
	}
	if !sameJSON(w, g, approx) {
		return fmt.Sprintf("got %s, want %s", got, want)
	}
	return ""
}

func sameJSON(want, got any, approx float64) bool {
	switch w := want.(type) {
	case json.Number:
		g, ok := got.(json.Number)
		if !ok {
			return false
		}
		x, ok1 := new(big.Rat).SetString(string(w))
		y, ok2 := new(big.Rat).SetString(string(g))
		if !ok1 || !ok2 {
			return false
		}
		if approx == 0 {
			return x.Cmp(y) == 0
		}
		a, _ := x.Float64()
		b, _ := y.Float64()
		return math.Abs(a-b) <= approx*math.Max(math.Abs(a), math.Abs(b))
	case map[string]any:
		if text, ok := w["$decimal"]; ok && len(w) == 1 {
			g, ok := got.(json.Number)
			return ok && string(g) == text
		}
		g, ok := got.(map[string]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for k, x := range w {
			y, ok := g[k]
			if !ok || !sameJSON(x, y, approx) {
				return false
			}
		}
		return true
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for i := range w {
			if !sameJSON(w[i], g[i], approx) {
				return false
			}
		}
		return true
	}
	return want == got
}

// checkSQL tells what is wrong with a vector of rules-sql; empty when nothing is.
func (v *vector) checkSQL(t testing.TB) string {
	t.Helper()
	s, err := sql.Parse(v.SQL, v.SQLVersion)
	if v.Expect.Error != "" {
		var pe *sql.ParseError
		if !errors.As(err, &pe) {
			return fmt.Sprintf("got error %v, want a ParseError", err)
		}
		return ""
	}
	if err != nil {
		return err.Error()
	}
	in := v.input(t)
	selected := s.Matches(v.Topic)
	var out sql.Output
	if selected {
		if out, selected, err = s.Evaluate(in); err != nil {
			return err.Error()
		}
	}
	switch x := &v.Expect; {
	case selected == x.NotSelected:
		return fmt.Sprintf("selected is %v, output %s", selected, out.Payload)
	case x.NotSelected:
		return ""
	case x.OutputText != nil:
		if string(out.Payload) != *x.OutputText {
			return fmt.Sprintf("got %q, want %q", out.Payload, *x.OutputText)
		}
	case x.OutputBase64 != nil:
		if got := base64.StdEncoding.EncodeToString(out.Payload); got != *x.OutputBase64 {
			return fmt.Sprintf("got %s, want %s", got, *x.OutputBase64)
		}
	default:
		if !out.JSON {
			return fmt.Sprintf("output is not JSON: %q", out.Payload)
		}
		return diffJSON(x.Output, out.Payload, x.Approx)
	}
	return ""
}

// checkTemplate tells what is wrong with a vector of substitution.
func (v *vector) checkTemplate(t testing.TB) string {
	t.Helper()
	field := sql.Generic
	if v.Field == "republish.topic" {
		field = sql.RepublishTopic
	}
	var tmpl *sql.Template
	var err error
	if v.SQL != "" {
		s, serr := sql.Parse(v.SQL, v.SQLVersion)
		if serr != nil {
			return serr.Error()
		}
		tmpl, err = s.ParseTemplate(v.Template, field)
	} else {
		tmpl, err = sql.ParseTemplate(v.Template, v.SQLVersion, field)
	}
	if v.Expect.Error != "" {
		var pe *sql.ParseError
		if !errors.As(err, &pe) {
			return fmt.Sprintf("got error %v, want a ParseError", err)
		}
		return ""
	}
	if err != nil {
		return err.Error()
	}
	got, err := tmpl.Expand(v.input(t))
	if err != nil {
		return err.Error()
	}
	if got != *v.Expect.Text {
		return fmt.Sprintf("got %q, want %q", got, *v.Expect.Text)
	}
	return ""
}

// readVectors reads a file of the folder that FLOTILLA_VECTORS names, of testdata otherwise.
func readVectors(t testing.TB, file string, optional bool) []vector {
	t.Helper()
	dir := os.Getenv("FLOTILLA_VECTORS")
	if dir == "" {
		dir = "testdata"
	}
	f, err := os.Open(filepath.Join(dir, file))
	if optional && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []vector
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<22)
	for sc.Scan() {
		var v vector
		if err := json.Unmarshal(sc.Bytes(), &v); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, v)
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestVectorsRulesSQL(t *testing.T) {
	for _, v := range readVectors(t, "rules-sql.jsonl", false) {
		t.Run(v.ID, func(t *testing.T) {
			if problem := v.checkSQL(t); problem != "" {
				t.Errorf("%s\n%s\n%s", v.SQL, problem, v.Note)
			}
		})
	}
}

func TestVectorsSubstitution(t *testing.T) {
	for _, v := range readVectors(t, "substitution.jsonl", false) {
		t.Run(v.ID, func(t *testing.T) {
			if problem := v.checkTemplate(t); problem != "" {
				t.Errorf("%s\n%s\n%s", v.Template, problem, v.Note)
			}
		})
	}
}

// Vectors on which AWS's documents are silent or contradict themselves: for information.
func TestVectorsLow(t *testing.T) {
	for _, v := range readVectors(t, "rules-sql.low.jsonl", true) {
		if problem := v.checkSQL(t); problem != "" {
			t.Logf("%s: %s\n%s\n%s", v.ID, v.SQL, problem, v.Note)
		}
	}
	for _, v := range readVectors(t, "substitution.low.jsonl", true) {
		if problem := v.checkTemplate(t); problem != "" {
			t.Logf("%s: %s\n%s\n%s", v.ID, v.Template, problem, v.Note)
		}
	}
}
