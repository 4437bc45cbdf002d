package table_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws"
	"flotilla/internal/aws/dynamodb"
	"flotilla/internal/store"
	"flotilla/internal/store/storetest"
	"flotilla/internal/table"
)

func item(t testing.TB, text string) table.Item {
	t.Helper()
	var i table.Item
	if err := json.Unmarshal([]byte(text), &i); err != nil {
		t.Fatal(err)
	}
	return i
}

func text(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var now = time.Unix(1_800_000_000, 0)

// with makes a table "readings" with a hash key thing (S) and a range key at (N).
func with(t *testing.T, fn func(t *testing.T, ctx context.Context, r *table.Tables, db *store.DB)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		r := table.New(table.Config{}, table.Deps{Account: aws.Account{ID: "123456789012", Region: "us-east-1"}, DB: db, Now: func() time.Time { return now }})
		_, err := r.CreateTable(t.Context(), &dynamodb.CreateTableInput{
			TableName: "readings", BillingMode: new("PAY_PER_REQUEST"),
			KeySchema:            []*dynamodb.KeySchemaElement{{AttributeName: "thing", KeyType: "HASH"}, {AttributeName: "at", KeyType: "RANGE"}},
			AttributeDefinitions: []*dynamodb.AttributeDefinition{{AttributeName: "thing", AttributeType: "S"}, {AttributeName: "at", AttributeType: "N"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		fn(t, t.Context(), r, db)
	})
}

func put(t *testing.T, r *table.Tables, text string) {
	t.Helper()
	if _, err := r.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: "readings", Item: item(t, text)}); err != nil {
		t.Fatal(err)
	}
}

func TestQueryOrdersNumbers(t *testing.T) {
	with(t, func(t *testing.T, ctx context.Context, r *table.Tables, _ *store.DB) {
		for _, n := range []string{"10", "-3", "2", "0", "1e2", "-20.5"} {
			put(t, r, `{"thing":{"S":"a"},"at":{"N":"`+n+`"}}`)
		}
		put(t, r, `{"thing":{"S":"b"},"at":{"N":"5"}}`)
		ask := &dynamodb.QueryInput{
			TableName: "readings", KeyConditionExpression: new("thing = :t AND #at BETWEEN :low AND :high"), Limit: new(int32(2)),
			ExpressionAttributeNames: map[string]string{"#at": "at"}, ExpressionAttributeValues: item(t, `{":t":{"S":"a"},":low":{"N":"-4"},":high":{"N":"100"}}`),
		}
		for _, forward := range []bool{true, false} {
			ask.ScanIndexForward, ask.ExclusiveStartKey = &forward, nil
			var got []string
			for {
				out, err := r.Query(ctx, ask)
				if err != nil {
					t.Fatal(err)
				}
				for _, i := range out.Items {
					got = append(got, *i["at"].N)
				}
				if ask.ExclusiveStartKey = out.LastEvaluatedKey; out.LastEvaluatedKey == nil {
					break
				}
			}
			want := "-3 0 2 10 100"
			if !forward {
				want = "100 10 2 0 -3"
			}
			if d := cmp.Diff(want, strings.Join(got, " ")); d != "" {
				t.Error(d)
			}
		}
	})
}

func TestUpdateAndConditions(t *testing.T) {
	with(t, func(t *testing.T, ctx context.Context, r *table.Tables, _ *store.DB) {
		put(t, r, `{"thing":{"S":"a"},"at":{"N":"1"},"n":{"N":"1.5"},"tags":{"SS":["x","y"]},"list":{"L":[{"S":"p"},{"S":"q"}]},"m":{"M":{"k":{"S":"v"}}}}`)
		out, err := r.UpdateItem(ctx, &dynamodb.UpdateItemInput{
			TableName: "readings", Key: item(t, `{"thing":{"S":"a"},"at":{"N":"1.0"}}`), ReturnValues: new("ALL_NEW"),
			UpdateExpression:          new("SET n = n + :one, #l[0] = :new, fresh = if_not_exists(fresh, :one), more = list_append(#l, #l) REMOVE m.k ADD tags :add DELETE other :add"),
			ConditionExpression:       new("attribute_exists(n) AND size(tags) = :two AND NOT contains(tags, :z) AND n IN (:one, :half)"),
			ExpressionAttributeNames:  map[string]string{"#l": "list"},
			ExpressionAttributeValues: item(t, `{":one":{"N":"1"},":two":{"N":"2"},":new":{"BOOL":true},":add":{"SS":["z"]},":z":{"S":"z"},":half":{"N":"15e-1"}}`),
		})
		if err != nil {
			t.Fatal(err)
		}
		want := `{"at":{"N":"1"},"fresh":{"N":"1"},"list":{"L":[{"BOOL":true},{"S":"q"}]},"m":{"M":{}},"more":{"L":[{"S":"p"},{"S":"q"},{"S":"p"},{"S":"q"}]},"n":{"N":"2.5"},"tags":{"SS":["x","y","z"]},"thing":{"S":"a"}}`
		if d := cmp.Diff(want, text(t, out.Attributes)); d != "" {
			t.Error(d)
		}
		_, err = r.PutItem(ctx, &dynamodb.PutItemInput{TableName: "readings", Item: item(t, `{"thing":{"S":"a"},"at":{"N":"1"}}`), ConditionExpression: new("attribute_not_exists(thing)")})
		if _, ok := errors.AsType[*dynamodb.ConditionalCheckFailedException](err); !ok {
			t.Error(err)
		}
		row, err := r.Row(ctx, "readings", "thing", `"a"`, "at", "1")
		if err != nil || !strings.Contains(string(row), `"n":2.5`) {
			t.Errorf("%s, %v", row, err)
		}
		if row, err := r.Row(ctx, "readings", "thing", `"a"`, "at", "7"); row != nil || err != nil {
			t.Errorf("%s, %v", row, err)
		}
	})
}

func TestRefusals(t *testing.T) {
	with(t, func(t *testing.T, ctx context.Context, r *table.Tables, _ *store.DB) {
		for want, in := range map[string]*dynamodb.PutItemInput{
			"Missing the key at":    {TableName: "readings", Item: item(t, `{"thing":{"S":"a"}}`)},
			"Type mismatch":         {TableName: "readings", Item: item(t, `{"thing":{"N":"1"},"at":{"N":"1"}}`)},
			"duplicates":            {TableName: "readings", Item: item(t, `{"thing":{"S":"a"},"at":{"N":"1"},"s":{"NS":["1","1.0"]}}`)},
			"maximum allowed size":  {TableName: "readings", Item: item(t, `{"thing":{"S":"a"},"at":{"N":"1"},"s":{"S":"`+strings.Repeat("x", 400<<10)+`"}}`)},
			"Table: other":          {TableName: "other", Item: item(t, `{"thing":{"S":"a"},"at":{"N":"1"}}`)},
			"12:readings":           {TableName: "arn:aws:dynamodb:us-east-1:123456789012:readings", Item: item(t, `{"thing":{"S":"a"},"at":{"N":"1"}}`)},
			"Expected is not":       {TableName: "readings", Item: item(t, `{"thing":{"S":"a"},"at":{"N":"1"}}`), Expected: map[string]*dynamodb.Unserved{}},
			"Syntax error":          {TableName: "readings", Item: item(t, `{"thing":{"S":"a"},"at":{"N":"1"}}`), ConditionExpression: new("a = = b")},
			"unused in expressions": {TableName: "readings", Item: item(t, `{"thing":{"S":"a"},"at":{"N":"1"}}`), ConditionExpression: new("attribute_exists(a)"), ExpressionAttributeNames: map[string]string{"#x": "x"}},
		} {
			if _, err := r.PutItem(ctx, in); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v; want %q", err, want)
			}
		}
	})
}

