package rules_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"flotilla/internal/aws"
	"flotilla/internal/aws/iot"
	"flotilla/internal/rules"
	"flotilla/internal/rules/sql"
)

func TestLint(t *testing.T) {
	for _, c := range []struct {
		sql    string
		checks []string
	}{
		{`SELECT * FROM 'a' WHERE a > 1 AND b < 2`, nil},
		{`SELECT * FROM 'a' WHERE NOT (a > 1 OR b < 2)`, nil},
		{`SELECT * FROM 'a' WHERE NOT (a > 1 OR b < 2) AND c`, []string{"conditions"}},
		{`SELECT a, b, c, d, e, f, g, h, i, j FROM 'a'`, nil},
		{`SELECT a, b, c, d, e, f, g, h, i, j FROM 'a' WHERE a > 1`, []string{"expressions"}},
		{`SELECT a + 1 - 2 * 3 / 4 % 5 + 6 + 7 + 8 + 9 + 10 AS x FROM 'a'`, nil},
		{`SELECT a + 1 - 2 * 3 / 4 % 5 + 6 + 7 + 8 + 9 + 10 + 11 AS x FROM 'a'`, []string{"expressions"}},
		{`SELECT CASE a WHEN 1 THEN 2 END AS x, CASE a WHEN 1 THEN 2 END AS y FROM 'a'`, nil},
		{`SELECT CASE a WHEN 1 THEN 2 ELSE CASE b WHEN 1 THEN 2 END END AS x FROM 'a'`, []string{"nested-case"}},
	} {
		s, err := sql.Parse(c.sql, sql.Version20160323)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range rules.Lint(s) {
			got = append(got, f.Check)
		}
		if diff := cmp.Diff(c.checks, got); diff != "" {
			t.Errorf("%s: %s", c.sql, diff)
		}
	}
}

// The author of a rule hears what Lint says; the rule is made.
func TestLintWarning(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		e := w.start(t)
		p := payload("SELECT a FROM 'a' WHERE b > 1 AND c > 1 AND d > 1", republish("out"))
		var made, replaced, plain aws.Warnings
		if _, err := e.CreateTopicRule(aws.WithWarnings(t.Context(), &made), &iot.CreateTopicRuleRequest{RuleName: "much", TopicRulePayload: p}); err != nil {
			t.Fatal(err)
		}
		if _, err := e.ReplaceTopicRule(aws.WithWarnings(t.Context(), &replaced), &iot.ReplaceTopicRuleRequest{RuleName: "much", TopicRulePayload: p}); err != nil {
			t.Fatal(err)
		}
		want := []string{"rule much: WHERE has 3 conditions, more than 2: business logic belongs in a consumer, not in a rule's SQL (docs/rules.md)"}
		if diff := cmp.Diff([][]string{want, want}, [][]string{made.List(), replaced.List()}); diff != "" {
			t.Error(diff)
		}
		p = payload("SELECT a FROM 'a' WHERE b > 1", republish("out"))
		if _, err := e.ReplaceTopicRule(aws.WithWarnings(t.Context(), &plain), &iot.ReplaceTopicRuleRequest{RuleName: "much", TopicRulePayload: p}); err != nil {
			t.Fatal(err)
		}
		if got := plain.List(); len(got) > 0 {
			t.Errorf("%q", got)
		}
	})
}

func TestDryRun(t *testing.T) {
	d, err := rules.NewDryRun(&iot.TopicRulePayload{
		Sql: `SET @s = topic(2) SELECT t FROM 'plant/+' WHERE t > 80`, AwsIotSqlVersion: new(sql.Version20160323),
		Actions: []*iot.Action{
			{Republish: &iot.RepublishAction{RoleArn: role, Topic: "hot/${@s}"}},
			{Republish: &iot.RepublishAction{RoleArn: role, Topic: "cold"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	o := d.Run(&sql.Input{Topic: "plant/7", Payload: []byte(`{"t":93,"u":1}`)})
	if string(o.Output.Payload) != `{"t":93}` || !o.Selected || o.Err != nil {
		t.Errorf("%s, %v, %v", o.Output.Payload, o.Selected, o.Err)
	}
	want := []rules.DryAction{
		{Kind: "republish", Fields: []rules.DryField{{Name: "topic", Value: "hot/7"}}},
		{Kind: "republish", Fields: []rules.DryField{{Name: "topic", Value: "cold"}}},
	}
	if diff := cmp.Diff(want, o.Actions); diff != "" {
		t.Error(diff)
	}
	// 6000 bytes are two units of each; what is republished is small.
	var cost rules.Cost
	prices := rules.Prices{Triggered: 0.15, Action: 0.15, Message: 1, UnitBytes: 5120}
	cost.Add(prices, 6000, &o)
	cold := d.Run(&sql.Input{Topic: "plant/7", Payload: []byte(`{"t":3}`)})
	cost.Add(prices, 14, &cold)
	other := d.Run(&sql.Input{Topic: "other", Payload: []byte(`{"t":93}`)})
	cost.Add(prices, 13, &other)
	if want := (rules.Cost{Triggered: 3, Actions: 4, Messages: 2}); cost != want {
		t.Errorf("got %+v, want %+v", cost, want)
	}
	if got := cost.USD(prices); got < 3.04e-6 || got > 3.06e-6 { // 3*0.15 + 4*0.15 + 2*1 for a million
		t.Errorf("%g USD", got)
	}
}
