package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"strings"
	"time"

	"flotilla/internal/aws/flotilla"
	"flotilla/internal/identity"
	"flotilla/internal/policy"
	"flotilla/internal/policy/lang"
)

// offline decides by files alone.
func (c *policySimulateCmd) offline(documents []policyFile, questions []question) (results []*flotilla.Simulation, err error) {
	conn := &lang.Connection{
		Protocol: c.Protocol, ClientID: c.ClientID, SourceIP: c.SourceIP, DomainName: c.DomainName,
		ConnectAttributes: c.ConnectAttribute, Time: c.Time,
	}
	if conn.Time.IsZero() {
		conn.Time = time.Now()
	}
	if c.Thing != "" {
		conn.Thing = &lang.Thing{Name: c.Thing, TypeName: c.ThingType, Attributes: c.Attribute, Attached: !c.Detached}
		if conn.ClientID == "" && c.Protocol == "mqtt" {
			conn.ClientID = c.Thing
		}
	}
	if c.Certificate != "" {
		if conn.Certificate, err = readCertificate(c.Certificate); err != nil {
			return nil, err
		}
	}
	named := make([]lang.Named, len(documents))
	for i, d := range documents {
		named[i] = lang.Named{Name: d.name, Document: d.document}
	}
	set, prefix := lang.Compile(named...), arnPrefix(documents)
	for _, q := range questions {
		resource := lang.ResourceARN(prefix, q.Action, q.Resource)
		r := policy.Simulation(set.Explain(conn, q.Action, resource), nil)
		r.Action, r.Resource = &q.Action, &resource
		results = append(results, r)
	}
	return results, nil
}

func readCertificate(file string) (*lang.Certificate, error) {
	text, err := readBounded(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s: no PEM certificate", file)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return identity.PolicyCertificate(leaf), nil
}

// arnPrefix is that of the first resource that names account and region, to complete resources given without one.
func arnPrefix(documents []policyFile) string {
	for _, d := range documents {
		for _, s := range d.document.Statements {
			for _, r := range s.Resources {
				parts := strings.SplitN(r, ":", 6)
				if len(parts) == 6 && !strings.ContainsAny(strings.Join(parts[:5], ""), "*?$") {
					return strings.Join(parts[:5], ":") + ":"
				}
			}
		}
	}
	return "arn:aws:iot:us-east-1:123456789012:"
}

// printSimulation writes one decision and what led to it.
func printSimulation(w io.Writer, r *flotilla.Simulation) {
	fmt.Fprintf(w, "%s  %s  %s\n", said(r.Decision), said(r.Action), said(r.Resource))
	if r.PolicyName != nil {
		fmt.Fprintf(w, "  by %s\n", statementName(r.PolicyName, r.PolicyVersionId, r.Statement, r.Sid))
	}
	for _, v := range r.Variables {
		if len(v.Values) == 0 {
			fmt.Fprintf(w, "  %s has no value\n", said(v.Name))
		} else {
			fmt.Fprintf(w, "  %s = %s\n", said(v.Name), strings.Join(v.Values, ", "))
		}
	}
	if said(r.Decision) != "allowed" {
		for _, s := range r.Considered {
			if s.Reason != nil {
				fmt.Fprintf(w, "  not %s (%s): %s\n", statementName(s.PolicyName, s.PolicyVersionId, s.Statement, s.Sid), said(s.Effect), *s.Reason)
			}
		}
	}
	if r.Hint != nil {
		fmt.Fprintf(w, "  %s\n", *r.Hint)
	}
	if r.Needed != nil {
		fmt.Fprintf(w, "  needed: %s\n", *r.Needed)
	}
}

// statementName says which statement, counting from one.
func statementName(policy, version *string, statement *int32, sid *string) string {
	text := "policy " + said(policy)
	if version != nil {
		text += " version " + *version
	}
	if statement != nil {
		text += fmt.Sprintf(" statement %d", *statement+1)
	}
	if sid != nil {
		text += " (" + *sid + ")"
	}
	return text
}