// What list_append makes is bounded while it is made.
func TestListAppendIsBounded(t *testing.T) {
	with(t, func(t *testing.T, ctx context.Context, r *table.Tables, _ *store.DB) {
		put(t, r, `{"thing":{"S":"a"},"at":{"N":"1"},"l":{"L":[`+strings.TrimSuffix(strings.Repeat(`{"S":""},`, 20_000), ",")+`]}}`)
		expression := "SET m = " + strings.Repeat("list_append(l, ", 20) + "l" + strings.Repeat(")", 20)
		_, err := r.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: "readings", Key: item(t, `{"thing":{"S":"a"},"at":{"N":"1"}}`), UpdateExpression: &expression})
		if err == nil || !strings.Contains(err.Error(), "maximum allowed size") {
			t.Errorf("%v", err)
		}
	})
}

func TestScanBatchAndExpiry(t *testing.T) {
	with(t, func(t *testing.T, ctx context.Context, r *table.Tables, db *store.DB) {
		var writes []*dynamodb.WriteRequest
		for n := range 20 {
			writes = append(writes, &dynamodb.WriteRequest{PutRequest: &dynamodb.PutRequest{Item: item(t, fmt.Sprintf(`{"thing":{"S":"t%d"},"at":{"N":"1"},"ends":{"N":"%d"}}`, n, now.Unix()-10+int64(n)))}})
		}
		if _, err := r.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: map[string][]*dynamodb.WriteRequest{"readings": writes}}); err != nil {
			t.Fatal(err)
		}
		count := func() int {
			n := 0
			for segment := range int32(3) {
				ask := &dynamodb.ScanInput{TableName: "readings", Limit: new(int32(7)), Segment: &segment, TotalSegments: new(int32(3))}
				for {
					out, err := r.Scan(ctx, ask)
					if err != nil {
						t.Fatal(err)
					}
					n += len(out.Items)
					if ask.ExclusiveStartKey = out.LastEvaluatedKey; out.LastEvaluatedKey == nil {
						break
					}
				}
			}
			return n
		}
		if n := count(); n != 20 {
			t.Errorf("%d items", n)
		}
		if _, err := r.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: "readings", TimeToLiveSpecification: &dynamodb.TimeToLiveSpecification{Enabled: true, AttributeName: "ends"}}); err != nil {
			t.Fatal(err)
		}
		if err := r.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if n := count(); n != 9 {
			t.Errorf("%d items are left", n)
		}
		if _, err := r.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: "arn:aws:dynamodb:us-east-1:123456789012:table/readings"}); err != nil {
			t.Fatal(err)
		}
		if err := r.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		left := -1
		if err := db.Read(ctx, func(_ context.Context, tx store.Tx) error {
			return tx.QueryRow(`SELECT count(*) FROM dynamo_item`).Scan(&left)
		}); err != nil || left != 0 {
			t.Errorf("%d items are left, %v", left, err)
		}
	})
}
