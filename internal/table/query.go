package table

import (
	"context"
	"hash/fnv"
	"strconv"

	"flotilla/internal/aws/dynamodb"
	"flotilla/internal/store"
	"flotilla/internal/table/expression"
)

const (
	maxPage = 1 << 20 // bytes of items that one Query or Scan looks at
	maxRows = 5000    // of them at once
)

// page is a Query or a Scan under way.
type page struct {
	filter  expression.Condition
	project func(Item) Item
	limit   int
	mine    func(hash []byte) bool // of a segment; nil: all

	items           []Item
	count, examined int32
	last            Item // nil at the end
}

// selects prepares what Query and Scan share.
func selects(sel, projection, filter *string, limit *int32, ns *expression.Names) (*page, error) {
	p := &page{limit: maxRows}
	if limit != nil {
		p.limit = min(int(*limit), maxRows)
	}
	var err error
	if p.filter, err = condition("FilterExpression", filter, ns); err != nil {
		return nil, err
	}
	if p.project, err = projected(projection, ns); err != nil {
		return nil, err
	}
	switch value(sel) {
	case "", dynamodb.SelectAllAttributes:
		if sel != nil && projection != nil {
			return nil, invalid("Cannot specify the ProjectionExpression when choosing to get ALL_ATTRIBUTES")
		}
	case dynamodb.SelectSpecificAttributes:
		if projection == nil {
			return nil, invalid("Must specify the ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES")
		}
	case dynamodb.SelectCount:
		if projection != nil {
			return nil, invalid("Cannot specify the ProjectionExpression when choosing to get only the Count")
		}
		p.project = nil
	default:
		return nil, invalid("ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName")
	}
	if err := ns.Unused(); err != nil {
		return nil, invalid("%s", err)
	}
	return p, nil
}

