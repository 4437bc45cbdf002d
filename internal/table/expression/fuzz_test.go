package expression_test

import (
	"testing"

	"flotilla/internal/aws/dynamodb"
	"flotilla/internal/table/expression"
)

// FuzzParse has no expression panic, as what it may be, on an item that has some of what it names.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"a = :v AND (b[0].c <> :w OR NOT attribute_exists(#n))", "size(a) BETWEEN :v AND :v", "a IN (:v, :w)", "begins_with(a, :v)",
		"SET a = a + :v, b[1] = list_append(b, :w) REMOVE m.k ADD c :v DELETE s :s", "a, b[0], m.k", "a = :v AND b > :w", "", "((((", "a[99999999999]",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		values := expression.Item{
			":v": {N: new("1")}, ":w": {L: []*dynamodb.AttributeValue{{S: new("x")}}}, ":s": {SS: []string{"x"}},
		}
		item := expression.Item{
			"a": {N: new("1")}, "b": {L: []*dynamodb.AttributeValue{{M: expression.Item{"c": {S: new("x")}}}}}, "s": {SS: []string{"x", "y"}},
			"m": {M: expression.Item{"k": {NULL: new(true)}}},
		}
		n := expression.NewNames(map[string]string{"#n": "m"}, values)
		if c, err := expression.ParseCondition("ConditionExpression", text, n); err == nil {
			c(item)
			c(nil)
		}
		if u, err := expression.ParseUpdate(text, n); err == nil {
			_, _ = u.Apply(item)
		}
		if p, err := expression.ParseProjection(text, n); err == nil {
			p.Of(item)
		}
		_, _ = expression.ParseKey(text, n)
	})
}
