package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"flotilla/internal/aws"
	"flotilla/internal/aws/flotilla"
	"flotilla/internal/policy/lang"
)

type policyCmd struct {
	Simulate policySimulateCmd `cmd:"" help:"Decide questions by IoT policies, of files or of a server, and say why."`
	Lint     policyLintCmd     `cmd:"" help:"Find in IoT policies what allows too much or can never match."`
}

// maxPolicyFile bounds the files that are read: the shape PolicyDocument, and questions.
const maxPolicyFile = 1 << 20

type policySimulateCmd struct {
	target `embed:""`

	Policy     []string `name:"policy" sep:"none" placeholder:"FILE" help:"Policy document; may be given several times. Without --principal and --policy-name no server is asked."`
	PolicyName []string `name:"policy-name" sep:"none" placeholder:"NAME" help:"Policy of the server, as if it were attached."`
	Principal  string   `name:"principal" help:"Certificate of the server, by ARN or id, or thing group by ARN: whatever governs it."`

	ClientID         string            `name:"client-id" help:"MQTT client id; the name of the thing if not given."`
	Thing            string            `name:"thing" help:"Name of the thing. On files it is taken to be attached; of a server it is looked up."`
	ThingType        string            `name:"thing-type" help:"Type of the thing, on files."`
	Attribute        map[string]string `name:"attribute" placeholder:"NAME=VALUE" help:"Attribute of the thing, on files."`
	Detached         bool              `name:"detached" help:"On files, the thing is not attached to the certificate."`
	Certificate      string            `name:"certificate" placeholder:"FILE" help:"Certificate (PEM) of the device, on files."`
	SourceIP         string            `name:"source-ip" help:"Address that the client comes from."`
	DomainName       string            `name:"domain-name" help:"Server name that the client asks for."`
	Protocol         string            `name:"protocol" default:"mqtt" enum:"mqtt,https" help:"mqtt or https."`
	ConnectAttribute []string          `name:"connect-attribute" help:"PersistentConnect or LastWill."`
	Time             time.Time         `name:"time" help:"Time of the question (RFC 3339); now if not given."`

	Action    string   `name:"action" help:"What is asked, iot:Publish."`
	Resource  []string `name:"resource" sep:"none" help:"About what: an ARN, topic/a/b, or a/b. May be given several times."`
	Questions string   `name:"questions" placeholder:"FILE" help:"Questions as JSON, an array or one a line: {\"action\":..., \"resource\":..., \"expect\": decision or absent}."`
	Expect    string   `name:"expect" enum:",allowed,implicit-deny,explicit-deny" default:"" help:"Fail unless this is the decision: allowed, implicit-deny or explicit-deny."`
	JSON      bool     `name:"json" help:"Print JSON."`
}

func (c *policySimulateCmd) Help() string {
	return "Examples:\n\n" +
		"  flotilla policy simulate --policy device.json --thing pump-1 --action iot:Publish --resource dt/pump-1/state\n" +
		"  flotilla policy simulate --principal 3f2a... --client-id pump-1 --action iot:Subscribe --resource 'cmd/pump-1/#'\n" +
		"  flotilla policy simulate --policy new.json --questions expected.json\n\n" +
		"Prints the decision, the statement that made it, what the policy variables were, and for a denial why each statement about the\n" +
		"action does not apply and which one is missing. A file given with --principal stands in the place of the stored policy of its\n" +
		"name (new.json: policy new). Exit code 1 when a decision is not the expected one.\n"
}

// question is a line of --questions.
type question struct {
	Action   string `json:"action"`
	Resource string `json:"resource"`
	Expect   string `json:"expect,omitempty"`
}

