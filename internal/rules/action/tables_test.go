package action_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws/iot"
	"flotilla/internal/awsclient"
	"flotilla/internal/rules/action"
)

// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/dynamodb-rule-action.html
func testDynamoDB(t *testing.T, c *awsclient.Client) {
	call(t, c, "dynamodb", "DynamoDB_20120810.CreateTable", "1.0", document{
		"TableName": "wx", "BillingMode": "PAY_PER_REQUEST",
		"AttributeDefinitions": []document{{"AttributeName": "device", "AttributeType": "S"}, {"AttributeName": "at", "AttributeType": "N"}},
		"KeySchema":            []document{{"AttributeName": "device", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}},
	})
	a := &iot.Action{DynamoDB: &iot.DynamoDBAction{
		RoleArn: role, TableName: "wx", Operation: new("${op}"), HashKeyField: "device", HashKeyValue: "d",
		RangeKeyField: new("at"), RangeKeyValue: new("1"), RangeKeyType: new("NUMBER"), PayloadField: new("data"),
	}}
	s := sink(t, c, a)
	// In the order of Action.Templates.
	fields := func(op, device, at, to string) []string {
		return []string{"wx", "device", device, "at", at, "NUMBER", op, to}
	}
	must(
		t, s,
		record(1, `{"t":1.50,"ok":true,"l":[null,"x"]}`, fields("INSERT", "a", "1", "data")...),
		record(2, "\xff\xfe", fields("INSERT", "a", "2", "data")...),
		record(3, `{"t":2}`, fields("INSERT", "b", "1", "data")...),
		record(4, `5`, fields("UPDATE", "b", "1", "more")...),
		record(5, `{}`, fields("INSERT", "c", "1", "data")...),
		record(6, `{}`, fields("DELETE", "c", "1", "data")...),
	)
	got := map[string]any{}
	for _, item := range call(t, c, "dynamodb", "DynamoDB_20120810.Scan", "1.0", document{"TableName": "wx"})["Items"].([]any) {
		i := item.(document)
		key := i["device"].(document)["S"].(string) + i["at"].(document)["N"].(string)
		delete(i, "device")
		delete(i, "at")
		got[key] = i
	}
	want := map[string]any{
		"a1": document{"data": document{"M": document{"t": document{"N": "1.50"}, "ok": document{"BOOL": true}, "l": document{"L": []any{document{"NULL": true}, document{"S": "x"}}}}}},
		"a2": document{"data": document{"B": "//4="}},
		"b1": document{"data": document{"M": document{"t": document{"N": "2"}}}, "more": document{"N": "5"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, f := range [][]string{fields("MERGE", "a", "1", "data"), fields("INSERT", "", "1", "data"), fields("INSERT", "a", "x", "data"), fields("INSERT", "a", "1", "at")} {
		if done, err := s.Do(t.Context(), []action.Record{record(7, "1", f...)}); done != 0 || !action.IsPermanent(err) {
			t.Errorf("%q: %d %v", f, done, err)
		}
	}
}

// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/dynamodb-v2-rule-action.html
func testDynamoDBv2(t *testing.T, c *awsclient.Client) {
	s := sink(t, c, &iot.Action{DynamoDBv2: &iot.DynamoDBv2Action{RoleArn: role, PutItem: &iot.PutItemInput{TableName: "wx"}}})
	must(t, s, record(1, `{"device":"v2","at":9,"text":"x"}`, "wx"), record(2, `{"device":"v2","at":9,"text":"y"}`, "wx"))
	got := call(t, c, "dynamodb", "DynamoDB_20120810.GetItem", "1.0", document{"TableName": "wx", "Key": document{"device": document{"S": "v2"}, "at": document{"N": "9"}}})
	if !strings.Contains(fmt.Sprint(got["Item"]), "text:map[S:y]") {
		t.Error(got)
	}
	for _, payload := range []string{`[1]`, `{"device":"no range key"}`, "\xff"} {
		if done, err := s.Do(t.Context(), []action.Record{record(3, payload, "wx")}); done != 0 || !action.IsPermanent(err) {
			t.Errorf("%s: %d %v", payload, done, err)
		}
	}
}

// AWS: https://docs.aws.amazon.com/iot-sitewise/latest/APIReference/API_BatchPutAssetPropertyValue.html
func TestIotSiteWise(t *testing.T) {
	value := &iot.AssetPropertyValue{
		Value: &iot.AssetPropertyVariant{DoubleValue: new("${t}")}, Quality: new("GOOD"),
		Timestamp: &iot.AssetPropertyTimestamp{TimeInSeconds: "${at}", OffsetInNanos: new("5")},
	}
	a := &iot.Action{IotSiteWise: &iot.IotSiteWiseAction{RoleArn: role, PutAssetPropertyValueEntries: []*iot.PutAssetPropertyValueEntry{{
		PropertyAlias: new("/a/${x}"), PropertyValues: []*iot.AssetPropertyValue{value},
	}}}}
	good := []string{"/a/b", "1.5", "1764072000", "5", "GOOD"}
	s, c := script(t, `200 {"errorEntries":[{"entryId":"2-0","errors":[{"errorCode":"TimestampOutOfRangeException","errorMessage":"m"}]}]}`, `200 {"errorEntries":[]}`)
	w := sink(t, c, a)
	records := []action.Record{record(1, "", good...), record(2, "", good...), record(3, "", good...)}
	if done, err := w.Do(t.Context(), records); done != 1 || !action.IsPermanent(err) {
		t.Fatalf("%d %v", done, err)
	}
	must(t, w, records[2]) // it is there
	entry := `{"entryId":"1-0","propertyAlias":"/a/b","propertyValues":[{"value":{"doubleValue":1.5},"timestamp":{"timeInSeconds":1764072000,"offsetInNanos":5},"quality":"GOOD"}]}`
	if len(s.got) != 1 || !strings.HasPrefix(s.got[0], `/properties {"entries":[`+entry) {
		t.Errorf("%q", s.got)
	}
	for i, bad := range map[int]string{1: "warm", 2: "now", 3: "-1", 4: "FAIR"} {
		f := append([]string(nil), good...)
		f[i] = bad
		if done, err := w.Do(t.Context(), []action.Record{record(4, "", f...)}); done != 0 || !action.IsPermanent(err) {
			t.Errorf("%q: %d %v", f, done, err)
		}
	}
	value.Value.StringValue = new("two")
	if _, err := action.Compile(a, nil); err == nil || !strings.Contains(err.Error(), "one of") {
		t.Error(err)
	}
}
