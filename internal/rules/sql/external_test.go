package sql_test

import (
	"context"
	"encoding/base64"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"flotilla/internal/rules/sql"
)

// systems fails unless a function is set, and counts.
type systems struct {
	lambda func(input []byte) ([]byte, error)
	calls  int
}

func (s *systems) InvokeLambda(_ context.Context, _ string, input []byte) ([]byte, error) {
	s.calls++
	return s.lambda(input)
}

func TestExternal(t *testing.T) {
	for _, c := range []struct {
		name    string
		lambda  func(input []byte) ([]byte, error)
		payload string
		want    string
		failed  bool
	}{
		{"answer", func(in []byte) ([]byte, error) { return []byte(` {"got":` + string(in) + `} `), nil }, `{"a": 1}`, `{"x":{"got":{"a":1}},"y":{"a":1}}`, false},
		{"error", func([]byte) ([]byte, error) { return nil, errors.New("no") }, `{}`, `{}`, true},
		{"no JSON", func([]byte) ([]byte, error) { return []byte("<html>"), nil }, `{}`, `{}`, true},
		{"no payload", func([]byte) ([]byte, error) { return []byte("1"), nil }, `bytes`, `{}`, true},
	} {
		sys := &systems{lambda: c.lambda}
		failed := false
		in := &sql.Input{Payload: []byte(c.payload), External: sql.External{Lambda: sys}, Failed: func(fn string, err error) {
			failed = true
			if fn != "aws_lambda" || err == nil {
				t.Errorf("%s: failed with %q, %v", c.name, fn, err)
			}
		}}
		out, _, err := evaluate(t, "SET @r = aws_lambda('f', *) SELECT @r AS x, @r.got AS y FROM 'a'", in)
		if err != nil || string(out.Payload) != c.want || failed != c.failed {
			t.Errorf("%s: got %s, %v, failed %v", c.name, out.Payload, err, failed)
		}
		if sys.calls > 1 {
			t.Errorf("%s: %d calls", c.name, sys.calls)
		}
	}
}

