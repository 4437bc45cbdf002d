package table

import (
	"context"
	"slices"

	"flotilla/internal/aws/dynamodb"
	"flotilla/internal/store"
	"flotilla/internal/table/expression"
)

// asked are parameters that operations on items share.
func asked(capacity, onFailure *string, more ...param) error {
	return unserved(append(more,
		param{"ReturnConsumedCapacity", capacity != nil && *capacity != dynamodb.ReturnConsumedCapacityNone},
		param{"ReturnValuesOnConditionCheckFailure", onFailure != nil && *onFailure != dynamodb.ReturnValuesOnConditionCheckFailureNone})...)
}

// names takes placeholders; the values among them are checked.
func names(n map[string]string, values Item, expressions ...*string) (*expression.Names, error) {
	there := false
	for _, e := range expressions {
		there = there || e != nil
	}
	if !there && (len(n) > 0 || len(values) > 0) {
		return nil, invalid("ExpressionAttributeNames and ExpressionAttributeValues can only be specified when using expressions")
	}
	if _, err := checkItem(values); err != nil {
		return nil, err
	}
	return expression.NewNames(n, values), nil
}

// condition reads an optional condition; without one, it holds.
func condition(kind string, text *string, n *expression.Names) (expression.Condition, error) {
	if text == nil {
		return func(Item) bool { return true }, nil
	}
	c, err := expression.ParseCondition(kind, *text, n)
	if err != nil {
		return nil, invalid("%s", err)
	}
	return c, nil
}

var errCondition = &dynamodb.ConditionalCheckFailedException{Message: "The conditional request failed"}

// PutItem stores an item in the place of the one with its key.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_PutItem.html
func (t *Tables) PutItem(ctx context.Context, in *dynamodb.PutItemInput) (*dynamodb.PutItemOutput, error) {
	old, err := t.replace(ctx, in.TableName, in.Item, false, change{
		in.ReturnValues, in.ConditionExpression, in.ExpressionAttributeNames, in.ExpressionAttributeValues,
		asked(in.ReturnConsumedCapacity, in.ReturnValuesOnConditionCheckFailure, param{"Expected", in.Expected != nil}, param{"ConditionalOperator", in.ConditionalOperator != nil}),
	})
	return &dynamodb.PutItemOutput{Attributes: old}, err
}

// DeleteItem deletes an item, if it is there.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_DeleteItem.html
func (t *Tables) DeleteItem(ctx context.Context, in *dynamodb.DeleteItemInput) (*dynamodb.DeleteItemOutput, error) {
	old, err := t.replace(ctx, in.TableName, in.Key, true, change{
		in.ReturnValues, in.ConditionExpression, in.ExpressionAttributeNames, in.ExpressionAttributeValues,
		asked(in.ReturnConsumedCapacity, in.ReturnValuesOnConditionCheckFailure, param{"Expected", in.Expected != nil}, param{"ConditionalOperator", in.ConditionalOperator != nil}),
	})
	return &dynamodb.DeleteItemOutput{Attributes: old}, err
}

// change is what PutItem and DeleteItem share.
type change struct {
	returns, condition *string
	names              map[string]string
	values             Item
	refused            error
}

// replace puts or deletes and gives the old item when it is asked for.
func (t *Tables) replace(ctx context.Context, name string, item Item, remove bool, c change) (old Item, err error) {
	if c.refused != nil {
		return nil, c.refused
	}
	if r := value(c.returns); r != "" && r != dynamodb.ReturnValueNone && r != dynamodb.ReturnValueAllOld {
		return nil, invalid("ReturnValues can only be ALL_OLD or NONE")
	}
	n, err := names(c.names, c.values, c.condition)
	if err != nil {
		return nil, err
	}
	holds, err := condition("ConditionExpression", c.condition, n)
	if err != nil {
		return nil, err
	}
	if err := n.Unused(); err != nil {
		return nil, invalid("%s", err)
	}
	size, err := checkItem(item)
	if err != nil {
		return nil, err
	}
	err = t.write(ctx, name, func(tx store.Tx, one *table) error {
		k, err := one.keyOf(item)
		if remove {
			k, err = one.exactKey(item)
		}
		if err != nil {
			return err
		}
		if old, err = one.get(tx, k); err != nil {
			return err
		}
		switch {
		case !holds(old):
			return errCondition
		case remove:
			return one.delete(tx, k)
		}
		return one.put(tx, k, item, size)
	})
	if err != nil || value(c.returns) != dynamodb.ReturnValueAllOld {
		return nil, err
	}
	return old, nil
}

