package policy

import (
	"context"
	"fmt"
	"strings"

	"flotilla/internal/aws"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/policy/lang"
	"flotilla/internal/policy/lint"
	"flotilla/internal/store"
)

// advise tells caller and log what a new document allows too much. It never refuses.
func (p *Policies) advise(ctx context.Context, name, document string) {
	d, err := lang.Parse(document)
	if err != nil {
		return
	}
	var rules []string
	for _, f := range lint.Document(d) {
		if f.Severity < lint.Medium {
			break // the worst come first
		}
		where := ""
		if f.Statement >= 0 {
			where = fmt.Sprintf(" in statement %d", f.Statement+1)
		}
		aws.Warn(ctx, fmt.Sprintf("%s (%v)%s: %s. %s", f.Rule, f.Severity, where, f.Reason, f.Fix))
		rules = append(rules, f.Rule)
	}
	if len(rules) > 0 {
		p.log.Warn("a policy allows more than it should, or less than it says; flotilla policy lint tells more", "policy", name, "rule", strings.Join(rules, " "))
	}
}

// LintPolicies checks the policies of the account, their default versions, a page at a time, the newest first.
func (p *Policies) LintPolicies(ctx context.Context, in *flotilla.LintPoliciesRequest) (*flotilla.LintPoliciesResponse, error) {
	after, err := parseMarker(in.NextToken, 2)
	if err != nil {
		return nil, &flotilla.InvalidRequestException{Message: "Invalid nextToken"}
	}
	size := maxLinted
	if in.PageSize != nil {
		size = int(*in.PageSize)
	}
	var page []record
	var versions []versionRecord
	err = p.db.Read(ctx, func(_ context.Context, tx store.Tx) (err error) {
		versions = nil
		if page, err = selectPolicies(tx, after, false, size+1); err != nil {
			return err
		}
		for _, r := range page[:min(len(page), size)] {
			v, err := selectDefault(tx, r.name)
			if err != nil {
				return err
			}
			versions = append(versions, v)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := &flotilla.LintPoliciesResponse{Policies: new(int32(len(versions)))}
	if len(page) > size {
		out.NextToken = marker(fmt.Sprint(page[size-1].created), page[size-1].name)
	}
	for i, v := range versions {
		d, err := lang.Parse(v.document)
		if err != nil {
			return nil, fmt.Errorf("policy: stored document of %s: %w", page[i].name, err)
		}
		for _, f := range lint.Document(d) {
			out.Findings = append(out.Findings, finding(page[i].name, v.version, f))
		}
	}
	return out, nil
}

const maxLinted = 100 // policies of a page

func selectDefault(tx store.Tx, name string) (versionRecord, error) {
	r, err := selectPolicy(tx, name)
	if err != nil {
		return versionRecord{}, err
	}
	return selectVersion(tx, name, r.defaultVersion)
}

func finding(policy string, version int64, f lint.Finding) *flotilla.LintFinding {
	return &flotilla.LintFinding{
		PolicyName: &policy, PolicyVersionId: versionID(version), Rule: &f.Rule, Severity: new(f.Severity.String()),
		Statement: new(int32(f.Statement)), Sid: optional(f.Sid), Resource: optional(f.Resource), Reason: &f.Reason, Fix: &f.Fix,
	}
}

// optional is nil for "".
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
