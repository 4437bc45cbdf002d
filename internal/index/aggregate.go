package index

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"flotilla/internal/aws/iot"
	"flotilla/internal/index/query"
	"flotilla/internal/store"
)

// question is what the aggregations have in common.
type question struct {
	index, version *string
	text           string
	field          string
}

// values are the rows of one field in the documents that a query finds.
type values struct {
	tx    store.Tx
	typ   string // FieldType
	table string // index_term or index_number
	value string // its column
	where string
	args  []any
	field string // with aliases resolved
}

// defaultField is aggregated when no field is named.
const defaultField = "registry.version"

// over runs fn with the values of a question.
func (x *Index) over(ctx context.Context, qu question, fn func(*values) error) error {
	q, err := x.parse(qu.text, qu.version)
	if err != nil {
		return err
	}
	return x.db.Read(ctx, func(_ context.Context, tx store.Tx) error {
		s, kind, err := ready(tx, qu.index)
		if err != nil {
			return err
		}
		v, err := x.values(tx, s, kind, q, qu.field)
		if err != nil {
			return err
		}
		return fn(v)
	})
}

func (x *Index) values(tx store.Tx, s *settings, kind int64, q *query.Query, field string) (*values, error) {
	if field == "" {
		field = defaultField
	}
	v := &values{tx: tx, field: alias(field), table: "index_term", value: "term"}
	managed, custom := s.fieldTypes(kind)
	for _, f := range append(managed, custom...) {
		if alias(value(f.Name)) == v.field {
			v.typ = value(f.Type)
		}
	}
	if v.typ == "" {
		return nil, &iot.InvalidAggregationException{Message: "The field " + field + " can't be aggregated: it is neither a managed nor a custom field of the index"}
	}
	n, _, err := x.field(tx, map[string]int64{}, kind, v.field, false)
	if err != nil {
		return nil, err
	}
	c, where, err := x.compile(tx, kind, q, false, n)
	if err != nil {
		return nil, err
	}
	v.args = c.args
	v.where = "v.field = $1 AND " + where // a field is of one index, and so are the documents that have it
	if v.typ == iot.FieldTypeNumber {
		v.table, v.value = "index_number", "number"
	} else {
		v.where += " AND v.whole"
	}
	return v, nil
}

func (v *values) from() string { return " FROM " + v.table + " v WHERE " + v.where }

