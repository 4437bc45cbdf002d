package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"flotilla/internal/aws/flotilla"
)

type rulesStatusCmd struct {
	target `embed:""`
	Rule   string `name:"rule" placeholder:"NAME" help:"Only the actions of this rule."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (c *rulesStatusCmd) Help() string {
	return "Examples:\n\n  flotilla rules status\n  flotilla rules status --rule hot --json\n\n" +
		"Shows each action of each rule on each node: how many messages and bytes wait for it, how many attempts have failed since the\n" +
		"last that succeeded, and the last error. A retired action is no longer the rule's and finishes what it owes. A node that does\n" +
		"not answer is named.\n"
}

func (c *rulesStatusCmd) Run(s *streams) error {
	path := "/rule-status"
	if c.Rule != "" {
		path += "?ruleName=" + url.QueryEscape(c.Rule)
	}
	var out flotilla.DescribeRuleStatusResponse
	if err := c.call(http.MethodGet, path, nil, &out); err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(s.out)
		enc.SetIndent("", "  ")
		return enc.Encode(out)
	}
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "RULE\tACTION\tNODE\tROWS\tBYTES\tFAILED\tLAST ERROR")
	for _, a := range out.Actions {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\n", *a.RuleName, actionPlace(a), clean(*a.NodeId), *a.BacklogRows, *a.BacklogBytes, *a.FailedAttempts, lastError(a))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if n := out.OmittedActions; n != nil && *n > 0 {
		fmt.Fprintf(s.out, "%d actions that less waits for are not shown; --rule shows them\n", *n)
	}
	for _, node := range out.UnansweredNodes {
		fmt.Fprintf(s.out, "node %s does not answer: what waits there is missing here\n", clean(node))
	}
	return nil
}

// actionPlace is an action's kind and its place in the rule.
func actionPlace(a *flotilla.RuleActionStatus) string {
	place := fmt.Sprintf("%s (%d)", *a.Action, *a.Position)
	if *a.Position < 0 {
		place = *a.Action + " (error action)"
	}
	if *a.Retired {
		place += ", retired"
	}
	return place
}

func lastError(a *flotilla.RuleActionStatus) string {
	if a.LastError == nil || a.LastErrorTime == nil {
		return "-"
	}
	return a.LastErrorTime.UTC().Format(time.RFC3339) + " " + clean(*a.LastError)
}
