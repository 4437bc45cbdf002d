package api

import (
	"fmt"
	"strings"
)

// Coverage writes docs/coverage.md: every operation of every service, and
// whether the server has a handler for it. The same handlers give the same text.
func Coverage(s *Server) []byte {
	var b strings.Builder
	b.WriteString("# API coverage\n\nWritten from the route table by `api.Coverage`; do not edit. An operation without a handler answers 501 `NotImplementedException` by its name.\n\n")
	b.WriteString("| service | operations | with a handler |\n|---|--:|--:|\n")
	total, handled := 0, 0
	for _, svc := range s.services {
		n := 0
		for _, e := range svc.endpoints {
			if e.serve != nil {
				n++
			}
		}
		fmt.Fprintf(&b, "| %s | %d | %d |\n", svc.title, len(svc.endpoints), n)
		total, handled = total+len(svc.endpoints), handled+n
	}
	fmt.Fprintf(&b, "| all | %d | %d |\n", total, handled)
	for _, svc := range s.services {
		fmt.Fprintf(&b, "\n## %s (`%s`)\n\n| operation | | request |\n|---|---|---|\n", svc.title, svc.endpoints[0].Service)
		for _, e := range svc.endpoints {
			mark := ""
			if e.serve != nil {
				mark = "yes"
			}
			fmt.Fprintf(&b, "| %s | %s | `%s` |\n", e.Name, mark, strings.TrimSuffix(e.Method+" "+e.Path+" "+e.Target, " "))
		}
	}
	return []byte(b.String())
}