func (c *policySimulateCmd) Run(s *streams) error {
	questions, err := c.questions()
	if err != nil {
		return usageError{err}
	}
	documents, err := readPolicies(c.Policy)
	if err != nil {
		return err
	}
	var results []*flotilla.Simulation
	switch {
	case c.Principal != "" || len(c.PolicyName) > 0:
		results, err = c.online(documents, questions)
	case len(documents) > 0:
		results, err = c.offline(documents, questions)
	default:
		return usageError{fmt.Errorf("which policies? --policy FILE, --policy-name NAME or --principal ARN")}
	}
	if err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(s.out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		err = enc.Encode(results)
	} else {
		for _, r := range results {
			printSimulation(s.out, r)
		}
	}
	if err != nil {
		return err
	}
	wrong := 0
	for i, q := range questions {
		if q.Expect != "" && q.Expect != *results[i].Decision {
			fmt.Fprintf(s.err, "%s %s: %s, expected %s\n", q.Action, q.Resource, *results[i].Decision, q.Expect)
			wrong++
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d decisions are not the expected ones", wrong, len(questions))
	}
	return nil
}

func (c *policySimulateCmd) questions() (list []question, err error) {
	for _, r := range c.Resource {
		list = append(list, question{c.Action, r, c.Expect})
	}
	if c.Questions != "" {
		text, err := readBounded(c.Questions)
		if err != nil {
			return nil, err
		}
		more, err := parseQuestions(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Questions, err)
		}
		for i := range more {
			if more[i].Expect == "" {
				more[i].Expect = c.Expect
			}
		}
		list = append(list, more...)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("which questions? --action with --resource, or --questions FILE")
	}
	for _, q := range list {
		switch {
		case q.Action == "" || q.Resource == "":
			return nil, fmt.Errorf("a question has an action and a resource")
		case q.Expect != "" && q.Expect != "allowed" && q.Expect != "implicit-deny" && q.Expect != "explicit-deny":
			return nil, fmt.Errorf("%q is no decision: allowed, implicit-deny or explicit-deny", q.Expect)
		}
	}
	return list, nil
}

func parseQuestions(text []byte) (list []question, err error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
		err = dec.Decode(&list)
		return list, err
	}
	for {
		var q question
		switch err := dec.Decode(&q); err {
		case nil:
			list = append(list, q)
		case io.EOF:
			return list, nil
		default:
			return nil, err
		}
	}
}

func readBounded(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPolicyFile+1))
	if err == nil && len(text) > maxPolicyFile {
		err = fmt.Errorf("%s has more than %d bytes", file, maxPolicyFile)
	}
	return text, err
}

// policyFile is a document read from a file; its policy is named as the file is.
type policyFile struct {
	name, file, text string
	document         *lang.Document
}

func readPolicies(files []string) (list []policyFile, err error) {
	for _, f := range files {
		text, err := readBounded(f)
		if err != nil {
			return nil, err
		}
		d, err := lang.Parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		list = append(list, policyFile{strings.TrimSuffix(filepath.Base(f), filepath.Ext(f)), f, string(text), d})
	}
	return list, nil
}

const maxQuestions = 100 // of one request

func (c *policySimulateCmd) online(documents []policyFile, questions []question) (results []*flotilla.Simulation, err error) {
	if c.ThingType != "" || len(c.Attribute) > 0 || c.Detached || c.Certificate != "" {
		return nil, usageError{fmt.Errorf("--thing-type, --attribute, --detached and --certificate are for files: the server knows thing and certificate")}
	}
	in := flotilla.SimulatePolicyRequest{
		Principal: given(c.Principal), PolicyNames: c.PolicyName, ClientId: given(c.ClientID), ThingName: given(c.Thing), SourceIp: given(c.SourceIP),
		DomainName: given(c.DomainName), Protocol: &c.Protocol, ConnectAttributes: c.ConnectAttribute,
	}
	if !c.Time.IsZero() {
		in.Time = &aws.Time{Time: c.Time}
	}
	for _, d := range documents {
		in.Policies = append(in.Policies, &flotilla.SimulatedPolicy{PolicyName: d.name, PolicyDocument: d.text})
	}
	for len(questions) > 0 {
		n := min(len(questions), maxQuestions)
		in.Questions = nil
		for _, q := range questions[:n] {
			in.Questions = append(in.Questions, &flotilla.SimulationQuestion{Action: q.Action, Resource: q.Resource})
		}
		var out flotilla.SimulatePolicyResponse
		if err := c.call(http.MethodPost, "/policies/simulate", &in, &out); err != nil {
			return nil, err
		}
		if len(out.Results) != n {
			return nil, fmt.Errorf("the server answered %d of %d questions", len(out.Results), n)
		}
		results, questions = append(results, out.Results...), questions[n:]
	}
	return results, nil
}

// given is nil for "".
func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// said is "" for nil.
func said(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
