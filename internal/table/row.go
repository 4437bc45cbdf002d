package table

import (
	"context"
	"encoding/json"
	"errors"

	"flotilla/internal/aws/dynamodb"
	"flotilla/internal/store"
)

// Row gives an item as one flat JSON object, nil when there is none. Values of the key are JSON texts of a string or a
// number; rangeName is empty for a table without a range key. A key that is not the table's is an error.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-sql-functions.html#iot-sql-function-get-dynamodb
func (t *Tables) Row(ctx context.Context, name, hashName, hashValue, rangeName, rangeValue string) ([]byte, error) {
	k := Item{}
	for _, one := range []struct{ name, text string }{{hashName, hashValue}, {rangeName, rangeValue}} {
		if one.name == "" {
			continue
		}
		v, err := scalar(one.text)
		if err != nil {
			return nil, err
		}
		k[one.name] = v
	}
	var item Item
	err := t.read(ctx, name, func(tx store.Tx, one *table) error {
		at, err := one.exactKey(k)
		if err == nil {
			item, err = one.get(tx, at)
		}
		return err
	})
	if err != nil || item == nil {
		return nil, err
	}
	return json.Marshal(plain(&dynamodb.AttributeValue{M: item}))
}

func scalar(text string) (*dynamodb.AttributeValue, error) {
	var s string
	if json.Unmarshal([]byte(text), &s) == nil {
		return &dynamodb.AttributeValue{S: &s}, nil
	}
	var n json.Number
	if json.Unmarshal([]byte(text), &n) != nil {
		return nil, errors.New("a key is neither a string nor a number")
	}
	return &dynamodb.AttributeValue{N: new(n.String())}, nil
}

// plain is a value without its types.
func plain(v *dynamodb.AttributeValue) any {
	switch {
	case v.S != nil:
		return *v.S
	case v.N != nil:
		return json.Number(*v.N)
	case v.BOOL != nil:
		return *v.BOOL
	case v.B != nil:
		return v.B
	case v.SS != nil:
		return v.SS
	case v.BS != nil:
		return v.BS
	case v.NS != nil:
		out := []json.Number{}
		for _, n := range v.NS {
			out = append(out, json.Number(n))
		}
		return out
	case v.M != nil:
		out := map[string]any{}
		for k, e := range v.M {
			out[k] = plain(e)
		}
		return out
	case v.L != nil:
		out := []any{}
		for _, e := range v.L {
			out = append(out, plain(e))
		}
		return out
	}
	return nil
}
