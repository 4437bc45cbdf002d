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

type alarmsCmd struct {
	List   alarmsListCmd   `cmd:"" default:"withargs" help:"List the alarms that rules have set."`
	Delete alarmsDeleteCmd `cmd:"" help:"Forget an alarm; a rule that sets it makes it again."`
}

type alarmsListCmd struct {
	target `embed:""`
	JSON   bool `name:"json" help:"Print JSON."`
}

func (c *alarmsListCmd) Help() string {
	return "Example:\n\n  flotilla alarms list\n\n" +
		"Shows the state that cloudwatchAlarm actions of topic rules gave each alarm, since when, and why; /metrics has it as flotilla_cloudwatch_alarm.\n"
}

func (c *alarmsListCmd) Run(s *streams) error {
	var out flotilla.ListAlarmsResponse
	if err := c.call(http.MethodGet, "/alarms", nil, &out); err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(s.out)
		enc.SetIndent("", "  ")
		return enc.Encode(out)
	}
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ALARM\tSTATE\tSINCE\tRULE\tREASON")
	for _, a := range out.Alarms {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", clean(*a.AlarmName), *a.StateValue, a.StateChanged.UTC().Format(time.RFC3339), *a.RuleName, clean(*a.StateReason))
	}
	return w.Flush()
}

type alarmsDeleteCmd struct {
	target `embed:""`
	Name   string `arg:"" name:"name" help:"Name of the alarm."`
}

func (c *alarmsDeleteCmd) Help() string { return "Example:\n\n  flotilla alarms delete TooHot\n" }

func (c *alarmsDeleteCmd) Run(*streams) error {
	return c.call(http.MethodDelete, "/alarms/"+url.PathEscape(c.Name), nil, nil)
}
