package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"flotilla/internal/aws/flotilla"
)

type explainCmd struct {
	Client    explainClientCmd    `cmd:"" help:"What was refused to a client, and why."`
	Shadow    explainShadowCmd    `cmd:"" help:"Why a shadow's delta is pending: who wrote it, what the device said, whether it is there."`
	Provision explainProvisionCmd `cmd:"" help:"What became of a device's attempts to be provisioned, step by step."`
}

type explainClientCmd struct {
	target `embed:""`
	ID     string `arg:"" name:"id" help:"Client id, or the id of a certificate that was refused."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (c *explainClientCmd) Help() string {
	return "Example:\n\n  flotilla explain client pump-1\n\n" +
		"Shows the last refused connects, publishes and subscribes of a client on all nodes: which policy and statement, which certificate state,\n" +
		"which limit. A node that does not answer is named. It never shows payloads or keys.\n"
}

func (c *explainClientCmd) Run(s *streams) error {
	var out flotilla.ExplainClientResponse
	if err := c.call(http.MethodGet, "/explain/client/"+url.PathEscape(c.ID), nil, &out); err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(s.out)
		enc.SetIndent("", "  ")
		return enc.Encode(out)
	}
	state := "is not connected"
	if out.Connected != nil && *out.Connected {
		state = "is connected to " + text(out.ConnectedTo)
	}
	fmt.Fprintf(s.out, "%s %s; %d refusals remembered\n", c.ID, state, len(out.Refusals))
	for _, r := range out.Refusals {
		fmt.Fprintln(s.out, refusal(r))
	}
	for _, node := range out.UnansweredNodes {
		fmt.Fprintf(s.out, "node %s does not answer: what it refused is missing here\n", node)
	}
	return nil
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// refusal is one line: when, what, why, where.
func refusal(r *flotilla.ClientRefusal) string {
	var b strings.Builder
	if r.Time != nil {
		b.WriteString(r.Time.Format(time.RFC3339) + "  ")
	}
	b.WriteString(text(r.Action))
	if r.Resource != nil {
		b.WriteString(" " + *r.Resource)
	}
	b.WriteString(": " + text(r.Reason))
	if r.PolicyName != nil && r.Statement != nil {
		fmt.Fprintf(&b, " (policy %s, statement %d)", *r.PolicyName, *r.Statement+1)
	}
	if r.Principal != nil {
		b.WriteString("  certificate " + *r.Principal)
	}
	if r.NodeId != nil {
		b.WriteString("  node " + *r.NodeId)
	}
	return b.String()
}