// UpdateItem changes attributes of an item, which it makes when there is none.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateItem.html
func (t *Tables) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput) (*dynamodb.UpdateItemOutput, error) {
	err := asked(in.ReturnConsumedCapacity, in.ReturnValuesOnConditionCheckFailure, param{"Expected", in.Expected != nil},
		param{"ConditionalOperator", in.ConditionalOperator != nil}, param{"AttributeUpdates", in.AttributeUpdates != nil})
	if err != nil {
		return nil, err
	}
	n, err := names(in.ExpressionAttributeNames, in.ExpressionAttributeValues, in.UpdateExpression, in.ConditionExpression)
	if err != nil {
		return nil, err
	}
	update := &expression.Update{}
	if in.UpdateExpression != nil {
		if update, err = expression.ParseUpdate(*in.UpdateExpression, n); err != nil {
			return nil, invalid("%s", err)
		}
	}
	holds, err := condition("ConditionExpression", in.ConditionExpression, n)
	if err != nil {
		return nil, err
	}
	if err := n.Unused(); err != nil {
		return nil, invalid("%s", err)
	}
	var old, after Item
	err = t.write(ctx, in.TableName, func(tx store.Tx, one *table) (err error) {
		old, after, err = one.update(tx, in.Key, update, holds)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &dynamodb.UpdateItemOutput{Attributes: returned(value(in.ReturnValues), old, after, update)}, nil
}

func (t *table) update(tx store.Tx, keyItem Item, update *expression.Update, holds expression.Condition) (old, after Item, err error) {
	k, err := t.exactKey(keyItem)
	if err != nil {
		return nil, nil, err
	}
	for _, path := range update.Paths() {
		if top := path.Top(); top == t.Hash.Name || top == t.Range.Name {
			return nil, nil, invalid(badParameter+"Cannot update attribute %s. This attribute is part of the key", top)
		}
	}
	if old, err = t.get(tx, k); err != nil {
		return nil, nil, err
	}
	if !holds(old) {
		return nil, nil, errCondition
	}
	before := old
	if before == nil {
		before = keyItem
	}
	if after, err = update.Apply(before); err != nil {
		return nil, nil, invalid("%s", err)
	}
	size, err := checkItem(after)
	if err != nil {
		return nil, nil, err
	}
	if size > maxItem {
		return nil, nil, invalid("Item size to update has exceeded the maximum allowed size")
	}
	return old, after, t.put(tx, k, after, size)
}

// returned are the attributes that UpdateItem answers with.
func returned(want string, old, after Item, update *expression.Update) Item {
	switch want {
	case dynamodb.ReturnValueAllOld:
		return old
	case dynamodb.ReturnValueAllNew:
		return after
	case dynamodb.ReturnValueUpdatedOld:
		old = expression.Projection(update.Paths()).Of(old)
	case dynamodb.ReturnValueUpdatedNew:
		old = expression.Projection(update.Paths()).Of(after)
	default:
		return nil
	}
	if len(old) == 0 {
		return nil
	}
	return old
}

// GetItem reads an item.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_GetItem.html
func (t *Tables) GetItem(ctx context.Context, in *dynamodb.GetItemInput) (*dynamodb.GetItemOutput, error) {
	if err := asked(in.ReturnConsumedCapacity, nil, param{"AttributesToGet", in.AttributesToGet != nil}); err != nil {
		return nil, err
	}
	project, err := projection(in.ProjectionExpression, in.ExpressionAttributeNames)
	if err != nil {
		return nil, err
	}
	out := &dynamodb.GetItemOutput{}
	err = t.read(ctx, in.TableName, func(tx store.Tx, one *table) error {
		k, err := one.exactKey(in.Key)
		if err != nil {
			return err
		}
		item, err := one.get(tx, k)
		if item != nil {
			out.Item = project(item)
		}
		return err
	})
	return out, err
}

// projection reads an optional projection on its own.
func projection(text *string, n map[string]string) (func(Item) Item, error) {
	ns, err := names(n, nil, text)
	if err != nil {
		return nil, err
	}
	project, err := projected(text, ns)
	if err == nil {
		if unused := ns.Unused(); unused != nil {
			err = invalid("%s", unused)
		}
	}
	return project, err
}

func projected(text *string, ns *expression.Names) (func(Item) Item, error) {
	if text == nil {
		return func(i Item) Item { return i }, nil
	}
	p, err := expression.ParseProjection(*text, ns)
	if err != nil {
		return nil, invalid("%s", err)
	}
	return p.Of, nil
}

const maxBatchGet, maxBatchWrite, maxBatchBytes = 100, 25, 16 << 20

// BatchGetItem reads items of several tables.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html
func (t *Tables) BatchGetItem(ctx context.Context, in *dynamodb.BatchGetItemInput) (*dynamodb.BatchGetItemOutput, error) {
	if err := asked(in.ReturnConsumedCapacity, nil); err != nil {
		return nil, err
	}
	out := &dynamodb.BatchGetItemOutput{Responses: map[string][]Item{}, UnprocessedKeys: map[string]*dynamodb.KeysAndAttributes{}}
	n, bytes := 0, 0
	for _, ask := range in.RequestItems {
		if ask == nil || len(ask.Keys) == 0 {
			return nil, invalid("RequestItems: Keys has 1 to 100 members")
		}
		n += len(ask.Keys)
	}
	if n == 0 || n > maxBatchGet {
		return nil, invalid("Too many or no items requested for the BatchGetItem call: %d", n)
	}
	for name, ask := range in.RequestItems {
		if err := unserved(param{"AttributesToGet", ask.AttributesToGet != nil}); err != nil {
			return nil, err
		}
		project, err := projection(ask.ProjectionExpression, ask.ExpressionAttributeNames)
		if err != nil {
			return nil, err
		}
		out.Responses[name] = []Item{}
		err = t.read(ctx, name, func(tx store.Tx, one *table) error {
			seen := map[string]bool{}
			for i, want := range ask.Keys {
				k, err := one.exactKey(want)
				if err != nil {
					return err
				}
				if seen[k.text()] {
					return invalid("Provided list of item keys contains duplicates")
				}
				seen[k.text()] = true
				if bytes > maxBatchBytes {
					rest := *ask
					rest.Keys = slices.Clone(ask.Keys[i:])
					out.UnprocessedKeys[name] = &rest
					return nil
				}
				item, err := one.get(tx, k)
				if err != nil {
					return err
				}
				if item != nil {
					size, _ := checkItem(item)
					bytes += size
					out.Responses[name] = append(out.Responses[name], project(item))
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// text tells keys apart.
func (k key) text() string { return string(rune(len(k.hash))) + string(k.hash) + string(k.rng) }

// BatchWriteItem puts and deletes items of several tables, all or none of them.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html
func (t *Tables) BatchWriteItem(ctx context.Context, in *dynamodb.BatchWriteItemInput) (*dynamodb.BatchWriteItemOutput, error) {
	if err := asked(in.ReturnConsumedCapacity, nil); err != nil {
		return nil, err
	}
	n := 0
	for _, list := range in.RequestItems {
		n += len(list)
	}
	if n == 0 || n > maxBatchWrite {
		return nil, invalid("Too many or no items requested for the BatchWriteItem call: %d", n)
	}
	err := t.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		for name, list := range in.RequestItems {
			one, err := selectTable(tx, nameOf(name))
			if err != nil {
				return err
			}
			if err := one.batch(tx, list); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &dynamodb.BatchWriteItemOutput{UnprocessedItems: map[string][]*dynamodb.WriteRequest{}}, nil
}

func (t *table) batch(tx store.Tx, list []*dynamodb.WriteRequest) error {
	seen := map[string]bool{}
	for _, w := range list {
		var k key
		var size int
		var err error
		switch {
		case w == nil || (w.PutRequest == nil) == (w.DeleteRequest == nil):
			return invalid("Supplied WriteRequest must contain exactly one of PutRequest and DeleteRequest")
		case w.DeleteRequest != nil:
			k, err = t.exactKey(w.DeleteRequest.Key)
		default:
			if size, err = checkItem(w.PutRequest.Item); err == nil {
				k, err = t.keyOf(w.PutRequest.Item)
			}
		}
		switch {
		case err != nil:
			return err
		case seen[k.text()]:
			return invalid("Provided list of item keys contains duplicates")
		}
		seen[k.text()] = true
		if w.DeleteRequest != nil {
			err = t.delete(tx, k)
		} else {
			err = t.put(tx, k, w.PutRequest.Item, size)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
