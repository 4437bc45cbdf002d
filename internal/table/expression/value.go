package expression

import (
	"bytes"
	"slices"

	"flotilla/internal/aws/dynamodb"
	"flotilla/internal/table/number"
)

// Type is the name of a value's type, "" of one that is none or several.
func Type(v *dynamodb.AttributeValue) string {
	t, n := "", 0
	for _, c := range []struct {
		is   bool
		name string
	}{
		{v.S != nil, "S"},
		{v.N != nil, "N"},
		{v.B != nil, "B"},
		{v.SS != nil, "SS"},
		{v.NS != nil, "NS"},
		{v.BS != nil, "BS"},
		{v.M != nil, "M"},
		{v.L != nil, "L"},
		{v.NULL != nil, "NULL"},
		{v.BOOL != nil, "BOOL"},
	} {
		if c.is {
			t = c.name
			n++
		}
	}
	if n != 1 {
		return ""
	}
	return t
}

// Equal compares two values: numbers by what they are, sets without order.
func Equal(a, b *dynamodb.AttributeValue) bool {
	t := Type(a)
	if t != Type(b) {
		return false
	}
	switch t {
	case "S":
		return *a.S == *b.S
	case "N":
		return canonical(*a.N) == canonical(*b.N)
	case "B":
		return bytes.Equal(a.B, b.B)
	case "BOOL":
		return *a.BOOL == *b.BOOL
	case "NULL":
		return true
	case "M":
		if len(a.M) != len(b.M) {
			return false
		}
		for k, v := range a.M {
			if o := b.M[k]; o == nil || !Equal(v, o) {
				return false
			}
		}
		return true
	case "L":
		return slices.EqualFunc(a.L, b.L, Equal)
	case "":
		return false
	}
	x, y := members(a), members(b)
	return len(x) == len(y) && subset(x, y)
}

func canonical(text string) string {
	n, err := number.Parse(text)
	if err != nil {
		return text
	}
	return n.String()
}

// members are a set's, as texts that are equal when the members are.
func members(v *dynamodb.AttributeValue) []string {
	var out []string
	switch {
	case v.SS != nil:
		return v.SS
	case v.NS != nil:
		for _, n := range v.NS {
			out = append(out, canonical(n))
		}
	case v.BS != nil:
		for _, b := range v.BS {
			out = append(out, string(b))
		}
	}
	return out
}

func subset(x, y []string) bool {
	has := make(map[string]bool, len(y))
	for _, s := range y {
		has[s] = true
	}
	for _, s := range x {
		if !has[s] {
			return false
		}
	}
	return true
}

// set makes one of the type of like.
func set(like *dynamodb.AttributeValue, members []string) *dynamodb.AttributeValue {
	switch {
	case like.SS != nil:
		return &dynamodb.AttributeValue{SS: members}
	case like.NS != nil:
		return &dynamodb.AttributeValue{NS: members}
	}
	out := &dynamodb.AttributeValue{BS: [][]byte{}}
	for _, s := range members {
		out.BS = append(out.BS, []byte(s))
	}
	return out
}

// Compare orders two values of one of the types S, N and B; ok is false for others.
func Compare(a, b *dynamodb.AttributeValue) (order int, ok bool) {
	t := Type(a)
	if t != Type(b) || t != "S" && t != "N" && t != "B" {
		return 0, false
	}
	return bytes.Compare(sortable(a), sortable(b)), true
}

func sortable(v *dynamodb.AttributeValue) []byte {
	switch {
	case v.S != nil:
		return []byte(*v.S)
	case v.N != nil:
		n, _ := number.Parse(*v.N)
		return n.Key(nil)
	}
	return v.B
}

// get is what a path names in an item, nil when it is not there.
func (p Path) get(item Item) *dynamodb.AttributeValue {
	v := item[p[0].name]
	for _, s := range p[1:] {
		switch {
		case v == nil:
			return nil
		case s.name != "":
			v = v.M[s.name]
		case s.index < len(v.L):
			v = v.L[s.index]
		default:
			return nil
		}
	}
	return v
}
