package rules_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"flotilla/internal/aws/flotilla"
	"flotilla/internal/aws/iot"
	"flotilla/internal/mqtt"
	"flotilla/internal/rules"
)

// nodes answers for other nodes: there, which gets the question as it would from the mesh, and mute, which is silent.
type nodes struct{ there *rules.Engine }

func (n nodes) AskOthers(ctx context.Context, name string, question []byte) (map[string][]byte, []string) {
	if name != rules.AskStatus {
		return nil, []string{"mute", "there"}
	}
	answer, err := n.there.AnswerStatus(ctx, question)
	if err != nil {
		return nil, []string{"mute", "there"}
	}
	return map[string][]byte{"there": answer, "garbled": []byte("[")}, []string{"mute"}
}

func TestDescribeRuleStatus(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		others := &nodes{}
		w.ext = func(d *rules.Deps) { d.Nodes = others }
		e := w.start(t)
		others.there = e
		long := strings.Repeat("ß", 400) // 800 bytes
		w.out.setPublish(func(_ context.Context, m *mqtt.Message) error {
			if m.Topic == "stalled" {
				return errors.New(long)
			}
			return nil
		})
		create(t, e, "other", payload("SELECT * FROM 'in'", republish("done")))
		p := payload("SELECT * FROM 'in'", republish("done"), republish("stalled"))
		p.ErrorAction = republish("err")
		create(t, e, "r", p)
		w.mustPublish(t, e, "in", `{}`)
		describe := func(rule *string) *flotilla.DescribeRuleStatusResponse {
			out, err := e.DescribeRuleStatus(t.Context(), &flotilla.DescribeRuleStatusRequest{RuleName: rule})
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		var out *flotilla.DescribeRuleStatusResponse
		eventually(t, "the failure, and nothing else that waits", func() bool {
			out = describe(new("r"))
			if len(out.Actions) != 6 {
				t.Fatalf("%d actions", len(out.Actions))
			}
			return out.Actions[5].LastError != nil && *out.Actions[4].BacklogRows == 1 && *out.Actions[2].BacklogRows == 0
		})
		if *out.NodeId != "n1" || !slices.Equal(out.UnansweredNodes, []string{"garbled", "mute"}) || *out.OmittedActions != 0 {
			t.Errorf("node %s, unanswered %q, omitted %d", *out.NodeId, out.UnansweredNodes, *out.OmittedActions)
		}
		for i, a := range out.Actions { // error action, done, stalled, each on two nodes
			node, position := []string{"n1", "there"}[i%2], int32(i/2-1)
			if *a.RuleName != "r" || *a.NodeId != node || *a.Position != position || *a.Action != "republish" || *a.Retired {
				t.Errorf("action %d: %s %s %d %s", i, *a.RuleName, *a.NodeId, *a.Position, *a.Action)
			}
		}
		stalled := out.Actions[5]
		if *stalled.BacklogBytes == 0 || *stalled.FailedAttempts == 0 || stalled.LastErrorTime.IsZero() || !strings.Contains(*stalled.LastError, "ßß") || len(*stalled.LastError) > 510 {
			t.Errorf("%d bytes, %d attempts, at %v: %s", *stalled.BacklogBytes, *stalled.FailedAttempts, stalled.LastErrorTime, *stalled.LastError)
		}
		if n := len(describe(nil).Actions); n != 8 {
			t.Errorf("%d actions of all rules", n)
		}
		if n := len(describe(new("unknown")).Actions); n != 0 {
			t.Errorf("%d actions of no rule", n)
		}
		if _, err := e.DeleteTopicRule(t.Context(), &iot.DeleteTopicRuleRequest{RuleName: "r"}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the retired action alone", func() bool {
			out := describe(new("r"))
			return len(out.Actions) == 2 && *out.Actions[0].Retired && *out.Actions[0].BacklogRows == 1
		})
	})
}