// read takes rows until the page is full.
func (p *page) read(tx store.Tx, t *table, where string, args []any) error {
	args = append(args, p.limit)
	rows, err := tx.Query(`SELECT hash_key, size, item FROM dynamo_item WHERE table_id = $1 AND `+where+` LIMIT $`+strconv.Itoa(len(args)), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	bytes, n := 0, 0
	for rows.Next() {
		var hash []byte
		var size int
		var text string
		if err := rows.Scan(&hash, &size, &text); err != nil {
			return err
		}
		item, err := decode(text)
		if err != nil {
			return err
		}
		n++
		bytes += size
		if p.mine == nil || p.mine(hash) {
			p.examined++
			if p.filter(item) {
				p.count++
				if p.project != nil {
					p.items = append(p.items, p.project(item))
				}
			}
		}
		if n == p.limit || bytes >= maxPage {
			p.last = t.keyIn(item)
			break
		}
	}
	return rows.Err()
}

// Query reads items of one hash key in the order of their range keys.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Query.html
func (t *Tables) Query(ctx context.Context, in *dynamodb.QueryInput) (*dynamodb.QueryOutput, error) {
	err := asked(in.ReturnConsumedCapacity, nil, param{"IndexName", in.IndexName != nil}, param{"AttributesToGet", in.AttributesToGet != nil},
		param{"KeyConditions", in.KeyConditions != nil}, param{"QueryFilter", in.QueryFilter != nil}, param{"ConditionalOperator", in.ConditionalOperator != nil})
	if err != nil {
		return nil, err
	}
	if in.KeyConditionExpression == nil {
		return nil, invalid("Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.")
	}
	ns, err := names(in.ExpressionAttributeNames, in.ExpressionAttributeValues, in.KeyConditionExpression)
	if err != nil {
		return nil, err
	}
	terms, err := expression.ParseKey(*in.KeyConditionExpression, ns)
	if err != nil {
		return nil, invalid("%s", err)
	}
	p, err := selects(in.Select, in.ProjectionExpression, in.FilterExpression, in.Limit, ns)
	if err != nil {
		return nil, err
	}
	forward := in.ScanIndexForward == nil || *in.ScanIndexForward
	err = t.read(ctx, in.TableName, func(tx store.Tx, one *table) error {
		where, args, err := one.span(terms)
		if err != nil {
			return err
		}
		if in.ExclusiveStartKey != nil {
			k, err := one.exactKey(in.ExclusiveStartKey)
			if err != nil {
				return invalid("The provided starting key is invalid: %s", err)
			}
			if string(k.hash) != string(args[1].([]byte)) {
				return invalid("The provided starting key is outside query boundaries based on provided conditions")
			}
			args = append(args, k.rng)
			where += ` AND range_key ` + map[bool]string{true: ">", false: "<"}[forward] + ` $` + strconv.Itoa(len(args))
		}
		where += ` ORDER BY range_key`
		if !forward {
			where += ` DESC`
		}
		return p.read(tx, one, where, args)
	})
	if err != nil {
		return nil, err
	}
	return &dynamodb.QueryOutput{Items: p.items, Count: p.count, ScannedCount: p.examined, LastEvaluatedKey: p.last}, nil
}

// span is the part of the table that key conditions name, as SQL.
func (t *table) span(terms []expression.KeyTerm) (where string, args []any, err error) {
	var hash, rng *expression.KeyTerm
	for i := range terms {
		switch {
		case terms[i].Name == t.Hash.Name && terms[i].Op == "=" && hash == nil:
			hash = &terms[i]
		case t.Range.Name != "" && terms[i].Name == t.Range.Name && rng == nil:
			rng = &terms[i]
		default:
			return "", nil, invalid("Query key condition not supported: %s", terms[i])
		}
	}
	if hash == nil {
		return "", nil, invalid("Query condition missed key schema element: %s", t.Hash.Name)
	}
	b, err := keyBytes(Item{t.Hash.Name: hash.Low}, t.Hash, maxHashKey)
	if err != nil {
		return "", nil, err
	}
	where, args = `hash_key = $2`, []any{t.id, b}
	if rng == nil {
		return where, args, nil
	}
	bound := func(op string, b []byte) {
		args = append(args, b)
		where += ` AND range_key ` + op + ` $` + strconv.Itoa(len(args))
	}
	low, err := keyBytes(Item{t.Range.Name: rng.Low}, t.Range, maxRangeKey)
	if err != nil {
		return "", nil, err
	}
	switch rng.Op {
	case "between":
		high, err := keyBytes(Item{t.Range.Name: rng.High}, t.Range, maxRangeKey)
		if err != nil {
			return "", nil, err
		}
		if string(low) > string(high) {
			return "", nil, invalid("The BETWEEN operator requires upper bound to be greater than or equal to lower bound")
		}
		bound(">=", low)
		bound("<=", high)
	case "begins_with":
		if t.Range.Type == "N" {
			return "", nil, invalid("Invalid operand type for begins_with: N")
		}
		bound(">=", low)
		if after := successor(low); after != nil {
			bound("<", after)
		}
	default:
		bound(rng.Op, low)
	}
	return where, args, nil
}

// successor is the least text that is greater than all that begin with b; nil when there is none.
func successor(b []byte) []byte {
	out := append([]byte(nil), b...)
	for i := len(out) - 1; i >= 0; i-- {
		if out[i] < 0xff {
			out[i]++
			return out[:i+1]
		}
	}
	return nil
}

// Scan reads all items of a table, or one segment of them.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Scan.html
func (t *Tables) Scan(ctx context.Context, in *dynamodb.ScanInput) (*dynamodb.ScanOutput, error) {
	err := asked(in.ReturnConsumedCapacity, nil, param{"IndexName", in.IndexName != nil}, param{"AttributesToGet", in.AttributesToGet != nil},
		param{"ScanFilter", in.ScanFilter != nil}, param{"ConditionalOperator", in.ConditionalOperator != nil})
	if err != nil {
		return nil, err
	}
	ns, err := names(in.ExpressionAttributeNames, in.ExpressionAttributeValues, in.FilterExpression, in.ProjectionExpression)
	if err != nil {
		return nil, err
	}
	p, err := selects(in.Select, in.ProjectionExpression, in.FilterExpression, in.Limit, ns)
	if err != nil {
		return nil, err
	}
	if (in.Segment == nil) != (in.TotalSegments == nil) || in.Segment != nil && *in.Segment >= *in.TotalSegments {
		return nil, invalid("The Segment parameter is required together with TotalSegments, and less than it")
	}
	if in.Segment != nil {
		p.mine = func(hash []byte) bool {
			h := fnv.New32a()
			_, _ = h.Write(hash)
			return h.Sum32()%uint32(*in.TotalSegments) == uint32(*in.Segment)
		}
	}
	err = t.read(ctx, in.TableName, func(tx store.Tx, one *table) error {
		where, args := ``, []any{one.id}
		if in.ExclusiveStartKey != nil {
			k, err := one.exactKey(in.ExclusiveStartKey)
			if err != nil {
				return invalid("The provided starting key is invalid: %s", err)
			}
			where, args = `(hash_key, range_key) > ($2, $3) `, append(args, k.hash, k.rng)
		} else {
			where = `TRUE `
		}
		return p.read(tx, one, where+`ORDER BY hash_key, range_key`, args)
	})
	if err != nil {
		return nil, err
	}
	return &dynamodb.ScanOutput{Items: p.items, Count: p.count, ScannedCount: p.examined, LastEvaluatedKey: p.last}, nil
}
