package action

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"flotilla/internal/aws/iot"
	"flotilla/internal/rules/sql"
)

// Attributes are an item of a table, or its key, as DynamoDB's JSON has them: name, then type, then value.
type Attributes map[string]map[string]any

// Change is what a dynamoDB or dynamoDBv2 action does to a table.
type Change struct {
	Table string
	// Operation is INSERT (Item replaces what has its key), UPDATE (the attributes of Item that are not of Key are set)
	// or DELETE (of Key).
	Operation string
	Key, Item Attributes // Key is nil when the table alone knows it (dynamoDBv2)
}

// keySource is a part of the key of a dynamoDB action; its numbers are indexes of Record.Fields, -1 when it has none.
type keySource struct{ field, value, kind int }

func (k keySource) attribute(r *Record) (name string, typed map[string]any, err error) {
	name, text := r.Fields[k.field], r.Fields[k.value]
	if name == "" || text == "" {
		return "", nil, errors.New("a key has a name and a value that are not empty")
	}
	switch kind := optional(r, k.kind, "STRING"); kind {
	case "STRING":
		return name, map[string]any{"S": text}, nil
	case "NUMBER":
		if _, err := strconv.ParseFloat(text, 64); err != nil {
			return "", nil, fmt.Errorf("the value %q of %s is not a NUMBER", text, name)
		}
		return name, map[string]any{"N": text}, nil
	default:
		return "", nil, fmt.Errorf("the type %q of %s is neither STRING nor NUMBER", kind, name)
	}
}

func checkKeyType(s string) error {
	if s != "STRING" && s != "NUMBER" {
		return fmt.Errorf("a key's type %q is neither STRING nor NUMBER", s)
	}
	return nil
}

func checkOperation(s string) error {
	switch s {
	case "INSERT", "UPDATE", "DELETE":
		return nil
	}
	return fmt.Errorf("operation %q is none of INSERT, UPDATE and DELETE", s)
}

func (c *compiler) key(what, field, text string, kind *string) keySource {
	k := keySource{field: c.checked(what+"KeyField", field, named(what+"KeyField", 255)), value: c.template(what+"KeyValue", &text, sql.Generic)}
	k.kind = c.template(what+"KeyType", kind, sql.Generic)
	c.constant(k.kind, checkKeyType)
	return k
}

// compileDynamoDB makes an action that writes the message as one attribute of an item: of JSON its value, else its bytes.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/dynamodb-rule-action.html
func compileDynamoDB(c *compiler, a *iot.Action) *Action {
	p := a.DynamoDB
	c.role(p.RoleArn)
	table := c.checked("tableName", p.TableName, named("tableName", 255))
	hash := c.key("hash", p.HashKeyField, p.HashKeyValue, p.HashKeyType)
	keys := []keySource{hash}
	if (p.RangeKeyField == nil) != (p.RangeKeyValue == nil) {
		c.refuse("rangeKeyField and rangeKeyValue belong together")
	} else if p.RangeKeyField != nil {
		keys = append(keys, c.key("range", *p.RangeKeyField, *p.RangeKeyValue, p.RangeKeyType))
	}
	operation := c.template("operation", p.Operation, sql.Generic)
	c.constant(operation, checkOperation)
	field := c.template("payloadField", p.PayloadField, sql.Generic)
	return tableAction(table, func(r *Record) (Change, error) {
		ch := Change{Table: r.Fields[table], Operation: optional(r, operation, "INSERT"), Key: Attributes{}, Item: Attributes{}}
		if err := errors.Join(checkOperation(ch.Operation), named("tableName", 255)(ch.Table)); err != nil {
			return ch, err
		}
		for _, k := range keys {
			name, typed, err := k.attribute(r)
			if err != nil {
				return ch, err
			}
			ch.Key[name], ch.Item[name] = typed, typed
		}
		to := optional(r, field, "payload")
		if _, taken := ch.Key[to]; taken || to == "" {
			return ch, fmt.Errorf("payloadField %q is empty or a key", to)
		}
		ch.Item[to] = payloadAttribute(r.Payload)
		return ch, nil
	}, func(r *Record) string {
		id, _ := json.Marshal([]string{optional(r, keys[0].value, ""), optional(r, keys[len(keys)-1].value, "")})
		return string(id)
	})
}

