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

type functionsCmd struct {
	Logs functionLogsCmd `cmd:"" help:"What a local function printed."`
}

type functionLogsCmd struct {
	target `embed:""`
	Name   string `arg:"" name:"name" help:"Name of the function."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (c *functionLogsCmd) Help() string {
	return "Example:\n\n  flotilla functions logs hook\n\n" +
		"Shows the last lines that a local function printed on the node of the data directory, with those that frame each invocation:\n" +
		"START, END and REPORT, as Lambda has them. Functions are made with `aws lambda create-function` and its kin.\n"
}

func (c *functionLogsCmd) Run(s *streams) error {
	var out flotilla.GetFunctionLogsResponse
	if err := c.call(http.MethodGet, "/functions/"+url.PathEscape(c.Name)+"/logs", nil, &out); err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(s.out)
		enc.SetIndent("", "  ")
		return enc.Encode(out)
	}
	for _, line := range out.Lines {
		if line.Time != nil && line.Text != nil {
			fmt.Fprintf(s.out, "%s  %s\n", line.Time.Format(time.RFC3339), clean(*line.Text))
		}
	}
	return nil
}

// clean takes control characters out of what a function printed: they could drive the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
