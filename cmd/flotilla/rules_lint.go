package main

import (
	"fmt"
	"net/http"
	"net/url"

	"flotilla/internal/aws/iot"
	"flotilla/internal/rules"
	"flotilla/internal/rules/sql"
)

type rulesLintCmd struct {
	ruleSource `embed:""`

	File []string `arg:"" optional:"" placeholder:"FILE" help:"Files with one statement each."`
	All  bool     `name:"all" help:"All rules of the server."`
	JSON bool     `name:"json" help:"Print JSON."`
}

func (c *rulesLintCmd) Help() string {
	return "Examples:\n\n" +
		"  flotilla rules lint --sql \"SELECT * FROM 'a/+' WHERE t > 80\"\n" +
		"  flotilla rules lint hot.sql cold.sql\n" +
		"  flotilla rules lint --all --json\n\n" +
		"Reported are more than two conditions in WHERE, more than ten expressions, and CASE in CASE; docs/rules.md says what counts and\n" +
		"where such logic goes. The server says the same when a rule is made, in the header X-Flotilla-Warning and its log.\n" +
		"Exit code 1 when there is a finding, or SQL that is not valid.\n"
}

// ruleFinding is a line of the result.
type ruleFinding struct {
	Rule string `json:"rule"` // or the name of the file
	rules.Finding
}

func (c *rulesLintCmd) Run(s *streams) error {
	payloads, names, err := c.statements()
	if err != nil {
		return err
	}
	found := []ruleFinding{}
	for i, p := range payloads {
		version := ""
		if p.AwsIotSqlVersion != nil {
			version = *p.AwsIotSqlVersion
		}
		statement, err := sql.Parse(p.Sql, version)
		if err != nil {
			found = append(found, ruleFinding{names[i], rules.Finding{Check: "syntax", Message: err.Error()}})
			continue
		}
		for _, f := range rules.Lint(statement) {
			found = append(found, ruleFinding{names[i], f})
		}
	}
	if c.JSON {
		err = printJSON(s, found)
	} else {
		for _, f := range found {
			fmt.Fprintf(s.out, "%s: %s: %s\n", f.Rule, f.Check, f.Message)
		}
	}
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("%d findings in %d rules", len(found), len(payloads))
	}
	return err
}

// statements are what to look at, with the name of each.
func (c *rulesLintCmd) statements() (payloads []*iot.TopicRulePayload, names []string, err error) {
	kinds := 0
	for _, given := range []bool{len(c.File) > 0, c.All, c.SQL != "" || c.Rule != ""} {
		if given {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return nil, nil, usageError{fmt.Errorf("which rules? --rule, --all, --sql or FILE, one of them")}
	case c.All:
		return c.all()
	case len(c.File) == 0:
		p, err := c.payload()
		name := c.Rule
		if name == "" {
			name = "--sql"
		}
		return []*iot.TopicRulePayload{p}, []string{name}, err
	}
	for _, file := range c.File {
		text, err := textOrFile("@" + file)
		if err != nil {
			return nil, nil, err
		}
		payloads, names = append(payloads, &iot.TopicRulePayload{Sql: text, AwsIotSqlVersion: &c.SQLVersion}), append(names, file)
	}
	return payloads, names, nil
}

// all reads the rules of the server, page by page.
func (c *rulesLintCmd) all() (payloads []*iot.TopicRulePayload, names []string, err error) {
	for token := ""; ; {
		var page iot.ListTopicRulesResponse
		path := "/rules?maxResults=500"
		if token != "" {
			path += "&nextToken=" + url.QueryEscape(token)
		}
		if err := c.callService("iot", http.MethodGet, path, nil, &page); err != nil {
			return nil, nil, err
		}
		for _, r := range page.Rules {
			p, err := fetchRule(&c.target, *r.RuleName)
			if err != nil {
				return nil, nil, fmt.Errorf("rule %s: %w", *r.RuleName, err)
			}
			payloads, names = append(payloads, p), append(names, *r.RuleName)
		}
		if page.NextToken == nil || *page.NextToken == "" {
			return payloads, names, nil
		}
		token = *page.NextToken
	}
}
