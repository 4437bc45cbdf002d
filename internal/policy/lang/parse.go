package lang

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	// MaxDocumentCharacters is AWS's limit of a policy document, white space not counted.
	// AWS: https://docs.aws.amazon.com/general/latest/gr/iot-core.html#security-limits
	MaxDocumentCharacters = 2048

	// version is the only policy language version that AWS IoT takes.
	version = "2012-10-17"

	maxDocumentBytes = 404600 // constraint of the shape PolicyDocument
)

// MalformedError says why a text is not a policy document. Message is written as AWS writes the message of a
// MalformedPolicyException.
type MalformedError struct{ Message string }

func (e *MalformedError) Error() string { return e.Message }

func malformed(format string, args ...any) error {
	return &MalformedError{Message: "Policy document is Malformed: " + fmt.Sprintf(format, args...)}
}

var errSyntax = malformed("Invalid policy syntax.")

// Document is a parsed policy document. It is immutable.
type Document struct {
	ID         string
	Statements []Statement
}

// Statement is one statement of a [Document].
type Statement struct {
	Sid         string
	Deny        bool // Effect is Deny, else Allow
	Actions     []string
	NotAction   bool // Actions are those of NotAction
	Resources   []string
	NotResource bool // Resources are those of NotResource
	Conditions  []Condition
}

// Condition is one key of one operator of a Condition block, with the values it is compared with.
type Condition struct {
	Operator string // as written, "ForAnyValue:StringLikeIfExists"
	Key      string
	Values   []string
}

// Validate checks a document by the rules of CreatePolicy: [Parse], the size limit, at least one statement, and
// resources that are "*" or ARNs. The error is a *[MalformedError].
// AWS: https://docs.aws.amazon.com/iot/latest/apireference/API_CreatePolicy.html
func Validate(text string) error {
	if n := characters(text); n > MaxDocumentCharacters {
		return &MalformedError{fmt.Sprintf("Policy cannot be created - size exceeds hard limit (%d)", MaxDocumentCharacters)}
	}
	d, err := Parse(text)
	if err != nil {
		return err
	}
	if len(d.Statements) == 0 {
		return malformed("Policy has no statements")
	}
	for i := range d.Statements {
		var bad []string
		for _, r := range d.Statements[i].Resources {
			if !validResource(r) {
				bad = append(bad, r)
			}
		}
		if len(bad) > 0 {
			return malformed("The following resources are invalid : %s", strings.Join(bad, ", "))
		}
	}
	return nil
}

func characters(text string) (n int) {
	for _, r := range text {
		if !unicode.IsSpace(r) {
			n++
		}
	}
	return n
}

// validResource takes "*" and anything of an ARN's shape: arn:partition:service:region:account:resource.
func validResource(r string) bool {
	if r == "*" {
		return true
	}
	parts := strings.SplitN(r, ":", 6)
	if len(parts) < 6 {
		return len(parts) > 1 && parts[0] == "arn" && strings.HasSuffix(r, "*")
	}
	return parts[0] == "arn" && parts[5] != ""
}

// validAction takes "*" and service:name with wildcards. Variables have their place in Resource and Condition alone.
// AWS: https://docs.aws.amazon.com/iot/latest/developerguide/iot-policy-variables.html
func validAction(a string) bool {
	if a == "*" {
		return true
	}
	service, name, ok := strings.Cut(a, ":")
	return ok && service != "" && name != "" && !strings.Contains(name, ":") &&
		!strings.ContainsFunc(a, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '$' })
}

// Parse reads a policy document: JSON of the IAM policy grammar without principals, version 2012-10-17. It takes
// a Statement list that is empty, and resources of any text; [Validate] does not. The error is a *[MalformedError].
// AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
func Parse(text string) (*Document, error) {
	if len(text) > maxDocumentBytes {
		return nil, &MalformedError{fmt.Sprintf("Policy cannot be created - size exceeds hard limit (%d)", MaxDocumentCharacters)}
	}
	p := parser{dec: jsontext.NewDecoder(strings.NewReader(text))}
	d, err := p.document()
	if err != nil {
		var m *MalformedError
		if errors.As(err, &m) {
			return nil, m
		}
		return nil, errSyntax
	}
	if _, err := p.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errSyntax
	}
	return d, nil
}

// parser reads a document. jsontext refuses duplicate names and text that is not UTF-8.
type parser struct{ dec *jsontext.Decoder }

