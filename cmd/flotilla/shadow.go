package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"

	"flotilla/internal/aws/flotilla"
)

type shadowCmd struct {
	History shadowHistoryCmd `cmd:"" help:"Show who changed a shadow, what, and when."`
	Restore shadowRestoreCmd `cmd:"" help:"Make the desired state what it was in an earlier version."`
}

// oneShadow is a command about a shadow.
type oneShadow struct {
	target `embed:""`
	Thing  string `arg:"" name:"thing" help:"Name of the thing."`
	Name   string `name:"name" placeholder:"SHADOW" help:"Name of a named shadow; without it the classic one."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (c *oneShadow) path(more ...string) string {
	path := "/shadow-history/" + url.PathEscape(c.Thing)
	for _, m := range more {
		path += "/" + m
	}
	if c.Name != "" {
		path += "?name=" + url.QueryEscape(c.Name)
	}
	return path
}

type shadowHistoryCmd struct{ oneShadow }

func (c *shadowHistoryCmd) Help() string {
	return "Example:\n\n  flotilla shadow history pump-1 --name config --json\n\n" +
		"The latest change comes first. Kept are the last changes of desired state and deletions (--shadow.history of the server\n" +
		"says how many), and those of reported state with --shadow.history-reported.\n"
}

func (c *shadowHistoryCmd) Run(s *streams) error {
	var out flotilla.ListShadowHistoryResponse
	if err := c.call(http.MethodGet, c.path(), nil, &out); err != nil {
		return err
	}
	if c.JSON {
		if out.Entries == nil {
			out.Entries = []*flotilla.ShadowHistoryEntry{}
		}
		return printJSON(s, out.Entries)
	}
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tTIME\tOPERATION\tBY\tCLIENT\tCHANGE")
	for _, e := range out.Entries {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", *e.Version, e.Time.UTC().Format(time.RFC3339), *e.Operation, dash(e.Principal), dash(e.ClientId), dash(e.Change))
	}
	return w.Flush()
}

func dash(text *string) string {
	if text == nil {
		return "-"
	}
	return *text
}

type shadowRestoreCmd struct {
	oneShadow
	Version int64 `name:"version" required:"" help:"Version whose desired state is restored."`
}

func (c *shadowRestoreCmd) Help() string {
	return "Example:\n\n  flotilla shadow restore pump-1 --version 7\n\n" +
		"This is an update with a version of its own. The reported state stays: it is the device's to say.\n"
}

func (c *shadowRestoreCmd) Run(s *streams) error {
	var out flotilla.RestoreShadowResponse
	if err := c.call(http.MethodPut, c.path("restored", strconv.FormatInt(c.Version, 10)), struct{}{}, &out); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s, out)
	}
	fmt.Fprintf(s.out, "restored as version %d\n", *out.Version)
	return nil
}
