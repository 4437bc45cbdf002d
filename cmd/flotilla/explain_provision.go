package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"flotilla/internal/aws/flotilla"
)

type explainProvisionCmd struct {
	target `embed:""`
	Key    string `arg:"" name:"id" help:"Client id, certificate id, thing name or serial number."`
	Max    int    `name:"max" default:"20" help:"Most attempts to show: the newest ones."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (c *explainProvisionCmd) Help() string {
	return "Example:\n\n  flotilla explain provision pump-1\n\n" +
		"Shows the last attempts to provision a device - by claim, RegisterThing, just in time or in bulk - step by step: which template and version,\n" +
		"which parameters, what the pre-provisioning hook answered, which resource failed and why, which policy statement is missing. All nodes'\n" +
		"attempts are there, those of others a second late. It never shows tokens, keys, or the values of parameters that are named like secrets.\n"
}

func (c *explainProvisionCmd) Run(s *streams) error {
	if c.Max < 1 || c.Max > 100 {
		return usageError{fmt.Errorf("--max %d is not 1 to 100", c.Max)}
	}
	var out flotilla.ExplainProvisioningResponse
	path := fmt.Sprintf("/explain/provisioning/%s?maxResults=%d", url.PathEscape(c.Key), c.Max)
	if err := c.call(http.MethodGet, path, nil, &out); err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(s.out)
		enc.SetIndent("", "  ")
		return enc.Encode(out)
	}
	if len(out.Attempts) == 0 {
		fmt.Fprintf(s.out, "No attempt to provision %s is known. Whether it was refused before: flotilla explain client %s\n", c.Key, c.Key)
		return nil
	}
	for i, a := range out.Attempts {
		if i > 0 {
			fmt.Fprintln(s.out)
		}
		printAttempt(s.out, a)
	}
	return nil
}

// orEmpty is what p points to, "" when it is nil.
func orEmpty(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// printAttempt shows an attempt for a person: what, for whom, the steps, why not.
func printAttempt(w io.Writer, a *flotilla.ProvisioningAttempt) {
	when := ""
	if a.Time != nil {
		when = a.Time.Format(time.RFC3339) + "  "
	}
	fmt.Fprintf(w, "%s%s (%s): %s", when, orEmpty(a.Operation), orEmpty(a.Flow), strings.ToUpper(orEmpty(a.Outcome)))
	if a.Repeats != nil {
		fmt.Fprintf(w, ", and %d times more", *a.Repeats)
	}
	fmt.Fprintln(w)
	template := orEmpty(a.TemplateName)
	if a.TemplateVersion != nil {
		template += fmt.Sprintf(" version %d", *a.TemplateVersion)
	}
	for _, f := range []struct{ name, value string }{
		{"client", orEmpty(a.ClientId)},
		{"principal", orEmpty(a.Principal)},
		{"certificate", orEmpty(a.CertificateId)},
		{"template", template},
		{"thing", orEmpty(a.ThingName)},
	} {
		if f.value != "" {
			fmt.Fprintf(w, "  %-12s %s\n", f.name, f.value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Parameters)) {
		fmt.Fprintf(w, "  %-12s %s = %s\n", "parameter", name, a.Parameters[name])
	}
	for _, st := range a.Steps {
		printStep(w, st)
	}
	if a.ErrorCode != nil {
		fmt.Fprintf(w, "  %-12s %s: %s\n", "told", *a.ErrorCode, orEmpty(a.Message))
	}
	if a.Reason != nil {
		fmt.Fprintf(w, "  %-12s %s\n", "why", *a.Reason)
	}
	if a.NeededPolicy != nil {
		fmt.Fprintf(w, "  %-12s a policy of the principal needs %s\n", "fix", *a.NeededPolicy)
	}
}

func printStep(w io.Writer, st *flotilla.ProvisioningStep) {
	mark := "ok"
	if st.Failed != nil && *st.Failed {
		mark = "FAILED"
	}
	after := ""
	if st.Milliseconds != nil {
		after = (time.Duration(*st.Milliseconds) * time.Millisecond).String()
	}
	line := fmt.Sprintf("  %-6s %8s  %s", mark, "+"+after, orEmpty(st.Name))
	if st.Subject != nil {
		line += " " + *st.Subject
	}
	if st.Result != nil && mark == "ok" {
		line += ": " + *st.Result
	}
	if st.Detail != nil {
		line += " (" + *st.Detail + ")"
	}
	fmt.Fprintln(w, line)
}
