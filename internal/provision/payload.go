package provision

import (
	stdjson "encoding/json"
	"errors"
	"strconv"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// format is the payload format that a topic names.
type format int

const (
	formatJSON format = iota
	formatCBOR
)

// decode reads a request strictly: one object, no duplicate names, valid UTF-8, no tags, bounded nesting. Members
// that are not known are skipped.
func (f format) decode(payload []byte, to any) error {
	var err error
	if f == formatCBOR {
		var mode cbor.DecMode
		mode, err = cbor.DecOptions{
			DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 8, MaxArrayElements: 1024, MaxMapPairs: 1024,
			TagsMd: cbor.TagsForbidden, FieldNameMatching: cbor.FieldNameMatchingCaseSensitive, UTF8: cbor.UTF8RejectInvalid,
		}.DecMode()
		if err == nil {
			err = mode.Unmarshal(payload, to)
		}
	} else {
		err = json.Unmarshal(payload, to)
	}
	if err != nil {
		// What the parser says may quote a token.
		return &rejection{400, "InvalidPayload", "The payload is not a valid " + f.name() + " request.", malformed(err)}
	}
	return nil
}

// malformed says what is wrong with a payload in words that quote none of it.
func malformed(err error) string {
	var semantic *json.SemanticError
	if errors.As(err, &semantic) && semantic.GoType != nil {
		return "a member has the wrong type: JSON " + kindName(semantic.JSONKind)
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		return "it is no JSON, or has a name twice, at byte " + strconv.FormatInt(syntactic.ByteOffset, 10)
	}
	var wrongType *cbor.UnmarshalTypeError
	if errors.As(err, &wrongType) {
		return "a member has the wrong type: CBOR " + wrongType.CBORType
	}
	var twice *cbor.DupMapKeyError
	if errors.As(err, &twice) {
		return "a name occurs twice"
	}
	return "it is not well-formed, nests too deeply, or has too many members"
}

func kindName(k jsontext.Kind) string {
	switch k {
	case '0':
		return "number"
	case '"':
		return "string"
	case '{':
		return "object"
	case '[':
		return "array"
	}
	return "literal"
}

// encode writes an answer.
func (f format) encode(v any) ([]byte, error) {
	if r, ok := v.(*registerResponse); ok {
		out := *r
		out.DeviceConfiguration = f.configuration(r.DeviceConfiguration)
		v = &out
	}
	if f == formatCBOR {
		return cbor.Marshal(v)
	}
	return json.Marshal(v, json.Deterministic(true))
}

// configuration makes the numbers of a device configuration those of the format; an absent one is empty.
func (f format) configuration(in map[string]any) map[string]any {
	out := make(map[string]any, len(in))
	for name, v := range in {
		out[name] = f.number(v)
	}
	return out
}

func (f format) number(v any) any {
	switch v := v.(type) {
	case stdjson.Number:
		if f == formatJSON {
			return jsontext.Value(v.String())
		}
		if n, err := v.Int64(); err == nil {
			return n
		}
		if x, err := v.Float64(); err == nil {
			return x
		}
		return v.String()
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = f.number(v[i])
		}
		return out
	}
	return v
}

func (f format) name() string {
	if f == formatCBOR {
		return "CBOR"
	}
	return "JSON"
}
