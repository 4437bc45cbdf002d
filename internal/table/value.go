package table

import (
	"fmt"
	"slices"

	"flotilla/internal/aws/dynamodb"
	"flotilla/internal/table/expression"
	"flotilla/internal/table/number"
)

// What DynamoDB allows.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
const (
	maxItem     = 400 << 10 // bytes
	maxNesting  = 32
	maxHashKey  = 2048
	maxRangeKey = 1024
)

// Item is the attributes of an item, by name.
type Item = map[string]*dynamodb.AttributeValue

func invalid(format string, args ...any) error {
	return &dynamodb.ValidationException{Message: fmt.Sprintf(format, args...)}
}

const badParameter = "One or more parameter values were invalid: "

// checkItem checks values, spells their numbers in one way, and counts the size.
func checkItem(item Item) (size int, err error) {
	for name, v := range item {
		if name == "" {
			return 0, invalid(badParameter + "An attribute name is empty")
		}
		n, err := checkValue(v, 1)
		if err != nil {
			return 0, err
		}
		size += len(name) + n
	}
	return size, nil
}

func checkValue(v *dynamodb.AttributeValue, depth int) (size int, err error) {
	if depth > maxNesting {
		return 0, invalid("Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit")
	}
	if v == nil {
		return 0, invalid("Supplied AttributeValue is empty, must contain exactly one of the supported datatypes")
	}
	switch t := expression.Type(v); t {
	case "":
		return 0, invalid("Supplied AttributeValue has more than one datatypes set or is empty, must contain exactly one of the supported datatypes")
	case "S":
		return len(*v.S), nil
	case "B":
		return len(v.B), nil
	case "N":
		n, err := number.Parse(*v.N)
		if err != nil {
			return 0, invalid("%s: %s", err, *v.N)
		}
		*v.N = n.String()
		return n.Bytes(), nil
	case "BOOL":
		return 1, nil
	case "NULL":
		if !*v.NULL {
			return 0, invalid(badParameter + "Null attribute value types must have the value of true")
		}
		return 1, nil
	case "M":
		size, err := 3+len(v.M), error(nil)
		for name, e := range v.M {
			var n int
			if n, err = checkValue(e, depth+1); err != nil {
				return 0, err
			}
			size += len(name) + n
		}
		return size, nil
	case "L":
		size := 3 + len(v.L)
		for _, e := range v.L {
			n, err := checkValue(e, depth+1)
			if err != nil {
				return 0, err
			}
			size += n
		}
		return size, nil
	}
	return checkSet(v)
}

func checkSet(v *dynamodb.AttributeValue) (size int, err error) {
	var members []string
	switch {
	case v.SS != nil:
		members = v.SS
		for _, s := range v.SS {
			size += len(s)
		}
	case v.NS != nil:
		for i, text := range v.NS {
			n, err := number.Parse(text)
			if err != nil {
				return 0, invalid("%s: %s", err, text)
			}
			v.NS[i] = n.String()
			size += n.Bytes()
		}
		members = v.NS
	default:
		for _, b := range v.BS {
			members = append(members, string(b))
			size += len(b)
		}
	}
	if len(members) == 0 {
		return 0, invalid(badParameter + "An string set or number set or binary set may not be empty")
	}
	sorted := slices.Sorted(slices.Values(members))
	if len(slices.Compact(sorted)) != len(members) {
		return 0, invalid(badParameter + "Input collection contains duplicates.")
	}
	return size, nil
}

// key is where an item is among those of its table.
type key struct{ hash, rng []byte }

// keyOf finds the key in an item.
func (t *table) keyOf(item Item) (k key, err error) {
	if k.hash, err = keyBytes(item, t.Hash, maxHashKey); err == nil && t.Range.Name != "" {
		k.rng, err = keyBytes(item, t.Range, maxRangeKey)
	}
	if k.rng == nil {
		k.rng = []byte{}
	}
	return k, err
}

// exactKey is keyOf for what must be a key alone.
func (t *table) exactKey(k Item) (key, error) {
	want := 1
	if t.Range.Name != "" {
		want = 2
	}
	if len(k) != want || k[t.Hash.Name] == nil || want == 2 && k[t.Range.Name] == nil {
		return key{}, invalid("The provided key element does not match the schema")
	}
	if _, err := checkItem(k); err != nil {
		return key{}, err
	}
	return t.keyOf(k)
}

func keyBytes(item Item, a attribute, most int) ([]byte, error) {
	v := item[a.Name]
	if v == nil {
		return nil, invalid(badParameter+"Missing the key %s in the item", a.Name)
	}
	if got := expression.Type(v); got != a.Type {
		return nil, invalid(badParameter+"Type mismatch for key %s expected: %s actual: %s", a.Name, a.Type, got)
	}
	b, err := sortable(v)
	switch {
	case err != nil:
		return nil, err
	case len(b) == 0:
		return nil, invalid(badParameter+"The AttributeValue for a key attribute cannot contain an empty value. Key: %s", a.Name)
	case len(b) > most:
		return nil, invalid(badParameter+"Size of the key %s has exceeded the maximum size limit of %d bytes", a.Name, most)
	}
	return b, nil
}

func sortable(v *dynamodb.AttributeValue) ([]byte, error) {
	switch {
	case v.S != nil:
		return []byte(*v.S), nil
	case v.N != nil:
		n, err := number.Parse(*v.N)
		if err != nil {
			return nil, invalid("%s", err)
		}
		return n.Key(nil), nil
	}
	return v.B, nil
}

// keyIn is the key's attributes alone.
func (t *table) keyIn(item Item) Item {
	k := Item{t.Hash.Name: item[t.Hash.Name]}
	if t.Range.Name != "" {
		k[t.Range.Name] = item[t.Range.Name]
	}
	return k
}