// A SET variable is computed once for a message, also for templates.
func TestVariableIsComputedOnce(t *testing.T) {
	sys := &systems{lambda: func([]byte) ([]byte, error) { return []byte(`"v"`), nil }}
	s, err := sql.Parse("SET @r = aws_lambda('f', a) SELECT @r AS x FROM 'a' WHERE a > 1 AND @r = 'v'", sql.Version20160323)
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := s.ParseTemplate("${@r}/${a}", sql.Generic)
	if err != nil {
		t.Fatal(err)
	}
	if !s.MayBlock() || !tmpl.MayBlock() {
		t.Error("both may block")
	}
	in := &sql.Input{Payload: []byte(`{"a":2}`), External: sql.External{Lambda: sys}}
	if out, selected, err := s.Evaluate(in); err != nil || !selected || string(out.Payload) != `{"x":"v"}` {
		t.Errorf("got %s, %v, %v", out.Payload, selected, err)
	}
	for range 2 {
		if got, err := tmpl.Expand(in); err != nil || got != "v/2" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if sys.calls != 1 {
		t.Errorf("%d calls", sys.calls)
	}
	if _, selected, _ := s.Evaluate(&sql.Input{Payload: []byte(`{"a":1}`), External: sql.External{Lambda: sys}}); selected || sys.calls != 1 {
		t.Errorf("a false condition does not guard the function: %v, %d calls", selected, sys.calls)
	}
}

func TestContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	sys := &systems{lambda: func([]byte) ([]byte, error) { return nil, ctx.Err() }}
	_, _, err := evaluate(t, "SELECT aws_lambda('f', 1) AS x FROM 'a'", &sql.Input{Context: ctx, External: sql.External{Lambda: sys}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// world answers what it was asked.
type world struct {
	asked  []string
	secret string
	set    []byte
	key    sql.TableKey
}

func (w *world) GetThingShadow(_ context.Context, thing, shadow, role string) ([]byte, error) {
	w.asked = append(w.asked, thing, shadow, role)
	return []byte(`{"version":3}`), nil
}

func (w *world) RegistryData(_ context.Context, api, thing, role string) ([]byte, error) {
	w.asked = append(w.asked, api, thing, role)
	return []byte(`{"attributes":{"site":"b"}}`), nil
}

func (w *world) GetItem(_ context.Context, key sql.TableKey) ([]byte, error) {
	w.key = key
	return nil, nil
}

func (w *world) GetSecret(_ context.Context, id, kind, role string) ([]byte, error) {
	w.asked = append(w.asked, id, kind, role)
	return []byte(w.secret), nil
}

func (w *world) Predict(_ context.Context, model, role string, record []byte) ([]byte, error) {
	w.asked = append(w.asked, model, role, string(record))
	return []byte(`{"predictedLabel":"1"}`), nil
}

func (w *world) DescriptorSet(_ context.Context, bucket, key string) ([]byte, error) {
	w.asked = append(w.asked, bucket, key)
	return w.set, nil
}

func TestExternalArguments(t *testing.T) {
	json, plain := `{"k":"v","n":5}`, "opaque"
	for _, c := range []struct {
		expr, secret string
		asked        []string
		want         string
	}{
		{"get_thing_shadow('t', 'r').version", "", []string{"t", "", "r"}, "3"},
		{"get_thing_shadow('t', 's', 'r').version", "", []string{"t", "s", "r"}, "3"},
		{"get_thing_shadow(1, 'r')", "", nil, ""},
		{"get_thing_shadow('t')", "", nil, ""},
		{"get_registry_data('DescribeThing', 't', 'r').attributes.site", "", []string{"DescribeThing", "t", "r"}, `"b"`},
		{"get_registry_data('DeleteThing', 't', 'r')", "", nil, ""},
		{"get_secret('i', 'SecretString', 'k', 'r')", json, []string{"i", "SecretString", "r"}, `"v"`},
		{"get_secret('i', 'SecretString', 'r')", json, []string{"i", "SecretString", "r"}, json},
		{"get_secret('i', 'SecretString', 'zz', 'r')", json, []string{"i", "SecretString", "r"}, ""},
		{"get_secret('i', 'SecretString', 'k', 'r')", plain, []string{"i", "SecretString", "r"}, ""},
		{"get_secret('i', 'SecretString', 'r')", plain, []string{"i", "SecretString", "r"}, `"opaque"`},
		{"get_secret('i', 'SecretBinary', 'r')", "\x00\xff", []string{"i", "SecretBinary", "r"}, `"AP8="`},
		{"get_secret('i', 'SecretBinary', 'k', 'r')", plain, nil, ""},
		{"machinelearning_predict('m', 'r', {'a': {'b': 1}, 'c': 2}).predictedLabel", "", []string{"m", "r", `{"a":"{\"b\":1}","c":2}`}, `"1"`},
	} {
		w := &world{secret: c.secret}
		in := &sql.Input{External: sql.External{Shadows: w, Registry: w, Secrets: w, Models: w}}
		out, _, err := evaluate(t, "SELECT VALUE "+c.expr+" FROM 'a'", in)
		if err != nil || string(out.Payload) != c.want {
			t.Errorf("%s: got %s, %v, want %s", c.expr, out.Payload, err, c.want)
		}
		if diff := cmp.Diff(c.asked, w.asked); diff != "" {
			t.Errorf("%s: %s", c.expr, diff)
		}
	}
}

func TestTableKey(t *testing.T) {
	w := &world{}
	in := &sql.Input{Payload: []byte(`{"n": 3.0}`), External: sql.External{Tables: w}}
	out, _, err := evaluate(t, "SELECT get_dynamodb('t', 'sn', 's7', 'ch', n, 'r') AS x FROM 'a'", in)
	if err != nil || string(out.Payload) != "{}" {
		t.Errorf("got %s, %v", out.Payload, err)
	}
	want := sql.TableKey{TableName: "t", PartitionKey: "sn", PartitionValue: `"s7"`, SortKey: "ch", SortValue: "3", RoleARN: "r"}
	if diff := cmp.Diff(want, w.key); diff != "" {
		t.Error(diff)
	}
}

// Without systems every external function is Undefined, and says so.
func TestExternalNotConfigured(t *testing.T) {
	for _, call := range []string{
		"aws_lambda('f', 1)", "get_thing_shadow('t', 'r')", "get_registry_data('DescribeThing', 't', 'r')", "get_dynamodb('t', 'k', 'v', 'r')",
		"get_secret('i', 'SecretString', 'r')", "machinelearning_predict('m', 'r', {})", "decode(*, 'proto', 'b', 'k', 'f', 'm')",
	} {
		failed := 0
		in := &sql.Input{Failed: func(string, error) { failed++ }}
		out, selected, err := evaluate(t, "SELECT "+call+" AS x FROM 'a'", in)
		if err != nil || !selected || string(out.Payload) != "{}" || failed != 1 {
			t.Errorf("%s: got %s, %v, %v, failed %d", call, out.Payload, selected, err, failed)
		}
		s, err := sql.Parse("SELECT "+call+" AS x FROM 'a'", sql.Version20160323)
		if err != nil || !s.MayBlock() || s.Complexity().ExternalCalls != 1 {
			t.Errorf("%s: does not block: %v", call, err)
		}
	}
}

// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/binary-payloads.html#binary-payloads-protobuf
func TestDecodeProto(t *testing.T) {
	field := func(name string, n int32, kind descriptorpb.FieldDescriptorProto_Type) *descriptorpb.FieldDescriptorProto {
		return &descriptorpb.FieldDescriptorProto{Name: &name, Number: &n, Type: &kind, Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
	}
	set, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Name: proto.String("sensor.proto"), Package: proto.String("plant"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: proto.String("Reading"),
			Field: []*descriptorpb.FieldDescriptorProto{
				field("device_id", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING),
				field("temperature", 2, descriptorpb.FieldDescriptorProto_TYPE_DOUBLE),
			},
		}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	payload := []byte("\x0a\x02s7\x11\x00\x00\x00\x00\x00\x80\x35\x40")
	const want = `{"r":{"deviceId":"s7","temperature":21.5}}`
	encoded := base64.StdEncoding.EncodeToString(payload)
	for expr, want := range map[string]string{
		"decode(*, 'proto', 'b', 'k.desc', 'sensor.proto', 'Reading')":                             want,
		"decode(*, 'proto', 'b', 'k.desc', 'sensor.proto', 'plant.Reading')":                       want,
		"decode(encode(*, 'base64'), 'proto', 'b', 'k.desc', 'sensor.proto', 'Reading')":           want,
		"decode('" + encoded + "', 'proto', 'b', 'k.desc', 'sensor.proto', 'Reading').temperature": `{"r":21.5}`,
		"decode('%', 'proto', 'b', 'k.desc', 'sensor.proto', 'Reading')":                           `{"r":null}`,
		"decode(*, 'proto', 'b', 'k.desc', 'other.proto', 'Reading')":                              `{}`,
		"decode(*, 'proto', 'b', 'k.desc', 'sensor.proto', 'Other')":                               `{}`,
		"decode(*, 'proto', 'b', 'k.desc', 'sensor.proto')":                                        `{}`,
	} {
		w := &world{set: set}
		in := &sql.Input{Payload: payload, External: sql.External{Schemas: w}}
		out, _, err := evaluate(t, "SELECT "+expr+" AS r FROM 'a'", in)
		if err != nil || diffJSON([]byte(want), out.Payload, 0) != "" {
			t.Errorf("%s: got %s, %v, want %s", expr, out.Payload, err, want)
		}
	}
	w := &world{set: []byte("no descriptor set")}
	in := &sql.Input{Payload: payload, External: sql.External{Schemas: w}}
	if out, _, err := evaluate(t, "SELECT decode(*, 'proto', 'b', 'k', 'f', 'm') AS r FROM 'a'", in); err != nil || string(out.Payload) != "{}" {
		t.Errorf("got %s, %v", out.Payload, err)
	}
}