// compileDynamoDBv2 makes an action that writes each member of the message, a JSON object, as an attribute of an item.
//
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/dynamodb-v2-rule-action.html
func compileDynamoDBv2(c *compiler, a *iot.Action) *Action {
	p := a.DynamoDBv2
	c.role(p.RoleArn)
	if p.PutItem == nil {
		c.refuse("putItem is required")
		return &Action{}
	}
	table := c.checked("tableName", p.PutItem.TableName, named("tableName", 255))
	return tableAction(table, func(r *Record) (Change, error) {
		ch := Change{Table: r.Fields[table], Operation: "INSERT", Item: Attributes{}}
		members, ok := decoded(r.Payload).(map[string]any)
		if !ok {
			return ch, errors.New("the message is not a JSON object, whose members are the attributes")
		}
		for name, v := range members {
			ch.Item[name] = attribute(v)
		}
		return ch, named("tableName", 255)(ch.Table)
	}, func(*Record) string { return "" }) // the key is not known: one at a time
}

// tableAction makes an action that changes tables; key names what the change is of within its table.
func tableAction(table int, change func(*Record) (Change, error), key func(*Record) string) *Action {
	return &Action{
		batch: func(Env) Batch { return Batch{Rows: 128, Bytes: 1 << 20} },
		open: func(env Env) (Sink, error) {
			if env.Engines.DynamoDB != EngineAWS {
				return nil, errors.New("there are no tables but those of --rules.dynamodb=aws")
			}
			s := &awsSink[Change]{limit: weight{awsInFlight, 4 << 20}, key: key, resource: func(r *Record) string { return r.Fields[table] }}
			s.entry = func(r *Record) (Change, weight, error) {
				ch, err := change(r)
				return ch, one(r, 0), err
			}
			s.send = func(ctx context.Context, _ string, entries []Change) ([]error, error) {
				return each(ctx, entries, func(ctx context.Context, ch Change) error { return changeAWS(ctx, env.AWS, ch) })
			}
			return s.start(env)
		},
	}
}

// changeAWS makes a change at DynamoDB.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateItem.html
func changeAWS(ctx context.Context, to AWS, ch Change) error {
	in := map[string]any{"TableName": ch.Table}
	operation := "PutItem"
	switch ch.Operation {
	case "INSERT":
		in["Item"] = ch.Item
	case "DELETE":
		operation, in["Key"] = "DeleteItem", ch.Key
	case "UPDATE":
		operation, in["Key"] = "UpdateItem", ch.Key
		names, values, expression := map[string]string{}, Attributes{}, "SET "
		for name, v := range ch.Item {
			if _, isKey := ch.Key[name]; isKey {
				continue
			}
			n := strconv.Itoa(len(names))
			if len(names) > 0 {
				expression += ", "
			}
			names["#"+n], values[":"+n] = name, v
			expression += "#" + n + " = :" + n
		}
		in["UpdateExpression"], in["ExpressionAttributeNames"], in["ExpressionAttributeValues"] = expression, names, values
	}
	return to.JSON(ctx, "dynamodb", "DynamoDB_20120810."+operation, "1.0", in, nil)
}

// decoded is the value of JSON with its numbers as they are written; nil when it is none.
func decoded(payload []byte) (v any) {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return nil
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil
	}
	return v
}

// payloadAttribute is a whole message as an attribute.
func payloadAttribute(payload []byte) map[string]any {
	if !json.Valid(payload) {
		return map[string]any{"B": payload}
	}
	return attribute(decoded(payload))
}

// attribute is a JSON value as DynamoDB types it.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_AttributeValue.html
func attribute(v any) map[string]any {
	switch v := v.(type) {
	case string:
		return map[string]any{"S": v}
	case json.Number:
		return map[string]any{"N": v.String()}
	case bool:
		return map[string]any{"BOOL": v}
	case []any:
		list := make([]map[string]any, len(v))
		for i, e := range v {
			list[i] = attribute(e)
		}
		return map[string]any{"L": list}
	case map[string]any:
		m := make(Attributes, len(v))
		for name, e := range v {
			m[name] = attribute(e)
		}
		return map[string]any{"M": m}
	default:
		return map[string]any{"NULL": true}
	}
}
