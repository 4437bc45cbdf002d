package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"flotilla/internal/audit/chain"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/server"
)

type auditCmd struct {
	List   auditListCmd   `cmd:"" help:"List who changed what, the newest first."`
	Show   auditShowCmd   `cmd:"" help:"Show all of one record."`
	Verify auditVerifyCmd `cmd:"" help:"Check that no record was altered, removed or reordered."`
	Export auditExportCmd `cmd:"" help:"Write all records and signed heads as JSON lines, which verify reads."`
}

const auditPage = 1000

// nodes are those that have a log.
func (t *target) nodes() ([]string, error) {
	var out flotilla.ListAuditNodesResponse
	err := t.call(http.MethodGet, "/audit", nil, &out)
	return out.NodeIds, err
}

// line is a record as list and show print it.
type line struct {
	Node  string      `json:"node"`
	Seq   int64       `json:"seq"`
	Entry chain.Entry `json:"entry"`
	Hash  string      `json:"hash"`
	body  string
}

func lineOf(r *flotilla.AuditRecord) line {
	l := line{Node: *r.NodeId, Seq: *r.Sequence, Hash: hex.EncodeToString(r.Hash), body: *r.Body}
	if json.Unmarshal([]byte(*r.Body), &l.Entry) != nil {
		l.Entry.Message = "this record can't be read; it was altered"
	}
	return l
}

type auditListCmd struct {
	target    `embed:""`
	Since     string `name:"since" placeholder:"TIME" help:"Only what came later: a duration such as 24h, or a time in RFC 3339."`
	Who       string `name:"who" placeholder:"NAME" help:"Only what this identity (name or ARN) did."`
	Operation string `name:"operation" placeholder:"NAME" help:"Only this operation, such as DeleteThing."`
	Resource  string `name:"resource" placeholder:"ARN" help:"Only what was about this resource: an ARN or its end, such as thing/pump-1."`
	Node      string `name:"node" placeholder:"ID" help:"Only what this node served."`
	Max       int    `name:"max" default:"100" help:"Most records of each node."`
	JSON      bool   `name:"json" help:"Print JSON lines."`
}

func (c *auditListCmd) Help() string {
	return "Example:\n\n  flotilla audit list --since 24h --who ci-staging --operation DeleteThing\n"
}

func (c *auditListCmd) query() (url.Values, error) {
	q := url.Values{"descending": {"true"}}
	if c.Since != "" {
		at, err := time.Parse(time.RFC3339, c.Since)
		if err != nil {
			d, durationErr := time.ParseDuration(c.Since)
			if durationErr != nil {
				return nil, usageError{fmt.Errorf("--since %q is neither a duration nor a time in RFC 3339", c.Since)}
			}
			at = time.Now().Add(-d)
		}
		q.Set("since", strconv.FormatInt(at.UnixMilli(), 10))
	}
	for name, v := range map[string]string{"principal": c.Who, "operation": c.Operation, "resource": c.Resource} {
		if v != "" {
			q.Set(name, v)
		}
	}
	return q, nil
}

