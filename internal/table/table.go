package table

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/dynamodb"
	"flotilla/internal/store"
)

// Config is the room's part of the configuration; its zero value works.
type Config struct {
	MaxTables int           `name:"table.max-tables" default:"2500" help:"Most DynamoDB-like tables."`
	Sweep     time.Duration `name:"table.sweep" default:"1m" help:"How often items whose time to live has ended are deleted."`
}

func (c Config) withDefaults() Config {
	if c.MaxTables <= 0 {
		c.MaxTables = 2500
	}
	if c.Sweep <= 0 {
		c.Sweep = time.Minute
	}
	return c
}

// Deps are the others that the room works with.
type Deps struct {
	Account aws.Account
	DB      *store.DB
	Log     *slog.Logger     // nil discards
	Now     func() time.Time // time.Now when nil
}

// Tables serves DynamoDB's operations. It is safe for concurrent use.
type Tables struct {
	Deps
	cfg Config
}

// New makes the room.
func New(cfg Config, d Deps) *Tables {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	return &Tables{Deps: d, cfg: cfg.withDefaults()}
}

// nameOf takes a table's name or ARN. An ARN of anything else is the name of no table: what policies decided about
// and what is acted on are the same.
func nameOf(text string) string {
	if a, ok := aws.ParseARN(text); ok && a.Service == "dynamodb" {
		if name, ok := strings.CutPrefix(a.Resource, "table/"); ok {
			return name
		}
	}
	return text
}

// write runs fn on a table in a transaction.
func (t *Tables) write(ctx context.Context, name string, fn func(store.Tx, *table) error) error {
	return t.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		one, err := selectTable(tx, nameOf(name))
		if err != nil {
			return err
		}
		return fn(tx, one)
	})
}

func (t *Tables) read(ctx context.Context, name string, fn func(store.Tx, *table) error) error {
	return t.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		one, err := selectTable(tx, nameOf(name))
		if err != nil {
			return err
		}
		return fn(tx, one)
	})
}

// unserved refuses the first parameter that is asked for and not implemented.
func unserved(params ...param) error {
	for _, p := range params {
		if p.there {
			return invalid("The parameter %s is not implemented.", p.name)
		}
	}
	return nil
}

type param struct {
	name  string
	there bool
}

// CreateTable makes a table, which is ACTIVE at once.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_CreateTable.html
func (t *Tables) CreateTable(ctx context.Context, in *dynamodb.CreateTableInput) (*dynamodb.CreateTableOutput, error) {
	err := unserved(param{"GlobalSecondaryIndexes", len(in.GlobalSecondaryIndexes) > 0}, param{"LocalSecondaryIndexes", len(in.LocalSecondaryIndexes) > 0},
		param{"StreamSpecification", in.StreamSpecification != nil}, param{"SSESpecification", in.SSESpecification != nil}, param{"Tags", len(in.Tags) > 0},
		param{"WarmThroughput", in.WarmThroughput != nil}, param{"ResourcePolicy", in.ResourcePolicy != nil}, param{"OnDemandThroughput", in.OnDemandThroughput != nil})
	if err != nil {
		return nil, err
	}
	one := &table{name: nameOf(in.TableName), id: t.DB.NextID(), Created: t.Now().UnixMilli(), OnDemand: value(in.BillingMode) == dynamodb.BillingModePayPerRequest, Protected: value(in.DeletionProtectionEnabled)}
	if len(one.name) < 3 || len(one.name) > 255 || strings.Trim(one.name, nameLetters) != "" {
		return nil, invalid("TableName must have 3 to 255 of the characters a-z, A-Z, 0-9, '_', '-', and '.'")
	}
	if err := one.schema(in.KeySchema, in.AttributeDefinitions); err != nil {
		return nil, err
	}
	if err := one.provision(in.ProvisionedThroughput); err != nil {
		return nil, err
	}
	text, err := json.Marshal(one)
	if err != nil {
		return nil, err
	}
	err = t.DB.Write(ctx, func(_ context.Context, tx store.Tx) error {
		var n int
		if err := tx.QueryRow(`SELECT count(*) FROM dynamo_table`).Scan(&n); err != nil {
			return err
		}
		if n >= t.cfg.MaxTables {
			return &dynamodb.LimitExceededException{Message: fmt.Sprintf("There are %d tables already", n)}
		}
		_, err := tx.Exec(`INSERT INTO dynamo_table (name, id, description) VALUES ($1, $2, $3)`, one.name, one.id, string(text))
		return err
	})
	if errors.Is(err, store.ErrConflict) {
		return nil, &dynamodb.ResourceInUseException{Message: "Table already exists: " + one.name}
	}
	if err != nil {
		return nil, err
	}
	return &dynamodb.CreateTableOutput{TableDescription: t.describe(one, 0, 0)}, nil
}

const nameLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"

// schema takes the key: HASH, then perhaps RANGE, each of them defined, and nothing else.
func (t *table) schema(keys []*dynamodb.KeySchemaElement, definitions []*dynamodb.AttributeDefinition) error {
	types := map[string]string{}
	for _, d := range definitions {
		types[d.AttributeName] = d.AttributeType
	}
	for i, k := range keys {
		a := attribute{k.AttributeName, types[k.AttributeName]}
		switch {
		case a.Type == "":
			return invalid(badParameter+"Some index key attributes are not defined in AttributeDefinitions. Keys: [%s]", a.Name)
		case i == 0 && k.KeyType == dynamodb.KeyTypeHash:
			t.Hash = a
		case i == 1 && k.KeyType == dynamodb.KeyTypeRange && a.Name != t.Hash.Name:
			t.Range = a
		default:
			return invalid("Invalid KeySchema: The first KeySchemaElement is a HASH key type, the second a RANGE of another attribute")
		}
	}
	if len(types) != len(keys) || len(definitions) != len(keys) {
		return invalid(badParameter + "Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions")
	}
	return nil
}

func (t *table) provision(p *dynamodb.ProvisionedThroughput) error {
	switch {
	case t.OnDemand && p != nil:
		return invalid(badParameter + "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
	case t.OnDemand:
		t.Read, t.Write = 0, 0
	case p == nil:
		return invalid(badParameter + "ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED")
	default:
		t.Read, t.Write = p.ReadCapacityUnits, p.WriteCapacityUnits
	}
	return nil
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func (t *Tables) describe(one *table, items, bytes int64) *dynamodb.TableDescription {
	d := &dynamodb.TableDescription{
		TableName: &one.name, TableStatus: new(dynamodb.TableStatusActive), CreationDateTime: new(aws.Time{Time: time.UnixMilli(one.Created)}),
		TableArn: new(t.Account.ARN("dynamodb", "table/"+one.name)), TableId: new(fmt.Sprintf("%08x-0000-4000-8000-%012x", uint32(one.id>>48), one.id&(1<<48-1))),
		ItemCount: &items, TableSizeBytes: &bytes, DeletionProtectionEnabled: &one.Protected,
		ProvisionedThroughput: &dynamodb.ProvisionedThroughputDescription{NumberOfDecreasesToday: new(int64(0)), ReadCapacityUnits: &one.Read, WriteCapacityUnits: &one.Write},
	}
	if one.OnDemand {
		d.BillingModeSummary = &dynamodb.BillingModeSummary{BillingMode: new(dynamodb.BillingModePayPerRequest)}
	}
	for _, a := range []struct {
		attribute
		kind string
	}{{one.Hash, dynamodb.KeyTypeHash}, {one.Range, dynamodb.KeyTypeRange}} {
		if a.Name != "" {
			d.KeySchema = append(d.KeySchema, &dynamodb.KeySchemaElement{AttributeName: a.Name, KeyType: a.kind})
			d.AttributeDefinitions = append(d.AttributeDefinitions, &dynamodb.AttributeDefinition{AttributeName: a.Name, AttributeType: a.Type})
		}
	}
	return d
}

// maxCounted bounds what DescribeTable counts; AWS's count is an estimate, too.
const maxCounted = 100_000

// DescribeTable describes a table. ItemCount and TableSizeBytes are of its first 100,000 items.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_DescribeTable.html
func (t *Tables) DescribeTable(ctx context.Context, in *dynamodb.DescribeTableInput) (out *dynamodb.DescribeTableOutput, err error) {
	err = t.read(ctx, in.TableName, func(tx store.Tx, one *table) error {
		var items, bytes int64
		err := tx.QueryRow(`SELECT count(*), coalesce(CAST(sum(size) AS BIGINT), 0) FROM (SELECT size FROM dynamo_item WHERE table_id = $1 LIMIT $2) AS some`, one.id, maxCounted).Scan(&items, &bytes)
		out = &dynamodb.DescribeTableOutput{Table: t.describe(one, items, bytes)}
		return err
	})
	return out, err
}

// DeleteTable deletes a table and, a little later, its items.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_DeleteTable.html
func (t *Tables) DeleteTable(ctx context.Context, in *dynamodb.DeleteTableInput) (out *dynamodb.DeleteTableOutput, err error) {
	err = t.write(ctx, in.TableName, func(tx store.Tx, one *table) error {
		if one.Protected {
			return invalid("Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first.")
		}
		d := t.describe(one, 0, 0)
		d.TableStatus = new(dynamodb.TableStatusDeleting)
		out = &dynamodb.DeleteTableOutput{TableDescription: d}
		_, err := tx.Exec(`DELETE FROM dynamo_table WHERE id = $1`, one.id)
		return err
	})
	return out, err
}

// ListTables lists names in their order.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_ListTables.html
func (t *Tables) ListTables(ctx context.Context, in *dynamodb.ListTablesInput) (*dynamodb.ListTablesOutput, error) {
	most := 100
	if in.Limit != nil {
		most = int(*in.Limit)
	}
	out := &dynamodb.ListTablesOutput{}
	err := t.DB.Read(ctx, func(_ context.Context, tx store.Tx) error {
		rows, err := tx.Query(`SELECT name FROM dynamo_table WHERE name > $1 ORDER BY name LIMIT $2`, value(in.ExclusiveStartTableName), most+1)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			out.TableNames = append(out.TableNames, name)
		}
		return rows.Err()
	})
	if len(out.TableNames) > most {
		out.TableNames = out.TableNames[:most]
		out.LastEvaluatedTableName = &out.TableNames[most-1]
	}
	return out, err
}

// UpdateTable changes the billing mode, the provisioned throughput and the protection against deletion.
//
// AWS: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateTable.html
func (t *Tables) UpdateTable(ctx context.Context, in *dynamodb.UpdateTableInput) (out *dynamodb.UpdateTableOutput, err error) {
	err = unserved(param{"GlobalSecondaryIndexUpdates", len(in.GlobalSecondaryIndexUpdates) > 0}, param{"AttributeDefinitions", len(in.AttributeDefinitions) > 0},
		param{"StreamSpecification", in.StreamSpecification != nil}, param{"SSESpecification", in.SSESpecification != nil}, param{"ReplicaUpdates", len(in.ReplicaUpdates) > 0},
		param{"TableClass", in.TableClass != nil}, param{"MultiRegionConsistency", in.MultiRegionConsistency != nil},
		param{"OnDemandThroughput", in.OnDemandThroughput != nil}, param{"WarmThroughput", in.WarmThroughput != nil})
	if err != nil {
		return nil, err
	}
	err = t.write(ctx, in.TableName, func(tx store.Tx, one *table) error {
		if in.DeletionProtectionEnabled != nil {
			one.Protected = *in.DeletionProtectionEnabled
		}
		if in.BillingMode != nil {
			one.OnDemand = *in.BillingMode == dynamodb.BillingModePayPerRequest
		}
		if in.BillingMode != nil || in.ProvisionedThroughput != nil {
			if err := one.provision(in.ProvisionedThroughput); err != nil {
				return err
			}
		}
		out = &dynamodb.UpdateTableOutput{TableDescription: t.describe(one, 0, 0)}
		return one.save(tx)
	})
	return out, err
}