// GetStatistics gives count, average, sum, extremes and spread of a field; of one that is no number only the count.
//
// Errors: iot.InvalidQueryException, InvalidAggregationException, IndexNotReadyException.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetStatistics.html
func (x *Index) GetStatistics(ctx context.Context, in *iot.GetStatisticsRequest) (*iot.GetStatisticsResponse, error) {
	var st *iot.Statistics
	err := x.over(ctx, question{in.IndexName, in.QueryVersion, in.QueryString, value(in.AggregationField)}, func(v *values) (err error) {
		st, err = v.statistics()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.GetStatisticsResponse{Statistics: st}, nil
}

func (v *values) statistics() (*iot.Statistics, error) {
	var count int64
	if v.typ != iot.FieldTypeNumber {
		err := v.tx.QueryRow(`SELECT COUNT(*)`+v.from(), v.args...).Scan(&count)
		return &iot.Statistics{Count: clamp(count)}, err
	}
	var sum, low, high, squares float64
	err := v.tx.QueryRow(`SELECT COUNT(*), COALESCE(SUM(number), 0.0), COALESCE(MIN(number), 0.0), COALESCE(MAX(number), 0.0), COALESCE(SUM(number * number), 0.0)`+v.from(), v.args...).
		Scan(&count, &sum, &low, &high, &squares)
	st := &iot.Statistics{Count: clamp(count)}
	if err != nil || count == 0 {
		return st, err
	}
	average := sum / float64(count)
	variance := max(0, squares/float64(count)-average*average)
	st.Average, st.Sum, st.Minimum, st.Maximum, st.SumOfSquares = &average, &sum, &low, &high, &squares
	st.Variance, st.StdDeviation = &variance, new(math.Sqrt(variance))
	return st, nil
}

func clamp(n int64) *int32 { return new(int32(min(n, math.MaxInt32))) }

// GetCardinality counts the different values of a field, exactly.
//
// Errors: as GetStatistics.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetCardinality.html
func (x *Index) GetCardinality(ctx context.Context, in *iot.GetCardinalityRequest) (*iot.GetCardinalityResponse, error) {
	var n int64
	err := x.over(ctx, question{in.IndexName, in.QueryVersion, in.QueryString, value(in.AggregationField)}, func(v *values) (err error) {
		n, err = v.cardinality()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &iot.GetCardinalityResponse{Cardinality: clamp(n)}, nil
}

func (v *values) cardinality() (n int64, err error) {
	err = v.tx.QueryRow(`SELECT COUNT(DISTINCT `+v.value+`)`+v.from(), v.args...).Scan(&n)
	return n, err
}

// defaultPercents are AWS's.
var defaultPercents = [...]float64{1, 5, 25, 50, 75, 95, 99}

// GetPercentiles gives the values below which a part of a numeric field is, between two values in proportion.
//
// Errors: as GetStatistics; iot.InvalidRequestException (percents).
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetPercentiles.html
func (x *Index) GetPercentiles(ctx context.Context, in *iot.GetPercentilesRequest) (*iot.GetPercentilesResponse, error) {
	out := &iot.GetPercentilesResponse{}
	err := x.over(ctx, question{in.IndexName, in.QueryVersion, in.QueryString, value(in.AggregationField)}, func(v *values) (err error) {
		out.Percentiles, err = v.percentiles(in.Percents)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (v *values) percentiles(percents []float64) ([]*iot.PercentPair, error) {
	if v.typ != iot.FieldTypeNumber {
		return nil, &iot.InvalidAggregationException{Message: "Percentiles are of numbers; " + v.field + " is no field of type Number"}
	}
	if len(percents) == 0 {
		percents = defaultPercents[:]
	}
	var count int64
	if err := v.tx.QueryRow(`SELECT COUNT(*)`+v.from(), v.args...).Scan(&count); err != nil {
		return nil, err
	}
	list := []*iot.PercentPair{}
	for _, p := range percents {
		if p < 0 || p > 100 {
			return nil, invalid("A percent is between 0 and 100")
		}
		if count == 0 {
			continue
		}
		at := p / 100 * float64(count-1)
		low, err := v.nth(int64(at))
		if err != nil {
			return nil, err
		}
		if part := at - math.Floor(at); part > 0 {
			high, err := v.nth(int64(at) + 1)
			if err != nil {
				return nil, err
			}
			low += (high - low) * part
		}
		list = append(list, &iot.PercentPair{Percent: new(p), Value: &low})
	}
	return list, nil
}

// nth is the number at a place in order, from 0.
func (v *values) nth(n int64) (number float64, err error) {
	args := append(slices.Clone(v.args), n)
	err = v.tx.QueryRow(fmt.Sprintf(`SELECT number%s ORDER BY number LIMIT 1 OFFSET $%d`, v.from(), len(args)), args...).Scan(&number)
	return number, err
}

const (
	defaultBuckets = 10
	maxBuckets     = 10_000
)

// GetBucketsAggregation counts documents by the values of a field, the most frequent first.
//
// Errors: as GetStatistics.
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_GetBucketsAggregation.html
func (x *Index) GetBucketsAggregation(ctx context.Context, in *iot.GetBucketsAggregationRequest) (*iot.GetBucketsAggregationResponse, error) {
	most := defaultBuckets
	if t := in.BucketsAggregationType; t != nil && t.TermsAggregation != nil && t.TermsAggregation.MaxBuckets != nil {
		most = int(*t.TermsAggregation.MaxBuckets)
	}
	if most < 1 || most > maxBuckets {
		return nil, invalid("maxBuckets is between 1 and %d", maxBuckets)
	}
	out := &iot.GetBucketsAggregationResponse{}
	err := x.over(ctx, question{in.IndexName, in.QueryVersion, in.QueryString, in.AggregationField}, func(v *values) (err error) {
		out.Buckets, err = v.buckets(most)
		if err != nil {
			return err
		}
		var total int64
		if err := v.tx.QueryRow(`SELECT COUNT(DISTINCT v.document)`+v.from(), v.args...).Scan(&total); err != nil {
			return err
		}
		out.TotalCount = clamp(total)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// buckets counts documents by value; values that differ in upper and lower case alone are one, written as the first
// document has it.
func (v *values) buckets(most int) ([]*iot.Bucket, error) {
	args := append(slices.Clone(v.args), most)
	rows, err := v.tx.Query(fmt.Sprintf(`SELECT %s, COUNT(DISTINCT v.document) AS n, MIN(v.document)%s GROUP BY %s ORDER BY n DESC, %s LIMIT $%d`,
		v.value, v.from(), v.value, v.value, len(args)), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []*iot.Bucket{}
	var first []int64
	for rows.Next() {
		var key string
		var number float64
		var n, document int64
		var into any = &key
		if v.typ == iot.FieldTypeNumber {
			into = &number
		}
		if err := rows.Scan(into, &n, &document); err != nil {
			return nil, err
		}
		if v.typ == iot.FieldTypeNumber {
			key = fmt.Sprint(number)
		}
		list, first = append(list, &iot.Bucket{KeyValue: &key, Count: clamp(n)}), append(first, document)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	for i, b := range list {
		if v.typ == iot.FieldTypeString {
			if err := v.spell(b.KeyValue, first[i]); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}

// spell writes a folded value as a document has it.
func (v *values) spell(key *string, document int64) error {
	var content []byte
	if err := v.tx.QueryRow(`SELECT content FROM index_document WHERE number = $1`, document).Scan(&content); err != nil {
		return err
	}
	d, err := decode(content)
	if err != nil {
		return err
	}
	for _, val := range d {
		if val.Field == v.field && wholeText(val.Text) == *key {
			*key = val.Text
			return nil
		}
	}
	return nil
}
