package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"flotilla/internal/policy/lang"
	"flotilla/internal/policy/lint"
)

type policyLintCmd struct {
	target `embed:""`

	File   []string `arg:"" optional:"" placeholder:"FILE" help:"Policy documents."`
	Server bool     `name:"server" help:"All policies of the server of the data directory, their default versions."`
	FailOn string   `name:"fail-on" default:"high" enum:"info,low,medium,high,never" help:"Exit 1 when there is a finding this bad or worse: info, low, medium, high or never."`
	JSON   bool     `name:"json" help:"Print JSON."`
}

func (c *policyLintCmd) Help() string {
	return "Examples:\n\n" +
		"  flotilla policy lint device.json claim.json --fail-on medium\n" +
		"  flotilla policy lint --server --json\n\n" +
		"A finding is advice; the rules are listed in docs/policies.md. Exit code 1 when there is a finding at or above --fail-on.\n"
}

// lintFinding is a finding with the policy that it is in; it is what LintPolicies answers too.
type lintFinding struct {
	PolicyName string `json:"policyName"`
	Version    string `json:"policyVersionId,omitempty"`
	Rule       string `json:"rule"`
	Severity   string `json:"severity"`
	Statement  int    `json:"statement"`
	Sid        string `json:"sid,omitempty"`
	Resource   string `json:"resource,omitempty"`
	Reason     string `json:"reason"`
	Fix        string `json:"fix"`
}

func (c *policyLintCmd) Run(s *streams) error {
	if len(c.File) == 0 == !c.Server {
		return usageError{fmt.Errorf("which policies? FILE... or --server, one of the two")}
	}
	var list []lintFinding
	var policies int
	var err error
	if c.Server {
		list, policies, err = c.stored()
	} else {
		list, err = lintFiles(c.File)
		policies = len(c.File)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(s.out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if list == nil {
			list = []lintFinding{}
		}
		if err := enc.Encode(list); err != nil {
			return err
		}
	} else {
		for _, f := range list {
			fmt.Fprintf(s.out, "%s: %s\n", lintPlace(f), lintText(f))
		}
		fmt.Fprintf(s.out, "%d findings in %d policies\n", len(list), policies)
	}
	if c.FailOn == "never" {
		return nil
	}
	least, err := lint.ParseSeverity(c.FailOn)
	if err != nil {
		return usageError{err}
	}
	bad := 0
	for _, f := range list {
		if have, err := lint.ParseSeverity(f.Severity); err == nil && have >= least {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d findings of severity %s or above", bad, c.FailOn)
	}
	return nil
}

func lintPlace(f lintFinding) string {
	place := f.PolicyName
	if f.Version != "" {
		place += " version " + f.Version
	}
	if f.Statement >= 0 {
		place += fmt.Sprintf(" statement %d", f.Statement+1)
	}
	if f.Sid != "" {
		place += " (" + f.Sid + ")"
	}
	return place
}

func lintText(f lintFinding) string {
	return fmt.Sprintf("%s %s: %s\n    %s", f.Severity, f.Rule, f.Reason, f.Fix)
}

// lintFiles checks files by the rules of CreatePolicy and by those of the linter.
func lintFiles(files []string) (list []lintFinding, err error) {
	documents, err := readPolicies(files)
	if err != nil {
		return nil, err
	}
	for _, d := range documents {
		if err := lang.Validate(d.text); err != nil {
			return nil, fmt.Errorf("%s: %w", d.file, err)
		}
		for _, f := range lint.Document(d.document) {
			list = append(list, lintFinding{d.file, "", f.Rule, f.Severity.String(), f.Statement, f.Sid, f.Resource, f.Reason, f.Fix})
		}
	}
	return list, nil
}

// stored checks what the server has, page by page.
func (c *policyLintCmd) stored() (list []lintFinding, policies int, err error) {
	path := "/policies/lint"
	for {
		var page struct {
			Policies  int
			Findings  []lintFinding
			NextToken string
		}
		if err := c.call(http.MethodGet, path, nil, &page); err != nil {
			return nil, 0, err
		}
		list, policies = append(list, page.Findings...), policies+page.Policies
		if page.NextToken == "" {
			return list, policies, nil
		}
		path = "/policies/lint?nextToken=" + url.QueryEscape(page.NextToken)
	}
}
