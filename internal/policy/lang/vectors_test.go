package lang_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"flotilla/internal/policy/lang"
)

// vector is a line of policy.jsonl; DESIGN.md par. 3 of the project's notes fixes name and format.
type vector struct {
	ID, Kind, Source, Note string

	Policies   []json.RawMessage
	Connection struct {
		Protocol, ClientID, SourceIP, DomainName string

		ConnectAttributes []string
		Thing             *struct {
			ThingName     string
			Attached      bool
			ThingTypeName string
			Attributes    map[string]string
		}
		Certificate *struct {
			CertificateID, SerialNumber                   string
			Subject, Issuer                               map[string][]string
			SubjectAlternativeName, IssuerAlternativeName map[string][]string
		}
	}
	Action, Resource string
	Document         string
	Expect           json.RawMessage
}

func (v *vector) connection() *lang.Connection {
	in := &v.Connection
	c := &lang.Connection{
		Protocol: in.Protocol, ClientID: in.ClientID, SourceIP: in.SourceIP, DomainName: in.DomainName,
		ConnectAttributes: in.ConnectAttributes,
	}
	if t := in.Thing; t != nil {
		c.Thing = &lang.Thing{Name: t.ThingName, TypeName: t.ThingTypeName, Attributes: t.Attributes, Attached: t.Attached}
	}
	if x := in.Certificate; x != nil {
		c.Certificate = &lang.Certificate{
			ID: x.CertificateID, SerialNumber: x.SerialNumber, Subject: x.Subject, Issuer: x.Issuer,
			SubjectAlternativeName: x.SubjectAlternativeName, IssuerAlternativeName: x.IssuerAlternativeName,
		}
	}
	return c
}

func (v *vector) evaluate(t *testing.T) lang.Decision {
	t.Helper()
	var named []lang.Named
	for i, p := range v.Policies {
		d, err := lang.Parse(string(p))
		if err != nil {
			t.Fatalf("policy %d: %v", i, err)
		}
		named = append(named, lang.Named{Name: string(rune('a' + i)), Document: d})
	}
	return lang.Compile(named...).Evaluate(v.connection(), v.Action, v.Resource)
}

// readVectors reads a file of the folder that FLOTILLA_VECTORS names, of testdata otherwise.
func readVectors(t testing.TB, file string) []vector {
	t.Helper()
	dir := os.Getenv("FLOTILLA_VECTORS")
	if dir == "" {
		dir = "testdata"
	}
	f, err := os.Open(filepath.Join(dir, file))
	if errors.Is(err, os.ErrNotExist) && file != "policy.jsonl" {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []vector
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<22)
	for sc.Scan() {
		var v vector
		if err := json.Unmarshal(sc.Bytes(), &v); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, v)
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

var effects = map[string]lang.Effect{
	"allow": lang.Allow, "implicitDeny": lang.ImplicitDeny, "explicitDeny": lang.ExplicitDeny,
}

func checkVector(t *testing.T, v *vector) (problem string) {
	t.Helper()
	switch v.Kind {
	case "evaluate":
		var expect string
		if err := json.Unmarshal(v.Expect, &expect); err != nil {
			t.Fatal(err)
		}
		want, ok := effects[expect]
		if !ok {
			t.Fatalf("unknown expectation %q", expect)
		}
		if got := v.evaluate(t); got.Effect != want {
			return "got " + got.Effect.String() + ", want " + want.String() + " (" + v.Note + ")"
		}
	case "validate":
		var expect struct{ Error string }
		wantOK := string(v.Expect) == `"ok"`
		if !wantOK {
			if err := json.Unmarshal(v.Expect, &expect); err != nil {
				t.Fatal(err)
			}
		}
		err := lang.Validate(v.Document)
		if wantOK != (err == nil) {
			return "got " + errText(err) + ", want " + string(v.Expect)
		}
		var m *lang.MalformedError
		if err != nil && !errors.As(err, &m) {
			return "not a MalformedError: " + err.Error()
		}
	default:
		t.Fatalf("unknown kind %q", v.Kind)
	}
	return ""
}

func errText(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}

func TestVectorsPolicy(t *testing.T) {
	for _, v := range readVectors(t, "policy.jsonl") {
		t.Run(v.ID, func(t *testing.T) {
			if p := checkVector(t, &v); p != "" {
				t.Error(p)
			}
		})
	}
}

// Vectors on which AWS's documents are silent: for information.
func TestVectorsPolicyLow(t *testing.T) {
	for _, v := range readVectors(t, "policy.low.jsonl") {
		t.Run(v.ID, func(t *testing.T) {
			if p := checkVector(t, &v); p != "" {
				t.Log(p)
			}
		})
	}
}