func (c *auditListCmd) Run(s *streams) error {
	q, err := c.query()
	if err != nil {
		return err
	}
	nodes := []string{c.Node}
	if c.Node == "" {
		if nodes, err = c.nodes(); err != nil {
			return err
		}
	}
	var lines []line
	for _, node := range nodes {
		of, err := c.of(node, q)
		if err != nil {
			return err
		}
		lines = append(lines, of...)
	}
	if c.JSON {
		for _, l := range lines {
			if err := json.NewEncoder(s.out).Encode(l); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "TIME\tRECORD\tWHO\tFROM\tWHAT\tRESOURCE\tOUTCOME")
	for _, l := range lines {
		outcome := l.Entry.Outcome
		if l.Entry.Code != "" {
			outcome += " " + l.Entry.Code
		}
		if l.Entry.Kind == chain.KindResult {
			outcome += " (result)"
		}
		_, user, _ := strings.Cut(l.Entry.Principal, ":user/")
		fmt.Fprintf(w, "%s\t%s/%d\t%s\t%s\t%s\t%s\t%s\n", l.Entry.Time, l.Node, l.Seq, user, l.Entry.SourceIP, l.Entry.Operation, strings.Join(l.Entry.Resources, " "), outcome)
	}
	return w.Flush()
}

// of lists records of a node, the newest first.
func (c *auditListCmd) of(node string, q url.Values) ([]line, error) {
	var lines []line
	q.Del("before")
	for len(lines) < c.Max {
		q.Set("maxResults", strconv.Itoa(min(c.Max-len(lines), auditPage)))
		var out flotilla.ListAuditRecordsResponse
		if err := c.call(http.MethodGet, "/audit/"+url.PathEscape(node)+"/records?"+q.Encode(), nil, &out); err != nil {
			return nil, err
		}
		for _, r := range out.Records {
			lines = append(lines, lineOf(r))
		}
		if out.Next == nil {
			break
		}
		q.Set("before", strconv.FormatInt(*out.Next, 10))
	}
	return lines, nil
}

type auditShowCmd struct {
	target `embed:""`
	Record string `arg:"" name:"record" help:"NODE/NUMBER, as list prints it."`
	JSON   bool   `name:"json" help:"Print JSON on one line."`
}

func (c *auditShowCmd) Help() string {
	return "Example:\n\n  flotilla audit show QJ2KX7C5SWZ4RVTM/17\n"
}

func (c *auditShowCmd) Run(s *streams) error {
	node, number, ok := strings.Cut(c.Record, "/")
	seq, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || seq < 1 {
		return usageError{fmt.Errorf("%q is not NODE/NUMBER", c.Record)}
	}
	var out flotilla.ListAuditRecordsResponse
	if err := c.call(http.MethodGet, fmt.Sprintf("/audit/%s/records?after=%d&before=%d", url.PathEscape(node), seq-1, seq+1), nil, &out); err != nil {
		return err
	}
	if len(out.Records) != 1 {
		return fmt.Errorf("there is no record %s", c.Record)
	}
	l := lineOf(out.Records[0])
	if c.JSON {
		return json.NewEncoder(s.out).Encode(l)
	}
	return printJSON(s, l)
}

// exported is a line of an export: a record, or a head.
type exported struct {
	Record *chain.Record `json:"record,omitempty"`
	Head   *chain.Head   `json:"head,omitempty"`
}

// walk gives all heads and records of a node, in the order that a verification wants them.
func (t *target) walk(node string, each func(exported) error) error {
	base := "/audit/" + url.PathEscape(node)
	heads, after, moreHeads := int64(0), int64(0), true
	for {
		var page flotilla.ListAuditRecordsResponse
		if err := t.call(http.MethodGet, fmt.Sprintf("%s/records?after=%d&maxResults=%d", base, after, auditPage), nil, &page); err != nil {
			return err
		}
		end := after
		if n := len(page.Records); n > 0 {
			end = *page.Records[n-1].Sequence
		}
		for moreHeads && (heads <= end || page.Next == nil) {
			var out flotilla.ListAuditHeadsResponse
			if err := t.call(http.MethodGet, fmt.Sprintf("%s/heads?after=%d&maxResults=%d", base, heads, auditPage), nil, &out); err != nil {
				return err
			}
			moreHeads = len(out.Heads) == auditPage
			for _, h := range out.Heads {
				heads = *h.Sequence
				head := &chain.Head{Node: *h.NodeId, Seq: *h.Sequence, Trimmed: *h.Trimmed, Time: *h.Time, Hash: h.Hash, Key: h.PublicKey, Signature: h.Signature}
				if err := each(exported{Head: head}); err != nil {
					return err
				}
			}
		}
		for _, r := range page.Records {
			if err := each(exported{Record: &chain.Record{Node: *r.NodeId, Seq: *r.Sequence, Time: *r.Time, Body: *r.Body, Hash: r.Hash}}); err != nil {
				return err
			}
		}
		switch {
		case page.Next != nil:
			after = *page.Next
		case end > after && heads > end: // more was written and signed meanwhile
			after = end
		default:
			return nil
		}
	}
}

type auditExportCmd struct {
	target `embed:""`
	Out    string `name:"out" placeholder:"FILE" help:"Write to this file instead of the standard output."`
}

func (c *auditExportCmd) Help() string {
	return "Example:\n\n  flotilla audit export --out audit-2026-11.jsonl\n"
}

func (c *auditExportCmd) Run(s *streams) (err error) {
	nodes, err := c.nodes()
	if err != nil {
		return err
	}
	out := s.out
	if c.Out != "" {
		f, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	for _, node := range nodes {
		if err := c.walk(node, func(e exported) error { return enc.Encode(e) }); err != nil {
			return err
		}
	}
	return w.Flush()
}

type auditVerifyCmd struct {
	target `embed:""`
	File   string   `name:"file" placeholder:"FILE" help:"Verify an export instead of the running server's log."`
	Key    []string `name:"key" placeholder:"NODE=HEX" help:"Public keys of nodes, from an earlier verification: heads signed with others don't count."`
	Anchor []string `name:"anchor" placeholder:"NODE/NUMBER=HASH" help:"States that were written down before, from the server's log (\"the log of changes is signed\") or an earlier verification."`
	JSON   bool     `name:"json" help:"Print JSON."`
}

func (c *auditVerifyCmd) Help() string {
	return "Example:\n\n  flotilla audit verify\n  flotilla audit verify --anchor QJ2KX7C5SWZ4RVTM/17=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n\n" +
		"An altered, removed or reordered record up to the last signed head is found. What was written after it (10 s, by default) can be\n" +
		"cut off unseen, and who has the node's key can write another log: an anchor that is kept elsewhere finds both. The key of the\n" +
		"running server is taken from its data directory; those of other nodes, and of an export, from --key. Without a node's key\n" +
		"anybody can have signed its heads. Exit 1: problems.\n"
}

func (c *auditVerifyCmd) Run(s *streams) error {
	keys, anchors, err := c.known()
	if err != nil {
		return err
	}
	verifiers := map[string]*chain.Verifier{}
	var order []string
	of := func(node string) *chain.Verifier {
		v := verifiers[node]
		if v == nil {
			v = chain.NewVerifier(node, keys[node], anchors[node]...)
			verifiers[node], order = v, append(order, node)
		}
		return v
	}
	each := func(e exported) error {
		switch {
		case e.Record != nil:
			of(e.Record.Node).Add(e.Record)
		case e.Head != nil:
			of(e.Head.Node).AddHead(e.Head)
		default:
			return errors.New("a line of the export is neither a record nor a head")
		}
		return nil
	}
	if c.File != "" {
		err = readExport(c.File, each)
	} else {
		if node, key, keyErr := server.ReadAuditKey(c.Data); keyErr == nil && keys[node] == nil {
			keys[node] = key // of the server that is asked: the store does not say who signed
			of(node)         // also when there is nothing of it
		}
		err = c.live(each)
	}
	if err != nil {
		return err
	}
	for node := range anchors {
		of(node) // also when there is nothing of it
	}
	return c.report(s, order, verifiers)
}

// known reads --key and --anchor.
func (c *auditVerifyCmd) known() (keys map[string][]byte, anchors map[string][]chain.Anchor, err error) {
	keys, anchors = map[string][]byte{}, map[string][]chain.Anchor{}
	for _, text := range c.Key {
		node, key, ok := strings.Cut(text, "=")
		raw, err := hex.DecodeString(key)
		if !ok || err != nil || len(raw) != 32 {
			return nil, nil, usageError{fmt.Errorf("--key %q is not NODE=HEX of 32 bytes", text)}
		}
		keys[node] = raw
	}
	for _, text := range c.Anchor {
		where, hash, ok := strings.Cut(text, "=")
		node, number, ok2 := strings.Cut(where, "/")
		seq, err := strconv.ParseInt(number, 10, 64)
		raw, hexErr := hex.DecodeString(hash)
		if !ok || !ok2 || err != nil || hexErr != nil || len(raw) != chain.HashBytes {
			return nil, nil, usageError{fmt.Errorf("--anchor %q is not NODE/NUMBER=HASH", text)}
		}
		anchors[node] = append(anchors[node], chain.Anchor{Seq: seq, Hash: raw})
	}
	return keys, anchors, nil
}

func (c *auditVerifyCmd) live(each func(exported) error) error {
	nodes, err := c.nodes()
	for _, node := range nodes {
		if err := c.walk(node, each); err != nil {
			return err
		}
	}
	return err
}

func readExport(name string, each func(exported) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	dec := json.NewDecoder(bufio.NewReader(f))
	for n := 1; ; n++ {
		var e exported
		switch err := dec.Decode(&e); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%s: item %d: %w", name, n, err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
}

func (c *auditVerifyCmd) report(s *streams, order []string, verifiers map[string]*chain.Verifier) error {
	reports := []*chain.Report{}
	problems := 0
	for _, node := range order {
		r := verifiers[node].Report()
		problems += len(r.Problems)
		reports = append(reports, r)
	}
	if c.JSON {
		if err := printJSON(s, reports); err != nil {
			return err
		}
	} else {
		for _, r := range reports {
			fmt.Fprintf(s.out, "node %s: %d records, %d to %d, signed to %d by %s\n", r.Node, r.Records, r.First, r.Last, r.SignedTo, strings.Join(r.Keys, ", "))
			for _, p := range r.Problems {
				fmt.Fprintln(s.out, "  "+p)
			}
			if r.Last > 0 && len(r.Problems) == 0 {
				fmt.Fprintf(s.out, "  nothing is wrong; keep this: --anchor %s/%d=%s\n", r.Node, r.Last, r.LastHash)
			}
		}
	}
	if problems > 0 {
		return fmt.Errorf("the log is not what was written: %d problems", problems)
	}
	return nil
}
