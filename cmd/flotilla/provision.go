package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"flotilla/internal/provision/template"
)

type provisionCmd struct {
	Lint provisionLintCmd `cmd:"" help:"Say what in a template would fail only when a device is provisioned."`
}

type provisionLintCmd struct {
	File string `arg:"" name:"template" help:"File with the template, - for the standard input."`
	Type string `name:"type" default:"FLEET_PROVISIONING" enum:"FLEET_PROVISIONING,JITP,REGISTER_THING" help:"What it is for: a type of template, or RegisterThing and bulk registration (REGISTER_THING)."`
	JSON bool   `name:"json" help:"Print JSON."`
}

func (c *provisionLintCmd) Help() string {
	return "Example:\n\n  flotilla provision lint template.json\n\n" +
		"Needs no server. What AWS refuses at CreateProvisioningTemplate is an error; what it accepts and refuses at run time is a warning: parameters\n" +
		"that are not declared, mapping keys that there are not, policies that are none, things that are the same for all devices. The server gives\n" +
		"the same warnings in the header X-Flotilla-Warning. Exit code 1 when there is an error or a warning.\n"
}

// templateFinding is a line of the result.
type templateFinding struct {
	Severity string `json:"severity"` // error or warning
	Path     string `json:"path"`
	Message  string `json:"message"`
}

func (c *provisionLintCmd) Run(s *streams) error {
	body, err := c.read()
	if err != nil {
		return err
	}
	found := lintTemplate(string(body), template.Flow(c.Type))
	if c.JSON {
		enc := json.NewEncoder(s.out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(found); err != nil {
			return err
		}
	} else {
		for _, f := range found {
			path := f.Path
			if path != "" {
				path += ": "
			}
			fmt.Fprintf(s.out, "%s: %s%s\n", f.Severity, path, f.Message)
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("%s: %d findings", c.File, len(found))
	}
	return nil
}

func (c *provisionLintCmd) read() ([]byte, error) {
	in := io.ReadCloser(os.Stdin)
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return nil, err
		}
		in = f
	}
	defer in.Close()
	return io.ReadAll(io.LimitReader(in, 1<<20))
}

func lintTemplate(body string, flow template.Flow) []templateFinding {
	found := []templateFinding{}
	t, err := template.Parse(body, flow)
	if err != nil {
		return append(found, templateFinding{"error", "", err.Error()})
	}
	for _, f := range t.Lint() {
		found = append(found, templateFinding{"warning", f.Path, f.Message})
	}
	return found
}