// object calls member for each name of a JSON object.
func (p *parser) object(member func(name string) error) error {
	if p.dec.PeekKind() != '{' {
		return errSyntax
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return err
	}
	for p.dec.PeekKind() != '}' {
		name, err := p.dec.ReadToken()
		if err != nil {
			return err
		}
		if err := member(name.String()); err != nil {
			return err
		}
	}
	_, err := p.dec.ReadToken()
	return err
}

func (p *parser) text() (string, error) {
	if p.dec.PeekKind() != '"' {
		return "", errSyntax
	}
	t, err := p.dec.ReadToken()
	if err != nil {
		return "", err
	}
	return t.String(), nil
}

// texts reads a string or a list of strings; with scalars, numbers and booleans stand for their text.
func (p *parser) texts(scalars bool) ([]string, error) {
	one := func() (string, error) {
		switch k := p.dec.PeekKind(); {
		case k == '"':
		case scalars && (k == 't' || k == 'f' || k == '0'):
		default:
			return "", errSyntax
		}
		t, err := p.dec.ReadToken()
		if err != nil {
			return "", err
		}
		return t.String(), nil
	}
	if p.dec.PeekKind() != '[' {
		s, err := one()
		if err != nil {
			return nil, err
		}
		return []string{s}, nil
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return nil, err
	}
	list := []string{}
	for p.dec.PeekKind() != ']' {
		s, err := one()
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	_, err := p.dec.ReadToken()
	return list, err
}

func (p *parser) document() (*Document, error) {
	d := &Document{}
	var hasVersion, hasStatement bool
	err := p.object(func(name string) (err error) {
		switch name {
		case "Version":
			hasVersion = true
			v, err := p.text()
			if err != nil {
				return err
			}
			if v != version {
				return malformed("Unknown policy document version. It must be version %s", version)
			}
		case "Id":
			d.ID, err = p.text()
			return err
		case "Statement":
			hasStatement = true
			d.Statements, err = p.statements()
			return err
		default:
			return errSyntax
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case !hasStatement:
		return nil, malformed("Policy has no statements")
	case !hasVersion:
		return nil, malformed("Unknown policy document version. It must be version %s", version)
	}
	return d, nil
}

func (p *parser) statements() ([]Statement, error) {
	if p.dec.PeekKind() == '{' { // IAM grammar: one statement may stand without its list
		s, err := p.statement()
		return []Statement{s}, err
	}
	if p.dec.PeekKind() != '[' {
		return nil, errSyntax
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return nil, err
	}
	list := []Statement{}
	for p.dec.PeekKind() != ']' {
		s, err := p.statement()
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	_, err := p.dec.ReadToken()
	return list, err
}

func (p *parser) statement() (Statement, error) {
	var s Statement
	var effect, action, notAction, resource, notResource bool
	err := p.object(func(name string) (err error) {
		switch name {
		case "Sid":
			s.Sid, err = p.text()
		case "Effect":
			effect = true
			var e string
			if e, err = p.text(); err != nil {
				return err
			}
			if e != "Allow" && e != "Deny" {
				return malformed("Invalid effect: %s", e)
			}
			s.Deny = e == "Deny"
		case "Action":
			action = true
			s.Actions, err = p.texts(false)
		case "NotAction":
			notAction, s.NotAction = true, true
			s.Actions, err = p.texts(false)
		case "Resource":
			resource = true
			s.Resources, err = p.texts(false)
		case "NotResource":
			notResource, s.NotResource = true, true
			s.Resources, err = p.texts(false)
		case "Condition":
			s.Conditions, err = p.conditions()
		default:
			return errSyntax
		}
		return err
	})
	if err != nil {
		return s, err
	}
	if !effect || action == notAction || resource == notResource || len(s.Actions) == 0 || len(s.Resources) == 0 {
		return s, errSyntax
	}
	for _, a := range s.Actions {
		if !validAction(a) {
			return s, malformed("The following actions are invalid : %s", a)
		}
	}
	for _, r := range s.Resources {
		if _, err := parseTemplate(r, true); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (p *parser) conditions() ([]Condition, error) {
	var list []Condition
	err := p.object(func(op string) error {
		o, ok := parseOperator(op)
		if !ok {
			return malformed("Invalid condition operator: %s", op)
		}
		return p.object(func(key string) error {
			values, err := p.texts(true)
			if err != nil {
				return err
			}
			if key == "" || strings.Contains(key, "${") { // variables stand in values
				return errSyntax
			}
			c := Condition{Operator: op, Key: key, Values: values}
			if _, err := compileCondition(o, c); err != nil {
				return err
			}
			list = append(list, c)
			return nil
		})
	})
	return list, err
}
